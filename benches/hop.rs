//! What one hop costs: a `tools/call` to a server on loopback, and an event of a long stream,
//! directly and through the firewall, with a compiled policy and a journal, one connection each.
//! The difference is the hop.
//!
//! The server is a thread that answers a fixed text, so that it costs as little as can be. Events
//! are sent one at a time, direct and through by turns, so that both see the same machine.
//! Throughput and other proxies are measured in `benches/compare`.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a wrong bench may end in a panic"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bartizan::policy::embedded;
use bartizan_audit::journal::{Journal, JournalConfig};
use bartizan_edge::Shared;
use bartizan_edge::clock::Clock;
use bartizan_edge::http::{HttpConfig, Listener, Route};
use bartizan_edge::upstream::{HttpUpstream, HttpUpstreamConfig, HttpUpstreamLimits};
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::question::pack::Pack;
use bartizan_gate::session::{Gate, GateConfig, Mode, Protected, RefusalForm};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_rego::{Entrypoints, EvalLimits, Policy, PolicySources, RegoPdp};
use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":"on for a quarter of staging"}],"isError":false}}"#;

/// Reads one HTTP message with a `Content-Length` and says whether there was one.
fn message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    buffer.clear();
    let mut chunk = [0_u8; 4096];
    loop {
        let read = stream.read(&mut chunk).unwrap_or(0);
        if read == 0 {
            return false;
        }
        buffer.extend_from_slice(&chunk[..read]);
        let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length: usize = head
            .split("content-length:")
            .nth(1)
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        if buffer.len() >= end + 4 + length {
            return true;
        }
    }
}

/// A server that gives every message one answer.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let length = ANSWER.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{ANSWER}"
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let answer = answer.clone();
            std::thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                let mut buffer = Vec::new();
                while message(&mut stream, &mut buffer) {
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

fn policy() -> RegoPdp {
    // Without `limits.rego`: its rates are there to stop such traffic.
    let mut modules = embedded::baseline();
    modules.retain(|module| !module.path.ends_with("limits.rego"));
    modules.extend(embedded::decision());
    let sources = PolicySources { modules, data: None, revision: "bench".into() };
    let policy =
        Policy::compile(&sources, &Entrypoints::default(), &EvalLimits::default()).unwrap();
    RegoPdp::compiled(policy, 2, 1024).unwrap()
}

/// The firewall before `server`, with everything on.
fn firewall(server: SocketAddr, journal: Journal) -> SocketAddr {
    let config = GateConfig {
        mode: Mode::Enforce,
        frame: FrameLimits::default(),
        in_flight_max: 64,
        buckets_max: 64,
        boot: "bench".into(),
        digest_key: [7; 32],
    };
    let shared = Shared {
        gate: Arc::new(Gate::new(config, Arc::new(policy()))),
        sink: Arc::new(journal),
        clock: Clock::start(),
        tasks: TaskTracker::new(),
        closing: CancellationToken::new(),
    };
    let pack = Pack::read(embedded::pack("flag-service").unwrap().as_bytes()).unwrap();
    let facts = Server {
        name: "flags".into(),
        environment: Some("staging".into()),
        pack: Some(Arc::new(pack)),
        ..Server::default()
    };
    let upstream = HttpUpstream::new(HttpUpstreamConfig {
        url: format!("http://{server}/mcp"),
        headers: HeaderMap::new(),
        owned_headers: Vec::new(),
        forward_authorization: false,
        context: Vec::new(),
        ca_pem: None,
        limits: HttpUpstreamLimits::default(),
    });
    let route = Route {
        path: "/mcp".into(),
        sse_path: None,
        server: Arc::new(Protected::new(facts, RefusalForm::Error)),
        hosts: Vec::new(),
        origins: Vec::new(),
        principal: Arc::new(Principal { id: "agent".into(), ..Principal::default() }),
        upstream: upstream.unwrap().into(),
        oauth: None,
    };
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            Listener::new(tcp, vec![route], HttpConfig::default(), shared).unwrap().serve().await;
        });
    });
    address
}

/// One `tools/call` whose body is 1 KiB.
fn request() -> Vec<u8> {
    let head = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_flag","#,
        r#""arguments":{"key":"checkout-redesign","environment":"staging","note":""#,
    );
    let tail = concat!(
        r#""},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
        r#""io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"#,
        r#""io.modelcontextprotocol/clientCapabilities":{}}}}"#,
    );
    let body = format!("{head}{}{tail}", "x".repeat(1024 - head.len() - tail.len()));
    assert_eq!(body.len(), 1024);
    let head = concat!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n",
        "accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n",
        "mcp-method: tools/call\r\nmcp-name: get_flag\r\ncontent-length: 1024\r\n\r\n",
    );
    format!("{head}{body}").into_bytes()
}

fn hop(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let config = JournalConfig::new(directory.path());
    let (journal, _) = Journal::open(&config, "bench", clock.now()).unwrap();
    let server = server();
    let firewall = firewall(server, journal);
    let request = request();
    let mut group = criterion.benchmark_group("hop");
    for (name, address) in [("direct", server), ("through the firewall", firewall)] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut buffer = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                stream.write_all(&request).unwrap();
                assert!(message(&mut stream, &mut buffer));
                assert!(
                    buffer.ends_with(ANSWER.as_bytes()),
                    "{}",
                    String::from_utf8_lossy(&buffer)
                );
            });
        });
    }
    group.finish();
}

/// Events sent each way.
const EVENTS: usize = 5_000;
/// Of those, how many come before anything is measured.
const WARM: usize = 500;

/// A server whose every GET opens a stream; an event is written to it for each tick of the sender
/// that comes out of the second half.
fn streaming() -> (SocketAddr, Receiver<Sender<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (opened, streams) = channel();
    std::thread::spawn(move || {
        let opened = Mutex::new(opened);
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (tick, ticks) = channel();
            opened.lock().unwrap().send(tick).unwrap();
            std::thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                until(&mut stream, b"\r\n\r\n");
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).unwrap();
                let event = format!(
                    "id: stream-1/4711\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{\"level\":\"info\",\"data\":\"{}\"}}}}\n\n",
                    "x".repeat(900)
                );
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                while ticks.recv().is_ok() {
                    stream.write_all(chunk.as_bytes()).unwrap();
                }
            });
        }
    });
    (address, streams)
}

/// Reads up to `end`.
fn until(stream: &mut TcpStream, end: &[u8]) {
    let mut seen = Vec::new();
    let mut chunk = [0_u8; 4096];
    while !seen.ends_with(end) {
        let read = stream.read(&mut chunk).unwrap();
        assert_ne!(read, 0, "closed");
        seen.extend_from_slice(&chunk[..read]);
    }
}

/// One event's way, from the word to send it to its last byte.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn event(stream: &mut TcpStream, tick: &Sender<()>) -> Duration {
    let start = Instant::now();
    tick.send(()).unwrap();
    until(stream, b"\n\n\r\n");
    start.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[expect(clippy::print_stdout, reason = "the figure that the budget names")]
fn events(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let config = JournalConfig::new(directory.path());
    let (journal, _) = Journal::open(&config, "bench", clock.now()).unwrap();
    let (server, streams) = streaming();
    let firewall = firewall(server, journal);
    let mut ways = [server, firewall].map(|address| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let get = "GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
        stream.write_all(get.as_bytes()).unwrap();
        until(&mut stream, b"\r\n\r\n");
        (stream, streams.recv().unwrap(), Vec::with_capacity(EVENTS))
    });
    for sent in 0..EVENTS {
        for (stream, tick, times) in &mut ways {
            let time = event(stream, tick);
            if sent >= WARM {
                times.push(time);
            }
        }
    }
    let [direct, through] = ways.each_mut().map(|(_, _, times)| median(times));
    println!(
        "event: direct {direct:?}, through {through:?}: {:?} more",
        through.saturating_sub(direct)
    );
    let mut group = criterion.benchmark_group("event");
    for (name, (stream, tick, _)) in ["direct", "through the firewall"].into_iter().zip(&mut ways) {
        group.bench_function(name, |bencher| bencher.iter(|| event(stream, tick)));
    }
    group.finish();
}

criterion_group!(benches, hop, events);
criterion_main!(benches);
