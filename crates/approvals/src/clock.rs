//! The time by which holds expire: it never goes back.
//!
//! Wall time can be set back, and monotonic time begins anew with each process. So holds expire by
//! a mark that is the highest of three: the mark that the store has, the wall time, and the mark at
//! some moment plus the monotonic time since that moment. Setting a clock back prolongs nothing
//! (threat I4); setting it forward makes holds expire early, which is safe.

use std::time::{Duration, SystemTime};

use bartizan_gate::evidence::record::Now;

use crate::limits::millis;

/// A time that never goes back, as milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct HighWater {
    /// The mark at `uptime`.
    mark: Duration,
    uptime: Duration,
}

impl HighWater {
    /// Begins at `now`, or at `stored_ms` if that is later.
    pub fn new(stored_ms: u64, now: Now) -> Self {
        let mark = wall(now).max(Duration::from_millis(stored_ms));
        Self { mark, uptime: now.uptime }
    }

    /// Moves the mark to `now` and returns it. A `now` that is older than the last one changes
    /// nothing.
    pub fn advance(&mut self, now: Now) -> u64 {
        let mark = self.at(now);
        let passed = now.uptime.saturating_sub(self.uptime);
        if mark > self.mark.saturating_add(passed) {
            *self = Self { mark, uptime: now.uptime };
        }
        millis(mark)
    }

    /// Moves the mark to `stored_ms` at least: another replica has got that far.
    pub fn raise(&mut self, stored_ms: u64, now: Now) {
        self.advance(now);
        let stored = Duration::from_millis(stored_ms);
        if stored > self.at(now) {
            *self = Self { mark: stored, uptime: now.uptime };
        }
    }

    /// The mark at `now`, in milliseconds since 1970.
    pub fn read(&self, now: Now) -> u64 {
        millis(self.at(now))
    }

    fn at(&self, now: Now) -> Duration {
        let passed = now.uptime.saturating_sub(self.uptime);
        self.mark.saturating_add(passed).max(wall(now))
    }
}

/// Wall time in milliseconds since 1970; 0 before.
pub(crate) fn wall_ms(now: Now) -> u64 {
    millis(wall(now))
}

fn wall(now: Now) -> Duration {
    now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use super::*;

    fn at(uptime: u64, wall: u64) -> Now {
        Now {
            uptime: Duration::from_millis(uptime),
            wall: SystemTime::UNIX_EPOCH + Duration::from_millis(wall),
        }
    }

    #[test]
    fn a_clock_set_back_does_not_slow_it() {
        let mut clock = HighWater::new(0, at(0, 1000));
        assert_eq!(clock.advance(at(10, 1010)), 1010);
        assert_eq!(clock.advance(at(20, 5)), 1020);
        assert_eq!(clock.advance(at(500, 485)), 1500);
    }

    #[test]
    fn a_clock_set_forward_is_followed_and_not_left_again() {
        let mut clock = HighWater::new(0, at(0, 1000));
        assert_eq!(clock.advance(at(10, 9000)), 9000);
        assert_eq!(clock.advance(at(20, 1020)), 9010);
        assert_eq!(clock.read(at(15, 1015)), 9005, "an older reading");
    }

    #[test]
    fn it_goes_on_where_the_store_has_got() {
        let mut clock = HighWater::new(7000, at(0, 1000));
        assert_eq!(clock.advance(at(30, 1030)), 7030);
        clock.raise(8000, at(40, 1040));
        assert_eq!(clock.advance(at(50, 1050)), 8010);
        clock.raise(20, at(60, 1060));
        assert_eq!(clock.advance(at(60, 1060)), 8020);
    }

    #[test]
    fn parts_of_a_millisecond_add_up() {
        let now =
            |micros| Now { uptime: Duration::from_micros(micros), wall: SystemTime::UNIX_EPOCH };
        let mut clock = HighWater::new(5, now(0));
        for step in 1..=2000 {
            clock.advance(now(step * 500));
        }
        assert_eq!(clock.read(now(1_000_000)), 1005);
    }
}
