//! OPA's safety rule on one body: some order of its statements gives each variable a value before
//! it is used (OPA docs, "Policy Language", "Negation"; `reorderBodyForSafety` and `Unify` in
//! `v1/ast`).
//!
//! Three rules are stricter than OPA's: what the body of `every` uses must have its value before it,
//! what `not` uses must not get it from a unification behind it, and what a literal with an index
//! uses (`[x, y][0]`) must have its value before it.
//!
//! One rule of OPA's has no such reason and is kept as it is, so that a policy loads here only if it
//! loads there: an expression whose indexes are just what its comprehensions use is refused
//! (`input.list[i] != [x | x := input.list[i]]`), whatever gives `i` its value.
//!
//! A statement that is not negated gives values to the variables that are an index of a reference,
//! or that unification determines. A negated one gives none. `safety` builds the statements from
//! syntax trees, and reports. The work is at most the square of a statement's variables, and
//! linear in the number of statements, up to logarithms.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::Span;

/// A variable of one rule: its index in the table of names that `safety` has.
pub(super) type Var = usize;

/// A set of variables.
pub(super) type Vars = BTreeSet<Var>;

/// A term without calls: each call was moved into a statement of its own.
#[derive(Debug, Clone)]
pub(super) enum Term<'a> {
    /// A variable.
    Var(Var),
    /// A literal, as it is written.
    Literal(&'a str),
    /// A reference with its root variable (`None` for `input`, `data` and rules), and its indexes.
    Ref(Option<Var>, Vec<Self>),
    /// An array.
    Array(Vec<Self>),
    /// A set.
    Set(Vec<Self>),
    /// An object.
    Object(Vec<(Self, Self)>),
    /// A comprehension: the terms of its head, and its body.
    Closure(Vec<Self>, Vec<Statement<'a>>),
}

/// What a statement says.
#[derive(Debug, Clone)]
pub(super) enum Kind<'a> {
    /// A term that must be neither undefined nor false.
    Value(Term<'a>),
    /// `=`, `:=` and `some … in`.
    Unify(Term<'a>, Term<'a>),
    /// A call, and the variable that gets its value.
    Call(Vec<Term<'a>>, Option<Var>),
    /// `every`: the domain, the variables that it declares, and its body.
    Every(Term<'a>, Vec<Var>, Vec<Statement<'a>>),
}

/// One statement of a body.
#[derive(Debug, Clone)]
pub(super) struct Statement<'a> {
    /// What it says.
    pub(super) kind: Kind<'a>,
    /// Whether it gives no values: `not` stands before it, or it is `print`.
    pub(super) negated: bool,
    /// Whether its variables must have values before it: those of `print`, as in OPA, and those of a
    /// literal with an index (`[x, y][0]`), which OPA 1.20.2 may evaluate without their values.
    pub(super) at_once: bool,
    /// The values of its `with` modifiers.
    pub(super) with: Vec<Term<'a>>,
    /// Its place.
    pub(super) span: &'a Span,
}

/// A variable that has no value where it is used.
#[derive(Debug, Clone)]
pub(super) struct Unsafe<'a> {
    /// The variable.
    pub(super) var: Var,
    /// The statement that uses it.
    pub(super) span: &'a Span,
    /// Whether that statement gives no values.
    pub(super) negated: bool,
    /// [`Statement::at_once`] of that statement.
    pub(super) at_once: bool,
    /// Whether the statement has it as an index and in a closure ([`Order::own`]).
    pub(super) own: bool,
}

/// Which variables of a term count.
#[derive(Debug, Clone, Copy)]
enum Counted {
    /// All that a statement needs: those inside closures have their own body.
    Needed,
    /// Those that unification can determine: no roots of references, no keys of objects.
    Determined,
    /// Those that OPA takes for the indexes of a reference: keys of objects, too.
    Indexed,
    /// Those that closures mention at any depth, `every` included.
    Closed,
}

/// Checks one body. `known` are the variables that have values before it, and are the same after it.
pub(super) fn check<'a>(body: &[Statement<'a>], known: &mut Vars, found: &mut Vec<Unsafe<'a>>) {
    let needed: Vec<Vars> = body.iter().map(needs).collect();
    let mut order = Order::new(body, &needed, known);
    while let Some(at) = order.todo.pop_first() {
        if let Some(statement) = body.get(at).filter(|_| order.is_open(at)) {
            order.attempt(at, statement);
        }
    }
    let mut reported = Vars::new();
    for (at, (lacks, statement)) in order.missing.iter().zip(body).enumerate() {
        for var in lacks {
            if reported.insert(*var) || statement.negated {
                found.push(Unsafe {
                    var: *var,
                    span: statement.span,
                    negated: statement.negated,
                    at_once: statement.at_once,
                    own: order.own.contains(&at),
                });
            }
        }
    }
    let ready = order.ready;
    let mut added = Vec::new();
    for at in ready {
        let (Some(statement), Some(needed)) = (body.get(at), needed.get(at)) else { continue };
        inside(statement, known, found);
        added.extend(needed.iter().filter(|var| known.insert(**var)));
    }
    for var in added {
        known.remove(var);
    }
}

/// The order of one body's statements, as far as it was found.
struct Order {
    /// For each statement: the variables that it mentions and that had no value before the body.
    used: Vec<Vars>,
    /// For each statement: those of its closures that statements of the body mention, too.
    captured: Vec<Vars>,
    /// For each statement: the variables that still lack a value.
    missing: Vec<Vars>,
    state: Vec<State>,
    /// The variables that have values.
    safe: Vars,
    /// Those of them that got theirs from a unification.
    unified: Vars,
    /// For each variable: the statements to try again when it has a value.
    waiting: BTreeMap<Var, Vec<usize>>,
    /// What a negated statement lacked when it was tried first.
    early: BTreeMap<usize, Vars>,
    /// The statements whose indexes are just the variables that their closures need. OPA does not
    /// take such a statement into the order, not even where something before gives these variables
    /// their values; unless it is a unification, which then gives none.
    own: BTreeSet<usize>,
    todo: BTreeSet<usize>,
    ready: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not tried yet.
    New,
    /// Tried, and registered in [`Order::waiting`].
    Waits,
    /// In the order, or refused.
    Done,
}

impl Order {
    fn new(body: &[Statement<'_>], needed: &[Vars], known: &Vars) -> Self {
        let mentioned: Vars = needed.iter().flatten().copied().collect();
        let unknown = |vars: &Vars| -> Vars { vars.difference(known).copied().collect() };
        let captured: Vec<Vars> = body
            .iter()
            .map(|it| unknown(&closed(it)).intersection(&mentioned).copied().collect())
            .collect();
        let used: Vec<Vars> = needed
            .iter()
            .zip(&captured)
            .map(|(needed, captured)| unknown(needed).union(captured).copied().collect())
            .collect();
        Self {
            missing: used.clone(),
            used,
            captured,
            state: vec![State::New; body.len()],
            safe: mentioned.intersection(known).copied().collect(),
            unified: Vars::new(),
            waiting: BTreeMap::new(),
            early: BTreeMap::new(),
            own: BTreeSet::new(),
            todo: (0..body.len()).collect(),
            ready: Vec::new(),
        }
    }

    fn is_open(&self, at: usize) -> bool {
        self.state.get(at).is_some_and(|state| *state != State::Done)
    }

    /// Puts a statement into the order, if all that it needs has values.
    fn attempt(&mut self, at: usize, statement: &Statement<'_>) {
        let outputs = given(statement, &self.safe, Counted::Determined);
        let (Some(lacks), Some(captured), Some(used), Some(state)) = (
            self.missing.get_mut(at),
            self.captured.get(at),
            self.used.get(at),
            self.state.get_mut(at),
        ) else {
            return;
        };
        let safe = &self.safe;
        lacks.retain(|it| !(safe.contains(it) || (outputs.contains(it) && !captured.contains(it))));
        let own = !captured.is_empty() && given(statement, safe, Counted::Indexed) == *captured;
        if own {
            lacks.extend(captured);
            self.own.insert(at);
        } else {
            self.own.remove(&at);
        }
        // A closure cannot get values from the statement that it is part of.
        let needs_itself =
            !own && captured.iter().any(|it| outputs.contains(it) && !safe.contains(it));
        // The interpreter evaluates `every` where it stands.
        let every = matches!(statement.kind, Kind::Every(..)) && !captured.is_subset(safe);
        if needs_itself || every {
            *state = State::Done;
            return;
        }
        if !lacks.is_empty() {
            if *state == State::New {
                for var in used.difference(safe) {
                    self.waiting.entry(*var).or_default().push(at);
                }
                if statement.negated || statement.at_once {
                    self.early.insert(at, lacks.clone());
                }
                *state = State::Waits;
            }
            return;
        }
        *state = State::Done;
        // The interpreter does not move `not` behind a unification.
        let late = self.early.remove(&at).unwrap_or_default();
        lacks.extend(late.iter().filter(|it| statement.at_once || self.unified.contains(it)));
        if !lacks.is_empty() {
            return;
        }
        self.ready.push(at);
        if matches!(statement.kind, Kind::Unify(..)) {
            self.unified.extend(&outputs);
        }
        for var in outputs {
            if self.safe.insert(var) {
                self.todo.extend(self.waiting.remove(&var).unwrap_or_default());
            }
        }
    }
}

/// Checks the closures of a statement.
fn inside<'a>(statement: &Statement<'a>, known: &mut Vars, found: &mut Vec<Unsafe<'a>>) {
    let mut terms: Vec<&Term<'a>> = statement.with.iter().collect();
    match &statement.kind {
        Kind::Value(term) => terms.push(term),
        Kind::Unify(left, right) => terms.extend([left, right]),
        Kind::Call(params, _) => terms.extend(params),
        Kind::Every(domain, declared, body) => {
            terms.push(domain);
            known.extend(declared);
            check(body, known, found);
        }
    }
    while let Some(term) = terms.pop() {
        match term {
            Term::Var(_) | Term::Literal(_) => {}
            Term::Ref(_, items) | Term::Array(items) | Term::Set(items) => terms.extend(items),
            Term::Object(fields) => {
                terms.extend(fields.iter().flat_map(|(key, value)| [key, value]));
            }
            Term::Closure(head, body) => {
                let given: Vars = body.iter().flat_map(needs).collect();
                let mut used = Vars::new();
                for term in head {
                    collect(term, Counted::Needed, &mut used);
                }
                let lacking = used.difference(&given).filter(|var| !known.contains(var));
                found.extend(lacking.map(|var| Unsafe {
                    var: *var,
                    span: statement.span,
                    negated: false,
                    at_once: false,
                    own: false,
                }));
                check(body, known, found);
            }
        }
    }
}

/// The variables that must have values for a statement.
pub(super) fn needs(statement: &Statement<'_>) -> Vars {
    let mut vars = Vars::new();
    each_term(statement, &mut |term| collect(term, Counted::Needed, &mut vars));
    if let Kind::Call(_, Some(output)) = statement.kind {
        vars.insert(output);
    }
    vars
}

/// The variables that the closures of a statement mention.
fn closed(statement: &Statement<'_>) -> Vars {
    let mut vars = Vars::new();
    each_term(statement, &mut |term| collect(term, Counted::Closed, &mut vars));
    if let Kind::Every(_, _, body) = &statement.kind {
        for it in body {
            mentions(it, &mut vars);
        }
    }
    vars
}

/// Every variable in a statement, at any depth.
fn mentions(statement: &Statement<'_>, vars: &mut Vars) {
    vars.extend(needs(statement));
    vars.extend(closed(statement));
}

/// Visits the terms of a statement, without the body of `every`.
fn each_term<'s, 'a>(statement: &'s Statement<'a>, visit: &mut dyn FnMut(&'s Term<'a>)) {
    match &statement.kind {
        Kind::Value(term) | Kind::Every(term, _, _) => visit(term),
        Kind::Unify(left, right) => {
            visit(left);
            visit(right);
        }
        Kind::Call(params, _) => params.iter().for_each(&mut *visit),
    }
    statement.with.iter().for_each(visit);
}

/// Adds variables of a term.
fn collect(term: &Term<'_>, counted: Counted, vars: &mut Vars) {
    match (term, counted) {
        (Term::Var(_), Counted::Closed) | (Term::Literal(_), _) => {}
        (Term::Var(var), _) => {
            vars.insert(*var);
        }
        (Term::Ref(root, indexes), _) => {
            if let (Some(root), Counted::Needed) = (root, counted) {
                vars.insert(*root);
            }
            for it in indexes {
                collect(it, counted, vars);
            }
        }
        (Term::Array(items) | Term::Set(items), _) => {
            for it in items {
                collect(it, counted, vars);
            }
        }
        (Term::Object(fields), _) => {
            for (key, value) in fields {
                if !matches!(counted, Counted::Determined) {
                    collect(key, counted, vars);
                }
                collect(value, counted, vars);
            }
        }
        (Term::Closure(head, body), Counted::Closed) => {
            for term in head {
                collect(term, Counted::Needed, vars);
                collect(term, Counted::Closed, vars);
            }
            for it in body {
                mentions(it, vars);
            }
        }
        (Term::Closure(..), _) => {}
    }
}

/// The variables to which a statement gives values, if those in `safe` have theirs. `counted` are
/// those of an index. As in OPA, an index counts also where it has its value already.
fn given(statement: &Statement<'_>, safe: &Vars, counted: Counted) -> Vars {
    if statement.negated {
        return Vars::new();
    }
    let mut modifiers = Vars::new();
    for term in &statement.with {
        collect(term, Counted::Needed, &mut modifiers);
    }
    if !modifiers.is_subset(safe) {
        return Vars::new();
    }
    let mut outputs = Vars::new();
    match &statement.kind {
        Kind::Value(term) | Kind::Every(term, _, _) => indexes(term, safe, counted, &mut outputs),
        Kind::Unify(left, right) => {
            indexes(left, safe, counted, &mut outputs);
            indexes(right, safe, counted, &mut outputs);
            let mut unifier = Unifier {
                known: safe,
                given: outputs,
                waits: BTreeMap::new(),
                dependents: BTreeMap::new(),
            };
            unifier.unify(left, right);
            outputs = unifier.given;
            outputs.retain(|var| !safe.contains(var));
        }
        Kind::Call(params, output) => {
            for term in params {
                indexes(term, safe, counted, &mut outputs);
            }
            if let Some(output) = output {
                let mut inputs = Vars::new();
                for it in params {
                    collect(it, Counted::Determined, &mut inputs);
                }
                if inputs.iter().all(|it| safe.contains(it) || outputs.contains(it)) {
                    outputs.insert(*output);
                } else {
                    outputs.clear();
                }
            }
        }
    }
    outputs
}

/// Adds the variables that are indexes of references whose roots have values.
fn indexes(term: &Term<'_>, safe: &Vars, counted: Counted, vars: &mut Vars) {
    match term {
        Term::Var(_) | Term::Literal(_) | Term::Closure(..) => {}
        Term::Ref(root, indexes_of) => {
            if root.is_none_or(|root| safe.contains(&root)) {
                for it in indexes_of {
                    collect(it, counted, vars);
                }
                for it in indexes_of {
                    indexes(it, safe, counted, vars);
                }
            }
        }
        Term::Array(items) | Term::Set(items) => {
            for it in items {
                indexes(it, safe, counted, vars);
            }
        }
        Term::Object(fields) => {
            for (key, value) in fields {
                indexes(key, safe, counted, vars);
                indexes(value, safe, counted, vars);
            }
        }
    }
}

/// OPA's `Unify`: which variables get values when two terms are made equal.
struct Unifier<'s> {
    known: &'s Vars,
    /// The variables that get values.
    given: Vars,
    /// For a variable without a value: the variables on which its value depends.
    waits: BTreeMap<Var, Vars>,
    /// The other direction.
    dependents: BTreeMap<Var, Vec<Var>>,
}

impl Unifier<'_> {
    fn is_safe(&self, var: Var) -> bool {
        self.known.contains(&var) || self.given.contains(&var)
    }

    fn wait(&mut self, var: Var, on: Var) {
        self.waits.entry(var).or_default().insert(on);
        self.dependents.entry(on).or_default().push(var);
    }

    fn unify(&mut self, left: &Term<'_>, right: &Term<'_>) {
        match (left, right) {
            (Term::Var(left), Term::Var(right)) => {
                if self.is_safe(*right) {
                    self.mark(*left);
                } else if self.is_safe(*left) {
                    self.mark(*right);
                } else {
                    self.wait(*left, *right);
                    self.wait(*right, *left);
                }
            }
            (Term::Var(var), pattern @ (Term::Array(_) | Term::Object(_)))
            | (pattern @ (Term::Array(_) | Term::Object(_)), Term::Var(var)) => {
                self.pattern(*var, pattern);
            }
            (Term::Var(var), Term::Ref(root, _)) | (Term::Ref(root, _), Term::Var(var)) => {
                let safe = root.is_none_or(|root| self.is_safe(root));
                if safe {
                    self.mark(*var);
                }
            }
            (Term::Var(var), _) | (_, Term::Var(var)) => self.mark(*var),
            (Term::Ref(root, _), pattern @ (Term::Array(_) | Term::Object(_)))
            | (pattern @ (Term::Array(_) | Term::Object(_)), Term::Ref(root, _)) => {
                let safe = root.is_none_or(|root| self.is_safe(root));
                if safe {
                    self.mark_all(pattern);
                }
            }
            (Term::Closure(..), pattern @ (Term::Array(_) | Term::Object(_)))
            | (pattern @ (Term::Array(_) | Term::Object(_)), Term::Closure(..)) => {
                self.mark_all(pattern);
            }
            (Term::Array(left), Term::Array(right)) if left.len() == right.len() => {
                for (left, right) in left.iter().zip(right) {
                    self.unify(left, right);
                }
            }
            (Term::Object(left), Term::Object(right)) if left.len() == right.len() => {
                let values: BTreeMap<&str, &Term<'_>> =
                    right.iter().filter_map(literal_key).collect();
                for (key, value) in left.iter().filter_map(literal_key) {
                    if let Some(other) = values.get(key) {
                        self.unify(value, other);
                    }
                }
            }
            _ => {}
        }
    }

    fn pattern(&mut self, var: Var, pattern: &Term<'_>) {
        if self.is_safe(var) {
            return self.mark_all(pattern);
        }
        let mut parts = Vars::new();
        collect(pattern, Counted::Determined, &mut parts);
        parts.retain(|part| !self.is_safe(*part));
        if parts.is_empty() {
            return self.mark(var);
        }
        for part in parts {
            self.wait(var, part);
        }
    }

    fn mark_all(&mut self, pattern: &Term<'_>) {
        let mut parts = Vars::new();
        collect(pattern, Counted::Determined, &mut parts);
        for var in parts {
            self.mark(var);
        }
    }

    fn mark(&mut self, var: Var) {
        let mut todo = vec![var];
        while let Some(var) = todo.pop() {
            if !self.given.insert(var) {
                continue;
            }
            todo.extend(self.waits.remove(&var).unwrap_or_default());
            for dependent in self.dependents.remove(&var).unwrap_or_default() {
                let Some(on) = self.waits.get_mut(&dependent) else { continue };
                if on.remove(&var) && on.is_empty() {
                    todo.push(dependent);
                }
            }
        }
    }
}

/// A field of an object whose key is a literal.
fn literal_key<'t>((key, value): &'t (Term<'_>, Term<'_>)) -> Option<(&'t str, &'t Term<'t>)> {
    match key {
        Term::Literal(text) => Some((text, value)),
        _ => None,
    }
}
