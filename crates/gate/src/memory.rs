//! Memory that is kept for strangers, counted in bytes: by owner and in total.
//!
//! A table that is bounded in entries alone is not bounded in memory, because a peer chooses how
//! long an id, a name or a URI is. Whatever is kept between two messages on behalf of a client or a
//! server is therefore charged to one [`MemoryBudget`] for as long as it is kept: each entry holds
//! its [`Charge`], which is given back when the entry is dropped. If there is no room, the entry is
//! not kept, and the caller refuses, or forgets something older of the same owner.
//!
//! **Shares.** An owner (a principal) may hold at most as much as is left free for others. One
//! owner alone gets at most half, two that take what they can get a third each, and one that comes
//! later always finds room. So nobody can use up the memory, and no share has to be configured.
//!
//! The sizes are estimates: the lengths of texts, and [`ENTRY_BYTES`] for what surrounds an entry.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use bartizan_sync::lock;

/// What one entry costs besides its texts, bytes: the entry itself, its place in a table, and the
/// allocator's overhead.
pub const ENTRY_BYTES: usize = 256;

/// The bytes that may be kept for all owners together.
pub struct MemoryBudget {
    bytes_max: usize,
    used: Mutex<UsedMemory>,
}

#[derive(Default)]
struct UsedMemory {
    total: usize,
    /// Only owners that hold something.
    by_owner: HashMap<Arc<str>, usize>,
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("bytes_max", &self.bytes_max)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

/// There is no room: in all, or for this owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl MemoryBudget {
    /// A budget of `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: Mutex::default() })
    }

    /// Charges `bytes` to `owner` until the [`Charge`] is dropped.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]: the owner would hold more than would be left free.
    pub fn charge(self: &Arc<Self>, owner: &str, bytes: usize) -> Result<Charge, NoRoom> {
        let mut used = lock(&self.used);
        let owner = used.name(owner);
        used.add(&owner, bytes, self.bytes_max)?;
        drop(used);
        Ok(Charge { budget: Arc::clone(self), owner, bytes })
    }

    /// As [`MemoryBudget::charge`]; shares the name of the owner.
    ///
    /// # Errors
    ///
    /// As [`MemoryBudget::charge`].
    pub fn charge_to(self: &Arc<Self>, owner: &Arc<str>, bytes: usize) -> Result<Charge, NoRoom> {
        lock(&self.used).add(owner, bytes, self.bytes_max)?;
        Ok(Charge { budget: Arc::clone(self), owner: Arc::clone(owner), bytes })
    }

    /// Charges `bytes` to `owner` even if there is no room, for what another limit bounds and what
    /// cannot be refused: a copy that exists already, a message that ends something.
    pub fn count(self: &Arc<Self>, owner: &str, bytes: usize) -> Charge {
        let mut used = lock(&self.used);
        let owner = used.name(owner);
        used.count(&owner, bytes);
        drop(used);
        Charge { budget: Arc::clone(self), owner, bytes }
    }

    /// The bytes charged now, to all owners.
    pub fn used(&self) -> usize {
        lock(&self.used).total
    }

    /// The bytes charged now to `owner`.
    pub fn used_by(&self, owner: &str) -> usize {
        lock(&self.used).by_owner.get(owner).copied().unwrap_or_default()
    }

    /// The bytes that may be charged to all owners together.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}

impl UsedMemory {
    fn name(&self, owner: &str) -> Arc<str> {
        match self.by_owner.get_key_value(owner) {
            Some((owner, _)) => Arc::clone(owner),
            None => Arc::from(owner),
        }
    }

    fn count(&mut self, owner: &Arc<str>, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.total = self.total.saturating_add(bytes);
        match self.by_owner.get_mut(owner) {
            Some(own) => *own = own.saturating_add(bytes),
            None => _ = self.by_owner.insert(Arc::clone(owner), bytes),
        }
    }

    fn add(&mut self, owner: &Arc<str>, bytes: usize, bytes_max: usize) -> Result<(), NoRoom> {
        if bytes == 0 {
            return Ok(());
        }
        let total = self.total.checked_add(bytes).ok_or(NoRoom)?;
        let free = bytes_max.checked_sub(total).ok_or(NoRoom)?;
        if let Some(own) = self.by_owner.get_mut(owner) {
            *own = own.checked_add(bytes).filter(|own| *own <= free).ok_or(NoRoom)?;
        } else if bytes <= free {
            self.by_owner.insert(Arc::clone(owner), bytes);
        } else {
            return Err(NoRoom);
        }
        self.total = total;
        Ok(())
    }

    fn give_back(&mut self, owner: &Arc<str>, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.total = self.total.saturating_sub(bytes);
        if let Some(own) = self.by_owner.get_mut(owner) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                self.by_owner.remove(owner);
            }
        }
    }
}

/// Bytes charged to an owner; dropping it gives them back. A copy is charged, too, even if there is
/// no room: it stands for a copy of the entry, which exists.
pub struct Charge {
    budget: Arc<MemoryBudget>,
    owner: Arc<str>,
    bytes: usize,
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Charge {
    /// The bytes of this charge.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes the charge to `bytes`. Making it smaller always succeeds.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] for the difference; the charge stays as it was.
    pub fn resize(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let mut used = lock(&self.budget.used);
        match bytes.checked_sub(self.bytes) {
            Some(more) => used.add(&self.owner, more, self.budget.bytes_max)?,
            None => used.give_back(&self.owner, self.bytes.saturating_sub(bytes)),
        }
        drop(used);
        self.bytes = bytes;
        Ok(())
    }
}

impl Charge {
    /// Splits `bytes` off, for a part of the entry that outlives it. What this charge does not have
    /// is counted even if there is no room.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let mut part = Self {
            budget: Arc::clone(&self.budget),
            owner: Arc::clone(&self.owner),
            bytes: bytes.min(self.bytes),
        };
        self.bytes = self.bytes.saturating_sub(bytes);
        part.count_up_to(bytes);
        part
    }

    /// Adds `other`, of the same owner, to this charge.
    pub fn join(&mut self, mut other: Self) {
        if self.owner == other.owner && Arc::ptr_eq(&self.budget, &other.budget) {
            self.bytes = self.bytes.saturating_add(std::mem::take(&mut other.bytes));
        } else {
            let bytes = self.bytes.saturating_add(other.bytes);
            self.count_up_to(bytes);
        }
    }

    /// Makes the charge at least `bytes`, even if there is no room.
    fn count_up_to(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            lock(&self.budget.used).count(&self.owner, more);
            self.bytes = self.bytes.saturating_add(more);
        }
    }
}

impl Clone for Charge {
    fn clone(&self) -> Self {
        lock(&self.budget.used).count(&self.owner, self.bytes);
        Self { budget: Arc::clone(&self.budget), owner: Arc::clone(&self.owner), bytes: self.bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            lock(&self.budget.used).give_back(&self.owner, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_may_hold_what_is_left_free() {
        let budget = MemoryBudget::new(1000);
        assert_eq!(budget.charge("a", 501).map(|_| ()), Err(NoRoom));
        let half = budget.charge("a", 500).unwrap();
        assert_eq!(budget.charge("a", 1).map(|_| ()), Err(NoRoom));
        let quarter = budget.charge("b", 250).unwrap();
        assert_eq!(budget.charge("b", 1).map(|_| ()), Err(NoRoom));
        let _eighth = budget.charge("c", 125).unwrap();
        assert_eq!((budget.used(), budget.used_by("a"), budget.used_by("c")), (875, 500, 125));
        drop((half, quarter));
        assert_eq!((budget.used(), budget.used_by("a")), (125, 0));
        assert!(budget.charge("a", usize::MAX).is_err());
        assert_eq!(budget.used(), 125);
    }

    #[test]
    fn greedy_owners_leave_room_for_one_more() {
        const STEP: usize = 10;
        let budget = MemoryBudget::new(100_000);
        let mut kept = Vec::new();
        for _ in 0..10_000 {
            for owner in ["a", "b", "c", "d"] {
                kept.extend(budget.charge(owner, STEP));
            }
        }
        for owner in ["a", "b", "c", "d"] {
            assert!(budget.used_by(owner) >= 20_000 - STEP, "{}", budget.used_by(owner));
        }
        kept.extend(budget.charge("late", 10_000 - STEP));
        assert_eq!(budget.used_by("late"), 10_000 - STEP);
    }

    #[test]
    fn parts_copies_and_what_cannot_be_refused_are_counted_once_each() {
        let budget = MemoryBudget::new(100);
        let mut whole = budget.charge("a", 40).unwrap();
        let part = whole.split(15);
        assert_eq!((whole.bytes(), part.bytes(), budget.used()), (25, 15, 40));
        let copy = part.clone();
        assert_eq!(budget.used_by("a"), 55, "beyond what may be asked for");
        assert!(budget.charge("a", 1).is_err());
        drop(whole);
        let mut rest = part;
        rest.join(copy);
        assert_eq!((rest.bytes(), budget.used()), (30, 30));
        let over = rest.split(50);
        assert_eq!((rest.bytes(), over.bytes(), budget.used()), (0, 50, 50));
        let forced = budget.count("b", 200);
        assert_eq!(budget.used(), 250);
        rest.join(budget.count("b", 1));
        assert_eq!((rest.bytes(), budget.used_by("b")), (1, 200));
        drop((rest, over, forced));
        assert_eq!(budget.used(), 0);
        assert!(lock(&budget.used).by_owner.is_empty());
    }

    #[test]
    fn a_charge_grows_and_shrinks_with_what_it_is_for() {
        let budget = MemoryBudget::new(100);
        let mut charge = budget.charge("a", 10).unwrap();
        assert_eq!(charge.resize(50), Ok(()));
        assert_eq!(charge.resize(51), Err(NoRoom));
        assert_eq!((charge.bytes(), budget.used()), (50, 50));
        assert_eq!(charge.resize(5), Ok(()));
        assert_eq!(charge.resize(0), Ok(()));
        assert_eq!(budget.used(), 0);
        assert_eq!(charge.resize(1), Ok(()));
        drop(charge);
        assert!(lock(&budget.used).by_owner.is_empty());
    }
}
