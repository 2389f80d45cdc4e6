//! The policy workbench: replay, tests with coverage, lints, the schema, learning.
//!
//! Journals are written by a real gate with a real policy, so what is replayed and learnt from is
//! what the program records.

#![expect(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, reason = "tests")]

mod learn;
mod held;
mod lint;
mod names;
mod replay;
mod testing;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bartizan::policy::embedded;
use bartizan::policy::load::{PolicyFiles, load};
use bartizan::policy::recorded::Known;
use bartizan_audit::journal::{Journal, JournalConfig};
use bartizan_audit::journal_directory;
use bartizan_gate::duty::pdp::Inputs;
use bartizan_gate::evidence::record::Now;
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::question::pack::Pack;
use bartizan_gate::session::{Arrival, Gate, GateConfig, Mode, Protected, RefusalForm, Session};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_gate::wire::protocol::Transport;
use bartizan_rego::{Entrypoints, EvalLimits, Policy, RegoPdp};
use serde_json::{Value, json};

/// A directory of its own, with policies and journals.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and says where it is.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs the program here: exit code, standard output, standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
        let output = command
            .args(args)
            .env_remove("BARTIZAN_CONFIG")
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The same for output in JSON.
    fn json(&self, args: &[&str]) -> (i32, Value) {
        let (code, out, err) = self.run(args);
        let value = serde_json::from_str(&out);
        (code, value.unwrap_or_else(|error| panic!("{args:?}: {error}: {out}{err}")))
    }

    /// Writes the journal of one conversation with the flag service below `state`.
    fn record(&self, state: &str, policy: &[PathBuf], world: &World, messages: &[Value]) {
        let gate = GateConfig {
            mode: world.mode,
            frame: FrameLimits::default(),
            in_flight_max: 10_000,
            buckets_max: 64,
            boot: "boot".into(),
            digest_key: [7; 32],
        };
        let pdp = Arc::new(RegoPdp::strict(compile(policy), 1));
        let gate = Gate::new(gate, pdp).recording(world.inputs);
        let directory = journal_directory(&self.path(state));
        fs::create_dir_all(&directory).unwrap();
        let settings = JournalConfig { reserve_bytes: 0, ..JournalConfig::new(&directory) };
        let (journal, _) = Journal::open(&settings, "boot", now(0)).unwrap();
        let server = Arc::new(Protected::new(server(), RefusalForm::Error));
        let mut session = Session::new(Arc::new(principal()), server, Transport::Stdio);
        for (at, message) in (1..).zip(messages) {
            let raw = message.to_string().into();
            let arrival = Arrival { raw, ..Arrival::default() };
            drop(session.client_frame(&gate, &arrival, now(at)).record(&journal).unwrap());
        }
    }
}

/// How a journal is written.
struct World {
    mode: Mode,
    inputs: Inputs,
}

fn world(inputs: Inputs) -> World {
    World { mode: Mode::Enforce, inputs }
}

fn now(step: u64) -> Now {
    let uptime = Duration::from_millis(step);
    Now { uptime, wall: SystemTime::UNIX_EPOCH + Duration::from_hours(500_000) + uptime }
}

fn compile(paths: &[PathBuf]) -> Policy {
    let files = PolicyFiles { paths: paths.to_vec(), ..PolicyFiles::default() };
    let loaded = load(&files).unwrap_or_else(|problems| panic!("{problems:#?}"));
    Policy::compile(&loaded.serving, &Entrypoints::default(), &EvalLimits::default())
        .unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn principal() -> Principal {
    Principal {
        id: "agent-7".into(),
        kind: "agent".into(),
        groups: vec!["testers".into()],
        ..Principal::default()
    }
}

fn server() -> Server {
    let pack = Pack::read(embedded::pack("flag-service").unwrap().as_bytes()).unwrap();
    Server {
        name: "flags".into(),
        environment: Some("staging".into()),
        pack: Some(Arc::new(pack)),
        ..Server::default()
    }
}

/// What the configuration of that server says.
fn known() -> Known {
    let servers = [("flags".to_owned(), server())].into();
    Known { servers, principal: Some(principal()), ..Known::default() }
}

const CONFIG: &str = "principal: {id: agent-7, kind: agent, groups: [testers]}
servers:
  flags:
    url: http://127.0.0.1:9/mcp
    headers: {x-flag-service-key: \"${env:A_KEY_THAT_NOBODY_SET}\"}
    pack: flag-service
    environment: staging
";

fn message(id: u64, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn call(id: u64, tool: &str, arguments: &Value) -> Value {
    message(id, "tools/call", &json!({"name": tool, "arguments": arguments}))
}

/// A conversation with something of everything.
fn conversation() -> Vec<Value> {
    let client = json!({"name": "c", "version": "1"});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    let mut messages = vec![
        message(1, "initialize", &hello),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        message(2, "tools/list", &json!({})),
        call(3, "get_flag", &json!({"key": "checkout", "environment": "staging"})),
        call(4, "update_flag", &json!({"key": "checkout", "environment": "staging"})),
        call(5, "update_flag", &json!({"key": "checkout", "environment": "production"})),
        call(6, "update_flag", &json!({"key": "checkout"})),
        call(7, "delete_flag", &json!({"key": "checkout"})),
        call(8, "no_such_tool", &json!({"token": "t0ken", "key": "prod-x"})),
        message(9, "resources/read", &json!({"uri": "file:///a"})),
        message(10, "prompts/get", &json!({"name": "p", "arguments": {"a": "b"}})),
        message(11, "completion/complete", &json!({"ref": {"type": "ref/prompt", "name": "p"}})),
        message(12, "vendor/reindex", &json!({"all": true})),
        message(13, "tasks/get", &json!({"taskId": "t-1"})),
    ];
    // More writes than the baseline lets through at once.
    let write = json!({"key": "k", "environment": "staging"});
    messages.extend((20..32).map(|id| call(id, "update_flag", &write)));
    messages
}
