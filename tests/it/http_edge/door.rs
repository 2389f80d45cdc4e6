//! What is refused before it is a message: nothing reaches the server, and a record says so.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bartizan_edge::http::HttpConfig;
use bartizan_gate::evidence::record::Event;

use super::rig::{Behind, Client, Rig, call, json, post, result, soon};

fn with(line: &str) -> Vec<u8> {
    post(&format!("{line}\r\n"), &call(1, "get"))
}

fn replaced(from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(post("", &call(1, "get"))).unwrap();
    assert!(text.contains(from));
    text.replacen(from, to, 1).into_bytes()
}

fn chunked(head: &str, chunks: &str) -> Vec<u8> {
    format!(
        "POST /flags HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{head}\r\n{chunks}"
    )
    .into_bytes()
}

/// Name, request, status, and whether the connection must close.
fn refused() -> Vec<(&'static str, Vec<u8>, u16, bool)> {
    let body = call(1, "get");
    let size = format!("{:x}", body.len());
    let te = "Transfer-Encoding: chunked\r\n";
    vec![
        ("path", replaced("/flags", "/flag"), 404, false),
        ("path-case", replaced("/flags", "/Flags"), 404, false),
        ("path-slashes", replaced("/flags", "//flags"), 404, false),
        ("path-dots", replaced("/flags", "/x/../flags"), 404, false),
        ("path-escaped", replaced("/flags", "/%66lags"), 404, false),
        ("path-parameter", replaced("/flags", "/flags;x"), 404, false),
        ("path-trailing", replaced("/flags", "/flags/"), 404, false),
        ("path-query", replaced("/flags", "/flags?x=y"), 404, false),
        ("path-fragment", replaced("/flags", "/flags#x"), 400, true),
        ("path-absolute-other", replaced("/flags", "http://127.0.0.1/flags"), 403, false),
        ("method-put", replaced("POST", "PUT"), 405, false),
        ("method-options", replaced("POST", "OPTIONS"), 405, false),
        ("method-get-body", replaced("POST", "GET"), 400, true),
        ("host-foreign", replaced("localhost", "evil.example"), 403, false),
        ("host-suffix", replaced("localhost", "localhost.evil.example"), 403, false),
        ("host-missing", replaced("Host: localhost\r\n", ""), 403, false),
        ("host-twice", with("Host: localhost"), 403, false),
        ("origin-foreign", with("Origin: http://localhost.evil.example"), 403, false),
        ("origin-null", with("Origin: null"), 403, false),
        ("type-missing", replaced("Content-Type: application/json\r\n", ""), 415, false),
        ("type-text", replaced("application/json\r\n", "text/plain\r\n"), 415, false),
        ("type-twice", with("Content-Type: application/json"), 415, false),
        ("type-utf7", replaced("/json\r\n", "/json; charset=utf-7\r\n"), 415, false),
        ("coding", with("Content-Encoding: gzip"), 415, false),
        ("connection-strips", with("Connection: close, MCP-Protocol-Version"), 400, true),
        ("upgrade", with("Upgrade: websocket"), 400, true),
        ("upgrade-h2c", with("Connection: Upgrade\r\nUpgrade: h2c"), 400, true),
        ("routing-twice", with("Mcp-Method: tools/call\r\nMcp-Method: tools/list"), 400, false),
        ("session-twice", with("Mcp-Session-Id: a\r\nmcp-session-id: b"), 400, false),
        ("routing-not-ascii", with("Mcp-Name: \u{e9}"), 400, false),
        ("session-unknown", with("Mcp-Session-Id: chosen-by-the-client"), 404, false),
        ("length-twice", with(&format!("Content-Length: {}", body.len())), 400, true),
        ("cl-te", chunked(&format!("Content-Length: 3\r\n{te}"), "0\r\n\r\n"), 400, true),
        ("te-cl", chunked(&format!("{te}Content-Length: 3\r\n"), "0\r\n\r\n"), 400, true),
        (
            "te-gzip",
            chunked(
                "Transfer-Encoding: gzip, chunked\r\n",
                &format!("{size}\r\n{body}\r\n0\r\n\r\n"),
            ),
            400,
            true,
        ),
        (
            "te-twice",
            chunked(&format!("{te}{te}"), &format!("{size}\r\n{body}\r\n0\r\n\r\n")),
            400,
            true,
        ),
        ("chunk-extension", chunked(te, &format!("{size};x\r\n{body}\r\n0\r\n\r\n")), 400, true),
        ("bare-lf", replaced("localhost\r\n", "localhost\n"), 400, true),
        ("too-large", post("", &" ".repeat((4 << 20) + 1)), 413, false),
    ]
}

#[tokio::test]
async fn nothing_refused_at_the_door_reaches_the_server() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    for (name, request, status, closes) in refused() {
        let rig = Rig::start(behind.address);
        let mut client = rig.client().await;
        client.send(&request).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
        assert!(reply.text().contains(r#""jsonrpc":"2.0","id":null,"error""#), "{name}");
        assert!(reply.text().contains("decision_id"), "{name}");
        assert_eq!(rig.sink.events(), [Event::Denial], "{name}");
        assert!(behind.received().is_empty(), "{name}");
        if closes {
            assert!(client.is_closed().await, "{name}");
        } else {
            // The connection is sound and serves on.
            client.send(b"POST /none HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert_eq!(client.reply().await.status, 404, "{name}");
        }
    }
}

#[tokio::test]
async fn benign_look_alikes_pass() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let rig = Rig::start(behind.address);
    let body = call(1, "get");
    let (first, second) = body.split_at(10);
    let chunks =
        format!("a\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\nMcp-Name: other\r\n\r\n", second.len());
    let requests = [
        replaced("/flags", "/flags?"),
        replaced("/flags", "http://localhost/flags"),
        replaced("localhost", "LOCALHOST:7070"),
        replaced("localhost", "[::1]:7070"),
        replaced("application/json\r\n", "Application/JSON; charset=\"UTF-8\"\r\n"),
        with("Content-Encoding: identity"),
        with("Connection: keep-alive"),
        with("Origin: http://localhost:3000"),
        with("Mcp-Method: tools/call\r\nMcp-Name: get"),
        with("X-Any: a\r\nX-Any: b"),
        chunked("Transfer-Encoding: chunked\r\n", &chunks),
    ];
    for (number, request) in requests.iter().enumerate() {
        let reply = rig.ask(request).await;
        assert_eq!((reply.status, reply.text()), (200, &*result(1)), "{number}");
        let received = behind.nth(number + 1).await;
        assert_eq!(received.body, body.as_bytes(), "{number}");
        assert!(received.head.starts_with("POST /up/stream HTTP/1.1\r\n"), "{number}");
        assert!(!received.head.contains("other"), "trailers are dropped");
    }
}

#[tokio::test]
async fn slow_requests_are_ended() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let mut config = HttpConfig::default();
    config.timeouts.header = Duration::from_millis(50);
    config.timeouts.body = Duration::from_millis(50);
    config.timeouts.idle_connection = Duration::from_millis(50);
    let rig = Rig::with(behind.address, config, |_| {});

    let mut silent = rig.client().await;
    assert!(silent.is_closed().await);

    let mut head = rig.client().await;
    head.send(b"POST /flags HTTP/1.1\r\nHost: loc").await;
    assert!(head.is_closed().await);

    let mut body = rig.client().await;
    let request = post("", &call(1, "get"));
    body.send(&request[..request.len() - 1]).await;
    assert_eq!(body.reply().await.status, 400);
    assert_eq!(rig.sink.events(), [Event::Denial; 2], "the head that did not end, too");

    let mut kept = rig.client().await;
    kept.send(&request).await;
    assert_eq!(kept.reply().await.status, 200);
    assert!(kept.is_closed().await);
    assert_eq!(behind.received().len(), 1);
}

#[tokio::test]
async fn requests_at_once_are_bounded() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let wait = std::sync::Arc::clone(&go);
    let behind = Behind::start(move |_, _| {
        let mut plays = vec![super::rig::Play::Wait(std::sync::Arc::clone(&wait))];
        plays.extend(json(&result(1)));
        plays
    })
    .await;
    let mut config = HttpConfig::default();
    config.limits.exchanges_max = 1;
    let rig = Rig::with(behind.address, config, |_| {});
    let mut first = rig.client().await;
    first.send(&post("", &call(1, "get"))).await;
    behind.nth(1).await;
    assert_eq!(rig.ask(&post("", &call(2, "get"))).await.status, 429);
    go.notify_one();
    assert_eq!(first.reply().await.status, 200);
    go.notify_one();
    assert_eq!(rig.ask(&post("", &call(1, "get"))).await.status, 200);
}

#[tokio::test]
async fn bytes_at_once_are_bounded() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let wait = std::sync::Arc::clone(&go);
    let behind = Behind::start(move |_, _| {
        let mut plays = vec![super::rig::Play::Wait(std::sync::Arc::clone(&wait))];
        plays.extend(json(&result(1)));
        plays
    })
    .await;
    let mut config = HttpConfig::default();
    config.limits.body_budget_bytes = 200;
    let rig = Rig::with(behind.address, config, |_| {});
    let long = |id| post("", &format!("{}{}", call(id, "get"), " ".repeat(100)));
    let mut first = rig.client().await;
    first.send(&long(1)).await;
    behind.nth(1).await;
    let refused = rig.ask(&long(2)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, vec!["1"]));
    go.notify_one();
    assert_eq!(first.reply().await.status, 200);
    go.notify_one();
    assert_eq!(rig.ask(&long(1)).await.status, 200);
}

#[tokio::test]
async fn without_a_record_nothing_happens() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let rig = Rig::start(behind.address);
    rig.sink.refusing.store(true, Ordering::Relaxed);
    for request in [post("", &call(1, "get")), with("Origin: null"), post("", "{}")] {
        let reply = rig.ask(&request).await;
        assert_eq!(reply.status, 503);
        assert!(reply.text().contains("-31003"), "{}", reply.text());
    }
    assert!(behind.received().is_empty());
    rig.sink.refusing.store(false, Ordering::Relaxed);
    assert_eq!(rig.ask(&post("", &call(1, "get"))).await.status, 200);
}

#[tokio::test]
async fn http2_with_prior_knowledge() {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let behind = Behind::start(|_, _| json(&result(1))).await;
    let rig = Rig::start(behind.address);
    let stream = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio_util::task::TaskTracker::new().spawn(connection);
    let request = |authority: &str, host: Option<&str>| {
        let mut request = http::Request::post(format!("http://{authority}/flags"))
            .header("content-type", "application/json");
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.body(Full::new(bytes::Bytes::from(call(1, "get")))).unwrap()
    };
    for (authority, host, status) in [
        ("localhost", None, 200),
        ("localhost", Some("localhost"), 200),
        ("localhost", Some("127.0.0.1"), 403),
        ("evil.example", None, 403),
    ] {
        let answer =
            soon("an answer", sender.send_request(request(authority, host))).await.unwrap();
        assert_eq!(answer.status(), status, "{authority} {host:?}");
        let body = soon("a body", answer.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(body == result(1), status == 200);
    }
    assert_eq!(behind.received().len(), 2);
    connection.abort();
}

#[tokio::test]
async fn draining_answers_what_is_in_progress() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let wait = std::sync::Arc::clone(&go);
    let behind = Behind::start(move |_, _| {
        let mut plays = vec![super::rig::Play::Wait(std::sync::Arc::clone(&wait))];
        plays.extend(json(&result(1)));
        plays
    })
    .await;
    let rig = Rig::start(behind.address);
    let mut idle = rig.client().await;
    let mut client: Client = rig.client().await;
    client.send(&post("", &call(1, "get"))).await;
    behind.nth(1).await;
    rig.closing.cancel();
    assert!(idle.is_closed().await);
    go.notify_one();
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (200, &*result(1)));
    assert!(client.is_closed().await);
    rig.drained().await;
    assert!(tokio::net::TcpStream::connect(rig.address).await.is_err());
}

/// The timer that the kernel runs for the firewall's end of `client` (Linux, proc(5) `/proc/net/tcp`,
/// column `tr`): 1 for retransmission, 2 for keep-alive.
#[cfg(target_os = "linux")]
fn timer_of(client: &tokio::net::TcpStream) -> Option<String> {
    let ends = [client.peer_addr(), client.local_addr()];
    let [server, client] = ends.map(|end| format!(":{:04X}", end.unwrap().port()));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = |row: &&str| {
        let mut columns = row.split_whitespace().skip(1);
        columns.next().is_some_and(|local| local.ends_with(&server))
            && columns.next().is_some_and(|remote| remote.ends_with(&client))
    };
    let timer = table.lines().find(ours)?.split_whitespace().nth(5)?;
    Some(timer.split(':').next()?.to_owned())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn half_open_connections_are_found_by_the_kernel() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let rig = Rig::start(behind.address);
    let client = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    let accepted = async {
        while timer_of(&client).as_deref() != Some("02") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("a keep-alive timer", accepted).await;
}
