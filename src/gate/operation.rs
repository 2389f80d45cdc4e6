//! What a call comes to: the effect, the environments and the tags that its pack gives it.
//!
//! Resolution reads the arguments where the pack says, and nowhere else. What a pack does not
//! know is [`Effect::Unknown`](super::pack::Effect::Unknown), never harmless.

use super::document::Value;
use super::pack::{Effect, Pack};

/// Where [`Operation::environments`] came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvironmentSource {
    /// The arguments named them.
    Arguments,
    /// The arguments could have named one and did not: the pack says what that means.
    Absent,
    /// The arguments hold something else than a name where a name belongs.
    Unreadable,
    /// The operation has no place for an environment.
    None,
}

impl EnvironmentSource {
    /// The name used in policy input and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
            Self::Absent => "absent",
            Self::Unreadable => "unreadable",
            Self::None => "none",
        }
    }
}

/// What one call comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The worst that it does.
    pub effect: Effect,
    /// The environments that it touches: names, or `*` for every one.
    pub environments: Vec<Box<str>>,
    /// How those are known.
    pub environment_source: EnvironmentSource,
    /// The pack's tags.
    pub tags: Vec<Box<str>>,
    /// The pack that said so; absent where none knows the tool.
    pub pack: Option<Box<str>>,
}

impl Operation {
    /// What a method other than a tool call comes to: `effect` by the method table.
    pub fn of_method(effect: Effect) -> Self {
        Self {
            effect,
            environments: Vec::new(),
            environment_source: EnvironmentSource::None,
            tags: Vec::new(),
            pack: None,
        }
    }

    /// What calling `tool` with `arguments` comes to.
    pub fn of_call(pack: Option<&Pack>, tool: &str, arguments: Option<Value<'_>>) -> Self {
        let _ = (pack, tool, arguments);
        Self::of_method(Effect::Unknown)
    }

    /// What `tool` comes to before its arguments are known: effect and tags without environments.
    pub fn of_tool(pack: Option<&Pack>, tool: &str) -> Self {
        let _ = (pack, tool);
        Self::of_method(Effect::Unknown)
    }
}
