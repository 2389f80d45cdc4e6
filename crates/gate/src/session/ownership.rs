//! Ownership of tasks, progress tokens and subscriptions: a message may name only those that this
//! session saw created for its principal. Knowing an id proves nothing.

use std::sync::Arc;

use crate::duty::decision::Origin;
use crate::evidence::record::{CallId, Now};
use crate::evidence::refusal::Refusal;
use crate::question::access::{Resource, TaskOrigin};
use crate::question::operation::Operation;
use crate::question::pack::Effect;
use crate::session::tasks::{Lifetime, TaskCreation};
use crate::wire::document::Value;
use crate::wire::frame::{Frame, Id, Message};
use crate::wire::headers::META_SUBSCRIPTION_ID;
use crate::wire::method::{Action, Method, Role, Subject};
use crate::wire::protocol::{Direction, Era};

use super::discharge::{ReasonedRefusal, reason};
use super::expected::{Expected, Listen, reads_alike, texts};
use super::ids::RUN_BYTES;
use super::question::Question;
use super::{CallFacts, Gate, InFlightCall, Session};

/// The task that a frame names: absent if it names none; an inner `None` if the task is unknown or
/// belongs to another principal.
pub(super) type TaskLookup = Option<Option<Arc<TaskCreation>>>;

impl Session {
    /// Looks up the task that a frame names. A request about a task comes from the side that
    /// created it, a notification about it from the side that runs it.
    pub(super) fn task(&mut self, frame: &Frame, name: &str, direction: Direction) -> TaskLookup {
        let method = Method::find(name, direction, None)?;
        if method.subject != Subject::Task {
            return None;
        }
        let id = frame.params()?.get("taskId")?.as_str()?;
        let asks = matches!(frame.message(), Message::Request { .. });
        let owner = &self.principal.id;
        Some(if asks == (direction == Direction::ToServer) {
            self.server.tasks().creation(id, owner)
        } else {
            self.client_tasks.creation(id, owner)
        })
    }

    /// Returns the refusal if the client names a task that this principal did not create. It holds
    /// whatever the policy decides.
    pub(super) fn task_refusal(
        &self,
        question: &Question<'_>,
        task: &TaskLookup,
    ) -> Option<ReasonedRefusal> {
        let params = question.params.filter(|_| question.action() == Action::Listen);
        let known = match (task, params) {
            (Some(origin), _) => origin.is_some(),
            (None, Some(params)) => {
                let tasks = self.server.tasks();
                texts(params, "taskIds").all(|id| tasks.is_of(id, &self.principal.id))
            }
            (None, None) => true,
        };
        if known {
            return None;
        }
        let modern = question.protocol.era == Era::Modern;
        let refusal = match question.method {
            // The same answer for known and unknown tasks, so that a method which the revision does
            // not define reveals nothing about tasks.
            None => Refusal::UnknownMethod,
            // Tasks extension, "Capability negotiation": checked before ownership.
            Some(_) if modern && !Self::declares_tasks(question) => Refusal::TasksUndeclared,
            Some(_) => Refusal::UnknownTask,
        };
        let why = "nobody saw this principal make the task";
        let why = vec![reason("unknown-task", why, Origin::Protocol)];
        Some(ReasonedRefusal::new(refusal, why))
    }

    /// Whether the client declares the tasks extension on this request.
    pub(super) fn declares_tasks(question: &Question<'_>) -> bool {
        Expected::of(question.frame, question.method, question.protocol).declared.tasks
    }

    /// The client answers a request of the server with a task that it will run (2025-11-25).
    pub(super) fn remember_client_task(
        &mut self,
        gate: &Gate,
        asked: &CallFacts,
        frame: &Frame,
        now: Now,
    ) {
        let task = frame.result().and_then(|result| result.get("task"));
        let Some(id) = task.and_then(|task| task.get("taskId")).and_then(Value::as_str) else {
            return;
        };
        let method: Box<str> = asked.method.as_deref().unwrap_or_default().into();
        let row = Method::find(&method, Direction::ToClient, None);
        let effect = row.map_or(Effect::Unknown, |row| row.effect);
        let operation = Operation::of_method(effect);
        let origin = TaskOrigin { method, tool: None, operation };
        let creation = TaskCreation { origin, redact: Vec::new() };
        let owner = &self.principal.id;
        // This session's table has one owner, so the id cannot belong to another principal.
        let lives = Lifetime { now: now.uptime, ttl: None };
        let kept = self.client_tasks.remember(id, owner, creation, lives, gate.memory());
        kept.unwrap_or_default();
    }

    /// Returns the refusal if a frame of the server refers to a task, a request or a subscription
    /// that is not this session's.
    pub(super) fn uncorrelated(
        &self,
        within: Option<&CallId>,
        question: &Question<'_>,
        task: &TaskLookup,
    ) -> Option<(Refusal, &'static str)> {
        if matches!(task, Some(None)) {
            return Some((Refusal::UnknownTask, "a task that is not this principal's"));
        }
        let progress = question.row.is_some_and(|row| row.role == Role::Progress);
        if progress && !self.is_progress_in_flight(within, question.frame) {
            return Some((Refusal::Unsolicited, "progress of no request in flight"));
        }
        let ends = question.row.is_some_and(|row| row.role == Role::ElicitationEnd);
        if ends && !question.params.and_then(elicitation_id).is_some_and(|id| self.was_asked(&id)) {
            return Some((Refusal::Unsolicited, "an elicitation that nobody was asked"));
        }
        if self.stray_duties().redactions().is_none() {
            return Some((Refusal::Withheld, "more redactions than can be remembered"));
        }
        if question.protocol.era == Era::Modern && !self.is_subscribed(within, question) {
            return Some((Refusal::Unsolicited, "news that nobody subscribed to"));
        }
        None
    }

    fn was_asked(&self, elicitation: &Id) -> bool {
        self.elicitations.contains(elicitation)
    }

    /// The client is asked an elicitation with these `params`: the server may say later that it has
    /// ended. Without room it may not.
    pub(super) fn remember_elicitation(&mut self, gate: &Gate, params: Value<'_>) {
        if let Some(id) = elicitation_id(params)
            && self.elicitations.has_room(1)
            && let Ok(mut charge) = gate.memory().charge(&self.principal.id, RUN_BYTES)
        {
            self.elicitations.insert(&id, &mut charge);
        }
    }

    /// The client gets the error `frame`, which may ask elicitations (MCP 2025-11-25,
    /// client/elicitation, "URL Elicitation Required Error").
    pub(super) fn remember_elicitations(&mut self, gate: &Gate, frame: &Frame) {
        let asked = frame.document().root().pointer("/error/data/elicitations");
        for params in asked.into_iter().flat_map(Value::elements) {
            self.remember_elicitation(gate, params);
        }
    }

    /// Whether a progress token belongs to a request in flight. In the modern era it must be the
    /// request of this exchange, because progress comes on that request's stream.
    fn is_progress_in_flight(&self, within: Option<&CallId>, frame: &Frame) -> bool {
        let Some(token) = frame.named_id("progressToken") else { return false };
        let same = |other: &Id| reads_alike(&token, other);
        let modern = self.protocol.era == Era::Modern;
        let here =
            |entry: &&InFlightCall| within.is_none_or(|call| !modern || entry.exchange == *call);
        self.task_tokens.iter().any(|(token, _)| same(token))
            || self
                .calls
                .values()
                .map(|entry| &**entry)
                .filter(here)
                .any(|entry| entry.expected.token.as_ref().is_some_and(same))
    }

    /// Whether a notification needs no subscription, or matches one in flight. Servers differ in
    /// whether they add the subscription's id; where it is present it must match.
    fn is_subscribed(&self, within: Option<&CallId>, question: &Question<'_>) -> bool {
        if matches!(question.frame.message(), Message::Request { .. }) {
            return true;
        }
        let tag = question
            .params
            .and_then(|params| params.get("_meta"))
            .and_then(|meta| meta.get(META_SUBSCRIPTION_ID));
        if tag.is_none() && question.row.is_none_or(|row| !row.subscribed) {
            return true;
        }
        self.subscriptions(within, tag).any(|(_, listen)| match question.resource {
            Resource::Uri(uri) => listen.covers(uri),
            Resource::Task { id, .. } => listen.follows(id),
            Resource::Tool { .. }
            | Resource::Uris(_)
            | Resource::Prompt { .. }
            | Resource::Answer { .. }
            | Resource::Whole => true,
        })
    }

    /// The subscriptions in flight that a notification with this subscription id may belong to.
    pub(super) fn subscriptions<'a>(
        &'a self,
        within: Option<&'a CallId>,
        tag: Option<Value<'_>>,
    ) -> impl Iterator<Item = (&'a InFlightCall, &'a Listen)> {
        let tagged = tag.map(Id::spelt_by);
        self.calls
            .values()
            .map(|entry| &**entry)
            .filter(move |entry| within.is_none_or(|call| entry.exchange == *call))
            .filter(move |entry| match (&tagged, &entry.id) {
                (None, _) => true,
                (Some(Some(tag)), Some(id)) => reads_alike(tag, id),
                (Some(_), _) => false,
            })
            .filter_map(|entry| Some((entry, entry.expected.listen.as_deref()?)))
    }
}

/// The id by which a server refers to an elicitation; it is a text.
fn elicitation_id(params: Value<'_>) -> Option<Id> {
    params.get("elicitationId")?.as_str().map(|id| Id::Text(id.into()))
}
