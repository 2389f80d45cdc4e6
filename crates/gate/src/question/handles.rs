//! What answers that passed have taught about later calls: handles and session facts.
//!
//! Some vendors name an operation once and let later calls refer to it by an opaque handle; some
//! tools move what later calls act on. A call that was answered well, whose answer was recorded
//! and went to the client, is remembered here for the principal that made it, and for nobody else.
//! Everything is bounded in number, size and time; what was forgotten is unknown, never harmless.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::operation::{Handed, Handles, Lesson};
use super::pack::{Effect, Mint};
use crate::wire::document::{Document, DocumentLimits, Kind, Value};
use bartizan_sync::lock;

/// Session facts: names, and what the principal's last successful calls set them to.
pub type Facts = BTreeMap<Box<str>, Box<str>>;

/// What is remembered of the answers of one server.
#[derive(Debug, Default)]
pub struct Memory {
    principals: HashMap<Box<str>, Remembered>,
    /// Counts uses, so that the least recent can be told.
    uses: u64,
}

#[derive(Debug, Default)]
struct Remembered {
    /// By the SHA-256 of the handle: a handle is as good as a credential, and can be long.
    handles: HashMap<[u8; 32], Kept>,
    facts: BTreeMap<Box<str>, Fact>,
    last_use: u64,
}

#[derive(Debug)]
struct Fact {
    /// Nothing until the call that sets it has succeeded.
    value: Option<Box<str>>,
    /// The last call that sets it.
    sent: u64,
    /// Uptime from which it is unknown.
    expires: Duration,
}

#[derive(Debug)]
struct Kept {
    /// Nothing where the server gave the handle for two operations.
    handed: Option<Handed>,
    /// Uptime from which it is unknown.
    expires: Duration,
}

/// What one answer teaches.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    handles: Vec<([u8; 32], Option<Handed>)>,
    ttl: Duration,
    /// A fact without a value is no longer known.
    facts: Vec<(Box<str>, Option<Box<str>>)>,
    sent: u64,
}

impl Memory {
    /// Principals remembered at most; the least recently used is forgotten first.
    pub const PRINCIPALS_MAX: usize = 256;
    /// Handles remembered for one principal at most; those that end soonest are forgotten first.
    pub const HANDLES_MAX: usize = 512;
    /// Session facts of one principal at most; further ones are not remembered.
    pub const FACTS_MAX: usize = 64;
    /// How long a handle is remembered at most, whatever the pack says.
    pub const HANDLE_TTL_MAX: Duration = Duration::from_hours(24);
    /// How long a session fact is remembered.
    pub const FACT_TTL: Duration = Duration::from_hours(24);

    /// A call of `principal` goes to the server that may set facts: until it has succeeded nobody
    /// knows them, and nothing that was sent before it sets them any more. Gives the number of
    /// the call, for [`Lesson::sent`].
    pub fn sent(&mut self, principal: &str, lesson: &Lesson, now: Duration) -> u64 {
        self.uses = self.uses.wrapping_add(1);
        let sent = self.uses;
        let remembered = self.remembered(principal);
        remembered.facts.retain(|_, fact| fact.expires > now);
        for (name, _) in &lesson.facts {
            let expires = now.saturating_add(Self::FACT_TTL);
            let full = remembered.facts.len() >= Self::FACTS_MAX;
            if !full || remembered.facts.contains_key(name) {
                remembered.facts.insert(name.clone(), Fact { value: None, sent, expires });
            }
        }
        sent
    }

    /// Remembers what an answer to `principal` taught at `now` (uptime).
    pub fn learn(&mut self, principal: &str, learnt: Learnt, now: Duration) {
        let remembered = self.remembered(principal);
        let expires = now.saturating_add(learnt.ttl.min(Self::HANDLE_TTL_MAX));
        for (digest, handed) in learnt.handles {
            remembered.keep(digest, Kept { handed, expires }, now);
        }
        for (name, value) in learnt.facts {
            if let Some(fact) = remembered.facts.get_mut(&name)
                && fact.sent == learnt.sent
            {
                fact.value = value;
                fact.expires = now.saturating_add(Self::FACT_TTL);
            }
        }
    }

    /// What `principal` was handed `handle` for.
    pub fn handed(&mut self, principal: &str, handle: &str, now: Duration) -> Option<Handed> {
        let kept = self.used(principal)?.handles.get(&digest(handle))?;
        kept.handed.clone().filter(|_| kept.expires > now)
    }

    /// The session facts of `principal`.
    pub fn facts(&mut self, principal: &str, now: Duration) -> Facts {
        let Some(remembered) = self.used(principal) else { return Facts::new() };
        let known = remembered.facts.iter().filter(|(_, fact)| fact.expires > now);
        known.filter_map(|(name, fact)| Some((name.clone(), fact.value.clone()?))).collect()
    }

    /// What is remembered of `principal`, who may be new.
    fn remembered(&mut self, principal: &str) -> &mut Remembered {
        if !self.principals.contains_key(principal) && self.principals.len() >= Self::PRINCIPALS_MAX
        {
            self.forget_one();
        }
        self.uses = self.uses.wrapping_add(1);
        let remembered = self.principals.entry(principal.into()).or_default();
        remembered.last_use = self.uses;
        remembered
    }

    fn used(&mut self, principal: &str) -> Option<&mut Remembered> {
        let remembered = self.principals.get_mut(principal)?;
        self.uses = self.uses.wrapping_add(1);
        remembered.last_use = self.uses;
        Some(remembered)
    }

    fn forget_one(&mut self) {
        let oldest = self.principals.iter().min_by_key(|(_, it)| it.last_use);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.principals.remove(&name);
        }
    }
}

impl Remembered {
    fn keep(&mut self, digest: [u8; 32], mut kept: Kept, now: Duration) {
        match self.handles.get(&digest) {
            // One handle for two operations: nobody can say which of them the server will take.
            Some(known) if known.expires > now && known.handed != kept.handed => kept.handed = None,
            None if self.handles.len() >= Memory::HANDLES_MAX => self.forget_handles(now),
            Some(_) | None => {}
        }
        self.handles.insert(digest, kept);
    }

    fn forget_handles(&mut self, now: Duration) {
        self.handles.retain(|_, kept| kept.expires > now);
        if self.handles.len() >= Memory::HANDLES_MAX {
            let soonest = self.handles.iter().min_by_key(|(_, kept)| kept.expires);
            if let Some(digest) = soonest.map(|(digest, _)| *digest) {
                self.handles.remove(&digest);
            }
        }
    }
}

impl Learnt {
    /// Longest name of an operation and value of a fact that are remembered, bytes; a handle with
    /// a longer name stays unknown, a fact of a longer value becomes unknown.
    pub const TEXT_BYTES_MAX: usize = 256;

    /// What the good answer `result` to a call that teaches `lesson` says, or nothing.
    pub fn of_answer(lesson: &Lesson, result: Value<'_>) -> Option<Self> {
        let mut learnt = Self { facts: lesson.facts.clone(), sent: lesson.sent, ..Self::default() };
        for (_, value) in &mut learnt.facts {
            if value.as_ref().is_some_and(|value| value.len() > Self::TEXT_BYTES_MAX) {
                *value = None;
            }
        }
        if let Some(mint) = &lesson.mint {
            learnt.ttl = mint.ttl;
            learnt.handles_in_result(mint, result);
        }
        (!learnt.facts.is_empty() || !learnt.handles.is_empty()).then_some(learnt)
    }

    /// Reads `structuredContent`, and each text that is JSON as a whole: servers give one of the
    /// two or both (MCP 2025-06-18, tools, "Structured Content").
    fn handles_in_result(&mut self, mint: &Mint, result: Value<'_>) {
        if let Some(structured) = result.get("structuredContent") {
            self.handles_in(mint, structured);
        }
        let blocks = result.get("content").filter(|content| content.kind() == Kind::Array);
        for block in blocks.into_iter().flat_map(Value::elements) {
            let Some(text) = block.get("text").and_then(Value::as_str) else { continue };
            let raw = Bytes::copy_from_slice(text.as_bytes());
            if let Ok(document) = Document::read(raw, &DocumentLimits::default()) {
                self.handles_in(mint, document.root());
            }
        }
    }

    /// Depth is bounded by the document's own limit.
    fn handles_in(&mut self, mint: &Mint, value: Value<'_>) {
        match value.kind() {
            Kind::Array => value.elements().for_each(|element| self.handles_in(mint, element)),
            Kind::Object => {
                self.handle_of(mint, value);
                value.members().for_each(|(_, member)| self.handles_in(mint, member));
            }
            Kind::Null | Kind::Bool | Kind::Number | Kind::String => {}
        }
    }

    fn handle_of(&mut self, mint: &Mint, object: Value<'_>) {
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let (Some(handle), Some(name)) = (text(&mint.handle), text(&mint.operation)) else {
            return;
        };
        if self.handles.len() >= Memory::HANDLES_MAX || name.len() > Self::TEXT_BYTES_MAX {
            return;
        }
        let said = mint.effect.as_deref().and_then(|member| object.get(member));
        let effect =
            said.map(|it| it.as_str().and_then(Effect::of_pack).unwrap_or(Effect::Unknown));
        self.handles.push((digest(handle), Some(Handed { operation: name.into(), effect })));
    }
}

fn digest(handle: &str) -> [u8; 32] {
    Sha256::digest(handle.as_bytes()).into()
}

/// The handles of one principal at one time.
#[derive(Debug, Clone, Copy)]
pub struct OfPrincipal<'a> {
    /// What is remembered of the server.
    pub memory: &'a Mutex<Memory>,
    /// Whose.
    pub principal: &'a str,
    /// When, as uptime.
    pub now: Duration,
}

impl Handles for OfPrincipal<'_> {
    fn handed(&self, handle: &str) -> Option<Handed> {
        let mut memory = lock(self.memory);
        memory.handed(self.principal, handle, self.now)
    }
}

/// What is learnt once the answer that teaches it is recorded.
#[derive(Debug)]
pub struct Teaching {
    /// Where it is remembered.
    pub memory: Arc<Mutex<Memory>>,
    /// Whose it is.
    pub principal: Box<str>,
    /// What it is.
    pub learnt: Learnt,
    /// When, as uptime.
    pub now: Duration,
}

impl Teaching {
    /// Remembers it.
    pub fn take_place(self) {
        let mut memory = lock(&self.memory);
        memory.learn(&self.principal, self.learnt, self.now);
    }
}
