//! Which policies may run on the compiled engine, and the guards that are written into them.
//!
//! The bytecode machine ends a rule's body at an error without reporting it, makes a rule with two
//! values undefined, and evaluates some constructs wrongly. Therefore a policy may run on it only
//! if it uses no construct beyond those that mean the same on both engines, and every operation
//! that can fail is a host call, where a failure is seen: built-ins always are, and guards are
//! written around the operands of operators and of iteration. Where a guard fails, the strict
//! engine answers.
//!
//! Only rules that the entrypoints can reach are checked: no other is compiled. `compiled` and
//! the proof call this module; `docs/policy.md`, "How a policy comes to answer", is for users.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use regorus::unstable::{
    ArithOp, AssignOp, BinOp, Expr, Literal, LiteralStmt, Module as Ast, Ref, Rule, RuleBody,
    RuleHead, Span,
};

use super::check::{Index, Path, dotted, is_function, location};
use super::walk::{
    Reference, Step, Visit, Walk, expression_extent, extent, is_plain, reference, rule_args,
    rule_ref,
};
use super::{Entrypoints, Module};

/// The guards: host calls that only the compiled engine has. Each returns its argument or fails.
/// The names begin with `__`, which no policy's rule may (see `check`).
pub(super) static GUARDS: &[(&str, Guard)] = &[
    ("__collection", Guard::Collection),
    ("__divisor", Guard::Divisor),
    ("__integer", Guard::Integer),
    ("__number", Guard::Number),
    ("__set", Guard::Set),
];

/// The property of an operand that a guard checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Guard {
    /// An array, set or object.
    Collection,
    /// A number other than 0.
    Divisor,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A set.
    Set,
}

impl Guard {
    /// Whether `value` passes.
    pub(super) fn admits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Collection, Value::Array(_) | Value::Set(_) | Value::Object(_))
            | (Self::Set, Value::Set(_))
            | (Self::Number, Value::Number(_)) => true,
            (Self::Integer, Value::Number(number)) => number.is_integer(),
            (Self::Divisor, Value::Number(number)) => number.as_f64() != Some(0.0),
            _ => false,
        }
    }

    fn name(self) -> &'static str {
        GUARDS.iter().find(|(_, guard)| *guard == self).map_or("", |(name, _)| name)
    }
}

/// Writes guards into the modules.
///
/// # Errors
///
/// `file:line: construct` for each construct that the compiled engine may not run, sorted.
pub(super) fn rewrite(
    modules: &[Module],
    parsed: &[Ref<Ast>],
    entrypoints: &Entrypoints,
) -> Result<Vec<Module>, Vec<String>> {
    let index = Index::of(parsed);
    let mut rewriter = Rewriter {
        modules,
        index: &index,
        reasons: BTreeSet::new(),
        edits: BTreeMap::new(),
        guarded: BTreeSet::new(),
    };
    for path in index.reachable([&entrypoints.decision, &entrypoints.listing]) {
        rewriter.rule(&path);
    }
    if !rewriter.reasons.is_empty() {
        return Err(rewriter.reasons.into_iter().collect());
    }
    let edited = modules.iter().enumerate().map(|(at, module)| Module {
        path: module.path.clone(),
        text: apply(&module.text, rewriter.edits.remove(&at).unwrap_or_default()),
    });
    Ok(edited.collect())
}

/// A replacement of the bytes from `start` to `end`; an insertion where both are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    start: usize,
    end: usize,
    text: String,
    /// Order of edits with one start: closing brackets first, then opening ones, the outermost
    /// guard first.
    rank: (bool, usize),
}

fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.start, edit.rank));
    edits.dedup();
    let mut out = String::new();
    let mut at = 0_usize;
    for edit in edits {
        out.push_str(text.get(at..edit.start).unwrap_or_default());
        out.push_str(&edit.text);
        at = edit.end.max(at);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

struct Rewriter<'a, 'i> {
    modules: &'i [Module],
    index: &'i Index<'a>,
    reasons: BTreeSet<String>,
    edits: BTreeMap<usize, Vec<Edit>>,
    /// Guards that were written already: a rule's head is visited once for each of its bodies.
    guarded: BTreeSet<(usize, usize, usize, Guard)>,
}

impl<'a> Rewriter<'a, '_> {
    fn refuse(&mut self, span: &Span, why: &str) {
        let (file, line) = location(span);
        self.reasons.insert(format!("{file}:{line}: {why}"));
    }

    fn rule(&mut self, path: &Path<'a>) {
        let definitions = self.index.rules.get(path).cloned().unwrap_or_default();
        for (module, rule) in &definitions {
            self.head(rule);
            let declared = declared(rule);
            for visit in Walk::rule(rule) {
                if let Visit::Expr(Expr::ArrayCompr { term, .. } | Expr::SetCompr { term, .. }) =
                    &visit
                {
                    self.yielded_value(term, &declared);
                }
                match visit {
                    Visit::Ref(reference) => self.reference(*module, &reference),
                    Visit::Call { callee, .. } => self.call(&callee),
                    Visit::Expr(expr) => self.expression(*module, expr),
                    Visit::Statement(statement) => self.statement(*module, statement),
                }
            }
        }
        self.conflicts(path, &definitions);
    }

    fn head(&mut self, rule: &'a Rule) {
        if !matches!(rule_ref(rule), Expr::Var { .. }) {
            self.refuse(rule.span(), "a rule whose name is a reference");
        }
        match rule {
            Rule::Default { args, value, .. } => {
                if !args.is_empty() {
                    self.refuse(rule.span(), "a default for a function");
                }
                if !is_literal(value) {
                    self.refuse(rule.span(), "a default that is not a plain value");
                }
            }
            Rule::Spec { head, bodies, .. } => {
                match head {
                    RuleHead::Set { key: None, .. } => {
                        self.refuse(rule.span(), "a set without `contains`");
                    }
                    RuleHead::Set { key: Some(key), .. } => {
                        self.yielded_value(key, &declared(rule));
                    }
                    RuleHead::Compr { .. } | RuleHead::Func { .. } => {}
                }
                if rule_args(rule).iter().any(|arg| !matches!(arg, Expr::Var { .. })) {
                    self.refuse(rule.span(), "a function whose parameter is a pattern");
                }
                let followed = bodies.len().saturating_sub(1);
                if bodies.iter().take(followed).any(|body| iterates(rule, body)) {
                    // On the machine a loop without a match succeeds, so `else` is not tried.
                    self.refuse(rule.span(), "an `else` after a body that iterates");
                }
            }
        }
    }

    /// Refuses iteration inside a yielded value. Where there is no collection to iterate over, the
    /// strict engine reports an error and the machine yields nothing.
    fn yielded_value(&mut self, value: &Expr, declared: &BTreeSet<&str>) {
        if has_free_index(value, declared) {
            self.refuse(value.span(), "iteration inside a yielded value");
        }
    }

    /// Refuses a rule that could have two values: that is an error on the strict engine (OPA docs,
    /// "Policy Language", "Complete Definitions"), and undefined on the machine.
    fn conflicts(&mut self, path: &Path<'a>, definitions: &[(usize, &'a Rule)]) {
        let mut values: Vec<Option<Value>> = Vec::new();
        let mut specs = 0_usize;
        let mut single = true;
        for (_, rule) in definitions {
            let Rule::Spec { head, bodies, .. } = rule else { continue };
            let assign = match head {
                RuleHead::Set { .. } => continue,
                RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => assign.as_ref(),
            };
            specs = specs.saturating_add(1);
            let head_value = assign.map(|assign| assign.value.as_ref());
            if bodies.is_empty() {
                let value = constant(head_value);
                single &= value.is_some()
                    || !head_value.is_some_and(|it| has_free_index(it, &BTreeSet::new()));
                values.push(value);
            }
            for (at, body) in bodies.iter().enumerate() {
                let own = body.assign.as_ref().map(|assign| assign.value.as_ref());
                let value = constant(if at == 0 { own.or(head_value) } else { own });
                single &= value.is_some() || !iterates(rule, body);
                values.push(value);
            }
        }
        let first = values.first().cloned().flatten();
        let same = first.is_some() && values.iter().all(|value| *value == first);
        if !same
            && (specs > 1 || !single)
            && let Some((_, rule)) = definitions.first()
        {
            self.refuse(rule.span(), &format!("`{}` might have two values", dotted(path)));
        }
    }

    fn statement(&mut self, module: usize, statement: &'a LiteralStmt) {
        if !statement.with_mods.is_empty() {
            self.refuse(&statement.span, "`with`");
        }
        match &statement.literal {
            // Inside a loop, regorus's interpreter reports it as a second declaration.
            Literal::SomeVars { span, .. } => self.refuse(span, "`some` without `in`"),
            Literal::SomeIn { span, key, value, collection } => {
                let key = key.as_ref().map(AsRef::as_ref);
                let pattern = |it: &Expr| !matches!(it, Expr::Var { .. });
                if key.is_some_and(pattern) || pattern(value) {
                    self.refuse(span, "`some` with a pattern");
                }
                if !is_collection(collection) {
                    self.guard(module, collection, Guard::Collection);
                }
            }
            Literal::Every { span, .. } => self.refuse(span, "`every`"),
            Literal::NotExpr { span, expr } => {
                if indexes_in(expr)
                    .any(|index| matches!(index, Expr::Var { span, .. } if span.text() == "_"))
                {
                    self.refuse(span, "iteration inside `not`");
                }
            }
            Literal::Expr { expr, span } => {
                if let Expr::AssignExpr { op, lhs, .. } = expr.as_ref() {
                    match variable(lhs).filter(|name| *op == AssignOp::ColEq && *name != "_") {
                        Some(name) => self.require_defined(module, &statement.span, name),
                        None => self.refuse(span, "unification, or an assignment to a pattern"),
                    }
                }
            }
        }
    }

    fn expression(&mut self, module: usize, expr: &'a Expr) {
        match expr {
            Expr::ObjectCompr { span, .. } => self.refuse(span, "an object comprehension"),
            // Where the value is undefined, the machine makes the whole array undefined, and not
            // shorter.
            Expr::ArrayCompr { span, term, .. }
                if variable(term).is_none_or(|name| self.index.defines(module, name))
                    && !is_literal(term) =>
            {
                self.refuse(span, "an array comprehension of something else than a local variable");
            }
            Expr::BinExpr { op: BinOp::Union | BinOp::Intersection, lhs, rhs, .. } => {
                self.guard(module, lhs, Guard::Set);
                self.guard(module, rhs, Guard::Set);
            }
            Expr::ArithExpr { op, lhs, rhs, .. } => {
                let sets = *op == ArithOp::Sub && (is_set(lhs) || is_set(rhs));
                let (left, right) = match op {
                    ArithOp::Sub if sets => (Guard::Set, Guard::Set),
                    ArithOp::Add | ArithOp::Sub | ArithOp::Mul => (Guard::Number, Guard::Number),
                    ArithOp::Div => (Guard::Number, Guard::Divisor),
                    ArithOp::Mod => (Guard::Integer, Guard::Integer),
                };
                self.guard(module, lhs, left);
                self.guard(module, rhs, right);
                if *op == ArithOp::Mod {
                    self.guard(module, rhs, Guard::Divisor);
                }
            }
            _ => {}
        }
    }

    fn call(&mut self, callee: &Reference<'a>) {
        match super::check::called(callee).as_deref() {
            Some("print") => self.refuse(callee.span, "`print`"),
            Some("__member_with_key") => self.refuse(callee.span, "`in` with a key"),
            _ => {}
        }
    }

    /// A reference must name a rule by its full path, or data that is neither above nor below a
    /// rule.
    fn reference(&mut self, module: usize, reference: &Reference<'a>) {
        if let Some(import) = self.index.imported(module, reference)
            && let Some(root) = reference.root_span
        {
            let text = import.join(".");
            // The interpreter evaluates the whole package that an import names, and so reports
            // errors that the machine does not.
            let package = import.get(1..).unwrap_or_default();
            let whole = import.first() == Some(&"data")
                && self.index.overlapping(package).any(|rule| !package.starts_with(rule));
            if whole {
                let full = text.clone() + "." + &reference.prefix().join(".");
                self.refuse(reference.span, &format!("a rule through an import: write `{full}`"));
            } else if import.iter().all(|name| is_identifier(name)) {
                self.edit(module, root, text);
            } else {
                self.refuse(reference.span, "an import of a path that needs quotes");
            }
        }
        let Some(path) = self.index.resolve(module, reference) else { return };
        let met: Vec<&Path<'a>> = self.index.overlapping(&path).collect();
        if met.iter().any(|rule| !path.starts_with(rule)) || path.is_empty() {
            self.refuse(reference.span, "a reference to a whole package");
        } else if self.index.covers_package(&path) {
            self.refuse(reference.span, "a reference to a package");
        } else if met.iter().any(|rule| {
            self.index.rules.get(*rule).is_some_and(|it| it.iter().any(|(_, it)| is_function(it)))
        }) {
            self.refuse(reference.span, "a function used as a value");
        }
    }

    fn edit(&mut self, module: usize, span: &Span, text: String) {
        let (Ok(start), Ok(end)) = (usize::try_from(span.start), usize::try_from(span.end)) else {
            return;
        };
        let rank = (true, usize::MAX);
        self.edits.entry(module).or_default().push(Edit { start, end, text, rank });
    }

    fn text(&self, module: usize) -> &str {
        self.modules.get(module).map_or("", |module| &module.text)
    }

    /// Makes an assignment of undefined fail, by adding `; x == x`. The machine would continue with
    /// `x` undefined, so that `x := input.absent; not x == 1` would be true; a comparison with
    /// undefined does fail on it.
    fn require_defined(&mut self, module: usize, statement: &Span, name: &str) {
        let Some((_, end)) = extent(self.text(module), statement) else { return };
        let rank = (false, usize::MAX);
        let text = format!("; {name} == {name}");
        self.edits.entry(module).or_default().push(Edit { start: end, end, text, rank });
    }

    /// Writes a guard around an expression.
    fn guard(&mut self, module: usize, expr: &'a Expr, guard: Guard) {
        let Some((start, end)) = expression_extent(self.text(module), expr) else { return };
        if !self.guarded.insert((module, start, end, guard)) {
            return;
        }
        let width = usize::MAX.saturating_sub(end.saturating_sub(start)).saturating_sub(1);
        let edits = self.edits.entry(module).or_default();
        edits.push(Edit {
            start,
            end: start,
            text: format!("{}(", guard.name()),
            rank: (true, width),
        });
        edits.push(Edit { start: end, end, text: ")".to_owned(), rank: (false, edits.len()) });
    }
}

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

/// Whether an expression is a literal: a scalar, or a collection of literals.
fn is_literal(expr: &Expr) -> bool {
    is_plain(expr, &|_| true)
}

/// The value of a rule's head where it is one scalar; a head without a value is `true`.
fn constant(expr: Option<&Expr>) -> Option<Value> {
    match expr {
        None => Some(Value::Bool(true)),
        Some(
            Expr::String { value, .. }
            | Expr::RawString { value, .. }
            | Expr::Number { value, .. }
            | Expr::Bool { value, .. }
            | Expr::Null { value, .. },
        ) => Some(value.clone()),
        Some(_) => None,
    }
}

fn is_collection(expr: &Expr) -> bool {
    is_set(expr)
        || matches!(expr, Expr::Array { .. } | Expr::Object { .. } | Expr::ArrayCompr { .. })
}

/// Whether the form of an expression shows that its value is a set, without an evaluation.
fn is_set(expr: &Expr) -> bool {
    match expr {
        Expr::Set { .. } | Expr::SetCompr { .. } | Expr::BinExpr { .. } => true,
        Expr::Call { fcn, .. } => reference(fcn).is_some_and(|(reference, _)| {
            super::check::called(&reference).as_deref() == Some("object.keys")
        }),
        _ => false,
    }
}

/// Whether a name can follow a dot in Rego without brackets and quotes.
pub(super) fn is_identifier(name: &str) -> bool {
    name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
        && !name.starts_with(|c: char| c.is_ascii_digit())
}
