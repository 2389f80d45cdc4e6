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

mod firewall;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bartizan_audit::durability::Durability;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use firewall::{ANSWER, Firewall, GET, STREAM_HEAD, message, until};
use tokio_util::sync::CancellationToken;

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

/// The firewall before `server`, with everything on.
fn firewall(server: SocketAddr) -> SocketAddr {
    served(Firewall::before(server, 2, CancellationToken::new()))
}

/// Serves on a thread of its own; gives where.
fn served(firewall: Firewall) -> SocketAddr {
    let address = firewall.address;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(firewall.serve());
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
    let server = server();
    let firewall = firewall(server);
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
                stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
                let chunk = firewall::event();
                while ticks.recv().is_ok() {
                    stream.write_all(chunk.as_bytes()).unwrap();
                }
            });
        }
    });
    (address, streams)
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
    let (server, streams) = streaming();
    let firewall = firewall(server);
    let mut ways = [server, firewall].map(|address| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(GET.as_bytes()).unwrap();
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

/// Connections of agents at once.
const AGENTS: u64 = 64;

/// `calls` calls over [`AGENTS`] connections at once.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn at_once(firewall: SocketAddr, request: &[u8], calls: u64) -> Duration {
    let connect = |_| {
        let stream = TcpStream::connect(firewall).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    };
    let streams: Vec<_> = (0..AGENTS).map(connect).collect();
    let begun = Instant::now();
    std::thread::scope(|threads| {
        for mut stream in streams {
            threads.spawn(move || {
                let mut buffer = Vec::new();
                for _ in 0..calls / AGENTS {
                    stream.write_all(request).unwrap();
                    assert!(message(&mut stream, &mut buffer));
                }
            });
        }
    });
    begun.elapsed()
}

/// Calls of 64 agents at once, with a journal on a disk.
fn durability(criterion: &mut Criterion) {
    let server = server();
    let request = request();
    let mut group = criterion.benchmark_group("hop/a call of 64 agents");
    group.throughput(Throughput::Elements(1));
    for (name, durability) in [("durable", Durability::Durable), ("written", Durability::Written)] {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let firewall =
            Firewall::recording(directory, durability, server, 2, CancellationToken::new());
        let firewall = served(firewall);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let made = count.div_ceil(AGENTS) * AGENTS;
                let took = at_once(firewall, &request, made);
                let share = Duration::from_nanos(count);
                took.mul_f64(share.div_duration_f64(Duration::from_nanos(made)))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hop, events, durability);
criterion_main!(benches);
