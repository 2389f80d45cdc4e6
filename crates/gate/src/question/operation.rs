//! What a call comes to: the effect, the environments and the tags that its pack gives it.
//!
//! Resolution reads the arguments where the pack says, and nowhere else. What a pack does not
//! know is [`Effect::Unknown`], never harmless; what cannot be read
//! is every environment, never none.

mod place;

mod dispatch;

use std::collections::BTreeMap;
use std::fmt;

use super::pack::{Effect, Mint, Pack};
use crate::wire::document::Value;

/// Where [`Operation::environments`] came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvironmentSource {
    /// The operation has no place for an environment.
    None,
    /// The arguments named them, in every place.
    Arguments,
    /// The arguments could have named one and did not: the pack says what that means. Names from
    /// other places of the same call stand beside it.
    Absent,
    /// The arguments hold an identifier that the configuration maps to no name.
    Unmapped,
    /// The arguments hold something else than a name where a name belongs.
    Unreadable,
}

impl EnvironmentSource {
    /// The name used in policy input and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
            Self::Absent => "absent",
            Self::Unmapped => "unmapped",
            Self::Unreadable => "unreadable",
            Self::None => "none",
        }
    }
}

/// What a call is resolved against.
#[derive(Clone, Copy, Default)]
pub struct Knowledge<'a> {
    /// The pack of the server.
    pub pack: Option<&'a Pack>,
    /// Names of environments by the identifiers that the vendor's arguments carry.
    pub environment_ids: Option<&'a BTreeMap<Box<str>, Box<str>>>,
    /// The handles that this principal was handed.
    pub handles: Option<&'a dyn Handles>,
}

impl fmt::Debug for Knowledge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knowledge").field("pack", &self.pack).finish_non_exhaustive()
    }
}

impl<'a> From<Option<&'a Pack>> for Knowledge<'a> {
    fn from(pack: Option<&'a Pack>) -> Self {
        Self { pack, ..Self::default() }
    }
}

/// Handles that answers handed out, with the operations that they stand for.
pub trait Handles {
    /// What `handle` was handed out for; nothing if it was never seen or has expired.
    fn handed(&self, handle: &str) -> Option<Handed>;
}

/// What a handle stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// The operation.
    pub operation: Box<str>,
    /// What the server says that it does at least.
    pub effect: Option<Effect>,
}

/// What the answer to a call teaches about later calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lesson {
    /// How the answer hands out handles.
    pub mint: Option<Mint>,
    /// Session facts that the call sets by succeeding; one without a value is no longer known.
    pub facts: Vec<(Box<str>, Option<Box<str>>)>,
    /// Which of the calls that set them it is, once it has been sent.
    pub sent: u64,
}

impl Lesson {
    /// What a good answer to a call of `tool` with `arguments` teaches; nothing for most.
    pub fn of_call(known: Knowledge<'_>, tool: &str, arguments: Option<Value<'_>>) -> Option<Self> {
        let entry = known.pack?.tools.get(tool)?;
        let mut lesson = Self { mint: entry.mints.clone(), ..Self::default() };
        lesson.set(&entry.facts, arguments);
        if let Some(chosen) =
            dispatch::choose(entry, arguments, known.handles).filter(|it| it.name.is_some())
        {
            lesson.set(&chosen.entry.facts, chosen.arguments(arguments).unwrap_or_default());
        }
        (lesson != Self::default()).then_some(lesson)
    }

    fn set(&mut self, facts: &BTreeMap<Box<str>, Box<str>>, arguments: Option<Value<'_>>) {
        for (name, pointer) in facts {
            self.facts.push((name.clone(), place::fact(arguments, pointer)));
        }
    }
}

/// What one call comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The operation behind a tool that does many things, `tool/operation`; absent for others.
    pub name: Option<Box<str>>,
    /// The worst that it does.
    pub effect: Effect,
    /// The environments that it touches: names, or `*` for every one. Sorted, each once.
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
            name: None,
            effect,
            environments: Vec::new(),
            environment_source: EnvironmentSource::None,
            tags: Vec::new(),
            pack: None,
        }
    }

    /// What calling `tool` with `arguments` comes to.
    pub fn of_call<'a>(
        known: impl Into<Knowledge<'a>>,
        tool: &str,
        arguments: Option<Value<'_>>,
    ) -> Self {
        let known = known.into();
        let mut operation = Self::of_tool(known.pack, tool);
        let Some(entry) = known.pack.and_then(|pack| pack.tools.get(tool)) else {
            return operation;
        };
        let Some(chosen) = dispatch::choose(entry, arguments, known.handles) else {
            operation.effect = Effect::Unknown;
            return operation;
        };
        if let Some(name) = &chosen.name {
            operation.name = Some(format!("{tool}/{name}").into());
            operation.effect = chosen.entry.effect.max(chosen.at_least);
            operation.tag(&chosen.entry.tags);
        }
        let ids = known.environment_ids;
        let readable = chosen.name.is_none() || place::expected(entry, arguments);
        let inner = chosen.arguments(arguments);
        for (entry, arguments) in [(entry, arguments), (chosen.entry, inner.unwrap_or_default())] {
            let tags = entry.tags_if.iter().filter(|(_, places)| {
                places.iter().any(|pointer| place::is_present(arguments, pointer))
            });
            operation.tag(tags.map(|(tag, _)| tag));
        }
        let (environments, source) = match inner {
            Ok(arguments) if readable => place::environments(chosen.entry, arguments, ids),
            Ok(_) | Err(_) => place::unreadable(),
        };
        operation.environments = environments;
        operation.environment_source = source;
        operation
    }

    fn tag<'t>(&mut self, tags: impl IntoIterator<Item = &'t Box<str>>) {
        for tag in tags {
            if !self.tags.contains(tag) {
                self.tags.push(tag.clone());
            }
        }
    }

    /// What `tool` comes to before its arguments are known: effect and tags without environments.
    pub fn of_tool(pack: Option<&Pack>, tool: &str) -> Self {
        let Some((pack, entry)) = pack.and_then(|pack| Some((pack, pack.tools.get(tool)?))) else {
            return Self::of_method(Effect::Unknown);
        };
        Self {
            tags: entry.tags.clone(),
            pack: Some(pack.name.clone()),
            ..Self::of_method(entry.effect)
        }
    }
}
