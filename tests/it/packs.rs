//! Packs are read strictly, and name the environments that each call touches (threats H1 to H4).

#![expect(clippy::unwrap_used, reason = "tests")]

use bartizan::policy::embedded;
use bartizan_gate::question::operation::{EnvironmentSource, Operation};
use bartizan_gate::question::pack::{Absent, Effect, Pack};
use bartizan_gate::wire::document::{Document, DocumentLimits};
use bytes::Bytes;

const PACK: &str = r#"{
  "version": 1,
  "name": "vendor",
  "notes": "for these tests",
  "owned_headers": ["x-vendor-environment"],
  "credential_header": "x-vendor-key",
  "tools": {
    "look": {"effect": "read"},
    "update": {"effect": "write", "environments": ["/environment"], "absent": "production"},
    "remove": {"effect": "destructive", "environments": ["/environment"], "absent": "all"},
    "note": {"effect": "write", "environments": ["/environment"], "absent": "none"},
    "replace": {
      "effect": "destructive",
      "environments": ["/body/rules/*/environments"],
      "absent": "all",
      "tags": ["full-replace", "go-live"],
      "confidence": "medium",
      "notes": "a rule without environments serves all of them"
    },
    "keyed": {"effect": "write", "environments": ["/targets/*/environment"], "absent": "all"},
    "copy": {"effect": "write", "environments": ["/from", "/to"], "absent": "all"},
    "sealed": {
      "effect": "write",
      "environments": ["/environment"],
      "absent": "all",
      "arguments": ["environment", "flag"]
    },
    "odd": {"effect": "write", "environments": ["/a~1b/c~0d"], "absent": "all"},
    "everywhere": {"effect": "write", "absent": "all"},
    "run": {"effect": "exec"}
  }
}"#;

fn pack() -> Pack {
    Pack::read(PACK.as_bytes()).unwrap()
}

fn reach(tool: &str, arguments: &str) -> (Vec<String>, EnvironmentSource) {
    let limits = DocumentLimits::default();
    let document = Document::read(Bytes::copy_from_slice(arguments.as_bytes()), &limits).unwrap();
    let operation = Operation::of_call(Some(&pack()), tool, Some(document.root()));
    (operation.environments.iter().map(ToString::to_string).collect(), operation.environment_source)
}

#[test]
fn a_pack_is_read_whole() {
    let pack = pack();
    assert_eq!(&*pack.name, "vendor");
    assert_eq!(pack.tools.len(), 11);
    assert_eq!(pack.owned_headers, [Box::from("x-vendor-environment")]);
    assert_eq!(pack.credential_header.as_deref(), Some("x-vendor-key"));
    let replace = pack.tools.get("replace").unwrap();
    assert_eq!(replace.effect, Effect::Destructive);
    assert_eq!(replace.absent, Absent::All);
    assert_eq!(replace.tags, [Box::from("full-replace"), Box::from("go-live")]);
    assert_eq!(replace.arguments, None);
    let sealed = pack.tools.get("sealed").unwrap();
    assert_eq!(sealed.arguments, Some(vec!["environment".into(), "flag".into()]));
}

#[test]
fn calls_reach_what_their_arguments_name() {
    use EnvironmentSource::{Absent, Arguments, None, Unreadable};
    let every = ["*"].as_slice();
    let cases: &[(&str, &str, &[&str], EnvironmentSource)] = &[
        // Named.
        ("update", r#"{"environment":"staging"}"#, &["staging"], Arguments),
        ("update", r#"{"environment":["staging"]}"#, &["staging"], Arguments),
        ("update", r#"{"environment":["b","a","b"]}"#, &["a", "b"], Arguments),
        ("update", r#"{"environment":"st\u0061ging"}"#, &["staging"], Arguments),
        ("odd", r#"{"a/b":{"c~d":"staging"}}"#, &["staging"], Arguments),
        ("keyed", r#"{"targets":{"x":{"environment":"s"}}}"#, &["s"], Arguments),
        ("keyed", r#"{"targets":[{"environment":"s"}]}"#, &["s"], Arguments),
        ("copy", r#"{"from":"dev","to":"staging"}"#, &["dev", "staging"], Arguments),
        (
            "replace",
            r#"{"body":{"rules":[{"environments":["a"]},{"environments":["b"]}]}}"#,
            &["a", "b"],
            Arguments,
        ),
        // H1: left out, null and empty mean what the pack says, never nothing.
        ("update", "{}", &["production"], Absent),
        ("update", r#"{"environment":null}"#, &["production"], Absent),
        ("update", r#"{"environment":""}"#, &["production"], Absent),
        ("update", r#"{"environment":[]}"#, &["production"], Absent),
        ("update", "null", &["production"], Absent),
        ("remove", "{}", every, Absent),
        ("note", "{}", &[], Absent),
        ("replace", "{}", every, Absent),
        ("replace", r#"{"body":null}"#, every, Absent),
        ("replace", r#"{"body":{"rules":[]}}"#, every, Absent),
        ("replace", r#"{"body":{"rules":{}}}"#, every, Absent),
        ("replace", r#"{"body":{"rules":[{}]}}"#, every, Absent),
        ("keyed", r#"{"targets":{}}"#, every, Absent),
        // H1: a rule without environments applies to all of them, even if other rules name some.
        (
            "replace",
            r#"{"body":{"rules":[{"environments":["staging"]},{"environments":null}]}}"#,
            &["*", "staging"],
            Absent,
        ),
        ("replace", r#"{"body":{"rules":[{"environments":["a"]},null]}}"#, &["*", "a"], Absent),
        ("copy", r#"{"from":"staging"}"#, &["*", "staging"], Absent),
        // H1: another type is not a name.
        ("update", r#"{"environment":1}"#, every, Unreadable),
        ("update", r#"{"environment":true}"#, every, Unreadable),
        ("update", r#"{"environment":false}"#, every, Unreadable),
        // H2: arrays of something else, operator objects.
        ("update", r#"{"environment":["staging",1]}"#, every, Unreadable),
        ("update", r#"{"environment":["staging",null]}"#, every, Unreadable),
        ("update", r#"{"environment":["staging",""]}"#, every, Unreadable),
        ("update", r#"{"environment":[["staging"]]}"#, every, Unreadable),
        ("update", r#"{"environment":{"$ne":"production"}}"#, every, Unreadable),
        ("update", r#"{"environment":{"staging":true}}"#, every, Unreadable),
        ("copy", r#"{"from":"dev","to":{}}"#, every, Unreadable),
        ("replace", r#"{"body":{"rules":"all"}}"#, every, Unreadable),
        ("replace", r#"{"body":[]}"#, every, Unreadable),
        // H3: JSON inside a string, on the way and at the end.
        ("replace", r#"{"body":"{\"rules\":[]}"}"#, every, Unreadable),
        ("update", r#"{"environment":"[\"production\"]"}"#, &[r#"["production"]"#], Arguments),
        // H3: another spelling, where the pack lists every argument.
        ("sealed", r#"{"environment":"staging","flag":"f"}"#, &["staging"], Arguments),
        ("sealed", r#"{"environment":"staging","env":"production"}"#, every, Unreadable),
        ("sealed", r#"{"environment":"staging","opts":"{}"}"#, every, Unreadable),
        ("sealed", r#"{"stage":"production"}"#, every, Unreadable),
        // H4: the key in another case, width or script, with white space or NUL.
        ("update", r#"{"Environment":"staging"}"#, every, Unreadable),
        ("update", r#"{"environment":"staging","ENVIRONMENT":"production"}"#, every, Unreadable),
        ("update", r#"{"environment":"staging","environment ":"production"}"#, every, Unreadable),
        ("update", r#"{"environment":"a","environment\u0000":"b"}"#, every, Unreadable),
        ("update", r#"{"environment":"a","\u200aenvironment":"b"}"#, every, Unreadable),
        ("update", r#"{"environment":"a","ｅnvironment":"b"}"#, every, Unreadable),
        (
            "replace",
            r#"{"body":{"rules":[{"environments":["a"],"environment\u017f":["b"]}]}}"#,
            every,
            Unreadable,
        ),
        // H4: the value in another form is another name.
        ("update", r#"{"environment":"Staging"}"#, &["Staging"], Arguments),
        ("update", r#"{"environment":"staging "}"#, &["staging "], Arguments),
        ("update", r#"{"environment":"staging\u0000"}"#, &["staging\0"], Arguments),
        ("update", r#"{"environment":"null"}"#, &["null"], Arguments),
        ("update", r#"{"environment":"staging,production"}"#, &["staging,production"], Arguments),
        // No place for one.
        ("look", "{}", &[], None),
        ("look", r#"{"environment":"production"}"#, &[], None),
        ("run", r#"{"code":"x"}"#, &[], None),
        ("everywhere", "{}", every, None),
        // Arguments that are no object.
        ("update", r#"["staging"]"#, every, Unreadable),
        ("look", "7", every, Unreadable),
    ];
    for (tool, arguments, environments, source) in cases {
        let (found, how) = reach(tool, arguments);
        assert_eq!((&*found, how), (&*to_strings(environments), *source), "{tool} {arguments}");
    }
}

fn to_strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn too_many_environments_are_every_one() {
    let names = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("\"e{n}\"")).collect();
        format!("{{\"environment\":[{}]}}", names.join(","))
    };
    assert_eq!(reach("update", &names(256)).1, EnvironmentSource::Arguments);
    let (environments, source) = reach("update", &names(257));
    assert_eq!((&*environments, source), (&*to_strings(&["*"]), EnvironmentSource::Unreadable));
}

#[test]
fn a_call_without_arguments_leaves_the_environment_out() {
    let operation = Operation::of_call(Some(&pack()), "remove", None);
    assert_eq!(operation.environments, [Box::from("*")]);
    assert_eq!(operation.environment_source, EnvironmentSource::Absent);
}

#[test]
fn what_no_pack_knows_is_unknown() {
    let pack = pack();
    for (pack, tool) in
        [(None, "update"), (Some(&pack), "updat"), (Some(&pack), "Update"), (Some(&pack), "")]
    {
        for operation in [Operation::of_call(pack, tool, None), Operation::of_tool(pack, tool)] {
            assert_eq!(operation, Operation::of_method(Effect::Unknown), "{tool}");
        }
    }
}

#[test]
fn a_tool_is_known_before_its_arguments() {
    let operation = Operation::of_tool(Some(&pack()), "replace");
    assert_eq!(operation.effect, Effect::Destructive);
    assert_eq!(operation.tags, [Box::from("full-replace"), Box::from("go-live")]);
    assert_eq!(operation.pack.as_deref(), Some("vendor"));
    assert_eq!(operation.environments, Vec::<Box<str>>::new());
    assert_eq!(operation.environment_source, EnvironmentSource::None);
}

#[test]
fn every_problem_is_reported_with_its_place() {
    let broken = r#"{
      "version": 2,
      "name": "Vendor!",
      "author": "x",
      "notes": 1,
      "owned_headers": ["X-Env", "host", "mcp-name", "a b", "x-env", "x-env"],
      "credential_header": 7,
      "tools": {
        "": {"effect": "read"},
        "a/b": {"effect": "reed"},
        "c": {},
        "d": [],
        "e": {"effect": "unknown"},
        "f": {"effect": "write", "enviroments": ["/environment"]},
        "g": {"effect": "write", "environments": ["/environment"]},
        "h": {"effect": "write", "environments": "environment", "absent": "all"},
        "i": {
          "effect": "write",
          "environments": ["environment", "/a//b", "/a~2", "/x", "/x"],
          "absent": "some",
          "tags": ["Go Live"],
          "confidence": "sure"
        },
        "j": {
          "effect": "write",
          "environments": ["/environment", "/*/environment"],
          "absent": "all",
          "arguments": ["flag", ""]
        }
      }
    }"#;
    let problems = Pack::read(broken.as_bytes()).unwrap_err();
    let places: Vec<&str> = problems.iter().map(|problem| &*problem.path).collect();
    assert_eq!(
        places,
        [
            "/author",
            "/version",
            "/name",
            "/notes",
            "/owned_headers/0",
            "/owned_headers/1",
            "/owned_headers/2",
            "/owned_headers/3",
            "/owned_headers/5",
            "/credential_header",
            "/tools/",
            "/tools/a~1b/effect",
            "/tools/c/effect",
            "/tools/d",
            "/tools/e/effect",
            "/tools/f/enviroments",
            "/tools/g/absent",
            "/tools/h/environments",
            "/tools/i/environments/0",
            "/tools/i/environments/1",
            "/tools/i/environments/2",
            "/tools/i/environments/4",
            "/tools/i/absent",
            "/tools/i/tags/0",
            "/tools/i/confidence",
            "/tools/j/arguments/1",
            "/tools/j/environments/0",
        ],
        "{problems:#?}"
    );
    assert!(problems.iter().all(|problem| !problem.message.is_empty()));
}

#[test]
fn a_pack_that_is_no_strict_json_names_the_line() {
    for (text, expected) in [
        ("{\n\"version\": 1,\n}", "line 3: not JSON"),
        ("{\"version\": 1,\n\"version\": 1}", "line 2: a member is named twice"),
        ("", "line 1: not JSON"),
        ("{}{}", "line 1: not JSON"),
    ] {
        let problems = Pack::read(text.as_bytes()).unwrap_err();
        let [problem] = &*problems else { panic!("{text}: {problems:?}") };
        assert_eq!(problem.path, "");
        assert!(problem.message.starts_with(expected), "{text}: {}", problem.message);
    }
    for text in ["[]", "null", "\"pack\"", "{}"] {
        assert!(Pack::read(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn the_packs_in_the_program_are_sound() {
    for (name, text) in embedded::PACKS {
        let pack = Pack::read(text.as_bytes()).unwrap_or_else(|problems| {
            panic!("{name}: {problems:#?}");
        });
        assert_eq!(&*pack.name, *name);
        assert!(!pack.tools.is_empty(), "{name}");
    }
    assert_eq!(embedded::pack("flag-service").map(str::is_empty), Some(false));
    assert_eq!(embedded::pack("no-such-vendor"), None);
}

#[test]
fn the_flag_service_is_known() {
    let pack = Pack::read(embedded::pack("flag-service").expect("embedded").as_bytes()).unwrap();
    let effects: Vec<(&str, &str)> =
        pack.tools.iter().map(|(name, entry)| (&**name, entry.effect.as_str())).collect();
    assert_eq!(
        effects,
        [
            ("approve_review", "write"),
            ("create_flag", "write"),
            ("delete_flag", "destructive"),
            ("get_audit_log", "read"),
            ("get_flag", "read"),
            ("list_environments", "read"),
            ("list_flags", "read"),
            ("replace_flag", "destructive"),
            ("run_script", "exec"),
            ("set_rollout", "write"),
            ("update_flag", "write"),
        ]
    );
}
