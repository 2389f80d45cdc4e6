//! Named sessions, each of the principal that began it.
//!
//! A name is 128 random bits, but it is no credential: whoever asks must also be the principal that
//! the session belongs to, and for anybody else the session does not exist (threats F7, F8). It
//! belongs to the principal as it was: one whose groups or claims have changed since begins another
//! session, so that no answer is judged by what a later token says.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bartizan_gate::question::access::Principal;

/// What is kept of each session, by the session's name.
#[derive(Debug)]
pub(crate) struct Seats<T>(HashMap<Box<str>, Seat<T>>);

#[derive(Debug)]
struct Seat<T> {
    principal: Arc<Principal>,
    session: T,
}

impl<T> Default for Seats<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Seats<T> {
    /// The session that `principal` calls `name`.
    pub(crate) fn get(&self, name: &str, principal: &Principal) -> Option<&T> {
        let seat = self.0.get(name).filter(|seat| *seat.principal == *principal)?;
        Some(&seat.session)
    }

    /// Like [`Seats::get`].
    pub(crate) fn get_mut(&mut self, name: &str, principal: &Principal) -> Option<&mut T> {
        let seat = self.0.get_mut(name).filter(|seat| *seat.principal == *principal)?;
        Some(&mut seat.session)
    }

    /// Whether a session has this name, whoever's it is.
    pub(crate) fn is_taken(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Begins the session that `principal` calls `name`, which must not be taken: a session that is
    /// there already is replaced.
    pub(crate) fn begin(&mut self, name: Box<str>, principal: Arc<Principal>, session: T) {
        self.0.insert(name, Seat { principal, session });
    }

    /// Forgets a session, whoever's it is.
    pub(crate) fn forget(&mut self, name: &str) -> Option<T> {
        self.0.remove(name).map(|seat| seat.session)
    }

    /// Forgets the sessions that `which` chooses, and gives them.
    pub(crate) fn forget_if(&mut self, mut which: impl FnMut(&T) -> bool) -> Vec<T> {
        let forgotten = self.0.extract_if(|_, seat| which(&seat.session));
        forgotten.map(|(_, seat)| seat.session).collect()
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many of them are a principal's whose id this is.
    pub(crate) fn count_of(&self, principal: &str) -> usize {
        self.0.values().filter(|seat| *seat.principal.id == *principal).count()
    }

    /// All sessions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values().map(|seat| &seat.session)
    }
}

/// 128 random bits as a session's name: not to be guessed (MCP "Session Hijacking"). Nothing where
/// the system has no randomness.
pub(crate) fn mint() -> Option<Box<str>> {
    let mut bits = [0_u8; 16];
    getrandom::fill(&mut bits).ok()?;
    Some(format!("{:032x}", u128::from_be_bytes(bits)).into())
}

/// A session that no client has been told of yet: dropping it forgets the session.
pub(crate) struct Unannounced<F: FnMut(&str)> {
    name: Option<Box<str>>,
    forget: F,
}

impl<F: FnMut(&str)> Unannounced<F> {
    /// The session that is called `name`.
    pub(crate) fn new(name: Box<str>, forget: F) -> Self {
        Self { name: Some(name), forget }
    }

    /// The client will be told: the session stays.
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
