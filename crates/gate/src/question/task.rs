//! Tasks of the gate's own: held calls whose clients poll for what becomes of them (the tasks
//! extension of MCP 2026-07-28).
//!
//! The edge keeps them ([`OwnTasks`]). The gate says who may ask for one, and writes what it is told.

use std::fmt;

/// With what the id of each such task begins. A task of a server with such an id is not accepted, so
/// nobody takes one for the other.
pub const PREFIX: &str = "bartizan-task-";

/// A task as its client may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnTask {
    /// Its name behind [`PREFIX`].
    pub name: Box<str>,
    /// What the held call is, in words for its client.
    pub what: Box<str>,
    /// The hold by which approvers find it.
    pub hold: Box<str>,
    /// The address of the page where it is approved, if clients are told.
    pub page: Option<Box<str>>,
    /// What has become of it.
    pub state: OwnTaskState,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_unix_ms: u64,
    /// When that last changed, milliseconds since the Unix epoch.
    pub changed_unix_ms: u64,
    /// How long after it was made it is kept, milliseconds.
    pub ttl_ms: u64,
}

/// What has become of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnTaskState {
    /// Nobody has answered yet.
    Waiting,
    /// People have; the call can be made.
    Ready(HeldRequest),
    /// The call is being made.
    Running,
    /// Its `result`, a JSON text that the client may see.
    Completed(Box<str>),
    /// Its `error`, a JSON text that the client may see.
    Failed(Box<str>),
    /// A person refused it.
    Refused,
    /// Nobody answered in time.
    Expired,
    /// It was cancelled.
    Cancelled,
    /// Nobody knows whether the server got the call.
    Unknown,
    /// It was made, and its answer is not kept.
    Dropped,
}

/// The request of a held call, as a person was shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRequest {
    /// Its method.
    pub method: Box<str>,
    /// The tool that it names.
    pub target: Option<Box<str>>,
    /// [`Hold::shown`](crate::question::hold::Hold::shown).
    pub shown: Box<str>,
}

/// What the edge does for a request about a task, once its record is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskAct {
    /// Make the held call, unless somebody else does already.
    Make {
        /// The task, by its name behind [`PREFIX`].
        name: Box<str>,
        /// The request, as a client would send it.
        raw: bytes::Bytes,
        /// Its id.
        id: Box<str>,
        /// Its method, and the name that it mirrors in routing headers.
        routing: (Box<str>, Option<Box<str>>),
    },
    /// Cancel it.
    Cancel {
        /// The task, by its name behind [`PREFIX`].
        name: Box<str>,
    },
}

/// Where the tasks are kept.
pub trait OwnTasks: Send + Sync + fmt::Debug {
    /// The task with this name behind [`PREFIX`], if it is of this principal and server.
    fn find(&self, name: &str, principal: &str, server: &str) -> Option<OwnTask>;
}
