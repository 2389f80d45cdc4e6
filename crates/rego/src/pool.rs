//! A pool of engines, one for each worker.
//!
//! It does not build or repair engines: each does that by itself after a panic. The PDP in
//! `engines` has one pool for each kind of engine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use bartizan_sync::lock;

/// A fixed number of engines. An evaluation takes one that is free, and waits only if none is.
#[derive(Debug)]
pub(super) struct Pool<T> {
    slots: Box<[Mutex<T>]>,
    next: AtomicUsize,
}

impl<T> Pool<T> {
    /// A pool of these engines. `first` makes sure that it is not empty.
    pub(super) fn new(first: T, others: impl IntoIterator<Item = T>) -> Self {
        let slots = std::iter::once(first).chain(others).map(Mutex::new).collect();
        Self { slots, next: AtomicUsize::new(0) }
    }

    /// Locks a free engine, or waits for one. After a panic the lock is poisoned; the engine itself
    /// detects that it is incomplete and is built anew, so the poison is ignored.
    pub(super) fn acquire(&self) -> Option<MutexGuard<'_, T>> {
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
