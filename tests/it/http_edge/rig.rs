//! A listener on loopback, a scripted server behind it, and a client that writes raw bytes.
//!
//! The server uses no HTTP library, because a library could repair what is tested: it keeps the
//! bytes that it received and answers with the bytes that a test gives it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_edge::Shared;
use bartizan_edge::clock::Clock;
use bartizan_edge::http::{HttpConfig, Listener, Route};
use bartizan_edge::upstream::{HttpUpstream, HttpUpstreamConfig, HttpUpstreamLimits, Upstream};
use bartizan_gate::duty::decision::{Bound, HoldRule, Limit, Obligation, Rate};
use bartizan_gate::duty::redact::Redaction;
use bartizan_gate::evidence::record::{AuditRecord, Event};
use bartizan_gate::question::access::{AccessRequest, Principal, Server};
use bartizan_gate::session::{Gate, GateConfig, Mode, Protected, RefusalForm};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_testing::{ByName, Judge, Sink};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longer than anything here takes; a test that waits for it fails.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: too late"))
}

/// Where the judgement of tool `stalls` waits: for its like, and for the test.
pub(crate) static SLOW: Gates = Gates::new();

/// The same for tool `drags`.
pub(crate) static DRAGS: Gates = Gates::new();

/// Where the intent of a call of tool `recorded-late` waits before it is kept, for the test.
pub(crate) static LATE: Gates = Gates::new();

static DRAGGED: AtomicUsize = AtomicUsize::new(0);

/// The same for tool `crawls`.
pub(crate) static CRAWLS: Gates = Gates::new();
static CRAWLED: AtomicUsize = AtomicUsize::new(0);

/// Where what is asked of a store of limits waits.
pub(crate) static HUNG: Gates = Gates::new();

/// Held by each test whose messages are judged without end for a while: few are judged aside at once,
/// in the whole process.
pub(crate) static SLOW_TEST: Semaphore = Semaphore::const_new(1);

/// Holds threads until a test lets them go.
pub(crate) struct Gates {
    held: Mutex<usize>,
    changed: std::sync::Condvar,
    over: AtomicBool,
}

/// Lets all go, and holds nobody from then on, when it is dropped: a test that fails must not keep
/// the messages of others from being judged.
pub(crate) struct Opened(&'static Gates);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
        self.0.open();
    }
}

impl Gates {
    const fn new() -> Self {
        Self {
            held: Mutex::new(0),
            changed: std::sync::Condvar::new(),
            over: AtomicBool::new(false),
        }
    }

    pub(crate) fn wait(&self) {
        let mut held = self.held.lock().unwrap();
        *held += 1;
        self.changed.notify_all();
        while *held > 0 && !self.over.load(Ordering::SeqCst) {
            held = self.changed.wait(held).unwrap();
        }
    }

    /// Holds threads until the value is dropped, at the latest.
    pub(crate) fn for_this_test(&'static self) -> Opened {
        Opened(self)
    }

    /// Waits until a thread is held.
    pub(crate) fn until_held(&self) {
        let mut held = self.held.lock().unwrap();
        while *held == 0 {
            held = self.changed.wait(held).unwrap();
        }
    }

    /// How many threads are held.
    pub(crate) fn held(&self) -> usize {
        *self.held.lock().unwrap()
    }

    /// Lets all go.
    pub(crate) fn open(&self) {
        *self.held.lock().unwrap() = 0;
        self.changed.notify_all();
    }
}

/// For [`Sink::before`]: see [`LATE`].
pub(crate) fn keep_late(record: &AuditRecord) {
    let tool = record.target.as_ref().and_then(|target| target.tool.as_deref());
    if record.event == Event::Intent && tool == Some("recorded-late") {
        LATE.wait();
    }
}

/// Decides by name, so that a test knows what must happen.
pub(crate) fn judge(name: &str, request: &AccessRequest<'_>) -> Option<Vec<Obligation>> {
    assert!(name != "panics", "the test says so");
    if name == "guarded" {
        let redaction = Redaction::Secrets;
        return Some(vec![Obligation::Redact { code: "secret".into(), redaction }]);
    }
    let meta = request.params.and_then(|params| params.get("_meta"));
    if name == "held" || meta.is_some_and(|meta| meta.get("test/held").is_some()) {
        return Some(vec![held("held")]);
    }
    if name == "held-single" {
        return Some(vec![held("held"), Obligation::Limit(single())]);
    }
    if name == "held-once" {
        let rate = Rate { count: 1, period: Duration::from_hours(1) };
        let once = Limit { bound: Bound::Sliding(rate), ..single() };
        return Some(vec![Obligation::Limit(once), held("held")]);
    }
    if name == "held-guarded" {
        let redaction = Redaction::Secrets;
        return Some(vec![held("held"), Obligation::Redact { code: "secret".into(), redaction }]);
    }
    if name == "held-briefly" {
        let Obligation::Hold(rule) = held("held") else { return None };
        let ttl = Some(Duration::from_millis(20));
        return Some(vec![Obligation::Hold(HoldRule { ttl, ..rule })]);
    }
    if name == "held-twice" {
        return Some(vec![held("one"), held("two")]);
    }
    if name == "stalls" {
        SLOW.wait();
    }
    if name == "drags" {
        // Slow at first, and without end after that.
        match DRAGGED.fetch_add(1, Ordering::Relaxed) {
            0 => work_for(Duration::from_millis(3)),
            _ => DRAGS.wait(),
        }
    }
    if name == "crawls" {
        match CRAWLED.fetch_add(1, Ordering::Relaxed) {
            0 => work_for(Duration::from_millis(3)),
            _ => CRAWLS.wait(),
        }
    }
    (!name.contains("denied") && name != "sampling/createMessage").then(Vec::new)
}

/// The limit of `held-single`: one call in flight.
pub(crate) fn single() -> Limit {
    Limit { code: "single".into(), key: "all".into(), bound: Bound::InFlight(1), cost: 1 }
}

fn held(code: &str) -> Obligation {
    Obligation::Hold(HoldRule {
        code: code.into(),
        message: "a second pair of eyes".into(),
        tell: None,
        approvers: Vec::new(),
        ttl: None,
        quorum: 1,
        scopes: Vec::new(),
    })
}

/// Uses so much processor time.
fn work_for(time: Duration) {
    let worked = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let until = worked() + time;
    while worked() < until {}
}

/// A request as the server received it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) connection: usize,
}

impl Received {
    /// The values of header `name`, in order.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        values(&self.head, name)
    }
}

fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}

/// What the server does next.
#[derive(Clone)]
pub(crate) enum Play {
    /// Writes these bytes.
    Send(Vec<u8>),
    /// Waits until the test says so.
    Wait(Arc<Notify>),
    /// Takes its time.
    Sleep(Duration),
    /// Waits until the peer has closed, and says so.
    UntilClosed(Arc<Notify>),
    /// Writes whatever comes, until nobody sends more or the peer has closed.
    Relay(Relay),
    /// Closes.
    Close,
}

/// What the first to ask for it gets.
type Relay = Arc<Mutex<Option<mpsc::Receiver<Vec<u8>>>>>;

pub(crate) fn json(body: &str) -> Vec<Play> {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Vec<Play> {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    vec![Play::Send(text.into_bytes())]
}

pub(crate) fn stream_head(headers: &str) -> Play {
    let text = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{headers}Transfer-Encoding: chunked\r\n\r\n"
    );
    Play::Send(text.into_bytes())
}

pub(crate) fn chunk(text: &str) -> Play {
    Play::Send(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes())
}

pub(crate) fn stream_end() -> Play {
    Play::Send(b"0\r\n\r\n".to_vec())
}

type Script = dyn Fn(usize, &Received) -> Vec<Play> + Send + Sync;

/// The scripted server.
pub(crate) struct Behind {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Behind {
    /// A server that answers its n-th request with what `script` plays for it.
    pub(crate) async fn start(
        script: impl Fn(usize, &Received) -> Vec<Play> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let changed = Arc::new(Notify::new());
        let script: Arc<Script> = Arc::new(script);
        let (log, bell) = (Arc::clone(&received), Arc::clone(&changed));
        let connections = AtomicUsize::new(0);
        let tasks = TaskTracker::new();
        let task = tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::Relaxed);
                let (script, log, bell) =
                    (Arc::clone(&script), Arc::clone(&log), Arc::clone(&bell));
                tasks.spawn(serve(stream, number, script, log, bell));
            }
        });
        Self { address, received, changed, task }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits for the `count`-th request.
    pub(crate) async fn nth(&self, count: usize) -> Received {
        soon("a request to the server", async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = self.received().get(count - 1) {
                    return found.clone();
                }
                changed.await;
            }
        })
        .await
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    script: Arc<Script>,
    log: Arc<Mutex<Vec<Received>>>,
    bell: Arc<Notify>,
) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    while let Some(mut request) = read_request(&mut stream, &mut buffer).await {
        request.connection = connection;
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        bell.notify_waiters();
        for play in script(number, &request) {
            match play {
                Play::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Play::Wait(notify) => notify.notified().await,
                Play::Sleep(time) => tokio::time::sleep(time).await,
                Play::UntilClosed(notify) => {
                    let mut byte = [0];
                    while stream.read(&mut byte).await.is_ok_and(|count| count > 0) {}
                    notify.notify_one();
                    return;
                }
                Play::Relay(from) => {
                    let taken = from.lock().unwrap().take();
                    let (Some(mut from), mut byte) = (taken, [0]) else { return };
                    loop {
                        tokio::select! {
                            bytes = from.recv() => match bytes {
                                Some(bytes) if stream.write_all(&bytes).await.is_ok() => {}
                                Some(_) | None => break,
                            },
                            read = stream.read(&mut byte) => {
                                if !read.is_ok_and(|count| count > 0) {
                                    from.close();
                                    break;
                                }
                            }
                        }
                    }
                    return;
                }
                Play::Close => return,
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, buffer).await?;
    };
    let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
    let length = values(&head, "content-length").first().map_or(0, |text| text.parse().unwrap());
    assert!(values(&head, "transfer-encoding").is_empty(), "we frame with Content-Length");
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    let body = buffer.drain(..length).collect();
    Some(Received { head, body, connection: 0 })
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let count = stream.read_buf(buffer).await.ok()?;
    (count > 0).then_some(())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The firewall under test.
pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) sink: Arc<Sink>,
    pub(crate) closing: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) gate: Arc<Gate>,
    serving: JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(crate) fn upstream_config(address: SocketAddr) -> HttpUpstreamConfig {
    let mut headers = HeaderMap::new();
    headers.insert(
        HeaderName::from_static("x-upstream-key"),
        HeaderValue::from_static("from-the-sidecar"),
    );
    HttpUpstreamConfig {
        url: format!("http://{address}/up/stream"),
        headers,
        owned_headers: vec!["mcp-param-owned".into()],
        forward_authorization: false,
        context: Vec::new(),
        ca_pem: None,
        limits: HttpUpstreamLimits::default(),
    }
}

/// What an edge shares, and where its records go.
pub(crate) fn shared() -> (Shared, Arc<Sink>) {
    shared_judged(judge, |gate| gate)
}

/// The same under another policy, with another gate.
pub(crate) fn shared_judged(
    judge: Judge,
    change: impl FnOnce(Gate) -> Gate,
) -> (Shared, Arc<Sink>) {
    let gate = GateConfig {
        mode: Mode::Enforce,
        frame: FrameLimits::default(),
        in_flight_max: 64,
        buckets_max: 64,
        boot: "test".into(),
        digest_key: [7; 32],
    };
    let sink = Arc::new(Sink::default());
    let shared = Shared {
        gate: Arc::new(change(Gate::new(gate, Arc::new(ByName::new(judge))))),
        sink: Arc::<Sink>::clone(&sink),
        clock: Clock::start(),
        aside: Arc::default(),
        tasks: TaskTracker::new(),
        closing: CancellationToken::new(),
        holding: None,
    };
    (shared, sink)
}

impl Rig {
    pub(crate) fn start(server: SocketAddr) -> Self {
        Self::with(server, HttpConfig::default(), |_| {})
    }

    #[expect(clippy::large_types_passed_by_value, reason = "tests")]
    pub(crate) fn with(
        server: SocketAddr,
        config: HttpConfig,
        change: impl FnOnce(&mut HttpUpstreamConfig),
    ) -> Self {
        let mut upstream = upstream_config(server);
        change(&mut upstream);
        let upstream = HttpUpstream::new(upstream).unwrap();
        Self::to(config, |_| upstream.into())
    }

    /// A firewall before whatever `upstream` makes.
    #[expect(clippy::large_types_passed_by_value, reason = "tests")]
    pub(crate) fn to(config: HttpConfig, upstream: impl FnOnce(&Shared) -> Upstream) -> Self {
        Self::of(config, upstream, |route| vec![route])
    }

    /// A firewall of whatever `routes` makes of the usual one, before whatever `upstream` makes.
    #[expect(clippy::large_types_passed_by_value, reason = "tests")]
    pub(crate) fn of(
        config: HttpConfig,
        upstream: impl FnOnce(&Shared) -> Upstream,
        routes: impl FnOnce(Route) -> Vec<Route>,
    ) -> Self {
        Self::sharing(shared(), config, upstream, routes)
    }

    /// The same with what the edges share given.
    #[expect(clippy::large_types_passed_by_value, reason = "tests")]
    pub(crate) fn sharing(
        (shared, sink): (Shared, Arc<Sink>),
        config: HttpConfig,
        upstream: impl FnOnce(&Shared) -> Upstream,
        routes: impl FnOnce(Route) -> Vec<Route>,
    ) -> Self {
        let facts = Server { name: "flags".into(), ..Server::default() };
        let upstream = upstream(&shared);
        let route = Route {
            path: "/flags".into(),
            sse_path: Some("/flags/sse".into()),
            server: Arc::new(Protected::new(facts, RefusalForm::Error)),
            hosts: Vec::new(),
            origins: Vec::new(),
            principal: Arc::new(Principal { id: "agent".into(), ..Principal::default() }),
            upstream,
            oauth: None,
        };
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (closing, tasks) = (shared.closing.clone(), shared.tasks.clone());
        let gate = Arc::clone(&shared.gate);
        let listener = Listener::new(tcp, routes(route), config, shared).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = TaskTracker::new().spawn(listener.serve());
        Self { address, sink, closing, tasks, gate, serving }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Sends `request` on a connection of its own and reads the reply.
    pub(crate) async fn ask(&self, request: &[u8]) -> Reply {
        let mut client = self.client().await;
        client.send(request).await;
        client.reply().await
    }

    /// Drains, and waits until nothing is left.
    pub(crate) async fn drained(&self) {
        self.closing.cancel();
        self.tasks.close();
        soon("draining", self.tasks.wait()).await;
    }
}

/// A client connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    last_id: String,
}

/// The server's event id in a sealed one.
pub(crate) fn opened(sealed: &str) -> String {
    let bytes = URL_SAFE_NO_PAD.decode(sealed).expect("a sealed id");
    String::from_utf8(bytes.get(16..).expect("a seal").to_vec()).unwrap()
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        values(&self.head, name)
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).await.unwrap())
    }

    /// A connection that comes from the address `source`.
    #[cfg(target_os = "linux")]
    pub(crate) async fn connect_from(source: &str, address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        Self::of(socket.connect(address).await.unwrap())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new(), last_id: String::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// How many bytes come until 4,000,000 or the end.
    pub(crate) async fn rest(&mut self) -> usize {
        soon("the rest", async {
            while self.buffer.len() < 4_000_000 {
                if more(&mut self.stream, &mut self.buffer).await.is_none() {
                    break;
                }
            }
        })
        .await;
        self.buffer.len()
    }

    /// Whether the peer still takes `bytes`.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Reads a whole reply.
    pub(crate) async fn reply(&mut self) -> Reply {
        let (status, head) = self.head().await;
        let body = if values(&head, "transfer-encoding").is_empty() {
            let length = values(&head, "content-length");
            let length = length.first().map_or(0, |text| text.parse().unwrap());
            soon("a body", async {
                while self.buffer.len() < length {
                    more(&mut self.stream, &mut self.buffer).await.expect("a whole body");
                }
            })
            .await;
            self.buffer.drain(..length).collect()
        } else {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk().await {
                body.extend_from_slice(&chunk);
            }
            body
        };
        Reply { status, head, body }
    }

    /// Reads a reply's head.
    pub(crate) async fn head(&mut self) -> (u16, String) {
        let end = soon("a head", async {
            loop {
                if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                    return end + 4;
                }
                let found = more(&mut self.stream, &mut self.buffer).await;
                found.unwrap_or_else(|| panic!("closed without a reply"));
            }
        })
        .await;
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head)
    }

    /// Reads one chunk of a streamed reply; nothing at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        soon("a chunk", async {
            let line = loop {
                if let Some(end) = find(&self.buffer, b"\r\n") {
                    break self.buffer.drain(..end + 2).collect::<Vec<_>>();
                }
                more(&mut self.stream, &mut self.buffer).await.expect("a chunk");
            };
            let size = std::str::from_utf8(&line).unwrap().trim_end();
            let size = usize::from_str_radix(size, 16).unwrap();
            while self.buffer.len() < size + 2 {
                more(&mut self.stream, &mut self.buffer).await.expect("a whole chunk");
            }
            let mut chunk: Vec<_> = self.buffer.drain(..size + 2).collect();
            chunk.truncate(size);
            (size > 0).then_some(chunk)
        })
        .await
    }

    /// One event, with the server's id in the place of the sealed one, which is kept.
    pub(crate) async fn event(&mut self) -> String {
        let text = String::from_utf8(self.chunk().await.expect("an event")).unwrap();
        let sealed = text.lines().find_map(|line| line.strip_prefix("id: "));
        let Some(sealed) = sealed.filter(|id| !id.is_empty()) else { return text };
        let id = opened(sealed);
        sealed.clone_into(&mut self.last_id);
        text.replace(sealed, &id)
    }

    /// The header that resumes after the last event.
    pub(crate) fn last_event(&self) -> String {
        format!("Last-Event-ID: {}\r\n", self.last_id)
    }

    /// Whether the peer closes and sends nothing more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        soon("closing", more(&mut self.stream, &mut self.buffer)).await.is_none()
            && self.buffer.is_empty()
    }
}

/// A POST of `body` with `headers`, each ended by CRLF.
pub(crate) fn post(headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /flags HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub(crate) fn call(id: u32, tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{}}}}}}"#
    )
}

/// A call in the way of 2026-07-28, with its headers.
pub(crate) fn modern_call(id: u32, tool: &str) -> Vec<u8> {
    modern_call_after(0, id, tool)
}

/// The same after so many spaces, which make its message large.
pub(crate) fn modern_call_after(spaces: usize, id: u32, tool: &str) -> Vec<u8> {
    let body = format!(
        r#"{:spaces$}{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#,
        ""
    );
    let headers = format!(
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n"
    );
    post(&headers, &body)
}

pub(crate) fn result(id: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[]}}}}"#)
}
