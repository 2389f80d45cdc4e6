//! The records of answers: who answers which held call how, and why that does not count, if so.

use std::sync::Arc;

use super::answer::{Answer, Verdict};
use bartizan_approvals::{AnswerError, Approver, HoldView};
use bartizan_gate::evidence::record::{ApprovalFacts, AuditRecord, Event, Now, Target};
use bartizan_gate::wire::method::{Method as McpMethod, Subject};

/// An answer as it was given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    /// What the approver takes for the id of a hold.
    pub(super) id: &'a str,
    pub(super) verdict: Verdict,
    pub(super) answer: &'a Answer,
    pub(super) by: &'a Approver,
    /// The hold, if there is one.
    pub(super) about: Option<&'a HoldView>,
}

/// The record of an answer at `now`, which does not count if there is an `error`.
pub(super) fn of(said: &Said<'_>, error: Option<&AnswerError>, now: Now) -> AuditRecord {
    let Answer { reason, scope, .. } = said.answer;
    let mut record = AuditRecord::new(Event::Approval, now);
    if let Some(hold) = said.about {
        record.call = Some(Arc::from(&*hold.call));
        record.principal = Some((&hold.principal).into());
        record.server = Some((&hold.server).into());
        record.method = Some((&hold.method).into());
        record.target = hold.target.as_deref().map(|target| Arc::new(target_of(hold, target)));
    }
    record.error_type = error.map(|error| code(error).into());
    record.approval = Some(Arc::new(ApprovalFacts {
        hold: said.id.into(),
        answer: said.verdict.as_str(),
        by: (&said.by.id).into(),
        reason: Some(reason.into()),
        scope: scope.as_ref().map(Into::into),
    }));
    record
}

/// What the held call acts on.
fn target_of(hold: &HoldView, target: &str) -> Target {
    match McpMethod::named(&hold.method).map(|method| method.subject) {
        Some(Subject::Tool) => Target { tool: Some(target.into()), ..Target::default() },
        Some(Subject::Prompt) => Target { prompt: Some(target.into()), ..Target::default() },
        _ => Target { uri: Some(target.into()), ..Target::default() },
    }
}

/// The stable name of why an answer does not count.
pub(super) fn code(error: &AnswerError) -> &'static str {
    match error {
        AnswerError::Unknown => "unknown-hold",
        AnswerError::NotPending(_) => "not-pending",
        AnswerError::WrongDigest => "wrong-digest",
        AnswerError::NotAllowed => "not-allowed",
        AnswerError::AlreadyAnswered => "already-answered",
        AnswerError::ScopeNotOffered => "scope-not-offered",
        AnswerError::ReasonTooLong => "reason-too-long",
        AnswerError::Unavailable => "unavailable",
    }
}
