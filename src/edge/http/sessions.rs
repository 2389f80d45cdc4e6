//! Legacy MCP sessions of one route: bounded, bound to a principal, forgotten when idle.
//!
//! A session exists here because a server minted its id in answer to `initialize` through this
//! sidecar; an id that a client brings from elsewhere is unknown (threats F7, F8). Sessions are
//! not authentication: whoever asks must be the principal that the session belongs to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::gate::access::Principal;
use crate::gate::session::Session;

/// A conversation that several exchanges share. Locked for one step at a time, never over an
/// await.
pub(super) type SharedSession = Arc<Mutex<Session>>;

/// Length of a session id, bytes.
const ID_MAX: usize = 512;

/// The sessions of one route.
#[derive(Debug)]
pub(super) struct Sessions {
    table: Mutex<HashMap<Box<str>, Entry>>,
    max: usize,
    idle: Duration,
}

#[derive(Debug)]
struct Entry {
    session: SharedSession,
    principal: Arc<Principal>,
    /// When it was last used, by uptime.
    used: Duration,
}

impl Sessions {
    pub(super) fn new(max: usize, idle: Duration) -> Self {
        Self { table: Mutex::new(HashMap::new()), max, idle }
    }

    /// The session `id` of `principal`.
    pub(super) fn find(
        &self,
        id: &str,
        principal: &Principal,
        now: Duration,
    ) -> Option<SharedSession> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = table.get_mut(id).filter(|entry| entry.principal.id == principal.id)?;
        entry.used = now;
        Some(Arc::clone(&entry.session))
    }

    /// Whether one more fits.
    pub(super) fn has_room(&self) -> bool {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).len() < self.max
    }

    /// Remembers `session` as `id`. `false` if the id is none (visible ASCII, as the transport
    /// specification says), is another session's already, or the table is full.
    pub(super) fn insert(
        &self,
        id: &str,
        session: &SharedSession,
        principal: &Arc<Principal>,
        now: Duration,
    ) -> bool {
        if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return false;
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= self.max || table.contains_key(id) {
            return false;
        }
        let entry =
            Entry { session: Arc::clone(session), principal: Arc::clone(principal), used: now };
        table.insert(id.into(), entry);
        true
    }

    /// Forgets `id`.
    pub(super) fn remove(&self, id: &str) -> Option<SharedSession> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove(id).map(|entry| entry.session)
    }

    /// Forgets what nobody has used for too long and no exchange holds.
    pub(super) fn expire(&self, now: Duration) -> Vec<SharedSession> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let old = |entry: &mut Entry| {
            Arc::strong_count(&entry.session) == 1 && now.saturating_sub(entry.used) >= self.idle
        };
        table.extract_if(|_, entry| old(entry)).map(|(_, entry)| entry.session).collect()
    }

    /// Forgets all.
    pub(super) fn clear(&self) -> Vec<SharedSession> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.drain().map(|(_, entry)| entry.session).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::access::{Server, Transport};
    use crate::gate::session::{Protected, RefusalForm};

    fn principal(id: &str) -> Arc<Principal> {
        Arc::new(Principal { id: id.into(), ..Principal::default() })
    }

    fn session() -> SharedSession {
        let server = Arc::new(Protected::new(Server::default(), RefusalForm::Error));
        Arc::new(Mutex::new(Session::new(principal("a"), server, Transport::Http)))
    }

    #[test]
    fn bound_to_principal_bounded_and_forgotten() {
        let at = Duration::from_secs;
        let sessions = Sessions::new(2, at(60));
        let (mine, other) = (principal("a"), principal("b"));
        assert!(sessions.insert("one", &session(), &mine, at(0)));
        assert!(!sessions.insert("one", &session(), &other, at(0)), "taken");
        assert!(!sessions.insert("a b", &session(), &mine, at(0)), "no visible ASCII");
        assert!(!sessions.insert("", &session(), &mine, at(0)));
        assert!(sessions.find("one", &other, at(0)).is_none());
        assert!(sessions.find("One", &mine, at(0)).is_none());
        assert!(sessions.insert("two", &session(), &mine, at(0)));
        assert!(!sessions.has_room());
        assert!(!sessions.insert("three", &session(), &mine, at(0)), "full");
        let held = sessions.find("one", &mine, at(30));
        assert!(held.is_some());
        assert_eq!(sessions.expire(at(90)).len(), 1, "only the one that nobody holds");
        drop(held);
        assert_eq!(sessions.expire(at(89)).len(), 0);
        assert_eq!(sessions.expire(at(90)).len(), 1);
        assert!(sessions.remove("one").is_none());
        assert!(sessions.clear().is_empty());
    }
}
