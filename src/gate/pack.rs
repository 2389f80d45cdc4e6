//! Packs: what is known about a vendor's tools, as data.
//!
//! A pack says for each tool what it does and where its arguments name an environment. It holds
//! no rule: policy decides, a pack only tells. Reading a pack is strict, and reports every
//! problem at once with its place: a misspelt member would otherwise leave a tool looser than its
//! author believes. The format is `policies/schema/pack.schema.json`, version 1.

mod read;

use std::collections::BTreeMap;

/// What carrying out an operation does to the system behind it. Ordered: later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// Adds or changes.
    Write,
    /// Removes, fully replaces, or changes at once what end users get.
    Destructive,
    /// Runs code or anything else that the call alone does not bound.
    Exec,
    /// Not in the pack: the worst, for a rule that compares.
    Unknown,
}

impl Effect {
    /// The name used in policy input, packs and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
            Self::Exec => "exec",
            Self::Unknown => "unknown",
        }
    }

    /// The effect that a pack names `text`. A pack cannot say `unknown`: it leaves the tool out.
    fn of_pack(text: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Destructive, Self::Exec]
            .into_iter()
            .find(|effect| effect.as_str() == text)
    }
}

/// What a call means that names no environment where it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Every environment.
    All,
    /// The vendor's production.
    Production,
    /// None is touched.
    None,
}

impl Absent {
    fn of_pack(text: &str) -> Option<Self> {
        match text {
            "all" => Some(Self::All),
            "production" => Some(Self::Production),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

/// One tool of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolEntry {
    /// What it does.
    pub effect: Effect,
    /// Where `arguments` name environments: RFC 6901 pointers in which `*` stands for every
    /// element of an array or member of an object. Each is a place of its own: leaving out one of
    /// two means [`ToolEntry::absent`] for that one.
    pub environments: Vec<Box<str>>,
    /// What naming none means.
    pub absent: Absent,
    /// Every argument that the tool takes, where the pack lists them. A call with another one may
    /// aim anywhere, because some vendors' names for an environment are not in the schema
    /// (threats H3).
    pub arguments: Option<Vec<Box<str>>>,
    /// Facts that rules may ask for: `go-live`, `approval-control`, `full-replace`,
    /// `credential-read` and others.
    pub tags: Vec<Box<str>>,
}

/// A vendor's tools.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pack {
    /// The pack's name, as a configuration names it.
    pub name: Box<str>,
    /// Tools by exact name.
    pub tools: BTreeMap<Box<str>, ToolEntry>,
    /// Request headers of the upstream that only the sidecar may set; lower case.
    pub owned_headers: Vec<Box<str>>,
    /// The header that carries the upstream credential; lower case.
    pub credential_header: Option<Box<str>>,
}

/// One thing wrong with a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackProblem {
    /// Where: a pointer into the pack's document.
    pub path: String,
    /// What, and what to write instead.
    pub message: String,
}

impl Pack {
    /// Reads a pack from its JSON text, strictly: unknown members are problems.
    pub fn read(json: &[u8]) -> Result<Self, Vec<PackProblem>> {
        read::pack(json)
    }
}

/// One step of an environment pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Every element of an array or member of an object.
    Each,
    /// The member of this name.
    Member(String),
}

/// The steps of a pointer that [`Pack::read`] accepted, unescaped (RFC 6901 §4).
pub(super) fn steps(pointer: &str) -> impl Iterator<Item = Step> + Clone {
    pointer.split('/').skip(1).map(|step| match step {
        "*" => Step::Each,
        // `~01` must give `~1`: the slash is unescaped first.
        name => Step::Member(name.replace("~1", "/").replace("~0", "~")),
    })
}
