//! Webhooks and their links, through public doors: what a receiver gets, signed and again after a
//! failure; and who can answer by a link, how often, and for what.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod links;
mod program;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bartizan_approvals::store::memory::MemoryStore;
use bartizan_approvals::{ApprovalLimits, Approvals, Approver, HoldState, HoldView, Waiter};
use bartizan_edge::Shared;
use bartizan_edge::admin::api::ApprovalsApi;
use bartizan_edge::admin::approvers::{Approvers, TokenDigest};
use bartizan_edge::admin::{AdminListener, Readiness};
use bartizan_edge::webhook::link::{Answering, Links};
use bartizan_edge::webhook::sign::SigningSecret;
use bartizan_edge::webhook::{Template, Webhook, tell};
use bartizan_gate::evidence::record::Event;
use bartizan_gate::question::hold::Hold;
use bartizan_outbound::address::Address;
use bartizan_outbound::service::{Credentials, Service, ServiceConfig};
use bartizan_testing::Sink;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::answering::{ALICE, hold};
use super::firewall::wait;
use super::http_edge::rig::{Client, Reply, shared};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// What no log may name.
const PATH: &str = "/services/T0/B0/s3cr3tpath";
const KEY: &[u8] = b"the key of links in these tests.";

/// One request as a receiver got it.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = found.next().unwrap_or_else(|| panic!("no {name}: {self:?}")).1.as_str();
        assert!(found.next().is_none(), "{name} stands twice: {self:?}");
        value
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Checks the signature as the standard says, with another library than the sender's.
    fn verify(&self, secret: &str) {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let (id, at) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        let signature = self.header("webhook-signature").strip_prefix("v1,").unwrap();
        let signed = format!("{id}.{at}.{}", self.body);
        hmac::verify(&key, signed.as_bytes(), &STANDARD.decode(signature).unwrap()).unwrap();
    }
}

/// A receiver: it answers with the statuses of `script`, one after another, then with 200.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    pub(crate) fn start(script: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let (log, script) = (Arc::clone(&got), Arc::new(Mutex::new(script.to_vec())));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                thread::spawn(move || serve(stream, &log, &script));
            }
        });
        Self { address, got }
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// The request number `number`, from 1, once it is there.
    pub(crate) async fn request(&self, number: usize) -> Got {
        for _ in 0..3000 {
            if let Some(got) = self.got().get(number - 1) {
                return got.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("request {number} never came: {:?}", self.got())
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Got>>, script: &Mutex<Vec<&'static str>>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let headers: Vec<(String, String)> = lines[1..]
            .iter()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let mut body = vec![0; length.unwrap().1.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        log.lock().unwrap().push(Got { line: lines[0].clone(), headers, body });
        let mut script = script.lock().unwrap();
        let status = if script.is_empty() { "200 OK" } else { script.remove(0) };
        drop(script);
        if status == "never" {
            // Keeps the connection, and says nothing, until the other side goes away.
            drop(reader.read(&mut [0]));
            return;
        }
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// What a test says of its webhook.
pub(crate) struct Setup {
    pub(crate) template: Template,
    pub(crate) groups: &'static [&'static str],
    /// The approver of its links.
    pub(crate) approver: Option<&'static str>,
    /// Whether that is one person.
    pub(crate) person: bool,
    pub(crate) lasts: Duration,
    pub(crate) keys: &'static [&'static [u8]],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            template: Template::Plain,
            groups: &["on-call"],
            approver: Some("chat"),
            person: false,
            lasts: Duration::from_mins(30),
            keys: &[KEY],
        }
    }
}

/// An operators' listener, the holds behind it, and one webhook.
pub(crate) struct Desk {
    pub(crate) address: SocketAddr,
    pub(crate) approvals: Arc<Approvals>,
    pub(crate) sink: Arc<Sink>,
    pub(crate) shared: Shared,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The webhook `name` of a setup, whose receiver is at `address`.
fn webhook(name: &str, address: SocketAddr, setup: &Setup, links: Option<Arc<Links>>) -> Webhook {
    let service = Service::new(ServiceConfig {
        address: Address::parse(&format!("http://{address}{PATH}")).unwrap(),
        ca_pem: None,
        credentials: Credentials::None,
        timeout: Duration::from_secs(10),
    });
    Webhook {
        name: name.into(),
        service: service.unwrap(),
        template: setup.template,
        secret: SigningSecret::read(SECRET),
        groups: setup.groups.iter().map(|group| Box::from(*group)).collect(),
        public_url: Some("https://approvals.example.com/b".into()),
        links,
        retry_pause: Duration::from_millis(1),
    }
}

fn answering(id: &str, groups: &[&str], lasts: Duration) -> Answering {
    let groups = groups.iter().map(|group| Box::from(*group)).collect();
    Answering { approver: Arc::new(Approver { id: id.into(), groups }), person: false, lasts }
}

fn alice() -> Approver {
    Approver { id: "alice".into(), groups: vec!["on-call".into()] }
}

impl Desk {
    pub(crate) fn open(receiver: &Receiver, setup: &Setup) -> Self {
        Self::over(receiver, setup, Arc::new(Sink::default()), None)
    }

    /// A desk whose records go to `sink`, over the holds of `before` if there are any.
    pub(crate) fn over(
        receiver: &Receiver,
        setup: &Setup,
        sink: Arc<Sink>,
        before: Option<&Self>,
    ) -> Self {
        let (mut shared, _) = shared();
        shared.sink = Arc::<Sink>::clone(&sink);
        let clock = before.map_or(shared.clock, |before| before.shared.clock);
        shared.clock = clock;
        let approvals = before.map_or_else(
            || {
                let store = Box::new(MemoryStore::new());
                let clock = Box::new(move || clock.now());
                Arc::new(Approvals::open(store, ApprovalLimits::default(), clock).unwrap())
            },
            |before| Arc::clone(&before.approvals),
        );
        let known = Approvers::new([(alice(), TokenDigest::of(ALICE).unwrap())]);
        let mut api = ApprovalsApi::new(Arc::clone(&approvals), known, shared.clone());
        let links = setup.approver.map(|approver| {
            let answering = answering(approver, setup.groups, setup.lasts);
            let answering = Answering { person: setup.person, ..answering };
            let url = "https://approvals.example.com/b";
            Arc::new(Links::new(setup.keys, url, [("hook".into(), answering)]).unwrap())
        });
        if let Some(links) = &links {
            api = api.with_links(Arc::clone(links));
        }
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let (tasks, closing) = (shared.tasks.clone(), shared.closing.clone());
        let admin = AdminListener::new(tcp, Readiness::new(), tasks, closing).with_approvals(api);
        let address = admin.local_addr().unwrap();
        let tracker = TaskTracker::new();
        let hook = Arc::new(webhook("hook", receiver.address, setup, links));
        let telling = tell(hook, Arc::clone(&approvals), shared.clone());
        let tasks = vec![tracker.spawn(admin.start().unwrap()), tracker.spawn(telling)];
        Self { address, approvals, sink, shared, tasks }
    }

    pub(crate) fn ask(&self, hold: &Hold) -> Waiter {
        self.approvals.ask(hold, self.shared.now()).unwrap()
    }

    fn view(&self, waiter: &Waiter) -> HoldView {
        self.approvals.get(&waiter.id().to_string()).unwrap()
    }

    fn refuse(&self, waiter: &Waiter) {
        let (id, now) = (waiter.id().to_string(), self.shared.now());
        self.approvals.refuse(&id, &alice(), "not <now>", now).unwrap();
    }

    /// A request on a connection of its own.
    async fn send(&self, line: &str, headers: &str, body: &str) -> Reply {
        let length = format!("Content-Length: {}\r\n", body.len());
        let length = if body.is_empty() { "" } else { &length };
        let request = format!("{line} HTTP/1.1\r\nHost: desk:1\r\n{headers}{length}\r\n{body}");
        let mut client = Client::connect(self.address).await;
        client.send(request.as_bytes()).await;
        client.reply().await
    }

    /// The answers in the journal: who, what, and why it did not count.
    fn answers(&self) -> Vec<(String, &'static str, Option<String>)> {
        let records = self.sink.kept();
        let answers = records.iter().filter(|it| it.event == Event::Approval).map(|it| {
            let facts = it.approval.as_ref().unwrap();
            let error = it.error_type.as_ref().map(ToString::to_string);
            (facts.by.as_deref().unwrap_or_default().to_owned(), facts.answer, error)
        });
        answers.collect()
    }
}

#[tokio::test]
async fn a_held_call_and_its_end_are_told_signed() {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup { approver: None, ..Setup::default() });
    let params = r#"{"name":"publish","arguments":{"key":"checkout","n":12345678901234567890}}"#;
    let waiter = desk.ask(&hold("publish", params, 1));
    let view = desk.view(&waiter);

    let asked = receiver.request(1).await;
    asked.verify(SECRET);
    assert_eq!(asked.line, format!("POST {PATH} HTTP/1.1"));
    assert_eq!(asked.header("content-type"), "application/json");
    assert_eq!(asked.header("webhook-id"), format!("{}-asked", view.id));
    let told = asked.json();
    assert_eq!(told["type"], "approval.asked");
    let (data, held) = (&told["data"], &told["data"]["hold"]);
    assert_eq!((&held["state"], &held["principal"]), (&json!("pending"), &json!("agent")));
    assert_eq!((&held["target"], &held["digest"]), (&json!("publish"), &json!(view.digest)));
    assert_eq!(held["environments"], json!(["staging"]));
    let pretty = "{\n  \"arguments\": {\n    \"key\": \"checkout\",\n    \"n\": 12345678901234567890\n  },\n  \"name\": \"publish\"\n}";
    assert_eq!(data["params"], json!({"text": pretty, "cut": false, "bytes": 74, "secrets": 0}));
    let console = format!("https://approvals.example.com/b/console#hold={}", view.id);
    assert_eq!(data["links"]["console"], console);
    assert_eq!(data["links"]["grant"], Value::Null, "nobody answers by a link");

    desk.refuse(&waiter);
    let ended = receiver.request(2).await;
    ended.verify(SECRET);
    assert_eq!(ended.header("webhook-id"), format!("{}-ended", view.id));
    let told = ended.json();
    assert_eq!(
        (&told["type"], &told["data"]["hold"]["state"]),
        (&json!("approval.ended"), &json!("refused"))
    );
    let answers = &told["data"]["hold"]["answers"][0];
    assert_eq!((&answers["by"], &answers["reason"]), (&json!("alice"), &json!("not <now>")));
    assert_eq!(told["data"]["params"], Value::Null);
}

/// The names of all members of `value`, with their place.
fn members(value: &Value, at: &str, out: &mut Vec<String>) {
    for (name, member) in value.as_object().into_iter().flatten() {
        out.push(format!("{at}/{name}"));
        members(member, &format!("{at}/{name}"), out);
    }
}

#[tokio::test]
async fn the_page_shows_the_members_of_a_message() {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup { approver: None, ..Setup::default() });
    desk.ask(&hold("publish", "{}", 1));
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/approvals.md"));
    let page = page.unwrap();
    let example = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let (mut shown, mut sent) = (Vec::new(), Vec::new());
    members(&serde_json::from_str(example).unwrap(), "", &mut shown);
    members(&receiver.request(1).await.json(), "", &mut sent);
    assert_eq!(shown, sent);
}

/// 500, 503, 429 and 408 are tried again, under the same id. Every other refusal
/// is final, and a redirect is not followed.
#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again_and_no_other() {
    let elsewhere = Receiver::start(&[]);
    let to = format!("307 Moved\r\nLocation: http://{}/", elsewhere.address);
    let to: &'static str = Box::leak(to.into_boxed_str());
    let passing = ["500 E", "503 E\r\nRetry-After: 0", "429 E\r\nRetry-After: 0", "408 E"];
    let receiver = Receiver::start(&[&passing[..], &["200 OK", "400 E", to, "404 E"]].concat());
    let desk = Desk::open(&receiver, &Setup::default());
    let first = desk.ask(&hold("publish", r#"{"n":0}"#, 1));
    let id = first.id().to_string();
    for number in 1..=5 {
        let got = receiver.request(number).await;
        got.verify(SECRET);
        assert_eq!(got.header("webhook-id"), format!("{id}-asked"), "{number}");
    }
    for number in 6..=8 {
        let next = desk.ask(&hold("publish", &format!(r#"{{"n":{number}}}"#), 1));
        let got = receiver.request(number).await;
        assert_eq!(got.header("webhook-id"), format!("{}-asked", next.id()), "{number}");
    }
    // The end is told of the one that was taken, and of no other.
    desk.refuse(&first);
    assert_eq!(receiver.request(9).await.header("webhook-id"), format!("{id}-ended"));
    let last = desk.ask(&hold("publish", r#"{"n":10}"#, 1));
    let got = receiver.request(10).await;
    assert_eq!(got.header("webhook-id"), format!("{}-asked", last.id()));
    assert_eq!(receiver.got().len(), 10);
    assert_eq!(elsewhere.got().len(), 0, "the redirect was not followed");
}

/// After six attempts it gives up; the next call is told of all the same.
#[tokio::test]
async fn attempts_are_bounded() {
    let receiver = Receiver::start(&["500 E"; 6]);
    let desk = Desk::open(&receiver, &Setup::default());
    let first = desk.ask(&hold("publish", r#"{"n":0}"#, 1)).id().to_string();
    receiver.request(6).await;
    let next = desk.ask(&hold("publish", r#"{"n":1}"#, 1)).id().to_string();
    let got = receiver.request(7).await;
    assert_eq!(got.header("webhook-id"), format!("{next}-asked"));
    let of_first = |got: &&Got| got.header("webhook-id").starts_with(&first);
    assert_eq!(receiver.got().iter().filter(of_first).count(), 6);
}

/// A receiver that fails and works by turns: the journal says so once a minute at most, with the number.
#[tokio::test]
async fn failures_are_recorded_once_a_minute_with_their_number() {
    let receiver = Receiver::start(&["500 E", "500 E", "200 OK", "404 E", "200 OK", "404 E"]);
    let desk = Desk::open(&receiver, &Setup::default());
    for (number, last) in [(0, 3), (1, 4), (2, 5), (3, 6), (4, 7)] {
        desk.ask(&hold("publish", &format!(r#"{{"n":{number}}}"#), 1));
        receiver.request(last).await;
    }
    let notes = || -> Vec<String> {
        let kept = desk.sink.kept();
        let told = kept.iter().filter(|it| it.event == Event::Webhook);
        told.map(|it| it.note.as_ref().unwrap().to_string()).collect()
    };
    let expected = [
        "`hook` fails: it answered with status 500; failures since the last record: 1",
        "`hook` works again; failures since the last record: 1",
    ];
    for _ in 0..3000 {
        if notes().len() >= expected.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(notes(), expected);
}

/// A receiver that never answers: calls are held, granted and sent meanwhile.
#[tokio::test]
async fn a_dead_receiver_holds_up_no_call() {
    let receiver = Receiver::start(&["never"; 100]);
    let desk = Desk::open(&receiver, &Setup::default());
    let mut sent = 0;
    for number in 0..15 {
        let mut waiter = desk.ask(&hold("publish", &format!(r#"{{"n":{number}}}"#), 1));
        let view = desk.view(&waiter);
        let (alice, now) = (alice(), desk.shared.now());
        desk.approvals.grant(&view.id, &view.digest, &alice, "r", None, now).unwrap();
        assert_eq!(waiter.decided().await, HoldState::Granted);
        waiter.spend(desk.shared.now()).unwrap();
        sent += 1;
        if number == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(sent, 15);
    // Those that were over before they could be told of are not told of.
    assert!(receiver.got().len() <= 1, "{:?}", receiver.got());
}

#[tokio::test]
async fn only_calls_that_ask_its_groups_are_told() {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup::default());
    let mut others = hold("others", "{}", 1);
    others.approvers = vec!["leads".into()];
    let mut anybody = hold("anybody", "{}", 1);
    anybody.approvers = Vec::new();
    desk.ask(&others.keyed());
    desk.ask(&anybody.keyed());
    let told = receiver.request(1).await.json();
    assert_eq!(told["data"]["hold"]["target"], "anybody");
    desk.ask(&hold("ours", "{}", 1));
    assert_eq!(receiver.request(2).await.json()["data"]["hold"]["target"], "ours");
}

/// After a restart what still waits is told again, under the same id, so that a receiver can drop it.
#[tokio::test]
async fn a_restart_tells_again_under_the_same_id() {
    let receiver = Receiver::start(&[]);
    let mut desk = Desk::open(&receiver, &Setup::default());
    desk.ask(&hold("publish", "{}", 1));
    let first = receiver.request(1).await;
    desk.tasks.drain(..).for_each(|task| task.abort());
    let again = Desk::over(&receiver, &Setup::default(), Arc::default(), Some(&desk));
    let second = receiver.request(2).await;
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.json()["data"]["links"], second.json()["data"]["links"]);
    drop(again);
}

/// What an agent writes to be more than text: markup of each format, mentions, a fence, a date, and
/// characters that are not seen.
const EVIL: &str = "<!channel> <@U1> <https://evil.example|ok> *b* `x` ```y``` [a](https://evil.example) \
                    {{DATE(2020-01-01T00:00:00Z)}} <script>alert(1)</script> \u{202e}txt\u{200b}\n&";

fn evil() -> Hold {
    let params = json!({"name": EVIL, "arguments": {EVIL: [EVIL, "```"]}}).to_string();
    let mut evil = hold(EVIL, &params, 1);
    (evil.client, evil.message) = (Some(EVIL.into()), EVIL.into());
    evil.environments = vec![EVIL.into()];
    evil.facts = [(EVIL.into(), EVIL.into())].into();
    evil.tags = vec![EVIL.into()];
    evil.keyed()
}

/// Every text of a JSON value, with the members around it.
fn texts(value: &Value, at: &str, out: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => out.push((at.to_owned(), text.clone())),
        Value::Array(items) => items.iter().for_each(|item| texts(item, at, out)),
        Value::Object(members) => {
            let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
            members.iter().for_each(|(name, it)| texts(it, &format!("{kind}/{name}"), out));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

async fn told_of_evil(template: Template) -> (String, Vec<(String, String)>) {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup { template, ..Setup::default() });
    let waiter = desk.ask(&evil());
    let asked = receiver.request(1).await;
    asked.verify(SECRET);
    desk.refuse(&waiter);
    let ended = receiver.request(2).await;
    let mut found = Vec::new();
    texts(&asked.json(), "", &mut found);
    texts(&ended.json(), "", &mut found);
    for (at, text) in &found {
        let unseen = ['\u{202e}', '\u{200b}', '\r', '\u{0}'];
        assert!(!text.contains(unseen), "{at}: {text:?}");
    }
    assert!(asked.body.len() < 28 << 10, "{}", asked.body.len());
    (asked.body, found)
}

#[tokio::test]
async fn slack_reads_nothing_that_an_agent_wrote_as_markup() {
    let (body, found) = told_of_evil(Template::Slack).await;
    let mut code = 0;
    for (at, text) in &found {
        assert!(!text.contains(['<', '>']), "{at}: {text}");
        let entities = text.matches("&amp;").count()
            + text.matches("&lt;").count()
            + text.matches("&gt;").count();
        assert_eq!(text.matches('&').count(), entities, "{at}: {text}");
        match at.as_str() {
            "mrkdwn/text" => {
                code += 1;
                let inside = text.strip_prefix("```").and_then(|it| it.strip_suffix("```"));
                let inside = inside.unwrap_or_else(|| panic!("{text}"));
                assert!(!inside.contains('`'), "the fence cannot be closed: {inside}");
                assert!(inside.contains("\\u0060\\u0060\\u0060") && inside.len() <= 2900);
            }
            "plain_text/text" | "/text" => assert!(text.len() <= 3000, "{at}"),
            _ => {}
        }
    }
    assert_eq!(code, 1, "one text has a format, and it is a code block");
    let message: Value = serde_json::from_str(&body).unwrap();
    assert!(message["text"].as_str().unwrap().contains("&lt;!channel&gt;"), "{message}");
    assert_eq!((&message["mrkdwn"], &message["unfurl_links"]), (&json!(false), &json!(false)));
    let blocks = message["blocks"].as_array().unwrap();
    for block in blocks {
        let fields = block["fields"].as_array().map_or(0, Vec::len);
        assert!(fields <= 10, "{block}");
        for field in block["fields"].as_array().into_iter().flatten() {
            assert!(field["text"].as_str().unwrap().chars().count() <= 2000);
            assert_eq!((&field["type"], &field["emoji"]), (&json!("plain_text"), &json!(false)));
        }
        if let Some(text) = block["text"]["verbatim"].as_bool() {
            assert!(text, "{block}");
        }
    }
    let buttons = blocks.last().unwrap()["elements"].as_array().unwrap();
    let urls: Vec<&str> = buttons.iter().map(|it| it["url"].as_str().unwrap()).collect();
    assert!(urls[0].starts_with("https://approvals.example.com/b/callback/grant."), "{urls:?}");
    assert!(urls[1].starts_with("https://approvals.example.com/b/callback/refuse."), "{urls:?}");
    assert!(urls[2].starts_with("https://approvals.example.com/b/console#hold="), "{urls:?}");
}

#[tokio::test]
async fn teams_reads_nothing_that_an_agent_wrote_as_markup() {
    let (body, found) = told_of_evil(Template::Teams).await;
    for (at, text) in &found {
        // Everything is in a `TextRun`, in which nothing is markup.
        let of_agent = text.contains("channel") || text.contains("evil.example");
        assert!(!of_agent || at == "TextRun/text", "{at}: {text}");
        assert!(!text.contains("{{"), "{at}: {text}");
    }
    assert!(found.iter().any(|(_, text)| text.contains("<!channel> <@U1>")), "{found:?}");
    let message: Value = serde_json::from_str(&body).unwrap();
    let attachment = &message["attachments"][0];
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = &attachment["content"];
    assert_eq!((&card["type"], &message["type"]), (&json!("AdaptiveCard"), &json!("message")));
    let actions = card["actions"].as_array().unwrap();
    let all: Vec<_> = actions.iter().map(|it| (&it["type"], &it["title"])).collect();
    let open = json!("Action.OpenUrl");
    let titles = [json!("Grant"), json!("Refuse"), json!("Open the console")];
    assert_eq!(all, titles.iter().map(|title| (&open, title)).collect::<Vec<_>>());
}

#[tokio::test]
async fn plain_json_shows_what_is_not_seen() {
    let (_, found) = told_of_evil(Template::Plain).await;
    let target = &found.iter().find(|(at, _)| at == "/target").unwrap().1;
    assert!(target.contains("\\u{202e}txt\\u{200b}\\u{a}"), "{target}");
    let params = &found.iter().find(|(_, text)| text.starts_with("{\n")).unwrap().1;
    assert!(params.contains("\\u202etxt\\u200b\\n&"), "{params}");
}

/// A large call does not make a large message, in any format.
#[tokio::test]
async fn messages_are_bounded() {
    let many: Vec<String> = (0..20_000).map(|n| format!("\"a{n}\":[]")).collect();
    let params = format!("{{\"arguments\":{{{}}}}}", many.join(","));
    for template in [Template::Plain, Template::Slack, Template::Teams] {
        let receiver = Receiver::start(&[]);
        let desk = Desk::open(&receiver, &Setup { template, ..Setup::default() });
        let mut large = hold(&"`\"<".repeat(2000), &params, 1);
        large.environments = (0..500).map(|n| format!("{{<{n}").into()).collect();
        large.message = "<".repeat(5000).into();
        desk.ask(&large.keyed());
        let asked = receiver.request(1).await;
        assert!(asked.body.len() < 28 << 10, "{template:?}: {}", asked.body.len());
        assert!(asked.body.contains("beginning of"), "{template:?} says that something is missing");
    }
}

/// Secrets of known forms leave in no message. If one stands where no marker can, nothing is shown.
#[tokio::test]
async fn secrets_in_arguments_do_not_leave() {
    let token = ["gh", "p_", "x7Kq2Lm9Zt4Vb8Nc1Rf6Hj3Wd5Ys0Pg2Aa1B"].concat();
    for template in [Template::Plain, Template::Slack, Template::Teams] {
        let receiver = Receiver::start(&[]);
        let desk = Desk::open(&receiver, &Setup { template, ..Setup::default() });
        let params = json!({"arguments": {"note": format!("use {token}"), "other": "kept"}});
        let mut with = hold("publish", &params.to_string(), 1);
        with.client = Some(format!("client {token}").into());
        desk.ask(&with.keyed());
        let asked = receiver.request(1).await;
        assert!(!asked.body.contains(&token), "{}", asked.body);
        assert!(asked.body.contains("use [redacted]") && asked.body.contains("kept"));
        assert!(!asked.body.contains("callback"), "nobody grants what is not shown");

        let params = json!({"arguments": {token.as_str(): "v"}}).to_string();
        desk.ask(&hold("named", &params, 1));
        let asked = receiver.request(2).await;
        assert!(!asked.body.contains(&token), "{}", asked.body);
        assert!(asked.body.contains("not shown here") && asked.body.contains("#hold="));
        assert!(!asked.body.contains("callback"), "nobody grants what is not shown");
    }
}
