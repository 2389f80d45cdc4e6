//! Who is signed in, in which browser.
//!
//! A session has an id, which the browser sends by itself, in a cookie that no script reads; and a key,
//! which only the page knows, and sends in a header. One alone is worth nothing: not the cookie, which
//! a browser sends to every port of this host and with requests that other pages make, nor the key.
//! Both are random and kept as digests. The table is in memory: a restart ends all sessions.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use super::super::approvers::Caller;
use bartizan_gate::wire::mac;
use bartizan_sync::lock;

/// Sessions at once; then the one that was used least recently ends.
pub const SESSIONS_MAX: usize = 256;
/// Sessions of one person at once; likewise.
pub const SESSIONS_OF_ONE_MAX: usize = 8;

/// Random bits of an id and of a key, bytes.
const SECRET_BYTES: usize = 32;
/// Size of what is taken for an id or a key, bytes: one in base64url, without padding.
const TEXT_BYTES: usize = 43;

/// The sessions of one program.
#[derive(Debug)]
pub(super) struct Sessions {
    /// How long a session may be unused.
    idle: Duration,
    /// How long one may last.
    lifetime: Duration,
    /// Each by the digest of its id.
    table: Mutex<HashMap<[u8; 32], Session>>,
}

struct Session {
    /// What is kept of its key: HMAC-SHA-256 of nothing, with the key's digest.
    key: [u8; 32],
    who: Arc<Caller>,
    /// Uptime.
    began: Duration,
    used: Duration,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("who", &self.who).finish_non_exhaustive()
    }
}

/// A new session, for the browser alone.
pub(super) struct Opened {
    /// For the cookie.
    pub(super) id: String,
    /// For the page.
    pub(super) key: String,
}

impl Sessions {
    pub(super) fn new(idle: Duration, lifetime: Duration) -> Self {
        Self { idle, lifetime, table: Mutex::default() }
    }

    /// A session for `who` from `now` (uptime) on, with an id that nobody knew before. Fails if the
    /// system gives no random bits.
    pub(super) fn open(&self, who: Arc<Caller>, now: Duration) -> Result<Opened, getrandom::Error> {
        let (id, key) = (secret()?, secret()?);
        let mut table = lock(&self.table);
        self.forget_ended(&mut table, now);
        let of_one = |session: &Session| session.who.approver.id == who.approver.id;
        if table.values().filter(|session| of_one(session)).count() >= SESSIONS_OF_ONE_MAX {
            end_oldest(&mut table, of_one);
        }
        if table.len() >= SESSIONS_MAX {
            end_oldest(&mut table, |_| true);
        }
        let kept = keyed(&key).finalize().into_bytes().into();
        table.insert(digest(&id), Session { key: kept, who, began: now, used: now });
        Ok(Opened { id, key })
    }

    /// Who is signed in with the cookie `id` and the `key`; the session counts as used at `now`.
    pub(super) fn find(&self, id: &str, key: &str, now: Duration) -> Option<Arc<Caller>> {
        if id.len() != TEXT_BYTES || key.len() != TEXT_BYTES {
            return None;
        }
        let mut table = lock(&self.table);
        self.forget_ended(&mut table, now);
        let session = table.get_mut(&digest(id))?;
        keyed(key).verify_slice(&session.key).ok()?;
        session.used = now;
        Some(Arc::clone(&session.who))
    }

    /// Ends the session with the id `id`.
    pub(super) fn close(&self, id: &str) {
        lock(&self.table).remove(&digest(id));
    }

    fn forget_ended(&self, table: &mut HashMap<[u8; 32], Session>, now: Duration) {
        table.retain(|_, session| {
            now.saturating_sub(session.used) < self.idle
                && now.saturating_sub(session.began) < self.lifetime
        });
    }
}

/// Ends the session among those of `some` that was used least recently.
fn end_oldest(table: &mut HashMap<[u8; 32], Session>, some: impl Fn(&Session) -> bool) {
    let found = table.iter().filter(|(_, session)| some(session));
    let oldest = found.min_by_key(|(_, session)| session.used).map(|(id, _)| *id);
    if let Some(oldest) = oldest {
        table.remove(&oldest);
    }
}

fn secret() -> Result<String, getrandom::Error> {
    let mut bits = [0; SECRET_BYTES];
    getrandom::fill(&mut bits)?;
    Ok(URL_SAFE_NO_PAD.encode(bits))
}

fn digest(id: &str) -> [u8; 32] {
    Sha256::digest(id).into()
}

fn keyed(key: &str) -> Hmac<Sha256> {
    mac::keyed(&digest(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bartizan_approvals::Approver;

    const IDLE: Duration = Duration::from_secs(10);
    const LIFETIME: Duration = Duration::from_secs(25);

    fn sessions() -> Sessions {
        Sessions::new(IDLE, LIFETIME)
    }

    fn who(id: &str) -> Arc<Caller> {
        Arc::new(Caller::of(Arc::new(Approver { id: id.into(), groups: Vec::new() })))
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_session_needs_its_cookie_and_its_key() {
        let sessions = sessions();
        let one = sessions.open(who("a"), at(0)).unwrap();
        let other = sessions.open(who("b"), at(0)).unwrap();
        let found = |id: &str, key: &str| {
            sessions.find(id, key, at(1)).map(|who| who.approver.id.to_string())
        };
        assert_eq!(found(&one.id, &one.key).as_deref(), Some("a"));
        assert_eq!(found(&other.id, &other.key).as_deref(), Some("b"));
        for (id, key) in [
            (one.id.as_str(), other.key.as_str()),
            (&other.id, &one.key),
            (&one.key, &one.id),
            (&one.id, ""),
            ("", &one.key),
            (&one.id, &one.id),
            (&one.id, &format!("{}A", one.key)),
        ] {
            assert_eq!(found(id, key), None);
        }
        sessions.close(&one.id);
        assert_eq!(found(&one.id, &one.key), None);
        assert_eq!(found(&other.id, &other.key).as_deref(), Some("b"), "the others stay");
        let shown = format!("{sessions:?}");
        assert!(!shown.contains(&other.id) && !shown.contains(&other.key));
    }

    #[test]
    fn a_session_ends_unused_and_in_any_case() {
        let sessions = sessions();
        let one = sessions.open(who("a"), at(0)).unwrap();
        assert!(sessions.find(&one.id, &one.key, at(9)).is_some());
        assert!(sessions.find(&one.id, &one.key, at(18)).is_some(), "it was used");
        assert!(sessions.find(&one.id, "wrong", at(19)).is_none());
        assert!(sessions.find(&one.id, &one.key, at(24)).is_some());
        assert!(sessions.find(&one.id, &one.key, at(25)).is_none(), "its time is over");
        let idle = sessions.open(who("a"), at(100)).unwrap();
        // A wrong key is no use of it.
        let wrong = "A".repeat(TEXT_BYTES);
        assert!(sessions.find(&idle.id, &wrong, at(109)).is_none());
        assert!(sessions.find(&idle.id, &idle.key, at(110)).is_none());
        assert!(lock(&sessions.table).is_empty());
    }

    #[test]
    fn the_table_is_bounded_for_one_and_for_all() {
        let sessions = sessions();
        let mine: Vec<_> = (0..20).map(|_| sessions.open(who("a"), at(1)).unwrap()).collect();
        assert_eq!(lock(&sessions.table).len(), SESSIONS_OF_ONE_MAX);
        let last = mine.last().unwrap();
        assert!(sessions.find(&last.id, &last.key, at(2)).is_some());
        for number in 0..2 * SESSIONS_MAX {
            sessions.open(who(&format!("b{number}")), at(3)).unwrap();
            assert!(lock(&sessions.table).len() <= SESSIONS_MAX);
        }
        assert_eq!(lock(&sessions.table).len(), SESSIONS_MAX);
    }
}
