//! The interface of the policy decision point (PDP), which `session` calls and `bartizan-rego`
//! implements.
//!
//! It is total: neither method returns a `Result`, so no caller can turn a failure into a permit.

use super::decision::{Decision, Engine, Listing, Origin, PolicyRevision, Reason};
use crate::question::access::AccessRequest;
use crate::question::operation::Operation;
use crate::question::status::DefinitionStatus;
use crate::wire::document::Value;

/// One definition on a page of a list, as the policy sees it.
#[derive(Debug, Clone)]
pub struct ListEntry<'a> {
    /// The name of a tool or prompt, the URI of a resource, the URI template of a template.
    pub name: &'a str,
    /// For a tool: what it does by its pack, before arguments are known. Absent for other lists.
    pub operation: Option<Operation>,
    /// Digest of the definition, `sha256:<hex>`.
    pub digest: &'a str,
    /// The definition as the server sent it; absent where only the name is asked about.
    pub definition: Option<Value<'a>>,
    /// Its drift from the lock and its flags.
    pub status: DefinitionStatus<'a>,
}

/// A policy decision point. Shared by all sessions, called on any thread, must not block.
pub trait Pdp: Send + Sync + std::fmt::Debug {
    /// Decides whether `request` may pass (`data.mcp.decision`). Any failure is a denial.
    fn decide(&self, request: &AccessRequest<'_>) -> Decision;

    /// Decides which of `entries` are hidden from the client (`data.mcp.listing`). `request` is the
    /// list request that the page answers. Any failure withholds the page.
    fn list(&self, request: &AccessRequest<'_>, entries: &[ListEntry<'_>]) -> Listing;

    /// Whether the policy reads the definition of a called tool, so that definitions must be kept.
    fn reads_definitions(&self) -> bool {
        false
    }

    /// Whether the policy reads the session fact `name`, so that nothing may select another value
    /// of it while a call that it has judged is in flight.
    fn reads_fact(&self, _name: &str) -> bool {
        true
    }

    /// Returns the policy input of `request` as its record keeps it. `None` where `inputs` is
    /// [`Inputs::None`], and from a decision point that has no input document.
    fn recorded_input(
        &self,
        _request: &AccessRequest<'_>,
        _inputs: Inputs,
    ) -> Option<RecordedInput> {
        None
    }

    /// The revision of the policy that answers now.
    fn revision(&self) -> PolicyRevision;
}

/// A decision point that denies everything: used until a policy has been loaded.
#[derive(Debug, Default)]
pub struct NoPolicy;

impl NoPolicy {
    fn reason() -> Reason {
        Reason {
            code: "no_policy".into(),
            message: "no policy has been loaded yet".into(),
            origin: Origin::Indeterminate,
            tell: None,
        }
    }
}

impl Pdp for NoPolicy {
    fn decide(&self, _: &AccessRequest<'_>) -> Decision {
        Decision::deny(self.revision(), Engine::None, Self::reason())
    }

    fn list(&self, _: &AccessRequest<'_>, _: &[ListEntry<'_>]) -> Listing {
        Listing::Withhold { reason: Self::reason(), revision: self.revision() }
    }

    fn revision(&self) -> PolicyRevision {
        "none".into()
    }
}

/// A decision point that denies everything: used when the policy has become older than it may be,
/// until a newer one comes.
#[derive(Debug)]
pub struct ExpiredPolicy {
    /// The revision of the policy that is too old.
    pub revision: PolicyRevision,
}

impl ExpiredPolicy {
    fn reason() -> Reason {
        Reason {
            code: "policy_expired".into(),
            message: "the policy is older than it may be, and no newer one has come".into(),
            origin: Origin::Indeterminate,
            tell: None,
        }
    }
}

impl Pdp for ExpiredPolicy {
    fn decide(&self, _: &AccessRequest<'_>) -> Decision {
        Decision::deny(self.revision(), Engine::None, Self::reason())
    }

    fn list(&self, _: &AccessRequest<'_>, _: &[ListEntry<'_>]) -> Listing {
        Listing::Withhold { reason: Self::reason(), revision: self.revision() }
    }

    fn revision(&self) -> PolicyRevision {
        self.revision.clone()
    }
}

/// How much of the policy input a record keeps (`audit.inputs` in the configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Inputs {
    /// Nothing.
    #[default]
    None,
    /// What the firewall itself knows; no argument, parameter, list of URIs or session fact.
    Facts,
    /// Arguments and parameters too, except those whose names indicate secrets.
    Values,
}

/// A policy input as a record keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedInput {
    /// The input document; each value that was left out is `null`.
    pub input: serde_json::Value,
    /// RFC 6901 pointers, below the input, of the values that were left out.
    pub left_out: Vec<String>,
}
