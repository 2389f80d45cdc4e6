//! Hot reload: a policy follows its files, and never by halves.
//!
//! A change is noticed by the operating system's events, by a trigger (SIGHUP), and, where neither
//! arrives (network file systems, links swapped far away), by looking again every so often. What
//! decides is how the files look, so an event too many costs nothing. Each change is loaded,
//! proven and built aside; only then is the running policy replaced, whole. A change that fails
//! leaves the running policy as it is and says why. Nothing here writes a log or a record: events
//! go to a channel.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::load::{Fingerprint, fingerprint};
use super::{PolicySettings, Ready, blocking, prepare};
use bartizan_gate::duty::decision::{Engine, PolicyRevision};
use bartizan_rego::{Demotion, PolicyProblem, Proof, RegoPdp};

/// How long the files must be left alone before they are read.
const SETTLE: Duration = Duration::from_millis(150);
/// How often settling may begin again: a file that is written without end is read all the same.
const SETTLE_ROUNDS_MAX: usize = 20;
/// How often the files are looked at without any event.
pub const POLL: Duration = Duration::from_secs(10);

/// What happened to the policy.
#[derive(Debug)]
pub enum PolicyEvent {
    /// A new one answers.
    Loaded {
        /// Where it came from.
        source: Source,
        /// Its revision.
        revision: PolicyRevision,
        /// The engine that it runs on.
        engine: Engine,
        /// What its proof found.
        proof: Proof,
    },
    /// A change was refused; the old one answers.
    Rejected {
        /// Where it came from.
        source: Source,
        /// What it is called, where it is a bundle of a service.
        candidate: Option<String>,
        /// Why.
        problems: Vec<PolicyProblem>,
    },
    /// The compiled engine disagreed with the strict one, which answers from now on.
    Demoted {
        /// The policy that it happened to, and in what they disagreed.
        demotion: Demotion,
    },
    /// The bundle service cannot be asked, or what it gave cannot be kept. The policy that
    /// answers goes on.
    Trouble {
        /// What happened.
        what: String,
    },
    /// The bundle service can be asked again.
    Recovered,
}

impl PolicyEvent {
    /// `ready` answers.
    pub fn loaded(ready: &Ready, source: Source) -> Self {
        Self::Loaded {
            source,
            revision: ready.revision.clone(),
            engine: ready.engine,
            proof: ready.proof.clone(),
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
    /// What a bundle service gave before the program was started.
    LastGood,
}

/// The policy that answers when a [`watch`] begins.
#[derive(Debug, Clone)]
pub struct Answering {
    /// What answers.
    pub pdp: Arc<RegoPdp>,
    /// What its files looked like.
    pub fingerprint: Fingerprint,
}

/// Follows the files of `settings` until [`Triggers::stop`], beginning with the policy that
/// answers `now`. `install` puts a proven policy in its place.
pub async fn watch(
    settings: PolicySettings,
    now: Answering,
    triggers: Triggers,
    install: impl Fn(Arc<RegoPdp>) + Send,
    events: mpsc::Sender<PolicyEvent>,
) {
    let follow = follow(&settings, now, &triggers, install, &events);
    tokio::select! {
        () = triggers.stop.cancelled() => {}
        () = follow => {}
    }
}

/// What makes a [`watch`] look, and what ends it.
#[derive(Debug, Clone)]
pub struct Triggers {
    /// Read the files even if nothing changed: SIGHUP.
    pub again: Arc<Notify>,
    /// How often to look without any event; [`POLL`] unless there is a reason.
    pub poll: Duration,
    /// End.
    pub stop: CancellationToken,
}

async fn follow(
    settings: &PolicySettings,
    mut answering: Answering,
    triggers: &Triggers,
    install: impl Fn(Arc<RegoPdp>) + Send,
    events: &mpsc::Sender<PolicyEvent>,
) {
    // One place is enough: an event says only that something happened.
    let (tell, mut told) = mpsc::channel(1);
    let mut watcher = arm(settings, &tell).await;
    // The first look finds what changed before there was a watch.
    let _room = tell.try_send(());
    let mut demoted = false;
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
        if !forced && looks == answering.fingerprint {
            continue;
        }
        answering.fingerprint = looks;
        // A path may be another directory than before.
        watcher = arm(settings, &tell).await.or(watcher);
        let event = match prepare(settings).await {
            Ok(ready) => {
                install(Arc::clone(&ready.pdp));
                demoted = false;
                let event = PolicyEvent::loaded(&ready, Source::Files);
                answering = Answering { pdp: ready.pdp, fingerprint: ready.fingerprint };
                event
            }
            Err(problems) => {
                PolicyEvent::Rejected { source: Source::Files, candidate: None, problems }
            }
        };
        // Where nobody listens, the policy goes on following its files.
        drop(events.send(event).await);
    }
}

/// Waits until the files are left alone.
async fn settle(told: &mut mpsc::Receiver<()>) {
    for _ in 0..SETTLE_ROUNDS_MAX {
        if tokio::time::timeout(SETTLE, told.recv()).await.is_err() {
            return;
        }
    }
}

/// Asks the operating system for events. Nothing where it has none to give: polling remains.
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
            // Where no place is left, the one that waits says the same.
            let _room = tell.try_send(());
        }
    })
    .ok()?;
    for root in &roots {
        // The directory around a path sees the path itself replaced: an editor's rename, a link
        // that is swapped. What cannot be watched is polled.
        let around = root.parent().unwrap_or(root);
        drop(watcher.watch(root, RecursiveMode::Recursive));
        drop(watcher.watch(around, RecursiveMode::NonRecursive));
    }
    Some(watcher)
}
