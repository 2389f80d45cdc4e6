//! A registry of sessions by id, each bound to the principal that began it. Used for HTTP sessions,
//! child processes and HTTP+SSE streams.
//!
//! An id is 128 random bits, but it does not authenticate: the caller must also be the session's
//! principal; for anybody else the session does not exist (threats F7, F8). The principal is
//! compared with its groups and claims: if a later token changes them, the caller must begin
//! another session, so that no answer of the old one is judged by new rights.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bartizan_gate::question::access::Principal;

/// Sessions by id.
#[derive(Debug)]
pub(crate) struct SessionRegistry<T>(HashMap<Box<str>, Registered<T>>);

#[derive(Debug)]
struct Registered<T> {
    principal: Arc<Principal>,
    session: T,
}

impl<T> Default for SessionRegistry<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> SessionRegistry<T> {
    /// The session `name`, if it belongs to `principal`.
    pub(crate) fn get(&self, name: &str, principal: &Principal) -> Option<&T> {
        let seat = self.0.get(name).filter(|seat| *seat.principal == *principal)?;
        Some(&seat.session)
    }

    /// Like [`SessionRegistry::get`].
    pub(crate) fn get_mut(&mut self, name: &str, principal: &Principal) -> Option<&mut T> {
        let seat = self.0.get_mut(name).filter(|seat| *seat.principal == *principal)?;
        Some(&mut seat.session)
    }

    /// Whether any principal's session has this id.
    pub(crate) fn is_taken(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Registers a session. `name` must not be taken: an existing session would be replaced.
    pub(crate) fn begin(&mut self, name: Box<str>, principal: Arc<Principal>, session: T) {
        self.0.insert(name, Registered { principal, session });
    }

    /// Removes a session, whatever principal it belongs to.
    pub(crate) fn forget(&mut self, name: &str) -> Option<T> {
        self.0.remove(name).map(|seat| seat.session)
    }

    /// Removes the sessions that `which` chooses and returns them.
    pub(crate) fn forget_if(&mut self, mut which: impl FnMut(&T) -> bool) -> Vec<T> {
        let forgotten = self.0.extract_if(|_, seat| which(&seat.session));
        forgotten.map(|(_, seat)| seat.session).collect()
    }

    /// Number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Number of sessions of the principal with this id.
    pub(crate) fn count_of(&self, principal: &str) -> usize {
        self.0.values().filter(|seat| *seat.principal.id == *principal).count()
    }

    /// All sessions, with their ids and principals.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Principal, &T)> {
        self.0.iter().map(|(name, seat)| (&**name, &*seat.principal, &seat.session))
    }

    /// All sessions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values().map(|seat| &seat.session)
    }
}

/// 128 random bits as a session id of 32 hexadecimal digits, which cannot be guessed (MCP, security
/// best practices, "Session Hijacking"). `None` if the system gives no randomness.
pub(crate) fn mint() -> Option<Box<str>> {
    let mut bits = [0_u8; 16];
    getrandom::fill(&mut bits).ok()?;
    Some(format!("{:032x}", u128::from_be_bytes(bits)).into())
}

/// A session whose id no client knows yet. Dropping this removes the session.
pub(crate) struct Unannounced<F: FnMut(&str)> {
    name: Option<Box<str>>,
    forget: F,
}

impl<F: FnMut(&str)> Unannounced<F> {
    /// The session `name`; `forget` removes it.
    pub(crate) fn new(name: Box<str>, forget: F) -> Self {
        Self { name: Some(name), forget }
    }

    /// Keeps the session and returns its id for the client.
    pub(crate) fn announce(mut self) -> Option<Box<str>> {
        self.name.take()
    }
}

impl<F: FnMut(&str)> fmt::Debug for Unannounced<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unannounced").finish_non_exhaustive()
    }
}

impl<F: FnMut(&str)> Drop for Unannounced<F> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            (self.forget)(name);
        }
    }
}
