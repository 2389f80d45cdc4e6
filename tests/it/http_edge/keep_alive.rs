//! Keep-alive comments on answers that take long and on quiet streams. The tests count comments,
//! never time: a server goes on when its client has seen so many of them.

#![expect(clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bartizan_edge::http::HttpConfig;
use bartizan_gate::evidence::record::{Event, Outcome};
use bartizan_gate::question::access::Server;
use bartizan_gate::session::{Protected, RefusalForm};
use bartizan_peer::client::HttpClient;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, Implementation, ProtocolVersion,
};
use rmcp::service::{ClientLifecycleMode, serve_client_with_lifecycle};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use tokio::sync::Notify;

use super::rig::{
    Behind, Play, Received, Rig, answer, call, chunk, json, modern_call, post, result, soon,
    stream_end, stream_head,
};
use super::streams::{INITIALIZE, begun, get, in_session};

const INTERVAL: Duration = Duration::from_millis(20);
const COMMENT: &str = ": keep-alive\n\n";
const NOTICE: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;

fn config() -> HttpConfig {
    let mut config = HttpConfig::default();
    config.timeouts.keep_alive = Some(INTERVAL);
    config
}

/// A server that plays `plays` for its first request once the test says so, and answers the others
/// at once.
async fn slow(plays: Vec<Play>) -> (Behind, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(move |number, _| {
        if number > 0 {
            return json(&result(u32::try_from(number).unwrap() + 1));
        }
        [vec![Play::Wait(Arc::clone(&wait))], plays.clone()].concat()
    });
    (behind.await, go)
}

/// A client of hyper's.
struct Agent {
    pool: Pool<HttpConnector, Full<Bytes>>,
    rig: String,
}

impl Agent {
    fn new(rig: &Rig, http2: bool) -> Self {
        let pool = Pool::builder(TokioExecutor::new()).http2_only(http2).build_http();
        Self { pool, rig: format!("http://{}/flags", rig.address) }
    }

    /// Sends the request whose bytes over HTTP/1 are `raw`, and waits for the head of the answer.
    async fn send(&self, raw: &[u8]) -> Heard {
        let (head, body) = std::str::from_utf8(raw).unwrap().split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let method = lines.next().unwrap().split(' ').next().unwrap();
        let mut request = Request::builder().method(method).uri(&self.rig);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            if !matches!(name, "Host" | "Content-Length") {
                request = request.header(name, value);
            }
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let response = soon("a head", self.pool.request(request)).await.unwrap();
        let (parts, body) = response.into_parts();
        Heard { status: parts.status, headers: parts.headers, body, text: String::new() }
    }
}

/// An answer that is coming.
struct Heard {
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    text: String,
}

impl Heard {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The next event or comment; `None` at the end.
    async fn event(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let Some(frame) = soon("an event", self.body.frame()).await else {
                assert_eq!(self.text, "");
                return None;
            };
            self.text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        }
    }

    async fn comments(&mut self, count: usize) {
        for number in 0..count {
            assert_eq!(self.event().await.as_deref(), Some(COMMENT), "{number}");
        }
    }

    /// The next event that is no comment; `None` at the end.
    async fn message(&mut self) -> Option<String> {
        loop {
            match self.event().await {
                Some(comment) if comment == COMMENT => {}
                other => return other,
            }
        }
    }

    /// Asserts that this is the head of a stream of events, of status 200.
    fn is_stream(&self) {
        assert_eq!(self.status, 200);
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        assert_eq!(self.header("cache-control"), Some("no-cache, no-transform"));
        assert_eq!(self.header("x-accel-buffering"), Some("no"));
        assert_eq!(self.header("content-length"), None);
    }

    async fn whole(self) -> String {
        let body = soon("a body", self.body.collect()).await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }
}

/// `request` of a client that accepts `accept`.
fn accepting(request: &[u8], accept: &str) -> Vec<u8> {
    let text = std::str::from_utf8(request).unwrap();
    text.replace("application/json, text/event-stream", accept).into_bytes()
}

/// `request` of a client that reads no event streams, so that it gets the same answer however long
/// that takes.
fn without_events(request: &[u8]) -> Vec<u8> {
    accepting(request, "application/json")
}

/// Waits on a connection of its own until its client has seen `count` comments.
async fn comments_pass(count: usize) {
    let (behind, _go) = slow(vec![]).await;
    let rig = Rig::with(behind.address, config(), |_| {});
    let mut other = Agent::new(&rig, false).send(&post("", &call(1, "get"))).await;
    other.comments(count).await;
}

#[tokio::test]
async fn an_answer_that_takes_long_comes_after_comments() {
    for http2 in [false, true] {
        for request in [post("", &call(1, "get")), modern_call(1, "get")] {
            let (behind, go) = slow(json(&result(1))).await;
            let rig = Rig::with(behind.address, config(), |_| {});
            let agent = Agent::new(&rig, http2);
            let mut heard = agent.send(&request).await;
            heard.is_stream();
            heard.comments(3).await;
            assert_eq!(rig.sink.events(), [Event::Intent], "nothing is released");
            go.notify_one();
            assert_eq!(heard.message().await, Some(format!("data: {}\n\n", result(1))));
            assert_eq!(rig.sink.outcomes(), [Outcome::Ok]);
            assert_eq!(heard.event().await, None);
            // The connection serves on.
            let next = agent.send(&without_events(&post("", &call(2, "get")))).await;
            assert_eq!(next.header("content-type"), Some("application/json"));
            assert_eq!(next.whole().await, result(2));
            assert_eq!(behind.received().len(), 2);
        }
    }
}

#[tokio::test]
async fn a_late_answer_is_one_data_line_whatever_its_white_space_and_size() {
    let filler = "\"x\",\r\n\t".repeat(200_000);
    for http2 in [false, true] {
        for items in ["", "1,\n 2,\r\n", &filler] {
            let sent = result(1).replace("[]", &format!("[],\r\"n\": [\n{items}null]\n"));
            let (behind, go) = slow(json(&sent)).await;
            let rig = Rig::with(behind.address, config(), |_| {});
            let mut heard = Agent::new(&rig, http2).send(&modern_call(1, "get")).await;
            heard.comments(1).await;
            go.notify_one();
            let expected = format!("data: {}\n\n", sent.replace(['\r', '\n'], " "));
            assert!(heard.message().await.unwrap() == expected, "{} bytes", items.len());
            assert_eq!(heard.event().await, None);
        }
    }
}

/// What the server answers after the head was sent, and the code and a part of the text that the
/// client then gets.
#[tokio::test]
async fn a_late_failure_is_told_as_an_error() {
    let own = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32011,"message":"theirs"}}"#;
    let nobodys =
        "{ \"error\" : {\"code\":-32000,\n\"message\":\"no\"},\n\"id\":null,\"jsonrpc\":\"2.0\"}";
    let json_type = "Content-Type: application/json\r\n";
    let challenge = "WWW-Authenticate: Bearer scope=\"x\"\r\n";
    let cases = [
        ("their own error", answer("400 Bad Request", json_type, own), "-32011"),
        ("their error without an id", answer("400 Bad Request", json_type, nobodys), "-32000"),
        ("their error without an id as 200", json(nobodys), "-32000"),
        ("a page", answer("500 Oops", "Content-Type: text/html\r\n", "<p>"), "-31006"),
        ("nothing", answer("503 Unavailable", "Retry-After: 9\r\n", ""), "-31005"),
        ("a challenge", answer("401 Unauthorized", challenge, ""), "-31005"),
        ("no session", answer("404 Not Found", "", ""), "-31005"),
        ("a redirect", answer("307 Elsewhere", "Location: http://x/\r\n", ""), "-3100"),
        ("accepted", answer("202 Accepted", "", ""), "-31005"),
        ("broken off", vec![Play::Close], "-31005"),
        ("no JSON", answer("200 OK", json_type, "{"), "-31006"),
        ("another id", json(&result(9)), "-31005"),
        ("an empty body", answer("200 OK", json_type, ""), "-31005"),
        ("a broken stream", vec![stream_head(""), stream_end()], "-31005"),
    ];
    for (what, plays, code) in cases {
        for http2 in [false, true] {
            let (behind, go) = slow(plays.clone()).await;
            let rig = Rig::with(behind.address, config(), |_| {});
            let mut heard = Agent::new(&rig, http2).send(&post("", &call(1, "get"))).await;
            heard.comments(2).await;
            go.notify_one();
            let told = heard.message().await.unwrap_or_else(|| panic!("{what}: lost"));
            let begin = r#"data: {"jsonrpc":"2.0","id":1,"error":{"code":"#;
            assert!(told.starts_with(begin) && told.contains(code), "{what}: {told}");
            assert!(!told.contains("<p>") && told.ends_with("}\n\n"), "{what}: {told}");
            assert_eq!(heard.event().await, None, "{what}");
            assert_eq!(rig.sink.outcomes().len(), 1, "{what}");
        }
    }
}

#[tokio::test]
async fn the_time_for_an_answer_ends_also_after_comments() {
    let (behind, _go) = slow(vec![]).await;
    let mut config = config();
    config.timeouts.answer = INTERVAL * 10;
    let rig = Rig::with(behind.address, config, |_| {});
    let mut heard = Agent::new(&rig, false).send(&post("", &call(1, "get"))).await;
    heard.comments(3).await;
    let told = heard.message().await.unwrap();
    assert!(told.contains("Server did not answer in time"), "{told}");
    assert_eq!(heard.event().await, None);
    assert_eq!(rig.sink.outcomes(), [Outcome::UpstreamFailed]);
}

#[tokio::test]
async fn a_late_404_in_a_session_ends_the_session() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(move |number, _| match number {
        0 => begun(),
        _ => [vec![Play::Wait(Arc::clone(&wait))], answer("404 Not Found", "", "")].concat(),
    })
    .await;
    let rig = Rig::with(behind.address, config(), |_| {});
    let (mut client, session) = in_session(&rig).await;
    client.send(&post(&session, &call(1, "get"))).await;
    assert_eq!(client.head().await.0, 200);
    assert_eq!(client.event().await, COMMENT);
    go.notify_one();
    let mut told = String::new();
    while let Some(chunk) = client.chunk().await {
        told.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(told.contains("-31005"), "{told}");
    // The next request says it in its status, which makes clients initialize again.
    client.send(&post(&session, &call(2, "get"))).await;
    assert_eq!(client.reply().await.status, 404);
}

#[tokio::test]
async fn a_late_batch_is_one_event() {
    let calls = format!("[{},{}]", call(1, "get"), call(2, "get"));
    let answers = format!("[{},\n{}]", result(2), result(1));
    for (plays, expected) in [
        (json(&answers), answers.replace('\n', " ")),
        (answer("502 Bad Gateway", "", ""), "-31005".to_owned()),
    ] {
        let (behind, go) = slow(plays).await;
        let upstream = super::rig::upstream_config(behind.address);
        let rig = Rig::of(
            config(),
            |_| bartizan_edge::upstream::HttpUpstream::new(upstream).unwrap().into(),
            |mut route| {
                let facts = Server { name: "flags".into(), ..Server::default() };
                let mut server = Protected::new(facts, RefusalForm::Error);
                server.batches = true;
                route.server = Arc::new(server);
                vec![route]
            },
        );
        let request = post("MCP-Protocol-Version: 2025-03-26\r\n", &calls);
        let mut heard = Agent::new(&rig, false).send(&request).await;
        heard.comments(2).await;
        go.notify_one();
        let told = heard.message().await.unwrap();
        assert!(told.starts_with("data: [{") && told.contains(&expected), "{told}");
        for id in [1, 2] {
            assert!(told.contains(&format!("\"id\":{id}")), "{told}");
        }
        assert_eq!(heard.event().await, None);
    }
}

#[tokio::test]
async fn a_late_stream_goes_through() {
    for http2 in [false, true] {
        let again = Arc::new(Notify::new());
        let (behind, go) = slow(vec![
            stream_head("Cache-Control: no-store\r\n"),
            chunk(&format!("id: 4\ndata: {NOTICE}\n\n")),
            Play::Wait(Arc::clone(&again)),
            chunk(&format!("data: {}\n\n", result(1))),
            stream_end(),
        ])
        .await;
        let rig = Rig::with(behind.address, config(), |_| {});
        let mut heard = Agent::new(&rig, http2).send(&post("", &call(1, "get"))).await;
        heard.is_stream();
        heard.comments(2).await;
        go.notify_one();
        let event = heard.message().await.unwrap();
        assert!(event.starts_with("id: ") && event.contains(NOTICE), "{event}");
        heard.comments(3).await;
        again.notify_one();
        assert_eq!(heard.message().await, Some(format!("data: {}\n\n", result(1))));
        assert_eq!(heard.event().await, None);
    }
}

#[tokio::test]
async fn a_quiet_stream_gets_comments_between_its_events() {
    let event = |text: &str| chunk(&format!("data: {text}\n\n"));
    for http2 in [false, true] {
        // The stream of a request, and the legacy stream of a server's messages.
        for (request, last) in [(post("", &call(1, "get")), result(1)), (get(""), NOTICE.into())] {
            let go = Arc::new(Notify::new());
            let wait = Play::Wait(Arc::clone(&go));
            let plays = vec![
                stream_head(""),
                wait.clone(),
                event(NOTICE),
                wait.clone(),
                event(&last),
                stream_end(),
            ];
            let behind = Behind::start(move |_, _| plays.clone()).await;
            let rig = Rig::with(behind.address, config(), |_| {});
            let mut heard = Agent::new(&rig, http2).send(&request).await;
            heard.comments(3).await;
            go.notify_one();
            assert_eq!(heard.message().await, Some(format!("data: {NOTICE}\n\n")));
            heard.comments(3).await;
            go.notify_one();
            assert_eq!(heard.message().await, Some(format!("data: {last}\n\n")));
        }
    }
}

#[tokio::test]
async fn an_http_sse_stream_gets_comments_and_its_posts_do_not() {
    let (behind, _go) = slow(vec![]).await;
    let rig = Rig::with(behind.address, config(), |_| {});
    let mut client = rig.client().await;
    let open = String::from_utf8(get("")).unwrap().replace("/flags", "/flags/sse");
    client.send(open.as_bytes()).await;
    assert_eq!(client.head().await.0, 200);
    let endpoint = client.event().await;
    let path = endpoint.split_once("data: ").unwrap().1.trim();
    let message = String::from_utf8(post("", &call(1, "get"))).unwrap();
    let reply = rig.ask(message.replace("/flags", path).as_bytes()).await;
    assert_eq!((reply.status, reply.text()), (202, ""));
    for _ in 0..3 {
        assert_eq!(client.event().await, COMMENT);
    }
}

/// Who gets no comments: clients that read JSON alone, `initialize`, whose answer names the session
/// in its head, `server/discover`, whose status tells the era, what has no answer, and all where they
/// are off.
#[tokio::test]
async fn some_answers_get_no_comments() {
    let only = |accept: &str| accepting(&modern_call(1, "get"), accept);
    let told = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let discover = String::from_utf8(modern_call(1, "get")).unwrap();
    let discover =
        discover.replace("tools/call", "server/discover").replace("Mcp-Name: get\r\n", "");
    let discover = discover.replace("\"name\":\"get\",\"arguments\":{},", "");
    let mut off = config();
    off.timeouts.keep_alive = None;
    for http2 in [false, true] {
        for (what, request, plays, config) in [
            ("JSON", only("application/json"), json(&result(1)), config()),
            ("anything", only("*/*"), json(&result(1)), config()),
            (
                "no events",
                only("application/json, text/event-stream;q=0"),
                json(&result(1)),
                config(),
            ),
            ("initialize", post("", INITIALIZE), begun(), config()),
            (
                "discover",
                discover.clone().into_bytes(),
                answer("400 Bad Request", "", ""),
                config(),
            ),
            ("a notification", post("", told), answer("202 Accepted", "", ""), config()),
            ("off", modern_call(1, "get"), json(&result(1)), off),
        ] {
            let (behind, go) = slow(plays).await;
            let rig = Rig::with(behind.address, config, |_| {});
            let agent = Agent::new(&rig, http2);
            let release = async {
                comments_pass(4).await;
                go.notify_one();
            };
            let (heard, ()) = tokio::join!(agent.send(&request), release);
            assert_ne!(heard.header("content-type"), Some("text/event-stream"), "{what}");
            assert_eq!(heard.header("mcp-session-id").is_some(), what == "initialize", "{what}");
            let status = match what {
                "a notification" => 202,
                "discover" => 400,
                _ => 200,
            };
            assert_eq!(heard.status, status, "{what}");
            assert!(!heard.whole().await.contains("keep-alive"), "{what}");
        }
    }
}

#[tokio::test]
async fn a_modern_disconnect_after_comments_cancels() {
    for http2 in [false, true] {
        let closed = Arc::new(Notify::new());
        let plays = vec![Play::UntilClosed(Arc::clone(&closed))];
        let behind = Behind::start(move |_, _| plays.clone()).await;
        let rig = Rig::with(behind.address, config(), |_| {});
        let mut heard = Agent::new(&rig, http2).send(&modern_call(1, "get")).await;
        heard.comments(2).await;
        drop(heard);
        soon("letting the server go", closed.notified()).await;
        rig.sink.outcome(Outcome::Cancelled).await;
    }
}

#[tokio::test]
async fn a_legacy_disconnect_after_comments_is_no_cancellation() {
    for http2 in [false, true] {
        let (behind, go) = slow(json(&result(1))).await;
        let rig = Rig::with(behind.address, config(), |_| {});
        let mut heard = Agent::new(&rig, http2).send(&post("", &call(1, "get"))).await;
        heard.comments(2).await;
        drop(heard);
        comments_pass(3).await;
        assert_eq!(rig.sink.events(), [Event::Intent]);
        go.notify_one();
        rig.sink.outcome(Outcome::Ok).await;
    }
}

/// While bytes of a next request lie unread, nobody reads that the client has gone. Only a write
/// tells.
#[tokio::test]
async fn a_client_that_vanished_is_noticed_by_a_comment() {
    let closed = Arc::new(Notify::new());
    let plays = vec![Play::UntilClosed(Arc::clone(&closed))];
    let behind = Behind::start(move |_, _| plays.clone()).await;
    let rig = Rig::with(behind.address, config(), |_| {});
    let mut client = rig.client().await;
    client.send(&[modern_call(1, "get"), modern_call(2, "get")].concat()).await;
    assert_eq!(client.head().await.0, 200);
    assert_eq!(client.event().await, COMMENT);
    drop(client);
    soon("letting the server go", closed.notified()).await;
    rig.sink.outcome(Outcome::Cancelled).await;
    assert_eq!(behind.received().len(), 1);
}

#[tokio::test]
async fn a_late_answer_takes_the_place_of_a_request_and_none_of_a_stream() {
    let (behind, go) = slow(json(&result(1))).await;
    let mut config = config();
    config.limits.streams_max = 0;
    config.limits.exchanges_max = 1;
    let rig = Rig::with(behind.address, config, |_| {});
    let mut heard = Agent::new(&rig, false).send(&post("", &call(1, "get"))).await;
    heard.comments(2).await;
    assert_eq!(rig.ask(&post("", &call(2, "get"))).await.status, 429, "the one place is taken");
    go.notify_one();
    assert_eq!(heard.message().await, Some(format!("data: {}\n\n", result(1))));
    assert_eq!(heard.event().await, None);
    let reply = rig.ask(&without_events(&post("", &call(2, "get")))).await;
    assert_eq!((reply.status, reply.text()), (200, &*result(2)));
}

#[tokio::test]
async fn shutdown_waits_for_a_late_answer() {
    let (behind, go) = slow(json(&result(1))).await;
    let rig = Rig::with(behind.address, config(), |_| {});
    let mut heard = Agent::new(&rig, false).send(&post("", &call(1, "get"))).await;
    heard.comments(1).await;
    rig.closing.cancel();
    heard.comments(2).await;
    go.notify_one();
    assert_eq!(heard.message().await, Some(format!("data: {}\n\n", result(1))));
    assert_eq!(heard.event().await, None);
    rig.drained().await;
}

/// The answers of a legacy server to an rmcp client; those of calls come when the test says so.
fn answers(request: &Received, go: &Arc<Notify>) -> Vec<Play> {
    let asked: serde_json::Value = serde_json::from_reader(&request.body[..]).unwrap_or_default();
    let result = match asked["method"].as_str() {
        Some("initialize") => serde_json::json!({
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "slow", "version": "1"},
        }),
        Some("tools/call") => serde_json::json!({"content": [{"type": "text", "text": "late"}]}),
        Some(_) => return answer("202 Accepted", "", ""),
        None => return answer("405 Method Not Allowed", "", ""),
    };
    let text = serde_json::json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
    let waits =
        if asked["method"] == "tools/call" { vec![Play::Wait(Arc::clone(go))] } else { vec![] };
    [waits, json(&text.to_string())].concat()
}

#[tokio::test]
async fn the_rmcp_client_gets_its_answer_after_comments() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(move |_, request| answers(request, &wait)).await;
    let rig = Rig::with(behind.address, config(), |_| {});
    let agent = Implementation::new("test", "1");
    let config = ClientConfig::new(ClientCapabilities::default(), agent)
        .with_protocol_version(ProtocolVersion::V_2025_11_25);
    let url = format!("http://{}/flags", rig.address);
    let transport = StreamableHttpClientTransport::with_client(
        HttpClient::new(),
        StreamableHttpClientTransportConfig::with_uri(url),
    );
    let serving = serve_client_with_lifecycle(config, transport, ClientLifecycleMode::Initialize);
    let peer = soon("a session", serving).await.unwrap();
    let release = async {
        comments_pass(5).await;
        go.notify_one();
    };
    let calling = peer.call_tool(CallToolRequestParams::new("get"));
    let (called, ()) = tokio::join!(soon("an answer", calling), release);
    let text = serde_json::to_value(called.unwrap()).unwrap();
    assert_eq!(text["content"][0]["text"], "late");
    soon("the end", peer.cancel()).await.unwrap();
}
