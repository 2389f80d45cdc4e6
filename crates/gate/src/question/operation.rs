//! Classifies a call by its server's pack: effect, environments and tags.
//!
//! The arguments are read only where the pack says. A tool or operation that the pack does not know
//! has [`Effect::Unknown`], which policies treat as the worst; arguments that cannot be read count
//! as every environment. `session` calls this for each `tools/call` and each listed tool.

mod environment;

mod dispatch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::pack::{Effect, FactSource, HandleFormat, Pack, Scope};
use crate::wire::document::Value;

/// Where [`Operation::environments`] came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvironmentSource {
    /// The operation has no argument for an environment.
    None,
    /// Every argument for an environment names one.
    Arguments,
    /// At least one argument for an environment is absent or empty; the pack says what that means.
    /// Names from the other arguments are listed too.
    Absent,
    /// An argument holds an identifier that the configuration maps to no name.
    Unmapped,
    /// An argument holds something else than a name, or an argument is there that the pack does not
    /// list.
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

/// What a call is classified with.
#[derive(Clone, Copy, Default)]
pub struct ResolutionContext<'a> {
    /// The pack of the server.
    pub pack: Option<&'a Pack>,
    /// Names of environments by the identifiers that the vendor's arguments carry.
    pub environment_ids: Option<&'a BTreeMap<Box<str>, Box<str>>>,
    /// The handles that were issued to this principal.
    pub handles: Option<&'a dyn HandleLookup>,
}

impl fmt::Debug for ResolutionContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolutionContext").field("pack", &self.pack).finish_non_exhaustive()
    }
}

impl<'a> From<Option<&'a Pack>> for ResolutionContext<'a> {
    fn from(pack: Option<&'a Pack>) -> Self {
        Self { pack, ..Self::default() }
    }
}

/// Looks up what a handle stands for; implemented for one principal.
pub trait HandleLookup {
    /// Returns what `handle` stands for; `None` if it was never issued to the principal or expired.
    fn resolve(&self, handle: &str) -> Option<HandleTarget>;
}

/// The operation that a handle stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandleTarget {
    /// The name of the operation.
    pub operation: Box<str>,
    /// The effect that the server states. It can only make the pack's effect worse.
    pub effect: Option<Effect>,
}

/// What a call changes for later calls if it succeeds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnSuccess {
    /// How the answer carries handles, if it does.
    pub handle_format: Option<HandleFormat>,
    /// Session facts that the call sets.
    pub facts: Vec<FactChange>,
    /// The epoch of the server's session, from `ScopeState::call_sent`.
    pub epoch: u64,
}

/// A session fact that a call sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactChange {
    /// Its name.
    pub name: Box<str>,
    /// Its value; without one the fact becomes unknown.
    pub value: Option<Box<str>>,
    /// Whose state of the server it mirrors.
    pub scope: Scope,
    /// The number of the call among those of the same scope that set facts, from
    /// `ScopeState::call_sent`.
    pub sent: u64,
}

impl OnSuccess {
    /// Returns what a call of `tool` with `arguments` changes if it succeeds; `None` for most
    /// tools.
    pub fn of_call(
        known: ResolutionContext<'_>,
        tool: &str,
        arguments: Option<Value<'_>>,
    ) -> Option<Self> {
        let entry = known.pack?.tools.get(tool)?;
        let mut on_success = Self { handle_format: entry.handle_format.clone(), ..Self::default() };
        on_success.set(&entry.facts, arguments);
        if let Some(selected) =
            dispatch::select(entry, arguments, known.handles).filter(|it| it.name.is_some())
        {
            on_success
                .set(&selected.entry.facts, selected.arguments(arguments).unwrap_or_default());
        }
        (on_success != Self::default()).then_some(on_success)
    }

    fn set(&mut self, facts: &BTreeMap<Box<str>, FactSource>, arguments: Option<Value<'_>>) {
        for (name, FactSource { at, scope }) in facts {
            let value = environment::scalar_at(arguments, at);
            match self.facts.iter_mut().find(|fact| fact.name == *name) {
                // Set twice by one call: it is unknown which of them the server takes.
                Some(fact) => {
                    fact.value = fact.value.take().filter(|it| Some(it) == value.as_ref());
                }
                None => {
                    self.facts.push(FactChange {
                        name: name.clone(),
                        value,
                        scope: *scope,
                        sent: 0,
                    });
                }
            }
        }
    }
}

/// What one call does, as classified by its pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// `tool/operation` for a tool that dispatches to several operations; absent for others.
    pub name: Option<Box<str>>,
    /// The worst effect that it can have.
    pub effect: Effect,
    /// The environments that it reaches: names, or `*` for every one. Sorted, without duplicates.
    pub environments: Vec<Box<str>>,
    /// How the environments were found.
    pub environment_source: EnvironmentSource,
    /// The tags that the pack gives the call, without duplicates.
    pub tags: Vec<Box<str>>,
    /// The name of the pack that classified it; absent where the server's pack does not know the
    /// tool.
    pub pack: Option<Arc<str>>,
}

impl Operation {
    /// The operation of a method other than `tools/call`, whose `effect` the method table states.
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

    /// Classifies a call of `tool` with `arguments`.
    pub fn of_call<'a>(
        known: impl Into<ResolutionContext<'a>>,
        tool: &str,
        arguments: Option<Value<'_>>,
    ) -> Self {
        let known = known.into();
        let mut operation = Self::of_tool(known.pack, tool);
        let Some(entry) = known.pack.and_then(|pack| pack.tools.get(tool)) else {
            return operation;
        };
        let Some(selected) = dispatch::select(entry, arguments, known.handles) else {
            operation.effect = Effect::Unknown;
            return operation;
        };
        if let Some(name) = &selected.name {
            operation.name = Some(format!("{tool}/{name}").into());
            operation.effect = selected.entry.effect.max(selected.at_least);
            operation.tag(&selected.entry.tags);
        }
        let ids = known.environment_ids;
        let readable = selected.name.is_none() || environment::expected(entry, arguments);
        let inner = selected.arguments(arguments);
        for (entry, arguments) in [(entry, arguments), (selected.entry, inner.unwrap_or_default())]
        {
            let tags = entry.tags_if.iter().filter(|(_, places)| {
                places.iter().any(|pointer| environment::is_present(arguments, pointer))
            });
            operation.tag(tags.map(|(tag, _)| tag));
        }
        let (environments, source) = match inner {
            Ok(arguments) if readable => environment::environments(selected.entry, arguments, ids),
            Ok(_) | Err(_) => environment::unreadable(),
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

    /// Classifies `tool` before arguments are known: effect and tags, without environments.
    pub fn of_tool(pack: Option<&Pack>, tool: &str) -> Self {
        let Some((pack, entry)) = pack.and_then(|pack| Some((pack, pack.tools.get(tool)?))) else {
            return Self::of_method(Effect::Unknown);
        };
        Self {
            tags: entry.tags.clone(),
            pack: Some(Arc::clone(&pack.name)),
            ..Self::of_method(entry.effect)
        }
    }
}
