//! Refusals: what the client is told, in words that never change.
//!
//! A refusal names no rule, no other principal and no internal address; the record has all of
//! that under the `decision_id` that the refusal carries. Codes of our own lie outside
//! -32768..-32000 (MCP 2026-07-28, basic/index "Error Codes").

use std::time::Duration;

use bytes::Bytes;

use super::record::Finding;
use super::step::{Content, IfUnrecorded, Released, Status};
use crate::duty::decision::Origin;
use crate::question::routing::HeaderMismatch;
use crate::wire::document::{Unreadable, write_string};
use crate::wire::frame::{Id, Malformed, write_id};
use crate::wire::headers::TASKS_EXTENSION;
use crate::wire::protocol::{Direction, Era};

/// Refused by policy.
pub const DENIED: i64 = -31001;
/// A rate limit is spent; `data.retry_after_ms` says for how long.
pub const LIMITED: i64 = -31002;
/// No audit record can be kept, so nothing may pass.
pub const UNRECORDED: i64 = -31003;
/// A person must approve first.
pub const APPROVAL_REQUIRED: i64 = -31004;
/// The protected server could not be reached, or broke off.
pub const UPSTREAM_FAILED: i64 = -31005;
/// The protected server's answer was withheld.
pub const WITHHELD: i64 = -31006;
/// Too much at once.
pub const BUSY: i64 = -31007;
/// Another message of the same batch is refused, so none passes.
pub const WITH_BATCH: i64 = -31008;

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const HEADER_MISMATCH: i64 = -32020;
const MISSING_CAPABILITY: i64 = -32021;

/// Why something is refused, as far as the client may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Policy says no.
    Denied,
    /// Policy says no, and hides the tool: it answers as if there were none.
    UnknownTool(Box<str>),
    /// Policy says no to a method that the spoken revision does not define.
    UnknownMethod,
    /// The task is not the principal's, or nobody saw it made.
    UnknownTask,
    /// Tasks, without the extension declared on this very request (2026-07-28).
    TasksUndeclared,
    /// A rate limit is spent.
    Limited(Option<Duration>),
    /// A person must approve first.
    ApprovalRequired,
    /// The frame broke the strict profile.
    Malformed(Malformed),
    /// Headers and body disagree.
    Headers(HeaderMismatch),
    /// The id is in flight already.
    DuplicateId,
    /// Nothing that may be in a batch: `initialize`, or a message of another revision.
    Batched,
    /// Another message of its batch is refused.
    WithBatch,
    /// An answer that nobody waits for.
    Unsolicited,
    /// The table of calls in flight is full.
    Busy,
    /// No record can be kept.
    Unrecorded,
    /// The server could not be reached, or broke off.
    UpstreamFailed,
    /// The server took too long.
    UpstreamTimedOut,
    /// The server's answer was withheld.
    Withheld,
    /// Refused before it was a frame.
    Door(DoorRefusal),
}

/// Why something is refused before it is a frame (P1, P2, P12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorRefusal {
    /// No server has this path: 404.
    UnknownPath,
    /// The path has no such method: 405.
    MethodNotAllowed,
    /// Host missing, repeated, foreign, or other than the request target's: 403.
    Host,
    /// Origin present and not allowed: 403.
    Origin,
    /// A header is repeated, or of a refused form: 400.
    Header,
    /// Not one `Content-Type: application/json` in UTF-8, or coded: 415.
    MediaType,
    /// Message framing that two readers may read differently: 400.
    Framing,
    /// The body is too large: 413.
    TooLarge,
    /// The body took too long: 400.
    Slow,
    /// The session is not known, or is another principal's: 404.
    UnknownSession,
    /// `Last-Event-ID` names no event of this session: 400.
    UnknownEvent,
    /// Too many sessions, streams or calls at once: 429.
    TooMany,
    /// We are closing: 503.
    Closing,
    /// No access token came along: 401.
    NoToken,
    /// The access token is not good here: 401.
    BadToken,
    /// The access token was good once: 401.
    ExpiredToken,
    /// The access token does not grant all scopes that are needed: 403.
    Scope,
    /// An access token in the request target, where logs and histories keep it: 400.
    TokenInQuery,
    /// The keys to check an access token with are not to be had: 503.
    NoKeys,
}

impl DoorRefusal {
    /// A stable code for records.
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownPath => "unknown-path",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Header => "header",
            Self::MediaType => "media-type",
            Self::Framing => "framing",
            Self::TooLarge => "too-large",
            Self::Slow => "slow",
            Self::UnknownSession => "unknown-session",
            Self::UnknownEvent => "unknown-event",
            Self::TooMany => "too-many",
            Self::Closing => "closing",
            Self::NoToken => "no-token",
            Self::BadToken => "bad-token",
            Self::ExpiredToken => "expired-token",
            Self::Scope => "insufficient-scope",
            Self::TokenInQuery => "token-in-query",
            Self::NoKeys => "no-keys",
        }
    }

    fn text(self) -> (&'static str, Status) {
        match self {
            Self::UnknownPath => ("Not found", Status::NotFound),
            Self::MethodNotAllowed => ("Method not allowed", Status::MethodNotAllowed),
            Self::Host => ("Host not allowed", Status::Forbidden),
            Self::Origin => ("Origin not allowed", Status::Forbidden),
            Self::Header => ("Ambiguous header", Status::BadRequest),
            Self::MediaType => (
                "Content-Type must be application/json in UTF-8, uncoded",
                Status::UnsupportedMediaType,
            ),
            Self::Framing => ("Ambiguous message framing", Status::BadRequest),
            Self::TooLarge => ("Message too large", Status::TooLarge),
            Self::Slow => ("Message took too long", Status::BadRequest),
            Self::UnknownSession => ("Session not found", Status::NotFound),
            Self::UnknownEvent => ("Event id not found", Status::BadRequest),
            Self::TooMany => ("Too many at once", Status::TooMany),
            Self::Closing => ("Closing", Status::Unavailable),
            // What is wrong with a token is nobody's business but the operator's.
            Self::NoToken | Self::BadToken | Self::ExpiredToken => {
                ("Access token required", Status::Unauthorized)
            }
            Self::Scope => ("Scope required", Status::Forbidden),
            Self::TokenInQuery => {
                ("Access token belongs into the header Authorization", Status::BadRequest)
            }
            Self::NoKeys => ("Access token cannot be checked now", Status::Unavailable),
        }
    }
}

/// Where a refusal goes and how it must look there.
#[derive(Debug, Clone, Copy)]
pub struct Addressee<'a> {
    /// The request that it answers; absent where there was none, or it could not be read.
    pub id: Option<&'a Id>,
    /// Names the record.
    pub decision_id: &'a str,
    /// The era, which sets some status codes.
    pub era: Era,
    /// Whether a tool result is wanted rather than an error.
    pub tool_result: bool,
}

impl Refusal {
    /// A stable code for records.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::UnknownTool(_) => "hidden-tool",
            Self::UnknownMethod => "unknown-method",
            Self::UnknownTask => "unknown-task",
            Self::TasksUndeclared => "tasks-undeclared",
            Self::Limited(_) => "limited",
            Self::ApprovalRequired => "approval-required",
            Self::Malformed(malformed) => malformed_code(malformed),
            Self::Headers(HeaderMismatch::Header { .. }) => "header-mismatch",
            Self::Headers(HeaderMismatch::NoMeta) => "meta-missing",
            Self::DuplicateId => "duplicate-id",
            Self::Batched => "not-in-batch",
            Self::WithBatch => "with-batch",
            Self::Unsolicited => "unsolicited-answer",
            Self::Busy => "busy",
            Self::Unrecorded => "unrecorded",
            Self::UpstreamFailed => "upstream-failed",
            Self::UpstreamTimedOut => "upstream-timed-out",
            Self::Withheld => "withheld",
            Self::Door(door) => door.code(),
        }
    }

    /// Where the refusal comes from when no policy was asked.
    pub fn origin(&self) -> Origin {
        match self {
            Self::Malformed(_) | Self::Door(_) => Origin::Malformed,
            Self::Headers(_) => Origin::HeaderMismatch,
            Self::Limited(_) => Origin::Limited,
            Self::ApprovalRequired => Origin::Undischarged,
            Self::Denied | Self::UnknownTool(_) | Self::UnknownMethod => Origin::Rule,
            Self::DuplicateId
            | Self::Batched
            | Self::WithBatch
            | Self::UnknownTask
            | Self::TasksUndeclared
            | Self::Unsolicited
            | Self::Busy
            | Self::Unrecorded
            | Self::UpstreamFailed
            | Self::UpstreamTimedOut
            | Self::Withheld => Origin::Protocol,
        }
    }

    /// What an analyst would call it; a denial by policy is judged by its facts elsewhere.
    pub fn finding(&self) -> Option<Finding> {
        match self {
            Self::Headers(_) => Some(Finding::HeaderBodyMismatch),
            Self::Limited(_) => Some(Finding::RateLimited),
            Self::ApprovalRequired => Some(Finding::ApprovalRequested),
            Self::Unsolicited => Some(Finding::UnsolicitedAnswer),
            Self::UnknownTask | Self::TasksUndeclared => Some(Finding::ToolDenied),
            Self::UpstreamFailed | Self::UpstreamTimedOut => Some(Finding::UpstreamFailure),
            Self::Unrecorded => Some(Finding::AuditSinkFailure),
            Self::Malformed(_)
            | Self::Batched
            | Self::Door(
                DoorRefusal::Header
                | DoorRefusal::Framing
                | DoorRefusal::MediaType
                | DoorRefusal::Host
                | DoorRefusal::Origin
                | DoorRefusal::TooLarge
                | DoorRefusal::Slow
                | DoorRefusal::TokenInQuery,
            ) => Some(Finding::MalformedFrame),
            Self::Door(DoorRefusal::BadToken) => Some(Finding::UnauthenticatedCaller),
            Self::Door(
                DoorRefusal::UnknownPath
                | DoorRefusal::MethodNotAllowed
                | DoorRefusal::UnknownSession
                | DoorRefusal::UnknownEvent
                | DoorRefusal::TooMany
                | DoorRefusal::Closing
                // Every OAuth flow begins without a token, or with less than is needed, and ends
                // with one that has expired.
                | DoorRefusal::NoToken
                | DoorRefusal::ExpiredToken
                | DoorRefusal::Scope
                | DoorRefusal::NoKeys,
            )
            | Self::Denied
            | Self::UnknownTool(_)
            | Self::UnknownMethod
            | Self::DuplicateId
            | Self::WithBatch
            | Self::Busy
            | Self::Withheld => None,
        }
    }

    fn face(&self, era: Era) -> (i64, &'static str, Status) {
        match self {
            Self::Denied => (DENIED, "Refused by policy", Status::Ok),
            Self::UnknownTool(_) => (INVALID_PARAMS, "Unknown tool", Status::Ok),
            // A modern server answers an unknown method with 404 (Streamable HTTP, 2026-07-28).
            Self::UnknownMethod => {
                let status = if era == Era::Modern { Status::NotFound } else { Status::Ok };
                (METHOD_NOT_FOUND, "Method not found", status)
            }
            Self::UnknownTask => (INVALID_PARAMS, "Unknown task", Status::Ok),
            Self::TasksUndeclared => {
                (MISSING_CAPABILITY, "Missing required client capability", Status::BadRequest)
            }
            Self::Limited(_) => (LIMITED, "Rate limit reached; try again later", Status::Ok),
            Self::ApprovalRequired => (APPROVAL_REQUIRED, "Approval required", Status::Ok),
            Self::Malformed(malformed) => malformed_face(malformed),
            Self::Headers(HeaderMismatch::Header { .. }) => {
                (HEADER_MISMATCH, "Header mismatch", Status::BadRequest)
            }
            Self::Headers(HeaderMismatch::NoMeta) => {
                (INVALID_PARAMS, "Protocol version missing in params._meta", Status::BadRequest)
            }
            Self::DuplicateId => (INVALID_REQUEST, "Request id already in use", Status::BadRequest),
            Self::Batched => (INVALID_REQUEST, "Not allowed in a batch", Status::BadRequest),
            Self::WithBatch => (WITH_BATCH, "Refused with its batch", Status::Ok),
            Self::Unsolicited => (INVALID_REQUEST, "No such request", Status::BadRequest),
            Self::Busy => (BUSY, "Too many requests in flight", Status::TooMany),
            Self::Unrecorded => {
                (UNRECORDED, "Cannot be recorded, so cannot pass", Status::Unavailable)
            }
            Self::UpstreamFailed => (UPSTREAM_FAILED, "Server unavailable", Status::BadGateway),
            Self::UpstreamTimedOut => {
                (UPSTREAM_FAILED, "Server did not answer in time", Status::GatewayTimeout)
            }
            Self::Withheld => (WITHHELD, "Answer withheld", Status::Ok),
            Self::Door(door) => {
                let (text, status) = door.text();
                (INVALID_REQUEST, text, status)
            }
        }
    }

    /// The refusal as a JSON-RPC message: its bytes, what it is, and the status that goes with
    /// it. A request that was understood is answered with 200 even if its server failed, so that
    /// the agent reads a JSON-RPC error and not a broken transport.
    pub fn message(&self, to: Addressee<'_>) -> (Bytes, Content, Status) {
        let (code, text, status) = self.face(to.era);
        let failed = matches!(status, Status::BadGateway | Status::GatewayTimeout);
        let status = if failed && to.id.is_some() {
            Status::Ok
        } else if status == Status::Ok && to.id.is_none() {
            Status::Forbidden
        } else {
            status
        };
        let mut body = Vec::with_capacity(192);
        body.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        match to.id {
            Some(id) => write_id(&mut body, id),
            None => body.extend_from_slice(b"null"),
        }
        if to.tool_result
            && matches!(self, Self::Denied | Self::Limited(_) | Self::ApprovalRequired)
        {
            let result_type =
                if to.era == Era::Modern { "\"resultType\":\"complete\"," } else { "" };
            body.extend_from_slice(b",\"result\":{");
            body.extend_from_slice(result_type.as_bytes());
            body.extend_from_slice(b"\"content\":[{\"type\":\"text\",\"text\":");
            write_string(&mut body, &format!("{text}. decision_id: {}", to.decision_id));
            body.extend_from_slice(b"}],\"isError\":true}}");
            return (body.into(), Content::Result, status);
        }
        body.extend_from_slice(format!(",\"error\":{{\"code\":{code},\"message\":").as_bytes());
        if let Self::UnknownTool(name) = self {
            write_string(&mut body, &format!("{text}: {name}"));
        } else {
            write_string(&mut body, text);
        }
        body.extend_from_slice(b",\"data\":{\"decision_id\":");
        write_string(&mut body, to.decision_id);
        if let Self::Limited(Some(retry)) = self {
            body.extend_from_slice(format!(",\"retry_after_ms\":{}", retry.as_millis()).as_bytes());
        }
        if let Self::TasksUndeclared = self {
            body.extend_from_slice(b",\"requiredCapabilities\":{\"extensions\":{");
            write_string(&mut body, TASKS_EXTENSION);
            body.extend_from_slice(b":{}}}");
        }
        body.extend_from_slice(b"}}}");
        (body.into(), Content::Error, status)
    }

    /// The refusal as something that may go to the client.
    pub(crate) fn released(&self, to: Addressee<'_>) -> Released {
        let (body, content, status) = self.message(to);
        Released::assertion(body, content, to.id.cloned(), status, true)
    }

    /// [`Refusal::Unrecorded`], to be written where a record cannot be kept.
    pub(crate) fn unrecorded(to: Addressee<'_>) -> IfUnrecorded {
        IfUnrecorded {
            id: to.id.cloned(),
            era: to.era,
            write: |id, decision_id, era| {
                Self::Unrecorded.released(Addressee { id, decision_id, era, tool_result: false })
            },
        }
    }
}

/// Which side a malformed frame came from decides nothing about its code.
fn malformed_face(malformed: &Malformed) -> (i64, &'static str, Status) {
    match malformed {
        Malformed::Unreadable(Unreadable::TooLarge) => {
            (PARSE_ERROR, "Message too large", Status::TooLarge)
        }
        Malformed::Unreadable(
            Unreadable::DuplicateName { .. } | Unreadable::ReservedName { .. },
        )
        | Malformed::LookAlike { .. } => {
            (INVALID_REQUEST, "Ambiguous member name", Status::BadRequest)
        }
        Malformed::Unreadable(_) => (PARSE_ERROR, "Parse error", Status::BadRequest),
        Malformed::Batch => (INVALID_REQUEST, "Batches are not accepted", Status::BadRequest),
        Malformed::BatchSize => (INVALID_REQUEST, "Batch empty or too large", Status::BadRequest),
        Malformed::NotObject
        | Malformed::Version
        | Malformed::Shape
        | Malformed::BadId
        | Malformed::BadMethod => (INVALID_REQUEST, "Invalid request", Status::BadRequest),
        Malformed::BadParams { .. } => (INVALID_PARAMS, "Invalid params", Status::BadRequest),
    }
}

fn malformed_code(malformed: &Malformed) -> &'static str {
    match malformed {
        Malformed::Unreadable(unreadable) => match unreadable {
            Unreadable::TooLarge => "too-large",
            Unreadable::NotUtf8 { .. } => "not-utf8",
            Unreadable::NotJson { .. } => "not-json",
            Unreadable::TooDeep { .. } => "too-deep",
            Unreadable::BadNumber { .. } => "bad-number",
            Unreadable::LoneSurrogate { .. } => "lone-surrogate",
            Unreadable::TooMany => "too-many-values",
            Unreadable::DuplicateName { .. } => "duplicate-name",
            Unreadable::ReservedName { .. } => "reserved-name",
        },
        Malformed::Batch => "batch",
        Malformed::BatchSize => "batch-size",
        Malformed::NotObject => "not-object",
        Malformed::LookAlike { .. } => "look-alike-name",
        Malformed::Version => "jsonrpc-version",
        Malformed::Shape => "shape",
        Malformed::BadId => "bad-id",
        Malformed::BadMethod => "bad-method",
        Malformed::BadParams { .. } => "bad-params",
    }
}

/// Text for a record: where in the frame it broke.
pub fn malformed_place(malformed: &Malformed, direction: Direction) -> String {
    let side = match direction {
        Direction::ToServer => "client frame",
        Direction::ToClient => "server frame",
    };
    let at = match malformed {
        Malformed::Unreadable(
            Unreadable::NotUtf8 { at }
            | Unreadable::NotJson { at }
            | Unreadable::TooDeep { at }
            | Unreadable::BadNumber { at }
            | Unreadable::LoneSurrogate { at }
            | Unreadable::DuplicateName { at }
            | Unreadable::ReservedName { at },
        )
        | Malformed::LookAlike { at } => Some(at),
        Malformed::BadParams { member } => return format!("{side}: `params.{member}`"),
        Malformed::Unreadable(Unreadable::TooLarge | Unreadable::TooMany)
        | Malformed::Batch
        | Malformed::BatchSize
        | Malformed::NotObject
        | Malformed::Version
        | Malformed::Shape
        | Malformed::BadId
        | Malformed::BadMethod => None,
    };
    match at {
        Some(at) => format!("{side}: byte {at}"),
        None => side.to_owned(),
    }
}
