//! What a policy reads that may be absent: paths below `input`, parts of a function's arguments, and
//! values that are looked up by a computed key.
//!
//! Which paths may be absent is what the schema of the input says (`schema`). [`Source`] has no
//! meaning outside the analysis in `absent`.

use std::collections::BTreeSet;

use crate::schema::{FieldType, Presence, below};

/// Something that a rule reads, and that may be absent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source<'a> {
    /// A path below `input`.
    Input(Vec<&'a str>),
    /// A part of an argument of the function: its position, and a path below it.
    Param(usize, Vec<&'a str>),
    /// A value that is looked up by a computed key, or in a computed value, as it is written.
    Lookup(&'a str),
}

impl<'a> Source<'a> {
    /// The value at a path below this one. A looked up value stays what it is.
    pub(super) fn extended(mut self, names: &[&'a str]) -> Self {
        if let Self::Input(path) | Self::Param(_, path) = &mut self {
            path.extend(names);
        }
        self
    }

    /// As a policy writes it; `None` where it is always present, or the part of an argument.
    pub(super) fn written(&self) -> Option<String> {
        match self {
            Self::Input(path) => optional_path(path),
            Self::Param(..) => None,
            Self::Lookup(text) => Some((*text).to_owned()),
        }
    }

    /// The part of it that may be absent: the same for all that is absent with it.
    pub(super) fn absent_part(&self) -> Option<Self> {
        match self {
            Self::Input(path) => {
                let (names, configured) = optional(path)?;
                (!configured).then(|| Self::Input(path.get(..names).unwrap_or_default().to_vec()))
            }
            Self::Param(..) | Self::Lookup(_) => Some(self.clone()),
        }
    }

    /// Whether only the operator's configuration decides that it is absent.
    pub(super) fn is_configured(&self) -> bool {
        match self {
            Self::Input(path) => optional(path).is_some_and(|(_, configured)| configured),
            Self::Param(..) | Self::Lookup(_) => false,
        }
    }

    /// Whether it is always present, or known to be. A part of an argument is never always present.
    pub(super) fn is_in(&self, present: &BTreeSet<Self>) -> bool {
        match self {
            Self::Input(path) => optional(path).is_none_or(|(names, _)| {
                present.contains(&Self::Input(path.get(..names).unwrap_or_default().to_vec()))
            }),
            Self::Param(..) | Self::Lookup(_) => present.contains(self),
        }
    }

    /// Adds it, and the values that contain it: it is only there if they are.
    pub(super) fn insert_into(&self, present: &mut BTreeSet<Self>) {
        let (Self::Input(path) | Self::Param(_, path)) = self else {
            present.insert(self.clone());
            return;
        };
        for end in 0..=path.len() {
            let path = path.get(..end).unwrap_or_default().to_vec();
            present.insert(match self {
                Self::Param(at, _) => Self::Param(*at, path),
                Self::Input(_) | Self::Lookup(_) => Self::Input(path),
            });
        }
    }
}

/// How many names of a path below `input` lead to its last part that may be absent, and whether only
/// the operator's configuration decides that. `None` where it is always present, for the messages
/// that a rule about it is about.
fn optional(names: &[&str]) -> Option<(usize, bool)> {
    let mut path = String::new();
    let mut last = None;
    let mut configured = true;
    for (depth, name) in (1_usize..).zip(names) {
        let Some((_, field)) = below(&path).find(|(known, _)| known == name) else { break };
        path = join(&path, name);
        match field.presence {
            Presence::Always | Presence::Kind => {}
            Presence::Configured => last = Some(depth),
            Presence::Sometimes => {
                last = Some(depth);
                configured = false;
            }
        }
        let free = matches!(field.holds, FieldType::Anything | FieldType::TextsByName);
        if free && depth < names.len() {
            configured &= field.presence == Presence::Configured;
            last = Some(names.len());
            break;
        }
    }
    last.map(|names| (names, configured))
}

/// A path below `input` as a policy writes it, if some field on it may be absent. A member of `input`
/// that only messages of some kind have (`input.tool`) does not count: a rule that reads it is about
/// them.
pub(crate) fn optional_path(names: &[&str]) -> Option<String> {
    optional(names).map(|_| format!("input.{}", names.join(".")))
}

/// A path with one more name.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
