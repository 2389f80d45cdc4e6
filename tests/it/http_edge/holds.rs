//! Requests that wait for approval, through the listener and on pipes.

use std::sync::Arc;
use std::time::Duration;

use bartizan_approvals::store::memory::MemoryStore;
use bartizan_approvals::{ApprovalLimits, Approvals, Approver, HoldState, HoldView};
use bartizan_edge::Shared;
use bartizan_edge::child::ChildLimits;
use bartizan_edge::client::{ExitReason, Serving, StdioLimits, StdioUpstream, serve_pipes};
use bartizan_edge::held::Holding;
use bartizan_edge::http::HttpConfig;
use bartizan_edge::upstream::HttpUpstream;
use bartizan_gate::duty::limit::Places;
use bartizan_gate::evidence::record::Event;
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::session::{Gate, Protected, RefusalForm};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::rig::{
    Behind, Client, Play, Reply, Rig, call, json, modern_call, post, shared, single, soon,
    stream_head, upstream_config,
};

/// Longer than any test may take, so that it never ends a wait that an answer should end.
pub(super) const LONG: Duration = Duration::from_mins(5);

/// A firewall that holds calls, before a server that answers each with a result.
struct Scene {
    behind: Behind,
    rig: Rig,
    approvals: Arc<Approvals>,
    clock: bartizan_edge::clock::Clock,
    gate: Arc<Gate>,
}

pub(super) fn approvals(clock: bartizan_edge::clock::Clock) -> Arc<Approvals> {
    let now = Box::new(move || clock.now());
    let store = Box::new(MemoryStore::new());
    Arc::new(Approvals::open(store, ApprovalLimits::default(), now).unwrap())
}

async fn server() -> Behind {
    Behind::start(|_, received| {
        let asked: Value = std::str::from_utf8(&received.body).unwrap().parse().unwrap();
        let result = json!({"content": [], "resultType": "complete"});
        json(&json!({"jsonrpc": "2.0", "id": asked.get("id"), "result": result}).to_string())
    })
    .await
}

impl Scene {
    async fn waiting(wait: Duration) -> Self {
        Self::with(wait, HttpConfig::default()).await
    }

    #[expect(clippy::large_types_passed_by_value, reason = "tests")]
    async fn with(wait: Duration, config: HttpConfig) -> Self {
        let behind = server().await;
        let (mut shared, sink) = shared();
        let clock = shared.clock;
        let gate = Arc::clone(&shared.gate);
        let approvals = approvals(clock);
        shared.holding = Some(Holding::new(Arc::clone(&approvals), wait));
        let upstream = HttpUpstream::new(upstream_config(behind.address)).unwrap();
        let rig = Rig::sharing((shared, sink), config, |_| upstream.into(), |route| vec![route]);
        Self { behind, rig, approvals, clock, gate }
    }

    /// A client that has sent `request`.
    async fn sends(&self, request: &[u8]) -> Client {
        let mut client = self.rig.client().await;
        client.send(request).await;
        client
    }

    /// The `count` holds that are in this state, as soon as there are so many.
    async fn holds(&self, state: HoldState, count: usize) -> Vec<HoldView> {
        until(&self.approvals, |approvals| {
            let found = approvals.list(&[state]);
            (found.len() == count).then_some(found)
        })
        .await
    }

    fn grant(&self, hold: &HoldView) {
        let now = self.clock.now();
        self.approvals.grant(&hold.id, &hold.digest, &ada(), "checked", None, now).unwrap();
    }

    /// The one place of `held-single` among the calls in flight.
    fn place(&self) -> Option<Places> {
        let limits = self.gate.limits();
        limits.reserve([&single()].into_iter(), self.clock.uptime()).unwrap()
    }

    fn refuse(&self, hold: &HoldView) {
        self.approvals.refuse(&hold.id, &ada(), "no", self.clock.now()).unwrap();
    }
}

pub(super) async fn until<T>(approvals: &Approvals, found: impl Fn(&Approvals) -> Option<T>) -> T {
    let mut changes = approvals.changes();
    soon("a change of the holds", async {
        loop {
            changes.borrow_and_update();
            if let Some(found) = found(approvals) {
                return found;
            }
            // That a call waits for a hold is no change of it.
            drop(tokio::time::timeout(Duration::from_millis(5), changes.changed()).await);
        }
    })
    .await
}

pub(super) fn ada() -> Approver {
    Approver { id: "ada".into(), groups: Vec::new() }
}

fn body(reply: &Reply) -> Value {
    reply.text().parse().unwrap()
}

#[tokio::test]
async fn a_held_call_gets_comments_until_a_person_answers() {
    for granted in [true, false] {
        let mut config = HttpConfig::default();
        config.timeouts.keep_alive = Some(Duration::from_millis(20));
        // A refusal is never lost in a stream, however many there were.
        config.limits.refusals_max = 1;
        let scene = Scene::with(LONG, config).await;
        if !granted {
            assert_eq!(scene.rig.ask(&post("", &call(9, "denied"))).await.status, 200);
        }
        let mut client = scene.sends(&post("", &call(1, "held"))).await;
        assert_eq!(client.head().await.0, 200);
        for _ in 0..3 {
            assert_eq!(client.event().await, ": keep-alive\n\n");
        }
        assert!(scene.behind.received().is_empty());
        let [hold] = &*scene.holds(HoldState::Pending, 1).await else { panic!("one hold") };
        if granted {
            scene.grant(hold);
        } else {
            scene.refuse(hold);
        }
        let mut event = client.event().await;
        while event.starts_with(':') {
            event = client.event().await;
        }
        let kind = if granted { "\"result\":" } else { "\"error\":{\"code\":-31" };
        assert!(event.starts_with("data: {") && event.contains(kind), "{event}");
        assert!(event.contains("\"id\":1"), "{event}");
        assert!(client.chunk().await.is_none());
        assert_eq!(scene.behind.received().len(), usize::from(granted));
        if !granted {
            // One refusal too many: over HTTP/1 the connection takes one more request.
            client.send(&post("", r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#)).await;
            let (_, head) = client.head().await;
            assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
        }
    }
}

#[tokio::test]
async fn a_call_waits_until_a_person_grants_it_and_then_passes_once() {
    let scene = Scene::waiting(LONG).await;
    let mut client = scene.sends(&post("", &call(1, "held"))).await;
    let [hold] = &*scene.holds(HoldState::Pending, 1).await else { panic!("one hold") };
    assert_eq!(hold.target.as_deref(), Some("held"));
    assert_eq!((&*hold.principal, &*hold.server), ("agent", "flags"));
    assert!(scene.behind.received().is_empty(), "the server has seen nothing");

    scene.grant(hold);
    let reply = client.reply().await;
    assert_eq!((reply.status, &body(&reply)["id"]), (200, &json!(1)));
    let received = scene.behind.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].body, call(1, "held").as_bytes());
    assert_eq!(scene.rig.sink.events(), [Event::Hold, Event::Intent, Event::Outcome]);
    scene.holds(HoldState::Spent, 1).await;

    // The same call again is a new hold: a grant is spent once.
    let _waiting = scene.sends(&post("", &call(2, "held"))).await;
    scene.holds(HoldState::Pending, 1).await;
    assert_eq!(scene.behind.received().len(), 1);
}

#[tokio::test]
async fn a_refused_call_reaches_nobody() {
    let scene = Scene::waiting(LONG).await;
    let mut client = scene.sends(&post("", &call(1, "held"))).await;
    scene.refuse(&scene.holds(HoldState::Pending, 1).await[0]);
    let reply = client.reply().await;
    assert_eq!(body(&reply)["error"]["code"], -31004, "{reply:?}");
    assert!(scene.behind.received().is_empty());
    assert_eq!(scene.rig.sink.events(), [Event::Hold, Event::Denial]);
}

#[tokio::test]
async fn a_client_that_was_told_to_call_again_finds_its_hold() {
    let scene = Scene::waiting(Duration::from_millis(20)).await;
    let mut client = scene.sends(&post("", &call(1, "held"))).await;
    let told = body(&client.reply().await);
    assert_eq!(told["result"]["isError"], true, "{told}");
    let [hold] = &*scene.holds(HoldState::Pending, 1).await else { panic!("one hold") };
    scene.grant(hold);
    client.send(&post("", &call(2, "held"))).await;
    assert_eq!(body(&client.reply().await)["id"], 2);
    let [received] = &*scene.behind.received() else { panic!("one call") };
    assert_eq!(received.body, call(2, "held").as_bytes());

    // A client of 2026-07-28 gets a state, and calls again with it.
    let mut client = scene.sends(&modern_call(3, "held")).await;
    let told = body(&client.reply().await);
    assert_eq!(told["result"]["resultType"], "input_required", "{told}");
    assert!(told["result"]["requestState"].is_string(), "{told}");
}

#[tokio::test]
async fn a_changed_call_is_a_hold_of_its_own() {
    let scene = Scene::waiting(LONG).await;
    let _first = scene.sends(&post("", &call(1, "held"))).await;
    let first = scene.holds(HoldState::Pending, 1).await.remove(0);
    let changed = call(2, "held").replace("{}", r#"{"a":1}"#);
    let mut second = scene.sends(&post("", &changed)).await;
    let both = scene.holds(HoldState::Pending, 2).await;
    let other = both.iter().find(|hold| hold.id != first.id).unwrap();
    assert_ne!(other.key, first.key);
    scene.grant(other);
    assert_eq!(body(&second.reply().await)["id"], 2);
    assert_eq!(scene.behind.received().len(), 1);
    assert_eq!(scene.holds(HoldState::Pending, 1).await[0].id, first.id);
}

#[tokio::test]
async fn all_approvals_of_a_call_are_there_before_one_is_spent() {
    let scene = Scene::waiting(Duration::from_millis(20)).await;
    let mut client = scene.sends(&post("", &call(1, "held-twice"))).await;
    assert_eq!(body(&client.reply().await)["result"]["isError"], true);
    let both = scene.holds(HoldState::Pending, 2).await;
    assert_eq!(scene.rig.sink.events(), [Event::Hold, Event::Denial]);

    // One of them is no use, and is not used up.
    scene.grant(&both[0]);
    for id in 2..4 {
        client.send(&post("", &call(id, "held-twice"))).await;
        let told = body(&client.reply().await);
        assert_eq!(told["result"]["isError"], true, "{told}");
        assert_eq!(scene.approvals.get(&both[0].id).unwrap().state, HoldState::Granted);
    }
    assert!(scene.behind.received().is_empty());

    scene.grant(&both[1]);
    client.send(&post("", &call(4, "held-twice"))).await;
    assert_eq!(body(&client.reply().await)["id"], 4);
    assert_eq!(scene.behind.received().len(), 1);
    let spent = scene.holds(HoldState::Spent, 2).await;
    let records = scene.rig.sink.kept();
    let intent = records.iter().find(|record| record.event == Event::Intent).unwrap();
    let approval = intent.approval.as_ref().unwrap();
    assert_eq!((approval.answer, approval.by.as_deref()), ("spent", Some("ada")));
    for hold in spent {
        assert!(approval.hold.contains(&*hold.id), "{approval:?}");
    }
}

#[tokio::test]
async fn a_call_that_one_approver_refuses_waits_for_no_other() {
    let scene = Scene::waiting(LONG).await;
    let mut client = scene.sends(&post("", &call(1, "held-twice"))).await;
    let both = scene.holds(HoldState::Pending, 2).await;
    scene.refuse(&both[1]);
    assert_eq!(body(&client.reply().await)["error"]["code"], -31004);
    let other = scene.holds(HoldState::Cancelled, 1).await.remove(0);
    assert_eq!(other.id, both[0].id);
    assert_eq!(scene.rig.sink.events(), [Event::Hold, Event::Denial]);
    assert!(scene.behind.received().is_empty());
}

#[tokio::test]
async fn a_granted_call_waits_for_a_place_in_flight_and_keeps_its_grant() {
    let scene = Scene::waiting(LONG).await;
    let mut client = scene.sends(&post("", &call(1, "held-single"))).await;
    let hold = scene.holds(HoldState::Pending, 1).await.remove(0);
    let place = scene.place();
    scene.grant(&hold);
    // Other calls pass while it waits, and it has used up nothing.
    let mut other = scene.sends(&post("", &call(2, "any"))).await;
    assert_eq!(body(&other.reply().await)["id"], 2);
    assert_eq!(scene.approvals.get(&hold.id).unwrap().state, HoldState::Granted);
    assert_eq!(scene.behind.received().len(), 1);
    drop(place);
    assert_eq!(body(&client.reply().await)["id"], 1);
    assert_eq!(scene.behind.received().len(), 2);
    assert_eq!(scene.holds(HoldState::Spent, 1).await[0].id, hold.id);
    assert!(scene.place().is_some(), "its place is free again");
}

#[tokio::test]
async fn a_grant_outlives_a_wait_in_which_no_place_was_free() {
    let scene = Scene::waiting(Duration::from_millis(20)).await;
    let mut client = scene.sends(&post("", &call(1, "held-single"))).await;
    let hold = scene.holds(HoldState::Pending, 1).await.remove(0);
    let place = scene.place();
    scene.grant(&hold);
    let told = body(&client.reply().await);
    assert_eq!(told["result"]["isError"], true, "{told}");
    client.send(&post("", &call(2, "held-single"))).await;
    assert_eq!(body(&client.reply().await)["error"]["code"], -31002);
    assert_eq!(scene.approvals.get(&hold.id).unwrap().state, HoldState::Granted);
    assert!(scene.behind.received().is_empty());
    drop(place);
    client.send(&post("", &call(3, "held-single"))).await;
    assert_eq!(body(&client.reply().await)["id"], 3);
    assert_eq!(scene.approvals.get(&hold.id).unwrap().state, HoldState::Spent);
}

#[tokio::test]
async fn a_granted_call_that_waits_for_a_place_can_be_cancelled() {
    let scene = Scene::waiting(LONG).await;
    let client = scene.sends(&modern_call(1, "held-single")).await;
    let hold = scene.holds(HoldState::Pending, 1).await.remove(0);
    let place = scene.place();
    scene.grant(&hold);
    scene.holds(HoldState::Granted, 1).await;
    drop(client);
    scene.holds(HoldState::Cancelled, 1).await;
    drop(place);
    assert!(scene.place().is_some(), "nobody holds it");
    assert!(scene.behind.received().is_empty());
}

#[tokio::test]
async fn equal_calls_share_a_hold_and_one_of_them_passes() {
    let scene = Scene::waiting(LONG).await;
    let mut clients = Vec::new();
    for id in 1..=3 {
        clients.push(scene.sends(&post("", &call(id, "held"))).await);
    }
    let hold = until(&scene.approvals, |approvals| {
        let found = approvals.list(&[HoldState::Pending]);
        found.into_iter().find(|hold| hold.waiting == 3)
    })
    .await;
    scene.grant(&hold);
    scene.behind.nth(1).await;
    // The others wait for another hold, which they share.
    let next = until(&scene.approvals, |approvals| {
        let found = approvals.list(&[HoldState::Pending]);
        found.into_iter().find(|hold| hold.waiting == 2)
    })
    .await;
    assert_ne!(next.id, hold.id);
    assert_eq!(scene.behind.received().len(), 1);
}

#[tokio::test]
async fn a_disconnect_ends_a_hold_where_it_is_a_cancellation() {
    let scene = Scene::waiting(LONG).await;
    let modern = scene.sends(&modern_call(1, "held")).await;
    scene.holds(HoldState::Pending, 1).await;
    drop(modern);
    let ended = scene.holds(HoldState::Cancelled, 1).await.remove(0);
    let now = scene.clock.now();
    assert!(scene.approvals.grant(&ended.id, &ended.digest, &ada(), "", None, now).is_err());

    let legacy = scene.sends(&post("", &call(1, "held"))).await;
    let hold = scene.holds(HoldState::Pending, 1).await.remove(0);
    drop(legacy);
    until(&scene.approvals, |approvals| approvals.get(&hold.id).filter(|hold| hold.waiting == 0))
        .await;
    // It waits on for the same call.
    scene.grant(&hold);
    let mut again = scene.sends(&post("", &call(2, "held"))).await;
    assert_eq!(body(&again.reply().await)["id"], 2);
}

#[tokio::test]
async fn a_stop_ends_every_wait_with_an_answer() {
    let scene = Scene::waiting(LONG).await;
    let mut client = scene.sends(&post("", &call(1, "held"))).await;
    scene.holds(HoldState::Pending, 1).await;
    scene.rig.closing.cancel();
    assert_eq!(body(&client.reply().await)["result"]["isError"], true);
    scene.rig.drained().await;
    scene.holds(HoldState::Pending, 1).await;
}

/// A client on a pipe.
pub(super) struct Pipe {
    pub(super) to: tokio::io::WriteHalf<tokio::io::DuplexStream>,
    from: BufReader<tokio::io::ReadHalf<tokio::io::DuplexStream>>,
    reason: tokio::task::JoinHandle<ExitReason>,
}

impl Pipe {
    pub(super) fn start(shared: &Shared, upstream: StdioUpstream) -> Self {
        let (client, edge) = tokio::io::duplex(64 << 10);
        let (input, output) = tokio::io::split(edge);
        let facts = Server { name: "flags".into(), ..Server::default() };
        let serving = Serving {
            shared: shared.clone(),
            server: Arc::new(Protected::new(facts, RefusalForm::Error)),
            principal: Arc::new(Principal { id: "agent".into(), ..Principal::default() }),
            upstream,
            limits: StdioLimits::default(),
        };
        let reason = shared.tasks.spawn(serve_pipes(serving, input, output));
        let (from, to) = tokio::io::split(client);
        Self { to, from: BufReader::new(from), reason }
    }

    pub(super) async fn send(&mut self, line: &str) {
        self.to.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    pub(super) async fn receive(&mut self) -> Value {
        let mut line = String::new();
        soon("a line", self.from.read_line(&mut line)).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

/// The ways from a pipe to a server.
fn pipes(behind: &Behind) -> Vec<StdioUpstream> {
    let script = r#"while IFS= read -r line; do case $line in *'"held"'*|*ping*) id=${line#*'"id":'}; id=${id%%[,\}]*}; printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[]}}\n' "$id";; esac; done"#;
    let spec = bartizan_edge::child::ChildSpec::new("sh", vec!["-c".into(), script.into()]);
    let remote = HttpUpstream::new(upstream_config(behind.address)).unwrap();
    vec![
        StdioUpstream::Child { spec: Box::new(spec), limits: Box::new(ChildLimits::default()) },
        StdioUpstream::Http(Arc::new(remote.into())),
    ]
}

/// A client that has sent its last line is not kept waiting for a subscription, which has no end,
/// also if that has waited for approval.
#[tokio::test]
async fn a_subscription_on_a_pipe_is_one_after_its_approval_too() {
    let behind = Behind::start(|_, _| vec![stream_head(""), Play::Sleep(LONG)]).await;
    let (mut shared, _sink) = shared();
    let clock = shared.clock;
    let approvals = approvals(clock);
    shared.holding = Some(Holding::new(Arc::clone(&approvals), LONG));
    let upstream = HttpUpstream::new(upstream_config(behind.address)).unwrap();
    let mut pipe = Pipe::start(&shared, StdioUpstream::Http(Arc::new(upstream.into())));
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "test/held": true,
    });
    let params = json!({"notifications": {"toolsListChanged": true}, "_meta": meta});
    let listen =
        json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params});
    pipe.send(&listen.to_string()).await;
    let hold = until(&approvals, |it| it.list(&[HoldState::Pending]).pop()).await;
    approvals.grant(&hold.id, &hold.digest, &ada(), "", None, clock.now()).unwrap();
    behind.nth(1).await;
    pipe.to.shutdown().await.unwrap();
    assert_eq!(soon("the end", pipe.reason).await.unwrap(), ExitReason::ClientClosed);
}

#[tokio::test]
async fn calls_on_a_pipe_wait_without_holding_up_others() {
    let behind = server().await;
    for upstream in pipes(&behind) {
        let (mut shared, sink) = shared();
        let clock = shared.clock;
        let approvals = approvals(clock);
        shared.holding = Some(Holding::new(Arc::clone(&approvals), LONG));
        let mut pipe = Pipe::start(&shared, upstream);
        pipe.send(&call(1, "held")).await;
        let one = until(&approvals, |it| it.list(&[HoldState::Pending]).pop()).await;
        pipe.send(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#).await;
        assert_eq!(pipe.receive().await["id"], 2);

        approvals.grant(&one.id, &one.digest, &ada(), "", None, clock.now()).unwrap();
        assert_eq!(pipe.receive().await["id"], 1);
        let settled = |it: &Approvals| it.get(&one.id).filter(|it| it.state == HoldState::Spent);
        until(&approvals, settled).await;

        // A cancellation ends the hold, and the server hears of neither.
        pipe.send(&call(3, "held")).await;
        let two = until(&approvals, |it| it.list(&[HoldState::Pending]).pop()).await;
        let cancel =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#;
        pipe.send(cancel).await;
        let ended = |it: &Approvals| it.get(&two.id).filter(|it| it.state == HoldState::Cancelled);
        until(&approvals, ended).await;
        assert!(approvals.grant(&two.id, &two.digest, &ada(), "", None, clock.now()).is_err());

        // A client that has sent its last line still gets its answer.
        pipe.send(&call(4, "held")).await;
        let three = until(&approvals, |it| it.list(&[HoldState::Pending]).pop()).await;
        pipe.to.shutdown().await.unwrap();
        approvals.grant(&three.id, &three.digest, &ada(), "", None, clock.now()).unwrap();
        assert_eq!(pipe.receive().await["id"], 4);
        assert_eq!(soon("the end", pipe.reason).await.unwrap(), ExitReason::ClientClosed);
        let events = sink.events();
        assert_eq!(events.iter().filter(|event| **event == Event::Hold).count(), 3, "{events:?}");
    }
}
