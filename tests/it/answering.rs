//! Answers to held calls, at the operators' listener: who may give one, that it is recorded before
//! it counts, and that nothing else comes in by that door.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests"
)]

mod sign_in;
mod terminal;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bartizan_approvals::store::memory::MemoryStore;
use bartizan_approvals::{ApprovalLimits, Approvals, Approver, HoldState, Waiter};
use bartizan_edge::admin::api::ApprovalsApi;
use bartizan_edge::admin::approvers::{Approvers, TokenDigest};
use bartizan_edge::admin::record::keep_states;
use bartizan_edge::admin::{AdminListener, CONNECTIONS_MAX, Readiness};
use bartizan_gate::evidence::record::{AuditRecord, Event, Finding, Now};
use bartizan_gate::question::hold::{GrantScope, Hold, HoldKey};
use bartizan_testing::Sink;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http_edge::rig::{Client, Reply, shared};

pub(crate) const ALICE: &str = "alice-0123456789abcdefghijklmnopqr";
pub(crate) const BOB: &str = "bob---0123456789abcdefghijklmnopqr";
/// The approver that has the name of the principal.
const AGENT: &str = "agent-0123456789abcdefghijklmnopqr";

/// A held call of `tool`, for which a member of `on-call` is asked.
pub(crate) fn hold(tool: &str, params: &str, quorum: u32) -> Hold {
    Hold {
        key: HoldKey([0; 32]),
        call: format!("call-of-{tool}").into(),
        principal: "agent".into(),
        server: "flags".into(),
        method: "tools/call".into(),
        target: Some(tool.into()),
        effect: "write".into(),
        tags: vec!["go-live".into()],
        environments: vec!["staging".into()],
        facts: [("project".into(), "7".into())].into(),
        shown: params.to_owned().into(),
        definition: None,
        revision: "sha256:0".into(),
        code: "review".into(),
        message: "a second pair of eyes".into(),
        approvers: vec!["on-call".into()],
        quorum,
        ttl: Duration::from_mins(10),
        client: Some("tester 1".into()),
        scopes: vec![GrantScope {
            code: "same-tool-15m".into(),
            lasts: Duration::from_mins(15),
            count: 5,
        }],
        also: Vec::new(),
    }
    .keyed()
}

/// An operators' listener, and the holds behind it.
pub(crate) struct Desk {
    pub(crate) address: SocketAddr,
    pub(crate) approvals: Arc<Approvals>,
    pub(crate) sink: Arc<Sink>,
    shared: bartizan_edge::Shared,
    serving: JoinHandle<()>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Desk {
    pub(crate) fn open() -> Self {
        Self::with(Arc::default())
    }

    /// A desk whose records go to `sink`.
    fn with(sink: Arc<Sink>) -> Self {
        Self::within(sink, ApprovalLimits::default())
    }

    /// A desk whose records go to `sink`, where `make` says what else approvers reach.
    fn made(sink: Arc<Sink>, make: impl FnOnce(ApprovalsApi) -> ApprovalsApi) -> Self {
        Self::whole(sink, ApprovalLimits::default(), make)
    }

    fn within(sink: Arc<Sink>, limits: ApprovalLimits) -> Self {
        Self::whole(sink, limits, |api| api)
    }

    fn whole(
        sink: Arc<Sink>,
        limits: ApprovalLimits,
        make: impl FnOnce(ApprovalsApi) -> ApprovalsApi,
    ) -> Self {
        let (mut shared, _) = shared();
        shared.sink = Arc::<Sink>::clone(&sink);
        let clock = shared.clock;
        let store = Box::new(MemoryStore::new());
        let opened = Approvals::open(store, limits, Box::new(move || clock.now()));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self::serve(tcp, Arc::new(opened.unwrap()), shared, sink, make)
    }

    fn serve(
        tcp: std::net::TcpListener,
        approvals: Arc<Approvals>,
        shared: bartizan_edge::Shared,
        sink: Arc<Sink>,
        make: impl FnOnce(ApprovalsApi) -> ApprovalsApi,
    ) -> Self {
        let known =
            [("alice", ALICE, "on-call"), ("bob", BOB, "leads"), ("agent", AGENT, "on-call")].map(
                |(id, token, group)| {
                    let approver = Approver { id: id.into(), groups: vec![group.into()] };
                    (approver, TokenDigest::of(token).unwrap())
                },
            );
        let approvers = Approvers::new(known);
        let api = make(ApprovalsApi::new(Arc::clone(&approvals), approvers, shared.clone()));
        let admin =
            AdminListener::new(tcp, Readiness::new(), shared.tasks.clone(), shared.closing.clone())
                .with_approvals(api);
        let address = admin.local_addr().unwrap();
        let serving = TaskTracker::new().spawn(admin.start().unwrap());
        Self { address, approvals, sink, shared, serving }
    }

    /// Stops listening, as a firewall that ends does.
    async fn close(&mut self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        (&mut self.serving).await.unwrap();
    }

    /// Listens at the same address again, with the same holds.
    fn again(&self) -> Self {
        let tcp = std::net::TcpListener::bind(self.address).unwrap();
        let mut shared = self.shared.clone();
        shared.tasks = TaskTracker::new();
        shared.closing = CancellationToken::new();
        let (approvals, sink) = (Arc::clone(&self.approvals), Arc::clone(&self.sink));
        Self::serve(tcp, approvals, shared, sink, |api| api)
    }

    pub(crate) fn ask(&self, hold: &Hold) -> Waiter {
        self.approvals.ask(hold, self.shared.now()).unwrap()
    }

    /// A request on a connection of its own.
    async fn send(&self, line: &str, headers: &str, body: &str) -> Reply {
        let mut client = Client::connect(self.address).await;
        client.send(request(line, headers, body).as_bytes()).await;
        client.reply().await
    }

    async fn get(&self, path: &str, token: &str) -> Reply {
        self.send(&format!("GET {path}"), &bearer(token), "").await
    }

    async fn post(&self, path: &str, token: &str, body: &Value) -> Reply {
        let headers = format!("{}Content-Type: application/json\r\n", bearer(token));
        self.send(&format!("POST {path}"), &headers, &body.to_string()).await
    }

    /// The digest of what an approver sees of `id`.
    async fn digest(&self, id: &str) -> String {
        let shown = read(&self.get(&format!("/approvals/{id}"), ALICE).await);
        shown["approval"]["digest"].as_str().unwrap().to_owned()
    }

    fn records(&self) -> Vec<AuditRecord> {
        self.sink.kept().clone()
    }

    /// The answers in the journal: who, what, and why it did not count.
    fn answers(&self) -> Vec<(String, String, Option<String>)> {
        let records = self.records();
        let answers = records.iter().filter(|it| it.event == Event::Approval).map(|it| {
            let facts = it.approval.as_ref().unwrap();
            let error = it.error_type.as_ref().map(ToString::to_string);
            (facts.by.as_deref().unwrap_or_default().to_owned(), facts.answer.to_owned(), error)
        });
        answers.collect()
    }
}

fn request(line: &str, headers: &str, body: &str) -> String {
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nHost: desk:1\r\n{headers}{length}\r\n{body}")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn read(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("{reply:?}"))
}

/// `time` after `now`, on both clocks.
fn after(now: Now, time: Duration) -> Now {
    Now { uptime: now.uptime.saturating_add(time), wall: now.wall.checked_add(time).unwrap() }
}

/// The status and the code of an error.
fn error(reply: &Reply) -> (u16, String) {
    (reply.status, read(reply)["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn state(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    read(reply)["approval"]["state"].as_str().unwrap().to_owned()
}

fn answer(who: &str, what: &str, error: Option<&str>) -> (String, String, Option<String>) {
    (who.to_owned(), what.to_owned(), error.map(str::to_owned))
}

#[tokio::test]
async fn a_held_call_is_listed_shown_and_granted_once() {
    let desk = Desk::open();
    let mut waiter = desk.ask(&hold("publish", r#"{"name":"publish","arguments":{"n":1}}"#, 1));
    let id = waiter.id().to_string();

    let listed = read(&desk.get("/approvals", BOB).await);
    let found = &listed["approvals"][0];
    assert_eq!((found["id"].as_str(), found["state"].as_str()), (Some(&*id), Some("pending")));
    assert_eq!((&found["shown"], &found["bytes"]), (&Value::Null, &json!(38)));
    let shown = read(&desk.get(&format!("/approvals/{id}"), BOB).await);
    let shown = &shown["approval"];
    assert_eq!(shown["shown"], r#"{"name":"publish","arguments":{"n":1}}"#);
    assert_eq!((&shown["principal"], &shown["target"]), (&json!("agent"), &json!("publish")));
    assert_eq!(desk.answers(), [], "looking is no answer");

    let body = json!({"digest": shown["digest"], "reason": "checked"});
    let granted = desk.post(&format!("/approvals/{id}/grant"), ALICE, &body).await;
    assert_eq!(state(&granted), "granted");
    assert_eq!(waiter.decided().await, HoldState::Granted);
    assert_eq!(desk.answers(), [answer("alice", "grant", None)]);
    let record = desk.records().pop().unwrap();
    assert_eq!(record.call.as_deref(), Some("call-of-publish"));
    assert_eq!(record.principal.as_deref(), Some("agent"));
    let facts = record.approval.unwrap();
    assert_eq!((&*facts.hold, facts.reason.as_deref()), (&*id, Some("checked")));

    let again = desk.post(&format!("/approvals/{id}/grant"), ALICE, &body).await;
    assert_eq!(error(&again), (409, "not-pending".to_owned()));
    let approval = waiter.spend(desk.shared.now()).unwrap();
    assert_eq!((&*approval.reason, approval.approvers.len()), ("checked", 1));
    let all = read(&desk.get("/approvals?state=all", ALICE).await);
    assert_eq!(all["approvals"][0]["state"], "spent");
    let none = read(&desk.get("/approvals?state=pending", ALICE).await);
    assert_eq!(none["approvals"], json!([]));
}

/// The rows of the tables below `## HTTP` of the page, and whether they need a token.
fn documented() -> Vec<(String, String, bool)> {
    let page = std::fs::read_to_string("docs/approvals.md").unwrap();
    let section = page.split("\n## ").find(|part| part.starts_with("HTTP\n")).unwrap();
    let (with, without) = section.split_once("need no token:").unwrap();
    let rows = |part: &str, token: bool| -> Vec<(String, String, bool)> {
        let rows = part.lines().filter_map(|line| line.strip_prefix("| `"));
        let rows = rows.map(|row| row.split_once('`').unwrap().0.split_once(' ').unwrap());
        let path = |path: &str| path.split('?').next().unwrap().to_owned();
        rows.map(|(method, at)| (method.to_owned(), path(at), token)).collect()
    };
    [rows(with, true), rows(without, false)].concat()
}

/// Each request that the listener answers is on the page, and each that is there is answered; those that
/// need a token are refused without one.
#[tokio::test]
async fn the_page_lists_each_request() {
    let listed = documented();
    let mut named: Vec<_> = listed.iter().map(|(method, path, _)| (&**method, &**path)).collect();
    // What is not of approvers alone.
    let others = [("GET", "/console"), ("GET", "/livez"), ("GET", "/readyz"), ("GET", "/metrics")];
    let mut answered: Vec<_> = bartizan_edge::admin::api::routes().chain(others).collect();
    named.sort_unstable();
    answered.sort_unstable();
    assert_eq!(named, answered);

    let desk = Desk::open();
    for (method, path, token) in &listed {
        if path.starts_with("/callback") || !token && path.starts_with("/console/") {
            continue; // answered where a webhook or an issuer is configured
        }
        let line = format!("{method} {}", path.replace("{id}", "0"));
        let reply = desk.send(&line, "", "").await;
        assert_eq!(reply.status == 401, *token && !path.starts_with("/console/"), "{line}");
        assert_ne!(reply.status, 405, "{line}");
        if *token {
            let other = if method == "GET" { "POST" } else { "GET" };
            let line = line.replacen(method.as_str(), other, 1);
            let reply = desk.send(&line, &bearer(ALICE), "").await;
            assert_eq!((reply.status, reply.header("allow")), (405, vec![&**method]), "{line}");
        }
    }
}

/// Whoever filters by event can choose each one that the journal has.
#[tokio::test]
async fn the_page_offers_every_event_of_the_journal() {
    let desk = Desk::open();
    let page = desk.send("GET /console", "", "").await;
    let (_, select) = page.text().split_once("<select id=\"by-event\">").unwrap();
    let (select, _) = select.split_once("</select>").unwrap();
    let offered = select.split("<option>").skip(1).map(|part| part.split('<').next().unwrap());
    let events = Event::ALL.map(Event::as_str);
    assert_eq!(offered.collect::<Vec<_>>(), events);
}

/// A list holds no parameters, and no more than a bounded number of calls and bytes.
#[tokio::test]
async fn a_list_of_held_calls_is_bounded() {
    let limits = ApprovalLimits {
        holds: 2000,
        holds_per_principal: 2000,
        holds_per_server: 2000,
        bytes: 1 << 30,
        bytes_per_principal: 1 << 30,
        bytes_per_hold: 1 << 20,
        asks: 2000,
        ..ApprovalLimits::default()
    };
    let desk = Desk::within(Arc::default(), limits);
    let asked = |number: usize, tag: usize| {
        let mut hold = hold(&format!("publish-{number:04}"), "{}", 1);
        hold.tags = vec!["t".repeat(tag).into()];
        desk.ask(&hold.keyed())
    };
    let waiters: Vec<_> = (0..510).map(|number| asked(number, 1)).collect();
    let listed = read(&desk.get("/approvals", ALICE).await);
    assert_eq!((&listed["approver"], &listed["more"]), (&json!("alice"), &json!(10)));
    assert_eq!(listed["approvals"].as_array().unwrap().len(), 500);
    // Those that have waited longest; several may have been asked in the same millisecond.
    let asked_at = |hold: &Value| hold["asked_unix_ms"].as_u64().unwrap();
    let all = desk.approvals.list(&[HoldState::Pending]);
    let times: Vec<u64> = listed["approvals"].as_array().unwrap().iter().map(asked_at).collect();
    let longest: Vec<u64> = all.iter().take(500).map(|hold| hold.asked_unix_ms).collect();
    assert_eq!(times, longest);
    for waiter in waiters {
        waiter.cancel(desk.shared.now());
    }
    let ended = read(&desk.get("/approvals?state=ended", ALICE).await);
    assert_eq!(ended["more"], json!(10));
    let times: Vec<u64> = ended["approvals"].as_array().unwrap().iter().map(asked_at).collect();
    let newest: Vec<u64> = all.iter().skip(10).map(|hold| hold.asked_unix_ms).collect();
    assert_eq!(times, newest);
    assert_eq!(read(&desk.get("/approvals", ALICE).await)["approvals"], json!([]));

    let _waiters: Vec<_> = (600..630).map(|number| asked(number, 200_000)).collect();
    let reply = desk.get("/approvals", ALICE).await;
    assert!(reply.body.len() < 5 << 20, "{}", reply.body.len());
    let listed = read(&reply);
    let shown = listed["approvals"].as_array().unwrap().len();
    assert!(shown > 10 && shown < 30, "{shown}");
    assert_eq!(listed["more"], json!(30 - shown));
    // Of a history that is too large the newest calls are listed, and `before` goes on with older ones.
    let ids = |listed: &Value| -> Vec<String> {
        let found = listed["approvals"].as_array().unwrap().iter();
        found.map(|hold| hold["id"].as_str().unwrap().to_owned()).collect()
    };
    let every = desk.approvals.list(&HoldState::ALL);
    let every: Vec<String> = every.iter().map(|hold| hold.id.to_string()).collect();
    let mut seen = Vec::new();
    let mut more = u64::MAX;
    while more > 0 {
        let before = seen.first().map_or_else(String::new, |id| format!("&before={id}"));
        let path = format!("/approvals?state=all&max=100{before}");
        let listed = read(&desk.get(&path, ALICE).await);
        let found = ids(&listed);
        assert!((1..=100).contains(&found.len()), "{}", found.len());
        seen = [found, seen].concat();
        more = listed["more"].as_u64().unwrap();
        assert_eq!(usize::try_from(more).unwrap(), every.len() - seen.len());
    }
    assert_eq!(seen, every);
    let unknown = read(&desk.get("/approvals?state=all&before=lost", ALICE).await);
    assert_eq!((&unknown["approvals"], &unknown["more"]), (&json!([]), &json!(0)));
}

#[tokio::test]
async fn a_refusal_ends_the_hold() {
    let desk = Desk::open();
    let mut waiter = desk.ask(&hold("publish", "{}", 1));
    let id = waiter.id().to_string();
    let refused =
        desk.post(&format!("/approvals/{id}/refuse"), ALICE, &json!({"reason": "not now"})).await;
    assert_eq!(state(&refused), "refused");
    assert_eq!(waiter.decided().await, HoldState::Refused);
    assert_eq!(desk.answers(), [answer("alice", "refuse", None)]);
}

#[tokio::test]
async fn a_wider_grant_is_one_that_the_rule_offers() {
    let desk = Desk::open();
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let id = waiter.id().to_string();
    let path = format!("/approvals/{id}/grant");
    let mut body = json!({"digest": desk.digest(&id).await, "reason": "r", "scope": "everything"});
    let refused = desk.post(&path, ALICE, &body).await;
    assert_eq!(error(&refused), (422, "scope-not-offered".to_owned()));
    body["scope"] = json!("same-tool-15m");
    assert_eq!(state(&desk.post(&path, ALICE, &body).await), "granted");
    let further = desk.ask(&hold("publish", r#"{"n":2}"#, 1));
    assert_eq!(further.state(), HoldState::Granted);
    let scopes: Vec<_> =
        desk.records().iter().map(|it| it.approval.clone().unwrap().scope.clone()).collect();
    assert_eq!(scopes, [Some("everything".into()), Some("same-tool-15m".into())]);
}

/// Every door, with nothing, another scheme, a wrong token, a token in the query, and two tokens.
#[tokio::test]
async fn nobody_comes_in_without_a_token_not_even_from_this_machine() {
    let desk = Desk::open();
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let id = waiter.id().to_string();
    let doors = [
        "GET /approvals".to_owned(),
        "GET /approvals/changes?after=9".into(),
        format!("GET /approvals/{id}"),
        format!("POST /approvals/{id}/grant"),
        format!("POST /approvals/{id}/refuse"),
        "GET /approvals/x/y/z".into(),
        "DELETE /approvals".into(),
    ];
    let body = r#"{"digest":"d","reason":"r"}"#;
    for door in &doors {
        let reply = desk.send(door, "Content-Type: application/json\r\n", body).await;
        assert_eq!(error(&reply), (401, "no-token".to_owned()), "{door}");
        let challenge = reply.header("www-authenticate");
        assert_eq!(challenge, ["Bearer realm=\"bartizan approvals\""], "{door}");
    }
    let prefix = &ALICE[..ALICE.len() - 1];
    let wrong = [
        (bearer(prefix), "bad-token"),
        (bearer(&format!("{ALICE}x")), "bad-token"),
        (bearer(&ALICE.to_uppercase()), "bad-token"),
        (bearer(""), "bad-token"),
        (format!("Authorization: {ALICE}\r\n"), "bad-token"),
        (format!("Authorization: Basic {ALICE}\r\n"), "bad-token"),
        (format!("{}{}", bearer(ALICE), bearer(ALICE)), "no-token"),
        (format!("Cookie: token={ALICE}\r\n"), "no-token"),
    ];
    for (headers, code) in &wrong {
        let reply = desk.send("GET /approvals", headers, "").await;
        assert_eq!(error(&reply), (401, (*code).to_owned()), "{headers}");
    }
    assert_eq!(waiter.state(), HoldState::Pending);
    assert_eq!(desk.answers(), []);
    let records = desk.records();
    assert_eq!(records.len(), doors.len() + wrong.len(), "each attempt is recorded");
    let bad = |record: &AuditRecord| record.finding == Some(Finding::UnauthenticatedCaller);
    let expected = wrong.iter().filter(|(_, code)| *code == "bad-token").count();
    assert_eq!(records.iter().filter(|record| bad(record)).count(), expected);
    for record in &records {
        assert_eq!(record.event, Event::Denial);
        assert_eq!(record.peer.as_deref(), Some("127.0.0.1"));
    }
    let kept = desk.sink.lines().concat();
    assert!(!kept.contains(prefix), "no token is in a record");
}

#[tokio::test]
async fn failed_tokens_are_limited_and_a_right_one_passes_all_the_same() {
    let desk = Desk::open();
    let mut seen = Vec::new();
    for _ in 0..40 {
        seen.push(desk.get("/approvals", BOB.trim_end_matches('r')).await.status);
    }
    assert_eq!(seen.iter().filter(|status| **status == 401).count(), 20, "{seen:?}");
    assert_eq!(seen.last(), Some(&429));
    assert_eq!(desk.get("/approvals", ALICE).await.status, 200);
}

/// Who may look may not answer: a group that is not asked, and who asks. Also where the quorum is
/// not reached, one approver does not count twice.
#[tokio::test]
async fn only_those_who_are_asked_may_answer_and_never_who_asks() {
    let desk = Desk::open();
    let waiter = desk.ask(&hold("publish", "{}", 2));
    let id = waiter.id().to_string();
    let digest = desk.digest(&id).await;
    let body = json!({"digest": digest, "reason": "r"});
    for token in [BOB, AGENT] {
        for verdict in ["grant", "refuse"] {
            let reply = desk.post(&format!("/approvals/{id}/{verdict}"), token, &body).await;
            assert_eq!(error(&reply), (403, "not-allowed".to_owned()), "{verdict}");
        }
    }
    let path = format!("/approvals/{id}/grant");
    assert_eq!(state(&desk.post(&path, ALICE, &body).await), "pending", "one of two");
    let twice = desk.post(&path, ALICE, &body).await;
    assert_eq!(error(&twice), (409, "already-answered".to_owned()));
    assert_eq!(waiter.state(), HoldState::Pending);
    let (denied, twice) = (Some("not-allowed"), Some("already-answered"));
    assert_eq!(
        desk.answers(),
        [
            answer("bob", "grant", denied),
            answer("bob", "refuse", denied),
            answer("agent", "grant", denied),
            answer("agent", "refuse", denied),
            answer("alice", "grant", None),
            answer("alice", "grant", twice),
        ]
    );
}

#[tokio::test]
async fn an_answer_is_for_what_was_seen() {
    let desk = Desk::open();
    let one = desk.ask(&hold("publish", r#"{"n":1}"#, 1));
    let other = desk.ask(&hold("publish", r#"{"n":2}"#, 1));
    let (id, seen) = (one.id().to_string(), desk.digest(&other.id().to_string()).await);
    for (verdict, digest) in
        [("grant", seen.as_str()), ("grant", ""), ("refuse", seen.as_str()), ("grant", &id)]
    {
        let body = json!({"digest": digest, "reason": "r"});
        let reply = desk.post(&format!("/approvals/{id}/{verdict}"), ALICE, &body).await;
        assert_eq!(error(&reply), (409, "wrong-digest".to_owned()), "{verdict} {digest}");
    }
    let unknown =
        desk.post("/approvals/00/grant", ALICE, &json!({"digest": "", "reason": "r"})).await;
    assert_eq!(error(&unknown), (404, "unknown-hold".to_owned()));
    assert_eq!((one.state(), other.state()), (HoldState::Pending, HoldState::Pending));
    assert!(desk.answers().iter().all(|(_, _, error)| error.is_some()));
    assert_eq!(desk.answers().len(), 5);
}

#[tokio::test]
async fn what_cannot_be_recorded_does_not_happen() {
    let desk = Desk::with(Arc::new(Sink::refusing()));
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let id = waiter.id().to_string();
    let body = json!({"digest": desk.digest(&id).await, "reason": "r"});
    for verdict in ["grant", "refuse"] {
        let reply = desk.post(&format!("/approvals/{id}/{verdict}"), ALICE, &body).await;
        assert_eq!(error(&reply), (503, "not-recorded".to_owned()), "{verdict}");
    }
    let stranger = desk.get("/approvals", "x").await;
    assert_eq!(error(&stranger), (503, "not-recorded".to_owned()));
    assert_eq!(waiter.state(), HoldState::Pending);
}

/// A page of another site has no token. If it had one, its requests would be refused all the same.
#[tokio::test]
async fn no_other_site_uses_the_browser_of_an_approver() {
    let desk = Desk::open();
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let id = waiter.id().to_string();
    let body = json!({"digest": desk.digest(&id).await, "reason": "r"}).to_string();
    let line = format!("POST /approvals/{id}/grant");
    let json = "Content-Type: application/json\r\n";
    for (headers, expected) in [
        ("Content-Type: application/json\r\nOrigin: http://evil.example\r\n", (403, "other-site")),
        ("Content-Type: application/json\r\nOrigin: http://desk:2\r\n", (403, "other-site")),
        ("Content-Type: application/json\r\nOrigin: null\r\n", (403, "other-site")),
        (
            "Content-Type: application/json\r\nOrigin: http://desk:1\r\nOrigin: http://evil.example\r\n",
            (403, "other-site"),
        ),
        ("Content-Type: application/json\r\nSec-Fetch-Site: cross-site\r\n", (403, "other-site")),
        ("Content-Type: application/json\r\nSec-Fetch-Site: same-site\r\n", (403, "other-site")),
        ("", (415, "media-type")),
        ("Content-Type: text/plain\r\n", (415, "media-type")),
        ("Content-Type: application/x-www-form-urlencoded\r\n", (415, "media-type")),
        ("Content-Type: application/json\r\nContent-Type: text/plain\r\n", (415, "media-type")),
        ("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", (415, "media-type")),
    ] {
        let headers = format!("{}{headers}", bearer(ALICE));
        let reply = desk.send(&line, &headers, &body).await;
        assert_eq!(error(&reply), (expected.0, expected.1.to_owned()), "{headers}");
        assert!(reply.header("access-control-allow-origin").is_empty());
    }
    assert_eq!(waiter.state(), HoldState::Pending);
    let own =
        format!("{}{json}Origin: http://desk:1\r\nSec-Fetch-Site: same-origin\r\n", bearer(ALICE));
    assert_eq!(state(&desk.send(&line, &own, &body).await), "granted");
    // A preflight gets no permission.
    let preflight = "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
    let reply = desk.send(&format!("OPTIONS /approvals/{id}/grant"), preflight, "").await;
    assert_eq!(reply.status, 403);
    assert!(!reply.head.to_ascii_lowercase().contains("access-control-allow"));
}

#[tokio::test]
async fn an_answer_in_another_form_is_refused() {
    let desk = Desk::open();
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let id = waiter.id().to_string();
    let digest = desk.digest(&id).await;
    let headers = format!("{}Content-Type: application/json\r\n", bearer(ALICE));
    let line = format!("POST /approvals/{id}/grant");
    for body in [
        String::new(),
        "[]".into(),
        "{".into(),
        format!(r#"{{"digest":"{digest}"}}"#),
        format!(r#"{{"digest":"{digest}","reason":" "}}"#),
        format!(r#"{{"digest":"{digest}","reason":"r","reason":"s"}}"#),
        format!(r#"{{"digest":"{digest}","reason":"r","approver":"bob"}}"#),
        r#"{"reason":"r"}"#.into(),
    ] {
        let reply = desk.send(&line, &headers, &body).await;
        assert_eq!(error(&reply), (400, "malformed".to_owned()), "{body}");
    }
    let long = format!(r#"{{"digest":"{digest}","reason":"{}"}}"#, "r".repeat(1025));
    let reply = desk.send(&line, &headers, &long).await;
    assert_eq!(error(&reply), (413, "reason-too-long".to_owned()));
    let large = format!(r#"{{"digest":"{digest}","reason":"{}"}}"#, "r".repeat(100_000));
    let reply = desk.send(&line, &headers, &large).await;
    assert_eq!(error(&reply), (413, "too-large".to_owned()));
    let endless = format!("{headers}Transfer-Encoding: chunked\r\n");
    let mut client = Client::connect(desk.address).await;
    client.send(request(&line, &endless, "").as_bytes()).await;
    let piece = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let mut pieces = 0;
    while client.try_send(piece.as_bytes()).await {
        pieces += 1;
        assert!(pieces < 10_000, "it is read for ever");
    }
    for (line, expected) in [
        ("GET /approvals?state=lost", (400, "query")),
        ("GET /approvals?state=pending&x=1", (400, "query")),
        ("GET /approvals?state=ended&state=all", (400, "query")),
        ("GET /approvals?max=0", (400, "query")),
        ("GET /approvals?max=501", (400, "query")),
        ("GET /approvals?before", (400, "query")),
        ("GET /approvals/changes?after=-1", (400, "query")),
        ("POST /approvals", (405, "method")),
        ("GET /approvals/1/grant", (405, "method")),
        ("GET /approvals/1/else", (404, "not-found")),
        ("GET /approvals/1/grant/2", (404, "not-found")),
        ("GET /approvals/1", (404, "unknown-hold")),
    ] {
        let reply = desk.send(line, &bearer(ALICE), "").await;
        assert_eq!(reply.status, expected.0, "{line}");
        assert!(reply.text().contains(expected.1), "{line}: {}", reply.text());
    }
    assert_eq!(waiter.state(), HoldState::Pending);
    assert!(desk.answers().iter().all(|(_, _, error)| error.is_some()));
}

#[tokio::test]
async fn every_reply_keeps_browsers_from_doing_more_than_reading_it() {
    let desk = Desk::open();
    for (line, token) in [
        ("GET /approvals", ALICE),
        ("GET /approvals", "wrong"),
        ("GET /approvals/none", ALICE),
        ("GET /livez", ""),
        ("GET /readyz", ""),
        ("GET /nothing", ""),
    ] {
        let reply = desk.send(line, &bearer(token), "").await;
        for (name, value) in [
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
            ),
            ("x-frame-options", "deny"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("content-type", "application/json"),
        ] {
            let found =
                reply.header(name).iter().map(|it| it.to_ascii_lowercase()).collect::<Vec<_>>();
            assert_eq!(found, [value], "{line}: {name}");
        }
    }
}

/// The page runs nothing but its own files and makes no markup of any text, in its headers and in what
/// it is made of.
#[tokio::test]
async fn the_page_is_its_own_files_and_its_policy_keeps_all_else_out() {
    let desk = Desk::open();
    let mut files = Vec::new();
    for (path, media) in [
        ("/console", "text/html; charset=utf-8"),
        ("/console/app.js", "text/javascript; charset=utf-8"),
        ("/console/audit.js", "text/javascript; charset=utf-8"),
        ("/console/calls.js", "text/javascript; charset=utf-8"),
        ("/console/servers.js", "text/javascript; charset=utf-8"),
        ("/console/text.js", "text/javascript; charset=utf-8"),
        ("/console/style.css", "text/css; charset=utf-8"),
    ] {
        let reply = desk.send(&format!("GET {path}"), "", "").await;
        assert_eq!((reply.status, reply.header("content-type")), (200, vec![media]), "{path}");
        let policy = reply.header("content-security-policy").concat();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split("; ").any(|it| it == part), "{path}: {part}: {policy}");
        }
        assert!(!policy.contains("unsafe"));
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(reply.header(name), [value], "{path}: {name}");
        }
        let posted = desk.send(&format!("POST {path}"), "", "").await;
        assert_eq!(posted.status, 405, "{path}");
        files.push(reply.text().to_owned());
    }
    let [page, scripts @ .., style] = &files[..] else { panic!("page, scripts and style") };
    let script = &scripts.concat();
    for (what, text) in [("page", page), ("script", script), ("style", style)] {
        for foreign in ["http:", "https:", "//cdn", "@import", "url(", "data:"] {
            assert!(!text.contains(foreign), "{what}: {foreign}");
        }
    }
    // Only names of files stand in the page: no code, no style, no handler.
    let loaded = r#"<script type="module" src="console/app.js"></script>"#;
    assert_eq!((page.matches("<script").count(), page.matches(loaded).count()), (1, 1));
    // And a script loads only files of this list.
    for part in script.split(" from \"").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(
            ["./audit.js", "./calls.js", "./servers.js", "./text.js"].contains(&name),
            "{name}"
        );
    }
    assert!(!script.contains("import("));
    for inline in ["<style", " style=", " onclick", " onload", " onerror", "javascript:"] {
        assert!(!page.contains(inline), "{inline}");
    }
    for sink in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "setAttribute(\"on",
        "setAttribute(\"href",
        "localStorage",
        "sessionStorage",
        "document.cookie",
        "indexedDB",
    ] {
        assert!(!script.contains(sink), "{sink}");
    }
    // What the script looks for is in the page.
    for part in script.split("byId(\"").skip(1) {
        let id = part.split('"').next().unwrap();
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    for path in ["/console/", "/console/x", "/console/../approvals"] {
        assert_eq!(desk.send(&format!("GET {path}"), "", "").await.status, 404, "{path}");
    }
}

/// Requests that wait for changes, of one approver and of all, leave places to probes and to others.
#[tokio::test]
async fn a_crowd_of_approvers_does_not_hold_up_probes_or_each_other() {
    let desk = Desk::open();
    let now = *desk.approvals.changes().borrow();
    let path = format!("GET /approvals/changes?after={now}");
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let mut client = Client::connect(desk.address).await;
        client.send(request(&path, &bearer(ALICE), "").as_bytes()).await;
        waiting.push(client);
        // One thread serves all in the order in which they came.
        assert_eq!(desk.send("GET /livez", "", "").await.status, 200);
    }
    for _ in 0..20 {
        let reply = desk.send(&path, &bearer(ALICE), "").await;
        assert_eq!(error(&reply), (429, "busy".to_owned()));
    }
    assert_eq!(desk.get("/approvals", BOB).await.status, 200, "another approver");
    assert_eq!(desk.send("GET /livez", "", "").await.status, 200);
    // Whoever has no token drives out nobody who has one.
    let mut silent = Vec::new();
    for _ in 0..2 * CONNECTIONS_MAX {
        silent.push(Client::connect(desk.address).await);
    }
    assert_eq!(desk.send("GET /livez", "", "").await.status, 200);
    let _waiter = desk.ask(&hold("publish", "{}", 1));
    for client in &mut waiting {
        let reply = client.reply().await;
        assert_eq!(reply.status, 200);
        assert!(read(&reply)["change"].as_u64() > Some(now));
    }
    assert_eq!(desk.get("/approvals", ALICE).await.status, 200, "the slots came back");
}

#[tokio::test]
async fn changes_are_told_at_once_or_when_they_come() {
    let desk = Desk::open();
    let first = read(&desk.get("/approvals", ALICE).await)["change"].as_u64().unwrap();
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let path = format!("/approvals/changes?after={first}");
    let change = read(&desk.get(&path, ALICE).await)["change"].as_u64().unwrap();
    assert_ne!(change, first, "it has happened already");
    let mut client = Client::connect(desk.address).await;
    let line = format!("GET /approvals/changes?after={change}");
    client.send(request(&line, &bearer(ALICE), "").as_bytes()).await;
    waiter.cancel(desk.shared.now());
    let reply = read(&client.reply().await);
    assert!(reply["change"].as_u64().unwrap() > change);
    desk.shared.closing.cancel();
    let latest = read(&reply_of(&reply))["change"].clone();
    let path = format!("/approvals/changes?after={latest}");
    assert_eq!(error(&desk.get(&path, ALICE).await), (503, "stopping".to_owned()));
}

fn reply_of(value: &Value) -> Reply {
    Reply { status: 200, head: String::new(), body: value.to_string().into_bytes() }
}

/// Without approvers nothing is there to find.
#[tokio::test]
async fn without_approvers_there_is_no_such_path() {
    let (shared, _) = shared();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin =
        AdminListener::new(tcp, Readiness::new(), shared.tasks.clone(), shared.closing.clone());
    let address = admin.local_addr().unwrap();
    let serving = TaskTracker::new().spawn(admin.start().unwrap());
    for path in ["/approvals", "/approvals/changes", "/approvals/1", "/console", "/console/app.js"]
    {
        let mut client = Client::connect(address).await;
        client.send(request(&format!("GET {path}"), &bearer(ALICE), "").as_bytes()).await;
        assert_eq!(client.reply().await.status, 404);
    }
    serving.abort();
}

/// What becomes of each hold is one record, also if nobody waits for it or it is like another one.
#[tokio::test]
async fn each_end_of_a_hold_has_a_record_of_its_own() {
    let desk = Desk::open();
    keep_states(&desk.approvals, &desk.shared);
    let granted = desk.ask(&hold("publish", r#"{"n":1}"#, 1));
    let refused = desk.ask(&hold("publish", r#"{"n":2}"#, 1)).id().to_string();
    let expired = [3, 4].map(|n| desk.ask(&hold("publish", &format!(r#"{{"n":{n}}}"#), 1)));
    let cancelled = desk.ask(&hold("publish", r#"{"n":5}"#, 1));
    let id = granted.id().to_string();
    let body = json!({"digest": desk.digest(&id).await, "reason": "checked"});
    assert_eq!(state(&desk.post(&format!("/approvals/{id}/grant"), ALICE, &body).await), "granted");
    let path = format!("/approvals/{refused}/refuse");
    assert_eq!(state(&desk.post(&path, ALICE, &json!({"reason": "not now"})).await), "refused");
    granted.spend(desk.shared.now()).unwrap();
    let left = cancelled.id().to_string();
    cancelled.cancel(desk.shared.now());
    let mut over: Vec<String> = expired.iter().map(|it| it.id().to_string()).collect();
    drop(expired);
    let later = after(desk.shared.now(), Duration::from_mins(11));
    desk.approvals.tick(later);
    desk.approvals.tick(later);

    let records = desk.records();
    let states = records.iter().filter(|it| it.event == Event::HoldState).map(|it| {
        let facts = it.approval.as_ref().unwrap();
        let (by, why) = (facts.by.as_deref(), facts.reason.as_deref());
        assert_eq!(it.call.as_deref(), Some("call-of-publish"));
        assert_eq!(it.target.as_ref().unwrap().tool.as_deref(), Some("publish"));
        (facts.hold.to_string(), facts.answer, by.map(str::to_owned), why.map(str::to_owned))
    });
    let mut states: Vec<_> = states.collect();
    let mut ends = states.split_off(4);
    let (alice, checked) = (Some("alice".to_owned()), Some("checked".to_owned()));
    assert_eq!(
        states,
        [
            (id.clone(), "granted", alice.clone(), checked.clone()),
            (refused, "refused", alice.clone(), Some("not now".to_owned())),
            (id, "spent", alice, checked),
            (left, "cancelled", None, None),
        ]
    );
    ends.sort();
    over.sort();
    let over: Vec<_> = over.into_iter().map(|id| (id, "expired", None, None)).collect();
    assert_eq!(ends, over);
}

/// A grant is for one policy: another one makes it worthless, and one that was used is none.
#[tokio::test]
async fn unused_grants_of_another_policy_are_counted() {
    let desk = Desk::open();
    let waiters = ["one", "two", "three"].map(|tool| desk.ask(&hold(tool, "{}", 1)));
    for waiter in waiters.iter().take(2) {
        let id = waiter.id().to_string();
        let body = json!({"digest": desk.digest(&id).await, "reason": "checked"});
        let reply = desk.post(&format!("/approvals/{id}/grant"), ALICE, &body).await;
        assert_eq!(state(&reply), "granted");
    }
    let counts = || ["sha256:0", "sha256:1"].map(|it| desk.approvals.worthless_grants(it));
    assert_eq!(counts(), [0, 2]);
    let [one, ..] = waiters;
    one.spend(desk.shared.now()).unwrap();
    assert_eq!(counts(), [0, 1]);
}
