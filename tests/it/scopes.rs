//! Session facts and handles are believed for no more callers than the server holds them for: one
//! session, one principal, or everyone, as the pack says (threat H6). Each test looks at what the
//! server was sent and where it landed.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::firewall::{
    Client, Firewall, LEGACY, Received, RecordingUpstream, Reply, Setup, answer, post, wait,
};

/// `act` passes in project 7 alone; `select` and `choose` say which one is selected, and `open` for
/// which account.
const POLICY: &str = r#"package mcp

permit contains {"code": "other", "message": "not a call that lands somewhere"} if {
	object.get(input, ["tool", "name"], "") != "act"
}

permit contains {"code": "project", "message": "in project 7"} if {
	input.tool.name == "act"
	"7" in {input.session.facts[name] | some name in {"project", "shared", "account"}}
}
"#;

const PACK: &str = r#"{
  "version": 1,
  "name": "vendor",
  "tools": {
    "select": {"effect": "read", "facts": {"project": "/project"}},
    "later": {"effect": "read", "facts": {"project": "/project"}},
    "choose_later": {"effect": "read", "facts": {"shared": {"at": "/project", "scope": "server"}}},
    "choose": {"effect": "read", "facts": {"shared": {"at": "/project", "scope": "server"}}},
    "open": {"effect": "read", "facts": {"account": {"at": "/project", "scope": "principal"}}},
    "act": {"effect": "read"}
  }
}"#;

/// A directory with the policy and the pack.
fn files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policy")).unwrap();
    std::fs::write(folder.path().join("policy/test.rego"), POLICY).unwrap();
    std::fs::write(folder.path().join("vendor.json"), PACK).unwrap();
    // Where a confined program can create files: not beside the policy and the pack.
    std::fs::create_dir(folder.path().join("own")).unwrap();
    std::fs::write(folder.path().join("own/server.sh"), PROGRAM).unwrap();
    folder
}

/// What a server has carried out.
#[derive(Default)]
struct ServerLog {
    /// The projects in which `act` landed.
    landed: Vec<String>,
    /// The selected project, by session id.
    selected: BTreeMap<String, String>,
    sessions: usize,
    /// The session that the server forgets at the next `act`.
    forgets: Option<String>,
    /// Whether something was selected at once, so that `later` and `choose_later` go on.
    at_once: bool,
    /// The selections that were carried out later.
    later: usize,
}

/// Carries out one request of a server that mints session ids if `mints`.
fn serve(log: &Mutex<ServerLog>, mints: bool, session: &str, body: &[u8]) -> Vec<u8> {
    let mut log = log.lock().unwrap();
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return answer("200 OK", "", b"");
    };
    let Some(id) = request.get("id") else { return answer("202 Accepted", "", b"") };
    let reply = |headers: &str, result: Value| {
        let body = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
        let headers = format!("Content-Type: application/json\r\n{headers}");
        answer("200 OK", &headers, body.as_bytes())
    };
    if request["method"] == "initialize" {
        log.sessions += 1;
        let headers =
            if mints { format!("Mcp-Session-Id: s-{}\r\n", log.sessions) } else { String::new() };
        let result = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"},
        });
        return reply(&headers, result);
    }
    let project = || request["params"]["arguments"]["project"].as_str().unwrap().to_owned();
    match request["params"]["name"].as_str().unwrap_or_default() {
        "act" if log.forgets.as_deref() == Some(session) => {
            return answer("404 Not Found", "", b"");
        }
        "act" => {
            let now = log.selected.get(session).cloned().unwrap_or_else(|| "default".into());
            log.landed.push(now);
        }
        "select" | "later" => drop(log.selected.insert(session.to_owned(), project())),
        // For everybody, whatever the session.
        "choose" | "choose_later" => {
            log.selected.values_mut().for_each(|selected| *selected = project());
        }
        _ => {}
    }
    match request["params"]["name"].as_str().unwrap_or_default() {
        "select" | "choose" => log.at_once = true,
        "later" | "choose_later" => log.later += 1,
        _ => {}
    }
    reply("", json!({"content": []}))
}

/// A firewall in front of a server with state.
struct Stage {
    firewall: Firewall,
    log: Arc<Mutex<ServerLog>>,
    files: TempDir,
}

impl Stage {
    fn start(mints: bool) -> Self {
        let (log, files) = (Arc::<Mutex<ServerLog>>::default(), files());
        let of_server = Arc::clone(&log);
        let firewall = Firewall::with(Setup {
            rego: Some(POLICY.to_owned()),
            server: format!("    pack: {}\n", files.path().join("vendor.json").display()),
            answer: Box::new(move |received| {
                let session =
                    received.header("mcp-session-id").first().copied().unwrap_or_default();
                if String::from_utf8_lossy(&received.body).contains("later") {
                    wait("another selection", || of_server.lock().unwrap().at_once.then_some(()));
                }
                serve(&of_server, mints, session, &received.body)
            }),
            ..Setup::default()
        });
        Self { firewall, log, files }
    }

    fn landed(&self) -> Vec<String> {
        self.log.lock().unwrap().landed.clone()
    }

    /// Begins a session, or `initialize`s again in `session`; gives the id that the agent knows.
    fn begin(&self, session: &str) -> String {
        let body = json!({"jsonrpc": "2.0", "id": next_id(), "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"},
        }});
        let named = named(session);
        let reply = self.firewall.send(&post(body.to_string(), &named));
        reply.header("mcp-session-id").first().map(|id| (*id).to_owned()).unwrap_or_default()
    }

    /// Calls a tool in a legacy session; whether it passed.
    fn call(&self, session: &str, tool: &str, project: &str) -> bool {
        let headers = format!("{LEGACY}{}", named(session));
        passed(&self.firewall.send(&post(call(tool, project, &json!({})), &headers)))
    }

    /// Calls a tool in a legacy session, and comes back as soon as the server has got the call.
    fn begin_call(&self, session: &str, tool: &str, project: &str) -> Client {
        let headers = format!("{LEGACY}{}", named(session));
        let mut client = self.firewall.client();
        client.send(&post(call(tool, project, &json!({})), &headers));
        let named = format!("\"name\":\"{tool}\"");
        let got = |it: &Received| String::from_utf8_lossy(&it.body).contains(&named);
        wait(tool, || self.firewall.received().iter().any(got).then_some(()));
        client
    }

    /// Calls a tool as revision 2026-07-28 does, in `session` if it is not empty.
    fn call_modern(&self, session: &str, tool: &str, project: &str) -> bool {
        let headers = format!(
            "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n{}",
            named(session)
        );
        passed(&self.firewall.send(&post(call(tool, project, &meta()), &headers)))
    }
}

/// An id that no request has had.
fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn named(session: &str) -> String {
    if session.is_empty() { String::new() } else { format!("Mcp-Session-Id: {session}\r\n") }
}

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    })
}

fn call(tool: &str, project: &str, meta: &Value) -> String {
    let arguments = if project.is_empty() { json!({}) } else { json!({"project": project}) };
    let mut params = json!({"name": tool, "arguments": arguments});
    if meta.as_object().is_some_and(|meta| !meta.is_empty()) {
        params["_meta"] = meta.clone();
    }
    json!({"jsonrpc": "2.0", "id": next_id(), "method": "tools/call", "params": params}).to_string()
}

fn passed(reply: &Reply) -> bool {
    let answer = reply.json();
    assert!(answer.get("result").is_some() || answer.get("error").is_some(), "{answer}");
    answer.get("result").is_some()
}

#[test]
fn what_one_session_selects_moves_no_call_of_another() {
    let stage = Stage::start(true);
    let (a, b) = (stage.begin(""), stage.begin(""));
    assert!(stage.call(&a, "select", "8"));
    assert!(stage.call(&b, "select", "7"));
    assert!(!stage.call(&a, "act", ""), "it would land in 8");
    assert_eq!(stage.landed(), [""; 0]);
    assert!(stage.call(&b, "act", ""));
    assert!(stage.call(&a, "select", "7"));
    assert!(stage.call(&a, "act", ""));
    assert!(stage.call(&b, "select", "8"));
    assert!(stage.call(&a, "act", ""), "what the other selects changes nothing");
    assert!(!stage.call(&b, "act", ""));
    assert_eq!(stage.landed(), ["7", "7", "7"]);
}

#[test]
fn a_session_that_begins_anew_has_selected_nothing() {
    let stage = Stage::start(true);
    let a = stage.begin("");
    assert!(stage.call(&a, "select", "7") && stage.call(&a, "act", ""));
    stage.begin(&a);
    assert!(!stage.call(&a, "act", ""));
    assert_eq!(stage.landed(), ["7"]);
}

#[test]
fn where_the_server_has_no_session_nothing_is_known_of_one() {
    // It gives out no ids, so each request may reach another process.
    let stage = Stage::start(false);
    assert_eq!(stage.begin(""), "");
    assert!(stage.call("", "select", "7"));
    assert!(!stage.call("", "act", ""));
    // The revision of 2026-07-28 has none.
    let stage = Stage::start(true);
    assert!(stage.call_modern("", "select", "7"));
    assert!(!stage.call_modern("", "act", ""));
    // Its requests reach no session, whatever id they name.
    let a = stage.begin("");
    assert!(stage.call(&a, "select", "7"));
    assert!(stage.call_modern(&a, "select", "8"));
    assert!(!stage.call_modern(&a, "act", ""));
    assert_eq!(stage.landed(), [""; 0]);
    assert!(stage.call(&a, "act", ""));
    assert_eq!(stage.landed(), ["7"]);
}

#[test]
fn what_a_server_holds_for_everyone_moves_the_calls_of_all() {
    let stage = Stage::start(true);
    let (a, b) = (stage.begin(""), stage.begin(""));
    assert!(stage.call(&a, "select", "8") && stage.call(&b, "select", "8"));
    assert!(stage.call(&a, "choose", "7") && stage.call(&b, "act", ""));
    assert!(stage.call(&b, "choose", "9"));
    assert!(!stage.call(&a, "act", "") && !stage.call(&b, "act", ""));
    assert!(stage.call_modern("", "choose", "7"));
    assert!(stage.call(&a, "act", "") && stage.call_modern("", "act", ""));
    assert_eq!(stage.landed(), ["7", "7", "default"]);
}

#[test]
fn selections_that_overlap_leave_the_fact_unknown() {
    let stage = Stage::start(true);
    let a = stage.begin("");
    assert!(stage.call(&a, "select", "7") && stage.call(&a, "act", ""));
    stage.log.lock().unwrap().at_once = false;
    let mut later = stage.begin_call(&a, "later", "8");
    assert!(stage.call(&a, "select", "7"));
    assert!(!stage.call(&a, "act", ""), "the server may carry out the first one after it");
    assert!(passed(&later.reply()));
    assert!(!stage.call(&a, "act", ""), "it would land in 8");
    assert_eq!(stage.landed(), ["7"]);
    assert!(stage.call(&a, "select", "7") && stage.call(&a, "act", ""));
    assert_eq!(stage.landed(), ["7", "7"]);
}

#[test]
fn selections_that_overlap_in_two_sessions_leave_a_fact_of_the_server_unknown() {
    let stage = Stage::start(true);
    let (a, b) = (stage.begin(""), stage.begin(""));
    assert!(stage.call(&a, "select", "1") && stage.call(&b, "select", "1"));
    assert!(stage.call(&b, "choose", "7") && stage.call(&b, "act", ""));
    stage.log.lock().unwrap().at_once = false;
    let mut later = stage.begin_call(&a, "choose_later", "8");
    assert!(stage.call(&b, "choose", "7"));
    assert!(!stage.call(&b, "act", "") && !stage.call_modern("", "act", ""));
    assert!(passed(&later.reply()));
    assert!(!stage.call(&b, "act", "") && !stage.call_modern("", "act", ""));
    assert_eq!(stage.landed(), ["7"]);
    assert!(stage.call(&b, "choose", "7") && stage.call(&b, "act", ""));
    assert_eq!(stage.landed(), ["7", "7"]);
}

#[test]
fn a_selection_whose_client_has_gone_may_still_be_carried_out() {
    let stage = Stage::start(true);
    let a = stage.begin("");
    drop(stage.begin_call(&a, "later", "8"));
    stage.firewall.record("outcome", "cancelled", 1);
    assert!(stage.call(&a, "select", "7"));
    assert!(!stage.call(&a, "act", ""));
    wait("the late selection", || (stage.log.lock().unwrap().later == 1).then_some(()));
    assert!(!stage.call(&a, "act", ""), "it would land in 8");
    assert!(stage.call(&a, "select", "7") && !stage.call(&a, "act", ""), "no answer has come");
    assert_eq!(stage.landed(), [""; 0]);
    stage.begin(&a);
    assert!(stage.call(&a, "select", "7") && stage.call(&a, "act", ""));
    assert_eq!(stage.landed(), ["7"]);
}

#[test]
fn nothing_is_selected_while_the_server_carries_out_a_call_for_what_was() {
    let stage = Stage::start(true);
    let (a, b) = (stage.begin(""), stage.begin(""));
    assert!(stage.call(&a, "select", "7"));
    stage.log.lock().unwrap().at_once = false;
    let mut act = stage.begin_call(&a, "act", "later");
    assert!(!stage.call(&a, "select", "8"), "the call would land in 8");
    let refusal = stage.firewall.record("event", "denial", 1);
    assert!(refusal.to_string().contains("fact-in-use"), "{refusal}");
    assert!(!stage.call(&a, "later", "8"));
    // Another session has a selection of its own.
    assert!(stage.call(&b, "select", "8"));
    assert!(passed(&act.reply()));
    assert_eq!(stage.landed(), ["7"]);
    assert!(stage.call(&a, "select", "8"), "nothing is in flight");
    assert!(!stage.call(&a, "act", ""));
    assert_eq!(stage.landed(), ["7"]);
}

/// A program that writes down where `act` lands. One process holds one selection.
const PROGRAM: &str = r#"
selected=default
while IFS= read -r line; do
    id=${line##*'"id":'}; id=${id%%[,\}]*}
    case $line in
        *'"server/discover"'*) printf '{"jsonrpc":"2.0","result":{"supportedVersions":["2026-07-28"]},"id":%s\n' "$id}"; continue;;
        *'"initialize"'*) printf '{"jsonrpc":"2.0","result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}},"id":%s\n' "$id}"; continue;;
        *'"later"'*) late=$line; continue;;
        *'"select"'*)
            selected=${line##*'"project":"'}; selected=${selected%%\"*}
            printf '{"jsonrpc":"2.0","result":{"content":[]},"id":%s\n' "$id}"
            [ -n "$late" ] || continue
            selected=${late##*'"project":"'}; selected=${selected%%\"*}
            id=${late##*'"id":'}; id=${id%%[,\}]*}; late=;;
        *'"act"'*) printf '%s\n' "$selected" >> "$1/landed";;
        *'"id"'*) ;;
        *) continue;;
    esac
    printf '{"jsonrpc":"2.0","result":{"content":[]},"id":%s\n' "$id}"
done
"#;

fn landed_in(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("own/landed")).unwrap_or_default();
    text.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn a_program_that_agents_share_holds_no_selection_of_one_of_them() {
    let files = files();
    let command = json!(["sh", files.path().join("own/server.sh"), files.path().join("own")]);
    let mut stage = Stage {
        firewall: Firewall::with(Setup {
            rego: Some(POLICY.to_owned()),
            way: Some(format!("command: {command}")),
            server: format!("    pack: {}\n", files.path().join("vendor.json").display()),
            ..Setup::default()
        }),
        log: Arc::default(),
        files,
    };
    // Two agents of the modern era are one process.
    assert!(stage.call_modern("", "select", "7"));
    assert!(!stage.call_modern("", "act", ""), "another may have selected something since");
    // Each legacy session is a process of its own.
    let (a, b) = (stage.begin(""), stage.begin(""));
    assert!(stage.call(&a, "select", "8") && stage.call(&b, "select", "7"));
    assert!(!stage.call(&a, "act", "") && stage.call(&b, "act", ""));
    stage.firewall.stop();
    assert_eq!(landed_in(stage.files.path()), ["7"]);
}

/// Runs `bartizan wrap` with `server`, and gives the answers to `lines`, one for each.
fn wrap(files: &Path, server: &[&str], lines: &[String]) -> Vec<Value> {
    let answered = |line: &String| usize::from(line.contains("\"id\""));
    let lines: Vec<_> = lines.iter().map(|line| (line.clone(), answered(line))).collect();
    wrap_with(files, server, &lines)
}

/// Runs `bartizan wrap` with `server`. The number says for how many answers to wait before the next
/// line.
fn wrap_with(files: &Path, server: &[&str], lines: &[(String, usize)]) -> Vec<Value> {
    let mut wrapped = Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .arg("wrap")
        .args(["--policy", files.join("policy").to_str().unwrap()])
        .args(["--pack", files.join("vendor.json").to_str().unwrap()])
        .args(["--state", files.join("state").to_str().unwrap()])
        .args(server)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = wrapped.stdin.take().unwrap();
    let mut from = BufReader::new(wrapped.stdout.take().unwrap());
    let mut answers = Vec::new();
    for (line, waits) in lines {
        to.write_all(format!("{line}\n").as_bytes()).unwrap();
        for _ in 0..*waits {
            let mut answer = String::new();
            from.read_line(&mut answer).unwrap();
            answers.push(serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer:?}")));
        }
    }
    drop(to);
    assert!(wrapped.wait().unwrap().success());
    answers
}

fn id_of(line: &str) -> Value {
    serde_json::from_str::<Value>(line).unwrap()["id"].clone()
}

fn refused(answers: &[Value]) -> Vec<bool> {
    answers.iter().map(|answer| answer.get("error").is_some()).collect()
}

#[test]
fn a_program_of_one_agent_holds_its_selection_in_every_revision() {
    let files = files();
    let (folder, script) = (files.path().join("own"), files.path().join("own/server.sh"));
    let lines = [("act", ""), ("select", "7"), ("act", ""), ("select", "8"), ("act", "")];
    let lines = lines.map(|(tool, project)| call(tool, project, &meta()));
    let answers = wrap(
        files.path(),
        &["--", "sh", script.to_str().unwrap(), folder.to_str().unwrap()],
        &lines,
    );
    assert_eq!(refused(&answers), [true, false, false, false, true]);
    assert_eq!(landed_in(files.path()), ["7"]);
}

#[test]
fn a_program_may_carry_out_selections_in_any_order() {
    let cancelled = |line: &str| {
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": id_of(line), "_meta": meta()}})
        .to_string()
    };
    for cancels in [false, true] {
        let files = files();
        let (folder, script) = (files.path().join("own"), files.path().join("own/server.sh"));
        let of = |tool, project| (call(tool, project, &meta()), 1);
        let later = call("later", "8", &meta());
        let mut lines = vec![(later.clone(), 0)];
        if cancels {
            lines.push((cancelled(&later), 0));
        }
        lines.extend([of("select", "7"), of("act", "")]);
        // Answered after `later` was: that answer comes too, unless it was cancelled.
        lines.push((call("other", "", &meta()), if cancels { 1 } else { 2 }));
        lines.extend([of("act", ""), of("select", "7"), of("act", "")]);
        let answers = wrap_with(
            files.path(),
            &["--", "sh", script.to_str().unwrap(), folder.to_str().unwrap()],
            &lines,
        );
        let ids: Vec<Value> = lines
            .iter()
            .filter(|(line, waits)| *waits > 0 && line.contains("\"act\""))
            .map(|(line, _)| id_of(line))
            .collect();
        let acts = ids.iter().map(|id| answers.iter().find(|it| it["id"] == *id).unwrap().clone());
        let expected = [true, true, false];
        assert_eq!(refused(&acts.collect::<Vec<_>>()), expected, "{cancels}: {answers:#?}");
        assert_eq!(answers.iter().any(|it| it["id"] == id_of(&later)), !cancels);
        assert_eq!(landed_in(files.path()), ["7"]);
    }
}

/// The messages that begin a session on a pipe.
fn beginning() -> [String; 2] {
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"},
    }});
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    [initialize.to_string(), ready.to_string()]
}

#[test]
fn a_modern_call_in_a_session_leaves_its_selection_unknown() {
    let (log, files) = (Arc::<Mutex<ServerLog>>::default(), files());
    let of_server = Arc::clone(&log);
    // A server that carries out whatever comes in its one session.
    let server = RecordingUpstream::start(Box::new(move |received| {
        serve(&of_server, true, "s-1", &received.body)
    }));
    let mut lines = beginning().to_vec();
    lines.extend([
        call("select", "7", &json!({})),
        call("select", "8", &meta()),
        call("act", "", &json!({})),
        call("act", "", &meta()),
    ]);
    let answers = wrap(files.path(), &["--url", &server.url()], &lines);
    assert_eq!(refused(&answers), [false, false, false, true, true]);
    assert_eq!(log.lock().unwrap().landed, [""; 0]);
}

#[test]
fn a_session_that_is_begun_again_for_a_client_on_a_pipe_holds_nothing() {
    let (log, files) = (Arc::<Mutex<ServerLog>>::default(), files());
    let of_server = Arc::clone(&log);
    log.lock().unwrap().forgets = Some("s-1".into());
    let server = RecordingUpstream::start(Box::new(move |received| {
        let session = received.header("mcp-session-id").first().copied().unwrap_or_default();
        if received.head.starts_with("post") {
            serve(&of_server, true, session, &received.body)
        } else {
            answer("405 Method Not Allowed", "", b"")
        }
    }));
    let mut lines = beginning().to_vec();
    // Each call with an id of its own: an id is taken once in a session.
    let round = || [call("select", "7", &json!({})), call("act", "", &json!({}))];
    lines.extend([round(), round()].concat());
    let answers = wrap(files.path(), &["--url", &server.url()], &lines);
    assert_eq!(refused(&answers), [false, false, true, false, false]);
    // The first `act` reached the session that was forgotten, and no other.
    let acts = server
        .received()
        .into_iter()
        .filter(|it| String::from_utf8_lossy(&it.body).contains("\"act\""));
    let sessions: Vec<_> = acts.map(|it| it.header("mcp-session-id").concat()).collect();
    assert_eq!(sessions, ["s-1", "s-2"]);
    assert_eq!(log.lock().unwrap().landed, ["7"]);
}
