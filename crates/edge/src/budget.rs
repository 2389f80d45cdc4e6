//! Bounded counters of resources in use: exchanges, streams, bytes. Reserving never waits.
//!
//! A [`Budget`] refuses what does not fit. A [`YieldingBudget`] takes it from whoever has held
//! something longest without being done, so that a peer that is slow keeps its part only as long as
//! nobody else needs it (threat K2).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bartizan_sync::lock;
use tokio_util::sync::CancellationToken;

/// A bounded counter.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicU64,
    max: u64,
}

impl Budget {
    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), max })
    }

    /// Reserves `amount` until the guard is dropped; `None` if less is left.
    pub(crate) fn take(self: &Arc<Self>, amount: u64) -> Option<Reservation> {
        let mut held = Reservation { budget: Arc::clone(self), amount: 0 };
        held.grow(amount).then_some(held)
    }

    /// What is reserved now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A reserved amount, returned to the budget on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    amount: u64,
}

impl Reservation {
    /// Reserves `more`. `false` if less is left; nothing is reserved then.
    pub(crate) fn grow(&mut self, more: u64) -> bool {
        let before = self.budget.used.fetch_add(more, Ordering::Relaxed);
        let fits = before.saturating_add(more) <= self.budget.max;
        if fits {
            self.amount = self.amount.saturating_add(more);
        } else {
            self.budget.used.fetch_sub(more, Ordering::Relaxed);
        }
        fits
    }

    /// What is reserved.
    pub(crate) fn amount(&self) -> u64 {
        self.amount
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// A budget whose unfinished holders give way to newcomers, oldest first.
#[derive(Debug)]
pub(crate) struct YieldingBudget {
    budget: Arc<Budget>,
    holders: Mutex<Holders>,
}

#[derive(Debug, Default)]
struct Holders {
    made: u64,
    /// By the order in which they came.
    unfinished: BTreeMap<u64, Arc<Holder>>,
}

struct Holder {
    /// `None` once it has given way.
    held: Mutex<Option<Reservation>>,
    gave_way: CancellationToken,
    /// Called when it gives way.
    ended: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder").field("held", &self.held).finish_non_exhaustive()
    }
}

impl YieldingBudget {
    /// What is reserved now.
    pub(crate) fn used(&self) -> u64 {
        self.budget.used()
    }

    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { budget: Budget::new(max), holders: Mutex::default() })
    }

    /// Reserves `amount` for something that is complete and gives way to nobody. `None` if it does
    /// not fit even without all that is unfinished; nobody gives way then.
    pub(crate) fn take(&self, amount: u64) -> Option<Reservation> {
        loop {
            if let Some(held) = self.budget.take(amount) {
                return Some(held);
            }
            if !self.make_room(amount, u64::MAX) {
                return None;
            }
        }
    }

    /// Makes `held` the beginning of something unfinished, which gives way to what comes later;
    /// `ended` is called then.
    pub(crate) fn hold(
        self: &Arc<Self>,
        held: Reservation,
        ended: impl Fn() + Send + Sync + 'static,
    ) -> Hold {
        let holder = Arc::new(Holder {
            held: Mutex::new(Some(held)),
            gave_way: CancellationToken::new(),
            ended: Box::new(ended),
        });
        let mut holders = lock(&self.holders);
        holders.made = holders.made.saturating_add(1);
        let number = holders.made;
        holders.unfinished.insert(number, Arc::clone(&holder));
        Hold { budget: Arc::clone(self), number, holder }
    }

    /// Lets holders older than number `before` give way until `amount` fits.
    fn make_room(&self, amount: u64, before: u64) -> bool {
        let mut holders = lock(&self.holders);
        let amount_of =
            |holder: &Arc<Holder>| lock(&holder.held).as_ref().map_or(0, Reservation::amount);
        let older: u64 = holders
            .unfinished
            .range(..before)
            .fold(0, |sum, (_, holder)| sum.saturating_add(amount_of(holder)));
        let kept = self.budget.used().saturating_sub(older);
        if kept.saturating_add(amount) > self.budget.max {
            return false;
        }
        while self.budget.used().saturating_add(amount) > self.budget.max {
            let oldest = holders.unfinished.first_entry().filter(|entry| *entry.key() < before);
            let Some(oldest) = oldest else { return false };
            let oldest = oldest.remove();
            drop(lock(&oldest.held).take());
            oldest.gave_way.cancel();
            (oldest.ended)();
        }
        true
    }
}

/// What something unfinished holds of a [`YieldingBudget`]; returned on drop.
#[derive(Debug)]
pub(crate) struct Hold {
    budget: Arc<YieldingBudget>,
    number: u64,
    holder: Arc<Holder>,
}

impl Hold {
    /// Reserves `more`; older holders give way to it. `false` if it does not fit, or if this holder
    /// has given way itself.
    pub(crate) fn grow(&self, more: u64) -> bool {
        loop {
            match &mut *lock(&self.holder.held) {
                None => return false,
                Some(held) => {
                    if held.grow(more) {
                        return true;
                    }
                }
            }
            if !self.budget.make_room(more, self.number) {
                return false;
            }
        }
    }

    /// Cancelled when this holder has given way to another.
    pub(crate) fn gave_way(&self) -> &CancellationToken {
        &self.holder.gave_way
    }

    /// Ends it: what is held gives way to nobody from now on. `None` if it has given way already.
    pub(crate) fn finish(self) -> Option<Reservation> {
        lock(&self.holder.held).take()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        lock(&self.budget.holders).unfinished.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_bound_and_nothing_is_lost() {
        let budget = Budget::new(3);
        let mut first = budget.take(2).unwrap();
        assert!(budget.take(2).is_none());
        let second = budget.take(1).unwrap();
        assert!(!first.grow(1));
        assert_eq!(first.amount(), 2);
        drop(second);
        assert!(first.grow(1));
        drop(first);
        assert_eq!(budget.used(), 0);
        assert!(budget.take(3).is_some());
    }

    #[test]
    fn the_oldest_that_is_unfinished_gives_way() {
        let budget = YieldingBudget::new(10);
        let begin = |amount| budget.hold(budget.take(amount).unwrap(), || {});
        let (first, second) = (begin(4), begin(4));
        let done = budget.take(2).unwrap();
        assert!(!first.grow(1), "an older one takes nothing from a younger");
        assert!(!first.gave_way().is_cancelled());
        let third = begin(3);
        assert!(first.gave_way().is_cancelled() && !first.grow(0));
        assert!(!second.gave_way().is_cancelled());
        assert!(third.grow(1) && !second.gave_way().is_cancelled(), "what is free comes first");
        assert!(third.grow(1) && second.gave_way().is_cancelled());
        assert!(budget.take(9).is_none(), "what is complete stays");
        assert!(!third.gave_way().is_cancelled(), "nobody gives way in vain");
        assert!(first.finish().is_none() && second.finish().is_none());
        let third = third.finish().unwrap();
        assert_eq!(budget.budget.used(), 7);
        drop((done, third));
        assert_eq!(budget.budget.used(), 0);
        assert!(lock(&budget.holders).unfinished.is_empty());
    }
}
