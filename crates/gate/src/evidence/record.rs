//! The audit record: one JSON object for everything that was decided, done or seen.
//!
//! This is the normative schema, version [`SCHEMA`]. Every record MUST say what happened
//! (`event`), when (`time`, RFC 3339 UTC with microseconds, and `uptime_us`, which no clock change
//! moves) and to what. A record about one call MUST carry its `call`, the same in `intent` and
//! `outcome`. Absent members mean "does not apply" or "not known". Values of results are never in
//! a record, values of arguments only where the configuration says so; keyed digests are. The journal adds `seq`, `prev` and
//! `boot` around each record; nothing here knows of files.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::duty::decision::Reason;
use crate::duty::pdp::RecordedInput;

/// Version of this schema; a change that breaks a reader raises it.
pub const SCHEMA: u32 = 1;

/// Versions of the taxonomies that [`Finding::tags`] names (`taxonomy` in each record).
pub const TAXONOMY: &str = "maestro=2025-02;owasp_mcp=2025-beta;asi=2026;atlas=5.6.1";

/// Names one question and everything that follows from it; `decision_id` outward.
pub type CallId = Arc<str>;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The program opened its journal.
    Start,
    /// The program closed its journal in order.
    Stop,
    /// A frame was permitted and is about to be forwarded.
    Intent,
    /// A frame was refused.
    Denial,
    /// A forwarded request ended; see `outcome`.
    Outcome,
    /// A frame that asks nothing was let through to the client.
    Notice,
    /// A frame was withheld and nobody is owed an answer.
    Drop,
    /// A policy was loaded, promoted, demoted or refused.
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
    /// Accepted without an answer, as a notification is.
    Accepted,
    /// The client went away or cancelled.
    Cancelled,
    /// The upstream could not be reached, broke off, or answered with something that is no frame.
    UpstreamFailed,
    /// The upstream's answer was withheld.
    Withheld,
    /// Not known: the program died in between.
    Unknown,
}

/// What a security analyst would call it. `docs/audit.md`, "Findings", has the ids of each in the
/// published lists of threats.
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

/// MAESTRO: layer and threats by their published names.
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

/// OWASP ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Owasp {
    /// OWASP MCP Top 10, 2025.
    pub mcp: &'static [&'static str],
    /// OWASP Top 10 for Agentic Applications, 2026.
    pub asi: &'static [&'static str],
}

/// MITRE ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mitre {
    /// ATLAS technique ids.
    pub atlas: &'static [&'static str],
}

/// The acted-on thing, by whichever name it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Tool name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<Box<str>>,
    /// Prompt name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Box<str>>,
    /// Resource URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<Box<str>>,
    /// Task id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Box<str>>,
    /// Digest of the tool's definition as last listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<Box<str>>,
    /// Digest of its definition in the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<Box<str>>,
    /// How the tool stands to the lock, where there is one; see [`Drift`](crate::question::standing::Drift).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Box<str>>,
    /// What about its definition people cannot see; see [`crate::wire::unseen`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Box<str>>,
}

/// What the call comes to, as its pack says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperationFacts {
    /// The operation behind a tool that does many things.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// `read`, `write`, `destructive`, `exec`, `unknown`.
    pub effect: &'static str,
    /// Names, or `*`.
    pub environments: Vec<Box<str>>,
    /// `arguments`, `absent`, `unmapped`, `unreadable`, `none`.
    pub environment_source: &'static str,
    /// The pack's tags.
    pub tags: Vec<Box<str>>,
    /// The pack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pack: Option<Box<str>>,
}

/// One reason in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonFacts {
    /// Stable and short.
    pub code: Box<str>,
    /// For a person.
    pub message: Box<str>,
    /// Where it comes from.
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

/// What an answer lost on its way. Never what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RedactionFacts {
    /// Places.
    pub count: usize,
    /// The first of them.
    pub places: Vec<PlaceFacts>,
}

/// Something that was taken out of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlaceFacts {
    /// Where it stood: a JSON pointer from the message down, through texts that are JSON.
    pub pointer: Box<str>,
    /// `pointer`, `copy`, or the form by which a secret is known.
    pub rule: &'static str,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DecisionFacts {
    /// `permit` or `deny`: what the policy and the gate said, also in observe mode.
    pub effect: &'static str,
    /// Whether that was enforced; `false` in observe mode.
    pub enforced: bool,
    /// Why.
    pub reasons: Vec<ReasonFacts>,
    /// Obligations that were discharged, by kind and code.
    pub obligations: Vec<Box<str>>,
    /// The policy's revision.
    pub policy: Arc<str>,
    /// `strict`, `compiled`, `none`.
    pub engine: &'static str,
}

/// The protocol around the frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProtocolFacts {
    /// `2025-11-25` and so on, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<&'static str>,
    /// `legacy` or `modern`.
    pub era: &'static str,
    /// `http` or `stdio`.
    pub transport: &'static str,
}

/// One record. Built by the gate and, for the program's own events, by the audit code.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What it is about.
    pub event: Event,
    /// Wall time, RFC 3339 UTC, microseconds.
    #[serde(serialize_with = "rfc3339_micros")]
    pub time: SystemTime,
    /// Time since the program started, µs.
    pub uptime_us: u64,
    /// The question that this belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Box<str>>,
    /// The protected server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Box<str>>,
    /// `to_server` or `to_client`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<&'static str>,
    /// The protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ProtocolFacts>,
    /// The method, exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Box<str>>,
    /// The JSON-RPC id, as JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Box<str>>,
    /// What was acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What it comes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationFacts>,
    /// What was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionFacts>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// JSON-RPC error code or HTTP status of the end, or a class of failure.
    #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
    pub error_type: Option<Box<str>>,
    /// Entries that a list answer lost on its way, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<Box<str>>,
    /// What an answer lost on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted: Option<RedactionFacts>,
    /// Size of the frame, bytes; of what was delivered, where something was taken out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Keyed digest of the frame, `hmac-sha256:<hex>`; of what was delivered, where something was
    /// taken out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Box<str>>,
    /// From the first byte in to this record, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// The caller's W3C trace id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Box<str>>,
    /// The caller's W3C span id: the parent of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<Box<str>>,
    /// What an analyst would call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// Taxonomy ids of the finding.
    #[serde(flatten)]
    pub tags: Option<Tags>,
    /// Versions of those taxonomies; with `tags`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taxonomy: Option<&'static str>,
    /// What the policy was asked, where the configuration says so (`audit.inputs`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Value>,
    /// RFC 6901 pointers below `input` of what was left out of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input_left_out: Vec<String>,
    /// Free text of the program's own events (a policy's problems, what a recovery did).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<Cow<'static, str>>,
}

impl AuditRecord {
    /// A record of `event` at `now` that says nothing else yet.
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

    /// Adds what the policy was asked.
    pub(crate) fn set_input(&mut self, recorded: Option<RecordedInput>) {
        if let Some(RecordedInput { input, left_out }) = recorded {
            self.input = Some(input);
            self.input_left_out = left_out;
        }
    }

    /// The same record with `finding` and its taxonomy ids.
    #[must_use]
    pub fn with_finding(mut self, finding: Finding) -> Self {
        self.finding = Some(finding);
        self.tags = Some(finding.tags());
        self.taxonomy = Some(TAXONOMY);
        self
    }
}

/// Both clocks, read once by the edge for one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since the program started: monotonic, drives limits and deadlines.
    pub uptime: Duration,
    /// Wall time: for records and policy.
    pub wall: SystemTime,
}

/// Whole microseconds, saturating.
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
    /// The row of the table for this finding.
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
