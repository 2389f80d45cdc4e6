//! Answers of the client to questions of the server: those to its requests (legacy), and those that
//! a request carries as `inputResponses` (MCP 2026-07-28, basic/patterns/mrtr). What a person, a
//! model or the client's file system tells a server is a question to policy of its own.

use std::sync::Arc;

use bytes::Bytes;

use crate::duty::redact::{Redaction, RedactionScope, below};
use crate::evidence::record::{AuditRecord, CallId, Event, Finding, Now, Outcome, micros};
use crate::evidence::refusal::{Addressee, Refusal};
use crate::evidence::step::{Act, Payload, Permitted, Routing, Step};
use crate::question::access::Resource;
use crate::wire::document::{Document, Kind, Value};
use crate::wire::frame::{
    Frame, Id, Message, Sender, is_ambiguous_answer, is_look_alike, is_other_spelling,
};
use crate::wire::method::{Method, Offer};
use crate::wire::protocol::Direction;

use super::discharge::{ReasonedRefusal, denied_facts, enforce, observed_record};
use super::legs::INPUT_RESPONSES;
use super::question::Question;
use super::redaction::{redacted_in, redacted_of_client, redactions};
use super::{CallFacts, Gate, ServerRequest, Session, id_text};

/// The answers that one request may carry.
const INPUT_RESPONSES_MAX: usize = 64;

/// The members by which a reader tells what a result is the answer to (MCP 2026-07-28, schema
/// `InputResponse`: `ElicitResult`, `ListRootsResult`, `CreateMessageResult`).
const FORMS: [(Offer, &[&str]); 3] = [
    (Offer::Elicitation, &["action"]),
    (Offer::Roots, &["roots"]),
    (Offer::Sampling, &["role", "model"]),
];

impl Session {
    /// The client answers a request of the server. Only a request in flight may be answered (P14);
    /// in the modern era there is none (MCP 2026-07-28 forbids responses of clients). A server whose
    /// question gets an answer that may not pass is told an error in its place.
    pub(super) fn client_answers(
        &mut self,
        gate: &Gate,
        frame: &Arc<Frame>,
        id: Option<&Id>,
        call: &CallId,
        now: Now,
    ) -> Step {
        let asked = id.and_then(|id| Some((id, self.end_server_request(id)?)));
        let Some((id, asked)) = asked else {
            let facts = CallFacts::bare(call, Direction::ToServer, self.protocol);
            let mut record = self.record_of(Event::Denial, &facts, now);
            record.bytes = u64::try_from(frame.document().raw().len()).ok();
            record.id = id.map(id_text);
            record.decision = Some(gate.refused(&Refusal::Unsolicited, None));
            let record = record.with_finding(Finding::UnsolicitedAnswer);
            let to = self.addressee(None, call);
            return self.refusal_step(record, &Refusal::Unsolicited, to);
        };
        let mut record = self.answer_record(gate, frame, (id, &asked), now);
        let payload = match self.judged_answer(gate, frame, &asked.facts, &mut record, now) {
            Ok(passing) => {
                self.remember_client_task(gate, &asked.facts, &passing, now);
                Payload::Message(passing)
            }
            Err(refused) => {
                record.outcome = Some(Outcome::Withheld);
                let finding = refused.refusal.finding().unwrap_or(Finding::ToolDenied);
                record = record.with_finding(finding);
                let era = self.protocol.era;
                let decision_id = &asked.facts.call;
                let to =
                    Addressee { id: Some(id), decision_id, era, tool_result: false, told: None };
                Payload::Refusal(refused.refusal.message(to).0)
            }
        };
        let unrecorded = Refusal::unrecorded(self.addressee(None, call));
        let (call, routing) = (asked.facts.call, Routing::default());
        let permitted = Permitted::issue_proof(payload, self.protocol, call, routing);
        Step::new(record, Act::Forward(permitted)).if_unrecorded(unrecorded)
    }

    fn answer_record(
        &self,
        gate: &Gate,
        frame: &Frame,
        (id, asked): (&Id, &ServerRequest),
        now: Now,
    ) -> AuditRecord {
        let raw = frame.document().raw();
        let mut record = self.record_of(Event::Outcome, &asked.facts, now);
        record.id = Some(id_text(id));
        record.outcome = Some(match frame.message() {
            Message::Error { .. } => Outcome::Error,
            Message::Request { .. } | Message::Notification { .. } | Message::Result { .. } => {
                Outcome::Ok
            }
        });
        record.duration_us = Some(micros(now.uptime.saturating_sub(asked.started)));
        record.bytes = u64::try_from(raw.len()).ok();
        record.digest = Some(gate.digest(raw));
        record
    }

    /// Asks the policy about an answer. Returns the frame that may go to the server.
    fn judged_answer(
        &self,
        gate: &Gate,
        frame: &Arc<Frame>,
        asked: &CallFacts,
        record: &mut AuditRecord,
        now: Now,
    ) -> Result<Arc<Frame>, ReasonedRefusal> {
        let method = asked.method.as_deref().unwrap_or_default();
        let error = match frame.message() {
            Message::Error { code, .. } => Some(*code),
            Message::Request { .. } | Message::Notification { .. } | Message::Result { .. } => None,
        };
        let answer = Resource::Answer { result: frame.result(), error };
        let question = Question::answering(frame, method, answer, self.protocol);
        let decision = gate.policy().decide(&question.request(self, now));
        record.set_input(gate.recorded(|| question.request(self, now)));
        let passed = enforce(gate, &question, &decision, ambiguous(frame.result()), None, now)
            .and_then(|(_, verdict, observed, _)| {
                let redact = redactions(&decision, None);
                let edited = redacted_of_client(gate, frame.document(), &redact, record);
                Ok((read_again(gate, edited)?, verdict, observed))
            });
        match passed {
            Ok((edited, verdict, observed)) => {
                *record = observed_record(record.clone(), verdict, observed.as_ref());
                Ok(edited.map_or_else(|| Arc::clone(frame), Arc::new))
            }
            Err(refused) => {
                record.decision = Some(denied_facts(&decision, &refused, true));
                Err(refused)
            }
        }
    }

    /// Asks the policy about each answer that the request `frame` carries (`inputResponses`), as
    /// about an answer to each request of the server that it could be read as the answer to. Returns
    /// the frame without what must be removed, where something must; `record` says what was.
    ///
    /// # Errors
    ///
    /// One of the answers may not pass, so the request may not.
    pub(super) fn judged_responses(
        &self,
        gate: &Gate,
        frame: &Frame,
        question: &Question<'_>,
        record: &mut AuditRecord,
        now: Now,
    ) -> Result<Option<Frame>, ReasonedRefusal> {
        let params = question.params.filter(|_| question.row.is_some());
        let spelt = |name: Value<'_>| {
            name.as_str().is_some_and(|name| is_other_spelling(name, &[INPUT_RESPONSES]))
        };
        if !gate.observes() && params.is_some_and(|it| it.members().any(|(name, _)| spelt(name))) {
            let why = "a member looks like the one that holds answers";
            return Err(ReasonedRefusal::of(Refusal::Denied, why));
        }
        let responses = question.params.and_then(|params| params.get(INPUT_RESPONSES));
        let Some(responses) = responses.filter(|it| it.kind() == Kind::Object) else {
            return Ok(None);
        };
        if responses.len() > INPUT_RESPONSES_MAX && !gate.observes() {
            let why = "it carries more answers than one request may";
            return Err(ReasonedRefusal::of(Refusal::Denied, why));
        }
        let mut redact: Vec<Redaction> = Vec::new();
        let answers = responses.members().map(|(_, response)| response);
        for (response, method) in answers.flat_map(|it| answered(it).map(move |to| (it, to))) {
            let answer = Resource::Answer { result: Some(response), error: None };
            let question = Question::answering(frame, method, answer, question.protocol);
            let decision = gate.policy().decide(&question.request(self, now));
            let precheck = ambiguous(Some(response));
            let passed =
                enforce(gate, &question, &decision, precheck, None, now).and_then(|(set, ..)| {
                    if set.is_none() { Ok(()) } else { Err(ReasonedRefusal::unsettable()) }
                });
            if let Err(mut refused) = passed {
                refused.reasons.extend(decision.reasons);
                return Err(refused);
            }
            for redaction in decision.redactions() {
                if !redact.contains(redaction) {
                    redact.push(redaction.clone());
                }
            }
        }
        let noted = (record, Finding::RequestExfiltration);
        let edited = redacted_in(gate, frame.document(), &responses_scope, &redact, noted);
        read_again(gate, edited)
    }
}

/// The parts of a request that hold answers: each of them is a result.
fn responses_scope(document: &Document) -> RedactionScope<'_> {
    let mut scope = RedactionScope::default();
    let responses = document.root().pointer("/params/inputResponses");
    for (name, value) in responses.into_iter().flat_map(Value::members) {
        let name = name.as_str().unwrap_or_default();
        let at = below("/params/inputResponses", name);
        scope.names.push(name);
        scope.searched.push((at.clone(), value));
        scope.results.push((at, value));
    }
    scope
}

/// The requests of a server that an answer could be read as the answer to. An answer does not name
/// its question (MCP 2026-07-28, schema `InputResponse`), and the server, not this gate, knows what
/// it asked: one that has members of several forms, in any spelling, is an answer to each of them,
/// and one that has none of any form is an answer to all.
fn answered(response: Value<'_>) -> impl Iterator<Item = &'static str> {
    let has = move |members: &[&str]| {
        let reads = |name: &str| members.contains(&name) || is_look_alike(name, members);
        response.members().any(|(name, _)| name.as_str().is_some_and(reads))
    };
    let none = !FORMS.iter().any(|(_, members)| has(members));
    let fits = move |(_, members): &&(Offer, &[&str])| none || has(members);
    let rows = FORMS.iter().filter(fits).filter_map(|(offer, _)| Method::offered(*offer));
    rows.map(|row| row.name)
}

/// The refusal of an answer in which some reader finds another member than rules judge.
fn ambiguous(result: Option<Value<'_>>) -> Option<ReasonedRefusal> {
    let why = "a member of an answer looks like another";
    let found = result.is_some_and(is_ambiguous_answer);
    found.then(|| ReasonedRefusal::of(Refusal::Denied, why))
}

/// Reads an edited message of the client by the same rules as any frame.
fn read_again(
    gate: &Gate,
    edited: Result<Option<Bytes>, Refusal>,
) -> Result<Option<Frame>, ReasonedRefusal> {
    let unredactable = || ReasonedRefusal::of(Refusal::Denied, "it cannot be redacted");
    let Some(body) = edited.map_err(|_| unredactable())? else { return Ok(None) };
    Frame::read(body, Sender::Client, &gate.config.frame).map(Some).map_err(|_| unredactable())
}
