//! The seven layers of MAESTRO, and what a list of definitions cannot say about each.

use serde::Serialize;

/// A layer of MAESTRO (Cloud Security Alliance, 2025), or the threats across layers.
#[derive(Debug)]
pub(crate) struct LayerText {
    /// The id of the layer, `L1` to `L7`, or `X`.
    pub(crate) id: &'static str,
    /// Its published name.
    pub(crate) name: &'static str,
    /// What it is about for an MCP server.
    pub(crate) about: &'static str,
    /// What no list shows, as questions for the server's operator.
    pub(crate) unknown: &'static [&'static str],
    /// Whether lists show enough that no finding means something.
    pub(crate) is_visible: bool,
}

/// What is known about a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum LayerStatus {
    /// There are findings.
    #[serde(rename = "findings")]
    Findings,
    /// What lists show of it was checked, and nothing was found.
    #[serde(rename = "nothing found")]
    NothingFound,
    /// Lists show nothing of it.
    #[serde(rename = "not certain")]
    NotCertain,
}

impl LayerStatus {
    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Findings => "findings",
            Self::NothingFound => "nothing found",
            Self::NotCertain => "not certain",
        }
    }
}

/// The layers, from the first to the last, then what goes across.
pub(crate) const LAYERS: [LayerText; 8] = [
    LayerText {
        id: "L1",
        name: "Foundation Models",
        about: "The model that reads the definitions and the answers.",
        unknown: &[
            "Which model reads the definitions, and how easily text steers it",
            "Whether the server uses a model of its own",
        ],
        is_visible: false,
    },
    LayerText {
        id: "L2",
        name: "Data Operations",
        about: "The data that tools and resources give access to.",
        unknown: &[
            "What the answers contain: no tool was called and no resource was read",
            "Where the data is kept, who else writes it, and for how long",
        ],
        is_visible: false,
    },
    LayerText {
        id: "L3",
        name: "Agent Frameworks",
        about: "MCP itself: the client, the protocol, the definitions and their schemas.",
        unknown: &[
            "Whether the client follows references in schemas or trusts annotations",
            "How the server validates arguments: no tool was called",
        ],
        is_visible: true,
    },
    LayerText {
        id: "L4",
        name: "Deployment and Infrastructure",
        about: "The server's process, host and network.",
        unknown: &[
            "What runs behind the address, from which image or package, and with which rights",
            "Which networks and hosts the server can reach",
            "Which limits it has against floods",
        ],
        is_visible: false,
    },
    LayerText {
        id: "L5",
        name: "Evaluation and Observability",
        about: "Logs, audit and alerts.",
        unknown: &[
            "Whether the server records calls, by whom, and whether records can be changed",
            "Who is alerted",
        ],
        is_visible: false,
    },
    LayerText {
        id: "L6",
        name: "Security and Compliance",
        about: "The controls across all layers.",
        unknown: &[
            "What the credential may do: the server's own access control was not tried",
            "Which rules and contracts apply to the data",
        ],
        is_visible: false,
    },
    LayerText {
        id: "L7",
        name: "Agent Ecosystem",
        about: "What agents can do with the tools.",
        unknown: &[
            "Whether the server is who it says it is: its name is its own claim",
            "What a call really does: no tool was called",
        ],
        is_visible: true,
    },
    LayerText {
        id: "X",
        name: "Cross-layer",
        about: "Threats that go across layers.",
        unknown: &["Where the server's code comes from and who can change it"],
        is_visible: false,
    },
];
