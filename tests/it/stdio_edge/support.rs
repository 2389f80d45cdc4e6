//! A gate that permits all but tools named `forbidden`, a sink that can refuse, and clients.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bartizan_edge::Shared;
use bartizan_edge::child::{ChildLimits, ChildSpec};
use bartizan_edge::client::{ExitReason, Serving, StdioLimits, StdioUpstream, serve_pipes};
use bartizan_edge::clock::Clock;
use bartizan_gate::duty::decision::Obligation;
use bartizan_gate::duty::redact::Redaction;
use bartizan_gate::question::access::{AccessRequest, Principal, Server};
use bartizan_gate::session::{Gate, GateConfig, Mode, Protected, RefusalForm};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_testing::ByName;
pub(super) use bartizan_testing::Sink;
use tokio::io::{
    AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Far more than anything here takes; a test that waits this long has failed.
pub(super) const LONG: Duration = Duration::from_mins(1);

fn judge(name: &str, _: &AccessRequest<'_>) -> Option<Vec<Obligation>> {
    assert!(name != "panics", "the test says so");
    if name == "guarded" {
        let redaction = Redaction::Secrets;
        return Some(vec![Obligation::Redact { code: "secret".into(), redaction }]);
    }
    (name != "forbidden" && name != "sampling/createMessage").then(Vec::new)
}

pub(super) fn shared() -> (Shared, Arc<Sink>) {
    let config = GateConfig {
        mode: Mode::Enforce,
        frame: FrameLimits::default(),
        in_flight_max: 64,
        buckets_max: 16,
        boot: "test".into(),
        digest_key: [7; 32],
    };
    let sink = Arc::new(Sink::default());
    let shared = Shared {
        gate: Arc::new(Gate::new(config, Arc::new(ByName::new(judge)))),
        sink: Arc::<Sink>::clone(&sink),
        clock: Clock::start(),
        aside: Arc::default(),
        tasks: TaskTracker::new(),
        closing: CancellationToken::new(),
        holding: None,
    };
    (shared, sink)
}

pub(super) fn principal(id: &str) -> Arc<Principal> {
    Arc::new(Principal { id: id.into(), ..Principal::default() })
}

pub(super) fn protected() -> Arc<Protected> {
    let facts = Server { name: "server".into(), ..Server::default() };
    Arc::new(Protected::new(facts, RefusalForm::Error))
}

/// A child that runs `script` in `sh`; `$1` is `folder`, where it may leave files.
pub(super) fn script(script: &str, folder: &Path) -> ChildSpec {
    let folder = folder.to_str().unwrap().to_owned();
    ChildSpec::new("sh", vec!["-c".into(), script.into(), "child".into(), folder])
}

/// Limits with graces short enough for a test that must see them pass.
pub(super) fn limits() -> ChildLimits {
    ChildLimits {
        close_grace: Duration::from_millis(300),
        term_grace: Duration::from_millis(300),
        ..ChildLimits::default()
    }
}

/// What `path` holds, once it holds anything that `until` likes.
pub(super) async fn file(path: &Path, until: impl Fn(&str) -> bool) -> String {
    let wait = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if until(&text) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, wait)
        .await
        .unwrap_or_else(|_| panic!("{}: {:?}", path.display(), std::fs::read(path)))
}

/// A client at the two ends of a run.
pub(super) struct Run {
    pub(super) to: Option<WriteHalf<DuplexStream>>,
    pub(super) from: BufReader<ReadHalf<DuplexStream>>,
    pub(super) sink: Arc<Sink>,
    pub(super) shared: Shared,
    reason: tokio::task::JoinHandle<ExitReason>,
}

impl Run {
    pub(super) fn start(upstream: StdioUpstream, limits: StdioLimits) -> Self {
        Self::of(shared(), upstream, limits)
    }

    /// A run that shares the gate and the sink with others.
    pub(super) fn of(
        (shared, sink): (Shared, Arc<Sink>),
        upstream: StdioUpstream,
        limits: StdioLimits,
    ) -> Self {
        let (client, edge) = tokio::io::duplex(64 << 10);
        let (input, output) = tokio::io::split(edge);
        let serving = Serving {
            shared: shared.clone(),
            server: protected(),
            principal: principal("tester"),
            upstream,
            limits,
        };
        let reason = shared.tasks.spawn(serve_pipes(serving, input, output));
        let (from, to) = tokio::io::split(client);
        Self { to: Some(to), from: BufReader::new(from), sink, shared, reason }
    }

    pub(super) fn child(spec: ChildSpec, limits: ChildLimits) -> Self {
        let upstream = StdioUpstream::Child { spec: Box::new(spec), limits: Box::new(limits) };
        Self::start(upstream, StdioLimits::default())
    }

    pub(super) async fn send(&mut self, line: impl AsRef<[u8]>) {
        let to = self.to.as_mut().unwrap();
        to.write_all(line.as_ref()).await.unwrap();
        to.write_all(b"\n").await.unwrap();
    }

    /// The next line, without its LF; `None` at the end.
    pub(super) async fn receive(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(LONG, self.from.read_line(&mut line)).await.expect("a line").unwrap();
        (read > 0).then(|| line.trim_end_matches('\n').to_owned())
    }

    /// Everything up to the end.
    pub(super) async fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.receive().await {
            lines.push(line);
        }
        lines
    }

    /// Closes the run's input.
    pub(super) async fn close(&mut self) {
        let mut to = self.to.take().unwrap();
        to.shutdown().await.unwrap();
    }

    pub(super) async fn reason(self) -> ExitReason {
        timeout(LONG, self.reason).await.expect("an end").unwrap()
    }
}
