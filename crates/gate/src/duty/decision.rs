//! The policy's answer: permit or deny, with reasons and obligations.
//!
//! There is no third effect. A hold, a rate limit and a forced argument are obligations: the
//! enforcement point (`session`) discharges each of them, or the permit is void (XACML 3.0 §2.12).
//! "Not applicable" and "indeterminate" are reasons for a denial.

use std::sync::Arc;
use std::time::Duration;

pub use super::redact::Redaction;
pub use crate::question::hold::GrantScope;
pub use crate::question::rate::Rate;

/// Names the policy that answered: a digest of its sources and data, or the revision that a bundle
/// states in its manifest.
pub type PolicyRevision = Arc<str>;

/// The effect of a decision (XACML 3.0 §7.17), with no value between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The message may pass once every obligation is discharged.
    Permit,
    /// The message may not pass.
    Deny,
}

/// The engine that evaluated the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The interpreter in which every built-in error denies. Where engines differ, it is right.
    Strict,
    /// The compiled engine, used for policies that were proven to mean the same on both engines.
    Compiled,
    /// No engine: the gate itself decided, before or without asking the policy.
    None,
}

impl Engine {
    /// The name used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Compiled => "compiled",
            Self::None => "none",
        }
    }
}

/// Where a [`Reason`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// A rule of the policy permitted or denied.
    Rule,
    /// No rule permitted the request (default deny).
    NotApplicable,
    /// The policy could not be evaluated: a runtime error, an exceeded limit, or a result of the
    /// wrong shape.
    Indeterminate,
    /// A rate limit was exceeded.
    Limited,
    /// The frame broke the strict profile.
    Malformed,
    /// A routing header and the body disagree (P11).
    HeaderMismatch,
    /// A check of the gate's own state failed: a duplicate id, an answer to no request in flight, a
    /// full table.
    Protocol,
    /// An obligation could not be discharged.
    Undischarged,
}

impl Origin {
    /// The name used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::NotApplicable => "not_applicable",
            Self::Indeterminate => "indeterminate",
            Self::Limited => "limited",
            Self::Malformed => "malformed",
            Self::HeaderMismatch => "header_mismatch",
            Self::Protocol => "protocol",
            Self::Undischarged => "undischarged",
        }
    }
}

/// What a rule tells the agent whose message it refuses or holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tell {
    /// A sentence for the agent. Of a text of more than 512 bytes the agent gets the beginning.
    pub text: Box<str>,
    /// Whether the agent is told, too, if the policy hides the tool. It then learns that the tool
    /// exists.
    pub hidden: bool,
}

/// One reason of a decision. Goes into records; only what it tells goes to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// A short, stable identifier: a rule's own code, or one of the gate's refusal codes.
    pub code: Box<str>,
    /// An explanation for a person who reads the record.
    pub message: Box<str>,
    /// What gave the reason: a rule, the evaluation, or a check of the gate.
    pub origin: Origin,
    /// What the agent is told, if the message is refused for this reason.
    pub tell: Option<Tell>,
}

/// Period from which on what a limit has counted outlives the program.
const KEPT_FROM: Duration = Duration::from_hours(1);

/// A limit that counts a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The code of the rule that demands it. Limits of one code, key and bound count together.
    pub code: Box<str>,
    /// The value by which the rule counts separately, such as a principal.
    pub key: Box<str>,
    /// How much it permits.
    pub bound: Bound,
    /// How much this call takes of it; at least 1. Not used for calls in flight.
    pub cost: u32,
}

/// How much a [`Limit`] permits. 0 permits nothing, in each form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// At most the rate's count in every stretch of its period. Exact for counts up to 16; above, an
    /// event counts for up to a tenth of the period longer.
    Sliding(Rate),
    /// A token bucket: at most `burst` at once, and at most `burst` and what the rate gives in that
    /// time in every stretch of time.
    Bucket {
        /// How fast the bucket refills.
        rate: Rate,
        /// Events that may come at once.
        burst: u32,
    },
    /// At most the rate's count in each window. A window begins with the first event after the
    /// last one has ended, and lasts for the period; up to twice the count may come around its end.
    Fixed(Rate),
    /// At most this many calls in flight.
    InFlight(u32),
}

impl Bound {
    /// Whether it bounds events in time, not calls in flight.
    pub fn is_rate(self) -> bool {
        !matches!(self, Self::InFlight(_))
    }

    /// Whether what it has counted outlives the program: its period is an hour or more, or it takes
    /// that long until all of its burst is back.
    pub fn is_kept(self) -> bool {
        match self {
            Self::Sliding(rate) | Self::Fixed(rate) => rate.period >= KEPT_FROM,
            Self::Bucket { rate, burst } => {
                let refill = rate.period.saturating_mul(burst);
                rate.period >= KEPT_FROM || refill >= KEPT_FROM.saturating_mul(rate.count)
            }
            Self::InFlight(_) => false,
        }
    }
}

/// What a `hold` rule demands of an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRule {
    /// The code of the rule.
    pub code: Box<str>,
    /// The rule's message, for the record and for approvers.
    pub message: Box<str>,
    /// What the agent is told whose call is held.
    pub tell: Option<Tell>,
    /// The groups of which an approver must be a member of one; empty for any approver.
    pub approvers: Vec<Box<str>>,
    /// How long the call waits for an answer, and how long the grant may be used; absent for
    /// [`TTL_DEFAULT`](super::hold::TTL_DEFAULT).
    pub ttl: Option<Duration>,
    /// How many different people must grant it, at least 1.
    pub quorum: u32,
    /// Wider grants that approvers may choose.
    pub scopes: Vec<GrantScope>,
}

/// An obligation of a permit (XACML 3.0 §2.12): the permit holds only once it is discharged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obligation {
    /// A person must approve the call first. Where nothing can ask one, this refuses.
    Hold(HoldRule),
    /// The call is counted; a limit that is reached refuses it.
    Limit(Limit),
    /// An argument is set before the call is forwarded.
    Set {
        /// Which argument: an RFC 6901 pointer below `params.arguments`.
        pointer: Box<str>,
        /// The value, as a strict JSON text.
        value: Box<str>,
    },
    /// Something is removed from the answer before the client receives it.
    Redact {
        /// The code of the rule that demands it.
        code: Box<str>,
        /// What to remove: the value at a pointer, or secrets of known forms.
        redaction: Redaction,
    },
}

impl Obligation {
    /// The name of its type in records: `hold`, `limit`, `set` or `redact`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Hold(_) => "hold",
            Self::Limit { .. } => "limit",
            Self::Set { .. } => "set",
            Self::Redact { .. } => "redact",
        }
    }
}

/// The policy's answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may pass.
    pub effect: Effect,
    /// Why; at least one reason.
    pub reasons: Vec<Reason>,
    /// What must be discharged before the permit holds; on a denial, the limits that count it.
    pub obligations: Vec<Obligation>,
    /// The policy that answered.
    pub revision: PolicyRevision,
    /// The engine that evaluated it.
    pub engine: Engine,
}

impl Decision {
    /// The redactions among the obligations: what must be removed from the answer.
    pub fn redactions(&self) -> impl Iterator<Item = &Redaction> {
        self.obligations.iter().filter_map(|obligation| match obligation {
            Obligation::Redact { redaction, .. } => Some(redaction),
            Obligation::Hold(_) | Obligation::Limit { .. } | Obligation::Set { .. } => None,
        })
    }

    /// Returns a denial for one reason, without obligations.
    pub fn deny(revision: PolicyRevision, engine: Engine, reason: Reason) -> Self {
        Self {
            effect: Effect::Deny,
            reasons: vec![reason],
            obligations: Vec::new(),
            revision,
            engine,
        }
    }
}

/// The policy's answer about one page of definitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// These definitions are removed from the page.
    Hide {
        /// Names of tools and prompts, URIs of resources, URI templates.
        names: Vec<Box<str>>,
        /// The policy that answered.
        revision: PolicyRevision,
    },
    /// The policy could not be evaluated, so the whole page must be withheld.
    Withhold {
        /// Why the evaluation failed.
        reason: Reason,
        /// The policy whose evaluation failed.
        revision: PolicyRevision,
    },
}
