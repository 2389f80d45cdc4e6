//! The JSON Schema of a configuration: it is checked in as the program prints it, takes every
//! example, and refuses what editors should mark.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bartizan::{config, yaml};
use serde_json::Value;

use super::{bless, read};
use crate::json_schema::refusals;
use crate::readme::fence::fences;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(&config::schema()).unwrap());

/// What the schema refuses of a configuration that is YAML at least.
pub(super) fn refused(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let tree = yaml::read(text, &mut faults);
    assert!(faults.is_empty(), "{text}: {faults:?}");
    let json = tree.map_or_else(|| "null".to_owned(), |tree| tree.kind.to_json());
    refusals("file", &SCHEMA, &serde_json::from_str(&json).unwrap())
}

#[test]
fn the_schema_is_checked_in() {
    bless("deploy/config/bartizan.schema.json", |_| config::schema());
}

/// The configurations of `deploy/` and of the documents, each with its place.
fn examples() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = |folder: &str, end: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|found| found == end)).collect()
    };
    let mut examples = Vec::new();
    let mut files = listed("deploy/config", "yaml");
    files.push(root.join("deploy/kubernetes/base/bartizan.yaml"));
    for path in files {
        examples.push((path.display().to_string(), fs::read_to_string(path).unwrap()));
    }
    let mut pages = listed("docs", "md");
    pages.push(root.join("README.md"));
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for fence in fences(&page.display().to_string(), &text) {
            if fence.language == "yaml" {
                examples.push((fence.place, fence.body));
            }
        }
    }
    examples
}

#[test]
fn every_example_is_as_the_schema_says() {
    let examples = examples();
    assert!(examples.len() >= 10, "{}", examples.len());
    for (place, text) in examples {
        assert_eq!(refused(&text), [""; 0], "{place}");
    }
}

#[test]
fn what_is_wrong_by_its_form_is_refused_by_schema_and_check() {
    let server = "servers: {s: {url: 'http://h/'}}\n";
    let inside = |keys: &str| format!("servers: {{s: {{url: 'http://h/', {keys}}}}}");
    let beside = |keys: &str| format!("{server}{keys}");
    let bundle = |keys: &str| format!("{server}policy: {{bundle: {{{keys}}}}}");
    for text in [
        "servers: {}".to_owned(),
        "mode: enforce".into(),
        "[]".into(),
        "servers: {s: {}}".into(),
        "servers: {'a b': {url: 'http://h'}}".into(),
        "servers: {s: {url: ftp://h}}".into(),
        "servers: {s: {url: 5}}".into(),
        "servers: {s: {command: []}}".into(),
        "servers: {s: {command: ['${env:TOKEN}']}}".into(),
        "servers: {s: {command: c, headers: {a: b}}}".into(),
        "servers: {s: {command: c, ca_file: []}}".into(),
        "servers: {s: {command: c, env: {A-B: x}}}".into(),
        beside("lsten: x"),
        beside("replicas: {}"),
        beside("replicas: {url: 'redis://h'}"),
        beside("replicas: {url: 'http://h', keys: 0123456789abcdef0123456789abcdef}"),
        beside("replicas: {url: 'redis://u:p@h', keys: 0123456789abcdef0123456789abcdef}"),
        beside("replicas: {url: 'redis://h/x', keys: 0123456789abcdef0123456789abcdef}"),
        beside("replicas: {url: 'redis://h', keys: []}"),
        beside("mode: dry"),
        beside("mode:"),
        beside("listen: 7070"),
        beside("listen: localhost"),
        beside("listen_anywhere: 1"),
        beside("state: '${env:TOKEN}'"),
        beside("policy: {paths: x}"),
        beside("policy: {entrypoint: mcp.x}"),
        beside("policy: {shadow_one_in: 0}"),
        beside("limits: {json_depth: 1000}"),
        beside("limits: {json_depth: 1.5}"),
        beside("limits: {frame_bytes: 4MB}"),
        beside("limits: {frame_bytes: 1}"),
        beside("limits: {keep_alive: 0}"),
        beside("limits: {keep_alive: never}"),
        beside("limits: {drain: off}"),
        beside("limits: {drain: 5}"),
        beside("limits: {frames: 2}"),
        beside("otlp: {endpoint: 5}"),
        beside("approvals: {wait: 5}"),
        beside("approvals: {holds: 0}"),
        beside("approvals: {approver: []}"),
        beside("approvals: {approvers: {}}"),
        beside("approvals: {approvers: [{id: a}]}"),
        beside("approvals: {approvers: [{token: a}]}"),
        beside("approvals: {approvers: [{id: a, token: 5}]}"),
        beside("approvals: {public_url: d}"),
        beside("approvals: {oidc: {}}"),
        beside("approvals: {oidc: {issuer: 'https://i', client_id: c}}"),
        beside("approvals: {oidc: {issuer: 'https://i', client_id: c, groups: {}}}"),
        beside("approvals: {oidc: {issuer: 'https://i', client_id: c, groups: {g: []}}}"),
        beside("approvals: {oidc: {issuer: i, client_id: c, groups: {g: v}}}"),
        beside("approvals: {oidc: {issuer: 'https://i', client_id: c, groups: {g: v}, idle: 5}}"),
        beside("log: {format: xml}"),
        beside("audit: {decision_logs: {labels: {a: b}}}"),
        bundle(""),
        bundle("path: b, url: 'https://h'"),
        bundle("path: b, timeout: 1s"),
        bundle("path: b, credentials: {}"),
        bundle("path: b, polling: {}"),
        bundle("url: 'https://h', credentials: {}"),
        bundle("url: 'https://h', credentials: {bearer: x, bearer_file: y}"),
        bundle("url: 'https://h', credentials: {client_tls: {cert: c}}"),
        bundle("path: b, signing: {}"),
        bundle("path: b, signing: {keys: {k: {public_key: k}}}"),
        bundle("path: b, signing: {keys: {k: {algorithm: none}}}"),
        inside("command: [x]"),
        inside("path: flags"),
        inside("path: /a%2fb"),
        inside("cwd: /x"),
        inside("cwd: []"),
        inside("stop_timeout: {}"),
        inside("hosts: []"),
        inside("headers: {'a b': x}"),
        inside("environment: ''"),
        inside("refusal: html"),
        inside("connect_timeout: soon"),
        inside("public_url: 'https://a'"),
        inside("oauth: {}"),
        inside("oauth: {mode: forward, scopes: a}"),
        inside("oauth: {mode: forward, scopes: []}"),
        inside("oauth: {mode: forward, issuers: []}"),
        inside("oauth: {mode: terminate, issuers: []}, public_url: 'https://a'"),
        inside(
            "oauth: {mode: terminate, issuers: [{issuer: 'https://i'}]}, public_url: 'https://a'",
        ),
        inside("oauth: {mode: terminate, issuers: [{jwks_file: k}]}, public_url: 'https://a'"),
    ] {
        assert!(read(&text).is_err(), "check takes {text}");
        assert!(!refused(&text).is_empty(), "the schema takes {text}");
    }
}

#[test]
fn what_check_takes_is_taken_by_the_schema() {
    let time =
        |time: &str| format!("servers: {{s: {{url: 'http://h/'}}}}\nlimits: {{drain: {time}}}");
    let keep_alive = |time: &str| {
        format!("servers: {{s: {{url: 'http://h/'}}}}\nlimits: {{keep_alive: {time}}}")
    };
    for text in [
        "servers: {s: {command: c, headers: {}}}".to_owned(),
        "servers: {s: {url: 'http://h/', args: [], env: {}, env_inherit: []}}".into(),
        time("1.5s"),
        time("' 5s '"),
        time("1 0 s"),
        time("1m 30s"),
        time("1m30s"),
        time("1500 ms"),
        keep_alive("15s"),
        keep_alive("off"),
        keep_alive("'off'"),
    ] {
        assert!(read(&text).is_ok(), "check refuses {text}");
        assert_eq!(refused(&text), [""; 0], "{text}");
    }
}
