//! Handles and session facts: what successful calls mean for later calls.
//!
//! Some vendors name an operation once and let later calls refer to it by an opaque handle; some
//! tools select what later calls act on, such as a project. Both mirror state that the server
//! holds, and the pack says for whom it holds it ([`Scope`]): a [`ScopeState`] belongs to one
//! session of the server, to one principal, or to the server as a whole. The store is updated only
//! by a call that succeeded, whose answer was recorded and delivered. A server may carry out two
//! calls in any order as long as it has answered neither, so a fact is known only by a selection
//! that overlapped with no other (threat H8). Number, size and lifetime of entries are bounded, and
//! each is charged to its principal; what is not kept is unknown, which policies treat as the worst,
//! never as harmless.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::operation::{FactChange, HandleLookup, HandleTarget, OnSuccess};
use super::pack::{Effect, HandleFormat, Scope};
use super::readers::{FactReader, FactReaders};
use crate::memory::{Charge, ENTRY_BYTES, MemoryBudget};
use crate::wire::document::{Document, DocumentLimits, Kind, Value};
use bartizan_sync::lock;

/// Session facts by name, with the values that the server holds for all that is known.
pub type Facts = BTreeMap<Box<str>, Box<str>>;

/// The handles and session facts of one server that outlive a session. Shared by its sessions.
#[derive(Debug, Default)]
pub struct HandleStore {
    principals: HashMap<Box<str>, ScopeState>,
    /// Facts with [`Scope::Server`]: what any principal selected last.
    everyone: ScopeState,
    /// The calls that were judged by facts which outlive a session.
    readers: FactReaders,
    /// Counts uses, to find the least recently used principal.
    uses: u64,
    /// Counts the calls that set facts, of all principals, to order them.
    sends: u64,
    /// The uptime until which nothing is known, because a principal was evicted whose selections
    /// the server might still carry out.
    unknown_until: Duration,
}

/// The handles and session facts of one session, of one principal, or of a server as a whole.
#[derive(Debug, Default)]
pub struct ScopeState {
    /// By the SHA-256 of the handle, because a handle works like a credential and can be long.
    handles: HashMap<[u8; 32], IssuedHandle>,
    facts: BTreeMap<Box<str>, SessionFact>,
    /// Counts the calls that set facts, to order them.
    sends: u64,
    /// See [`ScopeState::epoch`].
    epoch: u64,
    last_use: u64,
    /// The calls that were judged by facts of the session.
    readers: FactReaders,
    /// The uptime until which no fact is known, because a selection found no room.
    unknown_until: Duration,
}

#[derive(Debug)]
struct SessionFact {
    /// Absent until the call that sets it has succeeded, and if that call overlapped with another.
    value: Option<Box<str>>,
    /// The number of the last call that sets it.
    sent: u64,
    /// The highest number of a call that overlapped with another: none up to it sets the fact.
    overlapped: u64,
    /// The calls that set it and have no answer yet, at most [`HandleStore::OPEN_MAX`].
    open: Vec<OpenSelection>,
    /// The uptime at which it expires.
    expires: Duration,
    scope: Scope,
    _charge: Charge,
}

/// A call that sets a fact, and that the server may still carry out.
#[derive(Debug, Clone, Copy)]
struct OpenSelection {
    /// Its number.
    sent: u64,
    /// The uptime from which on it counts as never carried out; absent while it is in flight.
    until: Option<Duration>,
}

#[derive(Debug)]
struct IssuedHandle {
    /// Absent where the server issued the same handle for two operations.
    target: Option<HandleTarget>,
    /// The uptime at which it expires.
    expires: Duration,
    charge: Charge,
}

/// What one answer changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StoreUpdate {
    handles: Vec<([u8; 32], HandleTarget)>,
    ttl: Duration,
    /// Where the handles belong.
    scope: Scope,
    facts: Vec<FactChange>,
    /// The epoch of the session in which the call was forwarded.
    epoch: u64,
}

/// Who is charged for what is kept, and when it is kept.
#[derive(Debug, Clone, Copy)]
pub struct Keeping<'a> {
    /// The memory of the gate.
    pub memory: &'a Arc<MemoryBudget>,
    /// The id of the principal.
    pub principal: &'a str,
    /// The current uptime.
    pub now: Duration,
}

impl HandleStore {
    /// Principals at most; the least recently used is evicted first.
    pub const PRINCIPALS_MAX: usize = 256;
    /// Handles of one principal at most; the one that expires first is evicted first.
    pub const HANDLES_MAX: usize = 512;
    /// Session facts of one principal at most; further ones are not stored.
    pub const FACTS_MAX: usize = 64;
    /// The longest lifetime of a handle, whatever the pack says.
    pub const HANDLE_TTL_MAX: Duration = Duration::from_hours(24);
    /// The lifetime of a session fact.
    pub const FACT_TTL: Duration = Duration::from_hours(24);
    /// For how long a server may still carry out a selection after the wait for its answer has
    /// ended without one.
    pub const LATE_MAX: Duration = Duration::from_hours(1);
    /// Calls without an answer that set one fact; with more of them the fact is unknown for good.
    pub const OPEN_MAX: usize = 64;

    /// Called when a call of a principal that sets facts is forwarded. The facts that outlive a
    /// session are unknown until it succeeds. Calls that have no answer yet no longer set them, and
    /// with such a call neither does this one.
    pub fn call_sent(&mut self, on_success: &mut OnSuccess, keeping: Keeping<'_>) {
        self.sends = self.sends.wrapping_add(1);
        let sent = self.sends;
        // A fact of the server is kept twice: what this principal selected last, and what anybody
        // did. It is known where both agree.
        for fact in on_success.facts.iter_mut().filter(|fact| fact.scope != Scope::Session) {
            if fact.scope == Scope::Server {
                self.everyone.fact_sent(fact, sent, keeping);
            }
            self.state_mut(keeping.principal, keeping.now).fact_sent(fact, sent, keeping);
        }
    }

    /// The wait for the answer to a call of `principal` is over: see [`CallEnd`].
    pub fn call_ended(&mut self, on_success: &OnSuccess, principal: &str, end: CallEnd) {
        self.everyone.facts_ended(on_success, Scope::Server, end);
        if let Some(state) = self.existing(principal) {
            state.facts_ended(on_success, Scope::Server, end);
            state.facts_ended(on_success, Scope::Principal, end);
        }
    }

    /// Applies what an answer to a principal changes, as far as it outlives a session.
    pub fn apply(&mut self, update: &StoreUpdate, keeping: Keeping<'_>) {
        self.everyone.apply_facts(update, Scope::Server, keeping);
        let state = self.state_mut(keeping.principal, keeping.now);
        state.apply_facts(update, Scope::Server, keeping);
        state.apply_facts(update, Scope::Principal, keeping);
        state.apply_handles(update, Scope::Principal, keeping);
    }

    /// Returns what `handle` stands for, if it was issued to `principal` and has not expired.
    fn resolve(&mut self, principal: &str, handle: &[u8; 32], now: Duration) -> Resolved {
        self.existing(principal).map_or(Resolved::Unissued, |state| state.resolve(handle, now))
    }

    /// Returns the session facts of `principal` that outlive a session, have a value and have not
    /// expired. One that mirrors state of the whole server is known only where this principal
    /// selected it and nobody has selected another value since.
    pub fn facts(&mut self, principal: &str, now: Duration) -> Facts {
        if now < self.unknown_until {
            return Facts::new();
        }
        let everyone = self.everyone.known(now);
        let everyone: Facts =
            everyone.map(|(name, value, _)| (name.into(), value.into())).collect();
        let Some(state) = self.existing(principal) else { return Facts::new() };
        let agreed = |name: &str, value: &str, scope| {
            scope != Scope::Server || everyone.get(name).is_some_and(|latest| **latest == *value)
        };
        let known = state.known(now).filter(|(name, value, scope)| agreed(name, value, *scope));
        known.map(|(name, value, _)| (name.into(), value.into())).collect()
    }

    /// A call is about to be judged by what [`facts`](Self::facts) returned.
    pub fn note_reader(&mut self, reader: &FactReader, now: Duration) {
        self.readers.add(reader, now);
    }

    /// Whether the server may still carry out a call other than `own` that was judged by a fact
    /// which a call of `principal` would set, as far as the fact outlives a session.
    pub fn has_reader(
        &mut self,
        on_success: &OnSuccess,
        own: Option<&FactReader>,
        (principal, now): (&str, Duration),
    ) -> bool {
        on_success.facts.iter().any(|fact| {
            let whose = match fact.scope {
                Scope::Session => return false,
                Scope::Principal => Some(principal),
                Scope::Server => None,
            };
            self.readers.any((false, &fact.name), whose, own, now)
        })
    }

    /// The state of `principal`, created if it is new; evicts another principal if the store is
    /// full.
    fn state_mut(&mut self, principal: &str, now: Duration) -> &mut ScopeState {
        if !self.principals.contains_key(principal) && self.principals.len() >= Self::PRINCIPALS_MAX
        {
            self.evict_principal(now);
        }
        self.uses = self.uses.wrapping_add(1);
        let state = self.principals.entry(principal.into()).or_default();
        state.last_use = self.uses;
        state
    }

    fn existing(&mut self, principal: &str) -> Option<&mut ScopeState> {
        let state = self.principals.get_mut(principal)?;
        self.uses = self.uses.wrapping_add(1);
        state.last_use = self.uses;
        Some(state)
    }

    fn evict_principal(&mut self, now: Duration) {
        let oldest = self.principals.iter().min_by_key(|(_, it)| (it.is_open(now), it.last_use));
        if let Some(name) = oldest.map(|(name, _)| name.clone())
            && self.principals.remove(&name).is_some_and(|evicted| evicted.is_open(now))
        {
            self.unknown_until = now.saturating_add(Self::FACT_TTL);
        }
    }
}

/// How the wait for the answer to a call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// The server has answered, or never got the call: it carries out nothing of it any more.
    Answered,
    /// Without an answer, at this uptime: the server may carry it out later.
    Unanswered(Duration),
}

/// What a state knows of a handle.
enum Resolved {
    /// It was not issued here, or has expired.
    Unissued,
    /// It was issued for two operations.
    Disputed,
    To(HandleTarget),
}

impl ScopeState {
    /// Called when a call is forwarded that changes something if it succeeds. Its facts of
    /// [`Scope::Session`] are unknown until then; where the server holds no state for this session
    /// (`holds`), they stay so, and its handles of that scope are not kept.
    pub fn call_sent(&mut self, on_success: &mut OnSuccess, holds: bool, keeping: Keeping<'_>) {
        self.sends = self.sends.wrapping_add(1);
        let sent = self.sends;
        on_success.epoch = self.epoch;
        on_success.handle_format.take_if(|it| it.scope == Scope::Session && !holds);
        for fact in on_success.facts.iter_mut().filter(|fact| fact.scope == Scope::Session) {
            self.fact_sent(fact, sent, keeping);
            if !holds {
                fact.value = None;
            }
        }
    }

    /// Applies what an answer changes in the session.
    pub fn apply(&mut self, update: &StoreUpdate, keeping: Keeping<'_>) {
        if update.epoch != self.epoch {
            return;
        }
        self.apply_facts(update, Scope::Session, keeping);
        self.apply_handles(update, Scope::Session, keeping);
    }

    /// The wait for the answer to a call of the session is over: see [`CallEnd`].
    pub fn call_ended(&mut self, on_success: &OnSuccess, end: CallEnd) {
        self.facts_ended(on_success, Scope::Session, end);
    }

    /// Adds the session facts that have a value and have not expired to `facts`.
    pub fn add_facts(&self, facts: &mut Facts, now: Duration) {
        facts.extend(self.known(now).map(|(name, value, _)| (name.into(), value.into())));
    }

    /// A call is about to be judged by what [`add_facts`](Self::add_facts) added.
    pub fn note_reader(&mut self, reader: &FactReader, now: Duration) {
        self.readers.add(reader, now);
    }

    /// Whether the server may still carry out a call other than `own` that was judged by a fact
    /// of the session which another call would set.
    pub fn has_reader(
        &mut self,
        on_success: &OnSuccess,
        own: Option<&FactReader>,
        now: Duration,
    ) -> bool {
        let mut set = on_success.facts.iter().filter(|fact| fact.scope == Scope::Session);
        set.any(|fact| self.readers.any((true, &fact.name), None, own, now))
    }

    /// Counts how often the server's session has begun anew.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Forgets everything: the server's session has begun anew. Answers to earlier calls teach
    /// nothing any more. In the same process (`same_process`) the calls that it has not answered
    /// may still set facts.
    pub fn begin_anew(&mut self, same_process: bool) {
        self.epoch = self.epoch.wrapping_add(1);
        self.handles.clear();
        if same_process {
            self.facts.values_mut().for_each(|fact| fact.value = None);
        } else {
            self.facts.clear();
            self.readers.clear();
            self.unknown_until = Duration::ZERO;
        }
    }

    /// Whether the server may still carry out a call that sets a fact.
    fn is_open(&self, now: Duration) -> bool {
        let open = |fact: &SessionFact| fact.expires > now && fact.is_open(now);
        now < self.unknown_until || self.facts.values().any(open)
    }

    /// The fact is unknown until `to_set` is applied. Where it cannot be kept, no fact is known for
    /// as long as one is kept.
    fn fact_sent(&mut self, to_set: &mut FactChange, sent: u64, keeping: Keeping<'_>) {
        to_set.sent = sent;
        self.facts.retain(|_, fact| fact.expires > keeping.now);
        let expires = keeping.now.saturating_add(HandleStore::FACT_TTL);
        if let Some(known) = self.facts.get_mut(&to_set.name) {
            known.send(sent, keeping.now);
            (known.expires, known.scope) = (expires, to_set.scope);
            return;
        }
        let bytes = ENTRY_BYTES
            .saturating_add(StoreUpdate::TEXT_BYTES_MAX)
            .saturating_add(HandleStore::OPEN_MAX.saturating_mul(size_of::<OpenSelection>()));
        let room = self.facts.len() < HandleStore::FACTS_MAX;
        let charge = room.then(|| keeping.memory.charge(keeping.principal, bytes).ok()).flatten();
        let Some(charge) = charge else {
            self.unknown_until = expires;
            return;
        };
        let mut fact = SessionFact {
            value: None,
            sent,
            overlapped: 0,
            open: Vec::new(),
            expires,
            scope: to_set.scope,
            _charge: charge,
        };
        fact.send(sent, keeping.now);
        self.facts.insert(to_set.name.clone(), fact);
    }

    fn facts_ended(&mut self, on_success: &OnSuccess, scope: Scope, end: CallEnd) {
        for change in on_success.facts.iter().filter(|change| change.scope == scope) {
            let Some(fact) = self.facts.get_mut(&change.name) else { continue };
            match end {
                CallEnd::Answered => fact.open.retain(|it| it.sent != change.sent),
                CallEnd::Unanswered(now) => {
                    let until = Some(now.saturating_add(HandleStore::LATE_MAX));
                    let ended = fact.open.iter_mut().filter(|it| it.sent == change.sent);
                    ended.for_each(|it| it.until = until);
                }
            }
        }
    }

    fn apply_facts(&mut self, update: &StoreUpdate, scope: Scope, keeping: Keeping<'_>) {
        for change in update.facts.iter().filter(|change| change.scope == scope) {
            if let Some(fact) = self.facts.get_mut(&change.name)
                && fact.sent == change.sent
                && fact.overlapped < change.sent
            {
                fact.value.clone_from(&change.value);
                fact.expires = keeping.now.saturating_add(HandleStore::FACT_TTL);
            }
        }
    }

    fn apply_handles(&mut self, update: &StoreUpdate, scope: Scope, keeping: Keeping<'_>) {
        if update.scope != scope {
            return;
        }
        let expires = keeping.now.saturating_add(update.ttl.min(HandleStore::HANDLE_TTL_MAX));
        for (digest, target) in &update.handles {
            self.keep(*digest, target, expires, keeping);
        }
    }

    fn known(&self, now: Duration) -> impl Iterator<Item = (&str, &str, Scope)> {
        let seen = now >= self.unknown_until;
        let known = self.facts.iter().filter(move |(_, fact)| seen && fact.expires > now);
        known.filter_map(|(name, fact)| Some((&**name, fact.value.as_deref()?, fact.scope)))
    }

    fn resolve(&self, handle: &[u8; 32], now: Duration) -> Resolved {
        match self.handles.get(handle).filter(|issued| issued.expires > now) {
            None => Resolved::Unissued,
            Some(issued) => issued.target.clone().map_or(Resolved::Disputed, Resolved::To),
        }
    }

    fn keep(
        &mut self,
        digest: [u8; 32],
        target: &HandleTarget,
        expires: Duration,
        keeping: Keeping<'_>,
    ) {
        if let Some(known) = self.handles.get_mut(&digest) {
            // The same handle for two operations: it is unknown which of them the server runs.
            let disputed = known.expires > keeping.now && known.target.as_ref() != Some(target);
            let bytes = ENTRY_BYTES.saturating_add(target.operation.len());
            known.target =
                Some(target.clone()).filter(|_| !disputed && known.charge.resize(bytes).is_ok());
            known.expires = expires;
            return;
        }
        if self.handles.len() >= HandleStore::HANDLES_MAX {
            self.evict_handles(keeping.now);
        }
        let bytes = ENTRY_BYTES.saturating_add(target.operation.len());
        // Without room the handle is not kept, so it is unknown.
        if let Ok(charge) = keeping.memory.charge(keeping.principal, bytes) {
            let target = Some(target.clone());
            self.handles.insert(digest, IssuedHandle { target, expires, charge });
        }
    }

    fn evict_handles(&mut self, now: Duration) {
        self.handles.retain(|_, issued| issued.expires > now);
        if self.handles.len() >= HandleStore::HANDLES_MAX {
            let soonest = self.handles.iter().min_by_key(|(_, issued)| issued.expires);
            if let Some(digest) = soonest.map(|(digest, _)| *digest) {
                self.handles.remove(&digest);
            }
        }
    }
}

impl SessionFact {
    /// Notes that a call was forwarded that sets this fact.
    fn send(&mut self, sent: u64, now: Duration) {
        self.value = None;
        self.sent = sent;
        self.open.retain(|it| it.until.is_none_or(|until| now < until));
        if !self.open.is_empty() {
            self.overlapped = self.overlapped.max(sent);
        }
        if self.open.len() < HandleStore::OPEN_MAX {
            self.open.push(OpenSelection { sent, until: None });
        } else {
            self.overlapped = u64::MAX;
        }
    }

    /// Whether the server may still carry out a call that sets this fact.
    fn is_open(&self, now: Duration) -> bool {
        self.open.iter().any(|it| it.until.is_none_or(|until| now < until))
    }
}

impl StoreUpdate {
    /// Longest name of an operation and longest value of a fact that are stored, bytes. A handle
    /// with a longer operation name stays unknown, a fact with a longer value becomes unknown.
    pub const TEXT_BYTES_MAX: usize = 256;

    /// Returns what the successful answer `result` changes in the store; `None` if nothing.
    pub fn of_answer(on_success: &OnSuccess, result: Value<'_>) -> Option<Self> {
        let (facts, epoch) = (on_success.facts.clone(), on_success.epoch);
        let mut update = Self { facts, epoch, ..Self::default() };
        for FactChange { value, .. } in &mut update.facts {
            if value.as_ref().is_some_and(|value| value.len() > Self::TEXT_BYTES_MAX) {
                *value = None;
            }
        }
        if let Some(format) = &on_success.handle_format {
            (update.ttl, update.scope) = (format.ttl, format.scope);
            update.handles_in_result(format, result);
        }
        (!update.facts.is_empty() || !update.handles.is_empty()).then_some(update)
    }

    /// Reads `structuredContent` and each text that is a JSON document: servers send one of the two
    /// or both (MCP 2025-06-18, tools, "Structured Content").
    fn handles_in_result(&mut self, format: &HandleFormat, result: Value<'_>) {
        if let Some(structured) = result.get("structuredContent") {
            self.handles_in(format, structured);
        }
        let blocks = result.get("content").filter(|content| content.kind() == Kind::Array);
        for block in blocks.into_iter().flat_map(Value::elements) {
            let Some(text) = block.get("text").and_then(Value::as_str) else { continue };
            let raw = Bytes::copy_from_slice(text.as_bytes());
            if let Ok(document) = Document::read(raw, &DocumentLimits::default()) {
                self.handles_in(format, document.root());
            }
        }
    }

    /// Recursive; the document's own depth limit bounds it.
    fn handles_in(&mut self, format: &HandleFormat, value: Value<'_>) {
        match value.kind() {
            Kind::Array => value.elements().for_each(|element| self.handles_in(format, element)),
            Kind::Object => {
                self.handle_in(format, value);
                value.members().for_each(|(_, member)| self.handles_in(format, member));
            }
            Kind::Null | Kind::Bool | Kind::Number | Kind::String => {}
        }
    }

    fn handle_in(&mut self, format: &HandleFormat, object: Value<'_>) {
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let (Some(handle), Some(name)) = (text(&format.handle), text(&format.operation)) else {
            return;
        };
        if self.handles.len() >= HandleStore::HANDLES_MAX || name.len() > Self::TEXT_BYTES_MAX {
            return;
        }
        let stated = format.effect.as_deref().and_then(|member| object.get(member));
        let effect =
            stated.map(|it| it.as_str().and_then(Effect::of_pack).unwrap_or(Effect::Unknown));
        self.handles.push((digest(handle), HandleTarget { operation: name.into(), effect }));
    }
}

fn digest(handle: &str) -> [u8; 32] {
    Sha256::digest(handle.as_bytes()).into()
}

/// Looks handles up for one session at one time.
#[derive(Debug, Clone, Copy)]
pub struct KnownHandles<'a> {
    /// The store of the server.
    pub store: &'a Mutex<HandleStore>,
    /// What the session itself holds; absent where the server has no session.
    pub session: Option<&'a Mutex<ScopeState>>,
    /// The id of the principal.
    pub principal: &'a str,
    /// The current uptime.
    pub now: Duration,
}

impl HandleLookup for KnownHandles<'_> {
    fn resolve(&self, handle: &str) -> Option<HandleTarget> {
        let digest = digest(handle);
        let session = self
            .session
            .map_or(Resolved::Unissued, |session| lock(session).resolve(&digest, self.now));
        match (session, lock(self.store).resolve(self.principal, &digest, self.now)) {
            (Resolved::To(target), Resolved::Unissued)
            | (Resolved::Unissued, Resolved::To(target)) => Some(target),
            (Resolved::To(target), Resolved::To(other)) => Some(target).filter(|it| *it == other),
            (Resolved::Disputed, _)
            | (_, Resolved::Disputed)
            | (Resolved::Unissued, Resolved::Unissued) => None,
        }
    }
}

/// An update of the store that is applied once the record of the answer is kept.
#[derive(Debug)]
pub struct PendingUpdate {
    /// The store of the server.
    pub store: Arc<Mutex<HandleStore>>,
    /// What the session itself holds.
    pub session: Arc<Mutex<ScopeState>>,
    /// The memory of the gate.
    pub memory: Arc<MemoryBudget>,
    /// The id of the principal that gets the answer.
    pub principal: Box<str>,
    /// The changes.
    pub update: StoreUpdate,
    /// The uptime at which the answer came.
    pub now: Duration,
}

impl PendingUpdate {
    /// Applies the update.
    pub fn apply(self) {
        let Self { store, session, memory, principal, update, now } = self;
        let keeping = Keeping { memory: &memory, principal: &principal, now };
        lock(&session).apply(&update, keeping);
        lock(&store).apply(&update, keeping);
    }
}
