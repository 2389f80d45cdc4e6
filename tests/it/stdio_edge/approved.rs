//! Calls on the pipe of `bartizan wrap` that wait for approval, granted with the command line.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::firewall::wait;

const TOKEN: &str = "0123456789abcdef-of-alice-0123456789";
const POLICY: &str = r#"package mcp

permit contains {"code": "all", "message": "all"}

hold contains {"code": "review", "message": "a second pair of eyes", "approvers": ["on-call"]} if {
	input.tool.name == "publish"
}
"#;
/// Answers each request with the line that it got.
const SERVER: &str = r#"while IFS= read -r line; do id=${line#*'"id":'}; id=${id%%[,\}]*}; printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[]}}\n' "$id"; done"#;

/// `bartizan wrap` before a program, with its client's ends of the pipes.
struct Wrapped {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    admin: String,
}

impl Wrapped {
    fn start(folder: &Path) -> Self {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let policy = write("policy.rego", POLICY);
        write("alice.token", TOKEN);
        let token = format!("${{file:{}}}", folder.join("alice.token").display());
        let approvals = format!(
            "progress: 100ms\napprovers:\n  - {{id: alice, groups: [on-call], token: '{token}'}}\n"
        );
        let approvals = write("approvals.yaml", &approvals);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let admin = format!("127.0.0.1:{port}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_bartizan"))
            .args(["wrap", "--admin", &admin, "--approvals"])
            .arg(approvals)
            .arg("--state")
            .arg(folder.join("state"))
            .arg("--policy")
            .arg(policy)
            .args(["--", "sh", "-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from, admin }
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.to.as_mut().unwrap(), "{message}").unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The next message that reports no progress, and how often there was some.
    fn answer(&mut self) -> (Value, usize) {
        let mut told = 0;
        loop {
            let message = self.receive();
            if message["method"] != "notifications/progress" {
                return (message, told);
            }
            told += 1;
        }
    }

    fn approvals(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_bartizan"))
            .arg("approvals")
            .args(arguments)
            .args(["--admin", &format!("http://{}", self.admin)])
            .env("BARTIZAN_APPROVER_TOKEN", TOKEN)
            .output()
            .unwrap()
    }

    /// The call that waits, once one does.
    fn held(&self) -> Value {
        wait("a held call", || {
            let listed = self.approvals(&["list", "--json"]).stdout;
            let listed: Value = serde_json::from_slice(&listed).ok()?;
            listed["approvals"].as_array()?.first().cloned()
        })
    }

    fn answers(&self, verdict: &str, hold: &Value) {
        let id = hold["id"].as_str().unwrap();
        let done = self.approvals(&[verdict, id, "--reason", "seen by a test"]);
        assert!(done.status.success(), "{done:?}");
    }

    /// Closes its input, and waits for its end.
    fn end(mut self) -> Option<i32> {
        drop(self.to.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        drop(self.child.kill());
    }
}

fn call(id: u32, token: Option<&str>) -> Value {
    let mut params = json!({"name": "publish", "arguments": {"id": id}});
    if let Some(token) = token {
        params["_meta"] = json!({"progressToken": token});
    }
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

#[test]
fn a_call_on_the_pipe_of_wrap_waits_for_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrapped = Wrapped::start(folder.path());
    wrapped.send(&call(1, Some("t")));
    let hold = wrapped.held();
    assert_eq!((&hold["target"], &hold["server"]), (&json!("publish"), &json!("sh")), "{hold}");
    // Others do not wait for it.
    wrapped.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}));
    let (answer, before) = wrapped.answer();
    assert_eq!(answer["id"], 2, "{answer}");
    wrapped.answers("grant", &hold);
    let (answer, told) = wrapped.answer();
    assert_eq!((&answer["id"], answer["result"].is_object()), (&json!(1), true), "{answer}");
    assert!(before + told > 0, "it was told that it waits");

    wrapped.send(&call(3, None));
    let hold = wrapped.held();
    wrapped.answers("refuse", &hold);
    let (answer, told) = wrapped.answer();
    assert_eq!((&answer["id"], &answer["error"]["code"], told), (&json!(3), &json!(-31004), 0));
    assert_eq!(wrapped.end(), Some(0), "the client has ended");
}

#[test]
fn without_approvers_wrap_has_no_listener_and_says_that_nobody_can_answer() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.rego");
    std::fs::write(&policy, POLICY).unwrap();
    let wrap = |further: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bartizan"))
            .arg("wrap")
            .args(further)
            .arg("--state")
            .arg(folder.path().join("state"))
            .arg("--policy")
            .arg(&policy)
            .args(["--", "sh", "-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have ended already.
        drop(writeln!(child.stdin.take().unwrap(), "{}", call(1, Some("t"))));
        child.wait_with_output().unwrap()
    };
    let done = wrap(&[]);
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(answer["error"]["message"], "Approval required", "{answer}");
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(said.matches("nobody can answer").count(), 1, "{said}");

    let done = wrap(&["--admin", "127.0.0.1:7071"]);
    assert_eq!((done.status.code(), done.stdout.len()), (Some(64), 0), "an address for nobody");
    let done = wrap(&["--approvals", "no.yaml"]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!((done.status.code(), done.stdout.len()), (Some(64), 0), "{said}");
    assert!(said.contains("--approvals: it cannot be read: "), "{said}");
}
