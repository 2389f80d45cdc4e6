//! The demo's flag service, as a peer; and the demo itself, which must be able to fail.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop at once"
)]

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use bartizan::policy::embedded;
use bartizan_demo::{
    self, DemoOptions, Firewall, FlagService, PATH, Vendor, serve_flag_service, serve_vendor,
};
use bartizan_gate::question::pack::Pack;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

async fn served() -> (FlagService, u16, CancellationToken) {
    let closing = CancellationToken::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (serve_flag_service(listener, closing.clone()).unwrap(), port, closing)
}

/// One POST over a socket of its own: status line and body, unread by any library.
async fn post(port: u16, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let host = if headers.contains("host:") { "" } else { "host: localhost\r\n" };
    let request = format!(
        "POST {PATH} HTTP/1.1\r\n{host}{headers}connection: close\r\n\
         content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn modern(method: &str, mut params: Value) -> (String, String) {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let name = params["name"].as_str().map(|name| format!("mcp-name: {name}\r\n"));
    let headers = format!(
        "mcp-protocol-version: 2026-07-28\r\nmcp-method: {method}\r\n{}",
        name.unwrap_or_default()
    );
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    (headers, body.to_string())
}

#[tokio::test]
async fn the_flag_service_speaks_both_eras_and_keeps_what_it_received() {
    let (service, port, closing) = served().await;
    let (headers, call) = modern(
        "tools/call",
        json!({"name": "update_flag", "arguments": {"key": "new-pricing", "enabled": true}}),
    );
    let spaced = call.replace(":true", " : \t true");
    let answer = post(port, &headers, &spaced).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"resultType\":\"complete\""), "{answer}");
    assert_eq!(service.snapshot("production")["new-pricing"]["enabled"], true);

    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    })
    .to_string();
    let answer = post(port, "", &initialize).await;
    assert!(answer.contains("mcp-session-id: "), "{answer}");
    assert!(answer.contains("\"protocolVersion\":\"2025-11-25\""), "{answer}");

    assert_eq!(service.received_count(), 2);
    assert_eq!(service.received_since(0), [spaced, initialize.clone()]);
    assert_eq!(service.received_since(1), [initialize]);
    closing.cancel();
    service.closed().await;
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err());
}

#[tokio::test]
async fn the_flag_service_lists_the_tools_that_its_pack_knows() {
    let (_service, port, _closing) = served().await;
    let (headers, list) = modern("tools/list", json!({}));
    let answer = post(port, &headers, &list).await;
    for tool in [
        "list_environments",
        "list_flags",
        "get_flag",
        "get_audit_log",
        "create_flag",
        "update_flag",
        "set_rollout",
        "replace_flag",
        "delete_flag",
        "approve_review",
        "run_script",
    ] {
        assert!(answer.contains(&format!("\"name\":\"{tool}\"")), "{tool}: {answer}");
    }
}

#[tokio::test]
async fn the_flag_service_refuses_what_a_browser_could_send() {
    let (service, port, _closing) = served().await;
    let (headers, list) = modern("tools/list", json!({}));
    for foreign in ["host: flags.example\r\n", "origin: http://localhost\r\n"] {
        let answer = post(port, &format!("{headers}{foreign}"), &list).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{foreign} {answer}");
    }
    assert_eq!(service.snapshot("production")["new-pricing"]["enabled"], false);
}

/// Without a firewall the agent reaches everything, and the demo must fail.
#[tokio::test]
async fn the_demo_fails_when_nothing_stands_in_front() {
    let state = tempfile::tempdir().unwrap();
    let options = DemoOptions {
        interrupt: CancellationToken::new(),
        state: state.path().to_owned(),
        auto: true,
        stay: false,
        vendor: Vendor::FlagService,
    };
    let mut shown = Vec::new();
    let start = async |setting: bartizan_demo::Setting| {
        Ok(Firewall {
            url: setting.upstream,
            approver: None,
            journal: setting.state,
            stop: Box::pin(std::future::ready(())),
        })
    };
    let summary = bartizan_demo::run(&options, start, &mut shown).await.unwrap();
    let shown = String::from_utf8(shown).unwrap();
    assert!(!summary.is_as_expected(), "{shown}");
    assert_eq!(summary.faults, summary.attempts, "{shown}");
    assert!(!summary.production_unchanged, "{shown}");
    assert_eq!(summary.altered, 0, "{shown}");
    assert!(summary.reached > summary.attempts, "{shown}");
    assert!(shown.contains("NOT AS EXPECTED") && shown.contains("production: CHANGED"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

/// If the firewall cannot be reached, the demo must fail and still print its table.
#[tokio::test]
async fn the_demo_fails_when_nothing_answers() {
    let state = tempfile::tempdir().unwrap();
    let options = DemoOptions {
        interrupt: CancellationToken::new(),
        state: state.path().to_owned(),
        auto: true,
        stay: false,
        vendor: Vendor::FlagService,
    };
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}{PATH}", closed.local_addr().unwrap());
    drop(closed);
    let start = async |setting: bartizan_demo::Setting| {
        Ok(Firewall {
            url,
            approver: None,
            journal: setting.state,
            stop: Box::pin(std::future::ready(())),
        })
    };
    let summary = bartizan_demo::run(&options, start, &mut Vec::new()).await.unwrap();
    assert_eq!((summary.faults, summary.reached), (summary.attempts, 0));
    assert!(!summary.is_as_expected());
}

/// In the place of each vendor, with its pack and its credential.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_succeeds_in_the_place_of_every_vendor() {
    for vendor in Vendor::ALL.into_iter().filter(|it| *it != Vendor::FlagService) {
        let state = tempfile::tempdir().unwrap();
        let options = DemoOptions {
            state: state.path().join("state"),
            auto: true,
            stay: false,
            vendor,
            interrupt: CancellationToken::new(),
        };
        let prover = bartizan::run::RunOptions::new(env!("CARGO_BIN_EXE_bartizan").into());
        let mut shown = Vec::new();
        let start = |setting| bartizan::demo::start(setting, prover);
        let summary = bartizan_demo::run(&options, start, &mut shown).await.unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert!(summary.is_as_expected(), "{shown}");
        assert!(summary.passed > 1 && summary.refused > 1, "{shown}");
    }
}

/// A stand-in opens to its vendor's credential alone, and has the tools and arguments that the
/// pack knows.
#[tokio::test]
async fn stand_ins_are_what_their_packs_say() {
    for vendor in Vendor::ALL.into_iter().filter(|it| *it != Vendor::FlagService) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let _service = serve_vendor(vendor, listener, CancellationToken::new()).unwrap();
        let (headers, list) = modern("tools/list", json!({}));
        for wrong in [String::new(), format!("{}: x\r\n", vendor.headers()[0].0)] {
            let answer = post(port, &format!("{headers}{wrong}"), &list).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{vendor:?} {answer}");
        }
        let (name, key) = vendor.headers()[0];
        let answer = post(port, &format!("{headers}{name}: {key}\r\n"), &list).await;
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let body = body.lines().find_map(|line| {
            line.strip_prefix("data: ").or_else(|| line.starts_with('{').then_some(line))
        });
        let body: Value = serde_json::from_str(body.unwrap()).unwrap();
        let pack = Pack::read(embedded::pack(vendor.name()).unwrap().as_bytes()).unwrap();
        for tool in body["result"]["tools"].as_array().unwrap() {
            let name = tool["name"].as_str().unwrap();
            let entry = pack.tools.get(name).unwrap_or_else(|| panic!("{vendor:?} {name}"));
            for argument in tool["inputSchema"]["properties"].as_object().unwrap().keys() {
                let listed = entry.arguments.as_ref();
                assert!(
                    listed.is_none_or(|listed| listed.iter().any(|it| **it == **argument)),
                    "{vendor:?} {name} {argument}"
                );
            }
        }
    }
}

/// The whole of it: every attempt as it should be, in front of the real firewall.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_succeeds_in_front_of_the_real_firewall() {
    let state = tempfile::tempdir().unwrap();
    let options = DemoOptions {
        interrupt: CancellationToken::new(),
        state: state.path().join("state"),
        auto: true,
        stay: false,
        vendor: Vendor::FlagService,
    };
    let prover = bartizan::run::RunOptions::new(env!("CARGO_BIN_EXE_bartizan").into());
    let mut shown = Vec::new();
    let start = |setting| bartizan::demo::start(setting, prover);
    let summary = bartizan_demo::run(&options, start, &mut shown).await.unwrap();
    let shown = String::from_utf8(shown).unwrap();
    assert!(summary.is_as_expected(), "{shown}");
    assert_eq!(summary.faults, 0, "{shown}");
    assert!(summary.passed > 0 && summary.refused > 0, "{shown}");
    let journal = summary.journal.unwrap();
    assert!(journal.stopped && journal.open.is_empty(), "{journal:?}");
    for code in ["pinned-writes", "wrong-environment", "destructive", "exec", "approval-control"] {
        assert!(shown.contains(code), "{code}: {shown}");
    }
}

/// What a person sees and types: the command that the demo prints, and the call that it leaves held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_grants_the_held_calls_of_the_demo() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let program = env!("CARGO_BIN_EXE_bartizan");
    let mut demo = Command::new(program)
        .args(["demo", "--stay", "--state"])
        .arg(&state)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut shown = String::new();
    let mut admin = String::new();
    let mut answered = 0;
    loop {
        let line = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("{shown}"));
        shown.push_str(&line);
        shown.push('\n');
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["bartizan", "approvals", "grant", id, "--reason", .., "--admin", url, _, _] = *words
        {
            admin = url.to_owned();
            answer(&state, &admin, &["grant", id, "--reason", "looked at it"]).await;
            answered += 1;
        } else if line.contains(&format!("{admin}/console")) && !admin.is_empty() {
            let listed = answer(&state, &admin, &["list", "--json"]).await;
            let listed: Value = serde_json::from_str(&listed).unwrap();
            let id = listed["approvals"][0]["id"].as_str().unwrap();
            answer(&state, &admin, &["grant", id, "--reason", "looked at it"]).await;
            answered += 1;
        } else if line.contains("The call that waited has passed.") {
            break;
        }
    }
    assert_eq!(answered, 2, "{shown}");
    assert!(shown.contains("all as expected"), "{shown}");
    assert!(shown.contains("serve it to 90 % of staging                   passed"), "{shown}");
    assert!(shown.contains("one byte changed: 91 %          REFUSED"), "{shown}");
    let token = std::fs::read_to_string(state.join("approver.token")).unwrap();
    assert!(!shown.contains(&token), "{shown}");
}

/// Whoever ends the demo while it waits for a person finds nothing of it left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_demo_leaves_no_directory() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let folder = tempfile::tempdir().unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_bartizan"));
        program.arg("demo").env("TMPDIR", folder.path());
        let mut demo = program
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("it waits for your answer") {
                break;
            }
        }
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_some());
        let pid = i32::try_from(demo.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        while lines.next_line().await.unwrap().is_some() {}
        let ended = demo.wait_with_output().await.unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), said.as_str()), (Some(1), "error: demo: interrupted\n"));
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// `bartizan approvals`, as the demo prints it.
async fn answer(state: &Path, admin: &str, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .arg("approvals")
        .args(words)
        .args(["--admin", admin, "--token-file"])
        .arg(state.join("approver.token"))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
