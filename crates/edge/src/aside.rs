//! Keeps long work off the threads that serve connections (threat K7).
//!
//! What a peer sends is judged on the thread that read it, which is right for the few microseconds
//! that a usual message takes. A message of [`LARGE_BYTES`] and more may take over a millisecond:
//! for it the thread hands its other tasks to another one first, and waits for a thread that does
//! the work. Messages that come over HTTP wait
//! for a turn before, so that at most so many are judged at once as leave one processor free.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::{LazyLock, Mutex};
use std::thread::{self, available_parallelism};

use bartizan_sync::lock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Size from which a message is large, bytes.
pub(crate) const LARGE_BYTES: usize = 16 << 10;

/// The nice value of threads that judge large messages.
#[cfg(target_os = "linux")]
const LARGE_NICE: i32 = 5;

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

/// Does `work` over a message of `bytes` here, if it is small; else where it delays no other task:
/// on a thread of its own.
///
/// On a thread that serves, too, other tasks would go on. But the system's allocator keeps memory
/// for each thread, so that after some large messages each thread would keep as much as the largest
/// of them needed (threat K12). A thread that begins gets the memory of one that has ended.
pub(crate) fn run<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> T {
    if bytes < LARGE_BYTES { work() } else { long(|| on_its_own_thread(work)) }
}

fn on_its_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let runtime = Handle::try_current();
    let work = Mutex::new(Some(work));
    let apart = || {
        let _inside = runtime.as_ref().map(Handle::enter);
        with_less_priority();
        lock(&work).take().map(|work| work())
    };
    let done = thread::scope(|scope| {
        let started = thread::Builder::new().name("large".to_owned()).spawn_scoped(scope, apart);
        started.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    if let Ok(Some(done)) = done {
        return done;
    }
    // The system gives no thread.
    let work = lock(&work).take();
    #[expect(clippy::unreachable, reason = "the work was done, or is still there")]
    work.map_or_else(|| unreachable!(), |work| work())
}

/// Lets this thread take second place to those that serve. It is no error if the system does not.
fn with_less_priority() {
    // Elsewhere the priority is that of the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, LARGE_NICE) {
        tracing::debug!(%error, "the priority of a thread was not lowered");
    }
}

thread_local! {
    /// The permit with which this thread polls a task.
    static PERMIT: Cell<Option<OwnedSemaphorePermit>> = const { Cell::new(None) };
}

/// Gives back the permit of a poll, also if the poll panics.
struct PollEnd;

impl Drop for PollEnd {
    fn drop(&mut self) {
        drop(PERMIT.take());
    }
}

/// Polls a task with a permit. Returns the permit, too, unless there was long work in the poll: it is
/// given back before that, because others need not wait for it.
pub(crate) fn with_permit<T>(
    permit: Option<OwnedSemaphorePermit>,
    poll: impl FnOnce() -> T,
) -> (T, Option<OwnedSemaphorePermit>) {
    PERMIT.set(permit);
    let _end = PollEnd;
    let polled = poll();
    (polled, PERMIT.take())
}

/// Does long `work`, or waits in it, where it delays no other task. A runtime with one thread, as
/// in tests, has no other place for it.
pub(crate) fn long<T>(work: impl FnOnce() -> T) -> T {
    drop(PERMIT.take());
    let handle = Handle::try_current();
    if handle.is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
