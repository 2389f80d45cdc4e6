//! The token bucket: `governor`'s generic cell rate algorithm over a level that is kept elsewhere,
//! on a time that is passed in. The only module that uses `governor`.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::Wait;

/// The clock of one check: 0 when the limiter is made, the present time after that.
#[derive(Clone)]
struct At<'a>(&'a AtomicU64);

impl Clock for At<'_> {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

/// GCRA's theoretical arrival time, ns: when the bucket is full again; 0 for one that was never used.
/// `governor`'s own store can be neither read nor restored, so this one replaces it.
struct Full(AtomicU64);

impl StateStore for Full {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let full = Some(self.0.load(Ordering::Relaxed)).filter(|full| *full != 0).map(Nanos::new);
        let (value, next) = f(full)?;
        self.0.store(next.as_u64(), Ordering::Relaxed);
        Ok(value)
    }
}

/// Takes `cost` tokens at `now` from a bucket that is full again at `full`, of which one comes back
/// every `interval`, and of which there are at most `burst`. All times are ns. Returns when the
/// bucket is full again.
///
/// # Errors
///
/// There are not that many; when there will be.
pub(super) fn take(
    full: u64,
    (interval, burst): (u64, u32),
    cost: u32,
    now: u64,
) -> Result<u64, Wait> {
    let quota = Quota::with_period(Duration::from_nanos(interval)).zip(NonZeroU32::new(burst));
    let ((quota, burst), Some(cost)) = (quota.ok_or(Wait::Forever)?, NonZeroU32::new(cost)) else {
        return Ok(full);
    };
    // Checked before `governor` multiplies it.
    if cost > burst {
        return Err(Wait::Forever);
    }
    let clock = AtomicU64::new(0);
    let state = Full(AtomicU64::new(full));
    let limiter: RateLimiter<NotKeyed, Full, At<'_>, NoOpMiddleware<Nanos>> =
        RateLimiter::new(quota.allow_burst(burst), state, At(&clock));
    clock.store(now, Ordering::Relaxed);
    match limiter.check_n(cost) {
        Ok(Ok(())) => Ok(limiter.into_state_store().0.into_inner()),
        Ok(Err(until)) => Err(Wait::For(until.wait_time_from(Nanos::new(now)))),
        Err(_too_many_at_once) => Err(Wait::Forever),
    }
}
