//! Limits that several programs count together, in a store that they share; and how each counts alone,
//! more strictly, while that store is away.

use std::time::Duration;

use super::Wait;
use super::level::Form;
use super::table::BucketKey;
use crate::duty::decision::{Bound, Limit, Rate};

/// Counts for several programs. It decides no limit: it only says whether there is room.
pub trait SharedLimits: Send + Sync {
    /// Takes from all of `takes`, or from none of them; two may name one bucket. The time is that of
    /// the store.
    ///
    /// # Errors
    ///
    /// See [`NotShared`].
    fn take(&self, takes: &[SharedTake]) -> Result<(), NotShared>;
}

/// What one call takes from one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedTake {
    /// Names the bucket: a digest of the rule's code and key, and the bound. No text of a call.
    pub name: Box<str>,
    /// The form of the bound.
    pub form: SharedForm,
    /// How much, at least 1.
    pub cost: u32,
}

/// A bound on a rate as numbers. Times are nanoseconds, rounded to the strict side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedForm {
    /// One token comes back every `interval`; there are at most `burst`.
    Bucket {
        /// Nanoseconds.
        interval: u64,
        /// Tokens.
        burst: u32,
    },
    /// At most `count` from the first event of a window until `period` later.
    Fixed {
        /// Nanoseconds.
        period: u64,
        /// Events.
        count: u32,
    },
    /// At most `count` in each `period`. Events in one `part` count as if all came at its end.
    Sliding {
        /// Nanoseconds.
        period: u64,
        /// Events.
        count: u32,
        /// Nanoseconds; 1 if each event counts by itself.
        part: u64,
    },
}

/// Why nothing was taken, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotShared {
    /// A limit refuses.
    Exceeded {
        /// Which of them, from 0.
        number: usize,
        /// When the call may be made again.
        wait: Wait,
    },
    /// The store is away: nobody knows what others have counted.
    Away,
}

impl SharedTake {
    /// What one call takes from `limit`, or from the bucket that keys without room share; `None` if
    /// the limit permits nothing.
    pub(super) fn of(limit: &Limit, shared: bool) -> Option<Self> {
        let form = match Form::of(limit.bound)? {
            Form::Bucket { interval, burst } => SharedForm::Bucket { interval, burst },
            Form::Fixed { period, count } => SharedForm::Fixed { period, count },
            Form::Sliding { period, count, grain } => {
                SharedForm::Sliding { period, count, part: grain }
            }
        };
        let bound = match form {
            SharedForm::Bucket { interval, burst } => format!("b{interval}.{burst}"),
            SharedForm::Fixed { period, count } => format!("f{period}.{count}"),
            SharedForm::Sliding { period, count, .. } => format!("s{period}.{count}"),
        };
        let name = format!("{}.{bound}", BucketKey::digest_of(limit, shared));
        Some(Self { name: name.into(), form, cost: limit.cost.max(1) })
    }
}

/// The limit as a program counts it alone while the store is away: half of the rate, rounded down, and
/// half of the burst; one event at least, in twice the period.
pub(super) fn alone(limit: &Limit) -> Limit {
    let half = |rate: Rate| match rate.count {
        1 => Rate { count: 1, period: rate.period.saturating_mul(2) },
        count => Rate { count: count.checked_div(2).unwrap_or_default(), ..rate },
    };
    let bound = match limit.bound {
        Bound::Sliding(rate) => Bound::Sliding(half(rate)),
        Bound::Fixed(rate) => Bound::Fixed(half(rate)),
        Bound::Bucket { rate, burst } => {
            let least = burst.min(1);
            Bound::Bucket {
                rate: Rate { count: rate.count, period: rate.period.saturating_mul(2) },
                burst: burst.checked_div(2).unwrap_or_default().max(least),
            }
        }
        in_flight @ Bound::InFlight(_) => in_flight,
    };
    // A call that costs more than half would never pass.
    let most = match bound {
        Bound::Sliding(rate) | Bound::Fixed(rate) => rate.count,
        Bound::Bucket { burst, .. } => burst,
        Bound::InFlight(_) => u32::MAX,
    };
    let fits = limit.cost <= full(limit.bound);
    let cost = if fits { limit.cost.min(most) } else { limit.cost };
    Limit { bound, cost, ..limit.clone() }
}

/// What a bound permits at once.
fn full(bound: Bound) -> u32 {
    match bound {
        Bound::Sliding(rate) | Bound::Fixed(rate) => rate.count,
        Bound::Bucket { burst, .. } => burst,
        Bound::InFlight(count) => count,
    }
}

/// Microseconds, rounded up: the unit of stores whose clock has no finer one.
pub fn micros(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(1000)
}

/// The time after which a call may come again, of a number of microseconds.
pub fn wait_micros(micros: u64) -> Wait {
    Wait::For(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn limit(bound: Bound, cost: u32) -> Limit {
        Limit { code: "c".into(), key: "k".into(), bound, cost }
    }

    fn rate(count: u32, period: Duration) -> Rate {
        Rate { count, period }
    }

    #[test]
    fn alone_a_limit_is_half_of_itself_and_never_more() {
        let bucket = |count, period, burst| Bound::Bucket { rate: rate(count, period), burst };
        for (bound, expected) in [
            (Bound::Sliding(rate(10, MINUTE)), Bound::Sliding(rate(5, MINUTE))),
            (Bound::Sliding(rate(3, MINUTE)), Bound::Sliding(rate(1, MINUTE))),
            (Bound::Sliding(rate(1, MINUTE)), Bound::Sliding(rate(1, 2 * MINUTE))),
            (Bound::Fixed(rate(7, MINUTE)), Bound::Fixed(rate(3, MINUTE))),
            (Bound::Fixed(rate(1, MINUTE)), Bound::Fixed(rate(1, 2 * MINUTE))),
            (bucket(10, MINUTE, 5), bucket(10, 2 * MINUTE, 2)),
            (bucket(1, MINUTE, 1), bucket(1, 2 * MINUTE, 1)),
            // Zero means zero.
            (Bound::Sliding(rate(0, MINUTE)), Bound::Sliding(rate(0, MINUTE))),
            (bucket(10, MINUTE, 0), bucket(10, 2 * MINUTE, 0)),
        ] {
            assert_eq!(alone(&limit(bound, 1)).bound, expected);
        }
        // One that costs more than half takes all of it; one that never passes still never does.
        let costly = |cost| alone(&limit(Bound::Fixed(rate(10, MINUTE)), cost)).cost;
        assert_eq!([1, 5, 6, 10, 11].map(costly), [1, 5, 5, 5, 11]);
    }

    #[test]
    fn names_hold_no_text_and_differ_with_key_code_bound_and_room() {
        let base = limit(Bound::Sliding(rate(10, MINUTE)), 1);
        let name = |limit: &Limit, shared| SharedTake::of(limit, shared).unwrap().name;
        let first = name(&base, false);
        for other in [
            name(&Limit { key: "x".into(), ..base.clone() }, false),
            name(&Limit { code: "x".into(), ..base.clone() }, false),
            name(&Limit { bound: Bound::Fixed(rate(10, MINUTE)), ..base.clone() }, false),
            name(&Limit { bound: Bound::Sliding(rate(11, MINUTE)), ..base.clone() }, false),
            name(&base, true),
        ] {
            assert_ne!(other, first);
        }
        assert_eq!(name(&Limit { cost: 3, ..base.clone() }, false), first);
        let secret = Limit { key: "s3cret".into(), ..base };
        assert!(!name(&secret, false).contains("s3cret"));
    }
}
