//! A person answers: who may, and what follows.

use std::fmt;
use std::sync::Arc;

use super::ask::offer;
use super::{Ledger, Plan};
use crate::limits::APPROVER_BYTES_MAX;
use crate::record::{Answer, HoldRecord, HoldState, Record, Scope, Through, Verdict, WiderRecord};
use crate::store::Write;

/// An authenticated person who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    /// Who; the same for the same person, whichever way he came.
    pub id: Box<str>,
    /// The groups he is a member of.
    pub groups: Vec<Box<str>>,
}

impl Approver {
    /// Whether he may answer a call of `principal` that asks one of the groups `asked`, or anybody if
    /// there is none.
    pub fn may_answer(&self, principal: &str, asked: &[Box<str>]) -> bool {
        // The requester is no approver (threat I3), in whichever case the names are written.
        let himself = self.id.eq_ignore_ascii_case(principal);
        let named = !self.id.is_empty() && self.id.len() <= APPROVER_BYTES_MAX;
        let member = asked.is_empty() || asked.iter().any(|group| self.groups.contains(group));
        named && member && !himself
    }
}

/// An answer as given.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The hold.
    pub id: &'a str,
    /// Who answers.
    pub by: &'a Approver,
    /// Why.
    pub reason: &'a str,
}

/// Why an answer does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerError {
    /// There is no such hold.
    Unknown,
    /// Nothing can be answered any more, or not again.
    NotPending(HoldState),
    /// The approver saw something else than what is held.
    WrongDigest,
    /// The approver is in none of the groups, or is the one who asks.
    NotAllowed,
    /// This approver has granted it already; it takes another one.
    AlreadyAnswered,
    /// The rule offers no such wider grant.
    ScopeNotOffered,
    /// More bytes than [`crate::ApprovalLimits::reason_bytes`].
    ReasonTooLong,
    /// The store did not take the answer, or too many wider grants are in force. Nothing is
    /// granted, unless the answer reached the disk all the same: look at the hold again.
    Unavailable,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such hold"),
            Self::NotPending(state) => write!(f, "the hold is {state}"),
            Self::WrongDigest => f.write_str("the digest is not that of the held call"),
            Self::NotAllowed => f.write_str("this approver may not answer it"),
            Self::AlreadyAnswered => f.write_str("this approver has granted it already"),
            Self::ScopeNotOffered => f.write_str("the rule offers no such wider grant"),
            Self::ReasonTooLong => f.write_str("the reason is too long"),
            Self::Unavailable => f.write_str("the store of holds is not available"),
        }
    }
}

impl std::error::Error for AnswerError {}

impl Ledger {
    /// The plan for a yes. The hold is granted once as many different approvers as its quorum said
    /// so; it comes with a wider grant if all of them chose the same one.
    ///
    /// # Errors
    ///
    /// The answer does nothing.
    pub fn grant(
        &self,
        given: Given<'_>,
        digest: &str,
        scope: Option<&str>,
        at_ms: u64,
    ) -> Result<Plan<()>, AnswerError> {
        let hold = self.answerable(given, at_ms)?;
        let subject = &hold.asked.subject;
        if *hold.asked.digest != *digest {
            return Err(AnswerError::WrongDigest);
        }
        // One call is what a plain grant covers, too.
        let chosen = |code| offer(subject, code).filter(|it| it.count > 0 && it.lasts_ms > 0);
        if scope.is_some_and(|code| chosen(code).is_none()) {
            return Err(AnswerError::ScopeNotOffered);
        }
        // One person is one approver, in whichever case the name is written.
        if hold.answers.iter().any(|answer| answer.by.eq_ignore_ascii_case(&given.by.id)) {
            return Err(AnswerError::AlreadyAnswered);
        }
        let mut answered = with_answer(hold, given, Verdict::Grant, at_ms);
        if let Some(answer) = answered.answers.last_mut() {
            answer.scope = scope.map(Into::into);
        }
        let grants = u32::try_from(answered.answers.len()).unwrap_or(u32::MAX);
        if grants < subject.quorum {
            return Ok(Plan::new(vec![self.put_hold(answered)], ()));
        }
        answered.state = HoldState::Granted;
        answered.changed_ms = at_ms;
        let same = answered.answers.iter().all(|answer| answer.scope.as_deref() == scope);
        let mut writes = Vec::new();
        if let Some(wider) = scope.filter(|_| same).and_then(chosen) {
            answered.scope = Some(wider.code.clone());
            writes.push(self.widen(&answered, wider, at_ms)?);
        }
        writes.push(self.put_hold(answered));
        Ok(Plan::new(writes, ()))
    }

    /// The plan for a no, which one approver is enough for.
    ///
    /// # Errors
    ///
    /// The answer does nothing.
    pub fn refuse(&self, given: Given<'_>, at_ms: u64) -> Result<Plan<()>, AnswerError> {
        let hold = self.answerable(given, at_ms)?;
        let answered = with_answer(hold, given, Verdict::Refuse, at_ms);
        let mut writes = self.finish(&answered, HoldState::Refused, at_ms);
        writes.push(self.refused(&hold.asked.subject.principal, at_ms));
        Ok(Plan::new(writes, ()))
    }

    /// The hold, if this approver may answer it now.
    fn answerable(&self, given: Given<'_>, at_ms: u64) -> Result<&HoldRecord, AnswerError> {
        let hold = self.hold(given.id).ok_or(AnswerError::Unknown)?;
        let state = self.state(hold, at_ms);
        if state != HoldState::Pending {
            return Err(AnswerError::NotPending(state));
        }
        let subject = &hold.asked.subject;
        if !given.by.may_answer(&subject.principal, &subject.approvers) {
            return Err(AnswerError::NotAllowed);
        }
        if given.reason.len() > self.limits.reason_bytes {
            return Err(AnswerError::ReasonTooLong);
        }
        Ok(hold)
    }

    /// The write of the wider grant that comes with the grant of `hold`.
    fn widen(&self, hold: &HoldRecord, scope: &Scope, at_ms: u64) -> Result<Write, AnswerError> {
        let in_force = self.wider.values().filter(|kept| at_ms < kept.record.expires_ms);
        if in_force.count() >= self.limits.wider_grants {
            return Err(AnswerError::Unavailable);
        }
        let record = WiderRecord {
            through: Through {
                hold: hold.asked.id.clone(),
                scope: scope.code.clone(),
                approvers: hold.granted_by(),
                reason: hold.granted_because(),
            },
            subject: hold.asked.subject.clone(),
            expires_ms: at_ms.saturating_add(scope.lasts_ms),
            // The granted call is the first of them.
            left: scope.count.saturating_sub(1),
        };
        Ok(Write::Put { record: Record::Wider(Arc::new(record)), expect: 0 })
    }
}

fn with_answer(hold: &HoldRecord, given: Given<'_>, verdict: Verdict, at_ms: u64) -> HoldRecord {
    let mut answered = hold.clone();
    answered.answers.push(Answer {
        by: given.by.id.clone(),
        verdict,
        reason: given.reason.into(),
        scope: None,
        at_ms,
    });
    answered
}
