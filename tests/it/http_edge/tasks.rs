//! Held calls whose clients wait for them as tasks (the tasks extension of MCP 2026-07-28).

#![expect(clippy::disallowed_methods, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bartizan_approvals::store::memory::MemoryStore;
use bartizan_approvals::{ApprovalLimits, Approvals, HoldState, HoldView};
use bartizan_edge::Shared;
use bartizan_edge::child::{ChildLimits, ChildSpec};
use bartizan_edge::client::StdioUpstream;
use bartizan_edge::clock::Clock;
use bartizan_edge::held::Holding;
use bartizan_edge::http::{HttpConfig, Route};
use bartizan_edge::upstream::HttpUpstream;
use bartizan_gate::evidence::record::Event;
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::session::{Protected, RefusalForm};
use bartizan_testing::Sink;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::holds::{LONG, Pipe, ada, until};
use super::rig::{
    Behind, Play, Received, Rig, answer, chunk, post, shared, soon, stream_end, stream_head,
    upstream_config,
};

const SECRET: &str = "AKIAQYLPMN5HFIQR7XYA";

/// A firewall whose clients may wait as tasks.
struct Scene {
    rig: Rig,
    approvals: Arc<Approvals>,
    clock: Clock,
    shared: Shared,
    sink: Arc<Sink>,
}

/// A server that answers each request with `answer` of it.
async fn server(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Behind {
    Behind::start(move |_, received| reply(&answer(&asked(received)), received)).await
}

fn asked(received: &Received) -> Value {
    serde_json::from_slice(&received.body).unwrap()
}

/// The play that answers `received` with `members`, a result or an error.
fn reply(members: &Value, received: &Received) -> Vec<Play> {
    let mut message = json!({"jsonrpc": "2.0", "id": asked(received)["id"]});
    for (name, value) in members.as_object().unwrap() {
        message[name] = value.clone();
    }
    super::rig::json(&message.to_string())
}

fn done(text: &str) -> Value {
    let content = json!([{"type": "text", "text": text}]);
    json!({"result": {"content": content, "resultType": "complete"}})
}

/// A server that does whatever it is told.
async fn obeying() -> Behind {
    server(|_| done("done")).await
}

impl Scene {
    fn before(behind: &Behind) -> Self {
        Self::on(behind, Arc::new(MemoryStore::new()), ApprovalLimits::default())
    }

    /// One that begins with what is in `store`.
    fn on(behind: &Behind, store: Arc<MemoryStore>, limits: ApprovalLimits) -> Self {
        let (mut shared, sink) = shared();
        let clock = shared.clock;
        let now = Box::new(move || clock.now());
        let approvals = Arc::new(Approvals::open(Box::new(store), limits, now).unwrap());
        let holding = Holding { tasks: true, ..Holding::new(Arc::clone(&approvals), LONG) };
        holding.serve_tasks(&shared.gate);
        shared.holding = Some(holding);
        let rig = listener(&shared, &sink, behind, |route| route);
        Self { rig, approvals, clock, shared, sink }
    }

    fn grant(&self, hold: &HoldView) {
        let now = self.clock.now();
        self.approvals.grant(&hold.id, &hold.digest, &ada(), "checked", None, now).unwrap();
    }

    /// Makes a call that is held, and returns its task and its hold.
    async fn held(&self, tool: &str, arguments: Value) -> (String, HoldView) {
        let known = self.approvals.list(&HoldState::ALL);
        let task = self.rig.calls(tool, arguments).await;
        assert_eq!(task["result"]["resultType"], "task", "{task}");
        let fresh = |hold: &HoldView| known.iter().all(|it| it.id != hold.id);
        let hold = self.approvals.list(&[HoldState::Pending]).into_iter().find(fresh).unwrap();
        (task["result"]["taskId"].as_str().unwrap().to_owned(), hold)
    }

    fn state(&self, hold: &HoldView) -> HoldState {
        self.approvals.get(&hold.id).unwrap().state
    }
}

/// One more listener of the same firewall.
fn listener(
    shared: &Shared,
    sink: &Arc<Sink>,
    behind: &Behind,
    route: impl FnOnce(Route) -> Route,
) -> Rig {
    let upstream = HttpUpstream::new(upstream_config(behind.address)).unwrap();
    let shared = (shared.clone(), Arc::clone(sink));
    Rig::sharing(shared, HttpConfig::default(), |_| upstream.into(), |it| vec![route(it)])
}

fn message(id: u32, method: &str, mut params: Value, capabilities: &Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "agent", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn tasks() -> Value {
    json!({"extensions": {"io.modelcontextprotocol/tasks": {}}, "elicitation": {}})
}

fn bytes(message: &Value) -> Vec<u8> {
    let (method, params) = (message["method"].as_str().unwrap(), &message["params"]);
    let name = params["name"].as_str().or(params["taskId"].as_str()).unwrap();
    let headers =
        format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\nMcp-Name: {name}\r\n");
    post(&headers, &message.to_string())
}

impl Rig {
    async fn asks(&self, message: &Value) -> Value {
        self.ask(&bytes(message)).await.text().parse().unwrap()
    }

    async fn calls(&self, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        self.asks(&message(1, "tools/call", params, &tasks())).await
    }

    async fn of_task(&self, method: &str, task: &str) -> Value {
        self.asks(&message(7, method, json!({"taskId": task}), &tasks())).await
    }

    async fn polls(&self, task: &str) -> Value {
        self.of_task("tasks/get", task).await["result"].clone()
    }

    /// What becomes of the task in the end.
    async fn ends(&self, task: &str) -> Value {
        soon("the end of the task", async {
            loop {
                let told = self.polls(task).await;
                if told["status"] != "working" {
                    return told;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_granted_call_is_made_for_its_client_and_its_answer_is_redacted() {
    let behind = server(|_| done(SECRET)).await;
    let scene = Scene::before(&behind);
    let arguments = json!({"b": 1.50, "a": "é\u{202e}"});
    let told = scene.rig.calls("held-guarded", arguments.clone()).await;
    let task = &told["result"];
    assert_eq!((&task["resultType"], &task["status"]), (&json!("task"), &json!("working")));
    let message = task["statusMessage"].as_str().unwrap();
    assert!(message.contains("tools/call held-guarded"), "{message}");
    assert!(task["ttlMs"].as_u64().unwrap() > 15 * 60_000, "{task}");
    assert!(task["pollIntervalMs"].is_u64() && task["createdAt"].is_string(), "{task}");
    assert_eq!(scene.sink.events(), [Event::Hold, Event::Denial]);

    let id = task["taskId"].as_str().unwrap();
    let told = scene.rig.polls(id).await;
    assert_eq!((&told["resultType"], &told["status"]), (&json!("complete"), &json!("working")));
    assert!(behind.received().is_empty());
    let [hold] = &*scene.approvals.list(&[HoldState::Pending]) else { panic!("one hold") };
    scene.grant(hold);

    let told = scene.rig.ends(id).await;
    assert_eq!((&told["status"], &told["taskId"]), (&json!("completed"), &json!(id)), "{told}");
    let text = told["result"]["content"][0]["text"].as_str().unwrap();
    assert!(!told.to_string().contains(SECRET) && text.contains("redacted"), "{told}");
    assert_eq!(scene.rig.polls(id).await["result"], told["result"], "kept");

    // The server got what was shown, once, and nothing of the task.
    let [received] = &*behind.received() else { panic!("one request") };
    let mut sent = asked(received);
    let meta = sent["params"].as_object_mut().unwrap().remove("_meta").unwrap();
    assert_eq!(sent["params"], json!({"name": "held-guarded", "arguments": arguments}));
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
    assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "agent");
    assert_eq!(received.header("mcp-name"), ["held-guarded"]);
    assert_eq!(received.header("mcp-method"), ["tools/call"]);
    assert!(!received.head.contains("task") && !sent.to_string().contains("bartizan"), "{sent}");

    assert_eq!(scene.state(hold), HoldState::Spent);
    let events = scene.sink.events();
    let of_call = events.iter().filter(|event| **event != Event::Notice);
    let expected = [Event::Hold, Event::Denial, Event::Hold, Event::Intent, Event::Outcome];
    assert!(of_call.eq(&expected), "{events:?}");
    let records = scene.sink.kept();
    let intent = records.iter().find(|record| record.event == Event::Intent).unwrap();
    assert_eq!(intent.approval.as_ref().unwrap().by.as_deref(), Some("ada"));
}

#[tokio::test]
async fn a_grant_makes_no_other_call() {
    let behind = obeying().await;
    let scene = Scene::before(&behind);
    let (first, hold) = scene.held("held", json!({"percent": 10})).await;
    let (second, other) = scene.held("held", json!({"percent": 11})).await;
    assert_ne!((&first, &hold.key), (&second, &other.key));
    scene.grant(&hold);
    assert_eq!(scene.rig.ends(&first).await["status"], "completed");
    assert_eq!(scene.rig.polls(&second).await["status"], "working");
    let [received] = &*behind.received() else { panic!("one request") };
    assert_eq!(asked(received)["params"]["arguments"], json!({"percent": 10}));
}

#[tokio::test]
async fn a_task_is_its_principals_alone_and_of_one_server() {
    let behind = obeying().await;
    let scene = Scene::before(&behind);
    let (task, hold) = scene.held("held", json!({})).await;
    let principal = Arc::new(Principal { id: "mallory".into(), ..Principal::default() });
    let stranger = listener(&scene.shared, &scene.sink, &behind, |it| Route { principal, ..it });
    let facts = Server { name: "billing".into(), ..Server::default() };
    let server = Arc::new(Protected::new(facts, RefusalForm::Error));
    let elsewhere = listener(&scene.shared, &scene.sink, &behind, |it| Route { server, ..it });
    scene.grant(&hold);
    let unknown = format!("bartizan-task-{}", "0".repeat(32));
    for rig in [&stranger, &elsewhere] {
        for method in ["tasks/get", "tasks/cancel", "tasks/update"] {
            let mut told = [rig.of_task(method, &task).await, rig.of_task(method, &unknown).await];
            for told in &mut told {
                assert_eq!(told["error"]["code"], -32602, "{told}");
                told["error"]["data"] = Value::Null;
            }
            assert_eq!(told[0], told[1]);
        }
    }
    assert!(behind.received().is_empty());
    assert_eq!(scene.rig.ends(&task).await["status"], "completed");
}

#[tokio::test]
async fn a_cancelled_task_ends_its_hold_unless_another_call_waits_for_it() {
    let behind = obeying().await;
    let scene = Scene::before(&behind);
    let (one, hold) = scene.held("held", json!({})).await;
    let two = scene.rig.calls("held", json!({})).await["result"]["taskId"].clone();
    let two = two.as_str().unwrap();
    assert_ne!(one, two);
    let told = scene.rig.of_task("tasks/cancel", &one).await;
    assert_eq!(told["result"], json!({"resultType": "complete"}));
    assert_eq!(scene.rig.polls(&one).await["status"], "cancelled");
    assert_eq!(scene.state(&hold), HoldState::Pending);

    // A client that waits as others do goes: the task still waits.
    let plain = message(3, "tools/call", json!({"name": "held", "arguments": {}}), &json!({}));
    let mut waiting = scene.rig.client().await;
    waiting.send(&bytes(&plain)).await;
    let counted = |count| {
        move |it: &Approvals| {
            it.list(&[HoldState::Pending]).into_iter().find(|it| it.waiting == count)
        }
    };
    until(&scene.approvals, counted(2)).await;
    drop(waiting);
    until(&scene.approvals, counted(1)).await;
    assert_eq!(scene.state(&hold), HoldState::Pending);

    scene.rig.of_task("tasks/cancel", two).await;
    assert_eq!(scene.rig.polls(two).await["status"], "cancelled");
    assert_eq!(scene.state(&hold), HoldState::Cancelled);
    let now = scene.clock.now();
    assert!(scene.approvals.grant(&hold.id, &hold.digest, &ada(), "", None, now).is_err());
    assert!(behind.received().is_empty());
}

#[tokio::test]
async fn a_call_that_nobody_grants_is_a_task_that_failed() {
    let behind = obeying().await;
    let scene = Scene::before(&behind);
    let (task, hold) = scene.held("held", json!({})).await;
    scene.approvals.refuse(&hold.id, &ada(), "no", scene.clock.now()).unwrap();
    let told = scene.rig.polls(&task).await;
    assert_eq!((&told["status"], &told["error"]["code"]), (&json!("failed"), &json!(-31004)));
    assert_eq!(told["error"]["data"]["approval_id"], *hold.id);

    let (task, _) = scene.held("held-briefly", json!({})).await;
    let told = scene.rig.ends(&task).await;
    assert_eq!((&told["status"], &told["error"]["code"]), (&json!("failed"), &json!(-31004)));
    assert!(told["error"]["message"].as_str().unwrap().contains("expired"), "{told}");
    assert!(behind.received().is_empty());
}

#[tokio::test]
async fn a_call_that_two_rules_hold_is_made_when_both_are_granted() {
    let behind = obeying().await;
    let scene = Scene::before(&behind);
    let (task, _) = scene.held("held-twice", json!({})).await;
    let holds = scene.approvals.list(&[HoldState::Pending]);
    scene.grant(&holds[0]);
    assert_eq!(scene.rig.polls(&task).await["status"], "working");
    assert_eq!(scene.state(&holds[0]), HoldState::Granted);
    scene.grant(&holds[1]);
    assert_eq!(scene.rig.ends(&task).await["status"], "completed");
    assert_eq!(behind.received().len(), 1);
}

#[tokio::test]
async fn a_call_that_waits_as_a_task_pays_its_limits_once() {
    let behind = obeying().await;
    let scene = Scene::before(&behind);
    let (task, hold) = scene.held("held-once", json!({})).await;
    scene.grant(&hold);
    assert_eq!(scene.rig.ends(&task).await["status"], "completed");
    assert_eq!(scene.rig.calls("held-once", json!({})).await["error"]["code"], -31002);
}

#[tokio::test]
async fn a_task_outlives_a_restart_before_its_grant() {
    let behind = obeying().await;
    let store = Arc::new(MemoryStore::new());
    let scene = Scene::on(&behind, Arc::clone(&store), ApprovalLimits::default());
    let (task, hold) = scene.held("held", json!({})).await;
    drop(scene);
    let scene = Scene::on(&behind, Arc::clone(&store), ApprovalLimits::default());
    assert_eq!(scene.rig.polls(&task).await["status"], "working");
    scene.grant(&hold);
    let told = scene.rig.ends(&task).await;
    assert_eq!(told["status"], "completed", "{told}");
    // So does its answer.
    let scene = Scene::on(&behind, store, ApprovalLimits::default());
    assert_eq!(scene.rig.polls(&task).await["result"], told["result"]);
    assert_eq!(behind.received().len(), 1);
}

#[tokio::test]
async fn a_call_of_which_nobody_knows_the_end_is_not_made_again() {
    let never = Arc::new(Notify::new());
    let behind = Behind::start(move |_, _| vec![Play::Wait(Arc::clone(&never))]).await;
    let store = Arc::new(MemoryStore::new());
    let scene = Scene::on(&behind, Arc::clone(&store), ApprovalLimits::default());
    let (task, hold) = scene.held("held", json!({})).await;
    scene.grant(&hold);
    assert_eq!(scene.rig.polls(&task).await["status"], "working");
    behind.nth(1).await;
    let again = Scene::on(&behind, store, ApprovalLimits::default());
    let told = again.rig.polls(&task).await;
    assert_eq!((&told["status"], &told["error"]["code"]), (&json!("failed"), &json!(-31005)));
    assert_eq!(again.rig.polls(&task).await["status"], "failed");
    assert_eq!(behind.received().len(), 1);
}

#[tokio::test]
async fn a_poll_that_is_lost_ends_nothing() {
    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    let behind = Behind::start(move |_, received| {
        let mut plays = vec![Play::Wait(Arc::clone(&waits))];
        plays.extend(reply(&done("late"), received));
        plays
    })
    .await;
    let scene = Scene::before(&behind);
    let (task, hold) = scene.held("held", json!({})).await;
    scene.grant(&hold);
    let mut client = scene.rig.client().await;
    client.send(&bytes(&message(7, "tasks/get", json!({"taskId": task}), &tasks()))).await;
    behind.nth(1).await;
    drop(client);
    // It is no longer cancelled, either.
    scene.rig.of_task("tasks/cancel", &task).await;
    assert_eq!(scene.rig.polls(&task).await["status"], "working");
    go.notify_one();
    let told = scene.rig.ends(&task).await;
    assert_eq!(told["result"]["content"][0]["text"], "late", "{told}");
    assert_eq!(behind.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_eight_polls_at_once_one_makes_the_call() {
    let behind = obeying().await;
    let scene = Arc::new(Scene::before(&behind));
    for round in 0..10 {
        let (task, hold) = scene.held("held", json!({"round": round})).await;
        scene.grant(&hold);
        let mut polls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (scene, task) = (Arc::clone(&scene), task.clone());
            polls.spawn(async move { scene.rig.ends(&task).await["status"].clone() });
        }
        while let Some(status) = polls.join_next().await {
            assert_eq!(status.unwrap(), "completed");
        }
        assert_eq!(behind.received().len(), round + 1);
        assert_eq!(scene.state(&hold), HoldState::Spent);
    }
    assert!(scene.approvals.list(&[HoldState::Pending]).is_empty(), "nothing is held anew");
}

#[tokio::test]
async fn any_replica_answers_for_a_task() {
    let behind = obeying().await;
    let store = Arc::new(MemoryStore::shared());
    let one = Scene::on(&behind, Arc::clone(&store), ApprovalLimits::default());
    let two = Scene::on(&behind, store, ApprovalLimits::default());
    let (task, hold) = one.held("held", json!({})).await;
    assert_eq!(two.rig.polls(&task).await["status"], "working", "made just now");
    two.grant(&hold);
    one.approvals.tick(one.clock.now());
    let told = two.rig.ends(&task).await;
    assert_eq!(told["status"], "completed", "{told}");
    one.approvals.tick(one.clock.now());
    assert_eq!(one.rig.polls(&task).await["result"], told["result"]);
    assert_eq!(behind.received().len(), 1);
}

#[tokio::test]
async fn a_task_whose_grant_another_call_used_waits_for_another() {
    let behind = obeying().await;
    let scene = Scene::before(&behind);
    let (task, hold) = scene.held("held", json!({})).await;
    scene.grant(&hold);
    let plain = message(3, "tools/call", json!({"name": "held", "arguments": {}}), &json!({}));
    assert!(scene.rig.asks(&plain).await["result"]["content"].is_array());
    assert_eq!(scene.rig.polls(&task).await["status"], "working");
    let next = until(&scene.approvals, |it| it.list(&[HoldState::Pending]).pop()).await;
    assert_eq!((next.key.clone(), behind.received().len()), (hold.key, 1));
    assert_eq!(scene.rig.polls(&task).await["status"], "working");
    assert_eq!(behind.received().len(), 1);
    scene.grant(&next);
    assert_eq!(scene.rig.ends(&task).await["status"], "completed");
    assert_eq!(behind.received().len(), 2);
}

#[tokio::test]
async fn answers_are_kept_within_bounds() {
    let behind = server(|asked| {
        let length = asked["params"]["arguments"]["length"].as_u64().unwrap();
        done(&"x".repeat(usize::try_from(length).unwrap()))
    })
    .await;
    let limits = ApprovalLimits {
        tasks_per_principal: 4,
        task_result_bytes: 1000,
        task_bytes_per_principal: 1500,
        ..ApprovalLimits::default()
    };
    let scene = Scene::on(&behind, Arc::new(MemoryStore::new()), limits);
    let mut made = Vec::new();
    for length in [2000, 900, 901] {
        let (task, hold) = scene.held("held", json!({"length": length})).await;
        scene.grant(&hold);
        let told = scene.rig.ends(&task).await;
        // One that is too long for itself is not kept at all.
        let status = if length == 2000 { "failed" } else { "completed" };
        assert_eq!(told["status"], status, "{told}");
        made.push(task);
    }
    // For the third one the second has given way.
    for (task, code) in
        [(&made[0], json!(-31006)), (&made[1], json!(-31006)), (&made[2], Value::Null)]
    {
        assert_eq!(scene.rig.polls(task).await["error"]["code"], code);
    }
    // For one more task the one that ended first gives way, and none that waits.
    for percent in 0..4 {
        scene.held("held", json!({"percent": percent})).await;
    }
    assert_eq!(scene.rig.of_task("tasks/get", &made[2]).await["error"]["code"], -32602);
    let arguments = json!({"percent": 9});
    let mut client = scene.rig.client().await;
    let more = json!({"name": "held", "arguments": arguments});
    client.send(&bytes(&message(1, "tools/call", more, &tasks()))).await;
    let waits = |it: &Approvals| {
        it.list(&[HoldState::Pending]).into_iter().find(|it| it.shown.contains('9'))
    };
    let hold = until(&scene.approvals, waits).await;
    scene.approvals.refuse(&hold.id, &ada(), "no", scene.clock.now()).unwrap();
    let reply = client.reply().await;
    assert!(reply.text().contains("-31004"), "it waits as any other: {reply:?}");
}

#[tokio::test]
async fn a_client_that_declares_no_tasks_gets_none() {
    let behind = obeying().await;
    let scene = Scene::before(&behind);
    let (task, _) = scene.held("held", json!({})).await;
    for capabilities in [json!({}), json!({"extensions": {}}), json!({"tasks": {}})] {
        let get = message(7, "tasks/get", json!({"taskId": task}), &capabilities);
        let told = scene.rig.asks(&get).await;
        assert_eq!(told["error"]["code"], -32021, "{told}");
        let params = json!({"name": "held", "arguments": {}});
        let mut client = scene.rig.client().await;
        client.send(&bytes(&message(1, "tools/call", params, &capabilities))).await;
        let waits =
            |it: &Approvals| it.list(&[HoldState::Pending]).into_iter().find(|it| it.waiting == 2);
        until(&scene.approvals, waits).await;
        drop(client);
        let left =
            |it: &Approvals| it.list(&[HoldState::Pending]).into_iter().find(|it| it.waiting == 1);
        until(&scene.approvals, left).await;
    }
    // Nor does anybody where it is not configured.
    let mut shared = scene.shared.clone();
    let wait = Duration::from_millis(1);
    shared.holding = Some(Holding::new(Arc::clone(&scene.approvals), wait));
    let off = listener(&shared, &scene.sink, &behind, |it| it);
    let told = off.calls("held", json!({"off": true})).await;
    assert_eq!(told["result"]["resultType"], "input_required", "{told}");
}

#[tokio::test]
async fn a_server_that_asks_back_or_makes_a_task_fails_the_task() {
    for answer in [
        json!({"result": {"resultType": "input_required", "requestState": "s"}}),
        json!({"result": {"resultType": "input_required", "inputRequests": {"q": {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {}}}}}}),
        json!({"result": {"resultType": "task", "taskId": "t", "status": "working"}}),
        json!({"error": {"code": -32021, "message": "Missing required client capability"}}),
    ] {
        let code = answer["error"]["code"].as_i64().unwrap_or(-31006);
        let behind = server(move |_| answer.clone()).await;
        let scene = Scene::before(&behind);
        let (task, hold) = scene.held("held", json!({})).await;
        scene.grant(&hold);
        let told = scene.rig.ends(&task).await;
        assert_eq!(
            (&told["status"], &told["error"]["code"]),
            (&json!("failed"), &json!(code)),
            "{told}"
        );
        assert_eq!(behind.received().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_in_a_stream_is_kept_and_so_is_a_failure() {
    let streamed = Behind::start(|_, received| {
        let answer = json!({"jsonrpc": "2.0", "id": asked(received)["id"], "result": done(SECRET)["result"]});
        let events = [String::new(), answer.to_string()].map(|data| chunk(&format!("data: {data}\n\n")));
        std::iter::once(stream_head("")).chain(events).chain([stream_end()]).collect()
    })
    .await;
    let scene = Scene::before(&streamed);
    let (task, hold) = scene.held("held-guarded", json!({})).await;
    scene.grant(&hold);
    let told = scene.rig.ends(&task).await;
    assert_eq!(told["status"], "completed", "{told}");
    assert!(told["result"]["content"][0]["text"].is_string(), "{told}");
    assert!(!told.to_string().contains(SECRET), "{told}");

    let failing = Behind::start(|_, _| answer("500 Internal Server Error", "", "")).await;
    let scene = Scene::before(&failing);
    let (task, hold) = scene.held("held", json!({})).await;
    scene.grant(&hold);
    let told = scene.rig.ends(&task).await;
    assert_eq!(
        (&told["status"], &told["error"]["code"]),
        (&json!("failed"), &json!(-31005)),
        "{told}"
    );
    assert_eq!(failing.received().len(), 1);
}

#[tokio::test]
async fn tasks_of_the_server_go_on_beside_ours() {
    let behind = server(|asked| match asked["method"].as_str().unwrap() {
        "tools/call" if asked["params"]["name"] == "takes-ours" => {
            let id = format!("bartizan-task-{}", "0".repeat(32));
            json!({"result": {"resultType": "task", "taskId": id, "status": "working"}})
        }
        "tools/call" => {
            json!({"result": {"resultType": "task", "taskId": "theirs", "status": "working"}})
        }
        _ => json!({"result": {"resultType": "complete", "taskId": "theirs", "status": "working"}}),
    })
    .await;
    let scene = Scene::before(&behind);
    let told = scene.rig.calls("slow", json!({})).await;
    assert_eq!(told["result"]["taskId"], "theirs", "{told}");
    assert_eq!(scene.rig.polls("theirs").await["status"], "working");
    assert_eq!(behind.received().len(), 2);
    let told = scene.rig.calls("takes-ours", json!({})).await;
    assert_eq!(told["error"]["code"], -31006, "{told}");
}

#[tokio::test]
async fn the_extension_is_declared_where_held_calls_wait_as_tasks() {
    let name = "io.modelcontextprotocol/tasks";
    for (capabilities, expected) in [
        ("{ }", json!({"extensions": {name: {}}})),
        (r#"{"tools":{}}"#, json!({"tools": {}, "extensions": {name: {}}})),
        (r#"{"extensions":{},"tools":{}}"#, json!({"tools": {}, "extensions": {name: {}}})),
        (r#"{"extensions":{"x/y": {} }}"#, json!({"extensions": {"x/y": {}, name: {}}})),
        (
            r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#,
            json!({"extensions": {name: {}}}),
        ),
    ] {
        let result = format!(
            r#"{{"resultType": "complete","supportedVersions":["2026-07-28"], "capabilities":{capabilities} }}"#
        );
        let own = result.clone();
        let behind = Behind::start(move |_, received| {
            let id = &asked(received)["id"];
            super::rig::json(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{own}}}"#))
        })
        .await;
        let discover = message(1, "server/discover", json!({}), &json!({}));
        let headers = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: server/discover\r\n";
        let discover = post(headers, &discover.to_string());
        let scene = Scene::before(&behind);
        let told: Value = scene.rig.ask(&discover).await.text().parse().unwrap();
        assert_eq!(told["result"]["capabilities"], expected, "{told}");
        assert_eq!(told["result"]["supportedVersions"], json!(["2026-07-28"]));
        let (plain, sink) = shared();
        let plain = listener(&plain, &sink, &behind, |it| it);
        let told = plain.ask(&discover).await;
        assert!(told.text().contains(&result), "{told:?}");
    }
}

#[tokio::test]
async fn a_task_on_a_pipe_is_made_beside_the_clients_own_calls() {
    let behind = obeying().await;
    let script = r#"while IFS= read -r line; do id=${line#*'"id":'}; id=${id%%[,\}]*}; printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[],"resultType":"complete"}}\n' "$id"; done"#;
    let spec = ChildSpec::new("sh", vec!["-c".into(), script.into()]);
    let remote = HttpUpstream::new(upstream_config(behind.address)).unwrap();
    for upstream in [
        StdioUpstream::Child { spec: Box::new(spec), limits: Box::new(ChildLimits::default()) },
        StdioUpstream::Http(Arc::new(remote.into())),
    ] {
        let (mut shared, _) = shared();
        let clock = shared.clock;
        let approvals = super::holds::approvals(clock);
        let holding = Holding { tasks: true, ..Holding::new(Arc::clone(&approvals), LONG) };
        holding.serve_tasks(&shared.gate);
        shared.holding = Some(holding);
        let mut pipe = Pipe::start(&shared, upstream);
        let wanted = json!({"name": "held", "arguments": {"a": 1}});
        pipe.send(&message(1, "tools/call", wanted, &tasks()).to_string()).await;
        let told = pipe.receive().await;
        assert_eq!(told["result"]["resultType"], "task", "{told}");
        let task = told["result"]["taskId"].clone();
        let hold = approvals.list(&[HoldState::Pending]).remove(0);
        approvals.grant(&hold.id, &hold.digest, &ada(), "", None, clock.now()).unwrap();
        let mut id = 1;
        let told = soon("the end of the task", async {
            loop {
                id += 2;
                let own = json!({"name": "own", "arguments": {}});
                pipe.send(&message(id - 1, "tools/call", own, &tasks()).to_string()).await;
                assert_eq!(pipe.receive().await["id"], id - 1);
                let get = message(id, "tasks/get", json!({"taskId": task}), &tasks());
                pipe.send(&get.to_string()).await;
                let told = pipe.receive().await;
                assert_eq!(told["id"], id, "only answers to its own requests: {told}");
                if told["result"]["status"] != "working" {
                    return told;
                }
            }
        })
        .await;
        assert_eq!(told["result"]["status"], "completed", "{told}");
        assert_eq!(approvals.get(&hold.id).unwrap().state, HoldState::Spent);
    }
}
