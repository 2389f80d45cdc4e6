//! A hold as people see it.

use std::collections::BTreeMap;

use bartizan_gate::evidence::record::Now;
use serde::Serialize;

use crate::clock::wall_ms;
use crate::ledger::Ledger;
use crate::parameters::excerpt;
use crate::record::{Answer, HoldRecord, HoldState, Scope, Verdict};

/// A wider grant that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScopeView {
    /// The name by which it is chosen.
    pub code: Box<str>,
    /// How long it lasts from the grant, milliseconds.
    pub lasts_ms: u64,
    /// How many calls it covers, the granted one included.
    pub count: u32,
}

impl From<&Scope> for ScopeView {
    fn from(scope: &Scope) -> Self {
        Self { code: scope.code.clone(), lasts_ms: scope.lasts_ms, count: scope.count }
    }
}

/// What one person answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnswerView {
    /// Who.
    pub by: Box<str>,
    /// Yes or no.
    pub verdict: Verdict,
    /// Why. A person's text: escape it.
    pub reason: Box<str>,
    /// The wider grant that was chosen.
    pub scope: Option<Box<str>>,
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
}

impl From<&Answer> for AnswerView {
    fn from(answer: &Answer) -> Self {
        Self {
            by: answer.by.clone(),
            verdict: answer.verdict,
            reason: answer.reason.clone(),
            scope: answer.scope.clone(),
            unix_ms: answer.at_ms,
        }
    }
}

/// Everything that a person must see of a hold. Most texts are a stranger's: escape them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldView {
    /// Names the hold.
    pub id: Box<str>,
    /// Digest of what was asked; a grant must name it.
    pub digest: Box<str>,
    /// The hold's key, hexadecimal.
    pub key: Box<str>,
    /// What has become of it.
    pub state: HoldState,
    /// The call that was first held, as records name it.
    pub call: Box<str>,
    /// Who calls.
    pub principal: Box<str>,
    /// What the client calls itself.
    pub client: Option<Box<str>>,
    /// Which server.
    pub server: Box<str>,
    /// The method of MCP.
    pub method: Box<str>,
    /// The tool, prompt or resource.
    pub target: Option<Box<str>>,
    /// The operation's effect.
    pub effect: Box<str>,
    /// The operation's tags.
    pub tags: Vec<Box<str>>,
    /// The environments that the call reaches.
    pub environments: Vec<Box<str>>,
    /// What earlier calls have selected at the server, by name: where the call lands may depend on it.
    pub facts: BTreeMap<Box<str>, Box<str>>,
    /// The parameters as they would be sent: a JSON text, to be shown whole; empty in a summary.
    pub shown: Box<str>,
    /// How the arguments begin, on one line, with nothing invisible; see [`excerpt`].
    pub excerpt: Box<str>,
    /// Size of the parameters, bytes.
    pub bytes: usize,
    /// [`Self::shown`] of the last call of the same principal, server, method and target that was
    /// granted; absent in a summary.
    pub previous: Option<Box<str>>,
    /// Digest of the tool's definition.
    pub definition: Option<Box<str>>,
    /// Revision of the policy.
    pub revision: Box<str>,
    /// Code of the rule that asks.
    pub code: Box<str>,
    /// The rule's message.
    pub message: Box<str>,
    /// Groups of which an approver must be a member of one; empty for anybody.
    pub approvers: Vec<Box<str>>,
    /// How many different approvers it takes.
    pub quorum: u32,
    /// The wider grants that the rule offers.
    pub scopes: Vec<ScopeView>,
    /// What people answered.
    pub answers: Vec<AnswerView>,
    /// The wider grant that came with its grant.
    pub scope: Option<Box<str>>,
    /// The hold whose wider grant let this one pass without a question.
    pub granted_through: Option<Box<str>>,
    /// When it was asked, milliseconds since 1970.
    pub asked_unix_ms: u64,
    /// When it got into its state, milliseconds since 1970.
    pub changed_unix_ms: u64,
    /// Until when it may be granted and spent, by the wall clock of now, milliseconds since 1970.
    pub expires_unix_ms: u64,
    /// How long that is from now, milliseconds; 0 if it is over.
    pub expires_in_ms: u64,
    /// Calls that wait for it: in this process, or as tasks.
    pub waiting: usize,
}

impl HoldView {
    /// `hold` at `now`, for which `waiting` calls wait.
    pub(crate) fn new(ledger: &Ledger, hold: &HoldRecord, waiting: usize, now: Now) -> Self {
        let shown = hold.asked.shown.clone();
        Self {
            shown,
            previous: previous(ledger, hold),
            ..Self::summary(ledger, hold, waiting, now)
        }
    }

    /// The same without parameters.
    pub(crate) fn summary(ledger: &Ledger, hold: &HoldRecord, waiting: usize, now: Now) -> Self {
        let at_ms = ledger.time(now);
        let asked = &*hold.asked;
        let of = &asked.subject;
        let state = ledger.state(hold, at_ms);
        let left = if state.is_open() { asked.expires_ms.saturating_sub(at_ms) } else { 0 };
        let expires_unix_ms =
            if state.is_open() { wall_ms(now).saturating_add(left) } else { asked.expires_ms };
        Self {
            id: asked.id.clone(),
            digest: asked.digest.clone(),
            key: asked.key.clone(),
            state,
            call: asked.call.clone(),
            principal: of.principal.clone(),
            client: asked.client.clone(),
            server: of.server.clone(),
            method: of.method.clone(),
            target: of.target.clone(),
            effect: of.effect.clone(),
            tags: of.tags.clone(),
            environments: of.environments.clone(),
            facts: of.facts.clone(),
            shown: Box::default(),
            excerpt: excerpt(&asked.shown).into(),
            bytes: asked.shown.len(),
            previous: None,
            definition: of.definition.clone(),
            revision: of.revision.clone(),
            code: of.code.clone(),
            message: asked.message.clone(),
            approvers: of.approvers.clone(),
            quorum: of.quorum,
            scopes: of.scopes.iter().map(ScopeView::from).collect(),
            answers: hold.answers.iter().map(AnswerView::from).collect(),
            scope: hold.scope.clone(),
            granted_through: hold.through.as_ref().map(|through| through.hold.clone()),
            asked_unix_ms: asked.at_ms,
            changed_unix_ms: hold.changed_ms,
            expires_unix_ms,
            expires_in_ms: left,
            waiting,
        }
    }
}

/// The parameters of the call before this one that people let pass. Only a pending hold needs them.
fn previous(ledger: &Ledger, hold: &HoldRecord) -> Option<Box<str>> {
    if hold.state != HoldState::Pending {
        return None;
    }
    let of = &hold.asked.subject;
    let same = |other: &&HoldRecord| {
        let its = &other.asked.subject;
        other.asked.id != hold.asked.id
            && matches!(other.state, HoldState::Granted | HoldState::Spent | HoldState::Unknown)
            && (&its.principal, &its.server) == (&of.principal, &of.server)
            && (&its.method, &its.target) == (&of.method, &of.target)
    };
    let last = ledger.holds().filter(same).max_by_key(|other| other.changed_ms)?;
    Some(last.asked.shown.clone())
}
