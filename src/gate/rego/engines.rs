//! The decision point over both engines.

use regorus::Value;

use super::result::{self, Fault};
use super::strict::Interpreter;
use super::workers::Workers;
use super::{Policy, input};
use crate::gate::access::AccessRequest;
use crate::gate::decision::{Decision, Engine, Listing, PolicyRevision};
use crate::gate::pdp::{ListEntry, Pdp};

/// Answers with one policy.
#[derive(Debug)]
pub struct RegoPdp {
    policy: Policy,
    strict: Workers<Interpreter>,
}

impl RegoPdp {
    /// Temporary.
    pub fn compiled(policy: Policy, workers: usize, _: u32) -> Result<Self, super::PolicyProblem> {
        Ok(Self::strict(policy, workers))
    }

    /// Answers with the strict engine, `workers` of it.
    pub fn strict(policy: Policy, workers: usize) -> Self {
        let others = (1..workers).map(|_| Interpreter::ready(&policy));
        let strict = Workers::new(Interpreter::ready(&policy), others);
        Self { policy, strict }
    }

    /// The engine that answers now.
    pub fn engine(&self) -> Engine {
        Engine::Strict
    }

    fn strict_value(&self, path: &str, input: Value) -> Result<Value, Fault> {
        let mut worker = self.strict.take().ok_or_else(|| Fault::evaluation("no worker"))?;
        worker.evaluate(path, input).map_err(Fault::evaluation)
    }

    fn judge(&self, input: Value) -> Decision {
        let revision = self.policy.revision();
        let path = &self.policy.entrypoints().decision;
        self.strict_value(path, input)
            .and_then(|value| result::decision(&value, revision.clone(), Engine::Strict))
            .unwrap_or_else(|fault| fault.deny(revision, Engine::Strict))
    }

    fn judge_page(&self, input: Value) -> Listing {
        let revision = self.policy.revision();
        let path = &self.policy.entrypoints().listing;
        self.strict_value(path, input)
            .and_then(|value| result::listing(&value, revision.clone()))
            .unwrap_or_else(|fault| fault.withhold(revision))
    }
}

impl Pdp for RegoPdp {
    fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let input = input::of_request(request, self.policy.reads());
        match input.lossy.first() {
            Some(pointer) => Fault::lossy(pointer).deny(self.policy.revision(), self.engine()),
            None => self.judge(input.value),
        }
    }

    fn list(&self, request: &AccessRequest<'_>, entries: &[ListEntry<'_>]) -> Listing {
        let input = input::of_listing(request, entries, self.policy.reads());
        match input.lossy.first() {
            Some(pointer) => Fault::lossy(pointer).withhold(self.policy.revision()),
            None => self.judge_page(input.value),
        }
    }

    fn revision(&self) -> PolicyRevision {
        self.policy.revision()
    }
}
