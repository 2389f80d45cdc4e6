//! A panic inside a step ends the run: nothing more passes, and waiting requests are refused.
//! Another run that shares the gate and the journal continues.

use std::sync::atomic::Ordering;

use bartizan_edge::client::{ExitReason, StdioLimits, StdioUpstream};

use super::remote::{INITIALIZE, Reply, Server, events, json, legacy, result};
use super::support::{Run, file, limits, script, shared};

/// Answers all but the tool `slow`, and writes down all that it reads. The id is a call's last
/// member.
const SERVER: &str = r#"
while IFS= read -r line; do
    printf '%s\n' "$line" >> "$1/read"
    case $line in
        *'"slow"'*) ;;
        *'"id":'*) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$(echo "${line##*'"id":'}" | tr -d '}')";;
    esac
done
"#;

fn call(tool: &str, id: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{"name":"{tool}"}},"id":{id}}}"#)
}

/// What a client sees at the end of a run that a panic closed while call 1 waited.
async fn assert_closed(mut run: Run) {
    let [refusal] = &*run.rest().await else { panic!("one refusal") };
    assert!(refusal.contains(r#""id":1,"error":{"code":-31006"#), "{refusal}");
    let lines = run.sink.lines();
    let failed = lines.iter().filter(|line| line.ends_with("UpstreamFailed")).count();
    assert_eq!(failed, 1, "{lines:?}");
    assert_eq!(run.reason().await, ExitReason::SessionClosed);
}

#[tokio::test]
async fn to_a_child() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let gate = shared();
    let [mut own, mut other] = folders.each_ref().map(|folder| {
        let spec = script(SERVER, folder.path());
        let upstream = StdioUpstream::Child { spec: Box::new(spec), limits: Box::new(limits()) };
        Run::of((gate.0.clone(), gate.1.clone()), upstream, StdioLimits::default())
    });
    let [read, _] = folders.each_ref().map(|folder| folder.path().join("read"));
    own.send(call("slow", 1)).await;
    file(&read, |text| text.lines().count() == 1).await;
    own.send(call("panics", 2)).await;
    own.send(call("get", 3)).await;
    assert_closed(own).await;
    other.send(call("get", 1)).await;
    assert_eq!(other.receive().await.unwrap(), result("1"));
    assert_eq!(std::fs::read_to_string(&read).unwrap().lines().count(), 1, "nothing else arrived");
}

#[tokio::test]
async fn to_a_child_whose_answer_cannot_be_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let wait = r#"read -r line; printf '%s\n' "$line" > "$1/read"
        until [ -e "$1/go" ]; do sleep 0.01; done
        printf '{"jsonrpc":"2.0","id":1,"result":{}}\n'; cat > "$1/rest""#;
    let mut run = Run::child(script(wait, folder.path()), limits());
    run.send(call("get", 1)).await;
    file(&folder.path().join("read"), |text| !text.is_empty()).await;
    run.sink.panicking.store(true, Ordering::Relaxed);
    std::fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(run.rest().await, Vec::<String>::new(), "no record, no answer");
    assert_eq!(run.reason().await, ExitReason::SessionClosed);
}

#[tokio::test]
async fn to_a_server_over_http() {
    let server = Server::start(Box::new(|received| {
        legacy(received).unwrap_or_else(|| match &*received.name() {
            "POST tools/call" if received.body().contains("slow") => {
                Reply::Held(events(": it takes long\n\n"))
            }
            _ => json("200 OK", "", &result("1")),
        })
    }))
    .await;
    let gate = shared();
    let client = || server.client_of((gate.0.clone(), gate.1.clone()));
    let (mut own, mut other) = (client(), client());
    for run in [&mut own, &mut other] {
        run.send(INITIALIZE).await;
        assert!(run.receive().await.unwrap().contains("2025-06-18"));
    }
    own.send(call("slow", 1)).await;
    server.until(|names| names.len() == 3).await;
    own.send(call("panics", 2)).await;
    own.send(call("get", 3)).await;
    assert_closed(own).await;
    other.send(call("get", 1)).await;
    assert_eq!(other.receive().await.unwrap(), result("1"));
    assert_eq!(
        server.names(),
        ["POST initialize", "POST initialize", "POST tools/call", "POST tools/call"],
        "the closed session sends nothing more, not even its own end"
    );
}
