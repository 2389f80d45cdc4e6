//! The decision point over both engines.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use regorus::Value;

use super::compiled::{self, Entry, Machine};
use super::memo::Memo;
use super::problem::PolicyProblem;
use super::recorded::recorded_input;
use super::result::{self, Fault, LATE};
use super::strict::{Interpreter, Trouble};
use super::workers::Workers;
use super::{Policy, input};
use bartizan_gate::duty::decision::{Decision, Engine, Listing, Origin, PolicyRevision, Reason};
use bartizan_gate::duty::pdp::{Inputs, ListEntry, Pdp, RecordedInput};
use bartizan_gate::question::access::AccessRequest;

/// Both engines were asked the same and answered differently. From then on the strict engine
/// answers alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demotion {
    /// The revision that was demoted.
    pub revision: PolicyRevision,
    /// What was asked: `decision` or `listing`.
    pub question: &'static str,
    /// What the strict engine answered; this answer was used.
    pub strict: String,
    /// What the compiled engine answered.
    pub compiled: String,
}

/// Answers with one policy.
#[derive(Debug)]
pub struct RegoPdp {
    policy: Policy,
    strict: Workers<Interpreter>,
    compiled: Option<Compiled>,
    /// Where the policy reads only what comes again.
    memo: Option<Memo>,
    demotion: OnceLock<Demotion>,
}

/// The compiled engine and its shadow.
#[derive(Debug)]
struct Compiled {
    machines: Workers<Machine>,
    /// One answer in so many is asked of the strict engine too; 0 and 1 mean each.
    shadow_one_in: u64,
    answered: AtomicU64,
}

impl RegoPdp {
    /// Answers with the strict engine, `workers` of it.
    pub fn strict(policy: Policy, workers: usize) -> Self {
        let others = (1..workers).map(|_| Interpreter::ready(&policy));
        let strict = Workers::new(Interpreter::ready(&policy), others);
        let memo = Memo::for_policy(policy.reads());
        Self { policy, strict, compiled: None, memo, demotion: OnceLock::new() }
    }

    /// Answers with the compiled engine, `workers` of it, and asks the strict engine again one
    /// time in `shadow_one_in`. Only for a policy whose proof says that it may.
    pub fn compiled(
        policy: Policy,
        workers: usize,
        shadow_one_in: u32,
    ) -> Result<Self, PolicyProblem> {
        let modules = compiled::rewritten(&policy).map_err(|reasons| {
            PolicyProblem::whole(format!("not for the compiled engine: {}", reasons.join("; ")))
        })?;
        let first = Machine::new(&policy, &modules)?;
        let others: Result<Vec<Machine>, PolicyProblem> =
            (1..workers).map(|_| Machine::new(&policy, &modules)).collect();
        let compiled = Compiled {
            machines: Workers::new(first, others?),
            shadow_one_in: u64::from(shadow_one_in.max(1)),
            answered: AtomicU64::new(0),
        };
        Ok(Self { compiled: Some(compiled), ..Self::strict(policy, workers) })
    }

    /// The policy that answers.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The engine that answers now.
    pub fn engine(&self) -> Engine {
        if self.compiled.is_some() && self.demotion.get().is_none() {
            Engine::Compiled
        } else {
            Engine::Strict
        }
    }

    /// Why the strict engine took over, if it did.
    pub fn demotion(&self) -> Option<Demotion> {
        self.demotion.get().cloned()
    }

    fn strict_value(&self, path: &str, input: Value) -> Result<Value, Fault> {
        let mut worker = self.strict.take().ok_or_else(|| Fault::evaluation("no worker"))?;
        worker.evaluate(path, input).map_err(|trouble| match trouble {
            Trouble::Late(message) => Fault::late(message),
            Trouble::Error(message) => Fault::evaluation(message),
        })
    }

    /// Whether the next answer of the compiled engine is asked of the strict engine as well.
    fn is_shadowed(&self) -> bool {
        self.compiled.as_ref().is_some_and(|compiled| {
            let answered = compiled.answered.fetch_add(1, Ordering::Relaxed);
            answered.checked_rem(compiled.shadow_one_in) == Some(0)
        })
    }

    /// What the compiled engine answers; nothing where the strict engine alone answers.
    fn compiled_value(&self, entry: Entry, input: &Value) -> Option<Value> {
        let compiled = self.compiled.as_ref().filter(|_| self.demotion.get().is_none())?;
        // Doubt is for the strict engine to settle.
        compiled.machines.take()?.evaluate(entry, input.clone()).ok()
    }

    fn demote(&self, question: &'static str, strict: String, compiled: String) {
        let revision = self.policy.revision();
        // Only the first disagreement is kept.
        self.demotion.get_or_init(|| Demotion { revision, question, strict, compiled });
    }

    fn strict_decision(&self, input: Value) -> Decision {
        let revision = self.policy.revision();
        self.strict_value(&self.policy.entrypoints().decision, input)
            .and_then(|value| result::decision(&value, revision.clone(), Engine::Strict))
            .unwrap_or_else(|fault| fault.deny(revision, Engine::Strict))
    }

    /// Judges an input as it is.
    pub(super) fn judge(&self, input: Value) -> Decision {
        self.judge_anew(input, self.is_shadowed())
    }

    /// Judges an input as before, if it came before. What the strict engine is to be asked as
    /// well is judged anew by both.
    fn judge_again(&self, input: Value) -> Decision {
        let shadowed = self.is_shadowed();
        let Some(memo) = &self.memo else { return self.judge_anew(input, shadowed) };
        if !shadowed && let Some(known) = memo.find(&input, self.engine()) {
            return known;
        }
        let decision = self.judge_anew(input.clone(), shadowed);
        memo.keep(input, &decision);
        decision
    }

    fn judge_anew(&self, input: Value, shadowed: bool) -> Decision {
        let Some(value) = self.compiled_value(Entry::Decision, &input) else {
            return self.strict_decision(input);
        };
        let revision = self.policy.revision();
        let compiled = result::decision(&value, revision.clone(), Engine::Compiled)
            .unwrap_or_else(|fault| fault.deny(revision, Engine::Compiled));
        if !shadowed {
            return compiled;
        }
        let strict = self.strict_decision(input);
        let late = strict.reasons.iter().any(is_late);
        if late || same_decision(&strict, &compiled) {
            return compiled;
        }
        self.demote("decision", format!("{strict:?}"), format!("{compiled:?}"));
        strict
    }

    fn strict_listing(&self, input: Value) -> Listing {
        let revision = self.policy.revision();
        self.strict_value(&self.policy.entrypoints().listing, input)
            .and_then(|value| result::listing(&value, revision.clone()))
            .unwrap_or_else(|fault| fault.withhold(revision))
    }

    /// Judges the input of a listing as it is.
    pub(super) fn judge_page(&self, input: Value) -> Listing {
        let shadowed = self.is_shadowed();
        let Some(value) = self.compiled_value(Entry::Listing, &input) else {
            return self.strict_listing(input);
        };
        let revision = self.policy.revision();
        let compiled = result::listing(&value, revision.clone())
            .unwrap_or_else(|fault| fault.withhold(revision));
        if !shadowed {
            return compiled;
        }
        let strict = self.strict_listing(input);
        let late = matches!(&strict, Listing::Withhold { reason, .. } if is_late(reason));
        if late || strict == compiled {
            return compiled;
        }
        self.demote("listing", format!("{strict:?}"), format!("{compiled:?}"));
        strict
    }
}

/// Whether time ran out. That is no disagreement: the other engine was done in time.
fn is_late(reason: &Reason) -> bool {
    reason.origin == Origin::Indeterminate && &*reason.code == LATE
}

/// Whether both say the same, whoever says it.
pub(super) fn same_decision(strict: &Decision, compiled: &Decision) -> bool {
    strict.effect == compiled.effect
        && strict.reasons == compiled.reasons
        && strict.obligations == compiled.obligations
}

impl Pdp for RegoPdp {
    fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let input = input::of_request(request, self.policy.reads());
        match input.lossy.first() {
            Some(pointer) => Fault::lossy(pointer).deny(self.policy.revision(), self.engine()),
            None => self.judge_again(input.value),
        }
    }

    fn list(&self, request: &AccessRequest<'_>, entries: &[ListEntry<'_>]) -> Listing {
        let input = input::of_listing(request, entries, self.policy.reads());
        match input.lossy.first() {
            Some(pointer) => Fault::lossy(pointer).withhold(self.policy.revision()),
            None => self.judge_page(input.value),
        }
    }

    fn recorded_input(&self, request: &AccessRequest<'_>, inputs: Inputs) -> Option<RecordedInput> {
        recorded_input(request, inputs)
    }

    fn revision(&self) -> PolicyRevision {
        self.policy.revision()
    }
}
