//! A client on stdio, a server on stdio.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bartizan_edge::child::process::StopLevel;
use bartizan_edge::child::{ChildLimits, ChildSpec, SpawnError};
use bartizan_edge::client::{ExitReason, StdioLimits, StdioUpstream};
use bartizan_gate::evidence::record::AuditRecord;
use tempfile::TempDir;

use super::support::{LONG, Run, file, limits, script};

/// Answers each request with an empty result, and writes down all that it reads. The id must be
/// the last member of a request.
const ANSWERING: &str = r#"
while IFS= read -r line; do
    printf '%s\n' "$line" >> "$1/read"
    case $line in
        *'"id":'*) id=${line##*'"id":'}; printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id";;
    esac
done
"#;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn ping(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"ping","id":{id}}}"#)
}

fn pong(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","result":{{}},"id":{id}}}"#)
}

#[tokio::test]
async fn answers_pass_byte_for_byte_and_requests_as_the_same_tokens() {
    // Odd spacing, order, escapes, numbers and unknown members.
    let answer = "{ \"result\" : {\"n\":123456789012345678901234567890,\"f\":1.50e+3 ,\
                  \"s\":\"\\u00e9\\/\\ud83d\\ude00\", \"z\":[ ],\"a\":-0.0}\t,\"_x\":null,\"id\":1,\
                  \"jsonrpc\":\"2.0\" } ";
    let request = "{  \"params\": {\"name\":\"t\" , \"arguments\":{\"b\":1e2,\"a\":\"\\u0041\\n\",\
                   \"big\":900719925474099312345}, \"extra\":[1 , 2]},\t\"id\":1, \
                   \"method\":\"tools/call\",\"jsonrpc\":\"2.0\"}";
    let folder = folder();
    std::fs::write(folder.path().join("answer"), format!("{answer}\n")).unwrap();
    let child =
        script(r#"read -r l; printf '%s\n' "$l" > "$1/read"; cat "$1/answer" -"#, folder.path());
    let mut run = Run::child(child, limits());
    run.send(request).await;
    assert_eq!(run.receive().await.unwrap(), answer);
    let read = file(&folder.path().join("read"), |text| text.ends_with('\n')).await;
    assert_eq!(
        read,
        "{\"params\":{\"name\":\"t\",\"arguments\":{\"b\":1e2,\"a\":\"\\u0041\\n\",\
         \"big\":900719925474099312345},\"extra\":[1,2]},\"id\":1,\"method\":\"tools/call\",\
         \"jsonrpc\":\"2.0\"}\n"
    );
    run.close().await;
    assert_eq!(run.reason().await, ExitReason::ClientClosed);
}

#[tokio::test]
async fn notifications_and_answers_keep_their_order_and_are_recorded() {
    let folder = folder();
    let mut run = Run::child(script(ANSWERING, folder.path()), limits());
    run.send(ping("1")).await;
    run.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    run.send(ping("\"b\"")).await;
    assert_eq!(run.receive().await.unwrap(), pong("1"));
    assert_eq!(run.receive().await.unwrap(), pong("\"b\""));
    let read = file(&folder.path().join("read"), |text| text.lines().count() == 3).await;
    let order: Vec<bool> = read.lines().map(|line| line.contains("initialized")).collect();
    assert_eq!(order, [false, true, false]);
    run.close().await;
    assert_eq!(run.rest().await, Vec::<String>::new());
    let mut lines = run.sink.lines();
    lines.sort();
    assert_eq!(
        lines,
        [
            "Intent notifications/initialized -",
            "Intent ping -",
            "Intent ping -",
            "Outcome notifications/initialized Accepted",
            "Outcome ping Ok",
            "Outcome ping Ok"
        ]
    );
}

#[tokio::test]
async fn a_late_answer_of_a_child_is_not_given_to_another_request() {
    // F12: the id of a cancelled call, used again.
    let late = r#"
read -r one; read -r cancel; read -r two; printf '%s\n%s\n%s\n' "$one" "$cancel" "$two" > "$1/read"
printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"AKIAQYLPMN5HFIQR7XYA"}}\n'
printf '{"jsonrpc":"2.0","result":{"s":"AKIAQYLPMN5HFIQR7XYA"},"id":1}\n'
printf '{"jsonrpc":"2.0","result":{},"id":2}\n'
cat > /dev/null
"#;
    let folder = folder();
    let mut run = Run::child(script(late, folder.path()), limits());
    let get = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"guarded"},"id":1}"#;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    for line in [get, cancel, &ping("1")] {
        run.send(line).await;
    }
    let refused = run.receive().await.unwrap();
    assert!(refused.contains("-32600") && refused.contains("already used"), "{refused}");
    run.send(ping("2")).await;
    let notice = run.receive().await.unwrap();
    assert!(notice.contains(r#""data":"[redacted]""#), "{notice}");
    assert_eq!(run.receive().await.unwrap(), pong("2"));
    let read = file(&folder.path().join("read"), |text| text.lines().count() == 3).await;
    assert_eq!(read.lines().collect::<Vec<_>>(), [get, cancel, &ping("2")]);
    run.close().await;
    assert_eq!(run.rest().await, Vec::<String>::new());
    assert!(run.sink.lines().contains(&"Drop tools/call -".to_owned()));
}

#[tokio::test]
async fn what_some_reader_of_lines_would_split_never_reaches_the_child() {
    // Threats C3, C5, C7; `(line, whether it may pass)`.
    let nested = "{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\
                  \"arguments\":{\"x\":\r{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":\
                  {\"name\":\"forbidden\"},\"id\":2}\r}},\"id\":1}";
    let cases: &[(&str, bool)] = &[
        (nested, false),
        ("{\"jsonrpc\":\"2.0\",\r\"method\":\"ping\",\"id\":3}", false),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":4}\0", false),
        ("\u{1e}{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":5}", false),
        ("\u{feff}{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":6}", false),
        ("Content-Length: 40", false),
        ("[{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":7}]", false),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":8}{}", false),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":9}\r", true),
        (
            "{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\
             \"arguments\":{\"x\":\"\u{2028}\u{2029}\"}},\"id\":10}",
            true,
        ),
    ];
    let folder = folder();
    let mut run = Run::child(script(ANSWERING, folder.path()), limits());
    let mut passed = 0;
    for (line, passes) in cases {
        run.send(line).await;
        let answer = run.receive().await.unwrap();
        assert_eq!(answer.contains("\"result\""), *passes, "{line:?}: {answer}");
        assert!(*passes || answer.contains("\"id\":null"), "{line:?}: {answer}");
        passed += usize::from(*passes);
    }
    let read = std::fs::read_to_string(folder.path().join("read")).unwrap();
    assert_eq!(read.lines().count(), passed, "{read:?}");
    let split = |character: char| {
        character != '\n' && (character < ' ' || matches!(character, '\u{2028}' | '\u{2029}'))
    };
    assert!(!read.contains(split) && !read.contains("forbidden"), "{read:?}");
    assert!(read.contains(r#""x":"\u2028\u2029""#), "{read:?}");
}

#[tokio::test]
async fn the_client_is_never_given_two_lines_for_one() {
    let folder = folder();
    let answer = "{\"jsonrpc\":\"2.0\",\r\"result\":{\"x\":\"\u{2028}\"},\"id\":1}";
    std::fs::write(folder.path().join("answer"), format!("{answer}\n")).unwrap();
    let mut run = Run::child(script(r#"read -r l; cat "$1/answer" -"#, folder.path()), limits());
    run.send(ping("1")).await;
    let expected = r#"{"jsonrpc":"2.0","result":{"x":"\u2028"},"id":1}"#;
    assert_eq!(run.receive().await.unwrap(), expected);
}

#[tokio::test]
async fn refusals_are_answered_and_the_child_sees_nothing() {
    let folder = folder();
    let mut run = Run::child(script(ANSWERING, folder.path()), limits());
    run.send(r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"forbidden"},"id":1}"#)
        .await;
    let refusal = run.receive().await.unwrap();
    assert!(refusal.contains(r#""id":1"#) && refusal.contains("-31001"), "{refusal}");
    // Nobody waits for an answer to what answers nothing that was asked.
    run.send(r#"{"jsonrpc":"2.0","result":{},"id":77}"#).await;
    run.sink.refusing.store(true, Ordering::Relaxed);
    run.send(ping("2")).await;
    let refusal = run.receive().await.unwrap();
    assert!(refusal.contains(r#""id":2"#) && refusal.contains("-31003"), "{refusal}");
    run.sink.refusing.store(false, Ordering::Relaxed);
    run.send(ping("2")).await;
    assert_eq!(run.receive().await.unwrap(), pong("2"));
    assert_eq!(
        std::fs::read_to_string(folder.path().join("read")).unwrap(),
        format!("{}\n", ping("2"))
    );
}

#[tokio::test]
async fn a_line_of_the_client_without_end_is_refused_and_skipped() {
    let folder = folder();
    let child = script(ANSWERING, folder.path());
    let upstream = StdioUpstream::Child { spec: Box::new(child), limits: Box::new(limits()) };
    let bounded = StdioLimits { line_bytes_max: 1000, ..StdioLimits::default() };
    let mut run = Run::start(upstream, bounded);
    run.send("x".repeat(1 << 20)).await;
    let refusal = run.receive().await.unwrap();
    assert!(refusal.contains("Message too large"), "{refusal}");
    run.send(ping("1")).await;
    assert_eq!(run.receive().await.unwrap(), pong("1"));
}

#[tokio::test]
async fn a_child_that_writes_a_line_without_end_is_killed() {
    let folder = folder();
    let child = script("read -r l; yes | tr -d '\\n'", folder.path());
    let mut bounded = limits();
    bounded.frame.document.bytes_max = 64 << 10;
    let mut run = Run::child(child, bounded);
    run.send(ping("1")).await;
    let error = run.receive().await.unwrap();
    assert!(error.contains(r#""id":1"#) && error.contains("-31005"), "{error}");
    assert_eq!(run.rest().await, Vec::<String>::new());
    match run.reason().await {
        ExitReason::ChildEnded(exit) => assert!(matches!(exit.level, StopLevel::Kill(_)), "{exit}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_flood_on_standard_error_holds_nothing_up() {
    let folder = folder();
    let child = script(
        &format!(
            "yes 'a line of a flood' | head -n 300000 >&2; yes | head -c 9000000 | tr -d '\\n' >&2\n{ANSWERING}"
        ),
        folder.path(),
    );
    let mut run = Run::child(child, limits());
    run.send(ping("1")).await;
    assert_eq!(run.receive().await.unwrap(), pong("1"));
}

#[tokio::test]
async fn a_child_that_dies_fails_what_is_in_flight() {
    let folder = folder();
    let mut run = Run::child(script("read -r l; read -r l; exit 3", folder.path()), limits());
    run.send(ping("1")).await;
    run.send(ping("\"two\"")).await;
    let errors = run.rest().await;
    assert_eq!(errors.len(), 2, "{errors:?}");
    for (error, id) in errors.iter().zip([r#""id":1"#, r#""id":"two""#]) {
        assert!(error.contains(id) && error.contains("-31005"), "{error}");
    }
    assert_eq!(run.sink.lines().iter().filter(|line| line.ends_with("UpstreamFailed")).count(), 2);
    let reason = run.reason().await;
    assert!(reason.is_failure());
    assert!(reason.to_string().contains("exit status: 3"), "{reason}");
}

#[tokio::test]
async fn what_is_no_frame_never_reaches_the_client() {
    let folder = folder();
    let noise = r#"
read -r l
echo 'Server running on stdio'
echo '{"level":"info","msg":"started"}'
echo '[{"jsonrpc":"2.0","result":{},"id":1}]'
echo '{"jsonrpc":"2.0","result":{},"id":2}'
echo '{"jsonrpc":"2.0","result":{},"result":{},"id":2}'
printf '\033[31mred\n'
echo '{"jsonrpc":"2.0","result":{},"id":1}'
echo '{"jsonrpc":"2.0","result":{},"id":1}'
cat
"#;
    let mut run = Run::child(script(noise, folder.path()), limits());
    run.send(ping("1")).await;
    assert_eq!(run.receive().await.unwrap(), pong("1"));
    run.close().await;
    assert_eq!(run.rest().await, Vec::<String>::new());
}

#[tokio::test]
async fn requests_of_the_child_are_judged() {
    let folder = folder();
    let asking = r#"
echo '{"jsonrpc":"2.0","method":"sampling/createMessage","params":{"messages":[],"maxTokens":1},"id":"s"}'
read -r l; printf '%s\n' "$l" >> "$1/read"
echo '{"jsonrpc":"2.0","method":"roots/list","id":"r"}'
read -r l; printf '%s\n' "$l" >> "$1/read"
cat > /dev/null
"#;
    let mut run = Run::child(script(asking, folder.path()), limits());
    let asked = run.receive().await.unwrap();
    assert_eq!(asked, r#"{"jsonrpc":"2.0","method":"roots/list","id":"r"}"#);
    run.send(r#"{"jsonrpc":"2.0","result":{"roots":[]},"id":"r"}"#).await;
    let read = file(&folder.path().join("read"), |text| text.lines().count() == 2).await;
    let (refusal, answer) = read.trim_end().split_once('\n').unwrap();
    assert!(refusal.contains(r#""id":"s""#) && refusal.contains("-31001"), "{refusal}");
    assert_eq!(answer, r#"{"jsonrpc":"2.0","result":{"roots":[]},"id":"r"}"#);
}

#[tokio::test]
async fn a_request_of_the_child_is_recorded_within_the_only_call() {
    let folder = folder();
    let asking = r#"
read -r l
echo '{"jsonrpc":"2.0","method":"roots/list","id":"r"}'
read -r l
echo '{"jsonrpc":"2.0","result":{},"id":1}'
cat > /dev/null
"#;
    let mut run = Run::child(script(asking, folder.path()), limits());
    run.sink.uptime.set(Duration::ZERO).unwrap();
    run.send(ping("1")).await;
    assert!(run.receive().await.unwrap().contains("roots/list"));
    run.send(r#"{"jsonrpc":"2.0","result":{"roots":[]},"id":"r"}"#).await;
    assert_eq!(run.receive().await.unwrap(), pong("1"));
    let kept = run.sink.kept();
    let of = |method: &str| {
        let named = |record: &&AuditRecord| record.method.as_deref() == Some(method);
        kept.iter().find(named).unwrap().clone()
    };
    assert!(of("ping").call.is_some());
    assert_eq!(of("roots/list").within, of("ping").call);
}

#[tokio::test]
async fn a_child_is_ended_in_order_with_all_that_it_started() {
    let folder = folder();
    let stubborn = r#"
trap 'echo term >> "$1/log"' TERM
sh -c 'trap "" TERM; while :; do sleep 1; done' & echo $! > "$1/grandchild"
echo "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}"
cat > /dev/null
echo eof >> "$1/log"
while :; do sleep 0.01; done
"#;
    let mut run = Run::child(script(stubborn, folder.path()), limits());
    assert!(run.receive().await.is_some(), "it is up");
    run.close().await;
    assert_eq!(run.reason().await, ExitReason::ClientClosed);
    assert_eq!(std::fs::read_to_string(folder.path().join("log")).unwrap(), "eof\nterm\n");
    let grandchild = std::fs::read_to_string(folder.path().join("grandchild")).unwrap();
    let process = format!("/proc/{}/stat", grandchild.trim());
    // The process that adopts the orphan may not have reaped it yet.
    let gone = |text: &str| text.is_empty() || text.contains(") Z ");
    file(process.as_ref(), gone).await;
}

#[tokio::test]
async fn calls_in_flight_may_finish_when_the_client_has_closed() {
    let folder = folder();
    let slow = r#"
read -r l
read -r l || while ! [ -e "$1/go" ]; do sleep 0.01; done
echo '{"jsonrpc":"2.0","result":{},"id":1}'
"#;
    let patient = ChildLimits { close_grace: Duration::ZERO, ..limits() };
    let mut run = Run::child(script(slow, folder.path()), patient);
    run.send(ping("1")).await;
    run.close().await;
    std::fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(run.receive().await.unwrap(), pong("1"));
    assert_eq!(run.reason().await, ExitReason::ClientClosed);
}

#[tokio::test]
async fn closing_fails_what_does_not_finish() {
    let folder = folder();
    let hasty = ChildLimits { drain_max: Duration::from_millis(50), ..limits() };
    let mut run = Run::child(script("echo up > \"$1/up\"; cat > /dev/null", folder.path()), hasty);
    run.send(ping("1")).await;
    file(&folder.path().join("up"), |text| !text.is_empty()).await;
    // The request must be on its way before the end.
    while run.sink.lines().is_empty() {
        tokio::task::yield_now().await;
    }
    run.shared.closing.cancel();
    let error = run.receive().await.unwrap();
    assert!(error.contains(r#""id":1"#) && error.contains("-31005"), "{error}");
    assert_eq!(run.reason().await, ExitReason::Closing);
}

#[tokio::test]
async fn a_child_inherits_no_more_than_it_is_given() {
    let folder = folder();
    let mut child = script(r#"env > "$1/env"; pwd > "$1/cwd"; cat"#, folder.path());
    child.env = vec![("API_KEY".into(), "a b=c".into())];
    child.cwd = Some(folder.path().to_owned());
    let mut run = Run::child(child, limits());
    let cwd = file(&folder.path().join("cwd"), |text| text.ends_with('\n')).await;
    assert_eq!(cwd.trim_end(), folder.path().canonicalize().unwrap().to_str().unwrap());
    let env = std::fs::read_to_string(folder.path().join("env")).unwrap();
    assert!(env.contains("API_KEY=a b=c\n") && env.contains("PATH="), "{env}");
    // Cargo sets this one for tests.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !env.contains("CARGO"), "{env}");
    run.close().await;
    run.reason().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let run = Run::child(ChildSpec::new("no-such-program-anywhere", Vec::new()), limits());
    match run.reason().await {
        ExitReason::NotStarted(SpawnError::NoProgram { command }) => {
            assert_eq!(command.to_str(), Some("no-such-program-anywhere"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_the_child() {
    let folder = folder();
    let talkative = r#"
i=0
while [ $i -lt 1000 ]; do
    i=$((i+1))
    printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"%01000d"}}\n' $i
    echo $i > "$1/count"
done
cat > /dev/null
"#;
    let mut run = Run::child(script(talkative, folder.path()), limits());
    let path = folder.path().join("count");
    // It stops by itself: two looks apart see the same count, far from the end.
    let mut last = String::new();
    let held = tokio::time::timeout(LONG, async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = std::fs::read_to_string(&path).unwrap_or_default();
            if !now.is_empty() && now == last {
                return now;
            }
            last = now;
        }
    });
    let count: usize = held.await.unwrap().trim().parse().unwrap();
    assert!(count < 500, "{count}");
    for i in 1..=1000 {
        let line = run.receive().await.unwrap();
        assert!(line.ends_with(&format!("{i:04}\"}}}}")), "{i}");
    }
}
