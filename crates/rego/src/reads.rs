//! Static analysis: which paths of the input a policy reads.
//!
//! Only those paths are built for an evaluation, which saves most of its time, and a number
//! without an exact value denies only where a rule could read it. The set over-approximates: where
//! the text does not show which member is read (a computed index, an alias, an argument of a
//! function), the whole value counts as read.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, Module, Ref, Rule};

use super::walk::{Reference, Step, Visit, Walk};
use bartizan_gate::wire::frame::KnownNames;

/// What is read of one value: all of it, the names of its members, or some members in turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadSet {
    /// Whether the whole value is read, at any depth.
    all: bool,
    /// Whether the names of its members are read (`object.keys`). They also show its type.
    names: bool,
    /// Whether a rule names the member `definition` of anything. Rules read the entries of a list
    /// through variables, so only this shows whether they read definitions. Only the set of the
    /// whole input has it.
    definitions: bool,
    /// The members that are read, in part or whole.
    members: BTreeMap<Box<str>, Self>,
    /// The names of `members`, to find others that imitate them.
    known: KnownNames,
}

/// The set for a member of a value that is read whole.
static ALL: ReadSet = ReadSet {
    all: true,
    names: true,
    definitions: true,
    members: BTreeMap::new(),
    known: KnownNames::NONE,
};

impl ReadSet {
    /// The set that holds the whole input.
    pub fn everything() -> Self {
        ALL.clone()
    }

    /// Whether the whole value is read.
    pub fn is_everything(&self) -> bool {
        self.all
    }

    /// What is read of the member `name`; `None` where it is not read.
    pub fn member(&self, name: &str) -> Option<&Self> {
        if self.all { Some(&ALL) } else { self.members.get(name) }
    }

    /// Whether the definitions of a list's entries are read. A rule that only enumerates the members
    /// of an entry does not see its definition.
    pub fn reads_listed_definitions(&self) -> bool {
        self.definitions
    }

    /// Whether the names of the members are read.
    pub fn reads_names(&self) -> bool {
        self.names
    }

    /// The names of the members that are read one by one.
    pub(super) fn known(&self) -> &KnownNames {
        &self.known
    }

    /// The paths that are read, such as `input.tool.name`, sorted. `input.a.*` means the names of
    /// the members of `input.a` alone.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        let mut todo = vec![("input".to_owned(), self)];
        while let Some((path, at)) = todo.pop() {
            if at.all {
                paths.push(path);
                continue;
            }
            if at.names {
                paths.push(format!("{path}.*"));
            }
            todo.extend(at.members.iter().map(|(name, member)| (format!("{path}.{name}"), member)));
        }
        paths.sort();
        paths
    }

    fn at(&mut self, path: &[&str]) -> &mut Self {
        let mut at = self;
        for name in path {
            at = at.members.entry((*name).into()).or_default();
        }
        at
    }

    /// The set that holds one path alone.
    pub(super) fn of_path(path: &[&str]) -> Self {
        let mut reads = Self::default();
        reads.read(path);
        reads.collapse();
        reads
    }

    /// The same, reading the definitions of a list's entries where `other` does.
    pub(super) fn with_definitions_of(&self, other: &Self) -> Self {
        Self { definitions: other.definitions, ..self.clone() }
    }

    /// Adds the whole value at `path`.
    fn read(&mut self, path: &[&str]) {
        let at = self.at(path);
        *at = ALL.clone();
    }

    /// What definitions read. Each comes with its module, whose imports may be aliases of parts of
    /// the input.
    pub(super) fn of<'a>(
        definitions: impl IntoIterator<Item = (Option<&'a Ref<Module>>, &'a Rule)>,
    ) -> Self {
        let mut reads = Self::default();
        for (module, rule) in definitions {
            // `import input.tool`, `import input as request`: uses of an alias are not analysed, so
            // the whole value counts as read.
            let imports = module.map_or(&[][..], |module| &module.imports);
            for (reference, _) in imports.iter().filter_map(|it| super::walk::reference(&it.refr)) {
                reads.add(&reference, false);
            }
            reads.add_rule(rule);
        }
        reads.collapse();
        reads
    }

    /// Whether the value at an RFC 6901 pointer below `input`, or a part of it, is read.
    pub(super) fn reaches(&self, pointer: &str) -> bool {
        let mut at = self;
        for name in pointer.split('/').skip(1) {
            if at.all {
                return true;
            }
            let name = name.replace("~1", "/").replace("~0", "~");
            match at.members.get(name.as_str()) {
                Some(member) => at = member,
                None => return false,
            }
        }
        *at != Self::default()
    }

    fn add_rule(&mut self, rule: &Rule) {
        // The walk visits an argument of `object.keys` after the call, so its span is kept to
        // recognise it.
        let mut of_keys: BTreeSet<*const regorus::unstable::Span> = BTreeSet::new();
        // So are arguments of `object.get` with a constant path, which reads this member alone.
        let mut of_get: BTreeMap<*const regorus::unstable::Span, Vec<&str>> = BTreeMap::new();
        for visit in Walk::rule(rule) {
            match visit {
                Visit::Call { callee, params } => {
                    if callee.root == Some("object") && callee.prefix() == ["keys"] {
                        of_keys.extend(params.iter().map(|param| std::ptr::from_ref(param.span())));
                    }
                    if callee.root == Some("object")
                        && callee.prefix() == ["get"]
                        && let [whole, path, _] = params[..]
                        && let Some(path) = constant_path(path)
                    {
                        of_get.insert(std::ptr::from_ref(whole.span()), path);
                    }
                }
                Visit::Ref(reference) => {
                    let spelt = |step: &Step<'_>| matches!(step, Step::Name("definition"));
                    self.definitions |= reference.steps.iter().any(spelt);
                    let names = of_keys.contains(&std::ptr::from_ref(reference.span));
                    let member = of_get.get(&std::ptr::from_ref(reference.span));
                    match member {
                        Some(path) if reference.is_static() => self.add_below(&reference, path),
                        _ => self.add(&reference, names),
                    }
                }
                Visit::Expr(Expr::String { value, .. } | Expr::RawString { value, .. }) => {
                    self.definitions |= value.as_string().is_ok_and(|text| &**text == "definition");
                }
                Visit::Expr(_) | Visit::Statement(_) => {}
            }
        }
    }

    fn add(&mut self, reference: &Reference<'_>, names_only: bool) {
        if reference.root != Some("input") {
            return;
        }
        let path = reference.prefix();
        if names_only && reference.is_static() && !path.is_empty() {
            self.at(&path).names = true;
        } else {
            self.read(&path);
        }
    }

    /// Adds the value at `path` below a reference of names alone.
    fn add_below(&mut self, reference: &Reference<'_>, path: &[&str]) {
        if reference.root == Some("input") {
            let whole = reference.prefix();
            self.read(&[&whole[..], path].concat());
        }
    }

    /// Removes members of values that are read whole, so that equal sets compare equal.
    fn collapse(&mut self) {
        if self.all {
            self.members.clear();
        }
        self.known = self.members.keys().map(|name| &**name).collect();
        for member in self.members.values_mut() {
            member.collapse();
        }
    }
}

/// The names of a path for `object.get`: one string, or an array of strings. An empty array is the
/// whole value.
pub(super) fn constant_path(path: &Expr) -> Option<Vec<&str>> {
    match path {
        Expr::Array { items, .. } => items.iter().map(|item| constant_text(item)).collect(),
        one => constant_text(one).map(|name| vec![name]),
    }
}

fn constant_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(|text| &**text)
        }
        _ => None,
    }
}
