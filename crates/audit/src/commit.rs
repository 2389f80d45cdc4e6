//! Group commit: one thread flushes the journal to the disk for all acts that wait.
//!
//! A flush begins as soon as somebody waits and no other flush is going on. Whoever comes meanwhile
//! waits for the next, so that one `fdatasync` serves all of them and a lone call waits for no
//! timer. A flush that fails is not repeated: the kernel reports a failed write-back once and then
//! takes the pages for clean, so a second `fdatasync` of the file would succeed without having
//! written them. Those who waited are refused, the journal goes on in a new segment, and acts that
//! need the disk are refused until a flush of that segment has succeeded.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bartizan_sync::lock;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::segment::{Flush, caught};

/// How long an act waits at most until its records are on the disk, and how long a flush may take.
/// Its caller is refused within a second.
pub const FLUSH_WAIT_MAX: Duration = Duration::from_millis(900);

/// So many attempts to recover are left out at most between two while the disk fails.
const SKIPPED_MAX: u32 = 64;

/// Ends with whether the records are on the disk.
pub(super) type Wait = oneshot::Receiver<Result<(), String>>;

/// What the writer, those who wait and the flushing thread share.
#[derive(Default)]
pub(super) struct Committer {
    state: Mutex<State>,
    wake: Condvar,
    /// Whether anything is wrong: most records need not look at the state.
    trouble: AtomicBool,
}

/// What the flushing thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Disk {
    #[default]
    Idle,
    /// A flush is going on since then.
    Flushing(Instant),
    /// It takes longer than anybody waits: nobody waits for it any more.
    Late,
}

#[derive(Default)]
struct State {
    /// Those who wait for the next flush, each with the position of its last record.
    waiting: Vec<(u64, oneshot::Sender<Result<(), String>>)>,
    /// Segments with records that may not be on the disk; the last one is written to.
    segments: Vec<Arc<dyn Flush>>,
    disk: Disk,
    /// Records up to this one are on the disk, or failed to get there.
    flushed: u64,
    /// Records up to this one may have failed to get to the disk.
    failed: u64,
    /// Why acts that need the disk are refused: a flush failed, and none has succeeded since.
    broken: Option<String>,
    /// Whether the writer must begin a new segment, because a flush of this one failed.
    replaces: bool,
    /// Attempts to recover, and how many of the next ones are left out.
    attempts: u32,
    skipped: u32,
    stopped: bool,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}

impl Committer {
    /// Starts the thread that flushes.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        let committer = Arc::clone(self);
        let named = thread::Builder::new().name("journal-flush".to_owned());
        named.spawn(move || while committer.flush_once() {}).map(drop)
    }

    /// Ends the thread, after the flush that is going on.
    pub(super) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.wake.notify_all();
    }

    /// The writer goes on in `segment`, whose first record is not before `next_seq`.
    pub(super) fn began(&self, segment: Arc<dyn Flush>, next_seq: u64) {
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.replaces) {
            state.segments.clear();
            state.failed = next_seq.saturating_sub(1);
        }
        state.segments.push(segment);
        self.look(&state);
    }

    /// Why the writer must begin a new segment, if it must.
    pub(super) fn replaces(&self) -> Option<String> {
        let state = self.troubled()?;
        state.broken.clone().filter(|_| state.replaces)
    }

    /// Why an act that needs the disk cannot happen now, if so.
    pub(super) fn unusable(&self) -> Option<String> {
        let state = self.troubled()?;
        state.broken.clone().or_else(|| (state.disk == Disk::Late).then(|| LATE.to_owned()))
    }

    /// Waits until the record `position`, which is written, is on the disk; and since when.
    pub(super) fn wait(&self, position: u64) -> (Wait, Instant) {
        let (done, wait) = oneshot::channel();
        let joined = Instant::now();
        let mut state = lock(&self.state);
        let known = if position <= state.failed {
            Some(Err(state.broken.clone().unwrap_or_else(|| NOT_FLUSHED.to_owned())))
        } else if state.replaces || state.stopped {
            Some(Err(state.broken.clone().unwrap_or_else(|| CLOSED.to_owned())))
        } else if position <= state.flushed {
            Some(Ok(()))
        } else if self.is_late(&mut state, joined) {
            Some(Err(LATE.to_owned()))
        } else {
            None
        };
        if let Some(known) = known {
            // Who waits has the other end.
            drop(done.send(known));
        } else {
            state.waiting.push((position, done));
            self.wake.notify_one();
        }
        (wait, joined)
    }

    /// Until when somebody who has waited since `joined` goes on waiting, if all stays as it is.
    ///
    /// # Errors
    ///
    /// The time is over, or the flush that goes on has taken as long as one may; then nobody waits any
    /// more until it has ended.
    pub(super) fn patience(&self, joined: Instant) -> Result<Instant, String> {
        let (mut state, now) = (lock(&self.state), Instant::now());
        let late = self.is_late(&mut state, now);
        let ends = joined.checked_add(FLUSH_WAIT_MAX).filter(|ends| *ends > now && !late);
        let Some(ends) = ends else { return Err(LATE.to_owned()) };
        Ok(match state.disk {
            Disk::Flushing(since) => since.checked_add(FLUSH_WAIT_MAX).unwrap_or(ends).min(ends),
            Disk::Idle | Disk::Late => ends,
        })
    }

    /// Whether the flush that goes on takes too long. If it is found now, all who wait for the next one
    /// are refused.
    fn is_late(&self, state: &mut State, now: Instant) -> bool {
        if let Disk::Flushing(since) = state.disk
            && now.saturating_duration_since(since) >= FLUSH_WAIT_MAX
        {
            state.disk = Disk::Late;
            for (_, done) in std::mem::take(&mut state.waiting) {
                drop(done.send(Err(LATE.to_owned())));
            }
            self.look(state);
        }
        state.disk == Disk::Late
    }

    /// Tries to flush again after a flush that failed, with the last record at `position`. Fails
    /// until one has succeeded. Of the attempts ever more are left out while they fail: each needs a
    /// segment of its own.
    pub(super) fn recover(&self, position: u64) -> Result<(), String> {
        let mut state = lock(&self.state);
        if state.disk == Disk::Late {
            return Err(LATE.to_owned());
        }
        let Some(cause) = state.broken.clone() else { return Ok(()) };
        if !state.replaces && state.disk == Disk::Idle {
            // Nobody waits for it: the next attempt sees what has become of it.
            state.waiting.push((position, oneshot::channel().0));
            self.wake.notify_one();
        }
        Err(cause)
    }

    /// Whether this attempt to recover is to be left out.
    pub(super) fn skips(&self) -> Option<String> {
        let mut state = lock(&self.state);
        if !state.replaces || state.skipped == 0 {
            return None;
        }
        state.skipped = state.skipped.saturating_sub(1);
        state.broken.clone()
    }

    /// Waits for somebody to wait, and flushes for all who do. `false` once it is stopped.
    fn flush_once(&self) -> bool {
        let (waiting, segments) = {
            let idle = |state: &mut State| state.waiting.is_empty() && !state.stopped;
            let locked = self.wake.wait_while(lock(&self.state), idle);
            let mut state: MutexGuard<'_, State> = locked.unwrap_or_else(PoisonError::into_inner);
            if state.waiting.is_empty() {
                return false;
            }
            state.disk = Disk::Flushing(Instant::now());
            (std::mem::take(&mut state.waiting), state.segments.clone())
        };
        let flush = |segment: &Arc<dyn Flush>| segment.flush().map_err(|error| error.to_string());
        let flushed = caught(|| segments.iter().try_for_each(flush));
        let flushed = flushed.map_err(|error| format!("{NOT_FLUSHED}: {error}"));
        self.note(&flushed, &waiting, &segments);
        for (_, done) in waiting {
            // It may have ceased to wait.
            drop(done.send(flushed.clone()));
        }
        true
    }

    /// Notes what has become of a flush of `segments` for `waiting`.
    fn note(
        &self,
        flushed: &Result<(), String>,
        waiting: &[(u64, oneshot::Sender<Result<(), String>>)],
        segments: &[Arc<dyn Flush>],
    ) {
        let mut state = lock(&self.state);
        state.disk = Disk::Idle;
        match flushed {
            Ok(()) => {
                let last = waiting.iter().map(|(position, _)| *position).max();
                state.flushed = last.unwrap_or_default().max(state.flushed);
                // The last one was written to when the flush began, and may have been since.
                let closed = segments.split_last().map_or(&[][..], |(_, closed)| closed);
                state.segments.retain(|it| !closed.iter().any(|other| Arc::ptr_eq(it, other)));
                if !state.replaces {
                    (state.broken, state.attempts) = (None, 0);
                }
            }
            Err(cause) => {
                state.attempts = state.attempts.saturating_add(1);
                let pause = 2_u32.saturating_pow(state.attempts.min(31)).saturating_sub(2);
                state.skipped = pause.min(SKIPPED_MAX);
                (state.broken, state.replaces) = (Some(cause.clone()), true);
                // Those who came meanwhile wait for the same segment.
                for (_, done) in std::mem::take(&mut state.waiting) {
                    drop(done.send(Err(cause.clone())));
                }
            }
        }
        self.look(&state);
    }

    fn look(&self, state: &State) {
        self.trouble.store(state.broken.is_some() || state.disk == Disk::Late, Ordering::Release);
    }

    /// The state, if anything is wrong.
    fn troubled(&self) -> Option<MutexGuard<'_, State>> {
        self.trouble.load(Ordering::Acquire).then(|| lock(&self.state))
    }
}

/// Why nothing is written or flushed any more.
pub(super) const CLOSED: &str = "the journal is closed";

/// Why a record is not on the disk.
const NOT_FLUSHED: &str = "the journal could not be flushed to the disk";

/// Why nobody knows whether a record is on the disk.
const LATE: &str = "the disk takes too long to flush the journal";
