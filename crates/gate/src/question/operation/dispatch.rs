//! Selects which of a tool's operations a call means, by the pack's `dispatch` entry.
//!
//! Arguments that the pack does not list, that cannot be read, or that could be read in two ways
//! select no operation, so the call's effect is unknown.

use bytes::Bytes;

use super::HandleLookup;
use super::environment::{NotText, text_at};
use crate::question::pack::{Effect, OperationDispatch, Selector, ToolEntry};
use crate::wire::document::{Document, DocumentLimits, Value};

/// The operation that a call means.
pub(super) struct SelectedOperation<'p> {
    pub(super) entry: &'p ToolEntry,
    /// The name of the operation; absent for a tool that does not dispatch.
    pub(super) name: Option<Box<str>>,
    /// The effect that the server stated when it issued the handle; the pack's may be worse.
    pub(super) at_least: Effect,
    /// Where the operation's arguments are.
    inner: InnerArguments,
}

impl<'p> SelectedOperation<'p> {
    fn of(entry: &'p ToolEntry, name: Option<Box<str>>, inner: InnerArguments) -> Self {
        Self { entry, name, at_least: Effect::Read, inner }
    }
}

enum InnerArguments {
    /// The arguments of the call are those of the operation.
    Same,
    /// The operation has no arguments.
    Nothing,
    /// The JSON at the end of a command line.
    Json(Document),
    /// The end of the command line is not strict JSON.
    Unreadable,
}

impl SelectedOperation<'_> {
    /// Returns the arguments of the operation; `call` are those of the whole call.
    ///
    /// # Errors
    ///
    /// [`NotText`] where they cannot be read.
    pub(super) fn arguments<'a>(
        &'a self,
        call: Option<Value<'a>>,
    ) -> Result<Option<Value<'a>>, NotText> {
        match &self.inner {
            InnerArguments::Same => Ok(call),
            InnerArguments::Nothing => Ok(None),
            InnerArguments::Json(document) => Ok(Some(document.root())),
            InnerArguments::Unreadable => Err(NotText),
        }
    }
}

/// Selects the operation that a call of `tool` means; `None` where the pack does not know it.
pub(super) fn select<'p>(
    tool: &'p ToolEntry,
    arguments: Option<Value<'_>>,
    handles: Option<&dyn HandleLookup>,
) -> Option<SelectedOperation<'p>> {
    let Some(dispatch) = &tool.dispatch else {
        return Some(SelectedOperation::of(tool, None, InnerArguments::Same));
    };
    match &dispatch.by {
        Selector::Values(pointers) => {
            let values: Result<Vec<_>, NotText> = pointers
                .iter()
                .map(|pointer| text_at(arguments, pointer).map(Option::unwrap_or_default))
                .collect();
            // Values are joined by slashes, so a slash inside a value could forge another key.
            let values = values.ok().filter(|values| !values.iter().any(|it| it.contains('/')))?;
            dispatch.entry(values.join("/").into())
        }
        Selector::Route { method, path } => {
            let method = if method.starts_with('/') {
                text_at(arguments, method).ok().flatten()?
            } else {
                method
            };
            let path = text_at(arguments, path).ok().flatten()?;
            let route = dispatch.routes.iter().find(|route| route.matches(method, path));
            if let Some(route) = route {
                let mut selected = dispatch.entry(route.text.clone())?;
                // No pack says what a query does; some servers take an environment from it.
                if path.contains('?') && !selected.entry.environments.is_empty() {
                    selected.inner = InnerArguments::Unreadable;
                }
                return Some(selected);
            }
            let entry = dispatch.otherwise.as_ref()?;
            Some(SelectedOperation::of(entry, Some(method.into()), InnerArguments::Same))
        }
        Selector::Command(pointer) => {
            command(dispatch, text_at(arguments, pointer).ok().flatten()?)
        }
        Selector::Handle(pointer) => {
            let handle = text_at(arguments, pointer).ok().flatten()?;
            let handed = handles?.resolve(handle)?;
            let mut selected = dispatch.entry(handed.operation)?;
            selected.at_least = handed.effect.unwrap_or(Effect::Read);
            Some(selected)
        }
    }
}

/// Longest name of an operation, bytes; the name may come from the call itself.
const NAME_BYTES_MAX: usize = 256;

impl OperationDispatch {
    fn entry(&self, name: Box<str>) -> Option<SelectedOperation<'_>> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let entry = self.cases.get(&name).or(self.otherwise.as_ref())?;
        Some(SelectedOperation::of(entry, Some(name), InnerArguments::Same))
    }
}

/// Parses `verb [--flag]… [operation] [json]`, separated by single spaces.
fn command<'p>(dispatch: &'p OperationDispatch, text: &str) -> Option<SelectedOperation<'p>> {
    // A shell or a line reader behind the tool could take one line for two commands.
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
            return Some(SelectedOperation::of(entry, Some(name.into()), inner(json)));
        }
    }
    let entry = dispatch.cases.get(verb).or(dispatch.otherwise.as_ref())?;
    Some(SelectedOperation::of(entry, Some(verb.into()), InnerArguments::Nothing))
}

fn inner(json: &str) -> InnerArguments {
    if json.is_empty() {
        return InnerArguments::Nothing;
    }
    match Document::read(Bytes::copy_from_slice(json.as_bytes()), &DocumentLimits::default()) {
        Ok(document) if document.control_in_name().is_none() => InnerArguments::Json(document),
        Ok(_) | Err(_) => InnerArguments::Unreadable,
    }
}
