//! Queries for a rule that is no decision, such as the one that says what to mask in a log.
//!
//! A query has an interpreter (strict engine) of its own, so it never takes a worker from the
//! decisions. The exporter of decision logs calls it.

use bytes::Bytes;
use regorus::Value;

use super::check::Index;
use super::problem::{PolicyProblem, not_strict_json};
use super::strict::Interpreter;
use super::value;
use super::{Policy, PolicyRevision};
use bartizan_gate::wire::document::{Document, DocumentLimits};

/// A query of one policy for the value of one rule.
#[derive(Debug)]
pub struct RuleQuery {
    /// Absent where the policy does not define the rule.
    interpreter: Option<Interpreter>,
    path: String,
    revision: PolicyRevision,
}

impl RuleQuery {
    /// Prepares a query of `policy` for the rule at `path`, such as `data.system.log.mask`. The
    /// policy need not define that rule.
    ///
    /// # Errors
    ///
    /// The interpreter cannot load the policy.
    pub fn new(policy: &Policy, path: &str) -> Result<Self, PolicyProblem> {
        let mut engine = policy.parsed()?;
        let names: Vec<&str> = path.split('.').skip(1).collect();
        let defined = Index::of(engine.get_modules()).rules.contains_key(&names);
        let interpreter = defined.then(|| Interpreter::new(policy)).transpose()?;
        Ok(Self { interpreter, path: path.to_owned(), revision: policy.revision() })
    }

    /// The revision of the policy that is queried.
    pub fn revision(&self) -> &PolicyRevision {
        &self.revision
    }

    /// Evaluates the rule. Input and value are JSON text; `None` where the rule is undefined for
    /// this input, or not defined at all.
    ///
    /// # Errors
    ///
    /// The input is not strict JSON, or the evaluation failed; without values of the input.
    pub fn evaluate(&mut self, input_json: &str) -> Result<Option<String>, PolicyProblem> {
        let Some(interpreter) = &mut self.interpreter else { return Ok(None) };
        let raw = Bytes::copy_from_slice(input_json.as_bytes());
        let unlocated = PolicyProblem::unlocated;
        let document = Document::read(raw, &DocumentLimits::default()).map_err(|unreadable| {
            unlocated(format!("the input is {}", not_strict_json(&unreadable)))
        })?;
        let value = interpreter
            .evaluate(&self.path, value::of_document(document.root()).value)
            .map_err(|error| unlocated(error.recorded))?;
        Ok(match value {
            Value::Undefined => None,
            value => Some(value::json(&value)),
        })
    }
}
