//! Reads the members of one mapping by key, and reports those that no key asked for.
//!
//! Each call of [`Section::key`] is a row of the table of keys: its name, its form with range and
//! unit, what it means, and, by the call that ends it, what holds where it is not written. The same
//! calls read a file and describe it ([`describe`]), so that the schema and the documents cannot
//! differ from what is read. For this every section asks for all of its keys, whatever it finds.

use super::context::Context;
use super::form::{Form, Written, expected};
use super::problem::{Location, did_you_mean, joined};
use super::table::{Absent, Condition, Row, Shape, Table};
use crate::yaml::{Kind, Member, Node, Origin};

/// One mapping that is being read.
pub(super) struct Section<'c> {
    cx: &'c Context<'c>,
    location: Location,
    /// Its own name, where the writer chooses names; else empty.
    name: String,
    /// What no key has asked for yet.
    members: Vec<Member>,
    /// The keys that were asked for and are written, with their places.
    found: Vec<(&'static str, Location)>,
    asked: Vec<&'static str>,
    /// Filled where the context describes.
    table: Table,
}

/// A mapping with keys of its own, which `read` asks for. `read` gives nothing where it reported a
/// problem that leaves nothing to give.
pub(super) fn section<'f, T: 'f>(read: impl Fn(&mut Section<'_>) -> Option<T> + 'f) -> Form<'f, T> {
    let read = std::rc::Rc::new(read);
    let reader = std::rc::Rc::clone(&read);
    let shape = move |_: &Context<'_>| Shape::Section(describe(&*reader));
    Form::new("keys with values", shape, move |written, cx| {
        let Written { node, location, name } = written;
        let members = match node.kind {
            Kind::Map(members) => members,
            Kind::Null
            | Kind::Bool(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Text(_)
            | Kind::List(_) => {
                expected(
                    cx,
                    &location,
                    "keys with values",
                    &node.kind,
                    "write its keys below it, indented",
                );
                return None;
            }
        };
        let mut section = Section::open(cx, members, location, name);
        let value = read(&mut section);
        section.close();
        value
    })
}

/// A mapping with keys of its own, whatever is wrong with them.
pub(super) fn defaulted<'f, T: 'f>(read: impl Fn(&mut Section<'_>) -> T + 'f) -> Form<'f, T> {
    section(move |s| Some(read(s)))
}

/// The keys that `read` asks for.
pub(super) fn describe<T>(read: impl Fn(&mut Section<'_>) -> Option<T>) -> Table {
    super::context::describing(|cx| {
        let mut section = Section::open(cx, Vec::new(), Location::named(""), "name".to_owned());
        read(&mut section);
        section.table
    })
}

impl<'c> Section<'c> {
    fn open(cx: &'c Context<'c>, members: Vec<Member>, location: Location, name: String) -> Self {
        let (found, asked) = (Vec::new(), Vec::new());
        Self { cx, location, name, members, found, asked, table: Table::default() }
    }

    /// Reports the keys that nobody asked for.
    fn close(self) {
        for member in &self.members {
            let location = self.location.member(&member.key, member.origin);
            self.cx.problem(&location, "no such key", did_you_mean(&member.key, &self.asked));
        }
    }

    /// The row of `name`: its form, and what it means.
    pub(super) fn key<'s, 'f, T: 'f>(
        &'s mut self,
        name: &'static str,
        form: Form<'f, T>,
        doc: &'static str,
    ) -> Key<'s, 'c, 'f, T> {
        Key { section: self, name, form, doc, only: None }
    }

    /// Says that exactly one of `keys` must be written; `hint` says what to write.
    pub(super) fn exactly_one_of(&mut self, keys: &'static [&'static str], hint: &str) {
        self.table.exclusive.push(keys);
        let written: Vec<&str> = keys.iter().copied().filter(|key| self.has(key)).collect();
        match written.as_slice() {
            [_] => {}
            [] => {
                let what = match keys {
                    [one, other] => format!("has neither `{one}` nor `{other}`"),
                    _ => format!("has none of {}", joined(keys, "and")),
                };
                self.cx.problem(&self.location, what, hint);
            }
            [first, ..] => {
                let what = format!("{} are given at once", joined(&written, "and"));
                self.cx.problem(&self.at(first), what, "keep one of them");
            }
        }
    }

    /// Its own name, where the writer chooses names.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where this mapping stands.
    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    /// Whether `key` was written, in whatever form.
    pub(super) fn has(&self, key: &str) -> bool {
        self.found.iter().any(|(found, _)| *found == key)
            || self.members.iter().any(|member| member.key == key)
    }

    /// Where `key` stands, or would stand.
    pub(super) fn at(&self, key: &str) -> Location {
        if let Some((_, location)) = self.found.iter().find(|(found, _)| *found == key) {
            return location.clone();
        }
        match self.members.iter().find(|member| member.key == key) {
            Some(member) => self.location.member(key, member.origin),
            None => self.location.absent_member(key),
        }
    }

    /// The value of an environment variable, if it is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.cx.surroundings.env)(name).filter(|text| !text.is_empty())
    }

    /// How many members the mapping `key` has, which was not asked for yet.
    pub(super) fn size_of(&self, key: &str) -> usize {
        let value = self.members.iter().find(|member| member.key == key).map(|it| &it.value.kind);
        match value {
            Some(Kind::Map(members)) => members.len(),
            _ => 0,
        }
    }

    /// Reports a problem with the value of `key`, or with its absence.
    pub(super) fn problem(&self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.cx.problem(&self.at(key), what, hint);
    }

    /// Tells that what is written for `key` does nothing, and what to do.
    pub(super) fn idle(&self, key: &str, what: &str, hint: &str) {
        self.cx.warning(&self.at(key), what, hint);
    }

    /// Tells that what is written at a place inside the mapping does nothing.
    pub(super) fn idle_at(&self, location: &Location, what: &str, hint: &str) {
        self.cx.warning(location, what, hint);
    }

    /// Tells of each of `pairs` (a bound, its value, a bound that ends first, its value) of which the
    /// first was written and is larger than the second.
    pub(super) fn idle_above(&self, pairs: &[(&str, usize, &str, usize)]) {
        for (key, value, other, bound) in pairs {
            if self.has(key) && value > bound {
                let what = format!("is never reached: `{other}` is smaller, {bound}");
                self.idle(key, &what, &format!("lower it, or raise `{other}`"));
            }
        }
    }

    /// Whether any key was written.
    pub(super) fn is_written(&self) -> bool {
        !self.found.is_empty() || !self.members.is_empty()
    }

    /// Reports a problem at a place inside the mapping.
    pub(super) fn problem_at(
        &self,
        location: &Location,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.cx.problem(location, what, hint);
    }

    /// Reports a problem with the mapping as a whole.
    pub(super) fn problem_here(&self, what: impl Into<String>, hint: impl Into<String>) {
        self.cx.problem(&self.location, what, hint);
    }

    /// Takes a member out; a member without a value is reported.
    fn take(&mut self, key: &'static str) -> Option<(Node, Location)> {
        self.asked.push(key);
        let index = self.members.iter().position(|member| member.key == key)?;
        let member = self.members.remove(index);
        let location = self.location.member(key, member.origin);
        self.found.push((key, location.clone()));
        Some((member.value, location))
    }
}

/// A row of the table, whose last column is the method that ends it.
#[must_use]
pub(super) struct Key<'s, 'c, 'f, T> {
    section: &'s mut Section<'c>,
    name: &'static str,
    form: Form<'f, T>,
    doc: &'static str,
    only: Option<Condition>,
}

/// What was found for a key.
enum Found<T> {
    Absent,
    /// Something that was reported.
    Wrong,
    Value(T),
}

impl<'f, T: 'f> Key<'_, '_, 'f, T> {
    /// The key has a meaning only where `condition` holds, if there is one.
    pub(super) fn only(self, condition: impl Into<Option<Condition>>) -> Self {
        Self { only: condition.into(), ..self }
    }

    /// Without it, it is as with `default`. So it is where something wrong is written, too.
    pub(super) fn or(self, default: T) -> T {
        let shown = self.form.show(&default);
        match self.find(Absent::Default(shown)) {
            Found::Value(value) => value,
            Found::Absent | Found::Wrong => default,
        }
    }

    /// Without it, it is as with `default`; nothing where something wrong is written.
    pub(super) fn or_if_absent(self, default: T) -> Option<T> {
        let shown = self.form.show(&default);
        match self.find(Absent::Default(shown)) {
            Found::Value(value) => Some(value),
            Found::Absent => Some(default),
            Found::Wrong => None,
        }
    }

    /// It can be left out; `means` says what holds then.
    pub(super) fn optional(self, means: &'static str) -> Option<T> {
        match self.find(Absent::Means(means)) {
            Found::Value(value) => Some(value),
            Found::Absent | Found::Wrong => None,
        }
    }

    /// It must be written, which `hint` says how. Nothing where it is not, or wrongly.
    pub(super) fn required(self, hint: &str) -> Option<T> {
        let (cx, name) = (self.section.cx, self.name);
        let location = self.section.location.clone();
        let needed = self.only.is_none_or(|condition| condition.holds);
        match self.find(Absent::Refused) {
            Found::Value(value) => Some(value),
            Found::Wrong => None,
            Found::Absent => {
                if needed {
                    cx.problem(&location, format!("`{name}` is missing"), hint);
                }
                None
            }
        }
    }

    /// Without it, it is like an empty mapping, of which each key has a default.
    pub(super) fn or_empty(mut self) -> Option<T> {
        let cx = self.section.cx;
        let written = match self.take() {
            Found::Absent => {
                let location = self.section.location.absent_member(self.name);
                let node = Node { origin: Origin::Named(self.name), kind: Kind::Map(Vec::new()) };
                Written { node, location, name: String::new() }
            }
            Found::Wrong => return None,
            Found::Value(written) => written,
        };
        self.describe(Absent::Means("its defaults"));
        self.form.read(written, cx)
    }

    fn find(mut self, absent: Absent) -> Found<T> {
        let cx = self.section.cx;
        let taken = self.take();
        self.describe(absent);
        match taken {
            Found::Absent => Found::Absent,
            Found::Wrong => Found::Wrong,
            Found::Value(written) => self.form.read(written, cx).map_or(Found::Wrong, Found::Value),
        }
    }

    /// Takes what is written, if it may be.
    fn take(&mut self) -> Found<Written> {
        let Some((node, location)) = self.section.take(self.name) else { return Found::Absent };
        if node.kind == Kind::Null {
            self.section.cx.problem(&location, "has no value", "give it one, or remove the key");
            return Found::Wrong;
        }
        if let Some(condition) = self.only
            && !condition.holds
        {
            // An empty list or mapping says nothing, so it does no harm where one may be written.
            if self.form.shape(self.section.cx).takes_empty(&node.kind) {
                return Found::Absent;
            }
            let what = format!("has a meaning only with `{}`", condition.shown());
            self.section.cx.problem(&location, what, "remove it");
            return Found::Wrong;
        }
        Found::Value(Written { node, location, name: String::new() })
    }

    /// Writes the row down, where that is what is being done.
    fn describe(&mut self, absent: Absent) {
        let cx = self.section.cx;
        if cx.describing {
            let (key, doc, only) = (self.name, self.doc, self.only);
            let shape = self.form.shape(cx);
            self.section.table.rows.push(Row { key, doc, shape, absent, only });
        }
    }
}
