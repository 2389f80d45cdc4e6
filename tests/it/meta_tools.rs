//! A call of a tool that does many things counts as the operation that it selects, or as `unknown`
//! (threat G1). Environments are found in every form that vendors use (threats H1 to H4).

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use bartizan_gate::question::operation::{
    HandleLookup, HandleTarget, Operation, ResolutionContext,
};
use bartizan_gate::question::pack::{Effect, Pack};
use bartizan_gate::wire::document::{Document, DocumentLimits};
use bytes::Bytes;

const PACK: &str = r#"{
  "version": 1,
  "name": "vendor",
  "headers": {"x-vendor-mode": "tools"},
  "owned_query": ["mode"],
  "rates": {"read": {"rate": "100/10s", "burst": 20}, "write": {"rate": "900/15m", "burst": 5}},
  "tools": {
    "configure": {
      "effect": "write", "absent": "all",
      "environments": [{"at": "/configurations", "form": "keys"}]
    },
    "by_id": {
      "effect": "write", "absent": "all",
      "environments": [{"at": "/environment_id", "form": "id"}]
    },
    "both": {
      "effect": "write", "absent": "all",
      "environments": ["/env", {"at": "/overrides/*/env", "optional": true}]
    },
    "patch": {
      "effect": "destructive", "absent": "all",
      "environments": [{"at": "/patch/*/path", "form": "segment", "after": "environments"}]
    },
    "json_patch": {
      "effect": "destructive", "absent": "all",
      "environments": [{"at": "/patch", "form": "patch", "after": "environments"}]
    },
    "grouped": {
      "effect": "write", "tags": ["outer"],
      "dispatch": {
        "values": ["/action"],
        "cases": {
          "list": {"effect": "read", "tags": ["inner"]},
          "save": {"effect": "write", "environments": ["/environment"], "absent": "production"}
        }
      }
    },
    "typed": {
      "effect": "exec",
      "dispatch": {
        "values": ["/kind", "/action"],
        "cases": {"flag/get": {"effect": "read"}, "flag/": {"effect": "read"}}
      }
    },
    "http": {
      "effect": "destructive",
      "dispatch": {
        "method": "/method", "path": "/path",
        "cases": {
          "GET /v1/flags": {"effect": "read"},
          "POST /v1/flags/{id}/toggle": {
            "effect": "destructive", "absent": "all",
            "environments": [{"inside": "/body", "at": "/environments", "form": "keys"}]
          }
        },
        "otherwise": {"effect": "destructive", "absent": "all"}
      }
    },
    "exec": {
      "effect": "exec",
      "dispatch": {
        "command": "/command",
        "cases": {
          "search": {"effect": "read"},
          "call flag-get": {"effect": "read"},
          "call flag-set": {"effect": "write", "environments": ["/environment"], "absent": "all"}
        }
      }
    },
    "tagged": {
      "effect": "write",
      "tags": ["always"],
      "tags_if": {"review": ["/body/review", "/rules/*/review"], "always": ["/body"]}
    },
    "discover": {
      "effect": "read",
      "mints": {"handle": "operationHandle", "operation": "operationId", "ttl": "15m"}
    },
    "invoke": {
      "effect": "write",
      "dispatch": {
        "handle": "/operationHandle",
        "cases": {"gates.list": {"effect": "read"}}
      }
    }
  }
}"#;

struct Seen;

impl HandleLookup for Seen {
    fn resolve(&self, handle: &str) -> Option<HandleTarget> {
        let (operation, effect) = match handle {
            "h-list" => ("gates.list", None),
            "h-worse" => ("gates.list", Some(Effect::Destructive)),
            "h-odd" => ("gates.list", Some(Effect::Unknown)),
            "h-other" => ("gates.delete", Some(Effect::Read)),
            _ => return None,
        };
        Some(HandleTarget { operation: operation.into(), effect })
    }
}

/// Name, effect, environments and their source, in one line.
fn resolve(tool: &str, arguments: &str) -> String {
    let pack = Pack::read(PACK.as_bytes()).unwrap();
    let ids: BTreeMap<Box<str>, Box<str>> =
        [("17".into(), "staging".into()), ("key-p".into(), "production".into())].into();
    let known =
        ResolutionContext { pack: Some(&pack), environment_ids: Some(&ids), handles: Some(&Seen) };
    let raw = Bytes::copy_from_slice(arguments.as_bytes());
    let document = Document::read(raw, &DocumentLimits::default()).unwrap();
    let operation = Operation::of_call(known, tool, Some(document.root()));
    format!(
        "{} {} [{}] {}",
        operation.name.as_deref().unwrap_or("-"),
        operation.effect.as_str(),
        operation.environments.join(","),
        operation.environment_source.as_str()
    )
}

#[test]
fn environments_are_found_in_every_form() {
    for (tool, arguments, expected) in [
        ("configure", r#"{"configurations":{"dev":{},"prod":{}}}"#, "[dev,prod] arguments"),
        ("configure", r#"{"configurations":{}}"#, "[*] absent"),
        ("configure", "{}", "[*] absent"),
        ("configure", r#"{"configurations":["dev"]}"#, "[*] unreadable"),
        ("configure", r#"{"configurations":{"":{}}}"#, "[*] unreadable"),
        ("by_id", r#"{"environment_id":17}"#, "[staging] arguments"),
        ("by_id", r#"{"environment_id":"17"}"#, "[staging] arguments"),
        ("by_id", r#"{"environment_id":["17","key-p"]}"#, "[production,staging] arguments"),
        ("by_id", r#"{"environment_id":18}"#, "[*] unmapped"),
        ("by_id", r#"{"environment_id":["17",18]}"#, "[*] unmapped"),
        ("by_id", r#"{"environment_id":"staging"}"#, "[*] unmapped"),
        ("by_id", r#"{"environment_id":17.0}"#, "[*] unreadable"),
        ("by_id", r#"{"environment_id":true}"#, "[*] unreadable"),
        ("by_id", r#"{"environment_id":null}"#, "[*] absent"),
        ("both", r#"{"env":"dev"}"#, "[dev] arguments"),
        ("both", r#"{"env":"dev","overrides":[{"env":"qa"}]}"#, "[dev,qa] arguments"),
        ("both", r#"{"env":"dev","overrides":[{}]}"#, "[*,dev] absent"),
        ("both", r#"{"env":"dev","overrides":null}"#, "[*,dev] absent"),
        ("both", r#"{"env":"dev","overrides":[{"env":null}]}"#, "[*,dev] absent"),
        ("both", r#"{"env":"dev","Overrides":[{"env":"qa"}]}"#, "[*] unreadable"),
        ("patch", r#"{"patch":[{"path":"/environments/dev/on"}]}"#, "[dev] arguments"),
        (
            "patch",
            r#"{"patch":[{"path":"/environments/dev/on"},{"path":"/name"}]}"#,
            "[*,dev] arguments",
        ),
        ("patch", r#"{"patch":[{"path":"/environments/"}]}"#, "[*] unreadable"),
        ("patch", r#"{"patch":[{"path":7}]}"#, "[*] unreadable"),
        ("patch", r#"{"patch":[{"path":"/x/environments/dev"}]}"#, "[*] arguments"),
        ("patch", r#"{"patch":[{"path":"/environments/dev/../qa"}]}"#, "[*] unreadable"),
        (
            "json_patch",
            r#"{"patch":[{"op":"copy","from":"/environments/qa/on","path":"/environments/dev/on"}]}"#,
            "[dev,qa] arguments",
        ),
        ("json_patch", r#"{"patch":[{"op":"remove","path":"/environments"}]}"#, "[*] arguments"),
        ("json_patch", r#"{"patch":[{"op":"move","path":"/environments/dev"}]}"#, "[*] unreadable"),
        ("json_patch", r#"{"patch":{}}"#, "[*] unreadable"),
        ("json_patch", "{}", "[*] absent"),
    ] {
        let found = resolve(tool, arguments);
        assert!(found.ends_with(expected), "{tool} {arguments}: {found}");
    }
}

#[test]
fn a_call_is_classified_by_the_operation_that_it_selects() {
    for (tool, arguments, expected) in [
        ("grouped", r#"{"action":"list"}"#, "grouped/list read [] none"),
        (
            "grouped",
            r#"{"action":"save","environment":"dev"}"#,
            "grouped/save write [dev] arguments",
        ),
        ("grouped", r#"{"action":"save"}"#, "grouped/save write [production] absent"),
        // Not listed, left out, of another type, or with a twin that some reader prefers.
        ("grouped", r#"{"action":"drop"}"#, "- unknown [] none"),
        ("grouped", "{}", "- unknown [] none"),
        ("grouped", r#"{"action":["list"]}"#, "- unknown [] none"),
        ("grouped", r#"{"action":"list","Action":"save"}"#, "- unknown [] none"),
        ("grouped", r#"{"action":"LIST"}"#, "- unknown [] none"),
        ("typed", r#"{"kind":"flag","action":"get"}"#, "typed/flag/get read [] none"),
        ("typed", r#"{"kind":"flag"}"#, "typed/flag/ read [] none"),
        ("typed", r#"{"kind":"flag/get"}"#, "- unknown [] none"),
        ("http", r#"{"method":"GET","path":"/v1/flags"}"#, "http/GET /v1/flags read [] none"),
        ("http", r#"{"method":"get","path":"/v1/flags"}"#, "http/get destructive [*] none"),
        ("http", r#"{"method":"GET","path":"/v1/flags/../keys"}"#, "http/GET destructive [*] none"),
        (
            "http",
            r#"{"method":"POST","path":"/v1/flags/x/toggle","body":"{\"environments\":{\"dev\":true}}"}"#,
            "http/POST /v1/flags/{id}/toggle destructive [dev] arguments",
        ),
        (
            "http",
            r#"{"method":"POST","path":"/v1/flags/x/toggle?environment=qa","body":"{\"environments\":{\"dev\":true}}"}"#,
            "http/POST /v1/flags/{id}/toggle destructive [*] unreadable",
        ),
        (
            "http",
            r#"{"method":"GET","path":"/v1/flags?limit=5"}"#,
            "http/GET /v1/flags read [] none",
        ),
        (
            "http",
            r#"{"method":"POST","path":"/v1/flags/x/toggle","body":"{\"environments\":{\"dev\":1},\"environments\":{}}"}"#,
            "http/POST /v1/flags/{id}/toggle destructive [*] unreadable",
        ),
        (
            "http",
            r#"{"method":"POST","path":"/v1/flags/x/toggle"}"#,
            "http/POST /v1/flags/{id}/toggle destructive [*] absent",
        ),
        ("exec", r#"{"command":"search dark mode"}"#, "exec/search read [] none"),
        ("exec", r#"{"command":"call flag-get {\"id\":1}"}"#, "exec/call flag-get read [] none"),
        (
            "exec",
            r#"{"command":"call --json --confirm flag-set {\"environment\":\"dev\"}"}"#,
            "exec/call flag-set write [dev] arguments",
        ),
        ("exec", r#"{"command":"call flag-set"}"#, "exec/call flag-set write [*] absent"),
        (
            "exec",
            r#"{"command":"call flag-set {\"environment\""}"#,
            "exec/call flag-set write [*] unreadable",
        ),
        ("exec", r#"{"command":"call flag-drop {}"}"#, "- unknown [] none"),
        ("exec", r#"{"command":"call  flag-get {}"}"#, "- unknown [] none"),
        ("exec", r#"{"command":"search x\ncall flag-drop {}"}"#, "- unknown [] none"),
        ("exec", r#"{"command":"search\tx"}"#, "- unknown [] none"),
        ("exec", r#"{"command":" search x"}"#, "- unknown [] none"),
        ("exec", r#"{"command":""}"#, "- unknown [] none"),
        ("invoke", r#"{"operationHandle":"h-list"}"#, "invoke/gates.list read [] none"),
        // What the server says may only make it worse.
        ("invoke", r#"{"operationHandle":"h-worse"}"#, "invoke/gates.list destructive [] none"),
        ("invoke", r#"{"operationHandle":"h-odd"}"#, "invoke/gates.list unknown [] none"),
        ("invoke", r#"{"operationHandle":"h-other"}"#, "- unknown [] none"),
        ("invoke", r#"{"operationHandle":"forged"}"#, "- unknown [] none"),
        ("invoke", "{}", "- unknown [] none"),
    ] {
        assert_eq!(resolve(tool, arguments), expected, "{tool} {arguments}");
    }
}

#[test]
fn tags_of_the_tool_and_of_the_operation_add_up() {
    let pack = Pack::read(PACK.as_bytes()).unwrap();
    let raw = Bytes::from_static(br#"{"action":"list"}"#);
    let document = Document::read(raw, &DocumentLimits::default()).unwrap();
    let operation = Operation::of_call(Some(&pack), "grouped", Some(document.root()));
    assert_eq!(operation.tags, [Box::from("outer"), Box::from("inner")]);
}

#[test]
fn some_arguments_add_tags() {
    let pack = Pack::read(PACK.as_bytes()).unwrap();
    for (arguments, expected) in [
        ("{}", "always"),
        (r#"{"body":{}}"#, "always"),
        (r#"{"body":{"review":{}}}"#, "always review"),
        (r#"{"body":{"review":null}}"#, "always review"),
        (r#"{"body":{"Review":true}}"#, "always review"),
        (r#"{"Body":{}}"#, "always review"),
        (r#"{"body":"review"}"#, "always"),
        (r#"{"rules":[{},{"review":0}]}"#, "always review"),
        (r#"{"rules":{"a":{"review":0}}}"#, "always review"),
        (r#"{"rules":[{}]}"#, "always"),
    ] {
        let raw = Bytes::copy_from_slice(arguments.as_bytes());
        let document = Document::read(raw, &DocumentLimits::default()).unwrap();
        let operation = Operation::of_call(Some(&pack), "tagged", Some(document.root()));
        assert_eq!(operation.tags.join(" "), expected, "{arguments}");
    }
}

#[test]
fn a_pack_with_bad_operations_is_refused_with_places() {
    let broken = r#"{
      "version": 1, "name": "v",
      "rates": {"look": {"rate": "5", "burst": -1}},
      "headers": {"Host": "x", "x-a": ""},
      "tools": {
        "a": {"effect": "read", "dispatch": {"cases": {}}},
        "b": {"effect": "read", "dispatch": {"values": ["/x"], "handle": "/y", "cases": {}}},
        "c": {"effect": "read", "dispatch": {"method": "GET", "path": "/p", "cases": {"x": {"effect": "read"}}}},
        "d": {"effect": "read", "dispatch": {"values": ["/x"], "cases": {"y": {"effect": "read", "dispatch": {}}}}},
        "e": {"effect": "read", "environments": [{"at": "/x", "form": "segment"}], "absent": "all"},
        "f": {"effect": "read", "environments": [{"form": "keys"}], "absent": "all"},
        "g": {"effect": "read", "mints": {"handle": "h", "ttl": "soon"}},
        "h": {"effect": "read", "facts": {"Project": "id"}},
        "i": {"effect": "read", "tags_if": {"A b": ["/x"], "a": ["x"], "c": "/x"}},
        "j": {"effect": "read", "facts": {
          "project": {"at": "/p", "scope": "all"}, "account": {"scope": "server"}, "place": {"at": "/q", "scope": "server"}
        }},
        "k": {"effect": "read", "facts": {"place": "/q"}, "mints": {"handle": "h", "operation": "o", "ttl": "1m", "scope": "server"}}
      }
    }"#;
    let problems = Pack::read(broken.as_bytes()).unwrap_err();
    let places: Vec<&str> = problems.iter().map(|problem| &*problem.path).collect();
    assert_eq!(
        places,
        [
            "/headers/Host",
            "/headers/x-a",
            "/rates/look",
            "/rates/look/rate",
            "/rates/look/burst",
            "/tools/a/dispatch",
            "/tools/b/dispatch",
            "/tools/c/dispatch/cases/x",
            "/tools/d/dispatch/cases/y/dispatch",
            "/tools/e/environments/0/form",
            "/tools/f/environments/0/at",
            "/tools/g/mints/operation",
            "/tools/g/mints/ttl",
            "/tools/h/facts/Project",
            "/tools/h/facts/Project",
            "/tools/i/tags_if/A b",
            "/tools/i/tags_if/a/0",
            "/tools/i/tags_if/c",
            "/tools/j/facts/project/scope",
            "/tools/j/facts/account/at",
            "/tools/k/facts/place",
            "/tools/k/mints/scope",
        ],
        "{problems:#?}"
    );
}
