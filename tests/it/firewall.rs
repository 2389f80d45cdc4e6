//! A whole firewall in front of an upstream that records what it receives, and a client that
//! writes raw bytes. Neither uses an HTTP library, because it could repair what is tested.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bartizan::config::Config;
use bartizan::run::{self, Running};
use bartizan_audit::otlp::Repeats;

/// Longer than anything here takes; a test that waits for it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One request as it reached the upstream.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// The request line and headers, lower case, without the body.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The values of header `name`, lower case, in order.
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

/// Writes an answer to one request; what it returns is sent as it is. After one that says
/// `Connection: close` in its head the connection is closed.
pub(crate) type Answer = dyn Fn(&Received) -> Vec<u8> + Send + Sync;

/// An HTTP/1.1 server on loopback that records requests, one thread a connection.
pub(crate) struct RecordingUpstream {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl RecordingUpstream {
    pub(crate) fn start(answer: Box<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        let answer: Arc<Answer> = answer.into();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { address, received }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Received>>, answer: &Answer) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let head = head.to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let received = Received { head, body };
        log.lock().unwrap().push(received.clone());
        let answer = answer(&received);
        if writer.write_all(&answer).is_err() || closes(&answer) {
            return;
        }
    }
}

fn closes(answer: &[u8]) -> bool {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let head = String::from_utf8_lossy(&answer[..head.unwrap_or(answer.len())]);
    answer.is_empty() || values(&head, "connection") == ["close"]
}

/// An HTTP answer with a JSON body.
pub(crate) fn json(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

/// An HTTP answer with `headers`, each ended by CRLF, and `Content-Length`.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An event stream that is whole, ended by closing the connection.
pub(crate) fn events(text: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    [head, text].concat().into_bytes()
}

/// The oddly spelled answer that the default upstream gives to a request.
pub(crate) fn odd_answer(request: &[u8]) -> Vec<u8> {
    let id = match serde_json::from_slice::<serde_json::Value>(request) {
        Ok(value) => value["id"].to_string(),
        Err(_) => "null".to_owned(),
    };
    format!("{{ \"result\" : {{\"content\":[ ],\"n\":1.50e+2,\"u\":\"\\u0041\"}},\n\"id\":{id},\"jsonrpc\":\"2.0\"}}")
        .into_bytes()
}

/// Settings of a firewall under test.
pub(crate) struct Setup {
    /// The built-in baseline if empty.
    pub(crate) policy: Vec<PathBuf>,
    /// Text of a policy in place of `policy`, written to [`Firewall::policy_file`].
    pub(crate) rego: Option<String>,
    /// Where the server is, a line of YAML; at the recording upstream if absent.
    pub(crate) way: Option<String>,
    /// Lines of YAML below the one server.
    pub(crate) server: String,
    /// Lines of YAML at the top level.
    pub(crate) top: String,
    /// How the upstream answers.
    pub(crate) answer: Box<Answer>,
    /// How exports repeat requests.
    pub(crate) repeats: Repeats,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policy: Vec::new(),
            rego: None,
            way: None,
            server: "    pack: flag-service\n    environment: staging\n".to_owned(),
            top: String::new(),
            answer: Box::new(|received| json(&odd_answer(&received.body))),
            repeats: Repeats::default(),
        }
    }
}

/// A running firewall and its upstream.
pub(crate) struct Firewall {
    upstream: RecordingUpstream,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
}

const POLICY_FILE: &str = "policy/test.rego";

impl Firewall {
    /// The baseline in front of the recording upstream, pinned to `staging`.
    pub(crate) fn start() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let upstream = RecordingUpstream::start(setup.answer);
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let mut policy = setup.policy;
        if let Some(rego) = setup.rego {
            policy.push(folder.path().join("policy"));
            std::fs::create_dir(folder.path().join("policy")).unwrap();
            std::fs::write(folder.path().join(POLICY_FILE), rego).unwrap();
        }
        let paths: Vec<_> =
            policy.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
        // Each refusal has a record, for the tests that count them.
        let each = if setup.top.contains("audit:") { "" } else { "audit: {each_refusal: true}\n" };
        let text = format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\npolicy: {{paths: [{}]}}\n{each}{}servers:\n  flags:\n    path: /mcp\n    {}\n{}",
            state.display(),
            paths.join(", "),
            setup.top,
            setup.way.unwrap_or_else(|| format!("url: {}", upstream.url())),
            setup.server,
        );
        let config = Config::parse(&text, folder.path(), &|_| None)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut options = run::RunOptions::new(PathBuf::from(env!("CARGO_BIN_EXE_bartizan")));
        options.repeats = setup.repeats;
        let running =
            runtime.block_on(run::start(config, options)).unwrap_or_else(|error| panic!("{error}"));
        Self { upstream, running: Some(running), runtime, folder }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().address().unwrap()
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.running.as_ref().unwrap().admin().unwrap()
    }

    /// What reached the upstream so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.upstream.received()
    }

    /// A fresh connection.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// Posts `body` as a legacy client does, on a connection of its own.
    pub(crate) fn ask(&self, body: impl AsRef<[u8]>) -> Reply {
        self.send(&post(body, LEGACY))
    }

    /// Sends a whole request on a connection of its own.
    pub(crate) fn send(&self, request: &[u8]) -> Reply {
        let mut client = self.client();
        client.send(request);
        client.reply()
    }

    /// Where [`Setup::rego`] was written.
    pub(crate) fn policy_file(&self) -> PathBuf {
        self.folder.path().join(POLICY_FILE)
    }

    /// Tells the firewall to read its policy again.
    pub(crate) fn reload(&self) {
        self.running.as_ref().unwrap().reload_trigger().notify_one();
    }

    /// Every record of the journal so far.
    pub(crate) fn journal(&self) -> Vec<serde_json::Value> {
        journal(&self.state())
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The records whose `member` is `value`.
    pub(crate) fn records(&self, member: &str, value: &str) -> Vec<serde_json::Value> {
        let mut records = self.journal();
        records.retain(|record| record[member] == value);
        records
    }

    /// Waits until `count` records have `member` of `value`, and gives the last one.
    pub(crate) fn record(&self, member: &str, value: &str, count: usize) -> serde_json::Value {
        wait(&format!("{count} records with {member} {value}"), || {
            self.records(member, value).into_iter().nth(count - 1)
        })
    }

    /// Stops the firewall in order.
    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            drop(self.runtime.block_on(running.stop()));
        }
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Every record of the journal in a state directory. A line that is still being written is not
/// there yet.
pub(crate) fn journal(state: &Path) -> Vec<serde_json::Value> {
    journal_text(state).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The whole lines of the journal in a state directory.
pub(crate) fn journal_text(state: &Path) -> String {
    let mut files: Vec<_> = std::fs::read_dir(state.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "ndjson"))
        .collect();
    files.sort();
    let mut all = String::new();
    for path in files {
        let text = std::fs::read_to_string(path).unwrap();
        all.push_str(&text[..text.rfind('\n').map_or(0, |end| end + 1)]);
    }
    all
}

/// Looks again and again until there is something.
pub(crate) fn wait<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let step = Duration::from_millis(10);
    let mut left = PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(!left.is_zero(), "{what}: too late");
        thread::sleep(step);
        left = left.saturating_sub(step);
    }
}

/// The revision header of a legacy client.
pub(crate) const LEGACY: &str = "MCP-Protocol-Version: 2025-11-25\r\n";

/// A POST of `body` with `headers`, each ended by CRLF.
pub(crate) fn post(body: impl AsRef<[u8]>, headers: &str) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A `tools/call`; `arguments` is JSON.
pub(crate) fn call(id: impl std::fmt::Display, tool: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    )
}

/// An answer as a client got it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its framing said it would.
    pub(crate) whole: bool,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The code of the JSON-RPC error; 0 where there is none.
    pub(crate) fn code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        values(&self.head, name)
    }
}

/// A client connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads a whole reply.
    pub(crate) fn reply(&mut self) -> Reply {
        let head = self.until(b"\r\n\r\n").unwrap_or_else(|| panic!("closed without a reply"));
        let head = String::from_utf8(head).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut body = Vec::new();
        let whole = if values(&head, "transfer-encoding").is_empty() {
            let length = values(&head, "content-length");
            let length = length.first().map_or(0, |text| text.parse().unwrap());
            let whole = self.fill(length);
            body = self.buffer.drain(..length.min(self.buffer.len())).collect();
            whole
        } else {
            loop {
                match self.chunk() {
                    Some(chunk) if chunk.is_empty() => break true,
                    Some(chunk) => body.extend_from_slice(&chunk),
                    None => break false,
                }
            }
        };
        Reply { status, head, body, whole }
    }

    /// One chunk of a streamed reply: empty at its end, nothing if it breaks off.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = String::from_utf8(self.until(b"\r\n")?).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        if !self.fill(size + 2) {
            return None;
        }
        let mut chunk: Vec<_> = self.buffer.drain(..size + 2).collect();
        chunk.truncate(size);
        Some(chunk)
    }

    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.buffer.windows(end.len()).position(|bytes| bytes == end);
            if let Some(at) = found {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            if !self.fill(self.buffer.len() + 1) {
                return None;
            }
        }
    }

    fn fill(&mut self, length: usize) -> bool {
        let mut piece = [0; 16 << 10];
        while self.buffer.len() < length {
            match self.stream.read(&mut piece) {
                Ok(read) if read > 0 => self.buffer.extend_from_slice(&piece[..read]),
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }
}
