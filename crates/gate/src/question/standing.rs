//! What is known of a tool beside its definition: how it stands to the lock, and what about it
//! cannot be seen.

/// How a tool stands to the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// It is locked, and was not seen to be otherwise.
    None,
    /// It is locked, and its definition is another now.
    Changed,
    /// The lock knows its server, and not the tool.
    Added,
    /// The lock does not know its server.
    Unlocked,
}

impl Drift {
    /// The name used in policy input and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Unlocked => "unlocked",
        }
    }

    /// What [`Self::as_str`] calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        [Self::None, Self::Changed, Self::Added, Self::Unlocked]
            .into_iter()
            .find(|drift| drift.as_str() == name)
    }
}

/// What is known of a tool beside its definition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing<'a> {
    /// How it stands to the lock; nothing where there is none.
    pub drift: Option<Drift>,
    /// What about its definition people cannot see; see [`crate::wire::unseen`].
    pub flags: &'a [&'static str],
}
