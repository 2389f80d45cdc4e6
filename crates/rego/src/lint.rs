//! Traps: what compiles and runs, and does not do what its author means.
//!
//! Each finding has a stable code, a place and the next step. A comment `# bartizan:allow CODE` on
//! the line or the one above it lets one stand; one that lets nothing stand is a finding too.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{
    AssignOp, BoolOp, Expr, Literal, LiteralStmt, Module as Ast, Rule, RuleHead, Span,
};
use serde::Serialize;

use super::check::{Index, called, place};
use super::problem::PolicyProblem;
use super::prove::parsed;
use super::schema::{Holds, below};
use super::walk::{Chain, Step, Visit, Walk, chain, rule_ref};
use super::{EvalLimits, Module, Policy, PolicySources};

/// The codes of all traps.
pub const TRAPS: [&str; 7] = [
    "no-reason",
    "not-a-set",
    "substring-match",
    "undefined-comparison",
    "undefined-negation",
    "unknown-input",
    "unused-allow",
];

/// What a comment begins with that lets a finding stand.
const ALLOW: &str = "bartizan:allow ";

/// The rules that `mcp/decision.rego` combines; each is a set.
const SETS: [&str; 8] = ["permit", "deny", "refuse", "hold", "limit", "set", "redact", "hide"];

/// Of those, whose elements say why, to people and to machines.
const REASONED: [&str; 4] = ["permit", "deny", "refuse", "hold"];

/// What a client writes, and so can leave out.
const WRITTEN: [&str; 3] = ["input.params.", "input.prompt.arguments.", "input.tool.arguments."];

/// Built-ins that compare parts of a text.
const PARTIAL: [&str; 6] = [
    "contains",
    "endswith",
    "indexof",
    "startswith",
    "strings.any_prefix_match",
    "strings.any_suffix_match",
];

/// One trap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Lint {
    /// The source.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// Stable: what `bartizan:allow` names.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// The next step.
    pub hint: String,
}

/// Every trap in the modules that `select` wants, by file and line.
pub fn lint(
    sources: &PolicySources,
    limits: &EvalLimits,
    select: &dyn Fn(&str) -> bool,
) -> Result<Vec<Lint>, Vec<PolicyProblem>> {
    let policy = Policy::parse(sources, None, limits)?;
    let mut engine = parsed(&policy).map_err(|problem| vec![problem])?;
    let modules = engine.get_modules();
    let index = Index::of(modules);
    let permitting: BTreeSet<_> = index.reachable([&"data.mcp.permit".to_owned()]);
    let denying: BTreeSet<_> =
        index.reachable([&"data.mcp.deny".to_owned(), &"data.mcp.hold".to_owned()]);
    let mut linter = Linter { found: BTreeSet::new() };
    for (path, definitions) in &index.rules {
        for (at, rule) in definitions {
            if !modules.get(*at).is_some_and(|it| select(path_of(it))) {
                continue;
            }
            linter.head(path, rule);
            let opens = permitting.contains(path) && !denying.contains(path);
            linter.rule(rule, opens, denying.contains(path));
        }
    }
    let found = linter.found.into_iter().collect();
    Ok(allowed(found, &sources.modules, select))
}

fn path_of(module: &Ast) -> &str {
    place(module.package.refr.span()).0
}

struct Linter {
    found: BTreeSet<Lint>,
}

impl Linter {
    fn add(&mut self, span: &Span, code: &'static str, message: String, hint: &str) {
        let (file, line) = place(span);
        let hint = hint.to_owned();
        self.found.insert(Lint { file: file.to_owned(), line, code, message, hint });
    }

    /// The rules that are combined must be sets, and their elements say why.
    fn head(&mut self, path: &[&str], rule: &Rule) {
        let ["mcp", name] = path else { return };
        if !SETS.contains(name) {
            return;
        }
        let element = match rule {
            Rule::Spec { head: RuleHead::Set { key: Some(key), .. }, .. } => key,
            Rule::Spec { .. } | Rule::Default { .. } => {
                let message = format!("`{name}` is one value here, not a set: it is not combined");
                let hint = format!("write `{name} contains {{…}} if {{…}}`");
                self.add(rule_ref(rule).span(), "not-a-set", message, &hint);
                return;
            }
        };
        let Expr::Object { fields, span, .. } = element.as_ref() else { return };
        let has = |wanted: &str| {
            fields.iter().any(|(_, key, _)| {
                matches!(key.as_ref(), Expr::String { value, .. }
                    if value.as_string().is_ok_and(|it| **it == *wanted))
            })
        };
        for wanted in ["code", "message"] {
            if REASONED.contains(name) && !has(wanted) {
                let message = format!("an element of `{name}` without `{wanted}`");
                let hint = "records and tests name a rule by its code, people read its message";
                self.add(span, "no-reason", message, hint);
            }
        }
    }

    fn rule(&mut self, rule: &Rule, opens: bool, denies: bool) {
        let pinned = pinned_names(rule);
        for visit in Walk::rule(rule) {
            match visit {
                Visit::Ref(chain) => self.unknown_input(&chain),
                Visit::Call { callee, params } => self.partial(&callee, &params, &pinned),
                Visit::Statement(statement) => {
                    self.negation(statement, opens);
                    self.absence(statement, denies);
                }
                Visit::Expr(_) => {}
            }
        }
    }

    /// A path that no input has makes what reads it undefined, always.
    fn unknown_input(&mut self, chain: &Chain<'_>) {
        if chain.root != Some("input") || chain.local {
            return;
        }
        let mut path = String::new();
        let mut holds = Holds::Fields;
        for step in &chain.steps {
            match (holds, step) {
                // An index into an array; what follows is a member of its elements.
                (Holds::Each, Step::Index(_)) => holds = Holds::Fields,
                (Holds::Fields, Step::Name(name)) => {
                    let Some((_, field)) = below(&path).find(|(known, _)| known == name) else {
                        let message = format!("no input has `input.{}`", join(&path, name));
                        let known: Vec<&str> = below(&path).map(|(known, _)| known).collect();
                        let hint = nearest(name, &known);
                        self.add(chain.span, "unknown-input", message, &hint);
                        return;
                    };
                    path = join(&path, name);
                    holds = field.holds;
                }
                _ => return,
            }
        }
    }

    /// Part of a name is not the name: `prod` is in `nonprod`, and `Production` has no `prod`.
    fn partial(&mut self, callee: &Chain<'_>, params: &[&Expr], pinned: &BTreeSet<&str>) {
        let Some(name) = called(callee) else { return };
        let unanchored = name == "regex.match" && {
            let pattern = params.first().copied();
            pattern.and_then(text_of).is_some_and(|it| !(it.starts_with('^') && it.ends_with('$')))
        };
        if !unanchored && !PARTIAL.contains(&name.as_str()) {
            return;
        }
        let field = params.iter().find_map(|param| {
            let (chain, _) = chain(param)?;
            let local = chain.root.filter(|root| chain.steps.is_empty() && pinned.contains(root));
            local.map(str::to_owned).or_else(|| is_pinned(&chain))
        });
        if let Some(field) = field {
            let message = format!("`{name}` compares a part of `{field}`");
            let hint = "compare the whole name: `==`, `in {…}`, or `^…$` in a pattern";
            self.add(callee.span, "substring-match", message, hint);
        }
    }

    /// `not` is true where what it negates is undefined: in a rule that permits, leaving the field
    /// out then permits.
    fn negation(&mut self, statement: &LiteralStmt, opens: bool) {
        let Literal::NotExpr { expr, span } = &statement.literal else { return };
        if !opens {
            return;
        }
        if let Some(field) = optional_in(expr) {
            let message = format!("`not` is true where `{field}` is absent, and this permits");
            let hint = "name the values that are permitted instead";
            self.add(span, "undefined-negation", message, hint);
        }
    }

    /// `!=` is undefined where a side is: in a rule that denies, leaving the field out passes.
    fn absence(&mut self, statement: &LiteralStmt, denies: bool) {
        let Literal::Expr { expr, .. } = &statement.literal else { return };
        let Expr::BoolExpr { op: BoolOp::Ne, lhs, rhs, span, .. } = expr.as_ref() else { return };
        if !denies {
            return;
        }
        let written = |field: &String| WRITTEN.iter().any(|part| field.starts_with(part));
        let field = [lhs, rhs].into_iter().filter_map(|side| optional_in(side)).find(written);
        if let Some(field) = field {
            let message = format!("`!=` does not hold where `{field}` is absent, and this denies");
            let hint = "write `not … == …`, which holds there too";
            self.add(span, "undefined-comparison", message, hint);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A field that may be absent and is read in `expr` itself.
fn optional_in(expr: &Expr) -> Option<String> {
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        match expr {
            Expr::BoolExpr { lhs, rhs, .. } | Expr::AssignExpr { lhs, rhs, .. } => {
                todo.extend([lhs.as_ref(), rhs.as_ref()]);
            }
            Expr::Membership { value, collection, .. } => {
                todo.extend([value.as_ref(), collection.as_ref()]);
            }
            Expr::Call { params, .. } => todo.extend(params.iter().map(AsRef::as_ref)),
            other => {
                if let Some((chain, _)) = chain(other)
                    && let Some(field) = optional(&chain)
                {
                    return Some(field);
                }
            }
        }
    }
    None
}

/// The path that a reference names, if something on it may be absent. A whole thing that only
/// some messages have (`input.tool`) does not count: rules are about such messages.
fn optional(chain: &Chain<'_>) -> Option<String> {
    if chain.root != Some("input") || chain.local {
        return None;
    }
    let names = chain.prefix();
    let mut path = String::new();
    for (depth, name) in names.iter().enumerate() {
        let (_, field) = below(&path).find(|(known, _)| known == name)?;
        path = join(&path, name);
        let free = matches!(field.holds, Holds::Anything | Holds::TextsByName);
        let further = names.len() > depth.saturating_add(1);
        if (free && further) || (!field.always && depth > 0) {
            return Some(format!("input.{}", names.join(".")));
        }
    }
    None
}

/// The field that a reference names, if its whole name matters: tools and environments.
fn is_pinned(chain: &Chain<'_>) -> Option<String> {
    if chain.root != Some("input") || chain.local {
        return None;
    }
    let names = chain.prefix();
    let pinned = match names.as_slice() {
        ["tool", "name"] | ["operation", "name" | "environments"] | ["server", "environment"] => {
            true
        }
        ["tool", "arguments", .., last] => last.to_lowercase().contains("env"),
        _ => false,
    };
    pinned.then(|| format!("input.{}", names.join(".")))
}

/// Variables of a rule that stand for such a field, or an element of it.
fn pinned_names(rule: &Rule) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for visit in Walk::rule(rule) {
        let Visit::Statement(statement) = visit else { continue };
        let (name, from) = match &statement.literal {
            Literal::SomeIn { value, collection, .. } => (value, collection),
            Literal::Expr { expr, .. } => match expr.as_ref() {
                Expr::AssignExpr { op: AssignOp::ColEq, lhs, rhs, .. } => (lhs, rhs),
                _ => continue,
            },
            Literal::Every { .. } | Literal::NotExpr { .. } | Literal::SomeVars { .. } => continue,
        };
        if let (Expr::Var { span, .. }, Some((chain, _))) = (name.as_ref(), chain(from))
            && is_pinned(&chain).is_some()
        {
            names.insert(span.text());
        }
    }
    names
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(AsRef::as_ref)
        }
        _ => None,
    }
}

/// What to write instead of `written`.
fn nearest(written: &str, known: &[&str]) -> String {
    let best = known.iter().min_by_key(|name| distance(written, name));
    match best {
        Some(name) if distance(written, name) <= written.chars().count().div_ceil(3) => {
            format!("did you mean `{name}`?")
        }
        _ => "`bartizan policy schema` has every field".to_owned(),
    }
}

/// How many letters to change, add or take away.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i.saturating_add(1)];
        for ((y, diagonal), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            let change = diagonal.saturating_add(usize::from(x != *y));
            let left = next.last().copied().unwrap_or(usize::MAX);
            next.push(change.min(above.saturating_add(1)).min(left.saturating_add(1)));
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// Takes out what comments let stand, and adds those comments that let nothing stand.
fn allowed(found: Vec<Lint>, modules: &[Module], select: &dyn Fn(&str) -> bool) -> Vec<Lint> {
    let mut allows: BTreeMap<(String, u32, String), bool> = BTreeMap::new();
    for module in modules.iter().filter(|module| select(&module.path)) {
        for (line, text) in (1_u32..).zip(module.text.lines()) {
            let Some((_, after)) = text.split_once('#') else { continue };
            let Some((_, codes)) = after.split_once(ALLOW) else { continue };
            for code in codes.split([',', ' ']).filter(|code| !code.is_empty()) {
                allows.insert((module.path.clone(), line, code.to_owned()), false);
            }
        }
    }
    let mut left: Vec<Lint> = found
        .into_iter()
        .filter(|lint| {
            let mut lines = [lint.line, lint.line.saturating_sub(1)].into_iter();
            let key = |line| (lint.file.clone(), line, lint.code.to_owned());
            let used = lines.find_map(|line| {
                let (place, _) = allows.get_key_value(&key(line))?;
                Some(place.clone())
            });
            used.and_then(|place| allows.insert(place, true)).is_none()
        })
        .collect();
    left.extend(allows.into_iter().filter(|(_, used)| !used).map(|((file, line, code), _)| Lint {
        file,
        line,
        code: "unused-allow",
        message: format!("nothing here is a `{code}`"),
        hint: "remove the comment".to_owned(),
    }));
    left.sort();
    left
}

/// The stable code of a problem that keeps a policy from running.
pub fn code_of(problem: &PolicyProblem) -> &'static str {
    let message = problem.message.as_str();
    if message.starts_with("recursion: ") {
        "recursion"
    } else if message.contains("is not available: ") {
        "forbidden-builtin"
    } else if message.contains("there is no function") {
        "unknown-function"
    } else if message.contains("is not defined") {
        "undefined-name"
    } else if message.starts_with("test `") {
        "failing-test"
    } else {
        "invalid"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("a", "", 1), ("argumnets", "arguments", 2), ("tool", "tools", 1)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
