//! When each held call began to wait.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bartizan_gate::evidence::record::CallId;
use bartizan_sync::lock;

/// Calls whose wait is measured at once; of a further one it is not.
const WAITING_MAX: usize = 16_384;

/// The calls that wait, with the uptime at which each began to.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// How many they are, so that other calls take no lock.
    count: AtomicUsize,
    since: Mutex<HashMap<CallId, Duration>>,
}

impl Waiting {
    pub(crate) fn begins(&self, call: &CallId, uptime: Duration) {
        let mut since = lock(&self.since);
        if since.len() < WAITING_MAX {
            since.entry(CallId::clone(call)).or_insert(uptime);
        }
        self.count.store(since.len(), Ordering::Relaxed);
    }

    /// How long `call` has waited, if it did. It waits no more.
    pub(crate) fn ends(&self, call: &CallId, uptime: Duration) -> Option<Duration> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut since = lock(&self.since);
        let began = since.remove(call)?;
        self.count.store(since.len(), Ordering::Relaxed);
        Some(uptime.saturating_sub(began))
    }
}
