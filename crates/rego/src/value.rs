//! Converts the gate's parsed JSON to regorus values. Nothing is parsed a second time, so policy and
//! gate see the same value.
//!
//! Only what the policy reads is converted. A number without an exact value (see `number`) becomes
//! `null`, and its pointer is reported: the caller then denies, because the server may read another
//! number than the rule did. A number that no rule reads has no effect.

use std::collections::BTreeMap;

use bartizan_gate::wire::document::{self, Kind};
use regorus::Value;

use super::number;
use super::reads::ReadSet;

/// Most pointers of numbers without an exact value that are reported.
pub(super) const INEXACT_MAX: usize = 16;

/// The input of one evaluation.
#[derive(Debug)]
pub(super) struct Input {
    /// The document `input`.
    pub(super) value: Value,
    /// RFC 6901 pointers below `input`, at most [`INEXACT_MAX`], of numbers that the policy reads
    /// and that have no exact value. If there is one, the caller denies.
    pub(super) inexact: Vec<String>,
}

/// A value as JSON text. A set becomes an array.
pub(super) fn json(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// Converts a whole document.
pub(super) fn of_document(root: document::Value<'_>) -> Input {
    of_recorded(root, &ReadSet::everything())
}

/// Converts the parts of a recorded input that the policy reads.
pub(super) fn of_recorded(root: document::Value<'_>, reads: &ReadSet) -> Input {
    let mut inexact = Vec::new();
    let value = convert(root, reads, &mut Pointer::root(), &mut inexact);
    Input { value, inexact }
}

/// The path to the value that is converted. It becomes text only when a pointer is reported.
pub(super) struct Pointer<'a> {
    steps: Vec<Segment<'a>>,
}

enum Segment<'a> {
    Name(&'a str),
    Index(usize),
}

impl<'a> Pointer<'a> {
    /// The path of `input` itself.
    pub(super) fn root() -> Self {
        Self { steps: Vec::new() }
    }

    /// The path `names` below `input`.
    pub(super) fn at(names: &[&'a str]) -> Self {
        Self { steps: names.iter().map(|name| Segment::Name(name)).collect() }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.steps.iter().for_each(|step| step.append_to(&mut text));
        text
    }
}

impl Segment<'_> {
    fn append_to(&self, pointer: &mut String) {
        match self {
            Self::Name(name) => push_pointer_name(pointer, name),
            Self::Index(index) => {
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
        }
    }
}

/// The path to a value that a search has found, the last step first: a search that finds nothing,
/// as most do, has no path to keep.
pub(super) struct Trail<'a>(Vec<Segment<'a>>);

impl<'a> Trail<'a> {
    /// The path of a value itself.
    pub(super) fn here() -> Self {
        Self(Vec::new())
    }

    /// The same below a member.
    pub(super) fn below_name(mut self, name: &'a str) -> Self {
        self.0.push(Segment::Name(name));
        self
    }

    /// The same below an item of an array.
    pub(super) fn below_index(mut self, index: usize) -> Self {
        self.0.push(Segment::Index(index));
        self
    }

    /// The RFC 6901 pointer, where the search began at `path`.
    pub(super) fn pointer(&self, path: &[&str]) -> String {
        let mut text = String::new();
        for name in path {
            push_pointer_name(&mut text, name);
        }
        for step in self.0.iter().rev() {
            step.append_to(&mut text);
        }
        text
    }
}

/// Appends a member's name to an RFC 6901 pointer, with `~` and `/` escaped (section 3).
pub(super) fn push_pointer_name(pointer: &mut String, name: &str) {
    pointer.push('/');
    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
}

/// Whether the RFC 6901 pointer `inner` names the value at `outer` or a part of it.
pub(super) fn is_at_or_below(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path to the first number without an exact value that [`convert`] would report; nothing is
/// built.
pub(super) fn first_inexact<'a>(value: document::Value<'a>, reads: &ReadSet) -> Option<Trail<'a>> {
    match value.kind() {
        Kind::Number if reads.is_everything() => {
            let literal = value.as_number().unwrap_or_default();
            number::exact(literal).is_none().then(Trail::here)
        }
        Kind::Array if reads.is_everything() => {
            let mut items = value.elements().enumerate();
            items.find_map(|(at, item)| Some(first_inexact(item, reads)?.below_index(at)))
        }
        Kind::Object => value.members().find_map(|(name, member)| {
            if !matches!(member.kind(), Kind::Number | Kind::Array | Kind::Object) {
                return None;
            }
            let name = name.as_str().unwrap_or_default();
            let reads = reads.member(name)?;
            Some(first_inexact(member, reads)?.below_name(name))
        }),
        Kind::Null | Kind::Bool | Kind::String | Kind::Number | Kind::Array => None,
    }
}

/// Converts the parts of a value that the policy reads. Numbers without an exact value are added to
/// `inexact`.
///
/// The recursion is as deep as the document, which the strict reader bounds
/// (`docs/strict-profile.md`, P3).
pub(super) fn convert<'a>(
    value: document::Value<'a>,
    reads: &ReadSet,
    at: &mut Pointer<'a>,
    inexact: &mut Vec<String>,
) -> Value {
    match value.kind() {
        Kind::Null => Value::Null,
        Kind::Bool => Value::Bool(value.as_bool().unwrap_or(false)),
        Kind::String => Value::from(value.as_str().unwrap_or_default()),
        Kind::Number => match number::exact(value.as_number().unwrap_or_default()) {
            Some(number) => number,
            // The policy reads only its type, so any number serves.
            None if !reads.is_everything() => Value::from(0_u64),
            None => {
                if inexact.len() < INEXACT_MAX {
                    inexact.push(at.text());
                }
                Value::Null
            }
        },
        // A path of names or `object.keys` reads nothing inside an array, so an empty one serves.
        Kind::Array if !reads.is_everything() => Value::new_array(),
        Kind::Array => {
            let mut items = Vec::with_capacity(value.len());
            for (index, item) in value.elements().enumerate() {
                at.steps.push(Segment::Index(index));
                items.push(convert(item, reads, at, inexact));
                at.steps.pop();
            }
            Value::from(items)
        }
        Kind::Object => {
            let mut members = BTreeMap::new();
            for (name, member) in value.members() {
                let name = name.as_str().unwrap_or_default();
                let converted = match reads.member(name) {
                    Some(reads) => {
                        at.steps.push(Segment::Name(name));
                        let converted = convert(member, reads, at, inexact);
                        at.steps.pop();
                        converted
                    }
                    None if reads.reads_names() => Value::Null,
                    None => continue,
                };
                members.insert(Value::from(name), converted);
            }
            Value::from(members)
        }
    }
}
