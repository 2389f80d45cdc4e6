//! Locks that go on after a panic.
//!
//! A lock of the standard library is poisoned once a thread has panicked while it held the lock,
//! because the panic may have left the data half-updated. A bug in one call must not end every
//! later one, so these functions take a poisoned lock as it is. That is safe for data that no
//! panic can leave half-updated: every change is one call of a collection, or a sequence of steps
//! each of which leaves the data valid. All locks that these functions take keep to that.
//!
//! The lock of a session does not: a step changes it in many places. It must not be taken by these
//! functions; a session whose lock is poisoned is closed.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

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
