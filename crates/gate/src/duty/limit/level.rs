//! What one bucket has counted, in the forms that a rate can have: a token bucket (GCRA), a fixed
//! window, a sliding window. Times are uptime, ns; the caller passes the present one in, and it
//! never decreases.

use std::time::Duration;

use super::Wait;
use super::gcra;
use super::recent::{EACH_MAX, PARTS, Recent};
use crate::duty::decision::{Bound, Rate};

/// The longest time that the arithmetic here handles, ns: 100 years. Five times that value fits
/// into 64 bits, and no sum adds more than four. A longer uptime counts as this one, so buckets no
/// longer refill and limits only get stricter.
pub(super) const TIME_NS_MAX: u64 = 100 * 365 * 24 * 3600 * 1_000_000_000;

/// A bound on a rate as numbers, rounded to the strict side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One token comes back every `interval`; there are at most `burst`.
    Bucket { interval: u64, burst: u32 },
    /// At most `count` from the first event of a window until `period` later.
    Fixed { period: u64, count: u32 },
    /// At most `count` in each `period`. Events in one `grain` count as if all came at its end.
    Sliding { period: u64, count: u32, grain: u64 },
}

impl Form {
    /// `None` for a bound that permits nothing: a count, a period or a burst of 0. Also for a bound
    /// on calls in flight, which is no rate.
    pub(super) fn of(bound: Bound) -> Option<Self> {
        let (rate, burst) = match bound {
            Bound::Bucket { rate, burst } => (rate, burst),
            Bound::Fixed(rate) | Bound::Sliding(rate) => (rate, 1),
            Bound::InFlight(_) => return None,
        };
        let Rate { count, period } = rate;
        let whole = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        if count == 0 || whole == 0 || burst == 0 {
            return None;
        }
        let period = whole.min(TIME_NS_MAX);
        Some(match bound {
            Bound::Fixed(_) => Self::Fixed { period, count },
            Bound::Sliding(_) => {
                let exact = count <= EACH_MAX;
                let grain = if exact { 1 } else { period.div_ceil(u64::from(PARTS)) };
                Self::Sliding { period, count, grain }
            }
            Bound::Bucket { .. } | Bound::InFlight(_) => {
                let interval = whole.div_ceil(u64::from(count)).clamp(1, TIME_NS_MAX);
                // A burst that would refill only after `TIME_NS_MAX` is lowered to one that fits.
                let reach = TIME_NS_MAX.checked_div(interval)?.saturating_add(1);
                let burst = u32::try_from(reach).map_or(burst, |reach| burst.min(reach));
                Self::Bucket { interval, burst }
            }
        })
    }
}

/// What one bucket has counted. At [`Level::free_at`] a bucket is as good as an absent one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Level {
    /// GCRA's theoretical arrival time: when the bucket is full again.
    Full(u64),
    /// When the fixed window ends, what it has taken, and when its bucket is free.
    Window { ends: u64, taken: u32, free: u64 },
    /// What a sliding window has taken.
    Recent(Recent),
}

/// What undoes one [`Level::take`].
#[derive(Debug)]
pub(super) enum Before {
    /// The level itself.
    Full(u64),
    /// The window itself.
    Window { ends: u64, taken: u32, free: u64 },
    /// What was taken last.
    Recent(u32),
}

impl Level {
    /// An unused bucket.
    pub(super) fn new(form: Form) -> Self {
        match form {
            Form::Bucket { .. } => Self::Full(0),
            Form::Fixed { .. } => Self::Window { ends: 0, taken: 0, free: 0 },
            Form::Sliding { count, .. } => Self::Recent(Recent::new(count)),
        }
    }

    /// Takes `cost` at `now`, or nothing.
    ///
    /// # Errors
    ///
    /// There is not that much; when there will be.
    pub(super) fn take(&mut self, form: Form, cost: u32, now: u64) -> Result<Before, Wait> {
        match (self, form) {
            (Self::Full(full), Form::Bucket { interval, burst }) => {
                let next = gcra::take(*full, (interval, burst), cost, now)?;
                Ok(Before::Full(std::mem::replace(full, next)))
            }
            (Self::Window { ends, taken, free }, Form::Fixed { period, count }) => {
                if cost > count {
                    return Err(Wait::Forever);
                }
                let begins = now >= *ends;
                let sum = if begins { cost } else { taken.saturating_add(cost) };
                if sum > count {
                    return Err(until(*ends, now));
                }
                let before = Before::Window { ends: *ends, taken: *taken, free: *free };
                *taken = sum;
                if begins {
                    *ends = now.saturating_add(period);
                    *free = ends.saturating_add(period);
                }
                Ok(before)
            }
            (Self::Recent(recent), Form::Sliding { period, count, grain }) => {
                if cost > count {
                    return Err(Wait::Forever);
                }
                recent.forget(now);
                let taken = recent
                    .iter()
                    .fold(u64::from(cost), |sum, (_, taken)| sum.saturating_add(u64::from(taken)));
                if let Some(ends) = room_at(recent, taken.saturating_sub(u64::from(count))) {
                    return Err(until(ends, now));
                }
                let counted = if grain == 1 { now } else { end_of_part(now, grain) };
                recent.put(counted.saturating_add(period), cost);
                Ok(Before::Recent(cost))
            }
            // A bucket is named by its bound, so it has that bound's form.
            (Self::Full(_) | Self::Window { .. } | Self::Recent(_), _) => Err(Wait::Forever),
        }
    }

    /// Undoes the last take.
    pub(super) fn undo(&mut self, before: &Before) {
        match (&mut *self, before) {
            (Self::Full(full), Before::Full(earlier)) => *full = *earlier,
            (Self::Window { .. }, Before::Window { ends, taken, free }) => {
                *self = Self::Window { ends: *ends, taken: *taken, free: *free };
            }
            (Self::Recent(recent), Before::Recent(cost)) => recent.take_back(*cost),
            (Self::Full(_) | Self::Window { .. } | Self::Recent(_), _) => {}
        }
    }

    /// From when on it is as good as an unused bucket. A fixed window that has ended may have been
    /// spent at its end, and its key may go on in a window that it shares and that ends soon: that
    /// would be three counts in one period. So its bucket is free only a period later.
    pub(super) fn free_at(&self) -> u64 {
        match self {
            Self::Full(full) => *full,
            Self::Window { free, .. } => *free,
            Self::Recent(recent) => recent.last(),
        }
    }
}

/// When parts of at least `missing` no longer count; `None` if nothing is missing.
fn room_at(recent: &Recent, mut missing: u64) -> Option<u64> {
    let mut at = None;
    for (ends, taken) in recent.iter() {
        if missing == 0 {
            break;
        }
        missing = missing.saturating_sub(u64::from(taken));
        at = Some(ends);
    }
    at
}

/// The end of the part of the time in which `now` is.
fn end_of_part(now: u64, grain: u64) -> u64 {
    let number = now.checked_div(grain).unwrap_or_default();
    number.saturating_add(1).saturating_mul(grain)
}

fn until(then: u64, now: u64) -> Wait {
    Wait::For(Duration::from_nanos(then.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_rounded_to_the_strict_side() {
        let form =
            |count, period, burst| Form::of(Bound::Bucket { rate: Rate { count, period }, burst });
        let second = Duration::from_secs(1);
        for nothing in [
            form(0, second, 5),
            form(5, second, 0),
            form(5, Duration::ZERO, 5),
            form(0, Duration::ZERO, 0),
            Form::of(Bound::Sliding(Rate { count: 0, period: second })),
            Form::of(Bound::Fixed(Rate { count: 0, period: second })),
            Form::of(Bound::Fixed(Rate { count: 1, period: Duration::ZERO })),
        ] {
            assert_eq!(nothing, None);
        }
        let interval = |count, period| match form(count, period, 1) {
            Some(Form::Bucket { interval, .. }) => interval,
            other => panic!("{other:?}"),
        };
        assert_eq!(interval(3, second), 333_333_334);
        assert_eq!(interval(600_000_000, second), 2);
        assert_eq!(interval(u32::MAX, second), 1);
        assert_eq!(interval(1, Duration::MAX), TIME_NS_MAX);
        let burst = |period| match form(1, period, u32::MAX) {
            Some(Form::Bucket { burst, .. }) => burst,
            other => panic!("{other:?}"),
        };
        assert_eq!(burst(Duration::from_nanos(1)), u32::MAX);
        assert_eq!(burst(Duration::MAX), 2);
        let sliding = |count| Form::of(Bound::Sliding(Rate { count, period: second }));
        let grain = |grain, count| Form::Sliding { period: 1_000_000_000, count, grain };
        assert_eq!(sliding(16), Some(grain(1, 16)));
        assert_eq!(sliding(17), Some(grain(100_000_000, 17)));
    }

    #[test]
    fn a_sliding_window_remembers_few_parts() {
        for count in [1, 16, 17, 1_000_000] {
            let form = Form::of(Bound::Sliding(Rate { count, period: Duration::from_secs(1) }));
            let form = form.unwrap();
            let mut level = Level::new(form);
            for step in 0..10_000_u64 {
                drop(level.take(form, 1, step * 1_003_003));
                let bytes = match &level {
                    Level::Recent(Recent::Each(each)) => size_of::<u64>() * each.capacity(),
                    Level::Recent(Recent::Parts(parts)) => 12 * parts.capacity(),
                    Level::Full(_) | Level::Window { .. } => panic!("{level:?}"),
                };
                assert!(bytes <= 144, "{count}: {bytes}");
            }
        }
    }
}
