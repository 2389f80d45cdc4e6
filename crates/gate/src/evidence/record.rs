//! The audit record: one JSON object for each event that was decided, done or seen.
//!
//! This is the normative schema, version [`SCHEMA`]; `docs/audit.md` explains it to readers. Every
//! record MUST say what happened (`event`), when (`time`, RFC 3339 UTC with microseconds, and
//! `uptime_us`, which a change of the wall clock does not affect) and to what. A record about one
//! call MUST carry its `call`, which is the same in `intent` and `outcome`. An absent member means
//! "does not apply" or "not known". Values of results are never in a record, values of arguments
//! only where the configuration says so; keyed digests are. The journal adds `seq`, `prev` and
//! `boot` around each record; this module knows nothing of files.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::duty::decision::Reason;
use crate::duty::pdp::RecordedInput;

/// Version of this schema. A change that breaks a reader of records increments it.
pub const SCHEMA: u32 = 1;

/// Versions of the taxonomies that [`Finding::tags`] names (`taxonomy` in each record).
pub const TAXONOMY: &str = "maestro=2025-02;owasp_mcp=2025-beta;asi=2026;atlas=5.6.1";

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
    /// A message was refused.
    Denial,
    /// A forwarded request ended; see `outcome`.
    Outcome,
    /// A message of the server that needs no answer was delivered to the client.
    Notice,
    /// A message was withheld, and nobody waits for an answer.
    Drop,
    /// A policy was loaded, promoted to the compiled engine, demoted from it, or rejected.
    Policy,
    /// The journal repaired itself after a crash.
    Recovery,
    /// Records could not be kept for a while.
    Gap,
    /// The journal began a new file.
    Rotation,
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
    /// Unknown: the program ended before the outcome was recorded.
    Unknown,
}

/// The security classification of an event. `docs/audit.md`, "Findings", lists the ids of each in
/// the published taxonomies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the rows of the table, named as it names them")]
pub enum Finding {
    ToolDenied,
    EnvPinViolation,
    ApprovalRequested,
    RateLimited,
    HeaderBodyMismatch,
    MalformedFrame,
    PolicyReload,
    PolicyReloadRejected,
    AuditSinkFailure,
    UpstreamFailure,
    ToolsHidden,
    UnsolicitedAnswer,
    ResponseSecretLeak,
    ToolDefinitionDrift,
    HiddenUnicodeToolDescription,
    UnsafeToolSchema,
    UnauthenticatedCaller,
}

/// Ids of a finding in the taxonomies; an empty list is a legal value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tags {
    /// MAESTRO layer and its threats.
    pub maestro: Maestro,
    /// OWASP MCP Top 10 and OWASP Agentic Top 10.
    pub owasp: Owasp,
    /// MITRE ATLAS.
    pub mitre: Mitre,
}

/// Ids in MAESTRO (Cloud Security Alliance, 2025): layer and threats by their published names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Maestro {
    /// `L1` to `L7`, or `X` for the cross-layer threats.
    pub layer: &'static str,
    /// The layer's published name.
    #[serde(rename = "layer.name")]
    pub layer_name: &'static str,
    /// `layer/threat` names, the primary one first.
    pub threats: &'static [&'static str],
}

/// Ids in the two OWASP lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Owasp {
    /// OWASP MCP Top 10, 2025.
    pub mcp: &'static [&'static str],
    /// OWASP Top 10 for Agentic Applications, 2026.
    pub asi: &'static [&'static str],
}

/// Ids in MITRE ATLAS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mitre {
    /// Technique ids, `AML.T…`.
    pub atlas: &'static [&'static str],
}

/// What the message acts on; at most one of the first four members is present.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The name of the called tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<Box<str>>,
    /// The name of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Box<str>>,
    /// The URI of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<Box<str>>,
    /// The id of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Box<str>>,
    /// Digest of the tool's definition as last listed, `sha256:<hex>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<Box<str>>,
    /// Digest of its definition in the lock file, `sha256:<hex>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<Box<str>>,
    /// How its definition differs from the lock file, where there is one; see
    /// [`Drift`](crate::question::status::Drift).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Box<str>>,
    /// Flags of its definition, such as invisible characters; see [`crate::wire::unseen`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Box<str>>,
}

/// What the call does, as classified by its pack:
/// [`Operation`](crate::question::operation::Operation).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperationFacts {
    /// `tool/operation`, for a tool that dispatches to several operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// The worst effect: `read`, `write`, `destructive`, `exec` or `unknown`.
    pub effect: &'static str,
    /// Names of the environments that it reaches; `*` for every one.
    pub environments: Vec<Box<str>>,
    /// How they were found: `arguments`, `absent`, `unmapped`, `unreadable` or `none`.
    pub environment_source: &'static str,
    /// The tags that the pack gives the call.
    pub tags: Vec<Box<str>>,
    /// The name of the pack that classified it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pack: Option<Box<str>>,
}

/// One reason of a decision: [`Reason`] as a record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonFacts {
    /// A short, stable identifier.
    pub code: Box<str>,
    /// An explanation for a person.
    pub message: Box<str>,
    /// The name of its [`Origin`](crate::duty::decision::Origin).
    pub origin: &'static str,
}

impl From<&Reason> for ReasonFacts {
    fn from(reason: &Reason) -> Self {
        Self {
            code: reason.code.clone(),
            message: reason.message.clone(),
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
    pub places: Vec<PlaceFacts>,
}

/// One value that was removed from an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlaceFacts {
    /// Where it stood: an RFC 6901 pointer from the message's root, also through strings that hold
    /// JSON.
    pub pointer: Box<str>,
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
    pub reasons: Vec<ReasonFacts>,
    /// The obligations that were discharged, `kind:code`.
    pub obligations: Vec<Box<str>>,
    /// The revision of the policy that answered.
    pub policy: Arc<str>,
    /// The engine that evaluated it: `strict`, `compiled` or `none`.
    pub engine: &'static str,
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
    pub principal: Option<Box<str>>,
    /// The configured name of the protected server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Box<str>>,
    /// Which way the message goes: `to_server` or `to_client`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<&'static str>,
    /// The protocol that the message was sent with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ProtocolFacts>,
    /// The exact method name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Box<str>>,
    /// The JSON-RPC id, as a JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Box<str>>,
    /// What the message acts on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What the call does, as classified by its pack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationFacts>,
    /// The decision, in records that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionFacts>,
    /// How the request ended, in an `outcome` record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// For a request that failed: the JSON-RPC error code, the HTTP status, or a class of failure.
    #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
    pub error_type: Option<Box<str>>,
    /// Names of the entries that were removed from a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<Box<str>>,
    /// What was redacted from an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted: Option<RedactionFacts>,
    /// Size of the message, bytes; of what was delivered, where something was redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Keyed digest of the message, `hmac-sha256:<hex>`; of what was delivered, where something was
    /// redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Box<str>>,
    /// From the arrival of the request to this record, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// The caller's trace id (W3C Trace Context), 32 lower-case hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Box<str>>,
    /// The caller's span id, 16 lower-case hex digits: the parent of the span of this call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<Box<str>>,
    /// The security classification of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// The ids of the finding in the published taxonomies.
    #[serde(flatten)]
    pub tags: Option<Tags>,
    /// The versions of those taxonomies, [`TAXONOMY`]; present together with `tags`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taxonomy: Option<&'static str>,
    /// The policy input, where the configuration says so (`audit.inputs`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Value>,
    /// RFC 6901 pointers, below `input`, of the values that were left out of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input_left_out: Vec<String>,
    /// Free text, such as a policy's problems or what a recovery did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<Cow<'static, str>>,
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
            hidden: Vec::new(),
            redacted: None,
            bytes: None,
            digest: None,
            duration_us: None,
            trace_id: None,
            parent_span_id: None,
            finding: None,
            tags: None,
            taxonomy: None,
            input: None,
            input_left_out: Vec::new(),
            note: None,
        }
    }

    /// Adds the policy input.
    pub(crate) fn set_input(&mut self, recorded: Option<RecordedInput>) {
        if let Some(RecordedInput { input, left_out }) = recorded {
            self.input = Some(input);
            self.input_left_out = left_out;
        }
    }

    /// Returns the record with `finding` and its taxonomy ids.
    #[must_use]
    pub fn with_finding(mut self, finding: Finding) -> Self {
        self.finding = Some(finding);
        self.tags = Some(finding.tags());
        self.taxonomy = Some(TAXONOMY);
        self
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

fn rfc3339_micros<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_micros(*time))
}

const L3: &str = "Agent Frameworks";
const L4: &str = "Deployment and Infrastructure";
const L5: &str = "Evaluation and Observability";
const L6: &str = "Security and Compliance";
const L7: &str = "Agent Ecosystem";
const X: &str = "Cross-layer";

const RATE_LIMITED: Tags = tags(
    (
        "L4",
        L4,
        &[
            "L4/Denial of Service (DoS) Attacks",
            "L4/Resource Hijacking",
            "L3/Denial of Service on Framework APIs",
        ],
    ),
    (&[], &["ASI08"]),
    &["AML.T0029", "AML.T0034"],
);
const AUDIT_SINK_FAILURE: Tags = tags(
    (
        "L5",
        L5,
        &[
            "L5/Compromised Observability Tools",
            "L5/Denial of Service on Evaluation Infrastructure",
            "L7/Repudiation",
        ],
    ),
    (&["MCP08:2025"], &[]),
    &[],
);
const RESPONSE_SECRET_LEAK: Tags = tags(
    ("X", X, &["X/Data Leakage", "L2/Data Exfiltration"]),
    (&["MCP01:2025"], &["ASI03", "ASI02"]),
    &["AML.T0098", "AML.T0057", "AML.T0085.001"],
);
const TOOL_DEFINITION_DRIFT: Tags = tags(
    ("X", X, &["X/Supply Chain Attacks", "L7/Inaccurate Agent Capability Description"]),
    (&["MCP03:2025", "MCP04:2025"], &["ASI04", "ASI02"]),
    &["AML.T0109", "AML.T0110"],
);
const UNSAFE_TOOL_SCHEMA: Tags = tags(
    ("L3", L3, &["L3/Input Validation Attacks", "L7/Inaccurate Agent Capability Description"]),
    (&["MCP03:2025"], &["ASI04"]),
    &["AML.T0110"],
);
const HIDDEN_UNICODE_TOOL_DESCRIPTION: Tags = tags(
    (
        "L3",
        L3,
        &[
            "L3/Input Validation Attacks",
            "L7/Inaccurate Agent Capability Description",
            "L1/Adversarial Examples",
        ],
    ),
    (&["MCP03:2025", "MCP06:2025"], &["ASI01", "ASI04"]),
    &["AML.T0068", "AML.T0051.001", "AML.T0110"],
);

impl Finding {
    /// The taxonomy ids of this finding.
    pub fn tags(self) -> Tags {
        match self {
            Self::ToolDenied => tags(
                ("L7", L7, &["L7/Agent Tool Misuse"]),
                (&["MCP02:2025"], &["ASI02"]),
                &["AML.T0053"],
            ),
            Self::EnvPinViolation => tags(
                (
                    "L7",
                    L7,
                    &["L7/Agent Tool Misuse", "L4/Lateral Movement", "X/Privilege Escalation"],
                ),
                (&["MCP02:2025"], &["ASI02", "ASI03"]),
                &["AML.T0053"],
            ),
            Self::ApprovalRequested => tags(
                ("L7", L7, &["L7/Agent Tool Misuse"]),
                (&["MCP02:2025"], &["ASI09", "ASI02"]),
                &[],
            ),
            Self::RateLimited => RATE_LIMITED,
            Self::HeaderBodyMismatch => tags(
                ("L3", L3, &["L3/Input Validation Attacks", "L3/Framework Evasion"]),
                (&["MCP07:2025"], &["ASI03"]),
                &["AML.T0107"],
            ),
            // ATLAS T0049 is left out: one malformed frame is no evidence of exploitation.
            Self::MalformedFrame => tags(
                ("L3", L3, &["L3/Input Validation Attacks", "L4/Denial of Service (DoS) Attacks"]),
                (&["MCP05:2025"], &[]),
                &[],
            ),
            Self::PolicyReload => tags(("L6", L6, &[]), (&["MCP08:2025"], &[]), &[]),
            Self::PolicyReloadRejected => tags(
                ("L6", L6, &["L6/Compromised Security AI Agents"]),
                (&["MCP02:2025"], &["ASI03"]),
                &["AML.T0081"],
            ),
            Self::AuditSinkFailure => AUDIT_SINK_FAILURE,
            Self::UpstreamFailure => tags(
                ("L7", L7, &["L7/Integration Risks", "L4/Denial of Service (DoS) Attacks"]),
                (&[], &["ASI08"]),
                &[],
            ),
            Self::ToolsHidden => {
                tags(("L7", L7, &["L7/Agent Tool Misuse"]), (&["MCP02:2025"], &["ASI02"]), &[])
            }
            Self::UnsolicitedAnswer => UNSOLICITED_ANSWER,
            Self::UnauthenticatedCaller => UNAUTHENTICATED_CALLER,
            Self::ResponseSecretLeak => RESPONSE_SECRET_LEAK,
            Self::ToolDefinitionDrift => TOOL_DEFINITION_DRIFT,
            Self::HiddenUnicodeToolDescription => HIDDEN_UNICODE_TOOL_DESCRIPTION,
            Self::UnsafeToolSchema => UNSAFE_TOOL_SCHEMA,
        }
    }
}

type MaestroRow = (&'static str, &'static str, &'static [&'static str]);
type OwaspRow = (&'static [&'static str], &'static [&'static str]);

const UNSOLICITED_ANSWER: Tags = tags(
    ("L3", L3, &["L3/Input Validation Attacks", "L7/Agent Impersonation"]),
    (&["MCP06:2025"], &["ASI07"]),
    &[],
);
const UNAUTHENTICATED_CALLER: Tags = tags(
    ("L7", L7, &["L7/Agent Identity Attack", "L7/Agent Impersonation"]),
    (&["MCP07:2025"], &["ASI03"]),
    &["AML.T0073"],
);

const fn tags(maestro: MaestroRow, owasp: OwaspRow, atlas: &'static [&'static str]) -> Tags {
    Tags {
        maestro: Maestro { layer: maestro.0, layer_name: maestro.1, threats: maestro.2 },
        owasp: Owasp { mcp: owasp.0, asi: owasp.1 },
        mitre: Mitre { atlas },
    }
}
