//! The legacy MCP sessions of one route: bounded in number, bound to a principal, removed when
//! idle.
//!
//! If the table is full, a session gives way to a new one: of the principal that begins it, or of
//! one that has more than its part, which is the number of places divided by that of principals
//! (threat K4). One that was never used after its beginning goes first, then the one that was used
//! least recently.
//!
//! A session exists here because a server minted its id in an answer to `initialize` that passed
//! through this sidecar. The client never gets that id: it gets one of ours, 128 random bits, and
//! any other id is unknown (threats F7, F8). A session id does not authenticate: the caller must
//! also be the principal that began the session.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_sync::lock;
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::registry::{SessionRegistry, mint};
use crate::session::SessionHandle;
use bartizan_gate::evidence::record::CallId;
use bartizan_gate::memory::{Charge, MemoryBudget};
use bartizan_gate::question::access::Principal;

/// Longest session id of a server that is accepted, bytes.
const ID_MAX: usize = 512;

/// What a session without a call in flight costs, bytes: its state, its ids, its places in tables.
pub(super) const SESSION_BYTES: usize = 4 << 10;
const _: () =
    assert!(size_of::<SessionHandle>() + size_of::<LegacySession>() + 1536 <= SESSION_BYTES);

/// Why a session has no place.
const SESSIONS_FULL: &str = "limits.sessions: the table is full, and no session may give way";
/// Why a session has no place.
const MEMORY_SPENT: &str = "limits.kept_bytes: no room for one more session of this principal";

/// A legacy session with both of its ids.
#[derive(Debug)]
pub(super) struct LegacySession {
    /// The gate's session.
    pub(super) session: Arc<SessionHandle>,
    /// The id that the client knows.
    pub(super) public_id: Box<str>,
    /// The id that the server minted.
    pub(super) server_id: Box<str>,
    /// Limit of its GET streams. A further stream is refused and never replaces an open one (threat
    /// F7).
    pub(super) streams: Arc<Budget>,
    /// Cancelled when the session is removed or a panic closed it; its streams then end.
    pub(super) ended: CancellationToken,
    /// Cloned by each GET stream that resumes another: a strong count above one means that a
    /// resumed stream is open.
    pub(super) resuming: Arc<()>,
    /// Calls whose stream ended before their answer, each with the uptime since when the client has
    /// not resumed.
    left: Mutex<Vec<(CallId, Duration)>>,
}

impl LegacySession {
    /// The stream of `call` ended before its answer: the client must resume with `Last-Event-ID`.
    pub(super) fn await_resume(&self, call: &CallId, now: Duration) {
        let mut left = lock(&self.left);
        left.retain(|(call, _)| self.session.awaits(call));
        left.push((Arc::clone(call), now));
    }

    /// The client resumed a stream: restart the wait of all calls.
    pub(super) fn resumed(&self, now: Duration) {
        let mut left = lock(&self.left);
        for (_, since) in left.iter_mut() {
            *since = now;
        }
    }

    /// Takes the calls whose client has not resumed for `timeout`.
    fn take_abandoned(&self, now: Duration, timeout: Duration) -> Vec<CallId> {
        if Arc::strong_count(&self.resuming) > 1 {
            self.resumed(now);
        }
        let mut left = lock(&self.left);
        left.extract_if(.., |(_, since)| now.saturating_sub(*since) >= timeout)
            .map(|(call, _)| call)
            .collect()
    }
}

/// Limits of the sessions of one route.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionLimits {
    /// Sessions at once.
    pub(super) max: usize,
    /// GET streams of one session at once.
    pub(super) streams_max: u64,
    /// How long an unused session is kept.
    pub(super) idle: Duration,
}

/// The sessions of one route.
#[derive(Debug)]
pub(super) struct Sessions {
    table: Mutex<SessionTable>,
    limits: SessionLimits,
}

#[derive(Debug, Default)]
struct SessionTable {
    /// By the id that clients know.
    sessions: SessionRegistry<SessionEntry>,
    /// The servers' ids of all sessions, to refuse an id that is in use.
    server_id: HashSet<Box<str>>,
}

#[derive(Debug)]
struct SessionEntry {
    legacy: Arc<LegacySession>,
    /// When it was last used, as uptime.
    used: Duration,
    /// It was used after its beginning.
    found: bool,
    /// The memory of the session while nothing is in flight in it.
    _charge: Charge,
}

impl Sessions {
    pub(super) fn new(limits: SessionLimits) -> Self {
        Self { table: Mutex::default(), limits }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, SessionTable> {
        // No panic can leave the table half updated, so a poisoned lock is safe.
        lock(&self.table)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.table().sessions.len()
    }

    /// The session that `principal` knows as `public_id`; marks it as used.
    pub(super) fn find(
        &self,
        public_id: &str,
        principal: &Principal,
        now: Duration,
    ) -> Option<Arc<LegacySession>> {
        let mut table = self.table();
        let entry = table.sessions.get_mut(public_id, principal)?;
        (entry.used, entry.found) = (now, true);
        Some(Arc::clone(&entry.legacy))
    }

    /// Makes room for one more session of `principal` if the table is full, or if `memory` has no
    /// room for it. Gives the sessions that gave way.
    ///
    /// # Errors
    ///
    /// None may give way; the limit that is reached.
    pub(super) fn make_room(
        &self,
        principal: &Principal,
        memory: &Arc<MemoryBudget>,
    ) -> Result<Vec<Arc<SessionHandle>>, &'static str> {
        let mut table = self.table();
        let SessionTable { sessions, server_id } = &mut *table;
        let mut ended = Vec::new();
        if sessions.len() >= self.limits.max {
            let oldest = oldest(sessions, self.limits.max, principal).ok_or(SESSIONS_FULL)?;
            ended.extend(sessions.forget(&oldest).map(|entry| entry.end(server_id)));
        }
        // The memory of others is no use: it counts by principal.
        while memory.charge(&principal.id, SESSION_BYTES).is_err() {
            let Some(oldest) = oldest_of(sessions, &principal.id, false) else {
                return Err(MEMORY_SPENT);
            };
            ended.extend(sessions.forget(&oldest).map(|entry| entry.end(server_id)));
        }
        Ok(ended)
    }

    /// Registers `session`, whose id at the server is `server_id`, under a new id of ours. `None`
    /// if `server_id` is not 1 to 512 characters of visible ASCII (2025-11-25, "Session
    /// Management") or another session has it, if the table is full, if there is no memory, or if
    /// the system gives no randomness.
    pub(super) fn begin(
        &self,
        server_id: &str,
        session: &Arc<SessionHandle>,
        principal: &Arc<Principal>,
        now: Duration,
    ) -> Option<Arc<LegacySession>> {
        let visible = server_id.bytes().all(|byte| byte.is_ascii_graphic());
        if server_id.is_empty() || server_id.len() > ID_MAX || !visible {
            return None;
        }
        let legacy = Arc::new(LegacySession {
            session: Arc::clone(session),
            public_id: mint()?,
            server_id: server_id.into(),
            streams: Budget::new(self.limits.streams_max),
            ended: session.closed().child_token(),
            resuming: Arc::default(),
            left: Mutex::default(),
        });
        let mut table = self.table();
        if table.sessions.len() >= self.limits.max || !table.server_id.insert(server_id.into()) {
            return None;
        }
        let charge = session.memory().charge(&principal.id, SESSION_BYTES);
        let Ok(charge) = charge else {
            table.server_id.remove(server_id);
            return None;
        };
        let entry =
            SessionEntry { legacy: Arc::clone(&legacy), used: now, found: false, _charge: charge };
        table.sessions.begin(legacy.public_id.clone(), Arc::clone(principal), entry);
        Some(legacy)
    }

    /// Removes a session and ends its streams.
    pub(super) fn remove(&self, public_id: &str) -> Option<Arc<SessionHandle>> {
        let mut table = self.table();
        let entry = table.sessions.forget(public_id)?;
        Some(entry.end(&mut table.server_id))
    }

    /// Removes sessions that are idle and held by no exchange, and those that a panic closed.
    pub(super) fn expire(&self, now: Duration) -> Vec<Arc<SessionHandle>> {
        let mut table = self.table();
        let SessionTable { sessions, server_id } = &mut *table;
        let old = |entry: &SessionEntry| {
            let session = &entry.legacy.session;
            let unused = Arc::strong_count(session) == 1
                && now.saturating_sub(entry.used) >= self.limits.idle;
            unused || session.is_closed()
        };
        sessions.forget_if(old).into_iter().map(|entry| entry.end(server_id)).collect()
    }

    /// Takes the calls whose clients have not resumed their stream for `timeout`, with their
    /// sessions.
    pub(super) fn take_abandoned(
        &self,
        now: Duration,
        timeout: Duration,
    ) -> Vec<(Arc<SessionHandle>, CallId)> {
        let table = self.table();
        let of = |legacy: &Arc<LegacySession>| {
            let session = Arc::clone(&legacy.session);
            let calls = legacy.take_abandoned(now, timeout);
            calls.into_iter().map(move |call| (Arc::clone(&session), call))
        };
        table.sessions.iter().flat_map(|entry| of(&entry.legacy)).collect()
    }

    /// Removes all sessions.
    pub(super) fn clear(&self) -> Vec<Arc<SessionHandle>> {
        let mut table = self.table();
        let SessionTable { sessions, server_id } = &mut *table;
        sessions.forget_if(|_| true).into_iter().map(|entry| entry.end(server_id)).collect()
    }
}

/// The id of the session that gives way to a new one of `principal`, in a table of `max`.
fn oldest(
    sessions: &SessionRegistry<SessionEntry>,
    max: usize,
    principal: &Principal,
) -> Option<Box<str>> {
    let mut counts: HashMap<&str, usize> = HashMap::from([(&*principal.id, 0)]);
    for (_, owner, _) in sessions.entries() {
        let count = counts.entry(&owner.id).or_default();
        *count = count.saturating_add(1);
    }
    let part = max.checked_div(counts.len()).unwrap_or(max).max(1);
    let mine = counts.get(&*principal.id).copied().unwrap_or_default();
    let largest = counts.iter().max_by_key(|(_, count)| **count);
    let (owner, of_another) = match largest {
        // Who has its part already gets no more from others.
        Some((owner, count)) if mine < part && *count > part => (*owner, **owner != *principal.id),
        _ => (&*principal.id, false),
    };
    // A session with an exchange ends only for another principal that has less than its part.
    oldest_of(sessions, owner, of_another)
}

/// The id of the session of `owner` that gives way first; `held`: also one with an exchange.
fn oldest_of(
    sessions: &SessionRegistry<SessionEntry>,
    owner: &str,
    held: bool,
) -> Option<Box<str>> {
    let is_held = |entry: &SessionEntry| Arc::strong_count(&entry.legacy.session) > 1;
    let order = |entry: &SessionEntry| (is_held(entry), entry.found, entry.used);
    let candidates = sessions.entries().filter(|(_, of, _)| *of.id == *owner);
    let (id, _, entry) = candidates.min_by_key(|(_, _, entry)| order(entry))?;
    (held || !is_held(entry)).then(|| id.into())
}

impl SessionEntry {
    fn end(self, server_id: &mut HashSet<Box<str>>) -> Arc<SessionHandle> {
        server_id.remove(&self.legacy.server_id);
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
        assert!(one.public_id.len() == 32 && *one.public_id != *one.server_id);
        assert!(sessions.begin("one", &session(), &other, at(0)).is_none(), "taken");
        assert!(sessions.begin("a b", &session(), &mine, at(0)).is_none(), "no visible ASCII");
        assert!(sessions.begin("", &session(), &mine, at(0)).is_none());
        assert!(sessions.find(&one.public_id, &other, at(0)).is_none());
        assert!(sessions.find("one", &mine, at(0)).is_none(), "the server's own name");
        assert!(sessions.find(&one.public_id.to_uppercase(), &mine, at(0)).is_none());
        let two = sessions.begin("two", &session(), &mine, at(0)).unwrap();
        assert_eq!(sessions.expire(at(30)).len(), 0);
        assert!(sessions.begin("three", &session(), &mine, at(0)).is_none(), "full");
        let held = Arc::clone(&sessions.find(&one.public_id, &mine, at(30)).unwrap().session);
        assert_eq!(sessions.expire(at(90)).len(), 1, "only the one that nobody holds");
        assert!(two.ended.is_cancelled() && !one.ended.is_cancelled());
        drop(held);
        assert_eq!(sessions.expire(at(89)).len(), 0);
        assert_eq!(sessions.expire(at(90)).len(), 1);
        assert!(sessions.remove(&one.public_id).is_none());
        assert!(sessions.clear().is_empty());
        assert!(sessions.begin("one", &session(), &other, at(0)).is_some(), "free again");
    }

    #[test]
    fn sessions_give_way_by_principal() {
        let at = Duration::from_secs;
        let sessions = Sessions::new(SessionLimits { max: 4, streams_max: 1, idle: at(60) });
        let (mine, other, third) = (principal("a"), principal("b"), principal("c"));
        let begin = |server_id: &str, who: &Arc<Principal>, now| {
            let ended = sessions.make_room(who, &MemoryBudget::new(1 << 20)).ok()?.len();
            Some((sessions.begin(server_id, &session(), who, at(now)).unwrap(), ended))
        };
        let ours: Vec<_> = (0..4).map(|i| begin(&format!("a{i}"), &mine, i).unwrap().0).collect();
        sessions.find(&ours[0].public_id, &mine, at(5)).unwrap();
        sessions.find(&ours[1].public_id, &mine, at(4)).unwrap();
        let ended = |of: &[Arc<LegacySession>]| -> Vec<bool> {
            of.iter().map(|one| one.ended.is_cancelled()).collect()
        };
        // One that was never used gives way first, of the principal itself.
        assert_eq!(begin("a4", &mine, 6).unwrap().1, 1);
        assert_eq!(ended(&ours), [false, false, true, false]);
        // Another principal takes from the one that has more than half.
        let (first, _) = begin("b0", &other, 7).unwrap();
        assert_eq!(ended(&ours), [false, false, true, true]);
        begin("b1", &other, 8).unwrap();
        // Now both have half, and each takes from itself.
        begin("b2", &other, 9).unwrap();
        assert!(first.ended.is_cancelled());
        assert_eq!(ended(&ours), [false, false, true, true]);
        // A session with an exchange does not end for its own principal, but for another.
        let held: Vec<_> = ours.iter().map(|one| Arc::clone(&one.session)).collect();
        assert!(begin("a5", &mine, 10).is_none(), "both are in use");
        begin("c0", &third, 11).unwrap();
        assert_eq!(sessions.table().sessions.count_of("c"), 1);
        assert_eq!(sessions.table().sessions.len(), 4);
        drop(held);
    }

    #[test]
    fn an_answer_is_not_waited_for_forever() {
        let at = Duration::from_secs;
        let sessions = Sessions::new(SessionLimits { max: 2, streams_max: 1, idle: at(3600) });
        let one = sessions.begin("one", &session(), &principal("a"), at(0)).unwrap();
        one.await_resume(&"call".into(), at(0));
        one.resumed(at(10));
        assert!(sessions.take_abandoned(at(60), at(60)).is_empty(), "it came back");
        let coming = Arc::clone(&one.resuming);
        assert!(sessions.take_abandoned(at(80), at(60)).is_empty(), "it is here");
        drop(coming);
        assert!(sessions.take_abandoned(at(139), at(60)).is_empty());
        assert_eq!(sessions.take_abandoned(at(140), at(60)).len(), 1);
        assert!(sessions.take_abandoned(at(500), at(60)).is_empty(), "told once");
    }
}
