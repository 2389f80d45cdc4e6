//! Compiles the parsed modules into a [`Program`].
//!
//! What the program cannot evaluate as the interpreter does is refused, with its place; the policy
//! then runs on the strict engine.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use regorus::unstable::{
    AssignOp, BoolOp, Expr, Literal, LiteralStmt, Query, Rule as Ast, RuleHead, Span,
};

use super::index::{failing, fold, index_of};
use super::input::InputPath;
use super::ir::{Branch, Constant, Definition, Pattern, Program, Rule, Slot, Step, Term, known};
use super::native::Native;
use super::needs::{index_variables, needs, variable};
use super::operand::Names;
use super::schedule::{self, Definition as Needs};
use crate::Entrypoints;
use crate::builtins;
use crate::check::{Index, Path, called, dotted, is_function, location};
use crate::walk::{Reference, Step as RefStep, pattern_variables, reference, rule_args, rule_ref};

/// Why a construct is not compiled: `file:line: what`.
type Refused = String;

/// Compiles the rules that `entrypoints` reach.
///
/// # Errors
///
/// One line for each rule that the program cannot evaluate, sorted.
pub(super) fn compile(
    index: &Index<'_>,
    data: &Value,
    entrypoints: &Entrypoints,
) -> Result<Program, Vec<Refused>> {
    let reached = index.reachable([&entrypoints.decision, &entrypoints.listing]);
    let places: BTreeMap<Path<'_>, usize> =
        reached.iter().enumerate().map(|(at, path)| (path.clone(), at)).collect();
    let mut compiler = Compiler { index, data, places: &places, inputs: Vec::new() };
    let (mut rules, mut refused) = (Vec::new(), BTreeSet::new());
    for path in &reached {
        match compiler.rule(path) {
            Ok(rule) => rules.push(rule),
            Err(reason) => {
                refused.insert(reason);
            }
        }
    }
    if !refused.is_empty() {
        return Err(refused.into_iter().collect());
    }
    fold(&mut rules);
    let fails = failing(&rules);
    for at in 0..rules.len() {
        let built = rules.get(at).and_then(|rule| index_of(rule, &rules, &fails));
        if let Some(rule) = rules.get_mut(at) {
            rule.index = built;
        }
    }
    let place = |entry: &String| {
        let path: Vec<&str> = entry.split('.').skip(1).collect();
        places.get(&path).copied()
    };
    Ok(Program {
        inputs: compiler.inputs,
        rules,
        empty_set: Value::new_set(),
        decision: place(&entrypoints.decision),
        listing: place(&entrypoints.listing),
    })
}

struct Compiler<'a, 'c> {
    index: &'c Index<'a>,
    data: &'c Value,
    places: &'c BTreeMap<Path<'a>, usize>,
    inputs: Vec<InputPath>,
}

/// A local variable.
#[derive(Debug, Clone, Copy)]
struct Local {
    slot: Slot,
    /// Whether it has its value where the compiler is.
    bound: bool,
}

/// Where the compiler is: the module, and the variables of the bodies around, the innermost last.
struct Place<'a> {
    module: usize,
    scopes: Vec<BTreeMap<&'a str, Local>>,
    slots: usize,
}

impl<'a> Place<'a> {
    fn local(&self, name: &str) -> Option<Local> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).copied()
    }

    fn slot(&mut self) -> Slot {
        let slot = self.slots;
        self.slots = self.slots.saturating_add(1);
        slot
    }

    /// Adds a variable to the innermost body.
    fn declare(&mut self, name: &'a str, bound: bool) -> Slot {
        let slot = self.slot();
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, Local { slot, bound });
        }
        slot
    }

    /// The pattern of an index that iterates: `_`, or a variable of this body without a value.
    fn iterated(&mut self, index: &Expr) -> Option<Pattern> {
        match variable(index)? {
            "_" => Some(Pattern::Any),
            name => self.bind(name).map(Pattern::Slot),
        }
    }

    /// The variable gets its value here: its slot, if it is one of the innermost body without one.
    fn bind(&mut self, name: &str) -> Option<Slot> {
        let local = self.scopes.last_mut()?.get_mut(name).filter(|local| !local.bound)?;
        local.bound = true;
        Some(local.slot)
    }
}

fn refuse<T>(span: &Span, what: &str) -> Result<T, Refused> {
    let (file, line) = location(span);
    Err(format!("{file}:{line}: {what}"))
}

impl<'a> Compiler<'a, '_> {
    fn rule(&mut self, path: &Path<'a>) -> Result<Rule, Refused> {
        let mut rule = Rule {
            path: dotted(path),
            is_set: false,
            definitions: Vec::new(),
            default: None,
            constant: None,
            index: None,
        };
        for (module, ast) in self.index.rules.get(path).cloned().unwrap_or_default() {
            if !matches!(rule_ref(ast), Expr::Var { .. }) {
                return refuse(ast.span(), "a rule whose name is a reference");
            }
            let mut place = Place { module, scopes: vec![BTreeMap::new()], slots: 0 };
            match ast {
                Ast::Default { args, value, .. } => {
                    if !args.is_empty() {
                        return refuse(ast.span(), "a default for a function");
                    }
                    let value = self.term(&mut place, value, None)?;
                    rule.default = Some((value, place.slots));
                }
                Ast::Spec { head, bodies, .. } => {
                    rule.is_set = matches!(head, RuleHead::Set { .. });
                    let definition = self.definition(&mut place, ast, head, bodies)?;
                    rule.definitions.push(definition);
                }
            }
        }
        Ok(rule)
    }

    fn definition(
        &mut self,
        place: &mut Place<'a>,
        ast: &'a Ast,
        head: &'a RuleHead,
        bodies: &'a [regorus::unstable::RuleBody],
    ) -> Result<Definition, Refused> {
        let mut parameters = Vec::new();
        for arg in rule_args(ast) {
            for name in pattern_variables(arg) {
                if name != "_" && place.local(name).is_none() {
                    place.declare(name, false);
                }
            }
            parameters.push(self.pattern(place, arg)?);
        }
        let value = match head {
            RuleHead::Set { key: Some(key), .. } => Some(key.as_ref()),
            RuleHead::Set { key: None, .. } => {
                return refuse(ast.span(), "a set without `contains`");
            }
            RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
                assign.as_ref().map(|assign| assign.value.as_ref())
            }
        };
        let is_function = matches!(head, RuleHead::Func { .. });
        let mut branches = Vec::new();
        if bodies.is_empty() {
            let value = self.value(place, value)?;
            branches.push(Branch { body: Vec::new(), value });
        }
        for (at, body) in bodies.iter().enumerate() {
            if at > 0 && !body.is_else {
                return refuse(&body.span, "several bodies with one head");
            }
            let own = body.assign.as_ref().map(|assign| assign.value.as_ref());
            if at > 0 && own.is_none() && value.is_some() && is_function {
                return refuse(&body.span, "an `else` without a value in a function");
            }
            if at > 0 && matches!(head, RuleHead::Set { .. }) {
                return refuse(&body.span, "an `else` in a set");
            }
            let own = if at == 0 { own.or(value) } else { own };
            let steps = self.body(place, &body.query)?;
            let value = self.value(place, own)?;
            place.scopes.pop();
            branches.push(Branch { body: steps, value });
        }
        Ok(Definition { parameters, branches, slots: place.slots })
    }

    /// The value of a head; `true` where it has none.
    fn value(&mut self, place: &mut Place<'a>, value: Option<&'a Expr>) -> Result<Term, Refused> {
        match value {
            Some(value) => self.term(place, value, None),
            None => Ok(Term::Constant(Constant::new(Value::Bool(true)))),
        }
    }

    /// Compiles a body. Its variables stay the innermost scope, for the value that it gives; the
    /// caller removes it.
    fn body(&mut self, place: &mut Place<'a>, query: &'a Query) -> Result<Vec<Step>, Refused> {
        place.scopes.push(BTreeMap::new());
        self.declare_all(place, query);
        let own: BTreeSet<&'a str> =
            place.scopes.last().map(|scope| scope.keys().copied().collect()).unwrap_or_default();
        let needs: Vec<Vec<Needs<'a>>> =
            query.stmts.iter().map(|statement| needs(statement, &own)).collect();
        let mut steps = Vec::new();
        for at in schedule::order(&needs) {
            if let Some(statement) = query.stmts.get(at) {
                self.statement(place, statement, &mut steps)?;
            }
        }
        Ok(steps)
    }

    /// Declares the variables of a body: those of `some … in` and `:=`, and those that an index or
    /// `=` gives values to.
    fn declare_all(&self, place: &mut Place<'a>, query: &'a Query) {
        let mut names: Vec<&'a str> = Vec::new();
        let mut free: Vec<&'a str> = Vec::new();
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { vars, .. } => names.extend(vars.iter().map(Span::text)),
                Literal::SomeIn { key, value, collection, .. } => {
                    let patterns = key.iter().chain([value]);
                    names.extend(patterns.flat_map(|pattern| pattern_variables(pattern)));
                    index_variables(collection, &mut free);
                }
                Literal::Expr { expr, .. } => {
                    if let Expr::AssignExpr { op, lhs, rhs, .. } = expr.as_ref() {
                        if *op == AssignOp::ColEq {
                            names.extend(pattern_variables(lhs));
                        } else {
                            free.extend([lhs, rhs].iter().filter_map(|side| variable(side)));
                        }
                    }
                    index_variables(expr, &mut free);
                }
                Literal::Every { domain, .. } => index_variables(domain, &mut free),
                Literal::NotExpr { .. } => {}
            }
        }
        for name in names {
            let declared = place.scopes.last().is_some_and(|scope| scope.contains_key(name));
            if name != "_" && !declared {
                place.declare(name, false);
            }
        }
        for name in free {
            let known = place.local(name).is_some()
                || matches!(name, "_" | "input" | "data")
                || self.index.defines(place.module, name)
                || self.index.imports_name(place.module, name);
            if !known {
                place.declare(name, false);
            }
        }
    }

    fn statement(
        &mut self,
        place: &mut Place<'a>,
        statement: &'a LiteralStmt,
        steps: &mut Vec<Step>,
    ) -> Result<(), Refused> {
        if !statement.with_mods.is_empty() {
            return refuse(&statement.span, "`with`");
        }
        match &statement.literal {
            Literal::SomeVars { span, .. } => return refuse(span, "`some` without `in`"),
            Literal::SomeIn { key, value, collection, .. } => {
                let over = self.term(place, collection, Some(&mut *steps))?;
                let key = match key {
                    Some(key) => self.pattern(place, key)?,
                    None => Pattern::Any,
                };
                let value = self.pattern(place, value)?;
                steps.push(Step::Each { over, key, value, must_iterate: true });
            }
            Literal::Expr { expr, span } => {
                let step = match expr.as_ref() {
                    Expr::AssignExpr { op, lhs, rhs, .. } => {
                        self.assignment(place, span, op, [lhs, rhs], steps)?
                    }
                    _ => Step::Holds(self.term(place, expr, Some(&mut *steps))?),
                };
                steps.push(step);
            }
            Literal::NotExpr { expr, span } => {
                let term = match expr.as_ref() {
                    Expr::AssignExpr { op: AssignOp::ColEq, .. } => {
                        return refuse(span, "an assignment behind `not`");
                    }
                    Expr::AssignExpr { lhs, rhs, .. } => {
                        let left = self.term(place, lhs, None)?;
                        let right = self.term(place, rhs, None)?;
                        Term::Compare(BoolOp::Eq, Box::new(left), Box::new(right))
                    }
                    _ => self.term(place, expr, None)?,
                };
                steps.push(Step::Fails(term));
            }
            Literal::Every { key, value, domain, query, .. } => {
                let over = self.term(place, domain, Some(&mut *steps))?;
                place.scopes.push(BTreeMap::new());
                let key = key.as_ref().map(|key| place.declare(key.text(), true));
                let value = place.declare(value.text(), true);
                let body = self.body(place, query)?;
                place.scopes.pop();
                place.scopes.pop();
                steps.push(Step::Every { over, key, value, body });
            }
        }
        Ok(())
    }

    /// `:=`, or `=` where one side is a variable without a value, or both sides have values.
    fn assignment(
        &mut self,
        place: &mut Place<'a>,
        span: &'a Span,
        op: &AssignOp,
        [lhs, rhs]: [&'a Expr; 2],
        steps: &mut Vec<Step>,
    ) -> Result<Step, Refused> {
        if *op == AssignOp::ColEq {
            let value = self.term(place, rhs, Some(&mut *steps))?;
            return Ok(Step::Match(self.pattern(place, lhs)?, value));
        }
        let open = |place: &Place<'a>, side: &Expr| {
            let name = variable(side)?;
            (name == "_" || place.local(name).is_some_and(|local| !local.bound)).then_some(())
        };
        match (open(place, lhs), open(place, rhs)) {
            (Some(()), None) => {
                let value = self.term(place, rhs, Some(&mut *steps))?;
                Ok(Step::Match(self.pattern(place, lhs)?, value))
            }
            (None, Some(())) => {
                let value = self.term(place, lhs, Some(&mut *steps))?;
                Ok(Step::Match(self.pattern(place, rhs)?, value))
            }
            (None, None) => {
                let left = self.term(place, lhs, Some(&mut *steps))?;
                let right = self.term(place, rhs, Some(&mut *steps))?;
                Ok(Step::Holds(Term::Compare(BoolOp::Eq, Box::new(left), Box::new(right))))
            }
            (Some(()), Some(())) => refuse(span, "a unification of two variables without values"),
        }
    }

    /// A pattern. Its variables get their values.
    fn pattern(&mut self, place: &mut Place<'a>, expr: &'a Expr) -> Result<Pattern, Refused> {
        match expr {
            Expr::Var { span, .. } if span.text() == "_" => Ok(Pattern::Any),
            Expr::Var { span, .. } => match place.bind(span.text()) {
                Some(slot) => Ok(Pattern::Slot(slot)),
                None => refuse(span, "a variable that already has a value, in a pattern"),
            },
            Expr::Array { items, .. } => {
                let items = items.iter().map(|item| self.pattern(place, item));
                Ok(Pattern::Array(items.collect::<Result<_, _>>()?))
            }
            Expr::Object { fields, .. } => {
                let mut members = Vec::new();
                for (span, key, value) in fields {
                    let Term::Constant(key) = self.term(place, key, None)? else {
                        return refuse(span, "a computed name in a pattern");
                    };
                    members.push((key.value, self.pattern(place, value)?));
                }
                Ok(Pattern::Object(members))
            }
            _ => match self.term(place, expr, None)? {
                term @ Term::Constant(_) => Ok(Pattern::Equal(term)),
                _ => refuse(expr.span(), "an expression in a pattern"),
            },
        }
    }

    /// Compiles an expression. `steps` gets the iteration of indexes without values; without it,
    /// such an index is refused.
    fn term(
        &mut self,
        place: &mut Place<'a>,
        expr: &'a Expr,
        steps: Option<&mut Vec<Step>>,
    ) -> Result<Term, Refused> {
        let constant = |value: &Value| Ok(Term::Constant(Constant::new(value.clone())));
        match expr {
            Expr::String { value, .. }
            | Expr::RawString { value, .. }
            | Expr::Number { value, .. }
            | Expr::Bool { value, .. }
            | Expr::Null { value, .. } => constant(value),
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => {
                self.reference(place, expr, steps)
            }
            Expr::Array { items, .. } => {
                let items = self.terms(place, items.iter().map(AsRef::as_ref), steps)?;
                Ok(folded(&items, Value::from).unwrap_or(Term::Array(items)))
            }
            Expr::Set { items, .. } => {
                let items = self.terms(place, items.iter().map(AsRef::as_ref), steps)?;
                let set =
                    |items: Vec<Value>| Value::from(items.into_iter().collect::<BTreeSet<_>>());
                Ok(folded(&items, set).unwrap_or(Term::Set(items)))
            }
            Expr::Object { fields, .. } => self.object(place, fields, steps),
            Expr::ArrayCompr { term, query, .. } => {
                let (value, body) = self.comprehension(place, query, [term])?;
                let [value] = value;
                Ok(Term::ArrayOf(Box::new(value), body))
            }
            Expr::SetCompr { term, query, .. } => {
                let (value, body) = self.comprehension(place, query, [term])?;
                let [value] = value;
                Ok(Term::SetOf(Box::new(value), body))
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                let ([key, value], body) = self.comprehension(place, query, [key, value])?;
                Ok(Term::ObjectOf(Box::new((key, value)), body))
            }
            Expr::Call { fcn, params, span, .. } => self.call(place, fcn, params, span, steps),
            Expr::UnaryExpr { expr: inner, span, .. } => match inner.as_ref() {
                Expr::Number { value: Value::Number(number), .. } => match number.neg() {
                    Some(number) => constant(&Value::Number(number)),
                    None => refuse(span, "a number without a negative"),
                },
                _ => refuse(span, "`-` before something else than a number"),
            },
            Expr::BinExpr { op, lhs, rhs, .. } => {
                self.sides(place, lhs, rhs, steps).map(|[a, b]| Term::Sets(op.clone(), a, b))
            }
            Expr::BoolExpr { op, lhs, rhs, .. } => {
                self.sides(place, lhs, rhs, steps).map(|[a, b]| Term::Compare(op.clone(), a, b))
            }
            Expr::ArithExpr { op, lhs, rhs, .. } => {
                self.sides(place, lhs, rhs, steps).map(|[a, b]| Term::Arithmetic(op.clone(), a, b))
            }
            Expr::Membership { key: None, value, collection, .. } => {
                let [value, collection] = self.sides(place, value, collection, steps)?;
                Ok(Term::Contains { value, collection, counted: false })
            }
            Expr::Membership { span, .. } => refuse(span, "`in` with a key"),
            Expr::AssignExpr { span, .. } => refuse(span, "an assignment inside an expression"),
        }
    }

    fn object(
        &mut self,
        place: &mut Place<'a>,
        fields: &'a [(Span, regorus::unstable::Ref<Expr>, regorus::unstable::Ref<Expr>)],
        mut steps: Option<&mut Vec<Step>>,
    ) -> Result<Term, Refused> {
        let mut members = Vec::new();
        for (_, key, value) in fields {
            let key = self.term(place, key, steps.as_deref_mut())?;
            members.push((key, self.term(place, value, steps.as_deref_mut())?));
        }
        let values: Option<BTreeMap<Value, Value>> = members
            .iter()
            .map(|(key, value)| Some((known(key)?.clone(), known(value)?.clone())))
            .collect();
        Ok(match values {
            Some(values) => Term::Constant(Constant::new(Value::from(values))),
            None => match names(&members) {
                Some(names) => {
                    Term::Record(names, members.into_iter().map(|(_, value)| value).collect())
                }
                None => Term::Object(members),
            },
        })
    }

    fn terms(
        &mut self,
        place: &mut Place<'a>,
        exprs: impl Iterator<Item = &'a Expr>,
        mut steps: Option<&mut Vec<Step>>,
    ) -> Result<Vec<Term>, Refused> {
        exprs.map(|expr| self.term(place, expr, steps.as_deref_mut())).collect()
    }

    fn sides(
        &mut self,
        place: &mut Place<'a>,
        left: &'a Expr,
        right: &'a Expr,
        mut steps: Option<&mut Vec<Step>>,
    ) -> Result<[Box<Term>; 2], Refused> {
        let left = self.term(place, left, steps.as_deref_mut())?;
        Ok([Box::new(left), Box::new(self.term(place, right, steps)?)])
    }

    fn comprehension<const N: usize>(
        &mut self,
        place: &mut Place<'a>,
        query: &'a Query,
        values: [&'a Expr; N],
    ) -> Result<([Term; N], Vec<Step>), Refused> {
        let body = self.body(place, query)?;
        let mut terms = Vec::new();
        for value in values {
            terms.push(self.term(place, value, None)?);
        }
        place.scopes.pop();
        match terms.try_into() {
            Ok(terms) => Ok((terms, body)),
            Err(_) => refuse(&query.span, "a comprehension of another form"),
        }
    }

    fn call(
        &mut self,
        place: &mut Place<'a>,
        callee: &'a Expr,
        params: &'a [regorus::unstable::Ref<Expr>],
        span: &'a Span,
        steps: Option<&mut Vec<Step>>,
    ) -> Result<Term, Refused> {
        let Some((callee, None)) = reference(callee) else {
            return refuse(span, "a call of a computed function");
        };
        let args = self.terms(place, params.iter().map(AsRef::as_ref), steps)?;
        if let Some(path) = self.index.function(place.module, &callee) {
            let Some(at) = self.places.get(&path) else {
                return refuse(span, "a function that is not reached");
            };
            let arity = self.arity(&path);
            if arity != Some(args.len()) {
                return refuse(span, "a function with another number of arguments");
            }
            return Ok(Term::Function(*at, args));
        }
        let name = called(&callee).unwrap_or_default();
        let Some(builtin) = builtins::find_any(&name) else {
            return refuse(span, &format!("a call of `{name}`"));
        };
        if builtin.arity() != args.len() {
            return refuse(span, "a built-in with a variable for its result");
        }
        let native = Native::of(builtin, args.first().and_then(known));
        match (builtin.name, <[Term; 2]>::try_from(args)) {
            ("__member", Ok([value, collection])) => Ok(Term::Contains {
                value: Box::new(value),
                collection: Box::new(collection),
                counted: true,
            }),
            (_, Ok(args)) => Ok(Term::Call(builtin, native, args.into())),
            (_, Err(args)) => Ok(Term::Call(builtin, native, args)),
        }
    }

    /// The number of parameters of a function; `None` where its definitions differ.
    fn arity(&self, path: &Path<'a>) -> Option<usize> {
        let definitions = self.index.rules.get(path)?;
        let mut arities = definitions.iter().map(|(_, rule)| rule_args(rule).len());
        let first = arities.next()?;
        arities.all(|arity| arity == first).then_some(first)
    }

    fn reference(
        &mut self,
        place: &mut Place<'a>,
        expr: &'a Expr,
        mut steps: Option<&mut Vec<Step>>,
    ) -> Result<Term, Refused> {
        let Some((reference, root)) = reference(expr) else {
            return refuse(expr.span(), "a reference of another form");
        };
        let (mut term, taken, of_data) = match (reference.root, root) {
            (_, Some(root)) => (self.term(place, root, steps.as_deref_mut())?, 0, false),
            (Some(name), None) => match place.local(name) {
                Some(Local { slot, bound: true }) => (Term::Local(slot), 0, false),
                Some(Local { bound: false, .. }) => {
                    return refuse(reference.span, "a variable before it has a value");
                }
                None => self.document(place, &reference)?,
            },
            (None, None) => return refuse(reference.span, "a reference without a root"),
        };
        for step in reference.steps.iter().skip(taken) {
            let index = match *step {
                RefStep::Name(name) => Term::Constant(Constant::new(Value::from(name))),
                RefStep::Index(index) => match place.iterated(index) {
                    Some(key) => {
                        let Some(steps) = steps.as_deref_mut() else {
                            return refuse(index.span(), "iteration inside a value");
                        };
                        let slot = place.slot();
                        let value = Pattern::Slot(slot);
                        steps.push(Step::Each { over: term, key, value, must_iterate: false });
                        term = Term::Local(slot);
                        continue;
                    }
                    None => self.term(place, index, steps.as_deref_mut())?,
                },
            };
            term = match (known(&term), known(&index)) {
                (Some(of), Some(index)) if matches!(index, Value::String(_)) => {
                    match of[index].clone() {
                        Value::Undefined => Term::Undefined,
                        value => Term::Constant(Constant::new(value)),
                    }
                }
                _ => Term::Get { of: Box::new(term), index: Box::new(index), of_data },
            };
        }
        Ok(term)
    }

    /// A reference to the input, a rule or the data: the term, how many steps it covers, and whether
    /// it is below `data`.
    fn document(
        &mut self,
        place: &Place<'a>,
        reference: &Reference<'a>,
    ) -> Result<(Term, usize, bool), Refused> {
        let names = reference.prefix();
        if reference.root == Some("input") {
            let at = self.inputs.iter().position(|known| known.is(&names)).unwrap_or_else(|| {
                self.inputs.push(InputPath::new(&names));
                self.inputs.len().saturating_sub(1)
            });
            return Ok((Term::Input(at), names.len(), false));
        }
        if self.index.imported(place.module, reference).is_some() {
            return refuse(reference.span, "an import");
        }
        let Some(path) = self.index.resolve(place.module, reference) else {
            return refuse(reference.span, "a name without a value");
        };
        let before = path.len().saturating_sub(names.len());
        let of_data = reference.root == Some("data");
        for end in (1..=path.len()).rev() {
            let Some(prefix) = path.get(..end) else { continue };
            let Some(definitions) = self.index.rules.get(prefix) else { continue };
            let Some(at) = self.places.get(prefix) else {
                return refuse(reference.span, "a rule that is not reached");
            };
            if definitions.iter().any(|(_, rule)| is_function(rule)) {
                return refuse(reference.span, "a function used as a value");
            }
            return Ok((Term::Rule(*at), end.saturating_sub(before), of_data));
        }
        if path.is_empty()
            || self.index.overlapping(&path).next().is_some()
            || self.index.covers_package(&path)
        {
            return refuse(reference.span, "a reference to a whole package");
        }
        let mut value = self.data;
        for name in &path {
            value = &value[&Value::from(*name)];
        }
        let term = match value {
            Value::Undefined => Term::Undefined,
            value => Term::Constant(Constant::new(value.clone())),
        };
        Ok((term, names.len(), of_data))
    }
}

/// The names of an object, if they are constant texts and each is given once.
fn names(members: &[(Term, Term)]) -> Option<Names> {
    let given: Option<Vec<&Value>> = members
        .iter()
        .map(|(name, _)| known(name).filter(|name| matches!(name, Value::String(_))))
        .collect();
    let given = given?;
    let sorted: BTreeSet<&Value> = given.iter().copied().collect();
    if sorted.len() != given.len() {
        return None;
    }
    let places: Option<Vec<usize>> =
        given.iter().map(|name| sorted.iter().position(|it| it == name)).collect();
    let sorted = sorted.into_iter().cloned().collect();
    Some(Names { sorted, places: places?.into() })
}

/// A collection of constants, as a constant.
fn folded(items: &[Term], collect: impl Fn(Vec<Value>) -> Value) -> Option<Term> {
    let values: Option<Vec<Value>> = items.iter().map(|item| known(item).cloned()).collect();
    values.map(|values| Term::Constant(Constant::new(collect(values))))
}
