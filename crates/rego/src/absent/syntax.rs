//! The forms of expressions and definitions that the analysis tells apart, by their syntax alone.

use std::collections::BTreeSet;

use regorus::Value;
use regorus::unstable::{Expr, Query, Rule, RuleHead};

use crate::builtins;
use crate::check::called;
use crate::negation::children;
use crate::walk::{Step, reference, rule_ref};

/// One step of a reference: a name, or a computed key of the collection that is written so.
#[derive(Debug, Clone, Copy)]
pub(super) enum Link<'a> {
    Name(&'a str),
    Key(&'a Expr, &'a str),
}

/// The root and the steps of a reference; another expression is its own root.
pub(super) fn links(expr: &Expr) -> (&Expr, Vec<Link<'_>>) {
    let mut links = Vec::new();
    let mut at = expr;
    loop {
        at = match at {
            Expr::RefDot { refr, field, .. } => {
                links.extend(field.1.as_string().ok().map(|name| Link::Name(name)));
                refr
            }
            Expr::RefBrack { refr, index, .. } => {
                links.push(match index.as_ref() {
                    Expr::String { value, .. } | Expr::RawString { value, .. } => {
                        value.as_string().map_or(Link::Key(index, ""), |name| Link::Name(name))
                    }
                    index => Link::Key(index, refr.span().text()),
                });
                refr
            }
            root => {
                links.reverse();
                return (root, links);
            }
        };
    }
}

/// Whether an expression is a variable or a reference.
pub(super) fn is_reference(expr: &Expr) -> bool {
    matches!(expr, Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. })
}

/// Whether the value of an expression is computed, so that any member of it may be absent.
pub(super) fn is_computed(expr: &Expr) -> bool {
    matches!(expr, Expr::Call { .. } | Expr::BinExpr { .. })
}

/// Whether an expression is a literal array, set or object.
pub(super) fn is_collection(expr: &Expr) -> bool {
    matches!(expr, Expr::Array { .. } | Expr::Set { .. } | Expr::Object { .. })
}

/// Whether an expression is a literal collection or a reference: a function can look into it.
pub(super) fn is_whole(expr: &Expr) -> bool {
    is_collection(expr) || is_reference(expr)
}

/// Whether an expression calls the built-in of this name.
pub(super) fn is_call(expr: &Expr, name: &str) -> bool {
    let Expr::Call { fcn, .. } = expr else { return false };
    reference(fcn).and_then(|(it, _)| called(&it)).is_some_and(|it| it == name)
}

/// Built-ins that are 0, or -1, for what has no property: `count(x) < 2` asks for too few.
pub(super) const SIZES: [&str; 4] = ["count", "indexof", "strings.count", "sum"];

/// The value of a literal.
pub(super) fn value_of(expr: &Expr) -> Option<&Value> {
    match expr {
        Expr::String { value, .. }
        | Expr::RawString { value, .. }
        | Expr::Number { value, .. }
        | Expr::Bool { value, .. }
        | Expr::Null { value, .. } => Some(value),
        _ => None,
    }
}

/// Whether an expression is either true or false: a comparison, or a built-in that tests.
pub(super) fn is_test(expr: &Expr) -> bool {
    match expr {
        Expr::BoolExpr { .. } | Expr::Membership { .. } => true,
        Expr::Call { fcn, .. } => reference(fcn)
            .and_then(|(it, _)| called(&it))
            .and_then(|name| builtins::find(&name))
            .is_some_and(|builtin| builtin.types.ends_with(">b")),
        _ => false,
    }
}

/// Whether a literal stands for nothing: false, null, 0, and what is empty.
pub(super) fn lacking(expr: &Expr) -> bool {
    match expr {
        Expr::Null { .. } | Expr::Bool { value: Value::Bool(false), .. } => true,
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().is_ok_and(|it| it.is_empty())
        }
        Expr::Number { value, .. } => *value == Value::from(0_u64),
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.is_empty(),
        Expr::Object { fields, .. } => fields.is_empty(),
        Expr::Call { params, .. } => params.is_empty() && is_call(expr, "set"),
        _ => false,
    }
}

/// Whether a literal is, or contains, false: a test is compared with it.
pub(super) fn contains_false(expr: &Expr) -> bool {
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        match expr {
            Expr::Bool { value: Value::Bool(false), .. } => return true,
            Expr::Array { .. } | Expr::Set { .. } | Expr::Object { .. } => {
                todo.extend(children(expr));
            }
            _ => {}
        }
    }
    false
}

/// Whether an expression is the size of something, or where something is in it.
pub(super) fn is_size(expr: &Expr) -> bool {
    SIZES.iter().any(|name| is_call(expr, name))
}

/// Whether an expression is this number where something lacks what is asked for: `indexof` is -1, the
/// parts of `split` are 1, other sizes 0.
pub(super) fn lacking_size(size: &Expr, number: &Expr) -> bool {
    let value = value_of(number);
    if contains_call(size, "indexof") {
        return value == Some(&Value::from(-1_i64)) || matches!(number, Expr::UnaryExpr { .. });
    }
    let nothing = u64::from(contains_call(size, "split"));
    is_size(size) && value == Some(&Value::from(nothing))
}

/// Whether a part of an expression calls the built-in of this name.
pub(super) fn contains_call(expr: &Expr, name: &str) -> bool {
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        if is_call(expr, name) {
            return true;
        }
        todo.extend(children(expr));
    }
    false
}

/// What a change of a rule does to an expression that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    /// More of it makes the expression true.
    More,
    /// Less of it does.
    Less,
    /// Either may.
    Either,
}

impl Direction {
    pub(super) fn reversed(self) -> Self {
        match self {
            Self::More => Self::Less,
            Self::Less => Self::More,
            Self::Either => Self::Either,
        }
    }
}

/// One way for a rule to get a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Branch<'a> {
    pub(super) module: usize,
    pub(super) rule: &'a Rule,
    /// The body and its statements; `None` where there is no condition.
    pub(super) query: Option<&'a Query>,
    /// The value; `None` stands for true.
    pub(super) value: Option<&'a Expr>,
}

impl<'a> Branch<'a> {
    /// The texts of its statements.
    pub(super) fn texts(&self) -> BTreeSet<&'a str> {
        let statements = self.query.iter().flat_map(|query| &query.stmts);
        statements.map(|statement| statement.span.text()).collect()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.rule, other.rule)
            && self.query.map(std::ptr::from_ref) == other.query.map(std::ptr::from_ref)
    }

    /// Whether its value is false.
    pub(super) fn is_false(&self) -> bool {
        self.value.and_then(value_of) == Some(&FALSE)
    }

    /// Whether a rule restricts as much with this other value. A set has no other value.
    pub(super) fn is_like(&self, other: Option<&Value>) -> bool {
        if collects(self.rule) {
            return true;
        }
        match self.value.map_or(Some(&TRUE), value_of) {
            Some(own) => other == Some(own),
            None => other != Some(&FALSE),
        }
    }
}

/// The value false.
pub(super) static FALSE: Value = Value::Bool(false);

/// The value true.
pub(super) static TRUE: Value = Value::Bool(true);

/// The expressions of a rule's head: its value, and the computed keys of its name.
pub(super) fn heads(rule: &Rule) -> (Option<&Expr>, Vec<&Expr>) {
    let Rule::Spec { head, .. } = rule else { return (None, Vec::new()) };
    let value = match head {
        RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
            assign.as_ref().map(|assign| assign.value.as_ref())
        }
        RuleHead::Set { key, .. } => key.as_ref().map(AsRef::as_ref),
    };
    let steps = reference(rule_ref(rule)).map(|(it, _)| it.steps).unwrap_or_default();
    let keys = steps.into_iter().filter_map(|step| match step {
        Step::Index(index) => Some(index),
        Step::Name(_) => None,
    });
    (value, keys.collect())
}

/// All ways for a definition to get a value.
pub(super) fn branches(module: usize, rule: &Rule) -> Vec<Branch<'_>> {
    let Rule::Spec { bodies, .. } = rule else { return Vec::new() };
    let (head, _) = heads(rule);
    if bodies.is_empty() {
        return vec![Branch { module, rule, query: None, value: head }];
    }
    let mut found = Vec::new();
    for body in bodies {
        let own = body.assign.as_ref().map(|assign| assign.value.as_ref());
        let value = if body.is_else { own } else { own.or(head) };
        found.push(Branch { module, rule, query: Some(&body.query), value });
    }
    found
}

/// Whether a rule collects elements or members, so that it always has a value.
pub(super) fn collects(rule: &Rule) -> bool {
    match rule {
        Rule::Spec { head: RuleHead::Set { .. }, .. } => true,
        Rule::Spec { .. } => !heads(rule).1.is_empty(),
        Rule::Default { .. } => false,
    }
}
