//! Handles and session facts: what successful calls mean for later calls.
//!
//! Some vendors name an operation once and let later calls refer to it by an opaque handle; some
//! tools select what later calls act on, such as a project. Both mirror state that the server
//! holds, and the pack says for whom it holds it ([`Scope`]): a [`ScopeState`] belongs to one
//! session of the server, to one principal, or to the server as a whole. The store is updated only
//! by a call that succeeded, whose answer was recorded and delivered. Number, size and lifetime of
//! entries are bounded, and each is charged to its principal; what is not kept is unknown, which
//! policies treat as the worst, never as harmless.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::operation::{FactChange, HandleLookup, HandleTarget, OnSuccess};
use super::pack::{Effect, HandleFormat, Scope};
use crate::memory::{Charge, ENTRY_BYTES, MemoryBudget};
use crate::wire::document::{Document, DocumentLimits, Kind, Value};
use bartizan_sync::lock;

/// Session facts by name, with the values that the last successful calls set.
pub type Facts = BTreeMap<Box<str>, Box<str>>;

/// The handles and session facts of one server that outlive a session. Shared by its sessions.
#[derive(Debug, Default)]
pub struct HandleStore {
    principals: HashMap<Box<str>, ScopeState>,
    /// Facts with [`Scope::Server`]: what any principal selected last.
    everyone: ScopeState,
    /// Counts uses, to find the least recently used principal.
    uses: u64,
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
}

#[derive(Debug)]
struct SessionFact {
    /// Absent until the call that sets it has succeeded.
    value: Option<Box<str>>,
    /// The number of the last call that sets it.
    sent: u64,
    /// The uptime at which it expires.
    expires: Duration,
    scope: Scope,
    charge: Charge,
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

    /// Called when a call of a principal that sets facts is forwarded. The facts that outlive a
    /// session are unknown until it succeeds, and calls that were forwarded before it no longer set
    /// them.
    pub fn call_sent(&mut self, on_success: &mut OnSuccess, keeping: Keeping<'_>) {
        // A fact of the server is kept twice: what this principal selected last, and what anybody
        // did. It is known where both agree.
        for fact in on_success.facts.iter_mut().filter(|fact| fact.scope != Scope::Session) {
            let sent = if fact.scope == Scope::Server {
                let sent = self.everyone.next_send();
                self.everyone.fact_sent(fact, sent, keeping);
                sent
            } else {
                self.state_mut(keeping.principal).next_send()
            };
            self.state_mut(keeping.principal).fact_sent(fact, sent, keeping);
        }
    }

    /// Applies what an answer to a principal changes, as far as it outlives a session.
    pub fn apply(&mut self, update: &StoreUpdate, keeping: Keeping<'_>) {
        self.everyone.apply_facts(update, Scope::Server, keeping);
        let state = self.state_mut(keeping.principal);
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

    /// The state of `principal`, created if it is new; evicts another principal if the store is
    /// full.
    fn state_mut(&mut self, principal: &str) -> &mut ScopeState {
        if !self.principals.contains_key(principal) && self.principals.len() >= Self::PRINCIPALS_MAX
        {
            self.evict_principal();
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

    fn evict_principal(&mut self) {
        let oldest = self.principals.iter().min_by_key(|(_, it)| it.last_use);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.principals.remove(&name);
        }
    }
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
        let sent = self.next_send();
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

    /// Adds the session facts that have a value and have not expired to `facts`.
    pub fn add_facts(&self, facts: &mut Facts, now: Duration) {
        facts.extend(self.known(now).map(|(name, value, _)| (name.into(), value.into())));
    }

    /// Counts how often the server's session has begun anew.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Forgets everything: the server's session has begun anew. Answers to earlier calls teach
    /// nothing any more.
    pub fn begin_anew(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.handles.clear();
        self.facts.clear();
    }

    fn next_send(&mut self) -> u64 {
        self.sends = self.sends.wrapping_add(1);
        self.sends
    }

    /// The fact is unknown until `to_set` is applied. Where it cannot be kept, it is unknown for
    /// good.
    fn fact_sent(&mut self, to_set: &mut FactChange, sent: u64, keeping: Keeping<'_>) {
        to_set.sent = sent;
        self.facts.retain(|_, fact| fact.expires > keeping.now);
        let bytes = ENTRY_BYTES.saturating_add(StoreUpdate::TEXT_BYTES_MAX);
        let charge = match self.facts.remove(&to_set.name) {
            Some(known) => Some(known.charge),
            None if self.facts.len() >= HandleStore::FACTS_MAX => None,
            None => keeping.memory.charge(keeping.principal, bytes).ok(),
        };
        let Some(charge) = charge else { return };
        let expires = keeping.now.saturating_add(HandleStore::FACT_TTL);
        let fact = SessionFact { value: None, sent, expires, scope: to_set.scope, charge };
        self.facts.insert(to_set.name.clone(), fact);
    }

    fn apply_facts(&mut self, update: &StoreUpdate, scope: Scope, keeping: Keeping<'_>) {
        for change in update.facts.iter().filter(|change| change.scope == scope) {
            if let Some(fact) = self.facts.get_mut(&change.name)
                && fact.sent == change.sent
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
        let known = self.facts.iter().filter(move |(_, fact)| fact.expires > now);
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
