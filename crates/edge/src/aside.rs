//! Keeps long work off the threads that serve connections (threat K7).
//!
//! What a peer sends is judged on the thread that read it, which is right for the few microseconds
//! that a usual message takes. A message of [`LARGE_BYTES`] and more may take over a millisecond:
//! for it the thread hands its other tasks to another one first, and waits for a thread that does
//! the work. Messages that come over HTTP wait for a turn before, so that at most so many are judged
//! at once as leave one processor free.
//!
//! A small message may take long, too, where a rule works over much data. That is known once it has
//! happened: if the step over a message used [`SLOW`] of processor time, the next ones of the same
//! principal to the same server with the same name in them are judged aside, too, for [`SLOW_FOR`].
//! They wait for turns of their own: without, each would take a thread, and those that serve would
//! get the processors as seldom as any of them. If a principal is slow under many names, all of its
//! messages are. The time on the clock does not count: on a busy machine any step may be interrupted
//! for that long. A usual message costs two hashes more and no wake-up.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, LocalKey, available_parallelism};
use std::time::Duration;

use bartizan_sync::lock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Size from which a message is large, bytes.
pub(crate) const LARGE_BYTES: usize = 16 << 10;

/// The nice value of threads that judge large messages.
#[cfg(target_os = "linux")]
const LARGE_NICE: i32 = 5;

/// One less than processors, and at least one.
fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(processors().saturating_sub(1).max(1)))
}

/// Processors that this program may use; at least 1.
pub fn processors() -> usize {
    available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A step that uses so much processor time is slow.
pub(crate) const SLOW: Duration = Duration::from_millis(1);
/// How long a slow step makes its like be judged aside.
const SLOW_FOR: Duration = Duration::from_secs(10);
/// Slow names of one principal within [`SLOW_FOR`] from which on all of its messages are judged aside.
const SLOW_NAMES: u64 = 8;
/// Places for what was slow. Two that share one are slow together.
const PLACES: usize = 1024;
/// Of a name so many bytes count.
const NAME_BYTES: usize = 96;

/// What one firewall keeps to judge long messages aside: turns, and what was slow.
pub struct Aside {
    /// Turns for large messages: one less than processors, and at least one.
    large: Arc<Semaphore>,
    /// Turns for small messages that are judged aside, as many: they do not wait for large ones.
    slow: Arc<Semaphore>,
    /// When what was slow stops to count, as uptime, ms; and how many slow steps began it, in the
    /// lowest byte.
    placed: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for Aside {
    /// All turns free, and nothing slow.
    fn default() -> Self {
        let placed = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { large: turns(), slow: turns(), placed, hasher: RandomState::new() }
    }
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside").finish_non_exhaustive()
    }
}

impl Aside {
    /// How the message `raw` of `principal` to `server` is treated at `now` (uptime).
    pub(crate) fn weight(
        &self,
        raw: &[u8],
        (principal, server): (&str, &str),
        now: Duration,
    ) -> Weight {
        let place = |hash: u64| usize::try_from(hash).unwrap_or_default().checked_rem(PLACES);
        let all = place(self.hasher.hash_one((principal, server))).unwrap_or_default();
        let own = (principal, server, name_in(raw));
        let own = place(self.hasher.hash_one(own)).unwrap_or_default();
        let slow = self.count_at(own, now) > 0 || self.count_at(all, now) >= SLOW_NAMES;
        Weight { bytes: raw.len(), slow, places: Some([own, all]) }
    }

    /// Takes note that the step over a message of `weight`, taken at `now` (uptime), used `worked` of
    /// processor time.
    pub(crate) fn took(&self, weight: Weight, worked: Duration, now: Duration) {
        let (Some([own, all]), true) = (weight.places, worked >= SLOW) else { return };
        // Once for each name: what is known to be slow is judged aside, and slow each time.
        if self.count_at(own, now) == 0 {
            self.mark(all, now);
        }
        self.mark(own, now);
    }

    /// Waits for a turn to judge a message; a usual one needs none.
    pub(crate) async fn turn(&self, weight: Weight) -> Turn {
        let turns = if weight.bytes >= LARGE_BYTES { &self.large } else { &self.slow };
        let wanted = weight.is_long().then(|| Arc::clone(turns));
        // The semaphores are never closed.
        let permit = match wanted {
            Some(turns) => turns.acquire_owned().await.ok(),
            None => None,
        };
        Turn { weight, permit }
    }

    /// How many slow steps count at `place`.
    fn count_at(&self, place: usize, now: Duration) -> u64 {
        let placed = self.placed.get(place).map_or(0, |it| it.load(Ordering::Relaxed));
        if (placed >> 8) > millis(now) { placed & 0xff } else { 0 }
    }

    fn mark(&self, place: usize, now: Duration) {
        let count = self.count_at(place, now).saturating_add(1).min(0xff);
        let until = millis(now.saturating_add(SLOW_FOR));
        if let Some(placed) = self.placed.get(place) {
            // Another thread may mark at the same time; then one of both is forgotten.
            placed.store((until << 8) | count, Ordering::Relaxed);
        }
    }
}

/// How a message is treated: by its size, and by how long its like took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weight {
    /// Its size, bytes.
    pub(crate) bytes: usize,
    /// Whether its like took long.
    slow: bool,
    /// Its places: its own, and its principal's.
    places: Option<[usize; 2]>,
}

impl From<usize> for Weight {
    fn from(bytes: usize) -> Self {
        Self { bytes, slow: false, places: None }
    }
}

impl Weight {
    /// Whether the step over the message is taken where it delays no other task.
    pub(crate) fn is_long(self) -> bool {
        self.slow || self.bytes >= LARGE_BYTES
    }

    /// Whether it matters how long the step over the message takes. For those of servers it does
    /// not: their size alone tells how they are judged.
    pub(crate) fn is_measured(self) -> bool {
        self.places.is_some()
    }
}

/// What may name the tool in `raw`, if it is small: a guess, which only the order of work follows.
fn name_in(raw: &[u8]) -> &[u8] {
    const NAME: &[u8] = b"\"name\"";
    if raw.len() >= LARGE_BYTES {
        return b"";
    }
    let at = raw.windows(NAME.len()).position(|part| part == NAME);
    let rest = at.and_then(|at| raw.get(at.saturating_add(NAME.len())..)).unwrap_or_default();
    let rest = rest.get(..NAME_BYTES).unwrap_or(rest);
    let quotes = rest.iter().enumerate().filter(|(_, byte)| **byte == b'"');
    let end = quotes.map(|(at, _)| at).nth(1).unwrap_or(rest.len());
    rest.get(..end).unwrap_or(rest)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A turn for a message that is judged aside; given back on drop.
#[derive(Debug)]
pub(crate) struct Turn {
    /// How the message is treated.
    pub(crate) weight: Weight,
    permit: Option<OwnedSemaphorePermit>,
}

/// No turn: for a message that is judged without waiting for one.
impl From<Weight> for Turn {
    fn from(weight: Weight) -> Self {
        Self { weight, permit: None }
    }
}

impl From<usize> for Turn {
    fn from(bytes: usize) -> Self {
        Weight::from(bytes).into()
    }
}

/// Does `work` over the message of `turn` where it delays no other task: if the message is large, on
/// a thread of its own. The turn is over at the end, or when the work [`ends its turn`](end_turn).
///
/// On a thread that serves, too, other tasks would go on. But the system's allocator keeps memory
/// for each thread, so that after some large messages each thread would keep as much as the largest
/// of them needed (threat K12). A thread that begins gets the memory of one that has ended.
pub(crate) fn run<T: Send>(turn: Turn, work: impl FnOnce() -> T + Send) -> T {
    let Turn { weight, permit } = turn;
    let work = || {
        TURN.set(permit);
        let _end = End(&TURN);
        work()
    };
    if weight.bytes < LARGE_BYTES { long(work) } else { long(|| on_its_own_thread(work)) }
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

    /// The permit of the turn in which this thread works.
    static TURN: Cell<Option<OwnedSemaphorePermit>> = const { Cell::new(None) };
}

/// Gives back what this thread was lent, also after a panic.
struct End<T: 'static>(&'static LocalKey<Cell<Option<T>>>);

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

/// Polls a task with a permit. Returns the permit, too, unless there was long work in the poll: it is
/// given back before that, because others need not wait for it.
pub(crate) fn with_permit<T>(
    permit: Option<OwnedSemaphorePermit>,
    poll: impl FnOnce() -> T,
) -> (T, Option<OwnedSemaphorePermit>) {
    PERMIT.set(permit);
    let _end = End(&PERMIT);
    let polled = poll();
    (polled, PERMIT.take())
}

/// Gives back the turn of this thread, if it has one: what follows waits for something outside, such
/// as a store or a disk, for as long as that takes, and a turn is for those who need a processor.
pub(crate) fn end_turn() {
    drop(TURN.take());
}

/// Waits in `what` for something outside where that delays no other task, and without a turn.
pub fn wait<T>(what: impl FnOnce() -> T) -> T {
    end_turn();
    long(what)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_slow_is_judged_aside_for_a_while_and_nothing_else_is() {
        let at = Duration::from_secs;
        let call = |name: &str| format!(r#"{{"id":1,"params":{{"name": "{name}","x":1}}}}"#);
        let aside = Aside::default();
        let weight =
            |who: &str, name: &str, now| aside.weight(call(name).as_bytes(), (who, "s"), now);
        let took =
            |who: &str, name: &str, worked, now| aside.took(weight(who, name, now), worked, now);
        // Two messages may share a place by chance, many do not.
        let mut names = (0..8).map(|number| format!("name-{number}"));
        took("a", "quick", Duration::from_micros(999), at(1));
        took("a", "slow", SLOW, at(1));
        assert!(weight("a", "slow", at(2)).is_long());
        assert!(names.any(|name| !weight("a", &name, at(2)).is_long()));
        let mut others = (0..8).map(|number| format!("other-{number}"));
        assert!(others.any(|who| !weight(&who, "slow", at(2)).is_long()), "another principal's");
        assert!(!weight("a", "slow", at(12)).is_long(), "it was long ago");
        assert!(Weight::from(LARGE_BYTES).is_long() && !Weight::from(1).is_long());
        // Under ever new names.
        for number in 0..2 * SLOW_NAMES {
            took("c", &format!("slow-{number}"), SLOW, at(20));
        }
        assert!(weight("c", "another", at(21)).is_long());
        assert!(others.any(|who| !weight(&who, "another", at(21)).is_long()));
    }

    #[test]
    fn a_name_is_guessed_in_bounds() {
        for (raw, name) in [
            (r#"{"name":"get"}"#, r#":"get"#),
            (r#"{"name" : "get","name":"b"}"#, r#" : "get"#),
            (r#"{"name":"#, ":"),
            (r#"{"method":"ping"}"#, ""),
        ] {
            assert_eq!(name_in(raw.as_bytes()), name.as_bytes(), "{raw}");
        }
        let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(1000));
        assert_eq!(name_in(long.as_bytes()).len(), NAME_BYTES);
        assert_eq!(name_in(" ".repeat(LARGE_BYTES).as_bytes()), b"");
    }
}
