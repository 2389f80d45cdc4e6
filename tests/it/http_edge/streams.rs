//! Streamed answers, legacy sessions and GET streams.

use std::sync::Arc;
use std::time::Duration;

use bartizan_edge::http::HttpConfig;
use bartizan_gate::evidence::record::{Event, Outcome};
use tokio::sync::Notify;

use super::rig::{
    Behind, Client, LATE, Play, Rig, answer, call, chunk, json, keep_late, modern_call, post,
    result, soon, stream_end, stream_head,
};

pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}}"#;
const NOTICE: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;

pub(crate) fn begun() -> Vec<Play> {
    answer("200 OK", "Content-Type: application/json\r\nMcp-Session-Id: s-1\r\n", INITIALIZED)
}

/// A client whose `initialize` was the server's first request, and the header that names its
/// session.
pub(crate) async fn in_session(rig: &Rig) -> (Client, String) {
    let mut client = rig.client().await;
    client.send(&post("", INITIALIZE)).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (200, INITIALIZED));
    let [id] = &*reply.header("mcp-session-id") else { panic!("{}", reply.head) };
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let session = format!("Mcp-Session-Id: {id}\r\n");
    (client, session)
}

/// A server that begins sessions, and has a stream for each.
pub(super) async fn begins_sessions() -> Behind {
    Behind::start(|_, request| {
        if request.head.starts_with("POST") {
            return begun();
        }
        vec![stream_head(""), Play::Wait(Arc::new(Notify::new()))]
    })
    .await
}

/// Two sessions where only one has room: the first, which nobody uses, gives way. The second has a
/// stream. Gives the clients, the last of them that of the stream.
pub(super) async fn used_session(rig: &Rig) -> [Client; 3] {
    let (first_client, first) = in_session(rig).await;
    let (second_client, second) = in_session(rig).await;
    assert_eq!(rig.ask(&post(&first, &call(1, "get"))).await.status, 404);
    let mut stream = rig.client().await;
    stream.send(&get(&second)).await;
    assert_eq!(stream.head().await.0, 200);
    [first_client, second_client, stream]
}

pub(super) fn get(headers: &str) -> Vec<u8> {
    format!("GET /flags HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{headers}\r\n")
        .into_bytes()
}

#[tokio::test]
async fn the_open_stream_of_a_cancelled_call_keeps_its_duties() {
    // F12.
    const SECRET: &str = "AKIAQYLPMN5HFIQR7XYA";
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(move |number, _| match number {
        0 => begun(),
        1 => vec![
            stream_head(""),
            Play::Wait(Arc::clone(&wait)),
            chunk(&format!("data: {}\n\n", NOTICE.replace("\"x\"", &format!("\"{SECRET}\"")))),
            chunk(&format!("data: {}\n\n", result(1).replace("[]", &format!("\"{SECRET}\"")))),
            stream_end(),
        ],
        _ => answer("202 Accepted", "", ""),
    })
    .await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = in_session(&rig).await;
    client.send(&post(&session, &call(1, "guarded"))).await;
    assert_eq!(client.head().await.0, 200);
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert_eq!(rig.ask(&post(&session, cancel)).await.status, 202);
    let again = rig.ask(&post(&session, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)).await;
    assert_eq!(again.status, 400);
    go.notify_one();
    let mut heard = String::new();
    while let Some(chunk) = client.chunk().await {
        heard.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(heard.contains(r#""data":"[redacted]""#) && !heard.contains(SECRET), "{heard}");
    assert!(!heard.contains("\"id\""), "{heard}");
    // What was cancelled is over: the server is not told twice, nor of what it never got.
    assert_eq!(rig.ask(&post(&session, cancel)).await.status, 202);
    let other = cancel.replace(":1}", ":2}");
    assert_eq!(rig.ask(&post(&session, &other)).await.status, 202);
    assert_eq!(behind.received().len(), 3);
}

#[tokio::test]
async fn events_pass_the_moment_they_come() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(move |number, _| {
        if number > 0 {
            return json(&result(1));
        }
        vec![
            stream_head("Cache-Control: no-cache\r\nSet-Cookie: a=b\r\n"),
            chunk(": hello\r\r"),
            Play::Wait(Arc::clone(&wait)),
            chunk("retry: 90000000\rid: 1\rdata:\r\n\r\n"),
            Play::Wait(Arc::clone(&wait)),
            chunk(&format!("event: x\nid: 2\ndata: {NOTICE}")),
            chunk("\n\n"),
            Play::Wait(Arc::clone(&wait)),
            chunk("data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":1,\"result\":{\"content\":[]}}\n\n"),
            stream_end(),
        ]
    })
    .await;
    let rig = Rig::start(behind.address);
    let mut client = rig.client().await;
    client.send(&post("", &call(1, "get"))).await;
    let (status, head) = client.head().await;
    assert_eq!(status, 200);
    let head = head.to_ascii_lowercase();
    assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
    assert!(head.contains("cache-control: no-cache\r\n"), "{head}");
    assert!(head.contains("x-accel-buffering: no\r\n"), "{head}");
    assert!(!head.contains("set-cookie") && !head.contains("content-length"), "{head}");
    assert_eq!(client.event().await, ": keep-alive\n\n");
    go.notify_one();
    assert_eq!(client.event().await, "id: 1\nretry: 60000\ndata: \n\n");
    go.notify_one();
    assert_eq!(client.event().await, format!("id: 2\nevent: other\ndata: {NOTICE}\n\n"));
    go.notify_one();
    assert_eq!(
        client.event().await,
        "data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":1,\"result\":{\"content\":[]}}\n\n"
    );
    assert!(client.chunk().await.is_none());
    // Both connections serve on.
    client.send(&post("", &call(1, "get"))).await;
    assert_eq!(client.reply().await.text(), result(1));
    assert_eq!(behind.nth(2).await.connection, 0);
    assert_eq!(
        rig.sink.events(),
        [Event::Intent, Event::Notice, Event::Outcome, Event::Intent, Event::Outcome]
    );
}

#[tokio::test]
async fn the_id_of_a_withheld_event_still_reaches_the_client() {
    let behind = Behind::start(|_, _| {
        vec![
            stream_head(""),
            chunk(&format!("id: 1\nretry: 500\ndata: {}\n\n", result(9))),
            chunk(&format!("data: {}\n\n", result(8))),
            chunk(&format!("id: 2\nevent: x\ndata: {}{NOTICE}\n\n", result(1))),
            chunk(&format!("data: {}\n\n", result(1))),
        ]
    })
    .await;
    let rig = Rig::start(behind.address);
    let mut client = rig.client().await;
    client.send(&post("", &call(1, "get"))).await;
    client.head().await;
    assert_eq!(client.event().await, "id: 1\nretry: 500\ndata: \n\n");
    // Two values in one event are no frame: the call that waits here ends with an error.
    let event = client.event().await;
    assert!(event.starts_with("id: 2\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"error\""), "{event}");
    assert!(event.contains("-31006"), "{event}");
    assert!(client.chunk().await.is_none(), "nothing follows the answer");
    assert_eq!(rig.sink.outcomes(), [Outcome::Withheld]);
}

#[tokio::test]
async fn nothing_follows_the_answer() {
    let closed = Arc::new(Notify::new());
    let told = Arc::clone(&closed);
    let behind = Behind::start(move |_, _| {
        vec![
            stream_head(""),
            chunk(&format!("data: {}\n\ndata: {}\n\n", result(1), result(1))),
            Play::UntilClosed(Arc::clone(&told)),
        ]
    })
    .await;
    let rig = Rig::start(behind.address);
    let reply = rig.ask(&post("", &call(1, "get"))).await;
    assert_eq!(reply.text(), format!("data: {}\n\n", result(1)));
    soon("letting go", closed.notified()).await;
    assert_eq!(rig.sink.events(), [Event::Intent, Event::Outcome]);
}

#[tokio::test]
async fn failing_streams_end_with_an_error() {
    let large = format!("data: {}\n\n", "x".repeat(2000));
    let cases: Vec<(&str, Vec<Play>, &str)> = vec![
        ("ends", vec![stream_head(""), stream_end()], "-31005"),
        (
            "unfinished",
            vec![stream_head(""), chunk(&format!("data: {}\n", result(1))), stream_end()],
            "-31005",
        ),
        ("breaks off", vec![stream_head(""), chunk(": x\n\n"), Play::Close], "-31006"),
        ("too large", vec![stream_head(""), chunk(&large)], "-31006"),
        ("silent", vec![stream_head(""), Play::Wait(Arc::new(Notify::new()))], "in time"),
    ];
    for (name, plays, expected) in cases {
        let behind = Behind::start(move |_, _| plays.clone()).await;
        let mut config = HttpConfig::default();
        config.timeouts.idle_stream = Duration::from_millis(100);
        let rig = Rig::with(behind.address, config, |up| up.limits.event_bytes_max = 1000);
        let reply = rig.ask(&post("", &call(1, "get"))).await;
        assert!(reply.text().contains(r#"data: {"jsonrpc":"2.0","id":1,"error""#), "{name}");
        assert!(reply.text().contains(expected), "{name}: {}", reply.text());
        assert_eq!(rig.sink.outcomes(), [Outcome::UpstreamFailed], "{name}");
    }
}

#[tokio::test]
async fn a_refused_request_of_the_server_is_answered_to_it() {
    let sampling =
        r#"{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":{"messages":[]}}"#;
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(move |number, request| match number {
        0 => begun(),
        1 => vec![
            stream_head(""),
            chunk(&format!("id: 4\ndata: {sampling}\n\n")),
            Play::Wait(Arc::clone(&wait)),
            chunk(&format!("data: {}\n\n", result(1))),
            stream_end(),
        ],
        _ => {
            assert!(request.head.starts_with("POST"));
            answer("202 Accepted", "", "")
        }
    })
    .await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = in_session(&rig).await;
    client
        .send(&post(
            &format!("{session}Mcp-Method: tools/call\r\nMcp-Name: get\r\n"),
            &call(1, "get"),
        ))
        .await;
    client.head().await;
    let refused = behind.nth(3).await;
    assert_eq!(client.event().await, "id: 4\ndata: \n\n");
    let body = String::from_utf8(refused.body.clone()).unwrap();
    assert!(body.starts_with(r#"{"jsonrpc":"2.0","id":"q","error":{"code":-31001"#), "{body}");
    assert_eq!(refused.header("mcp-session-id"), ["s-1"]);
    assert_eq!(refused.header("x-upstream-key"), ["from-the-sidecar"]);
    assert!(refused.header("mcp-method").is_empty() && refused.header("mcp-name").is_empty());
    go.notify_one();
    assert_eq!(client.event().await, format!("data: {}\n\n", result(1)));
}

#[tokio::test]
async fn a_question_of_the_server_is_answered_by_the_client() {
    let question = r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#;
    let pong = r#"{"jsonrpc":"2.0","id":3,"result":{}}"#;
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(move |number, _| match number {
        0 => begun(),
        1 => vec![
            stream_head(""),
            chunk(&format!("data: {question}\n\n")),
            Play::Wait(Arc::clone(&wait)),
            chunk(&format!("data: {}\n\n", result(1))),
            stream_end(),
        ],
        _ => answer("202 Accepted", "", ""),
    })
    .await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = in_session(&rig).await;
    client.send(&post(&session, &call(1, "get"))).await;
    client.head().await;
    assert_eq!(client.event().await, format!("data: {question}\n\n"));
    // An answer that nobody asked this session for does not pass.
    let forged = pong.replace(":3,", ":4,");
    assert_eq!(rig.ask(&post(&session, &forged)).await.status, 400);
    // Nor does one from outside the session.
    assert_eq!(rig.ask(&post("", pong)).await.status, 400);
    let reply = rig.ask(&post(&session, pong)).await;
    assert_eq!((reply.status, reply.text()), (202, ""));
    assert_eq!(behind.nth(3).await.body, pong.as_bytes());
    go.notify_one();
    assert_eq!(client.event().await, format!("data: {}\n\n", result(1)));
}

#[tokio::test]
async fn sessions_begin_and_end() {
    let behind = Behind::start(|number, request| match number {
        0 => begun(),
        _ if request.head.starts_with("DELETE") => answer("200 OK", "", "bye"),
        _ => json(&result(1)),
    })
    .await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = in_session(&rig).await;
    client.send(&post(&session, &call(1, "get"))).await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(behind.nth(2).await.header("mcp-session-id"), ["s-1"]);
    let end = format!("DELETE /flags HTTP/1.1\r\nHost: localhost\r\n{session}\r\n");
    client.send(end.as_bytes()).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (200, ""));
    assert!(behind.nth(3).await.head.starts_with("DELETE /up/stream HTTP/1.1\r\n"));
    client.send(&post(&session, &call(1, "get"))).await;
    assert_eq!(client.reply().await.status, 404);
    assert_eq!(behind.received().len(), 3);
    // A modern request has no session; an id that comes along goes no further.
    let modern = String::from_utf8(modern_call(1, "get")).unwrap();
    let modern = modern.replacen("Host:", "Mcp-Session-Id: s-9\r\nHost:", 1);
    assert_eq!(rig.ask(modern.as_bytes()).await.status, 200);
    assert!(behind.nth(4).await.header("mcp-session-id").is_empty());
}

#[tokio::test]
async fn a_session_that_the_server_lost_is_forgotten() {
    let behind = Behind::start(|number, _| match number {
        0 => begun(),
        _ => answer("404 Not Found", "Content-Type: text/plain\r\n", "no session"),
    })
    .await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = in_session(&rig).await;
    client.send(&post(&session, &call(1, "get"))).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().contains("-31006")), (404, true));
    assert!(!reply.text().contains("no session"), "{}", reply.text());
    client.send(&post(&session, &call(1, "get"))).await;
    assert_eq!(client.reply().await.status, 404);
    assert_eq!(behind.received().len(), 2);
}

#[tokio::test]
async fn sessions_are_bounded() {
    let behind = begins_sessions().await;
    let mut config = HttpConfig::default();
    config.limits.sessions_max = 1;
    let rig = Rig::with(behind.address, config, |_| {});
    // One with a stream does not give way, for its own principal.
    let _clients = used_session(&rig).await;
    let reply = rig.ask(&post("", INITIALIZE)).await;
    assert_eq!(reply.status, 429);
    assert!(reply.text().contains("-31007"), "{}", reply.text());
    assert_eq!(reply.header("retry-after"), ["1"]);
    assert_eq!(behind.received().len(), 3);
    // It is no failure of the server.
    let last = rig.sink.kept().last().cloned().unwrap();
    assert_eq!(last.outcome, Some(Outcome::NotSent));
    assert!(last.note.as_deref().unwrap().starts_with("limits.sessions"), "{:?}", last.note);
}

#[tokio::test]
async fn the_legacy_stream_is_opened_resumed_and_ended() {
    let closed = Arc::new(Notify::new());
    let told = Arc::clone(&closed);
    let behind = Behind::start(move |number, _| match number {
        0 => begun(),
        _ => vec![
            stream_head(""),
            chunk(&format!("id: 8\ndata: {NOTICE}\n\n")),
            Play::UntilClosed(Arc::clone(&told)),
        ],
    })
    .await;
    let mut config = HttpConfig::default();
    // Neither deadline holds for a stream without an end.
    config.timeouts.idle_stream = Duration::from_millis(1);
    config.timeouts.answer = Duration::from_secs(1);
    config.limits.streams_max = 1;
    let rig = Rig::with(behind.address, config, |_| {});
    let (mut client, session) = in_session(&rig).await;
    client.send(&get(&session)).await;
    client.head().await;
    assert_eq!(client.event().await, format!("id: 8\ndata: {NOTICE}\n\n"));
    assert!(behind.nth(2).await.header("last-event-id").is_empty());
    let last = client.last_event();
    drop(client);
    soon("letting go", closed.notified()).await;
    let mut client = rig.client().await;
    client.send(&get(&format!("{session}{last}"))).await;
    let (status, _) = client.head().await;
    assert_eq!(status, 200);
    assert_eq!(client.event().await, format!("id: 8\ndata: {NOTICE}\n\n"));
    let received = behind.nth(3).await;
    assert!(received.head.starts_with("GET /up/stream HTTP/1.1\r\n"));
    assert_eq!(received.header("last-event-id"), ["8"]);
    assert_eq!(received.header("mcp-session-id"), ["s-1"]);
    assert!(received.header("content-type").is_empty());
    assert_eq!(rig.ask(&get(&session)).await.status, 429, "one stream at once");
    drop(client);
    soon("letting go", closed.notified()).await;

    let mut client = rig.client().await;
    client.send(&get(&session)).await;
    client.head().await;
    client.event().await;
    rig.closing.cancel();
    assert!(client.chunk().await.is_none(), "draining ends it");
    rig.drained().await;
}

/// 2025-11-25: a server may end the stream of a request; the client comes for the rest.
#[tokio::test]
async fn an_answer_comes_on_the_resumed_stream() {
    for client_leaves in [false, true] {
        let closed = Arc::new(Notify::new());
        let told = Arc::clone(&closed);
        let behind = Behind::start(move |number, _| match number {
            0 => begun(),
            1 => {
                let end =
                    if client_leaves { Play::UntilClosed(Arc::clone(&told)) } else { stream_end() };
                vec![stream_head(""), chunk("id: 1\nretry: 1000\ndata:\n\n"), end]
            }
            _ => vec![stream_head(""), chunk(&format!("id: 2\ndata: {}\n\n", result(1)))],
        })
        .await;
        let rig = Rig::start(behind.address);
        let (mut client, session) = in_session(&rig).await;
        client.send(&post(&session, &call(1, "get"))).await;
        client.head().await;
        assert_eq!(client.event().await, "id: 1\nretry: 1000\ndata: \n\n");
        let last = client.last_event();
        if client_leaves {
            drop(client);
            soon("letting go", closed.notified()).await;
            client = rig.client().await;
        } else {
            assert!(client.chunk().await.is_none());
        }
        assert_eq!(rig.sink.outcomes(), [Outcome::Ok], "only initialize has ended");
        client.send(&get(&format!("{session}{last}"))).await;
        client.head().await;
        assert_eq!(client.event().await, format!("id: 2\ndata: {}\n\n", result(1)));
        assert_eq!(rig.sink.outcomes(), [Outcome::Ok, Outcome::Accepted, Outcome::Ok]);
    }
}

#[tokio::test]
async fn a_call_that_nobody_resumes_ends_with_its_session() {
    let behind = Behind::start(|number, _| match number {
        0 => begun(),
        _ => vec![stream_head(""), chunk("id: 1\ndata:\n\n"), stream_end()],
    })
    .await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = in_session(&rig).await;
    client.send(&post(&session, &call(1, "get"))).await;
    client.reply().await;
    drop(client);
    rig.closing.cancel();
    rig.sink.outcome(Outcome::Cancelled).await;
}

#[tokio::test]
async fn a_modern_disconnect_ends_its_stream() {
    let closed = Arc::new(Notify::new());
    let told = Arc::clone(&closed);
    let behind = Behind::start(move |_, _| {
        vec![stream_head(""), chunk(": x\n\n"), Play::UntilClosed(Arc::clone(&told))]
    })
    .await;
    let rig = Rig::start(behind.address);
    let mut client = rig.client().await;
    client.send(&modern_call(1, "get")).await;
    client.head().await;
    client.event().await;
    drop(client);
    soon("letting go", closed.notified()).await;
    rig.sink.outcome(Outcome::Cancelled).await;
}

#[tokio::test]
async fn a_legacy_disconnect_lets_its_stream_run_on() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(move |_, _| {
        vec![
            stream_head(""),
            chunk(": x\n\n"),
            Play::Wait(Arc::clone(&wait)),
            chunk(&format!("data: {NOTICE}\n\n")),
            chunk(&format!("data: {}\n\n", result(1))),
            stream_end(),
        ]
    })
    .await;
    let rig = Rig::start(behind.address);
    let mut client = rig.client().await;
    client.send(&post("", &call(1, "get"))).await;
    client.head().await;
    client.event().await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(50)).await;
    go.notify_one();
    rig.sink.outcome(Outcome::Ok).await;
    rig.drained().await;
}

#[tokio::test]
async fn a_refused_stream_shows_the_status_of_the_server() {
    // What servers without such a stream say, in JSON-RPC or in words of their own.
    for (body, passes) in [
        (
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Method not allowed."},"id":null}"#,
            true,
        ),
        (r#"{"error":"no stream here"}"#, false),
    ] {
        let behind = Behind::start(move |_, _| {
            answer("405 Method Not Allowed", "Content-Type: application/json\r\n", body)
        })
        .await;
        let rig = Rig::start(behind.address);
        let reply = rig.ask(&get("")).await;
        assert_eq!((reply.status, reply.text() == body), (405, passes), "{}", reply.text());
        assert_eq!(rig.sink.outcomes(), [Outcome::Error]);
    }
}

/// A call is in the table of its session before its record is kept. What ends it on another
/// connection in between is recorded after it: else the journal would not verify.
#[tokio::test]
async fn a_call_is_recorded_before_what_ends_it() {
    // M23.
    const CANCEL: &str =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    // Of so many connections, some are served by the thread that the call does not hold.
    const OTHERS: usize = 4;
    for (outcome, cancels) in [("Cancelled", true), ("Ok", false)] {
        let go = Arc::new(Notify::new());
        let wait = Arc::clone(&go);
        let behind = Behind::start(move |number, request| match number {
            0 => begun(),
            _ if request.head.starts_with("GET") => vec![
                stream_head(""),
                Play::Wait(Arc::clone(&wait)),
                chunk(&format!("data: {}\n\n", result(1))),
                Play::Wait(Arc::new(Notify::new())),
            ],
            // The call itself is not answered: what ends it comes on the others, however late.
            _ if String::from_utf8_lossy(&request.body).contains("recorded-late") => {
                vec![Play::Wait(Arc::new(Notify::new()))]
            }
            _ => answer("202 Accepted", "", ""),
        })
        .await;
        let config = HttpConfig { threads: 2, ..HttpConfig::default() };
        let rig = Rig::with(behind.address, config, |_| {});
        rig.sink.before.set(keep_late).unwrap();
        let (_client, session) = in_session(&rig).await;
        let mut others = Vec::new();
        for _ in 0..OTHERS {
            let mut other = rig.client().await;
            if !cancels {
                other.send(&get(&session)).await;
                assert_eq!(other.head().await.0, 200);
            }
            others.push(other);
        }
        let mut caller = rig.client().await;
        caller.send(&post(&session, &call(1, "recorded-late"))).await;
        tokio::task::spawn_blocking(|| LATE.until_held()).await.unwrap();
        for other in others.iter_mut().filter(|_| cancels) {
            other.send(&post(&session, CANCEL)).await;
        }
        go.notify_waiters();
        // Without the order it is recorded now.
        tokio::time::sleep(Duration::from_millis(200)).await;
        LATE.open();
        let of_call = || {
            let lines = rig.sink.lines().into_iter();
            lines.filter(|line| line.contains("tools/call")).collect::<Vec<_>>()
        };
        soon("both records", async {
            while of_call().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let ended = format!("Outcome tools/call {outcome}");
        assert_eq!(of_call(), ["Intent tools/call -".to_owned(), ended]);
    }
}
