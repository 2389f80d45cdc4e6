//! Reads the environments of a call from its arguments, at the paths that the pack lists.
//!
//! Arguments that cannot be read count as every environment, never as none.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::EnvironmentSource;
use crate::question::pack::{
    Absent, EnvironmentForm, EnvironmentPath, PointerStep, ToolEntry, steps,
};
use crate::question::path;
use crate::wire::document::{Document, DocumentLimits, Kind, Value};
use crate::wire::fold::is_alias;

/// Different environments that one call may name; a call with more counts as every one.
const ENVIRONMENTS_MAX: usize = 256;
/// The name that means every environment.
const EVERY: &str = "*";
/// The environment of a call that names none, where the pack says [`Absent::Production`].
const PRODUCTION: &str = "production";

/// Returns the environments that `arguments` reach, and how they were found.
pub(super) fn environments(
    entry: &ToolEntry,
    arguments: Option<Value<'_>>,
    ids: Option<&BTreeMap<Box<str>, Box<str>>>,
) -> (Vec<Box<str>>, EnvironmentSource) {
    let mut found =
        EnvironmentSearch { names: BTreeSet::new(), left_out: false, unmapped: false, ids };
    let readable = expected(entry, arguments)
        && entry.environments.iter().all(|place| found.place(arguments, place));
    if !readable {
        return unreadable();
    }
    if found.unmapped {
        return (vec![EVERY.into()], EnvironmentSource::Unmapped);
    }
    let left_out = found.left_out || entry.environments.is_empty();
    if left_out {
        match entry.absent {
            Absent::All => _ = found.names.insert(EVERY.into()),
            Absent::Production => _ = found.names.insert(PRODUCTION.into()),
            Absent::None => {}
        }
    }
    let source = if entry.environments.is_empty() {
        EnvironmentSource::None
    } else if found.left_out {
        EnvironmentSource::Absent
    } else {
        EnvironmentSource::Arguments
    };
    (found.names.into_iter().collect(), source)
}

/// The result for arguments that cannot be read: every environment.
pub(super) fn unreadable() -> (Vec<Box<str>>, EnvironmentSource) {
    (vec![EVERY.into()], EnvironmentSource::Unreadable)
}

/// Whether `arguments` is an object, `null` or absent, and has only arguments that the pack lists,
/// where it lists them.
pub(super) fn expected(entry: &ToolEntry, arguments: Option<Value<'_>>) -> bool {
    let Some(arguments) = arguments.filter(|value| value.kind() != Kind::Null) else {
        return true;
    };
    let listed = |name: &str| match &entry.arguments {
        Some(listed) => listed.iter().any(|argument| **argument == *name),
        None => true,
    };
    arguments.kind() == Kind::Object
        && arguments.members().all(|(name, _)| name.as_str().is_some_and(listed))
}

/// What reading one call's arguments has found so far.
struct EnvironmentSearch<'k> {
    /// Names of environments, as written.
    names: BTreeSet<Box<str>>,
    /// Whether some path that could name an environment names none.
    left_out: bool,
    /// Whether the configuration maps some identifier to no name.
    unmapped: bool,
    ids: Option<&'k BTreeMap<Box<str>, Box<str>>>,
}

impl EnvironmentSearch<'_> {
    /// Reads one path. Returns `false` where the value there is not of the form that the pack
    /// expects.
    fn place(&mut self, arguments: Option<Value<'_>>, place: &EnvironmentPath) -> bool {
        let Some(inside) = &place.inside else {
            return self.place_in(arguments, place);
        };
        let Ok(text) = text_at(arguments, inside) else { return false };
        let Some(text) = text else {
            self.left_out |= !place.optional;
            return true;
        };
        let limits = DocumentLimits::default();
        match Document::read(Bytes::copy_from_slice(text.as_bytes()), &limits) {
            Ok(document) if document.control_in_name().is_some() => false,
            Ok(document) => self.place_in(Some(document.root()), place),
            Err(_) => false,
        }
    }

    fn place_in(&mut self, value: Option<Value<'_>>, place: &EnvironmentPath) -> bool {
        if place.optional && is_missing(value, steps(&place.at)) {
            return true;
        }
        self.walk(value, steps(&place.at), &place.form)
    }

    /// Follows one pointer. Recursive; the pack's reader bounds the number of steps.
    fn walk<'s>(
        &mut self,
        value: Option<Value<'_>>,
        mut steps: impl Iterator<Item = PointerStep<'s>> + Clone,
        form: &EnvironmentForm,
    ) -> bool {
        let Some(value) = value.filter(|value| value.kind() != Kind::Null) else {
            self.left_out = true;
            return true;
        };
        let Some(step) = steps.next() else {
            return self.read(value, form) && self.names.len() <= ENVIRONMENTS_MAX;
        };
        match (step, value.kind()) {
            (PointerStep::Member(name), Kind::Object) => {
                !has_alias(value, &name) && self.walk(value.get(&name), steps, form)
            }
            (PointerStep::Each, Kind::Array | Kind::Object) if value.is_empty() => {
                self.left_out = true;
                true
            }
            (PointerStep::Each, Kind::Array) => {
                value.elements().all(|element| self.walk(Some(element), steps.clone(), form))
            }
            (PointerStep::Each, Kind::Object) => {
                value.members().all(|(_, member)| self.walk(Some(member), steps.clone(), form))
            }
            (PointerStep::Member(_) | PointerStep::Each, _) => false,
        }
    }

    /// Reads the value at the end of a pointer.
    fn read(&mut self, value: Value<'_>, form: &EnvironmentForm) -> bool {
        match (form, value.kind()) {
            (EnvironmentForm::Keys, Kind::Object)
            | (
                EnvironmentForm::Name
                | EnvironmentForm::Id
                | EnvironmentForm::Segment(_)
                | EnvironmentForm::Patch(_),
                Kind::Array,
            ) if value.is_empty() => {
                self.left_out = true;
                true
            }
            (EnvironmentForm::Keys, Kind::Object) => {
                value.members().all(|(name, _)| name.as_str().is_some_and(|name| self.name(name)))
            }
            (EnvironmentForm::Patch(after), Kind::Array) => {
                value.elements().all(|operation| self.patch(operation, after))
            }
            (EnvironmentForm::Keys | EnvironmentForm::Patch(_), _) => false,
            (
                EnvironmentForm::Name | EnvironmentForm::Id | EnvironmentForm::Segment(_),
                Kind::Array,
            ) => value
                .elements()
                .all(|element| element.as_str() != Some("") && self.one(element, form)),
            (EnvironmentForm::Name | EnvironmentForm::Id | EnvironmentForm::Segment(_), _) => {
                match value.as_str() {
                    Some("") => {
                        self.left_out = true;
                        true
                    }
                    Some(_) | None => self.one(value, form),
                }
            }
        }
    }

    /// Reads one operation of a JSON Patch (RFC 6902 §4). `from` is read whatever `op` says: a
    /// server may not ignore it.
    fn patch(&mut self, operation: Value<'_>, after: &str) -> bool {
        let known = ["op", "path", "from"];
        if operation.kind() != Kind::Object || known.iter().any(|name| has_alias(operation, name)) {
            return false;
        }
        let text = |name| operation.get(name).map(|value| value.as_str().ok_or(NotText));
        let (Some(Ok(op)), Some(Ok(path)), Ok(from)) =
            (text("op"), text("path"), text("from").transpose())
        else {
            return false;
        };
        let copies = matches!(op, "move" | "copy");
        let standard = copies || matches!(op, "add" | "remove" | "replace" | "test");
        standard
            && copies == from.is_some()
            && [Some(path), from].into_iter().flatten().all(|pointer| {
                // The empty pointer is the whole document (RFC 6901 §5).
                let rooted = pointer.is_empty() || pointer.starts_with('/');
                rooted && self.path(pointer, after)
            })
    }

    /// Reads one path, from its root on.
    fn path(&mut self, path: &str, after: &str) -> bool {
        if path.is_empty() {
            return self.name(EVERY);
        }
        path::segments(path).is_some_and(|mut segments| {
            let rooted = after.split('/').all(|own| segments.next() == Some(own));
            self.name(segments.next().filter(|_| rooted).unwrap_or(EVERY))
        })
    }

    /// Reads one name, identifier or path.
    fn one(&mut self, value: Value<'_>, form: &EnvironmentForm) -> bool {
        match form {
            EnvironmentForm::Name | EnvironmentForm::Keys => {
                value.as_str().is_some_and(|name| self.name(name))
            }
            EnvironmentForm::Segment(after) => {
                value.as_str().is_some_and(|path| self.path(path, after))
            }
            // `patch` reads it.
            EnvironmentForm::Patch(_) => false,
            EnvironmentForm::Id => {
                let number = || value.as_i64().map(|number| number.to_string());
                let Some(id) = value.as_str().map(str::to_owned).or_else(number) else {
                    return false;
                };
                if let Some(name) = self.ids.and_then(|ids| ids.get(id.as_str())) {
                    return self.name(name);
                }
                self.unmapped = true;
                true
            }
        }
    }

    fn name(&mut self, name: &str) -> bool {
        if name.is_empty() {
            return false;
        }
        self.names.insert(name.into());
        self.names.len() <= ENVIRONMENTS_MAX
    }
}

/// Whether an object on the pointer, before its first `*`, lacks the next member. A member whose
/// name a lenient reader would take for it counts as present.
fn is_missing<'s>(value: Option<Value<'_>>, steps: impl Iterator<Item = PointerStep<'s>>) -> bool {
    let Some(mut value) = value else { return true };
    for step in steps {
        let PointerStep::Member(name) = step else { return false };
        if value.kind() != Kind::Object || has_alias(value, &name) {
            return false;
        }
        let Some(next) = value.get(&name) else { return true };
        value = next;
    }
    false
}

/// Whether a value stands at `pointer`, or a member whose name a lenient reader would take for it.
/// Scalars have no members, so a pointer through one finds nothing.
pub(super) fn is_present(arguments: Option<Value<'_>>, pointer: &str) -> bool {
    fn walk<'s>(
        value: Value<'_>,
        mut steps: impl Iterator<Item = PointerStep<'s>> + Clone,
    ) -> bool {
        match steps.next() {
            None => true,
            Some(PointerStep::Member(name)) => {
                has_alias(value, &name) || value.get(&name).is_some_and(|next| walk(next, steps))
            }
            Some(PointerStep::Each) => {
                let members = value.members().map(|(_, member)| member);
                value.elements().chain(members).any(|next| walk(next, steps.clone()))
            }
        }
    }
    arguments.is_some_and(|arguments| walk(arguments, steps(pointer)))
}

/// The value is not a string, or a member beside it has a name that a lenient reader would take for
/// its name.
#[derive(Clone, Copy)]
pub(super) struct NotText;

/// Returns the text at `pointer`; `None` where it is absent, `null` or empty.
pub(super) fn text_at<'a>(
    arguments: Option<Value<'a>>,
    pointer: &str,
) -> Result<Option<&'a str>, NotText> {
    let mut value = arguments;
    for step in steps(pointer) {
        let Some(object) = value.filter(|value| value.kind() != Kind::Null) else {
            return Ok(None);
        };
        let PointerStep::Member(name) = step else { return Err(NotText) };
        if object.kind() != Kind::Object || has_alias(object, &name) {
            return Err(NotText);
        }
        value = object.get(&name);
    }
    match value.filter(|value| value.kind() != Kind::Null) {
        None => Ok(None),
        Some(value) => {
            value.as_str().map(|text| Some(text).filter(|it| !it.is_empty())).ok_or(NotText)
        }
    }
}

/// Returns the string or integer at `pointer` as text, for a session fact; `None` for other values.
pub(super) fn scalar_at(arguments: Option<Value<'_>>, pointer: &str) -> Option<Box<str>> {
    let mut value = arguments?;
    for step in steps(pointer) {
        let PointerStep::Member(name) = step else { return None };
        if has_alias(value, &name) {
            return None;
        }
        value = value.get(&name)?;
    }
    let number = || value.as_i64().map(|number| number.to_string());
    value.as_str().map(Into::into).or_else(|| number().map(Into::into))
}

/// Whether `object` has a member whose name differs from `name` in its bytes but equals it for a
/// lenient reader: `Environment`, `environment\u0000`, ` environment` (threats A4 to A6, H4).
fn has_alias(object: Value<'_>, name: &str) -> bool {
    object.members().filter_map(|(member, _)| member.as_str()).any(|member| is_alias(member, name))
}
