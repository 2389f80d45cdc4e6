//! What the system says about this process, for metrics.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Resident memory, bytes; `None` where the system does not tell it in `/proc`.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Open file descriptors; `None` likewise.
pub(super) fn open_descriptors() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    // The one that reads the directory is among them.
    u64::try_from(entries).ok()?.checked_sub(1)
}

/// The limit of open file descriptors; `None` if there is none.
pub(super) fn descriptors_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}
