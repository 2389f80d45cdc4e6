//! Collections of the request that are read where they stand.
//!
//! A [`Part`] is an array or object of the document `input` that no value was built for: its items
//! are found in the access request. `crate::input` says what the document holds, and builds the
//! value of a part where one is needed.

use std::collections::BTreeMap;

use bartizan_gate::duty::pdp::ListEntry;
use bartizan_gate::question::operation::Operation;
use bartizan_gate::question::pack::BaselineRate;
use bartizan_gate::question::status::Drift;
use regorus::Value;

use crate::input;
use crate::reads::ReadSet;

/// An array or object of the input.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'r> {
    /// An array of texts.
    Texts(&'r [Box<str>]),
    /// An array of the flags of a definition.
    Flags(&'r [&'static str]),
    /// An object with texts as values.
    Map(&'r BTreeMap<Box<str>, Box<str>>),
    /// The vendor's rates by effect.
    Rates(&'r BTreeMap<Box<str>, BaselineRate>),
    /// One of them.
    Rate(&'r BaselineRate),
    /// An operation.
    Operation(&'r Operation),
    /// The entries of a page, and whether their definitions are read.
    Entries(&'r [ListEntry<'r>], bool),
    /// One of them.
    Entry(&'r ListEntry<'r>, bool),
}

/// An item of a [`Part`].
#[derive(Debug, Clone)]
pub(crate) enum Piece<'r> {
    /// A text of the request.
    Text(&'r str),
    /// A collection of the request.
    Part(Part<'r>),
    /// A value that was built.
    Built(Value),
}

impl<'r> Part<'r> {
    /// Whether it is an array; else it is an object.
    pub(super) fn is_array(self) -> bool {
        matches!(self, Self::Texts(_) | Self::Flags(_) | Self::Entries(..))
    }

    /// How many items an array has; `None` for an object.
    pub(super) fn array_len(self) -> Option<usize> {
        match self {
            Self::Texts(texts) => Some(texts.len()),
            Self::Flags(flags) => Some(flags.len()),
            Self::Entries(entries, _) => Some(entries.len()),
            Self::Map(_)
            | Self::Rates(_)
            | Self::Rate(_)
            | Self::Operation(_)
            | Self::Entry(..) => None,
        }
    }

    /// The item of an array.
    pub(super) fn item(self, at: usize) -> Option<Piece<'r>> {
        match self {
            Self::Texts(texts) => texts.get(at).map(|text| Piece::Text(text)),
            Self::Flags(flags) => flags.get(at).map(|flag| Piece::Text(flag)),
            Self::Entries(entries, whole) => {
                entries.get(at).map(|entry| Piece::Part(Self::Entry(entry, whole)))
            }
            Self::Map(_)
            | Self::Rates(_)
            | Self::Rate(_)
            | Self::Operation(_)
            | Self::Entry(..) => None,
        }
    }

    /// The member of an object.
    pub(super) fn member(self, name: &str) -> Option<Piece<'r>> {
        match self {
            Self::Texts(_) | Self::Flags(_) | Self::Entries(..) => None,
            Self::Map(texts) => texts.get(name).map(|text| Piece::Text(text)),
            Self::Rates(rates) => rates.get(name).map(|rate| Piece::Part(Self::Rate(rate))),
            Self::Rate(rate) => match name {
                "rate" => Some(Piece::Text(&rate.rate)),
                "burst" => Some(Piece::Built(Value::from(u64::from(rate.burst)))),
                _ => None,
            },
            Self::Operation(operation) => of_operation(operation, name),
            Self::Entry(entry, whole) => of_entry(entry, whole, name),
        }
    }

    /// The value, as the document `input` has it.
    pub(super) fn build(self) -> Value {
        let everything = ReadSet::everything();
        match self {
            Self::Texts(texts) => input::strings(texts),
            Self::Flags(flags) => input::flags(flags),
            Self::Map(texts) => input::map(texts, &everything),
            Self::Rates(rates) => input::rates(rates),
            Self::Rate(rate) => input::rate(rate),
            Self::Operation(operation) => input::operation(operation, &everything),
            Self::Entries(entries, whole) => {
                let entries = entries.iter().map(|it| input::entry(it, whole, &everything));
                Value::from(entries.collect::<Vec<_>>())
            }
            Self::Entry(entry, whole) => input::entry(entry, whole, &everything),
        }
    }
}

fn of_operation<'r>(operation: &'r Operation, name: &str) -> Option<Piece<'r>> {
    match name {
        "name" => operation.name.as_deref().map(Piece::Text),
        "effect" => Some(Piece::Text(operation.effect.as_str())),
        "environments" => Some(Piece::Part(Part::Texts(&operation.environments))),
        "environment_source" => Some(Piece::Text(operation.environment_source.as_str())),
        "tags" => Some(Piece::Part(Part::Texts(&operation.tags))),
        "pack" => operation.pack.as_deref().map(Piece::Text),
        _ => None,
    }
}

fn of_entry<'r>(entry: &'r ListEntry<'r>, whole: bool, name: &str) -> Option<Piece<'r>> {
    match name {
        "name" => Some(Piece::Text(entry.name)),
        "definition_digest" => Some(Piece::Text(entry.digest)),
        "definition" => {
            let value = entry.definition.filter(|_| whole)?;
            Some(Piece::Built(input::definition(value, &ReadSet::everything())))
        }
        "drift" => entry.status.drift.map(Drift::as_str).map(Piece::Text),
        "flags" => {
            let flags = entry.status.flags;
            (!flags.is_empty()).then_some(Piece::Part(Part::Flags(flags)))
        }
        "operation" => entry.operation.as_ref().map(|it| Piece::Part(Part::Operation(it))),
        _ => None,
    }
}
