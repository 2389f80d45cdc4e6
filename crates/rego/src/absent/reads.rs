//! What the statements of one body say about its variables, and about what is present.
//!
//! A positive statement (`is_string(x)`, `x == 1`, `"env" in object.keys(…)`) shows that what it
//! reads is there. An assignment does not: it only names a value. `forms` says which statements are
//! positive.

use std::collections::BTreeSet;

use regorus::Value;
use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt, Query, Rule, RuleHead};

use super::Search;
use super::joint::member_of;
use super::known::{Binding, Body, Mode, Read, Split};
use super::source::Source;
use super::syntax::{Link, is_call, is_computed, is_reference, links};
use crate::check::Path;
use crate::negation::children;
use crate::schema::{FieldType, field};
use crate::walk::{is_plain, pattern_variables, reference};

/// Most local variables and constants that one name stands for.
const RESOLVED_MAX: usize = 64;

impl<'a> Search<'a, '_> {
    /// What a body's statements say.
    pub(super) fn body(&mut self, module: usize, query: &'a Query, outer: &Body<'a>) -> Body<'a> {
        let mut body = outer.clone();
        for statement in &query.stmts {
            match &statement.literal {
                Literal::Expr { expr, .. } => {
                    self.keys(module, expr, &mut body);
                    if let Some((pattern, value)) = self.assignment(module, expr, &body) {
                        self.bind(module, pattern, value, &mut body);
                        body.assigned.insert(std::ptr::from_ref(expr.as_ref()), (pattern, value));
                    }
                }
                Literal::SomeIn { key, value, collection, .. } => {
                    self.keys(module, collection, &mut body);
                    let mut element = self.element(module, collection, &body);
                    match key.as_ref().map(AsRef::as_ref) {
                        Some(Expr::Var { span, .. }) => {
                            body.iterate(span.text(), collection.span().text());
                        }
                        Some(Expr::String { value: name, .. }) => {
                            if let Ok(name) = name.as_string() {
                                let values = self.binding(module, collection, &body).values;
                                let members = values.into_iter().map(|it| it.extended(&[name]));
                                element = Binding::of(members.collect());
                            }
                        }
                        _ => {}
                    }
                    body.bind(value, &element, &mut BTreeSet::new());
                }
                Literal::SomeVars { vars, .. } => {
                    for name in vars {
                        body.iterate(name.text(), "");
                    }
                }
                Literal::NotExpr { .. } | Literal::Every { .. } => {}
            }
        }
        let mut present = BTreeSet::new();
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeIn { key, collection, .. }
                    if self.lists(module, key.as_deref(), collection, &body) =>
                {
                    present.extend(self.collection(module, collection, &body).present);
                }
                Literal::Expr { expr, .. } => match body.assigned(expr) {
                    Some((_, value)) => present.extend(self.iterated(module, value, &body)),
                    None => present.extend(self.split(module, expr, &body, Mode::Test).present),
                },
                _ => {}
            }
        }
        for source in present {
            source.insert_into(&mut body.present);
        }
        body
    }

    /// Gives the variables of a pattern their values, each its own where the value is a literal
    /// collection.
    fn bind(&mut self, module: usize, pattern: &'a Expr, value: &'a Expr, body: &mut Body<'a>) {
        let mut todo = vec![(pattern, value)];
        while let Some((pattern, value)) = todo.pop() {
            let literal = self.resolved(module, value, body);
            match (pattern, literal) {
                (Expr::Array { items, .. }, Expr::Array { items: values, .. })
                    if items.len() == values.len() =>
                {
                    todo.extend(
                        items.iter().map(AsRef::as_ref).zip(values.iter().map(AsRef::as_ref)),
                    );
                }
                (Expr::Object { fields, .. }, Expr::Object { .. }) => {
                    let member = |key: &'a Expr| {
                        let name = match key {
                            Expr::String { value: Value::String(name), .. } => name.as_ref(),
                            _ => return None,
                        };
                        member_of(literal, Some(&Link::Name(name)))
                    };
                    for (_, key, inner) in fields {
                        match member(key) {
                            Some(value) => todo.push((inner, value)),
                            None => body.bind(inner, &Binding::default(), &mut BTreeSet::new()),
                        }
                    }
                }
                _ => {
                    let binding = self.binding(module, value, body);
                    body.bind(pattern, &binding, &mut BTreeSet::new());
                }
            }
        }
    }

    /// What `some … in collection` says about a collection.
    pub(super) fn collection(
        &mut self,
        module: usize,
        collection: &'a Expr,
        body: &Body<'a>,
    ) -> Split<'a> {
        let mut split = Split::default();
        if self.looked_into(module, collection, body, &mut split) {
            return split;
        }
        self.split(module, collection, body, Mode::Value(None))
    }

    /// Whether `some key, … in collection` is about a list whose elements differ, so that an absent
    /// list has none: not `[input.a]`, and not `some "a", x in input`.
    pub(super) fn lists(
        &self,
        module: usize,
        key: Option<&'a Expr>,
        collection: &'a Expr,
        body: &Body<'a>,
    ) -> bool {
        if key.is_some_and(|key| !matches!(key, Expr::Var { .. })) {
            return false;
        }
        let mut todo = vec![self.resolved(module, collection, body)];
        while let Some(expr) = todo.pop() {
            if let Expr::Array { .. } | Expr::Set { .. } | Expr::Object { .. } = expr
                && children(expr).iter().any(|it| !is_plain(it, &|_| true))
            {
                return false;
            }
            todo.extend(children(expr));
        }
        true
    }

    /// What is known in the body of `every`.
    pub(super) fn every(
        &mut self,
        module: usize,
        statement: &'a LiteralStmt,
        outer: &Body<'a>,
    ) -> Body<'a> {
        let mut body = outer.clone();
        if let Literal::Every { key, value, domain, .. } = &statement.literal {
            let element = self.element(module, domain, outer);
            if let Some(key) = key {
                body.iterate(key.text(), domain.span().text());
            }
            body.keys.remove(value.text());
            body.variables.insert(value.text(), element);
        }
        body
    }

    /// The members that a pattern needs in the value that it takes apart.
    pub(super) fn pattern_needs(
        &mut self,
        module: usize,
        pattern: &'a Expr,
        value: &'a Expr,
        body: &Body<'a>,
    ) -> BTreeSet<Source<'a>> {
        let mut needs = BTreeSet::new();
        if !matches!(pattern, Expr::Var { .. }) {
            let binding = self.binding(module, value, body);
            body.clone().bind(pattern, &binding, &mut needs);
        }
        needs
    }

    /// The member that a literal names, of each value that a reference may have.
    pub(super) fn members(
        &mut self,
        module: usize,
        object: &'a Expr,
        name: &'a Expr,
        body: &Body<'a>,
    ) -> BTreeSet<Source<'a>> {
        let Expr::String { value: name, .. } = name else { return BTreeSet::new() };
        let Ok(name) = name.as_string() else { return BTreeSet::new() };
        if !is_reference(object) {
            return BTreeSet::new();
        }
        let values = self.read(module, object, body).values;
        values.into_iter().map(|it| it.extended(&[name])).collect()
    }

    /// The pattern and the value of a statement that gives variables their values.
    fn assignment(
        &self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
    ) -> Option<(&'a Expr, &'a Expr)> {
        let Expr::AssignExpr { op, lhs, rhs, .. } = expr else { return None };
        let free = |side: &'a Expr| {
            pattern_variables(side).into_iter().any(|name| self.is_free(module, name, body))
        };
        match op {
            AssignOp::ColEq => Some((lhs, rhs)),
            AssignOp::Eq if free(lhs) => Some((lhs, rhs)),
            AssignOp::Eq if free(rhs) => Some((rhs, lhs)),
            AssignOp::Eq => None,
        }
    }

    /// Whether a name is a variable without a value yet.
    fn is_free(&self, module: usize, name: &str, body: &Body<'a>) -> bool {
        !matches!(name, "input" | "data" | "_")
            && !body.variables.contains_key(name)
            && !body.keys.contains_key(name)
            && !self.index.defines(module, name)
            && !self.index.imports_name(module, name)
    }

    /// Notes the variables that an expression uses to iterate over a collection.
    fn keys(&self, module: usize, expr: &'a Expr, body: &mut Body<'a>) {
        let mut todo = vec![expr];
        while let Some(expr) = todo.pop() {
            if let Expr::RefBrack { refr, index, .. } = expr
                && let Expr::Var { span, .. } = index.as_ref()
            {
                let name = span.text();
                let unused = body.keys.get(name).is_some_and(|of| of.is_empty());
                if unused || self.is_free(module, name, body) {
                    body.iterate(name, refr.span().text());
                }
            }
            todo.extend(children(expr));
        }
    }

    /// What a variable with the value of an expression stands for.
    fn binding(&mut self, module: usize, expr: &'a Expr, body: &Body<'a>) -> Binding<'a> {
        let needs = self.needs(module, expr, body);
        let mut binding = Binding { needs, expr: Some(expr), ..Binding::default() };
        if is_reference(expr) {
            let read = self.read(module, expr, body);
            binding.values = read.values;
            binding.open = read.open;
        } else {
            binding.open = is_computed(expr);
        }
        binding
    }

    /// What an element of a collection stands for.
    fn element(&mut self, module: usize, collection: &'a Expr, body: &Body<'a>) -> Binding<'a> {
        let mut binding = Binding::default();
        if !self.lists(module, None, collection, body) {
            binding.needs = self.needs(module, collection, body);
            binding.whole = Some(collection);
            return binding;
        }
        let of = self.binding(module, collection, body);
        binding.open = of.open;
        for source in of.values {
            match &source {
                Source::Input(path) => match field(&path.join(".")).map(|it| it.holds) {
                    Some(FieldType::Each) => binding.values.push(source),
                    Some(FieldType::Texts) => {}
                    _ => binding.open = true,
                },
                Source::Param(..) | Source::Lookup(_) => binding.open = true,
            }
        }
        binding
    }

    /// The expression that gives a local variable or a constant its value.
    pub(super) fn resolved(&self, module: usize, mut expr: &'a Expr, body: &Body<'a>) -> &'a Expr {
        // A name is never defined by itself, but patterns may repeat one.
        for _ in 0..RESOLVED_MAX {
            let Expr::Var { span, .. } = expr else { break };
            let next = match body.variables.get(span.text()) {
                Some(binding) => binding.expr,
                None => reference(expr)
                    .and_then(|(it, _)| self.index.resolve(module, &it))
                    .and_then(|path| self.constant(&path)),
            };
            let Some(next) = next else { break };
            expr = next;
        }
        expr
    }

    /// The value of a rule with one definition and no condition, if it is a literal.
    pub(super) fn constant(&self, path: &Path<'a>) -> Option<&'a Expr> {
        let [(_, Rule::Spec { head: RuleHead::Compr { assign: Some(assign), .. }, bodies, .. })] =
            self.index.rules.get(path)?.as_slice()
        else {
            return None;
        };
        let plain = is_plain(&assign.value, &|_| true);
        (bodies.is_empty() && plain).then_some(assign.value.as_ref())
    }

    /// What must be there for an expression to have a value, without what it iterates over.
    pub(super) fn needs(
        &mut self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
    ) -> BTreeSet<Source<'a>> {
        self.needs_and_iterated(module, expr, body).0
    }

    /// The collections that an expression iterates over.
    pub(super) fn iterated(
        &mut self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
    ) -> BTreeSet<Source<'a>> {
        self.needs_and_iterated(module, expr, body).1
    }

    fn needs_and_iterated(
        &mut self,
        module: usize,
        expr: &'a Expr,
        body: &Body<'a>,
    ) -> (BTreeSet<Source<'a>>, BTreeSet<Source<'a>>) {
        let mut needs = BTreeSet::new();
        let mut iterated = BTreeSet::new();
        let mut todo = vec![expr];
        while let Some(expr) = todo.pop() {
            if is_reference(expr) {
                let read = self.read(module, expr, body);
                needs.extend(read.needs);
                iterated.extend(read.iterated);
                needs.extend(read.rule.iter().flat_map(|rule| rule.needs.iter().cloned()));
                todo.extend(read.indexes.into_iter().chain(read.root));
                continue;
            }
            if let Expr::Call { fcn, params, .. } = expr {
                if let Some(function) = self.called(module, fcn) {
                    needs.extend(self.given(module, &function.needs, expr, body));
                }
                // The function's name is no operand.
                todo.extend(params.iter().map(AsRef::as_ref));
                continue;
            }
            todo.extend(children(expr));
        }
        (needs, iterated)
    }

    /// The needs of a function with these arguments.
    pub(super) fn given<'s>(
        &mut self,
        module: usize,
        of: impl IntoIterator<Item = &'s Source<'a>>,
        call: &'a Expr,
        body: &Body<'a>,
    ) -> BTreeSet<Source<'a>>
    where
        'a: 's,
    {
        let Expr::Call { params, .. } = call else { return BTreeSet::new() };
        let mut given = BTreeSet::new();
        for source in of {
            let (at, below) = match source {
                Source::Param(at, below) => (at, below),
                Source::Input(_) => {
                    given.insert(source.clone());
                    continue;
                }
                // Each call looks up something of its own.
                Source::Lookup(_) => {
                    given.insert(Source::Lookup(call.span().text()));
                    continue;
                }
            };
            let Some(param) = params.get(*at).map(AsRef::as_ref) else { continue };
            let literal = self.resolved(module, param, body);
            let first = below.first().map(|name| Link::Name(name));
            let (param, below) = match member_of(literal, first.as_ref()) {
                Some(member) => (member, below.get(1..).unwrap_or_default()),
                None => (param, below.as_slice()),
            };
            let values = if is_reference(param) {
                self.read(module, param, body).values
            } else {
                Vec::new()
            };
            if values.is_empty() {
                given.extend(self.needs(module, param, body));
            }
            given.extend(values.into_iter().map(|it| it.extended(below)));
        }
        given
    }

    /// What a variable or reference reads.
    pub(super) fn read(&mut self, module: usize, expr: &'a Expr, body: &Body<'a>) -> Read<'a> {
        let mut read = Read::default();
        let (root, links) = links(expr);
        read.indexes.extend(links.iter().filter_map(|link| match link {
            Link::Key(key, of) if !body.iterates(key, of) => Some(*key),
            Link::Key(..) | Link::Name(_) => None,
        }));
        let text = expr.span().text();
        // A document of the policy's own: only a computed key can be missing in it.
        let looked_up = read.indexes.iter().any(|it| !matches!(it, Expr::Number { .. }));
        // `split` always has a first part.
        let first = matches!(links.as_slice(), [Link::Key(Expr::Number { value, .. }, _)]
            if *value == Value::from(0_u64));
        let iterates = matches!(links.as_slice(), [Link::Key(key, of)] if body.iterates(key, of));
        // Whether what a computed value has at these steps may be absent.
        let in_computed = |splits: bool| !(links.is_empty() || iterates || first && splits);
        let Expr::Var { span, .. } = root else {
            read.root = Some(root);
            let computed = is_computed(root) && in_computed(is_call(root, "split"));
            read.needs.extend((looked_up || computed).then_some(Source::Lookup(text)));
            return read;
        };
        let name = span.text();
        if let Some(binding) = body.variables.get(name) {
            read.needs.extend(binding.needs.iter().cloned());
            for value in &binding.values {
                read.follow(value.clone(), &links, text, body);
            }
            read.open |= binding.open;
            let splits = binding.expr.is_some_and(|it| is_call(it, "split"));
            if binding.values.is_empty()
                && ((binding.open && in_computed(splits)) || (looked_up && !links.is_empty()))
            {
                read.needs.insert(Source::Lookup(text));
            }
            return read;
        }
        if body.keys.contains_key(name) {
            return read;
        }
        if name == "input" {
            read.follow(Source::Input(Vec::new()), &links, text, body);
            return read;
        }
        if let Some((path, used)) = self.rule_of(module, expr) {
            let rule = self.summary(&path);
            let rest = links.get(used..).unwrap_or_default();
            for value in &rule.values {
                read.follow(value.clone(), rest, text, body);
            }
            read.open |= rule.values.is_empty();
            if rule.computed && !rest.is_empty() && !iterates {
                read.needs.insert(Source::Lookup(text));
            }
            read.rule = Some(rule);
        }
        read.needs.extend(looked_up.then_some(Source::Lookup(text)));
        read
    }

    /// The rule that a reference reads, and how many of its steps name the rule.
    pub(super) fn rule_of(&self, module: usize, expr: &'a Expr) -> Option<(Path<'a>, usize)> {
        let (used, _) = reference(expr)?;
        let path = self.index.resolve(module, &used)?;
        let before = path.len().checked_sub(used.prefix().len())?;
        (before..=path.len()).rev().find_map(|end| {
            let rule = path.get(..end)?;
            self.index.rules.contains_key(rule).then(|| (rule.to_vec(), end.saturating_sub(before)))
        })
    }
}
