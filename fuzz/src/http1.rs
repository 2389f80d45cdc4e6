//! Invariants of the agents' listener: what reaches the server is one unambiguous request that
//! was permitted and recorded. The functions here panic if one is broken.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bartizan_edge::Shared;
use bartizan_edge::clock::Clock;
use bartizan_edge::http::{HttpConfig, Listener, Route};
use bartizan_edge::upstream::{HttpUpstream, HttpUpstreamConfig, HttpUpstreamLimits};
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::session::{Gate, Protected, RefusalForm};
use bartizan_gate::wire::headers::decode;
use http::HeaderMap;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::stubs::{Tally, gate_config, policy, refuses};

/// Stands for the length of what follows the head, so that a body may grow and still arrive.
const ANY_LENGTH: &[u8] = b"Content-Length: *";
/// The target that the server is configured with.
const TARGET: &str = "/up/stream";
/// The headers that may reach the server (P13), besides `mcp-param-`.
const ALLOWED: [&str; 12] = [
    "accept",
    "accept-encoding",
    "baggage",
    "content-length",
    "content-type",
    "host",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "traceparent",
    "tracestate",
    "user-agent",
];
/// Of legacy streams and sessions.
const OF_SESSIONS: [&str; 2] = ["last-event-id", "mcp-session-id"];
/// Virtual time: it advances only when every task is idle.
const QUIET: Duration = Duration::from_millis(1);

/// A request as the server received it.
struct Received {
    head: Vec<u8>,
    body: Vec<u8>,
}

/// The listener, the server behind it, and the one thread that runs both.
struct Stage {
    runtime: Runtime,
    tasks: LocalSet,
    listener: SocketAddr,
    sink: Arc<Tally>,
    received: Rc<RefCell<Vec<Received>>>,
}

thread_local! {
    static STAGE: Stage = Stage::start();
}

/// Bytes of one connection. Whatever they are, each message that the server receives is well
/// framed, carries only headers that may pass, was permitted, and has its own record.
pub fn http1(bytes: &[u8]) {
    STAGE.with(|stage| {
        let sent = with_length(bytes);
        stage.runtime.block_on(stage.tasks.run_until(exchange(stage.listener, &sent)));
        let received = stage.received.take();
        let intents: u32 = stage.sink.calls().drain().map(|(_, kept)| kept.intents).sum();
        let count = u32::try_from(received.len()).expect("few requests");
        assert!(count <= intents, "{count} received, {intents} recorded");
        for request in &received {
            judge(request, &sent);
        }
    });
}

impl Stage {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let tasks = LocalSet::new();
        let received = Rc::default();
        let sink = Arc::<Tally>::default();
        let listener = runtime.block_on(tasks.run_until(async {
            // A peer that has gone is an error here, as in a program that Rust starts, no signal.
            let pipes = signal(SignalKind::pipe()).expect("a handler");
            drop(tokio::task::spawn_local(forever(pipes)));
            let behind = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let server = behind.local_addr().expect("an address");
            drop(tokio::task::spawn_local(serve(behind, Rc::clone(&received))));
            let listener = listener(server, Arc::clone(&sink));
            let address = listener.local_addr().expect("an address");
            drop(tokio::task::spawn_local(listener.serve()));
            address
        }));
        Self { runtime, tasks, listener, sink, received }
    }
}

fn listener(server: SocketAddr, sink: Arc<Tally>) -> Listener {
    let shared = Shared {
        gate: Arc::new(Gate::new(gate_config(), policy(true))),
        sink,
        clock: Clock::start(),
        aside: Arc::default(),
        tasks: TaskTracker::new(),
        closing: CancellationToken::new(),
        holding: None,
    };
    let upstream = HttpUpstreamConfig {
        url: format!("http://{server}{TARGET}"),
        headers: HeaderMap::new(),
        owned_headers: Vec::new(),
        forward_authorization: false,
        context: Vec::new(),
        ca_pem: None,
        limits: HttpUpstreamLimits::default(),
    };
    let route = Route {
        path: "/x".into(),
        sse_path: None,
        server: Arc::new(Protected::new(Server::default(), RefusalForm::Error)),
        hosts: Vec::new(),
        origins: Vec::new(),
        principal: Arc::<Principal>::default(),
        upstream: HttpUpstream::new(upstream).expect("a way to the server").into(),
        oauth: None,
    };
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    Listener::new(tcp, vec![route], HttpConfig::default(), shared).expect("a listener")
}

/// Puts the length of all that follows the first head where its place is held.
fn with_length(bytes: &[u8]) -> Vec<u8> {
    let place = find(bytes, ANY_LENGTH);
    let head = find(bytes, b"\r\n\r\n").map(|at| at + 4);
    let (Some(place), Some(head)) = (place, head) else { return bytes.to_vec() };
    if place > head {
        return bytes.to_vec();
    }
    let (before, after) = bytes.split_at(place + ANY_LENGTH.len() - 1);
    let length = (bytes.len() - head).to_string();
    [before, length.as_bytes(), after.get(1..).unwrap_or_default()].concat()
}

/// Writes `bytes`, takes whatever comes, and leaves once nothing more does.
async fn exchange(listener: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(listener).await.expect("the listener is there");
    // Neither end of a closed connection may hold its port: there are thousands each second.
    stream.set_zero_linger().expect("a socket option");
    let mut answer = Vec::new();
    if stream.write_all(bytes).await.is_ok() {
        while let Ok(Ok(1..)) = tokio::time::timeout(QUIET, stream.read_buf(&mut answer)).await {
            answer.clear();
        }
    }
    drop(stream);
    tokio::time::sleep(QUIET).await;
}

async fn forever(mut signals: Signal) {
    while signals.recv().await.is_some() {}
}

async fn serve(behind: TcpListener, received: Rc<RefCell<Vec<Received>>>) {
    while let Ok((stream, _)) = behind.accept().await {
        drop(tokio::task::spawn_local(connection(stream, Rc::clone(&received))));
    }
}

/// Takes requests by their length alone, and answers each with a result under its id.
async fn connection(mut stream: TcpStream, received: Rc<RefCell<Vec<Received>>>) {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break buffer.drain(..end + 4).collect::<Vec<_>>();
            }
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                assert!(buffer.is_empty(), "part of a head");
                return;
            }
        };
        let length = length_of(&head);
        while buffer.len() < length {
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
        let body: Vec<_> = buffer.drain(..length).collect();
        let id =
            serde_json::from_slice::<Value>(&body).ok().and_then(|body| body.get("id").cloned());
        let answer = match id {
            Some(id) => {
                let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
                let length = body.len();
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                )
            }
            None => "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_owned(),
        };
        received.borrow_mut().push(Received { head, body });
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The fields of a head as a second reader sees them, names in lower case.
fn fields(head: &[u8]) -> (String, String, Vec<(String, Vec<u8>)>) {
    let mut room = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut room);
    let parsed = request.parse(head).expect("a request");
    assert_eq!(parsed, httparse::Status::Complete(head.len()), "one head, whole");
    assert_eq!(request.version, Some(1));
    let fields = request.headers.iter();
    (
        request.method.unwrap_or_default().to_owned(),
        request.path.unwrap_or_default().to_owned(),
        fields.map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect(),
    )
}

fn length_of(head: &[u8]) -> usize {
    let (method, _, fields) = fields(head);
    let lengths: Vec<_> = fields.iter().filter(|(name, _)| name == "content-length").collect();
    match &*lengths {
        [(_, value)] => {
            let text = std::str::from_utf8(value).expect("digits");
            text.parse().expect("a length")
        }
        [] => {
            assert_ne!(method, "POST", "a message has a length");
            0
        }
        _ => panic!("two lengths"),
    }
}

fn judge(request: &Received, sent: &[u8]) {
    let (method, path, fields) = fields(&request.head);
    assert_eq!(path, TARGET, "the target is configured, not the client's");
    let mut names = BTreeSet::new();
    for (name, _) in &fields {
        let allowed = ALLOWED.contains(&&**name)
            || OF_SESSIONS.contains(&&**name)
            || name.starts_with("mcp-param-");
        assert!(allowed, "the header {name} reached the server");
        let first = names.insert(name);
        let repeatable = matches!(&**name, "accept" | "baggage" | "tracestate");
        assert!(first || repeatable, "the header {name} came twice");
    }
    match &*method {
        "POST" => message(request, &fields, sent),
        "GET" | "DELETE" => assert!(request.body.is_empty()),
        _ => panic!("the method {method} reached the server"),
    }
}

fn message(request: &Received, fields: &[(String, Vec<u8>)], sent: &[u8]) {
    if find(&sent.to_ascii_lowercase(), b"chunked").is_none() && !sent.starts_with(b"PRI") {
        assert!(find(sent, &request.body).is_some(), "not the bytes that were sent");
    }
    let body: Value = serde_json::from_slice(&request.body).expect("forwarded, so JSON");
    let text = |pointer| body.pointer(pointer).and_then(Value::as_str);
    let Some(method) = text("/method") else { panic!("an answer that nobody asked for") };
    let subject = if method == "tools/call" { text("/params/name") } else { Some(method) };
    assert!(subject.is_some_and(|subject| !refuses(subject)), "was denied");
    let header = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| name == wanted)?;
        Some(std::str::from_utf8(&found.1).expect("routing headers are ASCII"))
    };
    let meta = body.pointer("/params/_meta");
    let version = meta
        .and_then(|meta| meta.get("io.modelcontextprotocol/protocolVersion"))
        .and_then(Value::as_str);
    assert!(version.is_none() || header("mcp-protocol-version") == version);
    assert!(header("mcp-method").is_none_or(|header| header == method));
    let name = ["/params/name", "/params/uri", "/params/taskId"].into_iter().filter_map(text);
    if let Some(header) = header("mcp-name") {
        let header = decode(header).expect("a header that can be read");
        assert!(name.into_iter().any(|name| *name == *header), "Mcp-Name {header}");
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}
