//! The seven layers of MAESTRO, and what a list of definitions cannot say about each.

use serde::Serialize;

use bartizan_gate::evidence::finding::Layer;

/// What an assessment says of a layer.
#[derive(Debug)]
pub(crate) struct LayerText {
    pub(crate) layer: Layer,
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
        layer: Layer::L1,
        about: "The model that reads the definitions and the answers.",
        unknown: &[
            "Which model reads the definitions, and how easily text steers it",
            "Whether the server uses a model of its own",
        ],
        is_visible: false,
    },
    LayerText {
        layer: Layer::L2,
        about: "The data that tools and resources give access to.",
        unknown: &[
            "What the answers contain: no tool was called and no resource was read",
            "Where the data is kept, who else writes it, and for how long",
        ],
        is_visible: false,
    },
    LayerText {
        layer: Layer::L3,
        about: "MCP itself: the client, the protocol, the definitions and their schemas.",
        unknown: &[
            "Whether the client follows references in schemas or trusts annotations",
            "How the server validates arguments: no tool was called",
        ],
        is_visible: true,
    },
    LayerText {
        layer: Layer::L4,
        about: "The server's process, host and network.",
        unknown: &[
            "What runs behind the address, from which image or package, and with which rights",
            "Which networks and hosts the server can reach",
            "Which limits it has against floods",
        ],
        is_visible: false,
    },
    LayerText {
        layer: Layer::L5,
        about: "Logs, audit and alerts.",
        unknown: &[
            "Whether the server records calls, by whom, and whether records can be changed",
            "Who is alerted",
        ],
        is_visible: false,
    },
    LayerText {
        layer: Layer::L6,
        about: "The controls across all layers.",
        unknown: &[
            "What the credential may do: the server's own access control was not tried",
            "Which rules and contracts apply to the data",
        ],
        is_visible: false,
    },
    LayerText {
        layer: Layer::L7,
        about: "What agents can do with the tools.",
        unknown: &[
            "Whether the server is who it says it is: its name is its own claim",
            "What a call really does: no tool was called",
        ],
        is_visible: true,
    },
    LayerText {
        layer: Layer::X,
        about: "Threats that go across layers.",
        unknown: &["Where the server's code comes from and who can change it"],
        is_visible: false,
    },
];
