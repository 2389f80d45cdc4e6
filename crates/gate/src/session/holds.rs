//! Requests of the client that wait for a person's approval.
//!
//! A held request is no call in flight: the server has not got it, so no message of the server can
//! concern it. Its id and its progress token are taken all the same, and a cancellation ends it.

use core::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::duty::decision::{Decision, HoldRule, Origin, Reason};
use crate::duty::limit::{Exceeded, Places};
use crate::evidence::record::{AuditRecord, CallId, DecisionFacts, Event, Finding, Now, micros};
use crate::evidence::refusal::{Addressee, Refusal};
use crate::evidence::step::{Act, Content, Released, Status, Step};
use crate::evidence::text::{Code, Text};
use crate::memory::Charge;
use crate::question::access::Resource;
use crate::question::hold::{self, Approval, HOLDS_MAX, Hold, HoldEnd, HoldId, HoldKey};
use crate::wire::document::write_string;
use crate::wire::frame::{Frame, Id, write_id};

use super::expected::reads_alike;
use super::legs::Resumes;
use super::payment::{Paid, Payment};
use super::protected::RefusalForm;
use super::question::Question;
use super::{CallFacts, Gate, Session, id_text};

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
    /// Whether its client takes a task as its answer.
    pub(super) takes_task: bool,
    /// The way in which its client calls again by itself, if it can.
    pub(super) resumes: Option<Resumes>,
    /// What it has paid of its limits; it needs a place in those of calls in flight once it is granted.
    pub(super) payment: Payment,
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
    /// What it has of its limits already.
    pub(super) paid: Paid<'a>,
}

impl Asker<'_> {
    /// The hold that an obligation demands, for the message as it would be sent: `shown`.
    pub(super) fn hold(
        &self,
        question: &Question<'_>,
        shown: Bytes,
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
            shown,
            definition: definition.map(Into::into),
            revision: (&*decision.revision).into(),
            code: rule.code.clone(),
            message: rule.message.clone(),
            approvers: rule.approvers.clone(),
            quorum: rule.quorum.max(1),
            ttl: rule.ttl.unwrap_or(hold::TTL_DEFAULT),
            client: self.session.client.as_ref().map(|client| client.name.clone()),
            scopes: rule.scopes.clone(),
            also: Vec::new(),
        }
        .keyed()
    }

    /// Whether `hold` was granted for this message, by the people whom its rule asks now.
    pub(super) fn is_granted(&self, hold: &Hold) -> bool {
        let asked = (&hold.key, &hold.approvers, hold.quorum);
        self.approvals.iter().any(|it| (&it.key, &it.groups, it.quorum) == asked)
    }

    /// Whether `more` approvals may be asked for.
    pub(super) fn may_ask(&self, more: usize) -> bool {
        self.approvals.len().saturating_add(more) <= HOLDS_MAX
    }
}

impl Session {
    /// Whether the client of a held request can be shown a page where it is approved: it has declared
    /// that it opens URLs, and has not been asked before.
    pub fn opens_pages(&self, call: &CallId) -> bool {
        let held = self.held.iter().find(|held| held.facts.call == *call);
        held.and_then(|held| held.resumes.as_ref()).is_some_and(|it| it.asks)
    }

    /// The hold of a held request whose client was asked to open its page, and would not.
    pub fn declined(&self, call: &CallId) -> Option<&HoldId> {
        let held = self.held.iter().find(|held| held.facts.call == *call)?;
        held.resumes.as_ref()?.declined.as_ref()
    }

    /// Takes the places that a held request needs in limits of calls in flight, before its grants are
    /// spent: a spent grant cannot be given back. `None` if the request no longer waits.
    ///
    /// # Errors
    ///
    /// None is free.
    pub fn reserve(
        &self,
        gate: &Gate,
        call: &CallId,
        now: Now,
    ) -> Option<Result<Option<Places>, Exceeded>> {
        let held = self.held.iter().find(|held| held.facts.call == *call)?;
        Some(gate.limits().reserve(held.payment.limits().iter(), now.uptime))
    }

    /// Ends a held request that does not pass. The act is `Deliver`. `None` if it no longer waits.
    pub fn hold_ended(
        &mut self,
        gate: &Gate,
        call: &CallId,
        mut end: HoldEnd,
        now: Now,
    ) -> Option<Step> {
        let held = self.take_held(call)?;
        if let HoldEnd::Pending { hold, state, page, .. } = &mut end {
            gate.payments.leave(&held.payment, now.uptime.saturating_sub(held.started));
            *state = held.resumes.as_ref().map(|it| self.state_of(gate, hold, &it.carried, now));
            // Where a state can be sent but no question, only the state is.
            if held.resumes.as_ref().is_some_and(|it| !it.asks) {
                *page = None;
            }
        }
        Some(self.refuse_held(&held, &Refusal::Approval(end), now))
    }

    /// Progress of a held request: the `count`th notification that it waits, if its client asked for
    /// progress. It needs no record: the hold has one, and this says nothing else.
    ///
    /// Progress must grow with each notification (MCP, basic/utilities/progress), also when the
    /// server reports its own under the same token afterwards. Servers count from 0 or from 1, so
    /// these values are below 0.
    pub fn hold_progress(
        &self,
        call: &CallId,
        hold: &HoldId,
        count: NonZeroU32,
    ) -> Option<Released> {
        let request = self.held.iter().find(|it| it.facts.call == *call)?;
        let mut body = Vec::with_capacity(192);
        body.extend_from_slice(
            b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":",
        );
        write_id(&mut body, request.token.as_ref()?);
        let progress = -1.0 / f64::from(count.get());
        body.extend_from_slice(format!(",\"progress\":{progress},\"message\":").as_bytes());
        write_string(&mut body, &format!("Waiting for a person's approval, {hold}"));
        body.extend_from_slice(b"}}");
        Some(Released::issue_proof(body.into(), Content::Notification, None, Status::Ok, true))
    }

    /// Refuses a request that is no longer held.
    pub(super) fn refuse_held(&self, held: &HeldCall, refusal: &Refusal, now: Now) -> Step {
        let finding = refusal.finding().unwrap_or(Finding::ApprovalRequested);
        let record = self.held_record(Event::Denial, held, refusal.code(), now);
        let record = record.with_finding(finding);
        let pending = matches!(refusal, Refusal::Approval(HoldEnd::Pending { .. }));
        let as_result = pending || self.server.refusal == RefusalForm::ToolResult;
        let to = Addressee {
            id: Some(&held.id),
            decision_id: &held.facts.call,
            era: held.facts.protocol.era,
            tool_result: held.calls_tool && as_result,
            told: None,
        };
        self.refusal_step(record, refusal, to)
    }

    /// Ends a held request whose client has disconnected or cancelled it. The act is `Drop`.
    pub(super) fn drop_held(&mut self, call: &CallId, now: Now) -> Option<Step> {
        let held = self.take_held(call)?;
        let record = self.held_record(Event::Drop, &held, HoldEnd::Cancelled.code(), now);
        let record = record.with_finding(Finding::ApprovalRequested);
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

    pub(super) fn held_record(
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
        let why = Reason { code: code.into(), message: why.into(), origin, tell: None };
        record.decision = Some(held.verdict.clone().denied(&[why]));
        record
    }
}
