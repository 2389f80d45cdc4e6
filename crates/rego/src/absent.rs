//! Finds restrictions that disappear where an operand is absent.
//!
//! In Rego a body with an undefined operand is undefined, also where the operand is inside `not`
//! (see `negation`): `deny contains … if not startswith(input.tool.arguments.env, "dev")` denies
//! nothing when a call leaves `env` out. So does `deny contains {"message": sprintf("%s",
//! [input.tool.arguments.region])} if …`, whose head is undefined then. An author who writes that
//! almost never means it, and a client chooses what it leaves out. So such a policy is refused,
//! unless a comment `# bartizan:allow absent-operand` accepts it.
//!
//! Checked are the rules whose result restricts ([`RESTRICTING`]), and the rules and functions that
//! these use; under `not` a rule restricts where its user permits. For each body, the analysis
//! collects what must be there for the body and the head to be defined: it follows local variables
//! and patterns (`reads`), rules, functions, `else` and `default` (`summary`). What a positive
//! statement of the body is about (`forms`) is there wherever the rule applies, unless it is about a
//! value made of several (`joint`). Anything else that the schema of the input calls optional
//! (`source`), or that is looked up by a computed key, is reported. [`Policy`](super::Policy) and the linter call it.

mod source;
mod syntax;

mod known;

mod joint;

mod forms;
mod reads;
mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use regorus::unstable::{BoolOp, Expr, Literal, LiteralStmt, Query, Rule, Span};

use serde::Serialize;

use super::check::{Index, Path, called, location};
use super::negation::{children, operands};
use super::walk::reference;

use known::{Body, Mode, Split, Summary};
use source::Source;
pub(super) use source::{join, optional_path};
use syntax::{Branch, Direction, branches, collects, heads, is_reference};

/// The code of the findings about what a rule needs without being about it.
pub(super) const ABSENT_OPERAND: &str = "absent-operand";

/// The code of the findings about `!=`.
pub(super) const UNDEFINED_COMPARISON: &str = "undefined-comparison";

/// The rules of `package mcp` whose elements restrict something. `refuse` is not among them: it
/// gives only the reason where nothing permits.
pub(super) const RESTRICTING: [&str; 6] = ["deny", "hold", "limit", "set", "redact", "hide"];

/// Most fields that one message names.
const FIELDS_MAX: usize = 4;

/// What a head is called in a message.
const HEAD: &str = "the head";

const HINT: &str = "say what is allowed in a rule of its own and negate that (`not allowed_env`), \
                    give a default with `object.get`, require the operand in the same body \
                    (`is_string(x)` requires `x`), write a rule for each operand, or add one for \
                    `not …`; `# bartizan:allow \
                    absent-operand` accepts it";

const HINT_NE: &str = "write `not … == …`, which holds there too; `# bartizan:allow \
                       undefined-comparison` accepts it";

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

    /// What the rules in an expression do, of which more or less makes it true.
    fn of(self, direction: Direction) -> Vec<Self> {
        match direction {
            Direction::More => vec![self],
            Direction::Less => vec![self.negated()],
            Direction::Either => vec![Self::Restricts, Self::Permits],
        }
    }
}

/// All findings in the rules that [`RESTRICTING`] reach, in any order.
pub(super) fn findings(index: &Index<'_>) -> BTreeSet<Lint> {
    let mut search = Search {
        index,
        summaries: BTreeMap::new(),
        found: BTreeSet::new(),
        told: BTreeSet::new(),
        uses: Vec::new(),
    };
    let named = |name: &'static str| vec!["mcp", name];
    let mut todo: Vec<(Path<'_>, Effect)> =
        RESTRICTING.iter().map(|name| (named(name), Effect::Restricts)).collect();
    todo.push((named("permit"), Effect::Permits));
    let mut met: BTreeSet<(Path<'_>, Effect)> = BTreeSet::new();
    while let Some((path, effect)) = todo.pop() {
        for (module, rule) in index.rules.get(&path).into_iter().flatten() {
            search.rule(&path, *module, rule, effect);
        }
        for used in search.uses.drain(..) {
            if met.insert(used.clone()) {
                todo.push(used);
            }
        }
    }
    search.found
}

struct Search<'a, 'i> {
    index: &'i Index<'a>,
    summaries: BTreeMap<Path<'a>, Rc<Summary<'a>>>,
    found: BTreeSet<Lint>,
    /// What the current body has been reported for: once is enough.
    told: BTreeSet<Source<'a>>,
    /// The rules that the current rule uses, and what each of them does there.
    uses: Vec<(Path<'a>, Effect)>,
}

/// The rule and the branch of it that is checked.
struct Place<'a, 'p> {
    path: &'p Path<'a>,
    branch: Branch<'a>,
}

impl<'a> Search<'a, '_> {
    /// Checks one definition, and notes the rules that it uses.
    fn rule(&mut self, path: &Path<'a>, module: usize, rule: &'a Rule, effect: Effect) {
        let (_, keys) = heads(rule);
        let restricting = matches!(path.as_slice(), ["mcp", name] if RESTRICTING.contains(name));
        for branch in branches(module, rule) {
            self.told.clear();
            let (base, _) = Body::of_parameters(rule);
            let is_false = branch.is_false();
            let effect = if is_false { effect.negated() } else { effect };
            // The value of another rule is what its users make of it.
            let mut heads = keys.clone();
            if restricting || collects(rule) {
                heads.extend(branch.value);
            }
            let place = Place { path, branch };
            let body = if let Some(query) = branch.query {
                self.query(&place, query, &base, effect, &heads)
            } else {
                self.heads(&place, &heads, &base, effect);
                base
            };
            for expr in branch.value.into_iter().chain(keys.iter().copied()) {
                self.follow(&place, expr, &body, effect, Direction::More);
            }
        }
    }

    /// Checks a query, and what it yields. Returns what is known in it.
    fn query(
        &mut self,
        place: &Place<'a, '_>,
        query: &'a Query,
        outer: &Body<'a>,
        effect: Effect,
        heads: &[&'a Expr],
    ) -> Body<'a> {
        let module = place.branch.module;
        let body = self.body(module, query, outer);
        // First what is about a value, then where it comes from.
        for named in [false, true] {
            for statement in &query.stmts {
                if self.names(module, statement, &body) == named {
                    self.statement(place, statement, &body, effect);
                }
            }
        }
        self.heads(place, heads, &body, effect);
        for statement in &query.stmts {
            self.inside(place, statement, &body, effect);
        }
        body
    }

    /// Whether a statement only gives values to variables.
    fn names(&self, module: usize, statement: &'a LiteralStmt, body: &Body<'a>) -> bool {
        match &statement.literal {
            Literal::Expr { expr, .. } => body.assigned(expr).is_some(),
            Literal::SomeIn { key, collection, .. } => {
                !self.lists(module, key.as_deref(), collection, body)
            }
            Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => false,
        }
    }

    fn statement(
        &mut self,
        place: &Place<'a, '_>,
        statement: &'a LiteralStmt,
        body: &Body<'a>,
        effect: Effect,
    ) {
        let module = place.branch.module;
        let mut sources = match (effect, &statement.literal) {
            (Effect::Restricts, _) => self.unshown(module, statement, body).needed,
            (Effect::Permits, Literal::NotExpr { expr, .. }) => {
                // What is moved before the `not` permits nothing if it is absent.
                let moved = self.moved(module, expr, body);
                let mut needed = self.split(module, expr, body, Mode::Test).needed;
                needed.retain(|it| !moved.contains(it));
                needed
            }
            (Effect::Permits, _) => return,
        };
        for modifier in &statement.with_mods {
            let Some((target, _)) = reference(&modifier.refr) else { continue };
            if target.root == Some("input") {
                let names = target.prefix();
                sources.retain(|it| match it {
                    Source::Input(path) => !path.starts_with(&names),
                    Source::Lookup(_) => !names.is_empty(),
                    Source::Param(..) => true,
                });
                sources.extend(self.needs(module, &modifier.r#as, body));
            }
        }
        let (what, code) = described(statement, body);
        let strict = matches!(statement.literal, Literal::NotExpr { .. } | Literal::Every { .. });
        self.report(place, &statement.span, &what, code, &sources, body, strict);
    }

    /// What a statement needs without being about it.
    fn unshown(&mut self, module: usize, statement: &'a LiteralStmt, body: &Body<'a>) -> Split<'a> {
        let needed = match &statement.literal {
            Literal::Expr { expr, .. } if body.assigned(expr).is_none() => {
                return self.split(module, expr, body, Mode::Test);
            }
            Literal::SomeIn { key, collection, .. }
                if self.lists(module, key.as_deref(), collection, body) =>
            {
                return self.collection(module, collection, body);
            }
            Literal::Every { domain, .. } => {
                let mut needs = self.needs(module, domain, body);
                needs.extend(self.iterated(module, domain, body));
                needs
            }
            _ => self.statement_needs(module, statement, body),
        };
        Split { needed, ..Split::default() }
    }

    /// Checks the expressions of a head, or those that a comprehension yields.
    fn heads(
        &mut self,
        place: &Place<'a, '_>,
        heads: &[&'a Expr],
        body: &Body<'a>,
        effect: Effect,
    ) {
        if effect == Effect::Permits {
            return;
        }
        let module = place.branch.module;
        let mut todo = heads.to_vec();
        while let Some(expr) = todo.pop() {
            if is_reference(expr) || matches!(expr, Expr::Call { .. }) {
                let sources = self.needs(module, expr, body);
                let at = first_reference(expr).span();
                self.report(place, at, HEAD, ABSENT_OPERAND, &sources, body, false);
            } else {
                todo.extend(children(expr));
            }
        }
    }

    /// Reports the sources that may be absent.
    #[expect(clippy::too_many_arguments, reason = "they are one finding")]
    fn report(
        &mut self,
        place: &Place<'a, '_>,
        at: &Span,
        what: &str,
        code: &'static str,
        sources: &BTreeSet<Source<'a>>,
        body: &Body<'a>,
        strict: bool,
    ) {
        let mut fields = BTreeSet::new();
        for source in sources {
            let Some(field) = source.written() else { continue };
            if source.is_in(&body.present)
                || (source.is_configured() && !strict)
                || self.told.contains(source)
                || self.covered(place.path, &place.branch, source, true)
            {
                continue;
            }
            self.told.insert(source.clone());
            fields.insert(field);
        }
        if fields.is_empty() {
            return;
        }
        let fields: Vec<String> =
            fields.iter().take(FIELDS_MAX).map(|it| format!("`{it}`")).collect();
        let field = fields.join(" or ");
        let fails = if what == HEAD { "is undefined" } else { "does not hold" };
        let message =
            format!("{what} {fails} where {field} is absent, so this restricts nothing there");
        let (file, line) = location(at);
        let hint = if code == UNDEFINED_COMPARISON { HINT_NE } else { HINT };
        let (file, hint) = (file.to_owned(), hint.to_owned());
        self.found.insert(Lint { file, line, code, message, hint });
    }

    /// Follows the expressions and queries in a statement.
    fn inside(
        &mut self,
        place: &Place<'a, '_>,
        statement: &'a LiteralStmt,
        body: &Body<'a>,
        effect: Effect,
    ) {
        for modifier in &statement.with_mods {
            self.follow(place, &modifier.r#as, body, effect, Direction::Either);
        }
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { collection, .. } => {
                self.follow(place, collection, body, effect, Direction::More);
            }
            Literal::Every { domain, query, .. } => {
                self.follow(place, domain, body, effect, Direction::Either);
                let inner = self.every(place.branch.module, statement, body);
                self.query(place, query, &inner, effect, &[]);
            }
            Literal::Expr { expr, .. } => match body.assigned(expr) {
                Some((_, value)) => self.follow(place, value, body, effect, Direction::Either),
                None => self.follow(place, expr, body, effect, Direction::More),
            },
            Literal::NotExpr { expr, .. } => {
                self.follow(place, expr, body, effect.negated(), Direction::More);
            }
        }
    }

    /// Follows an expression: the rules and functions that it uses, and the queries in it.
    fn follow(
        &mut self,
        place: &Place<'a, '_>,
        expr: &'a Expr,
        body: &Body<'a>,
        effect: Effect,
        direction: Direction,
    ) {
        let module = place.branch.module;
        for (part, direction) in self.directions(module, expr, body, direction) {
            for effect in effect.of(direction) {
                match part {
                    Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                        self.query(place, query, body, effect, &[term]);
                    }
                    Expr::ObjectCompr { key, value, query, .. } => {
                        self.query(place, query, body, effect, &[key, value]);
                    }
                    _ => self.used(module, part, body, effect),
                }
            }
        }
    }

    /// Notes the rules that a reference reads.
    fn used(&mut self, module: usize, expr: &'a Expr, body: &Body<'a>, effect: Effect) {
        if let Some((used, _)) = reference(expr)
            && used.root.is_some_and(|root| !body.variables.contains_key(root))
            && let Some(path) = self.index.resolve(module, &used)
        {
            self.uses.extend(self.index.overlapping(&path).map(|rule| (rule.clone(), effect)));
        }
    }

    /// What must be there for the operands that `not` needs.
    fn moved(&mut self, module: usize, expr: &'a Expr, body: &Body<'a>) -> BTreeSet<Source<'a>> {
        let mut needs = BTreeSet::new();
        for operand in operands(expr, &|_| true) {
            needs.extend(self.needs(module, operand, body));
            needs.extend(self.iterated(module, operand, body));
        }
        needs
    }
}

/// What a statement is called in a message, and the code of a finding about it.
fn described(statement: &LiteralStmt, body: &Body<'_>) -> (String, &'static str) {
    let what = match &statement.literal {
        Literal::NotExpr { .. } => "`not`",
        Literal::Every { .. } => "`every`",
        Literal::SomeIn { .. } | Literal::SomeVars { .. } => "`some`",
        Literal::Expr { expr, .. } => match expr.as_ref() {
            Expr::BoolExpr { op: BoolOp::Ne, .. } => {
                return ("`!=`".to_owned(), UNDEFINED_COMPARISON);
            }
            expr if body.assigned(expr).is_some() => "the assignment",
            Expr::BoolExpr { .. } | Expr::AssignExpr { .. } => "the comparison",
            Expr::Call { fcn, .. } => {
                let name = reference(fcn).and_then(|(callee, _)| called(&callee));
                return (format!("`{}`", name.unwrap_or_default()), ABSENT_OPERAND);
            }
            _ => "the condition",
        },
    };
    (what.to_owned(), ABSENT_OPERAND)
}

/// The first reference in an expression: a message about a head names its line.
fn first_reference(expr: &Expr) -> &Expr {
    let mut at = expr;
    while let Expr::Call { params, .. } = at {
        let Some(next) = params.iter().find(|it| !super::walk::is_plain(it, &|_| true)) else {
            break;
        };
        at = next;
    }
    at
}
