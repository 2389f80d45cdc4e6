//! What limits of long periods have counted, in the form in which it outlives the program.
//!
//! Times are wall time here, because uptime begins anew with each start. They are derived from the
//! uptime and one reading of the wall clock at the start, so a clock that is set while the program
//! runs changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::level::{Level, TIME_NS_MAX};
use super::recent::Recent;
use super::table::BucketKey;
use crate::duty::decision::{Bound, Rate};

/// Nanoseconds of one millisecond.
const MS: u64 = 1_000_000;

/// Keeps what limits of long periods have counted beyond the end of the program.
pub trait LimitStore: Send + Sync {
    /// Keeps `buckets` as they are at `at_unix_ms`. Of two that name one bucket, the one with the
    /// greater `seq` counts, in whatever order they come. Returns only once they are kept with the
    /// durability that the store promises.
    ///
    /// # Errors
    ///
    /// [`NotKept`]: the call that was counted must not pass.
    fn keep(&self, at_unix_ms: u64, buckets: &[KeptBucket]) -> Result<(), NotKept>;
}

/// What was counted cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotKept {
    /// Why, for the operator.
    pub cause: String,
}

/// One bucket as it outlives the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptBucket {
    /// Grows with each change of any bucket.
    pub seq: u64,
    /// The SHA-256 digest of the rule's code and key, in hexadecimal digits.
    pub key: Box<str>,
    /// Whether keys without room share the bucket.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shared: bool,
    /// The count of the rate.
    pub count: u32,
    /// The period of the rate.
    pub period: Duration,
    /// The form of the bound.
    pub form: KeptForm,
    /// What was taken, oldest first: until when it counts (Unix time, ms), and how much. Of a token
    /// bucket, when it is full again, and 0.
    pub taken: Vec<(u64, u32)>,
}

/// The form of a bound on a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptForm {
    /// At most the count in each stretch of the period.
    Sliding,
    /// A fixed window.
    Fixed,
    /// A token bucket with this burst.
    Burst(u32),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The relation of uptime and wall time in this run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WallTime {
    /// Unix time when the uptime was 0, ms.
    pub(super) zero_unix_ms: u64,
}

impl WallTime {
    /// Rounded up, which is the strict side for the time until which something counts.
    pub(super) fn unix_ms(self, uptime_ns: u64) -> u64 {
        self.zero_unix_ms.saturating_add(uptime_ns.div_ceil(MS))
    }

    fn uptime_ns(self, unix_ms: u64) -> u64 {
        unix_ms.saturating_sub(self.zero_unix_ms).saturating_mul(MS).min(TIME_NS_MAX)
    }
}

/// The bucket `key` as it is kept; `None` for one that ends with the program.
pub(super) fn kept(
    key: &BucketKey,
    (level, shared): (&Level, bool),
    seq: u64,
    wall: WallTime,
) -> Option<KeptBucket> {
    let (rate, form) = match key.bound {
        Bound::Sliding(rate) => (rate, KeptForm::Sliding),
        Bound::Fixed(rate) => (rate, KeptForm::Fixed),
        Bound::Bucket { rate, burst } => (rate, KeptForm::Burst(burst)),
        Bound::InFlight(_) => return None,
    };
    let taken = match level {
        Level::Full(full) => vec![(wall.unix_ms(*full), 0)],
        Level::Window { ends, taken, .. } => vec![(wall.unix_ms(*ends), *taken)],
        Level::Recent(recent) => {
            recent.iter().map(|(ends, taken)| (wall.unix_ms(ends), taken)).collect()
        }
    };
    let name = key.digest().filter(|_| key.bound.is_kept())?;
    Some(KeptBucket {
        seq,
        key: name.into(),
        shared,
        count: rate.count,
        period: rate.period,
        form,
        taken,
    })
}

/// The bucket that `kept` describes.
pub(super) fn restored(kept: &KeptBucket, wall: WallTime) -> (BucketKey, Level) {
    let rate = Rate { count: kept.count, period: kept.period };
    let taken = kept.taken.iter().map(|(ends, taken)| (wall.uptime_ns(*ends), *taken));
    let last = taken.clone().next_back().unwrap_or_default();
    let (bound, level) = match kept.form {
        KeptForm::Sliding => {
            let mut recent = Recent::new(rate.count);
            taken.filter(|(ends, _)| *ends > 0).for_each(|(ends, taken)| recent.put(ends, taken));
            (Bound::Sliding(rate), Level::Recent(recent))
        }
        KeptForm::Fixed => {
            let (ends, taken) = last;
            let period = u64::try_from(rate.period.as_nanos()).unwrap_or(u64::MAX);
            let free = ends.saturating_add(period.min(TIME_NS_MAX));
            (Bound::Fixed(rate), Level::Window { ends, taken, free })
        }
        KeptForm::Burst(burst) => (Bound::Bucket { rate, burst }, Level::Full(last.0)),
    };
    (BucketKey::with_digest(&kept.key, bound), level)
}
