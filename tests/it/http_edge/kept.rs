//! What waits or arrives for a client is charged to its principal: unfinished events and lines, long
//! heads, sessions. Without room the one message, stream or session fails, and the record names the
//! limit (threat K15).

use std::sync::Arc;

use bartizan_edge::child::{ChildLimits, ChildSpec, ChildUpstream};
use bartizan_edge::http::HttpConfig;
use bartizan_gate::evidence::record::Outcome;
use bartizan_gate::memory::Charge;
use tokio::sync::Notify;

use super::legacy_sse::{INITIALIZE, protected};
use super::rig::{
    Behind, Client, Play, Rig, call, chunk, json, modern_call, post, result, soon, stream_head,
};
use super::streams::{begins_sessions, used_session};

/// Leaves `bytes` free, of which one principal may have half.
fn leave(rig: &Rig, bytes: usize) -> Charge {
    let memory = rig.gate.memory();
    memory.count("others", memory.bytes_max() - bytes)
}

async fn used(rig: &Rig, is: impl Fn(usize) -> bool) {
    soon("memory", async {
        while !is(rig.gate.memory().used_by("agent")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The notes of the records that have one.
fn notes(rig: &Rig) -> Vec<String> {
    rig.sink.kept().iter().filter_map(|it| it.note.as_deref().map(str::to_owned)).collect()
}

#[tokio::test]
async fn unfinished_events_are_charged_and_without_room_their_stream_ends() {
    let part = format!("data: {}", "x".repeat(400 << 10));
    let behind = Behind::start(move |_, _| {
        vec![stream_head(""), chunk(&part), Play::Wait(Arc::new(Notify::new()))]
    })
    .await;
    let rig = Rig::start(behind.address);
    let others = leave(&rig, 2 << 20);
    let mut clients = Vec::new();
    for number in 1..=2 {
        let mut client = rig.client().await;
        client.send(&modern_call(number, "get")).await;
        assert_eq!(client.head().await.0, 200);
        let least = usize::try_from(number).unwrap() * (400 << 10);
        used(&rig, |bytes| bytes >= least).await;
        clients.push(client);
    }
    let mut third = rig.client().await;
    third.send(&modern_call(3, "get")).await;
    assert_eq!(third.head().await.0, 200);
    let told = third.event().await;
    assert!(told.contains("\"id\":3,\"error\":{\"code\":-31006"), "{told}");
    assert!(third.chunk().await.is_none(), "the stream ends");
    assert!(notes(&rig).iter().any(|note| note.contains("limits.kept_bytes")), "{:?}", notes(&rig));
    assert!(rig.gate.memory().used() <= rig.gate.memory().bytes_max());
    // The others go on, and what they hold is given back with them.
    assert_eq!(rig.sink.outcomes(), [Outcome::UpstreamFailed]);
    drop((clients, third));
    used(&rig, |bytes| bytes == 0).await;
    drop(others);
    assert_eq!(rig.gate.memory().used(), 0);
}

#[tokio::test]
async fn a_large_event_is_charged_until_its_client_has_it() {
    let large = result(1).replace("[]", &format!("[\"{}\"]", "x".repeat(3_000_000)));
    let event = format!("data: {large}\n\n");
    let behind = Behind::start(move |_, _| {
        vec![stream_head(""), chunk(&event), Play::Wait(Arc::new(Notify::new()))]
    })
    .await;
    let rig = Rig::start(behind.address);
    let mut client = rig.client().await;
    client.send(&modern_call(1, "get")).await;
    assert_eq!(client.head().await.0, 200);
    let mut read = 0;
    while let Some(piece) = client.chunk().await {
        read += piece.len();
    }
    assert!(read > 3_000_000, "{read}");
    used(&rig, |bytes| bytes == 0).await;
}

async fn initialize(rig: &Rig) -> (u16, String, Client) {
    let mut client = rig.client().await;
    client.send(&post("", INITIALIZE)).await;
    let reply = client.reply().await;
    (reply.status, reply.text().to_owned(), client)
}

#[tokio::test]
async fn a_session_without_memory_is_refused_as_that() {
    let behind = begins_sessions().await;
    let rig = Rig::start(behind.address);
    let _others = leave(&rig, 18 << 10);
    let _clients = used_session(&rig).await;
    let before = behind.received().len();
    let (status, text, _client) = initialize(&rig).await;
    assert_eq!(status, 429, "{text}");
    assert!(text.contains("-31007"), "{text}");
    assert_eq!(behind.received().len(), before, "the server got nothing");
    let last = rig.sink.kept().last().cloned().unwrap();
    assert_eq!(last.outcome, Some(Outcome::NotSent));
    assert_eq!(last.error_type.as_deref(), Some("no-place"));
    assert!(last.note.as_deref().unwrap().starts_with("limits.kept_bytes"), "{:?}", last.note);
}

#[tokio::test]
async fn a_long_head_is_charged_as_long_as_its_request() {
    let behind = Behind::start(|number, _| match number {
        0 => vec![Play::Wait(Arc::new(Notify::new()))],
        _ => json(&result(1)),
    })
    .await;
    let rig = Rig::start(behind.address);
    let _others = leave(&rig, 80 << 10);
    let long = format!("X: {}\r\n", "a".repeat(30 << 10));
    let mut waiting = rig.client().await;
    waiting.send(&post(&long, &call(1, "get"))).await;
    behind.nth(1).await;
    assert!(rig.gate.memory().used_by("agent") > 30 << 10);
    let refused = rig.ask(&post(&long, &call(2, "get"))).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(rig.ask(&post("", &call(1, "get"))).await.status, 200, "a short one needs no room");
    assert_eq!(behind.received().len(), 2);
}

#[tokio::test]
async fn a_line_that_does_not_end_is_charged_and_ends_its_child() {
    let endless = r"read -r line; head -c 900000 /dev/zero | tr '\0' x; sleep 60";
    let spec = ChildSpec::new("sh", vec!["-c".into(), endless.into()]);
    let rig = Rig::to(HttpConfig::default(), |shared| {
        ChildUpstream::new(spec, ChildLimits::default(), shared.clone(), protected()).into()
    });
    let others = leave(&rig, 1 << 20);
    let (status, text, _client) = initialize(&rig).await;
    assert!(text.contains("-31005"), "{status} {text}");
    used(&rig, |bytes| bytes < 4096).await;
    drop(others);
}
