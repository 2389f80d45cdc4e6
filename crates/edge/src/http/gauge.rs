//! Counts of what is in use at once, each with its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A bounded count: of exchanges, of streams, of bytes.
#[derive(Debug)]
pub(super) struct Gauge {
    used: AtomicU64,
    max: u64,
}

impl Gauge {
    pub(super) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), max })
    }

    /// Takes `amount` until the guard goes; nothing if that is more than is left.
    pub(super) fn take(self: &Arc<Self>, amount: u64) -> Option<Held> {
        let before = self.used.fetch_add(amount, Ordering::Relaxed);
        let held = Held { gauge: Arc::clone(self), amount };
        (before.saturating_add(amount) <= self.max).then_some(held)
    }
}

/// Part of a gauge in use.
#[derive(Debug)]
pub(super) struct Held {
    gauge: Arc<Gauge>,
    amount: u64,
}

impl Held {
    /// Takes `more`; `false` if that is more than is left, and the guard then holds it all the
    /// same until it goes.
    pub(super) fn grow(&mut self, more: u64) -> bool {
        let before = self.gauge.used.fetch_add(more, Ordering::Relaxed);
        self.amount = self.amount.saturating_add(more);
        before.saturating_add(more) <= self.gauge.max
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.used.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_bound_and_nothing_is_lost() {
        let gauge = Gauge::new(3);
        let mut first = gauge.take(2).unwrap();
        assert!(gauge.take(2).is_none());
        let second = gauge.take(1).unwrap();
        assert!(!first.grow(1));
        drop(first);
        drop(second);
        assert_eq!(gauge.used.load(Ordering::Relaxed), 0);
        assert!(gauge.take(3).is_some());
    }
}
