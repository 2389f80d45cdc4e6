//! What one rule or function means to the rules that use it: what must be there for it to have a
//! value, and whose absence takes that value away although the rule is not about it.
//!
//! Other definitions, `else` and `default` may cover an absence: `env := "production" if not
//! input.tool.arguments.env`.

use std::collections::BTreeSet;
use std::rc::Rc;

use regorus::unstable::{BoolOp, Expr, Literal, LiteralStmt, Rule};

use super::Search;
use super::known::{Body, Group, Mode, Summary};
use super::source::Source;
use super::syntax::{
    Branch, TRUE, branches, collects, heads, is_call, is_computed, is_reference, is_test, value_of,
};
use crate::check::Path;
use crate::walk::{reference, rule_args};

/// Most other definitions of a rule that are looked at to find one that covers an absence.
const ALTERNATIVES_MAX: usize = 256;

impl<'a> Search<'a, '_> {
    /// What a rule means to its users.
    pub(super) fn summary(&mut self, path: &Path<'a>) -> Rc<Summary<'a>> {
        if let Some(known) = self.summaries.get(path) {
            return Rc::clone(known);
        }
        // There is no recursion: `check` refused it.
        let summary = Rc::new(self.summarized(path));
        self.summaries.insert(path.clone(), Rc::clone(&summary));
        summary
    }

    /// What the function that a call names means to the caller; `None` for a built-in.
    pub(super) fn called(&mut self, module: usize, function: &'a Expr) -> Option<Rc<Summary<'a>>> {
        let (callee, _) = reference(function)?;
        let path = self.index.function(module, &callee)?;
        Some(self.summary(&path))
    }

    fn summarized(&mut self, path: &Path<'a>) -> Summary<'a> {
        let mut summary = Summary { single: true, ..Summary::default() };
        let definitions = self.index.rules.get(path).cloned().unwrap_or_default();
        if definitions.iter().any(|(_, rule)| collects(rule)) {
            return summary;
        }
        let mut sure: Option<BTreeSet<Source<'a>>> = None;
        for (module, rule) in &definitions {
            for branch in branches(*module, rule) {
                let value = branch.value.and_then(value_of);
                let (body, mut needs) = self.branch_body(&branch);
                let mut shown = body.present.clone();
                let mut needed = needs.clone();
                let mut joint = Vec::new();
                for statement in branch.query.iter().flat_map(|query| &query.stmts) {
                    let of = self.statement_needs(*module, statement, &body);
                    let parts = self.unshown(*module, statement, &body);
                    let of_parameters = |it: &Source<'_>| matches!(it, Source::Param(..));
                    needed.extend(parts.needed.into_iter().filter(of_parameters));
                    joint.extend(parts.joint);
                    needs.extend(of);
                }
                if let Some(expr) = branch.value {
                    let tests = is_test(expr);
                    let mode = if tests { Mode::Test } else { Mode::Value(None) };
                    let split = self.split(*module, expr, &body, mode);
                    needs.extend(self.needs(*module, expr, &body));
                    needed.extend(split.needed);
                    joint.extend(split.joint);
                    summary.mixes |= self.mixes(*module, expr, &body);
                    summary.single &= self.is_single(*module, expr, &body);
                    for source in split.present {
                        source.insert_into(&mut shown);
                    }
                    summary.tests |= tests;
                    summary.computed |= is_computed(expr);
                    if is_reference(expr) {
                        summary.values.extend(self.read(*module, expr, &body).values);
                    }
                }
                let parameters = 0..rule_args(rule).len();
                needs.extend(parameters.map(|at| Source::Param(at, Vec::new())));
                let in_parts = with_parts(&shown, &joint);
                let of_parameters = needs
                    .iter()
                    .filter(|it| matches!(it, Source::Param(..)) && !it.is_in(&in_parts));
                needed.extend(of_parameters.cloned());
                needed.retain(|it| !it.is_in(&shown));
                let joint = self.uncovered(path, &branch, &shown, joint);
                summary.joint.extend(joint.into_iter().map(|it| (value, it)));
                needed.retain(|it| !self.covered(path, &branch, it, true));
                needs.retain(|it| !self.covered(path, &branch, it, false));
                summary.needs.extend(needs);
                summary.vanishing.extend(needed.into_iter().map(|it| (value, it)));
                sure = Some(match sure {
                    Some(sure) => sure.intersection(&shown).cloned().collect(),
                    None => shown,
                });
            }
        }
        summary.sure = sure.unwrap_or_default();
        Self::defaulted(&definitions, &mut summary);
        summary
    }

    /// Adds what a default says about a rule.
    fn defaulted(definitions: &[(usize, &'a Rule)], summary: &mut Summary<'a>) {
        // A function's default has a value for every argument, but its call none without one.
        if let Some((_, Rule::Default { value, .. })) =
            definitions.iter().find(|(_, rule)| matches!(rule, Rule::Default { .. }))
        {
            let arity = definitions.iter().map(|(_, rule)| rule_args(rule).len()).max();
            for at in 0..arity.unwrap_or_default() {
                summary.vanishing.push((value_of(value), Source::Param(at, Vec::new())));
            }
            summary.sure = BTreeSet::new();
        }
    }

    /// The groups of a branch, without what is shown to be there or covered.
    fn uncovered(
        &mut self,
        path: &Path<'a>,
        branch: &Branch<'a>,
        shown: &BTreeSet<Source<'a>>,
        mut joint: Vec<Group<'a>>,
    ) -> Vec<Group<'a>> {
        for group in &mut joint {
            group.needed.retain(|it| !it.is_in(shown));
            group.needed.retain(|it| !self.covered(path, branch, it, true));
        }
        joint
    }

    /// What is known in a branch, and what the patterns of the parameters need.
    pub(super) fn branch_body(&mut self, branch: &Branch<'a>) -> (Body<'a>, BTreeSet<Source<'a>>) {
        let (base, needs) = Body::of_parameters(branch.rule);
        let body = match branch.query {
            Some(query) => self.body(branch.module, query, &base),
            None => base,
        };
        (body, needs)
    }

    /// What must be there for a statement to hold.
    pub(super) fn statement_needs(
        &mut self,
        module: usize,
        statement: &'a LiteralStmt,
        body: &Body<'a>,
    ) -> BTreeSet<Source<'a>> {
        match &statement.literal {
            Literal::Expr { expr, .. } => match body.assigned(expr) {
                Some((pattern, value)) => {
                    let mut needs = self.needs(module, value, body);
                    needs.extend(self.pattern_needs(module, pattern, value, body));
                    needs
                }
                None => self.needs(module, expr, body),
            },
            Literal::NotExpr { expr, .. } => self.moved(module, expr, body),
            Literal::SomeIn { key, collection, .. } => {
                let mut needs = self.needs(module, collection, body);
                if let Some(key) = key {
                    needs.extend(self.members(module, collection, key, body));
                }
                needs
            }
            Literal::Every { domain, .. } => self.needs(module, domain, body),
            Literal::SomeVars { .. } => BTreeSet::new(),
        }
    }

    /// Whether another definition of a rule, an `else` or a default covers the absence of something
    /// that one branch needs. A value of false covers only that the rule has a value at all.
    pub(super) fn covered(
        &mut self,
        path: &Path<'a>,
        branch: &Branch<'a>,
        absent: &Source<'a>,
        restricts: bool,
    ) -> bool {
        let own = self.index.rules.get(path).into_iter().flatten();
        // What is denied needs no other restriction.
        let deny = ["mcp", "deny"];
        let others = (super::RESTRICTING.iter().any(|it| path.as_slice() == ["mcp", it])
            && path.as_slice() != deny)
            .then(|| self.index.rules.get(deny.as_slice()))
            .flatten();
        let alternatives: Vec<(usize, &'a Rule)> =
            own.chain(others.into_iter().flatten()).copied().take(ALTERNATIVES_MAX).collect();
        let texts = branch.texts();
        for (module, rule) in alternatives {
            if let Rule::Default { value, .. } = rule {
                let argument = matches!(absent, Source::Param(_, below) if below.is_empty());
                if !argument && (!restricts || branch.is_like(value_of(value))) {
                    return true;
                }
                continue;
            }
            for other in branches(module, rule) {
                if !other.is_same(branch)
                    && (!restricts || branch.is_like(other.value.map_or(Some(&TRUE), value_of)))
                    && self.covers(&other, &texts, absent)
                {
                    return true;
                }
            }
        }
        false
    }

    /// Whether a branch holds where something is absent, and the statements of these texts hold.
    fn covers(
        &mut self,
        branch: &Branch<'a>,
        texts: &BTreeSet<&'a str>,
        absent: &Source<'a>,
    ) -> bool {
        let statements: Vec<&LiteralStmt> =
            branch.query.iter().flat_map(|query| &query.stmts).collect();
        let own: Vec<&LiteralStmt> =
            statements.iter().copied().filter(|it| !texts.contains(it.span.text())).collect();
        // Most definitions are about something else.
        if own
            .iter()
            .any(|it| !matches!(it.literal, Literal::NotExpr { .. } | Literal::Expr { .. }))
        {
            return false;
        }
        let (body, needs) = self.branch_body(branch);
        if needs.contains(absent)
            || !own.iter().all(|it| self.holds(branch.module, it, absent, &body))
        {
            return false;
        }
        if let Source::Param(at, below) = absent
            && below.is_empty()
            && *at < rule_args(branch.rule).len()
        {
            return false;
        }
        let shared = statements.into_iter().filter(|it| texts.contains(it.span.text()));
        for statement in shared {
            if self.statement_needs(branch.module, statement, &body).contains(absent) {
                return false;
            }
        }
        let (_, keys) = heads(branch.rule);
        let mut exprs = branch.value.into_iter().chain(keys);
        !exprs.any(|it| self.needs(branch.module, it, &body).contains(absent))
    }

    /// Whether a statement holds because something is absent.
    fn holds(
        &mut self,
        module: usize,
        statement: &'a LiteralStmt,
        absent: &Source<'a>,
        body: &Body<'a>,
    ) -> bool {
        match &statement.literal {
            Literal::NotExpr { expr, .. } => {
                if !is_reference(expr) && self.moved(module, expr, body).contains(absent) {
                    return false;
                }
                let of = match expr.as_ref() {
                    Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. } => {
                        vec![lhs.as_ref(), rhs.as_ref()]
                    }
                    Expr::Membership { value, collection, .. } => {
                        let member = self.named_member(module, value, collection, body);
                        return member.contains(absent);
                    }
                    expr => vec![expr],
                };
                of.into_iter().filter(|it| is_reference(it)).any(|it| {
                    let read = self.read(module, it, body);
                    let mut sure = read.needs;
                    sure.extend(read.rule.iter().flat_map(|rule| rule.sure.iter().cloned()));
                    sure.contains(absent)
                })
            }
            Literal::Expr { expr, .. } => {
                let Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. } = expr.as_ref() else {
                    return false;
                };
                [(lhs, rhs), (rhs, lhs)]
                    .into_iter()
                    .any(|(get, literal)| self.is_default(module, get, literal, absent, body))
            }
            Literal::SomeVars { .. } | Literal::SomeIn { .. } | Literal::Every { .. } => false,
        }
    }

    /// Whether `object.get(x, "name", d) == d` asks whether this is absent.
    fn is_default(
        &mut self,
        module: usize,
        get: &'a Expr,
        literal: &'a Expr,
        absent: &Source<'a>,
        body: &Body<'a>,
    ) -> bool {
        let get = self.resolved(module, get, body);
        let Expr::Call { params, .. } = get else { return false };
        let [object, name, default] = params.as_slice() else { return false };
        is_call(get, "object.get")
            && default.span().text() == literal.span().text()
            && self.members(module, object, name, body).contains(absent)
    }
}

/// What is shown to be there, and what is a part of a value: that is needed only with another part.
fn with_parts<'a>(shown: &BTreeSet<Source<'a>>, joint: &[Group<'a>]) -> BTreeSet<Source<'a>> {
    let mut all = shown.clone();
    for source in joint.iter().flat_map(|it| &it.parts).flatten() {
        source.insert_into(&mut all);
    }
    all
}
