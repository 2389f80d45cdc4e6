//! The security classification of events, and its ids in published taxonomies.
//!
//! `docs/audit.md`, "Findings", is this table for readers; a test compares the two. Layers and
//! threats of MAESTRO have no ids, so they are named as published. An id is left out where one event
//! is no evidence for it: one malformed frame is no ATLAS T0049.

use serde::{Serialize, Serializer};

/// Versions of the taxonomies that [`Finding::tags`] names (`taxonomy` in each record).
pub const TAXONOMY: &str = "maestro=2025-02;owasp_mcp=2025-beta;asi=2026;atlas=5.6.1";

/// Ids of a finding in the taxonomies; an empty list is a legal value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tags {
    /// How close the event is to what the ids name: `direct`; `related`; `control-evidence`, where
    /// it shows that a control works.
    pub strength: &'static str,
    /// MAESTRO layer and its threats.
    pub maestro: Maestro,
    /// OWASP MCP Top 10 and OWASP Agentic Top 10.
    pub owasp: Owasp,
    /// MITRE ATLAS.
    pub mitre: Mitre,
}

/// A layer of MAESTRO (Cloud Security Alliance, 2025), or the threats across layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// `L1` to `L7`, or `X` for the cross-layer threats.
    pub id: &'static str,
    /// Its published name.
    pub name: &'static str,
}

impl Layer {
    /// The model.
    pub const L1: Self = Self { id: "L1", name: "Foundation Models" };
    /// The data that tools and resources give access to.
    pub const L2: Self = Self { id: "L2", name: "Data Operations" };
    /// Clients, the protocol and its definitions.
    pub const L3: Self = Self { id: "L3", name: "Agent Frameworks" };
    /// Processes, hosts and networks.
    pub const L4: Self = Self { id: "L4", name: "Deployment and Infrastructure" };
    /// Logs, audit and alerts.
    pub const L5: Self = Self { id: "L5", name: "Evaluation and Observability" };
    /// The controls across all layers.
    pub const L6: Self = Self { id: "L6", name: "Security and Compliance" };
    /// What agents can do with tools.
    pub const L7: Self = Self { id: "L7", name: "Agent Ecosystem" };
    /// The threats across layers.
    pub const X: Self = Self { id: "X", name: "Cross-layer" };

    /// From the first layer to the last, then what goes across.
    pub const ALL: [Self; 8] =
        [Self::L1, Self::L2, Self::L3, Self::L4, Self::L5, Self::L6, Self::L7, Self::X];
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

impl Maestro {
    /// The ids of a layer and of threats, which may be of other layers too.
    pub const fn new(layer: Layer, threats: &'static [&'static str]) -> Self {
        Self { layer: layer.id, layer_name: layer.name, threats }
    }
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

const DIRECT: &str = "direct";
const RELATED: &str = "related";
const CONTROL: &str = "control-evidence";

/// Declares the findings: name, name in records, strength, layer, then threats of MAESTRO, OWASP
/// MCP, OWASP ASI and ATLAS.
macro_rules! findings {
    ($(
        $(#[$doc:meta])*
        $name:ident = $text:literal $strength:ident $layer:ident
            [$($threat:literal),*] [$($mcp:literal),*] [$($asi:literal),*] [$($atlas:literal),*]
    )*) => {
        /// The security classification of an event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Finding {
            $($(#[$doc])* $name,)*
        }

        impl Finding {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name in records.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The taxonomy ids of this finding.
            pub fn tags(self) -> &'static Tags {
                match self {
                    $(Self::$name => const {
                        &Tags {
                            strength: $strength,
                            maestro: Maestro::new(Layer::$layer, &[$($threat,)*]),
                            owasp: Owasp { mcp: &[$($mcp,)*], asi: &[$($asi,)*] },
                            mitre: Mitre { atlas: &[$($atlas,)*] },
                        }
                    },)*
                }
            }
        }
    };
}

findings! {
    /// A rule, or the absence of one, refused a call.
    ToolDenied = "tool_denied" DIRECT L7
        ["L7/Agent Tool Misuse"] ["MCP02:2025"] ["ASI02"] ["AML.T0053"]
    /// A call would have acted in another environment than the configured one.
    EnvPinViolation = "env_pin_violation" DIRECT L7
        ["L7/Agent Tool Misuse", "L4/Lateral Movement", "X/Privilege Escalation"]
        ["MCP02:2025"] ["ASI02", "ASI03"] ["AML.T0053"]
    /// A server's program was not started, because it differs from its pin.
    LaunchPinViolation = "launch_pin_violation" DIRECT X
        ["X/Supply Chain Attacks", "L4/Compromised Container Images"]
        ["MCP04:2025"] ["ASI04"] ["AML.T0081", "AML.T0010.005"]
    /// A call waits for an approval, or did not get it.
    ApprovalRequested = "approval_requested" CONTROL L7
        ["L7/Agent Tool Misuse"] ["MCP02:2025"] ["ASI09", "ASI02"] []
    /// An approver granted a call.
    ApprovalGranted = "approval_granted" CONTROL L7
        ["L7/Agent Tool Misuse"] ["MCP02:2025"] ["ASI09"] []
    /// Nobody answered a held call in time.
    ApprovalExpired = "approval_expired" RELATED L7
        ["L7/Agent Tool Misuse"] ["MCP06:2025"] ["ASI09"] []
    /// More approvals were asked for than approvers are shown.
    ApprovalFlood = "approval_flood" RELATED L7
        ["L7/Agent Tool Misuse", "L5/Denial of Service on Evaluation Infrastructure"]
        ["MCP06:2025"] ["ASI09"] ["AML.T0046"]
    /// A limit is used up.
    RateLimited = "rate_limited" DIRECT L4
        ["L4/Denial of Service (DoS) Attacks", "L4/Resource Hijacking",
         "L3/Denial of Service on Framework APIs"]
        [] ["ASI08"] ["AML.T0029", "AML.T0034"]
    /// Routing headers and body of a request differ.
    HeaderBodyMismatch = "header_body_mismatch" RELATED L3
        ["L3/Input Validation Attacks", "L3/Framework Evasion"] ["MCP07:2025"] ["ASI03"]
        ["AML.T0107"]
    /// A request or a message cannot be read in one way only.
    MalformedFrame = "malformed_frame" RELATED L3
        ["L3/Input Validation Attacks", "L4/Denial of Service (DoS) Attacks"] ["MCP05:2025"] [] []
    /// Another policy decides.
    PolicyReload = "policy_reload" CONTROL L6
        [] ["MCP08:2025"] [] []
    /// A policy was not taken.
    PolicyReloadRejected = "policy_reload_rejected" RELATED L6
        ["L6/Compromised Security AI Agents"] ["MCP02:2025"] ["ASI03"] ["AML.T0081"]
    /// A record could not be kept or sent.
    AuditSinkFailure = "audit_sink_failure" DIRECT L5
        ["L5/Compromised Observability Tools", "L5/Denial of Service on Evaluation Infrastructure",
         "L7/Repudiation"]
        ["MCP08:2025"] [] []
    /// The server failed.
    UpstreamFailure = "upstream_failure" RELATED L7
        ["L7/Integration Risks", "L4/Denial of Service (DoS) Attacks"] [] ["ASI08"] []
    /// Tools were left out of a list.
    ToolsHidden = "tools_hidden" DIRECT L7
        ["L7/Agent Tool Misuse"] ["MCP02:2025"] ["ASI02"] []
    /// An answer to nothing that was asked.
    UnsolicitedAnswer = "unsolicited_answer" RELATED L3
        ["L3/Input Validation Attacks", "L7/Agent Impersonation"] ["MCP06:2025"] ["ASI07"] []
    /// A secret was removed from what the server sent.
    ResponseSecretLeak = "response_secret_leak" DIRECT X
        ["X/Data Leakage", "L2/Data Exfiltration"] ["MCP01:2025"] ["ASI03", "ASI02"]
        ["AML.T0098", "AML.T0057", "AML.T0085.001"]
    /// A secret was removed from what the client sent.
    RequestExfiltration = "request_exfiltration" DIRECT X
        ["X/Data Leakage", "L2/Data Exfiltration"] ["MCP01:2025"] ["ASI02"] ["AML.T0086"]
    /// A tool is not as the lock has it.
    ToolDefinitionDrift = "tool_definition_drift" DIRECT X
        ["X/Supply Chain Attacks", "L7/Inaccurate Agent Capability Description"]
        ["MCP03:2025", "MCP04:2025"] ["ASI04", "ASI02"] ["AML.T0109", "AML.T0110"]
    /// A tool's schema can make a client do something else than call it.
    UnsafeToolSchema = "unsafe_tool_schema" DIRECT L3
        ["L3/Input Validation Attacks", "L7/Inaccurate Agent Capability Description"]
        ["MCP03:2025"] ["ASI04"] ["AML.T0110"]
    /// A tool's definition holds what people do not see.
    HiddenUnicodeToolDescription = "hidden_unicode_tool_description" DIRECT L3
        ["L3/Input Validation Attacks", "L7/Inaccurate Agent Capability Description",
         "L1/Adversarial Examples"]
        ["MCP03:2025", "MCP06:2025"] ["ASI01", "ASI04"]
        ["AML.T0068", "AML.T0051.001", "AML.T0110"]
    /// A request had no right token.
    UnauthenticatedCaller = "unauthenticated_caller" DIRECT L7
        ["L7/Agent Identity Attack", "L7/Agent Impersonation"] ["MCP07:2025"] ["ASI03"]
        ["AML.T0073"]
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}
