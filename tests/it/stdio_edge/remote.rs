//! A client on stdio, a server on HTTP.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bartizan_edge::Shared;
use bartizan_edge::client::{ExitReason, RemoteLimits, StdioLimits, StdioUpstream};
use bartizan_edge::upstream::{HttpUpstream, HttpUpstreamConfig, HttpUpstreamLimits, Upstream};
use bartizan_gate::evidence::record::{AuditRecord, Outcome};
use bartizan_gate::evidence::step::{AuditSink, Unkept};
use http::HeaderMap;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::support::{LONG, Run, Sink, shared};

/// One request as the server received it.
#[derive(Debug, Clone)]
pub(super) struct Received {
    method: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(super) fn body(&self) -> &str {
        &self.body
    }

    /// `POST` and the JSON-RPC method, or the HTTP method alone.
    pub(super) fn name(&self) -> String {
        let method =
            self.body.split_once("\"method\":\"").and_then(|(_, rest)| rest.split_once('"'));
        format!("{} {}", self.method, method.map_or("-", |(method, _)| method))
    }
}

/// What the server does with one request.
pub(super) enum Reply {
    /// Answers with this and closes.
    Whole(String),
    /// Answers with this, and holds the stream open until the client closes it.
    Held(String),
}

/// An answer that does not depend on the request.
type Answer = fn() -> Reply;

/// What the server answers to one request.
pub(super) type Handler = dyn Fn(&Received) -> Reply + Send + Sync;

#[derive(Clone)]
pub(super) struct Server {
    url: String,
    log: Arc<Mutex<Vec<Received>>>,
    /// Names of requests whose held stream the client closed.
    closed: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) async fn start(handler: Box<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let server = Self { url, log: Arc::default(), closed: Arc::default() };
        let handler: Arc<Handler> = handler.into();
        let accepting = server.clone();
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, handler) = (accepting.clone(), Arc::clone(&handler));
                tasks.spawn(async move { server.serve(stream, &*handler).await });
            }
        });
        server
    }

    async fn serve(&self, stream: TcpStream, handler: &Handler) -> Option<()> {
        let mut stream = BufReader::new(stream);
        let received = receive(&mut stream).await?;
        self.log.lock().unwrap().push(received.clone());
        match handler(&received) {
            Reply::Whole(answer) => stream.write_all(answer.as_bytes()).await.ok()?,
            Reply::Held(answer) => {
                stream.write_all(answer.as_bytes()).await.ok()?;
                while stream.read(&mut [0; 64]).await.ok()? > 0 {}
                self.closed.lock().unwrap().push(received.name());
            }
        }
        stream.shutdown().await.ok()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(Received::name).collect()
    }

    /// Waits until the names of all requests are what `wanted` says.
    pub(super) async fn until(&self, wanted: impl Fn(&[String]) -> bool) {
        until(|| wanted(&self.names())).await;
    }

    /// The one request of this name.
    fn one(&self, name: &str) -> Received {
        let log = self.log.lock().unwrap();
        let mut found = log.iter().filter(|received| received.name() == name);
        let one = found.next().cloned();
        assert!(found.next().is_none(), "{name}");
        one.unwrap_or_else(|| panic!("{name}: {log:?}"))
    }

    fn client(&self) -> Run {
        self.client_of(shared())
    }

    /// A client that shares the gate and the sink with others.
    pub(super) fn client_of(&self, shared: (Shared, Arc<Sink>)) -> Run {
        self.draining_client(shared, Duration::from_millis(100))
    }

    /// A client whose calls may go on for `drain_max` after it has closed its side.
    fn draining_client(&self, shared: (Shared, Arc<Sink>), drain_max: Duration) -> Run {
        let config = HttpUpstreamConfig {
            url: self.url.clone(),
            headers: HeaderMap::new(),
            owned_headers: Vec::new(),
            forward_authorization: false,
            context: Vec::new(),
            ca_pem: None,
            limits: HttpUpstreamLimits::default(),
        };
        let upstream = Upstream::from(HttpUpstream::new(config).unwrap());
        let http =
            RemoteLimits { retry: Duration::from_millis(10), drain_max, ..RemoteLimits::default() };
        let limits = StdioLimits { http, ..StdioLimits::default() };
        Run::of(shared, StdioUpstream::Http(Arc::new(upstream)), limits)
    }
}

async fn receive(stream: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let method = line.split(' ').next()?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        let replaced = headers.insert(name.to_ascii_lowercase(), value.to_owned());
        assert_eq!(replaced, None, "{name} twice");
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Received { method, headers, body: String::from_utf8(body).unwrap() })
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, wait).await.expect("it happens");
}

pub(super) fn json(status: &str, more: &str, body: &str) -> Reply {
    Reply::Whole(format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{more}connection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn empty(status: &str) -> Reply {
    Reply::Whole(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
}

pub(super) fn events(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{text}")
}

pub(super) fn result(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
}

pub(super) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Answers `initialize` with a session; all else is the handler's.
pub(super) fn legacy(received: &Received) -> Option<Reply> {
    let body = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"s","version":"1"}}}"#;
    match &*received.name() {
        "POST initialize" => Some(json("200 OK", "Mcp-Session-Id: s-1\r\n", body)),
        "POST notifications/initialized" => Some(empty("202 Accepted")),
        "DELETE -" => Some(empty("200 OK")),
        _ => None,
    }
}

pub(super) fn call(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t"}}}}"#)
}

fn modern(id: &str, tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
    )
}

#[tokio::test]
async fn a_legacy_session_is_kept_heard_and_ended() {
    let server = Server::start(Box::new(|received| {
        legacy(received).unwrap_or_else(|| match &*received.name() {
            "GET -" => Reply::Held(events(
                ": hello\n\nid: 1\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\n\
                 data: \"method\":\"roots/list\"}\n\n",
            )),
            "POST tools/call" => Reply::Whole(events(
                "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\
                 \"params\":{\"level\":\"info\",\"data\":1}}\n\n\
                 data: {\"id\": 1 , \"result\":{\"n\":1.0},\"jsonrpc\":\"2.0\"}\n\n",
            )),
            _ => empty("202 Accepted"),
        })
    }))
    .await;
    let mut run = server.client();
    run.send(INITIALIZE).await;
    assert!(run.receive().await.unwrap().contains("2025-06-18"));
    run.send(INITIALIZED).await;
    // Two lines of one event are one line, so it is minified.
    assert_eq!(run.receive().await.unwrap(), r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#);
    let answer = r#"{"jsonrpc":"2.0","id":"q","result":{"roots":[ ]}}"#;
    run.send(answer).await;
    run.send(call("1")).await;
    assert!(run.receive().await.unwrap().contains("notifications/message"));
    // Else byte for byte.
    assert_eq!(run.receive().await.unwrap(), r#"{"id": 1 , "result":{"n":1.0},"jsonrpc":"2.0"}"#);
    run.close().await;
    assert_eq!(run.rest().await, Vec::<String>::new());
    assert_eq!(run.reason().await, ExitReason::ClientClosed);

    assert_eq!(server.names().first().unwrap(), "POST initialize");
    assert_eq!(server.names().last().unwrap(), "DELETE -");
    assert_eq!(server.one("POST -").body, answer);
    for received in server.log.lock().unwrap().iter() {
        let later = received.name() != "POST initialize";
        assert_eq!(received.header("mcp-session-id"), later.then_some("s-1"), "{received:?}");
        assert_eq!(received.header("mcp-protocol-version"), later.then_some("2025-06-18"));
        assert_eq!(received.header("mcp-method"), None);
        let accepts = match &*received.method {
            "POST" => Some("application/json, text/event-stream"),
            "GET" => Some("text/event-stream"),
            _ => None,
        };
        assert_eq!(received.header("accept"), accepts);
    }
}

#[tokio::test]
async fn what_follows_initialize_waits_for_its_session() {
    let server = Server::start(Box::new(|received| {
        legacy(received).unwrap_or_else(|| match &*received.name() {
            "POST tools/call" => json("200 OK", "", &result("1")),
            _ => empty("405 Method Not Allowed"),
        })
    }))
    .await;
    let mut run = server.client();
    // All at once, as a script would.
    run.send(format!("{INITIALIZE}\n{INITIALIZED}\n{}", call("1"))).await;
    run.close().await;
    assert_eq!(run.rest().await.len(), 2);
    assert_eq!(server.one("POST notifications/initialized").header("mcp-session-id"), Some("s-1"));
    assert_eq!(server.one("POST tools/call").header("mcp-session-id"), Some("s-1"));
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_resumed_where_it_broke() {
    let server = Server::start(Box::new(|received| {
        legacy(received).unwrap_or_else(|| {
            match (&*received.name(), received.header("last-event-id")) {
                ("POST tools/call", _) => {
                    Reply::Whole(events("id: e-1\nretry: 20\ndata:\n\n"))
                }
                ("GET -", Some("e-1")) => {
                    Reply::Whole(events("id: e-2\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}\n\n"))
                }
                ("GET -", Some("e-2")) => {
                    Reply::Whole(events(&format!("data: {}\n\n", result("1"))))
                }
                _ => empty("405 Method Not Allowed"),
            }
        })
    }))
    .await;
    let mut run = server.client();
    run.send(INITIALIZE).await;
    run.receive().await.unwrap();
    run.send(call("1")).await;
    assert!(run.receive().await.unwrap().contains("notifications/message"));
    assert_eq!(run.receive().await.unwrap(), result("1"));
    assert_eq!(
        server.names(),
        ["POST initialize", "POST tools/call", "GET -", "GET -"],
        "without `initialized` nothing else is opened"
    );
}

/// A server that mints `s-1`, `s-2` and so on, and knows only the last one.
fn forgetful(sessions: &Arc<AtomicU32>, received: &Received, revision: &str) -> Reply {
    let gone = r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32001,"message":"Session not found"}}"#;
    if received.name() == "POST initialize" {
        let number = sessions.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":0,"result":{{"protocolVersion":"{revision}","capabilities":{{}},"serverInfo":{{"name":"s","version":"1"}}}}}}"#
        );
        return json("200 OK", &format!("Mcp-Session-Id: s-{number}\r\n"), &body);
    }
    let known = format!("s-{}", sessions.load(Ordering::Relaxed));
    if received.header("mcp-session-id") != Some(&known) {
        return json("404 Not Found", "", gone);
    }
    match &*received.name() {
        "POST tools/call" => {
            let id = received.body.split_once("\"id\":").unwrap().1;
            json("200 OK", "", &result(id.split_once(',').unwrap().0))
        }
        "GET -" => Reply::Held(events(": open\n\n")),
        _ => empty("202 Accepted"),
    }
}

#[tokio::test]
async fn a_session_that_the_server_forgot_is_begun_again_once() {
    let sessions = Arc::new(AtomicU32::new(0));
    let minted = Arc::clone(&sessions);
    let server =
        Server::start(Box::new(move |received| forgetful(&minted, received, "2025-06-18"))).await;
    let mut run = server.client();
    run.send(INITIALIZE).await;
    assert!(run.receive().await.unwrap().contains("2025-06-18"));
    run.send(INITIALIZED).await;
    run.send(call("1")).await;
    assert_eq!(run.receive().await.unwrap(), result("1"));
    until(|| server.names().contains(&"GET -".to_owned())).await;

    // The server restarts and has lost its sessions.
    sessions.fetch_add(10, Ordering::Relaxed);
    for id in ["2", "3"] {
        run.send(call(id)).await;
    }
    let mut answers = [run.receive().await.unwrap(), run.receive().await.unwrap()];
    answers.sort();
    assert_eq!(answers, [result("2"), result("3")]);
    let in_new = |received: &&Received| received.header("mcp-session-id") == Some("s-12");
    {
        let log = server.log.lock().unwrap();
        let begun: Vec<_> =
            log.iter().filter(|received| received.name() == "POST initialize").collect();
        assert_eq!(begun.len(), 2, "once for both calls");
        for received in begun {
            assert_eq!((&*received.body, received.header("mcp-session-id")), (INITIALIZE, None));
        }
        let names: Vec<_> = log.iter().filter(in_new).map(Received::name).collect();
        assert_eq!(names.iter().filter(|name| *name == "POST tools/call").count(), 2, "{names:?}");
        assert_eq!(names.first().unwrap(), "POST notifications/initialized");
    }
    let lines = run.sink.lines();
    for (line, times) in [
        ("Intent initialize -", 2),
        ("Outcome initialize Some(Ok)", 2),
        ("Intent tools/call -", 5),
        ("Outcome tools/call Ok", 3),
        ("Outcome tools/call UpstreamFailed", 2),
    ] {
        let line = line.replace("Some(Ok)", "Ok");
        assert_eq!(lines.iter().filter(|kept| **kept == line).count(), times, "{line}: {lines:?}");
    }
    run.close().await;
    assert_eq!(run.rest().await, Vec::<String>::new(), "the second answer to `initialize`");
    assert_eq!(server.log.lock().unwrap().iter().rfind(in_new).unwrap().name(), "DELETE -");
}

/// A sink that takes its time for the record of a call that failed.
struct Slow(Arc<Sink>);

impl AuditSink for Slow {
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
        self.0.keep(record)?;
        if record.outcome == Some(Outcome::UpstreamFailed) {
            thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_between_two_sessions_is_answered_though_the_client_has_closed_its_side() {
    let sessions = Arc::new(AtomicU32::new(0));
    let minted = Arc::clone(&sessions);
    let server =
        Server::start(Box::new(move |received| forgetful(&minted, received, "2025-06-18"))).await;
    let (shared, sink) = shared();
    let shared = Shared { sink: Arc::new(Slow(Arc::clone(&sink))), ..shared };
    let mut run = server.draining_client((shared, Arc::clone(&sink)), LONG);
    run.send(INITIALIZE).await;
    run.receive().await.unwrap();
    run.send(INITIALIZED).await;
    sessions.fetch_add(10, Ordering::Relaxed);
    run.send(call("1")).await;
    // The first attempt is over, and the second one has not begun.
    sink.outcome(Outcome::UpstreamFailed).await;
    run.close().await;
    assert_eq!(run.rest().await, [result("1")]);
}

#[tokio::test]
async fn a_session_that_cannot_be_begun_again_fails_its_calls() {
    let sessions = Arc::new(AtomicU32::new(0));
    let minted = Arc::clone(&sessions);
    let server = Server::start(Box::new(move |received| {
        let again = minted.load(Ordering::Relaxed) > 0;
        forgetful(&minted, received, if again { "2025-03-26" } else { "2025-06-18" })
    }))
    .await;
    let mut run = server.client();
    run.send(INITIALIZE).await;
    run.receive().await.unwrap();
    sessions.fetch_add(10, Ordering::Relaxed);
    run.send(call("1")).await;
    let error = run.receive().await.unwrap();
    assert!(error.contains(r#""id":1"#) && error.contains("Session not found"), "{error}");
    let names = server.names();
    assert_eq!(names, ["POST initialize", "POST tools/call", "POST initialize"]);
    run.close().await;
    assert_eq!(run.rest().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_stream_of_the_server_is_opened_again() {
    let server = Server::start(Box::new(|received| {
        let message = |n: u8| {
            format!("data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{\"level\":\"info\",\"data\":{n}}}}}\n\n")
        };
        legacy(received).unwrap_or_else(|| {
            match (&*received.name(), received.header("last-event-id")) {
                ("GET -", None) => Reply::Whole(events(&format!("id: a\n{}", message(1)))),
                ("GET -", Some("a")) => Reply::Whole(events(&format!("id: b\n{}", message(2)))),
                _ => empty("405 Method Not Allowed"),
            }
        })
    }))
    .await;
    let mut run = server.client();
    run.send(INITIALIZE).await;
    run.receive().await.unwrap();
    run.send(INITIALIZED).await;
    assert!(run.receive().await.unwrap().contains("\"data\":1"));
    assert!(run.receive().await.unwrap().contains("\"data\":2"));
    until(|| server.names().iter().filter(|name| *name == "GET -").count() == 3).await;
    // 405 is an answer: it is not asked again, and the client is told nothing.
    run.close().await;
    assert_eq!(run.rest().await, Vec::<String>::new());
    assert_eq!(server.names().iter().filter(|name| *name == "GET -").count(), 3);
}

#[tokio::test]
async fn modern_requests_mirror_their_body_in_headers() {
    let server = Server::start(Box::new(|received| {
        let id = if received.body.contains("\"id\":1") { "1" } else { "\"two\"" };
        json("200 OK", "Mcp-Session-Id: never\r\n", &result(id))
    }))
    .await;
    let mut run = server.client();
    run.send(modern("1", "plain_name")).await;
    assert_eq!(run.receive().await.unwrap(), result("1"));
    run.send(modern("\"two\"", "größe")).await;
    assert_eq!(run.receive().await.unwrap(), result("\"two\""));
    run.close().await;
    run.reason().await;
    let log = server.log.lock().unwrap();
    assert_eq!(log.len(), 2, "no stream is opened and no session ended: {log:?}");
    for (received, name) in log.iter().zip(["plain_name", "=?base64?Z3LDtsOfZQ==?="]) {
        assert_eq!(received.header("mcp-protocol-version"), Some("2026-07-28"));
        assert_eq!(received.header("mcp-method"), Some("tools/call"));
        assert_eq!(received.header("mcp-name"), Some(name));
        assert_eq!(received.header("mcp-session-id"), None);
    }
}

#[tokio::test]
async fn annotated_arguments_are_mirrored_once_the_tool_was_listed() {
    let server = Server::start(Box::new(|received| {
        if received.name() != "POST tools/list" {
            let asked: serde_json::Value = serde_json::from_str(&received.body).unwrap();
            return json("200 OK", "", &result(&asked["id"].to_string()));
        }
        let region = r#"{"type":"string","x-mcp-header":"Region"}"#;
        let retries = r#"{"type":"integer","x-mcp-header":"Retries"}"#;
        let schema = format!(
            r#"{{"type":"object","properties":{{"region":{region},"deep":{{"type":"object","properties":{{"n":{retries}}}}},"plain":{{}}}}}}"#
        );
        let tools = format!(r#"[{{"name":"t","inputSchema":{schema}}}]"#);
        json(
            "200 OK",
            "",
            &format!(r#"{{"jsonrpc":"2.0","id":2,"result":{{"resultType":"complete","tools":{tools}}}}}"#),
        )
    }))
    .await;
    let with = |id, arguments: &str| {
        modern(id, "t").replace("\"name\"", &format!("\"arguments\":{arguments},\"name\""))
    };
    let mut run = server.client();
    for line in [
        with("1", r#"{"region":"eu"}"#),
        modern("2", "t").replace("tools/call", "tools/list"),
        with("3", r#"{"region":"größe","deep":{"n":7},"plain":"x"}"#),
        with("4", r#"{"region":null}"#),
    ] {
        run.send(line).await;
        run.receive().await.unwrap();
    }
    run.close().await;
    run.reason().await;
    let log = server.log.lock().unwrap();
    let seen: Vec<_> = log
        .iter()
        .filter(|received| received.name() == "POST tools/call")
        .map(|call| (call.header("mcp-param-region"), call.header("mcp-param-retries")))
        .collect();
    // Before the list nobody knows of the annotations.
    let expected = [(None, None), (Some("=?base64?Z3LDtsOfZQ==?="), Some("7")), (None, None)];
    assert_eq!(seen, expected);
    assert!(log.iter().all(|call| call.header("mcp-param-plain").is_none()));
}

#[tokio::test]
async fn a_modern_cancel_closes_the_stream_and_a_legacy_one_is_sent() {
    let server = Server::start(Box::new(|received| {
        legacy(received).unwrap_or_else(|| match &*received.name() {
            "POST tools/call" => Reply::Held(events(": waiting\n\n")),
            _ => empty("202 Accepted"),
        })
    }))
    .await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let asked = || server.names().iter().any(|name| name == "POST tools/call");
    let closed = || !server.closed.lock().unwrap().is_empty();

    let mut run = server.client();
    run.send(modern("1", "t")).await;
    until(asked).await;
    assert!(!closed());
    run.send(cancel).await;
    until(closed).await;
    assert_eq!(server.names(), ["POST tools/call"]);
    assert!(run.sink.lines().contains(&"Outcome tools/call Cancelled".to_owned()));
    run.close().await;
    assert_eq!(run.rest().await, Vec::<String>::new());

    server.log.lock().unwrap().clear();
    let mut run = server.client();
    run.send(INITIALIZE).await;
    run.receive().await.unwrap();
    run.send(call("1")).await;
    until(asked).await;
    run.send(cancel).await;
    until(|| server.names().contains(&"POST notifications/cancelled".to_owned())).await;
    assert_eq!(server.one("POST notifications/cancelled").body, cancel);
}

#[tokio::test]
async fn requests_run_at_once_and_answers_come_as_they_are_ready() {
    let server = Server::start(Box::new(|received| {
        if received.body.contains("\"id\":1,") {
            Reply::Held(events(": not yet\n\n"))
        } else {
            json("200 OK", "", &result("2"))
        }
    }))
    .await;
    let mut run = server.client();
    run.send(modern("1", "t")).await;
    run.send(modern("2", "t")).await;
    assert_eq!(run.receive().await.unwrap(), result("2"));
    run.shared.closing.cancel();
    let error = run.receive().await.unwrap();
    assert!(error.contains(r#""id":1"#) && error.contains("-31005"), "{error}");
    assert_eq!(run.reason().await, ExitReason::Closing);
    until(|| server.closed.lock().unwrap().len() == 1).await;
}

#[tokio::test]
async fn every_request_is_answered_under_its_own_id() {
    // `(answer, what the client must see)`.
    let cases: [(Answer, &str); 11] = [
        (|| empty("404 Not Found"), "-31005"),
        (|| empty("202 Accepted"), "-31005"),
        (|| empty("302 Found"), "-31005"),
        (
            || {
                Reply::Whole("HTTP/1.1 500 Oops\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<html>".into())
            },
            "-31005",
        ),
        (
            || {
                Reply::Whole(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<html>"
                        .into(),
                )
            },
            "-31006",
        ),
        (
            || {
                json(
                    "400 Bad Request",
                    "",
                    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no session"}}"#,
                )
            },
            "-32000",
        ),
        (
            || {
                json(
                    "400 Bad Request",
                    "",
                    r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"version"}}"#,
                )
            },
            "-32022",
        ),
        (|| json("200 OK", "", r#"{"jsonrpc":"2.0","id":2,"result":{}}"#), "-31005"),
        (|| json("200 OK", "", r#"{"jsonrpc":"2.0","id":1,"result":{},"result":{}}"#), "-31006"),
        (|| Reply::Whole(events(": no answer\n\n")), "-31005"),
        (|| Reply::Whole(String::new()), "-31005"),
    ];
    for (index, (answer, expected)) in cases.into_iter().enumerate() {
        let server = Server::start(Box::new(move |_| answer())).await;
        let mut run = server.client();
        run.send(modern("1", "t")).await;
        let error = run.receive().await.unwrap();
        assert!(error.contains(r#""id":1"#) && error.contains(expected), "{index}: {error}");
        run.close().await;
        assert_eq!(run.rest().await, Vec::<String>::new(), "{index}");
    }
}

#[tokio::test]
async fn refusals_never_reach_the_server() {
    let server = Server::start(Box::new(|_| json("200 OK", "", &result("2")))).await;
    let mut run = server.client();
    run.send(modern("1", "forbidden")).await;
    assert!(run.receive().await.unwrap().contains("-31001"));
    run.send("{\"jsonrpc\":\"2.0\",\r\"id\":3,\"method\":\"ping\"}").await;
    assert!(run.receive().await.unwrap().contains("\"id\":null"));
    run.send(modern("2", "t")).await;
    assert_eq!(run.receive().await.unwrap(), result("2"));
    assert_eq!(server.log.lock().unwrap().len(), 1);
}
