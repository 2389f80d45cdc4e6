//! Where a rule iterates: its variables, and the indexes without a value.
//!
//! `negation` and `imports` use it when they rewrite a module's text.

use std::collections::BTreeSet;

use regorus::unstable::{Expr, Literal, Rule, RuleBody, RuleHead, Span};

use super::walk::{Step, Visit, Walk, reference, rule_args};

/// Every variable that a rule declares, in any of its bodies.
pub(super) fn declared(rule: &Rule) -> BTreeSet<&str> {
    let mut declared: BTreeSet<&str> = rule_args(rule).into_iter().filter_map(variable).collect();
    for visit in Walk::rule(rule) {
        let Visit::Statement(statement) = visit else { continue };
        match &statement.literal {
            Literal::SomeVars { vars, .. } => declared.extend(vars.iter().map(Span::text)),
            Literal::SomeIn { key, value, .. } => {
                declared.extend(key.iter().chain([value]).filter_map(|it| variable(it)));
            }
            Literal::Expr { expr, .. } => {
                if let Expr::AssignExpr { lhs, .. } = expr.as_ref() {
                    declared.extend(variable(lhs));
                }
            }
            Literal::NotExpr { .. } | Literal::Every { .. } => {}
        }
    }
    declared.remove("_");
    declared
}

/// Whether a rule's body may have several matches, each with a value of its own.
pub(super) fn iterates(rule: &Rule, body: &RuleBody) -> bool {
    let mut declared: BTreeSet<&str> = rule_args(rule).into_iter().filter_map(variable).collect();
    for statement in &body.query.stmts {
        match &statement.literal {
            Literal::SomeIn { .. } | Literal::SomeVars { .. } => return true,
            Literal::Expr { expr, .. } => {
                if let Expr::AssignExpr { lhs, .. } = expr.as_ref() {
                    declared.extend(variable(lhs));
                }
            }
            Literal::NotExpr { .. } | Literal::Every { .. } => {}
        }
    }
    let in_body = body.query.stmts.iter().any(|statement| match &statement.literal {
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
            has_free_index(expr, &declared)
        }
        Literal::SomeIn { .. } | Literal::SomeVars { .. } | Literal::Every { .. } => false,
    });
    let own = body.assign.as_ref().map(|assign| assign.value.as_ref());
    let head = match rule {
        Rule::Spec {
            head: RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. }, ..
        } => assign.as_ref().map(|assign| assign.value.as_ref()),
        Rule::Spec { head: RuleHead::Set { .. }, .. } | Rule::Default { .. } => None,
    };
    in_body || own.into_iter().chain(head).any(|value| has_free_index(value, &declared))
}

/// Whether some index in `expr` is a variable that nothing declares: it then iterates over the
/// collection. A rule's name as an index does not iterate, but counts here too, which is safe.
pub(super) fn has_free_index(expr: &Expr, declared: &BTreeSet<&str>) -> bool {
    indexes_in(expr).any(|index| variable(index).is_some_and(|it| !declared.contains(it)))
}

fn variable(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Var { span, .. } => Some(span.text()),
        _ => None,
    }
}

/// Every index inside an expression, except those inside comprehensions, whose iteration stays
/// inside them.
fn indexes_in(expr: &Expr) -> impl Iterator<Item = &Expr> {
    let mut found = Vec::new();
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        if let Some((reference, root)) = reference(expr) {
            let indexes = reference.steps.iter().filter_map(|step| match step {
                Step::Index(index) => Some(*index),
                Step::Name(_) => None,
            });
            found.extend(indexes.clone());
            todo.extend(indexes.chain(root));
            continue;
        }
        match expr {
            Expr::Call { params: items, .. }
            | Expr::Array { items, .. }
            | Expr::Set { items, .. } => todo.extend(items.iter().map(AsRef::as_ref)),
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    todo.extend([key.as_ref(), value.as_ref()]);
                }
            }
            Expr::UnaryExpr { expr, .. } => todo.push(expr),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => todo.extend([lhs.as_ref(), rhs.as_ref()]),
            Expr::Membership { key, value, collection, .. } => {
                todo.extend(key.iter().chain([value, collection]).map(AsRef::as_ref));
            }
            _ => {}
        }
    }
    found.into_iter()
}

/// Whether a name can follow a dot in Rego without brackets and quotes.
pub(super) fn is_identifier(name: &str) -> bool {
    name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
        && !name.starts_with(|c: char| c.is_ascii_digit())
}
