//! Evaluates recorded requests again, with another policy or the same one.
//!
//! A record does not hold everything that a policy may read. Where a rule reads an unknown value,
//! there is no decision, and the result names that rule. A rule with unknown reads does not matter
//! where none of its bodies can succeed: where a statement at the beginning of each body compares
//! a known value with a literal (`input.tool.name == "x"`, `input.method in {"a", "b"}`) and is
//! false. `bartizan policy replay` calls this module (`src/policy/replay.rs`).

use std::collections::{BTreeSet, HashMap};

use regorus::Value;
use regorus::unstable::{BoolOp, Expr, Literal, LiteralStmt, Rule};

use super::check::{Index, location};
use super::engines::RegoPdp;
use super::input;
use super::reads::ReadSet;
use super::result::Indeterminate;
use super::value::{self, Input, is_at_or_below, push_pointer_name};
use super::walk::reference;
use super::{Policy, PolicyProblem};
use bartizan_gate::duty::decision::{Decision, Engine};
use bartizan_gate::duty::pdp::Pdp as _;
use bartizan_gate::question::access::AccessRequest;
use bartizan_gate::wire::document;

/// Most entries in [`ReplayEvaluator::readers`]. A further one clears it first.
const KNOWN_SETS_MAX: usize = 256;

/// Why a recorded request has no decision: a rule that may be evaluated reads an unknown value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnknownInput {
    /// The path of the rule's source.
    pub file: String,
    /// The line of the rule's definition, counted from 1.
    pub line: u32,
    /// The unknown value: an RFC 6901 pointer below `input`.
    pub pointer: String,
}

/// Evaluates recorded requests with one policy, on one interpreter of the strict engine.
#[derive(Debug)]
pub struct ReplayEvaluator {
    policy: Policy,
    pdp: RegoPdp,
    definitions: Vec<Definition>,
    /// Cache by the unknown pointers of a request: the definitions (indexes) that read one of them,
    /// each with that pointer.
    readers: HashMap<Vec<String>, Vec<(usize, String)>>,
}

/// One definition of a rule that the decision may depend on.
#[derive(Debug)]
struct Definition {
    file: String,
    line: u32,
    reads: ReadSet,
    /// The conditions at the beginning of each body. Empty where the definition has no body, so
    /// that it is always evaluated.
    bodies: Vec<Vec<Condition>>,
}

/// A statement that is false unless the value at `path` of the input is one of `values`.
#[derive(Debug)]
struct Condition {
    path: Vec<String>,
    values: BTreeSet<Value>,
}

impl ReplayEvaluator {
    /// Prepares the evaluation of recorded requests with `policy`.
    ///
    /// # Errors
    ///
    /// The interpreter cannot load the policy.
    pub fn new(policy: &Policy) -> Result<Self, PolicyProblem> {
        let mut engine = policy.parsed()?;
        let modules = engine.get_modules();
        let index = Index::of(modules);
        let mut definitions = Vec::new();
        for path in index.reachable([&policy.entrypoints().decision]) {
            for (module, rule) in index.rules.get(&path).into_iter().flatten() {
                let (file, line) = location(rule.span());
                definitions.push(Definition {
                    file: file.to_owned(),
                    line,
                    reads: ReadSet::of([(modules.get(*module), &**rule)]),
                    bodies: conditions(rule),
                });
            }
        }
        let pdp = RegoPdp::strict(policy.clone(), 1);
        Ok(Self { policy: policy.clone(), pdp, definitions, readers: HashMap::new() })
    }

    /// The decision on a request in which everything is known except the values at `unknown`, RFC
    /// 6901 pointers below `input`.
    ///
    /// # Errors
    ///
    /// A rule that may be evaluated reads one of them.
    pub fn decide_request(
        &mut self,
        request: &AccessRequest<'_>,
        unknown: &[String],
    ) -> Result<Decision, UnknownInput> {
        if let Some(fault) = self.policy.ambiguous_name(request) {
            return Ok(fault.deny(self.policy.revision(), Engine::Strict));
        }
        let input = input::of_request(request, self.policy.reads());
        self.decide(input, unknown)
    }

    /// The decision on an input from a record, which holds `null` where a value is unknown.
    ///
    /// # Errors
    ///
    /// A rule that may be evaluated reads one of the values at `unknown`.
    pub fn decide_input(
        &mut self,
        input: document::Value<'_>,
        unknown: &[String],
    ) -> Result<Decision, UnknownInput> {
        if let Some(fault) = self.policy.ambiguous_name_recorded(input) {
            return Ok(fault.deny(self.policy.revision(), Engine::Strict));
        }
        let input = value::of_recorded(input, self.policy.reads());
        self.decide(input, unknown)
    }

    fn decide(&mut self, input: Input, unknown: &[String]) -> Result<Decision, UnknownInput> {
        if !unknown.is_empty()
            && let Some(found) = self.reader(&input.value, unknown)
        {
            return Err(found);
        }
        Ok(match input.inexact.first() {
            Some(pointer) => {
                Indeterminate::inexact_number(pointer).deny(self.policy.revision(), Engine::Strict)
            }
            None => self.pdp.decide_input(input.value),
        })
    }

    /// The revision of the policy.
    pub fn revision(&self) -> bartizan_gate::duty::decision::PolicyRevision {
        self.pdp.revision()
    }

    /// The first rule that reads an unknown value and has a body that may succeed.
    fn reader(&mut self, input: &Value, unknown: &[String]) -> Option<UnknownInput> {
        if !self.readers.contains_key(unknown) {
            if self.readers.len() >= KNOWN_SETS_MAX {
                self.readers.clear();
            }
            let found = self.definitions.iter().enumerate().filter_map(|(at, definition)| {
                let pointer = unknown.iter().find(|it| definition.reads.reaches(it))?;
                Some((at, pointer.clone()))
            });
            let found = found.collect();
            self.readers.insert(unknown.to_vec(), found);
        }
        let readers = self.readers.get(unknown)?;
        readers.iter().find_map(|(at, pointer)| {
            let definition = self.definitions.get(*at)?;
            let fails = !definition.bodies.is_empty()
                && definition
                    .bodies
                    .iter()
                    .all(|body| body.iter().any(|condition| condition.is_false(input, unknown)));
            (!fails).then(|| UnknownInput {
                file: definition.file.clone(),
                line: definition.line,
                pointer: pointer.clone(),
            })
        })
    }
}

impl Condition {
    /// Whether the condition is false for every value of the unknown parts.
    fn is_false(&self, input: &Value, unknown: &[String]) -> bool {
        let mut pointer = String::new();
        let mut at = input;
        for name in &self.path {
            push_pointer_name(&mut pointer, name);
            at = match at {
                Value::Object(members) => {
                    members.get(&Value::from(name.as_str())).unwrap_or(&Value::Undefined)
                }
                _ => &Value::Undefined,
            };
        }
        let overlaps =
            |other: &String| is_at_or_below(other, &pointer) || is_at_or_below(&pointer, other);
        !unknown.iter().any(overlaps) && !self.values.contains(at)
    }
}

/// The conditions at the beginning of each body of a definition.
fn conditions(rule: &Rule) -> Vec<Vec<Condition>> {
    match rule {
        Rule::Default { .. } => Vec::new(),
        Rule::Spec { bodies, .. } => bodies
            .iter()
            .map(|body| body.query.stmts.iter().map_while(condition).collect())
            .collect(),
    }
}

/// The condition that a statement is; `None` where it is not a comparison of one path of the input
/// with scalar literals.
fn condition(statement: &LiteralStmt) -> Option<Condition> {
    if !statement.with_mods.is_empty() {
        return None;
    }
    let Literal::Expr { expr, .. } = &statement.literal else { return None };
    let (fact, values) = match expr.as_ref() {
        Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. } => match (plain(lhs), plain(rhs)) {
            (None, Some(value)) => (lhs, BTreeSet::from([value])),
            (Some(value), None) => (rhs, BTreeSet::from([value])),
            _ => return None,
        },
        Expr::Membership { key: None, value, collection, .. } => match collection.as_ref() {
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                let values: Option<BTreeSet<Value>> = items.iter().map(|it| plain(it)).collect();
                (value, values?)
            }
            _ => return None,
        },
        _ => return None,
    };
    let (reference, _) = reference(fact)?;
    let of_input = reference.root == Some("input") && reference.is_static();
    let path: Vec<String> = reference.prefix().into_iter().map(str::to_owned).collect();
    (of_input && !path.is_empty()).then_some(Condition { path, values })
}

/// The value of a literal string, number or boolean.
fn plain(expr: &Expr) -> Option<Value> {
    match expr {
        Expr::String { value, .. }
        | Expr::RawString { value, .. }
        | Expr::Number { value, .. }
        | Expr::Bool { value, .. } => Some(value.clone()),
        _ => None,
    }
}
