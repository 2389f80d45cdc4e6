//! Sign-ins that have begun: what binds the answer of the issuer to the browser that asked.
//!
//! Nothing is kept for one, so nobody can take the room of others by beginning many. The browser gets
//! a sealed cookie with random bits; `state`, `nonce` and the PKCE verifier are made of them with a key
//! of this process, so whoever has the cookie can make none of the three. What is kept is which
//! sign-ins succeeded: each does so once.
//!
//! The cookie also has the held call that the person came for, so that the page shows it afterwards.
//! Another cookie, of a browser in which somebody has signed in, is made with the same key ([`Known`]).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use bartizan_gate::wire::hex::hex;
use bartizan_gate::wire::mac::keyed;
use bartizan_sync::lock;

/// How long a person has at the issuer.
pub const LIFE: Duration = Duration::from_mins(10);
/// Successful sign-ins that are remembered, each for [`LIFE`].
const DONE_MAX: usize = 1024;

const RANDOM_BYTES: usize = 32;
const TIME_BYTES: usize = 8;
const HOLD_BYTES: usize = 16;
const SEAL_BYTES: usize = 32;

/// What recognises sign-ins. Its key is of this process.
pub(super) struct Attempts {
    key: [u8; 32],
    /// The states of sign-ins that succeeded, each with when it began (uptime), oldest first.
    done: Mutex<VecDeque<([u8; 32], Duration)>>,
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempts").finish_non_exhaustive()
    }
}

/// One sign-in that has begun.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::admin) struct Attempt {
    random: [u8; RANDOM_BYTES],
    /// Uptime, milliseconds.
    began_ms: u64,
    /// The id of the held call that is shown afterwards; 0 for none.
    hold: u128,
}

/// A browser in which somebody has signed in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) struct Known([u8; KNOWN_BYTES]);

const KNOWN_BYTES: usize = 16;

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known(…)")
    }
}

impl Known {
    /// Another one. Fails if the system gives no random bits.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut random = [0; KNOWN_BYTES];
        getrandom::fill(&mut random)?;
        Ok(Self(random))
    }

    /// Its name in counts.
    pub(super) fn name(self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("began_ms", &self.began_ms).finish_non_exhaustive()
    }
}

/// What is made of an attempt; each has a name of its own under the key.
#[derive(Clone, Copy)]
enum Use {
    Seal,
    State,
    Nonce,
    Verifier,
    Known,
}

impl Use {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Seal => b"seal",
            Self::State => b"state",
            Self::Nonce => b"nonce",
            Self::Verifier => b"verifier",
            Self::Known => b"known",
        }
    }
}

impl Attempts {
    /// Fails if the system gives no random bits.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self { key, done: Mutex::default() })
    }

    /// The value of the cookie.
    pub(super) fn cookie(&self, attempt: &Attempt) -> String {
        let seal = self.derived(attempt, Use::Seal).finalize().into_bytes();
        let (began, hold) = (attempt.began_ms.to_be_bytes(), attempt.hold.to_be_bytes());
        URL_SAFE_NO_PAD.encode([&attempt.random[..], &began, &hold, &seal].concat())
    }

    /// The attempt whose cookie this is, unless it began more than [`LIFE`] before `now`.
    pub(super) fn read(&self, cookie: &str, now: Duration) -> Option<Attempt> {
        if cookie.len() > 2 * (RANDOM_BYTES + TIME_BYTES + HOLD_BYTES + SEAL_BYTES) {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let (random, rest) = bytes.split_first_chunk::<RANDOM_BYTES>()?;
        let (began, rest) = rest.split_first_chunk::<TIME_BYTES>()?;
        let (hold, seal) = rest.split_first_chunk::<HOLD_BYTES>()?;
        let (began_ms, hold) = (u64::from_be_bytes(*began), u128::from_be_bytes(*hold));
        let attempt = Attempt { random: *random, began_ms, hold };
        self.derived(&attempt, Use::Seal).verify_slice(seal).ok()?;
        (now.saturating_sub(attempt.began()) < LIFE).then_some(attempt)
    }

    /// `state` of the request to the issuer (RFC 6749 §10.12).
    pub(super) fn state(&self, attempt: &Attempt) -> String {
        self.text(attempt, Use::State)
    }

    /// Whether `state` is that of `attempt`, in a time that tells nothing about it.
    pub(super) fn is_state(&self, attempt: &Attempt, state: &str) -> bool {
        self.is(attempt, Use::State, state)
    }

    /// `nonce` of the request, which the ID token must repeat (OpenID Connect Core §3.1.2.1).
    pub(super) fn nonce(&self, attempt: &Attempt) -> String {
        self.text(attempt, Use::Nonce)
    }

    /// Whether `nonce` is that of `attempt`, likewise.
    pub(super) fn is_nonce(&self, attempt: &Attempt, nonce: &str) -> bool {
        self.is(attempt, Use::Nonce, nonce)
    }

    /// The PKCE verifier: 43 characters (RFC 7636 §4.1).
    pub(super) fn verifier(&self, attempt: &Attempt) -> String {
        self.text(attempt, Use::Verifier)
    }

    /// The PKCE challenge, by S256 (RFC 7636 §4.2).
    pub(super) fn challenge(&self, attempt: &Attempt) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier(attempt)))
    }

    /// Remembers that `attempt` succeeded at `now`. `false` if it did so before, or if so many did
    /// that no more can be remembered.
    pub(super) fn succeed(&self, attempt: &Attempt, now: Duration) -> bool {
        let state = self.derived(attempt, Use::State).finalize().into_bytes().into();
        let mut done = lock(&self.done);
        done.retain(|(_, began)| now.saturating_sub(*began) < LIFE);
        if done.len() >= DONE_MAX || done.iter().any(|(other, _)| *other == state) {
            return false;
        }
        done.push_back((state, attempt.began()));
        true
    }

    fn derived(&self, attempt: &Attempt, what: Use) -> Hmac<Sha256> {
        let mut mac = keyed(&self.key);
        mac.update(what.label());
        mac.update(&[0]);
        mac.update(&attempt.random);
        mac.update(&attempt.began_ms.to_be_bytes());
        mac.update(&attempt.hold.to_be_bytes());
        mac
    }

    /// The value of the cookie of `known`.
    pub(super) fn known_cookie(&self, known: Known) -> String {
        let seal = self.known_seal(&known.0).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&known.0[..], &seal].concat())
    }

    /// The browser whose cookie this is; `None` if it is none of this process.
    pub(super) fn read_known(&self, cookie: &str) -> Option<Known> {
        if cookie.len() > 2 * (KNOWN_BYTES + SEAL_BYTES) {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let (random, seal) = bytes.split_first_chunk::<KNOWN_BYTES>()?;
        self.known_seal(random).verify_slice(seal).ok()?;
        Some(Known(*random))
    }

    fn known_seal(&self, random: &[u8; KNOWN_BYTES]) -> Hmac<Sha256> {
        let mut mac = keyed(&self.key);
        mac.update(Use::Known.label());
        mac.update(&[0]);
        mac.update(random);
        mac
    }

    fn text(&self, attempt: &Attempt, what: Use) -> String {
        URL_SAFE_NO_PAD.encode(self.derived(attempt, what).finalize().into_bytes())
    }

    fn is(&self, attempt: &Attempt, what: Use, text: &str) -> bool {
        let decoded = URL_SAFE_NO_PAD.decode(text.as_bytes());
        decoded.is_ok_and(|bytes| self.derived(attempt, what).verify_slice(&bytes).is_ok())
    }
}

impl Attempt {
    /// Begins a sign-in at `now` (uptime), after which the held call with the id `hold` is shown, if
    /// that can be an id. Fails if the system gives no random bits.
    pub(super) fn begin(now: Duration, hold: Option<&str>) -> Result<Self, getrandom::Error> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random)?;
        let began_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let is_id = |text: &&str| {
            text.len() == 2 * HOLD_BYTES
                && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let hold = hold.filter(is_id).and_then(|id| u128::from_str_radix(id, 16).ok());
        Ok(Self { random, began_ms, hold: hold.unwrap_or_default() })
    }

    /// The id of the held call that is shown afterwards.
    pub(super) fn hold(&self) -> Option<String> {
        (self.hold != 0).then(|| format!("{:032x}", self.hold))
    }

    fn began(&self) -> Duration {
        Duration::from_millis(self.began_ms)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::string_slice, reason = "a cookie is ASCII")]

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_cookie_is_of_this_process_whole_and_not_old() {
        let (ours, theirs) = (Attempts::new().unwrap(), Attempts::new().unwrap());
        let attempt = Attempt::begin(NOW, None).unwrap();
        let cookie = ours.cookie(&attempt);
        assert_eq!(ours.read(&cookie, NOW).as_ref(), Some(&attempt));
        assert_eq!(theirs.read(&cookie, NOW), None);
        let last = NOW + LIFE.saturating_sub(Duration::from_millis(1));
        assert!(ours.read(&cookie, last).is_some());
        assert_eq!(ours.read(&cookie, NOW + LIFE), None);
        for at in 0..cookie.len() {
            for other in ["A", "_"] {
                let changed = [&cookie[..at], other, &cookie[at + 1..]].concat();
                assert!(changed == cookie || ours.read(&changed, NOW).is_none(), "{at}");
            }
        }
        for other in ["", "A", &cookie[1..], &format!("{cookie}A"), &cookie.repeat(9)] {
            assert_eq!(ours.read(other, NOW), None, "{other}");
        }
    }

    #[test]
    fn a_cookie_keeps_the_held_call_and_nothing_that_is_no_id() {
        let attempts = Attempts::new().unwrap();
        let read = |hold: &str| {
            let attempt = Attempt::begin(NOW, Some(hold)).unwrap();
            attempts.read(&attempts.cookie(&attempt), NOW).unwrap().hold()
        };
        let id = "00c0ffee00c0ffee00c0ffee00c0ffee";
        assert_eq!(read(id).as_deref(), Some(id));
        for other in [
            "",
            "//evil.example",
            &id[1..],
            &id.to_uppercase(),
            &id.repeat(2),
            "+00c0ffee00c0ffee00c0ffee00c0ffe",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_known_browser_is_one_of_this_process() {
        let (ours, theirs) = (Attempts::new().unwrap(), Attempts::new().unwrap());
        let known = Known::new().unwrap();
        let cookie = ours.known_cookie(known);
        assert_eq!(ours.read_known(&cookie), Some(known));
        assert_eq!(theirs.read_known(&cookie), None);
        for other in ["", &cookie[1..], &format!("{cookie}A"), &cookie.repeat(9)] {
            assert_eq!(ours.read_known(other), None, "{other}");
        }
        assert!(!format!("{known:?}").contains(&known.name()));
    }

    #[test]
    fn what_is_made_of_an_attempt_is_its_own_and_none_of_another_use() {
        let attempts = Attempts::new().unwrap();
        let (one, other) = (Attempt::begin(NOW, None).unwrap(), Attempt::begin(NOW, None).unwrap());
        let (state, nonce) = (attempts.state(&one), attempts.nonce(&one));
        assert!(attempts.is_state(&one, &state) && attempts.is_nonce(&one, &nonce));
        for wrong in [&nonce, &attempts.state(&other), &attempts.verifier(&one), "", "!"] {
            assert!(!attempts.is_state(&one, wrong), "{wrong}");
        }
        for wrong in [&state, &attempts.nonce(&other), ""] {
            assert!(!attempts.is_nonce(&one, wrong), "{wrong}");
        }
        assert_eq!(attempts.verifier(&one).len(), 43);
        assert_ne!(attempts.challenge(&one), attempts.verifier(&one));
        let shown = format!("{one:?} {attempts:?}");
        assert!(!shown.contains(&state) && !shown.contains("random"), "{shown}");
    }

    #[test]
    fn a_sign_in_succeeds_once_and_what_is_remembered_is_bounded() {
        let attempts = Attempts::new().unwrap();
        let one = Attempt::begin(NOW, None).unwrap();
        assert!(attempts.succeed(&one, NOW));
        assert!(!attempts.succeed(&one, NOW));
        for _ in 1..DONE_MAX {
            assert!(attempts.succeed(&Attempt::begin(NOW, None).unwrap(), NOW));
        }
        let late = Attempt::begin(NOW, None).unwrap();
        assert!(!attempts.succeed(&late, NOW), "no room");
        assert!(attempts.succeed(&late, NOW + LIFE), "the others are too old to come again");
        assert_eq!(lock(&attempts.done).len(), 1);
    }
}
