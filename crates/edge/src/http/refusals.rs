//! Limits how many refusals a second one caller gets: by principal and network address.
//!
//! Refused requests cost work and are counted in the journal. A caller that goes on beyond the limit
//! gets 429 in place of each further refusal, and has to connect again, which slows it down. No
//! request that may pass is touched, so nobody can spend the limit of somebody else's calls.

use std::net::IpAddr;
use std::time::Duration;

use ::http::header::RETRY_AFTER;
use ::http::{HeaderValue, Response, StatusCode};

use super::lanes::{Network, network};
use super::reply::{self, ReplyBody};
use bartizan_gate::duty::decision::{Bound, Limit};
use bartizan_gate::duty::limit::RateLimits;
use bartizan_gate::question::rate::Rate;

/// Callers that are counted at once; when there are more, further ones share a bucket.
const CALLERS_MAX: usize = 4096;

/// Marks a response that refuses a request; holds the principal.
#[derive(Debug, Clone)]
pub(super) struct Refused(pub(super) Box<str>);

/// Counts refusals by caller.
#[derive(Debug)]
pub(super) struct RefusalLimit {
    limits: RateLimits,
    max: u32,
}

impl RefusalLimit {
    /// At most `max` refusals of one caller each second.
    pub(super) fn new(max: u32) -> Self {
        Self { limits: RateLimits::new(CALLERS_MAX), max }
    }

    /// Counts a refusal. Returns the response in its place once the caller has had its share; over
    /// HTTP/1 it closes the connection.
    pub(super) fn spend(
        &self,
        (principal, address): (&str, Option<IpAddr>),
        http1: bool,
        now: Duration,
    ) -> Option<Response<ReplyBody>> {
        let rate = Rate { count: self.max, period: Duration::from_secs(1) };
        let limit = Limit {
            code: "refusals".into(),
            key: format!("{} {principal}", shown(network(address))).into(),
            bound: Bound::Bucket { rate, burst: self.max },
            cost: 1,
        };
        self.limits.spend(std::iter::once(&limit), now).err()?;
        let mut response = reply::bare(StatusCode::TOO_MANY_REQUESTS);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        Some(if http1 { reply::last(response) } else { response })
    }
}

fn shown(network: Network) -> String {
    network.map_or_else(String::new, |network| network.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(limit: &RefusalLimit, who: &str, address: &str, millis: u64) -> u16 {
        let (address, now) = (address.parse().ok(), Duration::from_millis(millis));
        let limited = limit.spend((who, address), true, now);
        limited.map_or(403, |response| response.status().as_u16())
    }

    #[test]
    fn a_flood_is_answered_with_429_and_others_are_not() {
        let limit = RefusalLimit::new(3);
        let flood: Vec<u16> = (0..6).map(|_| status(&limit, "a", "10.0.0.1", 0)).collect();
        assert_eq!(flood, [403, 403, 403, 429, 429, 429]);
        assert_eq!(status(&limit, "b", "10.0.0.1", 0), 403, "another principal");
        assert_eq!(status(&limit, "a", "10.0.0.2", 0), 403, "another address");
        assert_eq!(status(&limit, "a", "10.0.0.1", 1000), 403, "a second later");
        for host in 0..3 {
            assert_eq!(status(&limit, "a", &format!("2001:db8::{host:x}"), 0), 403);
        }
        assert_eq!(status(&limit, "a", "2001:db8::ffff:1", 0), 429, "the same network");
    }
}
