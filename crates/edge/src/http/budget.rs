//! Bounded counters of resources in use: exchanges, streams, bytes of bodies. Reserving never
//! waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A bounded counter.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    max: u64,
}

impl Budget {
    pub(super) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), max })
    }

    /// Reserves `amount` until the guard is dropped; `None` if less is left.
    pub(super) fn take(self: &Arc<Self>, amount: u64) -> Option<Reservation> {
        let before = self.used.fetch_add(amount, Ordering::Relaxed);
        let held = Reservation { budget: Arc::clone(self), amount };
        (before.saturating_add(amount) <= self.max).then_some(held)
    }
}

/// A reserved amount, returned to the budget on drop.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    amount: u64,
}

impl Reservation {
    /// Reserves `more`. `false` if less is left; the guard counts `more` all the same until it is
    /// dropped.
    pub(super) fn grow(&mut self, more: u64) -> bool {
        let before = self.budget.used.fetch_add(more, Ordering::Relaxed);
        self.amount = self.amount.saturating_add(more);
        before.saturating_add(more) <= self.budget.max
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.amount, Ordering::Relaxed);
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
        drop(first);
        drop(second);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        assert!(budget.take(3).is_some());
    }
}
