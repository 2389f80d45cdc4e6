//! What stands around a gate under test: a policy whose verdict a test can foresee, and a sink that
//! shows its records.
//!
//! For tests, benches and fuzz targets alone; no crate that is shipped depends on it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bartizan_gate::duty::decision::{
    Decision, Effect, Engine, Listing, Obligation, Origin, PolicyRevision, Reason,
};
use bartizan_gate::duty::pdp::{ListEntry, Pdp};
use bartizan_gate::evidence::record::{AuditRecord, Event, Outcome};
use bartizan_gate::evidence::step::{AuditSink, Unkept};
use bartizan_gate::question::access::{AccessRequest, Resource};
use bartizan_sync::lock;
use tokio::sync::Notify;

/// What a call of the first argument's name must meet if it is permitted; nothing if it is denied.
pub type Judge = fn(&str, &AccessRequest<'_>) -> Option<Vec<Obligation>>;

/// A policy that judges by one name: the tool's, or the method's where there is no tool.
#[derive(Debug, Clone)]
pub struct ByName {
    /// What it is called.
    pub revision: PolicyRevision,
    /// What becomes of a call.
    pub judge: Judge,
    /// Whether an entry of this name is left out of a list.
    pub hides: fn(&str) -> bool,
}

impl ByName {
    /// Permits what `judge` does not deny, and shows every entry.
    pub fn new(judge: Judge) -> Self {
        Self { revision: "test".into(), judge, hides: |_| false }
    }
}

impl Pdp for ByName {
    fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let reason = |code: &str| Reason {
            code: code.into(),
            message: code.into(),
            origin: Origin::Rule,
            tell: None,
        };
        let name = match request.resource {
            Resource::Tool { name, .. } => name,
            Resource::Uri(_)
            | Resource::Uris(_)
            | Resource::Prompt { .. }
            | Resource::Task { .. }
            | Resource::Answer { .. }
            | Resource::Whole => request.method,
        };
        match (self.judge)(name, request) {
            None => Decision::deny(self.revision(), Engine::Strict, reason("denied")),
            Some(obligations) => Decision {
                effect: Effect::Permit,
                reasons: vec![reason("by-name")],
                obligations,
                revision: self.revision(),
                engine: Engine::Strict,
            },
        }
    }

    fn list(&self, _: &AccessRequest<'_>, entries: &[ListEntry<'_>]) -> Listing {
        let names = entries.iter().map(|entry| entry.name).filter(|name| (self.hides)(name));
        Listing::Hide { names: names.map(Into::into).collect(), revision: self.revision() }
    }

    fn revision(&self) -> PolicyRevision {
        Arc::clone(&self.revision)
    }
}

/// Longer than any record takes that a test waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps records in memory, or refuses them.
#[derive(Debug, Default)]
pub struct Sink {
    kept: Mutex<Vec<AuditRecord>>,
    changed: Notify,
    /// Keeps nothing while set.
    pub refusing: AtomicBool,
    /// Panics instead of keeping a record while set.
    pub panicking: AtomicBool,
    /// Called with each record before it is kept, if set.
    pub before: OnceLock<fn(&AuditRecord)>,
    /// The time that its clock shows; it has none if this is not set.
    pub uptime: OnceLock<Duration>,
}

impl AuditSink for Sink {
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
        if self.refusing.load(Ordering::Relaxed) {
            return Err(Unkept { cause: "the test says no".into() });
        }
        assert!(!self.panicking.load(Ordering::Relaxed), "the test says so");
        if let Some(before) = self.before.get() {
            before(record);
        }
        self.kept().push(record.clone());
        self.changed.notify_waiters();
        Ok(())
    }

    fn uptime(&self) -> Option<Duration> {
        self.uptime.get().copied()
    }
}

impl Sink {
    /// A sink that keeps nothing.
    pub fn refusing() -> Self {
        Self { refusing: true.into(), ..Self::default() }
    }

    /// The records that were kept, in order.
    pub fn kept(&self) -> MutexGuard<'_, Vec<AuditRecord>> {
        lock(&self.kept)
    }

    /// The event of each record.
    pub fn events(&self) -> Vec<Event> {
        self.kept().iter().map(|record| record.event).collect()
    }

    /// The outcome of each record that has one.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.kept().iter().filter_map(|record| record.outcome.clone()).collect()
    }

    /// Each record as `event method outcome`, with `-` for what it does not have.
    pub fn lines(&self) -> Vec<String> {
        let line = |record: &AuditRecord| {
            let mut line =
                format!("{:?} {} ", record.event, record.method.as_deref().unwrap_or("-"));
            match &record.outcome {
                Some(outcome) => write!(line, "{outcome:?}").unwrap_or_default(),
                None => line.push('-'),
            }
            line
        };
        self.kept().iter().map(line).collect()
    }

    /// Waits for a record that says `outcome`; panics if none comes in time.
    pub async fn outcome(&self, outcome: Outcome) {
        let says = |record: &AuditRecord| record.outcome.as_ref() == Some(&outcome);
        self.until("the outcome", |records| records.iter().any(says)).await;
    }

    /// Waits for `count` records that let a message go on; panics if they do not come in time.
    pub async fn intents(&self, count: usize) {
        let intents = |records: &[AuditRecord]| {
            records.iter().filter(|record| record.event == Event::Intent).count()
        };
        self.until("the intents", |records| intents(records) >= count).await;
    }

    /// Waits until the records are as `done` wants them; panics if that takes too long.
    async fn until(&self, what: &str, done: impl Fn(&[AuditRecord]) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if done(&self.kept()) {
                    return;
                }
                changed.await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{what}: too late");
    }
}
