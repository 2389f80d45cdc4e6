//! Legacy MCP sessions of one route: bounded, bound to a principal, forgotten when idle.
//!
//! A session exists here because a server minted its id in answer to `initialize` through this
//! sidecar. The client never learns that id: it is told one of ours, 128 random bits, and an id
//! that it brings from elsewhere is unknown (threats F7, F8). Sessions are not authentication:
//! whoever asks must be the principal that the session belongs to.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_sync::lock;
use tokio_util::sync::CancellationToken;

use super::gauge::Gauge;
use crate::seats::{Seats, mint};
use crate::session::SessionHandle;
use bartizan_gate::evidence::record::CallId;
use bartizan_gate::question::access::Principal;

/// Length of a server's session id, bytes.
const ID_MAX: usize = 512;

/// A legacy session under both its names.
#[derive(Debug)]
pub(super) struct LegacySession {
    /// The conversation.
    pub(super) session: Arc<SessionHandle>,
    /// What the client calls it.
    pub(super) ours: Box<str>,
    /// What the server calls it.
    pub(super) theirs: Box<str>,
    /// Its GET streams. One more never takes the place of another (F7).
    pub(super) streams: Arc<Gauge>,
    /// Cancelled once it is forgotten or a panic has closed it: its streams end.
    pub(super) ended: CancellationToken,
    /// Held by each GET stream that goes on where another ended.
    pub(super) resuming: Arc<()>,
    /// Calls whose stream ended before their answer, and since when the client may come for it.
    left: Mutex<Vec<(CallId, Duration)>>,
}

impl LegacySession {
    /// The client must come for the answer of `call` with `Last-Event-ID`.
    pub(super) fn leave(&self, call: &CallId, now: Duration) {
        let mut left = lock(&self.left);
        left.retain(|(call, _)| self.session.awaits(call));
        left.push((Arc::clone(call), now));
    }

    /// The client came.
    pub(super) fn came_back(&self, now: Duration) {
        let mut left = lock(&self.left);
        for (_, since) in left.iter_mut() {
            *since = now;
        }
    }

    /// Calls that nobody came for in `patience`.
    fn given_up(&self, now: Duration, patience: Duration) -> Vec<CallId> {
        if Arc::strong_count(&self.resuming) > 1 {
            self.came_back(now);
        }
        let mut left = lock(&self.left);
        left.extract_if(.., |(_, since)| now.saturating_sub(*since) >= patience)
            .map(|(call, _)| call)
            .collect()
    }
}

/// Bounds of the sessions of one route.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionLimits {
    /// Sessions.
    pub(super) max: usize,
    /// GET streams of one.
    pub(super) streams_max: u64,
    /// How long one is kept that nobody uses.
    pub(super) idle: Duration,
}

/// The sessions of one route.
#[derive(Debug)]
pub(super) struct Sessions {
    table: Mutex<Table>,
    limits: SessionLimits,
}

#[derive(Debug, Default)]
struct Table {
    /// By our name.
    sessions: Seats<Entry>,
    /// The servers' names of all of them.
    theirs: HashSet<Box<str>>,
}

#[derive(Debug)]
struct Entry {
    legacy: Arc<LegacySession>,
    /// When it was last used, by uptime.
    used: Duration,
}

impl Sessions {
    pub(super) fn new(limits: SessionLimits) -> Self {
        Self { table: Mutex::default(), limits }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        // No panic can leave the table half updated, so a poisoned lock is safe.
        lock(&self.table)
    }

    /// The session that `principal` calls `ours`.
    pub(super) fn find(
        &self,
        ours: &str,
        principal: &Principal,
        now: Duration,
    ) -> Option<Arc<LegacySession>> {
        let mut table = self.table();
        let entry = table.sessions.get_mut(ours, principal)?;
        entry.used = now;
        Some(Arc::clone(&entry.legacy))
    }

    /// Whether one more fits.
    pub(super) fn has_room(&self) -> bool {
        self.table().sessions.len() < self.limits.max
    }

    /// Remembers `session`, which the server calls `theirs`, and gives it a name of ours. Nothing
    /// if `theirs` is no id (visible ASCII, as the transport specification says) or another
    /// session's already, if the table is full, or if there is no randomness.
    pub(super) fn begin(
        &self,
        theirs: &str,
        session: &Arc<SessionHandle>,
        principal: &Arc<Principal>,
        now: Duration,
    ) -> Option<Arc<LegacySession>> {
        let visible = theirs.bytes().all(|byte| byte.is_ascii_graphic());
        if theirs.is_empty() || theirs.len() > ID_MAX || !visible {
            return None;
        }
        let legacy = Arc::new(LegacySession {
            session: Arc::clone(session),
            ours: mint()?,
            theirs: theirs.into(),
            streams: Gauge::new(self.limits.streams_max),
            ended: session.closed().child_token(),
            resuming: Arc::default(),
            left: Mutex::default(),
        });
        let mut table = self.table();
        if table.sessions.len() >= self.limits.max || !table.theirs.insert(theirs.into()) {
            return None;
        }
        let entry = Entry { legacy: Arc::clone(&legacy), used: now };
        table.sessions.begin(legacy.ours.clone(), Arc::clone(principal), entry);
        Some(legacy)
    }

    /// Forgets the session that clients call `ours`, and ends its streams.
    pub(super) fn remove(&self, ours: &str) -> Option<Arc<SessionHandle>> {
        let mut table = self.table();
        let entry = table.sessions.forget(ours)?;
        Some(entry.end(&mut table.theirs))
    }

    /// Forgets what nobody has used for too long and no exchange holds, and what a panic closed.
    pub(super) fn expire(&self, now: Duration) -> Vec<Arc<SessionHandle>> {
        let mut table = self.table();
        let Table { sessions, theirs } = &mut *table;
        let old = |entry: &Entry| {
            let session = &entry.legacy.session;
            let unused = Arc::strong_count(session) == 1
                && now.saturating_sub(entry.used) >= self.limits.idle;
            unused || session.is_closed()
        };
        sessions.forget_if(old).into_iter().map(|entry| entry.end(theirs)).collect()
    }

    /// Calls whose answers clients did not come for in `patience`.
    pub(super) fn given_up(
        &self,
        now: Duration,
        patience: Duration,
    ) -> Vec<(Arc<SessionHandle>, CallId)> {
        let table = self.table();
        let of = |legacy: &Arc<LegacySession>| {
            let session = Arc::clone(&legacy.session);
            let calls = legacy.given_up(now, patience);
            calls.into_iter().map(move |call| (Arc::clone(&session), call))
        };
        table.sessions.iter().flat_map(|entry| of(&entry.legacy)).collect()
    }

    /// Forgets all.
    pub(super) fn clear(&self) -> Vec<Arc<SessionHandle>> {
        let mut table = self.table();
        let Table { sessions, theirs } = &mut *table;
        sessions.forget_if(|_| true).into_iter().map(|entry| entry.end(theirs)).collect()
    }
}

impl Entry {
    fn end(self, theirs: &mut HashSet<Box<str>>) -> Arc<SessionHandle> {
        theirs.remove(&self.legacy.theirs);
        self.legacy.ended.cancel();
        Arc::clone(&self.legacy.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shared;
    use bartizan_gate::question::access::Server;
    use bartizan_gate::session::{Protected, RefusalForm, Session};
    use bartizan_gate::wire::protocol::Transport;

    fn principal(id: &str) -> Arc<Principal> {
        Arc::new(Principal { id: id.into(), ..Principal::default() })
    }

    fn session() -> Arc<SessionHandle> {
        let server = Arc::new(Protected::new(Server::default(), RefusalForm::Error));
        let session = Session::new(principal("a"), server, Transport::Http);
        Arc::new(SessionHandle::new(&Shared::for_tests(), session))
    }

    #[test]
    fn bound_to_principal_bounded_and_forgotten() {
        let at = Duration::from_secs;
        let limits = SessionLimits { max: 2, streams_max: 1, idle: at(60) };
        let sessions = Sessions::new(limits);
        let (mine, other) = (principal("a"), principal("b"));
        let one = sessions.begin("one", &session(), &mine, at(0)).unwrap();
        assert!(one.ours.len() == 32 && *one.ours != *one.theirs);
        assert!(sessions.begin("one", &session(), &other, at(0)).is_none(), "taken");
        assert!(sessions.begin("a b", &session(), &mine, at(0)).is_none(), "no visible ASCII");
        assert!(sessions.begin("", &session(), &mine, at(0)).is_none());
        assert!(sessions.find(&one.ours, &other, at(0)).is_none());
        assert!(sessions.find("one", &mine, at(0)).is_none(), "the server's own name");
        assert!(sessions.find(&one.ours.to_uppercase(), &mine, at(0)).is_none());
        let two = sessions.begin("two", &session(), &mine, at(0)).unwrap();
        assert!(!sessions.has_room());
        assert!(sessions.begin("three", &session(), &mine, at(0)).is_none(), "full");
        let held = Arc::clone(&sessions.find(&one.ours, &mine, at(30)).unwrap().session);
        assert_eq!(sessions.expire(at(90)).len(), 1, "only the one that nobody holds");
        assert!(two.ended.is_cancelled() && !one.ended.is_cancelled());
        drop(held);
        assert_eq!(sessions.expire(at(89)).len(), 0);
        assert_eq!(sessions.expire(at(90)).len(), 1);
        assert!(sessions.remove(&one.ours).is_none());
        assert!(sessions.clear().is_empty());
        assert!(sessions.begin("one", &session(), &other, at(0)).is_some(), "free again");
    }

    #[test]
    fn an_answer_is_not_waited_for_forever() {
        let at = Duration::from_secs;
        let sessions = Sessions::new(SessionLimits { max: 2, streams_max: 1, idle: at(3600) });
        let one = sessions.begin("one", &session(), &principal("a"), at(0)).unwrap();
        one.leave(&"call".into(), at(0));
        one.came_back(at(10));
        assert!(sessions.given_up(at(60), at(60)).is_empty(), "it came back");
        let coming = Arc::clone(&one.resuming);
        assert!(sessions.given_up(at(80), at(60)).is_empty(), "it is here");
        drop(coming);
        assert!(sessions.given_up(at(139), at(60)).is_empty());
        assert_eq!(sessions.given_up(at(140), at(60)).len(), 1);
        assert!(sessions.given_up(at(500), at(60)).is_empty(), "told once");
    }
}
