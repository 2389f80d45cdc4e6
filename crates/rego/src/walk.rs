//! A walk over the syntax tree of one rule. It visits every reference, call, expression and
//! statement, and resolves which names are local variables.
//!
//! It is iterative, with a stack on the heap, so a deeply nested source cannot overflow the
//! thread's stack. It makes no checks; the modules that analyse a policy's text use it.

use std::collections::BTreeSet;

use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt, Query, Rule, RuleHead, Span};

/// The rules of `package mcp` that `mcp/decision.rego` combines. Each must be a partial set.
pub(super) const SETS: [&str; 8] =
    ["permit", "deny", "refuse", "hold", "limit", "set", "redact", "hide"];

/// One step of a reference after its root (OPA docs, "Policy Language", "References").
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    /// `.name` or `["name"]`.
    Name(&'a str),
    /// A computed index, `[x]`.
    Index(&'a Expr),
}

/// A variable, or a reference: a root and steps.
#[derive(Debug)]
pub(super) struct Reference<'a> {
    /// The name of the root, where it is a variable; `None` where it is another expression.
    pub(super) root: Option<&'a str>,
    /// The steps, from the root on.
    pub(super) steps: Vec<Step<'a>>,
    /// The span of the root, where it is a variable.
    pub(super) root_span: Option<&'a Span>,
    /// The span of the whole reference.
    pub(super) span: &'a Span,
    /// Whether the root is a variable that the rule declares. Only [`Walk`] sets it.
    pub(super) local: bool,
}

impl<'a> Reference<'a> {
    /// The names after the root, up to the first computed index.
    pub(super) fn prefix(&self) -> Vec<&'a str> {
        let mut names = Vec::new();
        for step in &self.steps {
            match *step {
                Step::Name(name) => names.push(name),
                Step::Index(_) => break,
            }
        }
        names
    }

    /// Whether every step is a name.
    pub(super) fn is_static(&self) -> bool {
        self.prefix().len() == self.steps.len()
    }
}

/// One node of the syntax tree. Its children are visited after it.
#[derive(Debug)]
pub(super) enum Visit<'a> {
    /// A variable or a whole reference.
    Ref(Reference<'a>),
    /// A call.
    Call {
        /// The called function.
        callee: Reference<'a>,
        /// The arguments.
        params: Vec<&'a Expr>,
    },
    /// Any other expression.
    Expr(&'a Expr),
    /// A statement of a query.
    Statement(&'a LiteralStmt),
}

/// The variables that one query declares. `parent` is the index of the enclosing query's scope.
#[derive(Debug, Default)]
struct Scope<'a> {
    parent: Option<usize>,
    names: BTreeSet<&'a str>,
}

#[derive(Debug, Clone, Copy)]
enum Node<'a> {
    Expr(&'a Expr),
    Statement(&'a LiteralStmt),
}

/// The walk over one rule: an iterator over [`Visit`]s. Siblings come in reverse order.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    scopes: Vec<Scope<'a>>,
    todo: Vec<(usize, Node<'a>)>,
}

/// The reference that names a rule.
pub(super) fn rule_ref(rule: &Rule) -> &Expr {
    match rule {
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. }
            | RuleHead::Set { refr, .. }
            | RuleHead::Func { refr, .. } => refr,
        },
        Rule::Default { refr, .. } => refr,
    }
}

/// The parameters of a function; empty for other rules.
pub(super) fn rule_args(rule: &Rule) -> Vec<&Expr> {
    match rule {
        Rule::Spec { head: RuleHead::Func { args, .. }, .. } | Rule::Default { args, .. } => {
            args.iter().map(AsRef::as_ref).collect()
        }
        Rule::Spec { .. } => Vec::new(),
    }
}

/// The bytes of a span in the text of its module, from start to end. regorus's spans leave out the
/// quotes of a string at either edge, so a quote next to the span belongs to it.
pub(super) fn extent(text: &str, span: &Span) -> Option<(usize, usize)> {
    let start = usize::try_from(span.start).ok()?;
    let end = usize::try_from(span.end).ok()?;
    let is_quote = |at: usize| matches!(text.as_bytes().get(at), Some(b'"' | b'`'));
    let before = start.checked_sub(1).filter(|before| is_quote(*before));
    let end = if is_quote(end) { end.checked_add(1)? } else { end };
    Some((before.unwrap_or(start), end))
}

/// The bytes of an expression. regorus's span of an object with several fields begins at the last
/// field (0.14.1), so an object begins at the brace before its first key.
pub(super) fn expression_extent(text: &str, expr: &Expr) -> Option<(usize, usize)> {
    let (_, end) = extent(text, expr.span())?;
    let mut first = expr;
    let mut braces: usize = 0;
    while let Expr::Object { fields, .. } = first
        && let Some((_, key, _)) = fields.first()
    {
        braces = braces.saturating_add(1);
        first = key;
    }
    let (mut start, _) = extent(text, first.span())?;
    for _ in 0..braces {
        start = brace_before(text.get(..start)?)?;
    }
    Some((start, end))
}

/// Where the last brace of `text` is that only white space and comments follow.
fn brace_before(text: &str) -> Option<usize> {
    let is_empty = |it: &str| it.trim_start().is_empty() || it.trim_start().starts_with('#');
    let mut end = text.len();
    loop {
        let before = text.get(..end)?;
        let start = before.rfind('\n').map_or(0, |at| at.saturating_add(1));
        let line = before.get(start..)?;
        if !is_empty(line) {
            // The first, because a comment may hold braces, too.
            let mut braces = line.match_indices('{').map(|(at, _)| at);
            let is_last = |at: &usize| line.get(at.saturating_add(1)..).is_some_and(is_empty);
            return braces.find(is_last).map(|at| start.saturating_add(at));
        }
        end = start.checked_sub(1)?;
    }
}

/// Whether an expression is a local variable, a literal, or a collection of these. `is_document`
/// says of a variable whether it is a document and so no local variable.
pub(super) fn is_plain(expr: &Expr, is_document: &dyn Fn(&Expr) -> bool) -> bool {
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        match expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
            Expr::Var { .. } if !is_document(expr) => {}
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                todo.extend(items.iter().map(AsRef::as_ref));
            }
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    todo.extend([key.as_ref(), value.as_ref()]);
                }
            }
            _ => return false,
        }
    }
    true
}

/// The names of the variables of a pattern: what `:=`, `=` or `some … in` gives values to.
pub(super) fn pattern_variables(pattern: &Expr) -> Vec<&str> {
    let mut names = Vec::new();
    let mut todo = vec![pattern];
    while let Some(expr) = todo.pop() {
        match expr {
            Expr::Var { span, .. } => names.push(span.text()),
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                todo.extend(items.iter().map(AsRef::as_ref));
            }
            Expr::Object { fields, .. } => {
                todo.extend(fields.iter().map(|(_, _, value)| value.as_ref()));
            }
            _ => {}
        }
    }
    names
}

/// Reads a variable or reference; `None` for any other expression. The second value is the root
/// expression, where the root is no variable.
pub(super) fn reference(expr: &Expr) -> Option<(Reference<'_>, Option<&Expr>)> {
    let span = expr.span();
    let mut steps = Vec::new();
    let mut at = expr;
    loop {
        match at {
            Expr::RefDot { refr, field, .. } => {
                steps.push(Step::Name(field.1.as_string().ok()?));
                at = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                steps.push(match index.as_ref() {
                    Expr::String { value, .. } | Expr::RawString { value, .. } => {
                        Step::Name(value.as_string().ok()?)
                    }
                    other => Step::Index(other),
                });
                at = refr;
            }
            Expr::Var { span: name, .. } => {
                steps.reverse();
                return Some((
                    Reference {
                        root: Some(name.text()),
                        steps,
                        root_span: Some(name),
                        span,
                        local: false,
                    },
                    None,
                ));
            }
            other if steps.is_empty() => {
                let _ = other;
                return None;
            }
            other => {
                steps.reverse();
                return Some((
                    Reference { root: None, steps, root_span: None, span, local: false },
                    Some(other),
                ));
            }
        }
    }
}

impl<'a> Walk<'a> {
    /// A walk over the head and all bodies of a rule.
    pub(super) fn rule(rule: &'a Rule) -> Self {
        let mut walk = Self { scopes: vec![Scope::default()], todo: Vec::new() };
        for arg in rule_args(rule) {
            walk.declare(0, arg);
            walk.todo.push((0, Node::Expr(arg)));
        }
        match rule {
            Rule::Default { value, .. } => walk.todo.push((0, Node::Expr(value))),
            Rule::Spec { head, bodies, .. } => walk.spec(head, bodies),
        }
        walk
    }

    fn spec(&mut self, head: &'a RuleHead, bodies: &'a [regorus::unstable::RuleBody]) {
        // The head is evaluated inside each body, so it sees what the body declares.
        let (refr, values) = match head {
            RuleHead::Compr { refr, assign, .. } | RuleHead::Func { refr, assign, .. } => {
                (refr, assign.as_ref().map(|assign| assign.value.as_ref()))
            }
            RuleHead::Set { refr, key, .. } => (refr, key.as_ref().map(AsRef::as_ref)),
        };
        let mut in_bodies: Vec<&'a Expr> = values.into_iter().collect();
        if let Some((reference, _)) = reference(refr) {
            in_bodies.extend(reference.steps.iter().filter_map(|step| match step {
                Step::Index(index) => Some(*index),
                Step::Name(_) => None,
            }));
        }
        if bodies.is_empty() {
            self.todo.extend(in_bodies.iter().map(|expr| (0, Node::Expr(expr))));
        }
        for body in bodies {
            let scope = self.scope(0, &body.query);
            // The value of an `else` belongs to its own body.
            if !body.is_else {
                self.todo.extend(in_bodies.iter().map(|expr| (scope, Node::Expr(expr))));
            }
            if let Some(assign) = &body.assign {
                self.todo.push((scope, Node::Expr(&assign.value)));
            }
            self.statements(scope, &body.query);
        }
    }

    /// Creates the scope of a query, with the variables that its statements declare.
    fn scope(&mut self, parent: usize, query: &'a Query) -> usize {
        let scope = self.scopes.len();
        self.scopes.push(Scope { parent: Some(parent), names: BTreeSet::new() });
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { vars, .. } => {
                    for var in vars {
                        self.name(scope, var.text());
                    }
                }
                Literal::SomeIn { key, value, .. } => {
                    if let Some(key) = key {
                        self.declare(scope, key);
                    }
                    self.declare(scope, value);
                }
                Literal::Expr { expr, .. } => {
                    if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } = expr.as_ref() {
                        self.declare(scope, lhs);
                    }
                }
                Literal::NotExpr { .. } | Literal::Every { .. } => {}
            }
        }
        scope
    }

    fn name(&mut self, scope: usize, name: &'a str) {
        if let Some(scope) = self.scopes.get_mut(scope) {
            scope.names.insert(name);
        }
    }

    /// Adds every variable of a pattern to a scope.
    fn declare(&mut self, scope: usize, pattern: &'a Expr) {
        for name in pattern_variables(pattern) {
            self.name(scope, name);
        }
    }

    fn statements(&mut self, scope: usize, query: &'a Query) {
        self.todo.extend(query.stmts.iter().map(|stmt| (scope, Node::Statement(stmt))));
    }

    fn is_local(&self, scope: usize, name: &str) -> bool {
        let mut at = Some(scope);
        while let Some(scope) = at.and_then(|at| self.scopes.get(at)) {
            if scope.names.contains(name) {
                return true;
            }
            at = scope.parent;
        }
        false
    }

    fn statement(&mut self, scope: usize, statement: &'a LiteralStmt) {
        // The target of `with` is not read; its value is.
        for modifier in &statement.with_mods {
            self.todo.push((scope, Node::Expr(&modifier.r#as)));
        }
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                if let Some(key) = key {
                    self.todo.push((scope, Node::Expr(key)));
                }
                self.todo.push((scope, Node::Expr(value)));
                self.todo.push((scope, Node::Expr(collection)));
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
                self.todo.push((scope, Node::Expr(expr)));
            }
            Literal::Every { key, value, domain, query, .. } => {
                self.todo.push((scope, Node::Expr(domain)));
                let inner = self.scope(scope, query);
                if let Some(key) = key {
                    self.name(inner, key.text());
                }
                self.name(inner, value.text());
                self.statements(inner, query);
            }
        }
    }

    /// Visits a comprehension. Its terms are in the scope of its query.
    fn comprehension(&mut self, scope: usize, terms: &[&'a Expr], query: &'a Query) {
        let inner = self.scope(scope, query);
        self.todo.extend(terms.iter().map(|term| (inner, Node::Expr(term))));
        self.statements(inner, query);
    }

    fn resolve(
        &mut self,
        scope: usize,
        mut reference: Reference<'a>,
        root: Option<&'a Expr>,
    ) -> Reference<'a> {
        reference.local = reference.root.is_some_and(|root| self.is_local(scope, root));
        self.todo.extend(root.map(|root| (scope, Node::Expr(root))));
        for step in &reference.steps {
            if let Step::Index(index) = step {
                self.todo.push((scope, Node::Expr(index)));
            }
        }
        reference
    }

    fn expression(&mut self, scope: usize, expr: &'a Expr) -> Visit<'a> {
        if let Some((reference, root)) = reference(expr) {
            return Visit::Ref(self.resolve(scope, reference, root));
        }
        let mut push = |children: &[&'a Expr]| {
            self.todo.extend(children.iter().map(|child| (scope, Node::Expr(child))));
        };
        match expr {
            Expr::Call { fcn, params, span, .. } => {
                let params: Vec<&'a Expr> = params.iter().map(AsRef::as_ref).collect();
                push(&params);
                let callee = match reference(fcn) {
                    Some((reference, root)) => self.resolve(scope, reference, root),
                    None => Reference {
                        root: None,
                        steps: Vec::new(),
                        root_span: None,
                        span,
                        local: false,
                    },
                };
                return Visit::Call { callee, params };
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                self.todo.extend(items.iter().map(|item| (scope, Node::Expr(item))));
            }
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    push(&[key, value]);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.comprehension(scope, &[term], query);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.comprehension(scope, &[key, value], query);
            }
            Expr::UnaryExpr { expr, .. } => push(&[expr]),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => push(&[lhs, rhs]),
            Expr::Membership { key, value, collection, .. } => {
                if let Some(key) = key {
                    push(&[key]);
                }
                push(&[value, collection]);
            }
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. }
            | Expr::Var { .. }
            | Expr::RefDot { .. }
            | Expr::RefBrack { .. } => {}
        }
        Visit::Expr(expr)
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Visit<'a>;

    fn next(&mut self) -> Option<Visit<'a>> {
        let (scope, node) = self.todo.pop()?;
        Some(match node {
            Node::Statement(statement) => {
                self.statement(scope, statement);
                Visit::Statement(statement)
            }
            Node::Expr(expr) => self.expression(scope, expr),
        })
    }
}
