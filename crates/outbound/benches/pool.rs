//! Our pool of connections beside that of hyper-util: what a call costs in each, and what an event
//! of a stream costs.
//!
//! `cargo bench -p bartizan-outbound --bench pool` prints times, calls of both by turns so that
//! both see the same machine. For instruction counts, which a busy machine does not change, run the
//! built file as `valgrind --tool=callgrind FILE own call 2000`, then with 1000, and divide the
//! difference; `hyper` names the other pool and `event` the other measure. `FILE own memory 2000`
//! opens so many streams and prints what the process grew by. The server is a process of its own,
//! so that it is not counted.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a wrong bench may end in a panic"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bartizan_outbound::address::Address;
use bartizan_outbound::pool::{Pool, PoolLimits};
use bartizan_outbound::tls::Tls;
use bytes::Bytes;
use http::{Request, Uri};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

const QUESTION: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"update_flag","arguments":{"key":"checkout","environment":"staging","percentage":25}}}"#;
const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":"on for a quarter of staging"}],"isError":false}}"#;
const EVENT: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":1}}\n\n";

/// Reads one request with a `Content-Length`; its target.
fn request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line == "\r\n" {
            break;
        }
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(target)
}

/// Answers `/call` with a body, and `/event` with a stream of one event for each byte that comes
/// on the connection to `/go` (which is not HTTP).
fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let steps = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{} {}", listener.local_addr().unwrap(), steps.local_addr().unwrap());
    let steps = Arc::new(steps);
    for stream in listener.incoming() {
        let (stream, steps) = (stream.unwrap(), Arc::clone(&steps));
        std::thread::spawn(move || {
            stream.set_nodelay(true).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let mut reader = BufReader::new(stream);
            let whole = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
                ANSWER.len()
            );
            while let Some(target) = request(&mut reader) {
                if target == "/call" {
                    writer.write_all(whole.as_bytes()).unwrap();
                    continue;
                }
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                writer.write_all(head.as_bytes()).unwrap();
                let (mut step, _) = steps.accept().unwrap();
                let mut byte = [0];
                while step.read(&mut byte).unwrap_or(0) == 1 {
                    let event = format!("{:x}\r\n{EVENT}\r\n", EVENT.len());
                    writer.write_all(event.as_bytes()).unwrap();
                }
                return;
            }
        });
    }
}

struct Server {
    process: Child,
    address: SocketAddr,
    steps: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let program = std::env::current_exe().unwrap();
        let mut process = Command::new(program)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (address, steps) = line.trim().split_once(' ').unwrap();
        Self { process, address: address.parse().unwrap(), steps: steps.parse().unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// One of the two.
enum Way {
    Own(Arc<Pool>),
    Hyper(Box<Client<HttpConnector, Full<Bytes>>>),
}

type AnyBody = Pin<Box<dyn Body<Data = Bytes, Error = String> + Send>>;

impl Way {
    fn new(name: &str, address: SocketAddr) -> Self {
        if name == "own" {
            let address = Address::parse(&format!("http://{address}/")).unwrap();
            let limits = PoolLimits {
                idle_max: 64,
                idle: Duration::from_secs(30),
                connect: Duration::from_secs(5),
                headers_max: 100,
                head_bytes_max: 64 << 10,
            };
            return Self::Own(Arc::new(Pool::new(address, Tls::default(), limits).unwrap()));
        }
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        Self::Hyper(Box::new(
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_secs(30))
                .pool_max_idle_per_host(64)
                .http1_max_headers(100)
                .http1_max_buf_size(64 << 10)
                .set_host(false)
                .build(tcp),
        ))
    }

    async fn send(&self, address: SocketAddr, path: &str) -> AnyBody {
        let mut request = Request::post("/").body(Full::from(QUESTION)).unwrap();
        let headers = request.headers_mut();
        headers.insert("host", address.to_string().parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        match self {
            Self::Own(pool) => {
                *request.uri_mut() = path.parse().unwrap();
                let (_, body) = pool.send(request).await.unwrap();
                Box::pin(body.map_err(|failure| failure.to_string()))
            }
            Self::Hyper(client) => {
                let authority = address.to_string();
                let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path);
                *request.uri_mut() = uri.build().unwrap();
                let body = client.request(request).await.unwrap().into_body();
                Box::pin(body.map_err(|failure| failure.to_string()))
            }
        }
    }

    async fn call(&self, address: SocketAddr) {
        let body = self.send(address, "/call").await.collect().await.unwrap();
        assert_eq!(body.to_bytes().len(), ANSWER.len());
    }
}

/// An open stream of events, one for each byte sent to `step`.
struct Stream {
    step: TcpStream,
    body: AnyBody,
}

impl Stream {
    async fn open(way: &Way, server: &Server) -> Self {
        let body = way.send(server.address, "/event").await;
        let step = TcpStream::connect(server.steps).unwrap();
        step.set_nodelay(true).unwrap();
        Self { step, body }
    }

    async fn event(&mut self) {
        self.step.write_all(b"x").unwrap();
        let frame = self.body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap().len(), EVENT.len());
    }
}

/// Memory of this process, KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn run(way: &str, what: &str, count: usize) {
    let server = Server::start();
    let way = Way::new(way, server.address);
    if what == "memory" {
        let before = resident();
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(way.send(server.address, "/event").await);
        }
        println!("{} KiB a stream", (resident() - before) as f64 / count as f64);
    } else if what == "call" {
        for _ in 0..count {
            way.call(server.address).await;
        }
    } else {
        let mut stream = Stream::open(&way, &server).await;
        for _ in 0..count {
            stream.event().await;
        }
    }
}

/// Median times of both, by turns.
async fn compare() {
    let server = Server::start();
    let ways = [Way::new("own", server.address), Way::new("hyper", server.address)];
    let mut streams =
        [Stream::open(&ways[0], &server).await, Stream::open(&ways[1], &server).await];
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..20_000 {
        for (n, way) in ways.iter().enumerate() {
            let before = Instant::now();
            way.call(server.address).await;
            times[n].push(before.elapsed());
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            let before = Instant::now();
            stream.event().await;
            times[n + 2].push(before.elapsed());
        }
    }
    for (name, mut times) in
        ["call, own pool", "call, hyper-util", "event, own pool", "event, hyper-util"]
            .into_iter()
            .zip(times)
    {
        times.sort_unstable();
        println!("{name}: median {:?}", times[times.len() / 2]);
    }
}

/// Runs `task` as the program serves: on a worker thread.
fn on_a_worker(task: impl Future<Output = ()> + Send + 'static) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    let task = runtime.spawn(task);
    runtime.block_on(task).unwrap();
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve"] => serve(),
        [way @ ("own" | "hyper"), what @ ("call" | "event" | "memory"), count] => {
            let (way, what) = ((*way).to_owned(), (*what).to_owned());
            let count = count.parse().unwrap();
            on_a_worker(async move { run(&way, &what, count).await });
        }
        _ => on_a_worker(compare()),
    }
}
