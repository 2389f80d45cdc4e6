//! Tables of the documents against the program: keys with ranges and defaults, fields of input and
//! record, codes, findings. Where it can be, the program itself is asked, not its source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bartizan::config::{Config, Surroundings};
use bartizan_audit::journal::{Journal, JournalConfig};
use bartizan_gate::duty::decision::Listing;
use bartizan_gate::duty::limit::Wait;
use bartizan_gate::duty::pdp::{ListEntry, Pdp as _};
use bartizan_gate::evidence::record::{
    ApprovalFacts, AuditRecord, ClientFacts, DecisionFacts, ENVIRONMENTS_MAX, Event, FLAGS_MAX,
    Finding, HIDDEN_MAX, HttpFacts, IdentityFacts, KeptInput, LEFT_OUT_MAX, LinkFacts, Now,
    OBLIGATIONS_MAX, OperationFacts, Outcome, PLACES_MAX, PlaceFacts, ProgramFacts, ProtocolFacts,
    REASONS_MAX, ReasonFacts, RedactionFacts, ServerAddress, TAGS_MAX, TAXONOMY, Target,
    UpstreamFacts,
};
use bartizan_gate::evidence::refusal::{self, Addressee, DoorRefusal, Refusal};
use bartizan_gate::evidence::step::AuditSink as _;
use bartizan_gate::question::access::{
    AccessRequest, Action, Client, Principal, Resource, Server, TaskOrigin, WallTime,
};
use bartizan_gate::question::hold::{Approval, HoldId, HoldKey};
use bartizan_gate::question::operation::{EnvironmentSource, Operation};
use bartizan_gate::question::pack::{BaselineRate, Effect, Pack};
use bartizan_gate::question::routing::HeaderMismatch;
use bartizan_gate::question::status::{DefinitionStatus, Drift};
use bartizan_gate::wire::document::{Document, DocumentLimits, Unreadable};
use bartizan_gate::wire::frame::{Id, Malformed};
use bartizan_gate::wire::protocol::{Direction, Era, Protocol, Revision, Transport};
use bartizan_rego::{
    Entrypoints, EvalLimits, Module, Policy, PolicySources, RegoPdp, TRAPS, input_json,
    input_schema,
};
use serde_json::Value;

use super::text_of;
use crate::json_schema::refusals;

/// The cells of all rows of all tables in `text` whose header row is `header`.
pub(crate) fn rows(text: &str, header: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let row = line.strip_prefix('|').and_then(|line| line.strip_suffix('|'));
        match row {
            None => inside = false,
            Some(_) if line == header => inside = true,
            Some(row) if inside && !row.starts_with("---") => {
                found.push(row.split('|').map(|cell| cell.trim().to_owned()).collect());
            }
            Some(_) => {}
        }
    }
    assert!(!found.is_empty(), "no table under `{header}`");
    found
}

/// The texts in backticks.
pub(crate) fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn names(text: &str, header: &str) -> BTreeSet<String> {
    let rows = rows(text, header);
    let names: BTreeSet<String> = rows.iter().map(|row| quoted(&row[0])[0].to_owned()).collect();
    assert_eq!(names.len(), rows.len(), "a row stands twice under `{header}`");
    names
}

const KEYS: &str = "| Key | Means | Range | Default |";

/// The reader tells its keys itself: as the hint for one that is like none of them.
#[test]
fn every_key_is_documented_and_no_other() {
    let mut read = BTreeSet::new();
    for (text, prefix) in [
        ("zzzzzzzzzzzzzzzzzzzz: 1", ""),
        ("policy: {zzzzzzzzzzzzzzzzzzzz: 1}", "policy."),
        ("policy: {bundle: {zzzzzzzzzzzzzzzzzzzz: 1}}", "policy.bundle."),
        ("policy: {bundle: {polling: {zzzzzzzzzzzzzzzzzzzz: 1}}}", "policy.bundle.polling."),
        (
            "policy: {bundle: {credentials: {zzzzzzzzzzzzzzzzzzzz: 1}}}",
            "policy.bundle.credentials.",
        ),
        (
            "policy: {bundle: {credentials: {client_tls: {zzzzzzzzzzzzzzzzzzzz: 1}}}}",
            "policy.bundle.credentials.client_tls.",
        ),
        ("policy: {bundle: {signing: {zzzzzzzzzzzzzzzzzzzz: 1}}}", "policy.bundle.signing."),
        (
            "policy: {bundle: {signing: {keys: {k: {zzzzzzzzzzzzzzzzzzzz: 1}}}}}",
            "policy.bundle.signing.keys.<id>.",
        ),
        ("servers: {s: {zzzzzzzzzzzzzzzzzzzz: 1}}", "servers.<name>."),
        ("servers: {s: {oauth: {zzzzzzzzzzzzzzzzzzzz: 1}}}", "servers.<name>.oauth."),
        (
            "servers: {s: {oauth: {issuers: [{zzzzzzzzzzzzzzzzzzzz: 1}]}}}",
            "servers.<name>.oauth.issuers[].",
        ),
        ("principal: {zzzzzzzzzzzzzzzzzzzz: 1}", "principal."),
        ("limits: {zzzzzzzzzzzzzzzzzzzz: 1}", "limits."),
        ("audit: {zzzzzzzzzzzzzzzzzzzz: 1}", "audit."),
        ("audit: {checkpoints: {zzzzzzzzzzzzzzzzzzzz: 1}}", "audit.checkpoints."),
        ("audit: {durability: {zzzzzzzzzzzzzzzzzzzz: 1}}", "audit.durability."),
        ("audit: {retention: {zzzzzzzzzzzzzzzzzzzz: 1}}", "audit.retention."),
        ("audit: {decision_logs: {zzzzzzzzzzzzzzzzzzzz: 1}}", "audit.decision_logs."),
        (
            "audit: {decision_logs: {credentials: {zzzzzzzzzzzzzzzzzzzz: 1}}}",
            "audit.decision_logs.credentials.",
        ),
        (
            "audit: {decision_logs: {credentials: {client_tls: {zzzzzzzzzzzzzzzzzzzz: 1}}}}",
            "audit.decision_logs.credentials.client_tls.",
        ),
        ("approvals: {zzzzzzzzzzzzzzzzzzzz: 1}", "approvals."),
        ("approvals: {approvers: [{zzzzzzzzzzzzzzzzzzzz: 1}]}", "approvals.approvers[]."),
        ("approvals: {oidc: {zzzzzzzzzzzzzzzzzzzz: 1}}", "approvals.oidc."),
        ("approvals: {webhooks: [{zzzzzzzzzzzzzzzzzzzz: 1}]}", "approvals.webhooks[]."),
        (
            "approvals: {webhooks: [{callback: {zzzzzzzzzzzzzzzzzzzz: 1}}]}",
            "approvals.webhooks[].callback.",
        ),
        ("otlp: {zzzzzzzzzzzzzzzzzzzz: 1}", "otlp."),
        ("otlp: {credentials: {zzzzzzzzzzzzzzzzzzzz: 1}}", "otlp.credentials."),
        (
            "otlp: {credentials: {client_tls: {zzzzzzzzzzzzzzzzzzzz: 1}}}",
            "otlp.credentials.client_tls.",
        ),
        ("replicas: {zzzzzzzzzzzzzzzzzzzz: 1}", "replicas."),
        ("log: {zzzzzzzzzzzzzzzzzzzz: 1}", "log."),
    ] {
        let problems = Config::parse(text, Path::new("/"), &|_| None).unwrap_err();
        let unknown = problems.list().iter().find(|problem| problem.what == "no such key");
        let known = quoted(&unknown.unwrap().hint).into_iter();
        read.extend(known.map(|key| format!("{prefix}{key}")));
    }
    let documented = names(&text_of("docs/configuration.md"), KEYS);
    let sections: Vec<String> = read
        .iter()
        .filter(|key| documented.iter().any(|inner| inner.starts_with(&format!("{key}."))))
        .cloned()
        .collect();
    assert_eq!(sections.len(), 26, "{sections:?}");
    // A word may stand in the place of this one's keys.
    read.retain(|key| !sections.contains(key) || key == "audit.durability");
    assert!(read.len() > 50, "{read:?}");
    assert_eq!(documented, read);
}

#[test]
fn ranges_and_defaults_are_those_of_the_program() {
    let (mut ranges, mut defaults) = (0, 0);
    for row in rows(&text_of("docs/configuration.md"), KEYS) {
        let [key, _, range, default] = row.as_slice() else { panic!("{row:?}") };
        let key = quoted(key)[0];
        if let [low, high] = quoted(range).as_slice() {
            ranges += 1;
            for inside in [low, high] {
                assert!(!out_of_range(key, inside), "{key}: {inside} is refused");
            }
            for outside in [beside(low, false), beside(high, true)] {
                assert!(out_of_range(key, &outside), "{key}: {outside} is taken");
            }
        } else {
            assert_eq!(range, "", "{key}");
        }
        if default.starts_with('`') {
            defaults += 1;
            let value = quoted(default)[0];
            let written = load(key, Some(value)).unwrap();
            assert_eq!(written, load(key, None).unwrap(), "{key}: {value} is not the default");
        } else {
            let words = [
                "none",
                "required",
                "the loopback names",
                "those of the loopback names",
                "the system's",
                "the variable's",
                "this program's",
                "the built-in baseline",
                "the signature's",
                "`path` or `url`",
                "the key's, else empty",
                "empty",
                "the one that was dialled",
                "that of `url`",
                "that of `public_url`",
                "the host of `issuer`",
                "by effect",
            ];
            assert!(words.contains(&default.as_str()), "{key}: what is `{default}`?");
        }
    }
    assert!(ranges > 20 && defaults > 35, "{ranges} ranges, {defaults} defaults");
}

/// What the program means where `key` has this value, or its problems.
fn load(key: &str, value: Option<&str>) -> Result<String, String> {
    let upstream = |key: &str| match key {
        "args" | "env" | "env_inherit" | "cwd" | "stop_timeout" | "confine" | "user" => {
            "command: [server]"
        }
        _ => "url: 'http://h/mcp'",
    };
    let (mut server, mut rest) = (upstream("").to_owned(), String::new());
    let written = |name: &str| value.map_or(String::new(), |value| format!("{name}: {value}"));
    let credential = |name: &str| match name.strip_prefix("client_tls.") {
        Some(name) => format!("client_tls: {{{}}}", written(name)),
        None => written(name),
    };
    let issuer = "issuer: 'https://i', jwks_file: k";
    let terminate = |more: &str, issuer: &str| {
        format!(
            "{}, public_url: 'https://a', oauth: {{mode: terminate, issuers: [{{{issuer}}}], {more}}}",
            upstream("")
        )
    };
    if let Some(name) = key.strip_prefix("servers.<name>.oauth.issuers[].") {
        server = terminate("", &format!("{issuer}, {}", written(name)));
    } else if let Some(name @ ("scopes" | "principal_claim" | "groups_claim" | "claims")) =
        key.strip_prefix("servers.<name>.oauth.")
    {
        server = terminate(&written(name), issuer);
    } else if let Some(name) = key.strip_prefix("replicas.") {
        let needed = "url: 'redis://h', keys: 0123456789abcdef0123456789abcdef";
        rest = format!("replicas: {{{needed}, {}}}\n", written(name));
    } else if let Some(name) = key.strip_prefix("servers.<name>.oauth.") {
        server = format!("{}, oauth: {{mode: forward, {}}}", upstream(name), written(name));
    } else if let Some(name) = key.strip_prefix("servers.<name>.") {
        server = format!("{}, {}", upstream(name), written(name));
    } else if let Some(name) = key.strip_prefix("policy.bundle.signing.keys.<id>.") {
        let key = if name == "secret" { "HS256" } else { "RS256" };
        let key = if name == "algorithm" { String::new() } else { format!("algorithm: {key}, ") };
        let key = format!("{key}{}", written(name));
        rest = format!("policy: {{bundle: {{path: b, signing: {{keys: {{k: {{{key}}}}}}}}}}}");
    } else if let Some(name) = key.strip_prefix("policy.bundle.signing.") {
        let keys = "keys: {k: {algorithm: HS256, secret: s}}";
        rest = format!("policy: {{bundle: {{path: b, signing: {{{keys}, {}}}}}}}", written(name));
    } else if let Some(name) = key.strip_prefix("audit.checkpoints.") {
        rest = format!("audit: {{checkpoints: {{{}}}}}", written(name));
    } else if let Some(name) = key.strip_prefix("audit.durability.") {
        rest = format!("audit: {{durability: {{{}}}}}", written(name));
    } else if let Some(name) = key.strip_prefix("audit.retention.") {
        rest = format!("audit: {{retention: {{{}}}}}", written(name));
    } else if let Some(name) = key.strip_prefix("audit.decision_logs.") {
        let url = if name == "url" { "" } else { "url: 'https://h', " };
        rest = format!("audit: {{decision_logs: {{{url}{}}}}}", written(name));
    } else if let Some(name) = key.strip_prefix("approvals.oidc.") {
        let others = [("issuer", "'https://i'"), ("client_id", "c"), ("groups", "{g: v}")];
        let others = others.iter().filter(|(other, _)| *other != name);
        let others = others.map(|(name, value)| format!("{name}: {value}"));
        let keys: Vec<_> = others.chain([written(name)]).collect();
        let oidc = format!("oidc: {{{}}}", keys.join(", "));
        rest = format!("approvals: {{public_url: 'https://a', {oidc}}}");
    } else if let Some(name) = key.strip_prefix("otlp.credentials.") {
        rest = format!("otlp: {{endpoint: 'https://h', credentials: {{{}}}}}", credential(name));
    } else if let Some(name) = key.strip_prefix("otlp.") {
        let endpoint = if name == "endpoint" { "" } else { "endpoint: 'https://h', " };
        rest = format!("otlp: {{{endpoint}{}}}", written(name));
    } else if let Some(name) = key.strip_prefix("policy.bundle.polling.") {
        let polling = format!("polling: {{{}}}", written(name));
        rest = format!("policy: {{bundle: {{url: 'https://h/b', {polling}}}}}");
    } else if let Some(name) = key.strip_prefix("policy.bundle.credentials.") {
        let credentials = credential(name);
        rest =
            format!("policy: {{bundle: {{url: 'https://h/b', credentials: {{{credentials}}}}}}}");
    } else if let Some(name) = key.strip_prefix("policy.bundle.") {
        let url = if matches!(name, "url" | "path") { "" } else { "url: 'https://h/b', " };
        rest = format!("policy: {{bundle: {{{url}{}}}}}", written(name));
    } else if let Some(name) = key.strip_prefix("approvals.webhooks[].") {
        let written = match name.strip_prefix("callback.") {
            Some(name) => format!("callback: {{approver: b, {}}}", written(name)),
            None => written(name),
        };
        let hook = "name: a, url: 'https://h', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let approvers = "[{id: a, token: 0123456789abcdef0123456789abcdef}]";
        rest = format!(
            "approvals: {{public_url: 'https://a', approvers: {approvers}, webhooks: [{{{hook}, {written}}}]}}"
        );
    } else if let Some((section, name)) = key.split_once('.') {
        rest = format!("{section}: {{{}}}", written(name));
    } else {
        rest = written(key);
    }
    let text = format!("servers: {{s: {{{server}}}}}\n{rest}\n");
    let surroundings =
        Surroundings { env: &|_| None, read: &|_, _| Ok(Vec::new()), exists: &|_| true };
    let config = Config::parse_in(&text, Path::new("/base"), &surroundings);
    // A default that is written may be told to do nothing.
    let config = config.map(|config| Config { idle: Vec::new(), ..config });
    config.map(|config| format!("{config:#?}")).map_err(|problems| problems.to_string())
}

fn out_of_range(key: &str, value: &str) -> bool {
    match load(key, Some(value)) {
        Ok(_) => false,
        Err(problems) => problems.contains("out of range"),
    }
}

/// The next smaller or larger value.
fn beside(value: &str, larger: bool) -> String {
    let step = |number: u64| if larger { number + 1 } else { number - 1 };
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().unwrap();
    match &value[digits.len()..] {
        "" | "B" => step(number).to_string(),
        "KiB" => step(number << 10).to_string(),
        "MiB" => step(number << 20).to_string(),
        "GiB" => step(number << 30).to_string(),
        _ => {
            let time = humantime::parse_duration(value).unwrap();
            format!("{}ms", step(u64::try_from(time.as_millis()).unwrap()))
        }
    }
}

/// Walks `value` down to what is documented; what is met is put into `met`.
fn walk(path: &str, value: &Value, documented: &BTreeSet<String>, met: &mut BTreeSet<String>) {
    if documented.contains(path) {
        met.insert(path.to_owned());
        return;
    }
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(&path, member, documented, met);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                walk(&format!("{path}[]"), item, documented, met);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            panic!("`{path}` is not documented: {value}")
        }
    }
}

fn input_fields() -> BTreeSet<String> {
    let text = text_of("docs/policy.md");
    let mut fields = names(&text, "| Field | Holds |");
    fields.extend(names(&text, "| Field | On |"));
    fields
}

#[test]
fn traps_are_those_that_the_check_finds() {
    let documented = names(&text_of("docs/policy.md"), "| Code | Trap |");
    assert_eq!(documented, TRAPS.map(str::to_owned).into());
}

#[test]
fn every_field_of_the_input_is_documented_and_no_other() {
    let documented = input_fields();
    let mut met = BTreeSet::new();
    let raw = r#"{"arguments": {"a": 1}, "uris": ["u"], "params": {"p": 1},
        "answer": {"action": "accept", "content": {"c": 1}, "roots": [{"uri": "u"}]}}"#;
    let document = Document::read(raw.into(), &DocumentLimits::default()).unwrap();
    let part = |name| document.root().get(name);
    let world = World::new();
    let origin = TaskOrigin {
        method: "m".into(),
        tool: Some("t".into()),
        operation: Operation::clone(&world.request().operation),
    };
    let resources = [
        Resource::Tool {
            name: "t",
            arguments: part("arguments"),
            definition: Some("sha256:0"),
            status: DefinitionStatus {
                drift: Some(Drift::None),
                flags: &["f"],
                text: Some(r#"{"name": "t"}"#),
            },
        },
        Resource::Prompt { name: "p", arguments: part("arguments") },
        Resource::Uri("https://u.example/p?q"),
        Resource::Uris(part("uris").unwrap()),
        Resource::Task { id: "t", origin: Some(&origin) },
        Resource::Answer { result: part("answer"), error: None },
        Resource::Answer { result: None, error: Some(-1) },
        Resource::Whole,
    ];
    for resource in resources {
        let request = AccessRequest { resource, params: part("params"), ..world.request() };
        let input: Value = serde_json::from_str(&input_json(&request)).unwrap();
        valid(&input);
        walk("input", &input, &documented, &mut met);
    }
    let asked = r#"{"mode": "url", "url": "https://h:1/p?q"}"#;
    let asked = Document::read(asked.into(), &DocumentLimits::default()).unwrap();
    let (action, direction) = (Action::Elicit, Direction::ToClient);
    let elicits =
        AccessRequest { action, direction, params: Some(asked.root()), ..world.request() };
    let input: Value = serde_json::from_str(&input_json(&elicits)).unwrap();
    valid(&input);
    walk("input", &input, &documented, &mut met);
    for action in [Action::ListTools, Action::ListPrompts] {
        let request = AccessRequest { action, ..world.request() };
        let input = listing_input(&request);
        valid(&input);
        walk("input", &input, &documented, &mut met);
    }
    assert_eq!(met, documented);
    let mut described = BTreeSet::new();
    fields_of("input", &schema(), &documented, &mut described);
    assert_eq!(described, documented, "the schema");
}

fn schema() -> Value {
    let schema = input_schema();
    assert_eq!(schema, text_of("policies/schema/input.schema.json"), "`bartizan policy schema`");
    serde_json::from_str(&schema).unwrap()
}

/// Every field that a schema names, as documents name it.
fn fields_of(
    path: &str,
    schema: &Value,
    documented: &BTreeSet<String>,
    into: &mut BTreeSet<String>,
) {
    if documented.contains(path) {
        into.insert(path.to_owned());
    } else if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, schema) in properties {
            fields_of(&format!("{path}.{name}"), schema, documented, into);
        }
    } else if schema["items"].get("properties").is_some() {
        fields_of(&format!("{path}[]"), &schema["items"], documented, into);
    } else {
        into.insert(path.to_owned());
    }
}

/// Holds an input to the schema.
fn valid(input: &Value) {
    assert_eq!(refusals("input", &schema(), input), [""; 0]);
}

/// The input of a listing, as a policy that hides it under its own name tells it.
fn listing_input(request: &AccessRequest<'_>) -> Value {
    let text = "package mcp\nlisting := {\"hide\": [json.marshal(input)]}\n\
        decision := {\"effect\": \"deny\"}\n";
    let module = Module { path: "mirror.rego".into(), text: text.into() };
    let sources = PolicySources { modules: vec![module], data: None, revision: "mirror".into() };
    let policy = Policy::compile(&sources, &Entrypoints::default(), &EvalLimits::default());
    let tool = (request.action == Action::ListTools).then(|| request.operation.clone());
    let drift = tool.as_ref().map(|_| Drift::None);
    let status = DefinitionStatus { drift, flags: &["f"], text: None };
    let definition = Document::read(r#"{"d": 1}"#.into(), &DocumentLimits::default()).unwrap();
    let entry = ListEntry {
        name: "n",
        operation: tool.map(|tool| Operation::clone(&tool)),
        digest: "sha256:0",
        definition: Some(definition.root()),
        status,
    };
    match RegoPdp::strict(policy.unwrap(), 1).list(request, &[entry]) {
        Listing::Hide { names, .. } => serde_json::from_str(&names[0]).unwrap(),
        Listing::Withhold { reason, .. } => panic!("{reason:?}"),
    }
}

/// Everything about a question that is known in the best of cases.
struct World {
    principal: Principal,
    client: Client,
    server: Server,
    approval: Approval,
}

impl World {
    fn new() -> Self {
        let texts = BTreeMap::from([("n".into(), "t".into())]);
        let principal = Principal {
            id: "i".into(),
            kind: "k".into(),
            groups: vec!["g".into()],
            claims: texts.clone(),
        };
        let pack = Pack {
            rates: [("read".into(), BaselineRate { rate: "1/m".into(), burst: 1 })].into(),
            ..Pack::default()
        };
        let pack = Arc::new(pack);
        let server = Server {
            name: "s".into(),
            environment: Some("e".into()),
            labels: texts,
            environment_ids: BTreeMap::new(),
            pack: Some(pack),
        };
        let approval = Approval {
            hold: HoldId::new("h"),
            key: HoldKey([0; 32]),
            groups: Vec::new(),
            quorum: 1,
            approvers: vec!["a".into()],
            reason: "r".into(),
            scope: Some("s".into()),
            granted_unix_ms: 0,
        };
        Self {
            principal,
            client: Client { name: "c".into(), version: "1".into() },
            server,
            approval,
        }
    }

    fn request(&self) -> AccessRequest<'_> {
        let operation = Operation {
            name: Some("o".into()),
            effect: Effect::Write,
            environments: vec!["e".into()],
            environment_source: EnvironmentSource::Arguments,
            tags: vec!["t".into()],
            pack: Some("p".into()),
        };
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
            method: "m",
            action: Action::CallTool,
            resource: Resource::Whole,
            params: None,
            operation: operation.into(),
            facts: [].into(),
            time: WallTime { unix_ms: 0 },
            approval: Some(&self.approval),
            trace_id: Some("0"),
        }
    }
}

/// Fields that the journal adds, and those of the record itself.
pub(crate) fn record_fields() -> [BTreeSet<String>; 2] {
    let text = text_of("docs/audit.md");
    let (first, second) = text.split_once("What the record says:").unwrap();
    [names(first, "| Field | Holds |"), names(second, "| Field | Holds |")]
}

/// A record shown in a document has documented fields alone.
pub(super) fn record_is_documented(place: &str, record: &Value) {
    let [mut documented, own] = record_fields();
    documented.extend(own);
    let mut met = BTreeSet::new();
    walk("", record, &documented, &mut met);
    assert!(met.contains("seq") && met.contains("event"), "{place}");
}

fn now() -> Now {
    Now { uptime: Duration::from_secs(1), wall: UNIX_EPOCH + Duration::from_hours(500_000) }
}

/// A record of which every member applies.
fn full_record() -> AuditRecord {
    let reason = ReasonFacts { code: "c".into(), message: "m".into(), origin: "rule" };
    let place = PlaceFacts { pointer: "/result".into(), rule: "pointer" };
    AuditRecord {
        call: Some("c".into()),
        principal: Some("t".into()),
        session: Some("t".into()),
        identity: Some(
            IdentityFacts {
                issuer: "t".into(),
                subject: Some("t".into()),
                client_id: Some("t".into()),
            }
            .into(),
        ),
        client: Some(ClientFacts { name: "t".into(), version: "t".into() }.into()),
        peer: Some("t".into()),
        http: Some(
            HttpFacts {
                method: "t".into(),
                host: Some("t".into()),
                path: "t".into(),
                origin: Some("t".into()),
            }
            .into(),
        ),
        server: Some("t".into()),
        direction: Some("to_server"),
        protocol: Some(ProtocolFacts {
            revision: Some("2025-11-25"),
            era: "legacy",
            transport: "http",
        }),
        method: Some("t".into()),
        id: Some("t".into()),
        target: Some(
            Target {
                tool: Some("t".into()),
                prompt: Some("t".into()),
                uri: Some("t".into()),
                task: Some("t".into()),
                definition: Some("t".into()),
                locked: Some("t".into()),
                drift: Some("t".into()),
                flags: vec!["f"; FLAGS_MAX + 1].into(),
            }
            .into(),
        ),
        operation: Some(
            OperationFacts {
                name: Some("t".into()),
                effect: "read",
                environments: vec!["e"; ENVIRONMENTS_MAX + 1].into(),
                environment_source: "none",
                tags: vec!["t"; TAGS_MAX + 1].into(),
                pack: Some("t".into()),
            }
            .into(),
        ),
        decision: Some(DecisionFacts {
            effect: "permit",
            enforced: true,
            reasons: vec![reason; REASONS_MAX + 1].into(),
            obligations: vec!["limit:c"; OBLIGATIONS_MAX + 1].into(),
            policy: "p".into(),
            engine: "strict",
            told: Some(Box::new("x".into())),
        }),
        approval: Some(
            ApprovalFacts {
                hold: "h".into(),
                answer: "grant",
                by: Some("b".into()),
                reason: Some("r".into()),
                scope: Some("s".into()),
            }
            .into(),
        ),
        outcome: Some(Outcome::Ok),
        error_type: Some("t".into()),
        hidden: vec!["h"; HIDDEN_MAX + 1].into(),
        redacted: Some(Box::new(RedactionFacts {
            count: 1,
            places: vec![place; PLACES_MAX + 1].into(),
        })),
        bytes: Some(1),
        digest: Some("t".into()),
        duration_us: Some(1),
        upstream: Some(
            UpstreamFacts {
                start_us: 1,
                duration_us: 1,
                at: Some(ServerAddress { address: "t".into(), port: 1 }),
            }
            .into(),
        ),
        within: Some("t".into()),
        link: Some(LinkFacts { trace_id: "t".into(), span_id: "t".into() }.into()),
        trace_id: Some("t".into()),
        parent_span_id: Some("t".into()),
        input: Some(KeptInput::from(Value::from("i"))),
        input_left_out: vec!["/p"; LEFT_OUT_MAX + 1].into(),
        repeated: Some(1),
        since: Some(now().wall),
        program: Some(
            ProgramFacts {
                version: "t".into(),
                host: "t".into(),
                mode: "enforce",
                configuration: Some("t".into()),
            }
            .into(),
        ),
        note: Some("n".into()),
        ..AuditRecord::new(Event::Outcome, now())
    }
    .with_finding(Finding::EnvPinViolation)
}

#[test]
fn every_field_of_a_record_is_documented_and_no_other() {
    let [journal, own] = record_fields();
    let mut met = BTreeSet::new();
    let record = serde_json::to_value(full_record()).unwrap();
    walk("", &record, &own, &mut met);
    assert_eq!(met, own);
    // Segments of the smallest size make the journal rotate.
    let folder = tempfile::tempdir().unwrap();
    let settings =
        JournalConfig { segment_bytes_max: 1 << 16, ..JournalConfig::new(folder.path()) };
    let (opened, _) = Journal::open(&settings, "boot", now()).unwrap();
    for _ in 0..200 {
        opened.keep(&full_record()).unwrap();
    }
    drop(opened);
    let mut added = BTreeSet::new();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let members = line.as_object().unwrap().keys();
            added.extend(members.filter(|name| !own.contains(*name)).cloned());
        }
    }
    for name in ["seq", "boot", "prev", "open"] {
        assert!(added.contains(name) && journal.contains(name), "{name}: {added:?}");
    }
    // The others come with faults; the module that adds them documents them too.
    let source = text_of("crates/audit/src/lib.rs");
    for name in journal {
        let last = name.rsplit('.').next().unwrap();
        assert!(source.contains(&format!("`{last}`")), "{name}: unknown to the journal");
    }
}

/// A closed set by its names in records. `all` lists it, `next` fails to build when it grows.
fn serialized<T: serde::Serialize>(all: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    let text = |value: T| serde_json::to_value(value).unwrap().as_str().unwrap().to_owned();
    all.into_iter().map(text).collect()
}

#[test]
fn events_and_outcomes_are_documented() {
    use Event as E;
    use Outcome as O;
    let text = text_of("docs/audit.md");
    let events = [
        E::Start,
        E::Stop,
        E::Intent,
        E::Hold,
        E::HoldState,
        E::Denial,
        E::Outcome,
        E::Notice,
        E::Drop,
        E::Repeated,
        E::Approval,
        E::Policy,
        E::Store,
        E::Webhook,
        E::Recovery,
        E::Gap,
        E::Rotation,
        E::Checkpoint,
        E::Retention,
    ];
    // Fails to build when a variant is added: list it above, and in the document.
    for event in events {
        match event {
            E::Start
            | E::Stop
            | E::Intent
            | E::Hold
            | E::HoldState
            | E::Denial
            | E::Outcome
            | E::Notice
            | E::Drop
            | E::Repeated
            | E::Approval
            | E::Policy
            | E::Store
            | E::Webhook
            | E::Recovery
            | E::Gap
            | E::Rotation
            | E::Checkpoint
            | E::Retention => {}
        }
    }
    assert_eq!(names(&text, "| Event | About |"), serialized(events));
    for outcome in Outcome::ALL {
        match outcome {
            O::Ok
            | O::ToolError
            | O::Error
            | O::Accepted
            | O::Cancelled
            | O::UpstreamFailed
            | O::Withheld
            | O::NotSent
            | O::Unknown => {}
        }
    }
    assert_eq!(names(&text, "| Outcome | Means |"), serialized(Outcome::ALL));
}

#[test]
fn findings_are_documented_with_their_tags() {
    let text = text_of("docs/audit.md");
    let row = |finding: Finding| {
        let tags = finding.tags();
        let name = serialized([finding]).pop_first().unwrap();
        vec![
            format!("`{name}`"),
            tags.strength.to_owned(),
            tags.maestro.layer.to_owned(),
            tags.maestro.threats.join(", "),
            tags.owasp.mcp.join(", "),
            tags.owasp.asi.join(", "),
            tags.mitre.atlas.join(", "),
        ]
    };
    let expected: BTreeSet<Vec<String>> = Finding::ALL.iter().copied().map(row).collect();
    let header = "| Finding | Strength | Layer | MAESTRO threats | OWASP MCP | OWASP ASI | ATLAS |";
    let documented: BTreeSet<Vec<String>> = rows(&text, header).into_iter().collect();
    assert_eq!(documented, expected);
    assert!(text.contains(&format!("`taxonomy` is `{TAXONOMY}`")));
}

/// What an agent gets for each kind of refusal: code, text, status.
fn faces() -> BTreeSet<(i64, String, u16)> {
    let unreadable = |why| Refusal::Malformed(Malformed::Unreadable(why));
    let refusals = [
        Refusal::Denied,
        Refusal::UnknownTool("t".into()),
        Refusal::UnknownMethod,
        Refusal::UnknownTask,
        Refusal::TasksUndeclared,
        Refusal::Limited(Wait::For(Duration::from_secs(1))),
        Refusal::Limited(Wait::ForEnd(None)),
        Refusal::Limited(Wait::Forever),
        Refusal::ApprovalRequired,
        Refusal::Malformed(Malformed::Batch),
        Refusal::Malformed(Malformed::BatchSize),
        Refusal::Batched,
        Refusal::WithBatch,
        unreadable(Unreadable::NotJson { at: 0 }),
        unreadable(Unreadable::DuplicateName { at: 0 }),
        unreadable(Unreadable::TooLarge),
        Refusal::Malformed(Malformed::Shape),
        Refusal::Malformed(Malformed::BadParams { member: "name" }),
        Refusal::Headers(HeaderMismatch::Header { name: "Mcp-Name".into() }),
        Refusal::Headers(HeaderMismatch::NoMeta),
        Refusal::BadName("name"),
        Refusal::DuplicateId,
        Refusal::TokenInUse,
        Refusal::SessionSpent,
        Refusal::Unsolicited,
        Refusal::Busy,
        Refusal::FactInUse,
        Refusal::MemorySpent,
        Refusal::NoPlace,
        Refusal::Unrecorded,
        Refusal::UpstreamFailed,
        Refusal::UpstreamTimedOut,
        Refusal::Withheld,
    ];
    refusals.iter().map(face).collect()
}

fn face(refusal: &Refusal) -> (i64, String, u16) {
    let id = Id::Number(1);
    let to = Addressee {
        id: Some(&id),
        decision_id: "d",
        era: Era::Legacy,
        tool_result: false,
        told: None,
    };
    let (body, _, status) = refusal.message(to);
    let body: Value = serde_json::from_str(std::str::from_utf8(&body).unwrap()).unwrap();
    let text = body["error"]["message"].as_str().unwrap();
    let text = if matches!(refusal, Refusal::UnknownTool(_)) {
        text.split(':').next().unwrap()
    } else {
        text
    };
    (body["error"]["code"].as_i64().unwrap(), text.to_owned(), status.code())
}

#[test]
fn what_the_agent_sees_is_what_the_readme_says() {
    let faces = faces();
    let mut codes = BTreeSet::new();
    let text = text_of("README.md");
    for row in rows(&text, "| Code | Message | HTTP | When |") {
        let code: i64 = row[0].parse().unwrap();
        let face = (code, row[1].clone(), row[2].parse().unwrap());
        assert!(faces.contains(&face), "{face:?} is not among {faces:?}");
        codes.insert(code);
    }
    for own in [
        refusal::DENIED,
        refusal::LIMITED,
        refusal::UNRECORDED,
        refusal::APPROVAL_REQUIRED,
        refusal::UPSTREAM_FAILED,
        refusal::WITHHELD,
        refusal::BUSY,
        refusal::WITH_BATCH,
    ] {
        assert!(codes.contains(&own), "{own} is not in the README");
    }
    let doors = [
        (DoorRefusal::Host, 403),
        (DoorRefusal::Origin, 403),
        (DoorRefusal::MediaType, 415),
        (DoorRefusal::TooLarge, 413),
        (DoorRefusal::UnknownPath, 404),
    ];
    for (door, status) in doors {
        assert_eq!(face(&Refusal::Door(door)).2, status, "{door:?}");
    }
    assert!(text.contains("not allowed gets 403, a compressed body 415, "));
    assert!(text.contains("too large 413, and an unknown path 404."));
}

#[test]
fn the_baseline_is_documented_rule_by_rule() {
    let mut written = BTreeSet::new();
    for file in ["definitions", "limits", "protocol", "tools"] {
        let rego = text_of(&format!("policies/baseline/{file}.rego"));
        for line in rego.lines() {
            let Some((rule, rest)) = line.split_once(" contains {\"code\": \"") else { continue };
            written.insert((rest.split('"').next().unwrap().to_owned(), rule.to_owned()));
        }
    }
    let rows = rows(&text_of("docs/policy.md"), "| Code | Rule | When |");
    let documented: BTreeSet<(String, String)> =
        rows.iter().map(|row| (quoted(&row[0])[0].to_owned(), row[1].clone())).collect();
    assert_eq!(documented, written);
}

#[test]
fn codes_that_no_rule_gives_are_those_of_the_program() {
    let source = [
        "crates/gate/src/duty/pdp.rs",
        "crates/rego/src/result.rs",
        "crates/gate/src/evidence/refusal.rs",
        "crates/gate/src/session/client.rs",
        "crates/gate/src/session/discharge.rs",
    ];
    let source = source.map(text_of).concat();
    for code in names(&text_of("docs/policy.md"), "| Code | Means |") {
        assert!(source.contains(&format!("\"{code}\"")), "{code}");
    }
}

#[test]
fn rules_are_those_that_the_decision_combines() {
    let rego = text_of("policies/mcp/decision.rego");
    let sets: BTreeSet<String> = rego
        .lines()
        .filter_map(|line| line.split_once(" contains "))
        .filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase()))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(names(&text_of("docs/policy.md"), "| Rule | Element | Means |"), sets);
    let short = names(&text_of("README.md"), "| Rule | Means |");
    assert_eq!(short, sets);
}
