//! Values during an evaluation: texts and arrays of the request stay where they are.
//!
//! An [`Operand`] becomes a regorus value only where it is stored in a collection, handed to a
//! built-in or compared with one.

use std::cmp::Ordering;

use bartizan_gate::wire::document::{self, Kind};
use regorus::Value;

use super::Doubt;
use crate::number;
use crate::reads::ReadSet;
use crate::value::{Pointer, convert};

/// A defined value.
#[derive(Debug, Clone)]
pub(super) enum Operand<'v> {
    /// A text of the request.
    Text(&'v str),
    /// A list of texts of the request.
    Texts(&'v [Box<str>]),
    /// An array or object of the message.
    Json(document::Value<'v>),
    /// A value of the program, of the data or of a rule.
    Shared(&'v Value),
    /// A value that this evaluation made.
    Owned(Value),
}

impl<'v> Operand<'v> {
    /// A value of the message. A number without an exact value is in doubt.
    pub(super) fn of_json(json: document::Value<'v>) -> Result<Self, Doubt> {
        Ok(match json.kind() {
            Kind::Null => Self::Owned(Value::Null),
            Kind::Bool => Self::Owned(Value::Bool(json.as_bool().unwrap_or(false))),
            Kind::String => Self::Text(json.as_str().unwrap_or_default()),
            Kind::Number => Self::Owned(
                number::exact(json.as_number().unwrap_or_default()).ok_or_else(inexact)?,
            ),
            Kind::Array | Kind::Object => Self::Json(json),
        })
    }

    /// The value as regorus has it.
    pub(super) fn into_value(self) -> Result<Value, Doubt> {
        Ok(match self {
            Self::Text(text) => Value::from(text),
            Self::Texts(texts) => {
                Value::from(texts.iter().map(|text| Value::from(&**text)).collect::<Vec<_>>())
            }
            Self::Json(json) => {
                let mut lossy = Vec::new();
                let everything = ReadSet::everything();
                let value = convert(json, &everything, &mut Pointer::root(), &mut lossy);
                if lossy.is_empty() { value } else { return Err(inexact()) }
            }
            Self::Shared(value) => value.clone(),
            Self::Owned(value) => value,
        })
    }

    /// The regorus value behind it, where there is one.
    pub(super) fn as_value(&self) -> Option<&Value> {
        match self {
            Self::Shared(value) => Some(value),
            Self::Owned(value) => Some(value),
            Self::Text(_) | Self::Texts(_) | Self::Json(_) => None,
        }
    }

    /// The same with a regorus value behind it, so that its items can be iterated over.
    pub(super) fn materialized(self) -> Result<Self, Doubt> {
        match self {
            Self::Shared(_) | Self::Owned(_) => Ok(self),
            Self::Text(_) | Self::Texts(_) | Self::Json(_) => Ok(Self::Owned(self.into_value()?)),
        }
    }

    /// The text, where it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match (self, self.as_value()) {
            (Self::Text(text), _) => Some(text),
            (_, Some(Value::String(text))) => Some(text),
            _ => None,
        }
    }

    /// Whether a statement with this value holds: everything but `false` does.
    pub(super) fn holds(&self) -> bool {
        !matches!(self.as_value(), Some(Value::Bool(false)))
    }

    /// The item at `index`: `None` where there is none, or this is no collection.
    pub(super) fn get(&self, index: &Self) -> Result<Option<Self>, Doubt> {
        match self {
            Self::Text(_) => Ok(None),
            Self::Texts(texts) => {
                let at = index.as_value().and_then(position);
                Ok(at.and_then(|at| texts.get(at)).map(|text| Self::Text(text)))
            }
            Self::Json(json) => {
                let found = if json.kind() == Kind::Object {
                    index.as_text().and_then(|name| json.get(name))
                } else {
                    let at = index.as_value().and_then(position);
                    at.and_then(|at| json.elements().nth(at))
                };
                found.map(Self::of_json).transpose()
            }
            Self::Shared(value) => {
                Ok(index.with_value(|index| item(value, index).map(Self::Shared))?)
            }
            Self::Owned(value) => {
                Ok(index.with_value(|index| item(value, index).cloned().map(Self::Owned))?)
            }
        }
    }

    /// Calls `use_it` with the regorus value.
    fn with_value<T>(&self, use_it: impl FnOnce(&Value) -> T) -> Result<T, Doubt> {
        match self.as_value() {
            Some(value) => Ok(use_it(value)),
            None => Ok(use_it(&self.clone().into_value()?)),
        }
    }

    /// Whether two values are equal.
    pub(super) fn equals(&self, other: &Self) -> Result<bool, Doubt> {
        if let (Some(left), Some(right)) = (self.as_text(), other.as_text()) {
            return Ok(left == right);
        }
        self.with_value(|left| other.with_value(|right| left == right))?
    }

    /// The order of two values of any types, as regorus has it.
    pub(super) fn compare(&self, other: &Self) -> Result<Ordering, Doubt> {
        self.with_value(|left| other.with_value(|right| left.cmp(right)))?
    }

    /// Whether this collection has `value` as an item: for an object, as the value of a member.
    /// Anything that is no collection has no items.
    pub(super) fn contains(&self, value: &Self) -> Result<bool, Doubt> {
        if let (Self::Texts(texts), text) = (self, value.as_text()) {
            return Ok(text.is_some_and(|text| texts.iter().any(|it| &**it == text)));
        }
        self.with_value(|collection| {
            value.with_value(|value| match collection {
                Value::Array(items) => items.contains(value),
                Value::Set(items) => items.contains(value),
                Value::Object(members) => members.values().any(|item| item == value),
                _ => false,
            })
        })?
    }
}

fn inexact() -> Doubt {
    Doubt("a number has no exact value".to_owned())
}

/// A number as the position of an item.
fn position(index: &Value) -> Option<usize> {
    match index {
        Value::Number(number) => number.as_u64().and_then(|at| usize::try_from(at).ok()),
        _ => None,
    }
}

fn item<'v>(collection: &'v Value, index: &Value) -> Option<&'v Value> {
    let found = &collection[index];
    (*found != Value::Undefined).then_some(found)
}
