//! Types of records that are read back from the journal.
//!
//! They deserialise what [`AuditRecord`](bartizan_gate::evidence::record::AuditRecord) and the
//! journal write; nothing here is written. Unknown members are skipped and unknown values are kept
//! as text, so that an older program can show a newer journal. The exporters, `bartizan audit`,
//! `bartizan policy replay` and the demo read records with them. `docs/audit.md` describes every
//! member.

use serde::Deserialize;

use super::checkpoint::CheckpointMember;

/// One line of the journal: the audit record and the members that the journal adds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "members of `AuditRecord` and of the journal, named as there")]
pub struct JournalRecord {
    pub seq: u64,
    pub boot: String,
    pub prev: String,
    #[serde(default)]
    pub open: Vec<String>,
    #[serde(default)]
    pub open_elided: u64,
    pub gap: Option<GapFacts>,
    pub checkpoint: Option<CheckpointMember>,
    pub schema: u32,
    pub event: String,
    pub time: String,
    pub uptime_us: u64,
    pub call: Option<String>,
    pub principal: Option<String>,
    pub session: Option<String>,
    pub identity: Option<IdentityRecord>,
    pub client: Option<ClientRecord>,
    pub peer: Option<String>,
    pub http: Option<HttpRecord>,
    pub server: Option<String>,
    pub direction: Option<String>,
    pub protocol: Option<ProtocolRecord>,
    pub method: Option<String>,
    pub id: Option<String>,
    pub target: Option<TargetRecord>,
    pub operation: Option<OperationRecord>,
    pub decision: Option<DecisionRecord>,
    pub approval: Option<ApprovalRecord>,
    pub outcome: Option<String>,
    #[serde(rename = "error.type")]
    pub error_type: Option<String>,
    #[serde(default)]
    pub hidden: Vec<String>,
    #[serde(default)]
    pub hidden_more: u64,
    pub redacted: Option<RedactionRecord>,
    pub bytes: Option<u64>,
    pub digest: Option<String>,
    pub duration_us: Option<u64>,
    pub upstream: Option<UpstreamRecord>,
    pub within: Option<String>,
    pub trace_id: Option<String>,
    pub parent_span_id: Option<String>,
    pub link: Option<LinkRecord>,
    pub finding: Option<String>,
    pub strength: Option<String>,
    pub maestro: Option<MaestroRecord>,
    pub owasp: Option<OwaspRecord>,
    pub mitre: Option<MitreRecord>,
    pub taxonomy: Option<String>,
    pub input: Option<serde_json::Value>,
    #[serde(default)]
    pub input_left_out: Vec<String>,
    #[serde(default)]
    pub input_left_out_more: u64,
    pub repeated: Option<u64>,
    pub since: Option<String>,
    pub program: Option<ProgramRecord>,
    pub note: Option<String>,
}

impl JournalRecord {
    /// Whether it was denied and let through, in observe mode.
    pub fn is_only_observed(&self) -> bool {
        self.decision.as_ref().is_some_and(|it| it.effect == "deny" && !it.enforced)
    }

    /// Parses one line, without its LF.
    ///
    /// # Errors
    ///
    /// The JSON parser's message, with line and column.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        read(line)
    }

    /// The code of the first reason of its decision.
    pub fn reason(&self) -> Option<&str> {
        self.decision.as_ref()?.reasons.first().map(|reason| reason.code.as_str())
    }

    /// The name of the tool, prompt, resource (its URI) or task that the record is about.
    pub fn target_name(&self) -> Option<&str> {
        let target = self.target.as_ref()?;
        [&target.tool, &target.prompt, &target.uri, &target.task]
            .into_iter()
            .find_map(|name| name.as_deref())
    }
}

/// Parses one line as `T`. A member of `T` that occurs twice is an error; serde would otherwise
/// leave the choice to the caller.
pub(super) fn read<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The `gap` member: how many records were refused before this record was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct GapFacts {
    /// The number of refused records.
    pub refused: u64,
    /// Time of the first refusal, RFC 3339.
    pub since: String,
    /// Why the last of them was refused.
    pub cause: String,
}

/// See [`IdentityFacts`](bartizan_gate::evidence::record::IdentityFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct IdentityRecord {
    pub issuer: String,
    pub subject: Option<String>,
    pub client_id: Option<String>,
}

/// See [`ClientFacts`](bartizan_gate::evidence::record::ClientFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct ClientRecord {
    pub name: String,
    pub version: String,
}

/// See [`HttpFacts`](bartizan_gate::evidence::record::HttpFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct HttpRecord {
    pub method: String,
    pub host: Option<String>,
    pub path: String,
    pub origin: Option<String>,
}

/// See [`ProgramFacts`](bartizan_gate::evidence::record::ProgramFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct ProgramRecord {
    pub version: String,
    pub host: String,
    pub mode: String,
    pub configuration: Option<String>,
}

/// See [`UpstreamFacts`](bartizan_gate::evidence::record::UpstreamFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct UpstreamRecord {
    pub start_us: u64,
    pub duration_us: u64,
    pub address: Option<String>,
    pub port: Option<u16>,
}

/// See [`LinkFacts`](bartizan_gate::evidence::record::LinkFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct LinkRecord {
    pub trace_id: String,
    pub span_id: String,
}

/// See [`ProtocolFacts`](bartizan_gate::evidence::record::ProtocolFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct ProtocolRecord {
    pub revision: Option<String>,
    pub era: String,
    pub transport: String,
}

/// See [`Target`](bartizan_gate::evidence::record::Target).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct TargetRecord {
    pub tool: Option<String>,
    pub prompt: Option<String>,
    pub uri: Option<String>,
    pub task: Option<String>,
    pub definition: Option<String>,
    pub drift: Option<String>,
    #[serde(default)]
    pub flags: Vec<String>,
}

/// See [`OperationFacts`](bartizan_gate::evidence::record::OperationFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct OperationRecord {
    pub name: Option<String>,
    pub effect: String,
    #[serde(default)]
    pub environments: Vec<String>,
    pub environment_source: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub pack: Option<String>,
}

/// See [`ApprovalFacts`](bartizan_gate::evidence::record::ApprovalFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct ApprovalRecord {
    pub hold: String,
    pub answer: String,
    pub by: Option<String>,
    pub reason: Option<String>,
    pub scope: Option<String>,
}

/// See [`RedactionFacts`](bartizan_gate::evidence::record::RedactionFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct RedactionRecord {
    pub count: u64,
    #[serde(default)]
    pub places: Vec<PlaceRecord>,
}

/// See [`PlaceFacts`](bartizan_gate::evidence::record::PlaceFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct PlaceRecord {
    pub pointer: String,
    pub rule: String,
}

/// See [`DecisionFacts`](bartizan_gate::evidence::record::DecisionFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct DecisionRecord {
    pub effect: String,
    pub enforced: bool,
    #[serde(default)]
    pub reasons: Vec<ReasonRecord>,
    #[serde(default)]
    pub obligations: Vec<String>,
    pub policy: String,
    pub engine: String,
    pub told: Option<String>,
}

impl DecisionRecord {
    /// The codes of its reasons, and of the duties: the part of `hold:second-pair` after the colon.
    pub(super) fn codes(&self) -> impl Iterator<Item = &str> {
        let reasons = self.reasons.iter().map(|reason| reason.code.as_str());
        let duties = self
            .obligations
            .iter()
            .map(|duty| duty.split_once(':').map_or(&**duty, |(_, code)| code));
        reasons.chain(duties)
    }
}

/// See [`ReasonFacts`](bartizan_gate::evidence::record::ReasonFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct ReasonRecord {
    pub code: String,
    pub message: String,
    pub origin: String,
}

/// See [`Maestro`](bartizan_gate::evidence::finding::Maestro).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct MaestroRecord {
    pub layer: String,
    #[serde(rename = "layer.name")]
    pub layer_name: String,
    #[serde(default)]
    pub threats: Vec<String>,
}

/// See [`Owasp`](bartizan_gate::evidence::finding::Owasp).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct OwaspRecord {
    #[serde(default)]
    pub mcp: Vec<String>,
    #[serde(default)]
    pub asi: Vec<String>,
}

/// See [`Mitre`](bartizan_gate::evidence::finding::Mitre).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct MitreRecord {
    #[serde(default)]
    pub atlas: Vec<String>,
}
