//! The policy decision point: a total function.
//!
//! Neither method returns a `Result`, so no caller can turn a failure into a permit.

use super::decision::{Decision, Engine, Listing, Origin, PolicyRevision, Reason};
use crate::question::access::AccessRequest;
use crate::question::operation::Operation;
use crate::question::standing::Standing;
use crate::wire::document::Value;

/// One entry of a page of definitions, as the policy sees it.
#[derive(Debug, Clone)]
pub struct ListEntry<'a> {
    /// Name of a tool or prompt; URI of a resource; URI template of a template.
    pub name: &'a str,
    /// What it comes to; for tools.
    pub operation: Option<Operation>,
    /// Digest of the definition, `sha256:<hex>`.
    pub digest: &'a str,
    /// The definition as the server sent it.
    pub definition: Option<Value<'a>>,
    /// What is known of it beside that.
    pub standing: Standing<'a>,
}

/// Answers questions.
pub trait Pdp: Send + Sync + std::fmt::Debug {
    /// May this pass? `data.mcp.decision`.
    fn decide(&self, request: &AccessRequest<'_>) -> Decision;

    /// Which of these definitions must the client not see? `data.mcp.listing`. `request` is the
    /// question that the list answers.
    fn list(&self, request: &AccessRequest<'_>, entries: &[ListEntry<'_>]) -> Listing;

    /// The input that the policy is asked about `request` with, as its record keeps it; nothing
    /// where `inputs` says so, and from a decision point that has no input document.
    fn recorded_input(
        &self,
        _request: &AccessRequest<'_>,
        _inputs: Inputs,
    ) -> Option<RecordedInput> {
        None
    }

    /// The revision that answers now.
    fn revision(&self) -> PolicyRevision;
}

/// Answers while there is no policy yet: nothing may pass.
#[derive(Debug, Default)]
pub struct NoPolicy;

impl NoPolicy {
    fn reason() -> Reason {
        Reason {
            code: "no_policy".into(),
            message: "no policy has been loaded yet".into(),
            origin: Origin::Indeterminate,
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

/// How much of a question's input its record keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Inputs {
    /// Nothing.
    #[default]
    None,
    /// What the firewall itself knows: no argument, parameter, list of URIs or
    /// session fact.
    Facts,
    /// Arguments and parameters too, but those whose names are of secrets.
    Values,
}

/// An input as a record keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedInput {
    /// The input. What was left out is `null`.
    pub input: serde_json::Value,
    /// RFC 6901 pointers below it of what was left out.
    pub left_out: Vec<String>,
}
