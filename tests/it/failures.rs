//! What fails around a running firewall is named, refused and recorded: servers that are not
//! there or answer what is no answer, children that die, a journal that cannot be written,
//! policies that do not compile, ports that are taken. Each against the whole program.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::firewall::{
    Client, Firewall, LEGACY, RecordingUpstream, Reply, Setup, answer, call, events, journal, json,
    odd_answer, post, wait,
};

const JSON: &str = "Content-Type: application/json\r\n";
const CLOSE: &str = "Connection: close\r\n";

fn get_flag(id: u32) -> String {
    call(id, "get_flag", r#"{"key":"x"}"#)
}

/// The JSON-RPC message in a reply of either form.
fn message(reply: &Reply) -> Value {
    let text = reply.text();
    let line = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap_or(text);
    serde_json::from_str(line).unwrap_or_else(|_| panic!("{reply:?}"))
}

/// How a server fails: its bytes, the code that the client gets, and what the record says.
struct Failing {
    name: &'static str,
    answer: Vec<u8>,
    code: i64,
    outcome: &'static str,
    error_type: &'static str,
    /// Text of the record.
    says: &'static str,
}

fn broken_bodies() -> Vec<Failing> {
    let head = |more: &str| format!("HTTP/1.1 200 OK\r\n{JSON}{more}\r\n").into_bytes();
    let bad = |name, answer, says| Failing {
        name,
        answer,
        code: -31006,
        outcome: "upstream_failed",
        error_type: "unreadable",
        says,
    };
    // The answer, gzipped, as some servers send it whatever was asked for.
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabV\xcaL\x01\x00";
    let chunked = "Transfer-Encoding: chunked\r\nConnection: close\r\n";
    let long = vec![b' '; 70_000];
    vec![
        bad("ends early", [head(&format!("Content-Length: 900\r\n{CLOSE}")), b"{\"id\"".to_vec()].concat(), "end"),
        bad("ends inside a chunk", [head(chunked), b"40\r\n{\"id".to_vec()].concat(), "end"),
        bad("no chunk", [head(chunked), b"zz\r\n{}\r\n0\r\n\r\n".to_vec()].concat(), "chunk"),
        bad("gzip", answer("200 OK", &format!("{JSON}Content-Encoding: gzip\r\n"), gzip), "coding"),
        bad("html", answer("200 OK", "Content-Type: text/html\r\n", b"<p>hello"), "content type"),
        bad("no type", answer("200 OK", "", &odd_answer(br#"{"id":1}"#)), "content type"),
        bad("utf-16", answer("200 OK", "Content-Type: application/json; charset=utf-16\r\n", b"{}"), "content type"),
        bad("larger than announced allows", json(&long), "65536 bytes"),
        bad("larger, in chunks", [head(chunked), format!("{:x}\r\n", long.len()).into_bytes(), long.clone(), b"\r\n0\r\n\r\n".to_vec()].concat(), "65536 bytes"),
        bad("an event too large", events(&format!("data: {}\n\n", "x".repeat(70_000))), "65536 bytes"),
        bad("a stream broken in an event", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n40\r\n: hi\n\ndata: {\"id".to_vec(), "end"),
    ]
}

fn no_frames() -> Vec<Failing> {
    let bad = |name, answer: &[u8], says| Failing {
        name,
        answer: json(answer),
        code: -31006,
        outcome: "withheld",
        error_type: says,
        says: "",
    };
    vec![
        bad("an object", b"{}", "jsonrpc-version"),
        bad("text", b"Internal error", "not-json"),
        bad("a batch", br#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#, "batch"),
        bad(
            "two values",
            br#"{"jsonrpc":"2.0","id":1,"result":{}}{"jsonrpc":"2.0","id":1,"result":{}}"#,
            "not-json",
        ),
        bad(
            "two results",
            br#"{"jsonrpc":"2.0","id":1,"result":{},"result":{"a":1}}"#,
            "duplicate-name",
        ),
        bad(
            "result and error",
            br#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}"#,
            "shape",
        ),
        bad(
            "a look-alike",
            br#"{"jsonrpc":"2.0","id":1,"result":{},"Result":{}}"#,
            "look-alike-name",
        ),
        bad(
            "a byte order mark",
            b"\xef\xbb\xbf{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}",
            "not-utf8",
        ),
        bad(
            "no UTF-8",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"a\":\"\xc0\xaf\"}}",
            "not-utf8",
        ),
        bad(
            "half a pair",
            br#"{"jsonrpc":"2.0","id":1,"result":{"a":"\ud800"}}"#,
            "lone-surrogate",
        ),
    ]
}

fn no_answers() -> Vec<Failing> {
    let bad = |name, answer, error_type| Failing {
        name,
        answer,
        code: -31005,
        outcome: "upstream_failed",
        error_type,
        says: "",
    };
    let other = br#"{"jsonrpc":"2.0","id":2,"result":{}}"#;
    vec![
        bad("closes", Vec::new(), "unreachable"),
        bad("no HTTP", b"what?\r\n\r\n".to_vec(), "unreachable"),
        bad("accepts a request", answer("202 Accepted", "", b""), "ended_early"),
        bad("another id", json(other), "ended_early"),
        bad(
            "an id of another type",
            json(br#"{"jsonrpc":"2.0","id":"1","result":{}}"#),
            "ended_early",
        ),
        bad(
            "a stream without the answer",
            events(": hi\n\nevent: message\nretry: 5\n\n"),
            "ended_early",
        ),
        bad(
            "a stream with another's answer",
            events("data: {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}\n\n"),
            "ended_early",
        ),
        bad(
            "a stream that ends in an event",
            events(": hi\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n"),
            "ended_early",
        ),
        bad(
            "a redirect",
            answer("307 Temporary Redirect", "Location: http://127.0.0.1:1/\r\n", b""),
            "307",
        ),
    ]
}

/// An upstream that answers with what was put into the slot.
fn rig(top: &str) -> (Firewall, Arc<Mutex<Vec<u8>>>) {
    let slot = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::clone(&slot);
    let answer = Box::new(move |_: &_| answers.lock().unwrap().clone());
    (Firewall::with(Setup { top: top.to_owned(), answer, ..Setup::default() }), slot)
}

#[test]
fn a_server_that_fails_is_named_refused_and_recorded() {
    let (firewall, slot) = rig("limits: {frame_bytes: 65536}\n");
    let cases = [broken_bodies(), no_frames(), no_answers()].concat_all();
    let mut wrong = Vec::new();
    for case in &cases {
        if let Err(why) = check(&firewall, &slot, case) {
            wrong.push(format!("{}: {why}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Failing>;
}

impl<const N: usize> ConcatAll for [Vec<Failing>; N] {
    fn concat_all(self) -> Vec<Failing> {
        self.into_iter().flatten().collect()
    }
}

fn check(firewall: &Firewall, slot: &Mutex<Vec<u8>>, case: &Failing) -> Result<(), String> {
    slot.lock().unwrap().clone_from(&case.answer);
    let (sent, told) = (firewall.received().len(), firewall.journal().len());
    let reply = firewall.ask(get_flag(1));
    let sent = firewall.received().len() - sent;
    if sent != 1 {
        return Err(format!("asked {sent} times"));
    }
    let said = message(&reply);
    if reply.status != 200 || said["error"]["code"] != case.code || said["id"] != 1 || !reply.whole
    {
        return Err(format!("the client got {} {}", reply.status, reply.text()));
    }
    if reply.text().contains("127.0.0.1") || !reply.header("location").is_empty() {
        return Err(format!("an address reached the client: {reply:?}"));
    }
    let records = firewall.journal().split_off(told);
    let outcome = records
        .iter()
        .find(|record| record["event"] == "outcome")
        .ok_or_else(|| format!("no outcome: {records:?}"))?;
    let named = outcome["outcome"] == case.outcome
        && outcome["error.type"] == case.error_type
        && outcome["note"].as_str().unwrap_or_default().contains(case.says)
        && outcome["call"] == said["error"]["data"]["decision_id"];
    if named { Ok(()) } else { Err(format!("recorded as {outcome}")) }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let way = Some(format!("url: http://{address}/mcp"));
    let firewall = Firewall::with(Setup { way, ..Setup::default() });
    let reply = firewall.ask(get_flag(1));
    assert_eq!((reply.status, reply.code()), (200, -31005));
    assert!(!reply.text().contains(&address.port().to_string()), "{}", reply.text());
    let told = firewall.ask(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!(told.status, 502);
    let outcomes = firewall.records("event", "outcome");
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        assert_eq!(outcome["error.type"], "unreachable", "{outcome}");
        assert_eq!(outcome["finding"], "upstream_failure", "{outcome}");
        assert!(outcome["note"].as_str().unwrap().contains("refused"), "{outcome}");
    }
}

/// An upstream that first sends `begin`, and no more until the sender is dropped.
fn slow(begin: &'static [u8], top: &str) -> (Firewall, std::sync::mpsc::Sender<()>) {
    let (release, held): (_, Receiver<()>) = channel();
    let held = Mutex::new(held);
    let answer = Box::new(move |_: &_| {
        if begin.is_empty() {
            held.lock().unwrap().recv().unwrap_err();
        }
        begin.to_vec()
    });
    (Firewall::with(Setup { top: top.to_owned(), answer, ..Setup::default() }), release)
}

#[test]
fn a_server_that_takes_too_long_is_given_up() {
    let (firewall, release) = slow(b"", "limits: {answer_time: 1s}\n");
    let reply = firewall.ask(get_flag(1));
    assert_eq!((reply.status, reply.code()), (200, -31005));
    assert!(reply.text().contains("in time"), "{}", reply.text());
    assert_eq!(firewall.record("event", "outcome", 1)["error.type"], "timeout");
    assert_eq!(firewall.received().len(), 1);
    drop(release);
}

#[test]
fn a_stream_that_falls_silent_is_given_up() {
    let begin = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n";
    let (firewall, release) = slow(begin, "limits: {stream_idle: 1s}\n");
    let reply = firewall.ask(get_flag(1));
    assert_eq!(reply.status, 200);
    assert!(reply.text().starts_with(": keep-alive\n"), "{}", reply.text());
    assert_eq!(message(&reply)["error"]["code"], -31005);
    assert_eq!(firewall.record("event", "outcome", 1)["error.type"], "timeout");
    assert_eq!(firewall.received().len(), 1, "never asked again");
    drop(release);
}

#[test]
fn only_the_asked_answer_passes_on_a_stream() {
    let (firewall, slot) = rig("");
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"mine":true}}"#;
    let second = r#"{"jsonrpc":"2.0","id":1,"result":{"mine":false}}"#;
    let other = r#"{"jsonrpc":"2.0","id":2,"result":{"mine":false}}"#;
    *slot.lock().unwrap() =
        events(&format!("data: {other}\n\ndata: {answer}\n\ndata: {second}\n\n"));
    let reply = firewall.ask(get_flag(1));
    assert_eq!(reply.text(), format!("data: {answer}\n\n"));
    let dropped = firewall.records("event", "drop");
    assert_eq!(dropped.len(), 1);
    assert_eq!(dropped[0]["finding"], "unsolicited_answer");
    assert_eq!(firewall.record("event", "outcome", 1)["outcome"], "ok");
}

#[test]
fn a_child_that_dies_is_named() {
    for (command, code, says) in [
        ("[sh, -c, 'read -r line; exit 3']", -31005, "exit status: 3"),
        ("[sh, -c, 'exit 4']", -31005, "exit status: 4"),
        ("[/no/such/program]", -31005, "no such program: `/no/such/program`"),
    ] {
        let way = Some(format!("command: {command}"));
        let firewall = Firewall::with(Setup { way, ..Setup::default() });
        let reply = firewall.send(&post(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#,
            LEGACY,
        ));
        assert_eq!((reply.status, reply.code()), (200, code), "{}", reply.text());
        assert!(reply.header("mcp-session-id").is_empty(), "{command}: no session came of it");
        let outcome = firewall.record("event", "outcome", 1);
        assert_eq!(outcome["outcome"], "upstream_failed", "{outcome}");
        assert!(outcome["note"].as_str().unwrap().contains(says), "{outcome}");
    }
}

/// `bartizan` as a process of its own.
pub(crate) struct Program {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Program {
    /// Runs `bartizan run` on a configuration; `before` is said to the shell that starts it.
    pub(crate) fn run(folder: &Path, before: &str, config: &str) -> Self {
        let file = folder.join("bartizan.yaml");
        std::fs::write(&file, format!("{config}\nlog: {{format: json}}\n")).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", &format!("{before} exec \"$0\" run -c \"$1\"")])
            .args([Path::new(env!("CARGO_BIN_EXE_bartizan")), &file])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (mut stderr, log) = (child.stderr.take().unwrap(), Arc::clone(&said));
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read) = stderr.read(&mut piece) {
                if read == 0 {
                    return;
                }
                log.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..read]));
            }
        });
        Self { child, said }
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Where it serves agents, and operators, once it does.
    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        wait(&format!("serving; it said {}", self.said()), || {
            let said = self.said();
            let line = said.lines().find(|line| line.contains("\"serving\""))?;
            let line: Value = serde_json::from_str(line).ok()?;
            let address = |name: &str| line["fields"][name].as_str().unwrap().parse().unwrap();
            Some((address("address"), address("admin")))
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends it in order, and gives its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Waits until it ends by itself: its exit code and what it said.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let said = wait("the end of its words", || {
            (Arc::strong_count(&self.said) == 1).then(|| self.said())
        });
        (code, said)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn config(state: &Path, url: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\nservers:\n  flags: {{path: /mcp, url: '{url}', pack: flag-service, environment: staging}}\n",
        state.display()
    )
}

fn ask(address: SocketAddr, body: &str) -> Reply {
    let mut client = Client::connect(address);
    client.send(&post(body, LEGACY));
    client.reply()
}

fn ready(admin: SocketAddr) -> Reply {
    let mut client = Client::connect(admin);
    client.send(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    client.reply()
}

/// A full disk, as the system shows it to one process: a limit on the size of files, which the
/// test lifts while the program runs.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_recorded_does_not_happen() {
    use rustix::process::{Resource, Rlimit, prlimit};

    let upstream = Firewall::start();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let config = config(&state, &format!("http://{}/mcp", upstream.address()));
    let program = Program::run(folder.path(), "trap '' XFSZ; ulimit -S -f 60;", &config);
    let (address, admin) = program.addresses();
    assert_eq!(ready(admin).status, 200);

    let refused = wait("a refusal", || {
        let reply = ask(address, &get_flag(1));
        (reply.status != 200).then_some(reply)
    });
    assert_eq!((refused.status, refused.code()), (503, -31003), "{}", refused.text());
    assert_eq!(refused.json()["id"], 1);
    let reached = upstream.received().len();
    for body in [&get_flag(2), r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, "{"] {
        let reply = ask(address, body);
        assert_eq!((reply.status, reply.code()), (503, -31003), "{}", reply.text());
    }
    let mut client = Client::connect(address);
    client.send(b"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n");
    assert_eq!(client.reply().status, 503);
    assert_eq!(upstream.received().len(), reached, "nothing went on");
    let unready = ready(admin);
    assert_eq!(unready.status, 503);
    assert!(unready.text().contains("journal"), "{}", unready.text());

    let free = Rlimit { current: None, maximum: None };
    prlimit(Some(program.pid()), Resource::Fsize, free).unwrap();
    wait("readiness, without a call", || (ready(admin).status == 200).then_some(()));
    let reply = wait("a call that passes again", || {
        let reply = ask(address, &get_flag(3));
        (reply.status == 200).then_some(reply)
    });
    assert_eq!(reply.json()["result"]["n"], 150.0);
    assert_eq!(upstream.received().len(), reached + 1);
    let records = journal(&state);
    // A short record may have fitted where a longer one did not, and have told of a gap by itself.
    let gaps: Vec<_> = records.iter().filter(|record| record["event"] == "gap").collect();
    let refused = gaps.iter().map(|gap| gap["gap"]["refused"].as_u64().unwrap());
    assert!(refused.sum::<u64>() >= 5, "{gaps:?}");
    assert!(gaps.iter().all(|gap| gap["finding"] == "audit_sink_failure"), "{gaps:?}");
    wait("a line of the log", || {
        program.said().contains("audit records cannot be written").then_some(())
    });
    assert_eq!(program.stop(), Some(0));
    let verify = Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .args(["audit", "verify", "--state"])
        .arg(&state)
        .output()
        .unwrap();
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));
}

/// The journal fails after the intent of a call and before its outcome.
#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_recorded_does_not_pass() {
    use rustix::process::{Resource, Rlimit, prlimit};

    let notice = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;
    let result = r#"{"jsonrpc":"2.0","id":1,"result":{"passed":true}}"#;
    for answer in [
        json(result.as_bytes()),
        events(&format!("data: {result}\n\n")),
        events(&format!("data: {notice}\n\ndata: {result}\n\n")),
        answer("500 Internal Server Error", "Content-Type: text/plain\r\n", b"passed"),
    ] {
        let pid: Arc<Mutex<Option<Pid>>> = Arc::default();
        let full = Arc::clone(&pid);
        let bytes = answer.clone();
        let upstream = RecordingUpstream::start(Box::new(move |_| {
            let limit = Rlimit { current: Some(1), maximum: None };
            prlimit(*full.lock().unwrap(), Resource::Fsize, limit).unwrap();
            bytes.clone()
        }));
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder.path().join("state"), &upstream.url());
        let program = Program::run(folder.path(), "trap '' XFSZ;", &config);
        let (address, _) = program.addresses();
        *pid.lock().unwrap() = Some(program.pid());
        let reply = ask(address, &get_flag(1));
        let said = String::from_utf8_lossy(&answer);
        assert!(reply.whole && !reply.text().contains("passed"), "{said}: {}", reply.text());
        let message = message(&reply);
        assert_eq!(message["error"]["code"], -31003, "{said}: {message}");
        assert_eq!(message["id"], 1, "{said}");
        assert_eq!(upstream.received().len(), 1, "{said}");
    }
}

#[test]
fn a_policy_that_does_not_compile_is_named_and_nothing_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (state, policy) = (folder.path().join("state"), folder.path().join("rules.rego"));
    std::fs::write(
        &policy,
        "package mcp\n\npermit contains {\"message\": \"x\"} if {\n\tinput.method ==\n}\n",
    )
    .unwrap();
    let config = format!(
        "{}policy: {{paths: ['{}']}}\n",
        config(&state, "http://127.0.0.1:1/mcp"),
        policy.display()
    );
    let (code, said) = Program::run(folder.path(), "", &config).ended();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error: policy: ") && said.contains("rules.rego:5"), "{said}");
    assert!(said.contains("hint: "), "{said}");
    assert!(!said.contains("serving"), "{said}");
    let records = journal(&state);
    let policy = records.iter().find(|record| record["event"] == "policy").unwrap();
    assert_eq!(policy["finding"], "policy_reload_rejected");
    assert!(policy["note"].as_str().unwrap().contains("rules.rego:5"), "{policy}");
    assert_eq!(records.last().unwrap()["event"], "stop");
}

#[test]
fn a_bad_configuration_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let config = format!("{}mode: maybe\ncolour: red\n", config(&state, "ftp://h"));
    let (code, said) = Program::run(folder.path(), "", &config).ended();
    assert_eq!(code, Some(64), "{said}");
    for place in ["servers.flags.url", "mode", "colour"] {
        assert!(said.contains(&format!("bartizan.yaml: {place} (line ")), "{place}: {said}");
    }
    assert_eq!(said.lines().filter(|line| line.starts_with("hint: ")).count(), 3, "{said}");
    assert!(!state.exists());
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for key in ["listen", "admin"] {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let config = config(&state, "http://127.0.0.1:1/mcp")
            .replace(&format!("{key}: 127.0.0.1:0"), &format!("{key}: {address}"));
        let (code, said) = Program::run(folder.path(), "", &config).ended();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("error: {key}: cannot listen on {address}: ")), "{said}");
        assert_eq!(journal(&state).last().unwrap()["event"], "stop");
    }
}

#[test]
fn a_journal_that_another_program_writes_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let config = config(&state, "http://127.0.0.1:1/mcp");
    let first = Program::run(folder.path(), "", &config);
    first.addresses();
    let (code, said) = Program::run(folder.path(), "", &config).ended();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error: journal: "), "{said}");
    assert_eq!(first.stop(), Some(0));
}

#[test]
fn a_policy_made_bad_during_traffic_changes_nothing_but_the_record() {
    let rule = |tool: &str| {
        format!(
            "package mcp\n\npermit contains {{\"code\": \"one\", \"message\": \"one tool\"}} if input.tool.name == \"{tool}\"\n"
        )
    };
    let firewall = Firewall::with(Setup { rego: Some(rule("get_flag")), ..Setup::default() });
    let bad = [
        "package mcp\n\npermit contains {",
        "package mcp\n\npermit contains {\"message\": \"x\"} if http.send({}).status == 200\n",
        "package mcp\n\npermit contains {\"message\": \"x\"} if reach(input.n)\n\nreach(n) := reach(n)\n",
    ];
    let first = firewall.record("finding", "policy_reload", 1)["decision"]["policy"].clone();
    let (over, address) = (AtomicBool::new(false), firewall.address());
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut client = Client::connect(address);
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                client.send(&post(get_flag(1), LEGACY));
                assert_eq!(client.reply().body, odd_answer(get_flag(1).as_bytes()));
                client.send(&post(call(2, "list_flags", "{}"), LEGACY));
                assert_eq!(client.reply().code(), -31001);
                count += 1;
                thread::sleep(std::time::Duration::from_millis(20));
            }
            count
        });
        for (number, bad) in bad.iter().enumerate() {
            std::fs::write(firewall.policy_file(), bad).unwrap();
            firewall.reload();
            let record = firewall.record("finding", "policy_reload_rejected", number + 1);
            assert!(record["note"].as_str().unwrap().contains("test.rego:"), "{record}");
        }
        over.store(true, Ordering::Relaxed);
        assert!(traffic.join().unwrap() > 0, "there was traffic");
    });
    for event in ["intent", "denial"] {
        let records = firewall.records("event", event);
        assert!(records.iter().all(|record| record["decision"]["policy"] == first), "{event}");
    }
    std::fs::write(firewall.policy_file(), rule("list_flags")).unwrap();
    firewall.reload();
    let second = firewall.record("finding", "policy_reload", 2)["decision"]["policy"].clone();
    assert_ne!(first, second);
    assert_eq!(firewall.ask(call(2, "list_flags", "{}")).status, 200);
    assert_eq!(firewall.ask(get_flag(1)).code(), -31001);
    assert_eq!(firewall.record("event", "denial", 1)["decision"]["policy"], first);
    assert_eq!(firewall.records("event", "denial").last().unwrap()["decision"]["policy"], second);
}
