//! HTTP+SSE of 2024-11-05, towards agents and towards servers, and bridged to the others.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_edge::Shared;
use bartizan_edge::child::{ChildLimits, ChildSpec, ChildUpstream};
use bartizan_edge::client::{Serving, StdioLimits, StdioUpstream, serve_pipes};
use bartizan_edge::http::{HttpConfig, Route};
use bartizan_edge::oauth::{Forward, OAuth};
use bartizan_edge::upstream::{
    HttpUpstream, HttpUpstreamConfig, LegacySseLimits, LegacySseUpstream, Upstream,
};
use bartizan_gate::evidence::record::{Event, Outcome};
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::session::{Protected, RefusalForm};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

use super::rig::{
    Behind, Client, Play, Received, Reply, Rig, answer, call, chunk, json, post, result, shared,
    soon, stream_end, stream_head, upstream_config,
};

/// With white space of its own, which must arrive as it is.
pub(super) const INITIALIZE: &str = r#"{ "jsonrpc":"2.0", "id":0,"method":"initialize","params":{"protocolVersion":"2024-11-05","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
pub(super) const INITIALIZED: &str = r#"{"jsonrpc":"2.0", "id":0,"result":{"protocolVersion":"2024-11-05","capabilities":{},"serverInfo":{"name":"s","version":"1"}}}"#;
const READY: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

/// An HTTP+SSE server: what it writes on its one stream is the test's to say.
struct SseServer {
    behind: Behind,
    events: mpsc::Sender<Vec<u8>>,
}

pub(super) fn protected() -> Arc<Protected> {
    let facts = Server { name: "flags".into(), ..Server::default() };
    Arc::new(Protected::new(facts, RefusalForm::Error))
}

pub(super) fn event(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

impl SseServer {
    /// A server that opens its stream with `first` and answers each post with `posted`.
    async fn start(first: &str, posted: fn(&Received) -> Vec<Play>) -> Self {
        let (events, relay) = mpsc::channel(256);
        events.try_send(event(first)).unwrap();
        let relay = Arc::new(Mutex::new(Some(relay)));
        let behind = Behind::start(move |_, request| {
            if request.head.starts_with("GET ") {
                vec![stream_head(""), Play::Relay(Arc::clone(&relay))]
            } else {
                posted(request)
            }
        })
        .await;
        Self { behind, events }
    }

    /// One that takes everything.
    async fn ordinary() -> Self {
        Self::start("event: endpoint\ndata: /up/messages?sessionId=theirs\n\n", |_| {
            answer("202 Accepted", "", "Accepted")
        })
        .await
    }

    fn say(&self, message: &str) {
        self.events.try_send(event(&format!("event: message\ndata: {message}\n\n"))).unwrap();
    }

    /// Waits until we let go of its stream.
    async fn let_go(&self) {
        soon("the stream to be closed", self.events.closed()).await;
    }

    fn rig(&self) -> Rig {
        self.rig_with(LegacySseLimits::default())
    }

    fn rig_with(&self, limits: LegacySseLimits) -> Rig {
        let address = self.behind.address;
        Rig::to(HttpConfig::default(), |shared| {
            let http = HttpUpstream::new(upstream_config(address)).unwrap();
            LegacySseUpstream::new(http, limits, shared.clone()).into()
        })
    }

    /// Bodies posted so far.
    fn posted(&self) -> Vec<String> {
        let received = self.behind.received();
        let posts = received.into_iter().filter(|request| request.head.starts_with("POST "));
        posts.map(|request| String::from_utf8(request.body).unwrap()).collect()
    }
}

/// An agent with an open stream.
pub(crate) struct Agent {
    pub(crate) stream: Client,
    endpoint: String,
}

impl Agent {
    pub(crate) async fn open(rig: &Rig) -> Self {
        let mut stream = rig.client().await;
        stream.send(&request("GET", "/flags/sse", "Accept: text/event-stream\r\n", "")).await;
        let (status, head) = stream.head().await;
        assert_eq!(status, 200, "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: text/event-stream"), "{head}");
        let first = stream.event().await;
        let endpoint = first.strip_prefix("event: endpoint\ndata: ").unwrap();
        let endpoint = endpoint.strip_suffix("\n\n").unwrap().to_owned();
        let id = endpoint.strip_prefix("/flags/sse/").unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
        Self { stream, endpoint }
    }

    pub(crate) async fn post(&self, rig: &Rig, body: &str) -> Reply {
        rig.ask(&request("POST", &self.endpoint, "", body)).await
    }

    /// Posts what must be taken.
    pub(crate) async fn say(&self, rig: &Rig, body: &str) {
        let reply = self.post(rig, body).await;
        assert_eq!((reply.status, reply.text()), (202, ""), "{body}");
    }

    /// The next message on the stream.
    pub(crate) async fn hear(&mut self) -> String {
        let event = self.stream.event().await;
        let data = event.strip_prefix("event: message\ndata: ");
        data.and_then(|data| data.strip_suffix("\n\n")).expect(&event).to_owned()
    }
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = if method == "POST" {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    } else {
        String::new()
    };
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}{length}\r\n{body}")
        .into_bytes()
}

/// An agent and an HTTP+SSE server that have shaken hands.
async fn begun(server: &SseServer, rig: &Rig) -> Agent {
    let mut agent = Agent::open(rig).await;
    agent.say(rig, INITIALIZE).await;
    server.behind.nth(2).await;
    server.say(INITIALIZED);
    assert_eq!(agent.hear().await, INITIALIZED);
    agent.say(rig, READY).await;
    server.behind.nth(3).await;
    agent
}

#[tokio::test]
async fn both_sides_speak_it_and_every_byte_arrives() {
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let mut agent = begun(&server, &rig).await;
    let odd = r#"{"id" : 1,"jsonrpc":"2.0","method":"tools/call","params":{"name":"get","arguments":{"x":1.0}}}"#;
    let headers = "Authorization: Bearer agent\r\nMcp-Method: tools/list\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    assert_eq!(rig.ask(&request("POST", &agent.endpoint, headers, odd)).await.status, 202);
    let taken = server.behind.nth(4).await;
    server.say(CHANGED);
    server.say(&result(1));
    assert_eq!(agent.hear().await, CHANGED);
    assert_eq!(agent.hear().await, result(1));

    let received = server.behind.received();
    let opened = &received[0];
    assert!(opened.head.starts_with("GET /up/stream HTTP/1.1\r\n"), "{}", opened.head);
    assert_eq!(opened.header("accept"), ["text/event-stream"]);
    assert!(opened.header("content-type").is_empty());
    for posted in &received[1..] {
        assert!(posted.head.starts_with("POST /up/messages?sessionId=theirs HTTP/1.1\r\n"));
        assert_eq!(posted.header("content-type"), ["application/json"]);
    }
    for request in &received {
        assert_eq!(request.header("x-upstream-key"), ["from-the-sidecar"]);
        assert_eq!(request.header("accept-encoding"), ["identity"]);
        assert!(request.header("authorization").is_empty());
        assert!(request.header("mcp-session-id").is_empty());
    }
    assert!(
        taken.header("mcp-method").is_empty(),
        "what mirrors the body is not the agent's to say"
    );
    assert_eq!(taken.header("traceparent").len(), 1);
    assert_eq!(server.posted(), [INITIALIZE, READY, odd]);
}

#[tokio::test]
async fn a_refusal_comes_on_the_stream_and_the_post_is_taken() {
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let mut agent = begun(&server, &rig).await;
    agent.say(&rig, &call(7, "denied")).await;
    let refusal = agent.hear().await;
    assert!(refusal.starts_with(r#"{"jsonrpc":"2.0","id":7,"error":{"#), "{refusal}");
    assert!(refusal.contains("decision_id"), "{refusal}");
    // What names no request would mean nothing on the stream.
    for (body, status) in [
        (r#"{"jsonrpc":"2.0","id":8,"method":"ping","method":"x"}"#, 400),
        ("[]", 400),
        (r#"{"jsonrpc":"2.0","method":"notifications/denied"}"#, 403),
        (r#"{"jsonrpc":"2.0","id":99,"result":{}}"#, 400),
    ] {
        let reply = agent.post(&rig, body).await;
        assert_eq!(reply.status, status, "{body}");
        assert!(reply.text().contains(r#""id":null"#), "{}", reply.text());
    }
    assert_eq!(server.posted(), [INITIALIZE, READY]);
    // A request of the server that policy refuses is answered to the server alone.
    server.say(r#"{"jsonrpc":"2.0","id":"s-1","method":"sampling/createMessage","params":{}}"#);
    server.behind.nth(4).await;
    let answered = server.posted().pop().unwrap();
    assert!(answered.starts_with(r#"{"jsonrpc":"2.0","id":"s-1","error":{"#), "{answered}");
    server.say(CHANGED);
    assert_eq!(agent.hear().await, CHANGED, "nothing came between");
}

#[tokio::test]
async fn requests_and_answers_cross_in_both_directions() {
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let mut agent = begun(&server, &rig).await;
    // The server's ids are its own: the same number means two requests.
    agent.say(&rig, &call(5, "get")).await;
    server.behind.nth(4).await;
    let ask = r#"{"jsonrpc":"2.0","id":5,"method":"roots/list"}"#;
    server.say(ask);
    assert_eq!(agent.hear().await, ask);
    let roots = r#"{"jsonrpc":"2.0","id":5,"result":{"roots":[]}}"#;
    agent.say(&rig, roots).await;
    server.behind.nth(5).await;
    assert_eq!(server.posted()[3], roots);
    server.say(&result(5));
    assert_eq!(agent.hear().await, result(5));
    assert_eq!(agent.post(&rig, roots).await.status, 400, "answered once");
}

#[tokio::test]
async fn the_door_is_the_same() {
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let agent = begun(&server, &rig).await;
    let before = server.behind.received().len();
    let unknown = "/flags/sse/00000000000000000000000000000000";
    let own = agent.endpoint.as_str();
    let query = format!("{own}?sessionId=1");
    let upper = own.to_ascii_uppercase().replace("/FLAGS/SSE", "/flags/sse");
    let evil = "Origin: http://evil.example\r\n";
    for (method, path, headers, status) in [
        ("POST", unknown, "", 404),
        ("POST", &query, "", 404),
        ("POST", &format!("{own}0"), "", 404),
        ("POST", &format!("{own}/"), "", 404),
        ("POST", own, evil, 403),
        ("GET", "/flags/sse", evil, 403),
        ("GET", "/flags/sse?x=1", "", 404),
        ("POST", "/flags/sse", "", 405),
        ("GET", own, "", 405),
        ("DELETE", own, "", 405),
        ("DELETE", "/flags/sse", "", 405),
        ("POST", own, "Content-Encoding: gzip\r\n", 415),
    ] {
        let reply = rig.ask(&request(method, path, headers, &call(1, "get"))).await;
        assert_eq!(reply.status, status, "{method} {path} {headers}");
        if status == 405 {
            let expected = if path == own { "POST" } else { "GET" };
            assert_eq!(reply.header("allow"), [expected], "{method} {path}");
        }
    }
    if upper != own {
        assert_eq!(rig.ask(&request("POST", &upper, "", &call(1, "get"))).await.status, 404);
    }
    let foreign = String::from_utf8(request("POST", own, "", &call(1, "get"))).unwrap();
    let foreign = foreign.replace("Host: localhost", "Host: evil.example");
    assert_eq!(rig.ask(foreign.as_bytes()).await.status, 403);
    assert_eq!(server.behind.received().len(), before, "nothing of it reached the server");
}

#[tokio::test]
async fn an_endpoint_elsewhere_is_never_posted_to() {
    let elsewhere = Behind::start(|_, _| answer("202 Accepted", "", "")).await;
    let network_path = format!("//{}/m", elsewhere.address);
    let evil = format!("http:{network_path}");
    let cases = [
        ("sse-endpoint-absolute", format!("event: endpoint\ndata: {evil}\n\n")),
        ("sse-endpoint-network-path", format!("event: endpoint\ndata: {network_path}\n\n")),
        ("sse-endpoint-scheme", "event: endpoint\ndata: file:///m\n\n".to_owned()),
        ("sse-endpoint-empty", "event: endpoint\ndata:\n\n".to_owned()),
        ("sse-endpoint-lines", "event: endpoint\ndata: /m\ndata: /n\n\n".to_owned()),
        ("sse-endpoint-late", format!("data: {CHANGED}\n\nevent: endpoint\ndata: /m\n\n")),
        ("sse-endpoint-other-name", "event: Endpoint\ndata: /m\n\n".to_owned()),
        ("sse-cr-endpoint", format!(": note\revent: endpoint\rdata: {evil}\r\r")),
        (
            "sse-cr-second",
            format!("event: endpoint\rdata: {evil}\r\revent: endpoint\ndata: /m\n\n"),
        ),
    ];
    for (name, first) in cases {
        let server = SseServer::start(&first, |_| answer("202 Accepted", "", "")).await;
        let rig = server.rig();
        let mut agent = Agent::open(&rig).await;
        agent.say(&rig, INITIALIZE).await;
        let refusal = agent.hear().await;
        assert!(refusal.starts_with(r#"{"jsonrpc":"2.0","id":0,"error":{"#), "{name}: {refusal}");
        assert!(!refusal.contains(&evil), "{name}");
        rig.sink.outcome(Outcome::UpstreamFailed).await;
        server.let_go().await;
        assert_eq!(server.posted(), [""; 0], "{name}");
    }
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn a_second_endpoint_ends_the_session() {
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let mut agent = begun(&server, &rig).await;
    agent.say(&rig, &call(1, "get")).await;
    server.behind.nth(4).await;
    server.events.try_send(event("event: endpoint\ndata: /elsewhere\n\n")).unwrap();
    let failed = agent.hear().await;
    assert!(failed.starts_with(r#"{"jsonrpc":"2.0","id":1,"error":{"#), "{failed}");
    server.let_go().await;
    assert!(agent.stream.chunk().await.is_none(), "its stream ends, too");
    assert_eq!(agent.post(&rig, &call(2, "get")).await.status, 404);
    assert_eq!(server.posted().len(), 3);
}

#[tokio::test]
async fn a_server_that_names_no_endpoint_is_not_waited_for() {
    let server = SseServer::start(": nothing yet\n\n", |_| answer("202 Accepted", "", "")).await;
    let open_max = Duration::from_millis(50);
    let rig = server.rig_with(LegacySseLimits { open_max, ..LegacySseLimits::default() });
    let mut agent = Agent::open(&rig).await;
    agent.say(&rig, INITIALIZE).await;
    assert!(agent.hear().await.contains("did not answer in time"));
    server.let_go().await;
}

#[tokio::test]
async fn a_post_that_is_never_taken_is_not_waited_for() {
    let server = SseServer::start("event: endpoint\ndata: /m\n\n", |request| {
        let body = String::from_utf8_lossy(&request.body);
        if body.contains("hang") { vec![Play::Wait(Arc::default())] } else { json("{}") }
    })
    .await;
    let accept_max = Duration::from_millis(100);
    let rig = server.rig_with(LegacySseLimits { accept_max, ..LegacySseLimits::default() });
    let mut agent = begun(&server, &rig).await;
    agent.say(&rig, &call(1, "hang")).await;
    let failed = agent.hear().await;
    assert!(failed.contains(r#""id":1"#) && failed.contains("did not answer in time"), "{failed}");
    // The session goes on.
    agent.say(&rig, &call(2, "get")).await;
    server.behind.nth(5).await;
    server.say(&result(2));
    assert_eq!(agent.hear().await, result(2));
}

#[tokio::test]
async fn a_refused_post_fails_its_call() {
    let server = SseServer::start("event: endpoint\ndata: /m\n\n", |request| {
        let body = String::from_utf8_lossy(&request.body);
        if body.contains("busy") { answer("503 Busy", "", "x") } else { json("{}") }
    })
    .await;
    let rig = server.rig();
    let mut agent = begun(&server, &rig).await;
    agent.say(&rig, &call(1, "busy")).await;
    let failed = agent.hear().await;
    assert!(failed.starts_with(r#"{"jsonrpc":"2.0","id":1,"error":{"#), "{failed}");
}

#[tokio::test]
async fn answers_that_were_not_asked_for_are_withheld() {
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let mut agent = begun(&server, &rig).await;
    agent.say(&rig, &call(1, "get")).await;
    server.behind.nth(4).await;
    server.say(&result(2));
    server.events.try_send(event(&format!(": x\rdata: {}\r\r", result(3)))).unwrap();
    server.events.try_send(event(&format!("event: other\ndata: {}\n\n", result(1)))).unwrap();
    server.say(&result(1));
    assert_eq!(agent.hear().await, result(1));
    server.say(&result(1));
    server.say(CHANGED);
    assert_eq!(agent.hear().await, CHANGED, "a second answer does not pass");
}

#[tokio::test]
async fn an_agent_that_goes_away_ends_everything() {
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let agent = begun(&server, &rig).await;
    agent.say(&rig, &call(1, "get")).await;
    server.behind.nth(4).await;
    let endpoint = agent.endpoint.clone();
    drop(agent);
    rig.sink.outcome(Outcome::Cancelled).await;
    server.let_go().await;
    soon("the session to be forgotten", async {
        while rig.ask(&request("POST", &endpoint, "", &call(2, "get"))).await.status != 404 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let events = rig.sink.events();
    let count = |event| events.iter().filter(|found| **found == event).count();
    assert_eq!(count(Event::Intent), count(Event::Outcome), "{events:?}");
    rig.drained().await;
}

#[tokio::test]
async fn a_server_that_goes_away_ends_the_stream() {
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let mut agent = begun(&server, &rig).await;
    agent.say(&rig, &call(1, "get")).await;
    server.behind.nth(4).await;
    server.events.try_send(b"0\r\n\r\n".to_vec()).unwrap();
    let failed = agent.hear().await;
    assert!(failed.starts_with(r#"{"jsonrpc":"2.0","id":1,"error":{"#), "{failed}");
    assert!(agent.stream.chunk().await.is_none());
    assert_eq!(server.posted().len(), 3, "nothing is sent again");
    rig.drained().await;
}

#[tokio::test]
async fn an_agent_that_does_not_read_holds_its_server_up() {
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let agent = begun(&server, &rig).await;
    let text = "x".repeat(1 << 20);
    let sent = 64;
    for _ in 0..sent {
        server.say(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"data":"{text}"}}}}"#
        ));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let judged = rig.sink.events().iter().filter(|event| **event == Event::Notice).count();
    // Queues of both sides and what the kernel holds.
    assert!(judged < sent, "{judged} of {sent} were read ahead");
    drop(agent);
    server.let_go().await;
    rig.drained().await;
}

#[tokio::test]
async fn draining_lets_a_call_finish_and_ends_the_stream() {
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let mut agent = begun(&server, &rig).await;
    agent.say(&rig, &call(1, "get")).await;
    server.behind.nth(4).await;
    rig.closing.cancel();
    server.say(&result(1));
    assert_eq!(agent.hear().await, result(1));
    assert!(agent.stream.chunk().await.is_none());
    server.let_go().await;
    rig.drained().await;
}

#[tokio::test]
async fn a_streamable_http_agent_reaches_it() {
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let mut client = rig.client().await;
    client.send(&post("", INITIALIZE)).await;
    server.behind.nth(2).await;
    server.say(INITIALIZED);
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (200, INITIALIZED));
    let session = format!("Mcp-Session-Id: {}\r\n", reply.header("mcp-session-id")[0]);
    client.send(&post(&session, READY)).await;
    assert_eq!(client.reply().await.status, 202);
    let mut stream = rig.client().await;
    stream.send(&request("GET", "/flags", &session, "")).await;
    assert_eq!(stream.head().await.0, 200);
    server.say(CHANGED);
    assert_eq!(stream.event().await, format!("data: {CHANGED}\n\n"));
    let again = rig.ask(&request("GET", "/flags", &session, "")).await;
    assert_eq!(again.status, 409, "one stream of server messages");
    client.send(&post(&session, &call(1, "get"))).await;
    server.behind.nth(4).await;
    server.say(&result(1));
    assert_eq!(client.reply().await.text(), result(1));
    assert_eq!(server.posted(), [INITIALIZE, READY, &call(1, "get")]);
    client.send(&request("DELETE", "/flags", &session, "")).await;
    assert_eq!(client.reply().await.status, 204);
    server.let_go().await;
    client.send(&post(&session, &call(2, "get"))).await;
    assert_eq!(client.reply().await.status, 404);
}

#[tokio::test]
async fn an_agent_reaches_a_streamable_http_server() {
    let behind = Behind::start(|_, request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if request.head.starts_with("DELETE") {
            answer("200 OK", "", "")
        } else if request.head.starts_with("GET") {
            answer("405 Method Not Allowed", "", "")
        } else if body.contains("\"initialize\"") {
            let headers = "Content-Type: application/json\r\nMcp-Session-Id: s-1\r\n";
            answer("200 OK", headers, INITIALIZED)
        } else if body.contains("\"id\":1,") {
            vec![
                stream_head(""),
                chunk(&format!("data: {CHANGED}\n\ndata: {}\n\n", result(1))),
                stream_end(),
            ]
        } else {
            answer("202 Accepted", "", "")
        }
    })
    .await;
    let rig = Rig::start(behind.address);
    let mut agent = Agent::open(&rig).await;
    agent.say(&rig, INITIALIZE).await;
    assert_eq!(agent.hear().await, INITIALIZED);
    agent.say(&rig, READY).await;
    agent.say(&rig, &call(1, "get")).await;
    assert_eq!(agent.hear().await, CHANGED);
    assert_eq!(agent.hear().await, result(1));
    drop(agent);
    soon("the session to be ended", async {
        while !behind.received().last().unwrap().head.starts_with("DELETE ") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let received = behind.received();
    for request in received.iter().filter(|request| request.body != INITIALIZE.as_bytes()) {
        assert_eq!(request.header("mcp-session-id"), ["s-1"], "{}", request.head);
        assert_eq!(request.header("mcp-protocol-version"), ["2024-11-05"], "{}", request.head);
    }
    assert_eq!(received[0].body, INITIALIZE.as_bytes());
}

#[tokio::test]
async fn an_agent_reaches_a_child() {
    let script = format!(
        r#"number() {{ expr "$line" : '.*"id":\([0-9]*\)'; }}
        read -r line; echo '{INITIALIZED}' | sed "s/\"id\":0/\"id\":$(number)/"
        while read -r line; do case "$line" in *'"id":'*) echo '{}' | sed "s/\"id\":2/\"id\":$(number)/";; esac; done"#,
        result(2)
    );
    let rig = Rig::to(HttpConfig::default(), |shared| {
        let spec = ChildSpec::new("sh", vec!["-c".into(), script]);
        let limits = ChildLimits::default();
        Upstream::Child(ChildUpstream::new(spec, limits, shared.clone(), protected()))
    });
    let mut agent = Agent::open(&rig).await;
    agent.say(&rig, INITIALIZE).await;
    assert_eq!(agent.hear().await, INITIALIZED);
    agent.say(&rig, READY).await;
    agent.say(&rig, &call(70, "get")).await;
    assert_eq!(agent.hear().await, result(70));
    agent.say(&rig, &call(71, "denied")).await;
    assert!(agent.hear().await.contains(r#""id":71,"error""#));
    drop(agent);
    rig.drained().await;
}

#[tokio::test]
async fn a_client_on_stdio_reaches_it() {
    let server = SseServer::ordinary().await;
    let (shared, _) = shared();
    let http = HttpUpstream::new(upstream_config(server.behind.address)).unwrap();
    let limits = LegacySseLimits::default();
    let upstream = LegacySseUpstream::new(http, limits, shared.clone());
    let serving = Serving {
        shared,
        server: protected(),
        principal: Arc::new(Principal { id: "agent".into(), ..Principal::default() }),
        upstream: StdioUpstream::Http(Arc::new(upstream.into())),
        limits: StdioLimits::default(),
    };
    let (mut to, input) = tokio::io::duplex(1 << 16);
    let (output, from) = tokio::io::duplex(1 << 16);
    let run = TaskTracker::new().spawn(serve_pipes(serving, input, output));
    let mut lines = BufReader::new(from).lines();
    let line = |text: &str| format!("{text}\n").into_bytes();
    to.write_all(&line(INITIALIZE)).await.unwrap();
    server.behind.nth(2).await;
    server.say(INITIALIZED);
    assert_eq!(soon("a line", lines.next_line()).await.unwrap().unwrap(), INITIALIZED);
    to.write_all(&line(READY)).await.unwrap();
    to.write_all(&line(&call(1, "get"))).await.unwrap();
    server.behind.nth(4).await;
    server.say(&result(1));
    assert_eq!(soon("a line", lines.next_line()).await.unwrap().unwrap(), result(1));
    assert_eq!(server.posted(), [INITIALIZE, READY, &call(1, "get")]);
    drop(to);
    server.let_go().await;
    soon("the run to end", run).await.unwrap();
}

#[tokio::test]
async fn wrap_reaches_it() {
    let server = SseServer::ordinary().await;
    let state = tempfile::tempdir().unwrap();
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .args(["wrap", "--observe", "--transport", "sse", "--state"])
        .arg(state.path().join("state"))
        .args(["--url", &format!("http://{}/up/stream", server.behind.address)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut to = program.stdin.take().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let line = |text: &str| format!("{text}\n").into_bytes();
    to.write_all(&line(INITIALIZE)).await.unwrap();
    server.behind.nth(2).await;
    server.say(INITIALIZED);
    assert_eq!(soon("a line", lines.next_line()).await.unwrap().unwrap(), INITIALIZED);
    to.write_all(&line(READY)).await.unwrap();
    to.write_all(&line(&call(1, "get"))).await.unwrap();
    server.behind.nth(4).await;
    server.say(&result(1));
    assert_eq!(soon("a line", lines.next_line()).await.unwrap().unwrap(), result(1));
    assert_eq!(server.posted(), [INITIALIZE, READY, &call(1, "get")]);
    drop(to);
    server.let_go().await;
    assert!(soon("its end", program.wait()).await.unwrap().success());
}

#[tokio::test]
async fn it_may_be_served_at_the_root() {
    let server = SseServer::ordinary().await;
    let way = HttpUpstream::new(upstream_config(server.behind.address)).unwrap();
    let rig = Rig::of(
        HttpConfig::default(),
        |_| way.into(),
        |route| vec![Route { sse_path: Some("/".into()), ..route }],
    );
    let mut stream = rig.client().await;
    stream.send(&request("GET", "/", "", "")).await;
    assert_eq!(stream.head().await.0, 200);
    let first = stream.event().await;
    let endpoint = first.strip_prefix("event: endpoint\ndata: ").unwrap().trim_end();
    assert_eq!(endpoint.len(), 33, "{endpoint}: one slash, else it names a host");
    assert_eq!(rig.ask(&request("POST", endpoint, "", INITIALIZE)).await.status, 202);
}

#[tokio::test]
async fn streams_are_bounded() {
    let server = SseServer::ordinary().await;
    let mut config = HttpConfig::default();
    config.limits.sessions_max = 1;
    let address = server.behind.address;
    let rig = Rig::with(address, config, |_| {});
    let first = Agent::open(&rig).await;
    assert_eq!(rig.ask(&request("GET", "/flags/sse", "", "")).await.status, 429);
    drop(first);
    soon("room", async {
        loop {
            let mut next = rig.client().await;
            next.send(&request("GET", "/flags/sse", "", "")).await;
            if next.head().await.0 == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_is_its_principals_alone() {
    let server = SseServer::ordinary().await;
    let address = server.behind.address;
    let way = || HttpUpstream::new(upstream_config(address)).unwrap().into();
    let other = Route {
        path: "/other".into(),
        sse_path: Some("/other/sse".into()),
        server: protected(),
        hosts: Vec::new(),
        origins: Vec::new(),
        principal: Arc::new(Principal { id: "another".into(), ..Principal::default() }),
        upstream: way(),
        oauth: None,
    };
    let rig = Rig::of(HttpConfig::default(), |_| way(), |route| vec![route, other]);
    let agent = Agent::open(&rig).await;
    let theirs = agent.endpoint.replace("/flags/sse", "/other/sse");
    let reply = rig.ask(&request("POST", &theirs, "", INITIALIZE)).await;
    assert_eq!(reply.status, 404, "{}", reply.text());
    assert!(server.behind.received().is_empty());
    agent.say(&rig, INITIALIZE).await;
}

/// What a server wants to see before it takes anything.
const TOKEN: &str = "Authorization: Bearer t0ken\r\n";

/// A server's challenge; none where the token came along.
fn challenged(request: &Received) -> Option<Vec<Play>> {
    let scope = String::from_utf8_lossy(&request.body).contains("\"more\"");
    let metadata = "http://up.example/.well-known/oauth-protected-resource/up";
    let (status, error) = match request.header("authorization")[..] {
        ["Bearer t0ken"] if scope => ("403 Forbidden", ", error=\"insufficient_scope\""),
        ["Bearer t0ken"] => return None,
        _ => ("401 Unauthorized", ""),
    };
    let headers = format!(
        "Content-Type: application/json\r\nSet-Cookie: a=b\r\nWWW-Authenticate: Bearer resource_metadata=\"{metadata}\"{error}\r\n"
    );
    Some(answer(status, &headers, "{\"no\":\"token\"}"))
}

/// A firewall that is one resource with the server behind it.
fn one_resource(upstream: impl FnOnce(&Shared) -> Upstream) -> Rig {
    Rig::of(HttpConfig::default(), upstream, |route| {
        let theirs = "http://up.example/up".parse().unwrap();
        let forward = Forward::new(None, &theirs, None, false);
        vec![Route { oauth: Some(OAuth::Forward(forward)), ..route }]
    })
}

fn forwarding(address: SocketAddr) -> HttpUpstream {
    let config = upstream_config(address);
    HttpUpstream::new(HttpUpstreamConfig { forward_authorization: true, ..config }).unwrap()
}

fn assert_challenged(reply: &Reply, status: u16, error: &str) {
    assert_eq!((reply.status, reply.text().contains("-31006")), (status, true));
    assert!(!reply.text().contains("token"), "{}", reply.text());
    let expected = format!(
        "Bearer resource_metadata=\"http://localhost/.well-known/oauth-protected-resource/flags\"{error}"
    );
    assert_eq!(reply.header("www-authenticate"), [expected]);
    assert!(reply.header("set-cookie").is_empty());
}

/// With the token: what is posted is taken.
async fn say_with_token(rig: &Rig, agent: &Agent, body: &str) {
    let reply = rig.ask(&request("POST", &agent.endpoint, TOKEN, body)).await;
    assert_eq!((reply.status, reply.text()), (202, ""), "{body}");
}

#[tokio::test]
async fn a_challenge_answers_the_post_and_is_not_on_the_stream() {
    let behind = Behind::start(|_, request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if request.head.starts_with("GET /.well-known") {
            json("{\"resource\":\"http://up.example/up\"}")
        } else if let Some(challenge) = challenged(request) {
            challenge
        } else if body.contains("\"initialize\"") {
            json(INITIALIZED)
        } else if body.contains("\"id\":4,") {
            answer("403 Forbidden", "", "no")
        } else if body.contains("\"id\":5,") {
            json(&result(5))
        } else {
            answer("202 Accepted", "", "")
        }
    })
    .await;
    let rig = one_resource(|_| forwarding(behind.address).into());
    let mut agent = Agent::open(&rig).await;
    assert_challenged(&agent.post(&rig, INITIALIZE).await, 401, "");
    say_with_token(&rig, &agent, INITIALIZE).await;
    assert_eq!(agent.hear().await, INITIALIZED, "nothing before it");
    assert_challenged(&agent.post(&rig, READY).await, 401, "");
    say_with_token(&rig, &agent, READY).await;
    assert_challenged(&agent.post(&rig, &call(2, "get")).await, 401, "");
    let more = rig.ask(&request("POST", &agent.endpoint, TOKEN, &call(3, "more"))).await;
    assert_challenged(&more, 403, ", error=\"insufficient_scope\"");
    // Anything but a challenge is an ordinary answer and is sent on the stream.
    say_with_token(&rig, &agent, &call(4, "get")).await;
    let failed = agent.hear().await;
    assert!(failed.starts_with(r#"{"jsonrpc":"2.0","id":4,"error":{"#), "{failed}");
    say_with_token(&rig, &agent, &call(5, "get")).await;
    assert_eq!(agent.hear().await, result(5));
    let found =
        rig.ask(&request("GET", "/.well-known/oauth-protected-resource/flags/sse", "", "")).await;
    assert_eq!(found.text(), "{\"resource\":\"http://localhost/flags\"}");
    drop(agent);
    rig.drained().await;
    let events = rig.sink.events();
    let count = |event| events.iter().filter(|found| **found == event).count();
    assert_eq!(count(Event::Intent), count(Event::Outcome), "{events:?}");
}

#[tokio::test]
async fn a_challenge_of_an_http_sse_server_answers_the_post() {
    let (events, relay) = mpsc::channel(256);
    events.try_send(event("event: endpoint\ndata: /m\n\n")).unwrap();
    let relay = Arc::new(Mutex::new(Some(relay)));
    let behind = Behind::start(move |_, request| {
        if request.head.starts_with("GET /.well-known") {
            json("{\"resource\":\"http://up.example/up\"}")
        } else if let Some(challenge) = challenged(request) {
            challenge
        } else if request.head.starts_with("GET ") {
            vec![stream_head(""), Play::Relay(Arc::clone(&relay))]
        } else {
            answer("202 Accepted", "", "Accepted")
        }
    })
    .await;
    let rig = one_resource(|shared| {
        let (http, limits) = (forwarding(behind.address), LegacySseLimits::default());
        LegacySseUpstream::new(http, limits, shared.clone()).into()
    });
    let found = rig.ask(&request("GET", "/.well-known/oauth-protected-resource", "", "")).await;
    assert_eq!(found.text(), "{\"resource\":\"http://localhost/flags\"}");
    let mut agent = Agent::open(&rig).await;
    assert_challenged(&agent.post(&rig, INITIALIZE).await, 401, "");
    let say = |message: &str| {
        events.try_send(event(&format!("event: message\ndata: {message}\n\n"))).unwrap();
    };
    say(INITIALIZED);
    say_with_token(&rig, &agent, INITIALIZE).await;
    assert_eq!(agent.hear().await, INITIALIZED);
    assert_challenged(&agent.post(&rig, &call(1, "get")).await, 401, "");
    assert_challenged(&agent.post(&rig, READY).await, 401, "");
    say_with_token(&rig, &agent, READY).await;
    say(CHANGED);
    assert_eq!(agent.hear().await, CHANGED, "nothing before it");
}

#[tokio::test]
async fn a_post_does_not_wait_for_an_answer_that_takes_its_time() {
    let go = Arc::new(Notify::new());
    let behind = Behind::start({
        let go = Arc::clone(&go);
        move |_, _| [vec![Play::Wait(Arc::clone(&go))], json(INITIALIZED)].concat()
    })
    .await;
    let rig = one_resource(|_| forwarding(behind.address).into());
    let mut agent = Agent::open(&rig).await;
    agent.say(&rig, INITIALIZE).await;
    go.notify_one();
    assert_eq!(agent.hear().await, INITIALIZED);
}

#[tokio::test]
async fn an_initialize_that_the_server_refuses_begins_nothing_and_may_come_again() {
    const REFUSED: &str =
        r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"not this version"}}"#;
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let mut agent = Agent::open(&rig).await;
    agent.say(&rig, INITIALIZE).await;
    server.behind.nth(2).await;
    server.say(REFUSED);
    assert_eq!(agent.hear().await, REFUSED);
    server.let_go().await;
    // Its stream stands, and the next one opens another session with the server.
    agent.say(&rig, &INITIALIZE.replace("\"id\":0", "\"id\":1")).await;
    let again = server.behind.nth(3).await;
    assert!(again.head.starts_with("GET "), "{}", again.head);
    // So with a client of Streamable HTTP, whose id then names nothing.
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let mut client = rig.client().await;
    client.send(&post("", INITIALIZE)).await;
    server.behind.nth(2).await;
    server.say(REFUSED);
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (200, REFUSED));
    server.let_go().await;
    assert!(reply.header("mcp-session-id").is_empty(), "{reply:?}");
}

#[tokio::test]
async fn a_session_that_the_server_has_forgotten_ends_the_stream() {
    let behind = Behind::start(|_, request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if body.contains("\"initialize\"") {
            let headers = "Content-Type: application/json\r\nMcp-Session-Id: s-1\r\n";
            answer("200 OK", headers, INITIALIZED)
        } else if body.contains("\"id\":1,") {
            answer("404 Not Found", "", "")
        } else if request.head.starts_with("GET") {
            answer("405 Method Not Allowed", "", "")
        } else {
            answer("202 Accepted", "", "")
        }
    })
    .await;
    let rig = Rig::start(behind.address);
    let mut agent = Agent::open(&rig).await;
    agent.say(&rig, INITIALIZE).await;
    assert_eq!(agent.hear().await, INITIALIZED);
    agent.say(&rig, READY).await;
    agent.say(&rig, &call(1, "get")).await;
    let failed = agent.hear().await;
    assert!(failed.starts_with(r#"{"jsonrpc":"2.0","id":1,"error":{"#), "{failed}");
    assert!(agent.stream.chunk().await.is_none(), "its stream ends");
    let begun = |request: &Received| request.body == INITIALIZE.as_bytes();
    assert_eq!(behind.received().iter().filter(|request| begun(request)).count(), 1);
}

#[tokio::test]
async fn a_late_answer_on_the_shared_stream_is_not_given_to_another_request() {
    // F12.
    const SECRET: &str = "AKIAQYLPMN5HFIQR7XYA";
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let server = SseServer::ordinary().await;
    let rig = server.rig();
    let mut client = rig.client().await;
    client.send(&post("", INITIALIZE)).await;
    server.behind.nth(2).await;
    server.say(INITIALIZED);
    let reply = client.reply().await;
    let session = format!("Mcp-Session-Id: {}\r\n", reply.header("mcp-session-id")[0]);
    client.send(&post(&session, &call(1, "guarded"))).await;
    server.behind.nth(3).await;
    assert_eq!(rig.ask(&post(&session, cancel)).await.status, 202);
    drop(client);
    let again = rig.ask(&post(&session, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)).await;
    assert_eq!(again.status, 400);
    let mut other = rig.client().await;
    other.send(&post(&session, &call(2, "get"))).await;
    server.behind.nth(5).await;
    server.say(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":"{SECRET}"}}}}"#
    ));
    server.say(&format!(
        r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":1,"message":"{SECRET}"}}}}"#
    ));
    server.say(&result(1).replace("[]", &format!("\"{SECRET}\"")));
    server.say(&result(2));
    assert_eq!(other.head().await.0, 200);
    let mut heard = String::new();
    while let Some(chunk) = other.chunk().await {
        heard.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(heard.contains(&result(2)) && !heard.contains(SECRET), "{heard}");
    assert!(heard.contains(r#""data":"[redacted]""#) && !heard.contains("\"id\":1"), "{heard}");
}

#[tokio::test]
async fn what_the_server_asks_does_not_go_to_a_cancelled_call() {
    const ASK: &str = r#"{"jsonrpc":"2.0","id":"s-1","method":"roots/list"}"#;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    for listens in [false, true] {
        let server = SseServer::ordinary().await;
        let rig = server.rig();
        let mut client = rig.client().await;
        client.send(&post("", INITIALIZE)).await;
        server.behind.nth(2).await;
        server.say(INITIALIZED);
        let reply = client.reply().await;
        let session = format!("Mcp-Session-Id: {}\r\n", reply.header("mcp-session-id")[0]);
        assert_eq!(rig.ask(&post(&session, READY)).await.status, 202);
        client.send(&post(&session, &call(1, "get"))).await;
        server.behind.nth(4).await;
        // A client that does not announce its end may be gone, too.
        if !listens {
            assert_eq!(rig.ask(&post(&session, cancel)).await.status, 202);
        }
        let (mut stream, mut next) = (rig.client().await, rig.client().await);
        if listens {
            stream.send(&request("GET", "/flags", &session, "")).await;
            assert_eq!(stream.head().await.0, 200);
        }
        next.send(&post(&session, &call(2, "get"))).await;
        server.behind.nth(if listens { 5 } else { 6 }).await;
        server.say(ASK);
        let mut asked = if listens { stream } else { next };
        if !listens {
            assert_eq!(asked.head().await.0, 200);
        }
        assert_eq!(asked.event().await, format!("data: {ASK}\n\n"), "listens: {listens}");
    }
}
