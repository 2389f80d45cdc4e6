//! The answer: permit or deny, why, and with which duties.
//!
//! There is no third effect. A hold, a limit, a forced argument are obligations: the enforcement
//! point discharges each or the permit is void (XACML 3.0 §2.12). Not applicable and
//! indeterminate are reasons for a denial.

use std::sync::Arc;
use std::time::Duration;

pub use super::redact::Redaction;
pub use crate::question::rate::Rate;

/// Which policy answered: a digest of its sources and data, or a bundle's own revision.
pub type PolicyRevision = Arc<str>;

/// Permit or deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// May pass once every obligation is discharged.
    Permit,
    /// May not pass.
    Deny,
}

/// Which machine evaluated the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The interpreter with strict built-in errors: the authority.
    Strict,
    /// The proven bytecode machine.
    Compiled,
    /// None: the gate itself answered.
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
    /// A rule of the policy.
    Rule,
    /// No rule permitted it.
    NotApplicable,
    /// The policy could not be evaluated: an error, a limit, a wrong shape.
    Indeterminate,
    /// A rate limit was spent.
    Limited,
    /// The frame broke the strict profile.
    Malformed,
    /// Routing headers and body disagree.
    HeaderMismatch,
    /// The gate's own bookkeeping: a duplicate id, an answer nobody waits for, a full table.
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

/// One reason, as the evaluation itself gave it. For records; never for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Stable and short.
    pub code: Box<str>,
    /// For a person.
    pub message: Box<str>,
    /// Where it comes from.
    pub origin: Origin,
}

/// A duty that comes with a permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obligation {
    /// A person must approve first.
    Hold {
        /// The rule's code.
        code: Box<str>,
        /// The rule's message.
        message: Box<str>,
        /// Groups that may approve.
        approvers: Vec<Box<str>>,
        /// How long the question stands.
        ttl: Option<Duration>,
    },
    /// One event is spent from this bucket.
    Limit {
        /// The rule's code; part of the bucket's key.
        code: Box<str>,
        /// What is counted apart; part of the bucket's key.
        key: Box<str>,
        /// How fast the bucket refills.
        rate: Rate,
        /// How many may come at once; at least 1 unless the rate is 0.
        burst: u32,
    },
    /// An argument is set before the call goes on.
    Set {
        /// RFC 6901 pointer below `params.arguments`.
        pointer: Box<str>,
        /// The value, as strict JSON text.
        value: Box<str>,
    },
    /// Something is taken out of the answer before anybody has it.
    Redact {
        /// The rule's code.
        code: Box<str>,
        /// What.
        redaction: Redaction,
    },
}

impl Obligation {
    /// Its name in records.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Hold { .. } => "hold",
            Self::Limit { .. } => "limit",
            Self::Set { .. } => "set",
            Self::Redact { .. } => "redact",
        }
    }
}

/// The policy's answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Permit or deny.
    pub effect: Effect,
    /// Why; at least one.
    pub reasons: Vec<Reason>,
    /// Duties; empty on a denial.
    pub obligations: Vec<Obligation>,
    /// The policy that answered.
    pub revision: PolicyRevision,
    /// The machine that evaluated it.
    pub engine: Engine,
}

impl Decision {
    /// What must be taken out of the answer.
    pub fn redactions(&self) -> impl Iterator<Item = &Redaction> {
        self.obligations.iter().filter_map(|obligation| match obligation {
            Obligation::Redact { redaction, .. } => Some(redaction),
            Obligation::Hold { .. } | Obligation::Limit { .. } | Obligation::Set { .. } => None,
        })
    }

    /// A denial for one reason.
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
    /// Hide these, by name (tools, prompts) or URI (resources, templates).
    Hide {
        /// The names.
        names: Vec<Box<str>>,
        /// The policy that answered.
        revision: PolicyRevision,
    },
    /// The question could not be answered: the page must be withheld.
    Withhold {
        /// Why.
        reason: Reason,
        /// The policy that failed.
        revision: PolicyRevision,
    },
}
