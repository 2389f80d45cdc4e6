//! A pool of engines, one for each worker.
//!
//! It does not build or repair engines: each does that by itself after a panic. The PDP in
//! `engines` has one pool for each kind of engine.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bartizan_sync::lock;

/// A fixed number of engines. An evaluation takes one that is free, and waits for the first that
/// becomes free if none is: never for one that another evaluation, which may be long, has taken.
#[derive(Debug)]
pub(super) struct Pool<T> {
    engines: Box<[Mutex<T>]>,
    /// Which are free; the one that was used last is used first.
    free: Mutex<Vec<usize>>,
    freed: Condvar,
}

/// An engine that one evaluation has taken; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a, T> {
    engine: MutexGuard<'a, T>,
    number: usize,
    pool: &'a Pool<T>,
}

impl<T> Pool<T> {
    /// A pool of these engines. `first` makes sure that it is not empty.
    pub(super) fn new(first: T, others: impl IntoIterator<Item = T>) -> Self {
        let engines: Box<[_]> = std::iter::once(first).chain(others).map(Mutex::new).collect();
        let free = Mutex::new((0..engines.len()).collect());
        Self { engines, free, freed: Condvar::new() }
    }

    /// Takes a free engine, or waits for one. After a panic the lock is poisoned; the engine itself
    /// detects that it is incomplete and is built anew, so the poison is ignored.
    pub(super) fn acquire(&self) -> Option<Taken<'_, T>> {
        let free = self.freed.wait_while(lock(&self.free), |free| free.is_empty());
        let number = free.unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Taken { engine: lock(self.engines.get(number)?), number, pool: self })
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        // Whoever takes it waits for its lock until this value is gone.
        lock(&self.pool.free).push(self.number);
        self.pool.freed.notify_one();
    }
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.engine
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.engine
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn nobody_waits_for_an_engine_in_long_use_while_another_becomes_free() {
        let pool = Pool::new(0_u32, [0]);
        let long = pool.acquire().unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        *pool.acquire().unwrap() += 1;
                    }
                });
            }
        });
        assert_eq!(*long, 0);
        drop(long);
        let both = [pool.acquire().unwrap(), pool.acquire().unwrap()];
        let mut used = both.each_ref().map(|it| **it);
        used.sort_unstable();
        assert_eq!(used, [0, 400]);
    }

    #[test]
    fn an_engine_is_free_again_after_a_panic() {
        let pool = Pool::new(0_u32, []);
        let (say, said) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _taken = pool.acquire().unwrap();
                drop(say);
                panic!("the test says so");
            });
            assert!(said.recv().is_err(), "it has the engine");
            assert!(panics.join().is_err());
        });
        assert_eq!(*pool.acquire().unwrap(), 0);
    }
}
