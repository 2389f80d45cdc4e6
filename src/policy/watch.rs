//! Hot reload of a policy from files.
//!
//! A change is noticed by events of the operating system, by a trigger (SIGHUP), and by polling,
//! because network file systems and some swaps of symbolic links cause no event. The files are
//! loaded only if their fingerprint differs, so a superfluous event costs little. A change is
//! loaded, proven and built while the old policy runs; then the running policy is replaced in one
//! step. After a failure it stays, and an event says why. This module writes no log and no record:
//! it sends events to a channel, and `run` writes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::load::{Fingerprint, fingerprint};
use super::{PolicySettings, Ready, blocking, prepare};
use bartizan_gate::duty::decision::{Engine, PolicyRevision};
use bartizan_rego::{Demotion, Lint, PolicyProblem, Proof, RegoPdp};
use bartizan_sync::caught;

/// How long no event may come before the files are read (debouncing).
const SETTLE: Duration = Duration::from_millis(150);
/// How many times an event may restart [`SETTLE`], so that a file that is written continuously is
/// still read.
const SETTLE_ROUNDS_MAX: usize = 20;
/// How often the files are checked without an event.
pub const POLL: Duration = Duration::from_secs(10);

/// A change of the running policy, or a failure of one.
#[derive(Debug)]
pub enum PolicyEvent {
    /// A new policy runs.
    Loaded {
        /// Where it comes from.
        source: Source,
        /// Its revision.
        revision: PolicyRevision,
        /// The engine that evaluates it.
        engine: Engine,
        /// The result of its proof.
        proof: Proof,
        /// What its author should know.
        warnings: Vec<Lint>,
    },
    /// A new policy was refused; the old one still runs.
    Rejected {
        /// Where it comes from.
        source: Source,
        /// The name of the bundle, where it is one of a service.
        candidate: Option<String>,
        /// The problems for which it was refused.
        problems: Vec<PolicyProblem>,
    },
    /// The engines gave different answers; from now on the strict engine answers alone.
    Demoted {
        /// The policy's revision and both answers.
        demotion: Demotion,
    },
    /// The bundle service cannot be reached, or its bundle cannot be stored. The running policy
    /// stays.
    ServiceFailed {
        /// The cause: lower case, no period.
        what: String,
    },
    /// The bundle service can be reached again.
    Recovered,
    /// A panic interrupted the task that follows the policy's source. It goes on.
    Interrupted,
    /// The running policy has become older than it may be, and nothing is permitted until a newer one
    /// comes.
    Expired {
        /// Its revision.
        revision: PolicyRevision,
        /// The cause: lower case, no period.
        what: String,
    },
}

impl PolicyEvent {
    /// The event for a policy that now runs.
    pub fn loaded(ready: &Ready, source: Source) -> Self {
        Self::Loaded {
            source,
            revision: ready.revision.clone(),
            engine: ready.engine,
            proof: ready.proof.clone(),
            warnings: ready.warnings.clone(),
        }
    }
}

/// Where a policy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Files and directories.
    Files,
    /// A bundle service.
    Service,
    /// The last good bundle of a service, stored in an earlier run.
    LastGood,
}

/// The running policy at the beginning of a [`watch`].
#[derive(Debug, Clone)]
pub struct Answering {
    /// The decision point.
    pub pdp: Arc<RegoPdp>,
    /// The fingerprint of its files when they were loaded.
    pub fingerprint: Fingerprint,
}

/// Watches the files of `settings` until [`Triggers::stop`]. `now` is the running policy at the
/// beginning; `install` replaces it by a proven one.
pub async fn watch(
    settings: PolicySettings,
    now: Answering,
    triggers: Triggers,
    install: impl Fn(Arc<RegoPdp>) + Send + Sync,
    events: mpsc::Sender<PolicyEvent>,
) {
    let mut now = now;
    let mut following = Following::Changes;
    let followed = async {
        while caught(follow(&settings, &mut now, following, &triggers, &install, &events))
            .await
            .is_err()
        {
            following = Following::Anew;
            drop(events.send(PolicyEvent::Interrupted).await);
            tokio::time::sleep(triggers.poll).await;
        }
    };
    tokio::select! {
        () = triggers.stop.cancelled() => {}
        () = followed => {}
    }
}

/// What makes a [`watch`] check the files, and what ends it.
#[derive(Debug, Clone)]
pub struct Triggers {
    /// Load the policy even if nothing changed (SIGHUP).
    pub again: Arc<Notify>,
    /// How often to check without an event: [`POLL`], or less in tests.
    pub poll: Duration,
    /// Cancelled to end the watch.
    pub stop: CancellationToken,
}

/// What a watch begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Following {
    /// It waits for changes.
    Changes,
    /// After a panic: it loads the files, which may be newer than the running policy.
    Anew,
}

async fn follow(
    settings: &PolicySettings,
    answering: &mut Answering,
    following: Following,
    triggers: &Triggers,
    install: &(impl Fn(Arc<RegoPdp>) + Send + Sync),
    events: &mpsc::Sender<PolicyEvent>,
) {
    // Capacity 1 is enough: an event has no content, so further ones say the same.
    let (tell, mut told) = mpsc::channel(1);
    let mut watcher = arm(settings, &tell).await;
    // Check once now: a file may have changed before the watcher was there.
    let _room = tell.try_send(());
    let mut demoted = false;
    let mut anew = following == Following::Anew;
    loop {
        let forced = tokio::select! {
            () = triggers.again.notified() => true,
            Some(()) = told.recv() => false,
            () = tokio::time::sleep(triggers.poll) => false,
        };
        if let Some(demotion) = answering.pdp.demotion().filter(|_| !demoted) {
            demoted = true;
            drop(events.send(PolicyEvent::Demoted { demotion }).await);
        }
        settle(&mut told).await;
        let files = settings.files.clone();
        let Ok(looks) = blocking(move || fingerprint(&files)).await else { continue };
        if !forced && !std::mem::take(&mut anew) && looks == answering.fingerprint {
            continue;
        }
        answering.fingerprint = looks;
        // A path may be another directory now, so it needs a new watcher.
        watcher = arm(settings, &tell).await.or(watcher);
        let event = match prepare(settings).await {
            Ok(ready) => {
                install(Arc::clone(&ready.pdp));
                demoted = false;
                let event = PolicyEvent::loaded(&ready, Source::Files);
                *answering = Answering { pdp: ready.pdp, fingerprint: ready.fingerprint };
                event
            }
            Err(problems) => {
                PolicyEvent::Rejected { source: Source::Files, candidate: None, problems }
            }
        };
        // The send fails once the receiver is dropped. Watching continues without events.
        drop(events.send(event).await);
    }
}

/// Waits until no event comes for [`SETTLE`], or [`SETTLE_ROUNDS_MAX`] events came.
async fn settle(told: &mut mpsc::Receiver<()>) {
    for _ in 0..SETTLE_ROUNDS_MAX {
        if tokio::time::timeout(SETTLE, told.recv()).await.is_err() {
            return;
        }
    }
}

/// Subscribes to events of the operating system (inotify(7) on Linux); `None` where that fails, so
/// that polling alone finds changes.
async fn arm(settings: &PolicySettings, tell: &mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let bundle = settings.files.bundle.iter().map(|bundle| bundle.path.clone());
    let paths: Vec<PathBuf> = settings.files.paths.iter().cloned().chain(bundle).collect();
    let tell = tell.clone();
    blocking(move || watcher(&paths, tell)).await.ok().flatten()
}

fn watcher(paths: &[PathBuf], tell: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let roots: Vec<PathBuf> = paths
        .iter()
        .flat_map(|path| [std::path::absolute(path).ok(), std::fs::canonicalize(path).ok()])
        .flatten()
        .collect();
    let ours = roots.clone();
    let concerns = move |event: &notify::Event| {
        event.need_rescan()
            || event.paths.iter().any(|path| ours.iter().any(|root| path.starts_with(root)))
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let look = event.map_or(true, |event| !event.kind.is_access() && concerns(&event));
        if look {
            // A full channel is harmless: an event that says the same already waits in it.
            let _room = tell.try_send(());
        }
    })
    .ok()?;
    for root in &roots {
        // Only the parent directory reports that the path itself was replaced, by an editor's
        // rename or a swapped link. Errors are ignored: polling covers that path.
        let around = root.parent().unwrap_or(root);
        drop(watcher.watch(root, RecursiveMode::Recursive));
        drop(watcher.watch(around, RecursiveMode::NonRecursive));
    }
    Some(watcher)
}
