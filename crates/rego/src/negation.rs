//! Gives `not`, `in` and the heads of rules the meaning that they have in OPA, before either engine
//! sees a module.
//!
//! OPA's compiler moves calls, references and comprehensions that are operands out of an expression,
//! into statements before it (`rewriteExprTerms` and `rewriteDynamics` in `v1/ast/compile.go`).
//! Without `not` that changes nothing. With it, an undefined operand makes the whole body
//! undefined, where the engines of regorus find the negated expression undefined, and so `not`
//! true. This module writes those statements: `not startswith(input.a, "b")` becomes
//! `__lifted0 := input.a; not startswith(__lifted0, "b")`.
//!
//! Not moved, as in OPA: what `not` is about itself (`not f(…)`, `not input.a`), and a reference or
//! comprehension directly beside `==` or `=`. Indexes inside such a reference are moved.
//!
//! A head is evaluated once for each match of the body, and OPA moves what it evaluates to the end
//! of the body, so that a match for which it is undefined adds nothing. `x contains f(y) if some y
//! in ys` becomes `x contains __lifted0 if { some y in ys; __lifted0 := f(y) }`.
//!
//! `x in xs` is undefined in OPA where an operand is. For regorus it is false, and `k, v in xs` is
//! true where `xs` has no `k` and `v` is undefined. Therefore it becomes a call, `__member(x, xs)`
//! or `__member_with_key(k, v, xs)`: every call with an undefined argument is undefined, on both
//! engines. It stays where its operands are literals or local variables, which have values, and
//! where it is a whole statement without a key, because there false and undefined are the same. No
//! other operator of regorus has a value for an undefined operand (0.14).
//!
//! `tests/differential/opa.py` compares the result with OPA. A rewritten statement is on the line
//! of its author's `not`, and every other line stays where it is.

use std::collections::BTreeMap;

use regorus::unstable::{
    AssignOp, BoolOp, Expr, Literal, LiteralStmt, Module as Ast, Query, Ref, Rule, RuleHead,
};

use super::Module;
use super::builtins;
use super::check::{Index, called};
use super::iteration::{declared, has_free_index, iterates};
use super::print::{Binding, Printer, Rewrite, operands as operands_of_in};
use super::walk::{Step, expression_extent, extent, is_plain, reference, rule_args, rule_ref};

/// The modules with the operands of every `not` moved into statements before it.
pub(super) fn lifted(modules: &[Module], parsed: &[Ref<Ast>]) -> Vec<Module> {
    let index = Index::of(parsed);
    let rewritten = modules.iter().zip(parsed).enumerate().map(|(at, (module, ast))| {
        let mut prefix = "__lifted".to_owned();
        while module.text.contains(&prefix) {
            prefix.push('_');
        }
        let mut lifter = Lifter {
            index: &index,
            module: at,
            text: &module.text,
            prefix,
            lines: std::iter::once(0)
                .chain(module.text.match_indices('\n').map(|(at, _)| at.saturating_add(1)))
                .collect(),
            names: BTreeMap::new(),
            next: 0,
            calls: 0,
            of_every: Vec::new(),
            edits: Vec::new(),
        };
        for rule in &ast.policy {
            lifter.rule(rule);
        }
        Module { path: module.path.clone(), text: apply(&module.text, lifter.edits) }
    });
    rewritten.collect()
}

/// The operands of a negated expression that OPA moves before it.
pub(super) fn operands<'a>(expr: &'a Expr, is_document: &dyn Fn(&Expr) -> bool) -> Vec<&'a Expr> {
    moved(expr, &[], is_document)
}

/// The same. The variables `copied` are moved, too, where they are indexes: inside the body of
/// `every v …`, the interpreter takes `not x[v]` for an iteration over `x` (regorus 0.14).
fn moved<'a>(
    expr: &'a Expr,
    copied: &[String],
    is_document: &dyn Fn(&Expr) -> bool,
) -> Vec<&'a Expr> {
    let mut found = Vec::new();
    let mut operand = |it: &'a Expr, index: bool| {
        let copied = index
            && matches!(it, Expr::Var { span, .. } if copied.iter().any(|name| name == span.text()));
        if copied || !is_plain(it, is_document) {
            found.push(it);
        }
    };
    match expr {
        Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. }
        | Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } => {
            side(lhs, &mut operand);
            side(rhs, &mut operand);
        }
        Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::BinExpr { lhs, rhs, .. } => {
            operand(lhs, false);
            operand(rhs, false);
        }
        Expr::Membership { key, value, collection, .. } => {
            key.iter().chain([value, collection]).for_each(|it| operand(it, false));
        }
        Expr::Call { params, .. } => params.iter().for_each(|it| operand(it, false)),
        Expr::UnaryExpr { expr, .. } => operand(expr, false),
        _ => side(expr, &mut operand),
    }
    found
}

/// The operands in a term that stays where it is: one side of `==`, or the whole expression.
fn side<'a>(expr: &'a Expr, operand: &mut dyn FnMut(&'a Expr, bool)) {
    match (reference(expr), expr) {
        (Some((reference, root)), _) => {
            // A root that is no variable is moved, too.
            if let Some(root) = root {
                operand(root, false);
            }
            for step in reference.steps {
                if let Step::Index(index) = step {
                    operand(index, true);
                }
            }
        }
        (None, Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. }) => {}
        (None, _) => operand(expr, false),
    }
}

/// A replacement: start and end in bytes, and the new text. Replacements do not overlap, because a
/// statement inside a replaced one is printed with it.
type Edit = (usize, usize, String);

fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (start, end, replacement) in edits {
        out.push_str(text.get(at..start).unwrap_or_default());
        out.push_str(&replacement);
        at = end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// The computed keys of a rule's name: `x` in `a[x] := y`.
fn keys(rule: &Rule) -> Vec<&Expr> {
    let steps = reference(rule_ref(rule)).map(|(it, _)| it.steps).unwrap_or_default();
    let keys = steps.into_iter().filter_map(|step| match step {
        Step::Index(index) => Some(index),
        Step::Name(_) => None,
    });
    keys.collect()
}

struct Lifter<'a, 'i> {
    index: &'i Index<'a>,
    module: usize,
    text: &'i str,
    /// What the names of new variables begin with: nothing in the module does.
    prefix: String,
    /// Where each line of the text begins, bytes.
    lines: Vec<usize>,
    /// The new variables, by the address of the expression that they stand for.
    names: BTreeMap<*const Expr, String>,
    next: usize,
    /// How many calls were written in place of `in`.
    calls: usize,
    /// The variables of every `every` around the statement.
    of_every: Vec<String>,
    edits: Vec<Edit>,
}

impl<'a> Lifter<'a, '_> {
    fn rule(&mut self, rule: &'a Rule) {
        let mut inner: Vec<&Expr> = rule_args(rule);
        let Rule::Spec { head, bodies, .. } = rule else {
            if let Rule::Default { value, .. } = rule {
                inner.push(value);
            }
            return self.closures(inner);
        };
        let mut heads: Vec<&Expr> = match head {
            RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
                assign.iter().map(|assign| assign.value.as_ref()).collect()
            }
            RuleHead::Set { key, .. } => key.iter().map(AsRef::as_ref).collect(),
        };
        heads.extend(keys(rule));
        let falls_through = bodies.len() > 1;
        if bodies.is_empty() {
            if heads.iter().any(|it| has_free_index(it, &declared(rule))) {
                let tail = self.tail(&heads, rule.span().line);
                let end = extent(self.text, rule.span()).map_or(self.text.len(), |(_, end)| end);
                self.edits.push((end, end, format!(" if {{ {tail} }}")));
            } else {
                inner.extend(&heads);
            }
        }
        for body in bodies {
            let own: Vec<&Expr> = body.assign.iter().map(|assign| assign.value.as_ref()).collect();
            let heads = if body.is_else { own } else { heads.clone() };
            let free = declared(rule);
            let many = falls_through
                || iterates(rule, body)
                || heads.iter().any(|it| has_free_index(it, &free));
            let moves = heads.iter().any(|it| many && self.may_fail(it));
            let tail = if moves {
                self.tail(&heads, body.query.span.line)
            } else {
                inner.extend(heads);
                String::new()
            };
            if body.query.stmts.is_empty() {
                if let Some((_, end)) = extent(self.text, &body.span).filter(|_| moves) {
                    self.edits.push((end, end, format!(" if {{ {tail} }}")));
                }
                continue;
            }
            // In a function, the interpreter takes an `else` without a value for undefined.
            if body.is_else
                && body.assign.is_none()
                && let Some((start, _)) = extent(self.text, &body.span)
            {
                let end = start.saturating_add("else".len());
                self.edits.push((start, end, "else := true".to_owned()));
            }
            self.query(&body.query, &tail);
        }
        self.closures(inner);
    }

    /// Whether an expression of a head may be undefined.
    fn may_fail(&self, expr: &Expr) -> bool {
        let mut todo = vec![expr];
        while let Some(expr) = todo.pop() {
            match expr {
                Expr::Call { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => return true,
                Expr::Var { span, .. } if self.is_document(expr) => {
                    if !self.index.always_defined(self.module, span.text()) {
                        return true;
                    }
                }
                _ => todo.extend(children(expr)),
            }
        }
        false
    }

    /// Replaces the expressions of a head by variables, and returns the statements that give these
    /// their values. For such an expression that is undefined, the interpreter reports an error or
    /// forgets the other matches of the body.
    fn tail(&mut self, heads: &[&'a Expr], line: u32) -> String {
        let is_document = |it: &Expr| self.is_document(it);
        let moved: Vec<&Expr> =
            heads.iter().copied().filter(|it| !is_plain(it, &is_document)).collect();
        let mut statements = Vec::new();
        for expr in moved {
            let mut printer = Printer::new(u32::MAX);
            let name = self.assign(&mut printer, expr);
            statements.push(printer.finish(line));
            let Some((start, end)) = expression_extent(self.text, expr) else { continue };
            let ends = self.text.get(start..end).unwrap_or_default().matches('\n').count();
            // `if` must be on the line on which the head ends.
            self.edits.push((start, end, "\n".repeat(ends) + &name));
        }
        statements.join("; ")
    }

    /// Rewrites a query. `tail` are statements to add at its end, or nothing.
    fn query(&mut self, query: &'a Query, tail: &str) {
        // `x if not y`: a body of one statement needs no braces, one of several does.
        let bare = query.stmts.first().filter(|first| first.span.start == query.span.start);
        let bare = bare.and_then(|first| extent(self.text, &first.span));
        let before = self.edits.len();
        for statement in &query.stmts {
            let mut inner: Vec<&Expr> =
                statement.with_mods.iter().map(|modifier| modifier.r#as.as_ref()).collect();
            match &statement.literal {
                Literal::NotExpr { .. } => {
                    self.edit(statement);
                    continue;
                }
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection, .. } => {
                    inner.extend(key.iter().map(AsRef::as_ref));
                    inner.extend([value.as_ref(), collection.as_ref()]);
                }
                Literal::Expr { expr, .. } => match expr.as_ref() {
                    whole @ Expr::Membership { key: None, .. } => inner.extend(children(whole)),
                    other => inner.push(other),
                },
                Literal::Every { domain, query, .. } => {
                    inner.push(domain);
                    let outer = self.enter(statement);
                    self.query(query, "");
                    self.of_every.truncate(outer);
                }
            }
            self.closures(inner);
        }
        let end = usize::try_from(query.span.end).unwrap_or(usize::MAX).saturating_sub(1);
        match bare {
            Some((start, end)) if !tail.is_empty() || self.edits.len() > before => {
                self.edits.push((start, start, "{ ".to_owned()));
                let separator = if tail.is_empty() { "" } else { "; " };
                self.edits.push((end, end, format!("{separator}{tail} }}")));
            }
            None if !tail.is_empty() => self.edits.push((end, end, format!("; {tail} "))),
            Some(_) | None => {}
        }
    }

    /// Rewrites `in`, and the queries of comprehensions, inside expressions.
    fn closures(&mut self, mut todo: Vec<&'a Expr>) {
        while let Some(expr) = todo.pop() {
            match expr {
                Expr::Membership { .. } if self.may_lack_value(expr) => self.call(expr),
                Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                    todo.push(term);
                    self.query(query, "");
                }
                Expr::ObjectCompr { key, value, query, .. } => {
                    todo.extend([key.as_ref(), value.as_ref()]);
                    self.query(query, "");
                }
                _ => todo.extend(children(expr)),
            }
        }
    }

    /// Whether an operand of `in` may be undefined, or the engine takes it for another: a set has no
    /// keys there.
    fn may_lack_value(&self, expr: &Expr) -> bool {
        let is_document = |it: &Expr| self.is_document(it);
        matches!(expr, Expr::Membership { key: Some(_), .. })
            || operands_of_in(expr)
                .into_iter()
                .any(|it| self.name_of(it).is_none() && !is_plain(it, &is_document))
    }

    /// Replaces `in` by a call that has as many line ends. They are before its last bracket, where
    /// they mean nothing.
    fn call(&mut self, expr: &Expr) {
        let Some((start, end)) = extent(self.text, expr.span()) else { return };
        let line = self.lines.partition_point(|line| *line <= start);
        let mut printer = Printer::new(u32::try_from(line).unwrap_or(u32::MAX));
        printer.expression(expr, Binding::Statement, self);
        let mut call = printer.finish(0);
        let ends = self.text.get(start..end).unwrap_or_default().matches('\n').count();
        let missing = ends.saturating_sub(call.matches('\n').count());
        let bracket = call.pop();
        call.push_str(&"\n".repeat(missing));
        call.extend(bracket);
        self.edits.push((start, end, call));
    }

    /// Replaces a statement with `not`, if it or a statement inside it needs that.
    fn edit(&mut self, statement: &LiteralStmt) {
        let before = (self.next, self.calls);
        let mut printer = Printer::new(statement.span.line);
        self.statement(&mut printer, statement);
        if (self.next, self.calls) == before {
            return;
        }
        let Some((start, end)) = extent(self.text, &statement.span) else { return };
        let ends = self.text.get(start..end).unwrap_or_default().matches('\n').count();
        let last = statement.span.line.saturating_add(u32::try_from(ends).unwrap_or(u32::MAX));
        self.edits.push((start, end, printer.finish(last)));
    }

    /// Adds the variables that `every` declares. Returns how many there were before.
    fn enter(&mut self, statement: &LiteralStmt) -> usize {
        let outer = self.of_every.len();
        if let Literal::Every { key, value, .. } = &statement.literal {
            let names = key.iter().chain([value]).map(|name| name.text().to_owned());
            self.of_every.extend(names);
        }
        outer
    }

    fn is_document(&self, expr: &Expr) -> bool {
        let Expr::Var { span, .. } = expr else { return false };
        let name = span.text();
        name == "input" || name == "data" || self.index.defines(self.module, name)
    }

    /// Whether an expression is the name of a function or built-in: as the value of a modifier it
    /// replaces another and is not evaluated.
    fn is_function(&self, expr: &Expr) -> bool {
        let Some((name, _)) = reference(expr) else { return false };
        called(&name).is_some_and(|it| builtins::find(&it).is_some())
            || self.index.names_function(self.module, &name)
    }

    fn fresh(&mut self) -> String {
        let name = format!("{}{}", self.prefix, self.next);
        self.next = self.next.saturating_add(1);
        name
    }

    /// Prints `name := expr`.
    fn assign(&mut self, printer: &mut Printer, expr: &Expr) -> String {
        let name = self.fresh();
        printer.push(&name);
        printer.push(" := ");
        printer.expression(expr, Binding::Membership, self);
        name
    }
}

impl Rewrite for Lifter<'_, '_> {
    fn statement(&mut self, printer: &mut Printer, statement: &LiteralStmt) {
        let Literal::NotExpr { expr, .. } = &statement.literal else {
            let outer = self.enter(statement);
            printer.statement(statement, self);
            self.of_every.truncate(outer);
            return;
        };
        let is_document = |it: &Expr| self.is_document(it);
        let moved = moved(expr, &self.of_every, &is_document);
        let values: Vec<&Expr> = statement
            .with_mods
            .iter()
            .map(|modifier| modifier.r#as.as_ref())
            .filter(|it| !is_plain(it, &is_document) && !self.is_function(it))
            .collect();
        // The value of a modifier is evaluated without the modifiers, the operands with them.
        for value in values {
            let name = self.assign(printer, value);
            printer.push("; ");
            self.names.insert(std::ptr::from_ref(value), name);
        }
        for operand in moved {
            let name = self.assign(printer, operand);
            printer.modifiers(&statement.with_mods, self);
            printer.push("; ");
            self.names.insert(std::ptr::from_ref(operand), name);
        }
        printer.statement(statement, self);
    }

    fn name_of(&self, expr: &Expr) -> Option<&str> {
        self.names.get(&std::ptr::from_ref(expr)).map(String::as_str)
    }

    fn function_for(&mut self, expr: &Expr) -> Option<&'static str> {
        let Expr::Membership { key, .. } = expr else { return None };
        if !self.may_lack_value(expr) {
            return None;
        }
        self.calls = self.calls.saturating_add(1);
        let [without_key, with_key] = &builtins::MEMBERSHIP;
        Some(if key.is_some() { with_key.name } else { without_key.name })
    }
}

/// The direct parts of an expression, except the parts of a comprehension.
pub(super) fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Array { items, .. } | Expr::Set { items, .. } => {
            items.iter().map(AsRef::as_ref).collect()
        }
        Expr::Object { fields, .. } => {
            fields.iter().flat_map(|(_, key, value)| [key.as_ref(), value.as_ref()]).collect()
        }
        Expr::Call { fcn, params, .. } => {
            std::iter::once(fcn).chain(params).map(AsRef::as_ref).collect()
        }
        Expr::UnaryExpr { expr, .. } => vec![expr],
        Expr::RefDot { refr, .. } => vec![refr],
        Expr::RefBrack { refr, index, .. } => vec![refr, index],
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => vec![lhs, rhs],
        Expr::Membership { key, value, collection, .. } => {
            key.iter().chain([value, collection]).map(AsRef::as_ref).collect()
        }
        _ => Vec::new(),
    }
}
