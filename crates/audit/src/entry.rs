//! A record as it is read back from the journal.
//!
//! These types read what [`AuditRecord`](bartizan_gate::evidence::record::AuditRecord) and the journal write,
//! for people and programs that look at records; nothing here is written. Unknown members are
//! skipped and unknown values kept as text, so that an older program can show a newer journal.

use serde::Deserialize;

/// One record with what the journal added to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "members of `AuditRecord` and of the journal, named as there")]
pub struct Entry {
    pub seq: u64,
    pub boot: String,
    pub prev: String,
    #[serde(default)]
    pub open: Vec<String>,
    #[serde(default)]
    pub open_elided: u64,
    pub gap: Option<GapFacts>,
    pub schema: u32,
    pub event: String,
    pub time: String,
    pub uptime_us: u64,
    pub call: Option<String>,
    pub principal: Option<String>,
    pub server: Option<String>,
    pub direction: Option<String>,
    pub protocol: Option<ProtocolEntry>,
    pub method: Option<String>,
    pub id: Option<String>,
    pub target: Option<TargetEntry>,
    pub operation: Option<OperationEntry>,
    pub decision: Option<DecisionEntry>,
    pub outcome: Option<String>,
    #[serde(rename = "error.type")]
    pub error_type: Option<String>,
    #[serde(default)]
    pub hidden: Vec<String>,
    pub bytes: Option<u64>,
    pub digest: Option<String>,
    pub duration_us: Option<u64>,
    pub trace_id: Option<String>,
    pub parent_span_id: Option<String>,
    pub finding: Option<String>,
    pub maestro: Option<MaestroEntry>,
    pub owasp: Option<OwaspEntry>,
    pub mitre: Option<MitreEntry>,
    pub taxonomy: Option<String>,
    pub input: Option<serde_json::Value>,
    #[serde(default)]
    pub input_left_out: Vec<String>,
    pub note: Option<String>,
}

impl Entry {
    /// Reads one line, without its LF. The error says what is wrong and where in the line.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        read(line)
    }

    /// The tool, prompt, resource or task that was acted on.
    pub fn target_name(&self) -> Option<&str> {
        let target = self.target.as_ref()?;
        [&target.tool, &target.prompt, &target.uri, &target.task]
            .into_iter()
            .find_map(|name| name.as_deref())
    }
}

/// Reads one line as `T`. A member of `T` that is there twice is an error, not a choice.
pub(super) fn read<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Records that could not be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct GapFacts {
    /// How many.
    pub refused: u64,
    /// Time of the first.
    pub since: String,
    /// Why the last one was refused.
    pub cause: String,
}

/// See [`ProtocolFacts`](bartizan_gate::evidence::record::ProtocolFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct ProtocolEntry {
    pub revision: Option<String>,
    pub era: String,
    pub transport: String,
}

/// See [`Target`](bartizan_gate::evidence::record::Target).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct TargetEntry {
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
pub struct OperationEntry {
    pub name: Option<String>,
    pub effect: String,
    #[serde(default)]
    pub environments: Vec<String>,
    pub environment_source: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub pack: Option<String>,
}

/// See [`DecisionFacts`](bartizan_gate::evidence::record::DecisionFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct DecisionEntry {
    pub effect: String,
    pub enforced: bool,
    #[serde(default)]
    pub reasons: Vec<ReasonEntry>,
    #[serde(default)]
    pub obligations: Vec<String>,
    pub policy: String,
    pub engine: String,
}

/// See [`ReasonFacts`](bartizan_gate::evidence::record::ReasonFacts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct ReasonEntry {
    pub code: String,
    pub message: String,
    pub origin: String,
}

/// See [`Maestro`](bartizan_gate::evidence::record::Maestro).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct MaestroEntry {
    pub layer: String,
    #[serde(rename = "layer.name")]
    pub layer_name: String,
    #[serde(default)]
    pub threats: Vec<String>,
}

/// See [`Owasp`](bartizan_gate::evidence::record::Owasp).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct OwaspEntry {
    #[serde(default)]
    pub mcp: Vec<String>,
    #[serde(default)]
    pub asi: Vec<String>,
}

/// See [`Mitre`](bartizan_gate::evidence::record::Mitre).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the record")]
pub struct MitreEntry {
    #[serde(default)]
    pub atlas: Vec<String>,
}
