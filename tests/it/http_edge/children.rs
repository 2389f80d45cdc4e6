//! HTTP clients that share a child process: what it is told when one of them goes away, and whose
//! duties hold for what it says about nobody (threats D5, F12).

use std::path::Path;
use std::sync::Arc;

use bartizan_edge::child::{ChildLimits, ChildSpec, ChildUpstream};
use bartizan_edge::http::HttpConfig;
use bartizan_gate::evidence::record::Event;
use bartizan_testing::ByName;
use tempfile::TempDir;

use super::legacy_sse::protected;
use super::rig::{Client, Rig, judge, modern_call, soon};

/// Says that it speaks the modern era, writes down what it reads, and says what stands in the file
/// `say`, once it is there, after each line that it reads.
/// In what it says `FIRST` and `LAST` stand for the ids of the first call and of the last one.
const CHILD: &str = r#"
first=
while IFS= read -r line; do
    printf '%s\n' "$line" >> "$1/read"
    id=${line##*'"id":'}; id=${id%%[,\}]*}
    case $line in *'"tools/call"'*) [ -n "$first" ] || first=$id;; esac
    case $line in
        *'"server/discover"'*) printf '{"jsonrpc":"2.0","result":{"supportedVersions":["2026-07-28"]},"id":%s}\n' "$id";;
        *'"stop"'*) sed "s/FIRST/$first/; s/LAST/$id/" "$1/say";;
        *) printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"up"}}\n';;
    esac
done
"#;
const SECRET: &str = "AKIAQYLPMN5HFIQR7XYA";

struct Shared {
    rig: Rig,
    folder: TempDir,
}

impl Shared {
    fn start(say: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("say"), say).unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        let spec = ChildSpec::new("sh", vec!["-c".into(), CHILD.into(), "child".into(), path]);
        let rig = Rig::to(HttpConfig::default(), |shared| {
            ChildUpstream::new(spec, ChildLimits::default(), shared.clone(), protected()).into()
        });
        Self { rig, folder }
    }

    /// A client whose call has reached the child.
    async fn calling(&self, id: u32, tool: &str) -> Client {
        let mut client = self.rig.client().await;
        client.send(&modern_call(id, tool)).await;
        let name = format!("\"{tool}\"");
        read(self.folder.path(), |text| text.contains(&name)).await;
        client
    }
}

/// What the child has read, once `until` likes it.
async fn read(folder: &Path, until: impl Fn(&str) -> bool) -> String {
    soon("what the child reads", async {
        loop {
            let text = std::fs::read_to_string(folder.join("read")).unwrap_or_default();
            if until(&text) {
                return text;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
}

/// The ids of the calls that the child has read, in order.
fn numbers(read: &str) -> Vec<i64> {
    let calls = read.lines().filter(|line| line.contains("\"tools/call\""));
    calls
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line)
                .unwrap()
                .get("id")
                .unwrap()
                .as_i64()
                .unwrap()
        })
        .collect()
}

#[tokio::test]
async fn what_a_child_gets_as_ids_does_not_count_the_calls_of_others() {
    let shared = Shared::start("");
    for id in 0..6 {
        drop(shared.calling(id, &format!("t{id}")).await);
    }
    let text = read(shared.folder.path(), |text| numbers(text).len() == 6).await;
    let numbers = numbers(&text);
    // Each next number would follow with a chance of 2^-51.
    assert!(numbers.windows(2).all(|two| (two[0] - two[1]).abs() > 1), "{numbers:?}");
    let distinct: std::collections::BTreeSet<_> = numbers.iter().collect();
    assert_eq!(distinct.len(), 6);
}

#[tokio::test]
async fn a_late_answer_to_a_client_that_has_gone_is_recorded_as_that_of_its_call() {
    let late = r#"{"jsonrpc":"2.0","id":FIRST,"result":{"late":true}}"#;
    let own = r#"{"jsonrpc":"2.0","id":LAST,"result":{}}"#;
    let shared = Shared::start(&format!("{late}\n{own}\n"));
    drop(shared.calling(7, "get").await);
    read(shared.folder.path(), |text| text.contains("notifications/cancelled")).await;
    let mut client = shared.calling(8, "stop").await;
    assert_eq!(client.reply().await.status, 200);
    let kept = shared.rig.sink.kept();
    let call = kept.iter().find(|it| it.event == Event::Intent && it.id.as_deref() == Some("7"));
    let drops: Vec<_> = kept.iter().filter(|it| it.event == Event::Drop).collect();
    assert_eq!(drops.len(), 1, "{drops:#?}");
    assert_eq!(drops[0].call, call.unwrap().call);
    assert_eq!(drops[0].method.as_deref(), Some("tools/call"));
}

#[tokio::test]
async fn a_child_is_told_that_a_client_has_gone_only_if_policy_permits() {
    for permits in [true, false] {
        let shared = Shared::start("");
        if !permits {
            shared.rig.gate.replace_policy(Arc::new(ByName::new(|name, request| {
                if name == "notifications/cancelled" { None } else { judge(name, request) }
            })));
        }
        drop(shared.calling(7, "get").await);
        let told = |event| {
            let kept = shared.rig.sink.kept();
            let cancel = Some("notifications/cancelled");
            kept.iter().any(|it| it.event == event && it.method.as_deref() == cancel)
        };
        let event = if permits { Event::Outcome } else { Event::Denial };
        soon("the record", async {
            while !told(event) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        // Another message shows that the child has read all that there was.
        drop(shared.calling(8, "after").await);
        let text = read(shared.folder.path(), |text| text.contains("after")).await;
        let id = numbers(&text).first().copied().unwrap();
        let cancel = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
        );
        assert_eq!(text.contains("notifications/cancelled"), permits, "{text}");
        assert_eq!(text.contains(&cancel), permits, "{text}");
        assert!(!told(if permits { Event::Denial } else { Event::Intent }));
        let cancelled = |lines: Vec<String>| lines.contains(&"Outcome tools/call Cancelled".into());
        assert!(cancelled(shared.rig.sink.lines()));
    }
}

#[tokio::test]
async fn what_a_shared_child_says_about_nobody_is_redacted_as_any_call_on_it_demands() {
    let log = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":"{SECRET}"}}}}"#
    );
    let error =
        format!(r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":1,"message":"{SECRET}"}}}}"#);
    let late = format!(r#"{{"jsonrpc":"2.0","id":FIRST,"result":{{"s":"{SECRET}"}}}}"#);
    let own = r#"{"jsonrpc":"2.0","id":LAST,"result":{}}"#;
    let shared = Shared::start(&format!("{log}\n{error}\n{late}\n{own}\n"));
    drop(shared.calling(7, "guarded").await);
    read(shared.folder.path(), |text| text.contains("notifications/cancelled")).await;
    let mut client = shared.calling(7, "stop").await;
    assert_eq!(client.head().await.0, 200);
    let mut heard = String::new();
    while let Some(chunk) = client.chunk().await {
        heard.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(!heard.contains(SECRET), "{heard}");
    assert!(heard.contains(r#""data":"[redacted]""#), "{heard}");
    assert!(heard.contains(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#), "{heard}");
    assert!(!heard.contains("error"), "{heard}");
}
