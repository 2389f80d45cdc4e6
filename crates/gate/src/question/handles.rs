//! Handles and session facts: what successful calls mean for later calls of the same principal.
//!
//! Some vendors name an operation once and let later calls refer to it by an opaque handle; some
//! tools select what later calls act on, such as a project. The store is updated only by a call
//! that succeeded, whose answer was recorded and delivered, and only for the principal that made
//! it. Number, size and lifetime of entries are bounded; an evicted handle is an unknown operation,
//! which policies treat as the worst, never as harmless.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::operation::{HandleLookup, HandleTarget, OnSuccess};
use super::pack::{Effect, HandleFormat};
use crate::wire::document::{Document, DocumentLimits, Kind, Value};
use bartizan_sync::lock;

/// Session facts by name, with the values that the principal's last successful calls set.
pub type Facts = BTreeMap<Box<str>, Box<str>>;

/// The handles and session facts of one server, by principal. Shared by the server's sessions.
#[derive(Debug, Default)]
pub struct HandleStore {
    principals: HashMap<Box<str>, PrincipalState>,
    /// Counts uses, to find the least recently used principal and to order calls.
    uses: u64,
}

#[derive(Debug, Default)]
struct PrincipalState {
    /// By the SHA-256 of the handle, because a handle works like a credential and can be long.
    handles: HashMap<[u8; 32], IssuedHandle>,
    facts: BTreeMap<Box<str>, SessionFact>,
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
}

#[derive(Debug)]
struct IssuedHandle {
    /// Absent where the server issued the same handle for two operations.
    target: Option<HandleTarget>,
    /// The uptime at which it expires.
    expires: Duration,
}

/// What one answer changes in the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StoreUpdate {
    handles: Vec<([u8; 32], Option<HandleTarget>)>,
    ttl: Duration,
    /// A fact without a value becomes unknown.
    facts: Vec<(Box<str>, Option<Box<str>>)>,
    sent: u64,
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

    /// Called when a call of `principal` that sets facts is forwarded. The facts are unknown until
    /// it succeeds, and calls that were forwarded before it no longer set them. Returns the number
    /// of the call, for [`OnSuccess::sent`]. `now` is uptime, as in the other methods.
    pub fn call_sent(&mut self, principal: &str, on_success: &OnSuccess, now: Duration) -> u64 {
        self.uses = self.uses.wrapping_add(1);
        let sent = self.uses;
        let state = self.state_mut(principal);
        state.facts.retain(|_, fact| fact.expires > now);
        for (name, _) in &on_success.facts {
            let expires = now.saturating_add(Self::FACT_TTL);
            let full = state.facts.len() >= Self::FACTS_MAX;
            if !full || state.facts.contains_key(name) {
                state.facts.insert(name.clone(), SessionFact { value: None, sent, expires });
            }
        }
        sent
    }

    /// Applies what an answer to `principal` changes.
    pub fn apply(&mut self, principal: &str, update: StoreUpdate, now: Duration) {
        let state = self.state_mut(principal);
        let expires = now.saturating_add(update.ttl.min(Self::HANDLE_TTL_MAX));
        for (digest, target) in update.handles {
            state.keep(digest, IssuedHandle { target, expires }, now);
        }
        for (name, value) in update.facts {
            if let Some(fact) = state.facts.get_mut(&name)
                && fact.sent == update.sent
            {
                fact.value = value;
                fact.expires = now.saturating_add(Self::FACT_TTL);
            }
        }
    }

    /// Returns what `handle` stands for, if it was issued to `principal` and has not expired.
    pub fn resolve(
        &mut self,
        principal: &str,
        handle: &str,
        now: Duration,
    ) -> Option<HandleTarget> {
        let issued = self.existing(principal)?.handles.get(&digest(handle))?;
        issued.target.clone().filter(|_| issued.expires > now)
    }

    /// Returns the session facts of `principal` that have a value and have not expired.
    pub fn facts(&mut self, principal: &str, now: Duration) -> Facts {
        let Some(state) = self.existing(principal) else { return Facts::new() };
        let known = state.facts.iter().filter(|(_, fact)| fact.expires > now);
        known.filter_map(|(name, fact)| Some((name.clone(), fact.value.clone()?))).collect()
    }

    /// The state of `principal`, created if it is new; evicts another principal if the store is
    /// full.
    fn state_mut(&mut self, principal: &str) -> &mut PrincipalState {
        if !self.principals.contains_key(principal) && self.principals.len() >= Self::PRINCIPALS_MAX
        {
            self.evict_principal();
        }
        self.uses = self.uses.wrapping_add(1);
        let state = self.principals.entry(principal.into()).or_default();
        state.last_use = self.uses;
        state
    }

    fn existing(&mut self, principal: &str) -> Option<&mut PrincipalState> {
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

impl PrincipalState {
    fn keep(&mut self, digest: [u8; 32], mut issued: IssuedHandle, now: Duration) {
        match self.handles.get(&digest) {
            // The same handle for two operations: it is unknown which of them the server runs.
            Some(known) if known.expires > now && known.target != issued.target => {
                issued.target = None;
            }
            None if self.handles.len() >= HandleStore::HANDLES_MAX => self.evict_handles(now),
            Some(_) | None => {}
        }
        self.handles.insert(digest, issued);
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
        let mut update =
            Self { facts: on_success.facts.clone(), sent: on_success.sent, ..Self::default() };
        for (_, value) in &mut update.facts {
            if value.as_ref().is_some_and(|value| value.len() > Self::TEXT_BYTES_MAX) {
                *value = None;
            }
        }
        if let Some(format) = &on_success.handle_format {
            update.ttl = format.ttl;
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
        self.handles.push((digest(handle), Some(HandleTarget { operation: name.into(), effect })));
    }
}

fn digest(handle: &str) -> [u8; 32] {
    Sha256::digest(handle.as_bytes()).into()
}

/// Looks handles up for one principal at one time.
#[derive(Debug, Clone, Copy)]
pub struct PrincipalHandles<'a> {
    /// The store of the server.
    pub store: &'a Mutex<HandleStore>,
    /// The id of the principal.
    pub principal: &'a str,
    /// The current uptime.
    pub now: Duration,
}

impl HandleLookup for PrincipalHandles<'_> {
    fn resolve(&self, handle: &str) -> Option<HandleTarget> {
        let mut store = lock(self.store);
        store.resolve(self.principal, handle, self.now)
    }
}

/// An update of the store that is applied once the record of the answer is kept.
#[derive(Debug)]
pub struct PendingUpdate {
    /// The store of the server.
    pub store: Arc<Mutex<HandleStore>>,
    /// The id of the principal that gets the answer.
    pub principal: Box<str>,
    /// The changes.
    pub update: StoreUpdate,
    /// The uptime at which the answer came.
    pub now: Duration,
}

impl PendingUpdate {
    /// Applies the update to its store.
    pub fn apply(self) {
        let mut store = lock(&self.store);
        store.apply(&self.principal, self.update, self.now);
    }
}
