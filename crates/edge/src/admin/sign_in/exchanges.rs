//! How many codes are exchanged at the issuer in a minute.
//!
//! Anybody can begin a sign-in and bring a code that was made up, and only the issuer can tell. So that
//! nobody makes this program send it request after request, the number is bounded for each address,
//! and in total. A browser in which somebody has signed in before has a share of its own, which neither
//! bound touches: it shows that by a cookie that only a sign-in gives ([`Known`]). So people come in
//! while others try, also where a proxy gives all of them one address. Tokens need no exchange.

use std::net::IpAddr;
use std::time::Duration;

use super::attempts::Known;
use crate::admin::approvers::per_minute;
use crate::http::lanes::network;
use bartizan_gate::duty::limit::RateLimits;

/// Codes of one address.
const OF_ADDRESS_MAX: u32 = 20;
/// Codes of all addresses together.
const IN_TOTAL_MAX: u32 = 120;
/// Codes of one browser that is known.
const OF_BROWSER_MAX: u32 = 10;
/// Addresses and browsers that are counted at once; further ones share a count.
const COUNTED_MAX: usize = 4096;

/// Where an answer of the issuer comes from.
#[derive(Debug, Clone, Copy)]
pub(in crate::admin) struct Visitor {
    pub(super) peer: IpAddr,
    pub(super) known: Option<Known>,
}

/// Counts exchanges.
#[derive(Debug)]
pub(super) struct ExchangeLimit(RateLimits);

impl Default for ExchangeLimit {
    fn default() -> Self {
        Self(RateLimits::new(COUNTED_MAX))
    }
}

impl ExchangeLimit {
    /// Whether one more code of `visitor` may be exchanged at `now` (uptime).
    pub(super) fn allows(&self, visitor: Visitor, now: Duration) -> bool {
        if let Some(known) = visitor.known {
            let own = per_minute("exchanges", format!("browser {}", known.name()), OF_BROWSER_MAX);
            return self.0.spend(std::iter::once(&own), now).is_ok();
        }
        let address = network(Some(visitor.peer)).map_or_else(String::new, |it| it.to_string());
        let limits = [
            per_minute("exchanges", address, OF_ADDRESS_MAX),
            per_minute("exchanges", "all".to_owned(), IN_TOTAL_MAX),
        ];
        self.0.spend(limits.iter(), now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn spent(limit: &ExchangeLimit, visitor: Visitor, now: Duration) -> u32 {
        (0..1000).take_while(|_| limit.allows(visitor, now)).map(|_| 1).sum()
    }

    fn from(last: u8) -> Visitor {
        Visitor { peer: IpAddr::from([192, 0, 2, last]), known: None }
    }

    #[test]
    fn an_address_and_all_together_are_bounded_and_a_known_browser_has_its_share() {
        let limit = ExchangeLimit::default();
        assert_eq!(spent(&limit, from(1), NOW), OF_ADDRESS_MAX);
        let all: u32 = (1..=50).map(|last| spent(&limit, from(last), NOW)).sum();
        assert_eq!(all, IN_TOTAL_MAX - OF_ADDRESS_MAX, "from further addresses");
        let known = Some(Known::new().unwrap());
        assert_eq!(spent(&limit, Visitor { known, ..from(1) }, NOW), OF_BROWSER_MAX);
        let other = Some(Known::new().unwrap());
        assert_eq!(spent(&limit, Visitor { known: other, ..from(1) }, NOW), OF_BROWSER_MAX);
        let later = NOW + Duration::from_mins(1);
        assert_eq!(spent(&limit, from(60), later), OF_ADDRESS_MAX, "a minute later");
    }
}
