//! Which statements are about a value, and which are about everything but a value.
//!
//! `input.a == "x"` restricts what has that value: where `a` is absent, the author's rule does not
//! apply. `input.a != "x"`, `startswith(input.a, "x") == false`, `count({input.a} & allowed) == 0`
//! and `{input.a} - allowed != set()` restrict all but some values, and yet not a message without
//! one. The first kind shows that its operands are there, the second needs that another statement
//! does.

use std::collections::BTreeSet;

use regorus::Value;
use regorus::unstable::{ArithOp, AssignOp, BoolOp, Expr, Rule, RuleHead};

use super::Search;
use super::joint::member_of;
use super::known::{Body, Mode, Split, Summary};
use super::source::Source;
use super::syntax::{
    Direction, Link, SIZES, contains_call, contains_false, is_call, is_reference, is_size, is_test,
    is_whole, lacking, lacking_size, value_of,
};
use crate::negation::children;
use crate::walk::reference;

impl<'a> Search<'a, '_> {
    /// What a statement, or a part of one, says about what it reads.
    pub(super) fn split(
        &mut self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
        mode: Mode<'a>,
    ) -> Split<'a> {
        let mut split = Split { todo: vec![(expr, mode)], ..Split::default() };
        let mut met = BTreeSet::new();
        while let Some((expr, mode)) = split.todo.pop() {
            if !met.insert((std::ptr::from_ref(expr), mode)) {
                continue;
            }
            if mode == Mode::Lacks {
                split.needed.extend(self.needs(module, expr, body));
                split.present.extend(self.iterated(module, expr, body));
            } else if is_reference(expr) {
                self.reference(module, expr, body, mode, &mut split);
            } else {
                self.parts(module, expr, body, mode, &mut split);
            }
        }
        split
    }

    fn reference(
        &mut self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
        mode: Mode<'a>,
        split: &mut Split<'a>,
    ) {
        if let Expr::Var { span, .. } = expr
            && let Some(defined) = body.variables.get(span.text()).and_then(|it| it.expr)
        {
            split.todo.push((defined, mode));
            return;
        }
        let read = self.read(module, expr, body);
        if self.composed(module, expr, body, mode, split) {
            split.todo.extend(read.indexes.into_iter().map(|it| (it, Mode::Value(None))));
            return;
        }
        let mut base = read.needs.clone();
        base.extend(read.iterated.iter().cloned());
        if self.keyed(module, &base, &read.indexes, body, split) {
            return;
        }
        split
            .todo
            .extend(read.indexes.into_iter().chain(read.root).map(|it| (it, Mode::Value(None))));
        split.present.extend(read.needs);
        split.present.extend(read.iterated);
        if let Some(rule) = read.rule {
            if rule.tests && !matches!(mode, Mode::Test) {
                split.needed.extend(rule.needs.iter().cloned());
            }
            split.needed.extend(rule.vanishing(mode).cloned());
            split.present.extend(rule.sure.iter().cloned());
        }
    }

    /// Splits an expression that is no reference.
    fn parts(
        &mut self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
        mode: Mode<'a>,
        split: &mut Split<'a>,
    ) {
        let value = Mode::Value(None);
        if mode != Mode::Test && is_test(expr) {
            // It is either true or false, and which one is asked for cannot be seen.
            split.todo.push((expr, Mode::Lacks));
            return;
        }
        match expr {
            Expr::BoolExpr { op, lhs, rhs, .. } => {
                self.compared(module, op, lhs, rhs, body, split);
            }
            Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } => {
                self.compared(module, &BoolOp::Eq, lhs, rhs, body, split);
            }
            Expr::Membership { key, value: member, collection, .. } => {
                let shown = self.named_member(module, member, collection, body);
                split.present.extend(shown);
                let mixes = self.looked_into(module, collection, body, split)
                    || self.in_literal(module, member, collection, body, split);
                let mut about = children(expr);
                if mixes {
                    about = key.iter().chain([member]).map(AsRef::as_ref).collect();
                } else if self.related(module, &about, body, split) {
                    return;
                }
                split.todo.extend(about.into_iter().map(|it| (it, value)));
            }
            Expr::ArithExpr { op: ArithOp::Sub, lhs, rhs, .. }
                if self.is_set(module, lhs, body) || self.is_set(module, rhs, body) =>
            {
                split.todo.extend([lhs, rhs].map(|it| (it.as_ref(), Mode::Lacks)));
            }
            Expr::Call { fcn, .. } => match self.called(module, fcn) {
                Some(function) => self.own_call(module, expr, &function, body, mode, split),
                None => self.built_in(module, expr, body, split),
            },
            Expr::BinExpr { .. } if self.looked_into(module, expr, body, split) => {}
            Expr::ArithExpr { .. }
            | Expr::Array { .. }
            | Expr::Set { .. }
            | Expr::Object { .. }
                if self.combined(module, &children(expr), body, split) => {}
            _ => split.todo.extend(children(expr).into_iter().map(|it| (it, value))),
        }
    }

    /// Splits the call of a built-in.
    fn built_in(&mut self, module: usize, expr: &'a Expr, body: &Body<'a>, split: &mut Split<'a>) {
        let value = Mode::Value(None);
        let Expr::Call { params, .. } = expr else { return };
        let params: Vec<&Expr> = params.iter().map(AsRef::as_ref).collect();
        if let [object, key, default] = params.as_slice()
            && is_call(expr, "object.get")
        {
            // The default is for every key that is not there, but not for none.
            let lacks = [*default, *key].map(|it| (it, Mode::Lacks));
            split.todo.extend(lacks);
            if !self.looked_into(module, object, body, split) {
                split.todo.push((*object, value));
            }
            return;
        }
        if Self::collects_operands(expr) && self.looked_into(module, expr, body, split) {
            return;
        }
        let tests = is_test(expr);
        if (tests && self.related(module, &params, body, split))
            || (!tests && self.combined(module, &params, body, split))
        {
            return;
        }
        let lacks = is_call(expr, "is_null");
        let mode = if lacks { Mode::Lacks } else { value };
        split.todo.extend(params.into_iter().map(|it| (it, mode)));
    }

    /// Splits the call of a function of the policy.
    #[expect(clippy::too_many_arguments, reason = "they are one call")]
    fn own_call(
        &mut self,
        module: usize,
        expr: &'a Expr,
        function: &Summary<'a>,
        body: &Body<'a>,
        mode: Mode<'a>,
        split: &mut Split<'a>,
    ) {
        let value = Mode::Value(None);
        let Expr::Call { params, .. } = expr else { return };
        let params: Vec<&Expr> = params.iter().map(AsRef::as_ref).collect();
        if function.tests && mode != Mode::Test {
            split.todo.push((expr, Mode::Lacks));
            return;
        }
        let mut vanishing: BTreeSet<Source<'_>> = function.vanishing(mode).cloned().collect();
        let mut in_group: BTreeSet<Source<'_>> = BTreeSet::new();
        for (value, group) in &function.joint {
            let given = self.given_group(module, group, expr, body);
            if !mode.is_possible(*value) || (given.parts.len() < 2 && !given.mixes) {
                continue;
            }
            in_group.extend(group.parts.iter().flatten().cloned());
            if given.is_certain() {
                vanishing.extend(group.needed.iter().cloned());
            } else {
                split.joint.push(given);
            }
        }
        split.needed.extend(self.given(module, &vanishing, expr, body));
        self.shown_by_call(module, &function.sure, expr, body, split);
        for (at, param) in params.into_iter().enumerate() {
            let grouped = in_group.iter().any(|it| {
                matches!(it, Source::Param(of, _)
                if *of == at)
            });
            let lacks = vanishing.contains(&Source::Param(at, Vec::new()))
                || (is_whole(self.resolved(module, param, body))
                    && self.mixes(module, param, body));
            if lacks || !grouped {
                split.todo.push((param, if lacks { Mode::Lacks } else { value }));
            }
        }
    }

    /// What is there where a function has a value that is sure of these.
    fn shown_by_call(
        &mut self,
        module: usize,
        sure: &BTreeSet<Source<'a>>,
        call: &'a Expr,
        body: &Body<'a>,
        split: &mut Split<'a>,
    ) {
        let Expr::Call { params, .. } = call else { return };
        for source in sure {
            if let Source::Param(at, below) = source {
                // What a whole argument is about is seen in the argument.
                let (Some(name), Some(param)) = (below.first(), params.get(*at)) else { continue };
                let param = self.resolved(module, param, body);
                let member = member_of(param, Some(&Link::Name(name)));
                split.todo.extend(member.map(|it| (it, Mode::Value(None))));
                let read = member.unwrap_or(param);
                if !is_reference(read) || self.read(module, read, body).values.is_empty() {
                    continue;
                }
            }
            split.present.extend(self.given(module, [source], call, body));
        }
    }

    /// Splits a comparison.
    #[expect(clippy::too_many_arguments, reason = "they are one comparison")]
    fn compared(
        &mut self,
        module: usize,
        op: &BoolOp,
        lhs: &'a Expr,
        rhs: &'a Expr,
        body: &Body<'a>,
        split: &mut Split<'a>,
    ) {
        let sides = self.comparison(module, op, lhs, rhs, body);
        let about: Vec<&Expr> = sides
            .iter()
            .filter(|(_, mode)| matches!(mode, Mode::Value(_)))
            .map(|(side, _)| *side)
            .collect();
        let joint = match op {
            BoolOp::Eq => self.related(module, &about, body, split),
            // A bound that is absent is no bound.
            BoolOp::Lt | BoolOp::Le | BoolOp::Gt | BoolOp::Ge => {
                about.len() > 1 && self.combined(module, &about, body, split)
            }
            BoolOp::Ne => false,
        };
        if !joint {
            split.todo.extend(sides);
        }
    }

    /// What a comparison asks of its sides.
    fn comparison(
        &mut self,
        module: usize,
        op: &BoolOp,
        lhs: &'a Expr,
        rhs: &'a Expr,
        body: &Body<'a>,
    ) -> Vec<(&'a Expr, Mode<'a>)> {
        let value = Mode::Value(None);
        let both = |mode| vec![(lhs, mode), (rhs, mode)];
        let sides = [(lhs, rhs), (rhs, lhs)];
        let resolved = |it| self.resolved(module, it, body);
        match op {
            BoolOp::Ne => {
                let present = sides.into_iter().find(|(side, other)| {
                    // 0 is a place for `indexof`.
                    lacking(resolved(other)) && !contains_call(resolved(side), "indexof")
                });
                present.map_or(both(Mode::Lacks), |(side, _)| vec![(side, Mode::Test)])
            }
            BoolOp::Eq => {
                for (side, other) in sides {
                    let literal = resolved(other);
                    if let Expr::Bool { value: Value::Bool(true), .. } = literal {
                        return vec![(side, Mode::Test)];
                    }
                    let number = matches!(literal, Expr::Number { .. } | Expr::UnaryExpr { .. });
                    if contains_false(literal)
                        || (lacking(literal) && !number)
                        || (number && lacking_size(resolved(side), literal))
                    {
                        return vec![(side, Mode::Lacks)];
                    }
                }
                // `trim_prefix(x, "dev-") == x`: the whole must not have something.
                let of = [lhs, rhs].map(|side| self.needs(module, side, body));
                let [of, other] = of;
                if !is_reference(lhs) || !is_reference(rhs) {
                    let shared = of.intersection(&other).any(|it| it.written().is_some());
                    let param = of.intersection(&other).any(|it| matches!(it, Source::Param(..)));
                    if shared || param {
                        return both(Mode::Lacks);
                    }
                }
                let wanted = |other: &'a Expr| value_of(self.resolved(module, other, body));
                sides.map(|(side, other)| (side, Mode::Value(wanted(other)))).to_vec()
            }
            BoolOp::Lt | BoolOp::Le | BoolOp::Gt | BoolOp::Ge => {
                let (small, large) =
                    if matches!(op, BoolOp::Lt | BoolOp::Le) { (lhs, rhs) } else { (rhs, lhs) };
                let few = if is_size(resolved(small)) { Mode::Lacks } else { value };
                vec![(small, few), (large, value)]
            }
        }
    }

    /// `"env" in object.keys(input.tool.arguments)`: the member that is there.
    pub(super) fn named_member(
        &mut self,
        module: usize,
        value: &'a Expr,
        collection: &'a Expr,
        body: &Body<'a>,
    ) -> BTreeSet<Source<'a>> {
        let collection = self.resolved(module, collection, body);
        let Expr::Call { params, .. } = collection else { return BTreeSet::new() };
        let Some(object) = params.first().filter(|_| is_call(collection, "object.keys")) else {
            return BTreeSet::new();
        };
        self.members(module, object, value, body)
    }

    /// Whether an expression is a set, as far as its form shows.
    fn is_set(&self, module: usize, expr: &'a Expr, body: &Body<'a>) -> bool {
        let mut todo = vec![expr];
        while let Some(expr) = todo.pop() {
            let expr = self.resolved(module, expr, body);
            match expr {
                Expr::Set { .. } | Expr::SetCompr { .. } | Expr::BinExpr { .. } => return true,
                Expr::ArithExpr { op: ArithOp::Sub, lhs, rhs, .. } => {
                    todo.extend([lhs.as_ref(), rhs.as_ref()]);
                }
                Expr::Call { .. } if is_call(expr, "object.keys") => return true,
                Expr::Call { .. } if is_call(expr, "set") => return true,
                Expr::Var { .. } | Expr::RefDot { .. } => {
                    let path = reference(expr)
                        .and_then(|(it, _)| self.index.resolve(module, &it))
                        .unwrap_or_default();
                    let rules = self.index.rules.get(&path).into_iter().flatten();
                    for (_, rule) in rules {
                        match rule {
                            Rule::Spec { head: RuleHead::Set { .. }, .. } => return true,
                            Rule::Spec {
                                head: RuleHead::Compr { assign: Some(assign), .. },
                                ..
                            } if matches!(
                                assign.value.as_ref(),
                                Expr::Set { .. } | Expr::SetCompr { .. } | Expr::BinExpr { .. }
                            ) =>
                            {
                                return true;
                            }
                            Rule::Spec { .. } | Rule::Default { .. } => {}
                        }
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// How an expression depends on the rules that it reads: those of which more makes it true, of
    /// which less does, and of which that cannot be seen.
    pub(super) fn directions(
        &self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
        direction: Direction,
    ) -> Vec<(&'a Expr, Direction)> {
        let mut found = Vec::new();
        let mut todo = vec![(expr, direction)];
        while let Some((expr, direction)) = todo.pop() {
            let either = Direction::Either;
            match expr {
                _ if is_reference(expr) => {
                    found.push((expr, direction));
                    let Some((_, root)) = reference(expr) else { continue };
                    todo.extend(root.map(|it| (it, either)));
                    let mut at = expr;
                    while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = at {
                        if let Expr::RefBrack { index, .. } = at {
                            todo.push((index, either));
                        }
                        at = refr;
                    }
                    continue;
                }
                Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. } => {
                    found.push((expr, direction));
                    continue;
                }
                Expr::BoolExpr { op, lhs, rhs, .. } => {
                    let sides = self.monotone(module, op, lhs, rhs, body);
                    todo.extend(sides.map(|(side, more)| match more {
                        Some(true) => (side, direction),
                        Some(false) => (side, direction.reversed()),
                        None => (side, either),
                    }));
                    continue;
                }
                Expr::Membership { key, value, collection, .. } => {
                    todo.push((collection, direction));
                    todo.extend(key.iter().chain([value]).map(|it| (it.as_ref(), either)));
                    continue;
                }
                Expr::BinExpr { lhs, rhs, .. } => {
                    todo.extend([lhs, rhs].map(|it| (it.as_ref(), direction)));
                    continue;
                }
                Expr::ArithExpr { op: ArithOp::Sub, lhs, rhs, .. } => {
                    todo.extend([(lhs.as_ref(), direction), (rhs.as_ref(), direction.reversed())]);
                    continue;
                }
                Expr::Call { fcn, params, .. } => {
                    found.push((fcn, direction));
                    let grows = SIZES.iter().any(|name| is_call(expr, name));
                    let of = if grows { direction } else { either };
                    todo.extend(params.iter().map(|it| (it.as_ref(), of)));
                    continue;
                }
                _ => {}
            }
            todo.extend(children(expr).into_iter().map(|it| (it, either)));
        }
        found
    }

    /// For each side of a comparison: whether it holds if there is more, or less, of it.
    fn monotone(
        &self,
        module: usize,
        op: &BoolOp,
        lhs: &'a Expr,
        rhs: &'a Expr,
        body: &Body<'a>,
    ) -> [(&'a Expr, Option<bool>); 2] {
        let none = |it: &'a Expr| {
            let literal = self.resolved(module, it, body);
            contains_false(literal) || lacking(literal)
        };
        let yes = |it: &'a Expr| {
            matches!(self.resolved(module, it, body), Expr::Bool { value: Value::Bool(true), .. })
        };
        match op {
            BoolOp::Eq if none(rhs) || none(lhs) => [(lhs, Some(false)), (rhs, Some(false))],
            BoolOp::Eq if yes(rhs) || yes(lhs) => [(lhs, Some(true)), (rhs, Some(true))],
            BoolOp::Ne if none(rhs) || none(lhs) => [(lhs, Some(true)), (rhs, Some(true))],
            BoolOp::Eq | BoolOp::Ne => [(lhs, None), (rhs, None)],
            BoolOp::Lt | BoolOp::Le => [(lhs, Some(false)), (rhs, Some(true))],
            BoolOp::Gt | BoolOp::Ge => [(lhs, Some(true)), (rhs, Some(false))],
        }
    }
}
