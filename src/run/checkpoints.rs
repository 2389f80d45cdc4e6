//! Signs the journal while the program runs, and when it stops.
//!
//! The task reads the journal's files, so no call waits for a signature. What cannot be signed is
//! logged, and told to the operator; calls go on, because their records are kept.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_audit::journal::Journal;
use bartizan_audit::note::Signer;
use bartizan_audit::signing::{CheckpointError, Checkpointer};
use bartizan_edge::Shared;
use bartizan_edge::admin::Readiness;
use bartizan_gate::evidence::record::Now;
use bartizan_sync::lock;

use super::background::keep_running;
use super::{StartError, state};
use crate::config::CheckpointsConfig;

/// The file in the state directory with the key that is made where the configuration names none, 32
/// bytes.
const KEY_FILE: &str = "checkpoint.key";

/// How often the task looks whether a checkpoint is due.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What the operator is told that cannot be signed.
const COMPONENT: &str = "checkpoints";

/// The signer, where the journal can be signed.
#[derive(Clone)]
pub(super) struct Checkpoints {
    checkpointer: Option<Arc<Mutex<Checkpointer>>>,
    records: u64,
    interval: Duration,
}

impl Checkpoints {
    /// Continues after the last checkpoint of `journal`, with the key of `config` or one in the
    /// directory `state`.
    ///
    /// # Errors
    ///
    /// The key cannot be read, or is not the one of the last checkpoint.
    pub(super) fn open(
        config: &CheckpointsConfig,
        state: &Path,
        journal: &Arc<Journal>,
        readiness: &Readiness,
    ) -> Result<Self, StartError> {
        let signer = signer(config, state)?;
        let opened = Checkpointer::open(journal, state, signer, &config.former_keys);
        let checkpointer = match opened {
            Ok(checkpointer) => Some(Arc::new(Mutex::new(checkpointer))),
            Err(error @ CheckpointError::NoBeginning { .. }) => {
                tracing::warn!(%error, "the journal is not signed");
                readiness.degraded(COMPONENT, Some(error.to_string()));
                None
            }
            Err(error) => return Err(refused(&error)),
        };
        let CheckpointsConfig { records, interval, .. } = *config;
        Ok(Self { checkpointer, records, interval })
    }

    /// Sequence number of the first record that is still to be signed, where the journal is.
    pub(super) fn next_seq(&self) -> Option<u64> {
        self.checkpointer.as_ref().map(|checkpointer| lock(checkpointer).next_seq())
    }

    /// Starts the task that signs.
    pub(super) fn tend(&self, shared: &Shared, readiness: &Readiness) {
        let Some(checkpointer) = &self.checkpointer else { return };
        let (checkpointer, clock) = (Arc::clone(checkpointer), shared.clock);
        let (records, interval, readiness) = (self.records, self.interval, readiness.clone());
        keep_running(shared, "checkpoints of the journal", move || {
            let (checkpointer, readiness) = (Arc::clone(&checkpointer), readiness.clone());
            async move {
                let mut ticks = tokio::time::interval(LOOK_EVERY.min(interval));
                let (mut signed, mut failed) = (clock.uptime(), None);
                loop {
                    ticks.tick().await;
                    let uncovered = lock(&checkpointer).uncovered();
                    let since = clock.uptime().saturating_sub(signed);
                    if uncovered == 0 || (uncovered < records && since < interval) {
                        continue;
                    }
                    let (writing, now) = (Arc::clone(&checkpointer), clock.now());
                    let write = move || lock(&writing).write(now);
                    let Ok(written) = tokio::task::spawn_blocking(write).await else { continue };
                    let cause = written.err().map(|error| error.to_string());
                    if cause != failed {
                        tell(cause.as_deref());
                        readiness.degraded(COMPONENT, cause.clone());
                        failed = cause;
                    }
                    signed = clock.uptime();
                }
            }
        });
    }

    /// Records a checkpoint before the journal is closed.
    pub(super) async fn close(&self, now: Now) {
        self.sign(
            move |checkpointer| {
                if checkpointer.uncovered() == 0 { Ok(()) } else { checkpointer.write(now) }
            },
        )
        .await;
    }

    /// Stores a checkpoint of the closed journal in the state directory.
    pub(super) async fn seal(&self) {
        self.sign(Checkpointer::seal).await;
    }

    async fn sign(
        &self,
        sign: impl FnOnce(&mut Checkpointer) -> Result<(), CheckpointError> + Send + 'static,
    ) {
        let Some(checkpointer) = self.checkpointer.clone() else { return };
        let signing = move || sign(&mut lock(&checkpointer));
        if let Ok(Err(error)) = tokio::task::spawn_blocking(signing).await {
            tell(Some(&error.to_string()));
        }
    }
}

fn tell(cause: Option<&str>) {
    if let Some(cause) = cause {
        tracing::error!(cause, "the journal cannot be signed");
    } else {
        tracing::warn!("the journal can be signed again");
    }
}

fn signer(config: &CheckpointsConfig, state: &Path) -> Result<Signer, StartError> {
    let name = config.name.as_deref();
    match &config.key {
        None => Signer::from_seed(&state::key(state, KEY_FILE)?, name)
            .map_err(|error| StartError::new("audit.checkpoints", error.to_string())),
        Some(path) => crate::config::read_pem(path)
            .and_then(|pem| Signer::from_pem(&pem, name).map_err(|error| error.to_string()))
            .map_err(|what| StartError::new("audit.checkpoints.key", what)),
    }
}

fn refused(error: &CheckpointError) -> StartError {
    let refused = StartError::new("audit.checkpoints", error.to_string());
    match error {
        CheckpointError::OtherKey { .. } => refused.hint(
            "put the old key back; or, to go on with another key, write the old public key in \
             `audit.checkpoints.former_keys`",
        ),
        CheckpointError::Unreadable { .. } | CheckpointError::Changed { .. } => refused
            .hint("keep the directory as evidence, and give a new `state` directory to go on"),
        CheckpointError::NoBeginning { .. }
        | CheckpointError::Read(_)
        | CheckpointError::File(..)
        | CheckpointError::Unkept(_) => refused,
    }
}
