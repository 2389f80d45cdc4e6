//! Checks the limit of file descriptors (`RLIMIT_NOFILE`) against `limits` at start, so that a
//! limit that is too low shows there and not as clients that get no answer (threat K5).
//!
//! Each connection of an agent takes a descriptor, and each request in progress one more for the
//! connection to its server.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::StartError;
use crate::config::{Config, Limits, Upstream};
use bartizan_edge::admin;

/// Descriptors for everything else: standard streams, listeners, journal, watched files, services.
const OTHER: u64 = 128;
/// Descriptors of one child process: its pipes, and one to wait for it.
const CHILD: u64 = 4;
/// With fewer connections than this the firewall does not start.
const CONNECTIONS_MIN: u64 = 16;

/// The soft limit before it was raised; `None` in it is no limit.
static BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// The soft limit that this program was started with, if it was raised: a program that we start
/// gets it, because many select(2) over their descriptors or close all that there may be.
pub(super) fn before() -> Option<u64> {
    BEFORE.get().copied().flatten()
}

/// Raises the soft limit to what the configuration needs, as far as the hard limit lets it. If that
/// is not enough, lowers `limits.connections` and `limits.requests` to what fits, with a warning
/// that has the numbers.
///
/// # Errors
///
/// The hard limit is too low for [`CONNECTIONS_MIN`] connections.
pub(super) fn fit(config: &mut Config) -> Result<(), StartError> {
    let others = others(config);
    let limits = &mut config.limits;
    let wanted = wanted(limits, others);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let mut limit = current.unwrap_or(u64::MAX);
    if limit < wanted {
        let raised = maximum.unwrap_or(u64::MAX).min(wanted);
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }).is_ok() {
            limit = raised;
            // Another run of this process found the limit raised already.
            BEFORE.get_or_init(|| current);
        }
    }
    let configured = (limits.connections, limits.requests);
    if !lower(limits, others, limit)? {
        return Ok(());
    }
    tracing::warn!(
        file_descriptors = limit,
        needed = wanted,
        connections = limits.connections,
        connections_configured = configured.0,
        requests = limits.requests,
        requests_configured = configured.1,
        "too few file descriptors (`ulimit -n`) for `limits.connections` and `limits.requests`; \
         both are lowered"
    );
    Ok(())
}

/// Descriptors that are not for agents' connections and requests.
fn others(config: &Config) -> u64 {
    let children = config
        .servers
        .iter()
        .filter(|server| matches!(server.upstream, Upstream::Child(_)))
        .fold(0_u64, |sum, _| sum.saturating_add(number(config.limits.children)));
    let nobody = !config.approvals.has_approvers();
    let approvers = if nobody { 0 } else { admin::APPROVER_REQUESTS_MAX };
    OTHER
        .saturating_add(number(admin::CONNECTIONS_MAX))
        .saturating_add(number(approvers))
        .saturating_add(children.saturating_mul(CHILD))
}

fn wanted(limits: &Limits, others: u64) -> u64 {
    others.saturating_add(number(limits.connections)).saturating_add(number(limits.requests))
}

/// Lowers connections and requests to what `limit` descriptors allow; whether that was necessary.
fn lower(limits: &mut Limits, others: u64, limit: u64) -> Result<bool, StartError> {
    if wanted(limits, others) <= limit {
        return Ok(false);
    }
    let each = limit.saturating_sub(others) / 2;
    if each < CONNECTIONS_MIN.min(number(limits.connections)) {
        let least = others.saturating_add(CONNECTIONS_MIN.saturating_mul(2));
        let what =
            format!("{limit} file descriptors are too few; this configuration needs {least}");
        let hint =
            format!("raise the hard limit, for example `ulimit -n {}`", wanted(limits, others));
        return Err(StartError::new("limits.connections", what).hint(hint));
    }
    // The one that needs fewer leaves the rest to the other.
    let (connections, requests) = (number(limits.connections), number(limits.requests));
    let free = limit.saturating_sub(others);
    let connections = connections.min(free.saturating_sub(requests.min(each)));
    let requests = requests.min(free.saturating_sub(connections));
    limits.connections = usize::try_from(connections).unwrap_or(limits.connections);
    limits.requests = usize::try_from(requests).unwrap_or(limits.requests);
    Ok(true)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: usize, requests: usize) -> Limits {
        let text = format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:1\nstate: s\n\
             limits: {{connections: {connections}, requests: {requests}}}\n\
             servers: {{s: {{path: /s, command: [x]}}}}\n"
        );
        Config::parse(&text, std::path::Path::new("."), &|_| None).unwrap().limits
    }

    #[test]
    fn connections_and_requests_fit_the_limit() {
        for (configured, limit, fitting) in [
            ((100, 100), 300, Some((100, 100))),
            ((100, 100), 299, Some((100, 99))),
            ((16_384, 16_384), 1024, Some((462, 462))),
            ((1000, 10), 300, Some((190, 10))),
            ((10, 1000), 300, Some((10, 190))),
            ((4, 4), 108, Some((4, 4))),
            ((16_384, 16_384), 131, None),
            ((16_384, 16_384), 50, None),
        ] {
            let mut limits = limits(configured.0, configured.1);
            let lowered = lower(&mut limits, 100, limit);
            let fits = lowered.is_ok().then_some((limits.connections, limits.requests));
            assert_eq!(fits, fitting, "{configured:?} with {limit}");
        }
    }

    #[test]
    fn a_refusal_has_the_numbers() {
        let error = lower(&mut limits(16_384, 16_384), 100, 131).unwrap_err().to_string();
        for number in ["131 file", "132", "ulimit -n 32868"] {
            assert!(error.contains(number), "{error}");
        }
    }
}
