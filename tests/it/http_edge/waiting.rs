//! What a client gets while its request waits for approval: progress, if it asked for any, and the
//! page where it is approved, if it opens pages and is told.

#![expect(clippy::disallowed_methods, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bartizan_approvals::{Approvals, HoldState, HoldView};
use bartizan_edge::child::{ChildLimits, ChildSpec};
use bartizan_edge::client::StdioUpstream;
use bartizan_edge::clock::Clock;
use bartizan_edge::held::Holding;
use bartizan_edge::http::HttpConfig;
use bartizan_edge::upstream::HttpUpstream;
use serde_json::{Value, json};

use super::holds::{LONG, Pipe, ada, approvals, until};
use super::legacy_sse::Agent;
use super::rig::{
    Behind, Client, Play, Rig, chunk, post, shared, stream_end, stream_head, upstream_config,
};

/// So short that a test sees several notifications at once.
const OFTEN: Duration = Duration::from_millis(1);

/// A firewall that holds calls, before a server that reports progress of its own.
struct Scene {
    behind: Behind,
    rig: Rig,
    approvals: Arc<Approvals>,
    clock: Clock,
}

/// A server that reports `first` and the two numbers after it as its progress, and answers then.
async fn reporting(first: i32) -> Behind {
    Behind::start(move |_, received| {
        let asked: Value = std::str::from_utf8(&received.body).unwrap().parse().unwrap();
        let token = &asked["params"]["_meta"]["progressToken"];
        let progress = (first..first + 3).map(|progress| {
            let params = json!({"progressToken": token, "progress": progress});
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        });
        let result = json!({"content": [], "resultType": "complete"});
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
        let told = progress.filter(|_| !token.is_null()).chain([answer]);
        let events = told.map(|message| chunk(&format!("data: {message}\n\n")));
        std::iter::once(stream_head("")).chain(events).chain([stream_end()]).collect::<Vec<Play>>()
    })
    .await
}

impl Scene {
    async fn new(first: i32, keep_alive: Option<Duration>) -> Self {
        Self::with(first, keep_alive, |it| Holding { progress: Some(OFTEN), ..it }).await
    }

    async fn with(
        first: i32,
        keep_alive: Option<Duration>,
        set: impl FnOnce(Holding) -> Holding,
    ) -> Self {
        let behind = reporting(first).await;
        let (mut shared, sink) = shared();
        let clock = shared.clock;
        let approvals = approvals(clock);
        shared.holding = Some(set(Holding::new(Arc::clone(&approvals), LONG)));
        let mut config = HttpConfig::default();
        config.timeouts.keep_alive = keep_alive;
        let upstream = HttpUpstream::new(upstream_config(behind.address)).unwrap();
        let rig = Rig::sharing((shared, sink), config, |_| upstream.into(), |route| vec![route]);
        Self { behind, rig, approvals, clock }
    }

    async fn sends(&self, request: &[u8]) -> Client {
        let mut client = self.rig.client().await;
        client.send(request).await;
        client
    }

    async fn held(&self) -> HoldView {
        until(&self.approvals, |it| it.list(&[HoldState::Pending]).pop()).await
    }

    fn grant(&self, hold: &HoldView) {
        grant(&self.approvals, hold, self.clock);
    }
}

fn grant(approvals: &Approvals, hold: &HoldView, clock: Clock) {
    approvals.grant(&hold.id, &hold.digest, &ada(), "checked", None, clock.now()).unwrap();
}

/// A call that asks for progress under this token.
fn asking(id: u32, tool: &str, token: &Value, modern: bool) -> Value {
    let mut meta = json!({"progressToken": token});
    if modern {
        meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    }
    let params = json!({"name": tool, "arguments": {}, "_meta": meta});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

fn posted(message: &Value) -> Vec<u8> {
    let modern = !message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_null();
    let name = message["params"]["name"].as_str().unwrap();
    let headers = format!(
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: {name}\r\n"
    );
    post(if modern { &headers } else { "" }, &message.to_string())
}

/// The next message of a stream, comments apart.
async fn message(client: &mut Client) -> Value {
    loop {
        let event = client.event().await;
        if let Some(data) = event.strip_prefix("data: ") {
            return data.parse().unwrap();
        }
        assert!(event.starts_with(':'), "{event}");
    }
}

/// The value of a notification of progress under `token`; `None` for any other message.
fn progress(message: &Value, token: &Value) -> Option<f64> {
    if message["method"] != "notifications/progress" {
        return None;
    }
    assert_eq!(message["params"]["progressToken"], *token, "{message}");
    Some(message["params"]["progress"].as_f64().unwrap())
}

/// What was reported grows with each notification, and the last of it are the server's three.
fn grows(seen: &[f64], first: i32) {
    assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
    let servers: Vec<f64> = (first..first + 3).map(f64::from).collect();
    assert!(seen.ends_with(&servers), "{seen:?}");
    assert!(seen.len() > servers.len() && seen[0] < 0.0, "{seen:?}");
}

#[tokio::test]
async fn progress_grows_while_a_call_waits_and_on_into_the_servers_own() {
    for (first, modern, keep_alive, token) in [
        (0, false, None, json!(1)),
        (1, false, Some(LONG), json!("a \"token\"")),
        (0, true, Some(LONG), json!("1")),
        (1, true, None, json!(0)),
    ] {
        let scene = Scene::new(first, keep_alive).await;
        let mut client = scene.sends(&posted(&asking(1, "held", &token, modern))).await;
        let hold = scene.held().await;
        let (status, head) = client.head().await;
        assert_eq!(status, 200);
        assert!(head.to_ascii_lowercase().contains("content-type: text/event-stream"), "{head}");
        let mut seen = Vec::new();
        for _ in 0..4 {
            let told = message(&mut client).await;
            let text = told["params"]["message"].as_str().unwrap();
            assert!(text.ends_with(&*hold.id), "{text}");
            assert!(told["params"]["total"].is_null(), "nobody knows how long it takes");
            seen.push(progress(&told, &token).expect("progress"));
        }
        assert!(scene.behind.received().is_empty());
        scene.grant(&hold);
        let answer = loop {
            let next = message(&mut client).await;
            match progress(&next, &token) {
                Some(value) => seen.push(value),
                None => break next,
            }
        };
        grows(&seen, first);
        assert_eq!((&answer["id"], answer["result"].is_object()), (&json!(1), true), "{answer}");
        assert!(client.chunk().await.is_none());
        assert_eq!(scene.behind.received().len(), 1);
    }
}

#[tokio::test]
async fn progress_goes_on_from_one_approval_to_the_next_and_ends_with_a_refusal() {
    let scene = Scene::new(0, None).await;
    let token = json!("t");
    let mut client = scene.sends(&posted(&asking(1, "held-twice", &token, true))).await;
    let one = scene.held().await;
    client.head().await;
    let mut seen = vec![progress(&message(&mut client).await, &token).unwrap()];
    scene.grant(&one);
    let two = until(&scene.approvals, |it| it.list(&[HoldState::Pending]).pop()).await;
    assert_ne!(one.id, two.id);
    let mut of_two = 0;
    while of_two < 2 {
        let told = message(&mut client).await;
        seen.push(progress(&told, &token).unwrap());
        of_two += usize::from(told["params"]["message"].as_str().unwrap().ends_with(&*two.id));
    }
    scene.approvals.refuse(&two.id, &ada(), "no", scene.clock.now()).unwrap();
    let answer = loop {
        let next = message(&mut client).await;
        match progress(&next, &token) {
            Some(value) => seen.push(value),
            None => break next,
        }
    };
    assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-31004)), "{answer}");
    assert!(client.chunk().await.is_none(), "no progress after the answer");
    assert!(scene.behind.received().is_empty());
}

/// Without a token, or a client that takes event streams, there is nobody to tell.
#[tokio::test]
async fn who_asks_for_no_progress_gets_none() {
    let scene = Scene::new(0, None).await;
    let mut message = asking(1, "held", &json!("t"), false);
    let json = String::from_utf8(posted(&message)).unwrap();
    let json = json.replace("application/json, text/event-stream", "application/json");
    message["params"].as_object_mut().unwrap().remove("_meta");
    message["id"] = json!(2);
    for (id, request) in (1..).zip([json.into_bytes(), post("", &message.to_string())]) {
        let mut client = scene.sends(&request).await;
        let hold = scene.held().await;
        scene.approvals.refuse(&hold.id, &ada(), "no", scene.clock.now()).unwrap();
        let reply = client.reply().await;
        assert_eq!(reply.header("content-type"), ["application/json"]);
        assert_eq!(reply.text().parse::<Value>().unwrap()["id"], id);
    }
}

#[tokio::test]
async fn progress_comes_on_a_pipe_too() {
    let behind = reporting(0).await;
    let script = r#"while IFS= read -r line; do id=${line#*'"id":'}; id=${id%%[,\}]*}; for n in 0 1 2; do printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":%s}}\n' "$n"; done; printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[]}}\n' "$id"; done"#;
    let spec = ChildSpec::new("sh", vec!["-c".into(), script.into()]);
    let remote = HttpUpstream::new(upstream_config(behind.address)).unwrap();
    for upstream in [
        StdioUpstream::Child { spec: Box::new(spec), limits: Box::new(ChildLimits::default()) },
        StdioUpstream::Http(Arc::new(remote.into())),
    ] {
        let (mut shared, _sink) = shared();
        let clock = shared.clock;
        let approvals = approvals(clock);
        let holding = Holding::new(Arc::clone(&approvals), LONG);
        shared.holding = Some(Holding { progress: Some(OFTEN), ..holding });
        let mut pipe = Pipe::start(&shared, upstream);
        let token = json!("t");
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"_meta": {"progressToken": token}, "name": "held", "arguments": {}}});
        pipe.send(&call.to_string()).await;
        let hold = until(&approvals, |it| it.list(&[HoldState::Pending]).pop()).await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(progress(&pipe.receive().await, &token).expect("progress"));
        }
        grant(&approvals, &hold, clock);
        let answer = loop {
            let next = pipe.receive().await;
            match progress(&next, &token) {
                Some(value) => seen.push(value),
                None => break next,
            }
        };
        grows(&seen, 0);
        assert_eq!((&answer["id"], answer["result"].is_object()), (&json!(1), true), "{answer}");
    }
}

#[tokio::test]
async fn progress_comes_on_a_stream_of_http_sse_too() {
    let scene = Scene::new(1, None).await;
    let mut agent = Agent::open(&scene.rig).await;
    let token = json!(7);
    agent.say(&scene.rig, &asking(1, "held", &token, false).to_string()).await;
    let hold = scene.held().await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let told: Value = agent.hear().await.parse().unwrap();
        seen.push(progress(&told, &token).expect("progress"));
    }
    scene.grant(&hold);
    let answer = loop {
        let next: Value = agent.hear().await.parse().unwrap();
        match progress(&next, &token) {
            Some(value) => seen.push(value),
            None => break next,
        }
    };
    grows(&seen, 1);
    assert_eq!(answer["id"], 1);
}

/// A call of a client of 2026-07-28 that opens URLs, with further members of `params`.
fn opening(id: u32, further: &[(&str, &Value)]) -> Value {
    let mut call = asking(id, "held", &json!(id), true);
    call["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
        json!({"elicitation": {"url": {}}});
    for (name, value) in further {
        call["params"][*name] = (*value).clone();
    }
    call
}

fn told(page: &str) -> impl FnOnce(Holding) -> Holding {
    |it| Holding { page: Some(page.into()), ..it }
}

/// The state in an answer that asks to open the page of `hold`.
fn asked(answer: &Value, hold: &HoldView) -> Value {
    let request = &answer["result"]["inputRequests"]["bartizan-approval"]["params"];
    assert_eq!(request["url"], format!("https://desk/console#hold={}", hold.id), "{answer}");
    answer["result"]["requestState"].clone()
}

#[tokio::test]
async fn a_client_that_opens_pages_is_asked_at_once_and_waits_with_its_next_leg() {
    let scene = Scene::with(0, None, told("https://desk/console#hold=")).await;
    let mut client = scene.sends(&posted(&opening(1, &[]))).await;
    let answer: Value = client.reply().await.text().parse().unwrap();
    let hold = scene.held().await;
    let state = asked(&answer, &hold);
    let accepted = json!({"bartizan-approval": {"action": "accept"}});
    let leg = [("inputResponses", &accepted), ("requestState", &state)];
    client.send(&posted(&opening(2, &leg))).await;
    let waiting = |it: &Approvals| it.get(&hold.id).filter(|hold| hold.waiting == 1);
    let waits = until(&scene.approvals, waiting).await;
    assert_eq!(waits.state, HoldState::Pending, "who opens the page approves nothing");
    assert!(scene.behind.received().is_empty());
    scene.grant(&hold);
    client.head().await;
    let answer = loop {
        let next = message(&mut client).await;
        if progress(&next, &json!(2)).is_none() {
            break next;
        }
    };
    assert_eq!((&answer["id"], answer["result"].is_object()), (&json!(2), true), "{answer}");
    let [received] = &*scene.behind.received() else { panic!("one call") };
    let received: Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(received, opening(2, &[]), "the server sees neither state nor answer");
}

#[tokio::test]
async fn a_client_that_will_not_open_the_page_has_no_call_that_waits() {
    // What becomes of the hold before its client declines.
    for (turn, after) in [
        ("nothing", HoldState::Cancelled),
        ("another waits", HoldState::Pending),
        ("granted", HoldState::Cancelled),
        ("refused", HoldState::Refused),
        ("another call", HoldState::Pending),
    ] {
        for action in ["decline", "cancel"] {
            let scene = Scene::with(0, None, told("https://desk/console#hold=")).await;
            let mut client = scene.sends(&posted(&opening(1, &[]))).await;
            let answer: Value = client.reply().await.text().parse().unwrap();
            let hold = scene.held().await;
            let state = asked(&answer, &hold);
            let _other = match turn {
                "another waits" => {
                    Some(scene.sends(&posted(&asking(9, "held", &json!(9), false))).await)
                }
                _ => None,
            };
            match turn {
                "another waits" => {
                    until(&scene.approvals, |it| it.get(&hold.id).filter(|it| it.waiting == 1))
                        .await;
                }
                "granted" => scene.grant(&hold),
                "refused" => {
                    drop(scene.approvals.refuse(&hold.id, &ada(), "no", scene.clock.now()));
                }
                _ => {}
            }
            let declined = json!({"bartizan-approval": {"action": action}});
            let mut leg = opening(2, &[("inputResponses", &declined), ("requestState", &state)]);
            if turn == "another call" {
                leg["params"]["arguments"]["changed"] = json!(true);
            }
            client.send(&posted(&leg)).await;
            let answer: Value = client.reply().await.text().parse().unwrap();
            assert_eq!(answer["error"]["message"], "Approval cancelled", "{turn}: {answer}");
            let left = scene.approvals.list(&HoldState::ALL);
            assert_eq!(left.len(), 1, "{turn}: nobody is asked anew");
            assert_eq!((&left[0].id, left[0].state), (&hold.id, after), "{turn}");
            assert!(scene.behind.received().is_empty(), "{turn}");
        }
    }
}

/// Neither where clients are not told, nor where the client opens no pages.
#[tokio::test]
async fn who_is_asked_to_open_no_page_waits_as_ever() {
    for (told_page, opens) in [(false, true), (true, false)] {
        let page = told_page.then(|| "https://desk/console#hold=".into());
        let scene = Scene::with(0, None, |it| Holding { page, ..it }).await;
        let call = if opens { opening(1, &[]) } else { asking(1, "held", &json!(1), true) };
        let mut client = scene.sends(&posted(&call)).await;
        let waiting =
            |it: &Approvals| it.list(&[HoldState::Pending]).pop().filter(|it| it.waiting == 1);
        let hold = until(&scene.approvals, waiting).await;
        scene.approvals.refuse(&hold.id, &ada(), "no", scene.clock.now()).unwrap();
        let answer: Value = client.reply().await.text().parse().unwrap();
        assert_eq!(answer["error"]["message"], "Approval refused by a person", "{answer}");
    }
}
