//! The access request: which principal wants to do what, to which resource, in which context (the
//! `AuthZEN` and Cedar quadruple).
//!
//! `session` builds an [`AccessRequest`] from a [`Frame`](crate::wire::frame::Frame) by the method
//! table, and from the body alone, never from headers. A method without a row in the table is
//! [`Action::Unknown`], and the policy decides about it like any other.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::wire::method::Action;

use crate::wire::document::Value;
use crate::wire::protocol::{Direction, Protocol};

use super::hold::Approval;
use super::operation::Operation;
use crate::question::status::DefinitionStatus;

/// The principal on whose behalf a client acts. The edge establishes it, from configuration or an
/// access token; it is never read from a frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Principal {
    /// A stable name. Sessions, handles and tasks belong to it, and policies count by it.
    pub id: Box<str>,
    /// Its kind: `agent`, `user` or `service`.
    pub kind: Box<str>,
    /// Groups, from the configuration or the token.
    pub groups: Vec<Box<str>>,
    /// Further attributes by name, from the configuration or the token.
    pub claims: BTreeMap<Box<str>, Box<str>>,
}

/// The protected server, as policy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Server {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// The environment that calls must stay in (the pin), where one is configured.
    pub environment: Option<Box<str>>,
    /// Labels from the configuration, for rules.
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// Names of environments by the identifiers that its tools' arguments carry.
    pub environment_ids: BTreeMap<Box<str>, Box<str>>,
    /// The pack that classifies its tools.
    pub pack: Option<Arc<super::pack::Pack>>,
}

/// The resource that a request acts on.
#[derive(Debug, Clone, Copy)]
pub enum Resource<'a> {
    /// A tool that is called.
    Tool {
        /// The exact name, `params.name`.
        name: &'a str,
        /// `params.arguments`, an object; absent where it is missing or `null`.
        arguments: Option<Value<'a>>,
        /// Digest of the definition as last listed, `sha256:<hex>`; absent if it was never listed.
        definition: Option<&'a str>,
        /// The definition's drift from the lock and its flags.
        status: DefinitionStatus<'a>,
    },
    /// A resource by its URI.
    Uri(&'a str),
    /// Several resources by their URIs, as `subscriptions/listen` names them.
    Uris(Value<'a>),
    /// A prompt.
    Prompt {
        /// The exact name, `params.name`.
        name: &'a str,
        /// `params.arguments`, an object; absent where it is missing or `null`.
        arguments: Option<Value<'a>>,
    },
    /// A task.
    Task {
        /// `params.taskId`.
        id: &'a str,
        /// The request that created it; absent where its creation was not seen.
        origin: Option<&'a TaskOrigin>,
    },
    /// The client's answer to a request of the server; the request's method is the method.
    Answer {
        /// Its `result`; absent where the answer is an error.
        result: Option<Value<'a>>,
        /// The `code` of the error, where it is one.
        error: Option<i64>,
    },
    /// No single resource: the server (or the client) as a whole.
    Whole,
}

/// The request that created a task, so that rules about the task can refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOrigin {
    /// The method of the request.
    pub method: Box<str>,
    /// The tool, where the request was `tools/call`.
    pub tool: Option<Box<str>>,
    /// What the request did, as its pack classifies it.
    pub operation: Operation,
}

/// What the client program says of itself: passed to the policy, never trusted by the gate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Client {
    /// `clientInfo.name`.
    pub name: Box<str>,
    /// `clientInfo.version`.
    pub version: Box<str>,
}

/// Wall time of a request: the only clock that the policy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime {
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// One request to the policy decision point.
#[derive(Debug, Clone)]
pub struct AccessRequest<'a> {
    /// On whose behalf the client acts.
    pub principal: &'a Principal,
    /// The client program as it describes itself; absent until it does.
    pub client: Option<&'a Client>,
    /// The protected server of this conversation.
    pub server: &'a Server,
    /// The protocol that the message was sent with.
    pub protocol: Protocol,
    /// To the server or to the client.
    pub direction: Direction,
    /// The exact method name.
    pub method: &'a str,
    /// The method's action, by the method table.
    pub action: Action,
    /// The resource that it acts on.
    pub resource: Resource<'a>,
    /// All of `params`: a server may act on any member of it.
    pub params: Option<Value<'a>>,
    /// What the call does, as classified by the server's pack.
    pub operation: Arc<Operation>,
    /// Session facts that this principal's earlier calls have set, by name.
    pub facts: BTreeMap<Box<str>, Box<str>>,
    /// The last approval that was granted and spent for this very message, if any.
    pub approval: Option<&'a Approval>,
    /// Wall time of the request.
    pub time: WallTime,
    /// The caller's trace id (W3C Trace Context), 32 lower-case hex digits.
    pub trace_id: Option<&'a str>,
}
