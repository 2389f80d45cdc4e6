//! The whole program: a held call goes to a chat and is granted by the link there, and no log names
//! the chat's address.

use super::*;
use crate::failures::Program;
use crate::firewall::{
    self, LEGACY, RecordingUpstream, journal_text, json as ok, odd_answer, post,
};

const POLICY: &str = r#"package mcp

hold contains {"code": "review", "message": "look at it", "approvers": ["on-call"], "ttl": "10m"} if {
	input.method == "tools/call"
}

permit contains {"code": "all", "message": "all"}
"#;

/// A configuration with a webhook whose receiver is at `receiver`.
fn config(upstream: &str, receiver: SocketAddr) -> String {
    format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: state\npolicy: {{paths: [policy]}}\n\
         servers:\n  flags:\n    path: /mcp\n    url: {upstream}\n    refusal: tool_result\n\
         approvals:\n  wait: 100ms\n  public_url: https://approvals.example.com/b/\n\
         \x20 approvers: [{{id: alice, groups: [on-call], token: {ALICE}}}]\n\
         \x20 webhooks:\n    - name: chat\n      url: http://{receiver}{PATH}?key=s3cr3tquery\n\
         \x20     template: slack\n      groups: [on-call]\n      callback: {{approver: chat}}\n"
    )
}

fn start(folder: &std::path::Path, receiver: SocketAddr) -> (Program, RecordingUpstream) {
    let upstream = RecordingUpstream::start(Box::new(|got| ok(&odd_answer(&got.body))));
    std::fs::create_dir_all(folder.join("policy")).unwrap();
    std::fs::write(folder.join("policy/hold.rego"), POLICY).unwrap();
    let program = Program::run(folder, "", &config(&upstream.url(), receiver));
    (program, upstream)
}

fn call(program: &Program) -> firewall::Reply {
    let mut client = firewall::Client::connect(program.addresses().0);
    client.send(&post(firewall::call(1, "set_rollout", "{\"key\":\"a\"}"), LEGACY));
    client.reply()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_granted_by_the_link_in_a_chat() {
    let receiver = Receiver::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let (program, upstream) = start(folder.path(), receiver.address);
    let told = call(&program);
    assert!(told.text().contains("pending") && upstream.received().is_empty(), "{}", told.text());
    let message = receiver.request(1).await.json();
    let buttons = message["blocks"].as_array().unwrap().last().unwrap()["elements"].clone();
    let url = buttons[0]["url"].as_str().unwrap();
    let path = url.strip_prefix("https://approvals.example.com/b").unwrap();
    let mut client = Client::connect(program.addresses().1).await;
    let body = "reason=Ann";
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n";
    client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{form}\r\n{body}").as_bytes()).await;
    assert_eq!(client.reply().await.status, 200);
    let passed = call(&program);
    assert_eq!((passed.status, upstream.received().len()), (200, 1), "{}", passed.text());
    let held = call(&program);
    assert!(held.text().contains("pending"), "one grant, one call: {}", held.text());
    let said = program.said();
    assert_eq!(program.stop(), Some(0), "{said}");
    let key = folder.path().join("state/callback.key");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&key).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let journal = journal_text(&folder.path().join("state"));
    assert!(journal.contains("\"by\":\"chat\"") && !journal.contains(path), "{journal}");
}

/// The receiver is away, answers with an error, a redirect, and then goes on: the log says so, and
/// names neither path nor query, nor a link.
#[tokio::test(flavor = "multi_thread")]
async fn no_log_and_no_record_names_the_address_of_a_webhook() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let failing = Receiver::start(&["404 E"]);
    let moving = Receiver::start(&["302 E\r\nLocation: http://127.0.0.1:1/s3cr3tmoved"]);
    for receiver in [closed, failing.address, moving.address] {
        let folder = tempfile::tempdir().unwrap();
        let (program, _upstream) = start(folder.path(), receiver);
        call(&program);
        let said = wait("that it fails", || {
            let said = program.said();
            said.contains("a webhook fails").then_some(said)
        });
        assert!(said.contains("\"webhook\":\"chat\""), "{said}");
        let state = folder.path().join("state");
        wait("that the journal says so", || {
            journal_text(&state).contains("`chat` fails: ").then_some(())
        });
        let everything = format!("{said}{}", journal_text(&folder.path().join("state")));
        for secret in ["s3cr3t", "services", "callback/"] {
            assert!(!everything.contains(secret), "{secret}: {everything}");
        }
        program.stop();
    }
}
