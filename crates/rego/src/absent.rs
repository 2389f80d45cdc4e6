//! Finds restrictions that disappear where an operand is absent.
//!
//! In Rego a body with an undefined operand is undefined, also where the operand is inside `not`
//! (see `negation`): `deny contains … if not startswith(input.tool.arguments.env, "dev")` denies
//! nothing when a call leaves `env` out. An author who writes that almost never means it, and a
//! client chooses what it leaves out. So such a policy is refused, unless a comment
//! `# bartizan:allow absent-operand` accepts it.
//!
//! Checked are the rules whose result restricts ([`RESTRICTING`]), and the rules and functions that
//! these use; under `not` a rule restricts where its user permits. An operand counts as absent
//! where the schema of the input says that a field may be, and where a document is looked up by a
//! computed key. A positive statement of the same body that needs the operand (`is_string(x)`,
//! `x == 1`, `"env" in object.keys(…)`) shows that it is there; an assignment alone does not.
//! [`Policy`](super::Policy) and the linter call it.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{AssignOp, BoolOp, Expr, Literal, LiteralStmt, Query, Rule, RuleHead};

use serde::Serialize;

use super::check::{Index, Path, called, location};
use super::negation::{children, operands};
use super::schema::{FieldType, below, field};
use super::walk::{Reference, Step, reference, rule_args};

/// The code of the findings about `not` and `every`.
pub(super) const ABSENT_OPERAND: &str = "absent-operand";

/// The code of the findings about `!=`.
pub(super) const UNDEFINED_COMPARISON: &str = "undefined-comparison";

/// The rules of `package mcp` whose elements restrict something. `refuse` is not among them: it
/// gives only the reason where nothing permits.
pub(super) const RESTRICTING: [&str; 6] = ["deny", "hold", "limit", "set", "redact", "hide"];

const HINT: &str = "say what is allowed in a rule of its own and negate that (`not allowed_env`), \
                    give a default with `object.get`, or require the operand in the same body";

/// Prefixes of the paths that the client writes, and so can leave out.
const CLIENT_WRITTEN: [&str; 3] =
    ["input.params.", "input.prompt.arguments.", "input.tool.arguments."];

/// One finding of the linter. The order is by file, line and code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Lint {
    /// The path of the source.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The code that `bartizan:allow` names: one of [`TRAPS`](super::TRAPS).
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// What is undefined where something is absent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source<'a> {
    /// A path below `input`.
    Input(Vec<&'a str>),
    /// A part of an argument of the function: its position, and a path below it.
    Param(usize, Vec<&'a str>),
    /// A value that is looked up by a computed key, as it is written.
    Lookup(&'a str),
}

/// What the absence of a source would undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Restricts,
    Permits,
}

impl Effect {
    fn negated(self) -> Self {
        match self {
            Self::Restricts => Self::Permits,
            Self::Permits => Self::Restricts,
        }
    }
}

/// What is known inside one body.
#[derive(Debug, Clone, Default)]
struct Body<'a> {
    /// What the variables stand for. The second value says whether it is the whole value, so that a
    /// path continues below it.
    variables: BTreeMap<&'a str, (Vec<Source<'a>>, bool)>,
    /// What is present where the body's positive statements hold, and how many of them need it.
    present: BTreeMap<Source<'a>, usize>,
    /// For each key that `some k, v in c` declares, the collection as it is written.
    keys: BTreeMap<&'a str, &'a str>,
}

/// All findings in the rules that [`RESTRICTING`] reach, in any order.
pub(super) fn findings(index: &Index<'_>) -> BTreeSet<Lint> {
    let mut search = Search { index, negated: BTreeMap::new(), found: BTreeSet::new() };
    let named = |name: &'static str| vec!["mcp", name];
    let mut todo: Vec<(Path<'_>, Effect)> =
        RESTRICTING.iter().map(|name| (named(name), Effect::Restricts)).collect();
    todo.push((named("permit"), Effect::Permits));
    let mut met: BTreeSet<(Path<'_>, Effect)> = BTreeSet::new();
    while let Some((path, effect)) = todo.pop() {
        for (module, rule) in index.rules.get(&path).into_iter().flatten() {
            for (used, effect) in search.rule(*module, rule, effect) {
                if !met.contains(&(used.clone(), effect)) {
                    met.insert((used.clone(), effect));
                    todo.push((used, effect));
                }
            }
        }
    }
    search.found
}

struct Search<'a, 'i> {
    index: &'i Index<'a>,
    /// Of each function: the parts of its arguments that it uses where an absent one undoes it.
    negated: BTreeMap<Path<'a>, BTreeSet<(usize, Vec<&'a str>)>>,
    found: BTreeSet<Lint>,
}

/// The rules that a rule uses, and what each of them does there.
type Uses<'a> = Vec<(Path<'a>, Effect)>;

impl<'a> Search<'a, '_> {
    /// Checks one definition, if it restricts. Returns the rules that it uses.
    fn rule(&mut self, module: usize, rule: &'a Rule, effect: Effect) -> Uses<'a> {
        let mut uses = Vec::new();
        let Rule::Spec { head, bodies, .. } = rule else { return uses };
        let value = match head {
            RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
                assign.as_ref().map(|assign| assign.value.as_ref())
            }
            RuleHead::Set { key, .. } => key.as_ref().map(AsRef::as_ref),
        };
        let base = parameters(rule);
        if let Some(expr) = value {
            self.expression(module, expr, &base, effect, &mut uses);
        }
        for body in bodies {
            if let Some(assign) = &body.assign {
                self.expression(module, &assign.value, &base, effect, &mut uses);
            }
            self.query(module, &body.query, &base, effect, &mut uses);
        }
        uses
    }

    fn query(
        &mut self,
        module: usize,
        query: &'a Query,
        outer: &Body<'a>,
        effect: Effect,
        uses: &mut Uses<'a>,
    ) {
        let body = self.body(module, query, outer);
        for statement in &query.stmts {
            self.statement(module, statement, &body, effect, uses);
        }
    }

    fn statement(
        &mut self,
        module: usize,
        statement: &'a LiteralStmt,
        body: &Body<'a>,
        effect: Effect,
        uses: &mut Uses<'a>,
    ) {
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { collection, .. } => {
                self.expression(module, collection, body, effect, uses);
            }
            Literal::Every { domain, query, .. } => {
                if effect == Effect::Restricts {
                    let sources = self.sources(module, domain, body);
                    self.report(statement, "every", &sources, body);
                }
                self.expression(module, domain, body, effect, uses);
                self.query(module, query, body, effect, uses);
            }
            Literal::Expr { expr, .. } => {
                if effect == Effect::Restricts {
                    self.comparison(module, statement, expr, body);
                }
                self.expression(module, expr, body, effect, uses);
            }
            Literal::NotExpr { expr, .. } => {
                if effect == Effect::Restricts {
                    let sources = self.moved(module, expr, body);
                    self.report(statement, "not", &sources, body);
                }
                self.expression(module, expr, body, effect.negated(), uses);
            }
        }
    }

    /// `!=` where a client can leave an operand out.
    fn comparison(
        &mut self,
        module: usize,
        statement: &'a LiteralStmt,
        expr: &'a Expr,
        body: &Body<'a>,
    ) {
        let Expr::BoolExpr { op: BoolOp::Ne, lhs, rhs, .. } = expr else { return };
        let sides = [lhs, rhs].into_iter().flat_map(|side| self.sources(module, side, body));
        // The comparison itself needs its operands: only other statements show them.
        let alone = |it: &Source<'a>| body.present.get(it).is_none_or(|shown| *shown < 2);
        let absent = sides.filter(alone).filter_map(|it| absent(&it));
        let absent = absent.filter(|it| CLIENT_WRITTEN.iter().any(|part| it.starts_with(part)));
        if let Some(field) = absent.min() {
            let message = format!("`!=` does not hold where `{field}` is absent, and this denies");
            let hint = "write `not … == …`, which holds there too";
            self.add(statement, UNDEFINED_COMPARISON, message, hint);
        }
    }

    fn report(
        &mut self,
        statement: &'a LiteralStmt,
        operator: &str,
        sources: &[Source<'a>],
        body: &Body<'a>,
    ) {
        // Only tests use `with`, and they say what their input is.
        if !statement.with_mods.is_empty() {
            return;
        }
        let absent = sources.iter().filter(|it| !body.present.contains_key(it)).filter_map(absent);
        if let Some(field) = absent.min() {
            let message = format!(
                "`{operator}` does not hold where `{field}` is absent, so this restricts nothing there"
            );
            self.add(statement, ABSENT_OPERAND, message, HINT);
        }
    }

    fn add(&mut self, statement: &LiteralStmt, code: &'static str, message: String, hint: &str) {
        let (file, line) = location(&statement.span);
        let (file, hint) = (file.to_owned(), hint.to_owned());
        self.found.insert(Lint { file, line, code, message, hint });
    }

    /// Follows an expression: the rules that it uses, calls of functions that negate, and queries in
    /// it.
    fn expression(
        &mut self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
        effect: Effect,
        uses: &mut Uses<'a>,
    ) {
        let mut todo = vec![expr];
        while let Some(expr) = todo.pop() {
            match expr {
                Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                    todo.push(term);
                    self.query(module, query, body, effect, uses);
                    continue;
                }
                Expr::ObjectCompr { key, value, query, .. } => {
                    todo.extend([key.as_ref(), value.as_ref()]);
                    self.query(module, query, body, effect, uses);
                    continue;
                }
                Expr::Call { params, .. } if effect == Effect::Restricts => {
                    self.call(module, expr, params, body);
                }
                _ => {}
            }
            todo.extend(children(expr));
            if let Some((used, _)) = reference(expr)
                && used.root.is_some_and(|root| !body.variables.contains_key(root))
                && let Some(path) = self.index.resolve(module, &used)
            {
                uses.extend(self.index.overlapping(&path).map(|rule| (rule.clone(), effect)));
            }
        }
    }

    /// A call, in a rule that restricts, of a function that negates what is done with an argument.
    fn call<T: AsRef<Expr>>(
        &mut self,
        module: usize,
        call: &'a Expr,
        params: &'a [T],
        body: &Body<'a>,
    ) {
        let Expr::Call { fcn, span, .. } = call else { return };
        let Some((callee, _)) = reference(fcn) else { return };
        let Some(path) = self.index.function(module, &callee) else { return };
        let mut fields = BTreeSet::new();
        for (at, below) in self.negated(&path) {
            let Some(param) = params.get(at) else { continue };
            let whole = reference(param.as_ref()).is_some();
            for mut source in self.sources(module, param.as_ref(), body) {
                if let (Source::Input(path) | Source::Param(_, path), true) = (&mut source, whole) {
                    path.extend(&below);
                }
                if !body.present.contains_key(&source) {
                    fields.extend(absent(&source));
                }
            }
        }
        if let (Some(field), Some(name)) = (fields.first(), called(&callee)) {
            let message = format!(
                "`{name}` negates an argument, so where `{field}` is absent, this restricts nothing"
            );
            let (file, line) = location(span);
            let (file, hint) = (file.to_owned(), HINT.to_owned());
            self.found.insert(Lint { file, line, code: ABSENT_OPERAND, message, hint });
        }
    }

    /// The parts of a function's arguments whose absence undoes it although it negates them.
    fn negated(&mut self, path: &Path<'a>) -> BTreeSet<(usize, Vec<&'a str>)> {
        if let Some(known) = self.negated.get(path) {
            return known.clone();
        }
        // There is no recursion: `check` refused it.
        self.negated.insert(path.clone(), BTreeSet::new());
        let mut parts = BTreeSet::new();
        for (module, rule) in self.index.rules.get(path).cloned().unwrap_or_default() {
            let Rule::Spec { bodies, .. } = rule else { continue };
            let base = parameters(rule);
            for body in bodies {
                let known = self.body(module, &body.query, &base);
                for statement in &body.query.stmts {
                    let mut sources = Vec::new();
                    match &statement.literal {
                        Literal::NotExpr { expr, .. } => {
                            sources.extend(self.moved(module, expr, &known));
                        }
                        Literal::Every { domain, .. } => {
                            sources.extend(self.sources(module, domain, &known));
                        }
                        Literal::Expr { expr, .. } => {
                            sources.extend(self.passed_on(module, expr, &known));
                        }
                        Literal::SomeIn { .. } | Literal::SomeVars { .. } => {}
                    }
                    parts.extend(sources.into_iter().filter_map(|source| match source {
                        Source::Param(at, below) => {
                            let source = Source::Param(at, below.clone());
                            (!known.present.contains_key(&source)).then_some((at, below))
                        }
                        Source::Input(_) | Source::Lookup(_) => None,
                    }));
                }
            }
        }
        self.negated.insert(path.clone(), parts.clone());
        parts
    }

    /// The arguments that a positive statement of a function gives to another that negates them.
    fn passed_on(&mut self, module: usize, expr: &'a Expr, body: &Body<'a>) -> Vec<Source<'a>> {
        let mut sources = Vec::new();
        let mut todo = vec![expr];
        while let Some(expr) = todo.pop() {
            todo.extend(children(expr));
            let Expr::Call { fcn, params, .. } = expr else { continue };
            let callee = reference(fcn).and_then(|(it, _)| self.index.function(module, &it));
            let Some(callee) = callee else { continue };
            for (at, below) in self.negated(&callee) {
                let Some(param) = params.get(at) else { continue };
                for mut source in self.sources(module, param, body) {
                    if let (Source::Param(_, path), true) =
                        (&mut source, reference(param).is_some())
                    {
                        path.extend(&below);
                    }
                    sources.push(source);
                }
            }
        }
        sources
    }

    /// What a body's statements say about variables and presence.
    fn body(&self, module: usize, query: &'a Query, outer: &Body<'a>) -> Body<'a> {
        let mut body = outer.clone();
        for statement in &query.stmts {
            match &statement.literal {
                Literal::Expr { expr, .. } => {
                    if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, rhs, .. } = expr.as_ref() {
                        let value = self.sources(module, rhs, &body);
                        let whole = reference(rhs).is_some();
                        bind(lhs, &(value, whole), &mut body);
                    }
                }
                Literal::SomeIn { key, value, collection, .. } => {
                    let of = self.sources(module, collection, &body);
                    let each = of.into_iter().filter(|it| match it {
                        Source::Input(path) => {
                            field(&path.join(".")).is_some_and(|it| it.holds == FieldType::Each)
                        }
                        Source::Param(..) | Source::Lookup(_) => false,
                    });
                    let each: Vec<Source<'a>> = each.collect();
                    bind(value, &(each, true), &mut body);
                    if let Some(Expr::Var { span, .. }) = key.as_ref().map(AsRef::as_ref) {
                        body.variables.insert(span.text(), (Vec::new(), false));
                        body.keys.insert(span.text(), collection.span().text());
                    }
                }
                Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => {}
            }
        }
        for statement in &query.stmts {
            let mut shown = BTreeSet::new();
            self.shows(module, statement, &body, &mut shown);
            for source in shown {
                let count = body.present.entry(source).or_default();
                *count = count.saturating_add(1);
            }
        }
        body
    }

    /// Adds what is present where a positive statement holds.
    fn shows(
        &self,
        module: usize,
        statement: &'a LiteralStmt,
        body: &Body<'a>,
        present: &mut BTreeSet<Source<'a>>,
    ) {
        let shown = match &statement.literal {
            Literal::SomeIn { collection, .. } => self.sources(module, collection, body),
            Literal::Expr { expr, .. } => match expr.as_ref() {
                // An assignment names a value. It does not say that the rule is about its presence.
                Expr::AssignExpr { op: AssignOp::ColEq, .. } => return,
                // A function of the policy may negate its argument.
                Expr::Call { fcn, .. }
                    if reference(fcn).is_some_and(|(callee, _)| {
                        self.index.function(module, &callee).is_some()
                    }) =>
                {
                    return;
                }
                Expr::Membership { value, collection, .. } => {
                    let mut shown = self.sources(module, expr, body);
                    shown.extend(self.named_member(module, value, collection, body));
                    shown
                }
                expr => self.sources(module, expr, body),
            },
            Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => return,
        };
        for source in shown {
            // A value is only there if the values that contain it are.
            let (Source::Input(path) | Source::Param(_, path)) = &source else {
                present.insert(source);
                continue;
            };
            for end in 0..=path.len() {
                let path = path.get(..end).unwrap_or_default().to_vec();
                present.insert(match source {
                    Source::Param(at, _) => Source::Param(at, path),
                    Source::Input(_) | Source::Lookup(_) => Source::Input(path),
                });
            }
        }
    }

    /// `"env" in object.keys(input.tool.arguments)`: the member that is there.
    fn named_member(
        &self,
        module: usize,
        value: &'a Expr,
        collection: &'a Expr,
        body: &Body<'a>,
    ) -> Vec<Source<'a>> {
        let (Expr::String { value, .. }, Expr::Call { fcn, params, .. }) = (value, collection)
        else {
            return Vec::new();
        };
        let keys =
            reference(fcn).and_then(|(it, _)| called(&it)).is_some_and(|it| it == "object.keys");
        let (true, Ok(name), Some(object)) = (keys, value.as_string(), params.first()) else {
            return Vec::new();
        };
        let below = |mut source| {
            if let Source::Input(path) | Source::Param(_, path) = &mut source {
                path.push(name);
            }
            source
        };
        self.sources(module, object, body).into_iter().map(below).collect()
    }

    /// The sources of the operands that `not` needs.
    fn moved(&self, module: usize, expr: &'a Expr, body: &Body<'a>) -> Vec<Source<'a>> {
        let is_document = |it: &Expr| match it {
            Expr::Var { span, .. } => body.variables.contains_key(span.text()),
            _ => false,
        };
        let moved = operands(expr, &is_document);
        moved.into_iter().flat_map(|it| self.sources(module, it, body)).collect()
    }

    /// What must be there for an expression to be defined.
    fn sources(&self, module: usize, expr: &'a Expr, body: &Body<'a>) -> Vec<Source<'a>> {
        let mut sources = Vec::new();
        let mut todo = vec![expr];
        while let Some(expr) = todo.pop() {
            if let Some((used, root)) = reference(expr) {
                sources.extend(self.of_reference(module, expr, &used, body));
                todo.extend(root);
                todo.extend(used.steps.iter().filter_map(|step| match step {
                    Step::Index(index) => Some(*index),
                    Step::Name(_) => None,
                }));
                continue;
            }
            match expr {
                // The function's name is no operand.
                Expr::Call { params, .. } => todo.extend(params.iter().map(AsRef::as_ref)),
                _ => todo.extend(children(expr)),
            }
        }
        sources
    }

    fn of_reference(
        &self,
        module: usize,
        expr: &'a Expr,
        used: &Reference<'a>,
        body: &Body<'a>,
    ) -> Vec<Source<'a>> {
        let Some(root) = used.root else { return Vec::new() };
        let names = used.prefix();
        let mut sources = Vec::new();
        if let Some((of, whole)) = body.variables.get(root) {
            for source in of {
                let mut source = source.clone();
                if let (Source::Input(path) | Source::Param(_, path), true) = (&mut source, *whole)
                {
                    path.extend(&names);
                }
                sources.push(source);
            }
        } else if root == "input" {
            return vec![Source::Input(names)];
        } else if let Some(value) = self.value_of(module, used) {
            sources.extend(self.sources(value.0, value.1, &Body::default()));
        }
        let computed = used.steps.last().is_some_and(|step| match step {
            Step::Index(Expr::Var { span, .. }) => {
                let iterates = body
                    .keys
                    .get(span.text())
                    .is_some_and(|of| expr.span().text().starts_with(&format!("{of}[")));
                span.text() != "_" && !iterates
            }
            Step::Index(index) => !matches!(index, Expr::Number { .. }),
            Step::Name(_) => false,
        });
        if computed {
            sources.push(Source::Lookup(expr.span().text()));
        }
        sources
    }

    /// The value of a rule with one definition and no condition: `env := input.tool.arguments.env`.
    fn value_of(&self, module: usize, used: &Reference<'a>) -> Option<(usize, &'a Expr)> {
        let path = self.index.resolve(module, used)?;
        let [
            (module, Rule::Spec { head: RuleHead::Compr { assign: Some(assign), .. }, bodies, .. }),
        ] = self.index.rules.get(&path)?.as_slice()
        else {
            return None;
        };
        bodies.is_empty().then_some((*module, assign.value.as_ref()))
    }
}

/// What is known of a function's parameters.
fn parameters<'a>(rule: &'a Rule) -> Body<'a> {
    let mut body = Body::default();
    for (at, arg) in rule_args(rule).into_iter().enumerate() {
        if let Expr::Var { span, .. } = arg {
            body.variables.insert(span.text(), (vec![Source::Param(at, Vec::new())], true));
        }
    }
    body
}

/// Gives a value to the variables of a pattern.
fn bind<'a>(pattern: &'a Expr, value: &(Vec<Source<'a>>, bool), body: &mut Body<'a>) {
    if let Expr::Var { span, .. } = pattern {
        body.variables.insert(span.text(), value.clone());
        return;
    }
    let mut todo = vec![pattern];
    while let Some(expr) = todo.pop() {
        if let Expr::Var { span, .. } = expr {
            body.variables.insert(span.text(), (value.0.clone(), false));
        }
        todo.extend(children(expr));
    }
}

/// The field or value that may be absent, as a policy writes it.
fn absent(source: &Source<'_>) -> Option<String> {
    match source {
        Source::Input(path) => optional_path(path),
        Source::Param(..) => None,
        Source::Lookup(text) => Some((*text).to_owned()),
    }
}

/// A path below `input` as a policy writes it, if some field on it may be absent. A member of `input`
/// that only some messages have (`input.tool`) does not count: a rule that reads it is about them.
pub(super) fn optional_path(names: &[&str]) -> Option<String> {
    let mut path = String::new();
    for (depth, name) in names.iter().enumerate() {
        let (_, field) = below(&path).find(|(known, _)| known == name)?;
        path = join(&path, name);
        let free = matches!(field.holds, FieldType::Anything | FieldType::TextsByName);
        let further = names.len() > depth.saturating_add(1);
        if (free && further) || (!field.always && depth > 0) {
            return Some(format!("input.{}", names.join(".")));
        }
    }
    None
}

/// A path with one more name.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
