//! Compares a tool's definition with the one that was reviewed (`bartizan.lock`).
//!
//! A client asks its user once whether a tool may be used, and the server may change the tool
//! afterwards ("rug pull"). The lock file keeps digests of reviewed definitions by name. This
//! module says how a definition differs; the policy decides what a difference means. `bartizan
//! lock` writes the file; `session` compares.

use std::collections::BTreeMap;

use crate::question::status::Drift;

/// The reviewed definitions of one server's tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DefinitionLock {
    /// No lock file is configured.
    #[default]
    Off,
    /// There is a lock file, and this server is not in it.
    Unlocked,
    /// Digests of definitions, `sha256:<hex>`, by the name of the tool.
    Locked(BTreeMap<Box<str>, Box<str>>),
}

impl DefinitionLock {
    /// Compares `tool`, whose present definition has `digest` (absent if it is not known), with the
    /// lock. `None` where no lock file is configured.
    pub fn drift(&self, tool: &str, digest: Option<&str>) -> Option<Drift> {
        match self {
            Self::Off => None,
            Self::Unlocked => Some(Drift::Unlocked),
            Self::Locked(tools) => Some(match (tools.get(tool), digest) {
                (None, _) => Drift::Added,
                (Some(_), None) => Drift::Unseen,
                (Some(locked), Some(seen)) if **locked != *seen => Drift::Changed,
                (Some(_), Some(_)) => Drift::None,
            }),
        }
    }

    /// The digest of `tool` in the lock, if it is there.
    pub fn digest(&self, tool: &str) -> Option<&str> {
        match self {
            Self::Off | Self::Unlocked => None,
            Self::Locked(tools) => tools.get(tool).map(|digest| &**digest),
        }
    }
}
