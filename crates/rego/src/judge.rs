//! Recorded questions, judged again: what a policy says to them, or why nobody can tell.
//!
//! A record does not hold all that a policy may read. Where a rule reads what is not known, there
//! is no verdict, only the place of that rule. A rule is harmless where it cannot have got that
//! far: where the statements that its body begins with compare facts that are known with other
//! values (`input.tool.name == "x"`, `input.method in {"a", "b"}`).

use std::collections::{BTreeSet, HashMap};

use regorus::Value;
use regorus::unstable::{BoolOp, Expr, Literal, LiteralStmt, Rule};

use super::check::{Index, place};
use super::engines::RegoPdp;
use super::input;
use super::prove::parsed;
use super::reads::ReadSet;
use super::result::Fault;
use super::value::{self, Input};
use super::walk::chain;
use super::{Policy, PolicyProblem};
use bartizan_gate::duty::decision::{Decision, Engine};
use bartizan_gate::duty::pdp::Pdp as _;
use bartizan_gate::question::access::AccessRequest;
use bartizan_gate::wire::document;

/// Sets of unknown pointers for which the rules that read them are kept.
const KNOWN_SETS_MAX: usize = 256;

/// Why a question cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unknown {
    /// The source of the rule that would have to know.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// What it reads, an RFC 6901 pointer below `input`.
    pub pointer: String,
}

/// Judges with one policy, on the strict engine.
#[derive(Debug)]
pub struct Judge {
    policy: Policy,
    pdp: RegoPdp,
    definitions: Vec<Definition>,
    /// By the unknown pointers: which definitions read one, and which one.
    readers: HashMap<Vec<String>, Vec<(usize, String)>>,
}

/// One definition of a rule that a decision may need.
#[derive(Debug)]
struct Definition {
    file: String,
    line: u32,
    reads: ReadSet,
    /// For each of its bodies, what it begins with; one without a body is always evaluated.
    bodies: Vec<Vec<Guard>>,
}

/// A known fact must be one of these values, or the body ends here.
#[derive(Debug)]
struct Guard {
    path: Vec<String>,
    values: BTreeSet<Value>,
}

impl Judge {
    /// A judge by `policy`.
    pub fn new(policy: &Policy) -> Result<Self, PolicyProblem> {
        let mut engine = parsed(policy)?;
        let modules = engine.get_modules();
        let index = Index::of(modules);
        let mut definitions = Vec::new();
        for path in index.reachable([&policy.entrypoints().decision]) {
            for (module, rule) in index.rules.get(&path).into_iter().flatten() {
                let (file, line) = place(rule.span());
                definitions.push(Definition {
                    file: file.to_owned(),
                    line,
                    reads: ReadSet::of([(modules.get(*module), &**rule)]),
                    bodies: guards(rule),
                });
            }
        }
        let pdp = RegoPdp::strict(policy.clone(), 1);
        Ok(Self { policy: policy.clone(), pdp, definitions, readers: HashMap::new() })
    }

    /// The decision on a question of which everything is known but what is at `unknown`.
    pub fn question(
        &mut self,
        request: &AccessRequest<'_>,
        unknown: &[String],
    ) -> Result<Decision, Unknown> {
        let input = input::of_request(request, self.policy.reads());
        self.decide(input, unknown)
    }

    /// The same for an input as a record keeps it, where `null` stands in the place of what is
    /// unknown.
    pub fn input(
        &mut self,
        input: document::Value<'_>,
        unknown: &[String],
    ) -> Result<Decision, Unknown> {
        let input = value::of_recorded(input, self.policy.reads());
        self.decide(input, unknown)
    }

    fn decide(&mut self, input: Input, unknown: &[String]) -> Result<Decision, Unknown> {
        if !unknown.is_empty()
            && let Some(found) = self.reader(&input.value, unknown)
        {
            return Err(found);
        }
        Ok(match input.lossy.first() {
            Some(pointer) => Fault::lossy(pointer).deny(self.policy.revision(), Engine::Strict),
            None => self.pdp.judge(input.value),
        })
    }

    /// What this judge's policy is called.
    pub fn revision(&self) -> bartizan_gate::duty::decision::PolicyRevision {
        self.pdp.revision()
    }

    /// The first rule that may read something unknown.
    fn reader(&mut self, input: &Value, unknown: &[String]) -> Option<Unknown> {
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
            let dead = !definition.bodies.is_empty()
                && definition
                    .bodies
                    .iter()
                    .all(|body| body.iter().any(|guard| guard.stops(input, unknown)));
            (!dead).then(|| Unknown {
                file: definition.file.clone(),
                line: definition.line,
                pointer: pointer.clone(),
            })
        })
    }
}

impl Guard {
    /// Whether a body that begins with this ends here, whatever is unknown.
    fn stops(&self, input: &Value, unknown: &[String]) -> bool {
        let mut pointer = String::new();
        let mut at = input;
        for name in &self.path {
            pointer.push('/');
            pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
            at = match at {
                Value::Object(members) => {
                    members.get(&Value::from(name.as_str())).unwrap_or(&Value::Undefined)
                }
                _ => &Value::Undefined,
            };
        }
        let overlaps = |other: &String| below(other, &pointer) || below(&pointer, other);
        !unknown.iter().any(overlaps) && !self.values.contains(at)
    }
}

/// Whether `inner` is `outer` or lies below it.
fn below(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What each body of a definition begins with.
fn guards(rule: &Rule) -> Vec<Vec<Guard>> {
    match rule {
        Rule::Default { .. } => Vec::new(),
        Rule::Spec { bodies, .. } => {
            bodies.iter().map(|body| body.query.stmts.iter().map_while(guard).collect()).collect()
        }
    }
}

/// A statement that compares one fact with plain values; nothing for others.
fn guard(statement: &LiteralStmt) -> Option<Guard> {
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
    let (chain, _) = chain(fact)?;
    let of_input = chain.root == Some("input") && chain.is_static();
    let path: Vec<String> = chain.prefix().into_iter().map(str::to_owned).collect();
    (of_input && !path.is_empty()).then_some(Guard { path, values })
}

/// A text or number that stands in the policy.
fn plain(expr: &Expr) -> Option<Value> {
    match expr {
        Expr::String { value, .. }
        | Expr::RawString { value, .. }
        | Expr::Number { value, .. }
        | Expr::Bool { value, .. } => Some(value.clone()),
        _ => None,
    }
}
