//! Finds names of members that a rule puts together or describes instead of writing them.
//!
//! A sender names the members of arguments and params, and some servers read `Environment` as
//! `environment`. The program denies such a look-alike of every name that the policy writes
//! (`alias`). A name that exists only during an evaluation (`arguments[concat("", ["env", x])]`), that
//! a rule describes (`startswith(name, "env")`), or that is inside a text
//! (`json.unmarshal(arguments.body).env`) has no look-alikes that the program could know, so the author
//! is told.
//!
//! The analysis follows values through variables, rules, functions and their arguments, without
//! regard to the order of statements: `value` says of each what it may be. It gives up after
//! [`ROUNDS_MAX`] rounds; each is linear in the text of the policy. The [`lint`](super::lint()) calls
//! it.

mod value;

mod problem;

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{
    ArithOp, AssignOp, BinOp, BoolOp, Expr, Literal, LiteralStmt, Rule, RuleHead, Span,
};

use super::absent::Lint;
use super::check::{Index, Path, called, location};
use super::negation::children;
use super::walk::{
    Reference, SETS, Step, Visit, Walk, pattern_variables, reference, rule_args, rule_ref,
};
use problem::{Problem, alike, call, compared, is_text, looked_up};
use value::{Marks, Value, of_call, of_input};

/// The code of the findings.
pub(super) const COMPUTED_NAME: &str = "computed-name";

/// Most rounds over all rules until nothing new is known of any value.
const ROUNDS_MAX: usize = 32;
/// Deepest nesting of an expression whose value is followed. `EvalLimits` permits less.
const DEPTH_MAX: usize = 64;
/// Most characters of an expression in a message.
const SHOWN_CHARS_MAX: usize = 80;

/// The findings in all rules. `permitting` are the rules whose results lead to a permit.
pub(super) fn findings<'a>(index: &Index<'a>, permitting: &BTreeSet<Path<'a>>) -> BTreeSet<Lint> {
    let mut search = Search {
        index,
        bodies: BTreeMap::new(),
        variables: BTreeMap::new(),
        parameters: BTreeMap::new(),
        rules: BTreeMap::new(),
        changed: false,
    };
    let rules = || {
        index.rules.iter().flat_map(|(path, rules)| {
            rules.iter().map(move |(module, rule)| Place { path, module: *module, rule })
        })
    };
    for place in rules() {
        search.bodies.insert(std::ptr::from_ref(place.rule), Body::of(place.rule));
    }
    for _ in 0..ROUNDS_MAX {
        search.changed = false;
        rules().for_each(|place| search.follow(place));
        if !search.changed {
            break;
        }
    }
    let mut found = BTreeMap::new();
    for place in rules() {
        search.check(place, permitting.contains(place.path), &mut found);
    }
    found.into_values().collect()
}

/// One definition.
#[derive(Debug, Clone, Copy)]
struct Place<'a, 'p> {
    path: &'p Path<'a>,
    module: usize,
    rule: &'a Rule,
}

/// The parts of a definition.
#[derive(Debug, Default)]
struct Body<'a> {
    statements: Vec<&'a LiteralStmt>,
    /// Every expression that is no part of another one.
    outer: Vec<&'a Expr>,
    /// Variables that are declared, or that something else than an index gives a value.
    declared: BTreeSet<&'a str>,
    /// Of these, the ones that `some` declares alone.
    free: BTreeSet<&'a str>,
}

impl<'a> Body<'a> {
    fn of(rule: &'a Rule) -> Self {
        let mut body = Self { outer: heads(rule), ..Self::default() };
        let args = rule_args(rule).into_iter();
        body.declared.extend(args.flat_map(pattern_variables));
        for visit in Walk::rule(rule) {
            let Visit::Statement(statement) = visit else { continue };
            body.statements.push(statement);
            body.outer.extend(statement.with_mods.iter().map(|it| it.r#as.as_ref()));
            match &statement.literal {
                Literal::SomeVars { vars, .. } => {
                    body.free.extend(vars.iter().map(Span::text));
                }
                Literal::SomeIn { key, value, collection, .. } => {
                    let patterns = key.iter().chain([value]);
                    body.declared.extend(patterns.flat_map(|it| pattern_variables(it)));
                    body.outer.push(collection);
                }
                Literal::Every { key, value, domain, .. } => {
                    body.declared.extend(key.iter().chain([value]).map(Span::text));
                    body.outer.push(domain);
                }
                Literal::NotExpr { expr, .. } => body.outer.push(expr),
                Literal::Expr { expr, .. } => {
                    body.outer.push(expr);
                    if let Expr::AssignExpr { op, lhs, rhs, .. } = expr.as_ref() {
                        body.declared.extend(pattern_variables(lhs));
                        if *op == AssignOp::Eq {
                            body.declared.extend(pattern_variables(rhs));
                        }
                    }
                }
            }
        }
        body.free.retain(|name| !body.declared.contains(name));
        body.declared.extend(&body.free);
        body
    }
}

/// The values of a definition, of its `else` branches, and the computed keys of its name.
fn heads(rule: &Rule) -> Vec<&Expr> {
    let mut found: Vec<&Expr> = Vec::new();
    match rule {
        Rule::Default { value, .. } => found.push(value),
        Rule::Spec { head, bodies, .. } => {
            match head {
                RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
                    found.extend(assign.iter().map(|it| it.value.as_ref()));
                }
                RuleHead::Set { key, .. } => found.extend(key.iter().map(AsRef::as_ref)),
            }
            let values = bodies.iter().filter_map(|body| body.assign.as_ref());
            found.extend(values.map(|assign| assign.value.as_ref()));
        }
    }
    found.extend(computed_keys(rule));
    found
}

fn computed_keys(rule: &Rule) -> Vec<&Expr> {
    let steps = reference(rule_ref(rule)).map(|(it, _)| it.steps).unwrap_or_default();
    let keys = steps.into_iter().filter_map(|step| match step {
        Step::Index(index) => Some(index),
        Step::Name(_) => None,
    });
    keys.collect()
}

struct Search<'a, 'i> {
    index: &'i Index<'a>,
    bodies: BTreeMap<*const Rule, Body<'a>>,
    variables: BTreeMap<(*const Rule, &'a str), Value>,
    /// The arguments of each function, of all its calls together.
    parameters: BTreeMap<(Path<'a>, usize), Value>,
    rules: BTreeMap<Path<'a>, Value>,
    changed: bool,
}

impl<'a> Search<'a, '_> {
    /// Learns what one definition says of variables, of its own value and of arguments.
    fn follow(&mut self, place: Place<'a, '_>) {
        let rule = std::ptr::from_ref(place.rule);
        let Some(body) = self.bodies.remove(&rule) else { return };
        for (at, arg) in rule_args(place.rule).into_iter().enumerate() {
            let known = self.parameters.get(&(place.path.clone(), at)).copied();
            self.bind(place, &body, arg, known.unwrap_or_default());
        }
        for statement in &body.statements {
            self.statement(place, &body, statement);
        }
        each(&body.outer, &mut |expr| self.expression(place, &body, expr));
        // What decides is combined, not compared with names.
        let decides = matches!(place.path[..], ["mcp", name] if SETS.contains(&name));
        if !decides {
            let mut value = Value::default();
            for head in heads(place.rule) {
                value = value.and(self.value(place, &body, head, 0));
            }
            for key in computed_keys(place.rule) {
                value.names = value.names | self.value(place, &body, key, 0).own;
            }
            let known = self.rules.entry(place.path.clone()).or_default();
            self.changed |= known.and(value) != *known;
            *known = known.and(value);
        }
        self.bodies.insert(rule, body);
    }

    fn statement(&mut self, place: Place<'a, '_>, body: &Body<'a>, statement: &'a LiteralStmt) {
        match &statement.literal {
            Literal::SomeIn { key, value, collection, .. } => {
                let all = self.value(place, body, collection, 0);
                if let Some(key) = key {
                    self.bind(place, body, key, Value::of(all.names));
                }
                self.bind(place, body, value, all);
            }
            Literal::Every { key, value, domain, .. } => {
                let all = self.value(place, body, domain, 0);
                if let Some(key) = key {
                    self.learn(place, key.text(), Value::of(all.names));
                }
                self.learn(place, value.text(), all);
            }
            Literal::Expr { expr, .. } => {
                if let Expr::AssignExpr { op, lhs, rhs, .. } = expr.as_ref() {
                    let value = self.value(place, body, rhs, 0);
                    self.bind(place, body, lhs, value);
                    if *op == AssignOp::Eq {
                        let value = self.value(place, body, lhs, 0);
                        self.bind(place, body, rhs, value);
                    }
                }
            }
            Literal::SomeVars { .. } | Literal::NotExpr { .. } => {}
        }
    }

    /// Learns from a call what its arguments are, and from a reference over which names it iterates.
    fn expression(&mut self, place: Place<'a, '_>, body: &Body<'a>, expr: &'a Expr) {
        if let Some((path, root)) = reference(expr) {
            let base = self.root(place, body, &path, root, 0);
            for step in &path.steps {
                if let Step::Index(Expr::Var { span, .. }) = step
                    && span.text() != "_"
                    && (!body.declared.contains(span.text()) || body.free.contains(span.text()))
                {
                    self.learn(place, span.text(), Value::of(base.names));
                }
            }
        }
        if let Expr::Call { fcn, params, .. } = expr
            && let Some((callee, _)) = reference(fcn)
            && let Some(function) = self.index.function(place.module, &callee)
        {
            for (at, param) in params.iter().enumerate() {
                let value = self.value(place, body, param, 0);
                let known = self.parameters.entry((function.clone(), at)).or_default();
                self.changed |= known.and(value) != *known;
                *known = known.and(value);
            }
        }
    }

    fn bind(&mut self, place: Place<'a, '_>, body: &Body<'a>, pattern: &'a Expr, value: Value) {
        for name in pattern_variables(pattern) {
            if body.declared.contains(name) {
                self.learn(place, name, value);
            }
        }
    }

    fn learn(&mut self, place: Place<'a, '_>, name: &'a str, value: Value) {
        let known = self.variables.entry((std::ptr::from_ref(place.rule), name)).or_default();
        self.changed |= known.and(value) != *known;
        *known = known.and(value);
    }

    /// What the root of a reference is; below `input`, what the path names.
    fn root(
        &self,
        place: Place<'a, '_>,
        body: &Body<'a>,
        path: &Reference<'a>,
        root: Option<&'a Expr>,
        depth: usize,
    ) -> Value {
        let Some(name) = path.root else {
            return root.map_or(Value::default(), |it| self.value(place, body, it, depth));
        };
        let variable = || {
            let key = (std::ptr::from_ref(place.rule), name);
            self.variables.get(&key).copied().unwrap_or_default()
        };
        if body.declared.contains(name) {
            return variable();
        }
        if name == "input" {
            return of_input(&path.prefix());
        }
        if let Some(["input", imported @ ..]) =
            self.index.imported(place.module, path).map(Vec::as_slice)
        {
            return of_input(&[imported, &path.prefix()].concat());
        }
        match self.index.resolve(place.module, path) {
            Some(target) => {
                let rules = self.index.overlapping(&target);
                let values = rules.filter_map(|rule| self.rules.get(rule));
                values.fold(Value::default(), |all, value| all.and(*value))
            }
            None => variable(),
        }
    }

    fn value(&self, place: Place<'a, '_>, body: &Body<'a>, expr: &'a Expr, depth: usize) -> Value {
        if depth > DEPTH_MAX {
            return Value::default();
        }
        let below = depth.saturating_add(1);
        let of = |expr: &'a Expr| self.value(place, body, expr, below);
        if let Some((path, root)) = reference(expr) {
            return self.root(place, body, &path, root, below);
        }
        match expr {
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                items.iter().fold(Value::default(), |all, it| all.and(of(it)))
            }
            Expr::Object { fields, .. } => {
                // What one member is says nothing of the others.
                let kept = Marks::SENT | Marks::INPUT | Marks::MADE | Marks::PARSED;
                fields.iter().fold(Value::default(), |all, (_, key, value)| {
                    let value = of(value);
                    all.and(Value { own: value.own & kept, names: of(key).own | value.names })
                })
            }
            Expr::ArrayCompr { term, .. } | Expr::SetCompr { term, .. } => of(term),
            Expr::ObjectCompr { key, value, .. } => {
                let value = of(value);
                Value { own: value.own, names: of(key).own | value.names }
            }
            Expr::BinExpr { lhs, rhs, .. } => of(lhs).and(of(rhs)),
            // A difference of sets.
            Expr::ArithExpr { lhs, .. } => of(lhs),
            Expr::Call { fcn, params, .. } => {
                let Some((callee, _)) = reference(fcn) else { return Value::default() };
                if let Some(function) = self.index.function(place.module, &callee) {
                    return self.rules.get(&function).copied().unwrap_or_default();
                }
                let params: Vec<Value> = params.iter().map(|it| of(it)).collect();
                called(&callee).map_or(Value::default(), |name| of_call(&name, &params))
            }
            _ => Value::default(),
        }
    }

    /// Looks for the findings in one definition.
    fn check(
        &self,
        place: Place<'a, '_>,
        permits: bool,
        found: &mut BTreeMap<(String, u32), Lint>,
    ) {
        let Some(body) = self.bodies.get(&std::ptr::from_ref(place.rule)) else { return };
        each(&body.outer, &mut |expr| {
            if let Some((message, hint)) = self.finding(place, body, permits, expr) {
                let (file, line) = location(expr.span());
                let (file, hint) = (file.to_owned(), hint.to_owned());
                found.entry((file.clone(), line)).or_insert_with(|| Lint {
                    file,
                    line,
                    code: COMPUTED_NAME,
                    message: format!("`{}`: {message}", shown(expr)),
                    hint,
                });
            }
        });
    }

    fn finding(
        &self,
        place: Place<'a, '_>,
        body: &Body<'a>,
        permits: bool,
        expr: &'a Expr,
    ) -> Option<(String, &'static str)> {
        let of = |expr: &'a Expr| self.value(place, body, expr, 0);
        let found = if let Some((path, root)) = reference(expr) {
            let base = self.root(place, body, &path, root, 0);
            path.steps.iter().find_map(|step| match step {
                Step::Name(_) => base.own.any(Marks::PARSED).then_some(Problem::InText),
                Step::Index(index) if index.span().text() == "_" => None,
                Step::Index(index) => looked_up(base, of(index)),
            })
        } else {
            match expr {
                Expr::Call { fcn, params, .. } => {
                    let (callee, _) = reference(fcn)?;
                    if self.index.function(place.module, &callee).is_some() {
                        return None;
                    }
                    let params: Vec<&'a Expr> = params.iter().map(AsRef::as_ref).collect();
                    call(&called(&callee)?, &params, &of)
                }
                Expr::BoolExpr { op: BoolOp::Eq | BoolOp::Ne, lhs, rhs, .. }
                | Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. }
                | Expr::BinExpr { op: BinOp::Intersection, lhs, rhs, .. }
                | Expr::ArithExpr { op: ArithOp::Sub, lhs, rhs, .. } => alike(of(lhs), of(rhs)),
                Expr::BoolExpr { lhs, rhs, .. } => {
                    let sides = [(lhs, rhs), (rhs, lhs)];
                    let bound = sides
                        .into_iter()
                        .any(|(name, text)| is_text(text) && of(name).own.any(Marks::NAMES));
                    bound.then_some(Problem::Described)
                }
                Expr::Membership { key, value, collection, .. } => {
                    let all = of(collection);
                    let by_key = key.as_ref().and_then(|key| compared(of(key).own, all.names));
                    by_key.or_else(|| compared(of(value).own, all.own))
                }
                _ => None,
            }
        };
        found.filter(|found| permits || *found != Problem::Folded).map(Problem::text)
    }
}

/// An expression as a message shows it: in one line, and not too long.
fn shown(expr: &Expr) -> String {
    let text = expr.span().text().split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text;
    }
    text.chars().take(SHOWN_CHARS_MAX).chain(['…']).collect()
}

/// Visits expressions and all parts of them but the names of functions and the bodies of
/// comprehensions. A reference is visited once, not for each of its steps.
fn each<'a>(outer: &[&'a Expr], visit: &mut dyn FnMut(&'a Expr)) {
    let mut todo: Vec<&'a Expr> = outer.to_vec();
    while let Some(expr) = todo.pop() {
        visit(expr);
        if let Some((path, root)) = reference(expr) {
            todo.extend(root);
            todo.extend(path.steps.iter().filter_map(|step| match step {
                Step::Index(index) => Some(*index),
                Step::Name(_) => None,
            }));
            continue;
        }
        match expr {
            Expr::Call { params, .. } => todo.extend(params.iter().map(AsRef::as_ref)),
            Expr::ArrayCompr { term, .. } | Expr::SetCompr { term, .. } => todo.push(term),
            Expr::ObjectCompr { key, value, .. } => todo.extend([key.as_ref(), value.as_ref()]),
            other => todo.extend(children(other)),
        }
    }
}
