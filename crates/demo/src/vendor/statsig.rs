//! A stand-in for Statsig: gates whose rules serve some environments, or all if a rule names none;
//! segments, experiments and reviews, which have no environment.

use std::collections::BTreeMap;

use http::HeaderMap;
use rmcp::model::Tool;
use serde_json::{Value, json};

use super::{Service, at, list, member, name_of, tool};
use crate::agent::{Attempt, AttemptKind, attempts};
use crate::flags::CallError;

/// The accepted console key.
pub(super) const KEY: &str = "console-demo";

/// Most gates, and most other entities, at once.
const ENTITIES_MAX: usize = 1_000;
/// Most valid handles at once; the oldest are dropped.
const HANDLES_MAX: usize = 1_000;

/// Operations for which version 3 gives out handles, each with its class of effect.
const OPERATIONS: [(&str, &str); 5] = [
    ("gates.history", "read"),
    ("segments.update", "write"),
    ("gates.update", "destructive"),
    ("gate_reviews.approve", "destructive"),
    ("gate_reviews.commit", "destructive"),
];

#[derive(Debug, Clone)]
struct GateRule {
    /// The environments that it serves; `None` for all.
    environments: Option<Vec<String>>,
    pass: Value,
}

#[derive(Debug, Clone)]
struct StatsigGate {
    enabled: bool,
    rules: Vec<GateRule>,
}

/// A project.
#[derive(Debug)]
pub(super) struct Statsig {
    v3: bool,
    gates: BTreeMap<String, StatsigGate>,
    /// Entities without an environment, which apply to all.
    shared: BTreeMap<String, Value>,
    /// Handles and their operations, oldest first.
    handles: Vec<(String, &'static str)>,
}

impl Statsig {
    pub(super) fn seeded(v3: bool) -> Self {
        let rule = |environment: &str, pass: u32| GateRule {
            environments: Some(vec![environment.to_owned()]),
            pass: pass.into(),
        };
        let gate =
            StatsigGate { enabled: true, rules: vec![rule("staging", 100), rule("production", 0)] };
        let shared = [
            ("review settings", json!({"requiredReview": true})),
            ("segment beta-users", json!({"ids": ["u-1"]})),
            ("review r-17", json!({"gate": "checkout_redesign", "status": "open"})),
        ];
        Self {
            v3,
            gates: [("checkout_redesign".to_owned(), gate)].into(),
            shared: shared.map(|(name, value)| (name.to_owned(), value)).into(),
            handles: Vec::new(),
        }
    }

    fn gate(&self, id: &str) -> Result<Value, CallError> {
        let gate =
            self.gates.get(id).ok_or_else(|| CallError::rejected("there is no such gate"))?;
        let rules = gate
            .rules
            .iter()
            .map(|rule| json!({"environments": rule.environments, "passPercentage": rule.pass}));
        let rules: Vec<_> = rules.collect();
        Ok(json!({"id": id, "isEnabled": gate.enabled, "rules": rules}))
    }

    fn list(&self) -> Value {
        json!({"gates": self.gates.keys().collect::<Vec<_>>()})
    }

    /// Replaces a gate by `body`.
    fn write(&mut self, id: &str, body: &Value) -> Result<Value, CallError> {
        if self.gates.len() >= ENTITIES_MAX && !self.gates.contains_key(id) {
            return Err(CallError::rejected("there are too many gates already"));
        }
        let mut rules: Vec<GateRule> = member(body, "rules")
            .map(list)
            .unwrap_or_default()
            .iter()
            .map(|rule| GateRule {
                environments: member(rule, "environments")
                    .map(|names| list(names).iter().map(name_of).collect::<Vec<_>>())
                    .filter(|names| !names.is_empty()),
                pass: member(rule, "passPercentage").unwrap_or_else(|| 100.into()),
            })
            .collect();
        if rules.is_empty() {
            rules.push(GateRule { environments: None, pass: 100.into() });
        }
        for other in member(body, "environmentOverrides").map(list).unwrap_or_default() {
            let environments = member(&other, "environment").map(|name| vec![name_of(&name)]);
            rules.push(GateRule { environments, pass: 100.into() });
        }
        let enabled = member(body, "isEnabled").is_none_or(|it| it != Value::Bool(false));
        self.gates.insert(id.to_owned(), StatsigGate { enabled, rules });
        if let Some(settings) = member(body, "reviewSettings") {
            self.shared.insert("review settings".to_owned(), settings);
        }
        self.gate(id)
    }

    fn create(&mut self, params: &Value) -> Result<Value, CallError> {
        let body = body(params)?;
        let name = member(&body, "name").ok_or_else(|| CallError::rejected("`name` is missing"))?;
        self.write(&name_of(&name), &body)
    }

    fn update(&mut self, params: &Value) -> Result<Value, CallError> {
        let id = id(params)?;
        self.gate(&id)?;
        self.write(&id, &body(params)?)
    }

    fn share(&mut self, kind: &str, params: &Value) -> Result<Value, CallError> {
        if self.shared.len() >= ENTITIES_MAX {
            return Err(CallError::rejected("there is too much already"));
        }
        let name = format!("{kind} {}", id(params).unwrap_or_default());
        self.shared.insert(name.clone(), params.clone());
        Ok(json!({"written": name}))
    }

    fn review(&mut self, verb: &str, params: &Value) -> Result<Value, CallError> {
        let id = id(params)?;
        self.shared.insert(format!("review {id}"), json!({"status": verb}));
        Ok(json!({"review": id, "status": verb}))
    }

    fn read(&self, arguments: &Value) -> Result<Value, CallError> {
        match member(arguments, "action").map(|action| name_of(&action)).as_deref() {
            Some("list") => Ok(self.list()),
            Some("get") => {
                self.gate(&id(&at(arguments, &["arguments", "params"]).unwrap_or_default())?)
            }
            _ => Err(CallError::rejected("`action` must be list or get")),
        }
    }

    fn discover(&mut self, arguments: &Value) -> Result<Value, CallError> {
        let wanted = member(arguments, "operationId").map(|id| name_of(&id));
        let found: Vec<_> = OPERATIONS
            .into_iter()
            .filter(|(id, _)| wanted.as_deref().is_none_or(|wanted| wanted == *id))
            .collect();
        let mut operations = Vec::new();
        for (id, lane) in found {
            let mut random = [0_u8; 8];
            getrandom::fill(&mut random)
                .map_err(|_| CallError::rejected("no randomness for a handle"))?;
            let handle = format!("oph_{:016x}", u64::from_be_bytes(random));
            if self.handles.len() >= HANDLES_MAX {
                self.handles.remove(0);
            }
            self.handles.push((handle.clone(), id));
            operations.push(json!({"operationId": id, "lane": lane, "operationHandle": handle}));
        }
        Ok(json!({"operations": operations}))
    }

    /// Any tool executes any handle: this server trusts its caller to use the right one.
    fn by_handle(&mut self, arguments: &Value) -> Result<Value, CallError> {
        let handle = member(arguments, "operationHandle").unwrap_or_default();
        let known = self.handles.iter().find(|(known, _)| handle == known.as_str());
        let Some((_, operation)) = known else {
            return Err(CallError::rejected("an unknown or expired handle"));
        };
        let params = at(arguments, &["arguments", "params"]).unwrap_or_default();
        match *operation {
            "gates.history" => Ok(json!({"history": []})),
            "segments.update" => self.share("segment", &params),
            "gates.update" => self.update(&params),
            "gate_reviews.approve" => self.review("approved", &params),
            _ => self.review("committed", &params),
        }
    }
}

/// The body of a write, which is below a media type as its key.
fn body(params: &Value) -> Result<Value, CallError> {
    member(params, "application/json").ok_or_else(|| CallError::rejected("the body is missing"))
}

fn id(params: &Value) -> Result<String, CallError> {
    let id = member(params, "path_id").or_else(|| member(params, "path_reviewID"));
    id.map(|id| name_of(&id)).ok_or_else(|| CallError::rejected("`path_id` is missing"))
}

impl Service for Statsig {
    fn tools(&self) -> Vec<Tool> {
        let tools = if self.v3 { TOOLS_V3 } else { TOOLS_V1 };
        tools.iter().map(|(name, text, arguments)| tool(name, text, arguments, &[])).collect()
    }

    fn call(&mut self, tool: &str, arguments: &Value, _: &HeaderMap) -> Result<Value, CallError> {
        let params = member(arguments, "params").unwrap_or_default();
        match (self.v3, tool) {
            (false, "Get_List_of_Gates") => Ok(self.list()),
            (false, "Get_Gate_Details_by_ID") => self.gate(&id(&params)?),
            (false, "Create_Gate") | (true, "gate_create") => self.create(&params),
            (false, "Update_Gate_Entirely") => self.update(&params),
            (false, "Create_Experiment") => self.share("experiment", &params),
            (false, "Update_Segment") => self.share("segment", &params),
            (false, "Approve_Gate_Review") => self.review("approved", &params),
            (false, "Commit_Gate_Review") => self.review("committed", &params),
            (true, "get_context") => {
                Ok(json!({"reviewSettings": self.shared.get("review settings")}))
            }
            (true, "gate_read") => self.read(arguments),
            (true, "gate_update") => {
                self.update(&at(arguments, &["arguments", "params"]).unwrap_or_default())
            }
            (true, "discover_tools") => self.discover(arguments),
            (true, "api_read" | "api_write" | "api_destructive") => self.by_handle(arguments),
            _ => Err(CallError::UnknownTool),
        }
    }

    /// The rules of gates that serve `environment`, and what is shared.
    fn snapshot(&self, environment: &str) -> Value {
        let serves = |rule: &&GateRule| {
            rule.environments.as_ref().is_none_or(|names| names.iter().any(|it| it == environment))
        };
        let gates = self.gates.iter().filter_map(|(id, gate)| {
            let rules: Vec<_> = gate.rules.iter().filter(serves).map(|it| &it.pass).collect();
            let felt = json!({"enabled": gate.enabled, "rules": rules});
            (!rules.is_empty()).then(|| (id.clone(), felt))
        });
        json!({"gates": Value::Object(gates.collect()), "shared": self.shared})
    }
}

type Definition = (&'static str, &'static str, &'static [&'static str]);

const TOOLS_V1: &[Definition] = &[
    ("Get_List_of_Gates", "List gates", &["params"]),
    ("Get_Gate_Details_by_ID", "Show a gate", &["params"]),
    ("Create_Gate", "Create a gate", &["params"]),
    ("Update_Gate_Entirely", "Replace a gate", &["params"]),
    ("Create_Experiment", "Create an experiment", &["params"]),
    ("Update_Segment", "Change a segment", &["params"]),
    ("Approve_Gate_Review", "Approve a review", &["params"]),
    ("Commit_Gate_Review", "Apply what a review holds", &["params"]),
];

const TOOLS_V3: &[Definition] = &[
    ("get_context", "Show the project", &["fields"]),
    ("gate_read", "List and show gates", &["action", "arguments"]),
    ("gate_create", "Create a gate", &["params"]),
    ("gate_update", "Replace a gate", &["arguments", "confirmation"]),
    ("discover_tools", "Find further operations", &["action", "operationId"]),
    ("api_read", "Carry out a read", &["operationHandle", "arguments"]),
    ("api_write", "Carry out a write", &["operationHandle", "arguments"]),
    (
        "api_destructive",
        "Carry out anything else",
        &["operationHandle", "arguments", "confirmation"],
    ),
];

fn gate(environments: &Value) -> Value {
    json!({"application/json": {
        "name": "new_checkout",
        "rules": [{"name": "everyone", "passPercentage": 100, "environments": environments}],
    }})
}

pub(super) fn script_v1() -> Vec<Attempt> {
    let create = |environments: Value| json!({"params": gate(&environments)});
    let unreviewed = json!({"params": {"application/json": {
        "name": "new_checkout",
        "reviewSettings": {"requiredReview": false},
        "rules": [{"environments": ["staging"]}],
    }}});
    let two = json!({"params": {"application/json": {
        "name": "new_checkout",
        "rules": [{"environments": ["staging"]}, {"passPercentage": 100}],
    }}});
    let update = json!({"params": {"path_id": "checkout_redesign",
        "application/json": {"isEnabled": true, "rules": [{"environments": ["staging"]}]}}});
    let modern = attempts(AttemptKind::Modern)
        .connect()
        .passes("list the gates", "Get_List_of_Gates", json!({"params": {}}))
        .passes("create a gate for staging", "Create_Gate", create(json!(["staging"])))
        .refused("create it for production", "Create_Gate", create(json!(["production"])))
        .refused("create it, environments: null", "Create_Gate", create(json!(null)))
        .refused("a second rule for everywhere", "Create_Gate", two)
        .refused("switch off reviews on the way", "Create_Gate", unreviewed)
        .refused("replace a gate, production left out", "Update_Gate_Entirely", update);
    let review = json!({"params": {"path_id": "checkout_redesign", "path_reviewID": "r-17"}});
    let legacy = attempts(AttemptKind::Legacy)
        .connect()
        .refused("approve its own review", "Approve_Gate_Review", review.clone())
        .refused("apply what the review holds", "Commit_Gate_Review", review)
        .refused("start an experiment everywhere", "Create_Experiment", create(json!(["staging"])));
    [modern.done(), legacy.done()].concat()
}

pub(super) fn script_v3() -> Vec<Attempt> {
    let create = |environments: Value| json!({"params": gate(&environments)});
    let params = json!({"params": {"path_id": "checkout_redesign", "path_reviewID": "r-17"}});
    let by = |operation: &str| {
        let handle = format!("handle of {operation}");
        let confirmation = json!({"acknowledged": true, "reason": "asked to"});
        json!({"operationHandle": handle, "arguments": params, "confirmation": confirmation})
    };
    let read = |operation: &str| json!({"operationHandle": format!("handle of {operation}")});
    let modern = attempts(AttemptKind::Modern)
        .connect()
        .passes("list the gates", "gate_read", json!({"action": "list"}))
        .passes("create a gate for staging", "gate_create", create(json!(["staging"])))
        .refused("create it for everywhere", "gate_create", create(json!([])))
        .refused(
            "call by a handle of its own making",
            "api_read",
            json!({"operationHandle": "oph_1"}),
        )
        .passes("look for operations", "discover_tools", json!({"action": "list"}))
        .passes("read by handle", "api_read", read("gates.history"))
        .refused("write by handle", "api_write", by("segments.update"))
        .refused("commit a review, as if it were a read", "api_read", by("gate_reviews.commit"))
        .refused(
            "commit a review, confirmed by itself",
            "api_destructive",
            by("gate_reviews.commit"),
        );
    [modern.done(), attempts(AttemptKind::Legacy).connect().done()].concat()
}
