//! Values during an evaluation: what stands in the request or in the policy stays where it is.
//!
//! An [`Operand`] becomes a regorus value only where a built-in without a form of its own needs
//! one. Order and equality are those of regorus.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bartizan_gate::wire::document::{self, Kind};
use regorus::Value;
use regorus::value::Object;

use super::Doubt;
use super::part::{Part, Piece};
use crate::number;
use crate::reads::ReadSet;
use crate::value::{Pointer, convert};

/// Up to so many members, an object is searched for a text one by one, without a value for the text.
const SEARCHED_MAX: usize = 16;

/// A defined value.
#[derive(Debug, Clone)]
pub(crate) enum Operand<'v> {
    /// A boolean.
    Bool(bool),
    /// A text of the request.
    Text(&'v str),
    /// An array or object of the request that is not JSON.
    Part(Part<'v>),
    /// An array or object of the message.
    Json(document::Value<'v>),
    /// A value of the program, of the data or of a rule.
    Shared(&'v Value),
    /// A value that this evaluation made.
    Owned(Value),
    /// An array that this evaluation made.
    Array(Rc<[Self]>),
    /// A set that this evaluation made: in order, without duplicates.
    Set(Rc<[Self]>),
    /// An object that this evaluation made: its names, and the values in their order.
    Record(&'v Names, Rc<[Self]>),
}

/// The names of an object's members, which the policy's text gives.
#[derive(Debug)]
pub(crate) struct Names {
    /// The names, texts, in order.
    pub(crate) sorted: Box<[Value]>,
    /// For each member in the order of the policy's text, its place in `sorted`.
    pub(super) places: Box<[usize]>,
}

impl Names {
    /// The place of a name.
    fn place(&self, name: &str) -> Option<usize> {
        self.sorted.iter().position(|known| matches!(known, Value::String(it) if **it == *name))
    }
}

/// The types of values, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Type {
    /// Null.
    Null,
    /// A boolean.
    Bool,
    /// A number.
    Number,
    /// A text.
    Text,
    /// An array.
    Array,
    /// A set.
    Set,
    /// An object.
    Object,
}

impl Type {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null | Value::Undefined => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::Text,
            Value::Array(_) => Self::Array,
            Value::Set(_) => Self::Set,
            Value::Object(_) => Self::Object,
        }
    }

    /// Whether it has items.
    pub(super) fn is_collection(self) -> bool {
        matches!(self, Self::Array | Self::Set | Self::Object)
    }
}

impl<'v> From<Piece<'v>> for Operand<'v> {
    fn from(piece: Piece<'v>) -> Self {
        match piece {
            Piece::Text(text) => Self::Text(text),
            Piece::Part(part) => Self::Part(part),
            Piece::Built(value) => Self::Owned(value),
        }
    }
}

impl<'v> Operand<'v> {
    /// A value of the message. A number without an exact value is in doubt.
    pub(super) fn of_json(json: document::Value<'v>) -> Result<Self, Doubt> {
        Ok(match json.kind() {
            Kind::Null => Self::Owned(Value::Null),
            Kind::Bool => Self::Bool(json.as_bool().unwrap_or(false)),
            Kind::String => Self::Text(json.as_str().unwrap_or_default()),
            Kind::Number => Self::Owned(
                number::exact(json.as_number().unwrap_or_default()).ok_or_else(inexact)?,
            ),
            Kind::Array | Kind::Object => Self::Json(json),
        })
    }

    /// A set of these elements, none of them [`Operand::Json`].
    pub(super) fn set_of(mut items: Vec<Self>) -> Self {
        if items.len() > 1 {
            items.sort_by(Self::order);
            items.dedup_by(|a, b| a.order(b) == Ordering::Equal);
        }
        Self::Set(items.into())
    }

    /// The value as regorus has it.
    pub(crate) fn into_value(self) -> Result<Value, Doubt> {
        Ok(match self {
            Self::Bool(truth) => Value::Bool(truth),
            Self::Text(text) => Value::from(text),
            Self::Part(part) => part.build(),
            Self::Json(json) => {
                let mut lossy = Vec::new();
                let everything = ReadSet::everything();
                let value = convert(json, &everything, &mut Pointer::root(), &mut lossy);
                if lossy.is_empty() { value } else { return Err(inexact()) }
            }
            Self::Shared(value) => value.clone(),
            Self::Owned(value) => value,
            Self::Array(items) => Value::from(values(&items)?.collect::<Vec<_>>()),
            Self::Set(items) => Value::from(values(&items)?.collect::<BTreeSet<_>>()),
            Self::Record(names, items) => {
                let members = names.sorted.iter().cloned().zip(values(&items)?);
                Value::from(members.collect::<BTreeMap<_, _>>())
            }
        })
    }

    /// The same in a form that can be an item of a collection and has an order.
    pub(super) fn stored(self) -> Result<Self, Doubt> {
        match self {
            Self::Json(_) | Self::Part(_) => Ok(Self::Owned(self.into_value()?)),
            other => Ok(other),
        }
    }

    /// The regorus value behind it, where there is one.
    pub(crate) fn as_value(&self) -> Option<&Value> {
        match self {
            Self::Shared(value) => Some(value),
            Self::Owned(value) => Some(value),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Shared(Value::String(text)) | Self::Owned(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Its type.
    pub(crate) fn kind(&self) -> Type {
        match self {
            Self::Bool(_) => Type::Bool,
            Self::Text(_) => Type::Text,
            Self::Part(part) if part.is_array() => Type::Array,
            Self::Json(json) if json.kind() == Kind::Array => Type::Array,
            Self::Array(_) => Type::Array,
            Self::Set(_) => Type::Set,
            Self::Part(_) | Self::Json(_) | Self::Record(..) => Type::Object,
            Self::Shared(value) => Type::of(value),
            Self::Owned(value) => Type::of(value),
        }
    }

    /// How many items it has; `None` where it is no collection, or must be built to know it.
    pub(crate) fn len(&self) -> Option<usize> {
        match self {
            Self::Bool(_) | Self::Text(_) => None,
            Self::Part(part) => part.array_len(),
            Self::Json(json) => Some(json.len()),
            Self::Array(items) | Self::Set(items) | Self::Record(_, items) => Some(items.len()),
            Self::Shared(_) | Self::Owned(_) => match self.as_value() {
                Some(Value::Array(items)) => Some(items.len()),
                Some(Value::Set(items)) => Some(items.len()),
                Some(Value::Object(members)) => Some(members.len()),
                _ => None,
            },
        }
    }

    /// Whether a statement with this value holds: everything but `false` does.
    pub(super) fn holds(&self) -> bool {
        !matches!(
            self,
            Self::Bool(false) | Self::Shared(Value::Bool(false)) | Self::Owned(Value::Bool(false))
        )
    }

    /// The item at `index`: `None` where there is none, or this is no collection.
    pub(crate) fn get(&self, index: &Operand<'_>) -> Result<Option<Self>, Doubt> {
        let at = || index.as_value().and_then(position);
        match self {
            Self::Bool(_) | Self::Text(_) => Ok(None),
            Self::Part(part) if part.is_array() => {
                Ok(at().and_then(|at| part.item(at)).map(Self::from))
            }
            Self::Part(part) => {
                Ok(index.as_text().and_then(|name| part.member(name)).map(Self::from))
            }
            Self::Json(json) => {
                let found = if json.kind() == Kind::Object {
                    index.as_text().and_then(|name| json.get(name))
                } else {
                    at().and_then(|at| json.elements().nth(at))
                };
                found.map(Self::of_json).transpose()
            }
            Self::Array(items) => Ok(at().and_then(|at| items.get(at)).cloned()),
            Self::Set(items) => {
                let index = index.settled()?;
                let found = items.binary_search_by(|item| item.order(&index));
                Ok(found.ok().and_then(|at| items.get(at)).cloned())
            }
            Self::Record(names, items) => {
                let place = index.as_text().and_then(|name| names.place(name));
                Ok(place.and_then(|at| items.get(at)).cloned())
            }
            Self::Shared(value) => Ok(item(value, index)?.map(Self::Shared)),
            Self::Owned(value) => Ok(item(value, index)?.cloned().map(Self::Owned)),
        }
    }

    /// Calls `use_it` with the regorus value.
    fn with_value<T>(&self, use_it: impl FnOnce(&Value) -> T) -> Result<T, Doubt> {
        match self.as_value() {
            Some(value) => Ok(use_it(value)),
            None => Ok(use_it(&self.clone().into_value()?)),
        }
    }

    /// The same in a form that has an order.
    fn settled(&self) -> Result<Cow<'_, Self>, Doubt> {
        match self {
            Self::Json(_) | Self::Part(_) => Ok(Cow::Owned(self.clone().stored()?)),
            other => Ok(Cow::Borrowed(other)),
        }
    }

    /// Whether two values are equal.
    pub(super) fn equals(&self, other: &Self) -> Result<bool, Doubt> {
        if let (Some(left), Some(right)) = (self.as_text(), other.as_text()) {
            return Ok(left == right);
        }
        if self.kind() != other.kind() {
            return Ok(false);
        }
        if let (Some(left), Some(right)) = (self.len(), other.len())
            && left != right
        {
            return Ok(false);
        }
        Ok(self.compare(other)? == Ordering::Equal)
    }

    /// The order of two values of any types, as regorus has it.
    pub(super) fn compare(&self, other: &Self) -> Result<Ordering, Doubt> {
        Ok(self.settled()?.order(&*other.settled()?))
    }

    /// [`Operand::compare`] for values that are stored in collections.
    fn order(&self, other: &Self) -> Ordering {
        if let (Some(left), Some(right)) = (self.as_value(), other.as_value()) {
            return left.cmp(right);
        }
        let (kind, other_kind) = (self.kind(), other.kind());
        if kind != other_kind {
            return kind.cmp(&other_kind);
        }
        match kind {
            Type::Text => self.as_text().cmp(&other.as_text()),
            Type::Bool => self.holds().cmp(&other.holds()),
            Type::Array | Type::Set => {
                let (left, right) = (self.list(), other.list());
                let mut pairs = left.iter().zip(right.iter()).map(|(a, b)| a.order(b));
                let unequal = pairs.find(|it| it.is_ne());
                unequal.unwrap_or_else(|| left.len().cmp(&right.len()))
            }
            Type::Object => self.order_of_members(other),
            // Each of these has a regorus value behind it.
            Type::Null | Type::Number => Ordering::Equal,
        }
    }

    fn order_of_members(&self, other: &Self) -> Ordering {
        let (left, right) = (self.members(), other.members());
        let pairs = left.iter().zip(right.iter());
        let mut orders = pairs.map(|((key, item), (other_key, other))| {
            key.cmp(other_key).then_with(|| item.order(other))
        });
        let unequal = orders.find(|it| it.is_ne());
        unequal.unwrap_or_else(|| left.len().cmp(&right.len()))
    }

    /// The items of an array or set.
    fn list(&self) -> Cow<'_, [Operand<'_>]> {
        match (self, self.as_value()) {
            (Self::Array(items) | Self::Set(items), _) => Cow::Borrowed(items),
            (_, Some(Value::Array(items))) => items.iter().map(Operand::Shared).collect(),
            (_, Some(Value::Set(items))) => items.iter().map(Operand::Shared).collect(),
            _ => Cow::Borrowed(&[]),
        }
    }

    /// The members of an object, in order.
    fn members(&self) -> Vec<(&Value, Operand<'_>)> {
        match (self, self.as_value()) {
            (Self::Record(names, items), _) => {
                names.sorted.iter().zip(items.iter().cloned()).collect()
            }
            (_, Some(Value::Object(members))) => {
                members.iter().map(|(key, item)| (key, Operand::Shared(item))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether this collection has `value` as an item: for an object, as the value of a member.
    /// Anything that is no collection has no items.
    pub(super) fn contains(&self, value: &Self) -> Result<bool, Doubt> {
        match (self, value.as_text()) {
            (Self::Part(Part::Texts(texts)), text) => {
                return Ok(text.is_some_and(|text| texts.iter().any(|it| &**it == text)));
            }
            (Self::Part(Part::Flags(flags)), text) => {
                return Ok(text.is_some_and(|text| flags.contains(&text)));
            }
            (Self::Json(json), Some(text)) if json.kind() == Kind::Array => {
                return Ok(json.elements().any(|it| it.as_str() == Some(text)));
            }
            (Self::Array(items) | Self::Record(_, items), _) => {
                let value = value.settled()?;
                return Ok(items.iter().any(|item| item.order(&value) == Ordering::Equal));
            }
            (Self::Set(items), _) => {
                let value = value.settled()?;
                return Ok(items.binary_search_by(|item| item.order(&value)).is_ok());
            }
            (Self::Shared(Value::Array(items)), Some(text)) => {
                return Ok(items.iter().any(|it| matches!(it, Value::String(it) if **it == *text)));
            }
            _ => {}
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

fn values(items: &[Operand<'_>]) -> Result<std::vec::IntoIter<Value>, Doubt> {
    let values: Result<Vec<Value>, Doubt> =
        items.iter().map(|item| item.clone().into_value()).collect();
    Ok(values?.into_iter())
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

/// The member of an object with this text as its name.
fn member<'v>(object: &'v Object, name: &str) -> Option<&'v Value> {
    if object.len() > SEARCHED_MAX {
        return object.get(&Value::from(name));
    }
    let mut members = object.iter();
    members.find_map(|(key, item)| match key {
        Value::String(known) if **known == *name => Some(item),
        _ => None,
    })
}

fn item<'v>(collection: &'v Value, index: &Operand<'_>) -> Result<Option<&'v Value>, Doubt> {
    if let (Value::Object(object), Operand::Text(name)) = (collection, index) {
        return Ok(member(object, name));
    }
    if !Type::of(collection).is_collection() {
        return Ok(None);
    }
    index.with_value(|index| {
        let found = &collection[index];
        (*found != Value::Undefined).then_some(found)
    })
}
