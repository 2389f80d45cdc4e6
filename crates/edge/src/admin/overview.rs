//! What approvers may look at beside held calls: the journal, and the protected servers. Nothing here
//! changes anything.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /audit`, with filters, `?before=` and `?after=` | Recent records, newest first. |
//! | `GET /audit/changes?after=N` | The number of the latest record, once it is not N; at the latest after [`CHANGES_WAIT`](super::api::CHANGES_WAIT). |
//! | `GET /servers` | The servers, with their packs and locks, and the policy. |

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use crate::Shared;
use bartizan_gate::catalog::drift::DefinitionLock;
use bartizan_gate::question::status::Drift;
use bartizan_gate::session::Protected;

/// Where the journal is.
pub(super) const AUDIT: &str = "/audit";
/// Where the servers are.
pub(super) const SERVERS: &str = "/servers";
/// Names of tools that are listed of each server whose definitions are not those of its lock.
const NAMES_MAX: usize = 50;
/// Readings of the journal at once.
const READINGS_MAX: usize = 1;

/// The journal, as far as the console reads it.
pub trait RecordSource: Send + Sync {
    /// The sequence number of the last record.
    fn head(&self) -> watch::Receiver<u64>;

    /// Recent records as a JSON text, for the query of a URL; `None` if it is not one. The work and
    /// the text are bounded.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    fn recent(&self, query: &str) -> io::Result<Option<Bytes>>;
}

/// One server, as it was configured.
#[derive(Debug, Clone)]
pub struct Described {
    /// What is known about it now.
    pub server: Arc<Protected>,
    /// The path at which agents reach it.
    pub path: Box<str>,
    /// How it is reached: `http`, `sse` or `program`.
    pub transport: &'static str,
}

/// What approvers may look at.
pub struct Overview {
    records: Arc<dyn RecordSource>,
    servers: Vec<Described>,
    readings: Arc<Semaphore>,
}

impl fmt::Debug for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overview").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Overview {
    /// Shows `records` and `servers`.
    pub fn new(records: Arc<dyn RecordSource>, servers: Vec<Described>) -> Self {
        Self { records, servers, readings: Arc::new(Semaphore::new(READINGS_MAX)) }
    }

    /// The sequence number of the last record.
    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.records.head()
    }

    /// Whoever reads the journal holds it, so that reading takes one thread at most.
    pub(super) fn readings(&self) -> Arc<Semaphore> {
        Arc::clone(&self.readings)
    }

    /// See [`RecordSource::recent`].
    pub(super) fn recent(&self, query: &str) -> io::Result<Option<Bytes>> {
        self.records.recent(query)
    }

    /// The servers, and the policy of `shared`.
    pub(super) fn servers(&self, shared: &Shared) -> impl Serialize {
        State {
            mode: shared.gate.mode().as_str(),
            policy: shared.gate.policy().revision().as_ref().into(),
            servers: self.servers.iter().map(ServerView::of).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct State {
    /// `enforce`, or `observe`: decisions are recorded and not enforced.
    mode: &'static str,
    /// Revision of the policy that decides now.
    policy: Box<str>,
    servers: Vec<ServerView>,
}

#[derive(Debug, Serialize)]
struct ServerView {
    name: Box<str>,
    path: Box<str>,
    transport: &'static str,
    /// The environment that calls must stay in.
    environment: Option<Box<str>>,
    labels: Vec<(Box<str>, Box<str>)>,
    /// The pack that classifies its tools.
    pack: Option<PackView>,
    lock: LockView,
}

#[derive(Debug, Serialize)]
struct PackView {
    name: Arc<str>,
    /// How many tools it knows.
    tools: usize,
}

/// How the definitions that the server has shown agree with its lock.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct LockView {
    /// `off`: no lock file is configured. `unlocked`: this server is not in it. `locked`.
    state: &'static str,
    /// Tools in the lock.
    tools: usize,
    /// Tools that the server has listed since the start.
    listed: usize,
    /// Tools whose definition is another than in the lock; the names come from the server.
    changed: Vec<Box<str>>,
    /// Tools that are not in the lock, likewise.
    added: Vec<Box<str>>,
    /// Tools in the lock that the server has not listed.
    missing: Vec<Box<str>>,
    /// Names that are left out of the three lists.
    more: usize,
}

impl ServerView {
    fn of(described: &Described) -> Self {
        let facts = &described.server.facts;
        let labels = facts.labels.iter();
        let pack = facts.pack.as_deref();
        Self {
            name: facts.name.clone(),
            path: described.path.clone(),
            transport: described.transport,
            environment: facts.environment.clone(),
            labels: labels.map(|(name, value)| (name.clone(), value.clone())).collect(),
            pack: pack
                .map(|pack| PackView { name: Arc::clone(&pack.name), tools: pack.tools.len() }),
            lock: LockView::of(&described.server),
        }
    }
}

impl LockView {
    fn of(server: &Protected) -> Self {
        let seen = server.tools();
        let mut view = Self { listed: seen.len(), ..Self::default() };
        let locked = match &server.lock {
            DefinitionLock::Off => {
                view.state = "off";
                return view;
            }
            DefinitionLock::Unlocked => {
                view.state = "unlocked";
                return view;
            }
            DefinitionLock::Locked(locked) => locked,
        };
        view.state = "locked";
        view.tools = locked.len();
        for (name, definition) in &seen {
            match server.drift(name, &definition.digest) {
                Some(Drift::Changed) => keep(&mut view.changed, name, &mut view.more),
                Some(Drift::Added) => keep(&mut view.added, name, &mut view.more),
                _ => {}
            }
        }
        for name in locked.keys().filter(|name| !seen.contains_key(*name)) {
            keep(&mut view.missing, name, &mut view.more);
        }
        view
    }
}

/// Adds `name` to `names`, or counts it as left out.
fn keep(names: &mut Vec<Box<str>>, name: &str, more: &mut usize) {
    if names.len() < NAMES_MAX {
        names.push(name.into());
    } else {
        *more = more.saturating_add(1);
    }
}
