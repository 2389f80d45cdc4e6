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
//! Where several programs share their counts ([`SharedLimits`]), the store of these counts, and each
//! program counts for itself besides, by half of each limit: that is what holds while the store is away.
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
pub mod shared;
mod in_flight;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::in_flight::PlaceTable;
use self::kept::{WallTime, kept, restored};
use self::level::TIME_NS_MAX;
use self::shared::{NotShared, SharedLimits, SharedTake, alone};
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

    /// Becomes `other`, unless that is there and its wait is as long.
    fn or_longer(self, other: &mut Option<Self>) {
        if other.as_ref().is_none_or(|other| other.wait.length() < self.wait.length()) {
            *other = Some(self);
        }
    }
}

impl Wait {
    /// Orders waits: a known time is said rather than that others must end first.
    fn length(self) -> (u8, Duration) {
        match self {
            Self::ForEnd(until) => (0, until.unwrap_or_default()),
            Self::For(time) => (1, time),
            Self::Forever => (2, Duration::ZERO),
        }
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
    shared: Option<Arc<dyn SharedLimits>>,
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
            shared: None,
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

    /// Counts rates in `shared`, together with other programs. Calls in flight are counted by each.
    #[must_use]
    pub fn sharing(self, shared: Arc<dyn SharedLimits>) -> Self {
        Self { shared: Some(shared), ..self }
    }

    /// Whether rates are counted together with other programs.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
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
    /// Of the limits that refuse, the one with the longest wait; what was taken from the others is
    /// given back. Or what was taken cannot be kept; then it stays taken.
    pub fn spend<'a>(
        &self,
        limits: impl Iterator<Item = &'a Limit> + Clone,
        uptime: Duration,
    ) -> Result<Option<Places>, NotCounted> {
        self.spend_with(limits, None, uptime)
    }

    /// [`RateLimits::spend`] for a call that has places [reserved](RateLimits::reserve): it takes
    /// those that it needs in their stead. They count no longer, also where the call is refused.
    ///
    /// # Errors
    ///
    /// As [`RateLimits::spend`].
    pub fn spend_with<'a>(
        &self,
        limits: impl Iterator<Item = &'a Limit> + Clone,
        reserved: Option<&Places>,
        uptime: Duration,
    ) -> Result<Option<Places>, NotCounted> {
        if limits.clone().next().is_none() {
            return Ok(None);
        }
        let now = self.uptime.advance(uptime);
        let (places, refused) = match Places::take(&self.places, limits.clone(), reserved, now) {
            Ok(places) => (places, None),
            Err(refused) => (None, Some(refused)),
        };
        let rates = limits.filter(|limit| limit.bound.is_rate());
        let changed = match (&self.shared, refused) {
            // The store cannot say what it would refuse without counting the call.
            (Some(_), Some(refused)) => Err(refused),
            (Some(shared), None) => self.take_shared(&**shared, rates, uptime),
            (None, refused) => self.take(rates, refused, uptime),
        };
        let changed = changed.map_err(NotCounted::Exceeded)?;
        if let Some(store) = self.store.as_ref().filter(|_| !changed.is_empty()) {
            store.keep(self.wall.unix_ms(now), &changed).map_err(NotCounted::NotKept)?;
        }
        Ok(places)
    }

    /// Takes a place of each of `limits` that bounds calls in flight, or of none of them, and nothing
    /// of the rates: for a call that goes on only when something else is ready, too. `None` if none
    /// bounds calls in flight.
    ///
    /// # Errors
    ///
    /// Of the limits that refuse, the one with the longest wait.
    pub fn reserve<'a>(
        &self,
        limits: impl Iterator<Item = &'a Limit>,
        uptime: Duration,
    ) -> Result<Option<Places>, Exceeded> {
        Places::take(&self.places, limits, None, self.uptime.advance(uptime))
    }

    /// Takes from all buckets or from none. Returns those that changed and outlive the program.
    /// `refused` is what refuses the call already.
    fn take<'a>(
        &self,
        limits: impl Iterator<Item = &'a Limit>,
        mut refused: Option<Exceeded>,
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
                // The others are asked, too: the call may come again when all of them permit it.
                Err(wait) => Exceeded::by(limit, wait).or_longer(&mut refused),
            }
        }
        if let Some(refused) = refused {
            taken.iter().rev().for_each(|one| tables.give_back(one));
            return Err(refused);
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

    /// Takes from all buckets that programs share, or from none; and from those of this program, which
    /// alone count while the store is away.
    fn take_shared<'a>(
        &self,
        shared: &dyn SharedLimits,
        limits: impl Iterator<Item = &'a Limit>,
        uptime: Duration,
    ) -> Result<Vec<KeptBucket>, Exceeded> {
        let limits: Vec<(&Limit, Limit)> = limits.map(|limit| (limit, alone(limit))).collect();
        if limits.is_empty() {
            return Ok(Vec::new());
        }
        let mut takes = Vec::new();
        {
            let mut tables = lock(&self.tables);
            let now = self.uptime.advance(uptime);
            for (limit, own) in &limits {
                let take = SharedTake::of(limit, tables.is_crowded(own, now));
                takes.push(take.ok_or_else(|| Exceeded::by(limit, Wait::Forever))?);
            }
        }
        match shared.take(&takes) {
            Ok(()) => {
                let counted =
                    limits.iter().map(|(_, own)| self.take(std::iter::once(own), None, uptime));
                Ok(counted.filter_map(Result::ok).flatten().collect())
            }
            Err(NotShared::Exceeded { number, wait }) => {
                let limit = limits.get(number).or_else(|| limits.first());
                Err(limit.map_or_else(
                    || Exceeded { code: Box::default(), wait },
                    |(limit, _)| Exceeded::by(limit, wait),
                ))
            }
            Err(NotShared::Away) => self.take(limits.iter().map(|(_, own)| own), None, uptime),
        }
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

    /// Counts for several tables, by a table without a store; it can be away.
    struct Common {
        takes: Mutex<Vec<Vec<SharedTake>>>,
        refuses: Mutex<Option<NotShared>>,
    }

    impl SharedLimits for Common {
        fn take(&self, takes: &[SharedTake]) -> Result<(), NotShared> {
            lock(&self.takes).push(takes.to_vec());
            lock(&self.refuses).map_or(Ok(()), Err)
        }
    }

    fn sharing(buckets_max: usize) -> (RateLimits, Arc<Common>) {
        let common = Arc::new(Common { takes: Mutex::default(), refuses: Mutex::default() });
        let shared: Arc<dyn SharedLimits> = Arc::<Common>::clone(&common);
        (RateLimits::new(buckets_max).sharing(shared), common)
    }

    fn per_minute(key: &str, count: u32) -> Limit {
        let bound = Bound::Sliding(Rate { count, period: Duration::from_mins(1) });
        Limit { code: "c".into(), key: key.into(), bound, cost: 1 }
    }

    #[test]
    fn what_the_common_store_says_holds_and_without_it_half_of_each_limit() {
        let (limits, common) = sharing(4);
        let limit = per_minute("k", 10);
        let spend = |seconds| limits.spend([&limit].into_iter(), Duration::from_secs(seconds));
        // Others may have counted nothing: it lets through more than this program's half.
        (0..7).for_each(|_| assert!(spend(0).is_ok()));
        let wait = Wait::For(Duration::from_secs(9));
        *lock(&common.refuses) = Some(NotShared::Exceeded { number: 0, wait });
        assert_eq!(spend(0).err(), Some(NotCounted::Exceeded(Exceeded::by(&limit, wait))));
        *lock(&common.refuses) = Some(NotShared::Away);
        // It has had more than its half already, and half of it later.
        assert!(spend(1).is_err());
        assert_eq!((0..9).filter(|_| spend(100).is_ok()).count(), 5);
        // What it let through alone counts on when the store is back and lost again.
        *lock(&common.refuses) = None;
        assert!(spend(101).is_ok());
        *lock(&common.refuses) = Some(NotShared::Away);
        assert!(spend(102).is_err());
        let asked = lock(&common.takes).len();
        assert_eq!(asked, 20);
    }

    #[test]
    fn a_limit_of_nothing_asks_nobody_and_calls_in_flight_are_of_each_program() {
        let (limits, common) = sharing(4);
        let nothing = per_minute("k", 0);
        let refused = limits.spend([&nothing].into_iter(), Duration::ZERO);
        let never = Exceeded::by(&nothing, Wait::Forever);
        assert_eq!(refused.err(), Some(NotCounted::Exceeded(never)));
        let in_flight = Limit { bound: Bound::InFlight(1), ..per_minute("k", 1) };
        let place = limits.spend([&in_flight].into_iter(), Duration::ZERO).unwrap();
        assert!(place.is_some());
        assert!(limits.spend([&in_flight].into_iter(), Duration::ZERO).is_err());
        assert!(lock(&common.takes).is_empty());
    }

    #[test]
    fn keys_without_room_share_a_bucket_of_the_store_too() {
        let (limits, common) = sharing(2);
        for key in ["a", "b", "c", "d", "a"] {
            assert!(limits.spend([&per_minute(key, 10)].into_iter(), Duration::ZERO).is_ok());
        }
        let takes = lock(&common.takes);
        let names: Vec<&str> = takes.iter().flatten().map(|take| &*take.name).collect();
        let [a, b, c, d, again] = names[..] else { panic!("{names:?}") };
        assert!(a != b && b != c && a == again && c == d, "{names:?}");
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
