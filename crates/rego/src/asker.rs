//! A policy asked for a document beside its decisions, such as what to mask in a log.
//!
//! On the strict engine, with an interpreter of its own, so that it takes nothing from those who
//! decide. Absent where the policy has no rule of that name.

use bytes::Bytes;
use regorus::Value;

use super::check::Index;
use super::problem::PolicyProblem;
use super::prove::parsed;
use super::strict::Interpreter;
use super::value;
use super::{Policy, PolicyRevision};
use bartizan_gate::wire::document::{Document, DocumentLimits};

/// Asks one policy for one document.
#[derive(Debug)]
pub struct Asker {
    interpreter: Option<Interpreter>,
    path: String,
    revision: PolicyRevision,
}

impl Asker {
    /// Asks `policy` for the rule at `path`, such as `data.system.log.mask`.
    pub fn new(policy: &Policy, path: &str) -> Result<Self, PolicyProblem> {
        let mut engine = parsed(policy)?;
        let names: Vec<&str> = path.split('.').skip(1).collect();
        let defined = Index::of(engine.get_modules()).rules.contains_key(&names);
        let interpreter = defined.then(|| Interpreter::new(policy)).transpose()?;
        Ok(Self { interpreter, path: path.to_owned(), revision: policy.revision() })
    }

    /// The policy that is asked.
    pub fn revision(&self) -> &PolicyRevision {
        &self.revision
    }

    /// What the rule comes to for an input, both JSON text; nothing where it is undefined or not
    /// there.
    pub fn ask(&mut self, input_json: &str) -> Result<Option<String>, PolicyProblem> {
        let Some(interpreter) = &mut self.interpreter else { return Ok(None) };
        let raw = Bytes::copy_from_slice(input_json.as_bytes());
        let whole = PolicyProblem::whole;
        let document = Document::read(raw, &DocumentLimits::default())
            .map_err(|unreadable| whole(format!("the input is not strict JSON: {unreadable:?}")))?;
        let value = interpreter
            .evaluate(&self.path, value::of_document(document.root()).value)
            .map_err(|trouble| whole(trouble.to_string()))?;
        Ok(match value {
            Value::Undefined => None,
            value => Some(value::json(&value)),
        })
    }
}
