//! Keeps long work off the threads that serve connections (threat K7).
//!
//! What a peer sends is judged on the thread that read it, which is right for the few microseconds
//! that a usual message takes. A message of [`LARGE_BYTES`] and more may take over a millisecond:
//! for it the thread hands its other tasks to another one first. Messages that come over HTTP wait
//! for a turn before, so that at most so many are judged at once as leave one processor free.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Size from which a message is large, bytes.
pub(crate) const LARGE_BYTES: usize = 16 << 10;

/// Turns for large messages: one less than processors, and at least one.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(processors().saturating_sub(1).max(1)));

/// Processors that this program may use.
pub(crate) fn processors() -> usize {
    available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A turn for a large message; given back on drop.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: Option<SemaphorePermit<'static>>,
}

/// Waits for a turn to judge a message of `bytes`; a small one needs none.
pub(crate) async fn turn(bytes: usize) -> Turn {
    let permit = if bytes < LARGE_BYTES { None } else { TURNS.acquire().await.ok() };
    Turn { _permit: permit }
}

/// Does `work` over a message of `bytes` here, if it is small; else where it delays no other task.
pub(crate) fn run<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes < LARGE_BYTES { work() } else { long(work) }
}

/// Does long `work`, or waits in it, where it delays no other task. A runtime with one thread, as
/// in tests, has no other place for it.
pub(crate) fn long<T>(work: impl FnOnce() -> T) -> T {
    let handle = Handle::try_current();
    if handle.is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
