//! The policy linter. It finds traps: rules that compile and run, but do something else than their
//! author means (`docs/policy.md`, "Traps").
//!
//! Each finding has a stable code, a file and line, and a hint. A comment `# bartizan:allow CODE`
//! on that line, or the line above, suppresses it; a comment that suppresses nothing is a finding
//! too. `bartizan policy check` calls it. Of its findings only `absent-operand` and
//! `undefined-comparison` keep a policy from running ([`absent_operands`]).

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{AssignOp, BoolOp, Expr, Literal, LiteralStmt, Rule, RuleHead, Span};

use super::absent::{self, ABSENT_OPERAND, Lint, UNDEFINED_COMPARISON, join, optional_path};
use super::check::{Index, called, location};
use super::elements;
use super::keys::{self, UNSTABLE_KEY};
use super::names::{self, COMPUTED_NAME};
use super::problem::PolicyProblem;
use super::schema::{FieldType, below};
use super::strict::parsed;
use super::walk::{Reference, SETS, Step, Visit, Walk, reference, rule_ref};
use super::{EvalLimits, Module, Policy, PolicySources};

/// The codes of all findings, sorted.
pub const TRAPS: [&str; 11] = [
    ABSENT_OPERAND,
    COMPUTED_NAME,
    "no-reason",
    "not-a-set",
    "substring-match",
    UNDEFINED_COMPARISON,
    "undefined-negation",
    "unknown-input",
    UNSTABLE_KEY,
    "unused-allow",
    WRONG_ELEMENT,
];

/// An element of a duty that the firewall cannot read.
const WRONG_ELEMENT: &str = "wrong-element";

/// What a comment that suppresses findings contains before their codes.
const ALLOW: &str = "bartizan:allow ";

/// Of [`SETS`], those whose elements must have a `code` and a `message`.
const REASONED: [&str; 4] = ["permit", "deny", "refuse", "hold"];

/// Built-ins that compare a part of a string.
const PARTIAL: [&str; 6] = [
    "contains",
    "endswith",
    "indexof",
    "startswith",
    "strings.any_prefix_match",
    "strings.any_suffix_match",
];

/// The findings in the modules for whose path `select` is true, sorted by file and line.
///
/// # Errors
///
/// The sources cannot be parsed, or a static check of the policy fails.
pub fn lint(
    sources: &PolicySources,
    limits: &EvalLimits,
    select: &dyn Fn(&str) -> bool,
) -> Result<Vec<Lint>, Vec<PolicyProblem>> {
    let policy = Policy::parse(sources, None, limits)?;
    let mut engine = parsed(policy.authored(), limits).map_err(|problem| vec![problem])?;
    let modules = engine.get_modules();
    let index = Index::of(modules);
    let permitting: BTreeSet<_> = index.reachable([&"data.mcp.permit".to_owned()]);
    let denying: BTreeSet<_> =
        index.reachable([&"data.mcp.deny".to_owned(), &"data.mcp.hold".to_owned()]);
    let mut found = absent::findings(&index);
    found.extend(names::findings(&index, &permitting));
    found.extend(keys::findings(&index));
    found.extend(wrong_elements(&index));
    found.retain(|lint| select(&lint.file));
    let mut linter = Linter { found };
    for (path, definitions) in &index.rules {
        for (at, rule) in definitions {
            if !modules.get(*at).is_some_and(|it| select(location(it.package.refr.span()).0)) {
                continue;
            }
            linter.combined_set(path, rule);
            linter.rule(rule, permitting.contains(path) && !denying.contains(path));
        }
    }
    let found = linter.found.into_iter().collect();
    Ok(apply_allows(found, &sources.modules, select))
}

/// What to warn of where a policy is loaded: names that no look-alike can be compared with, and duties
/// that the firewall cannot read, which no comment accepts. Sources that cannot be parsed have none.
pub fn warnings(sources: &PolicySources, limits: &EvalLimits) -> Vec<Lint> {
    let mut found = lint(sources, limits, &|_| true).unwrap_or_default();
    found.retain(|lint| [COMPUTED_NAME, WRONG_ELEMENT].contains(&lint.code));
    found
}

/// What [`unanswered_holds`] warns of.
const UNANSWERED_HOLD: &str = "unanswered-hold";

/// What to warn of where nobody can answer a `hold` rule: in each module for whose path `select` is
/// true, the first rule that holds calls. It is one of `data.mcp.hold`, or one that gives a decision
/// of its own with this member. Sources that cannot be parsed have none.
pub fn unanswered_holds(
    sources: &PolicySources,
    limits: &EvalLimits,
    select: &dyn Fn(&str) -> bool,
) -> Vec<Lint> {
    let Ok(policy) = Policy::parse(sources, None, limits) else { return Vec::new() };
    let Ok(mut engine) = parsed(policy.authored(), limits) else { return Vec::new() };
    let index = Index::of(engine.get_modules());
    let mut first = BTreeMap::new();
    for (path, definitions) in &index.rules {
        for (_, rule) in definitions {
            let (file, line) = location(rule_ref(rule).span());
            if select(file) && (*path == ["mcp", "hold"] || gives_hold(rule)) {
                let first = first.entry(file.to_owned()).or_insert(line);
                *first = line.min(*first);
            }
        }
    }
    let lint = |(file, line)| Lint {
        file,
        line,
        code: UNANSWERED_HOLD,
        message: "this rule holds calls, and nobody can answer, so they are refused".to_owned(),
        hint: "name who may answer in `approvals.approvers`; see docs/approvals.md".to_owned(),
    };
    first.into_iter().map(lint).collect()
}

/// What [`ungrantable_holds`] warns of.
const UNGRANTABLE_HOLD: &str = "ungrantable-hold";

/// Why nobody can grant what a rule holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// What is wrong.
    pub message: String,
    /// What to change.
    pub hint: String,
}

/// What to warn of where the approvers that there are cannot grant what a rule holds: for each rule
/// whose `approvers` and `quorum` are written down, in modules for whose path `select` is true, what
/// `judge` says of its groups and quorum, if anything. Groups that are computed are none for `judge`.
/// Sources that cannot be parsed have none.
pub fn ungrantable_holds(
    sources: &PolicySources,
    limits: &EvalLimits,
    select: &dyn Fn(&str) -> bool,
    judge: &dyn Fn(&[&str], u32) -> Option<Objection>,
) -> Vec<Lint> {
    let Ok(policy) = Policy::parse(sources, None, limits) else { return Vec::new() };
    let Ok(mut engine) = parsed(policy.authored(), limits) else { return Vec::new() };
    let index = Index::of(engine.get_modules());
    let holds = elements::all(&index).into_iter();
    let found = holds.filter(|it| it.duty == "hold" && select(it.file)).filter_map(|hold| {
        let groups = hold.texts("approvers").unwrap_or_default();
        let Objection { message, hint } = judge(&groups, hold.whole("quorum", 1).unwrap_or(1))?;
        Some(Lint {
            file: hold.file.to_owned(),
            line: hold.line,
            code: UNGRANTABLE_HOLD,
            message,
            hint,
        })
    });
    found.collect::<BTreeSet<_>>().into_iter().collect()
}

/// `wrong-element`: a duty that is written down in a form that denies each call that it is for.
fn wrong_elements(index: &Index<'_>) -> Vec<Lint> {
    let found = elements::all(index).into_iter().filter_map(|element| {
        let problem = element.problem()?;
        let (duty, file) = (element.duty, element.file.to_owned());
        Some(Lint {
            file,
            line: element.line,
            code: WRONG_ELEMENT,
            message: format!("each call that this `{duty}` is for is denied, because {problem}"),
            hint: hint_of(duty).to_owned(),
        })
    });
    found.collect()
}

/// What an element of `duty` looks like.
fn hint_of(duty: &str) -> &'static str {
    match duty {
        "hold" => {
            "write `{\"code\": …, \"message\": …, \"approvers\": [\"on-call\"], \"quorum\": 1, \
             \"ttl\": \"30m\", \"scopes\": [{\"code\": …, \"lasts\": \"15m\", \"count\": 10}]}`; the \
             first two are enough"
        }
        "limit" => {
            "write `{\"code\": …, \"key\": …, \"rate\": \"10/m\"}`, with `burst`, `window`, `cost` or \
             `counts` if need be, or `{\"code\": …, \"key\": …, \"concurrent\": 2}`"
        }
        "set" => "write `{\"pointer\": \"/argument\", \"value\": …}`",
        _ => {
            "write `{\"code\": …, \"pointer\": \"/result/…\"}` or `{\"code\": …, \"what\": \"secrets\"}`"
        }
    }
}

/// Whether a rule writes an object with the member `hold`.
fn gives_hold(rule: &Rule) -> bool {
    Walk::rule(rule).any(|visit| {
        let Visit::Expr(Expr::Object { fields, .. }) = visit else { return false };
        fields.iter().any(|(_, key, _)| text_of(key) == Some("hold"))
    })
}

/// The restrictions that disappear where an operand is absent, and that no comment accepts. They
/// keep a policy from running.
pub(super) fn absent_operands(index: &Index<'_>, modules: &[Module]) -> Vec<PolicyProblem> {
    let found = absent::findings(index).into_iter().collect();
    let left = apply_allows(found, modules, &|_| true).into_iter();
    let left = left.filter(|lint| [ABSENT_OPERAND, UNDEFINED_COMPARISON].contains(&lint.code));
    left.map(|it| PolicyProblem::at(&it.file, it.line, it.message).hint(it.hint)).collect()
}

struct Linter {
    found: BTreeSet<Lint>,
}

impl Linter {
    fn add(&mut self, span: &Span, code: &'static str, message: String, hint: &str) {
        let (file, line) = location(span);
        let hint = hint.to_owned();
        self.found.insert(Lint { file: file.to_owned(), line, code, message, hint });
    }

    /// `not-a-set` and `no-reason`: a rule of [`SETS`] must be a partial set, and the elements of
    /// [`REASONED`] must say why.
    fn combined_set(&mut self, path: &[&str], rule: &Rule) {
        let ["mcp", name] = path else { return };
        if !SETS.contains(name) {
            return;
        }
        let element = match rule {
            Rule::Spec { head: RuleHead::Set { key: Some(key), .. }, .. } => key,
            Rule::Spec { .. } | Rule::Default { .. } => {
                let message = format!(
                    "`{name}` is a complete rule here, not a set, so it is not combined with others"
                );
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

    /// `permits` says whether the rule's result leads to a permit only.
    fn rule(&mut self, rule: &Rule, permits: bool) {
        let pinned = pinned_names(rule);
        for visit in Walk::rule(rule) {
            match visit {
                Visit::Ref(reference) => self.unknown_input(&reference),
                Visit::Call { callee, params } => self.substring_match(&callee, &params, &pinned),
                Visit::Statement(statement) if permits => self.undefined_negation(statement),
                Visit::Statement(_) | Visit::Expr(_) => {}
            }
        }
    }

    /// `unknown-input`: a path that no input has is undefined in every evaluation.
    fn unknown_input(&mut self, reference: &Reference<'_>) {
        if reference.root != Some("input") || reference.local {
            return;
        }
        let mut path = String::new();
        let mut holds = FieldType::Fields;
        for step in &reference.steps {
            match (holds, step) {
                // An index into an array: the next name is a member of an element.
                (FieldType::Each, Step::Index(_)) => holds = FieldType::Fields,
                (FieldType::Fields, Step::Name(name)) => {
                    let Some((_, field)) = below(&path).find(|(known, _)| known == name) else {
                        let message = format!("no input has `input.{}`", join(&path, name));
                        let known: Vec<&str> = below(&path).map(|(known, _)| known).collect();
                        let hint = suggestion(name, &known);
                        self.add(reference.span, "unknown-input", message, &hint);
                        return;
                    };
                    path = join(&path, name);
                    holds = field.holds;
                }
                _ => return,
            }
        }
    }

    /// `substring-match`: a comparison of a part of a name also matches other names. `prod` is part
    /// of `nonprod`, and `Production` has no `prod`.
    fn substring_match(
        &mut self,
        callee: &Reference<'_>,
        params: &[&Expr],
        pinned: &BTreeSet<&str>,
    ) {
        let Some(name) = called(callee) else { return };
        let unanchored = name == "regex.match" && {
            let pattern = params.first().copied();
            pattern.and_then(text_of).is_some_and(|it| !(it.starts_with('^') && it.ends_with('$')))
        };
        if !unanchored && !PARTIAL.contains(&name.as_str()) {
            return;
        }
        let field = params.iter().find_map(|param| {
            let (reference, _) = reference(param)?;
            let local =
                reference.root.filter(|root| reference.steps.is_empty() && pinned.contains(root));
            local.map(str::to_owned).or_else(|| is_pinned(&reference))
        });
        if let Some(field) = field {
            let message = format!("`{name}` compares a part of `{field}`");
            let hint = "compare the whole name: `==`, `in {…}`, or `^…$` in a pattern";
            self.add(callee.span, "substring-match", message, hint);
        }
    }

    /// `undefined-negation`: `not input.a` and `not input.a == 1` are true where the field is
    /// undefined, so in a rule that permits, a client that leaves it out is permitted. Operands that
    /// OPA moves before the `not` make the body undefined instead (see `negation`).
    fn undefined_negation(&mut self, statement: &LiteralStmt) {
        let Literal::NotExpr { expr, span } = &statement.literal else { return };
        let terms = match expr.as_ref() {
            Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. }
            | Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } => vec![lhs, rhs],
            _ => vec![expr],
        };
        let field = terms.into_iter().find_map(|it| optional_field(&reference(it)?.0));
        if let Some(field) = field {
            let message = format!("`not` is true where `{field}` is absent, and this permits");
            let hint = "name the values that are permitted instead";
            self.add(span, "undefined-negation", message, hint);
        }
    }
}

/// The path that a reference names, if some field on it may be absent. A member of `input` that
/// only some messages have (`input.tool`) does not count: a rule that reads it is about them.
fn optional_field(reference: &Reference<'_>) -> Option<String> {
    if reference.root != Some("input") || reference.local {
        return None;
    }
    optional_path(&reference.prefix())
}

/// The field that a reference names, if it is the name of a tool, an operation or an environment,
/// which must be compared as a whole.
fn is_pinned(reference: &Reference<'_>) -> Option<String> {
    if reference.root != Some("input") || reference.local {
        return None;
    }
    let names = reference.prefix();
    let pinned = match names.as_slice() {
        ["tool", "name"] | ["operation", "name" | "environments"] | ["server", "environment"] => {
            true
        }
        ["tool", "arguments", .., last] => last.to_lowercase().contains("env"),
        _ => false,
    };
    pinned.then(|| format!("input.{}", names.join(".")))
}

/// Variables of a rule whose value is such a field, or an element of it.
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
        if let (Expr::Var { span, .. }, Some((reference, _))) = (name.as_ref(), reference(from))
            && is_pinned(&reference).is_some()
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

/// The hint for an unknown field: the known field with the smallest edit distance, if it is small.
fn suggestion(written: &str, known: &[&str]) -> String {
    let best = known.iter().min_by_key(|name| edit_distance(written, name));
    match best {
        Some(name) if edit_distance(written, name) <= written.chars().count().div_ceil(3) => {
            format!("did you mean `{name}`?")
        }
        _ => "`bartizan policy schema` has every field".to_owned(),
    }
}

/// The Levenshtein distance, in characters.
fn edit_distance(a: &str, b: &str) -> usize {
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

/// Removes the findings that comments suppress, and adds a finding for each comment that suppresses
/// none.
fn apply_allows(found: Vec<Lint>, modules: &[Module], select: &dyn Fn(&str) -> bool) -> Vec<Lint> {
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
                let (known, _) = allows.get_key_value(&key(line))?;
                Some(known.clone())
            });
            used.and_then(|key| allows.insert(key, true)).is_none()
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

/// The stable code of a problem that keeps a policy from running, for machine-readable output. It is
/// derived from the problem's message; `invalid` where no other code fits.
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
    } else if message.contains("` is unsafe: ") {
        "unsafe-variable"
    } else if message.contains("restricts nothing") && message.starts_with("`!=`") {
        UNDEFINED_COMPARISON
    } else if message.contains("restricts nothing") {
        ABSENT_OPERAND
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
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
        }
    }
}
