//! Limits as agents meet them, through the listener: exact under many clients at once, with the time
//! at which to come again, in each form of refusal; and over restarts.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::failures::Program;
use super::firewall::{
    Answer, Client, Firewall, LEGACY, PATIENCE, Received, RecordingUpstream, Reply, Setup, call,
    json, odd_answer, post, wait,
};

const PERMIT: &str =
    "package mcp\n\npermit contains {\"code\": \"all\", \"message\": \"everything\"} if true\n";

fn ruled(limit: &str) -> Setup {
    let limit =
        format!("limit contains {{\"code\": \"few\", \"key\": input.principal.id, {limit}}}");
    Setup {
        rego: Some(format!("{PERMIT}\n{limit} if input.tool.name == \"get_flag\"\n")),
        ..Setup::default()
    }
}

fn get_flag(id: impl std::fmt::Display) -> String {
    call(id, "get_flag", r#"{"key":"x"}"#)
}

/// Threat J1, J5: what the server receives is the quota, whoever comes first.
#[test]
fn sixteen_clients_together_get_exactly_the_quota() {
    const CLIENTS: u32 = 16;
    const CALLS: u32 = 20;
    for (limit, quota) in [
        (r#""rate": "100/h""#, 100),
        (r#""rate": "100/30m""#, 100),
        (r#""rate": "9/30m""#, 9),
        (r#""rate": "100/d", "window": "fixed""#, 100),
        (r#""rate": "100/30m", "window": "fixed""#, 100),
        (r#""rate": "1/d", "burst": 100"#, 100),
        (r#""rate": "100/h", "cost": 3"#, 33),
        (r#""rate": "0/h""#, 0),
    ] {
        let firewall = Firewall::with(ruled(limit));
        let begin = Barrier::new(usize::try_from(CLIENTS).unwrap());
        let passed: u32 = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let (address, begin) = (firewall.address(), &begin);
                    scope.spawn(move || {
                        let mut client = Client::connect(address);
                        begin.wait();
                        let mut passed = 0;
                        for id in 0..CALLS {
                            client.send(&post(get_flag(number * CALLS + id), LEGACY));
                            let reply = client.reply();
                            assert_eq!(reply.status, 200, "{}", reply.text());
                            if reply.code() == 0 {
                                passed += 1;
                            } else {
                                assert_eq!(reply.code(), -31002, "{}", reply.text());
                            }
                        }
                        passed
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(
            (passed, firewall.received().len()),
            (quota, usize::try_from(quota).unwrap()),
            "{limit}"
        );
    }
}

#[test]
fn a_refusal_says_when_to_come_again_in_every_form() {
    let firewall = Firewall::with(ruled(r#""rate": "1/h""#));
    assert_eq!(firewall.ask(get_flag(1)).json()["error"], Value::Null);
    let reply = firewall.ask(get_flag(2));
    let data = &reply.json()["error"]["data"]["retry_after_ms"];
    let ms = data.as_u64().unwrap();
    assert!((3_500_000..=3_600_000).contains(&ms), "{}", reply.text());
    let header: u64 = reply.header("retry-after").concat().parse().unwrap();
    assert_eq!(header, ms.div_ceil(1000), "whole seconds, not before the wait is over");

    let server = "    pack: flag-service\n    environment: staging\n    refusal: tool_result\n";
    let firewall = Firewall::with(Setup { server: server.into(), ..ruled(r#""rate": "1/h""#) });
    assert_eq!(firewall.ask(get_flag(1)).json()["error"], Value::Null);
    let reply = firewall.ask(get_flag(2));
    let result = &reply.json()["result"];
    assert_eq!(result["isError"], true, "{}", reply.text());
    assert!(result.get("structuredContent").is_none(), "clients hold it against the tool's schema");
    let ms = result["_meta"]["bartizan/retry_after_ms"].as_u64().unwrap();
    let seconds = ms.div_ceil(1000);
    let text = result["content"][0]["text"].as_str().unwrap();
    let denial = firewall.record("event", "denial", 1);
    let call = denial["call"].as_str().unwrap();
    assert_eq!(text, format!("Rate limit reached; try again in {seconds} s. decision_id: {call}"));
    assert_eq!(reply.header("retry-after"), [seconds.to_string()]);
    assert_eq!(firewall.received().len(), 1);
}

#[test]
fn a_limit_that_never_permits_says_so() {
    for limit in [
        r#""rate": "0/m""#,
        r#""rate": "0/m", "burst": 9"#,
        r#""rate": "9/m", "burst": 0"#,
        r#""rate": "0/m", "window": "fixed""#,
        r#""concurrent": 0"#,
        r#""rate": "9/m", "cost": 10"#,
        r#""rate": "99/m", "burst": 9, "cost": 10"#,
        r#""rate": "9/m", "window": "fixed", "cost": 10"#,
    ] {
        let firewall = Firewall::with(ruled(limit));
        let reply = firewall.ask(get_flag(1));
        assert_eq!((reply.status, reply.code()), (200, -31002), "{limit}: {}", reply.text());
        let message = &reply.json()["error"]["message"];
        assert_eq!(message, "A limit never permits this call; do not try again", "{limit}");
        assert!(!reply.text().contains("retry_after"), "{}", reply.text());
        assert_eq!(reply.header("retry-after"), [""; 0]);
        assert_eq!(firewall.received().len(), 0);
        assert_eq!(firewall.record("event", "denial", 1)["decision"]["reasons"][0]["code"], "few");
    }
}

#[test]
fn a_limit_of_another_form_than_documented_denies() {
    for limit in [
        r#""rate": "9/m", "cost": 0"#,
        r#""rate": "9/m", "window": "fixed", "burst": 9"#,
        r#""rate": "9/m", "concurrent": 9"#,
        r#""rate": "9/m", "window": "tumbling""#,
    ] {
        let firewall = Firewall::with(ruled(limit));
        assert_eq!(firewall.ask(get_flag(1)).code(), -31001, "{limit}");
        assert_eq!(firewall.received().len(), 0);
        let denial = firewall.record("event", "denial", 1);
        assert_eq!(denial["decision"]["reasons"][0]["code"], "policy_shape", "{limit}");
    }
}

/// A message without an id has no JSON-RPC answer, so its status tells.
#[test]
fn a_notification_over_the_limit_gets_429_with_the_time() {
    let rules = r#"limit contains {"code": "few", "key": "all", "rate": "1/h"} if input.method == "notifications/progress""#;
    let firewall =
        Firewall::with(Setup { rego: Some(format!("{PERMIT}\n{rules}\n")), ..Setup::default() });
    let notice = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#;
    assert_ne!(firewall.ask(notice).status, 429);
    let reply = firewall.ask(notice);
    assert_eq!(reply.status, 429, "{}", reply.text());
    let seconds: u64 = reply.header("retry-after").concat().parse().unwrap();
    assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    assert_eq!(firewall.received().len(), 1);
}

/// An answer that holds back calls of `get_flag` until the sender says so; one whose key is `break`
/// ends the connection.
fn holding() -> (Box<Answer>, Sender<()>) {
    let (go, held): (_, Receiver<()>) = channel();
    let held = Mutex::new(held);
    let answer = Box::new(move |received: &Received| {
        let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
        if body.pointer("/params/arguments/key") == Some(&"break".into()) {
            return Vec::new();
        }
        if body.pointer("/params/name") == Some(&"get_flag".into()) {
            held.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        json(&odd_answer(&received.body))
    });
    (answer, go)
}

#[test]
fn calls_in_flight_are_bounded_and_an_answer_makes_room() {
    let (answer, go) = holding();
    let firewall = Firewall::with(Setup { answer, ..ruled(r#""concurrent": 3"#) });
    let mut open: Vec<_> = (0..3).map(|_| firewall.client()).collect();
    for (id, client) in (0..).zip(&mut open) {
        client.send(&post(get_flag(id), LEGACY));
        wait("the call", || (firewall.received().len() == id + 1).then_some(()));
    }
    for id in 10..13 {
        let reply = firewall.ask(get_flag(id));
        assert_eq!((reply.status, reply.code()), (200, -31002), "{}", reply.text());
        assert!(reply.text().contains("Too many calls at once"), "{}", reply.text());
    }
    assert_eq!(firewall.ask(call(20, "list_flags", "{}")).json()["error"], Value::Null);
    assert_eq!(firewall.received().len(), 4);
    for _ in 0..3 {
        go.send(()).unwrap();
    }
    for client in &mut open {
        assert_eq!(client.reply().status, 200);
    }
    // Whoever breaks a connection gives the place back as well.
    for id in 30..40 {
        let broken = firewall.ask(call(id, "get_flag", r#"{"key":"break"}"#));
        assert_eq!(broken.code(), -31005, "{}", broken.text());
    }
    go.send(()).unwrap();
    assert_eq!(firewall.ask(get_flag(40)).json()["error"], Value::Null);
}

#[test]
fn sixteen_clients_together_have_no_more_calls_in_flight_than_permitted() {
    let in_flight = Arc::new(Mutex::new((0_u32, 0_u32)));
    let seen = Arc::clone(&in_flight);
    let answer: Box<Answer> = Box::new(move |received| {
        let change = |by: i32| {
            let mut both = seen.lock().unwrap();
            both.0 = both.0.checked_add_signed(by).unwrap();
            both.1 = both.1.max(both.0);
        };
        change(1);
        thread::yield_now();
        change(-1);
        json(&odd_answer(&received.body))
    });
    let firewall = Firewall::with(Setup { answer, ..ruled(r#""concurrent": 2"#) });
    let passed: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|number| {
                let address = firewall.address();
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    let ask = |id: &i32| {
                        client.send(&post(get_flag(number * 50 + id), LEGACY));
                        client.reply().json()["error"] == Value::Null
                    };
                    (0..50).filter(ask).count()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let (now, most) = *in_flight.lock().unwrap();
    assert!(now == 0 && most <= 2, "{most}");
    assert!(passed >= 50, "{passed}");
    assert_eq!(firewall.received().len(), passed);
    assert_eq!(firewall.ask(get_flag(1000)).json()["error"], Value::Null, "all places are free");
}

/// Threat K5, J3: an agent whose host disconnects again and again starts no more work at the server.
#[test]
fn disconnecting_makes_no_room() {
    let (answer, go) = holding();
    let top = "limits: {drain: 1s}\n".to_owned();
    let firewall = Firewall::with(Setup { answer, top, ..ruled(r#""concurrent": 1"#) });
    let mut client = firewall.client();
    client.send(&post(get_flag(1), LEGACY));
    wait("the call", || (firewall.received().len() == 1).then_some(()));
    drop(client);
    let gone = || (!firewall.records("outcome", "cancelled").is_empty()).then_some(());
    wait("its outcome", gone);
    let reply = firewall.ask(get_flag(2));
    assert_eq!(reply.code(), -31002, "{}", reply.text());
    let ms = reply.json()["error"]["data"]["retry_after_ms"].as_u64().unwrap();
    assert!((1..=31_000).contains(&ms), "{ms}");
    assert_eq!(firewall.received().len(), 1);
    go.send(()).unwrap();
}

/// A server, and a directory in which programs run one after the other.
struct Runs {
    upstream: RecordingUpstream,
    folder: tempfile::TempDir,
    config: String,
}

impl Runs {
    fn new(limit: &str) -> Self {
        let upstream =
            RecordingUpstream::start(Box::new(|received| json(&odd_answer(&received.body))));
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let rego = ruled(limit).rego.unwrap();
        std::fs::write(folder.path().join("p.rego"), rego).unwrap();
        let config = format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\npolicy: {{paths: [{}]}}\nservers:\n  flags: {{path: /mcp, url: '{}', pack: flag-service}}\n",
            path("state"),
            path("p.rego"),
            upstream.url()
        );
        Self { upstream, folder, config }
    }

    fn run(&self) -> (Program, SocketAddr) {
        let program = Program::run(self.folder.path(), "", &self.config);
        let (agents, _) = program.addresses();
        (program, agents)
    }

    fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("state/limits.log")
    }

    /// What it says when it does not start.
    fn refused(&self) -> String {
        let program = Program::run(self.folder.path(), "", &self.config);
        let (code, said) = program.ended();
        assert_ne!(code, Some(0), "{said}");
        said
    }
}

fn ask(address: SocketAddr, id: u32) -> Reply {
    let mut client = Client::connect(address);
    client.send(&post(get_flag(id), LEGACY));
    client.reply()
}

/// Threat J3: neither a kill nor an ordinary end gives a budget back.
#[test]
fn a_budget_outlives_the_program_however_it_ends() {
    for limit in [
        r#""rate": "5/d""#,
        r#""rate": "5/h", "window": "fixed""#,
        r#""rate": "5/d", "burst": 5"#,
        r#""rate": "10/d", "cost": 2"#,
    ] {
        let runs = Runs::new(limit);
        let mut sent = 0;
        for (calls, in_order) in [(2, false), (1, true), (3, false), (2, true)] {
            let (program, address) = runs.run();
            for id in 0..calls {
                sent += 1;
                let reply = ask(address, id);
                assert_eq!(
                    reply.code(),
                    if sent <= 5 { 0 } else { -31002 },
                    "{limit}: {}",
                    reply.text()
                );
            }
            if in_order {
                assert_eq!(program.stop(), Some(0));
            }
            // Dropping it kills it.
        }
        assert_eq!(runs.upstream.received().len(), 5, "{limit}");
    }
}

#[test]
fn kills_under_load_exceed_no_budget() {
    let runs = Runs::new(r#""rate": "200/d""#);
    let mut refused = false;
    for round in 0..8_u64 {
        let (program, address) = runs.run();
        let stop = std::sync::atomic::AtomicBool::new(false);
        refused = thread::scope(|scope| {
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| hammer(address, &stop))).collect();
            thread::sleep(Duration::from_millis(5 + 7 * round));
            drop(program);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            clients.into_iter().any(|client| client.join().unwrap())
        });
    }
    let (_program, address) = runs.run();
    for id in 0..200 {
        refused |= ask(address, id).code() == -31002;
    }
    assert!(refused);
    let received = runs.upstream.received().len();
    // Of each kill, what was counted and not sent yet.
    assert!((200 - 8 * 8..=200).contains(&received), "{received}");
}

/// Calls until the connection breaks: whether the limit refused one.
fn hammer(address: SocketAddr, stop: &std::sync::atomic::AtomicBool) -> bool {
    use std::io::{Read as _, Write as _};
    let mut refused = false;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let Ok(mut stream) = std::net::TcpStream::connect(address) else { return refused };
        let close = format!("{LEGACY}Connection: close\r\n");
        if stream.write_all(&post(get_flag(1), &close)).is_err() {
            return refused;
        }
        let mut reply = Vec::new();
        drop(stream.read_to_end(&mut reply));
        refused |= String::from_utf8_lossy(&reply).contains("-31002");
    }
    refused
}

#[test]
fn what_a_crash_left_unfinished_is_left_out_and_damage_is_not_passed_over() {
    let runs = Runs::new(r#""rate": "3/d""#);
    let (program, address) = runs.run();
    assert_eq!((ask(address, 1).code(), ask(address, 2).code()), (0, 0));
    drop(program);
    let whole = std::fs::read(runs.log()).unwrap();
    assert!(!String::from_utf8_lossy(&whole).contains("agent"), "no key is kept as it is");
    for end in [&b"{\"at\":17"[..], b"\0\0\0\0", b"{\"at\":1}\n"] {
        std::fs::write(runs.log(), [&whole[..], end].concat()).unwrap();
        let (program, address) = runs.run();
        assert_eq!((ask(address, 3).code(), ask(address, 4).code()), (0, -31002));
        drop(program);
    }
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 5;
    let mut broken = whole.clone();
    broken[second] = b'~';
    std::fs::write(runs.log(), broken).unwrap();
    let said = runs.refused();
    assert!(said.contains("limits.log") && said.contains("line 2 is damaged"), "{said}");
    assert!(said.contains("move the file away"), "{said}");
}

#[test]
fn a_log_of_limits_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let runs = Runs::new(r#""rate": "3/d""#);
    let (program, _) = runs.run();
    drop(program);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&runs.log()), 0o600);
    std::fs::set_permissions(runs.log(), std::fs::Permissions::from_mode(0o620)).unwrap();
    let said = runs.refused();
    assert!(said.contains("others can read or write") && said.contains("limits.log"), "{said}");
}
