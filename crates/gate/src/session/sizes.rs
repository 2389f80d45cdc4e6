//! What the parts of entries in a session's tables cost, for the budget of memory ([`crate::memory`]).
//!
//! An entry counts with the texts that a peer chose and with a fixed part for the rest. The fixed
//! parts are above what the entries measure, so that the sum is an upper bound.

use crate::duty::decision::Limit;
use crate::duty::redact::Redaction;
use crate::memory::ENTRY_BYTES;
use crate::question::operation::{OnSuccess, Operation};
use crate::wire::frame::Id;

/// The fixed part of a task, bytes.
pub(super) const TASK_BYTES: usize = 2 * ENTRY_BYTES;

/// What a text costs besides its bytes.
const TEXT_BYTES: usize = 24;

/// The bytes of texts.
pub(super) fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> usize {
    let bytes = texts.into_iter().map(|text| text.len().saturating_add(TEXT_BYTES));
    bytes.fold(0, usize::saturating_add)
}

/// The bytes of an id.
pub(super) fn id(id: &Id) -> usize {
    match id {
        Id::Number(_) => 0,
        Id::Text(text) => texts([&**text]),
    }
}

/// The bytes of redactions.
pub(super) fn redactions(redactions: &[Redaction]) -> usize {
    let pointers = redactions.iter().map(|it| match it {
        Redaction::Pointer(pointer) => &**pointer,
        Redaction::Secrets => "",
    });
    texts(pointers)
}

/// The bytes of limits.
pub(super) fn limits(limits: &[Limit]) -> usize {
    let names = limits.iter().flat_map(|limit| [&*limit.code, &*limit.key]);
    texts(names).saturating_add(size_of_val(limits))
}

/// The bytes of an operation.
pub(super) fn operation(operation: &Operation) -> usize {
    let Operation { name, environments, tags, pack, .. } = operation;
    let lists = environments.iter().chain(tags).map(|text| &**text);
    texts(lists.chain(name.as_deref()).chain(pack.as_deref()))
}

/// The bytes of what a call changes if it succeeds.
pub(super) fn on_success(on_success: &OnSuccess) -> usize {
    let facts = on_success.facts.iter();
    let facts = facts.map(|fact| {
        let value = fact.value.as_deref().unwrap_or_default();
        texts([&*fact.name, value]).saturating_add(size_of_val(fact))
    });
    facts.fold(ENTRY_BYTES, usize::saturating_add)
}
