//! Every tool that is known of the servers that packs are bundled for: what a block list of verbs
//! lets through, and what a read-only policy does. And the Rego tests of the packs, whose inputs
//! must be what the packs really say.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bartizan::policy::embedded;
use bartizan_gate::duty::decision::{Decision, Effect as Verdict, Engine, Obligation};
use bartizan_gate::duty::pdp::Pdp;
use bartizan_gate::question::access::{AccessRequest, Server};
use bartizan_gate::question::operation::{
    HandleLookup, HandleTarget, Operation, ResolutionContext,
};
use bartizan_gate::question::pack::{Effect, OperationDispatch, Pack, Selector, ToolEntry};
use bartizan_gate::wire::document::Document;
use bartizan_rego::{Entrypoints, EvalLimits, Module, Policy, RegoPdp};
use serde_json::{Value, json};

use super::policies::{loaded, policies};
use super::rego::{Scene, document};

/// Verbs that a tool's name must not have, in any case: a filter of names as such products have it.
const BLOCKED_VERBS: [&str; 5] = ["create", "update", "delete", "send", "refund"];

/// One line of the inventory.
struct Tool {
    server: &'static str,
    pack: &'static str,
    name: &'static str,
    writes: bool,
}

/// The tools whose names are known.
fn inventory() -> Vec<Tool> {
    let lines = include_str!("inventory/tools.tsv").lines().filter(|line| !line.starts_with('#'));
    let mut tools = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        if let [server, pack, name, effect] = *fields {
            tools.push(Tool { server, pack, name, writes: effect != "read" });
        }
    }
    tools
}

fn pack(name: &str) -> Pack {
    Pack::read(embedded::pack(name).unwrap().as_bytes()).unwrap()
}

/// Handles as if every one had been given out for the operation of the same name.
struct AnyHandle;

impl HandleLookup for AnyHandle {
    fn resolve(&self, handle: &str) -> Option<HandleTarget> {
        Some(HandleTarget { operation: handle.into(), effect: None })
    }
}

/// Calls of a tool: without arguments, and one for each operation that the pack knows behind it.
fn calls(entry: &ToolEntry) -> Vec<Value> {
    let mut calls = vec![json!({})];
    if let Some(dispatch) = &entry.dispatch {
        calls.extend(dispatch.cases.keys().map(|case| call_of(dispatch, case)));
        let odd = if matches!(dispatch.by, Selector::Route { .. }) { "GET /x" } else { "x" };
        calls.push(call_of(dispatch, odd));
    }
    calls
}

fn call_of(dispatch: &OperationDispatch, case: &str) -> Value {
    let mut call = json!({});
    match &dispatch.by {
        Selector::Values(pointers) => {
            for (pointer, value) in pointers.iter().zip(case.split('/')) {
                put(&mut call, pointer, value);
            }
        }
        Selector::Route { method, path } => {
            let (verb, route) = case.split_once(' ').unwrap();
            if method.starts_with('/') {
                put(&mut call, method, verb);
            }
            put(&mut call, path, &route.replace(['{', '}'], ""));
        }
        Selector::Command(pointer) => put(&mut call, pointer, &format!("{case} {{}}")),
        Selector::Handle(pointer) => put(&mut call, pointer, case),
    }
    call
}

/// Puts a text into an object; the packs' pointers have one step or more, none escaped.
fn put(object: &mut Value, pointer: &str, text: &str) {
    let mut place = object;
    for step in pointer.split('/').skip(1) {
        place = &mut place[step];
    }
    *place = text.into();
}

/// A policy in front of a server with a pack, pinned to staging.
struct Gate {
    strict: RegoPdp,
    compiled: RegoPdp,
    scene: Scene,
    server: Server,
}

impl Gate {
    fn of(paths: &[&str]) -> Self {
        let paths: Vec<_> = paths.iter().map(|path| policies().join(path)).collect();
        let limits = EvalLimits::default();
        let serving = loaded(&paths).serving;
        let policy = || Policy::compile(&serving, &Entrypoints::default(), &limits).unwrap();
        let compiled = RegoPdp::compiled(policy(), 1, u32::MAX).unwrap();
        let strict = RegoPdp::strict(policy(), 1);
        let server = Server { environment: Some("staging".into()), ..Server::default() };
        Self { strict, compiled, scene: Scene::new(), server }
    }

    fn operation(pack: &Pack, tool: &str, arguments: &Document) -> Operation {
        let known = ResolutionContext {
            pack: Some(pack),
            handles: Some(&AnyHandle),
            ..ResolutionContext::default()
        };
        Operation::of_call(known, tool, Some(arguments.root()))
    }

    /// Whether a call passes, by either engine, and whether it only reads.
    fn passes(&self, pack: &Pack, tool: &str, arguments: &Value) -> (bool, bool) {
        let arguments = document(&arguments.to_string());
        let operation = Self::operation(pack, tool, &arguments);
        let reads = operation.effect == Effect::Read;
        let request = AccessRequest {
            server: &self.server,
            operation: operation.into(),
            ..self.scene.call(tool, Some(&arguments))
        };
        let decision = self.strict.decide(&request);
        let other = self.compiled.decide(&request);
        assert_eq!(Decision { engine: Engine::Strict, ..other }, decision, "{tool}");
        let Decision { effect, obligations, .. } = decision;
        let held = obligations.iter().any(|it| matches!(it, Obligation::Hold(_)));
        (effect == Verdict::Permit && !held, reads)
    }
}

/// Counts of one server.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Row {
    reads: usize,
    writes: usize,
    /// Tools that do more than read and pass the block list.
    listed: usize,
    /// Tools that do more than read, of which a call that does so passes.
    through: usize,
    /// Reading tools that give no credentials and of which no call passes.
    blocked: usize,
    /// Reading tools that give credentials, none of which passes.
    credentials: usize,
}

fn table(gate: &Gate) -> BTreeMap<&'static str, Row> {
    let packs: BTreeMap<&str, Pack> =
        embedded::PACKS.iter().map(|(name, _)| (*name, pack(name))).collect();
    let mut table: BTreeMap<&str, Row> = BTreeMap::new();
    for tool in inventory() {
        let row = table.entry(tool.server).or_default();
        let pack = packs.get(tool.pack).unwrap_or_else(|| panic!("{} {}", tool.server, tool.name));
        let entry = pack.tools.get(tool.name).unwrap_or_else(|| panic!("{}", tool.name));
        let calls: Vec<_> =
            calls(entry).iter().map(|call| gate.passes(pack, tool.name, call)).collect();
        if tool.writes {
            assert_ne!(entry.effect, Effect::Read, "{}", tool.name);
            assert!(calls.iter().any(|(_, reads)| !reads), "{}", tool.name);
            let lower = tool.name.to_lowercase();
            row.writes += 1;
            row.listed += usize::from(!BLOCKED_VERBS.iter().any(|verb| lower.contains(verb)));
            row.through += usize::from(calls.iter().any(|(passes, reads)| *passes && !reads));
        } else {
            assert_eq!(entry.effect, Effect::Read, "{}", tool.name);
            row.reads += 1;
            let passes = calls.iter().any(|(passes, reads)| *passes && *reads);
            if entry.tags.iter().any(|tag| **tag == *"credential-read") {
                assert!(!passes, "{}", tool.name);
                row.credentials += 1;
            } else {
                row.blocked += usize::from(!passes);
            }
        }
    }
    table
}

#[test]
fn a_block_list_lets_a_third_of_the_writes_through_and_a_read_only_policy_none() {
    let table = table(&Gate::of(&["baseline", "examples/read-only"]));
    let mut text = String::from(
        "server               write-like  pass the block list  pass read-only  reads  blocked\n",
    );
    let mut total = Row::default();
    let mut line = |name: &str, row: Row| {
        let Row { reads, writes, listed, through, blocked, .. } = row;
        writeln!(text, "{name:<20} {writes:>10} {listed:>20} {through:>15} {reads:>6} {blocked:>8}")
    };
    for (server, row) in &table {
        line(server, *row).unwrap();
        total.reads += row.reads;
        total.writes += row.writes;
        total.listed += row.listed;
        total.through += row.through;
        total.blocked += row.blocked;
        total.credentials += row.credentials;
    }
    line("all", total).unwrap();
    println!("{text}");
    let counts = |server: &str| (table[server].writes, table[server].listed);
    for (server, expected) in [
        ("statsig-v1", (34, 20)),
        ("statsig-v3", (9, 2)),
        ("flagsmith", (23, 2)),
        ("stigg", (1, 1)),
        ("launchdarkly-hosted", (60, 17)),
        ("unleash", (4, 3)),
        ("growthbook v2", (1, 1)),
        ("posthog cli mode", (1, 1)),
        ("harness", (4, 1)),
        ("configcat", (42, 7)),
        ("github", (59, 35)),
        ("stripe", (4, 2)),
        ("kubernetes", (17, 12)),
    ] {
        assert_eq!(counts(server), expected, "{server}");
    }
    assert_eq!((total.writes, total.listed), (317, 116), "{text}");
    assert_eq!((total.through, total.blocked, total.credentials), (0, 0, 10), "{text}");
    let said = format!("{} of {} tools", total.listed, total.writes);
    assert!(
        policy_page().contains(&said)
            && policy_page().contains(&format!("{} that", total.reads - total.credentials))
    );
}

fn policy_page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/policy.md")).unwrap()
}

#[test]
fn under_a_pin_the_baseline_lets_no_write_through_that_names_no_environment() {
    let table = table(&Gate::of(&["baseline"]));
    let through: BTreeMap<_, _> = table.iter().filter(|(_, row)| row.through > 0).collect();
    assert!(through.is_empty(), "{through:?}");
}

#[test]
fn every_bundled_pack_is_named_in_the_policy_page() {
    let page = policy_page();
    let line = page.lines().find(|line| line.starts_with("Built in are ")).unwrap();
    let named: BTreeSet<&str> = line.split('`').skip(1).step_by(2).collect();
    let mut packs: BTreeSet<&str> = embedded::PACKS.iter().map(|(name, _)| *name).collect();
    packs.insert("policies/packs");
    assert_eq!(named, packs);
}

/// What the Rego tests of packs say a call comes to is what the pack says.
#[test]
fn rego_tests_of_packs_are_about_what_packs_say() {
    let shared = std::fs::read_to_string(policies().join("packs/packs_test.rego")).unwrap();
    let mut wrong = String::new();
    for (name, _) in embedded::PACKS {
        let rules = format!("pack_{}_test", name.replace('-', "_"));
        let file = policies().join(format!("packs/{name}/pack_test.rego"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{}", file.display()));
        let mut sources = super::rego::sources(&text, None);
        sources.modules.push(Module { path: "packs_test.rego".to_owned(), text: shared.clone() });
        let policy =
            Policy::compile(&sources, &Entrypoints::default(), &EvalLimits::default()).unwrap();
        let calls = policy.evaluate(&format!("data.{rules}.calls"), "{}", Engine::Strict).unwrap();
        let calls: Vec<Value> = serde_json::from_str(&calls).unwrap();
        assert!(calls.len() >= 2, "{name}");
        let pack = pack(name);
        for call in calls {
            let tool = call["tool"].as_str().unwrap();
            let ids = call["environment_ids"].as_object().cloned().unwrap_or_default();
            let ids =
                ids.iter().map(|(id, name)| (id.as_str().into(), name.as_str().unwrap().into()));
            let ids: BTreeMap<Box<str>, Box<str>> = ids.collect();
            let arguments = document(&call["arguments"].to_string());
            let known = ResolutionContext {
                pack: Some(&pack),
                environment_ids: Some(&ids),
                handles: Some(&AnyHandle),
            };
            let operation = Operation::of_call(known, tool, Some(arguments.root()));
            let mut found = json!({
                "effect": operation.effect.as_str(),
                "environments": operation.environments,
                "environment_source": operation.environment_source.as_str(),
                "tags": operation.tags,
            });
            if let Some(name) = &operation.name {
                found["name"] = (**name).into();
            }
            if call["operation"] != found {
                writeln!(wrong, "{name} | {tool} | {} | {found}", call["arguments"]).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "the packs say otherwise:\n{wrong}");
}
