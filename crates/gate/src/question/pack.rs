//! Packs: data that classifies a vendor's tools.
//!
//! A pack states for each tool its effect and which arguments name an environment. It holds no
//! rules: the policy decides. The format is `policies/packs/pack.schema.json`, version 1. Reading
//! a pack is strict and reports all problems at once, each with a pointer, because a misspelt
//! member that is ignored would leave a tool less restricted than its author believes. The program
//! reads packs at its start; [`operation`](super::operation) uses them.

mod read;
mod route;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use crate::wire::method::Effect;
pub use route::{NoRoute, Route};

/// Which environments a call reaches that leaves the argument for an environment out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Every environment.
    All,
    /// The environment named `production`.
    Production,
    /// No environment.
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

/// Whose state of the server a fact or a handle mirrors (`scope` in the file).
///
/// A server may hold what a call selects in the session, by the credential that it sees, or once
/// for all. What is believed for more callers than the server holds it for would let one session
/// move the target of another's calls, so the default is the narrowest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The session of the server: its MCP session, or its process where that serves one session.
    /// Unknown where the server has no session (MCP 2026-07-28 over HTTP, or through a process that
    /// several sessions share).
    #[default]
    Session,
    /// The principal, in all its sessions.
    Principal,
    /// The server as a whole, or the one credential by which it knows all principals.
    Server,
}

impl Scope {
    pub(super) fn of_pack(text: &str) -> Option<Self> {
        match text {
            "session" => Some(Self::Session),
            "principal" => Some(Self::Principal),
            "server" => Some(Self::Server),
            _ => None,
        }
    }
}

/// Which argument of a call selects a session fact, and whose state of the server it mirrors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactSource {
    /// An RFC 6901 pointer below `arguments`.
    pub at: Box<str>,
    /// The same for one name everywhere in a pack.
    pub scope: Scope,
}

/// One tool of a pack, or one operation of a tool that dispatches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolEntry {
    /// The worst effect that a call can have.
    pub effect: Effect,
    /// Which arguments name environments. Each path counts by itself: if one of two is left out,
    /// [`ToolEntry::absent`] applies to that one.
    pub environments: Vec<EnvironmentPath>,
    /// Which environments a path that names none stands for.
    pub absent: Absent,
    /// Every argument that the tool takes, where the pack lists them. A call with another argument
    /// counts as every environment, because some vendors accept names for an environment that are
    /// not in their schema (threats H3).
    pub arguments: Option<Vec<Box<str>>>,
    /// Tags for rules: `go-live`, `approval-control`, `full-replace`, `credential-read` and others.
    pub tags: Vec<Box<str>>,
    /// Further tags, each with pointers below `arguments`: a call has the tag if a value of any
    /// kind stands at one of them.
    pub tags_if: BTreeMap<Box<str>, Vec<Box<str>>>,
    /// Present where the tool has several operations and the arguments select one (`dispatch`).
    pub dispatch: Option<Box<OperationDispatch>>,
    /// Present where the tool's answers issue handles for later calls (`mints` in the file).
    pub handle_format: Option<HandleFormat>,
    /// Session facts that a successful call sets, by name.
    pub facts: BTreeMap<Box<str>, FactSource>,
}

/// Where in a call's arguments names of environments stand (`environments` in the file).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentPath {
    /// An RFC 6901 pointer below `arguments` to a string that holds JSON; `at` then points into
    /// that JSON.
    pub inside: Option<Box<str>>,
    /// An RFC 6901 pointer in which `*` means every element of an array or member of an object.
    pub at: Box<str>,
    /// How the value there names environments.
    pub form: EnvironmentForm,
    /// Whether a call may leave the path out without meaning [`ToolEntry::absent`]. A value that
    /// names nothing (`null`, `""`, an element that lacks the name) still means it.
    pub optional: bool,
}

/// How a value names environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentForm {
    /// A name, or an array of names.
    Name,
    /// The member names of an object.
    Keys,
    /// An identifier, or an array of them: strings or integers that the server's configuration maps
    /// to names.
    Id,
    /// A slash-separated path from a known root, or an array of them. The path begins with these
    /// segments, and the next one is a name; a path that begins otherwise counts as every
    /// environment. A path that some reader resolves to another one cannot be read.
    Segment(Box<str>),
    /// A JSON Patch (RFC 6902), a JSON Merge Patch not among them: an array of operations whose
    /// `path` and `from` begin with these segments, then a name. One that begins otherwise counts as
    /// every environment.
    Patch(Box<str>),
}

/// How a call selects one of a tool's operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationDispatch {
    /// Which arguments select the operation.
    pub by: Selector,
    /// The known operations by name; with [`Selector::Route`] the name is a [`Route`]'s text.
    pub cases: BTreeMap<Box<str>, ToolEntry>,
    /// The routes in the pack's order, each a key of `cases`.
    pub routes: Vec<Route>,
    /// Applies to every other operation. Without it, another operation has an unknown effect.
    pub otherwise: Option<ToolEntry>,
}

/// Which arguments select an operation. Pointers are RFC 6901, below `arguments`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The texts at these pointers, joined by `/`; an absent one counts as empty.
    Values(Vec<Box<str>>),
    /// An HTTP method and path.
    Route {
        /// A pointer to the method, or the method itself in upper case.
        method: Box<str>,
        /// A pointer to the path.
        path: Box<str>,
    },
    /// A pointer to a command line: a verb, flags that begin with `--`, an operation, its arguments
    /// in JSON. The names in `cases` are `verb` or `verb operation`.
    Command(Box<str>),
    /// A pointer to a handle that an earlier answer issued for an operation; see [`HandleFormat`].
    Handle(Box<str>),
}

/// How a tool's answers carry handles: as objects, at any depth, that have the first two members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandleFormat {
    /// The name of the member that holds the handle.
    pub handle: Box<str>,
    /// The name of the member that holds the operation's name.
    pub operation: Box<str>,
    /// The name of the member that holds the operation's effect. It can only make the pack's effect
    /// worse; a text that names no effect is [`Effect::Unknown`].
    pub effect: Option<Box<str>>,
    /// How long a handle stays known, up to `HandleStore::HANDLE_TTL_MAX`.
    pub ttl: Duration,
    /// In which calls it is known: [`Scope::Session`] or [`Scope::Principal`].
    pub scope: Scope,
}

/// The rate limit that a pack suggests to the baseline policy for one effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselineRate {
    /// The rate as rules write it, such as `600/m`.
    pub rate: Box<str>,
    /// Calls that may come at once.
    pub burst: u32,
}

/// The classification of one vendor's tools.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pack {
    /// The pack's name, as a configuration names it.
    pub name: Arc<str>,
    /// Tools by exact name.
    pub tools: BTreeMap<Box<str>, ToolEntry>,
    /// Names of request headers, in lower case, that only the firewall may set; an agent's are
    /// removed.
    pub owned_headers: Vec<Box<str>>,
    /// Name of the header, in lower case, that carries the credential for the server.
    pub credential_header: Option<Box<str>>,
    /// Headers, with names in lower case, that the firewall sets unless the configuration does.
    /// They count as owned.
    pub headers: BTreeMap<Box<str>, Box<str>>,
    /// Names of query parameters that change what the server does. An agent's query never reaches a
    /// server; the list is for the person who writes the server's address.
    pub owned_query: Vec<Box<str>>,
    /// Suggested rate limits for the baseline policy, by the name of an effect.
    pub rates: BTreeMap<Box<str>, BaselineRate>,
}

/// One problem in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackProblem {
    /// Where: an RFC 6901 pointer into the pack's document; empty for the document as a whole.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl Pack {
    /// Reads a pack from its JSON text. Unknown members are problems.
    ///
    /// # Errors
    ///
    /// All problems, up to 100.
    pub fn read(json: &[u8]) -> Result<Self, Vec<PackProblem>> {
        read::pack(json)
    }
}

/// One step of a pointer in which `*` is a wildcard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PointerStep<'p> {
    /// Every element of an array or member of an object.
    Each,
    /// The member of this name.
    Member(Cow<'p, str>),
}

/// Returns the steps of a pointer that [`Pack::read`] accepted, unescaped (RFC 6901 §4).
pub(super) fn steps(pointer: &str) -> impl Iterator<Item = PointerStep<'_>> + Clone {
    pointer.split('/').skip(1).map(|step| match step {
        "*" => PointerStep::Each,
        name if !name.contains('~') => PointerStep::Member(Cow::Borrowed(name)),
        // `~01` must decode to `~1`, so the slash is decoded first (RFC 6901 §4).
        name => PointerStep::Member(Cow::Owned(name.replace("~1", "/").replace("~0", "~"))),
    })
}
