//! A bundle service under the test's control, and a firewall that outlives its process.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bartizan::config::Config;
use bartizan::run::{self, Running};
use serde_json::Value;

use crate::firewall::{
    Client, LEGACY, PATIENCE, Received, RecordingUpstream, Reply, answer, journal, journal_text,
    json, odd_answer, post, wait,
};

/// What the service hands out now.
#[derive(Clone, Default)]
struct Published {
    /// Counts publications.
    version: u64,
    /// Nothing: connections are closed without an answer.
    answer: Option<Bundle>,
}

#[derive(Clone)]
struct Bundle {
    status: &'static str,
    headers: String,
    bytes: Vec<u8>,
    tag: Option<String>,
    /// Whether a question may be held open.
    long: bool,
    /// Before it answers.
    delay: Duration,
}

/// A service that speaks OPA's bundle protocol, or fails to.
pub(crate) struct Service {
    http: RecordingUpstream,
    published: Arc<(Mutex<Published>, Condvar)>,
}

impl Service {
    /// Away, until something is published.
    pub(crate) fn start() -> Self {
        let published: Arc<(Mutex<Published>, Condvar)> = Arc::default();
        let shared = Arc::clone(&published);
        let http = RecordingUpstream::start(Box::new(move |received| serve(&shared, received)));
        Self { http, published }
    }

    pub(crate) fn url(&self) -> String {
        self.http.url()
    }

    fn set(&self, answer: Option<Bundle>) {
        let mut published = self.published.0.lock().unwrap();
        published.version += 1;
        published.answer = answer;
        self.published.1.notify_all();
    }

    fn bundle(bytes: &[u8], tag: Option<&str>, long: bool) -> Bundle {
        let kind =
            if long { "application/vnd.openpolicyagent.bundles" } else { "application/gzip" };
        Bundle {
            status: "200 OK",
            headers: format!("Content-Type: {kind}\r\n"),
            bytes: bytes.to_vec(),
            tag: tag.map(str::to_owned),
            long,
            delay: Duration::ZERO,
        }
    }

    pub(crate) fn publish(&self, bytes: &[u8], tag: Option<&str>) {
        self.set(Some(Self::bundle(bytes, tag, false)));
    }

    /// The same, and questions may be held open.
    pub(crate) fn publish_long(&self, bytes: &[u8], tag: &str) {
        self.set(Some(Self::bundle(bytes, Some(tag), true)));
    }

    /// Answers with this status and these headers, each ended by CRLF.
    pub(crate) fn fail(&self, status: &'static str, headers: &str, bytes: &[u8]) {
        let bundle = Self::bundle(bytes, None, false);
        self.set(Some(Bundle { status, headers: headers.to_owned(), ..bundle }));
    }

    /// Answers too late.
    pub(crate) fn delay(&self, bytes: &[u8], delay: Duration) {
        self.set(Some(Bundle { delay, ..Self::bundle(bytes, None, false) }));
    }

    /// Closes every connection without an answer.
    pub(crate) fn go_away(&self) {
        self.set(None);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.http.received()
    }

    /// Waits until the service was asked `more` times from now on.
    pub(crate) fn asked(&self, more: usize) {
        let before = self.received().len();
        wait("another question", || (self.received().len() >= before + more).then_some(()));
    }
}

fn serve(shared: &(Mutex<Published>, Condvar), received: &Received) -> Vec<u8> {
    let mut published = shared.0.lock().unwrap();
    let asked = received.header("if-none-match").first().map(|tag| (*tag).to_owned());
    let has = |published: &Published| {
        let tag = published.answer.as_ref().and_then(|bundle| bundle.tag.clone());
        tag.is_some() && tag.map(|tag| tag.to_ascii_lowercase()) == asked
    };
    let long = published.answer.as_ref().is_some_and(|bundle| bundle.long);
    if long && has(&published) {
        let prefer = received.header("prefer").join(";");
        let seconds = prefer.split("wait=").nth(1).map_or(0, |text| text.parse().unwrap());
        let version = published.version;
        let most = Duration::from_secs(seconds);
        let same = |published: &mut Published| published.version == version;
        published = shared.1.wait_timeout_while(published, most, same).unwrap().0;
    }
    let Some(bundle) = published.answer.clone() else { return Vec::new() };
    let same = has(&published);
    drop(published);
    std::thread::sleep(bundle.delay);
    let tag = bundle.tag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
    if same {
        return answer("304 Not Modified", &tag, b"");
    }
    answer(bundle.status, &format!("{}{tag}", bundle.headers), &bundle.bytes)
}

/// A firewall whose state outlives it.
pub(crate) struct Sidecar {
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
    state: PathBuf,
}

impl Sidecar {
    /// Starts with these lines of YAML below `policy.bundle`.
    pub(crate) fn start(state: &Path, bundle: &str) -> Self {
        Self::with(state, &format!("policy: {{bundle: {{{bundle}}}}}\n"))
    }

    /// Starts with these lines of YAML.
    pub(crate) fn with(state: &Path, top: &str) -> Self {
        if state.exists() {
            // A temporary directory may be open to others, which no state can be.
            std::fs::set_permissions(state, Permissions::from_mode(0o700)).unwrap();
        }
        let upstream =
            RecordingUpstream::start(Box::new(|received| json(&odd_answer(&received.body))));
        // Each refusal has a record, for `decision`.
        let each = if top.contains("audit:") { "" } else { "audit: {each_refusal: true}\n" };
        let text = format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\n{each}{top}servers:\n  flags: {{path: /mcp, url: '{}'}}\n",
            state.display(),
            upstream.url(),
        );
        let config = Config::parse(&text, Path::new("/"), &|_| None)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let options = run::RunOptions::new(PathBuf::from(env!("CARGO_BIN_EXE_bartizan")));
        let running =
            runtime.block_on(run::start(config, options)).unwrap_or_else(|error| panic!("{error}"));
        Self { running: Some(running), runtime, state: state.to_owned() }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.running().address().unwrap())
    }

    /// Sends what the policies of these tests permit.
    pub(crate) fn ping(&self) -> Reply {
        let mut client = self.client();
        client.send(&post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, LEGACY));
        client.reply()
    }

    /// What `/readyz` says.
    pub(crate) fn ready(&self) -> (u16, String) {
        let mut client = Client::connect(self.running().admin().unwrap());
        client.send(b"GET /readyz HTTP/1.1\r\nHost: any\r\n\r\n");
        let reply = client.reply();
        (reply.status, reply.text().to_owned())
    }

    pub(crate) fn wait_ready(&self) {
        wait("readiness", || (self.ready().0 == 200).then_some(()));
    }

    /// Told to read its policy again, as by SIGHUP.
    pub(crate) fn reload(&self) {
        self.running().reload_trigger().notify_one();
    }

    /// The records so far whose `member` is `value`.
    pub(crate) fn records(&self, member: &str, value: &str) -> Vec<Value> {
        let mut records = journal(&self.state);
        records.retain(|record| record[member] == value);
        records
    }

    /// How often the journal says `word`.
    pub(crate) fn mentions(&self, word: &str) -> usize {
        journal_text(&self.state).matches(word).count()
    }

    /// The record number `count` (from 1) with `member` of `value`, once it is there.
    pub(crate) fn record(&self, member: &str, value: &str, count: usize) -> Value {
        wait(&format!("{count} records with {member} {value}"), || {
            self.records(member, value).into_iter().nth(count - 1)
        })
    }

    /// The revision and the first reason of the decision about a call made now.
    pub(crate) fn decision(&self) -> (String, String) {
        let before = self.decisions().len();
        self.ping();
        let decision = wait("a decision", || self.decisions().into_iter().nth(before));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&decision["policy"]), text(&decision["reasons"][0]["code"]))
    }

    fn decisions(&self) -> Vec<Value> {
        let records = journal(&self.state).into_iter();
        let calls =
            records.filter(|record| record["event"] == "intent" || record["event"] == "denial");
        calls.map(|record| record["decision"].clone()).collect()
    }

    /// Waits until calls are decided by the bundle that calls itself `revision`.
    pub(crate) fn wait_revision(&self, revision: &str) {
        wait(revision, || {
            self.decision().0.starts_with(&format!("{revision}@sha256:")).then_some(())
        });
    }

    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(async {
                tokio::time::timeout(PATIENCE, running.stop()).await.unwrap().unwrap();
            });
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.end();
    }
}
