//! The records of answers, and of what becomes of holds: who answers which held call how, and why that
//! does not count, if so; and each state that a hold gets into.
//!
//! The log of the program has a line for each, too. Holds are bounded, and so are the answers that do
//! not count, so the lines are.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::answer::{self, Answer};
use crate::Shared;
use bartizan_approvals::{AnswerError, Approvals, Approver, HoldState, HoldView, Verdict};
use bartizan_gate::evidence::record::{ApprovalFacts, AuditRecord, Event, Finding, Now, Target};
use bartizan_gate::wire::method::{Method as McpMethod, Subject};

/// An answer as it was given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    /// What the approver takes for the id of a hold.
    pub(super) id: &'a str,
    pub(super) verdict: answer::Verdict,
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
        describe(&mut record, hold);
    }
    record.error_type = error.map(|error| code(error).into());
    record.approval = Some(Arc::new(ApprovalFacts {
        hold: said.id.into(),
        answer: said.verdict.as_str(),
        by: Some((&said.by.id).into()),
        reason: Some(reason.into()),
        scope: scope.as_ref().map(Into::into),
    }));
    record
}

/// Keeps a record of each state that a hold of `approvals` gets into from now on, and logs it. Such
/// records are not counted together, so each hold's end has one of its own, also where no call waits
/// for it any more. A record that cannot be kept is in the `gap` that the journal records.
pub fn keep_states(approvals: &Approvals, shared: &Shared) {
    let (sink, clock) = (Arc::clone(&shared.sink), shared.clock);
    approvals.set_witness(Box::new(move |hold| {
        let record = of_state(hold, clock.now());
        let by = record.approval.as_ref().and_then(|facts| facts.by.as_deref());
        tracing::info!(
            hold = %hold.id,
            state = %hold.state,
            rule = ?hold.code,
            server = ?hold.server,
            target = ?hold.target.as_deref().unwrap_or_default(),
            principal = ?hold.principal,
            by = ?by.unwrap_or_default(),
            "a held call's approval got into another state"
        );
        if let Err(unkept) = sink.keep(&record) {
            tracing::error!(hold = %hold.id, cause = unkept.cause, "the state of a hold was not recorded");
        }
    }));
}

/// The record of the state that `hold` has got into at `now`.
fn of_state(hold: &HoldView, now: Now) -> AuditRecord {
    let mut record = AuditRecord::new(Event::HoldState, now);
    describe(&mut record, hold);
    let verdict = match hold.state {
        HoldState::Refused => Some(Verdict::Refuse),
        HoldState::Granted | HoldState::Spent | HoldState::Unknown => Some(Verdict::Grant),
        HoldState::Pending | HoldState::Expired | HoldState::Cancelled => None,
    };
    let answers = hold.answers.iter().filter(|it| Some(it.verdict) == verdict);
    let by: Vec<&str> = answers.clone().map(|it| &*it.by).collect();
    let reasons: Vec<&str> = answers.map(|it| &*it.reason).filter(|it| !it.is_empty()).collect();
    record.approval = Some(Arc::new(ApprovalFacts {
        hold: (&hold.id).into(),
        answer: hold.state.as_str(),
        by: (!by.is_empty()).then(|| by.join(",").into()),
        reason: (!reasons.is_empty()).then(|| reasons.join("; ").into()),
        scope: hold.scope.as_ref().map(Into::into),
    }));
    record.since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(hold.asked_unix_ms));
    record.note = hold
        .granted_through
        .as_ref()
        .map(|through| format!("by the wider grant that came with the hold {through}").into());
    match hold.state {
        HoldState::Granted => record.with_finding(Finding::ApprovalGranted),
        HoldState::Expired => record.with_finding(Finding::ApprovalExpired),
        HoldState::Pending
        | HoldState::Refused
        | HoldState::Cancelled
        | HoldState::Spent
        | HoldState::Unknown => record,
    }
}

/// Says in `record` which call `hold` is about.
fn describe(record: &mut AuditRecord, hold: &HoldView) {
    record.call = Some(Arc::from(&*hold.call));
    record.principal = Some((&hold.principal).into());
    record.server = Some((&hold.server).into());
    record.method = Some((&hold.method).into());
    record.target = hold.target.as_deref().map(|target| Arc::new(target_of(hold, target)));
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
