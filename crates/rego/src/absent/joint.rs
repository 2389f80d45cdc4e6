//! Which conditions need several values at once, so that the absence of one undoes what they say
//! about another.
//!
//! `contains(concat(" ", [input.a, input.b]), "x")` is about `a` and about `b`, and holds for neither
//! where the other is absent. A rule must not be undone by what it is not about, so all parts of
//! such a value are needed: each must be shown to be there by another statement. It is enough that
//! one value is chosen from several (`"x" in [input.tool.name, input.a]`, `context.tool` of a literal
//! object) and one of them may be absent: the others are undone by it.
//!
//! A comparison or test of one single value with another (`input.a == input.b`,
//! `startswith(input.a, input.b)`, `input.a in input.b`) is about the two together, and neither alone
//! has what the rule restricts. An order is not: a bound that is absent is no bound.

use std::collections::BTreeSet;

use regorus::Value;
use regorus::unstable::{Expr, Rule, RuleHead};

use super::Search;
use super::known::{Body, Group, Mode, Split};
use super::source::Source;
use super::syntax::{Link, is_call, is_collection, is_reference, links};
use crate::check::Path;
use crate::negation::children;
use crate::walk::is_plain;

/// Most expressions that are looked at to see that a value is a single one.
const SINGLE_MAX: usize = 64;

/// Built-ins whose value is one of those in their operands, or has all of them.
const COLLECTING: [&str; 14] = [
    "all",
    "any",
    "array.concat",
    "array.flatten",
    "intersection",
    "json.patch",
    "max",
    "min",
    "object.union",
    "object.union_n",
    "product",
    "sort",
    "sum",
    "union",
];

/// Built-ins with several operands that change their first one, and keep it a single value.
const KEEPING: [&str; 11] = [
    "format_int",
    "indexof",
    "json.filter",
    "object.filter",
    "split",
    "substring",
    "trim",
    "trim_left",
    "trim_prefix",
    "trim_right",
    "trim_suffix",
];

/// What the parts of an expression read.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    /// What may be absent, for each part that needs something of that kind.
    pub(super) optional: BTreeSet<BTreeSet<Source<'a>>>,
    /// The parts that differ between messages, as they are written.
    varying: BTreeSet<&'a str>,
}

impl Parts<'_> {
    /// Whether something in it may be absent although another part, which is there, has what a
    /// condition looks for.
    fn mixes(&self) -> bool {
        !self.optional.is_empty() && self.varying.len() > 1
    }
}

impl<'a> Search<'a, '_> {
    /// What the parts of an expression read. References, and calls of the policy's own functions, are
    /// not taken apart.
    pub(super) fn parts_of(&mut self, module: usize, expr: &'a Expr, body: &Body<'a>) -> Parts<'a> {
        let mut parts = Parts::default();
        let mut todo = vec![expr];
        while let Some(expr) = todo.pop() {
            let own = match expr {
                Expr::Call { fcn, params, .. } => {
                    if self.called(module, fcn).is_none() {
                        todo.extend(params.iter().map(AsRef::as_ref));
                        continue;
                    }
                    true
                }
                Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. } => true,
                _ => is_reference(expr),
            };
            if !own {
                todo.extend(children(expr));
                continue;
            }
            if self.varies(module, expr, body) {
                parts.varying.insert(expr.span().text());
            }
            let mut sources = self.all_needs(module, expr, body);
            if self.is_document(module, expr, body) {
                // A table of the policy's own lacks a key for every client alike.
                sources.remove(&Source::Lookup(expr.span().text()));
            }
            parts.optional.extend(part(&sources, expr));
        }
        parts
    }

    /// What must be there for an expression to have a value, with what it iterates over.
    fn all_needs(
        &mut self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
    ) -> BTreeSet<Source<'a>> {
        let mut sources = self.needs(module, expr, body);
        sources.extend(self.iterated(module, expr, body));
        sources
    }

    /// Whether a part of an expression differs between messages: it is no literal, and nothing that
    /// stands in `data`.
    fn varies(&self, module: usize, expr: &'a Expr, body: &Body<'a>) -> bool {
        let Expr::Var { span, .. } = links(expr).0 else { return true };
        if let Some(binding) = body.variables.get(span.text()) {
            let literal = binding.expr.is_some_and(|it| is_plain(it, &|_| true));
            let known = binding.expr.is_none() && binding.whole.is_none() && !binding.open;
            let empty = binding.needs.is_empty() && binding.values.is_empty();
            return !(literal || (known && empty));
        }
        if span.text() == "input" || body.keys.contains_key(span.text()) {
            return true;
        }
        self.rule_of(module, expr).is_some_and(|(path, _)| self.constant(&path).is_none())
    }

    /// Whether a reference reads `data`, or a rule that is a literal.
    fn is_document(&self, module: usize, expr: &'a Expr, body: &Body<'a>) -> bool {
        let Expr::Var { span, .. } = links(expr).0 else { return false };
        span.text() != "input"
            && !body.variables.contains_key(span.text())
            && self.rule_of(module, expr).is_none_or(|(path, _)| self.constant(&path).is_some())
    }

    /// Whether a condition that looks for something in an expression may be undone by the absence of
    /// one part although another has it.
    pub(super) fn mixes(&mut self, module: usize, expr: &'a Expr, body: &Body<'a>) -> bool {
        let expr = self.resolved(module, expr, body);
        match self.mixing_rule(module, expr) {
            Some(mixes) => mixes,
            None => self.parts_of(module, expr, body).mixes(),
        }
    }

    fn mixing_rule(&mut self, module: usize, expr: &'a Expr) -> Option<bool> {
        let function = match expr {
            Expr::Call { fcn, .. } => self.called(module, fcn),
            _ if is_reference(expr) => {
                self.rule_of(module, expr).map(|(path, _)| self.summary(&path))
            }
            _ => None,
        };
        function.map(|it| it.mixes)
    }

    /// Notes what a condition needs that looks for something in an expression, if one part of that
    /// may undo what it says about another. Returns whether it does.
    pub(super) fn looked_into(
        &mut self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
        split: &mut Split<'a>,
    ) -> bool {
        let expr = self.resolved(module, expr, body);
        if let Some(mixes) = self.mixing_rule(module, expr) {
            if mixes {
                split.needed.extend(self.all_needs(module, expr, body));
            }
            return mixes;
        }
        let parts = self.parts_of(module, expr, body);
        if !parts.mixes() {
            return false;
        }
        let needed = self.all_needs(module, expr, body);
        if parts.optional.len() > 1 {
            split.combine(parts.optional, needed, true);
        } else {
            split.needed.extend(needed);
        }
        true
    }

    /// Notes what a condition needs that computes one value from these operands, if more than one of
    /// them may be absent. Returns whether that is so.
    pub(super) fn combined(
        &mut self,
        module: usize,
        operands: &[&'a Expr],
        body: &Body<'a>,
        split: &mut Split<'a>,
    ) -> bool {
        let mut optional = BTreeSet::new();
        for expr in operands {
            optional.extend(self.parts_of(module, expr, body).optional);
        }
        if optional.len() < 2 {
            return false;
        }
        let mut needed = BTreeSet::new();
        for expr in operands {
            needed.extend(self.all_needs(module, expr, body));
        }
        split.combine(optional, needed, false);
        true
    }

    /// The same for a condition that relates its operands to each other.
    pub(super) fn related(
        &mut self,
        module: usize,
        operands: &[&'a Expr],
        body: &Body<'a>,
        split: &mut Split<'a>,
    ) -> bool {
        let mut single = true;
        for expr in operands {
            let parts = self.parts_of(module, expr, body).optional.len();
            single &= parts == 0 || (parts == 1 && self.is_single(module, expr, body));
        }
        !single
            && self.apart(module, operands, body)
            && self.combined(module, operands, body, split)
    }

    /// Whether more than one operand may be absent. What is in one alone is looked at with it.
    fn apart(&mut self, module: usize, operands: &[&'a Expr], body: &Body<'a>) -> bool {
        let may = |it: &&&'a Expr| !self.parts_of(module, it, body).optional.is_empty();
        operands.iter().filter(may).count() > 1
    }

    /// Whether a value is looked for in a literal collection of which an element may be absent, while
    /// another is there.
    pub(super) fn in_literal(
        &mut self,
        module: usize,
        value: &'a Expr,
        collection: &'a Expr,
        body: &Body<'a>,
        split: &mut Split<'a>,
    ) -> bool {
        let literal = self.resolved(module, collection, body);
        let undoes = is_collection(literal)
            && !self.is_single(module, literal, body)
            && !self.parts_of(module, value, body).varying.is_empty()
            && !self.parts_of(module, literal, body).optional.is_empty();
        if undoes {
            split.needed.extend(self.all_needs(module, literal, body));
        }
        undoes
    }

    /// Whether the value of an expression is one that is read, not computed from several or chosen
    /// from them.
    pub(super) fn is_single(&mut self, module: usize, expr: &'a Expr, body: &Body<'a>) -> bool {
        let mut at = expr;
        for _ in 0..SINGLE_MAX {
            at = match self.resolved(module, at, body) {
                Expr::Array { items, .. } | Expr::Set { items, .. } => match items.as_slice() {
                    [] => return true,
                    [item] => item,
                    _ => return is_plain(at, &|_| true),
                },
                Expr::UnaryExpr { expr, .. } => expr,
                call @ Expr::Call { fcn, params, .. } => {
                    let function = self.called(module, fcn);
                    let keeps = match &function {
                        Some(function) => function.single,
                        None => params.len() == 1 || KEEPING.iter().any(|it| is_call(call, it)),
                    };
                    let mut varying = params.iter().filter(|it| !is_plain(it, &|_| true));
                    match (varying.next(), varying.next()) {
                        _ if !keeps => return false,
                        (None, _) => return true,
                        (Some(param), None) => param,
                        (Some(_), Some(_)) => return false,
                    }
                }
                read if is_reference(read) => {
                    let (root, _) = links(read);
                    let Expr::Var { span, .. } = root else {
                        at = root;
                        continue;
                    };
                    let Some(binding) = body.variables.get(span.text()) else {
                        let Some((path, _)) = self.rule_of(module, read) else { return true };
                        return self.summary(&path).single;
                    };
                    let Some(of) = binding.whole.or(binding.expr) else { return true };
                    of
                }
                Expr::Object { .. } | Expr::ArithExpr { .. } | Expr::BinExpr { .. } => {
                    return false;
                }
                _ => return true,
            };
        }
        false
    }

    /// Whether a call chooses from what is in its operands.
    pub(super) fn collects_operands(expr: &Expr) -> bool {
        COLLECTING.iter().any(|name| is_call(expr, name))
    }

    /// What must be there for a condition that looks into a reference's root, if that is composed of
    /// several values: all of it, and the condition is about the member that the reference names.
    pub(super) fn composed(
        &mut self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
        mode: Mode<'a>,
        split: &mut Split<'a>,
    ) -> bool {
        let (root, links) = links(expr);
        let below = if links.len() > 1 { Mode::Value(None) } else { mode };
        let whole = match root {
            Expr::Var { span, .. } => match body.variables.get(span.text()) {
                Some(binding) if binding.whole.is_some() => binding.whole,
                Some(binding) => binding.expr.filter(|_| !links.is_empty()),
                None => None,
            },
            root => Some(root).filter(|_| !links.is_empty()),
        };
        if let Some(whole) = whole {
            let whole = self.resolved(module, whole, body);
            let is_part = matches!(root, Expr::Var { span, .. }
                if body.variables.get(span.text()).is_some_and(|it| it.whole.is_some()));
            if !is_part && let Some(member) = member_of(whole, links.first()) {
                split.needed.extend(self.all_needs(module, whole, body));
                split.todo.push((member, below));
                return true;
            }
            return self.looked_into(module, whole, body, split);
        }
        let Some((path, used)) = self.rule_of(module, expr) else { return false };
        if matches!(root, Expr::Var { span, .. } if body.variables.contains_key(span.text())) {
            return false;
        }
        let rest = links.get(used..).unwrap_or_default();
        let rule = self.summary(&path);
        if rest.is_empty() || !rule.mixes {
            return false;
        }
        split.needed.extend(rule.needs.iter().cloned());
        if let Some((module, value)) = self.unconditional(&path)
            && let Some(member) = member_of(value, rest.first())
        {
            let mode = if rest.len() > 1 { Mode::Value(None) } else { mode };
            let inner = self.split(module, member, &Body::default(), mode);
            split.needed.extend(inner.needed);
            split.present.extend(inner.present);
        }
        true
    }

    /// The value of a rule with one definition and no condition, and its module.
    fn unconditional(&self, path: &Path<'a>) -> Option<(usize, &'a Expr)> {
        let [
            (module, Rule::Spec { head: RuleHead::Compr { assign: Some(assign), .. }, bodies, .. }),
        ] = self.index.rules.get(path)?.as_slice()
        else {
            return None;
        };
        bodies.is_empty().then_some((*module, assign.value.as_ref()))
    }

    /// Whether a reference's base and its computed keys may be absent independently.
    pub(super) fn keyed(
        &mut self,
        module: usize,
        base: &BTreeSet<Source<'a>>,
        indexes: &[&'a Expr],
        body: &Body<'a>,
        split: &mut Split<'a>,
    ) -> bool {
        // A member that is looked up is absent where the key is.
        let of_base: BTreeSet<_> = base
            .iter()
            .filter(|it| !matches!(it, Source::Lookup(_)))
            .filter_map(Source::absent_part)
            .collect();
        let mut optional: BTreeSet<_> =
            Some(of_base).filter(|it| !it.is_empty()).into_iter().collect();
        let mut needed = base.clone();
        for index in indexes {
            optional.extend(self.parts_of(module, index, body).optional);
            needed.extend(self.all_needs(module, index, body));
        }
        if indexes.is_empty() || optional.len() < 2 {
            return false;
        }
        split.combine(optional, needed, false);
        true
    }

    /// What a function's group of values is for a caller.
    pub(super) fn given_group(
        &mut self,
        module: usize,
        group: &Group<'a>,
        call: &'a Expr,
        body: &Body<'a>,
    ) -> Group<'a> {
        let mut parts = BTreeSet::new();
        let mut varying = 0_usize;
        let params = if let Expr::Call { params, .. } = call { params.as_slice() } else { &[] };
        for of in &group.parts {
            let given = self.given(module, of, call, body);
            let at = of.iter().find_map(|it| match it {
                Source::Param(at, _) => params.get(*at),
                Source::Input(_) | Source::Lookup(_) => None,
            });
            let of = at.map_or(call, AsRef::as_ref);
            if !self.parts_of(module, of, body).varying.is_empty() {
                varying = varying.saturating_add(1);
            }
            parts.extend(part(&given, of));
        }
        let mixes = group.looks && varying > 1 && !parts.is_empty();
        let needed = self.given(module, &group.needed, call, body);
        Group { parts, needed, looks: group.looks, mixes }
    }
}

/// What may be absent in a part that needs these; `None` if nothing may.
fn part<'a>(needs: &BTreeSet<Source<'a>>, expr: &'a Expr) -> Option<BTreeSet<Source<'a>>> {
    let mut part: BTreeSet<_> = needs.iter().filter_map(Source::absent_part).collect();
    // Two members of one value need the same, but are about different parts of it.
    if part.len() > 1 && part.iter().any(|it| !matches!(it, Source::Param(..))) {
        part.insert(Source::Lookup(expr.span().text()));
    }
    (!part.is_empty()).then_some(part)
}

/// The member of a literal collection that the first step of a reference names.
pub(super) fn member_of<'a>(whole: &'a Expr, link: Option<&Link<'a>>) -> Option<&'a Expr> {
    match (whole, link?) {
        (Expr::Object { fields, .. }, Link::Name(name)) => {
            let mut named = fields.iter().filter(|(_, key, _)| is_text(key, name));
            named.next().map(|(_, _, value)| value.as_ref())
        }
        (Expr::Array { items, .. }, Link::Key(Expr::Number { value, .. }, _)) => {
            let at = usize::try_from(value.as_u64().ok()?).ok()?;
            items.get(at).map(AsRef::as_ref)
        }
        _ => None,
    }
}

/// Whether an expression is this text.
pub(super) fn is_text(expr: &Expr, text: &str) -> bool {
    match expr {
        Expr::String { value: Value::String(own), .. }
        | Expr::RawString { value: Value::String(own), .. } => own.as_ref() == text,
        _ => false,
    }
}
