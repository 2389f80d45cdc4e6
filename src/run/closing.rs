//! Ends a run within a time that is known, also where the disk hangs.
//!
//! What may wait for the disk runs on threads that nobody joins: a system call that hangs cannot be
//! taken back. When [`CLOSE_MAX`] has passed, or a further signal says so, the run ends without it
//! and says what may be missing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bartizan_audit::journal::Journal;
use bartizan_edge::Shared;
use bartizan_gate::evidence::step::Unkept;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::Export;
use super::checkpoints::Checkpoints;
use super::keeping::Keeper;
use super::limit_log::LimitLog;

/// How long a stop waits at most, after the drain time, until the journal is closed and on the disk.
pub const CLOSE_MAX: Duration = Duration::from_secs(4);

/// How long the journal has at least for that, whatever signals come: two often come together, from a
/// terminal and from the program that started this one.
const CLOSE_MIN: Duration = Duration::from_millis(500);

/// How long it then waits at most for the exports, which take five seconds at most by themselves.
const EXPORT_MAX: Duration = Duration::from_secs(6);

/// Why the journal was not closed in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotClosed {
    /// What happened, and what may be missing.
    pub what: String,
}

impl fmt::Display for NotClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for NotClosed {}

/// What a run closes after the last call.
pub(super) struct Closing {
    pub(super) shared: Shared,
    pub(super) keeper: Arc<Keeper>,
    pub(super) limit_log: Arc<LimitLog>,
    pub(super) checkpoints: Checkpoints,
    pub(super) journal: Arc<Journal>,
    pub(super) export: Export,
    /// Notified by each signal after the first.
    pub(super) hurry: Arc<Notify>,
}

impl Closing {
    /// Closes the journal and what belongs to it, then lets the exports end.
    ///
    /// # Errors
    ///
    /// The journal's end could not be written or flushed, or not in time.
    pub(super) async fn run(self) -> Result<(), NotClosed> {
        // A signal that came before is about the calls, which have ended.
        tokio::select! {
            biased;
            () = self.hurry.notified() => {}
            () = std::future::ready(()) => {}
        }
        let closed = tokio::select! {
            closed = timeout(CLOSE_MAX, self.close()) => match closed {
                Ok(closed) => closed.map_err(|Unkept { cause }| format!("it was not closed in order: {cause}")),
                Err(_elapsed) => {
                    let within = CLOSE_MAX.as_secs();
                    return Err(self.missing(&format!("the disk has not taken its end within {within} s")));
                }
            },
            () = self.hurried() => {
                return Err(self.missing("a further signal came before the disk had taken its end"));
            }
        };
        // Also where the journal could not be closed: what it has may have no other copy.
        tokio::select! {
            ended = timeout(EXPORT_MAX, self.export.finish()) => if ended.is_err() {
                tracing::warn!("the exports did not end; the next start sends what is left");
            },
            () = self.hurry.notified() => {}
        }
        closed.map_err(|why| self.missing(&why))
    }

    /// Ends at a further signal, and not before a disk that works has had time to take the end.
    async fn hurried(&self) {
        sleep(CLOSE_MIN).await;
        self.hurry.notified().await;
    }

    async fn close(&self) -> Result<(), Unkept> {
        let now = self.shared.now();
        let (log, shared) = (Arc::clone(&self.limit_log), self.shared.clone());
        let limits = spawn_blocking(move || log.flush(&shared.gate, shared.clock.uptime()));
        let journal = async {
            let keeper = Arc::clone(&self.keeper);
            drop(spawn_blocking(move || keeper.record_counts(now, true)).await);
            self.checkpoints.close(self.shared.now()).await;
            let (journal, now) = (Arc::clone(&self.journal), self.shared.now());
            let closed = spawn_blocking(move || journal.close(now)).await;
            self.checkpoints.seal().await;
            closed.unwrap_or_else(|error| Err(Unkept { cause: error.to_string() }))
        };
        let (_, closed) = tokio::join!(limits, journal);
        closed
    }

    fn missing(&self, why: &str) -> NotClosed {
        self.export.stop.cancel();
        NotClosed {
            what: format!(
                "{why}; its last records may be missing or not on the disk: outcomes ({} calls have \
                 none), counts of refusals, `stop`, the last checkpoint",
                self.journal.open_calls()
            ),
        }
    }
}
