//! What agents use of a listener at the moment, for metrics.

use std::sync::{Arc, Weak};

use super::ListenerState;

/// What agents use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Connections that are open.
    pub connections: u64,
    /// Requests in progress.
    pub requests: u64,
    /// Streams that are open.
    pub streams: u64,
    /// Bytes of request bodies that are held.
    pub bodies: u64,
    /// Sessions by the name of the server.
    pub sessions: Vec<(Box<str>, u64)>,
}

/// Reads [`Usage`] until the listener has ended.
#[derive(Clone)]
pub struct UsageReader(Weak<ListenerState>);

impl std::fmt::Debug for UsageReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UsageReader").finish_non_exhaustive()
    }
}

impl UsageReader {
    pub(super) fn of(state: &Arc<ListenerState>) -> Self {
        Self(Arc::downgrade(state))
    }

    /// What is used now; `None` once the listener has ended.
    pub fn read(&self) -> Option<Usage> {
        let state = self.0.upgrade()?;
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let sessions = state.routes.values().map(|route| {
            let open = route.sessions.count().saturating_add(route.streams.count());
            (route.server.facts.name.clone(), count(open))
        });
        Some(Usage {
            connections: count(state.connections.count()),
            requests: state.exchanges.used(),
            streams: state.streams.used(),
            bodies: state.body_budget.used(),
            sessions: sessions.collect(),
        })
    }
}
