//! What the analysis knows: of a body, of a variable, of a reference, and of a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use regorus::Value;
use regorus::unstable::{Expr, Rule};

use super::source::Source;
use super::syntax::Link;
use crate::schema::{FieldType, field};
use crate::walk::rule_args;

/// What a variable stands for.
#[derive(Debug, Clone, Default)]
pub(super) struct Binding<'a> {
    /// What must be there for it to have a value.
    pub(super) needs: BTreeSet<Source<'a>>,
    /// What its value is, so that a path continues below it.
    pub(super) values: Vec<Source<'a>>,
    /// Whether any member of its value may be absent.
    pub(super) open: bool,
    /// The expression that gives it its value.
    pub(super) expr: Option<&'a Expr>,
    /// The expression of whose value it is an unknown part.
    pub(super) whole: Option<&'a Expr>,
}

impl<'a> Binding<'a> {
    /// A variable with one of these values.
    pub(super) fn of(values: Vec<Source<'a>>) -> Self {
        Self { needs: values.iter().cloned().collect(), values, ..Self::default() }
    }
}

/// What is known inside one body.
#[derive(Debug, Clone, Default)]
pub(super) struct Body<'a> {
    pub(super) variables: BTreeMap<&'a str, Binding<'a>>,
    /// What is present where the body's positive statements hold.
    pub(super) present: BTreeSet<Source<'a>>,
    /// For each variable that iterates over the keys of a collection, the collection as it is
    /// written; empty as long as no statement has used it.
    pub(super) keys: BTreeMap<&'a str, &'a str>,
    /// The statements that give variables their values: pattern and value.
    pub(super) assigned: BTreeMap<*const Expr, (&'a Expr, &'a Expr)>,
}

impl<'a> Body<'a> {
    /// What is known of a function's parameters, and the members that their patterns need.
    pub(super) fn of_parameters(rule: &'a Rule) -> (Self, BTreeSet<Source<'a>>) {
        let mut body = Self::default();
        let mut needs = BTreeSet::new();
        for (at, arg) in rule_args(rule).into_iter().enumerate() {
            let value = Source::Param(at, Vec::new());
            let binding = Binding::of(vec![value]);
            body.bind(arg, &binding, &mut needs);
        }
        (body, needs)
    }

    /// Gives a value to the variables of a pattern. `needs` gets the members that the pattern names.
    pub(super) fn bind(
        &mut self,
        pattern: &'a Expr,
        value: &Binding<'a>,
        needs: &mut BTreeSet<Source<'a>>,
    ) {
        let mut todo = vec![(pattern, value.clone())];
        while let Some((pattern, value)) = todo.pop() {
            let part = || Binding {
                needs: value.needs.clone(),
                values: Vec::new(),
                open: true,
                expr: None,
                whole: value.whole.or(value.expr),
            };
            match pattern {
                Expr::Var { span, .. } => {
                    self.keys.remove(span.text());
                    self.variables.insert(span.text(), value);
                }
                Expr::Array { items, .. } => {
                    todo.extend(items.iter().map(|item| (item.as_ref(), part())));
                }
                Expr::Object { fields, .. } => {
                    for (_, key, inner) in fields {
                        let mut member = part();
                        if let Expr::String { value: name, .. } = key.as_ref()
                            && let Ok(name) = name.as_string()
                        {
                            let values = value.values.iter().cloned();
                            member.values = values.map(|it| it.extended(&[name])).collect();
                            member.needs.extend(member.values.iter().cloned());
                            needs.extend(member.values.iter().cloned());
                        }
                        todo.push((inner, member));
                    }
                }
                _ => {}
            }
        }
    }

    /// The pattern and the value, where a statement gives variables their values.
    pub(super) fn assigned(&self, expr: &Expr) -> Option<(&'a Expr, &'a Expr)> {
        self.assigned.get(&std::ptr::from_ref(expr)).copied()
    }

    /// Whether a computed key iterates over the collection that is written so.
    pub(super) fn iterates(&self, key: &Expr, collection: &str) -> bool {
        let Expr::Var { span, .. } = key else { return false };
        let name = span.text();
        name == "_" || self.keys.get(name).is_some_and(|of| of.is_empty() || *of == collection)
    }

    pub(super) fn iterate(&mut self, name: &'a str, collection: &'a str) {
        self.variables.remove(name);
        self.keys.insert(name, collection);
    }
}

/// What a reference reads.
#[derive(Debug, Default)]
pub(super) struct Read<'a> {
    /// What must be there, without the needs of `rule`.
    pub(super) needs: BTreeSet<Source<'a>>,
    /// The collections that it iterates over: without one there is nothing to restrict.
    pub(super) iterated: BTreeSet<Source<'a>>,
    /// What its value is.
    pub(super) values: Vec<Source<'a>>,
    /// Whether any member of its value may be absent.
    pub(super) open: bool,
    /// The rule that it reads.
    pub(super) rule: Option<Rc<Summary<'a>>>,
    /// The computed keys that it does not iterate over.
    pub(super) indexes: Vec<&'a Expr>,
    /// Its root, where that is no variable.
    pub(super) root: Option<&'a Expr>,
}

impl<'a> Read<'a> {
    /// Adds what the steps after a known value need.
    pub(super) fn follow(
        &mut self,
        value: Source<'a>,
        links: &[Link<'a>],
        text: &'a str,
        body: &Body<'a>,
    ) {
        if links.is_empty() {
            self.values.push(value);
            return;
        }
        let mut source = value;
        // Whether the names no longer are those of the schema.
        let mut free = false;
        let mut looked_up = false;
        let mut complete = true;
        for link in links {
            match link {
                Link::Name(_) if free => looked_up = true,
                Link::Name(name) => {
                    source = source.extended(&[name]);
                    complete = true;
                }
                Link::Key(key, of) => {
                    let each = matches!(&source, Source::Input(path)
                    if field(&path.join(".")).is_some_and(|it| it.holds == FieldType::Each));
                    if body.iterates(key, of) {
                        self.iterated.insert(source.clone());
                        complete = false;
                    } else {
                        looked_up = true;
                    }
                    free |= !each;
                }
            }
        }
        if complete || looked_up {
            self.needs.insert(source.clone());
        }
        // Nobody but the operator decides what is in what the operator configures.
        if looked_up && !source.is_configured() {
            self.needs.insert(Source::Lookup(text));
        }
        self.open |= free;
        if !free && !looked_up {
            self.values.push(source);
        }
    }
}

/// What a positive statement asks of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode<'a> {
    /// Whether it is true.
    Test,
    /// Whether it has a property, or this value.
    Value(Option<&'a Value>),
    /// That it lacks a property.
    Lacks,
}

impl Mode<'_> {
    /// Whether a rule with this value, if it is known, meets the statement.
    pub(super) fn is_possible(self, value: Option<&Value>) -> bool {
        match (value, self) {
            (None, _) | (_, Mode::Value(None) | Mode::Lacks) => true,
            (Some(value), Mode::Test) => *value != Value::Bool(false),
            (Some(value), Mode::Value(Some(wanted))) => *value == *wanted,
        }
    }
}

/// What a statement says about what it reads.
#[derive(Debug, Default)]
pub(super) struct Split<'a> {
    /// What is present where it holds, because it is about that.
    pub(super) present: BTreeSet<Source<'a>>,
    /// What it needs without being about it.
    pub(super) needed: BTreeSet<Source<'a>>,
    /// What it needs without being about it, where arguments of the function are not always present.
    pub(super) joint: Vec<Group<'a>>,
    /// The parts that are not split yet.
    pub(super) todo: Vec<(&'a Expr, Mode<'a>)>,
}

impl<'a> Split<'a> {
    /// Adds a value that is computed from parts of which any may be absent.
    pub(super) fn combine(
        &mut self,
        parts: BTreeSet<BTreeSet<Source<'a>>>,
        needed: BTreeSet<Source<'a>>,
        looks: bool,
    ) {
        let group = Group { parts, needed, looks, mixes: false };
        if group.is_certain() {
            self.needed.extend(group.needed);
        } else if group.parts.len() > 1 {
            self.joint.push(group);
        }
    }
}

/// A value that is computed from several parts.
#[derive(Debug, Clone)]
pub(super) struct Group<'a> {
    /// What may be absent in each part.
    pub(super) parts: BTreeSet<BTreeSet<Source<'a>>>,
    /// What must be shown to be there if two parts may be absent.
    pub(super) needed: BTreeSet<Source<'a>>,
    /// Whether the condition looks for something in each part, so that the absence of one undoes what
    /// another has even if that is always there.
    pub(super) looks: bool,
    /// Whether one part may be absent and another has what such a condition looks for.
    pub(super) mixes: bool,
}

impl Group<'_> {
    /// Whether two parts may be absent whatever the function's arguments are.
    pub(super) fn is_certain(&self) -> bool {
        let of_input =
            |part: &&BTreeSet<Source<'_>>| part.iter().any(|it| !matches!(it, Source::Param(..)));
        self.mixes || self.parts.iter().filter(of_input).count() > 1
    }
}

/// What a rule or function means to its users.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own")]
pub(super) struct Summary<'a> {
    /// What may leave it without a value.
    pub(super) needs: BTreeSet<Source<'a>>,
    /// What is present wherever it has a value, because it is about that.
    pub(super) sure: BTreeSet<Source<'a>>,
    /// What takes one of its values away, although it is not about that. The values are literals, or
    /// unknown.
    pub(super) vanishing: Vec<(Option<&'a Value>, Source<'a>)>,
    /// What takes one of its values away if two parts of a value may be absent for its caller.
    pub(super) joint: Vec<(Option<&'a Value>, Group<'a>)>,
    /// Whether its value is composed of parts, of which one may be absent although others are there.
    pub(super) mixes: bool,
    /// Whether its value is one that is read, not computed from several.
    pub(super) single: bool,
    /// What its value is, so that a path continues below it.
    pub(super) values: Vec<Source<'a>>,
    /// Whether its value is the result of a test, true or false.
    pub(super) tests: bool,
    /// Whether its value is computed, so that any member of it may be absent.
    pub(super) computed: bool,
}

impl<'a> Summary<'a> {
    /// What undoes a positive statement of this kind that uses the rule.
    pub(super) fn vanishing(&self, mode: Mode<'a>) -> impl Iterator<Item = &Source<'a>> {
        self.vanishing
            .iter()
            .filter(move |(value, _)| mode.is_possible(*value))
            .map(|(_, source)| source)
    }
}
