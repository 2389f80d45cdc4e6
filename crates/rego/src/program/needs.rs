//! Which variables a statement gives values to, and which it needs for that.
//!
//! `schedule` orders the statements of a body by it, as the interpreter does.

use std::collections::BTreeSet;

use regorus::unstable::{Expr, Literal, LiteralStmt};

use super::schedule::Definition;
use crate::negation::children;
use crate::walk::pattern_variables;

/// The name of a variable.
pub(super) fn variable(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Var { span, .. } => Some(span.text()),
        _ => None,
    }
}

/// The variables that are indexes inside an expression, outside comprehensions.
pub(super) fn index_variables<'a>(expr: &'a Expr, found: &mut Vec<&'a str>) {
    visit(expr, &mut |expr| {
        if let Expr::RefBrack { index, .. } = expr {
            found.extend(variable(index));
        }
        true
    });
}

/// Visits an expression and those inside it, from left to right, but not the name of a called
/// function and what is in comprehensions. Where `enter` says no, what is inside is left out.
fn visit<'a>(expr: &'a Expr, enter: &mut dyn FnMut(&'a Expr) -> bool) {
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        if !enter(expr) {
            continue;
        }
        let parts = match expr {
            Expr::Call { params, .. } => params.iter().map(AsRef::as_ref).collect(),
            other => children(other),
        };
        todo.extend(parts.into_iter().rev());
    }
}

/// The variables of `own` that an expression mentions, comprehensions included.
fn uses<'a>(expr: &'a Expr, own: &BTreeSet<&'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut inner = Vec::new();
    visit(expr, &mut |expr| {
        match expr {
            Expr::Var { span, .. } => found.extend(own.get(span.text())),
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                inner.push((vec![term.as_ref()], query.as_ref()));
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                inner.push((vec![key.as_ref(), value.as_ref()], query.as_ref()));
            }
            _ => {}
        }
        true
    });
    for (terms, query) in inner {
        found.extend(terms.into_iter().flat_map(|term| uses(term, own)));
        found.extend(query.stmts.iter().flat_map(|statement| statement_uses(statement, own)));
    }
    found
}

/// The same for a statement of a comprehension.
fn statement_uses<'a>(statement: &'a LiteralStmt, own: &BTreeSet<&'a str>) -> Vec<&'a str> {
    match &statement.literal {
        Literal::SomeVars { .. } => Vec::new(),
        Literal::SomeIn { key, value, collection, .. } => {
            let all = key.iter().chain([value, collection]);
            all.flat_map(|expr| uses(expr, own)).collect()
        }
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => uses(expr, own),
        Literal::Every { domain, query, .. } => {
            let inner = query.stmts.iter().flat_map(|inner| statement_uses(inner, own));
            uses(domain, own).into_iter().chain(inner).collect()
        }
    }
}

/// What a statement gives values to and needs, as the interpreter counts it. A body's variables that
/// a comprehension declares again count as needed here, and then the policy is refused.
pub(super) fn needs<'a>(
    statement: &'a LiteralStmt,
    own: &BTreeSet<&'a str>,
) -> Vec<Definition<'a>> {
    let mut found = Vec::new();
    match &statement.literal {
        Literal::SomeVars { .. } => {}
        Literal::SomeIn { key, value, collection, .. } => {
            let needed = indexed(collection, own, &mut found);
            let patterns = key.iter().chain([value]);
            for name in patterns.flat_map(|pattern| pattern_variables(pattern)) {
                if own.contains(name) {
                    found.push(Definition { var: name, uses: needed.clone() });
                }
            }
            found.push(Definition { var: "", uses: Vec::new() });
        }
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
            if let Expr::AssignExpr { lhs, rhs, .. } = expr.as_ref() {
                for (to, from) in [(lhs, rhs), (rhs, lhs)] {
                    let needed = indexed(from, own, &mut found);
                    let given = given(to, own);
                    for name in &given {
                        let uses = needed.iter().filter(|it| *it != name).copied().collect();
                        found.push(Definition { var: name, uses });
                    }
                    if given.is_empty() {
                        found.push(Definition { var: "", uses: needed });
                    }
                }
            } else {
                let uses = indexed(expr, own, &mut found);
                found.push(Definition { var: "", uses });
            }
        }
        Literal::Every { domain, .. } => {
            let uses = indexed(domain, own, &mut found);
            found.push(Definition { var: "", uses });
        }
    }
    if found.is_empty() {
        found.push(Definition { var: "", uses: Vec::new() });
    }
    found
}

/// The variables of `own` in a pattern: a variable, or an array or object of patterns.
fn given<'a>(pattern: &'a Expr, own: &BTreeSet<&'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    visit(pattern, &mut |expr| match expr {
        Expr::Var { span, .. } => {
            found.extend(own.get(span.text()));
            false
        }
        Expr::Array { .. } | Expr::Object { .. } => true,
        _ => false,
    });
    found
}

/// The variables that an expression needs. Each that is an index is also given a value, from the
/// collection that it is the index of.
fn indexed<'a>(
    expr: &'a Expr,
    own: &BTreeSet<&'a str>,
    found: &mut Vec<Definition<'a>>,
) -> Vec<&'a str> {
    visit(expr, &mut |expr| {
        if let Expr::RefBrack { refr, index, .. } = expr {
            for var in given(index, own) {
                found.push(Definition { var, uses: uses(refr, own) });
            }
        }
        true
    });
    uses(expr, own)
}
