//! Updates the store of handles and session facts from answers of tool calls: only from an answer
//! that is successful and complete, as it is delivered, and once it is recorded.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::evidence::record::{CallId, Now};
use crate::question::access::{Principal, Resource};
use crate::question::handles::{
    CallEnd, Facts, HandleStore, Keeping, KnownHandles, PendingUpdate, ScopeState, StoreUpdate,
};
use crate::question::operation::{HandleLookup, OnSuccess, ResolutionContext};
use crate::question::readers::FactReader;
use crate::wire::document::{Document, Value};
use crate::wire::frame::Frame;
use crate::wire::method::Role;
use crate::wire::protocol::Era;
use bartizan_sync::lock;

use super::answer::kind;
use super::owed::Unanswered;
use super::protected::Protected;
use super::question::Question;
use super::{Gate, InFlightCall, ServerState, Session};

impl Session {
    /// What a call of a tool is classified with.
    pub(super) fn resolution_context<'a>(
        &'a self,
        handles: Option<&'a KnownHandles<'a>>,
    ) -> ResolutionContext<'a> {
        let handles: Option<&dyn HandleLookup> = match handles {
            Some(handles) => Some(handles),
            None => None,
        };
        ResolutionContext { handles, ..self.server.resolution_context() }
    }

    /// Whether the server holds state for this session in `era`. The modern era has no sessions:
    /// over HTTP each request may reach another process, and a process may serve many (MCP
    /// 2026-07-28, changelog, "Sessions").
    fn holds_state(&self, era: Era) -> bool {
        match self.server_state {
            ServerState::Session => era == Era::Legacy,
            ServerState::Process => true,
            ServerState::Nothing => false,
        }
    }

    /// The session facts that earlier calls have set, as far as they hold for a call of this
    /// session now.
    pub(super) fn facts(&self, now: Now) -> Facts {
        let mut facts = self.server.session_facts(&self.principal.id, now.uptime);
        if self.holds_state(self.protocol.era) {
            lock(&self.state).add_facts(&mut facts, now.uptime);
        }
        facts
    }

    /// The session facts by which a message of the client is judged, and the note that it is: while
    /// the note lasts, nothing may select another value of a fact that the policy reads. Both are
    /// taken under the locks of the facts, so that no selection of another session comes between.
    pub(super) fn facts_to_judge_by(
        &self,
        gate: &Gate,
        question: &Question<'_>,
        now: Now,
    ) -> (Facts, Option<FactReader>) {
        let policy = gate.policy();
        let principal = &*self.principal.id;
        let mut state = lock(&self.state);
        let mut store = lock(self.server.handle_store());
        let mut facts = store.facts(principal, now.uptime);
        let mut of_session = Facts::new();
        if self.holds_state(self.protocol.era) {
            state.add_facts(&mut of_session, now.uptime);
        }
        let read = |facts: &Facts| -> Vec<Box<str>> {
            facts.keys().filter(|name| policy.reads_fact(name)).cloned().collect()
        };
        let (here, beyond) = (read(&of_session), read(&facts));
        facts.append(&mut of_session);
        if !is_carried_out(question) || (here.is_empty() && beyond.is_empty()) {
            return (facts, None);
        }
        let reader = FactReader::of(principal, here.iter(), beyond.iter());
        if !here.is_empty() {
            state.note_reader(&reader, now.uptime);
        }
        if !beyond.is_empty() {
            store.note_reader(&reader, now.uptime);
        }
        (facts, Some(reader))
    }

    /// Counts how often the server's session has begun anew.
    pub(super) fn epoch(&self) -> u64 {
        lock(&self.state).epoch()
    }

    /// The server's session begins anew, so nothing is known of its state.
    pub(super) fn begins_anew(&self) {
        lock(&self.state).begin_anew(self.server_state == ServerState::Process);
    }

    /// The wait for the answer to a call is over, so its selection is open no more, or open until
    /// the server can be taken not to carry it out.
    pub(super) fn call_ended(
        &self,
        (on_success, reader): (Option<&OnSuccess>, Option<&FactReader>),
        end: CallEnd,
    ) {
        if let Some(reader) = reader {
            match end {
                CallEnd::Answered => reader.ended(),
                CallEnd::Unanswered(now) => reader.owed(now.saturating_add(FactReader::OWED_FOR)),
            }
        }
        let Some(on_success) = on_success else { return };
        lock(&self.state).call_ended(on_success, end);
        lock(self.server.handle_store()).call_ended(on_success, &self.principal.id, end);
    }

    /// The server was not sent the calls of `exchange`, which were judged already.
    pub(super) fn server_got_nothing_of(&self, exchange: &CallId) {
        let judged = self.calls.values().filter(|entry| entry.exchange == *exchange);
        let judged = judged.map(|entry| entry.on_success.as_deref());
        for on_success in judged.chain(self.owed.selections_of(exchange)) {
            self.call_ended((on_success, None), CallEnd::Answered);
        }
    }

    /// A proxy answers `call` with an error and with an HTTP `status` that does not refuse the call,
    /// so that the server may still carry it out.
    pub(super) fn call_failed(&mut self, call: &CallId, status: u16, now: Now) {
        if Unanswered::by_status(status) == Unanswered::Rejected {
            return;
        }
        let mut open = Vec::new();
        for entry in self.calls.values_mut().filter(|entry| entry.exchange == *call) {
            open.push((entry.on_success.take(), entry.reader.take()));
        }
        for (on_success, reader) in open {
            let end = CallEnd::Unanswered(now.uptime);
            self.call_ended((on_success.as_deref(), reader.as_deref()), end);
        }
    }

    /// The server has answered a call with `frame`. A task is not the end: the server carries it
    /// out at any time, so its selection stays open.
    pub(super) fn call_answered(
        &self,
        (on_success, reader): (Option<&OnSuccess>, Option<&FactReader>),
        frame: &Frame,
        now: Now,
    ) {
        let begins_task =
            |result: Value<'_>| result.get("task").is_some() || kind(result) == "task";
        if !frame.result().is_some_and(begins_task) {
            self.call_ended((on_success, reader), CallEnd::Answered);
        } else if let Some(reader) = reader {
            reader.owed(now.uptime.saturating_add(HandleStore::LATE_MAX));
        }
    }

    /// The handles that were issued to this session or to its principal. `state` is the session's.
    pub(super) fn known_handles<'a>(
        &self,
        (server, principal): (&'a Protected, &'a Principal),
        state: &'a Mutex<ScopeState>,
        now: Now,
    ) -> KnownHandles<'a> {
        let session = self.holds_state(self.protocol.era).then_some(state);
        server.handles(&principal.id, session, now.uptime)
    }

    /// Returns what the call changes if it succeeds. `edited` is the frame with arguments that
    /// rules set, and `own` the note of the facts by which the call itself was judged. The session
    /// facts that it may set are unknown from now on.
    ///
    /// # Errors
    ///
    /// The server may still carry out calls that were judged by a fact which this one sets.
    pub(super) fn on_success(
        &self,
        gate: &Gate,
        question: &Question<'_>,
        (edited, own): (Option<&Frame>, Option<&FactReader>),
        now: Now,
    ) -> Result<Option<Box<OnSuccess>>, FactInUse> {
        let Resource::Tool { name, arguments, .. } = question.resource else { return Ok(None) };
        let handles = self.known_handles((&self.server, &self.principal), &self.state, now);
        let known = self.resolution_context(Some(&handles));
        // Use the arguments that the server receives.
        let sent = match edited {
            Some(frame) => frame.params().and_then(|params| params.get("arguments")),
            None => arguments,
        };
        let Some(mut on_success) = OnSuccess::of_call(known, name, sent) else { return Ok(None) };
        let principal = &*self.principal.id;
        let keeping = Keeping { memory: gate.memory(), principal, now: now.uptime };
        let holds = self.holds_state(question.protocol.era);
        let mut state = lock(&self.state);
        let mut store = lock(self.server.handle_store());
        let whose = (principal, now.uptime);
        let in_use = state.has_reader(&on_success, own, now.uptime)
            || store.has_reader(&on_success, own, whose);
        // While observing, nothing is kept where the policy wants it.
        if in_use && !gate.observes() {
            return Err(FactInUse);
        }
        for fact in on_success.facts.iter().filter(|fact| fact.value.is_some()) {
            if let Some(own) = own {
                own.sets(&fact.name);
            }
        }
        state.call_sent(&mut on_success, holds, keeping);
        store.call_sent(&mut on_success, keeping);
        Ok(Some(Box::new(on_success)))
    }

    /// Returns the update of the store by the answer `frame` to `entry`, as it is delivered:
    /// `edited` where the gate changed it.
    pub(super) fn pending_update(
        &self,
        gate: &Gate,
        entry: &InFlightCall,
        frame: &Frame,
        edited: Option<&Bytes>,
        now: Now,
    ) -> Option<PendingUpdate> {
        let on_success = entry.on_success.as_deref()?;
        let store_update = match edited {
            None => store_update(on_success, frame.result()?, entry.facts.protocol.era),
            Some(body) => {
                let given = Document::read(body.clone(), &gate.config.frame.document).ok()?;
                store_update(on_success, given.root().get("result")?, entry.facts.protocol.era)
            }
        };
        Some(PendingUpdate {
            store: Arc::clone(self.server.handle_store()),
            session: Arc::clone(&self.state),
            memory: Arc::clone(gate.memory()),
            principal: self.principal.id.as_ref().into(),
            update: store_update?,
            now: now.uptime,
        })
    }
}

/// A call would select something while others are in flight that were judged by what is selected.
#[derive(Debug)]
pub(super) struct FactInUse;

/// Whether the server carries out a message in the state that the client has selected: a request,
/// or a message of which nobody knows what it is. A subscription reads nothing, its answer stays
/// open, and a handshake begins another state.
fn is_carried_out(question: &Question<'_>) -> bool {
    match question.method {
        Some(method) if matches!(method.role, Role::Handshake | Role::Listen) => false,
        Some(_) => question.frame.message().id().is_some(),
        None => true,
    }
}

/// Reads the update from a result that is complete and successful. A request for input or a created
/// task is not a complete answer, and the later result of a task is not read.
fn store_update(on_success: &OnSuccess, result: Value<'_>, era: Era) -> Option<StoreUpdate> {
    let failed = result.get("isError").is_some_and(|failed| failed.as_bool() != Some(false));
    let whole = match era {
        Era::Modern => kind(result) == "complete",
        Era::Legacy => result.get("task").is_none(),
    };
    (whole && !failed).then(|| StoreUpdate::of_answer(on_success, result)).flatten()
}
