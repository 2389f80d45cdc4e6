//! The ids that one side of a session has used for its requests.
//!
//! MCP forbids to use an id twice in one session (2025-11-25 and 2026-07-28, basic, "Requests"), and
//! the gate relies on it: an answer is matched with its request by the id alone, and a server may
//! answer a request that has long ended. So ids of ended requests are remembered for the whole
//! session. Integers are kept as runs of neighbours, of which a client that counts needs one; other
//! ids as keyed hashes. The memory is bounded; at the bound no further request is taken.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::memory::Charge;
use crate::wire::frame::Id;

/// Memory of one run of integers, bytes, with its share of the tree.
pub(super) const RUN_BYTES: usize = 48;
/// Memory of one hash, bytes, with its share of the tree.
const HASH_BYTES: usize = 24;
/// Memory for ids that every session may use, bytes, however much the others use.
const SESSION_BYTES_FREE: usize = 1536;
/// Memory for ids of one session over HTTP, bytes: ten thousand ids that follow no order.
pub(super) const SESSION_BYTES_MAX: usize = 256 << 10;
/// Memory for ids of all sessions with one server, bytes.
pub(super) const SERVER_BYTES_MAX: usize = 16 << 20;

/// Memory for ids that all sessions with one server use, bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct IdMemory(Arc<AtomicUsize>);

/// The ids that one side has used. `1` and `"1"` count as one id, because servers exist that do not
/// tell them apart.
#[derive(Debug)]
pub(super) struct UsedIds {
    /// First and last of each run of integers; no two runs overlap or touch.
    runs: BTreeMap<i64, i64>,
    /// Hashes of ids that are not integers. Two ids with one hash count as one.
    hashes: BTreeSet<u64>,
    hasher: RandomState,
    /// Bytes that this table uses.
    bytes: usize,
    bytes_max: usize,
    /// What all sessions with the server use; this table's bytes are counted in it.
    shared: IdMemory,
    /// What the table is charged for; absent while it is empty.
    charge: Option<Charge>,
}

/// How an id is kept.
enum Key {
    Number(i64),
    Hash(u64),
}

impl UsedIds {
    /// An empty table that may use `bytes_max` bytes and counts them in `shared`.
    pub(super) fn new(shared: IdMemory, bytes_max: usize) -> Self {
        Self {
            runs: BTreeMap::new(),
            hashes: BTreeSet::new(),
            hasher: RandomState::new(),
            bytes: 0,
            bytes_max,
            shared,
            charge: None,
        }
    }

    /// Whether `id`, or one that reads alike, has been used.
    pub(super) fn contains(&self, id: &Id) -> bool {
        match self.key(id) {
            Key::Number(number) => {
                let before = self.runs.range(..=number).next_back();
                before.is_some_and(|(_, last)| *last >= number)
            }
            Key::Hash(hash) => self.hashes.contains(&hash),
        }
    }

    /// Whether `more` further ids can be remembered, whatever they are.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let grown = self.bytes.saturating_add(more.saturating_mul(RUN_BYTES));
        let all = self.shared.0.load(Ordering::Relaxed);
        grown <= SESSION_BYTES_FREE || (grown <= self.bytes_max && all < SERVER_BYTES_MAX)
    }

    /// Remembers `id`. Whoever calls it has asked [`UsedIds::has_room`] before the id was used, and
    /// has charged [`RUN_BYTES`] for it with the request, in `of`.
    pub(super) fn insert(&mut self, id: &Id, of: &mut Charge) {
        match self.key(id) {
            Key::Number(number) => self.insert_number(number),
            Key::Hash(hash) => {
                self.hashes.insert(hash);
            }
        }
        self.recount();
        match &mut self.charge {
            Some(charge) => {
                let more = self.bytes.saturating_sub(charge.bytes());
                if more > 0 {
                    charge.join(of.split(more));
                } else {
                    // Making a charge smaller always succeeds.
                    charge.resize(self.bytes).unwrap_or_default();
                }
            }
            none => *none = Some(of.split(self.bytes)),
        }
    }

    fn insert_number(&mut self, number: i64) {
        let before = self.runs.range(..=number).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= number) {
            return;
        }
        let after = number.checked_add(1).and_then(|next| self.runs.remove(&next));
        let touches = before.filter(|(_, last)| last.checked_add(1) == Some(number));
        self.runs.insert(touches.map_or(number, |(first, _)| first), after.unwrap_or(number));
    }

    fn recount(&mut self) {
        let runs = self.runs.len().saturating_mul(RUN_BYTES);
        let bytes = runs.saturating_add(self.hashes.len().saturating_mul(HASH_BYTES));
        self.shared.0.fetch_add(bytes, Ordering::Relaxed);
        self.shared.0.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }

    /// Forgets every id: the other side of the session has changed.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.hashes.clear();
        self.recount();
        self.charge = None;
    }

    fn key(&self, id: &Id) -> Key {
        match id {
            Id::Number(number) => Key::Number(*number),
            Id::Text(text) => match integer(text) {
                Some(number) => Key::Number(number),
                None => Key::Hash(self.hasher.hash_one(text)),
            },
        }
    }
}

impl Clone for UsedIds {
    fn clone(&self) -> Self {
        self.shared.0.fetch_add(self.bytes, Ordering::Relaxed);
        Self {
            runs: self.runs.clone(),
            hashes: self.hashes.clone(),
            hasher: self.hasher.clone(),
            bytes: self.bytes,
            bytes_max: self.bytes_max,
            shared: self.shared.clone(),
            charge: self.charge.clone(),
        }
    }
}

impl Drop for UsedIds {
    fn drop(&mut self) {
        self.shared.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The integer that `text` is the shortest spelling of.
fn integer(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (number.to_string() == *text).then_some(number)
}

/// The id of the other type with the same text, where there is one.
pub(super) fn alike(id: &Id) -> Option<Id> {
    match id {
        Id::Number(number) => Some(Id::Text(number.to_string().into())),
        Id::Text(text) => integer(text).map(Id::Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryBudget;

    fn text(text: &str) -> Id {
        Id::Text(text.into())
    }

    fn paid() -> Charge {
        MemoryBudget::new(64 << 20).charge("a", 2 << 20).unwrap()
    }

    fn table(shared: &IdMemory) -> UsedIds {
        UsedIds::new(shared.clone(), SESSION_BYTES_MAX)
    }

    #[test]
    fn integers_in_any_order_become_runs() {
        let mut used = table(&IdMemory::default());
        for number in [5, 1, 3, 2, 4, 7, -1, 7, i64::MAX, i64::MIN] {
            assert!(!used.contains(&Id::Number(number)) || number == 7);
            used.insert(&Id::Number(number), &mut paid());
            assert!(used.contains(&Id::Number(number)));
        }
        let runs: Vec<_> = used.runs.iter().map(|(first, last)| (*first, *last)).collect();
        let ends = (i64::MIN, i64::MAX);
        assert_eq!(runs, [(ends.0, ends.0), (-1, -1), (1, 5), (7, 7), (ends.1, ends.1)]);
        for absent in [0, 6, 8, -2] {
            assert!(!used.contains(&Id::Number(absent)), "{absent}");
        }
    }

    #[test]
    fn an_integer_and_its_text_are_one_id_and_other_texts_are_not() {
        let mut used = table(&IdMemory::default());
        used.insert(&text("7"), &mut paid());
        used.insert(&text("a"), &mut paid());
        assert!(used.contains(&Id::Number(7)) && used.contains(&text("7")));
        for other in ["07", "+7", " 7", "7.0", "b", ""] {
            assert!(!used.contains(&text(other)), "{other:?}");
        }
        assert_eq!(alike(&Id::Number(-3)), Some(text("-3")));
        assert_eq!(alike(&text("12")), Some(Id::Number(12)));
        assert_eq!(alike(&text("012")), None);
    }

    #[test]
    fn memory_is_counted_shared_and_given_back() {
        let shared = IdMemory::default();
        let budget = MemoryBudget::new(64 << 20);
        let mut paid = budget.charge("a", 2 << 20).unwrap();
        let mut used = table(&shared);
        let mut count: u32 = 0;
        while used.has_room(1) {
            used.insert(&text(&format!("id {count}")), &mut paid);
            count += 1;
        }
        assert!(used.bytes <= SESSION_BYTES_MAX && count > 10_000, "{count}");
        assert_eq!(budget.used(), 2 << 20, "what the requests were charged became the table's");
        let copy = used.clone();
        assert_eq!(budget.used(), (2 << 20) + used.bytes);
        assert_eq!(shared.0.load(Ordering::Relaxed), 2 * used.bytes);
        drop(copy);
        shared.0.fetch_add(SERVER_BYTES_MAX, Ordering::Relaxed);
        let mut late = table(&shared);
        let mut few: u32 = 0;
        while late.has_room(1) {
            late.insert(&text(&format!("id {few}")), &mut paid);
            few += 1;
        }
        assert!((32..64).contains(&few), "every session may remember some: {few}");
        drop(late);
        used.clear();
        assert!(used.has_room(1) || used.bytes == 0);
        drop(used);
        assert_eq!(shared.0.load(Ordering::Relaxed), SERVER_BYTES_MAX);
        drop(paid);
        assert_eq!(budget.used(), 0);
    }
}
