//! Refuses what OPA's safety check refuses: variables that nothing gives a value.
//!
//! `not startswith(path, blocked[_])` cannot be evaluated as its author means it: `not` gives no
//! values, so nothing says which element `_` is. OPA refuses it (`rego_unsafe_var_error`); the
//! engines of regorus read it as "some element does not match", which is true for almost every
//! path. This module builds from each rule the statements that OPA's compiler has at that stage,
//! in which each call is a statement of its own, and `order` checks them. [`Policy`](super::Policy)
//! calls it where a policy has no other problem.

use std::collections::BTreeMap;

use regorus::unstable::{
    AssignOp, Expr, Literal, LiteralStmt, Module, Query, Ref, Rule, RuleHead, Span,
};

use super::builtins;
use super::check::{Index, location};
use super::order::{self, Kind, Statement, Term, Unsafe, Var, Vars};
use super::problem::PolicyProblem;
use super::walk::{Step, pattern_variables, reference, rule_args, rule_ref};

/// The problems of all rules, sorted.
pub(super) fn problems(modules: &[Ref<Module>]) -> Vec<PolicyProblem> {
    let index = &Index::of(modules);
    let mut problems = Vec::new();
    for (module, ast) in modules.iter().enumerate() {
        for rule in &ast.policy {
            let mut builder =
                Builder { index, module, scopes: vec![Scope::default()], names: Vec::new() };
            for found in builder.rule(rule) {
                problems.extend(builder.problem(&found));
            }
        }
    }
    problems.sort();
    problems.dedup();
    problems
}

/// The variables that one query declares. `parent` is the index of the enclosing query's scope; the
/// first scope is the rule's, and also gets the variables that nothing declares.
#[derive(Default)]
struct Scope<'a> {
    parent: Option<usize>,
    names: BTreeMap<&'a str, Var>,
}

struct Builder<'a, 'i> {
    index: &'i Index<'a>,
    module: usize,
    scopes: Vec<Scope<'a>>,
    /// The name of each variable; `None` for one that stands for the value of a call.
    names: Vec<Option<&'a str>>,
}

/// What is shared by the statements that one statement becomes.
#[derive(Clone, Copy)]
struct Place<'a, 's> {
    scope: usize,
    span: &'a Span,
    with: &'s [Term<'a>],
}

impl<'a> Builder<'a, '_> {
    fn problem(&self, found: &Unsafe<'a>) -> Option<PolicyProblem> {
        let name = self.names.get(found.var).copied().flatten()?;
        let (file, line) = location(found.span);
        Some(if found.negated {
            let word = if found.span.text().starts_with("not") { "not" } else { "print" };
            let shown = if name == "_" { "`_`".to_owned() } else { format!("`{name}`") };
            PolicyProblem::at(
                file,
                line,
                format!("the variable {shown} is unsafe: `{word}` gives it no value, and nothing else here does"),
            )
            .hint(
                "write a rule for one element (`listed if startswith(path, blocked[_])`) and negate \
                 that (`not listed`), or use `every`",
            )
        } else if found.own {
            PolicyProblem::at(
                file,
                line,
                format!(
                    "the variable `{name}` is unsafe: a comprehension in this expression needs its \
                     value, and it is also an index here"
                ),
            )
            .hint(
                "OPA refuses it, too: give the comprehension or the element a variable of its own \
                 before (`element := input.list[i]`)",
            )
        } else {
            let at = if found.at_once { "before this expression" } else { "here" };
            PolicyProblem::at(
                file,
                line,
                format!("the variable `{name}` is unsafe: nothing {at} gives it a value"),
            )
            .hint(
                "give it one before this expression: `:=`, `some … in`, or an index of a reference \
                 that is not negated",
            )
        })
    }

    /// Checks one rule.
    fn rule(&mut self, rule: &'a Rule) -> Vec<Unsafe<'a>> {
        let mut found = Vec::new();
        let mut args = Vec::new();
        for arg in rule_args(rule) {
            self.declare(0, arg);
        }
        let mut ignored = Vec::new();
        let place = Place { scope: 0, span: rule.span(), with: &[] };
        for arg in rule_args(rule) {
            args.push(self.term(arg, place, &mut ignored));
        }
        let mut known = Vars::new();
        for arg in args {
            let statement = Statement {
                kind: Kind::Value(arg),
                negated: false,
                at_once: false,
                with: Vec::new(),
                span: rule.span(),
            };
            known.extend(order::needs(&statement));
        }
        match rule {
            Rule::Default { value, .. } => {
                self.body(&[value], None, rule.span(), &known, &mut found);
            }
            Rule::Spec { head, bodies, .. } => {
                let mut terms: Vec<&Expr> = match head {
                    RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
                        assign.iter().map(|assign| assign.value.as_ref()).collect()
                    }
                    RuleHead::Set { key, .. } => key.iter().map(AsRef::as_ref).collect(),
                };
                if let Some((path, _)) = reference(rule_ref(rule)) {
                    terms.extend(path.steps.iter().filter_map(|step| match step {
                        Step::Index(index) => Some(*index),
                        Step::Name(_) => None,
                    }));
                }
                if bodies.is_empty() {
                    self.body(&terms, None, rule.span(), &known, &mut found);
                }
                for body in bodies {
                    let own: Vec<&Expr> =
                        body.assign.iter().map(|assign| assign.value.as_ref()).collect();
                    let head = if body.is_else { &own } else { &terms };
                    self.body(head, Some(&body.query), rule.span(), &known, &mut found);
                }
            }
        }
        found
    }

    /// Checks one body together with the head, which is evaluated in it.
    fn body(
        &mut self,
        head: &[&'a Expr],
        query: Option<&'a Query>,
        span: &'a Span,
        known: &Vars,
        found: &mut Vec<Unsafe<'a>>,
    ) {
        let (scope, mut statements) = match query {
            Some(query) => self.query(0, query),
            None => (0, Vec::new()),
        };
        let place = Place { scope, span, with: &[] };
        let terms: Vec<Term<'a>> =
            head.iter().map(|expr| self.head(expr, place, &mut statements)).collect();
        let mut given: Vars = statements.iter().flat_map(order::needs).collect();
        given.extend(known);
        for kind in terms.into_iter().map(Kind::Value) {
            let head = Statement { kind, negated: false, at_once: false, with: Vec::new(), span };
            let unsafe_vars = order::needs(&head).into_iter().filter(|var| !given.contains(var));
            found.extend(unsafe_vars.map(|var| Unsafe {
                var,
                span,
                negated: false,
                at_once: false,
                own: false,
            }));
        }
        order::check(&statements, &mut known.clone(), found);
    }

    /// A term of a head, or the value of a modifier: one that must be evaluated is bound to a variable
    /// in a statement before.
    fn head(
        &mut self,
        expr: &'a Expr,
        place: Place<'a, '_>,
        out: &mut Vec<Statement<'a>>,
    ) -> Term<'a> {
        let term = self.term(expr, place, out);
        if !evaluates(&term) {
            return term;
        }
        let var = self.fresh(None);
        out.push(statement(Kind::Unify(Term::Var(var), term), place));
        Term::Var(var)
    }

    fn fresh(&mut self, name: Option<&'a str>) -> Var {
        let var = self.names.len();
        self.names.push(name);
        var
    }

    fn name(&mut self, scope: usize, name: &'a str) {
        if name == "_" {
            return;
        }
        let var = self.fresh(Some(name));
        if let Some(scope) = self.scopes.get_mut(scope) {
            scope.names.entry(name).or_insert(var);
        }
    }

    /// Declares every variable of a pattern in a scope.
    fn declare(&mut self, scope: usize, pattern: &'a Expr) {
        for name in pattern_variables(pattern) {
            self.name(scope, name);
        }
    }

    /// The variable or document that a name means in a scope; a document is `None`.
    fn resolve(&mut self, scope: usize, expr: &'a Expr, name: &'a str) -> Option<Var> {
        if name == "_" {
            return Some(self.fresh(Some(name)));
        }
        let mut at = Some(scope);
        while let Some(scope) = at.and_then(|at| self.scopes.get(at)) {
            if let Some(var) = scope.names.get(name) {
                return Some(*var);
            }
            at = scope.parent;
        }
        let document = matches!(name, "input" | "data")
            || reference(expr).is_some_and(|(it, _)| {
                self.index.resolve(self.module, &it).is_some()
                    || self.index.imported(self.module, &it).is_some()
            });
        if document {
            return None;
        }
        let var = self.fresh(Some(name));
        if let Some(scope) = self.scopes.first_mut() {
            scope.names.insert(name, var);
        }
        Some(var)
    }

    /// The scope and the statements of a query.
    fn query(&mut self, parent: usize, query: &'a Query) -> (usize, Vec<Statement<'a>>) {
        let scope = self.scopes.len();
        self.scopes.push(Scope { parent: Some(parent), names: BTreeMap::new() });
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { vars, .. } => {
                    for var in vars {
                        self.name(scope, var.text());
                    }
                }
                Literal::SomeIn { key, value, .. } => {
                    for pattern in key.iter().chain([value]) {
                        self.declare(scope, pattern);
                    }
                }
                Literal::Expr { expr, .. } => {
                    if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } = expr.as_ref() {
                        self.declare(scope, lhs);
                    }
                }
                Literal::NotExpr { .. } | Literal::Every { .. } => {}
            }
        }
        let mut out = Vec::new();
        for statement in &query.stmts {
            self.statement(scope, statement, &mut out);
        }
        (scope, out)
    }

    fn statement(&mut self, scope: usize, from: &'a LiteralStmt, out: &mut Vec<Statement<'a>>) {
        let outside = Place { scope, span: &from.span, with: &[] };
        let mut with = Vec::new();
        for modifier in &from.with_mods {
            // A function or built-in that replaces another is only named.
            let name = reference(&modifier.r#as).and_then(|(it, _)| super::check::called(&it));
            if name.is_some_and(|name| builtins::find(&name).is_some()) {
                continue;
            }
            with.push(self.head(&modifier.r#as, outside, out));
        }
        let place = Place { with: &with, ..outside };
        let (negated, kind) = match &from.literal {
            Literal::SomeVars { .. } => return,
            Literal::SomeIn { key, value, collection, .. } => {
                let value = self.term(value, place, out);
                let collection = self.term(collection, place, out);
                let key = match key {
                    Some(key) => self.term(key, place, out),
                    None => Term::Var(self.fresh(None)),
                };
                let element = self.element(collection, key, place, out);
                (false, Kind::Unify(value, element))
            }
            Literal::Every { key, value, domain, query, .. } => {
                let domain = self.head(domain, place, out);
                let inner = self.scopes.len();
                self.scopes.push(Scope { parent: Some(scope), names: BTreeMap::new() });
                for name in key.iter().chain([value]) {
                    self.name(inner, name.text());
                }
                let declared =
                    self.scopes.get(inner).into_iter().flat_map(|it| it.names.values().copied());
                let declared = declared.collect();
                let (_, body) = self.query(inner, query);
                (false, Kind::Every(domain, declared, body))
            }
            Literal::Expr { expr, .. } => (false, self.kind(expr, place, out)),
            Literal::NotExpr { expr, .. } => (true, self.kind(expr, place, out)),
        };
        let prints = matches!(&from.literal, Literal::Expr { expr, .. } if is_print(expr));
        out.push(Statement {
            kind,
            negated: negated || prints,
            at_once: prints,
            with: with.clone(),
            span: &from.span,
        });
    }

    /// A whole expression: its own call is no statement before it.
    fn kind(
        &mut self,
        expr: &'a Expr,
        place: Place<'a, '_>,
        out: &mut Vec<Statement<'a>>,
    ) -> Kind<'a> {
        if let Expr::AssignExpr { lhs, rhs, .. } = expr {
            let left = self.term(lhs, place, out);
            let right = self.term(rhs, place, out);
            return Kind::Unify(left, right);
        }
        match operands(expr) {
            Some(operands) => {
                let params = operands.into_iter().map(|it| self.term(it, place, out)).collect();
                Kind::Call(params, None)
            }
            None => Kind::Value(self.term(expr, place, out)),
        }
    }

    fn element(
        &mut self,
        collection: Term<'a>,
        key: Term<'a>,
        place: Place<'a, '_>,
        out: &mut Vec<Statement<'a>>,
    ) -> Term<'a> {
        match collection {
            Term::Ref(root, mut indexes) => {
                indexes.push(key);
                Term::Ref(root, indexes)
            }
            Term::Var(var) => Term::Ref(Some(var), vec![key]),
            other => {
                let var = self.fresh(None);
                out.push(statement(Kind::Unify(Term::Var(var), other), place));
                Term::Ref(Some(var), vec![key])
            }
        }
    }

    /// The term of an expression. The calls in it become statements of `out`.
    fn term(
        &mut self,
        expr: &'a Expr,
        place: Place<'a, '_>,
        out: &mut Vec<Statement<'a>>,
    ) -> Term<'a> {
        if let Some((path, root)) = reference(expr) {
            let root = match (path.root, root) {
                (Some(name), _) => self.resolve(place.scope, expr, name),
                (None, root) => {
                    let term = root.map_or(Term::Literal(""), |root| self.term(root, place, out));
                    match term {
                        Term::Var(var) => Some(var),
                        term => {
                            let var = self.fresh(None);
                            let root = statement(Kind::Unify(Term::Var(var), term), place);
                            out.push(Statement { at_once: true, ..root });
                            Some(var)
                        }
                    }
                }
            };
            let indexes: Vec<Term<'a>> = path
                .steps
                .iter()
                .map(|step| match step {
                    Step::Name(name) => Term::Literal(name),
                    Step::Index(index) => self.term(index, place, out),
                })
                .collect();
            return match root {
                Some(var) if indexes.is_empty() => Term::Var(var),
                root => Term::Ref(root, indexes),
            };
        }
        if let Some(operands) = operands(expr) {
            let params = operands.into_iter().map(|it| self.term(it, place, out)).collect();
            let var = self.fresh(None);
            out.push(statement(Kind::Call(params, Some(var)), place));
            return Term::Var(var);
        }
        match expr {
            Expr::Array { items, .. } => {
                Term::Array(items.iter().map(|it| self.term(it, place, out)).collect())
            }
            Expr::Set { items, .. } => {
                Term::Set(items.iter().map(|it| self.term(it, place, out)).collect())
            }
            Expr::Object { fields, .. } => {
                let fields = fields.iter().map(|(_, key, value)| {
                    (self.term(key, place, out), self.term(value, place, out))
                });
                Term::Object(fields.collect())
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.closure(&[term], query, place)
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.closure(&[key, value], query, place)
            }
            other => Term::Literal(other.span().text()),
        }
    }

    fn closure(&mut self, head: &[&'a Expr], query: &'a Query, place: Place<'a, '_>) -> Term<'a> {
        let (scope, mut body) = self.query(place.scope, query);
        let inner = Place { scope, span: place.span, with: &[] };
        let head = head.iter().map(|expr| self.head(expr, inner, &mut body)).collect();
        Term::Closure(head, body)
    }
}

fn statement<'a>(kind: Kind<'a>, place: Place<'a, '_>) -> Statement<'a> {
    Statement { kind, negated: false, at_once: false, with: place.with.to_vec(), span: place.span }
}

/// Whether an expression is a call of `print`.
fn is_print(expr: &Expr) -> bool {
    let Expr::Call { fcn, .. } = expr else { return false };
    reference(fcn).and_then(|(name, _)| super::check::called(&name)).as_deref() == Some("print")
}

/// The operands of a call or operator; `None` for other expressions.
fn operands(expr: &Expr) -> Option<Vec<&Expr>> {
    Some(match expr {
        Expr::Call { params, .. } => params.iter().map(AsRef::as_ref).collect(),
        Expr::UnaryExpr { expr, .. } => vec![expr.as_ref()],
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. } => vec![lhs.as_ref(), rhs.as_ref()],
        Expr::Membership { key, value, collection, .. } => {
            key.iter().chain([value, collection]).map(AsRef::as_ref).collect()
        }
        _ => return None,
    })
}

/// Whether a term has a reference or a comprehension in it.
fn evaluates(term: &Term<'_>) -> bool {
    let mut todo = vec![term];
    while let Some(term) = todo.pop() {
        match term {
            Term::Ref(..) | Term::Closure(..) => return true,
            Term::Array(items) | Term::Set(items) => todo.extend(items),
            Term::Object(fields) => {
                todo.extend(fields.iter().flat_map(|(key, value)| [key, value]));
            }
            Term::Var(_) | Term::Literal(_) => {}
        }
    }
    false
}
