//! The share of each principal in what the listener has for all: requests, streams, bytes of
//! bodies. Where callers prove who they are, no single one can take everything from the others
//! (threat K4); where the principal is configured there is only one, and no share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bartizan_sync::lock;

use super::HttpLimits;
use crate::budget::{Budget, Reservation};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::DoorRefusal;

/// One principal's share: half of everything, rounded up.
#[derive(Debug)]
pub(super) struct Share {
    /// Requests in progress.
    pub(super) requests: Arc<Budget>,
    /// Streams without an end.
    pub(super) streams: Arc<Budget>,
    /// Bytes of request bodies.
    pub(super) bodies: Arc<Budget>,
}

/// The places of a request: `slot`, which it has, and one of its principal's.
pub(super) fn request_slots(
    slot: Reservation,
    share: Option<&Share>,
) -> Result<Vec<Reservation>, DoorRefusal> {
    let mut slots = vec![slot];
    if let Some(share) = share {
        slots.push(share.requests.take(1).ok_or(DoorRefusal::TooMany)?);
    }
    Ok(slots)
}

/// The shares of all principals with a request in progress.
#[derive(Debug)]
pub(super) struct Shares {
    limits: HttpLimits,
    by_principal: Mutex<HashMap<Box<str>, Arc<Share>>>,
}

impl Shares {
    pub(super) fn new(limits: &HttpLimits) -> Self {
        Self { limits: *limits, by_principal: Mutex::default() }
    }

    /// The share of `principal`.
    pub(super) fn of(&self, principal: &Principal) -> Arc<Share> {
        let mut shares = lock(&self.by_principal);
        if let Some(share) = shares.get(&*principal.id) {
            return Arc::clone(share);
        }
        let share = Arc::new(Share {
            requests: Budget::new(self.limits.exchanges_max.div_ceil(2)),
            streams: Budget::new(self.limits.streams_max.div_ceil(2)),
            bodies: Budget::new(self.limits.body_budget_bytes.div_ceil(2)),
        });
        shares.insert(principal.id.clone(), Arc::clone(&share));
        share
    }

    /// Forgets the principals that hold nothing.
    pub(super) fn sweep(&self) {
        let unused = |budget: &Arc<Budget>| Arc::strong_count(budget) == 1;
        lock(&self.by_principal).retain(|_, share| {
            let idle = Arc::strong_count(share) == 1
                && unused(&share.requests)
                && unused(&share.streams)
                && unused(&share.bodies);
            !idle
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_for_each_and_nothing_is_kept() {
        let shares = Shares::new(&HttpLimits { exchanges_max: 3, ..HttpLimits::default() });
        let who = |id: &str| Principal { id: id.into(), ..Principal::default() };
        let mine = shares.of(&who("a")).requests.take(2).unwrap();
        assert!(shares.of(&who("a")).requests.take(1).is_none());
        assert!(shares.of(&who("b")).requests.take(2).is_some());
        shares.sweep();
        assert_eq!(lock(&shares.by_principal).len(), 1, "a still holds something");
        assert!(shares.of(&who("a")).requests.take(1).is_none());
        drop(mine);
        shares.sweep();
        assert!(lock(&shares.by_principal).is_empty());
    }
}
