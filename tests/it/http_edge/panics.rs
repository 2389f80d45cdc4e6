//! A panic inside a step closes its session: nothing more passes in it, waiting requests are
//! refused, and other sessions continue, also on the same connection.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bartizan_edge::child::{ChildLimits, ChildSpec, ChildUpstream};
use bartizan_edge::http::HttpConfig;
use bartizan_edge::upstream::{HttpUpstream, LegacySseLimits, LegacySseUpstream, Upstream};
use bartizan_gate::evidence::record::{Event, Outcome};
use tokio::sync::{Notify, mpsc};

use super::legacy_sse::{Agent, INITIALIZE, INITIALIZED, event, protected};
use super::rig::{
    Behind, Client, Play, Received, Reply, Rig, answer, call, json, modern_call, post, result,
    stream_head, upstream_config,
};
use super::streams::get;

/// What the client of a call is told whose session was closed meanwhile.
fn assert_refused(reply: &Reply, id: u32) {
    assert_told(reply.text(), id);
}

fn assert_told(text: &str, id: u32) {
    assert!(text.contains(&format!(r#""id":{id},"error":{{"code":-31006"#)), "{text}");
}

fn body(request: &Received) -> &str {
    std::str::from_utf8(&request.body).unwrap()
}

/// A server whose tool `slow` does not answer before `answers`.
async fn server(answers: &Arc<Notify>) -> Behind {
    let answers = Arc::clone(answers);
    Behind::start(move |number, request| {
        if request.head.starts_with("GET ") {
            return vec![stream_head(""), Play::Wait(Arc::new(Notify::new()))];
        }
        match body(request) {
            text if text.contains("initialize") => {
                let session = format!("Mcp-Session-Id: s-{number}\r\n");
                answer(
                    "200 OK",
                    &format!("Content-Type: application/json\r\n{session}"),
                    INITIALIZED,
                )
            }
            text if text.contains("slow") => {
                let mut plays = vec![Play::Wait(Arc::clone(&answers))];
                plays.extend(json(&result(1)));
                plays
            }
            _ => json(&result(1)),
        }
    })
    .await
}

/// The header that names a session which `client` has begun.
async fn begin(client: &mut Client) -> String {
    client.send(&post("", INITIALIZE)).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let [id] = &*reply.header("mcp-session-id") else { panic!("{}", reply.head) };
    format!("Mcp-Session-Id: {id}\r\n")
}

/// How often `outcome` was recorded.
fn count(rig: &Rig, outcome: &Outcome) -> usize {
    rig.sink.outcomes().iter().filter(|kept| *kept == outcome).count()
}

#[tokio::test]
async fn over_http() {
    let behind = server(&Arc::default()).await;
    let rig = Rig::start(behind.address);
    let mut client = rig.client().await;
    let (own, other) = (begin(&mut client).await, begin(&mut client).await);
    let (mut listening, mut waiting) = (rig.client().await, rig.client().await);
    listening.send(&get(&own)).await;
    assert_eq!(listening.head().await.0, 200);
    waiting.send(&post(&own, &call(1, "slow"))).await;
    behind.nth(4).await;

    client.send(&post(&own, &call(2, "panics"))).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (503, ""));
    assert_refused(&waiting.reply().await, 1);
    assert!(listening.chunk().await.is_none(), "its stream ends");
    client.send(&post(&own, &call(3, "get"))).await;
    assert_eq!(client.reply().await.status, 404, "the session is closed");
    client.send(&post(&other, &call(1, "get"))).await;
    assert_eq!(client.reply().await.text(), result(1), "another session goes on");
    // In the modern era each exchange is a session.
    client.send(&modern_call(4, "panics")).await;
    assert_eq!(client.reply().await.status, 503);
    client.send(&modern_call(1, "get")).await;
    assert_eq!(client.reply().await.text(), result(1));

    let received = behind.received();
    assert_eq!(received.len(), 6, "{received:?}");
    assert!(received.iter().all(|request| !body(request).contains("panics")));
    assert_eq!(count(&rig, &Outcome::UpstreamFailed), 1, "the slow call");
    let interrupted: Vec<_> = rig
        .sink
        .kept()
        .iter()
        .filter(|record| {
            let decision = record.decision.as_ref();
            decision.is_some_and(|it| it.reasons.iter().any(|it| *it.code == *"internal-error"))
        })
        .map(|record| (record.event, record.principal.as_deref().map(str::to_owned)))
        .collect();
    let expected = (Event::Denial, Some("agent".to_owned()));
    assert_eq!(interrupted, [expected.clone(), expected], "each step that panicked");
}

#[tokio::test]
async fn over_http_where_the_answer_cannot_be_recorded() {
    let answers = Arc::new(Notify::new());
    let behind = server(&answers).await;
    let rig = Rig::start(behind.address);
    let mut client = rig.client().await;
    let (own, other) = (begin(&mut client).await, begin(&mut client).await);
    client.send(&post(&own, &call(1, "slow"))).await;
    behind.nth(3).await;
    rig.sink.panicking.store(true, Ordering::Relaxed);
    answers.notify_one();
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (503, ""), "no record, no answer");
    client.send(&post(&other, &call(1, "get"))).await;
    assert_eq!(client.reply().await.status, 503, "no record, no call");
    rig.sink.panicking.store(false, Ordering::Relaxed);
    for session in [&own, &other] {
        client.send(&post(session, &call(1, "get"))).await;
        assert_eq!(client.reply().await.status, 404, "both are closed");
    }
    let new = begin(&mut client).await;
    client.send(&post(&new, &call(1, "get"))).await;
    assert_eq!(client.reply().await.text(), result(1));
    assert_eq!(behind.received().len(), 5);
}

#[tokio::test]
async fn over_http_sse() {
    let behind = server(&Arc::default()).await;
    let rig = Rig::start(behind.address);
    let (mut own, mut other) = (Agent::open(&rig).await, Agent::open(&rig).await);
    for agent in [&mut own, &mut other] {
        agent.say(&rig, INITIALIZE).await;
        assert_eq!(agent.hear().await, INITIALIZED);
    }
    own.say(&rig, &call(1, "slow")).await;
    behind.nth(3).await;
    let reply = own.post(&rig, &call(2, "panics")).await;
    assert_eq!((reply.status, reply.text()), (503, ""));
    assert_told(&own.hear().await, 1);
    assert!(own.stream.chunk().await.is_none(), "the stream is the session");
    assert!(matches!(own.post(&rig, &call(3, "get")).await.status, 404 | 503));
    other.say(&rig, &call(1, "get")).await;
    assert_eq!(other.hear().await, result(1));
    let received = behind.received();
    assert_eq!(received.len(), 4, "{received:?}");
    assert!(received.iter().all(|request| !body(request).contains("panics")));
    assert_eq!(count(&rig, &Outcome::UpstreamFailed), 1);
}

#[tokio::test]
async fn over_http_to_a_server_of_http_sse() {
    let (mut streams, mut relays) = (Vec::new(), VecDeque::new());
    for _ in 0..2 {
        let (events, relay) = mpsc::channel(16);
        events.try_send(event("event: endpoint\ndata: /up/messages\n\n")).unwrap();
        streams.push(events);
        relays.push_back(Play::Relay(Arc::new(Mutex::new(Some(relay)))));
    }
    let relays = Mutex::new(relays);
    let behind = Behind::start(move |_, request| {
        if request.head.starts_with("GET ") {
            let relay = relays.lock().unwrap().pop_front().unwrap();
            return vec![stream_head(""), relay];
        }
        answer("202 Accepted", "", "")
    })
    .await;
    let rig = Rig::to(HttpConfig::default(), |shared| {
        let http = HttpUpstream::new(upstream_config(behind.address)).unwrap();
        let limits = LegacySseLimits::default();
        LegacySseUpstream::new(http, limits, shared.clone()).into()
    });
    let say = |stream: usize, message: &str| {
        let event = event(&format!("event: message\ndata: {message}\n\n"));
        streams.get(stream).unwrap().try_send(event).unwrap();
    };
    let mut client = rig.client().await;
    let mut sessions = Vec::new();
    for stream in 0..2 {
        client.send(&post("", INITIALIZE)).await;
        behind.nth(2 * stream + 2).await;
        say(stream, INITIALIZED);
        let reply = client.reply().await;
        let [id] = &*reply.header("mcp-session-id") else { panic!("{}", reply.head) };
        sessions.push(format!("Mcp-Session-Id: {id}\r\n"));
    }
    let [own, other] = &*sessions else { panic!() };
    let mut waiting = rig.client().await;
    waiting.send(&post(own, &call(1, "slow"))).await;
    behind.nth(5).await;
    client.send(&post(own, &call(2, "panics"))).await;
    assert_eq!(client.reply().await.status, 503);
    assert_refused(&waiting.reply().await, 1);
    client.send(&post(own, &call(3, "get"))).await;
    assert_eq!(client.reply().await.status, 404);
    client.send(&post(other, &call(1, "get"))).await;
    behind.nth(6).await;
    say(1, &result(1));
    assert!(client.reply().await.text().contains(&result(1)));
    let received = behind.received();
    assert_eq!(received.len(), 6, "{received:?}");
    assert!(received.iter().all(|request| !body(request).contains("panics")));
}

/// A rig whose children answer all but the tool `slow`, and write what they read to `folder`.
fn children(folder: &Path) -> Rig {
    let script = format!(
        r#"while read -r line; do
            printf '%s\n' "$line" >> "$1/read"
            id=${{line##*'"id":'}}; id=${{id%%[,\}}]*}}
            case $line in
                *'"initialize"'*) echo '{INITIALIZED}' | sed "s/\"id\":0/\"id\":$id/";;
                *'"get"'*) echo '{get}' | sed "s/\"id\":0/\"id\":$id/";;
                *'"stray"'*) until [ -e "$1/go" ]; do sleep 0.01; done; echo '{stray}';;
            esac
        done"#,
        get = result(0),
        stray = result(99),
    );
    let folder = folder.to_str().unwrap().to_owned();
    Rig::to(HttpConfig::default(), |shared| {
        let spec = ChildSpec::new("sh", vec!["-c".into(), script, "child".into(), folder]);
        let limits = ChildLimits::default();
        Upstream::Child(ChildUpstream::new(spec, limits, shared.clone(), protected()))
    })
}

#[tokio::test]
async fn over_http_to_children() {
    let folder = tempfile::tempdir().unwrap();
    let rig = children(folder.path());
    let mut client = rig.client().await;
    let (own, other) = (begin(&mut client).await, begin(&mut client).await);
    let mut waiting = rig.client().await;
    waiting.send(&post(&own, &call(1, "slow"))).await;
    rig.sink.intents(3).await;
    client.send(&post(&own, &call(2, "panics"))).await;
    assert_eq!(client.reply().await.status, 503);
    assert_refused(&waiting.reply().await, 1);
    client.send(&post(&own, &call(3, "get"))).await;
    assert_eq!(client.reply().await.status, 404);
    client.send(&post(&other, &call(1, "get"))).await;
    assert_eq!(client.reply().await.text(), result(1));
    let read = std::fs::read_to_string(folder.path().join("read")).unwrap();
    assert_eq!(read.lines().count(), 4, "{read}");
    assert!(!read.contains("panics"), "{read}");
}

#[tokio::test]
async fn over_http_to_a_child_whose_stray_line_cannot_be_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let rig = children(folder.path());
    let mut client = rig.client().await;
    let (own, other) = (begin(&mut client).await, begin(&mut client).await);
    client.send(&post(&own, &call(1, "stray"))).await;
    rig.sink.intents(3).await;
    rig.sink.panicking.store(true, Ordering::Relaxed);
    std::fs::write(folder.path().join("go"), "").unwrap();
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (503, ""), "the child is ended");
    rig.sink.panicking.store(false, Ordering::Relaxed);
    client.send(&post(&other, &call(1, "get"))).await;
    assert_eq!(client.reply().await.text(), result(1), "another child goes on");
}
