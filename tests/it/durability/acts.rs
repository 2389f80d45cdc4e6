//! An act happens only once its records are on the disk, where the configuration says so.

use std::sync::{Arc, Mutex};

use bartizan_audit::durability::{Durabilities, Durability};
use bartizan_audit::verify::{Extent, verify};
use bartizan_edge::Shared;
use bartizan_edge::child::{ChildLimits, ChildSpec};
use bartizan_edge::client::{Serving, StdioLimits, StdioUpstream, serve_pipes};
use bartizan_edge::http::{HttpConfig, Route};
use bartizan_edge::upstream::HttpUpstream;
use bartizan_gate::evidence::record::{AuditRecord, Event, OperationFacts, Outcome};
use bartizan_gate::evidence::step::AuditSink as _;
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::session::{Protected, RefusalForm};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::disk::{Does, Kept, settled_once};
use crate::http_edge::legacy_sse::Agent;
use crate::http_edge::rig::{
    Behind, Play, Rig, answer, call, chunk, json, modern_call, post, result, shared, soon,
    stream_head, upstream_config,
};
use crate::http_edge::streams::{INITIALIZE, INITIALIZED, begun, in_session};
use crate::journal;

/// A firewall over HTTP that records in `kept`.
pub(super) fn rig(kept: &Arc<Kept>, behind: &Behind) -> Rig {
    let [rig] = rigs(kept, behind, HttpConfig::default());
    rig
}

/// Two listeners of one firewall that records in `kept`, each with a serving thread of its own.
pub(super) fn two_listeners(kept: &Arc<Kept>, behind: &Behind) -> [Rig; 2] {
    rigs(kept, behind, HttpConfig { threads: 1, ..HttpConfig::default() })
}

#[expect(clippy::large_types_passed_by_value, reason = "tests")]
fn rigs<const N: usize>(kept: &Arc<Kept>, behind: &Behind, config: HttpConfig) -> [Rig; N] {
    let (shared, sink) = shared();
    let shared = Shared { sink: Arc::<Kept>::clone(kept), ..shared };
    std::array::from_fn(|_| {
        let upstream = HttpUpstream::new(upstream_config(behind.address)).unwrap();
        let of = (shared.clone(), Arc::clone(&sink));
        Rig::sharing(of, config, |_| upstream.into(), |route| vec![route])
    })
}

/// A server that answers, and notes how many intents and outcomes are on the disk then.
async fn noting(kept: &Arc<Kept>) -> (Behind, Arc<Mutex<Vec<usize>>>) {
    let noted: Arc<Mutex<Vec<usize>>> = Arc::default();
    let (disk, to) = (Arc::clone(&kept.disk), Arc::clone(&noted));
    let behind = Behind::start(move |_, _| {
        to.lock().unwrap().push(disk.on_disk("intent"));
        json(&result(1))
    })
    .await;
    (behind, noted)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_a_call_and_its_answer_follow_their_records_to_the_disk() {
    let kept = Kept::durable();
    let (behind, noted) = noting(&kept).await;
    let rig = rig(&kept, &behind);
    for number in 1..=3 {
        assert_eq!(rig.ask(&modern_call(1, "change")).await.text(), result(1));
        assert_eq!(kept.disk.on_disk("outcome"), number, "before the answer");
    }
    assert_eq!(*noted.lock().unwrap(), [1, 2, 3], "before the call");
    assert!(rig.ask(&modern_call(1, "denied")).await.text().contains(r#""error""#));
    assert_eq!(kept.disk.on_disk("denial"), 0, "a refusal waits for nothing");
    verify(&kept.path(), Extent::Whole).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_and_sse_too() {
    let kept = Kept::durable();
    let (behind, noted) = noting(&kept).await;
    let rig = rig(&kept, &behind);
    let mut agent = Agent::open(&rig).await;
    let opened = kept.disk.on_disk("intent");
    agent.say(&rig, &call(1, "change")).await;
    assert_eq!(agent.hear().await, result(1));
    assert_eq!(*noted.lock().unwrap(), [opened + 1]);
    assert!(kept.disk.on_disk("outcome") > 0, "before the answer");
}

/// A client on pipes, before a child that runs `script`.
struct Piped {
    to: tokio::io::WriteHalf<tokio::io::DuplexStream>,
    from: BufReader<tokio::io::ReadHalf<tokio::io::DuplexStream>>,
}

impl Piped {
    fn start(kept: &Arc<Kept>, script: &str) -> Self {
        let (shared, _) = shared();
        let shared = Shared { sink: Arc::<Kept>::clone(kept), ..shared };
        let (client, edge) = tokio::io::duplex(64 << 10);
        let (input, output) = tokio::io::split(edge);
        let spec = ChildSpec::new("sh", vec!["-c".into(), script.into()]);
        let facts = Server { name: "flags".into(), ..Server::default() };
        let tasks = shared.tasks.clone();
        let serving = Serving {
            shared,
            server: Arc::new(Protected::new(facts, RefusalForm::Error)),
            principal: Arc::new(Principal { id: "agent".into(), ..Principal::default() }),
            upstream: StdioUpstream::Child {
                spec: Box::new(spec),
                limits: Box::new(ChildLimits::default()),
            },
            limits: StdioLimits::default(),
        };
        drop(tasks.spawn(serve_pipes(serving, input, output)));
        let (from, to) = tokio::io::split(client);
        Self { to, from: BufReader::new(from) }
    }

    async fn ask(&mut self, line: &str) -> String {
        self.to.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("an answer", self.from.read_line(&mut answer)).await.unwrap();
        answer
    }
}

/// Answers each request.
const ANSWERS: &str = r#"
while read -r line; do
    id=${line#*'"id":'}
    printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "${id%%,*}"
done
"#;

#[tokio::test(flavor = "multi_thread")]
async fn over_pipes_too() {
    let kept = Kept::durable();
    let mut pipes = Piped::start(&kept, ANSWERS);
    for number in 1..=3 {
        let answer = pipes.ask(&call(u32::try_from(number).unwrap(), "change")).await;
        assert!(answer.contains(r#""result""#), "{answer}");
        let on_disk = (kept.disk.on_disk("intent"), kept.disk.on_disk("outcome"));
        assert_eq!(on_disk, (number, number));
    }
    kept.disk.flush(Does::Hangs);
    let refused = pipes.ask(&call(4, "change")).await;
    assert!(refused.contains("-31003"), "{refused}");
    kept.disk.flush(Does::Works);
    kept.mended().await;
    assert!(pipes.ask(&call(5, "change")).await.contains(r#""result""#));
    assert!(settled_once(&kept.records()));
    let sent = kept.seen.outcomes().iter().filter(|it| **it != Outcome::NotSent).count();
    assert_eq!(sent, 4, "the child got nothing of the one that was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_written_waits_for_no_disk() {
    let kept = Kept::with(Durabilities::all(Durability::Written));
    kept.disk.flush(Does::Hangs);
    let (behind, _) = noting(&kept).await;
    let rig = rig(&kept, &behind);
    assert_eq!(rig.ask(&modern_call(1, "change")).await.text(), result(1));
    assert_eq!(kept.disk.flushes(), 0);
}

fn intent(call: &str, effect: Option<&'static str>) -> AuditRecord {
    let operation = effect.map(|effect| {
        Arc::new(OperationFacts {
            name: None,
            effect,
            environments: [""; 0].into_iter().collect(),
            environment_source: "none",
            tags: [""; 0].into_iter().collect(),
            pack: None,
        })
    });
    AuditRecord { operation, ..journal::intent(call) }
}

#[tokio::test]
async fn the_effect_of_the_operation_decides_and_an_unknown_one_is_a_write() {
    let reads =
        Durabilities { read: Durability::Written, ..Durabilities::all(Durability::Durable) };
    let exec = Durabilities { exec: Durability::Durable, ..Durabilities::all(Durability::Written) };
    let unknown = |write| [None, Some("unknown"), Some("write")].map(|effect| (effect, write));
    for (durability, expected) in [
        (reads, [(Some("read"), false), (Some("destructive"), true), (Some("exec"), true)]),
        (exec, [(Some("read"), false), (Some("destructive"), false), (Some("exec"), true)]),
    ] {
        let kept = Kept::with(durability);
        let writes = durability.write == Durability::Durable;
        for (number, (effect, waits)) in expected.into_iter().chain(unknown(writes)).enumerate() {
            let call = format!("call-{number}");
            let position = kept.keep_before_act(&intent(&call, effect)).unwrap();
            assert_eq!(position.is_some(), waits, "{effect:?}");
            // The outcome is of the same call, whatever it says itself.
            let ended = kept.keep_before_act(&journal::outcome(&call)).unwrap();
            assert_eq!(ended.is_some(), waits, "{effect:?}");
            if let (Some(position), Some(ended)) = (position, ended) {
                kept.durable(position).await.unwrap();
                kept.durable(ended).await.unwrap();
            }
        }
        assert_eq!(kept.keep_before_act(&journal::denial("no")).unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flush_serves_all_who_wait_for_it() {
    let kept = Kept::durable();
    kept.disk.flush(Does::Hangs);
    let first = kept.keep_before_act(&intent("first", None)).unwrap().unwrap();
    let first = kept.durable(first);
    kept.disk.until_hanging();
    let later: Vec<_> = (0..50)
        .map(|number| kept.keep_before_act(&intent(&format!("call-{number}"), None)).unwrap())
        .map(|position| kept.durable(position.unwrap()))
        .collect();
    kept.disk.flush(Does::Works);
    first.await.unwrap();
    for waits in later {
        waits.await.unwrap();
    }
    assert_eq!(kept.disk.flushes(), 2, "the one that went on, and one for all others");
    assert_eq!(kept.disk.on_disk("intent"), 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_its_call_waits_has_it_settled_once() {
    let kept = Kept::durable();
    let (behind, _) = noting(&kept).await;
    let rig = rig(&kept, &behind);
    kept.disk.flush(Does::Hangs);
    let mut client = rig.client().await;
    client.send(&modern_call(1, "change")).await;
    kept.seen.intents(1).await;
    drop(client);
    kept.outcome(Outcome::NotSent).await;
    kept.disk.flush(Does::Works);
    kept.mended().await;
    assert_eq!(rig.ask(&modern_call(1, "change")).await.text(), result(1));
    rig.drained().await;
    assert_eq!(behind.received().len(), 1, "the server got the second call alone");
    assert!(settled_once(&kept.records()));
    assert_eq!(kept.seen.events().iter().filter(|it| **it == Event::Intent).count(), 2);
}

/// A call that its client cancels while it waits for the disk ends once, and is not made: whether the
/// client stays or leaves, and whether the disk works again or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_while_it_waits_is_not_made_and_ends_once() {
    const CANCEL: &str =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    for (leaves, then) in
        [(true, Does::Works), (false, Does::Works), (false, Does::Fails(rustix::io::Errno::IO))]
    {
        let kept = Kept::durable();
        let behind = Behind::start(|number, request| {
            let is_call = String::from_utf8_lossy(&request.body).contains("change");
            assert!(!is_call, "it was cancelled");
            if number == 0 { begun() } else { answer("202 Accepted", "", "") }
        })
        .await;
        let rig = rig(&kept, &behind);
        let (_first, session) = in_session(&rig).await;
        let intents = || kept.seen.events().iter().filter(|it| **it == Event::Intent).count();
        let before = intents();
        kept.disk.flush(Does::Hangs);
        let mut client = rig.client().await;
        client.send(&post(&session, &call(1, "change"))).await;
        kept.seen.intents(before + 1).await;
        let mut other = rig.client().await;
        other.send(&post(&session, CANCEL)).await;
        kept.outcome(Outcome::Cancelled).await;
        if leaves {
            drop(client);
            kept.disk.flush(then);
        } else {
            kept.disk.flush(then);
            assert_eq!(client.reply().await.status, 202, "nothing is owed to it");
            kept.disk.flush(Does::Works);
        }
        kept.mended().await;
        rig.drained().await;
        assert!(settled_once(&kept.records()), "{leaves} {then:?}");
        verify(&kept.path(), Extent::Whole).unwrap();
        let received = behind.received();
        assert!(received.iter().all(|it| !String::from_utf8_lossy(&it.body).contains("change")));
    }
}

/// Of a batch, what its client cancels while it waits for the disk is left out, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_that_waits_what_is_cancelled_is_left_out() {
    const CANCEL: &str =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    const QUESTION: &str = r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#;
    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":"q","result":{"roots":[]}}"#;
    let kept = Kept::durable();
    let behind = Behind::start(|_, request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if body.contains("initialize") {
            let begun = INITIALIZED.replace("2025-11-25", "2025-03-26");
            let headers = "Content-Type: application/json\r\nMcp-Session-Id: s-1\r\n";
            answer("200 OK", headers, &begun)
        } else if body.contains("asks") {
            let question = chunk(&format!("data: {QUESTION}\n\n"));
            vec![stream_head(""), question, Play::Wait(Arc::default())]
        } else if body.contains("cancelled") {
            answer("202 Accepted", "", "")
        } else {
            json(&format!("[{}]", result(2)))
        }
    })
    .await;
    let (shared, sink) = shared();
    let shared = Shared { sink: Arc::<Kept>::clone(&kept), ..shared };
    let upstream = HttpUpstream::new(upstream_config(behind.address)).unwrap();
    let rig = Rig::sharing(
        (shared, sink),
        HttpConfig::default(),
        |_| upstream.into(),
        |route| {
            let facts = Server { name: "flags".into(), ..Server::default() };
            let mut server = Protected::new(facts, RefusalForm::Error);
            server.batches = true;
            vec![Route { server: Arc::new(server), ..route }]
        },
    );
    let mut client = rig.client().await;
    client.send(&post("", &INITIALIZE.replace("2025-11-25", "2025-03-26"))).await;
    let reply = client.reply().await;
    let [id] = &*reply.header("mcp-session-id") else { panic!("{}", reply.head) };
    let session = format!("Mcp-Session-Id: {id}\r\n");
    let mut asked = rig.client().await;
    asked.send(&post(&session, &call(7, "asks"))).await;
    asked.head().await;
    assert!(asked.event().await.contains(QUESTION));
    let before = kept.seen.events().iter().filter(|it| **it == Event::Intent).count();
    kept.disk.flush(Does::Hangs);
    let both = format!("[{},{},{ANSWER}]", call(1, "change"), call(2, "change"));
    client.send(&post(&session, &both)).await;
    kept.seen.intents(before + 2).await;
    let mut other = rig.client().await;
    other.send(&post(&session, CANCEL)).await;
    kept.outcome(Outcome::Cancelled).await;
    kept.disk.flush(Does::Works);
    assert_eq!(client.reply().await.text(), format!("[{}]", result(2)));
    drop(asked);
    rig.closing.cancel();
    rig.drained().await;
    let received = behind.received();
    let batch = received.iter().find(|it| it.body.starts_with(b"[")).unwrap();
    let sent = format!("[{},{ANSWER}]", call(2, "change"));
    assert_eq!(String::from_utf8_lossy(&batch.body), sent, "not the one that was cancelled");
    assert!(settled_once(&kept.records()));
    verify(&kept.path(), Extent::Whole).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_waits_for_the_disk() {
    let kept = Kept::durable();
    let behind = Behind::start(|_, _| {
        [vec![Play::Sleep(std::time::Duration::from_millis(20))], json(&result(1))].concat()
    })
    .await;
    let rig = rig(&kept, &behind);
    let mut client = rig.client().await;
    client.send(&modern_call(1, "change")).await;
    behind.nth(1).await;
    rig.closing.cancel();
    assert_eq!(client.reply().await.text(), result(1));
    rig.drained().await;
    assert_eq!(kept.disk.on_disk("outcome"), 1);
}
