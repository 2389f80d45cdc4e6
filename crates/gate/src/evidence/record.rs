//! The audit record: one JSON object for each event that was decided, done or seen.
//!
//! This is the normative schema, version [`SCHEMA`]; `docs/audit.md` explains it to readers. Every
//! record MUST say what happened (`event`), when (`time`, RFC 3339 UTC with microseconds, and
//! `uptime_us`, which a change of the wall clock does not affect) and to what. A record about one
//! call MUST carry its `call`, which is the same in `intent` and `outcome`. An absent member means
//! "does not apply" or "not known". Values of results are never in a record, values of arguments
//! only where the configuration says so; keyed digests are. Each text and list has a limit
//! ([`super::text`]), so a record has one, too: [`RECORD_BYTES_MAX`]. The journal adds `seq`, `prev`
//! and `boot` around each record; this module knows nothing of files.

mod input;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

pub use self::input::KeptInput;
pub use super::finding::{Finding, Maestro, Mitre, Owasp, TAXONOMY, Tags};
use super::text::{
    Code, Environment, IdText, Label, Listed, Message, Name, Note, Pointer, Text, TextKind as _,
    Told, UriText,
};
use crate::duty::decision::Reason;
use crate::duty::pdp::RecordedInput;
use crate::question::access::Principal;
use crate::question::hold::Approval;

/// Version of this schema. A change that breaks a reader of records increments it.
pub const SCHEMA: u32 = 1;

/// Reasons of a decision that its record keeps; the rest is counted, as in every list.
pub const REASONS_MAX: usize = 32;
/// Obligations that a record keeps.
pub const OBLIGATIONS_MAX: usize = 64;
/// Environments of an operation that a record keeps.
pub const ENVIRONMENTS_MAX: usize = 64;
/// Tags of an operation that a record keeps.
pub const TAGS_MAX: usize = 64;
/// Flags of a definition that a record keeps; there are fewer.
pub const FLAGS_MAX: usize = 16;
/// Names of hidden entries that a record keeps.
pub const HIDDEN_MAX: usize = 256;
/// Redacted places that a record keeps.
pub const PLACES_MAX: usize = 32;
/// Pointers to values that were left out of the policy input that a record keeps.
pub const LEFT_OUT_MAX: usize = 192;

/// Largest size of what no limit of its own bounds: names of members, numbers, digests, the ids of
/// taxonomies, commas and quotes, bytes.
const SKELETON_BYTES_MAX: usize = 8 << 10;

/// Quotes and comma around an entry of a list, bytes.
const ENTRY: usize = 3;

/// Largest size of a record as JSON, bytes as the journal writes them: the sum of the limits of its
/// parts.
pub const RECORD_BYTES_MAX: usize = SKELETON_BYTES_MAX
    // Principal, server, method, tool, prompt, task, operation, pack, policy revision, call, approver,
    // hold, issuer, subject, client id, the call that a server's message came with.
    + 16 * Name::BYTES_MAX
    // Name and version of the client; method, host, path and origin of a refused request, or the host
    // of the server that a call was forwarded to; version and host of the program.
    + 8 * Label::BYTES_MAX
    + IdText::BYTES_MAX
    + UriText::BYTES_MAX
    + Note::BYTES_MAX
    + Told::BYTES_MAX
    // Error type, definition, locked, drift, digest, both trace ids, both of the link, peer, scope,
    // session, configuration.
    + 13 * Code::BYTES_MAX
    // Why an approver answered so.
    + Message::BYTES_MAX
    + FLAGS_MAX * (Code::BYTES_MAX + ENTRY)
    + (ENVIRONMENTS_MAX + TAGS_MAX + OBLIGATIONS_MAX + HIDDEN_MAX) * (Label::BYTES_MAX + ENTRY)
    + REASONS_MAX * (Code::BYTES_MAX + Message::BYTES_MAX + 64)
    + PLACES_MAX * (Pointer::BYTES_MAX + Code::BYTES_MAX + 32)
    + LEFT_OUT_MAX * (Pointer::BYTES_MAX + ENTRY)
    + input::INPUT_BYTES_MAX;

/// Correlates the records of one call, from decision to outcome. Clients see it as `decision_id`.
pub type CallId = Arc<str>;

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The program opened its journal.
    Start,
    /// The program closed its journal in order.
    Stop,
    /// A message was permitted and is about to be forwarded (write-ahead record).
    Intent,
    /// A request waits for a person's approval. A `hold_state` of the same hold says how that ended.
    Hold,
    /// An approval got into another state: granted, and then spent, or refused, expired, cancelled or
    /// unknown; see `approval`. Each has a record of its own, whether or not a call waits for it.
    HoldState,
    /// A message was refused.
    Denial,
    /// A forwarded request ended; see `outcome`.
    Outcome,
    /// A message of the server that needs no answer was delivered to the client, or the client was
    /// told what has become of a task of the gate's own.
    Notice,
    /// A message was withheld, and nobody waits for an answer.
    Drop,
    /// Refusals of one kind, of which the first has a record of its own; see `repeated`.
    Repeated,
    /// An approver answers a held call; see `approval`. Kept before the answer takes effect.
    Approval,
    /// A policy was loaded, promoted to the compiled engine, demoted from it, or rejected.
    Policy,
    /// The store that replicas share was lost, or works again; see `note`.
    Store,
    /// A webhook fails, or works again; see `note`. At most one a minute for each webhook says that it
    /// fails.
    Webhook,
    /// The journal repaired itself after a crash.
    Recovery,
    /// Records could not be kept for a while.
    Gap,
    /// The journal began a new file.
    Rotation,
    /// The records so far were signed; the journal adds the signature.
    Checkpoint,
    /// Old files of the journal are removed, as the operator has said; see `note`.
    Retention,
}

impl Event {
    /// All of them, in the order in which a reader of a list looks for them.
    pub const ALL: [Self; 19] = [
        Self::Start,
        Self::Stop,
        Self::Intent,
        Self::Hold,
        Self::HoldState,
        Self::Denial,
        Self::Outcome,
        Self::Notice,
        Self::Drop,
        Self::Repeated,
        Self::Approval,
        Self::Policy,
        Self::Store,
        Self::Webhook,
        Self::Recovery,
        Self::Gap,
        Self::Rotation,
        Self::Checkpoint,
        Self::Retention,
    ];

    /// The event with this name in records.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }

    /// Its name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Intent => "intent",
            Self::Hold => "hold",
            Self::HoldState => "hold_state",
            Self::Denial => "denial",
            Self::Outcome => "outcome",
            Self::Notice => "notice",
            Self::Drop => "drop",
            Self::Repeated => "repeated",
            Self::Approval => "approval",
            Self::Policy => "policy",
            Self::Store => "store",
            Self::Webhook => "webhook",
            Self::Recovery => "recovery",
            Self::Gap => "gap",
            Self::Rotation => "rotation",
            Self::Checkpoint => "checkpoint",
            Self::Retention => "retention",
        }
    }
}

/// How a forwarded request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered with a result.
    Ok,
    /// Answered with a tool result that says `isError`.
    ToolError,
    /// Answered with a JSON-RPC error.
    Error,
    /// The server accepted it and will not answer, as for a notification.
    Accepted,
    /// The client disconnected or cancelled.
    Cancelled,
    /// The server could not be reached, broke the connection, or answered with something that is
    /// not a frame.
    UpstreamFailed,
    /// The server's answer was withheld from the client.
    Withheld,
    /// It was permitted and never sent, because another record of the same step could not be kept.
    NotSent,
    /// Unknown: the program ended before the outcome was recorded.
    Unknown,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::ToolError,
        Self::Error,
        Self::Accepted,
        Self::Cancelled,
        Self::UpstreamFailed,
        Self::Withheld,
        Self::NotSent,
        Self::Unknown,
    ];

    /// Its name in records.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::Error => "error",
            Self::Accepted => "accepted",
            Self::Cancelled => "cancelled",
            Self::UpstreamFailed => "upstream_failed",
            Self::Withheld => "withheld",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
        }
    }
}

/// What the message acts on; at most one of the first four members is present.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The name of the called tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<Text<Name>>,
    /// The name of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Text<Name>>,
    /// The URI of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<Text<UriText>>,
    /// The id of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Text<Name>>,
    /// Digest of the tool's definition as last listed, `sha256:<hex>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<Text<Code>>,
    /// Digest of its definition in the lock file, `sha256:<hex>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<Text<Code>>,
    /// How its definition differs from the lock file, where there is one; see
    /// [`Drift`](crate::question::status::Drift).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Text<Code>>,
    /// Flags of its definition, such as invisible characters; see [`crate::wire::unseen`].
    #[serde(flatten, serialize_with = "lists::flags")]
    pub flags: Listed<Text<Code>, FLAGS_MAX>,
}

/// What the call does, as classified by its pack:
/// [`Operation`](crate::question::operation::Operation).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperationFacts {
    /// `tool/operation`, for a tool that dispatches to several operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text<Name>>,
    /// The worst effect: `read`, `write`, `destructive`, `exec` or `unknown`.
    pub effect: &'static str,
    /// Names of the environments that it reaches; `*` for every one.
    #[serde(flatten, serialize_with = "lists::environments")]
    pub environments: Listed<Text<Environment>, ENVIRONMENTS_MAX>,
    /// How they were found: `arguments`, `absent`, `unmapped`, `unreadable` or `none`.
    pub environment_source: &'static str,
    /// The tags that the pack gives the call.
    #[serde(flatten, serialize_with = "lists::tags")]
    pub tags: Listed<Text<Label>, TAGS_MAX>,
    /// The name of the pack that classified it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pack: Option<Text<Name>>,
}

/// One reason of a decision: [`Reason`] as a record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonFacts {
    /// A short, stable identifier.
    pub code: Text<Code>,
    /// An explanation for a person.
    pub message: Text<Message>,
    /// The name of its [`Origin`](crate::duty::decision::Origin).
    pub origin: &'static str,
}

impl From<&Reason> for ReasonFacts {
    fn from(reason: &Reason) -> Self {
        Self {
            code: reason.code.as_ref().into(),
            message: reason.message.as_ref().into(),
            origin: reason.origin.as_str(),
        }
    }
}

/// What was removed from an answer: how often and where, never the values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RedactionFacts {
    /// How many values were removed.
    pub count: usize,
    /// Where the first of them stood.
    #[serde(flatten, serialize_with = "lists::places")]
    pub places: Listed<PlaceFacts, PLACES_MAX>,
}

/// One value that was removed from an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlaceFacts {
    /// Where it stood: an RFC 6901 pointer from the message's root, also through strings that hold
    /// JSON.
    pub pointer: Text<Pointer>,
    /// `pointer`, `copy`, or the id of the rule that found a secret.
    pub rule: &'static str,
}

/// The decision about a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DecisionFacts {
    /// `permit` or `deny`: what policy and gate decided, also in observe mode.
    pub effect: &'static str,
    /// Whether the decision was enforced; `false` in observe mode.
    pub enforced: bool,
    /// Why; at least one reason.
    #[serde(flatten, serialize_with = "lists::reasons")]
    pub reasons: Listed<ReasonFacts, REASONS_MAX>,
    /// The obligations that were discharged, `kind:code`.
    #[serde(flatten, serialize_with = "lists::obligations")]
    pub obligations: Listed<Text<Label>, OBLIGATIONS_MAX>,
    /// The revision of the policy that answered.
    pub policy: Text<Name>,
    /// The engine that evaluated it: `strict`, `compiled` or `none`.
    pub engine: &'static str,
    /// What the agent was told by rules that refuse or hold its message; absent if nothing. Most
    /// rules tell nothing, so it takes no more than a pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Box<Text<Told>>>,
}

impl DecisionFacts {
    /// The same decision as a denial for `reasons`: they come first, then those that it had.
    pub(crate) fn denied(self, reasons: &[Reason]) -> Self {
        let mut all: Listed<ReasonFacts, REASONS_MAX> =
            reasons.iter().map(ReasonFacts::from).collect();
        all.append(self.reasons);
        Self { effect: "deny", reasons: all, ..self }
    }
}

/// The answer of an approver to a held call, what has become of a hold, or the approvals that a call
/// has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApprovalFacts {
    /// The id of the hold. Where a call needed several, each, with a comma between them.
    pub hold: Text<Name>,
    /// `grant` or `refuse` in an `approval`; the state in a `hold_state`; `spent` in the records of a
    /// call that has used a grant.
    pub answer: &'static str,
    /// The id of the approver; of all, with a comma between them, where there are several. Absent if
    /// nobody answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Text<Name>>,
    /// Why, in the approver's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text<Message>>,
    /// The code of the wider grant that is given with it, or that it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Text<Code>>,
}

impl ApprovalFacts {
    /// The approvals that a call has used; `None` if it needed none.
    pub(crate) fn spent(approvals: &[Approval]) -> Option<Self> {
        let first = approvals.first()?;
        let mut by: Vec<&str> =
            approvals.iter().flat_map(|it| &it.approvers).map(|approver| &**approver).collect();
        by.sort_unstable();
        by.dedup();
        let holds: Vec<&str> = approvals.iter().map(|it| &*it.hold.0).collect();
        Some(Self {
            hold: holds.join(",").into(),
            answer: "spent",
            by: Some(by.join(",").into()),
            reason: Some((&first.reason).into()),
            scope: first.scope.as_ref().map(Into::into),
        })
    }
}

/// Claims of the OAuth token that named the principal (RFC 7519 §4.1, RFC 9068 §2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityFacts {
    /// `iss`: who issued it.
    pub issuer: Text<Name>,
    /// `sub`: whom it names, where `oauth.claims` lists it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Text<Name>>,
    /// `client_id`: the program that it was issued to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Text<Name>>,
}

impl IdentityFacts {
    /// What the token of `principal` said; `None` if no token named it.
    pub(crate) fn of(principal: &Principal) -> Option<Arc<Self>> {
        let claim = |name| principal.claims.get(name).map(Into::into);
        let issuer = claim("iss")?;
        Some(Arc::new(Self { issuer, subject: claim("sub"), client_id: claim("client_id") }))
    }
}

/// What a client calls itself (`clientInfo`). Nobody checks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientFacts {
    /// Its name.
    pub name: Text<Label>,
    /// Its version.
    pub version: Text<Label>,
}

/// The target of an HTTP request, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpFacts {
    /// The method, such as `POST`.
    pub method: Text<Label>,
    /// The header `Host`, or `:authority` of HTTP/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Text<Label>>,
    /// The path, without the query.
    pub path: Text<Label>,
    /// The header `Origin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Text<Label>>,
}

/// The program that writes the journal, in a `start` record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgramFacts {
    /// Its version.
    pub version: Text<Label>,
    /// The name of the machine.
    pub host: Text<Label>,
    /// `enforce` or `observe`.
    pub mode: &'static str,
    /// Keyed digest of the configuration file, `hmac-sha256:<hex>`: equal for equal files as long as
    /// the key of the state directory is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Text<Code>>,
}

/// Where a call was forwarded, and the server's part of its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamFacts {
    /// When the call was forwarded, since the program started, µs.
    pub start_us: u64,
    /// From then to the end of the answer, µs.
    pub duration_us: u64,
    /// Where the server is; `None` for one that is a command.
    #[serde(flatten)]
    pub at: Option<ServerAddress>,
}

/// Where a protected server is, as its configured URL says (`server.address` and `server.port` of
/// the OpenTelemetry semantic conventions): no credentials, no path, no query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerAddress {
    /// The host name, or the IP address without brackets.
    pub address: Text<Label>,
    /// The port, also where it is the default of the scheme.
    pub port: u16,
}

/// A second trace context of a message: that of its HTTP request, where `_meta` has one, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkFacts {
    /// 32 lower-case hex digits.
    pub trace_id: Text<Code>,
    /// 16 lower-case hex digits.
    pub span_id: Text<Code>,
}

/// The protocol that the message was sent with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProtocolFacts {
    /// The MCP revision, such as `2025-11-25`, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<&'static str>,
    /// `legacy` or `modern`.
    pub era: &'static str,
    /// `http` or `stdio`.
    pub transport: &'static str,
}

/// One audit record. The gate builds those about messages; the program builds those about itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditRecord {
    /// The version of this schema, [`SCHEMA`].
    pub schema: u32,
    /// What happened.
    pub event: Event,
    /// Wall time, RFC 3339 UTC, microseconds.
    #[serde(serialize_with = "rfc3339_micros")]
    pub time: SystemTime,
    /// Time since the program started, µs.
    pub uptime_us: u64,
    /// The call that this record belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
    /// The id of the principal that sent or receives the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Text<Name>>,
    /// Names the conversation that the message belongs to: 32 hexadecimal digits, made by the
    /// program for its records. It is not the session id of MCP, which is a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Text<Code>>,
    /// Who issued the token that named the principal, and to whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Arc<IdentityFacts>>,
    /// What the client calls itself; absent in an `outcome`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Arc<ClientFacts>>,
    /// The network address of the client; absent in an `outcome`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Text<Code>>,
    /// The target of an HTTP request that was refused before a message was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<HttpFacts>>,
    /// The configured name of the protected server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Text<Name>>,
    /// Which way the message goes: `to_server` or `to_client`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<&'static str>,
    /// The protocol that the message was sent with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ProtocolFacts>,
    /// The exact method name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Text<Name>>,
    /// The JSON-RPC id, as a JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text<IdText>>,
    /// What the message acts on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Arc<Target>>,
    /// What the call does, as classified by its pack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Arc<OperationFacts>>,
    /// The decision, in records that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionFacts>,
    /// How the request ended, in an `outcome` record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// For a request that failed: the JSON-RPC error code, the HTTP status, or a class of failure.
    /// For an answer of an approver that does not count: why.
    #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
    pub error_type: Option<Text<Code>>,
    /// Names of the entries that were removed from a list.
    #[serde(flatten, serialize_with = "lists::hidden")]
    pub hidden: Listed<Text<Label>, HIDDEN_MAX>,
    /// What was redacted from an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted: Option<Box<RedactionFacts>>,
    /// Size of the message, bytes; of what was delivered, where something was redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Keyed digest of the message, `hmac-sha256:<hex>`; of what was delivered, where something was
    /// redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Text<Code>>,
    /// From the arrival of the request to this record, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// When the call was forwarded, where, and how long its server took, in an `outcome` record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Box<UpstreamFacts>>,
    /// In the records of a server's message: the call in whose answer stream the server sent it; for
    /// a request on the pipe of a session of its own, the only call that the server then had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<CallId>,
    /// The caller's trace id (W3C Trace Context), 32 lower-case hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Text<Code>>,
    /// The caller's span id, 16 lower-case hex digits: the parent of the span of this call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<Text<Code>>,
    /// The trace context of the HTTP request, where another one in `_meta` is the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<Arc<LinkFacts>>,
    /// The security classification of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// The ids of the finding in the published taxonomies.
    #[serde(flatten)]
    pub tags: Option<&'static Tags>,
    /// The versions of those taxonomies, [`TAXONOMY`]; present together with `tags`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taxonomy: Option<&'static str>,
    /// The policy input, where the configuration says so (`audit.inputs`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<KeptInput>,
    /// RFC 6901 pointers, below `input`, of the values that were left out of it.
    #[serde(flatten, serialize_with = "lists::input_left_out")]
    pub input_left_out: Listed<Text<Pointer>, LEFT_OUT_MAX>,
    /// In a `repeated` record: how many further refusals of this kind there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeated: Option<u64>,
    /// In a `repeated` record: when the first of them was; in a `hold_state`: when the call was
    /// held. RFC 3339 UTC, microseconds.
    #[serde(serialize_with = "optional_time", skip_serializing_if = "Option::is_none")]
    pub since: Option<SystemTime>,
    /// The answer of an approver, in an `approval` record; what has become of a hold, in a
    /// `hold_state`; else the approvals that the call has used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Arc<ApprovalFacts>>,
    /// In a `start` record: what starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<Arc<ProgramFacts>>,
    /// Free text, such as a policy's problems or what a recovery did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<Text<Note>>,
}

impl AuditRecord {
    /// Creates a record of `event` at `now`; every other member is absent.
    pub fn new(event: Event, now: Now) -> Self {
        Self {
            schema: SCHEMA,
            event,
            time: now.wall,
            uptime_us: micros(now.uptime),
            call: None,
            principal: None,
            session: None,
            identity: None,
            client: None,
            peer: None,
            http: None,
            server: None,
            direction: None,
            protocol: None,
            method: None,
            id: None,
            target: None,
            operation: None,
            decision: None,
            outcome: None,
            error_type: None,
            hidden: Listed::default(),
            redacted: None,
            bytes: None,
            digest: None,
            duration_us: None,
            upstream: None,
            within: None,
            trace_id: None,
            parent_span_id: None,
            link: None,
            finding: None,
            tags: None,
            taxonomy: None,
            input: None,
            input_left_out: Listed::default(),
            repeated: None,
            since: None,
            approval: None,
            program: None,
            note: None,
        }
    }

    /// Adds the policy input.
    pub(crate) fn set_input(&mut self, recorded: Option<RecordedInput>) {
        if let Some(recorded) = recorded {
            let (input, left_out) = KeptInput::of(recorded);
            self.input = Some(input);
            self.input_left_out = left_out;
        }
    }

    /// Returns the record with `finding` and its taxonomy ids.
    #[must_use]
    pub fn with_finding(mut self, finding: Finding) -> Self {
        self.set_finding(finding);
        self
    }

    /// Adds `finding` and its taxonomy ids, in place of others.
    pub(crate) fn set_finding(&mut self, finding: Finding) {
        self.finding = Some(finding);
        self.tags = Some(finding.tags());
        self.taxonomy = Some(TAXONOMY);
    }
}

/// Writes each list of a record under its name, with the number of entries that it does not keep.
mod lists {
    use serde::{Serialize, Serializer};

    use super::super::text::Listed;

    macro_rules! lists {
        ($($name:ident, $more:literal, $empty:literal;)*) => {$(
            pub(super) fn $name<T: Serialize, const MAX: usize, S: Serializer>(
                list: &Listed<T, MAX>,
                to: S,
            ) -> Result<S::Ok, S::Error> {
                list.write((stringify!($name), $more, $empty), to)
            }
        )*};
    }

    // The last column says whether an empty list is written.
    lists! {
        flags, "flags_more", false;
        environments, "environments_more", true;
        tags, "tags_more", true;
        places, "places_more", true;
        reasons, "reasons_more", true;
        obligations, "obligations_more", true;
        hidden, "hidden_more", false;
        input_left_out, "input_left_out_more", false;
    }
}

/// Both clocks, which the edge reads once for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since the program started. Monotonic; drives rate limits and deadlines.
    pub uptime: Duration,
    /// Wall time, for records and the policy input.
    pub wall: SystemTime,
}

/// Returns `duration` in whole microseconds, saturating.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn optional_time<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339_micros(time, to),
        None => to.serialize_none(),
    }
}

/// When times have no form in RFC 3339 any more, from the epoch.
const YEAR_10000: Duration = Duration::from_hours(70_389_528);

/// `time` as a client reads it: RFC 3339, UTC, milliseconds; the epoch where it cannot be written.
pub(crate) fn rfc3339(time: Option<SystemTime>) -> String {
    let since = |time: &SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = time.filter(|time| since(time) < YEAR_10000);
    humantime::format_rfc3339_millis(time.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

fn rfc3339_micros<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_micros(*time))
}
