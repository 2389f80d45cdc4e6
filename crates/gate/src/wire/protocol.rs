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

/// The revision that a message claims: in `_meta`, or in the header `MCP-Protocol-Version`. It need
/// not be a published one. Every part of the program reads a claim with this type, so that none
/// takes a message for another era than the others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimedVersion<'a>(&'a str);

impl<'a> ClaimedVersion<'a> {
    /// The longest claim, bytes.
    const BYTES_MAX: usize = 64;

    /// Reads a claim. `None` for a text that is empty, too long, or has other bytes than visible
    /// ASCII: readers that trim, or take an empty text for none, would see another claim.
    pub fn parse(text: &'a str) -> Option<Self> {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        ((1..=Self::BYTES_MAX).contains(&text.len()) && plain).then_some(Self(text))
    }

    /// The text as it was sent.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The published revision that it names, if it names one.
    pub fn revision(self) -> Option<Revision> {
        Revision::parse(self.0)
    }

    /// The era of the revision. An unknown revision counts as a later one, so as modern.
    pub fn era(self) -> Era {
        self.revision().map_or(Era::Modern, Revision::era)
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
