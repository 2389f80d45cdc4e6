//! Refusals: the code, the constant text and the HTTP status that a client receives.
//!
//! A refusal names no rule, no other principal and no internal address; the record holds all of
//! that under the `decision_id` that the refusal carries. Error codes of this product lie outside
//! -32768..-32000, which JSON-RPC 2.0 §5.1 reserves (MCP 2026-07-28, basic/index "Error Codes").

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::record::Finding;
use super::step::{Content, IfUnrecorded, Released, Status};
use crate::duty::decision::Origin;
use crate::duty::limit::Wait;
use crate::question::hold::{ELICITATION, HoldEnd};
use crate::question::routing::HeaderMismatch;
use crate::wire::document::{Unreadable, write_string};
use crate::wire::frame::{Id, Malformed, write_id};
use crate::wire::headers::TASKS_EXTENSION;
use crate::wire::protocol::{Direction, Era};

/// Denied by policy.
pub const DENIED: i64 = -31001;
/// A limit of the policy is reached; `data.retry_after_ms` says when to try again, where it is known.
pub const LIMITED: i64 = -31002;
/// No audit record can be kept, so nothing may pass.
pub const UNRECORDED: i64 = -31003;
/// A person must approve the call first.
pub const APPROVAL_REQUIRED: i64 = -31004;
/// The protected server could not be reached, or broke the connection.
pub const UPSTREAM_FAILED: i64 = -31005;
/// The protected server's answer was withheld.
pub const WITHHELD: i64 = -31006;
/// Too many requests in flight, sessions or streams, too much kept in memory for the caller, or a
/// selection beside calls that depend on what is selected.
pub const BUSY: i64 = -31007;
/// Another message of the same batch is refused, so none passes.
pub const WITH_BATCH: i64 = -31008;

/// What the record of a refusal says where the memory for a principal is spent.
pub(crate) const KEPT_BYTES: &str = "limits.kept_bytes: no room for what this message leaves";

/// What the record of a refusal says where a call would select beside calls that depend on it.
const FACT_IN_USE: &str =
    "the call sets a session fact by which calls were judged that the server may still carry out";

/// What the user of a client is asked where it can open the page of a held call.
const ASKING: &str = "An approver must permit this call before it goes on, for instance on this page. \
    To open it approves nothing. To decline ends the call.";

/// The member of `_meta` in a tool result that says after how many ms the call may pass.
const META_RETRY_AFTER: &str = "bartizan/retry_after_ms";

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const HEADER_MISMATCH: i64 = -32020;
const MISSING_CAPABILITY: i64 = -32021;

/// Why a message is refused, as far as the client may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Denied by policy.
    Denied,
    /// Denied by policy, which also hides the tool of this name: answered like a tool that does not
    /// exist.
    UnknownTool(Box<str>),
    /// Denied by policy, and the negotiated revision does not define the method.
    UnknownMethod,
    /// The task belongs to another principal, or its creation was not seen.
    UnknownTask,
    /// The request uses tasks without declaring the extension (MCP 2026-07-28, tasks extension).
    TasksUndeclared,
    /// A limit of the policy is reached; when the call may pass.
    Limited(Wait),
    /// A person must approve the call first, and nothing can ask one.
    ApprovalRequired,
    /// The approval that the call needs was not given, or not yet.
    Approval(HoldEnd),
    /// The frame breaks the strict profile.
    Malformed(Malformed),
    /// A routing header and the body disagree (P11).
    Headers(HeaderMismatch),
    /// The method, or a name or id in this member of `params`, is too long or has characters that
    /// are not shown (P10).
    BadName(&'static str),
    /// A request with this id, or one that reads alike, was sent in the session before.
    DuplicateId,
    /// Progress with this token may belong to another request of the session.
    TokenInUse,
    /// The session has used more ids than can be remembered.
    SessionSpent,
    /// The cancellation names no request in flight that may be cancelled.
    NotInFlight,
    /// The message must not be in a batch: `initialize`, or a message of a modern revision.
    Batched,
    /// Another message of the same batch is refused.
    WithBatch,
    /// The message answers no request in flight.
    Unsolicited,
    /// The table of calls in flight is full.
    Busy,
    /// The call selects what calls that are still in flight were judged by.
    FactInUse,
    /// More would be kept for this principal than it may have (`limits.kept_bytes`).
    MemorySpent,
    /// There is no place for the session or the stream that the message would begin.
    NoPlace,
    /// No record can be kept.
    Unrecorded,
    /// The server could not be reached, or broke the connection.
    UpstreamFailed,
    /// The server did not answer in time.
    UpstreamTimedOut,
    /// The server's answer was withheld.
    Withheld,
    /// The HTTP request was refused before its body was read as a frame.
    Door(DoorRefusal),
}

/// Why an HTTP request is refused before its body is read as a frame (P1, P2, P12, access tokens).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorRefusal {
    /// No server is configured at this path: 404.
    UnknownPath,
    /// The path does not support this HTTP method: 405.
    MethodNotAllowed,
    /// `Host` is missing, repeated, not allowed, or differs from the request target: 403.
    Host,
    /// `Origin` is present and not allowed: 403.
    Origin,
    /// A header is repeated, or its value is malformed: 400.
    Header,
    /// Not exactly one `Content-Type: application/json` in UTF-8, or a content coding: 415.
    MediaType,
    /// Message framing that two HTTP readers may read differently (request smuggling): 400.
    Framing,
    /// The body is larger than `limits.frame_bytes`: 413.
    TooLarge,
    /// The head is larger than `limits.header_bytes`: 431.
    HeadTooLarge,
    /// The body did not arrive in time: 400.
    Slow,
    /// The session does not exist, or belongs to another principal: 404.
    UnknownSession,
    /// `Last-Event-ID` names no event of this session: 400.
    UnknownEvent,
    /// Too many sessions, streams or calls at once: 429.
    TooMany,
    /// The program is shutting down: 503.
    Closing,
    /// The request has no access token: 401.
    NoToken,
    /// The access token is not valid here: 401.
    BadToken,
    /// The access token has expired: 401.
    ExpiredToken,
    /// The access token does not grant all required scopes: 403 (RFC 6750 §3.1).
    Scope,
    /// An access token in the request target, which logs and browser histories keep: 400.
    TokenInQuery,
    /// The keys that verify access tokens are not available: 503.
    NoKeys,
}

impl DoorRefusal {
    /// The stable reason code in records.
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
            Self::HeadTooLarge => "head-too-large",
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
            Self::HeadTooLarge => ("Head too large", Status::HeadTooLarge),
            Self::Slow => ("Message took too long", Status::BadRequest),
            Self::UnknownSession => ("Session not found", Status::NotFound),
            Self::UnknownEvent => ("Event id not found", Status::BadRequest),
            Self::TooMany => ("Too many at once", Status::TooMany),
            Self::Closing => ("Closing", Status::Unavailable),
            // The client is not told what is wrong with its token; the record is.
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

/// Whom a refusal answers, and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Addressee<'a> {
    /// The id of the request; absent where there is none, or it could not be read.
    pub id: Option<&'a Id>,
    /// The id of the call, by which an operator finds the record.
    pub decision_id: &'a str,
    /// The era of the client, on which some status codes depend.
    pub era: Era,
    /// Whether a refusal by policy is a tool result with `isError`, not a JSON-RPC error.
    pub tool_result: bool,
    /// What rules tell the agent, where the policy denies or holds its message.
    pub told: Option<&'a str>,
}

impl Refusal {
    /// The stable reason code in records.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::UnknownTool(_) => "hidden-tool",
            Self::UnknownMethod => "unknown-method",
            Self::UnknownTask => "unknown-task",
            Self::TasksUndeclared => "tasks-undeclared",
            Self::Limited(_) => "limited",
            Self::ApprovalRequired => "approval-required",
            Self::Approval(end) => end.code(),
            Self::Malformed(malformed) => malformed_code(malformed),
            Self::Headers(HeaderMismatch::Header { .. }) => "header-mismatch",
            Self::Headers(HeaderMismatch::NoMeta) => "meta-missing",
            Self::BadName(_) => "bad-name",
            Self::DuplicateId => "duplicate-id",
            Self::TokenInUse => "token-in-use",
            Self::SessionSpent => "session-spent",
            Self::NotInFlight => "not-in-flight",
            Self::Batched => "not-in-batch",
            Self::WithBatch => "with-batch",
            Self::Unsolicited => "unsolicited-answer",
            Self::Busy => "busy",
            Self::FactInUse => "fact-in-use",
            Self::MemorySpent => "memory-spent",
            Self::NoPlace => "no-place",
            Self::Unrecorded => "unrecorded",
            Self::UpstreamFailed => "upstream-failed",
            Self::UpstreamTimedOut => "upstream-timed-out",
            Self::Withheld => "withheld",
            Self::Door(door) => door.code(),
        }
    }

    /// The limit that is reached, or what is in use, for the record; `None` where the code says all.
    pub(crate) fn detail(&self) -> Option<&'static str> {
        match self {
            Self::Busy => Some("limits.in_flight: too many requests of the session in flight"),
            Self::FactInUse => Some(FACT_IN_USE),
            Self::MemorySpent => Some(KEPT_BYTES),
            Self::SessionSpent => Some("the session has used more ids than can be remembered"),
            Self::Denied
            | Self::UnknownTool(_)
            | Self::UnknownMethod
            | Self::UnknownTask
            | Self::TasksUndeclared
            | Self::Limited(_)
            | Self::ApprovalRequired
            | Self::Approval(_)
            | Self::Malformed(_)
            | Self::Headers(_)
            | Self::BadName(_)
            | Self::DuplicateId
            | Self::TokenInUse
            | Self::NotInFlight
            | Self::Batched
            | Self::WithBatch
            | Self::Unsolicited
            | Self::NoPlace
            | Self::Unrecorded
            | Self::UpstreamFailed
            | Self::UpstreamTimedOut
            | Self::Withheld
            | Self::Door(_) => None,
        }
    }

    /// The origin of the reason in the record, where the policy was not asked.
    pub fn origin(&self) -> Origin {
        match self {
            Self::Malformed(_) | Self::BadName(_) | Self::Door(_) => Origin::Malformed,
            Self::Headers(_) => Origin::HeaderMismatch,
            Self::Limited(_) => Origin::Limited,
            Self::ApprovalRequired | Self::Approval(_) => Origin::Undischarged,
            Self::Denied | Self::UnknownTool(_) | Self::UnknownMethod => Origin::Rule,
            Self::DuplicateId
            | Self::TokenInUse
            | Self::SessionSpent
            | Self::NotInFlight
            | Self::Batched
            | Self::WithBatch
            | Self::UnknownTask
            | Self::TasksUndeclared
            | Self::Unsolicited
            | Self::Busy
            | Self::FactInUse
            | Self::MemorySpent
            | Self::NoPlace
            | Self::Unrecorded
            | Self::UpstreamFailed
            | Self::UpstreamTimedOut
            | Self::Withheld => Origin::Protocol,
        }
    }

    /// The finding of the record. `None` for a denial by policy, which `session` classifies by its
    /// facts.
    pub fn finding(&self) -> Option<Finding> {
        match self {
            Self::Headers(_) => Some(Finding::HeaderBodyMismatch),
            Self::Limited(_) => Some(Finding::RateLimited),
            Self::Approval(HoldEnd::Expired) => Some(Finding::ApprovalExpired),
            Self::Approval(HoldEnd::Full | HoldEnd::CoolingDown { .. }) => {
                Some(Finding::ApprovalFlood)
            }
            Self::ApprovalRequired | Self::Approval(_) => Some(Finding::ApprovalRequested),
            Self::Unsolicited => Some(Finding::UnsolicitedAnswer),
            Self::UnknownTask | Self::TasksUndeclared => Some(Finding::ToolDenied),
            Self::UpstreamFailed | Self::UpstreamTimedOut => Some(Finding::UpstreamFailure),
            Self::Unrecorded => Some(Finding::AuditSinkFailure),
            Self::Malformed(_)
            | Self::BadName(_)
            | Self::Batched
            | Self::Door(
                DoorRefusal::Header
                | DoorRefusal::Framing
                | DoorRefusal::MediaType
                | DoorRefusal::Host
                | DoorRefusal::Origin
                | DoorRefusal::TooLarge
                | DoorRefusal::HeadTooLarge
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
                // Every OAuth flow begins without a token or with too few scopes, and every token
                // expires in the end, so these are no findings.
                | DoorRefusal::NoToken
                | DoorRefusal::ExpiredToken
                | DoorRefusal::Scope
                | DoorRefusal::NoKeys,
            )
            | Self::Denied
            | Self::UnknownTool(_)
            | Self::UnknownMethod
            | Self::DuplicateId
            | Self::TokenInUse
            | Self::SessionSpent
            | Self::NotInFlight
            | Self::WithBatch
            | Self::Busy
            | Self::FactInUse
            | Self::MemorySpent
            | Self::NoPlace
            | Self::Withheld => None,
        }
    }

    fn presentation(&self, era: Era) -> (i64, &'static str, Status) {
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
            Self::Limited(wait) => (LIMITED, limited_text(*wait), Status::Ok),
            Self::ApprovalRequired => (APPROVAL_REQUIRED, "Approval required", Status::Ok),
            Self::Approval(end) => (APPROVAL_REQUIRED, end.text(), Status::Ok),
            Self::Malformed(malformed) => malformed_presentation(malformed),
            Self::Headers(HeaderMismatch::Header { .. }) => {
                (HEADER_MISMATCH, "Header mismatch", Status::BadRequest)
            }
            Self::Headers(HeaderMismatch::NoMeta) => {
                (INVALID_PARAMS, "Protocol version missing in params._meta", Status::BadRequest)
            }
            Self::BadName("method") => (INVALID_REQUEST, "Invalid name", Status::BadRequest),
            Self::BadName(_) => (INVALID_PARAMS, "Invalid name", Status::BadRequest),
            Self::DuplicateId => (INVALID_REQUEST, "Request id already used", Status::BadRequest),
            Self::TokenInUse => {
                (INVALID_REQUEST, "Progress token already in use", Status::BadRequest)
            }
            // 404 makes a client begin another session (2025-11-25, "Session Management").
            Self::SessionSpent => {
                (INVALID_REQUEST, "Too many different request ids", Status::NotFound)
            }
            Self::Batched => (INVALID_REQUEST, "Not allowed in a batch", Status::BadRequest),
            Self::WithBatch => (WITH_BATCH, "Refused with its batch", Status::Ok),
            Self::Unsolicited | Self::NotInFlight => {
                (INVALID_REQUEST, "No such request", Status::BadRequest)
            }
            Self::Busy => (BUSY, "Too many requests in flight", Status::TooMany),
            Self::FactInUse => (
                BUSY,
                "Calls in flight depend on what is selected; wait for their answers, then select again",
                Status::TooMany,
            ),
            Self::NoPlace => (BUSY, "Too many sessions or streams", Status::TooMany),
            Self::MemorySpent => (BUSY, "Too much kept for this caller", Status::TooMany),
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

    /// Writes the refusal as a JSON-RPC message; returns its bytes, its kind and its HTTP status. A
    /// request with an id is answered with 200 even if its server failed, so that the agent reads a
    /// JSON-RPC error and does not see a broken transport.
    pub fn message(&self, to: Addressee<'_>) -> (Bytes, Content, Status) {
        let (code, text, status) = self.presentation(to.era);
        let told = to
            .told
            .filter(|_| matches!(self, Self::Denied | Self::ApprovalRequired | Self::Approval(_)));
        let failed = matches!(status, Status::BadGateway | Status::GatewayTimeout);
        let status = if failed && to.id.is_some() {
            Status::Ok
        } else if status == Status::Ok && to.id.is_none() {
            let later = matches!(self, Self::Limited(Wait::For(_) | Wait::ForEnd(_)));
            if later { Status::TooMany } else { Status::Forbidden }
        } else {
            status
        };
        let mut body = Vec::with_capacity(192);
        body.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        match to.id {
            Some(id) => write_id(&mut body, id),
            None => body.extend_from_slice(b"null"),
        }
        if let Self::Approval(HoldEnd::Pending { state: Some(state), page, hold, .. }) = self {
            // MCP 2026-07-28, basic/patterns/mrtr: the client calls again with this state, after it
            // has asked its user to open the page, if there is one.
            body.extend_from_slice(b",\"result\":{\"resultType\":\"input_required\",");
            if let Some(page) = page {
                write_elicitation(&mut body, page, &hold.0, told);
            }
            body.extend_from_slice(b"\"requestState\":");
            write_string(&mut body, state);
            body.extend_from_slice(b"}}");
            return (body.into(), Content::Result, status);
        }
        if to.tool_result
            && matches!(
                self,
                Self::Denied | Self::Limited(_) | Self::ApprovalRequired | Self::Approval(_)
            )
        {
            self.write_tool_result(&mut body, &with_told(&self.readable_text(text), told), to);
            return (body.into(), Content::Result, status);
        }
        body.extend_from_slice(format!(",\"error\":{{\"code\":{code},\"message\":").as_bytes());
        if let Self::UnknownTool(name) = self {
            write_string(&mut body, &format!("{text}: {name}"));
        } else {
            write_string(&mut body, &with_told(text, told));
        }
        body.extend_from_slice(b",\"data\":{\"decision_id\":");
        write_string(&mut body, to.decision_id);
        if let Self::Approval(HoldEnd::Pending { hold, .. }) = self {
            body.extend_from_slice(b",\"approval_id\":");
            write_string(&mut body, &hold.0);
        }
        if let Some(page) = self.page() {
            body.extend_from_slice(b",\"approval_url\":");
            write_string(&mut body, page);
        }
        if let Some(ms) = self.retry_after_ms() {
            body.extend_from_slice(format!(",\"retry_after_ms\":{ms}").as_bytes());
        }
        if let Self::TasksUndeclared = self {
            body.extend_from_slice(b",\"requiredCapabilities\":{\"extensions\":{");
            write_string(&mut body, TASKS_EXTENSION);
            body.extend_from_slice(b":{}}}");
        }
        body.extend_from_slice(b"}}}");
        (body.into(), Content::Error, status)
    }

    /// Writes the refusal as the result of a tool, which the model reads, after the id.
    fn write_tool_result(&self, body: &mut Vec<u8>, text: &str, to: Addressee<'_>) {
        let result_type = if to.era == Era::Modern { "\"resultType\":\"complete\"," } else { "" };
        body.extend_from_slice(b",\"result\":{");
        body.extend_from_slice(result_type.as_bytes());
        // Not as `structuredContent`: clients hold that against the tool's own schema.
        if let Some(ms) = self.retry_after_ms() {
            let meta = format!("\"_meta\":{{\"{META_RETRY_AFTER}\":{ms}}},");
            body.extend_from_slice(meta.as_bytes());
        }
        body.extend_from_slice(b"\"content\":[{\"type\":\"text\",\"text\":");
        let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
        let page = self.page().map(|page| format!(" Approvers answer at {page}."));
        let page = page.unwrap_or_default();
        write_string(body, &format!("{text}{stop}{page} decision_id: {}", to.decision_id));
        body.extend_from_slice(b"}],\"isError\":true}}");
    }

    /// The page where the message is approved, if clients are told.
    fn page(&self) -> Option<&str> {
        let Self::Approval(HoldEnd::Pending { page, .. }) = self else { return None };
        page.as_deref()
    }

    /// Writes the refusal as a message that may go to the client.
    pub(crate) fn released(&self, to: Addressee<'_>) -> Released {
        let (body, content, status) = self.message(to);
        let released = Released::issue_proof(body, content, to.id.cloned(), status, true);
        released.retrying(self.retry_after())
    }

    /// After what time it makes sense to send the same message again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Approval(end) = self {
            return end.retry_after();
        }
        let Self::Limited(wait) = self else { return None };
        match wait {
            Wait::For(wait) => Some(*wait),
            Wait::ForEnd(at_latest) => *at_latest,
            Wait::Forever => None,
        }
    }

    /// The same in ms, rounded up: not before it is over.
    fn retry_after_ms(&self) -> Option<u128> {
        self.retry_after().map(|wait| wait.as_nanos().div_ceil(1_000_000))
    }

    /// The text for a model, which sees no other part of a tool result.
    fn readable_text(&self, text: &'static str) -> Cow<'static, str> {
        let Self::Limited(Wait::For(wait)) = self else { return text.into() };
        let seconds = wait.as_nanos().div_ceil(1_000_000_000);
        format!("Rate limit reached; try again in {seconds} s").into()
    }

    /// Prepares [`Refusal::Unrecorded`], which is written only if a record cannot be kept.
    pub(crate) fn unrecorded(to: Addressee<'_>) -> IfUnrecorded {
        IfUnrecorded {
            id: to.id.cloned(),
            era: to.era,
            write: |id, decision_id, era| {
                Self::Unrecorded.released(Addressee {
                    id,
                    decision_id,
                    era,
                    tool_result: false,
                    told: None,
                })
            },
        }
    }
}

/// `text`, and what rules tell besides.
fn with_told<'t>(text: &'t str, told: Option<&str>) -> Cow<'t, str> {
    told.map_or(text.into(), |told| format!("{}. {told}", text.trim_end_matches('.')).into())
}

/// Writes the member `inputRequests` that asks a client to open `page` (MCP 2026-07-28,
/// client/elicitation, mode `url`), and a comma. This revision has no `elicitationId`; rmcp 3.8 reads
/// no such request without one.
fn write_elicitation(body: &mut Vec<u8>, page: &str, hold: &str, told: Option<&str>) {
    body.extend_from_slice(b"\"inputRequests\":{");
    write_string(body, ELICITATION);
    body.extend_from_slice(
        b":{\"method\":\"elicitation/create\",\"params\":{\"mode\":\"url\",\"message\":",
    );
    write_string(body, &with_told(ASKING, told));
    body.extend_from_slice(b",\"url\":");
    write_string(body, page);
    body.extend_from_slice(b",\"elicitationId\":");
    write_string(body, hold);
    body.extend_from_slice(b"}}},");
}

/// The text where a limit of the policy is reached.
fn limited_text(wait: Wait) -> &'static str {
    match wait {
        Wait::For(_) => "Rate limit reached; try again later",
        Wait::ForEnd(_) => "Too many calls at once; try again when one has its answer",
        Wait::Forever => "A limit never permits this call; do not try again",
    }
}

/// Code, text and status of a malformed frame, whichever side sent it.
fn malformed_presentation(malformed: &Malformed) -> (i64, &'static str, Status) {
    match malformed {
        Malformed::Unreadable(Unreadable::TooLarge) => {
            (PARSE_ERROR, "Message too large", Status::TooLarge)
        }
        Malformed::Unreadable(
            Unreadable::DuplicateName { .. } | Unreadable::ReservedName { .. },
        )
        | Malformed::LookAlike { .. }
        | Malformed::ControlInName { .. } => {
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
        Malformed::ControlInName { .. } => "control-in-name",
        Malformed::Version => "jsonrpc-version",
        Malformed::Shape => "shape",
        Malformed::BadId => "bad-id",
        Malformed::BadMethod => "bad-method",
        Malformed::BadParams { .. } => "bad-params",
    }
}

/// Returns the text for a record: which side's frame is malformed, and at which byte or member.
pub fn malformed_position(malformed: &Malformed, direction: Direction) -> String {
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
        | Malformed::LookAlike { at }
        | Malformed::ControlInName { at } => Some(at),
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
