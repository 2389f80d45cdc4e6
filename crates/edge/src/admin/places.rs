//! Who of the operators' connections may stay: a new one always gets a place (threat K1).
//!
//! Nobody authenticates for a probe, so connections without an approver's token share
//! [`CONNECTIONS_MAX`] places, and the oldest of the peer that has most gives way. A request with a
//! right token leaves its place and takes a slot of the approvers' own ([`Slots`]), so that neither can
//! take the room of the other.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use bartizan_sync::lock;

/// Connections open at once without an approver's token. Each has one request.
pub const CONNECTIONS_MAX: usize = 64;
/// Requests of approvers at once, each on a connection of its own.
pub const APPROVER_REQUESTS_MAX: usize = 64;
/// Requests of one approver at once.
const REQUESTS_OF_ONE_MAX: usize = 16;

/// The open connections without an approver's token, oldest first.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Vec<Taken>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Taken {
    peer: IpAddr,
    task: AbortHandle,
    place: Arc<Place>,
}

/// One connection's place.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// What it has in place of it, once its request came with a right token.
    slot: Mutex<Option<Slot>>,
}

impl Place {
    /// Leaves the place for `slot`.
    pub(super) fn leave_for(&self, slot: Slot) {
        *lock(&self.slot) = Some(slot);
    }

    /// Whether it was left.
    pub(super) fn is_left(&self) -> bool {
        lock(&self.slot).is_some()
    }
}

impl Places {
    /// Gives `place` to a connection of `peer`.
    pub(super) fn take(
        &mut self,
        peer: IpAddr,
        place: Arc<Place>,
        serving: impl Future<Output = ()> + Send + 'static,
    ) {
        self.forget_left();
        if self.taken.len() >= CONNECTIONS_MAX {
            self.shed();
        }
        let task = self.tasks.spawn(serving).abort_handle();
        self.taken.push(Taken { peer, task, place });
    }

    /// Closes the oldest connection of the peer that has most.
    pub(super) fn shed(&mut self) {
        self.forget_left();
        let count = |of: IpAddr| self.taken.iter().filter(|it| it.peer == of).count();
        // `max_by_key` takes the last of equals, so the order is reversed.
        let crowd = self.taken.iter().rev().map(|it| it.peer).max_by_key(|peer| count(*peer));
        let oldest = self.taken.iter().position(|it| Some(it.peer) == crowd);
        if let Some(oldest) = oldest {
            self.taken.remove(oldest).task.abort();
        }
    }

    fn forget_left(&mut self) {
        self.taken.retain(|it| !it.task.is_finished() && !it.place.is_left());
    }
}

/// The slots of approvers' requests.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Requests of each approver, by id; none for an approver without any.
    taken: Mutex<HashMap<Box<str>, usize>>,
}

/// One request's slot; given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    approver: Box<str>,
}

impl Slots {
    /// A slot for a request of `approver`; `None` if the approver, or all together, have as many as
    /// may be.
    pub(super) fn take(self: &Arc<Self>, approver: &str) -> Option<Slot> {
        let mut taken = lock(&self.taken);
        let all = taken.values().fold(0_usize, |sum, one| sum.saturating_add(*one));
        let own = taken.get(approver).copied().unwrap_or_default();
        if all >= APPROVER_REQUESTS_MAX || own >= REQUESTS_OF_ONE_MAX {
            return None;
        }
        taken.insert(approver.into(), own.saturating_add(1));
        Some(Slot { slots: Arc::clone(self), approver: approver.into() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = lock(&self.slots.taken);
        let left = taken.get(&self.approver).copied().unwrap_or_default().saturating_sub(1);
        if left == 0 {
            taken.remove(&self.approver);
        } else {
            taken.insert(self.approver.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_approver_leaves_slots_to_others_and_slots_come_back() {
        let slots = Arc::new(Slots::default());
        let own: Vec<_> = (0..REQUESTS_OF_ONE_MAX).map(|_| slots.take("a").unwrap()).collect();
        assert!(slots.take("a").is_none());
        let others: Vec<_> = (0..APPROVER_REQUESTS_MAX - REQUESTS_OF_ONE_MAX)
            .map(|number| slots.take(&format!("b{number}")).unwrap())
            .collect();
        assert!(slots.take("c").is_none(), "all together");
        drop(others);
        assert!(slots.take("c").is_some() && slots.take("a").is_none());
        drop(own);
        assert!(slots.take("a").is_some());
        assert!(lock(&slots.taken).is_empty(), "nothing is left behind");
    }
}
