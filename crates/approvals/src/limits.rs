//! The bounds of holds, and why a hold is not made.
//!
//! Every table of this crate has a bound here, with a name and a unit.

use std::time::Duration;

/// A hold lasts at most this long, whatever the rule says.
pub const TTL_MAX: Duration = Duration::from_hours(30 * 24);
/// A wider grant lasts at most this long, whatever the rule says.
pub const SCOPE_LASTS_MAX: Duration = Duration::from_hours(30 * 24);
/// A wider grant covers at most this many calls, whatever the rule says.
pub const SCOPE_COUNT_MAX: u32 = 10_000;
/// Longest name of an approver, bytes.
pub const APPROVER_BYTES_MAX: usize = 512;
/// How far the stored clock may be behind while a hold is open (see [`crate::Approvals::tick`]).
pub const MARK_EVERY: Duration = Duration::from_secs(5);
/// A spent hold of which nobody says how its call ended counts as unknown after this time: longer
/// than any exchange with a server may take.
pub const SETTLE_WITHIN: Duration = Duration::from_hours(2);

/// How long the end of a call that waited as a task is kept, and how long the task is known after its
/// holds are over.
pub const TASK_KEPT: Duration = Duration::from_hours(1);

/// The bounds of holds. Zero means zero: `holds: 0` lets no hold be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalLimits {
    /// Open holds (pending or granted) of one principal at most.
    pub holds_per_principal: usize,
    /// Open holds for one server at most.
    pub holds_per_server: usize,
    /// Open holds at most.
    pub holds: usize,
    /// Bytes of one hold at most: its parameters and everything else that is shown.
    pub bytes_per_hold: usize,
    /// Bytes of the open holds of one principal at most.
    pub bytes_per_principal: usize,
    /// Bytes of all open holds at most.
    pub bytes: usize,
    /// New holds of one principal within [`Self::asks_within`] at most, whatever became of them.
    pub asks: usize,
    /// See [`Self::asks`].
    pub asks_within: Duration,
    /// This many refusals of one principal's holds within [`Self::refusals_within`] begin a
    /// cool-down, in which it gets no new hold. At least 1.
    pub refusals: usize,
    /// See [`Self::refusals`].
    pub refusals_within: Duration,
    /// How long the first cool-down lasts. Each one that follows lasts twice as long.
    pub cool_down: Duration,
    /// The longest cool-down.
    pub cool_down_max: Duration,
    /// When the last cool-down is over for this long, the next one is a first one again.
    pub cool_down_forgotten: Duration,
    /// Wider grants in force at most.
    pub wider_grants: usize,
    /// Tasks of one principal at most; the oldest that has ended gives way.
    pub tasks_per_principal: usize,
    /// Tasks at most; the oldest that has ended gives way.
    pub tasks: usize,
    /// Bytes of the end of one task at most; a longer one is not kept.
    pub task_result_bytes: usize,
    /// Bytes of the ends of one principal's tasks at most; the oldest are not kept.
    pub task_bytes_per_principal: usize,
    /// Bytes of the ends of all tasks at most; the oldest of the principal with most are not kept.
    pub task_bytes: usize,
    /// Longest reason of an approver, bytes.
    pub reason_bytes: usize,
    /// Finished holds kept as history at most.
    pub history: usize,
    /// Bytes of the finished holds at most.
    pub history_bytes: usize,
    /// Finished holds are kept this long at most.
    pub history_age: Duration,
}

impl Default for ApprovalLimits {
    fn default() -> Self {
        Self {
            holds_per_principal: 20,
            holds_per_server: 100,
            holds: 500,
            bytes_per_hold: 256 * 1024,
            bytes_per_principal: 1024 * 1024,
            bytes: 16 * 1024 * 1024,
            asks: 60,
            asks_within: Duration::from_mins(10),
            refusals: 3,
            refusals_within: Duration::from_mins(10),
            cool_down: Duration::from_mins(1),
            cool_down_max: Duration::from_hours(1),
            cool_down_forgotten: Duration::from_hours(24),
            wider_grants: 500,
            tasks_per_principal: 64,
            tasks: 1000,
            task_result_bytes: 1024 * 1024,
            task_bytes_per_principal: 4 * 1024 * 1024,
            task_bytes: 16 * 1024 * 1024,
            reason_bytes: 1024,
            history: 1000,
            history_bytes: 16 * 1024 * 1024,
            history_age: Duration::from_hours(30 * 24),
        }
    }
}

/// Which bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// [`ApprovalLimits::bytes_per_hold`].
    HoldBytes,
    /// [`ApprovalLimits::holds_per_principal`].
    Principal,
    /// [`ApprovalLimits::bytes_per_principal`].
    PrincipalBytes,
    /// [`ApprovalLimits::holds_per_server`].
    Server,
    /// [`ApprovalLimits::holds`].
    Total,
    /// [`ApprovalLimits::bytes`].
    TotalBytes,
}

impl Bound {
    /// A name for records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HoldBytes => "bytes of the hold",
            Self::Principal => "holds of the principal",
            Self::PrincipalBytes => "bytes of the principal's holds",
            Self::Server => "holds of the server",
            Self::Total => "holds",
            Self::TotalBytes => "bytes of all holds",
        }
    }
}

/// Why a call got no hold. It must not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHold {
    /// A bound is reached.
    Full(Bound),
    /// The principal was refused too often, or asked too often; it may ask again after this time.
    CoolingDown {
        /// From now; rounded up to whole milliseconds.
        retry_after: Duration,
    },
    /// The store did not take the hold, or cannot be read.
    Unavailable,
}

impl std::fmt::Display for NoHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(bound) => write!(f, "too many holds: limit of {}", bound.as_str()),
            Self::CoolingDown { retry_after } => {
                write!(f, "no new hold for another {} ms", retry_after.as_millis())
            }
            Self::Unavailable => f.write_str("the store of holds is not available"),
        }
    }
}

impl std::error::Error for NoHold {}

/// A duration in whole milliseconds, saturating.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
