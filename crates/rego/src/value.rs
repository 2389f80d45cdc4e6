//! JSON values for the engines, converted from the gate's own parse and never by a second parser.
//!
//! Only what the policy reads is converted. A number without an exact value (see `number`) becomes
//! `null` and its pointer is kept: a rule may not judge a value that another reader of the same
//! bytes would see differently, so the decision is a denial, whatever the rule says. Where no rule
//! can see the number it changes nothing.

use std::collections::BTreeMap;

use bartizan_gate::wire::document::{self, Kind};
use regorus::Value;

use super::number;
use super::reads::ReadSet;

/// At most this many pointers of numbers without an exact value are kept.
pub(super) const LOSSY_MAX: usize = 16;

/// The input of one question.
#[derive(Debug)]
pub(super) struct Input {
    /// The value to evaluate with.
    pub(super) value: Value,
    /// Pointers, below `input`, of the numbers that are read and have no exact value.
    pub(super) lossy: Vec<String>,
}

/// A value as JSON text: sets become arrays.
pub(super) fn json(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// A JSON text as an input, read strictly by the gate's own reader.
pub(super) fn of_document(root: document::Value<'_>) -> Input {
    of_recorded(root, &ReadSet::everything())
}

/// A recorded input, as far as it is read.
pub(super) fn of_recorded(root: document::Value<'_>, reads: &ReadSet) -> Input {
    let mut lossy = Vec::new();
    let value = convert(root, reads, &mut Pointer::root(), &mut lossy);
    Input { value, lossy }
}

/// Where a value stands, kept only as far as a problem would have to name it.
pub(super) struct Pointer<'a> {
    steps: Vec<Segment<'a>>,
}

enum Segment<'a> {
    Name(&'a str),
    Index(usize),
}

impl<'a> Pointer<'a> {
    pub(super) fn root() -> Self {
        Self { steps: Vec::new() }
    }

    pub(super) fn at(names: &[&'a str]) -> Self {
        Self { steps: names.iter().map(|name| Segment::Name(name)).collect() }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            text.push('/');
            match step {
                Segment::Name(name) => {
                    text.push_str(&name.replace('~', "~0").replace('/', "~1"));
                }
                Segment::Index(index) => text.push_str(&index.to_string()),
            }
        }
        text
    }
}

/// A document's value, as far as it is read.
///
/// The depth of the recursion is bounded by that of the document (P3).
pub(super) fn convert<'a>(
    value: document::Value<'a>,
    reads: &ReadSet,
    at: &mut Pointer<'a>,
    lossy: &mut Vec<String>,
) -> Value {
    match value.kind() {
        Kind::Null => Value::Null,
        Kind::Bool => Value::Bool(value.as_bool().unwrap_or(false)),
        Kind::String => Value::from(value.as_str().unwrap_or_default()),
        Kind::Number => match number::exact(value.as_number().unwrap_or_default()) {
            Some(number) => number,
            // Read only for its kind: any number will do.
            None if !reads.is_everything() => Value::from(0_u64),
            None => {
                if lossy.len() < LOSSY_MAX {
                    lossy.push(at.text());
                }
                Value::Null
            }
        },
        // A static path or `object.keys` cannot tell one array from another.
        Kind::Array if !reads.is_everything() => Value::new_array(),
        Kind::Array => {
            let mut items = Vec::with_capacity(value.len());
            for (index, item) in value.elements().enumerate() {
                at.steps.push(Segment::Index(index));
                items.push(convert(item, reads, at, lossy));
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
                        let converted = convert(member, reads, at, lossy);
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
