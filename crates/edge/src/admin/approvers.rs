//! Who may answer holds, and how they authenticate: by a bearer token (RFC 6750), or as `sign_in` says.
//!
//! The network address proves nothing, not even loopback: in a pod the agent shares it (threat I11).
//! A token is kept as a keyed digest and compared in constant time. Nothing here logs one.
//!
//! A token has at least 32 characters and should be random, so it cannot be guessed, and checks need
//! no lock-out, which an agent that shares the approver's address could use to shut the approver out.
//! What failed attempts cost is limited instead, per address; a right token is taken at any time.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::http::lanes::network;
use bartizan_approvals::Approver;
use bartizan_gate::duty::decision::{Bound, Limit};
use bartizan_gate::duty::limit::RateLimits;
use bartizan_gate::question::rate::Rate;

/// Approvers of one program.
pub const APPROVERS_MAX: usize = 256;
/// Size of the id of an approver, and of the name of a group, bytes.
pub const ID_BYTES_MAX: usize = 128;
/// Least size of a token, bytes.
pub const TOKEN_BYTES_MIN: usize = 32;
/// Largest size of a token, bytes.
pub const TOKEN_BYTES_MAX: usize = 512;
/// Least number of different bytes of a token or a key: one with fewer was typed, not made at random.
/// Of 32 random hexadecimal digits, fewer are different about once in 20 million.
pub const VARIETY_MIN: usize = 8;

/// Failed attempts of one address, and of one approver, that are told apart at once, and how many
/// more each minute.
const FAILURES_MAX: u32 = 20;
/// Addresses and approvers whose failures are counted at once; further ones share a count.
const ADDRESSES_MAX: usize = 4096;

/// Names the use of the digests, so that they equal no digest of the same token elsewhere.
const KEY: [u8; 64] = *b"bartizan: what is kept of the token of an approver. Version 1...";

/// What is kept of a token: HMAC-SHA-256 under a fixed key.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

/// Why a text cannot be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnfitToken {
    /// It has less than [`TOKEN_BYTES_MIN`] or more than [`TOKEN_BYTES_MAX`] bytes.
    Length,
    /// It has a character that is no visible ASCII, which a header cannot carry.
    Characters,
    /// It has so few different characters that it was not made at random.
    Guessable,
}

impl TokenDigest {
    /// The digest of `token`.
    ///
    /// # Errors
    ///
    /// Why `token` cannot be one.
    pub fn of(token: &str) -> Result<Self, UnfitToken> {
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
            return Err(UnfitToken::Length);
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UnfitToken::Characters);
        }
        if !looks_random(token) {
            return Err(UnfitToken::Guessable);
        }
        Ok(Self(keyed(token).finalize().into_bytes().into()))
    }

    /// Whether it is that of `token`, in a time that tells nothing about either.
    pub fn is_of(&self, token: &str) -> bool {
        keyed(token).verify_slice(&self.0).is_ok()
    }
}

/// Whether `secret` may have been made at random: it has at least [`VARIETY_MIN`] different bytes.
pub fn looks_random(secret: &str) -> bool {
    let mut different: Vec<u8> = secret.bytes().collect();
    different.sort_unstable();
    different.dedup();
    different.len() >= VARIETY_MIN
}

fn keyed(token: &str) -> Hmac<Sha256> {
    Hmac::<Sha256>::new(&KEY.into()).chain_update(token)
}

/// The approvers of one program.
#[derive(Debug, Default)]
pub struct Approvers(Vec<(Arc<Approver>, TokenDigest)>);

impl Approvers {
    /// Those of `known`, each with what is kept of its token.
    pub fn new(known: impl IntoIterator<Item = (Approver, TokenDigest)>) -> Self {
        Self(known.into_iter().map(|(approver, token)| (Arc::new(approver), token)).collect())
    }

    /// Whose token `token` is. All are compared, so that the time tells nothing.
    pub(super) fn find(&self, token: &str) -> Option<Arc<Approver>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let same = self.0.iter().filter(|(_, digest)| digest.is_of(token));
        same.fold(None, |found, (approver, _)| found.or_else(|| Some(Arc::clone(approver))))
    }
}

/// Who sends a request, and what the same person is called where he is a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) approver: Arc<Approver>,
    /// Names of the same person as a principal, beside the approver's id.
    principals: Vec<Box<str>>,
}

impl Caller {
    /// An approver whose id is its only name.
    pub(super) fn of(approver: Arc<Approver>) -> Self {
        Self { approver, principals: Vec::new() }
    }

    /// An approver that is `principals`, too.
    pub(super) fn known_as(approver: Arc<Approver>, principals: Vec<Box<str>>) -> Self {
        Self { approver, principals }
    }

    /// Whether `principal` is this person by a name other than its id, in whichever case it is written
    /// (threat I3).
    pub(super) fn is_principal(&self, principal: &str) -> bool {
        self.principals.iter().any(|name| name.eq_ignore_ascii_case(principal))
    }
}

/// Limits how many failed attempts of one address are answered as such.
#[derive(Debug)]
pub(super) struct FailureLimit(RateLimits);

impl Default for FailureLimit {
    fn default() -> Self {
        Self(RateLimits::new(ADDRESSES_MAX))
    }
}

impl FailureLimit {
    /// Whether one more failure of `peer` at `now` (uptime) is within the limit.
    pub(super) fn allows(&self, peer: IpAddr, now: Duration) -> bool {
        let network = network(Some(peer)).map_or_else(String::new, |it| it.to_string());
        self.spend(network, now)
    }

    /// Whether one more answer of `approver` that does not count is within the limit.
    pub(super) fn allows_approver(&self, approver: &Approver, now: Duration) -> bool {
        self.spend(format!("approver {}", approver.id), now)
    }

    fn spend(&self, key: String, now: Duration) -> bool {
        let limit = per_minute("failures", key, FAILURES_MAX);
        self.0.spend(std::iter::once(&limit), now).is_ok()
    }
}

/// A limit of `count` at once, and of as many each minute, for `key`.
pub(super) fn per_minute(code: &'static str, key: String, count: u32) -> Limit {
    let rate = Rate { count, period: Duration::from_mins(1) };
    let bound = Bound::Bucket { rate, burst: count };
    Limit { code: code.into(), key: key.into(), bound, cost: 1 }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::string_slice, reason = "tests")]

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_token_is_long_random_and_fits_a_header() {
        for (token, unfit) in [
            ("", UnfitToken::Length),
            (&TOKEN[1..], UnfitToken::Length),
            (&TOKEN.repeat(17), UnfitToken::Length),
            (&format!("{TOKEN} "), UnfitToken::Characters),
            (&format!("{TOKEN}\n"), UnfitToken::Characters),
            (&format!("{TOKEN}é"), UnfitToken::Characters),
            (&"a".repeat(40), UnfitToken::Guessable),
            (&"changem".repeat(5), UnfitToken::Guessable),
        ] {
            assert_eq!(TokenDigest::of(token).unwrap_err(), unfit, "{token:?}");
        }
        for token in [TOKEN, &TOKEN.repeat(16), "v4.local-~+/=_AbCdEfGhIjKlMnOpQrStUv"] {
            assert!(TokenDigest::of(token).is_ok(), "{token}");
        }
    }

    #[test]
    fn a_digest_is_of_its_token_alone_and_shows_nothing() {
        let digest = TokenDigest::of(TOKEN).unwrap();
        assert!(digest.is_of(TOKEN));
        for other in ["", &TOKEN[1..], &TOKEN.to_uppercase(), &format!("{TOKEN}0")] {
            assert!(!digest.is_of(other), "{other}");
        }
        assert_eq!(format!("{digest:?}"), "TokenDigest(…)");
        assert_ne!(digest, TokenDigest::of(&TOKEN.replace('0', "g")).unwrap());
    }
}
