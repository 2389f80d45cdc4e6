//! The share of each principal in what the listener has for all: requests, streams, bytes of
//! bodies and answers, and turns to be judged. Where callers prove who they are, no single one can
//! take everything from the others (threat K4); where the principal is configured there is only one,
//! and no share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bartizan_sync::lock;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::HttpLimits;
use crate::aside::{LARGE_BYTES, processors};
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
    /// Bytes of large answers that have arrived and have not been judged.
    answers: Arc<Budget>,
    /// Turns to judge a message: as many as processors, so that what one principal sends waits here,
    /// and not before the messages of others.
    turns: Semaphore,
    /// Turns to judge a large message: one, so that the next large message of another principal
    /// waits for one at most.
    large_turns: Semaphore,
}

/// A turn to judge a message of one principal; given back on drop.
#[derive(Debug)]
pub(super) struct ShareTurn<'a> {
    _permit: Option<SemaphorePermit<'a>>,
}

/// Waits for a turn of the principal with `share` to judge a message of `bytes` (threat K13).
pub(super) async fn turn(share: Option<&Share>, bytes: usize) -> Option<ShareTurn<'_>> {
    let share = share?;
    let turns = if bytes < LARGE_BYTES { &share.turns } else { &share.large_turns };
    // The semaphore is never closed.
    Some(ShareTurn { _permit: turns.acquire().await.ok() })
}

impl Share {
    /// Reserves memory for an answer of `bytes` that waits to be judged; nothing for a small one.
    /// Fails if the principal has none left.
    pub(super) fn count_answer(&self, bytes: usize) -> Result<Option<Reservation>, NoRoom> {
        if bytes < LARGE_BYTES {
            return Ok(None);
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.answers.take(bytes).map(Some).ok_or(NoRoom)
    }
}

/// A share is spent.
#[derive(Debug)]
pub(super) struct NoRoom;

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
            answers: Budget::new(self.limits.answer_budget_bytes.div_ceil(2)),
            turns: Semaphore::new(processors()),
            large_turns: Semaphore::new(1),
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
                && unused(&share.bodies)
                && unused(&share.answers);
            !idle
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn one_principals_messages_wait_for_each_other_alone() {
        let shares =
            Shares::new(&HttpLimits { answer_budget_bytes: 200_000, ..HttpLimits::default() });
        let of = |id: &str| shares.of(&Principal { id: id.into(), ..Principal::default() });
        let (mine, other) = (of("a"), of("b"));
        let mut held = Vec::new();
        for _ in 0..processors() {
            held.push(turn(Some(&mine), 1).await);
        }
        let large = turn(Some(&mine), LARGE_BYTES).await;
        for bytes in [1, LARGE_BYTES] {
            let mut next = pin!(turn(Some(&mine), bytes));
            assert!(poll_immediate(next.as_mut()).await.is_none(), "{bytes}");
            assert!(poll_immediate(pin!(turn(Some(&other), bytes))).await.is_some(), "{bytes}");
            assert!(poll_immediate(pin!(turn(None, bytes))).await.is_some(), "{bytes}");
        }
        held.pop();
        drop(large);
        for bytes in [1, LARGE_BYTES] {
            assert!(poll_immediate(pin!(turn(Some(&mine), bytes))).await.is_some(), "{bytes}");
        }
        let counted = mine.count_answer(100_000).unwrap();
        assert!(mine.count_answer(LARGE_BYTES).is_err());
        assert!(
            mine.count_answer(LARGE_BYTES - 1).unwrap().is_none(),
            "small ones are not counted"
        );
        assert!(other.count_answer(100_000).is_ok());
        drop((counted, held));
        assert!(mine.count_answer(100_000).is_ok());
    }

    /// What `future` gives when it is polled once.
    async fn poll_immediate<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

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
