//! What a stream without an end takes of the memory while nothing happens on it (threat K16).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::failures::Program;

/// Streams that are open before the first measurement: what they need first is for all.
const FIRST: usize = 100;
/// Streams that are opened between the two measurements.
const MORE: usize = 400;
/// Most memory of one idle stream, bytes. Ten thousand of them and the program itself then fit
/// 256 MiB.
const STREAM_BYTES_MAX: usize = 24 << 10;

/// How often it is measured at most, if it takes more.
const ROUNDS: usize = 3;

/// A policy without rate limits: a refused request is no stream.
const OPEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/examples/open");

/// A server whose answer to every request is a stream on which nothing comes.
fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            head(&mut stream);
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            open.push(stream);
        }
    });
    address
}

/// Reads one head.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut piece).unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&piece[..read]);
    }
    String::from_utf8(head).unwrap()
}

/// Memory that the program has resident, bytes, without the pages of its own file: which of those
/// are there depends on what else it has done.
fn resident(program: &Program) -> usize {
    let path = format!("/proc/{}/status", program.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes.saturating_mul(1024)
}

/// Bytes for each of many idle streams that `request` opens.
fn bytes_each(request: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\nlimits: {{keep_alive: 200ms}}\npolicy: {{paths: [{OPEN}]}}\nservers:\n  flags: {{path: /mcp, url: 'http://{}/mcp', pack: flag-service, environment: staging}}\n",
        folder.path().join("state").display(),
        silent(),
    );
    let program = Program::run(folder.path(), "", &config);
    let (address, _) = program.addresses();
    let open = |count: usize| -> Vec<TcpStream> {
        (0..count)
            .map(|_| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                let head = head(&mut stream);
                assert!(head.contains("content-type: text/event-stream"), "{head}");
                stream
            })
            .collect()
    };
    // The last stream's second comment comes after those of the others.
    let comments = |streams: &[TcpStream]| {
        let mut last = streams.last().unwrap();
        for _ in 0..3 {
            assert_ne!(last.read(&mut [0; 1024]).unwrap(), 0);
        }
    };
    let first = open(FIRST);
    comments(&first);
    let before = resident(&program);
    let more = open(MORE);
    comments(&more);
    let after = resident(&program);
    drop((first, more));
    after.saturating_sub(before) / MORE
}

#[test]
fn an_idle_stream_takes_little_memory() {
    let get = "GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n";
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let listen = format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: subscriptions/listen\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for request in [get, &listen] {
        // What else the program does in the meantime adds to a measurement, and nothing takes from it.
        let each = (0..ROUNDS).map(|_| bytes_each(request)).find(|each| *each <= STREAM_BYTES_MAX);
        let each = each.unwrap_or_else(|| bytes_each(request));
        assert!(each <= STREAM_BYTES_MAX, "{each} bytes for each stream of {request}");
    }
}
