//! A few engines that share nothing, and the one that is free.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use bartizan_sync::lock;

/// Engines, one to a worker. A question takes the next one that is free, and waits only where
/// none is.
#[derive(Debug)]
pub(super) struct Workers<T> {
    slots: Box<[Mutex<T>]>,
    next: AtomicUsize,
}

impl<T> Workers<T> {
    /// One slot for each of `engines`; there must be one.
    pub(super) fn new(first: T, others: impl IntoIterator<Item = T>) -> Self {
        let slots = std::iter::once(first).chain(others).map(Mutex::new).collect();
        Self { slots, next: AtomicUsize::new(0) }
    }

    /// A free engine. One that a panic left behind is taken as it is: engines look after that.
    pub(super) fn take(&self) -> Option<MutexGuard<'_, T>> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let at = |offset: usize| {
            let index = start.wrapping_add(offset).checked_rem(self.slots.len())?;
            self.slots.get(index)
        };
        for offset in 0..self.slots.len() {
            match at(offset)?.try_lock() {
                Ok(free) => return Some(free),
                Err(TryLockError::Poisoned(free)) => return Some(free.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        Some(lock(at(0)?))
    }
}
