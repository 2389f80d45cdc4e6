//! Lanes: what the connections of one network address have ready to run waits for its like, and not
//! before the work of others (threat K13).
//!
//! The runtime runs tasks in the order in which they became ready. An address that has a thousand
//! connections or HTTP/2 streams with something to do would have a thousand tasks before the one of
//! somebody else. So each of its tasks needs a permit of the address for each poll, and keeps it
//! until it has passed through the runtime's queue once more, behind all that is ready by then. A
//! task that gets none waits for one outside of that queue, in order. Each serving thread
//! ([`super::workers`]) has lanes of its own with one permit for each address; long work gives back
//! the permit of its task ([`crate::aside`]).
//!
//! While all connections come from one address, as they do where one agent is beside this program, no
//! permit is needed.
//!
//! Addresses, and not principals, because most of the work is done before a token is checked. Where
//! all agents share an address they share its lane, which changes nothing for them; then the turns
//! of [`super::shares`] tell principals apart.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bartizan_sync::lock;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::repoll::Repoll;
use crate::aside::with_permit;

/// A network address as lanes tell them apart: an IPv4 address, or the /64 network of an IPv6
/// address, all of which one host has. `None` where the system does not tell it.
pub(crate) type Network = Option<IpAddr>;

/// The network that `address` is in.
pub(crate) fn network(address: Option<IpAddr>) -> Network {
    address.map(|address| match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    })
}

/// The lanes of all addresses with an open connection.
#[derive(Debug)]
pub(super) struct Lanes {
    permits: usize,
    /// How many networks have an open connection.
    networks: AtomicUsize,
    open: Mutex<HashMap<Network, (Arc<Semaphore>, usize)>>,
}

impl Lanes {
    /// Lanes with `permits` each: as many as threads serve what they have.
    pub(super) fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self { permits, networks: AtomicUsize::new(0), open: Mutex::default() })
    }

    /// The lane of a new connection from `address`.
    pub(super) fn of(self: &Arc<Self>, address: Option<IpAddr>) -> Lane {
        let network = network(address);
        let mut open = lock(&self.open);
        let (permits, connections) =
            open.entry(network).or_insert_with(|| (Arc::new(Semaphore::new(self.permits)), 0));
        *connections = connections.saturating_add(1);
        let permits = Arc::clone(permits);
        self.networks.store(open.len(), Ordering::Relaxed);
        Lane { permits, place: Arc::new(LanePlace(Arc::clone(self), network)) }
    }
}

/// One connection's place in a lane.
#[derive(Debug)]
struct LanePlace(Arc<Lanes>, Network);

impl Drop for LanePlace {
    fn drop(&mut self) {
        let mut open = lock(&self.0.open);
        let Some((_, connections)) = open.get_mut(&self.1) else { return };
        *connections = connections.saturating_sub(1);
        if *connections == 0 {
            open.remove(&self.1);
            self.0.networks.store(open.len(), Ordering::Relaxed);
        }
    }
}

/// The lane of a connection and of its HTTP/2 streams.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    permits: Arc<Semaphore>,
    place: Arc<LanePlace>,
}

impl Lane {
    /// Whether no other network has a connection, so that there is nobody to be kept waiting.
    fn is_only_one(&self) -> bool {
        self.place.0.networks.load(Ordering::Relaxed) <= 1
    }

    /// `work` with a permit of this lane for each poll.
    pub(super) fn paced<T>(&self, work: impl Future<Output = T> + Send + 'static) -> Paced<T> {
        Paced { work: Repoll::new(work), lane: self.clone(), waiting: None, held: None }
    }
}

type Waiting = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// A future that is polled with a permit only, if there are several lanes.
pub(super) struct Paced<T> {
    work: Repoll<T>,
    lane: Lane,
    /// Waits for a permit.
    waiting: Option<Waiting>,
    /// The permit of the last poll. It is given back when the runtime's queue has come round: a
    /// permit that was free at once would let all tasks of the address run one after the other.
    held: Option<OwnedSemaphorePermit>,
}

impl<T> Future for Paced<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Self { work, lane, waiting, held } = &mut *self;
        drop(held.take());
        if !work.wants_poll(cx.waker()) {
            return Poll::Pending;
        }
        if waiting.is_none() && lane.is_only_one() {
            return Pin::new(work).poll(cx);
        }
        let free = match waiting {
            None => Arc::clone(&lane.permits).try_acquire_owned().ok(),
            Some(_) => None,
        };
        let permit = if let Some(permit) = free {
            Ok(permit)
        } else {
            let wait = || -> Waiting { Box::pin(Arc::clone(&lane.permits).acquire_owned()) };
            let permit = ready!(waiting.get_or_insert_with(wait).as_mut().poll(cx));
            *waiting = None;
            permit
        };
        // The semaphore is never closed, so there is a permit.
        let (polled, permit) = with_permit(permit.ok(), || Pin::new(work).poll(cx));
        if polled.is_pending() && permit.is_some() {
            *held = permit;
            cx.waker().wake_by_ref();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{JoinSet, yield_now};

    use super::*;

    const PERMITS: usize = 2;
    const ROUNDS: usize = 10;

    /// Does `ROUNDS` pieces of work, counted in `done`, and lets others run after each.
    async fn work(done: Arc<AtomicUsize>) {
        for _ in 0..ROUNDS {
            done.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
    }

    fn lane_of(lanes: &Arc<Lanes>, address: &str) -> Lane {
        lanes.of(address.parse().ok())
    }

    #[tokio::test]
    async fn a_crowd_from_one_address_waits_for_itself_alone() {
        let lanes = Lanes::new(PERMITS);
        let (crowd, alone) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let lane = lane_of(&lanes, "192.0.2.1");
            tasks.spawn(lane.paced(work(Arc::clone(&crowd))));
        }
        let mut aborted = JoinSet::new();
        for _ in 0..10 {
            let lane = lane_of(&lanes, "192.0.2.1");
            aborted.spawn(lane.paced(work(Arc::default())));
        }
        let mut other = JoinSet::new();
        other.spawn(lane_of(&lanes, "192.0.2.2").paced(work(Arc::clone(&alone))));
        other.join_all().await;
        let before = crowd.load(Ordering::Relaxed);
        assert_eq!(alone.load(Ordering::Relaxed), ROUNDS);
        // Without lanes, all 100 run between two pieces of the other's work.
        assert!(before <= 40 * ROUNDS, "{before} of 1000 came first");
        aborted.shutdown().await;
        while tasks.join_next().await.is_some() {}
        assert_eq!(crowd.load(Ordering::Relaxed), 100 * ROUNDS, "nothing is lost");
        assert!(lock(&lanes.open).is_empty(), "and nothing is kept");
    }

    #[test]
    fn a_network_is_what_one_host_has() {
        let lanes = Lanes::new(PERMITS);
        let same = |one: &str, other: &str| {
            let (one, other) = (lane_of(&lanes, one), lane_of(&lanes, other));
            Arc::ptr_eq(&one.permits, &other.permits)
        };
        assert!(same("192.0.2.1", "192.0.2.1") && !same("192.0.2.1", "192.0.2.2"));
        assert!(same("2001:db8::1", "2001:db8::ffff:2") && !same("2001:db8::1", "2001:db8:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
    }
}
