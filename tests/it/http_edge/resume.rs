//! Legacy streams that break and are resumed: no event is lost or repeated, and each call has one
//! outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bartizan_edge::http::HttpConfig;
use bartizan_gate::evidence::record::{Event, Outcome};
use tokio::sync::Notify;

use super::rig::{
    Behind, Client, Play, Received, Rig, answer, call, chunk, post, result, soon, stream_end,
    stream_head,
};
use super::streams::{begun, get, in_session};

const PING: &str = r#"{"jsonrpc":"2.0","id":"q","method":"ping"}"#;
const PONG: &str = r#"{"jsonrpc":"2.0","id":"q","result":{}}"#;
const NOTICE: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;

fn primed() -> Play {
    chunk("id: 1\nretry: 1000\ndata:\n\n")
}

fn numbered(id: u32, data: &str) -> Play {
    chunk(&format!("id: {id}\ndata: {data}\n\n"))
}

/// A server that opens a session, primes the stream of a call and ends it there, and plays
/// `rest(n)` on the n-th GET, from 0. Answers of the client are taken.
async fn polling(rest: impl Fn(usize) -> Vec<Play> + Send + Sync + 'static) -> Behind {
    let gets = AtomicUsize::new(0);
    Behind::start(move |number, received: &Received| {
        let body = String::from_utf8_lossy(&received.body);
        if number == 0 {
            begun()
        } else if received.head.starts_with("GET") {
            let mut plays = vec![stream_head("")];
            plays.extend(rest(gets.fetch_add(1, Ordering::Relaxed)));
            plays
        } else if body.contains("\"method\"") {
            vec![stream_head(""), primed(), stream_end()]
        } else {
            answer("202 Accepted", "", "")
        }
    })
    .await
}

/// Makes a call whose stream ends after its first event: the header that resumes there.
async fn primed_call(client: &mut Client, session: &str) -> String {
    client.send(&post(session, &call(1, "get"))).await;
    client.head().await;
    assert_eq!(client.event().await, "id: 1\nretry: 1000\ndata: \n\n");
    assert!(client.chunk().await.is_none());
    client.last_event()
}

async fn resumed(rig: &Rig, session: &str, last: &str) -> Client {
    let mut client = rig.client().await;
    client.send(&get(&format!("{session}{last}"))).await;
    assert_eq!(client.head().await.0, 200);
    client
}

/// Records that say how the call of `id` ended, or that its answer passed.
fn of_call(rig: &Rig, event: Event) -> usize {
    rig.sink.events().iter().filter(|found| **found == event).count()
}

#[tokio::test]
async fn a_lost_answer_comes_again_and_ends_the_call_once() {
    let behind =
        polling(|_| vec![numbered(2, NOTICE), numbered(3, &result(1)), stream_end()]).await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = in_session(&rig).await;
    let last = primed_call(&mut client, &session).await;
    for round in 0..3 {
        let mut client = resumed(&rig, &session, &last).await;
        assert_eq!(client.event().await, format!("id: 2\ndata: {NOTICE}\n\n"));
        let after = client.last_event();
        assert_eq!(client.event().await, format!("id: 3\ndata: {}\n\n", result(1)), "{round}");
        assert!(client.chunk().await.is_none());
        assert_ne!(after, client.last_event());
    }
    let ok = rig.sink.outcomes().iter().filter(|outcome| **outcome == Outcome::Ok).count();
    assert_eq!(ok, 2, "initialize and the call, once each");
    assert_eq!(of_call(&rig, Event::Notice), 3 + 2, "each notification, and two answers again");
    assert_eq!(of_call(&rig, Event::Drop), 0);
    assert_eq!(behind.received().len(), 5, "the call was made once");
}

#[tokio::test]
async fn only_the_same_answer_comes_again_and_only_where_it_was_asked_for() {
    let other = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"x":1}}"#;
    let behind = polling(move |number| match number {
        0 => vec![numbered(2, &result(1)), stream_end()],
        // To the byte, or not at all.
        1 => vec![numbered(2, other), numbered(3, NOTICE), stream_end()],
        _ => vec![numbered(2, &result(1)), numbered(3, NOTICE), stream_end()],
    })
    .await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = in_session(&rig).await;
    let last = primed_call(&mut client, &session).await;
    resumed(&rig, &session, &last).await.event().await;
    for header in [&*last, ""] {
        let mut client = resumed(&rig, &session, header).await;
        assert_eq!(client.event().await, "id: 2\ndata: \n\n", "{header}");
        assert_eq!(client.event().await, format!("id: 3\ndata: {NOTICE}\n\n"));
    }
    assert_eq!(of_call(&rig, Event::Drop), 2);
}

#[tokio::test]
async fn an_answer_lost_with_its_connection_comes_again() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(move |number, _| match number {
        0 => begun(),
        1 => {
            vec![stream_head(""), primed(), Play::Wait(Arc::clone(&wait)), numbered(2, &result(1))]
        }
        _ => vec![stream_head(""), numbered(2, &result(1)), stream_end()],
    })
    .await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = in_session(&rig).await;
    client.send(&post(&session, &call(1, "get"))).await;
    client.head().await;
    client.event().await;
    let last = client.last_event();
    // The answer is written to a client that reads no more.
    go.notify_one();
    soon("the outcome", async {
        while rig.sink.outcomes() != [Outcome::Ok, Outcome::Ok] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(client);
    let mut client = resumed(&rig, &session, &last).await;
    assert_eq!(client.event().await, format!("id: 2\ndata: {}\n\n", result(1)));
    assert_eq!(rig.sink.outcomes(), [Outcome::Ok, Outcome::Ok, Outcome::Accepted]);
}

#[tokio::test]
async fn a_lost_question_comes_again_and_is_answered_once() {
    let behind = polling(|_| vec![numbered(2, PING), stream_end()]).await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = in_session(&rig).await;
    let last = primed_call(&mut client, &session).await;
    for _ in 0..2 {
        let mut client = resumed(&rig, &session, &last).await;
        assert_eq!(client.event().await, format!("id: 2\ndata: {PING}\n\n"));
    }
    // Outside a resumed stream a second question of the same id is none.
    let mut plain = resumed(&rig, &session, "").await;
    assert_eq!(plain.event().await, "id: 2\ndata: \n\n");
    let before = behind.received().len();
    assert_eq!(rig.ask(&post(&session, PONG)).await.status, 202);
    assert_eq!(rig.ask(&post(&session, PONG)).await.status, 400, "answered already");
    assert_eq!(behind.received().len(), before + 1);
    assert_eq!(behind.received()[before].body, PONG.as_bytes());
}

#[tokio::test]
async fn questions_on_two_streams_are_answered_apart() {
    let second = PING.replace("\"q\"", "1");
    let asked = second.clone();
    let behind = polling(move |number| {
        let question = if number == 0 { PING } else { &asked };
        vec![chunk(&format!("data: {question}\n\n")), Play::Wait(Arc::new(Notify::new()))]
    })
    .await;
    let rig = Rig::start(behind.address);
    let (_, session) = in_session(&rig).await;
    let mut one = resumed(&rig, &session, "").await;
    assert_eq!(one.event().await, format!("data: {PING}\n\n"));
    let mut two = resumed(&rig, &session, "").await;
    assert_eq!(two.event().await, format!("data: {second}\n\n"));
    // A number is no text, the client's own ids are no server's, and each is answered once.
    for (id, status) in
        [("\"1\"", 400), ("2", 400), ("1", 202), ("1", 400), ("\"q\"", 202), ("\"q\"", 400)]
    {
        let reply = rig.ask(&post(&session, &PONG.replace("\"q\"", id))).await;
        assert_eq!(reply.status, status, "{id}");
    }
    let answers: Vec<_> = behind.received().into_iter().skip(3).map(|got| got.body).collect();
    assert_eq!(answers, [PONG.replace("\"q\"", "1").into_bytes(), PONG.as_bytes().to_vec()]);
}

#[tokio::test]
async fn a_cancelled_call_is_over_wherever_its_answer_comes() {
    let behind =
        polling(|_| vec![numbered(2, &result(1)), numbered(3, NOTICE), stream_end()]).await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = in_session(&rig).await;
    let last = primed_call(&mut client, &session).await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    rig.ask(&post(&session, cancel)).await;
    assert_eq!(behind.nth(3).await.body, cancel.as_bytes());
    let mut client = resumed(&rig, &session, &last).await;
    assert_eq!(client.event().await, "id: 2\ndata: \n\n");
    assert_eq!(client.event().await, format!("id: 3\ndata: {NOTICE}\n\n"));
    assert!(rig.sink.outcomes().contains(&Outcome::Cancelled));
}

#[tokio::test]
async fn a_client_that_cannot_resume_is_not_waited_for() {
    // The client left before it got an event id, so it cannot resume. The call continues.
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(move |number, _| match number {
        0 => begun(),
        _ => vec![
            stream_head(""),
            Play::Wait(Arc::clone(&wait)),
            primed(),
            numbered(2, &result(1)),
            stream_end(),
        ],
    })
    .await;
    let rig = Rig::with(behind.address, HttpConfig::default(), |_| {});
    let (mut client, session) = in_session(&rig).await;
    client.send(&post(&session, &call(1, "get"))).await;
    client.head().await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(50)).await;
    go.notify_one();
    soon("the outcome", async {
        while rig.sink.outcomes() != [Outcome::Ok, Outcome::Ok] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
