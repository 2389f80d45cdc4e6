//! Packs: what is known about a vendor's tools, as data.
//!
//! A pack says for each tool what it does and where its arguments name an environment. It holds
//! no rule: policy decides, a pack only tells. Reading a pack is strict, and reports every
//! problem at once with its place: a misspelt member would otherwise leave a tool looser than its
//! author believes. The format is `policies/schema/pack.schema.json`, version 1.

mod read;
mod route;

use std::collections::BTreeMap;
use std::time::Duration;

pub use crate::wire::method::Effect;
pub use route::{NoRoute, Route};

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

/// One tool of a pack, or one operation behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolEntry {
    /// What it does.
    pub effect: Effect,
    /// Where `arguments` name environments. Each is a place of its own: leaving out one of two
    /// means [`ToolEntry::absent`] for that one.
    pub environments: Vec<Place>,
    /// What naming none means.
    pub absent: Absent,
    /// Every argument that the tool takes, where the pack lists them. A call with another one may
    /// aim anywhere, because some vendors' names for an environment are not in the schema
    /// (threats H3).
    pub arguments: Option<Vec<Box<str>>>,
    /// Facts that rules may ask for: `go-live`, `approval-control`, `full-replace`,
    /// `credential-read` and others.
    pub tags: Vec<Box<str>>,
    /// Tags that a call has besides where it has an argument at one of these pointers, whatever
    /// stands there.
    pub tags_if: BTreeMap<Box<str>, Vec<Box<str>>>,
    /// Set where the tool does one of many things, and the arguments say which.
    pub dispatch: Option<Box<Dispatch>>,
    /// Set where the tool's answers hand out handles that later calls are made with.
    pub mints: Option<Mint>,
    /// Session facts that a call of it sets once it has succeeded: name, and pointer below
    /// `arguments`.
    pub facts: BTreeMap<Box<str>, Box<str>>,
}

/// A place in a call's arguments that names environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// An RFC 6901 pointer below `arguments` to a string that holds JSON; `at` then is a pointer
    /// into that.
    pub inside: Option<Box<str>>,
    /// An RFC 6901 pointer in which `*` stands for every element of an array or member of an
    /// object.
    pub at: Box<str>,
    /// How the names stand there.
    pub form: Form,
    /// Whether a call may do without the place: then its absence says nothing. What stands in
    /// it and names nothing (`null`, `""`, an element that lacks the name) means
    /// [`ToolEntry::absent`] all the same.
    pub optional: bool,
}

/// How environments stand in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A name, or an array of names.
    Name,
    /// The member names of an object.
    Keys,
    /// An identifier, or an array of them: strings or integers, that the configuration of the
    /// server maps to names.
    Id,
    /// A slash-separated path whose segment after this one is a name. A path without it touches
    /// every environment.
    Segment(Box<str>),
}

/// How a call says which of a tool's operations it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// Where it says so.
    pub by: Selector,
    /// What each operation comes to; with [`Selector::Route`] the key is a [`Route`]'s text.
    pub cases: BTreeMap<Box<str>, ToolEntry>,
    /// Routes in the pack's order, each with its key in `cases`.
    pub routes: Vec<Route>,
    /// What any other operation comes to; without it that is unknown.
    pub otherwise: Option<ToolEntry>,
}

/// What selects an operation. Pointers are RFC 6901, below `arguments`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The values at these pointers, joined by `/`; one that is absent counts as empty.
    Values(Vec<Box<str>>),
    /// An HTTP method and path.
    Route {
        /// A pointer, or the method itself.
        method: Box<str>,
        /// A pointer.
        path: Box<str>,
    },
    /// A command line: a verb, flags that begin with `--`, an operation, its arguments in JSON.
    /// Its cases are `verb` or `verb operation`.
    Command(Box<str>),
    /// A handle that an earlier answer handed out with the name of an operation; see [`Mint`].
    Handle(Box<str>),
}

/// How the answers of a tool hand out handles: objects, at any depth, with both members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mint {
    /// The member that holds the handle.
    pub handle: Box<str>,
    /// The member that names its operation.
    pub operation: Box<str>,
    /// A member that says what the operation does, by the name of an effect. It can only make
    /// matters worse than the pack says; any other text there is [`Effect::Unknown`].
    pub effect: Option<Box<str>>,
    /// How long the handle is good for.
    pub ttl: Duration,
}

/// Calls that a pack suggests for one effect: `count` in each `period`, and `burst` at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselineRate {
    /// As rules write it: `600/m`.
    pub rate: Box<str>,
    /// Calls at once.
    pub burst: u32,
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
    /// Headers that the sidecar sets unless the configuration sets them; lower case. They are
    /// owned, too.
    pub headers: BTreeMap<Box<str>, Box<str>>,
    /// Query parameters that change what the server does. An agent's query never reaches a
    /// server; these are for whoever writes its address.
    pub owned_query: Vec<Box<str>>,
    /// Rates for the baseline's limits, by the name of an effect.
    pub rates: BTreeMap<Box<str>, BaselineRate>,
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
