//! Locks and tasks that go on after a panic.
//!
//! A lock of the standard library is poisoned once a thread has panicked while it held the lock,
//! because the panic may have left the data half-updated. A bug in one call must not end every
//! later one, so these functions take a poisoned lock as it is. That is safe for data that no
//! panic can leave half-updated: every change is one call of a collection, or a sequence of steps
//! each of which leaves the data valid. All locks that these functions take keep to that.
//!
//! The lock of a session does not: a step changes it in many places. It must not be taken by these
//! functions; a session whose lock is poisoned is closed.
//!
//! A lock whose holder may hang in a system call is a [`Bounded`] one.
//!
//! A task ends when it panics, and a duty that it has for the whole run would end with it. So a task
//! of that kind is run by [`caught`] and begun anew (threat K17).

mod bounded;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::Poll;

pub use bounded::Bounded;

/// Locks `mutex`, poisoned or not.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `lock` for reading, poisoned or not.
pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `lock` for writing, poisoned or not.
pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A future panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Runs `future` to its end; what it panicked with goes to the panic hook alone. What it changed
/// outside of itself stays, so that must be valid between any two steps of it.
///
/// # Errors
///
/// [`Panicked`]: it will not go on.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(move |cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.map_or(Poll::Ready(Err(Panicked)), |polled| polled.map(Ok))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    #[test]
    fn a_future_that_panics_ends_and_its_caller_goes_on() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut steps = 0;
        let mut running = pin!(caught(poll_fn(|_| {
            steps += 1;
            assert!(steps < 2, "in the second step");
            Poll::<()>::Pending
        })));
        assert_eq!(running.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(running.as_mut().poll(&mut cx), Poll::Ready(Err(Panicked)));
        let mut whole = pin!(caught(std::future::ready(7)));
        assert_eq!(whole.as_mut().poll(&mut cx), Poll::Ready(Ok(7)));
    }

    #[test]
    fn a_poisoned_lock_is_taken() {
        let mutex = Mutex::new(1);
        let shared = RwLock::new(1);
        catch_unwind(AssertUnwindSafe(|| {
            let _held = (lock(&mutex), write(&shared));
            panic!("while it is held");
        }))
        .unwrap_err();
        assert!(mutex.is_poisoned() && shared.is_poisoned());
        *lock(&mutex) += 1;
        *write(&shared) += 1;
        assert_eq!((*lock(&mutex), *read(&shared)), (2, 2));
    }
}
