//! Event streams and legacy sessions under attack (rows F1 to F10 of `docs/threats.md`): what the
//! client got, and what the server did.

#![expect(
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::Arc;
use std::time::Duration;

use bartizan_edge::http::HttpConfig;
use bartizan_gate::evidence::record::{Event, Outcome};
use tokio::sync::Notify;

use super::http_edge::rig::{
    Behind, Client, Play, Received, Reply, Rig, answer, call, chunk, json, modern_call, post,
    result, soon, stream_end, stream_head,
};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}}"#;
/// The test's policy denies it.
const SAMPLING: &str =
    r#"{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":{"messages":[]}}"#;
const NOTICE: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;

/// What a server does that mints `theirs-1`, `theirs-2`… and takes whatever it is told.
fn legacy(
    otherwise: impl Fn(&Received) -> Vec<Play> + Send + Sync + 'static,
) -> impl Fn(usize, &Received) -> Vec<Play> + Send + Sync + 'static {
    move |number, received| {
        let body = String::from_utf8_lossy(&received.body);
        if body.contains(r#""method":"initialize""#) {
            let id = format!("Mcp-Session-Id: theirs-{}\r\n", number + 1);
            answer("200 OK", &format!("Content-Type: application/json\r\n{id}"), INITIALIZED)
        } else if received.head.starts_with("POST") && !body.contains("\"method\"") {
            answer("202 Accepted", "", "")
        } else {
            otherwise(received)
        }
    }
}

/// Opens a session: the header line that names it.
async fn session(rig: &Rig) -> String {
    let reply = rig.ask(&post("", INITIALIZE)).await;
    assert_eq!((reply.status, reply.text()), (200, INITIALIZED));
    let [id] = &*reply.header("mcp-session-id") else { panic!("{}", reply.head) };
    assert!(!id.contains("theirs"), "{id}");
    format!("Mcp-Session-Id: {id}\r\n")
}

fn request(method: &str, headers: &str) -> Vec<u8> {
    format!(
        "{method} /flags HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{headers}\r\n"
    )
    .into_bytes()
}

/// Opens a GET stream.
async fn listen(rig: &Rig, headers: &str) -> Client {
    let mut client = rig.client().await;
    client.send(&request("GET", headers)).await;
    assert_eq!(client.head().await.0, 200);
    client
}

/// The `data` of every event of a whole stream.
fn data(reply: &Reply) -> Vec<String> {
    let of = |event: &str| {
        let lines: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    };
    reply.text().split_terminator("\n\n").filter_map(of).collect()
}

/// A whole stream in answer to a call, and what the client gets for it: `WITHHELD` stands for an
/// error in the answer's place.
async fn streamed(row: &str, stream: String, expected: &[&str], refused_to_server: usize) {
    let behind =
        Behind::start(legacy(move |_| vec![stream_head(""), chunk(&stream), stream_end()])).await;
    let rig = Rig::start(behind.address);
    let session = session(&rig).await;
    let reply = rig.ask(&post(&session, &call(1, "get"))).await;
    let got = data(&reply);
    assert_eq!(got.len(), expected.len(), "{row}: {}", reply.text());
    for (got, expected) in got.iter().zip(expected) {
        let withheld =
            *expected == "WITHHELD" && got.contains("-31006") && got.contains("\"id\":1");
        assert!(withheld || got == expected, "{row}: {got}");
    }
    let received = behind.received();
    assert_eq!(received.len(), 2 + refused_to_server, "{row}");
    for refusal in &received[2..] {
        let body = String::from_utf8_lossy(&refusal.body);
        assert!(body.contains(r#""id":"q","error":{"code":-31001"#), "{row}: {body}");
        assert_eq!(refusal.header("mcp-session-id"), ["theirs-1"], "{row}");
    }
}

#[tokio::test]
async fn sse_cr_nested() {
    // F1: CR ends a line, so what looks like the rest of a comment is an event of its own.
    let ok = result(1);
    for (row, stream) in [
        ("comment", format!(": hi\rdata: {SAMPLING}\r\rdata: {ok}\r\r")),
        ("id", format!("id: 1\rdata: {SAMPLING}\r\n\r\nid:\ndata: {ok}\n\n")),
        ("event", format!("event: message\rdata: {SAMPLING}\r\rdata: {ok}\n\n")),
    ] {
        let primed: &[&str] = if row == "id" { &["", &ok] } else { &[&ok] };
        streamed(row, stream, primed, 1).await;
    }
    // Inside JSON a bare CR splits the value into two lines, which are joined by LF again.
    let split = ok.replace(",\"result\"", ",\rdata: \"result\"");
    streamed("data", format!("data: {split}\r\r"), &[&split.replace("\rdata: ", "\n")], 0).await;
}

#[tokio::test]
async fn sse_two_values() {
    // F2: one value per event, however it is spread.
    let ok = result(1);
    for (row, stream) in [
        ("two lines", format!("data: {ok}\ndata: {ok}\n\n")),
        ("one line", format!("data: {NOTICE}{ok}\n\n")),
        ("batch", format!("data: [{NOTICE},{ok}]\n\n")),
        ("sequence", format!("data: {NOTICE}\ndata: {ok}\n\n")),
    ] {
        streamed(row, stream, &["WITHHELD"], 0).await;
    }
}

#[tokio::test]
async fn sse_endpoint_moves_nobody() {
    // F3: no message, so nothing passes; the client goes on at our address.
    let endpoint = "event: endpoint\ndata: http://elsewhere.example/messages\n\n";
    let quoted = "event: endpoint\ndata: \"http://elsewhere.example/messages\"\n\n";
    for stream in [endpoint, quoted] {
        streamed("in an answer", format!("{stream}data: {}\n\n", result(1)), &["WITHHELD"], 0)
            .await;
        let stream = stream.to_owned();
        let behind = Behind::start(legacy(move |_| {
            vec![stream_head(""), chunk(&stream), chunk(&format!("data: {NOTICE}\n\n"))]
        }))
        .await;
        let rig = Rig::start(behind.address);
        let session = session(&rig).await;
        let mut client = listen(&rig, &session).await;
        assert_eq!(client.event().await, format!("data: {NOTICE}\n\n"));
    }
}

#[tokio::test]
async fn sse_wrong_answers() {
    // F4.
    let (ok, foreign, text) = (result(1), result(2), result(1).replace(":1,", ":\"1\","));
    let late = format!("data: {ok}\n\ndata: {ok}\n\ndata: {NOTICE}\n\n");
    for (row, stream) in [
        ("sse-wrong-id", format!("data: {foreign}\n\ndata: {ok}\n\n")),
        ("sse-wrong-id-type", format!("data: {text}\n\ndata: {ok}\n\n")),
        ("sse-two-responses", late),
    ] {
        streamed(row, stream, &[&ok], 0).await;
    }
    // On the GET stream nobody waits for an answer at all.
    let stream = format!("data: {}\n\ndata: {NOTICE}\n\n", result(7));
    let behind = Behind::start(legacy(move |_| vec![stream_head(""), chunk(&stream)])).await;
    let rig = Rig::start(behind.address);
    let session = session(&rig).await;
    let mut client = listen(&rig, &session).await;
    assert_eq!(client.event().await, format!("data: {NOTICE}\n\n"));
    assert!(rig.sink.events().contains(&Event::Drop));
}

#[tokio::test]
async fn sse_id_is_sealed() {
    // F5: a client sees no id of the server's, and an id that no header could bring back is none.
    let stream = format!(
        "id: 7\ndata: {NOTICE}\n\nid: a\0b\ndata: {NOTICE}\n\nid: {}\ndata: {NOTICE}\n\nid: \ndata: {NOTICE}\n\n",
        "x".repeat(1025)
    );
    let behind = Behind::start(legacy(move |_| vec![stream_head(""), chunk(&stream)])).await;
    let rig = Rig::start(behind.address);
    let session = session(&rig).await;
    let mut client = listen(&rig, &session).await;
    let first = String::from_utf8(client.chunk().await.unwrap()).unwrap();
    let sealed = first.strip_prefix("id: ").and_then(|rest| rest.split_once('\n')).unwrap().0;
    assert!(sealed.len() > 20, "{first}");
    assert_eq!(client.event().await, format!("data: {NOTICE}\n\n"), "NUL");
    assert_eq!(client.event().await, format!("data: {NOTICE}\n\n"), "too long");
    assert_eq!(client.event().await, format!("id: \ndata: {NOTICE}\n\n"), "none");
}

#[tokio::test]
async fn sse_retry_is_bounded() {
    // F5.
    let huge = "9".repeat(40);
    for (asked, got) in [("0", "100"), ("1", "100"), ("500", "500"), (&*huge, "60000")] {
        let stream = format!("retry: {asked}\n\n");
        let behind = Behind::start(legacy(move |_| vec![stream_head(""), chunk(&stream)])).await;
        let rig = Rig::start(behind.address);
        let session = session(&rig).await;
        let mut client = listen(&rig, &session).await;
        assert_eq!(client.event().await, format!("retry: {got}\n\n"), "{asked}");
    }
}

#[tokio::test]
async fn seq_replay_last_event() {
    // F6: an event id is good for the principal and session that it was given to, on GET.
    let stream = format!("id: 7\ndata: {NOTICE}\n\n");
    let behind = Behind::start(legacy(move |received| {
        if received.head.starts_with("GET") {
            vec![stream_head(""), chunk(&stream), stream_end()]
        } else {
            json(&result(1))
        }
    }))
    .await;
    let rig = Rig::start(behind.address);
    let (mine, other) = (session(&rig).await, session(&rig).await);
    let mut client = listen(&rig, &mine).await;
    client.event().await;
    let last = client.last_event();
    let reached = behind.received().len();
    let sealed = last.trim_end().strip_prefix("Last-Event-ID: ").unwrap();
    let forged = [
        (&other, last.clone()),
        (&mine, "Last-Event-ID: 7\r\n".to_owned()),
        (&mine, "Last-Event-ID:\r\n".to_owned()),
        (&mine, format!("Last-Event-ID: {sealed}AAAA\r\n")),
        (&mine, format!("Last-Event-ID: {}\r\n", "A".repeat(10_000))),
        (&String::new(), last.clone()),
    ];
    for (session, header) in &forged {
        let reply = rig.ask(&request("GET", &format!("{session}{header}"))).await;
        assert_eq!(reply.status, 400, "{session}{header}");
        assert!(reply.text().contains("Event id not found"), "{}", reply.text());
    }
    let denials = rig.sink.events().iter().filter(|event| **event == Event::Denial).count();
    assert_eq!(denials, forged.len());
    // After a restart no id of before is good, and no session is.
    let restarted = Rig::start(behind.address);
    assert_eq!(restarted.ask(&request("GET", &last)).await.status, 400);
    assert_eq!(restarted.ask(&request("GET", &format!("{mine}{last}"))).await.status, 404);
    assert_eq!(behind.received().len(), reached, "none reached the server");

    listen(&rig, &format!("{mine}{last}")).await;
    let resumed = behind.nth(reached + 1).await;
    assert_eq!(resumed.header("last-event-id"), ["7"]);
    assert_eq!(resumed.header("mcp-session-id"), ["theirs-1"]);
    // It resumes nothing on a POST or in the modern era, so it goes no further there.
    assert_eq!(rig.ask(&post(&format!("{mine}{last}"), &call(1, "get"))).await.status, 200);
    let modern = format!("MCP-Protocol-Version: 2026-07-28\r\n{last}");
    rig.ask(&request("GET", &modern)).await;
    for received in &behind.received()[reached + 1..] {
        assert!(received.header("last-event-id").is_empty(), "{received:?}");
    }
    assert_eq!(behind.received().len(), reached + 3);
}

#[tokio::test]
async fn seq_session_hijack() {
    // F7: neither the server's id nor another session's id gives access; a second stream takes no
    // event from the first.
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(legacy(move |received| {
        if received.head.starts_with("DELETE") {
            return answer("200 OK", "", "");
        }
        let event = chunk(&format!("data: {NOTICE}\n\n"));
        vec![stream_head(""), event.clone(), Play::Wait(Arc::clone(&wait)), event, stream_end()]
    }))
    .await;
    let mut config = HttpConfig::default();
    config.limits.session_streams_max = 2;
    let rig = Rig::with(behind.address, config, |_| {});
    let (mine, other) = (session(&rig).await, session(&rig).await);
    for method in ["GET", "DELETE", "POST"] {
        let theirs = "Mcp-Session-Id: theirs-1\r\n";
        let asked =
            if method == "POST" { post(theirs, &call(1, "get")) } else { request(method, theirs) };
        assert_eq!(rig.ask(&asked).await.status, 404, "{method}");
    }
    assert_eq!(behind.received().len(), 2);
    let mut first = listen(&rig, &mine).await;
    let mut second = listen(&rig, &mine).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.event().await, format!("data: {NOTICE}\n\n"));
    }
    assert_eq!(rig.ask(&request("GET", &mine)).await.status, 429, "bounded, and none replaced");
    let mut third = listen(&rig, &other).await;
    third.event().await;
    let received = behind.received();
    let named: Vec<_> = received[2..].iter().map(|got| got.header("mcp-session-id")).collect();
    assert_eq!(named, [["theirs-1"], ["theirs-1"], ["theirs-2"]]);
    for _ in 0..2 {
        go.notify_one();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for client in [&mut first, &mut second] {
        assert_eq!(client.event().await, format!("data: {NOTICE}\n\n"));
        assert!(client.chunk().await.is_none());
    }
    // Ending one session ends its streams, whatever its server does, and no other's.
    let mut again = listen(&rig, &mine).await;
    again.event().await;
    assert_eq!(rig.ask(&request("DELETE", &mine)).await.status, 200);
    assert!(again.chunk().await.is_none());
    assert_eq!(rig.ask(&request("GET", &mine)).await.status, 404);
    go.notify_waiters();
    assert_eq!(third.event().await, format!("data: {NOTICE}\n\n"));
}

#[tokio::test]
async fn hdr_session_fixation() {
    // F8: an id that a client chose opens no session, not even for `initialize`.
    let behind = Behind::start(legacy(|_| json(&result(1)))).await;
    let rig = Rig::start(behind.address);
    for body in [INITIALIZE, &call(1, "get")] {
        let reply = rig.ask(&post("Mcp-Session-Id: chosen-by-the-attacker\r\n", body)).await;
        assert_eq!(reply.status, 404);
        assert!(reply.header("mcp-session-id").is_empty());
    }
    assert!(behind.received().is_empty());
    // Two servers' sessions under one id are not told apart by it, so there is no second one.
    let fixed = Behind::start(|_, _| {
        let headers = "Content-Type: application/json\r\nMcp-Session-Id: always\r\n";
        answer("200 OK", headers, INITIALIZED)
    })
    .await;
    let rig = Rig::start(fixed.address);
    session(&rig).await;
    let second = rig.ask(&post("", INITIALIZE)).await;
    assert!(second.header("mcp-session-id").is_empty(), "{}", second.head);
}

#[tokio::test]
async fn sse_infinite() {
    // F9: keep-alive comments do not extend a call beyond its time limit, the size of an event is
    // bounded, and the client gets one error for each.
    let alive = (0..400).map(|_| ": still here\n\n".to_owned());
    let growing = (0..64).map(|_| format!("data: {}", "x".repeat(1000)));
    for (pieces, told) in [(alive.collect::<Vec<_>>(), "in time"), (growing.collect(), "withheld")]
    {
        let behind = Behind::start(legacy(move |_| {
            let mut plays = vec![stream_head("")];
            for piece in &pieces {
                plays.extend([chunk(piece), Play::Sleep(Duration::from_millis(5))]);
            }
            plays
        }))
        .await;
        let mut config = HttpConfig::default();
        config.timeouts.stream = Duration::from_millis(300);
        let rig = Rig::with(behind.address, config, |up| up.limits.event_bytes_max = 4096);
        let opened = session(&rig).await;
        let reply = rig.ask(&post(&opened, &call(1, "get"))).await;
        assert_eq!(data(&reply).len(), 1, "{}", reply.text());
        assert!(data(&reply)[0].contains(told), "{}", reply.text());
        assert_eq!(rig.sink.outcomes(), [Outcome::Ok, Outcome::UpstreamFailed]);
    }
}

#[tokio::test]
async fn sse_slow_reader() {
    // F9: the connection of a client that stops reading is closed after a time limit, and its place
    // is free again.
    let behind = Behind::start(legacy(|_| {
        let text = "x".repeat(60_000);
        let event = chunk(&format!("data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{\"level\":\"info\",\"data\":\"{text}\"}}}}\n\n"));
        std::iter::once(stream_head("")).chain(vec![event; 1000]).collect()
    }))
    .await;
    let mut config = HttpConfig::default();
    config.timeouts.write = Duration::from_millis(200);
    config.limits.streams_max = 1;
    let rig = Rig::with(behind.address, config, |_| {});
    let opened = session(&rig).await;
    let slow = listen(&rig, &opened).await;
    assert_eq!(rig.ask(&request("GET", &opened)).await.status, 429);
    soon("letting go", async {
        loop {
            let mut next = rig.client().await;
            next.send(&request("GET", &opened)).await;
            if next.head().await.0 == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    drop(slow);
}

#[tokio::test]
async fn seq_upstream_reset_midsse() {
    // F10: the client gets an error, the record says so, and the call is not sent again.
    for modern in [false, true] {
        let behind = Behind::start(legacy(move |_| {
            vec![stream_head(""), chunk(&format!("data: {NOTICE}\n\n")), Play::Close]
        }))
        .await;
        let rig = Rig::start(behind.address);
        let opened = session(&rig).await;
        let asked = if modern { modern_call(1, "get") } else { post(&opened, &call(1, "get")) };
        let reply = rig.ask(&asked).await;
        let got = data(&reply);
        assert_eq!(got.len(), 2, "{}", reply.text());
        assert_eq!(got[0], NOTICE);
        assert!(got[1].starts_with(r#"{"jsonrpc":"2.0","id":1,"error":{"#), "{}", got[1]);
        assert_eq!(rig.sink.outcomes(), [Outcome::Ok, Outcome::UpstreamFailed]);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(behind.received().len(), 2, "never twice");
    }
}
