//! Event ids as clients see them: the server's own id with a message authentication code (MAC) in
//! front.
//!
//! A client sends an event id back as `Last-Event-ID`, which makes the server replay a stream. So
//! the id must be one that this principal received in this session (threats F5, F6). The key of the
//! MAC is new at each start. The result is encoded in base64url, so that every header and event can
//! carry it whatever the server put into it; clients treat ids as opaque (WHATWG HTML §9.2.4).

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderValue;
use sha2::Sha256;

/// Length of a server's event id, bytes. A longer id is left out of the event, so the stream cannot
/// be resumed from there.
const ID_MAX: usize = 1024;
/// Length of the truncated MAC, bytes: 128 bits, which cannot be guessed.
const SEAL: usize = 16;

/// The MAC key of one listener's event ids.
pub(super) struct EventIds(Hmac<Sha256>);

/// Seals and opens the event ids of one principal in one session with one server.
pub(super) struct EventScope(Hmac<Sha256>);

impl EventIds {
    /// A new random key. Fails if the system gives no randomness.
    pub(super) fn new() -> io::Result<Self> {
        let mut key = [0_u8; 64];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        Ok(Self(Hmac::new(&key.into())))
    }

    /// The scope of event ids for these three. `session` is the id that the client knows; `None`
    /// for a server without sessions.
    pub(super) fn scope(&self, principal: &str, server: &str, session: Option<&str>) -> EventScope {
        let mut mac = self.0.clone();
        for part in [principal, server, session.unwrap_or_default()] {
            // The length in front keeps the parts apart: ("ab", "c") and ("a", "bc") differ.
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(part.as_bytes());
        }
        EventScope(mac)
    }
}

impl EventScope {
    /// The id that the client gets instead of the server's `id`; `None` if no header could carry
    /// the server's id back. The empty id means "no id" (WHATWG HTML §9.2.6) and stays.
    pub(super) fn seal(&self, id: &str) -> Option<Box<str>> {
        if id.is_empty() {
            return Some(Box::default());
        }
        header(id.as_bytes())?;
        let mut mac = self.0.clone();
        mac.update(id.as_bytes());
        let tag = mac.finalize().into_bytes();
        let mut sealed = Vec::with_capacity(SEAL.saturating_add(id.len()));
        sealed.extend(tag.iter().take(SEAL));
        sealed.extend_from_slice(id.as_bytes());
        Some(URL_SAFE_NO_PAD.encode(sealed).into())
    }

    /// The server's id in `sealed`, as a header value; `None` if the MAC does not match this scope.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<HeaderValue> {
        // Nothing longer comes from `seal`; do not decode it.
        if sealed.len() > ID_MAX.saturating_add(SEAL).saturating_mul(4).div_ceil(3) {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (tag, id) = sealed.split_at_checked(SEAL)?;
        let mut mac = self.0.clone();
        mac.update(id);
        mac.verify_truncated_left(tag).ok()?;
        header(id)
    }
}

/// `id` as a header value that arrives unchanged: short, without control characters, and without
/// white space at its ends, which a recipient removes (RFC 9110 §5.5).
fn header(id: &[u8]) -> Option<HeaderValue> {
    if id.is_empty() || id.len() > ID_MAX || id.trim_ascii().len() != id.len() {
        return None;
    }
    HeaderValue::from_bytes(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_where_it_was_sealed_and_nowhere_else() {
        let ids = EventIds::new().unwrap();
        let mine = || ids.scope("agent", "flags", Some("s"));
        for id in ["7", "stream/1:42", "a b", "ключ", &"x".repeat(ID_MAX)] {
            let sealed = mine().seal(id).unwrap();
            assert!(sealed.bytes().all(|byte| byte.is_ascii_graphic()), "{sealed}");
            assert_eq!(mine().open(sealed.as_bytes()).unwrap().as_bytes(), id.as_bytes());
            for other in [
                ids.scope("agent2", "flags", Some("s")),
                ids.scope("agent", "flags2", Some("s")),
                ids.scope("agent", "flags", Some("t")),
                ids.scope("agent", "flags", None),
                ids.scope("agentflags", "", Some("s")),
                EventIds::new().unwrap().scope("agent", "flags", Some("s")),
            ] {
                assert!(other.open(sealed.as_bytes()).is_none(), "{id}");
            }
        }
    }

    #[test]
    fn refuses_what_it_did_not_seal() {
        let scope = EventIds::new().unwrap().scope("agent", "flags", Some("s"));
        let sealed = scope.seal("7").unwrap();
        let longer = format!("{sealed}AAAA");
        let endless = "A".repeat(100_000);
        let (shorter, _) = sealed.split_at(sealed.len() - 2);
        for bad in ["", "7", "AAAAAAAAAAAAAAAAAAAAAA", shorter, &longer, &endless, "é"] {
            assert!(scope.open(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_id_that_no_header_can_carry_is_left_out() {
        let scope = EventIds::new().unwrap().scope("agent", "flags", None);
        assert_eq!(scope.seal("").as_deref(), Some(""));
        for bad in [" 7", "7 ", "7\u{1}", "\u{7f}", &"x".repeat(ID_MAX + 1)] {
            assert!(scope.seal(bad).is_none(), "{bad:?}");
        }
    }
}
