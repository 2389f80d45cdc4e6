//! The only reader of clocks: wall time and uptime. Other modules get times as values.

use std::time::{Duration, Instant, SystemTime};

use bartizan_gate::evidence::record::Now;
use rustix::time::{ClockId, clock_gettime};

/// The program's clocks; created once at start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts counting uptime.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Both clocks, now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
    pub fn now(&self) -> Now {
        Now { uptime: self.start.elapsed(), wall: SystemTime::now() }
    }

    /// Monotonic time since the program's start.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }

    /// The processor time that the process has used.
    #[expect(clippy::unused_self, reason = "whoever may read a clock has one")]
    pub fn used(&self) -> Duration {
        // It is never negative.
        Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
    }

    /// The processor time that this thread has used: what passes while the thread waits, or while
    /// the system lets others run, does not count.
    #[expect(clippy::unused_self, reason = "whoever may read a clock has one")]
    pub fn worked(&self) -> Duration {
        // It is never negative.
        Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
    }
}
