//! Policies on both engines, through the public interface: their input, how their answers are read,
//! and the result of validation.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

use std::sync::Arc;
use std::time::Duration;

use bartizan_gate::duty::decision::{
    Bound, Decision, Effect, Engine, Limit, Listing, Obligation, Origin, PolicyRevision, Rate,
};
use bartizan_gate::duty::pdp::{ListEntry, Pdp};
use bartizan_gate::question::access::{
    AccessRequest, Action, Client, Principal, Resource, Server, TaskOrigin, WallTime,
};
use bartizan_gate::question::operation::{EnvironmentSource, Operation};
use bartizan_gate::question::pack;
use bartizan_gate::question::status::{DefinitionStatus, Drift};
use bartizan_gate::wire::document::{Document, DocumentLimits};
use bartizan_gate::wire::protocol::{Direction, Era, Protocol, Revision, Transport};
use bartizan_rego::{
    Entrypoints, EvalLimits, Module, Policy, PolicyProblem, PolicySources, Proof, RegoPdp,
    capabilities, input_json, input_schema, prove, run_tests,
};

/// The rules that combine the partial sets, as shipped.
pub(crate) const DECISION: &str = include_str!("../../policies/mcp/decision.rego");

/// A policy of the size and mixture that a security team writes.
pub(crate) const RICH: &str = include_str!("policies/rich.rego");

/// The data that [`RICH`] reads.
pub(crate) const RICH_DATA: &str = r#"{
    "pins": {"flags": ["dev"]},
    "roles": {"developers": ["update_flag", "get_flag", "drop_flag"]},
    "blocked": ["drop_*", "*:prod"]
}"#;

/// [`DECISION`] and one more source.
pub(crate) fn sources(rego: &str, data: Option<&str>) -> PolicySources {
    let module = |path: &str, text: &str| Module { path: path.to_owned(), text: text.to_owned() };
    PolicySources {
        modules: vec![module("decision.rego", DECISION), module("policy.rego", rego)],
        data: data.map(str::to_owned),
        revision: "r1".into(),
    }
}

/// The policy of [`sources`], or every problem.
pub(crate) fn compile(rego: &str, data: Option<&str>) -> Result<Policy, Vec<PolicyProblem>> {
    Policy::compile(&sources(rego, data), &Entrypoints::default(), &EvalLimits::default())
}

/// Reads strict JSON.
pub(crate) fn document(json: &str) -> Document {
    Document::read(json.to_owned().into(), &DocumentLimits::default()).unwrap()
}

/// Who asks of what, for requests that differ in little else.
#[derive(Debug)]
pub(crate) struct Scene {
    principal: Principal,
    client: Client,
    server: Server,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let principal = Principal {
            id: "agent-1".into(),
            kind: "agent".into(),
            groups: vec!["developers".into()],
            claims: [("team".into(), "checkout".into())].into(),
        };
        let server = Server {
            name: "flags".into(),
            environment: Some("staging".into()),
            environment_ids: [].into(),
            labels: [("tier".into(), "2".into())].into(),
            pack: None,
        };
        Self { principal, client: Client { name: "ide".into(), version: "1.0".into() }, server }
    }

    /// A call of `tool` at noon of a Thursday.
    pub(crate) fn call<'a>(
        &'a self,
        tool: &'a str,
        arguments: Option<&'a Document>,
    ) -> AccessRequest<'a> {
        AccessRequest {
            principal: &self.principal,
            client: Some(&self.client),
            server: &self.server,
            protocol: Protocol {
                revision: Some(Revision::V20251125),
                era: Era::Legacy,
                transport: Transport::Http,
            },
            direction: Direction::ToServer,
            method: "tools/call",
            action: Action::CallTool,
            resource: Resource::Tool {
                name: tool,
                arguments: arguments.map(Document::root),
                definition: None,
                status: DefinitionStatus::default(),
            },
            params: None,
            operation: Arc::new(Operation {
                effect: pack::Effect::Write,
                environments: vec!["staging".into()],
                name: None,
                environment_source: EnvironmentSource::Arguments,
                tags: vec!["go-live".into()],
                pack: Some("flags".into()),
            }),
            facts: [].into(),
            time: WallTime { unix_ms: 1_763_640_000_000 },
            approval: None,
            trace_id: Some("0af7651916cd43dd8448eb211c80319c"),
        }
    }
}

/// Both engines over one policy, where both may run it.
#[derive(Debug)]
pub(crate) struct Both {
    strict: RegoPdp,
    compiled: Option<RegoPdp>,
}

impl Both {
    pub(crate) fn new(policy: &Policy) -> Self {
        let compiled = RegoPdp::compiled(policy.clone(), 1, u32::MAX).ok();
        // The first answer is always shadowed, the others are not.
        if let Some(compiled) = &compiled {
            drop(compiled.decide(&Scene::new().call("warm", None)));
        }
        Self { strict: RegoPdp::strict(policy.clone(), 1), compiled }
    }

    pub(crate) fn is_compiled(&self) -> bool {
        self.compiled.is_some()
    }

    /// The decision, the same from both.
    pub(crate) fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let strict = self.strict.decide(request);
        if let Some(compiled) = &self.compiled {
            let decision = compiled.decide(request);
            assert_eq!(decision.effect, strict.effect, "{decision:?} {strict:?}");
            assert_eq!(decision.reasons, strict.reasons);
            assert_eq!(decision.obligations, strict.obligations);
            // After a difference the strict engine would answer alone, and be compared with itself.
            assert_eq!(compiled.demotion(), None);
        }
        strict
    }

    fn list(&self, request: &AccessRequest<'_>, entries: &[ListEntry<'_>]) -> Listing {
        let strict = self.strict.list(request, entries);
        if let Some(compiled) = &self.compiled {
            assert_eq!(compiled.list(request, entries), strict);
            assert_eq!(compiled.demotion(), None);
        }
        strict
    }
}

fn codes(decision: &Decision) -> Vec<&str> {
    decision.reasons.iter().map(|reason| &*reason.code).collect()
}

#[test]
fn the_input_is_version_1_of_the_schema() {
    let scene = Scene::new();
    let arguments = document(r#"{"key": "k", "big": 18446744073709551617, "half": 0.5}"#);
    let text = input_json(&scene.call("update_flag", Some(&arguments)));
    let input: serde_json::Value = text.parse().unwrap();
    let expected: serde_json::Value = r#"{
        "version": 1, "phase": "call", "direction": "to_server", "method": "tools/call",
        "principal": {"id": "agent-1", "kind": "agent", "groups": ["developers"],
                      "claims": {"team": "checkout"}},
        "client": {"name": "ide", "version": "1.0"},
        "server": {"name": "flags", "environment": "staging", "labels": {"tier": "2"}},
        "protocol": {"revision": "2025-11-25", "era": "legacy", "transport": "http"},
        "tool": {"name": "update_flag", "arguments": {"key": "k", "big": null, "half": 0.5}},
        "operation": {"effect": "write", "environments": ["staging"], "tags": ["go-live"],
                      "environment_source": "arguments", "pack": "flags"},
        "session": {"facts": {}},
        "time": {"unix_ms": 1763640000000, "rfc3339": "2025-11-20T12:00:00.000Z",
                 "weekday": "Thursday", "hour": 12},
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "lossy": ["/tool/arguments/big"]
    }"#
    .parse()
    .unwrap();
    assert_eq!(input, expected);
}

#[test]
fn each_kind_of_resource_has_its_own_place_in_the_input() {
    let scene = Scene::new();
    let uris = document(r#"["file:///a"]"#);
    let params = document(r#"{"n": 1}"#);
    let of = |resource, params| {
        let request = AccessRequest { resource, params, ..scene.call("t", None) };
        input_json(&request).parse::<serde_json::Value>().unwrap()
    };
    let prompt = Resource::Prompt { name: "p", arguments: None };
    let arguments = document("null");
    let tool = Resource::Tool {
        name: "t",
        arguments: Some(arguments.root()),
        definition: Some("d"),
        status: DefinitionStatus::default(),
    };
    for (resource, params, pointer, expected) in [
        (Resource::Uri("file:///a"), None, "/resource/uri", r#""file:///a""#),
        (Resource::Uris(uris.root()), None, "/resources/uris", r#"["file:///a"]"#),
        (prompt, None, "/prompt", r#"{"name": "p", "arguments": {}}"#),
        (Resource::Task { id: "7", origin: None }, None, "/task/id", r#""7""#),
        (tool, None, "/tool", r#"{"name": "t", "definition_digest": "d", "arguments": {}}"#),
        (Resource::Whole, Some(params.root()), "/params", r#"{"n": 1}"#),
    ] {
        let input = of(resource, params);
        let expected: serde_json::Value = expected.parse().unwrap();
        assert_eq!(input.pointer(pointer), Some(&expected), "{pointer}");
        if pointer != "/tool" {
            assert_eq!(input.get("tool"), None, "{pointer}");
        }
    }
}

/// Adds the paths of an object's members, and theirs, as the schema has them.
fn paths_of(schema: &serde_json::Value, path: &str, paths: &mut Vec<String>) {
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        paths.push(path.clone());
        paths_of(member, &path, paths);
    }
}

/// The compiled engine reads each part of the input from the request, the strict one from the
/// document that is built from the request: they find the same.
#[test]
fn both_engines_find_each_part_of_the_input() {
    let mut paths = Vec::new();
    paths_of(&input_schema().parse().unwrap(), "input", &mut paths);
    assert!(paths.len() > 60, "{paths:?}");
    for below in [
        "tool.arguments.a.b",
        "prompt.arguments.a",
        "params.a",
        "principal.claims.team",
        "server.labels.tier",
        "server.rates.read",
        "server.rates.read.burst",
        "server.rates[input.operation.effect].rate",
        "session.facts.project",
        "tool.flags[0]",
        "operation.tags[0]",
    ] {
        paths.push(format!("input.{below}"));
    }
    let rules: Vec<String> = paths
        .iter()
        .map(|path| {
            let head = format!(r#"permit contains {{"code": "{path}", "message": text}} if"#);
            format!("{head} {{\n\ttext := json.marshal({path})\n}}\n")
        })
        .collect();
    let both = Both::new(&compile(&format!("package mcp\n\n{}", rules.join("\n")), None).unwrap());
    assert!(both.is_compiled());
    let mut scene = Scene::new();
    let pack = bartizan::policy::embedded::pack("flag-service").unwrap();
    scene.server.pack = Some(Arc::new(pack::Pack::read(pack.as_bytes()).unwrap()));
    let values = document(
        r#"{"a": {"b": [1, 0.5, "x"]}, "action": "accept", "content": {"c": true}, "mode": "url",
            "url": "https://a.example/x?y=1", "roots": [{"uri": "file:///a/../b"}]}"#,
    );
    let uris = document(r#"["file:///a"]"#);
    let null = document("null");
    let (values, null) = (values.root(), null.root());
    let origin = TaskOrigin {
        method: "tools/call".into(),
        tool: Some("t".into()),
        operation: Operation::clone(&scene.call("t", None).operation),
    };
    let status =
        DefinitionStatus { flags: &["bidi"], drift: Some(Drift::Changed), text: Some("{}") };
    let tool =
        |arguments, definition, status| Resource::Tool { name: "t", arguments, definition, status };
    let mut found = 0;
    for resource in [
        tool(Some(values), Some("d"), status),
        tool(None, None, DefinitionStatus::default()),
        tool(Some(null), None, DefinitionStatus::default()),
        Resource::Prompt { name: "p", arguments: Some(values) },
        Resource::Prompt { name: "p", arguments: None },
        Resource::Uri("file:///a/%2e%2e/b"),
        Resource::Uris(uris.root()),
        Resource::Task { id: "7", origin: Some(&origin) },
        Resource::Task { id: "7", origin: None },
        Resource::Answer { result: Some(values), error: None },
        Resource::Answer { result: None, error: Some(-1) },
        Resource::Whole,
    ] {
        for params in [None, Some(values)] {
            let mut request = AccessRequest { resource, params, ..scene.call("t", None) };
            Arc::make_mut(&mut request.operation).name = params.map(|_| "t/o".into());
            request.facts = params.map(|_| ("project".into(), "shop".into())).into_iter().collect();
            found += both.decide(&request).reasons.len();
            request.action = Action::Elicit;
            request.direction = Direction::ToClient;
            found += both.decide(&request).reasons.len();
        }
    }
    assert!(found > 1_000, "{found}");
}

#[test]
fn a_question_that_comes_again_is_answered_like_the_first_time() {
    let rego = r#"package mcp

permit contains {"code": input.tool.name, "message": input.principal.id} if {
	input.operation.environments == ["staging"]
}

limit contains {"code": "l", "key": input.tool.name, "rate": "1/m"}
"#;
    let both = Both::new(&compile(rego, None).unwrap());
    let (mine, mut other) = (Scene::new(), Scene::new());
    other.principal.id = "agent-2".into();
    for _ in 0..3 {
        for (scene, tool, environment, expected) in [
            (&mine, "a", "staging", "agent-1 may a, 1 duty"),
            (&mine, "b", "staging", "agent-1 may b, 1 duty"),
            (&other, "a", "staging", "agent-2 may a, 1 duty"),
            (&mine, "a", "production", "no rule permits this"),
        ] {
            let mut request = scene.call(tool, None);
            Arc::make_mut(&mut request.operation).environments = vec![environment.into()];
            let decision = both.decide(&request);
            let Decision { reasons, obligations, .. } = &decision;
            let said = match decision.effect {
                Effect::Permit => format!(
                    "{} may {}, {} duty",
                    reasons[0].message,
                    reasons[0].code,
                    obligations.len()
                ),
                Effect::Deny => reasons[0].message.to_string(),
            };
            assert_eq!(said, expected);
        }
    }
}

#[test]
fn what_changes_from_call_to_call_is_judged_each_time() {
    for (condition, message) in
        [("input.time.hour == 12", "noon"), ("input.tool.arguments.key == \"k\"", "key")]
    {
        let rule = format!(r#"{{"code": "c", "message": "{message}"}} if {condition}"#);
        let rego = format!("package mcp\npermit contains {rule}");
        let both = Both::new(&compile(&rego, None).unwrap());
        let scene = Scene::new();
        let (right, wrong) = (document(r#"{"key": "k"}"#), document(r#"{"key": "l"}"#));
        let late = WallTime { unix_ms: 1_763_640_000_000 + 3_600_000 };
        for _ in 0..2 {
            let permitted = scene.call("t", Some(&right));
            assert_eq!(both.decide(&permitted).effect, Effect::Permit, "{condition}");
            let refused = AccessRequest { time: late, ..scene.call("t", Some(&wrong)) };
            assert_eq!(both.decide(&refused).effect, Effect::Deny, "{condition}");
        }
    }
}

#[test]
fn the_partial_rules_of_a_policy_become_one_decision() {
    let both = Both::new(&compile(RICH, Some(RICH_DATA)).unwrap());
    assert!(both.is_compiled());
    let scene = Scene::new();
    let quiet = document(r#"{"environment": "staging", "key": "k", "value": {"rollout": 10}}"#);
    let permit = both.decide(&scene.call("update_flag", Some(&quiet)));
    assert_eq!((permit.effect, codes(&permit)), (Effect::Permit, vec!["role"]));
    assert_eq!(permit.reasons[0].message.as_ref(), "developers may call update_flag");
    let minute = Duration::from_mins(1);
    let limit = Obligation::Limit(Limit {
        code: "calls".into(),
        key: "agent-1".into(),
        bound: Bound::Bucket { rate: Rate { count: 10, period: minute }, burst: 5 },
        cost: 1,
    });
    assert_eq!(permit.obligations, std::slice::from_ref(&limit));
    let unpinned = document(r#"{"key": "k"}"#);
    let set = Obligation::Set { pointer: "/environment".into(), value: "\"staging\"".into() };
    let permit = both.decide(&scene.call("update_flag", Some(&unpinned)));
    assert_eq!(permit.obligations, [limit, set]);
    // Any denial wins; each says why; a denial carries no duties.
    let loud = document(r#"{"key": "prod-1", "value": {"rollout": 80}}"#);
    let mut request = scene.call("drop_flag", Some(&loud));
    Arc::make_mut(&mut request.operation).environments = vec!["production".into(), "dev".into()];
    let deny = both.decide(&request);
    assert_eq!((deny.effect, deny.obligations.len()), (Effect::Deny, 0));
    assert_eq!(codes(&deny), ["blocked", "environment", "key", "rollout"]);
    assert_eq!(deny.reasons[1].message.as_ref(), "production is outside flags");
    assert!(deny.reasons.iter().all(|reason| reason.origin == Origin::Rule));
    // Without a permit nothing passes.
    let other = both.decide(&scene.call("other", Some(&quiet)));
    assert_eq!((other.effect, other.reasons[0].origin), (Effect::Deny, Origin::NotApplicable));
}

#[test]
fn a_page_is_judged_at_once() {
    let both = Both::new(&compile(RICH, Some(RICH_DATA)).unwrap());
    let scene = Scene::new();
    let request = AccessRequest {
        method: "tools/list",
        action: Action::ListTools,
        resource: Resource::Whole,
        ..scene.call("", None)
    };
    let entry = |name, effect| ListEntry {
        name,
        operation: Some(Operation::of_method(effect)),
        digest: "sha256:00",
        definition: None,
        status: DefinitionStatus::default(),
    };
    let entries = [
        entry("get_flag", pack::Effect::Read),
        entry("drop_flag", pack::Effect::Write),
        entry("wipe", pack::Effect::Destructive),
        entry("get:prod", pack::Effect::Read),
    ];
    let hidden = both.list(&request, &entries);
    let names = ["drop_flag", "get:prod", "wipe"].map(Into::into).to_vec();
    assert_eq!(hidden, Listing::Hide { names, revision: "r1".into() });
}

/// As [`both_engines_find_each_part_of_the_input`], for the entries of a list.
#[test]
fn both_engines_find_each_part_of_an_entry() {
    let schema: serde_json::Value = input_schema().parse().unwrap();
    let mut paths = vec!["it".to_owned(), "it.operation.tags[_]".into(), "it.flags[_]".into()];
    paths_of(&schema["properties"]["tools"]["items"], "it", &mut paths);
    assert!(paths.len() > 10, "{paths:?}");
    let rules: Vec<String> = paths
        .iter()
        .flat_map(|path| ["tools", "entries"].map(|list| (list, path)))
        .map(|(list, path)| {
            let value = format!("json.marshal([\"{list}.{path}\", at, {path}])");
            format!("hide contains {value} if some at, it in input.{list}\n")
        })
        .collect();
    let whole =
        "hide contains json.marshal(input.tools)\n\nhide contains json.marshal(input.tools[1])\n";
    let rego = format!("package mcp\n\n{whole}\n{}", rules.join("\n"));
    let both = Both::new(&compile(&rego, None).unwrap());
    assert!(both.is_compiled());
    let scene = Scene::new();
    let definition = document(r#"{"name": "a", "inputSchema": {"maximum": 18446744073709551616}}"#);
    let status =
        DefinitionStatus { flags: &["bidi", "tag"], drift: Some(Drift::Changed), text: None };
    let entry = |name, definition, status, operation| ListEntry {
        name,
        operation,
        digest: "sha256:00",
        definition,
        status,
    };
    let entries = [
        entry(
            "a",
            Some(definition.root()),
            status,
            Some(Operation::clone(&scene.call("a", None).operation)),
        ),
        entry("b", None, DefinitionStatus::default(), None),
    ];
    for action in [Action::ListTools, Action::ListPrompts] {
        let resource = Resource::Whole;
        let request = AccessRequest { action, resource, ..scene.call("", None) };
        let Listing::Hide { names, .. } = both.list(&request, &entries) else { panic!() };
        assert!(names.len() > 10, "{names:?}");
        let Listing::Hide { .. } = both.list(&request, &[]) else { panic!() };
    }
}

/// Built-ins that the compiled engine runs on the texts and collections of a message themselves.
#[test]
fn both_engines_run_built_ins_on_what_stands_in_a_message() {
    let places = [
        "args.text",
        "args.upper",
        "args.other",
        "args.empty",
        "args.number",
        "args.truth",
        "args.none",
        "args.texts",
        "args.mixed",
        "args.object",
        "args",
        "input.operation.tags",
        "input.tool.flags",
        "input.principal.groups",
        "input.principal.claims",
        "input.operation",
        "[args.text, \"z\"]",
        "{args.text, \"z\"}",
        "{\"k\": args.text}",
        "data.numbers",
    ];
    let is_text =
        |place: &str| matches!(place, "args.text" | "args.upper" | "args.other" | "args.empty");
    let mut calls: Vec<String> = Vec::new();
    for place in places {
        for kind in ["null", "boolean", "number", "string", "array", "set", "object"] {
            calls.push(format!("is_{kind}({place})"));
        }
        if !matches!(place, "args.number" | "args.truth" | "args.none") {
            calls.push(format!("count({place})"));
        }
        calls.push(format!("\"a\" in {place}"));
        calls.push(format!("args.text in {place}"));
        calls.push(format!("[it | some it in [{place}]]"));
        calls.push(format!("{place} == args.object"));
        calls.push(format!("{place} < [args.texts]"));
        calls.push(format!("{{{place}, args.text, 1, \"a\"}}"));
        if is_text(place) {
            for call in
                ["lower(IT)", "upper(IT)", "startswith(IT, \"a\")", "contains(IT, args.text)"]
            {
                calls.push(call.replace("IT", place));
            }
            for call in
                ["endswith(IT, args.empty)", "regex.match(`^[a-c]+$`, IT)", "regex.match(IT, `a`)"]
            {
                calls.push(call.replace("IT", place));
            }
        }
    }
    for call in [
        r#"concat("/", args.texts)"#,
        "concat(args.text, input.operation.tags)",
        r#"concat("", {args.text, "z", "b"})"#,
        r#"object.get(args.object, "a", 1)"#,
        r#"object.get(args.object, "z", args.texts)"#,
        r#"object.get(args.object, ["a", "b", 0], 1)"#,
        r#"object.get(args.object, ["a", "b", 9], 1)"#,
        r#"object.get(args.object, ["a", "b", "c"], 1)"#,
        "object.get(args.object, [], 1)",
        r#"object.get({"k": args.text}, "k", 1)"#,
        r#"object.get(input.principal.claims, "team", 1)"#,
        r#"object.get(args, args.text, "none")"#,
    ] {
        calls.push(call.to_owned());
    }
    let rules: Vec<String> = calls
        .iter()
        .enumerate()
        .map(|(at, call)| {
            let head = format!(r#"permit contains {{"code": "{at}", "message": text}} if"#);
            let args = "args := input.tool.arguments";
            let allow = "# bartizan:allow absent-operand";
            format!("{head} {{\n\t{args}\n\t{allow}\n\ttext := json.marshal({call})\n}}\n")
        })
        .collect();
    let scene = Scene::new();
    let values = document(
        r#"{"text": "abc", "upper": "aBC", "other": "ÄöİΣ", "empty": "", "number": 1.5, "truth": true,
            "none": null, "texts": ["a", "abc", "é"], "mixed": ["a", 1, null, ["a"]],
            "object": {"b": 2, "a": {"b": ["x"]}}}"#,
    );
    let status = DefinitionStatus { flags: &["a", "bidi"], ..DefinitionStatus::default() };
    let arguments = Some(values.root());
    let resource = Resource::Tool { name: "t", arguments, definition: None, status };
    let request = AccessRequest { resource, ..scene.call("t", None) };
    for (rule, call) in rules.iter().zip(&calls) {
        let rego = format!("package mcp\n\n{rule}");
        let both = Both::new(&compile(&rego, Some(r#"{"numbers": [1, "a"]}"#)).unwrap());
        assert!(both.is_compiled(), "{call}");
        let decision = both.decide(&request);
        assert_eq!(decision.effect, Effect::Permit, "{call}: {decision:?}");
    }
}

#[test]
fn a_long_page_is_judged_in_parts() {
    // Of each part the count is known, and only what is hidden of all parts is hidden.
    let rego = "package mcp\n\nhide contains tool.name if {\n\tsome tool in input.tools\n\tendswith(tool.name, \"7\")\n}\n\nhide contains \"long\" if count(input.tools) > 4096";
    let both = Both::new(&compile(rego, None).unwrap());
    let scene = Scene::new();
    let request = AccessRequest {
        method: "tools/list",
        action: Action::ListTools,
        resource: Resource::Whole,
        ..scene.call("", None)
    };
    let names: Vec<String> = (0..10_000).map(|number| format!("t{number}")).collect();
    let entry = |name| ListEntry {
        name,
        operation: None,
        digest: "d",
        definition: None,
        status: DefinitionStatus::default(),
    };
    let entries: Vec<_> = names.iter().map(|name| entry(&**name)).collect();
    let Listing::Hide { names: hidden, .. } = both.list(&request, &entries) else { panic!() };
    let seven = |name: &String| name.ends_with('7');
    assert_eq!(hidden.len(), names.iter().filter(|name| seven(name)).count());
    assert!(hidden.iter().all(|name| name.ends_with('7')), "no part is longer than 4096");
}

#[test]
fn a_listing_that_cannot_be_answered_withholds_the_page() {
    let rego = "package mcp\nhide contains 1 if startswith(input.tools[0].name, input.tools)";
    let both = Both::new(&compile(rego, None).unwrap());
    let scene = Scene::new();
    let request = AccessRequest { action: Action::ListTools, ..scene.call("", None) };
    let entry = ListEntry {
        name: "a",
        operation: None,
        digest: "d",
        definition: None,
        status: DefinitionStatus::default(),
    };
    let Listing::Withhold { reason, .. } = both.list(&request, &[entry]) else { panic!() };
    assert_eq!(reason.origin, Origin::Indeterminate);
}

#[test]
fn a_number_without_an_exact_value_denies_only_where_a_rule_can_see_it() {
    let open = "package mcp\npermit contains {\"message\": \"m\"} if ";
    let scene = Scene::new();
    let arguments = document(r#"{"id": 18446744073709551617, "n": 1}"#);
    for (condition, effect) in [
        ("input.tool.arguments.n == 1", Effect::Permit),
        ("\"id\" in object.keys(input.tool.arguments)", Effect::Permit),
        ("input.tool.arguments.id != 5", Effect::Deny),
        ("input.tool.arguments.id != 18446744073709551615", Effect::Deny),
        ("some x in input.tool.arguments", Effect::Deny),
        ("input.tool != \"x\"", Effect::Deny),
        ("input != \"x\"", Effect::Deny),
    ] {
        let both = Both::new(&compile(&format!("{open}{condition}"), None).unwrap());
        let decision = both.decide(&scene.call("t", Some(&arguments)));
        assert_eq!(decision.effect, effect, "{condition}: {decision:?}");
        if effect == Effect::Deny {
            assert_eq!(codes(&decision), ["lossy_number"], "{condition}");
            assert!(decision.reasons[0].message.contains("/tool/arguments/id"), "{condition}");
        }
    }
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let module = |path: &str, text: &str| Module { path: path.to_owned(), text: text.to_owned() };
    let of = |modules: Vec<Module>| {
        let sources = PolicySources { modules, data: None, revision: PolicyRevision::from("r") };
        let found = Policy::compile(&sources, &Entrypoints::default(), &EvalLimits::default());
        found.unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let broken =
        of(vec![module("a.rego", "package mcp\nx := "), module("b.rego", "package mcp\n\ny := [")]);
    assert!(broken.contains("a.rego:") && broken.contains("b.rego:"), "{broken}");
    let wrong = of(vec![
        module(
            "a.rego",
            "package mcp\nx := http.send({})\ny := crypto.sha256(\"a\")\nz := unknown",
        ),
        module("b.rego", "package p\n\nf(x) := f(x)"),
    ]);
    for place in [
        "a.rego:2: `http.send` is not available: a decision may not reach the network",
        "a.rego:3: there is no function `crypto.sha256`",
        "a.rego:4: `unknown` is not defined",
        "b.rego:3: recursion: data.p.f -> data.p.f",
        "there is no rule `data.mcp.decision`",
        "there is no rule `data.mcp.listing`",
    ] {
        assert!(wrong.contains(place), "{place}: {wrong}");
    }
}

#[test]
fn a_rule_can_be_evaluated_for_any_input() {
    let policy = compile("package mcp\nx := {input.a, 2}\ny := 1 if input.a == 2", None).unwrap();
    let evaluate = |path, input| policy.evaluate(path, input, Engine::Strict);
    assert_eq!(evaluate("data.mcp.x", r#"{"a": 1}"#).as_deref(), Ok("[1,2]"));
    assert_eq!(evaluate("data.mcp.y", r#"{"a": 1}"#).as_deref(), Ok("undefined"));
    assert!(evaluate("data.mcp.nothing", "{}").is_err());
    assert!(evaluate("data.mcp.x", r#"{"a": 1, "a": 2}"#).is_err());
    let listing = policy.evaluate("data.mcp.listing", "{}", Engine::Compiled);
    assert_eq!(listing.as_deref(), Ok(r#"{"hide":[]}"#));
}

#[test]
fn tests_of_a_policy_run_on_the_strict_engine() {
    let rego = "package mcp_test
import data.mcp

test_denied if mcp.decision.effect == \"deny\" with input as {\"method\": \"x\"}
test_false := false
test_undefined if 1 == 2
test_error if startswith(1, \"a\")
test_mocked if startswith(\"x\", \"y\") with startswith as yes
todo_test_later if 1 == 2
yes(a, b) := a != b
";
    let outcomes = run_tests(&sources(rego, None), &EvalLimits::default()).unwrap();
    let told: Vec<(&str, bool, &str)> = outcomes
        .iter()
        .map(|it| (&*it.name, it.passed, it.message.as_deref().unwrap_or("")))
        .collect();
    assert_eq!(told[0], ("data.mcp_test.test_denied", true, ""));
    assert_eq!(told[1].0, "data.mcp_test.test_error");
    assert!(told[1].2.contains("startswith"), "{told:?}");
    assert_eq!(told[2], ("data.mcp_test.test_false", false, "false"));
    assert_eq!(told[3], ("data.mcp_test.test_mocked", true, ""));
    assert_eq!(told[4], ("data.mcp_test.test_undefined", false, "undefined"));
    assert_eq!(told.len(), 5);
}

#[test]
fn a_proof_says_why_a_policy_may_not_be_compiled() {
    let limits = EvalLimits { proof_inputs: 100, ..EvalLimits::default() };
    let proof =
        |rego: &str| prove(&sources(rego, None), &Entrypoints::default(), &limits, 7).unwrap();
    let good =
        proof("package mcp\npermit contains {\"message\": \"m\"} if input.tool.name == \"a\"");
    assert_eq!(good, Proof { compiled: true, reasons: Vec::new(), tests: Vec::new(), inputs: 100 });
    for (rego, reason) in [
        (
            "permit contains {\"message\": \"m\"} if y with input as {}\ny if input.a",
            "policy.rego:2: `with`",
        ),
        (
            "permit contains {\"message\": \"m\"}\ntest_a if 1 == 2",
            "policy.rego: data.mcp.test_a: undefined",
        ),
    ] {
        let proof = proof(&format!("package mcp\n{rego}"));
        assert_eq!((proof.compiled, proof.reasons.as_slice()), (false, &[reason.to_owned()][..]));
    }
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<Proof>(&text).unwrap(), good);
}

#[test]
fn workers_answer_side_by_side() {
    let policy = compile(RICH, Some(RICH_DATA)).unwrap();
    let pdp = RegoPdp::compiled(policy, 2, 3).unwrap();
    let scene = Scene::new();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for round in 0..50 {
                    let tool = if round % 2 == 0 { "update_flag" } else { "drop_flag" };
                    let effect = pdp.decide(&scene.call(tool, None)).effect;
                    assert_eq!(effect == Effect::Permit, round % 2 == 0);
                }
            });
        }
    });
    assert_eq!(pdp.demotion(), None);
    assert_eq!(pdp.engine(), Engine::Compiled);
}

#[test]
fn the_capabilities_name_what_runs() {
    let text = capabilities();
    assert!(text.contains("\"glob.match\"") && !text.contains("\"http.send\""));
}
