//! Both engines on every pack: calls as agents make them, and bent where a pack looks, judged
//! alike by the baseline.
//!
//! `PACK_INPUTS` says how many calls of each pack are tried; `PACK_SEED` gives others.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use bartizan::policy::embedded;
use bartizan::policy::load::{PolicyFiles, load};
use bartizan_gate::duty::decision::Effect;
use bartizan_gate::duty::pdp::Pdp as _;
use bartizan_gate::question::access::{
    AccessRequest, Action, Principal, Resource, Server, WallTime,
};
use bartizan_gate::question::operation::{Operation, ResolutionContext};
use bartizan_gate::question::pack::{
    EnvironmentPath, OperationDispatch, Pack, Selector, ToolEntry,
};
use bartizan_gate::question::status::DefinitionStatus;
use bartizan_gate::wire::document::{Document, DocumentLimits};
use bartizan_gate::wire::protocol::{Direction, Era, Protocol, Revision, Transport};
use bartizan_rego::{Entrypoints, EvalLimits, Policy, Random, RegoPdp};
use serde_json::{Map, Value, json};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// What stands where an environment belongs.
fn environment(random: &mut Random) -> Value {
    let names = json!([
        "staging", "staging", "production", "Staging", "staging ", "", null, 7, true, ["staging"],
        ["staging", "production"], [], [null], {"staging": {}}, {"name": "staging"}, "*",
        "projects/p/environments/staging", "1234", "{\"environment\":\"staging\"}",
    ]);
    random.pick(names.as_array().unwrap()).unwrap().clone()
}

/// Puts `value` at a pointer in which `*` stands for the first element or any member.
fn put(root: &mut Map<String, Value>, pointer: &str, value: Value) {
    let steps: Vec<String> =
        pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let Some((first, rest)) = steps.split_first() else { return };
    let inner = rest.iter().rev().fold(value, |inner, step| match step.as_str() {
        "*" => json!([inner]),
        name => json!({name: inner}),
    });
    let name = if first == "*" { "any" } else { first };
    root.insert(name.to_owned(), inner);
}

fn place(random: &mut Random, arguments: &mut Map<String, Value>, place: &EnvironmentPath) {
    let value = environment(random);
    match &place.inside {
        None => put(arguments, &place.at, value),
        Some(inside) => {
            let mut inner = Map::new();
            put(&mut inner, &place.at, value);
            put(arguments, inside, Value::from(Value::Object(inner).to_string()));
        }
    }
}

fn select(random: &mut Random, arguments: &mut Map<String, Value>, dispatch: &OperationDispatch) {
    let cases: Vec<&str> = dispatch.cases.keys().map(AsRef::as_ref).chain(["no/such"]).collect();
    let case = *random.pick(&cases).unwrap();
    match &dispatch.by {
        Selector::Values(pointers) => {
            for (pointer, value) in pointers.iter().zip(case.split('/')) {
                put(arguments, pointer, Value::from(value));
            }
        }
        Selector::Route { method, path } => {
            let (verb, route) = case.split_once(' ').unwrap_or(("GET", case));
            if method.starts_with('/') {
                put(arguments, method, Value::from(verb));
            }
            put(arguments, path, Value::from(route.replace(['{', '}'], "")));
        }
        Selector::Command(pointer) => {
            let line = format!("{case} {{\"environment\":\"staging\"}}");
            put(arguments, pointer, Value::from(line));
        }
        Selector::Handle(pointer) => put(arguments, pointer, Value::from("handle")),
    }
    if let Some(entry) = dispatch.cases.get(case) {
        fill(random, arguments, entry);
    }
}

/// Arguments for a call of `entry`: some places filled, some left out, and now and then one that
/// the tool does not take.
fn fill(random: &mut Random, arguments: &mut Map<String, Value>, entry: &ToolEntry) {
    for at in &entry.environments {
        if random.below(5) > 0 {
            place(random, arguments, at);
        }
    }
    for name in entry.arguments.iter().flatten() {
        if random.below(4) == 0 {
            arguments.insert(name.to_string(), Value::from("value"));
        }
    }
    if random.below(12) == 0 {
        arguments.insert("unheard_of".to_owned(), Value::from("production"));
    }
    if let Some(dispatch) = &entry.dispatch {
        select(random, arguments, dispatch);
    }
}

fn baseline() -> Policy {
    let loaded = load(&PolicyFiles::default()).unwrap();
    Policy::compile(&loaded.serving, &Entrypoints::default(), &EvalLimits::default()).unwrap()
}

#[test]
fn both_engines_judge_the_calls_of_every_pack_alike() {
    let inputs = number("PACK_INPUTS", 300);
    let policy = baseline();
    let mut effects = BTreeSet::new();
    for (name, text) in embedded::PACKS {
        let pack = Arc::new(Pack::read(text.as_bytes()).unwrap());
        // Each answer of the compiled engine is asked of the strict one, too.
        let both = RegoPdp::compiled(policy.clone(), 1, 1).unwrap();
        let mut random = Random::new(number("PACK_SEED", 7));
        let tools: Vec<&str> =
            pack.tools.keys().map(AsRef::as_ref).chain(["no_such_tool"]).collect();
        let mut codes = BTreeSet::new();
        for input in 0..inputs {
            let tool = *random.pick(&tools).unwrap();
            let mut arguments = Map::new();
            if let Some(entry) = pack.tools.get(tool) {
                fill(&mut random, &mut arguments, entry);
            }
            let text = Value::Object(arguments).to_string();
            let document = Document::read(text.clone().into(), &DocumentLimits::default()).unwrap();
            let server = Server {
                name: (*name).into(),
                environment: random
                    .pick(&[Some("staging"), Some("production"), None])
                    .unwrap()
                    .map(Into::into),
                environment_ids: [("1234".into(), "staging".into())].into(),
                pack: Some(Arc::clone(&pack)),
                ..Server::default()
            };
            let resolution_context = ResolutionContext {
                pack: Some(&pack),
                environment_ids: Some(&server.environment_ids),
                handles: None,
            };
            let decision = both.decide(&AccessRequest {
                principal: &Principal { id: "agent".into(), ..Principal::default() },
                client: None,
                server: &server,
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
                    arguments: Some(document.root()),
                    definition: None,
                    status: DefinitionStatus::default(),
                },
                params: None,
                operation: Operation::of_call(resolution_context, tool, Some(document.root()))
                    .into(),
                facts: [].into(),
                time: WallTime { unix_ms: 1_790_000_000_000 },
                approval: None,
                trace_id: None,
            });
            assert_eq!(both.demotion(), None, "{name}: call {input}: {tool} {text}");
            effects.insert(decision.effect == Effect::Permit);
            codes.extend(decision.reasons.into_iter().map(|reason| reason.code));
        }
        assert!(codes.len() > 1, "{name}: all judged for one reason: {codes:?}");
    }
    assert_eq!(effects.len(), 2);
}
