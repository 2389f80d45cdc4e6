//! Finds limits whose `key` an agent can change without becoming somebody else: each new value of it
//! is a new count, so such a limit restricts nobody (threat J1).
//!
//! The analysis follows the key through variables, rules, functions and their arguments, without
//! regard to conditions. The [`lint`](super::lint()) calls it.

use std::collections::BTreeSet;

use regorus::unstable::{Expr, Literal, Rule, RuleHead};

use super::absent::Lint;
use super::check::{Index, location};
use super::negation::children;
use super::reads::constant_path;
use super::walk::{Step, Visit, Walk, pattern_variables, reference};

/// The code of the findings.
pub(super) const UNSTABLE_KEY: &str = "unstable-key";

/// What an agent changes as it likes, or what changes by itself, below `input`; the members of the
/// last one included.
const UNSTABLE: [&[&str]; 7] = [
    &["client"],
    &["params", "_meta"],
    &["params", "requestState"],
    &["protocol"],
    &["session"],
    &["time"],
    &["trace_id"],
];

/// The same, but not their members: an argument that the tool ignores makes another value of all of
/// them.
const UNSTABLE_WHOLE: [&[&str]; 4] =
    [&[], &["params"], &["prompt", "arguments"], &["tool", "arguments"]];

/// A task is begun by a call, and as many as one likes.
const TASK: [&str; 2] = ["task", "id"];

const HINT: &str = "count by `input.principal.id`, with more that the agent does not choose, such as \
                    the server or the tool";

/// The findings in the rules of `limit`.
pub(super) fn findings(index: &Index<'_>) -> BTreeSet<Lint> {
    let mut found = BTreeSet::new();
    let path = ["mcp", "limit"];
    for (module, rule) in index.rules.get(&path[..]).into_iter().flatten() {
        for key in keys(rule) {
            for read in reads(index, (*module, rule), key) {
                if !is_unstable(&read) {
                    continue;
                }
                let field = ["input"].iter().chain(&read).copied().collect::<Vec<_>>().join(".");
                let (file, line) = location(key.span());
                found.insert(Lint {
                    file: file.to_owned(),
                    line,
                    code: UNSTABLE_KEY,
                    message: format!(
                        "the `key` of a limit reads `{field}`: each value of it begins a new count"
                    ),
                    hint: HINT.to_owned(),
                });
            }
        }
    }
    found
}

fn is_unstable(read: &[&str]) -> bool {
    UNSTABLE.iter().any(|path| read.starts_with(path))
        || UNSTABLE_WHOLE.contains(&read)
        || read == TASK
}

/// The expressions of the member `key` of a rule's elements.
fn keys(rule: &Rule) -> Vec<&Expr> {
    let Rule::Spec { head: RuleHead::Set { key: Some(element), .. }, .. } = rule else {
        return Vec::new();
    };
    let mut elements = vec![element.as_ref()];
    if let Expr::Var { span, .. } = element.as_ref() {
        elements.extend(bindings(rule, span.text()));
    }
    let mut found = Vec::new();
    for element in elements {
        let Expr::Object { fields, .. } = element else { continue };
        let named = fields.iter().filter(|(_, name, _)| text(name) == Some("key"));
        found.extend(named.map(|(_, _, value)| value.as_ref()));
    }
    found
}

/// The paths below `input` that the value of `key` is made of.
fn reads<'a>(
    index: &Index<'a>,
    (module, rule): (usize, &'a Rule),
    key: &'a Expr,
) -> BTreeSet<Vec<&'a str>> {
    let mut found = BTreeSet::new();
    let mut seen: BTreeSet<*const Expr> = BTreeSet::new();
    let mut todo = vec![(module, rule, key)];
    while let Some((module, rule, expr)) = todo.pop() {
        if !seen.insert(std::ptr::from_ref(expr)) {
            continue;
        }
        if let Some(path) = member_of_input(expr) {
            found.insert(path);
            continue;
        }
        let Some((refers, _)) = reference(expr) else {
            todo.extend(parts(expr).into_iter().map(|part| (module, rule, part)));
            continue;
        };
        let indices = refers.steps.iter().filter_map(|step| match step {
            Step::Index(index) => Some(*index),
            Step::Name(_) => None,
        });
        todo.extend(indices.map(|index| (module, rule, index)));
        let Some(root) = refers.root else {
            todo.extend(children(expr).into_iter().map(|part| (module, rule, part)));
            continue;
        };
        if root == "input" {
            found.insert(refers.prefix());
            continue;
        }
        let bound = bindings(rule, root);
        if !bound.is_empty() {
            todo.extend(bound.into_iter().map(|expr| (module, rule, expr)));
            continue;
        }
        if let Some(["input", path @ ..]) = index.imported(module, &refers).map(Vec::as_slice) {
            found.insert(path.iter().copied().chain(refers.prefix()).collect());
            continue;
        }
        let Some(path) = index.resolve(module, &refers) else { continue };
        let used = index.overlapping(&path).filter_map(|path| index.rules.get(path)).flatten();
        todo.extend(used.flat_map(|(module, rule)| {
            values(rule).into_iter().map(move |value| (*module, *rule, value))
        }));
    }
    found
}

/// The path that `object.get(input.…, […], …)` reads.
fn member_of_input(expr: &Expr) -> Option<Vec<&str>> {
    let Expr::Call { fcn, params, .. } = expr else { return None };
    let [whole, path, _] = &params[..] else { return None };
    let (callee, _) = reference(fcn)?;
    let (of, _) = reference(whole)?;
    let gets = callee.root == Some("object") && callee.prefix() == ["get"];
    let read = of.prefix().into_iter().chain(constant_path(path)?).collect();
    (gets && of.root == Some("input") && of.is_static()).then_some(read)
}

/// The parts of an expression that is no reference, those of comprehensions included.
fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::ArrayCompr { term, .. } | Expr::SetCompr { term, .. } => vec![term],
        Expr::ObjectCompr { key, value, .. } => vec![key, value],
        other => children(other),
    }
}

/// What gives the variable `name` a value in `rule`.
fn bindings<'a>(rule: &'a Rule, name: &str) -> Vec<&'a Expr> {
    let mut found: Vec<&Expr> = Vec::new();
    let names = |pattern: &Expr| pattern_variables(pattern).contains(&name);
    for visit in Walk::rule(rule) {
        let Visit::Statement(statement) = visit else { continue };
        match &statement.literal {
            Literal::SomeIn { key, value, collection, .. } => {
                if key.iter().chain([value]).any(|pattern| names(pattern)) {
                    found.push(collection);
                }
            }
            Literal::Expr { expr, .. } => {
                let Expr::AssignExpr { lhs, rhs, .. } = expr.as_ref() else { continue };
                if names(lhs) {
                    found.push(rhs);
                } else if names(rhs) {
                    found.push(lhs);
                }
            }
            Literal::NotExpr { .. } | Literal::Every { .. } | Literal::SomeVars { .. } => {}
        }
    }
    found
}

/// The values that a rule or function can have.
fn values(rule: &Rule) -> Vec<&Expr> {
    match rule {
        Rule::Default { value, .. } => vec![value],
        Rule::Spec { head, bodies, .. } => {
            let head = match head {
                RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
                    assign.as_ref().map(|assign| assign.value.as_ref())
                }
                RuleHead::Set { key, .. } => key.as_deref(),
            };
            let bodies = bodies.iter().filter_map(|body| body.assign.as_ref());
            head.into_iter().chain(bodies.map(|assign| assign.value.as_ref())).collect()
        }
    }
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(AsRef::as_ref)
        }
        _ => None,
    }
}
