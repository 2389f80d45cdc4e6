//! The journal as the edges use it. While it refuses records, the program reports that it is not
//! ready and tries to recover.
//!
//! A separate task tries, not the next call: a load balancer sends no calls to a program that is
//! not ready, so no call would come to show that the journal works again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::background::keep_running;

use bartizan_audit::journal::Journal;
use bartizan_edge::admin::{Component, Readiness};
use bartizan_edge::clock::Clock;
use bartizan_edge::{Shared, wait};
use bartizan_gate::evidence::record::{AuditRecord, CallId, Event, Now};
use bartizan_gate::evidence::repeats::Repeats;
use bartizan_gate::evidence::step::{AuditSink, Flushed, Position, Unkept};
use bartizan_metrics::{Lap, Metrics};

/// Delay between two attempts to write to a journal that refuses records.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Shortest delay between two looks at the counts of refusals.
const COUNTS_EVERY_MIN: Duration = Duration::from_millis(10);

/// Writes records to the journal, counts refusals that repeat, and reports to readiness when a record
/// cannot be kept.
pub(super) struct Keeper {
    /// Absent where each refusal is recorded.
    repeats: Option<Repeats>,
    journal: Arc<Journal>,
    readiness: Readiness,
    refused: Arc<Notify>,
    /// Counts what is kept, with the clock that records have their times from.
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Keeper {
    /// A sink that writes to `journal`, and counts refusals over `interval`; without one, each is
    /// recorded. What is kept is counted in `metrics`, too.
    pub(super) fn new(
        journal: &Arc<Journal>,
        readiness: &Readiness,
        interval: Option<Duration>,
        metrics: &Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Self {
            repeats: interval.map(Repeats::new),
            journal: Arc::clone(journal),
            readiness: readiness.clone(),
            refused: Arc::default(),
            metrics: Arc::clone(metrics),
            clock,
        }
    }

    /// Records the counts whose interval is over; with `all`, every count.
    pub(super) fn record_counts(&self, now: Now, all: bool) {
        let Some(repeats) = &self.repeats else { return };
        for record in repeats.take(now, all) {
            if self.keep(&record).is_err() {
                repeats.put_back(record);
            }
        }
    }

    /// Starts the task that sets readiness again after the journal recovers. Call it once.
    pub(super) fn tend(self: &Arc<Self>, shared: &Shared) {
        let (keeper, clock) = (Arc::clone(self), shared.clock);
        let mut interrupted = false;
        keep_running(shared, "recovery of the journal", move || {
            let keeper = Arc::clone(&keeper);
            if std::mem::replace(&mut interrupted, true) {
                // The journal may still refuse records, and nobody may come to say so.
                keeper.refused.notify_one();
            }
            async move {
                loop {
                    keeper.refused.notified().await;
                    while let Err(unkept) = wait(|| keeper.journal.mend(clock.now())) {
                        keeper.readiness.not_ready(Component::Journal, unkept.cause);
                        tokio::time::sleep(TRY_EVERY).await;
                    }
                    keeper.readiness.ready(Component::Journal);
                }
            }
        });
        self.watch(shared);
        let Some(interval) = self.repeats.as_ref().map(Repeats::interval) else { return };
        let keeper = Arc::clone(self);
        keep_running(shared, "counts of refusals", move || {
            let keeper = Arc::clone(&keeper);
            // Looked at more often, so that no count waits for two intervals.
            let mut ticks = tokio::time::interval(interval.div_f64(4.0).max(COUNTS_EVERY_MIN));
            async move {
                loop {
                    ticks.tick().await;
                    keeper.record_counts(clock.now(), false);
                }
            }
        });
    }
}

impl Keeper {
    /// Starts the task that notices a write that hangs, also if no other call comes to wait for it.
    fn watch(self: &Arc<Self>, shared: &Shared) {
        let keeper = Arc::clone(self);
        keep_running(shared, "watch of the journal", move || {
            let keeper = Arc::clone(&keeper);
            async move {
                loop {
                    tokio::time::sleep(TRY_EVERY).await;
                    if let Err(unkept) = wait(|| keeper.journal.responds()) {
                        keeper.fails(&unkept);
                    }
                }
            }
        });
    }

    /// Reports that records cannot be kept, because of `unkept`.
    fn fails(&self, unkept: &Unkept) {
        // First clear readiness, then wake the task: the other way round the task could set
        // readiness before this thread clears it.
        self.readiness.not_ready(Component::Journal, unkept.cause.clone());
        self.refused.notify_one();
    }
}

impl AuditSink for Keeper {
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
        self.keep_before_act(record).map(drop)
    }

    fn keep_before_act(&self, record: &AuditRecord) -> Result<Option<Position>, Unkept> {
        let decided = self.clock.uptime();
        let kept = self.journal.keep_before_act(record);
        if kept.is_ok() {
            self.metrics.recorded().kept(record, Lap { decided, kept: self.clock.uptime() });
        }
        if let Err(unkept) = &kept {
            self.metrics.recorded().unkept();
            self.fails(unkept);
            if let Some(repeats) = self.repeats.as_ref().filter(|_| record.event != Event::Repeated)
            {
                repeats.unkept(record);
            }
        }
        kept
    }

    fn durable(&self, position: Position) -> Flushed<'_> {
        let flushed = self.journal.durable(position);
        Box::pin(async move { flushed.await.inspect_err(|unkept| self.fails(unkept)) })
    }

    fn uptime(&self) -> Option<Duration> {
        Some(self.clock.uptime())
    }

    fn count(&self, record: &AuditRecord) -> Option<CallId> {
        let call = self.repeats.as_ref()?.count(record)?;
        self.metrics.recorded().counted(record);
        Some(call)
    }
}
