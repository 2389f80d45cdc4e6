//! Which part of the input a policy reads, known from its text.
//!
//! The engines are fed only that part, which is most of what makes them fast, and a number that
//! has no exact value denies only where a rule could see it. The set may hold too much, never too
//! little: whatever cannot be followed counts as read.

use std::collections::BTreeMap;

use regorus::unstable::{Module, Ref, Rule};

use super::walk::{Chain, Visit, Walk};

/// The members of one value that are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadSet {
    /// The whole value, at any depth.
    all: bool,
    /// The names of its members, and with them its kind.
    names: bool,
    /// Members that are read in part or whole.
    members: BTreeMap<Box<str>, Self>,
}

/// What everything reads of a value that is read whole.
static ALL: ReadSet = ReadSet { all: true, names: true, members: BTreeMap::new() };

impl ReadSet {
    /// Everything.
    pub fn everything() -> Self {
        ALL.clone()
    }

    /// Whether the whole value is read.
    pub fn is_everything(&self) -> bool {
        self.all
    }

    /// What is read of the member `name`; nothing where it is not read at all.
    pub fn member(&self, name: &str) -> Option<&Self> {
        if self.all { Some(&ALL) } else { self.members.get(name) }
    }

    /// Whether the names of the members are read.
    pub fn reads_names(&self) -> bool {
        self.names
    }

    /// Each path that is read, `input` first, sorted; `input.a.*` names the names only.
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

    /// Adds the whole value at `path`.
    fn read(&mut self, path: &[&str]) {
        let at = self.at(path);
        *at = ALL.clone();
    }

    /// What `definitions` read, each with its module.
    pub(super) fn of<'a>(
        definitions: impl IntoIterator<Item = (Option<&'a Ref<Module>>, &'a Rule)>,
    ) -> Self {
        let mut reads = Self::default();
        for (module, rule) in definitions {
            reads.add_definition(module, rule);
        }
        reads.collapse();
        reads
    }

    /// Whether what stands at an RFC 6901 pointer below `input` is read, or anything in it.
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

    fn add_definition(&mut self, module: Option<&Ref<Module>>, rule: &Rule) {
        // `import input.tool`, `import input as request`: an alias is read whole.
        let imports = module.map_or(&[][..], |module| &module.imports);
        for (chain, _) in imports.iter().filter_map(|it| super::walk::chain(&it.refr)) {
            self.add(&chain, false);
        }
        self.add_rule(rule);
    }

    fn add_rule(&mut self, rule: &Rule) {
        // The argument of `object.keys` is visited right after the call, so it is remembered.
        let mut of_keys: Vec<*const regorus::unstable::Span> = Vec::new();
        for visit in Walk::rule(rule) {
            match visit {
                Visit::Call { callee, params } => {
                    if callee.root == Some("object") && callee.prefix() == ["keys"] {
                        of_keys.extend(params.iter().map(|param| std::ptr::from_ref(param.span())));
                    }
                }
                Visit::Ref(chain) => {
                    let names = of_keys.iter().any(|span| std::ptr::eq(*span, chain.span));
                    self.add(&chain, names);
                }
                Visit::Expr(_) | Visit::Statement(_) => {}
            }
        }
    }

    fn add(&mut self, chain: &Chain<'_>, names_only: bool) {
        if chain.root != Some("input") {
            return;
        }
        let path = chain.prefix();
        if names_only && chain.is_static() && !path.is_empty() {
            self.at(&path).names = true;
        } else {
            self.read(&path);
        }
    }

    /// Drops what is already covered, so that equal sets compare equal.
    fn collapse(&mut self) {
        if self.all {
            self.members.clear();
        }
        for member in self.members.values_mut() {
            member.collapse();
        }
    }
}
