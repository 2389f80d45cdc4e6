//! The journal as the edges use it: while it refuses records, the program says that it is not
//! ready, and tries whether it can go on.
//!
//! Trying is a task of its own and not left to the next call: where readiness decides whether
//! calls come at all, none would come to show that the fault is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use bartizan_audit::journal::Journal;
use bartizan_edge::Shared;
use bartizan_edge::admin::{Component, Readiness};
use bartizan_gate::evidence::record::AuditRecord;
use bartizan_gate::evidence::step::{AuditSink, Unkept};

/// How often a journal that refuses is tried.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Keeps records in the journal, and tells of refusals.
pub(super) struct Keeper {
    journal: Arc<Journal>,
    readiness: Readiness,
    refused: Arc<Notify>,
}

impl Keeper {
    /// A sink over `journal`.
    pub(super) fn new(journal: &Arc<Journal>, readiness: &Readiness) -> Self {
        let refused = Arc::default();
        Self { journal: Arc::clone(journal), readiness: readiness.clone(), refused }
    }

    /// Makes the program ready again once the journal takes records again. To be called once.
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
            // In this order: the task may be about to say that all is well.
            self.readiness.not_ready(Component::Journal, unkept.cause.clone());
            self.refused.notify_one();
        }
        kept
    }
}
