//! What the firewall knows about a tool's definition besides its text: its drift from the lock
//! file, and its flags. Passed to the policy as `drift` and `flags`.

/// How a tool's definition differs from the reviewed one in the lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// It is locked, and listed as it is locked.
    None,
    /// It is locked, and a different definition was listed.
    Changed,
    /// Its server is in the lock file, the tool is not.
    Added,
    /// Its server is not in the lock file.
    Unlocked,
    /// It is locked, and its present definition is not known: it was not listed yet, or the server
    /// has changed its tools since.
    Unseen,
}

impl Drift {
    /// The name used in policy input and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Unlocked => "unlocked",
            Self::Unseen => "unseen",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn named(name: &str) -> Option<Self> {
        [Self::None, Self::Changed, Self::Added, Self::Unlocked, Self::Unseen]
            .into_iter()
            .find(|drift| drift.as_str() == name)
    }
}

/// What the firewall knows about a definition besides its text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DefinitionStatus<'a> {
    /// Its drift; absent where no lock file is configured, and for definitions that are not tools.
    pub drift: Option<Drift>,
    /// What is wrong with it, such as invisible characters; see [`crate::catalog::flags`].
    pub flags: &'a [&'static str],
    /// The definition as the server sent it, JSON; absent where it was not kept. The page of a list
    /// has its definitions in [`ListEntry`](crate::duty::pdp::ListEntry).
    pub text: Option<&'a str>,
}
