//! The elements of duties (`hold`, `limit`, `set`, `redact`) as far as a policy writes them down
//! literally.
//!
//! An element of a wrong form denies each call that it is for (`policy_shape`), which is seen only when
//! such a call comes. Here the literal parts are read as the firewall reads a decision ([`result`]);
//! what is computed counts as right. Only members of the duties of package `mcp`, and of objects with
//! `effect` (decisions of a policy's own), are elements.

use regorus::Value;
use regorus::unstable::{Expr, Rule, RuleHead};

use super::check::{Index, location};
use super::result::{self, LIMIT, LIMIT_IN_FLIGHT, SCOPE};
use super::walk::{Visit, Walk, rule_ref};

/// The sets whose elements are duties.
const DUTIES: [&str; 4] = ["hold", "limit", "set", "redact"];

/// The nesting of literals that is read; deeper ones count as computed.
const DEPTH_MAX: usize = 8;

/// One element as it is written.
#[derive(Debug)]
pub(super) struct Element<'a> {
    /// The path of its source.
    pub(super) file: &'a str,
    /// The line where it begins, from 1.
    pub(super) line: u32,
    /// The set that it is an element of, one of [`DUTIES`].
    pub(super) duty: &'static str,
    /// What is written there.
    written: &'a Expr,
}

/// All elements that are written in the rules of `index`.
pub(super) fn all<'a>(index: &Index<'a>) -> Vec<Element<'a>> {
    let mut found = Vec::new();
    for (path, definitions) in &index.rules {
        if path.last().is_some_and(|name| name.starts_with("test_")) {
            continue;
        }
        for (_, rule) in definitions {
            if let ["mcp", name] = path.as_slice()
                && let Some(duty) = DUTIES.into_iter().find(|duty| duty == name)
            {
                of_set(rule, duty, &mut found);
            }
            of_decisions(rule, &mut found);
        }
    }
    found
}

/// The elements that `rule` adds to the set `duty`.
fn of_set<'a>(rule: &'a Rule, duty: &'static str, found: &mut Vec<Element<'a>>) {
    let Rule::Spec { head, .. } = rule else { return };
    match head {
        RuleHead::Set { key: Some(key), .. } => push(rule, duty, key, found),
        RuleHead::Compr { assign: Some(assign), .. } => {
            for item in items(&assign.value) {
                push(rule, duty, item, found);
            }
        }
        RuleHead::Set { .. } | RuleHead::Compr { .. } | RuleHead::Func { .. } => {}
    }
}

/// The elements in the decisions that `rule` writes: objects with `effect`.
fn of_decisions<'a>(rule: &'a Rule, found: &mut Vec<Element<'a>>) {
    for visit in Walk::rule(rule) {
        let Visit::Expr(Expr::Object { fields, .. }) = visit else { continue };
        if !fields.iter().any(|(_, key, _)| text(key) == Some("effect")) {
            continue;
        }
        for (_, key, value) in fields {
            let named = |duty: &&str| text(key) == Some(duty);
            let Some(duty) = DUTIES.into_iter().find(named) else { continue };
            for item in items(value) {
                push(rule, duty, item, found);
            }
        }
    }
}

/// The items of a literal array or set.
fn items(expr: &Expr) -> impl Iterator<Item = &Expr> {
    let items = match expr {
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.as_slice(),
        _ => &[],
    };
    items.iter().map(AsRef::as_ref)
}

fn push<'a>(rule: &'a Rule, duty: &'static str, written: &'a Expr, found: &mut Vec<Element<'a>>) {
    // regorus's span of an object with several fields begins at the last one (0.14.1).
    let first = match written {
        Expr::Object { fields, .. } => fields.first().map(|(_, key, _)| key.span()),
        _ => Some(written.span()),
    };
    let (file, line) = location(first.unwrap_or_else(|| rule_ref(rule).span()));
    found.push(Element { file, line, duty, written });
}

impl<'a> Element<'a> {
    /// What is wrong with it, if it makes the firewall deny each call that it is for.
    pub(super) fn problem(&self) -> Option<String> {
        let value = match self.written {
            Expr::Object { .. } => {
                let known = match self.duty {
                    "limit" if self.has("concurrent") => LIMIT_IN_FLIGHT,
                    "limit" => LIMIT,
                    duty => result::members(duty),
                };
                if let Some(problem) = unknown(self.duty, self.written, known) {
                    return Some(problem);
                }
                object(self.duty, self.written, 0)?
            }
            other => literal(other, 0)?,
        };
        result::element_problem(self.duty, value)
    }

    /// The texts of a member, as far as it is a literal array or set: `None` if any of it is computed.
    /// An absent member has none.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<&'a str>> {
        match self.member(name) {
            None => Some(Vec::new()),
            Some(list @ (Expr::Array { .. } | Expr::Set { .. })) => items(list).map(text).collect(),
            Some(_) => None,
        }
    }

    /// The number of a member, if it is written down; `default` if the member is absent.
    pub(super) fn whole(&self, name: &str, default: u32) -> Option<u32> {
        match self.member(name) {
            None => Some(default),
            Some(Expr::Number { value, .. }) => value.as_u32().ok(),
            Some(_) => None,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.member(name).is_some()
    }

    fn member(&self, name: &str) -> Option<&'a Expr> {
        let Expr::Object { fields, .. } = self.written else { return None };
        let found = fields.iter().find(|(_, key, _)| text(key) == Some(name));
        found.map(|(_, _, value)| value.as_ref())
    }
}

/// The first member of an object that is none of `known`.
fn unknown(of: &str, written: &Expr, known: &[&str]) -> Option<String> {
    let Expr::Object { fields, .. } = written else { return None };
    let name = fields.iter().filter_map(|(_, key, _)| text(key)).find(|it| !known.contains(it))?;
    let known = known.join("`, `");
    Some(format!("`{of}` has no member `{name}`; its members are `{known}`"))
}

/// An element as the firewall would read it, with right values for computed members; `None` if that
/// cannot be said.
fn object(of: &str, written: &Expr, depth: usize) -> Option<Value> {
    let Expr::Object { fields, .. } = written else { return None };
    let mut members = Value::new_object();
    for (_, key, value) in fields {
        let name = text(key)?;
        let value = match (of, name) {
            ("hold", "scopes") => list(value, depth, &|item, depth| match item {
                Expr::Object { .. } => match unknown("scopes", item, SCOPE) {
                    // Read as it is, so that the problem is found.
                    Some(_) => literal(item, depth),
                    None => object("scope", item, depth),
                },
                other => literal(other, depth),
            }),
            ("hold", "approvers") => {
                list(value, depth, &|item, depth| literal(item, depth).or(Some("x".into())))
            }
            _ => literal(value, depth),
        };
        if let Some(value) = value.or_else(|| right(of, name)) {
            members.as_object_mut().ok()?.insert(name.into(), value);
        }
    }
    Some(members)
}

/// A literal array or set as an array of what `read` makes of each item; what it makes nothing of is
/// left out.
fn list(
    written: &Expr,
    depth: usize,
    read: &dyn Fn(&Expr, usize) -> Option<Value>,
) -> Option<Value> {
    match written {
        Expr::Array { .. } | Expr::Set { .. } => {
            let read = |item| read(item, depth.saturating_add(1));
            Some(Value::from(items(written).filter_map(read).collect::<Vec<_>>()))
        }
        other => literal(other, depth),
    }
}

/// A value that the member `name` of an element may have; `None` where it may be left out.
fn right(of: &str, name: &str) -> Option<Value> {
    Some(match (of, name) {
        ("hold", "approvers" | "scopes") => Value::new_array(),
        ("hold", "ttl") | ("scope", "lasts") => "1m".into(),
        ("hold", "quorum") | ("scope", "count") | ("limit", "concurrent") => Value::from(1_i64),
        ("limit", "rate") => "1/m".into(),
        ("limit", "burst" | "window" | "cost" | "counts") => return None,
        ("set", "pointer") => "/x".into(),
        ("set", "value") => Value::Null,
        ("redact", "pointer") => "/result/x".into(),
        ("redact", "what") => "secrets".into(),
        _ => "x".into(),
    })
}

/// The value of a literal; `None` if any of it is computed.
fn literal(written: &Expr, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    let deeper = depth.saturating_add(1);
    match written {
        Expr::String { value, .. }
        | Expr::RawString { value, .. }
        | Expr::Number { value, .. }
        | Expr::Bool { value, .. }
        | Expr::Null { value, .. } => Some(value.clone()),
        Expr::UnaryExpr { expr, .. } => {
            let Expr::Number { value, .. } = expr.as_ref() else { return None };
            value.as_i64().ok()?.checked_neg().map(Value::from)
        }
        Expr::Array { .. } | Expr::Set { .. } => {
            let items = items(written).map(|item| literal(item, deeper));
            Some(Value::from(items.collect::<Option<Vec<_>>>()?))
        }
        Expr::Object { fields, .. } => {
            let mut members = Value::new_object();
            for (_, key, value) in fields {
                let (key, value) = (literal(key, deeper)?, literal(value, deeper)?);
                members.as_object_mut().ok()?.insert(key, value);
            }
            Some(members)
        }
        _ => None,
    }
}

/// The text of a literal string.
fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(AsRef::as_ref)
        }
        _ => None,
    }
}
