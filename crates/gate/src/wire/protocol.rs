//! The protocol of a frame: its direction, revision, era and transport.

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the client to the protected server.
    ToServer,
    /// From the protected server to the client.
    ToClient,
}

impl Direction {
    /// The name used in policy input and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ToServer => "to_server",
            Self::ToClient => "to_client",
        }
    }
}

/// A published revision of MCP, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the date of the revision that it names")]
pub enum Revision {
    V20241105,
    V20250326,
    V20250618,
    V20251125,
    V20260728,
}

impl Revision {
    /// All revisions, oldest first.
    pub const ALL: [Self; 5] =
        [Self::V20241105, Self::V20250326, Self::V20250618, Self::V20251125, Self::V20260728];

    /// The revision with the exact name `text`, if it is a published one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    /// Its name in `protocolVersion` and in headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V20241105 => "2024-11-05",
            Self::V20250326 => "2025-03-26",
            Self::V20250618 => "2025-06-18",
            Self::V20251125 => "2025-11-25",
            Self::V20260728 => "2026-07-28",
        }
    }

    /// The family of revisions that it belongs to.
    pub fn era(self) -> Era {
        if self >= Self::V20260728 { Era::Modern } else { Era::Legacy }
    }
}

/// The two families of MCP revisions: with a handshake (up to 2025-11-25), or with metadata on each
/// request (from 2026-07-28).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// `initialize`, sessions, requests of servers to clients.
    Legacy,
    /// `_meta` on each request, no sessions.
    Modern,
}

impl Era {
    /// The name used in policy input and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

/// The transport between the client and the firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Streamable HTTP.
    Http,
    /// Standard input and output.
    Stdio,
}

impl Transport {
    /// The name used in policy input and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Stdio => "stdio",
        }
    }
}

/// The protocol spoken on one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The revision; absent until it is known, and for an unknown one.
    pub revision: Option<Revision>,
    /// The family of revisions.
    pub era: Era,
    /// The transport on the client's side.
    pub transport: Transport,
}
