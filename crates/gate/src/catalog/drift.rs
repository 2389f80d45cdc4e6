//! Tool definitions as somebody reviewed them, and how those of now stand to them.
//!
//! A client asks its user once whether a tool may be used, and a server may change the tool the
//! day after. The lock is the answer of a review that outlives the day: digests by name, kept in
//! a file beside the policy. What a difference means is for policy to say.

use std::collections::BTreeMap;

use crate::question::standing::Drift;

/// What is locked of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Lock {
    /// There is no lock.
    #[default]
    Off,
    /// There is a lock, and this server is not in it.
    Unlocked,
    /// Digests of definitions, `sha256:<hex>`, by the name of the tool.
    Locked(BTreeMap<Box<str>, Box<str>>),
}

impl Lock {
    /// How `tool` stands to it, whose definition was last seen with `digest`. Nothing where there
    /// is no lock.
    pub fn drift(&self, tool: &str, digest: Option<&str>) -> Option<Drift> {
        match self {
            Self::Off => None,
            Self::Unlocked => Some(Drift::Unlocked),
            Self::Locked(tools) => Some(match (tools.get(tool), digest) {
                (None, _) => Drift::Added,
                (Some(locked), Some(seen)) if **locked != *seen => Drift::Changed,
                (Some(_), _) => Drift::None,
            }),
        }
    }

    /// The locked digest of `tool`.
    pub fn digest(&self, tool: &str) -> Option<&str> {
        match self {
            Self::Off | Self::Unlocked => None,
            Self::Locked(tools) => tools.get(tool).map(|digest| &**digest),
        }
    }
}
