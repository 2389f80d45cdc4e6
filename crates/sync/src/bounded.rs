//! A value that one thread at a time uses, and for which nobody waits longer than a given time.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::lock;

/// A value behind a lock whose holder may hang, as in a system call that does not return.
#[derive(Debug)]
pub struct Bounded<T> {
    place: Mutex<Place<T>>,
    back: Condvar,
}

#[derive(Debug)]
struct Place<T> {
    /// Absent while a thread uses it.
    value: Option<Box<T>>,
    waiting: usize,
    /// Whether somebody has waited in vain for the thread that uses it.
    hangs: bool,
}

impl<T> Bounded<T> {
    /// A lock with `value` behind it.
    pub fn new(value: T) -> Self {
        let place = Place { value: Some(Box::new(value)), waiting: 0, hangs: false };
        Self { place: Mutex::new(place), back: Condvar::new() }
    }

    /// Uses the value, and returns what `what` returns; `None` if it was not free within `longest`,
    /// or if another thread has waited in vain for the one that uses it. A panic in `what` leaves the
    /// value as it is then.
    pub fn with<R>(&self, longest: Duration, what: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut used = Used { of: self, value: Some(self.take(longest)?) };
        used.value.as_mut().map(|value| what(value))
    }

    fn take(&self, longest: Duration) -> Option<Box<T>> {
        let mut place = lock(&self.place);
        if place.value.is_none() && !place.hangs {
            place.waiting = place.waiting.saturating_add(1);
            let busy = |place: &mut Place<T>| place.value.is_none() && !place.hangs;
            let waited = self.back.wait_timeout_while(place, longest, busy);
            place = waited.unwrap_or_else(PoisonError::into_inner).0;
            place.waiting = place.waiting.saturating_sub(1);
            if place.value.is_none() {
                place.hangs = true;
                self.back.notify_all();
            }
        }
        place.value.take()
    }
}

/// The value in use; put back when this is dropped.
struct Used<'a, T> {
    of: &'a Bounded<T>,
    value: Option<Box<T>>,
}

impl<T> Drop for Used<'_, T> {
    fn drop(&mut self) {
        let mut place = lock(&self.of.place);
        place.value = self.value.take();
        place.hangs = false;
        if place.waiting > 0 {
            self.of.back.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;
    use std::thread;

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn threads_use_it_in_turn_also_after_a_panic() {
        let count = Bounded::new(0);
        thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..1000 {
                        count.with(LONG, |count| *count += 1).unwrap();
                    }
                });
            }
        });
        let panics = || count.with(LONG, |_| panic!("the test says so"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!(count.with(LONG, |count| *count), Some(4000));
    }

    #[test]
    fn nobody_waits_longer_for_a_thread_that_hangs_and_later_ones_not_at_all() {
        let value = Bounded::new(1);
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        thread::scope(|threads| {
            let value = &value;
            threads.spawn(move || {
                value.with(LONG, |_| {
                    begun.send(()).unwrap();
                    goes.recv().unwrap();
                })
            });
            begins.recv().unwrap();
            assert_eq!(value.with(Duration::from_millis(1), |value| *value), None);
            // It would wait for longer than the test may take.
            assert_eq!(value.with(LONG, |value| *value), None);
            go.send(()).unwrap();
        });
        assert_eq!(value.with(LONG, |value| *value), Some(1));
    }
}
