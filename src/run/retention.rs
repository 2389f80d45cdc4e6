//! Compresses old files of the journal and removes those that the operator wants no more.
//!
//! A task looks for them, and does its work on a thread that may wait for the disk. What it removes is
//! recorded first. What an exporter has not sent, or no checkpoint covers, stays; the operator is told
//! if that keeps a file longer than wanted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_audit::otlp::Progress;
use bartizan_audit::retention::{Due, Expired, Retention};
use bartizan_audit::segment;
use bartizan_edge::Shared;
use bartizan_edge::admin::Readiness;
use bartizan_gate::evidence::record::{AuditRecord, Event};
use bartizan_sync::lock;

use super::background::keep_running;
use super::checkpoints::Checkpoints;
use crate::config::AuditConfig;
use bartizan_audit::journal::Journal;

/// How often the task looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the operator is told that cannot be done.
const COMPONENT: &str = "retention";

/// Rounds in which an exporter that works has sent what is written.
const SENT_IN: u64 = 5;

/// Rounds after which a file that could not be compressed is tried again, at most.
const PAUSE_MAX: u64 = 3600;

/// What did not work in the rounds before.
#[derive(Debug, Default)]
struct Rounds {
    count: u64,
    /// Files that are to be removed, as a record says already.
    pending: Option<Expired>,
    /// Files that could not be compressed: how often, the round in which each is tried again, and why.
    failed: BTreeMap<PathBuf, (u32, u64, String)>,
    /// The record with which the files begin that somebody still needs, and the first round of it.
    blocked: Option<(u64, u64)>,
}

/// What the task works on.
#[derive(Clone)]
pub(super) struct Keeping {
    retention: Retention,
    journal: Arc<Journal>,
    exporters: Vec<Arc<Progress>>,
    checkpoints: Checkpoints,
    shared: Shared,
    /// Rounds in which files may wait for their checkpoint and for exporters.
    patience: u64,
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
            patience: audit
                .checkpoints
                .interval
                .as_secs()
                .saturating_mul(2)
                .saturating_add(SENT_IN),
        };
        let readiness = readiness.clone();
        keep_running(shared, "retention of the journal", move || {
            let (keeping, readiness) = (keeping.clone(), readiness.clone());
            async move {
                let mut told = None;
                let rounds = Arc::<Mutex<Rounds>>::default();
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    let (round, rounds) = (keeping.clone(), Arc::clone(&rounds));
                    let work = move || round.work(&mut lock(&rounds));
                    let done = tokio::task::spawn_blocking(work).await;
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
    fn work(&self, rounds: &mut Rounds) -> Result<(), String> {
        rounds.count = rounds.count.saturating_add(1);
        self.remove_pending(rounds)?;
        let needed = self.exporters.iter().map(|progress| progress.needed());
        let needed = needed.chain(self.checkpoints.next_seq()).min().unwrap_or(u64::MAX);
        let now = self.shared.now();
        let due = self.retention.due(self.journal.directory(), needed, now.wall);
        let Due { expired, blocked, compressible } = due.map_err(|error| error.to_string())?;
        if let Some(expired) = expired {
            let mut record = AuditRecord::new(Event::Retention, now);
            record.note = Some(expired.to_string().into());
            self.shared.sink.keep(&record).map_err(|unkept| unkept.cause)?;
            rounds.pending = Some(expired);
            self.remove_pending(rounds)?;
        }
        rounds.compress(&compressible)?;
        match rounds.overdue(blocked, self.patience) {
            Some(seq) => Err(format!(
                "files from record {seq} on would be removed, but their records were not all sent or \
                 signed yet"
            )),
            None => Ok(()),
        }
    }

    /// Removes the files of which a record says that they are. If one cannot be removed, later ones
    /// stay, too: the journal must have no hole.
    fn remove_pending(&self, rounds: &mut Rounds) -> Result<(), String> {
        let Some(expired) = &rounds.pending else { return Ok(()) };
        let removed = expired.remove(self.journal.directory());
        removed.map_err(|error| format!("a file cannot be removed: {error}"))?;
        rounds.pending = None;
        Ok(())
    }
}

impl Rounds {
    /// `blocked`, if the files from there on have waited for longer than `patience` rounds: signing and
    /// sending follow writing after a while.
    fn overdue(&mut self, blocked: Option<u64>, patience: u64) -> Option<u64> {
        let same = self.blocked.filter(|(known, _)| Some(*known) == blocked);
        self.blocked = blocked.map(|seq| (seq, same.map_or(self.count, |(_, since)| since)));
        let (seq, since) = self.blocked?;
        (self.count.saturating_sub(since) >= patience).then_some(seq)
    }

    /// Compresses the first of `files` that can be; one that failed is tried again ever more seldom.
    fn compress(&mut self, files: &[PathBuf]) -> Result<(), String> {
        self.failed.retain(|path, _| files.contains(path));
        let waits =
            |path: &PathBuf| self.failed.get(path).is_some_and(|(_, next, _)| *next > self.count);
        if let Some(path) = files.iter().find(|path| !waits(path)) {
            match segment::compress(path) {
                Ok(()) => drop(self.failed.remove(path)),
                Err(error) => {
                    let cause = format!("cannot compress `{}`: {error}", path.display());
                    let failures = self.failed.get(path).map_or(1, |it| it.0.saturating_add(1));
                    let pause = 2_u64.saturating_pow(failures).min(PAUSE_MAX);
                    let next = self.count.saturating_add(pause);
                    self.failed.insert(path.clone(), (failures, next, cause));
                }
            }
        }
        match self.failed.values().next() {
            Some((_, _, cause)) => Err(cause.clone()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_wait_for_their_checkpoint_are_told_only_after_a_while() {
        let mut rounds = Rounds::default();
        let mut told = |blocked| {
            rounds.count = rounds.count.saturating_add(1);
            rounds.overdue(blocked, 3)
        };
        // Each is signed in time.
        for seq in [1, 1, 1, 40, 40, 40, 80] {
            assert_eq!(told(Some(seq)), None);
        }
        assert_eq!([80, 80, 80, 80].map(|seq| told(Some(seq))), [None, None, Some(80), Some(80)]);
        // The same file may be looked at again after a pause.
        assert_eq!(told(None), None);
        assert_eq!(told(Some(120)), None);
    }

    #[test]
    fn a_file_that_cannot_be_compressed_keeps_no_other_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |seq| folder.path().join(segment::name(seq));
        // A folder is no file that can be read.
        std::fs::create_dir(path(1)).unwrap();
        for seq in [2, 3] {
            std::fs::write(path(seq), "a line\n").unwrap();
        }
        let files = [path(1), path(2), path(3)];
        let mut rounds = Rounds::default();
        let mut tries = Vec::new();
        for count in 1..=40 {
            rounds.count = count;
            let left: Vec<_> = files.iter().filter(|path| path.exists()).cloned().collect();
            assert!(rounds.compress(&left).unwrap_err().contains("00001.ndjson"));
            tries.push(rounds.failed.values().next().unwrap().0);
        }
        assert!(!path(2).exists() && !path(3).exists());
        assert!(*tries.last().unwrap() <= 5, "{tries:?}");
    }
}
