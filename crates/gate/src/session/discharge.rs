//! What becomes of a decision: its duties are discharged, or the message is refused.
//!
//! Both directions use it, for requests, answers and entries of lists.

use std::cell::LazyCell;

use bytes::Bytes;

use crate::duty::arguments;
use crate::duty::decision::{Bound, Decision, Effect, Limit, Obligation, Origin, Reason};
use crate::duty::limit::{NotCounted, Places, Wait};
use crate::evidence::record::{
    AuditRecord, DecisionFacts, Finding, Now, OBLIGATIONS_MAX, ReasonFacts,
};
use crate::evidence::refusal::Refusal;
use crate::evidence::text::{Label, Listed, Text, Told};
use crate::evidence::told;
use crate::question::hold::{self, Hold, HoldEnd};
use crate::wire::frame::{Frame, Sender};
use crate::wire::protocol::Direction;

use super::Gate;
use super::holds::Asker;
use super::payment::{Paid, Payment};
use super::question::Question;

/// A permit whose obligations are all discharged.
struct Discharged {
    /// The frame with arguments set; absent where no argument was set.
    edited: Option<Frame>,
    obligations: Obligations,
    places: Option<Places>,
}

/// The obligations of a decision, as its record names them.
type Obligations = Listed<Text<Label>, OBLIGATIONS_MAX>;

/// What [`enforce`] returns for a message that passes.
pub(super) type Enforced = (Option<Frame>, DecisionFacts, Option<Refusal>, Option<Places>);

/// A refusal with the reasons for its record.
pub(super) struct ReasonedRefusal {
    pub(super) refusal: Refusal,
    pub(super) reasons: Vec<Reason>,
    /// What a person must approve, where the refusal is that nobody has.
    pub(super) hold: Option<Box<Hold>>,
    /// What an earlier attempt has paid for it.
    pub(super) paid: Option<Box<Payment>>,
}

impl ReasonedRefusal {
    /// A refusal for these reasons.
    pub(super) fn new(refusal: Refusal, reasons: Vec<Reason>) -> Self {
        Self { refusal, reasons, hold: None, paid: None }
    }

    /// A refusal by a check of the gate itself.
    pub(super) fn of(refusal: Refusal, why: &str) -> Self {
        let refusal_code = refusal.code();
        Self::new(refusal, vec![reason(refusal_code, why, Origin::Protocol)])
    }

    /// A refusal because a rule would set an argument in a message that has none.
    pub(super) fn unsettable() -> Self {
        let why = reason("unsettable", "there is no argument to set", Origin::Undischarged);
        Self::new(Refusal::Denied, vec![why])
    }
}

/// Enforces a decision. Returns the edited frame to forward, if an argument was set, the decision
/// for the record, what would have been the refusal in enforce mode, and the places in limits of
/// calls in flight, which the call holds as long as it is in flight. `precheck` is a refusal that
/// holds whatever the policy decided; `asker` says for whom approvals may be asked. In observe mode
/// nothing is edited or refused; the record says what would have been.
///
/// # Errors
///
/// The refusal and its reasons.
pub(super) fn enforce(
    gate: &Gate,
    question: &Question<'_>,
    decision: &Decision,
    precheck: Option<ReasonedRefusal>,
    asker: Option<Asker<'_>>,
    now: Now,
) -> Result<Enforced, ReasonedRefusal> {
    let discharged = match precheck {
        Some(refused) => Err(refused),
        None => discharge(gate, question, decision, asker, now),
    };
    match discharged {
        Ok(Discharged { places, .. }) if gate.observes() => {
            Ok((None, decision_facts(decision, false, Obligations::default()), None, places))
        }
        Ok(Discharged { edited, obligations, places }) => {
            Ok((edited, decision_facts(decision, true, obligations), None, places))
        }
        Err(refused) if gate.observes() => {
            Ok((None, denied_facts(decision, &refused, false), Some(refused.refusal), None))
        }
        Err(refused) => Err(refused),
    }
}

/// Discharges the obligations: rate limits first, so that a flood reaches neither an approver nor
/// the server; then arguments; approval last. Redactions are discharged when the answer comes.
fn discharge(
    gate: &Gate,
    question: &Question<'_>,
    decision: &Decision,
    asker: Option<Asker<'_>>,
    now: Now,
) -> Result<Discharged, ReasonedRefusal> {
    let Some(payment) = asker.and_then(|asker| paid_before(gate, question, decision, asker, now))
    else {
        return discharge_for(gate, question, decision, asker, now);
    };
    let paid = Paid::Held { payment: &payment, reserved: None };
    let asker = asker.map(|asker| Asker { paid, ..asker });
    discharge_for(gate, question, decision, asker, now).map_err(|mut refused| {
        if refused.hold.is_some() {
            refused.paid = Some(Box::new(payment.clone()));
        } else {
            gate.payments.put(payment.clone());
        }
        refused
    })
}

/// What an earlier attempt has paid for a call that a rule holds.
fn paid_before(
    gate: &Gate,
    question: &Question<'_>,
    decision: &Decision,
    asker: Asker<'_>,
    now: Now,
) -> Option<Payment> {
    let has_paid = !matches!(asker.paid, Paid::Nothing);
    if has_paid || decision.effect == Effect::Deny || gate.payments.is_empty() {
        return None;
    }
    let rule = decision.obligations.iter().find_map(|obligation| match obligation {
        Obligation::Hold(rule) => Some(rule),
        Obligation::Limit(_) | Obligation::Set { .. } | Obligation::Redact { .. } => None,
    })?;
    let edited = edited(gate, question, decision, &mut Obligations::default()).ok()?;
    let shown = hold::shown(edited.as_ref().unwrap_or(question.frame).params());
    gate.payments.take(&asker.hold(question, shown, rule, decision).key, now.uptime)
}

/// [`discharge`] for an asker whose payments are known.
fn discharge_for(
    gate: &Gate,
    question: &Question<'_>,
    decision: &Decision,
    asker: Option<Asker<'_>>,
    now: Now,
) -> Result<Discharged, ReasonedRefusal> {
    let mut obligations = Obligations::default();
    for limit in limits(&decision.obligations) {
        obligations.push(format!("limit:{}", limit.code));
    }
    // A message that was held, or that is sent once more, has paid when it came, but it is in flight
    // only now.
    let paid = asker.map_or(Paid::Nothing, |asker| asker.paid);
    // Only a request is in flight; a limit of 0 permits no other message, either.
    let request = question.is_request();
    let counted = limits(&decision.obligations).filter(|limit| match limit.bound {
        Bound::InFlight(most) => request || most == 0,
        Bound::Sliding(_) | Bound::Fixed(_) | Bound::Bucket { .. } => !paid.covers(limit),
    });
    let places = gate.limits.spend_with(counted, paid.reserved(), now.uptime);
    let places = places.map_err(not_counted)?;
    // After the limits: some count denials, so that a flood of them slows down (threat K8).
    if decision.effect == Effect::Deny {
        return Err(ReasonedRefusal::new(Refusal::Denied, Vec::new()));
    }
    let edited = edited(gate, question, decision, &mut obligations)?;
    for obligation in &decision.obligations {
        // Recorded here, discharged when the answer comes.
        if let Obligation::Redact { code, .. } = obligation {
            obligations.push(format!("redact:{code}"));
        }
    }
    let passing = edited.as_ref().unwrap_or(question.frame);
    approved(question, passing, decision, asker, &mut obligations)?;
    Ok(Discharged { edited, obligations, places })
}

/// The message with the arguments that a decision sets, if it sets any.
///
/// # Errors
///
/// One cannot be set.
fn edited(
    gate: &Gate,
    question: &Question<'_>,
    decision: &Decision,
    obligations: &mut Obligations,
) -> Result<Option<Frame>, ReasonedRefusal> {
    let mut edited = None;
    for obligation in &decision.obligations {
        if let Obligation::Set { pointer, value } = obligation {
            let frame = edited.as_ref().unwrap_or(question.frame);
            let set = with_argument(gate, frame, question.direction, pointer, value);
            edited = Some(set.ok_or_else(|| {
                let why = format!("`{pointer}` cannot be set in this call");
                let why = reason("unsettable", &why, Origin::Undischarged);
                ReasonedRefusal::new(Refusal::Denied, vec![why])
            })?);
            obligations.push(format!("set:{pointer}"));
        }
    }
    Ok(edited)
}

/// Discharges the holds of a decision, with what was granted for the message `passing`.
///
/// # Errors
///
/// Some are not granted yet. The refusal has all of these, so that all are asked for at once.
fn approved(
    question: &Question<'_>,
    passing: &Frame,
    decision: &Decision,
    asker: Option<Asker<'_>>,
    obligations: &mut Obligations,
) -> Result<(), ReasonedRefusal> {
    let mut missing: Vec<Hold> = Vec::new();
    let mut why = Vec::new();
    let shown = LazyCell::new(|| hold::shown(passing.params()));
    for obligation in &decision.obligations {
        let Obligation::Hold(rule) = obligation else { continue };
        let wanted =
            asker.map(|asker| (asker, asker.hold(question, Bytes::clone(&shown), rule, decision)));
        if wanted.as_ref().is_some_and(|(asker, hold)| asker.is_granted(hold)) {
            obligations.push(format!("hold:{}", rule.code));
            continue;
        }
        let why_held = reason(&rule.code, &rule.message, Origin::Undischarged);
        why.push(Reason { tell: rule.tell.clone(), ..why_held });
        let Some((asker, hold)) = wanted else { continue };
        // One key is one hold: what asks other people under the same code is asked for later.
        if missing.iter().all(|other| other.key != hold.key) {
            missing.push(hold);
        }
        if !asker.may_ask(missing.len()) {
            let refusal = Refusal::Approval(HoldEnd::TooMany);
            return Err(ReasonedRefusal::new(refusal, why));
        }
    }
    if why.is_empty() {
        return Ok(());
    }
    let refused = ReasonedRefusal::new(Refusal::ApprovalRequired, why);
    let mut missing = missing.into_iter();
    let hold = missing.next().map(|first| Box::new(Hold { also: missing.collect(), ..first }));
    Err(ReasonedRefusal { hold, ..refused })
}

/// The limits among obligations.
pub(super) fn limits(obligations: &[Obligation]) -> impl Iterator<Item = &Limit> + Clone {
    obligations.iter().filter_map(|obligation| match obligation {
        Obligation::Limit(limit) => Some(limit),
        Obligation::Hold(_) | Obligation::Set { .. } | Obligation::Redact { .. } => None,
    })
}

/// The refusal of a call that does not pass its limits.
fn not_counted(why: NotCounted) -> ReasonedRefusal {
    match why {
        NotCounted::Exceeded(exceeded) => {
            let why = match exceeded.wait {
                Wait::For(_) => "the rate limit is spent",
                Wait::ForEnd(_) => "as many calls are in flight as the limit permits",
                Wait::Forever => "the limit never permits this call",
            };
            let why = vec![reason(&exceeded.code, why, Origin::Limited)];
            ReasonedRefusal::new(Refusal::Limited(exceeded.wait), why)
        }
        NotCounted::NotKept(not_kept) => {
            let why = vec![reason("limit-not-kept", &not_kept.cause, Origin::Undischarged)];
            ReasonedRefusal::new(Refusal::Unrecorded, why)
        }
    }
}

/// Returns `frame` with one argument set, read again by the same rules as any frame.
fn with_argument(
    gate: &Gate,
    frame: &Frame,
    direction: Direction,
    pointer: &str,
    value: &str,
) -> Option<Frame> {
    let limits = &gate.config.frame;
    let body = arguments::set(frame.document(), pointer, value, &limits.document).ok()?;
    let sender = match direction {
        Direction::ToServer => Sender::Client,
        Direction::ToClient => Sender::Server,
    };
    Frame::read(body, sender, limits).ok()
}

/// The record of a message that passes, with the finding of what enforce mode would have refused.
pub(super) fn observed_record(
    mut record: AuditRecord,
    verdict: DecisionFacts,
    observed: Option<&Refusal>,
) -> AuditRecord {
    record.decision = Some(verdict);
    match observed {
        Some(refusal) => record.with_finding(finding_of(refusal)),
        None => record,
    }
}

/// The finding of a refusal in a record that is about no call of a tool.
pub(super) fn finding_of(refusal: &Refusal) -> Finding {
    refusal.finding().unwrap_or(Finding::ToolDenied)
}

pub(super) fn reason(code: &str, message: &str, origin: Origin) -> Reason {
    Reason { code: code.into(), message: message.into(), origin, tell: None }
}

fn decision_facts(decision: &Decision, enforced: bool, obligations: Obligations) -> DecisionFacts {
    DecisionFacts {
        effect: match decision.effect {
            Effect::Permit => "permit",
            Effect::Deny => "deny",
        },
        enforced,
        reasons: decision.reasons.iter().map(ReasonFacts::from).collect(),
        obligations,
        policy: Text::shared(&decision.revision),
        engine: decision.engine.as_str(),
        told: None,
    }
}

/// The decision for the record of a refusal: a permit whose obligation could not be discharged is a
/// denial.
pub(super) fn denied_facts(
    decision: &Decision,
    refused: &ReasonedRefusal,
    enforced: bool,
) -> DecisionFacts {
    decision_facts(decision, enforced, Obligations::default()).denied(&refused.reasons)
}

/// What the rules tell the agent whose message they refuse or hold. `hidden`: it calls a tool that
/// the policy hides, so that only those rules tell it that say so.
pub(super) fn told(
    decision: &Decision,
    refused: &ReasonedRefusal,
    hidden: bool,
) -> Option<Box<Text<Told>>> {
    let denied = decision.effect == Effect::Deny && refused.refusal == Refusal::Denied;
    let rules = if denied { &decision.reasons[..] } else { &[] };
    let tells = refused.reasons.iter().chain(rules).filter_map(|reason| reason.tell.as_ref());
    told::together(tells.filter(|tell| tell.hidden || !hidden)).map(Box::new)
}
