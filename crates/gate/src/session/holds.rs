//! Requests of the client that wait for a person's approval.
//!
//! A held request is no call in flight: the server has not got it, so no message of the server can
//! concern it. Its id and its progress token are taken all the same, and a cancellation ends it.

use core::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::duty::decision::{Decision, HoldRule, Origin, Reason};
use crate::evidence::record::{AuditRecord, CallId, DecisionFacts, Event, Finding, Now, micros};
use crate::evidence::refusal::{Addressee, Refusal};
use crate::evidence::step::{Act, Step};
use crate::evidence::text::{Code, Text};
use crate::memory::Charge;
use crate::question::access::Resource;
use crate::question::hold::{self, Approval, HOLDS_MAX, Hold, HoldEnd, HoldKey};
use crate::wire::document::{Value, write_string};
use crate::wire::frame::{Frame, Id, Malformed, Sender};

use super::expected::reads_alike;
use super::protected::RefusalForm;
use super::question::{Question, wall_time};
use super::{CallFacts, Gate, Session, id_text};

/// The member of `params` that carries what a server wants to have back.
pub(super) const STATE: &str = "requestState";
/// With what a state begins that is the gate's own.
const STATE_PREFIX: &str = "bartizan-hold.";
/// How long such a state is accepted, milliseconds: a client calls again at once.
const STATE_MS_MAX: u64 = 24 * 3600 * 1000;

/// A request that waits for approval.
#[derive(Debug, Clone)]
pub(super) struct HeldCall {
    pub(super) id: Id,
    pub(super) token: Option<Id>,
    pub(super) started: Duration,
    pub(super) facts: CallFacts,
    /// The decision that holds it.
    pub(super) verdict: DecisionFacts,
    /// The keyed digest of the client's bytes, and their number.
    pub(super) digest: Text<Code>,
    pub(super) bytes: usize,
    /// Whether it calls a tool, so that its client can be answered with a tool's result.
    pub(super) calls_tool: bool,
    /// Whether its client calls again by itself when it is answered with a `requestState`.
    pub(super) resumes: bool,
    /// The `requestState` of the server that it carries.
    pub(super) state: Option<Box<str>>,
    /// The memory of all this, and of the request itself, which the edge keeps.
    pub(super) _charge: Charge,
}

/// Who asks, for the holds of one message.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) session: &'a Session,
    pub(super) call: &'a CallId,
    /// What was granted for this message already.
    pub(super) approvals: &'a [Approval],
}

impl Asker<'_> {
    /// The hold that an obligation demands, for the message as it would be sent.
    pub(super) fn hold(
        &self,
        question: &Question<'_>,
        frame: &Frame,
        rule: &HoldRule,
        decision: &Decision,
    ) -> Hold {
        let (target, definition) = match question.resource {
            Resource::Tool { name, definition, .. } => (Some(name), definition),
            Resource::Prompt { name, .. } => (Some(name), None),
            Resource::Uri(uri) => (Some(uri), None),
            Resource::Task { id, .. } => (Some(id), None),
            Resource::Uris(_) | Resource::Answer { .. } | Resource::Whole => (None, None),
        };
        let operation = &question.operation;
        Hold {
            key: HoldKey([0; 32]),
            call: Arc::clone(self.call),
            principal: self.session.principal.id.clone(),
            server: self.session.server_name().into(),
            method: question.name.into(),
            target: target.map(Into::into),
            effect: operation.effect.as_str().into(),
            tags: operation.tags.clone(),
            environments: operation.environments.clone(),
            facts: question.session_facts.clone().unwrap_or_default(),
            shown: hold::shown(frame.params()),
            definition: definition.map(Into::into),
            revision: (&*decision.revision).into(),
            code: rule.code.clone(),
            message: rule.message.clone(),
            approvers: rule.approvers.clone(),
            quorum: rule.quorum.max(1),
            ttl: rule.ttl.unwrap_or(hold::TTL_DEFAULT),
            client: self.session.client.as_ref().map(|client| client.name.clone()),
            scopes: rule.scopes.clone(),
        }
        .keyed()
    }

    /// Whether `hold` was granted for this message, by the people whom its rule asks now.
    pub(super) fn is_granted(&self, hold: &Hold) -> bool {
        let asked = (&hold.key, &hold.approvers, hold.quorum);
        self.approvals.iter().any(|it| (&it.key, &it.groups, it.quorum) == asked)
    }

    /// Whether one more approval may be asked for.
    pub(super) fn may_ask(&self) -> bool {
        self.approvals.len() < HOLDS_MAX
    }
}

impl Session {
    /// Ends a held request that does not pass. The act is `Deliver`. `None` if it no longer waits.
    pub fn hold_ended(
        &mut self,
        gate: &Gate,
        call: &CallId,
        mut end: HoldEnd,
        now: Now,
    ) -> Option<Step> {
        let held = self.take_held(call)?;
        if let HoldEnd::Pending { hold, state, .. } = &mut end
            && held.resumes
        {
            let until = wall_time(now).unix_ms.saturating_add(STATE_MS_MAX);
            *state = Some(self.seal(gate, &hold.0, until, held.state.as_deref()));
        }
        Some(self.refuse_held(&held, &Refusal::Approval(end), now))
    }

    /// Reads a frame of the client without the `requestState` that [`Session::hold_ended`] wrote,
    /// which is for this gate alone; with the server's own instead, if the held request had one, so
    /// that it is the same request again. Another state is the server's and passes.
    ///
    /// # Errors
    ///
    /// The frame is malformed, or it has a state with our prefix that was not written for this
    /// principal and server, or is older than [`STATE_MS_MAX`].
    pub(super) fn read_frame(
        &self,
        gate: &Gate,
        raw: &Bytes,
        now: Now,
    ) -> Result<Frame, Malformed> {
        let limits = &gate.config.frame;
        let frame = Frame::read(raw.clone(), Sender::Client, limits)?;
        let state = frame.params().and_then(|params| params.get(STATE)).and_then(Value::as_str);
        let Some(state) = state.and_then(|state| state.strip_prefix(STATE_PREFIX)) else {
            return Ok(frame);
        };
        let bad = Malformed::BadParams { member: STATE };
        let mut parts = state.splitn(4, '.');
        let (Some(hold), Some(until), Some(_), inner) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad);
        };
        let until: u64 = until.parse().map_err(|_| bad.clone())?;
        let genuine = self.seal(gate, hold, until, inner);
        // The seal authorizes nothing, so nobody gains by measuring this comparison.
        if genuine.strip_prefix(STATE_PREFIX) != Some(state) || until < wall_time(now).unix_ms {
            return Err(bad);
        }
        let edit = match inner {
            None => (without(&frame).ok_or(bad)?, Vec::new()),
            Some(inner) => {
                let value = frame.params().and_then(|params| params.get(STATE)).ok_or(bad)?;
                let mut text = Vec::new();
                write_string(&mut text, inner);
                (value.span(), text)
            }
        };
        Frame::read(frame.document().splice(&[edit]), Sender::Client, limits)
    }

    /// A state for the client: the hold, until when the state is accepted (milliseconds since the
    /// Unix epoch), a keyed digest that binds all to this principal and server, and the state of the
    /// server that the held request had, if it had one.
    fn seal(&self, gate: &Gate, hold: &str, until: u64, inner: Option<&str>) -> Box<str> {
        let (principal, server) = (&*self.principal.id, self.server_name());
        let lengths = (principal.len(), server.len(), inner.map(str::len));
        let inside = inner.unwrap_or_default();
        let sealed = format!("hold state\0{lengths:?}{principal}{server}{inside}{hold}.{until}");
        let seal = gate.digest(sealed.as_bytes());
        let seal = seal.rsplit(':').next().unwrap_or_default();
        let mut state = format!("{STATE_PREFIX}{hold}.{until}.{seal}");
        if let Some(inner) = inner {
            state.push('.');
            state.push_str(inner);
        }
        state.into()
    }

    /// Refuses a request that is no longer held.
    pub(super) fn refuse_held(&self, held: &HeldCall, refusal: &Refusal, now: Now) -> Step {
        let record = self.held_record(Event::Denial, held, refusal.code(), now);
        let pending = matches!(refusal, Refusal::Approval(HoldEnd::Pending { .. }));
        let as_result = pending || self.server.refusal == RefusalForm::ToolResult;
        let to = Addressee {
            id: Some(&held.id),
            decision_id: &held.facts.call,
            era: held.facts.protocol.era,
            tool_result: held.calls_tool && as_result,
        };
        self.refusal_step(record, refusal, to)
    }

    /// Ends a held request whose client has disconnected or cancelled it. The act is `Drop`.
    pub(super) fn drop_held(&mut self, call: &CallId, now: Now) -> Option<Step> {
        let held = self.take_held(call)?;
        let record = self.held_record(Event::Drop, &held, HoldEnd::Cancelled.code(), now);
        Some(Step::new(record, Act::Drop))
    }

    /// Ends the held request that a cancellation names, if it names one. The server never got the
    /// request, so it gets no cancellation either.
    pub(super) fn cancel_held(&mut self, frame: &Frame, now: Now) -> Option<Step> {
        let id = frame.named_id("requestId")?;
        let call = self.held.iter().find(|held| held.id == id)?.facts.call.clone();
        Some(self.drop_held(&call, now)?.noting("cancelled by the client"))
    }

    /// Whether the request of `call` waits for approval.
    pub fn is_held(&self, call: &CallId) -> bool {
        self.held.iter().any(|held| held.facts.call == *call)
    }

    /// Whether a held request has this id, or one that reads alike.
    pub(super) fn holds_id(&self, id: &Id) -> bool {
        self.held.iter().any(|held| reads_alike(&held.id, id))
    }

    /// Whether a held request has this progress token, or one that reads alike.
    pub(super) fn holds_token(&self, token: &Id) -> bool {
        self.held.iter().filter_map(|held| held.token.as_ref()).any(|it| reads_alike(it, token))
    }

    pub(super) fn take_held(&mut self, call: &CallId) -> Option<HeldCall> {
        let at = self.held.iter().position(|held| held.facts.call == *call)?;
        Some(self.held.remove(at))
    }

    fn held_record(
        &self,
        event: Event,
        held: &HeldCall,
        code: &'static str,
        now: Now,
    ) -> AuditRecord {
        let mut record = self.record_of(event, &held.facts, now);
        record.id = Some(id_text(&held.id));
        record.bytes = u64::try_from(held.bytes).ok();
        record.digest = Some(held.digest.clone());
        record.duration_us = Some(micros(now.uptime.saturating_sub(held.started)));
        let why = "the approval that a rule demands was not given";
        let origin = Origin::Undischarged;
        let why = Reason { code: code.into(), message: why.into(), origin };
        record.decision = Some(held.verdict.clone().denied(&[why]));
        record.with_finding(Finding::ApprovalRequested)
    }
}

/// The bytes of the member [`STATE`] of `params`, with the comma that separates it from a neighbour.
fn without(frame: &Frame) -> Option<Range<usize>> {
    let params = frame.params()?;
    let mut before = None;
    let mut members = params.members();
    while let Some((name, value)) = members.next() {
        if name.as_str() == Some(STATE) {
            let next = members.next().map(|(name, _)| name.span().start);
            return Some(match (before, next) {
                (_, Some(next)) => name.span().start..next,
                (Some(before), None) => before..value.span().end,
                (None, None) => name.span().start..value.span().end,
            });
        }
        before = Some(value.span().end);
    }
    None
}
