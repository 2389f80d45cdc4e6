//! Which of a tool's operations a call means.
//!
//! What the pack does not list, what cannot be read and what could be read in two ways is no
//! operation that anybody knows.

use bytes::Bytes;

use super::Handles;
use super::place::{NotText, held};
use crate::question::pack::{Dispatch, Effect, Selector, ToolEntry};
use crate::wire::document::{Document, DocumentLimits, Value};

/// What a call came down to.
pub(super) struct Chosen<'p> {
    pub(super) entry: &'p ToolEntry,
    /// The operation; absent for a tool that does one thing.
    pub(super) name: Option<Box<str>>,
    /// What the server said of the operation; the pack may say worse.
    pub(super) at_least: Effect,
    /// The arguments of the operation, where they stand inside a command line.
    inner: Inner,
}

impl<'p> Chosen<'p> {
    fn of(entry: &'p ToolEntry, name: Option<Box<str>>, inner: Inner) -> Self {
        Self { entry, name, at_least: Effect::Read, inner }
    }
}

enum Inner {
    /// The arguments of the call are those of the operation.
    Same,
    /// It has none.
    Nothing,
    /// These.
    Json(Document),
    /// They cannot be read.
    Unreadable,
}

impl Chosen<'_> {
    /// The arguments of the operation.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub(super) fn arguments<'a>(
        &'a self,
        call: Option<Value<'a>>,
    ) -> Result<Option<Value<'a>>, NotText> {
        match &self.inner {
            Inner::Same => Ok(call),
            Inner::Nothing => Ok(None),
            Inner::Json(document) => Ok(Some(document.root())),
            Inner::Unreadable => Err(NotText),
        }
    }
}

/// The operation that a call of `tool` means; nothing where it is not known.
pub(super) fn choose<'p>(
    tool: &'p ToolEntry,
    arguments: Option<Value<'_>>,
    handles: Option<&dyn Handles>,
) -> Option<Chosen<'p>> {
    let Some(dispatch) = &tool.dispatch else {
        return Some(Chosen::of(tool, None, Inner::Same));
    };
    match &dispatch.by {
        Selector::Values(pointers) => {
            let values: Result<Vec<_>, NotText> = pointers
                .iter()
                .map(|pointer| held(arguments, pointer).map(Option::unwrap_or_default))
                .collect();
            // A slash inside a value would make two keys of one.
            let values = values.ok().filter(|values| !values.iter().any(|it| it.contains('/')))?;
            dispatch.entry(values.join("/").into())
        }
        Selector::Route { method, path } => {
            let method = if method.starts_with('/') {
                held(arguments, method).ok().flatten()?
            } else {
                method
            };
            let path = held(arguments, path).ok().flatten()?;
            let route = dispatch.routes.iter().find(|route| route.matches(method, path));
            if let Some(route) = route {
                return dispatch.entry(route.text.clone());
            }
            let entry = dispatch.otherwise.as_ref()?;
            Some(Chosen::of(entry, Some(method.into()), Inner::Same))
        }
        Selector::Command(pointer) => command(dispatch, held(arguments, pointer).ok().flatten()?),
        Selector::Handle(pointer) => {
            let handle = held(arguments, pointer).ok().flatten()?;
            let handed = handles?.handed(handle)?;
            let mut chosen = dispatch.entry(handed.operation)?;
            chosen.at_least = handed.effect.unwrap_or(Effect::Read);
            Some(chosen)
        }
    }
}

/// Length of an operation's name, bytes; it may come from the call itself.
const NAME_BYTES_MAX: usize = 256;

impl Dispatch {
    fn entry(&self, name: Box<str>) -> Option<Chosen<'_>> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let entry = self.cases.get(&name).or(self.otherwise.as_ref())?;
        Some(Chosen::of(entry, Some(name), Inner::Same))
    }
}

/// `verb [--flag]… [operation] [json]`, parted by single spaces.
fn command<'p>(dispatch: &'p Dispatch, text: &str) -> Option<Chosen<'p>> {
    // A shell or a line reader behind the tool could make two commands of one.
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return None;
    }
    let (verb, mut rest) = text.split_once(' ').unwrap_or((text, ""));
    while let Some(("", flagged)) = rest.split_once("--") {
        rest = flagged.split_once(' ').map_or("", |(_, rest)| rest);
    }
    let (operation, json) = rest.split_once(' ').unwrap_or((rest, ""));
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    if !word(verb) {
        return None;
    }
    if word(operation) {
        let name = format!("{verb} {operation}");
        if let Some(entry) = dispatch.cases.get(name.as_str()) {
            return Some(Chosen::of(entry, Some(name.into()), inner(json)));
        }
    }
    let entry = dispatch.cases.get(verb).or(dispatch.otherwise.as_ref())?;
    Some(Chosen::of(entry, Some(verb.into()), Inner::Nothing))
}

fn inner(json: &str) -> Inner {
    if json.is_empty() {
        return Inner::Nothing;
    }
    match Document::read(Bytes::copy_from_slice(json.as_bytes()), &DocumentLimits::default()) {
        Ok(document) => Inner::Json(document),
        Err(_) => Inner::Unreadable,
    }
}
