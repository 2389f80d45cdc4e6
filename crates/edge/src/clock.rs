//! The only reader of clocks.

use std::time::{Duration, Instant, SystemTime};

use bartizan_gate::evidence::record::Now;

/// Both clocks, started once for the program.
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

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}
