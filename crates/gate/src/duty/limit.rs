//! Rate limits: discharges [`Obligation::Limit`](super::decision::Obligation) with token buckets
//! (GCRA), on a clock that the caller passes in. The only module that uses `governor`.
//!
//! A bucket is named by the rule's code, the rule's key, its rate and its burst. Buckets live in a
//! table of bounded size. A full bucket holds the same information as an absent one, so when the
//! table is full, the bucket that became full first is evicted. When no bucket is full, new keys
//! share one overflow bucket of the same code, rate and burst, so that an attacker gains nothing by
//! inventing keys. A key that moves from the overflow bucket to a bucket of its own starts at the
//! overflow bucket's level, so that moving gains nothing either.
//!
//! The bound, for one key and any window of `period`: at most `rate + burst` events. It holds for
//! every sequence of times, because a time earlier than a previous one counts as the previous one.
//! Nothing here waits, and nothing here chooses which events count: the policy does.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use sha2::{Digest as _, Sha256};

use super::decision::Rate;
use crate::wire::hex::hex;
use bartizan_sync::lock;

/// The longest time that the arithmetic below handles, ns: 100 years. Five times that value fits
/// into 64 bits, and no sum adds more than four. A longer uptime counts as this one, so buckets no
/// longer refill and limits only get stricter.
const TIME_NS_MAX: u64 = 100 * 365 * 24 * 3600 * 1_000_000_000;

/// Overflow buckets at once, one for each combination of code, rate and burst. A policy names few;
/// an event that would need one more while none of these is full is refused.
const OVERFLOW_BUCKETS_MAX: usize = 256;

/// The name of one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BucketKey {
    /// The code of the rule that demands the limit.
    pub code: Box<str>,
    /// The value by which the rule counts separately, such as a principal.
    pub key: Box<str>,
    /// How fast the bucket refills. A rule with a changed rate uses another bucket.
    pub rate: Rate,
    /// Events that may come at once; 0 means none, ever.
    pub burst: u32,
}

/// The bucket is empty, so the event is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketEmpty {
    /// The time until the bucket allows one more event; absent for a rate or burst of 0, which
    /// never allows one.
    pub retry_after: Option<Duration>,
}

/// All buckets of one gate, shared by its sessions.
pub struct RateLimits {
    buckets_max: usize,
    uptime: Uptime,
    tables: Mutex<BucketTables>,
}

impl RateLimits {
    /// Creates a table of at most `buckets_max` buckets, besides at most 256 overflow buckets.
    pub fn new(buckets_max: usize) -> Self {
        let tables = BucketTables {
            own: BucketTable::new(buckets_max),
            overflow: BucketTable::new(OVERFLOW_BUCKETS_MAX),
        };
        Self { buckets_max, uptime: Uptime::default(), tables: Mutex::new(tables) }
    }

    /// Takes one event from every bucket in `keys`, or from none of them. A key that stands twice
    /// in `keys` pays twice. `uptime` is the monotonic time since the program started; a value
    /// below an earlier one counts as the earlier one. Called once for each permitted call, and for each refused one that a limit counts.
    ///
    /// # Errors
    ///
    /// The first bucket that is empty; what was taken from the others is given back.
    pub fn spend(
        &self,
        keys: &[BucketKey],
        uptime: Duration,
    ) -> Result<(), (BucketKey, BucketEmpty)> {
        // A panic under the lock can only have left too few events in a bucket, which is the strict
        // side, so a poisoned lock is safe.
        let mut tables = lock(&self.tables);
        let now_ns = self.uptime.advance(uptime);
        let mut taken: Vec<TakenEvent> = Vec::with_capacity(keys.len());
        for key in keys {
            match tables.take(&key.bounded(), &self.uptime, now_ns) {
                Ok(one) => taken.push(one),
                Err(spent) => {
                    for one in taken.into_iter().rev() {
                        tables.give_back(&one);
                    }
                    return Err((key.clone(), spent));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits").field("buckets_max", &self.buckets_max).finish_non_exhaustive()
    }
}

/// Both tables, under one lock, so that events are taken from several buckets atomically.
struct BucketTables {
    own: BucketTable,
    overflow: BucketTable,
}

/// One event taken from one bucket, with the level to restore if a later bucket refuses.
struct TakenEvent {
    bucket: Arc<Bucket>,
    overflow: bool,
    level_before: u64,
}

impl BucketTables {
    fn take(
        &mut self,
        key: &BucketKey,
        uptime: &Uptime,
        now_ns: u64,
    ) -> Result<TakenEvent, BucketEmpty> {
        let Some(quota) = quota(key.rate, key.burst) else {
            return Err(BucketEmpty { retry_after: None });
        };
        if let Some(bucket) = self.own.get(key) {
            return self.own.take(bucket, false, uptime);
        }
        let shared = BucketKey { key: Box::default(), ..key.clone() };
        if self.own.make_room(now_ns) {
            // While the overflow bucket is not full, this key may be among those that used it, so
            // its own bucket starts at the overflow bucket's level.
            let full_ns = self.overflow.get(&shared).map_or(now_ns, |bucket| bucket.full_ns());
            let bucket = self.own.insert(key.clone(), Bucket::new(quota, uptime, full_ns));
            return self.own.take(bucket, false, uptime);
        }
        if let Some(bucket) = self.overflow.get(&shared) {
            return self.overflow.take(bucket, true, uptime);
        }
        if self.overflow.make_room(now_ns) {
            let bucket = self.overflow.insert(shared, Bucket::new(quota, uptime, now_ns));
            return self.overflow.take(bucket, true, uptime);
        }
        Err(BucketEmpty { retry_after: self.overflow.next_full(now_ns) })
    }

    fn give_back(&mut self, taken: &TakenEvent) {
        let table = if taken.overflow { &mut self.overflow } else { &mut self.own };
        table.set_level(&taken.bucket, taken.level_before);
    }
}

/// Buckets by name, and ordered by the time at which each will be full again.
struct BucketTable {
    buckets_max: usize,
    by_key: HashMap<Arc<BucketKey>, Arc<Bucket>>,
    /// Key: when the bucket is full (uptime, ns), then the order of creation.
    by_full: BTreeMap<(u64, u64), Arc<BucketKey>>,
    made: u64,
}

impl BucketTable {
    fn new(buckets_max: usize) -> Self {
        Self { buckets_max, by_key: HashMap::new(), by_full: BTreeMap::new(), made: 0 }
    }

    fn get(&self, key: &BucketKey) -> Option<Arc<Bucket>> {
        self.by_key.get(key).cloned()
    }

    /// Evicts a full bucket if the table is full. Returns whether one more bucket fits.
    fn make_room(&mut self, now_ns: u64) -> bool {
        if self.by_key.len() < self.buckets_max {
            return true;
        }
        match self.by_full.first_key_value() {
            Some(((full_ns, _), _)) if *full_ns <= now_ns => {}
            _ => return false,
        }
        if let Some((_, key)) = self.by_full.pop_first() {
            self.by_key.remove(&key);
        }
        self.by_key.len() < self.buckets_max
    }

    fn insert(&mut self, key: BucketKey, mut bucket: Bucket) -> Arc<Bucket> {
        self.made = self.made.wrapping_add(1);
        bucket.made = self.made;
        let (key, bucket) = (Arc::new(key), Arc::new(bucket));
        self.by_full.insert(bucket.order(), Arc::clone(&key));
        self.by_key.insert(key, Arc::clone(&bucket));
        bucket
    }

    fn take(
        &mut self,
        bucket: Arc<Bucket>,
        overflow: bool,
        now: &Uptime,
    ) -> Result<TakenEvent, BucketEmpty> {
        let level_before = bucket.level.get();
        let order_before = bucket.order();
        match bucket.limiter.check() {
            Ok(()) => {
                if let Some(key) = self.by_full.remove(&order_before) {
                    self.by_full.insert(bucket.order(), key);
                }
                Ok(TakenEvent { bucket, overflow, level_before })
            }
            Err(until) => Err(BucketEmpty { retry_after: Some(until.wait_time_from(now.now())) }),
        }
    }

    fn set_level(&mut self, bucket: &Bucket, level: u64) {
        let key = self.by_full.remove(&bucket.order());
        bucket.level.set(level);
        if let Some(key) = key {
            self.by_full.insert(bucket.order(), key);
        }
    }

    /// The time until the next bucket is full and may be evicted.
    fn next_full(&self, now_ns: u64) -> Option<Duration> {
        let ((full_ns, _), _) = self.by_full.first_key_value()?;
        Some(Duration::from_nanos(full_ns.saturating_sub(now_ns)))
    }
}

/// One bucket: `governor`'s GCRA over a level that can be read and restored.
struct Bucket {
    limiter: RateLimiter<NotKeyed, Level, Uptime, NoOpMiddleware<Nanos>>,
    level: Level,
    /// The uptime at its creation, ns; `level` counts from here.
    start_ns: u64,
    made: u64,
}

impl Bucket {
    /// Creates a bucket that is full again at `full_ns` (uptime, ns).
    fn new(quota: Quota, uptime: &Uptime, full_ns: u64) -> Self {
        let start_ns = uptime.now().as_u64();
        let level = Level::default();
        level.set(full_ns.saturating_sub(start_ns));
        let limiter = RateLimiter::new(quota, level.clone(), uptime.clone());
        Self { limiter, level, start_ns, made: 0 }
    }

    /// When the bucket is, or was, full again (uptime, ns).
    fn full_ns(&self) -> u64 {
        self.start_ns.saturating_add(self.level.get())
    }

    fn order(&self) -> (u64, u64) {
        (self.full_ns(), self.made)
    }
}

/// GCRA's theoretical arrival time: ns after the bucket's creation at which it is full again; 0 for
/// a bucket that was never used. `governor`'s own store can be neither read nor restored, so this
/// type replaces it. Written only under the lock of the tables, so `Relaxed` is enough.
#[derive(Clone, Default)]
struct Level(Arc<AtomicU64>);

impl Level {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, level: u64) {
        self.0.store(level, Ordering::Relaxed);
    }
}

impl StateStore for Level {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let level = Some(self.get()).filter(|level| *level != 0).map(Nanos::new);
        let (value, next) = f(level)?;
        self.set(next.as_u64());
        Ok(value)
    }
}

/// The latest time passed in, ns since the program started. It never decreases.
#[derive(Clone, Default)]
struct Uptime(Arc<AtomicU64>);

impl Uptime {
    /// Advances to `uptime` unless that is in the past. Returns the current value, ns.
    fn advance(&self, uptime: Duration) -> u64 {
        let ns = u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX).min(TIME_NS_MAX);
        self.0.fetch_max(ns, Ordering::Relaxed).max(ns)
    }
}

impl Clock for Uptime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

/// Converts `rate` and `burst` to `governor`'s quota, rounded to the strict side. `None` for a
/// bucket that is always empty: a count, a period or a burst of 0.
fn quota(rate: Rate, burst: u32) -> Option<Quota> {
    let period_ns = u64::try_from(rate.period.as_nanos()).unwrap_or(u64::MAX);
    if period_ns == 0 || burst == 0 {
        return None;
    }
    let interval_ns = match rate.count {
        0 => return None,
        count => period_ns.div_ceil(u64::from(count)).clamp(1, TIME_NS_MAX),
    };
    // A burst that would refill only after `TIME_NS_MAX` is lowered to one that fits.
    let reach = TIME_NS_MAX.checked_div(interval_ns)?.saturating_add(1);
    let burst = u32::try_from(reach).map_or(burst, |reach| burst.min(reach));
    let quota = Quota::with_period(Duration::from_nanos(interval_ns))?;
    Some(quota.allow_burst(NonZeroU32::new(burst)?))
}

impl BucketKey {
    /// Longest value that is kept as it is, bytes.
    pub const KEY_BYTES_MAX: usize = 128;
    /// What a bucket costs, bytes: itself, its key, and its places in two tables.
    pub const BUCKET_BYTES: usize = 384;

    /// The same key with a bounded value: a rule may count by a text that a client chooses, and the
    /// buckets are kept. A longer value becomes its digest.
    fn bounded(&self) -> Self {
        let mut bounded = self.clone();
        if self.key.len() > Self::KEY_BYTES_MAX {
            bounded.key = format!("sha256:{}", hex(&Sha256::digest(self.key.as_bytes()))).into();
        }
        bounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_key_is_kept_as_its_digest() {
        let rate = Rate { count: 1, period: Duration::from_secs(1) };
        let key = |key: String| BucketKey { code: "c".into(), key: key.into(), rate, burst: 1 };
        let (long, other) = ("x".repeat(1 << 20), "y".repeat(1 << 20));
        let limits = RateLimits::new(4);
        assert!(limits.spend(&[key(long.clone())], Duration::ZERO).is_ok());
        assert!(limits.spend(&[key(long)], Duration::ZERO).is_err());
        assert!(limits.spend(&[key(other)], Duration::ZERO).is_ok());
        let tables = lock(&limits.tables);
        assert_eq!(tables.own.by_key.len(), 2);
        assert!(tables.own.by_key.keys().all(|kept| kept.key.len() <= BucketKey::KEY_BYTES_MAX));
    }

    #[test]
    fn quotas_are_rounded_to_the_strict_side() {
        let quota_of = |count, period, burst| quota(Rate { count, period }, burst);
        let second = Duration::from_secs(1);
        for nothing in [
            quota_of(0, second, 5),
            quota_of(5, second, 0),
            quota_of(5, Duration::ZERO, 5),
            quota_of(0, Duration::ZERO, 0),
        ] {
            assert_eq!(nothing, None);
        }
        let interval = |count, period| quota_of(count, period, 1).unwrap().replenish_interval();
        assert_eq!(interval(3, second), Duration::from_nanos(333_333_334));
        assert_eq!(interval(600_000_000, second), Duration::from_nanos(2));
        assert_eq!(interval(u32::MAX, second), Duration::from_nanos(1));
        assert_eq!(interval(1, Duration::MAX), Duration::from_nanos(TIME_NS_MAX));
        let burst = |period| quota_of(1, period, u32::MAX).unwrap().burst_size().get();
        assert_eq!(burst(Duration::from_nanos(1)), u32::MAX);
        assert_eq!(burst(Duration::MAX), 2);
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
