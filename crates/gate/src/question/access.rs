//! The question: who wants to do what, to which resource, in which context.
//!
//! A [`Frame`](crate::wire::frame::Frame) becomes an [`AccessRequest`] through one table of methods. A method differs from
//! another by a row of that table and by nothing else; a method without a row is
//! [`Action::Unknown`] and is asked about like any other. Routing headers are checked against the
//! body here, and then forgotten: the question is built from the body alone.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::wire::method::Action;

use crate::wire::document::Value;
use crate::wire::protocol::{Direction, Protocol};

use super::operation::Operation;
use crate::question::standing::Standing;

/// Who is asking, as the edge established it: never read from a frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Principal {
    /// Stable name; the key of rate limits.
    pub id: Box<str>,
    /// What it is: `agent`, `user`, `service`.
    pub kind: Box<str>,
    /// Groups, as configured or asserted.
    pub groups: Vec<Box<str>>,
    /// Further facts about it.
    pub claims: BTreeMap<Box<str>, Box<str>>,
}

/// The protected server, as policy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Server {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// The environment that calls are pinned to, where one is.
    pub environment: Option<Box<str>>,
    /// Free labels from the configuration.
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// Names of environments by the identifiers that its tools' arguments carry.
    pub environment_ids: BTreeMap<Box<str>, Box<str>>,
    /// The pack that knows its tools.
    pub pack: Option<Arc<super::pack::Pack>>,
}

/// Whether a server may take the path of `uri` for another one than a rule that reads its text: dot
/// segments, backslashes, control characters, and percent signs that hide one of them or a slash, a
/// dot or another percent sign (RFC 3986 §§2.3, 5.2.4 and 6.2.2).
pub fn is_ambiguous(uri: &str) -> bool {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let hidden = path.split('%').skip(1).any(|rest| {
        let code = rest.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        code.is_none_or(|code| code.is_ascii_control() || b"./\\%".contains(&code))
    });
    hidden
        || path.contains(|it: char| it == '\\' || it.is_control())
        || path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// What is acted on.
#[derive(Debug, Clone, Copy)]
pub enum Resource<'a> {
    /// A tool, with the arguments of the call (an object, or absent).
    Tool {
        /// Its exact name.
        name: &'a str,
        /// `params.arguments`.
        arguments: Option<Value<'a>>,
        /// Digest of the definition last seen in a list that passed, `sha256:<hex>`.
        definition: Option<&'a str>,
        /// What is known of it beside its definition.
        standing: Standing<'a>,
    },
    /// A resource by its URI.
    Uri(&'a str),
    /// Several resources by their URIs, as `subscriptions/listen` names them.
    Uris(Value<'a>),
    /// A prompt.
    Prompt {
        /// Its exact name.
        name: &'a str,
        /// `params.arguments`.
        arguments: Option<Value<'a>>,
    },
    /// A task.
    Task {
        /// Its id.
        id: &'a str,
        /// What made it; absent where nobody saw it made.
        origin: Option<&'a TaskOrigin>,
    },
    /// The server, or the client, as a whole.
    Whole,
}

/// The request that made a task, so that rules about the task can speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOrigin {
    /// Its method.
    pub method: Box<str>,
    /// The tool that it called, where it called one.
    pub tool: Option<Box<str>>,
    /// What it came to.
    pub operation: Operation,
}

/// Self-reported facts about the client program: shown to policy, never trusted by the gate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Client {
    /// `clientInfo.name`.
    pub name: Box<str>,
    /// `clientInfo.version`.
    pub version: Box<str>,
}

/// Wall time of a question; the policy's only clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime {
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// One question to the policy.
#[derive(Debug, Clone)]
pub struct AccessRequest<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// The program that it says it is.
    pub client: Option<&'a Client>,
    /// Of which server.
    pub server: &'a Server,
    /// Over which protocol.
    pub protocol: Protocol,
    /// Which way.
    pub direction: Direction,
    /// The exact method name.
    pub method: &'a str,
    /// What the method does.
    pub action: Action,
    /// To what.
    pub resource: Resource<'a>,
    /// All of `params`, for rules about methods that the table does not know.
    pub params: Option<Value<'a>>,
    /// What it comes to, by the server's pack.
    pub operation: Operation,
    /// What this principal's earlier calls have set, by the server's pack.
    pub facts: BTreeMap<Box<str>, Box<str>>,
    /// When.
    pub time: WallTime,
    /// The caller's W3C trace id, 32 lower-case hex digits.
    pub trace_id: Option<&'a str>,
}
