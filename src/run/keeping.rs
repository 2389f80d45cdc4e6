//! The journal as the edges use it. While it refuses records, the program reports that it is not
//! ready and tries to recover.
//!
//! A separate task tries, not the next call: a load balancer sends no calls to a program that is
//! not ready, so no call would come to show that the journal works again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use bartizan_audit::journal::Journal;
use bartizan_edge::Shared;
use bartizan_edge::admin::{Component, Readiness};
use bartizan_gate::evidence::record::AuditRecord;
use bartizan_gate::evidence::step::{AuditSink, Unkept};

/// Delay between two attempts to write to a journal that refuses records.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Writes records to the journal and reports refusals to readiness.
pub(super) struct Keeper {
    journal: Arc<Journal>,
    readiness: Readiness,
    refused: Arc<Notify>,
}

impl Keeper {
    /// A sink that writes to `journal`.
    pub(super) fn new(journal: &Arc<Journal>, readiness: &Readiness) -> Self {
        let refused = Arc::default();
        Self { journal: Arc::clone(journal), readiness: readiness.clone(), refused }
    }

    /// Starts the task that sets readiness again after the journal recovers. Call it once.
    pub(super) fn tend(self: &Arc<Self>, shared: &Shared) {
        let (keeper, closing, clock) = (Arc::clone(self), shared.closing.clone(), shared.clock);
        let tending = async move {
            loop {
                keeper.refused.notified().await;
                while let Err(unkept) = keeper.journal.mend(clock.now()) {
                    keeper.readiness.not_ready(Component::Journal, unkept.cause);
                    tokio::time::sleep(TRY_EVERY).await;
                }
                keeper.readiness.ready(Component::Journal);
            }
        };
        shared.tasks.spawn(async move { closing.run_until_cancelled(tending).await });
    }
}

impl AuditSink for Keeper {
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
        let kept = self.journal.keep(record);
        if let Err(unkept) = &kept {
            // First clear readiness, then wake the task: the other way round the task could set
            // readiness before this thread clears it.
            self.readiness.not_ready(Component::Journal, unkept.cause.clone());
            self.refused.notify_one();
        }
        kept
    }
}
