//! The firewall that `hop` and `instructions` measure: the listener, gate, policy, vendor pack and
//! journal that `bartizan run` serves with, before one server on loopback. And a reader of HTTP for
//! the clients and servers around it.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use bartizan::policy::embedded;
use bartizan_audit::durability::{Durabilities, Durability};
use bartizan_audit::journal::{Journal, JournalConfig};
use bartizan_edge::Shared;
use bartizan_edge::clock::Clock;
use bartizan_edge::http::{HttpConfig, Listener, Route};
use bartizan_edge::upstream::{HttpUpstream, HttpUpstreamConfig, HttpUpstreamLimits};
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::question::pack::Pack;
use bartizan_gate::session::{Gate, GateConfig, Mode, Protected, RefusalForm};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_rego::{Entrypoints, EvalLimits, Module, Policy, PolicySources, RegoPdp};
use http::HeaderMap;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a server answers to a `tools/call`.
pub(crate) const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":"on for a quarter of staging"}],"isError":false}}"#;

/// Rules that read arguments.
const RULES: &str = include_str!("../compare/rules.rego");

/// The baseline and [`RULES`].
fn policy() -> RegoPdp {
    // Without `limits.rego`: its rates are there to stop such traffic.
    let mut modules = embedded::baseline();
    modules.retain(|module| !module.path.ends_with("limits.rego"));
    modules.extend(embedded::decision());
    modules.push(Module { path: "rules.rego".to_owned(), text: RULES.to_owned() });
    let sources = PolicySources { modules, data: None, revision: "bench".into() };
    let policy =
        Policy::compile(&sources, &Entrypoints::default(), &EvalLimits::default()).unwrap();
    RegoPdp::compiled(policy, 2, 1024).unwrap()
}

/// A firewall that does not serve yet.
pub(crate) struct Firewall {
    tcp: TcpListener,
    route: Route,
    config: HttpConfig,
    shared: Shared,
    /// Where agents connect.
    pub(crate) address: SocketAddr,
    /// Its directory, which goes with it.
    journal: TempDir,
}

impl Firewall {
    /// One before `server`, with everything on, that serves until `closing` is cancelled. It has so
    /// many serving threads, or none beside the runtime that it is served on.
    pub(crate) fn before(server: SocketAddr, threads: usize, closing: CancellationToken) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::recording(directory, Durability::Written, server, threads, closing)
    }

    /// The same with its journal in `directory`, where its acts wait for `durability`.
    pub(crate) fn recording(
        directory: TempDir,
        durability: Durability,
        server: SocketAddr,
        threads: usize,
        closing: CancellationToken,
    ) -> Self {
        let clock = Clock::start();
        let config = JournalConfig {
            durability: Durabilities::all(durability),
            ..JournalConfig::new(directory.path())
        };
        let (journal, _) = Journal::open(&config, "bench", clock.now()).unwrap();
        let config = GateConfig {
            mode: Mode::Enforce,
            frame: FrameLimits::default(),
            in_flight_max: 64,
            buckets_max: 64,
            boot: "bench".into(),
            digest_key: [7; 32],
        };
        let shared = Shared {
            gate: Arc::new(Gate::new(config, Arc::new(policy()))),
            sink: Arc::new(journal),
            clock,
            aside: Arc::default(),
            tasks: TaskTracker::new(),
            closing,
            holding: None,
        };
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let config = HttpConfig { threads, ..HttpConfig::default() };
        Self { tcp, route: route(server), config, shared, address, journal: directory }
    }

    /// Serves, on the runtime that this is called on.
    pub(crate) async fn serve(self) {
        let Self { tcp, route, config, shared, address: _, journal: _kept } = self;
        // The listener waits for it.
        shared.tasks.close();
        let listener = Listener::new(tcp, vec![route], config, shared);
        listener.unwrap().serve().await;
    }
}

/// The demo's flag server, pinned to staging.
fn route(server: SocketAddr) -> Route {
    let pack = Pack::read(embedded::pack("flag-service").unwrap().as_bytes()).unwrap();
    let facts = Server {
        name: "flags".into(),
        environment: Some("staging".into()),
        pack: Some(Arc::new(pack)),
        ..Server::default()
    };
    let upstream = HttpUpstream::new(HttpUpstreamConfig {
        url: format!("http://{server}/mcp"),
        headers: HeaderMap::new(),
        owned_headers: Vec::new(),
        forward_authorization: false,
        context: Vec::new(),
        ca_pem: None,
        limits: HttpUpstreamLimits::default(),
    });
    Route {
        path: "/mcp".into(),
        sse_path: None,
        server: Arc::new(Protected::new(facts, RefusalForm::Error)),
        hosts: Vec::new(),
        origins: Vec::new(),
        principal: Arc::new(Principal { id: "agent".into(), ..Principal::default() }),
        upstream: upstream.unwrap().into(),
        oauth: None,
    }
}

/// Reads one HTTP message with a `Content-Length` and says whether there was one.
pub(crate) fn message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    buffer.clear();
    let mut chunk = [0_u8; 4096];
    let mut expected = None;
    loop {
        let read = stream.read(&mut chunk).unwrap_or(0);
        if read == 0 {
            return false;
        }
        buffer.extend_from_slice(&chunk[..read]);
        expected = expected.or_else(|| length(buffer));
        if expected.is_some_and(|expected| buffer.len() >= expected) {
            return true;
        }
    }
}

/// The length of the message at the start of `buffer`, if its head is complete.
fn length(buffer: &[u8]) -> Option<usize> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let body = head.split("content-length:").nth(1).unwrap().lines().next().unwrap();
    Some(end + 4 + body.trim().parse::<usize>().unwrap())
}

/// Reads up to `end`.
pub(crate) fn until(stream: &mut TcpStream, end: &[u8]) {
    let mut seen = Vec::new();
    let mut chunk = [0_u8; 4096];
    while !seen.ends_with(end) {
        let read = stream.read(&mut chunk).unwrap();
        assert_ne!(read, 0, "closed");
        seen.extend_from_slice(&chunk[..read]);
    }
}

/// One event of a long stream, of about 1 KiB, as a chunk of a body.
pub(crate) fn event() -> String {
    let event = format!(
        "id: stream-1/4711\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{\"level\":\"info\",\"data\":\"{}\"}}}}\n\n",
        "x".repeat(900)
    );
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// How an answer that is a stream of events begins.
pub(crate) const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// The request that opens a long stream.
pub(crate) const GET: &str =
    "GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
