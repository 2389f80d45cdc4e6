//! `GET /metrics` of a whole firewall, what `/readyz` says about it, and `docs/metrics.md`.

#![expect(clippy::panic, clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use bartizan_metrics::catalogue::{self, METRICS};

use super::firewall::{Client, Firewall, Reply, Setup, answer, call, wait};
use super::readme::tables::{quoted, rows};

/// A tool that no pack knows, with a name that must not be shown.
const STRANGE: &str = "sk_live_0123456789";

fn ask(firewall: &Firewall, method: &str, headers: &str) -> Reply {
    let mut client = Client::connect(firewall.admin());
    client.send(format!("{method} /metrics HTTP/1.1\r\nHost: desk:1\r\n{headers}\r\n").as_bytes());
    client.reply()
}

/// The samples of a page, by name and labels.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
    };
    lines.map(sample).collect()
}

fn scraped(firewall: &Firewall) -> BTreeMap<String, f64> {
    let reply = ask(firewall, "GET", "");
    assert_eq!(reply.status, 200, "{reply:?}");
    samples(reply.text())
}

#[test]
fn calls_are_counted_as_the_journal_has_them() {
    let firewall = Firewall::start();
    assert_eq!(firewall.ask(call(1, "get_flag", r#"{"key":"secret-argument"}"#)).status, 200);
    firewall.ask(call(2, "get_flag", r#"{"key":"a","environment":"production"}"#));
    firewall.ask(call(3, STRANGE, "{}"));
    let page = ask(&firewall, "GET", "");
    assert_eq!(page.header("content-type"), ["text/plain; version=0.0.4; charset=utf-8"]);
    let found = samples(page.text());

    let journal = firewall.journal();
    for event in ["intent", "outcome", "denial"] {
        let records = journal.iter().filter(|record| record["event"] == event).count();
        assert!(records > 0, "{event}");
        let counted = found[&format!("bartizan_journal_records_total{{event=\"{event}\"}}")];
        let records = f64::from(u32::try_from(records).unwrap());
        assert!((counted - records).abs() < 0.5, "{event}: {counted} of {records}");
    }
    let decided: BTreeSet<&str> = journal
        .iter()
        .filter(|record| record["event"] == "denial")
        .map(|record| record["decision"]["reasons"][0]["code"].as_str().unwrap())
        .collect();
    for code in decided {
        let named = format!("reason=\"{code}\"");
        assert!(found.keys().any(|name| name.contains(&named)), "{code}: {}", page.text());
    }
    let last = journal.last().unwrap()["seq"].as_f64().unwrap();
    assert!((found["bartizan_journal_seq"] - last).abs() < 0.5);
    let whole = |tool: &str, error: &str| {
        let labels = format!("{error}gen_ai_tool_name=\"{tool}\",mcp_method_name=\"tools/call\"");
        format!("mcp_server_operation_duration_seconds_count{{{labels},server=\"flags\"}}")
    };
    assert!(found.contains_key(&whole("get_flag", "")), "{}", page.text());
    assert!(found.contains_key(&whole("_OTHER", "error_type=\"denied\",")), "{}", page.text());
    assert!(found["bartizan_upstream_up{server=\"flags\"}"] > 0.5);
    assert!(found["bartizan_ready"] > 0.5);
    assert!(found["bartizan_connections"] >= 0.0);
    assert!(found["process_resident_memory_bytes"] > 1e6);
    assert!(found.keys().any(|name| name.starts_with("bartizan_policy_info{revision=\"")));
    assert!(found["bartizan_policy_loaded_time_seconds"] > 1e9);
    for hidden in [STRANGE, "secret-argument", "\"production\"", "principal"] {
        assert!(!page.text().contains(hidden), "{hidden}: {}", page.text());
    }
}

#[test]
fn every_sample_is_in_the_catalogue() {
    let held = r#"package mcp
hold contains {"code": "second-pair", "message": "a second pair", "ttl": "5m"} if input.tool.name == "kill_flag"
limit contains {"code": "few", "key": input.principal.id, "rate": "1/h"} if input.tool.name == "get_flag"
permit contains {"code": "rest", "message": "open"} if input.tool.name
"#;
    let top = "approvals:\n  wait: 1ms\n  approvers:\n  - {id: alice, token: alice-0123456789abcdefghijklmnopqr}\n";
    let firewall = Firewall::with(Setup {
        rego: Some(held.to_owned()),
        top: top.to_owned(),
        answer: Box::new(|_| answer("503 Service Unavailable", "", b"")),
        ..Setup::default()
    });
    for (id, tool) in [(1, "get_flag"), (2, "get_flag"), (3, "kill_flag")] {
        firewall.ask(call(id, tool, r#"{"key":"a"}"#));
    }
    // The journal's files are looked at by a task of its own.
    let found = wait("the size of the journal", || {
        Some(scraped(&firewall)).filter(|found| found.contains_key("bartizan_journal_size_bytes"))
    });
    let families: BTreeSet<String> =
        METRICS.iter().map(catalogue::Metric::prometheus_name).collect();
    let mut met = BTreeSet::new();
    for sample in found.keys() {
        let name = sample.split('{').next().unwrap();
        let family =
            ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
        let family = family.filter(|family| families.contains(*family)).unwrap_or(name);
        assert!(families.contains(family), "{sample}");
        met.insert(family.to_owned());
        let row = METRICS.iter().find(|row| row.prometheus_name() == family).unwrap();
        let known: BTreeSet<String> = row
            .labels
            .iter()
            .map(|label| catalogue::label_name(label))
            .chain(["le".to_owned()])
            .collect();
        let labels = sample.split_once('{').map(|(_, labels)| labels).unwrap_or_default();
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let label = label.split('=').next().unwrap();
            assert!(known.contains(label), "{sample}: {label}");
        }
    }
    assert!(found["bartizan_holds{state=\"pending\"}"] > 0.5, "{found:?}");
    assert!(found["bartizan_limit_refused_total{limit=\"few\",server=\"flags\"}"] > 0.5);
    // What this firewall has not: exporters, an answered hold, a rejected policy.
    let absent = |name: &str| {
        name.contains("exporter")
            || name.contains("hold_duration")
            || name.contains("rejected")
            || name.contains("upstream")
    };
    let missing: Vec<&String> =
        families.iter().filter(|name| !met.contains(*name) && !absent(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_page_comes_in_two_forms_and_to_readers_alone() {
    let firewall = Firewall::start();
    let open = ask(&firewall, "GET", "Accept: application/openmetrics-text;version=1.0.0\r\n");
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((open.status, open.header("content-type")), (200, vec![kind]));
    assert!(open.text().ends_with("# EOF\n"), "{}", open.text());
    assert_eq!(open.header("x-content-type-options"), ["nosniff"]);
    for method in ["POST", "DELETE"] {
        let refused = ask(&firewall, method, "Content-Length: 0\r\n");
        assert_eq!((refused.status, refused.header("allow")), (405, vec!["GET, HEAD"]));
    }
    // Agents do not reach it.
    let agents = firewall.send(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    assert_eq!(agents.status, 404, "{agents:?}");
}

#[test]
fn readiness_names_version_mode_and_policy() {
    for (top, mode) in [("", "enforce"), ("mode: observe\n", "observe")] {
        let firewall = Firewall::with(Setup { top: top.to_owned(), ..Setup::default() });
        let mut client = Client::connect(firewall.admin());
        client.send(b"GET /readyz HTTP/1.1\r\nHost: desk:1\r\n\r\n");
        let report = client.reply().json();
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(report["mode"], mode);
        firewall.ask(call(1, "get_flag", r#"{"key":"a"}"#));
        let intent = firewall.record("event", "intent", 1);
        assert_eq!(report["policy"], intent["decision"]["policy"]);
    }
}

#[test]
fn the_documentation_names_every_metric_and_no_other() {
    let page = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md"),
    )
    .unwrap();
    let found = rows(&page, "| Metric | Type | Labels | Means |");
    let documented: Vec<[String; 4]> = found
        .iter()
        .map(|row| {
            let labels = quoted(&row[2]).join(" ");
            [quoted(&row[0])[0].to_owned(), row[1].clone(), labels, row[3].clone()]
        })
        .collect();
    let ours: Vec<[String; 4]> = METRICS
        .iter()
        .map(|row| {
            let labels: Vec<String> =
                row.labels.iter().map(|label| catalogue::label_name(label)).collect();
            let kind = row.prometheus_type().to_owned();
            [row.prometheus_name(), kind, labels.join(" "), row.help.to_owned()]
        })
        .collect();
    assert_eq!(documented, ours);
    let explained: BTreeSet<String> = rows(&page, "| Label | Values |")
        .iter()
        .flat_map(|row| quoted(&row[0]).into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let labels: BTreeSet<String> = METRICS
        .iter()
        .flat_map(|row| row.labels)
        .map(|label| catalogue::label_name(label))
        .collect();
    assert_eq!(explained, labels);
}
