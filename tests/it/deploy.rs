//! What is under `deploy/`: every configuration means something, every command line is one, every
//! file that a manifest names is there, and the policy that ships decides as its tests say.

#![expect(clippy::panic, clippy::string_slice, clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use bartizan::cli;
use bartizan::config::{Config, Front, PackRef, Surroundings};
use bartizan::policy::embedded;
use bartizan::policy::load::{self, PolicyFiles};
use bartizan_gate::evidence::record::Event;
use bartizan_metrics::catalogue::{METRICS, Metric, label_name};
use bartizan_rego::{self, EvalLimits};
use serde_json::Value;

use super::readme::tables::record_fields;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// Reads a configuration as if every secret and every path that it names existed.
fn configuration(path: &Path) -> Config {
    let surroundings = Surroundings {
        env: &|_| Some("s3cret".to_owned()),
        read: &|_, _| Ok(b"s3cret\n".to_vec()),
        exists: &|_| true,
    };
    let text = fs::read_to_string(path).unwrap();
    Config::parse_in(&text, path.parent().unwrap(), &surroundings)
        .unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()))
}

fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == end)).collect();
    files.sort();
    files
}

#[test]
fn every_configuration_loads() {
    let mut paths = files(&deploy().join("config"), "yaml");
    assert!(paths.len() >= 3, "{paths:?}");
    paths.push(deploy().join("kubernetes/base/bartizan.yaml"));
    for path in paths {
        let config = configuration(&path);
        for server in &config.servers {
            if let Some(PackRef::Embedded(name)) = &server.pack {
                assert!(embedded::pack(name).is_some(), "{}: no pack {name}", path.display());
            }
        }
    }
}

#[test]
fn the_sidecar_listens_to_its_pod_alone() {
    let config = configuration(&deploy().join("kubernetes/base/bartizan.yaml"));
    let Front::Http { listen, admin } = config.front else { panic!("no listener") };
    assert!(listen.ip().is_loopback(), "{listen}");
    let deployment = fs::read_to_string(deploy().join("kubernetes/base/deployment.yaml")).unwrap();
    assert!(deployment.contains(&format!("containerPort: {}", admin.port())));
    assert!(deployment.contains(&format!("http://127.0.0.1:{}/mcp", listen.port())));
    let grace = deployment.split("terminationGracePeriodSeconds: ").nth(1).unwrap();
    let grace: u64 = grace.lines().next().unwrap().parse().unwrap();
    assert!(grace > config.limits.drain.as_secs(), "killed before it has drained");
    let credential = "mountPath: /run/secrets/flag-service";
    assert_eq!(deployment.matches(credential).count(), 1, "mounted into the sidecar alone");
}

#[test]
fn what_a_kustomization_names_is_there() {
    let base = deploy().join("kubernetes/base");
    let text = fs::read_to_string(base.join("kustomization.yaml")).unwrap();
    let named: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "))
        .filter(|item| {
            Path::new(item).extension().is_some_and(|end| end == "yaml" || end == "rego")
        })
        .collect();
    assert!(named.len() >= 5, "{named:?}");
    for name in &named {
        assert!(base.join(name).is_file(), "{name} is not there");
    }
    for path in files(&base.join("policies"), "rego") {
        let name = format!("policies/{}", path.file_name().unwrap().to_str().unwrap());
        assert!(named.contains(&name.as_str()), "{name} would not be mounted");
    }
}

#[test]
fn desktop_clients_start_a_valid_command() {
    let mut started = 0;
    for path in files(&deploy().join("desktop"), "json") {
        let text = fs::read_to_string(&path).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        for (name, server) in file["mcpServers"].as_object().unwrap() {
            assert_eq!(server["command"], "bartizan", "{name}");
            let args = server["args"].as_array().unwrap().iter();
            let args = args.map(|arg| OsString::from(arg.as_str().unwrap()));
            let line = std::iter::once(OsString::from("bartizan")).chain(args);
            cli::accepts(line).unwrap_or_else(|why| panic!("{name}: {why}"));
            started += 1;
        }
    }
    assert!(started >= 3, "{started}");
    let wrong = ["bartizan", "wrap", "--pck", "x", "--", "y"].map(OsString::from);
    assert!(cli::accepts(wrong).is_err(), "accepts anything");
}

#[test]
fn the_policy_of_the_sidecar_passes_its_tests() {
    let files = PolicyFiles {
        paths: vec![deploy().join("kubernetes/base/policies")],
        ..PolicyFiles::default()
    };
    let loaded = load::load(&files).unwrap();
    let outcomes = bartizan_rego::run_tests(&loaded.proving, &EvalLimits::default()).unwrap();
    let own = outcomes.iter().filter(|outcome| outcome.name.contains("mcp_agent_test")).count();
    assert!(own >= 5, "{outcomes:?}");
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

fn observability(name: &str) -> String {
    fs::read_to_string(deploy().join("observability").join(name)).unwrap()
}

/// The words of `text` that begin like a metric, without the ends of a histogram's samples.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named = words.filter(|word| {
        ["bartizan_", "mcp_server_", "process_"].iter().any(|start| word.starts_with(start))
    });
    let family = |word: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
    };
    named.map(family).collect()
}

/// The labels that the query `text` selects by or groups by.
fn labels_in(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for selector in text.split('{').skip(1) {
        let selector = selector.split('}').next().unwrap();
        let parts = selector.split("\",");
        let names = parts.filter_map(|part| part.split(['=', '!']).next());
        found.extend(names.map(|name| name.trim().to_owned()));
    }
    for group in text.split("by (").skip(1) {
        let group = group.split(')').next().unwrap();
        found.extend(group.split(',').map(|name| name.trim().to_owned()));
    }
    found.remove("");
    found
}

/// Every metric and label in queries is one of the program, or of Prometheus itself.
fn queries_are_answered(place: &str, queries: &[String]) {
    let families: BTreeSet<String> = METRICS.iter().map(Metric::prometheus_name).collect();
    let mut labels: BTreeSet<String> =
        METRICS.iter().flat_map(|row| row.labels).map(|label| label_name(label)).collect();
    labels.extend(["le", "instance"].map(str::to_owned));
    assert!(queries.len() >= 10, "{place}: {}", queries.len());
    for query in queries {
        let metrics = metrics_in(query);
        assert!(!metrics.is_empty(), "{place}: {query}");
        for name in metrics {
            assert!(families.contains(&name), "{place}: no metric {name}: {query}");
        }
        for label in labels_in(query) {
            assert!(labels.contains(&label), "{place}: no label {label}: {query}");
        }
    }
}

/// The texts of every member `key` in `value`.
fn strings(value: &Value, key: &str, found: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        if let (Some(text), true) = (value.as_str(), name == key) {
            found.push(text.to_owned());
        }
        strings(value, key, found);
    }
    for item in value.as_array().into_iter().flatten() {
        strings(item, key, found);
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&observability("grafana.json")).unwrap();
    let mut queries = Vec::new();
    strings(&dashboard, "expr", &mut queries);
    queries_are_answered("grafana.json", &queries);
    let mut legends = Vec::new();
    strings(&dashboard, "legendFormat", &mut legends);
    let labels: BTreeSet<String> =
        METRICS.iter().flat_map(|row| row.labels).map(|label| label_name(label)).collect();
    for legend in legends {
        for label in legend.split("{{").skip(1) {
            let label = label.split("}}").next().unwrap();
            assert!(labels.contains(label), "{legend}");
        }
    }
}

#[test]
fn alerts_ask_for_metrics_and_findings_that_exist() {
    let text = observability("alerts.yaml");
    let alerts: Vec<&str> = text.split("- alert: ").skip(1).collect();
    let query = |alert: &&str| {
        let (_, query) = alert.split_once("expr:").unwrap();
        let end = ["\n    for:", "\n    labels:"].iter().filter_map(|end| query.find(end)).min();
        query.split_at(end.unwrap()).0.trim().to_owned()
    };
    let queries: Vec<String> = alerts.iter().map(query).collect();
    queries_are_answered("alerts.yaml", &queries);
    let audit = fs::read_to_string(deploy().join("../docs/audit.md")).unwrap();
    let mut findings = 0;
    for named in text.split("finding=").skip(1) {
        for finding in named.split('"').nth(1).unwrap().split('|') {
            findings += 1;
            assert!(audit.contains(&format!("\n| `{finding}` |")), "no finding {finding}");
        }
    }
    assert!(findings >= 4, "{findings}");
}

#[test]
fn what_ships_the_journal_reads_fields_and_events_that_exist() {
    let text = observability("vector.yaml");
    let [mut fields, own] = record_fields();
    fields.extend(own);
    // What its file source and its own program add.
    let theirs = ["message", "timestamp", "summary"];
    let code = text.lines().filter(|line| {
        !line.trim_start().starts_with('#')
            && (line.starts_with("      ") || line.trim_start().starts_with("condition:"))
    });
    let mut met = 0;
    for line in code {
        for (before, path) in line.match_indices('.').map(|(at, _)| line.split_at(at)) {
            let begins = before.ends_with([' ', '(', '[', '\'', '!', ',']);
            let path: String = path[1..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || "_.[]".contains(*c))
                .filter(|c| !c.is_ascii_digit())
                .collect();
            let path = path.trim_matches(['.', ',']).trim_end_matches(']');
            if !begins || path.is_empty() || theirs.contains(&path) {
                continue;
            }
            met += 1;
            assert!(fields.contains(path), "no field `{path}`: {line}");
        }
        for event in line.split(".event == \"").skip(1) {
            let event = event.split('"').next().unwrap();
            assert!(Event::named(event).is_some(), "no event {event}");
        }
    }
    assert!(met >= 8, "{met}");
    let config = configuration(&deploy().join("kubernetes/base/bartizan.yaml"));
    let directory = bartizan_audit::journal_directory(&config.state);
    assert!(text.contains(&format!("{}/journal-*.ndjson", directory.display())), "{directory:?}");
}
