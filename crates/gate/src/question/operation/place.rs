//! The environments of a call, read out of its arguments where the pack says.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use unicode_normalization::UnicodeNormalization;

use super::EnvironmentSource;
use crate::question::pack::{Absent, Form, Place, Step, ToolEntry, steps};
use crate::wire::document::{Document, DocumentLimits, Kind, Value};

/// Different environments that one call may name; a call with more reaches every one.
const ENVIRONMENTS_MAX: usize = 256;
/// The name that stands for every environment.
const EVERY: &str = "*";
/// The name that a vendor's production goes by where nothing is named.
const PRODUCTION: &str = "production";

/// The environments that `arguments` reach, and how that is known.
pub(super) fn environments(
    entry: &ToolEntry,
    arguments: Option<Value<'_>>,
    ids: Option<&BTreeMap<Box<str>, Box<str>>>,
) -> (Vec<Box<str>>, EnvironmentSource) {
    let mut found = Found { names: BTreeSet::new(), left_out: false, unmapped: false, ids };
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

/// What cannot be read touches every environment.
pub(super) fn unreadable() -> (Vec<Box<str>>, EnvironmentSource) {
    (vec![EVERY.into()], EnvironmentSource::Unreadable)
}

/// Whether `arguments` is an object, or nothing, and holds no argument that the pack does not
/// list, where it lists them.
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

/// What the walks over one call's arguments have found.
struct Found<'k> {
    /// Names, byte for byte.
    names: BTreeSet<Box<str>>,
    /// Whether some place that could name an environment names none.
    left_out: bool,
    /// Whether some identifier has no name.
    unmapped: bool,
    ids: Option<&'k BTreeMap<Box<str>, Box<str>>>,
}

impl Found<'_> {
    /// Reads one place; `false` where something else stands than what the pack expects.
    fn place(&mut self, arguments: Option<Value<'_>>, place: &Place) -> bool {
        let Some(inside) = &place.inside else {
            return self.place_in(arguments, place);
        };
        let Ok(held) = held(arguments, inside) else { return false };
        let Some(text) = held else {
            self.left_out |= !place.optional;
            return true;
        };
        let limits = DocumentLimits::default();
        match Document::read(Bytes::copy_from_slice(text.as_bytes()), &limits) {
            Ok(document) => self.place_in(Some(document.root()), place),
            Err(_) => false,
        }
    }

    fn place_in(&mut self, value: Option<Value<'_>>, place: &Place) -> bool {
        if place.optional && is_missing(value, steps(&place.at)) {
            return true;
        }
        self.walk(value, steps(&place.at), &place.form)
    }

    /// Follows one pointer. The recursion is as deep as the pointer has steps, which the pack's
    /// reader bounds.
    fn walk(
        &mut self,
        value: Option<Value<'_>>,
        mut steps: impl Iterator<Item = Step> + Clone,
        form: &Form,
    ) -> bool {
        let Some(value) = value.filter(|value| value.kind() != Kind::Null) else {
            self.left_out = true;
            return true;
        };
        let Some(step) = steps.next() else {
            return self.read(value, form) && self.names.len() <= ENVIRONMENTS_MAX;
        };
        match (step, value.kind()) {
            (Step::Member(name), Kind::Object) => {
                !has_alias(value, &name) && self.walk(value.get(&name), steps, form)
            }
            (Step::Each, Kind::Array | Kind::Object) if value.is_empty() => {
                self.left_out = true;
                true
            }
            (Step::Each, Kind::Array) => {
                value.elements().all(|element| self.walk(Some(element), steps.clone(), form))
            }
            (Step::Each, Kind::Object) => {
                value.members().all(|(_, member)| self.walk(Some(member), steps.clone(), form))
            }
            (Step::Member(_) | Step::Each, _) => false,
        }
    }

    /// Takes what stands at the end of a pointer.
    fn read(&mut self, value: Value<'_>, form: &Form) -> bool {
        match (form, value.kind()) {
            (Form::Keys, Kind::Object)
            | (Form::Name | Form::Id | Form::Segment(_), Kind::Array)
                if value.is_empty() =>
            {
                self.left_out = true;
                true
            }
            (Form::Keys, Kind::Object) => {
                value.members().all(|(name, _)| name.as_str().is_some_and(|name| self.name(name)))
            }
            (Form::Keys, _) => false,
            (Form::Name | Form::Id | Form::Segment(_), Kind::Array) => value
                .elements()
                .all(|element| element.as_str() != Some("") && self.one(element, form)),
            (Form::Name | Form::Id | Form::Segment(_), _) => match value.as_str() {
                Some("") => {
                    self.left_out = true;
                    true
                }
                Some(_) | None => self.one(value, form),
            },
        }
    }

    /// One name, identifier or path.
    fn one(&mut self, value: Value<'_>, form: &Form) -> bool {
        match form {
            Form::Name | Form::Keys => value.as_str().is_some_and(|name| self.name(name)),
            Form::Segment(after) => value.as_str().is_some_and(|path| {
                let name = path.split('/').skip_while(|segment| *segment != &**after).nth(1);
                self.name(name.unwrap_or(EVERY))
            }),
            Form::Id => {
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

/// Whether an object on the way, as far as it is the same for every element, lacks the next
/// member; one that a lenient reader would take for it is not missing.
fn is_missing(value: Option<Value<'_>>, steps: impl Iterator<Item = Step>) -> bool {
    let Some(mut value) = value else { return true };
    for step in steps {
        let Step::Member(name) = step else { return false };
        if value.kind() != Kind::Object || has_alias(value, &name) {
            return false;
        }
        let Some(next) = value.get(&name) else { return true };
        value = next;
    }
    false
}

/// Whether anything stands at `pointer`, or something that a lenient reader would take for it.
/// What is no object or array holds nothing that a pointer could lead to.
pub(super) fn is_present(arguments: Option<Value<'_>>, pointer: &str) -> bool {
    fn walk(value: Value<'_>, mut steps: impl Iterator<Item = Step> + Clone) -> bool {
        match steps.next() {
            None => true,
            Some(Step::Member(name)) => {
                has_alias(value, &name) || value.get(&name).is_some_and(|next| walk(next, steps))
            }
            Some(Step::Each) => {
                let members = value.members().map(|(_, member)| member);
                value.elements().chain(members).any(|next| walk(next, steps.clone()))
            }
        }
    }
    arguments.is_some_and(|arguments| walk(arguments, steps(pointer)))
}

/// Something else stands where a text belongs, or beside it one that is read for it.
#[derive(Clone, Copy)]
pub(super) struct NotText;

/// The text at `pointer`; nothing where it is left out, `null` or empty.
pub(super) fn held<'a>(
    arguments: Option<Value<'a>>,
    pointer: &str,
) -> Result<Option<&'a str>, NotText> {
    let mut value = arguments;
    for step in steps(pointer) {
        let Some(object) = value.filter(|value| value.kind() != Kind::Null) else {
            return Ok(None);
        };
        let Step::Member(name) = step else { return Err(NotText) };
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

/// A text or whole number at `pointer`, for a session fact; nothing where anything else stands.
pub(super) fn fact(arguments: Option<Value<'_>>, pointer: &str) -> Option<Box<str>> {
    let mut value = arguments?;
    for step in steps(pointer) {
        let Step::Member(name) = step else { return None };
        if has_alias(value, &name) {
            return None;
        }
        value = value.get(&name)?;
    }
    let number = || value.as_i64().map(|number| number.to_string());
    value.as_str().map(Into::into).or_else(|| number().map(Into::into))
}

/// Whether `object` has a member that a lenient reader takes for `name` though its bytes differ:
/// `Environment`, `environment\u0000`, ` environment` (threats A4 to A6, H4).
fn has_alias(object: Value<'_>, name: &str) -> bool {
    let folded = fold(name);
    object
        .members()
        .filter_map(|(member, _)| member.as_str())
        .any(|member| member != name && may_alias(member, name) && fold(member) == folded)
}

/// A cheap bound before the costly comparison: ASCII names of another length without white space
/// or NUL cannot fold to the same.
fn may_alias(member: &str, name: &str) -> bool {
    !member.is_ascii()
        || !name.is_ascii()
        || member.len() == name.len()
        || member.bytes().any(|byte| byte == 0 || byte.is_ascii_whitespace())
        || name.bytes().any(|byte| byte == 0 || byte.is_ascii_whitespace())
}

/// NFKC, lower case, without white space and NUL (P5). Upper case first: `ſ` and `K` (Kelvin)
/// have the same upper case as `s` and `k`.
fn fold(text: &str) -> String {
    text.nfkc()
        .filter(|c| *c != '\0' && !c.is_whitespace())
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}
