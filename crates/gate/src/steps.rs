//! Counts the steps of loops over a stranger's input, for unit tests.
//!
//! A test states how many steps an input may cost; a time would depend on the machine. Outside
//! tests nothing is counted and no code is left.

#[cfg(test)]
thread_local! {
    static TAKEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// One turn of a loop whose length a stranger chooses.
#[cfg(not(test))]
#[inline]
pub(crate) const fn count() {}

/// One turn of a loop whose length a stranger chooses.
#[cfg(test)]
pub(crate) fn count() {
    TAKEN.set(TAKEN.get().saturating_add(1));
}

/// The steps that `work` takes on this thread.
#[cfg(test)]
pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = TAKEN.get();
    let done = work();
    (TAKEN.get().saturating_sub(before), done)
}
