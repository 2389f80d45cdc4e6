//! Compresses old files of the journal and removes those that the operator wants no more.
//!
//! A task looks for them, and does its work on a thread that may wait for the disk. What it removes is
//! recorded first. What an exporter has not sent, or no checkpoint covers, stays; the operator is told
//! if that keeps a file longer than wanted.

use std::sync::Arc;
use std::time::Duration;

use bartizan_audit::otlp::Progress;
use bartizan_audit::retention::{Due, Retention};
use bartizan_edge::Shared;
use bartizan_edge::admin::Readiness;
use bartizan_gate::evidence::record::{AuditRecord, Event};

use super::background::keep_running;
use super::checkpoints::Checkpoints;
use crate::config::AuditConfig;
use bartizan_audit::journal::Journal;

/// How often the task looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the operator is told that cannot be done.
const COMPONENT: &str = "retention";

/// What the task works on.
#[derive(Clone)]
pub(super) struct Keeping {
    retention: Retention,
    journal: Arc<Journal>,
    exporters: Vec<Arc<Progress>>,
    checkpoints: Checkpoints,
    shared: Shared,
}

impl Keeping {
    /// Starts the task.
    pub(super) fn tend(
        audit: &AuditConfig,
        shared: &Shared,
        readiness: &Readiness,
        checkpoints: &Checkpoints,
        (journal, exporters): (&Arc<Journal>, &[(&'static str, Arc<Progress>)]),
    ) {
        let required = exporters.iter().filter(|_| !audit.retention.removes_unsent);
        let keeping = Self {
            retention: Retention {
                bytes: audit.retention.bytes,
                age: audit.retention.age,
                compress_after: audit.compress_after,
            },
            journal: Arc::clone(journal),
            exporters: required.map(|(_, progress)| Arc::clone(progress)).collect(),
            checkpoints: checkpoints.clone(),
            shared: shared.clone(),
        };
        let readiness = readiness.clone();
        keep_running(shared, "retention of the journal", move || {
            let (keeping, readiness) = (keeping.clone(), readiness.clone());
            async move {
                let mut told = None;
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    let round = keeping.clone();
                    let done = tokio::task::spawn_blocking(move || round.work()).await;
                    let Ok(cause) = done.map(Result::err) else { continue };
                    if cause != told {
                        if let Some(cause) = &cause {
                            tracing::warn!(cause, "old files of the journal stay as they are");
                        }
                        readiness.degraded(COMPONENT, cause.clone());
                        told = cause;
                    }
                }
            }
        });
    }

    /// Removes what is to be removed, and compresses one file, so that a stop waits for no more. The
    /// error is for the operator.
    fn work(&self) -> Result<(), String> {
        let needed = self.exporters.iter().map(|progress| progress.needed());
        let needed = needed.chain(self.checkpoints.next_seq()).min().unwrap_or(u64::MAX);
        let now = self.shared.now();
        let due = self.retention.due(self.journal.directory(), needed, now.wall);
        let Due { expired, blocked, compressible } = due.map_err(|error| error.to_string())?;
        if let Some(expired) = expired {
            let mut record = AuditRecord::new(Event::Retention, now);
            record.note = Some(expired.to_string().into());
            self.shared.sink.keep(&record).map_err(|unkept| unkept.cause)?;
            let removed = expired.remove(self.journal.directory());
            removed.map_err(|error| format!("a file cannot be removed: {error}"))?;
        }
        if let Some(path) = compressible.first() {
            bartizan_audit::segment::compress(path)
                .map_err(|error| format!("cannot compress `{}`: {error}", path.display()))?;
        }
        match blocked {
            Some(seq) => Err(format!(
                "files from record {seq} on would be removed, but their records were not all sent or \
                 signed yet"
            )),
            None => Ok(()),
        }
    }
}
