//! Limits: discharges [`Obligation::Limit`](super::decision::Obligation), on a clock that the
//! caller passes in.
//!
//! A rate counts in a bucket, which is named by the rule's code, the rule's key and its bound.
//! Buckets live in a table of bounded size. A bucket in which nothing counts any more holds the same
//! as an absent one, so when the table is full, the one that became free first is evicted. When none
//! is free, new keys share one overflow bucket of the same code and bound, so that an attacker gains
//! nothing by inventing keys. A key that moves from the overflow bucket to a bucket of its own
//! begins as the overflow bucket is, so that moving gains nothing either.
//!
//! The bounds, for one key and all sequences of times, because a time earlier than a previous one
//! counts as the previous one: see [`Bound`](super::decision::Bound). What limits of long periods
//! have counted is handed to a [`LimitStore`] before the call passes, so that a restart refills
//! nothing. Nothing here waits, and nothing here chooses which events count: the policy does.

mod recent;
mod gcra;
mod level;
mod table;
mod kept;
mod in_flight;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::in_flight::PlaceTable;
use self::kept::{WallTime, kept, restored};
use self::level::TIME_NS_MAX;
use self::table::{BucketTables, Taken};
use super::decision::Limit;
use bartizan_sync::lock;

pub use self::in_flight::Places;
pub use self::kept::{KeptBucket, KeptForm, LimitStore, NotKept};

/// What a bucket costs at most, bytes: itself, its name, and its places in two tables.
pub const BUCKET_BYTES: usize = 480;

/// When a call may be made again that a limit refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// After this time.
    For(Duration),
    /// When a call in flight has ended; at the latest after this time, where it is known.
    ForEnd(Option<Duration>),
    /// Never: the limit is 0, or the call costs more than it ever permits at once.
    Forever,
}

/// A limit that refuses the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// The code of its rule.
    pub code: Box<str>,
    /// When the call may be made again.
    pub wait: Wait,
}

impl Exceeded {
    fn by(limit: &Limit, wait: Wait) -> Self {
        Self { code: limit.code.clone(), wait }
    }
}

/// Why a call does not pass its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCounted {
    /// One of them refuses it.
    Exceeded(Exceeded),
    /// What it takes cannot be kept.
    NotKept(NotKept),
}

/// What the limits of one gate have counted, shared by its sessions.
pub struct RateLimits {
    buckets_max: usize,
    uptime: Uptime,
    tables: Mutex<BucketTables>,
    places: Arc<Mutex<PlaceTable>>,
    store: Option<Arc<dyn LimitStore>>,
    wall: WallTime,
    seq: AtomicU64,
}

impl RateLimits {
    /// Creates a table of at most `buckets_max` buckets, besides at most 256 overflow buckets.
    pub fn new(buckets_max: usize) -> Self {
        Self {
            buckets_max,
            uptime: Uptime::default(),
            tables: Mutex::new(BucketTables::new(buckets_max)),
            places: Arc::default(),
            store: None,
            wall: WallTime::default(),
            seq: AtomicU64::new(0),
        }
    }

    /// Continues with what an earlier run has kept, and keeps what limits of long periods count in
    /// `store`. `zero_unix_ms` is the Unix time when the uptime was 0, in ms: by the clock, or so
    /// that now is not before the time of any `keep` of an earlier run, if the clock was set back.
    #[must_use]
    pub fn keeping(
        mut self,
        store: Arc<dyn LimitStore>,
        buckets: &[KeptBucket],
        zero_unix_ms: u64,
    ) -> Self {
        self.wall = WallTime { zero_unix_ms };
        self.store = Some(store);
        let mut tables = lock(&self.tables);
        for bucket in buckets {
            let (key, level) = restored(bucket, self.wall);
            tables.of(bucket.shared).insert(key, level);
            self.seq.fetch_max(bucket.seq, Ordering::Relaxed);
        }
        drop(tables);
        self
    }

    /// Every bucket of a long period in which something counts, and the Unix time in ms.
    pub fn kept(&self, uptime: Duration) -> (u64, Vec<KeptBucket>) {
        let mut tables = lock(&self.tables);
        let now = self.uptime.advance(uptime);
        let mut buckets = Vec::new();
        for shared in [false, true] {
            let used = tables.of(shared).all().filter(|(_, level)| level.free_at() > now);
            buckets.extend(
                used.filter_map(|(key, level)| {
                    kept(key, (level, shared), self.next_seq(), self.wall)
                }),
            );
        }
        (self.wall.unix_ms(now), buckets)
    }

    /// Takes what one call costs from every limit in `limits`, or from none of them. A limit that
    /// stands twice in `limits` is paid twice. `uptime` is the monotonic time since the program
    /// started; a value below an earlier one counts as the earlier one. Called once for each
    /// permitted call, and for each refused one that a limit counts.
    ///
    /// Returns the places of the call in limits of calls in flight, where there are any.
    ///
    /// # Errors
    ///
    /// The first limit that refuses; what was taken from the others is given back. Or what was
    /// taken cannot be kept; then it stays taken.
    pub fn spend<'a>(
        &self,
        limits: impl Iterator<Item = &'a Limit> + Clone,
        uptime: Duration,
    ) -> Result<Option<Places>, NotCounted> {
        if limits.clone().next().is_none() {
            return Ok(None);
        }
        let now = self.uptime.advance(uptime);
        let places =
            Places::take(&self.places, limits.clone(), now).map_err(NotCounted::Exceeded)?;
        let rates = limits.filter(|limit| limit.bound.is_rate());
        let changed = self.take(rates, uptime).map_err(NotCounted::Exceeded)?;
        if let Some(store) = self.store.as_ref().filter(|_| !changed.is_empty()) {
            store.keep(self.wall.unix_ms(now), &changed).map_err(NotCounted::NotKept)?;
        }
        Ok(places)
    }

    /// Takes from all buckets or from none. Returns those that changed and outlive the program.
    fn take<'a>(
        &self,
        limits: impl Iterator<Item = &'a Limit>,
        uptime: Duration,
    ) -> Result<Vec<KeptBucket>, Exceeded> {
        // A panic under the lock can only have left too few events in a bucket, which is the strict
        // side, so a poisoned lock is safe.
        let mut tables = lock(&self.tables);
        // Read under the lock, so that no bucket sees an earlier time after a later one.
        let now = self.uptime.advance(uptime);
        let mut taken: Vec<Taken> = Vec::new();
        for limit in limits {
            match tables.take(limit, now) {
                Ok(one) => taken.push(one),
                Err(wait) => {
                    for one in taken.iter().rev() {
                        tables.give_back(one);
                    }
                    return Err(Exceeded::by(limit, wait));
                }
            }
        }
        let mut changed = Vec::new();
        if self.store.is_some() {
            for Taken { key, overflow, .. } in &taken {
                let Some(level) = tables.of(*overflow).level(key) else { continue };
                if key.bound.is_kept() {
                    changed.extend(kept(key, (level, *overflow), self.next_seq(), self.wall));
                }
            }
        }
        Ok(changed)
    }

    fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }
}

impl fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits").field("buckets_max", &self.buckets_max).finish_non_exhaustive()
    }
}

/// The latest time passed in, ns since the program started. It never decreases.
#[derive(Default)]
struct Uptime(AtomicU64);

impl Uptime {
    /// Advances to `uptime` unless that is in the past. Returns the current value, ns.
    fn advance(&self, uptime: Duration) -> u64 {
        let ns = u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX).min(TIME_NS_MAX);
        self.0.fetch_max(ns, Ordering::Relaxed).max(ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duty::decision::{Bound, Rate};

    #[test]
    fn a_long_key_is_kept_as_its_digest() {
        let rate = Rate { count: 1, period: Duration::from_secs(1) };
        let limits = RateLimits::new(4);
        let spend = |key: String| {
            let bound = Bound::Sliding(rate);
            let limit = Limit { code: "c".into(), key: key.into(), bound, cost: 1 };
            limits.spend([&limit].into_iter(), Duration::ZERO)
        };
        let (long, other) = ("x".repeat(1 << 20), "y".repeat(1 << 20));
        assert!(spend(long.clone()).is_ok());
        assert!(spend(long).is_err());
        assert!(spend(other).is_ok());
        let mut tables = lock(&limits.tables);
        assert_eq!(tables.of(false).all().count(), 2);
        assert!(tables.of(false).all().all(|(key, _)| key.digest().is_some()));
    }

    #[test]
    fn the_clock_never_goes_back() {
        let clock = Uptime::default();
        for (handed_in, stands_at) in [(5, 5), (3, 5), (9, 9), (0, 9)] {
            assert_eq!(clock.advance(Duration::from_nanos(handed_in)), stands_at);
        }
        assert_eq!(clock.advance(Duration::MAX), TIME_NS_MAX);
    }
}
