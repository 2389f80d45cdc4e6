//! A whole firewall in front of an upstream that records what it receives.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use bartizan::config::Config;
use bartizan::run::{self, Running};

/// One request as it reached the upstream.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// The request line and headers, lower case, without the body.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// Writes an answer to one request; what it returns is sent as it is.
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
        if writer.write_all(&answer(&received)).is_err() {
            return;
        }
    }
}

/// An HTTP answer with a JSON body.
pub(crate) fn json(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
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
    /// Lines of YAML below the one server.
    pub(crate) server: String,
    /// Lines of YAML at the top level.
    pub(crate) top: String,
    /// How the upstream answers.
    pub(crate) answer: Box<Answer>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policy: Vec::new(),
            server: "    pack: flag-service\n    environment: staging\n".to_owned(),
            top: String::new(),
            answer: Box::new(|received| json(&odd_answer(&received.body))),
        }
    }
}

/// A running firewall and its upstream.
pub(crate) struct Firewall {
    upstream: RecordingUpstream,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
    state: tempfile::TempDir,
}

impl Firewall {
    /// The baseline in front of the recording upstream, pinned to `staging`.
    pub(crate) fn start() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let upstream = RecordingUpstream::start(setup.answer);
        let state = tempfile::tempdir().unwrap();
        let paths: String =
            setup.policy.iter().map(|path| format!("{:?}, ", path.display().to_string())).collect();
        let text = format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\npolicy: {{paths: [{}]}}\n{}servers:\n  flags:\n    path: /mcp\n    url: {}\n{}",
            state.path().display(),
            paths.trim_end_matches(", "),
            setup.top,
            upstream.url(),
            setup.server,
        );
        let config = Config::parse(&text, state.path(), &|_| None)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let options = run::Options { prover: PathBuf::from(env!("CARGO_BIN_EXE_bartizan")) };
        let running = runtime
            .block_on(run::start(config, options))
            .unwrap_or_else(|error| panic!("{error}"));
        Self { upstream, running: Some(running), runtime, state }
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

    /// The answer of the default upstream to `request`.
    pub(crate) fn answer(&self, request: &[u8]) -> Vec<u8> {
        odd_answer(request)
    }

    /// Every line of the journal so far.
    pub(crate) fn journal(&self) -> Vec<serde_json::Value> {
        let mut files: Vec<_> = std::fs::read_dir(self.state.path().join("journal"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "ndjson"))
            .collect();
        files.sort();
        files
            .iter()
            .flat_map(|path| {
                let text = std::fs::read_to_string(path).unwrap();
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Stops the firewall in order.
    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        self.stop();
    }
}
