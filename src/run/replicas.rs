//! What this instance shares with others: the connection to their store, and who is told when it is
//! lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::StartError;
use super::background::keep_running;
use crate::config::{Config, ReplicasConfig, SharedKey};
use bartizan_approvals::Approvals;
use bartizan_edge::Shared;
use bartizan_edge::admin::Readiness;
use bartizan_gate::duty::limit::shared::{NotShared, SharedLimits, SharedTake};
use bartizan_gate::evidence::record::{AuditRecord, Event};
use bartizan_gate::session::Gate;
use bartizan_replicas::holds::RecordKeys;
use bartizan_replicas::{Link, LinkConfig, LinkError, SharedCounts, SharedHolds};

/// How often the store is asked whether it is there.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// What follows from a loss.
const LOSS: &str = "gone back: it has lost what was written, or somebody has put back what was there \
                    before; all held calls that were open, and all wider grants, are over";
/// What keys are derived for.
const RECORDS: &str = "records of held calls";
const SEALS: &str = "seals of states of held calls";

/// Counts in the store, on a thread that may wait.
struct Aside(SharedCounts);

impl SharedLimits for Aside {
    fn take(&self, takes: &[SharedTake]) -> Result<(), NotShared> {
        bartizan_edge::wait(|| self.0.take(takes))
    }
}

/// The store that replicas share.
pub(super) struct Replicas {
    link: Arc<Link>,
    keys: Vec<SharedKey>,
}

impl Replicas {
    /// Connects to the store that `config` names; `None` if it names none. It is no error if the
    /// store is away: this instance serves without it.
    ///
    /// # Errors
    ///
    /// The configuration cannot be used, or the store does not let us in.
    pub(super) fn open(config: &Config) -> Result<Option<Self>, StartError> {
        let Some(replicas) = &config.replicas else { return Ok(None) };
        let failed = |error: LinkError| {
            StartError::new("replicas", error.to_string())
                .hint("correct `user`, `password` or `ca_file`")
        };
        let link = Link::new(&link(replicas)?).map_err(failed)?;
        match link.probe() {
            Err(error) if error.is_refusal => return Err(failed(error)),
            Err(error) => {
                tracing::error!(cause = %error, "the store of the replicas is away at the start");
            }
            Ok(()) => {}
        }
        Ok(Some(Self { link: Arc::new(link), keys: replicas.keys.clone() }))
    }

    /// Lets `gate` count its limits in the store, and take up calls that other instances hold;
    /// without `replicas` it does both alone.
    pub(super) fn joined(replicas: Option<&Self>, gate: Gate) -> Gate {
        let Some(replicas) = replicas else { return gate };
        let keys: Vec<_> = replicas.keys.iter().map(|key| key.derive(SEALS)).collect();
        let counts = Aside(SharedCounts::new(Arc::clone(&replicas.link)));
        gate.sealing(&keys).sharing_limits(Arc::new(counts))
    }

    /// The held calls in the store.
    pub(super) fn holds(&self) -> SharedHolds {
        let keys = self.keys.iter().map(|key| key.derive(RECORDS)).collect();
        SharedHolds::new(Arc::clone(&self.link), RecordKeys::new(keys))
    }
}

/// Starts the task that keeps the connection, if there is one, and says in the journal, in the log and
/// to the operator when the store is lost and when it works again.
pub(super) fn tend(replicas: Option<&Replicas>, shared: &Shared, readiness: &Readiness) {
    let Some(replicas) = replicas else { return };
    let (link, told) = (Arc::clone(&replicas.link), readiness.clone());
    let (sink, clock) = (Arc::clone(&shared.sink), shared.clock);
    // Whether it was lost at the last look.
    let known = Arc::new(AtomicBool::new(false));
    keep_running(shared, "store of the replicas", move || {
        let (link, readiness) = (Arc::clone(&link), told.clone());
        let (sink, known) = (Arc::clone(&sink), Arc::clone(&known));
        async move {
            loop {
                let probing = Arc::clone(&link);
                let probed = tokio::task::spawn_blocking(move || probing.probe()).await;
                let fault = probed.ok().and_then(Result::err);
                if known.swap(fault.is_some(), Ordering::Relaxed) != fault.is_some() {
                    let note = note(fault.as_ref());
                    tracing::warn!(note, "store of the replicas");
                    readiness.degraded("replicas", fault.as_ref().map(|_| note.clone()));
                    let mut record = AuditRecord::new(Event::Store, clock.now());
                    record.note = Some(note.into());
                    // If it cannot be kept, the journal says so itself.
                    drop(sink.keep(&record));
                }
                tokio::time::sleep(PROBE_EVERY).await;
            }
        }
    });
}

/// Starts the task that says in the journal when all held calls that were open have ended, because
/// their store had lost something.
pub(super) fn tell_losses(approvals: &Approvals, shared: &Shared) {
    let losses = approvals.losses();
    let (sink, clock) = (Arc::clone(&shared.sink), shared.clock);
    keep_running(shared, "losses of the store of held calls", move || {
        let (mut losses, sink) = (losses.clone(), Arc::clone(&sink));
        async move {
            while losses.changed().await.is_ok() {
                let mut record = AuditRecord::new(Event::Store, clock.now());
                record.note = Some(LOSS.into());
                // If it cannot be kept, the journal says so itself.
                drop(sink.keep(&record));
            }
        }
    });
}

/// What follows for calls.
fn note(fault: Option<&LinkError>) -> String {
    match fault {
        Some(error) => format!(
            "lost ({error}): held calls wait and nothing is granted; this instance counts limits \
             alone, by half of each"
        ),
        None => "works again: held calls and limits are shared".to_owned(),
    }
}

fn link(config: &ReplicasConfig) -> Result<LinkConfig, StartError> {
    let ca_pem = config.ca_file.as_deref().map(crate::config::read_pem).transpose();
    Ok(LinkConfig {
        host: config.store.host.clone(),
        port: config.store.port,
        tls: config.store.tls,
        ca_pem: ca_pem.map_err(|what| StartError::new("replicas.ca_file", what))?,
        database: config.store.database,
        user: config.user.clone(),
        password: config.password.as_ref().map(|password| password.expose().into()),
        prefix: config.prefix.clone(),
        timeout: config.timeout,
    })
}
