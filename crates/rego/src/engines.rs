//! The policy decision point (PDP) over both engines.
//!
//! The compiled engine answers where the policy may run on it; the strict engine answers where
//! the compiled one is in doubt, and checks a share of its answers. No method returns an error to
//! the gate: a failed evaluation is a denial, or a withheld list (`docs/strict-profile.md`, P15).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use regorus::Value;

use super::pool::Pool;
use super::program::{Entrypoint, Operand, Program, Source};
use super::recorded::recorded_input;
use super::result::{self, Indeterminate, TIMED_OUT};
use super::strict::Interpreter;
use super::{Policy, input};
use bartizan_gate::duty::decision::{Decision, Engine, Listing, Origin, PolicyRevision, Reason};
use bartizan_gate::duty::pdp::{Inputs, ListEntry, Pdp, RecordedInput};
use bartizan_gate::question::access::AccessRequest;

/// Entries of a page that are judged at once. In an engine an entry takes a few KiB, so a page of
/// 60,000 would take 200 MiB (threat K12).
const LISTED_AT_ONCE_MAX: usize = 4096;

/// Both engines gave different answers to one input. From then on the strict engine answers alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demotion {
    /// The revision that was demoted.
    pub revision: PolicyRevision,
    /// Which entrypoint was evaluated: `decision` or `listing`.
    pub question: &'static str,
    /// The strict engine's answer, which was used, as debug text.
    pub strict: String,
    /// The compiled engine's answer, as debug text.
    pub compiled: String,
}

/// The PDP for one revision of a policy. Threads share it; each evaluation takes a worker of its
/// own.
#[derive(Debug)]
pub struct RegoPdp {
    policy: Policy,
    strict: Pool<Interpreter>,
    compiled: Option<Compiled>,
    demotion: OnceLock<Demotion>,
}

/// The compiled engine and its shadowing.
#[derive(Debug)]
struct Compiled {
    program: Program,
    /// One answer in this many is checked against the strict engine; 1 checks each.
    shadow_one_in: u64,
    answered: AtomicU64,
}

impl RegoPdp {
    /// A PDP that uses the strict engine alone, with `workers` interpreters (at least one).
    pub fn strict(policy: Policy, workers: usize) -> Self {
        let others = (1..workers).map(|_| Interpreter::ready(&policy));
        let strict = Pool::new(Interpreter::ready(&policy), others);
        Self { policy, strict, compiled: None, demotion: OnceLock::new() }
    }

    /// A PDP that uses the compiled engine, with `workers` interpreters beside it (at least one),
    /// and checks one answer in `shadow_one_in` (0 counts as 1) against the strict engine. The
    /// caller has a [`Proof`](super::Proof) that allows it.
    ///
    /// # Errors
    ///
    /// `file:line: construct` for each construct that the compiled engine does not have.
    pub fn compiled(
        policy: Policy,
        workers: usize,
        shadow_one_in: u32,
    ) -> Result<Self, Vec<String>> {
        let compiled = Compiled {
            program: Program::compile(&policy)?,
            shadow_one_in: u64::from(shadow_one_in.max(1)),
            answered: AtomicU64::new(0),
        };
        Ok(Self { compiled: Some(compiled), ..Self::strict(policy, workers) })
    }

    /// The policy that is evaluated.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The engine that evaluates the next question: strict after a demotion.
    pub fn engine(&self) -> Engine {
        if self.compiled.is_some() && self.demotion.get().is_none() {
            Engine::Compiled
        } else {
            Engine::Strict
        }
    }

    /// The disagreement after which the strict engine answers alone; `None` if there was none.
    pub fn demotion(&self) -> Option<Demotion> {
        self.demotion.get().cloned()
    }

    fn strict_value(&self, path: &str, input: Value) -> Result<Value, Indeterminate> {
        let mut worker = self
            .strict
            .acquire()
            .ok_or_else(|| Indeterminate::failed("no worker is configured"))?;
        worker.evaluate(path, input).map_err(|error| {
            if error.timed_out {
                Indeterminate::timed_out(error.recorded)
            } else {
                Indeterminate::failed(error.recorded)
            }
        })
    }

    /// Counts one answer, and says whether it is checked against the strict engine.
    fn take_shadow_turn(&self) -> bool {
        self.compiled.as_ref().is_some_and(|compiled| {
            let answered = compiled.answered.fetch_add(1, Ordering::Relaxed);
            answered.checked_rem(compiled.shadow_one_in) == Some(0)
        })
    }

    /// The compiled engine's value, as `read` reads it; `None` where the strict engine must answer:
    /// the policy has no compiled engine, was demoted, or the evaluation ended in doubt.
    fn answer<T>(
        &self,
        entry: Entrypoint,
        source: Source<'_>,
        read: impl FnOnce(Option<Operand<'_>>) -> T,
    ) -> Option<T> {
        let compiled = self.compiled.as_ref().filter(|_| self.demotion.get().is_none())?;
        compiled.program.evaluate(entry, source, |value| Ok(read(value))).ok()
    }

    fn compiled_decision(&self, source: Source<'_>) -> Option<Decision> {
        let revision = self.policy.revision();
        self.answer(Entrypoint::Decision, source, |value| {
            result::decision(value, revision.clone(), Engine::Compiled)
                .unwrap_or_else(|fault| fault.deny(revision, Engine::Compiled))
        })
    }

    fn compiled_listing(&self, source: Source<'_>) -> Option<Listing> {
        let revision = self.policy.revision();
        self.answer(Entrypoint::Listing, source, |value| {
            result::listing(value, revision.clone())
                .unwrap_or_else(|fault| fault.withhold(revision))
        })
    }

    fn demote(&self, question: &'static str, strict: String, compiled: String) {
        let revision = self.policy.revision();
        // Only the first disagreement is stored.
        self.demotion.get_or_init(|| Demotion { revision, question, strict, compiled });
    }

    fn strict_decision(&self, input: Value) -> Decision {
        let revision = self.policy.revision();
        self.strict_value(&self.policy.entrypoints().decision, input)
            .and_then(|value| result::decision(defined(&value), revision.clone(), Engine::Strict))
            .unwrap_or_else(|fault| fault.deny(revision, Engine::Strict))
    }

    /// Evaluates the decision for an input that was built before.
    pub(super) fn decide_input(&self, input: Value) -> Decision {
        let compiled = self.compiled_decision(Source::Built(&input));
        self.decision(compiled, || input)
    }

    /// The decision: the compiled engine's, where it has one. `input` is called where the strict
    /// engine must answer, or checks the answer.
    fn decision(&self, compiled: Option<Decision>, input: impl FnOnce() -> Value) -> Decision {
        let shadowed = self.take_shadow_turn();
        let Some(compiled) = compiled else { return self.strict_decision(input()) };
        if !shadowed {
            return compiled;
        }
        let strict = self.strict_decision(input());
        let late = strict.reasons.iter().any(is_timeout);
        if late || same_decision(&strict, &compiled) {
            return compiled;
        }
        self.demote("decision", format!("{strict:?}"), format!("{compiled:?}"));
        strict
    }

    fn strict_listing(&self, input: Value) -> Listing {
        let revision = self.policy.revision();
        self.strict_value(&self.policy.entrypoints().listing, input)
            .and_then(|value| result::listing(defined(&value), revision.clone()))
            .unwrap_or_else(|fault| fault.withhold(revision))
    }

    /// Evaluates the listing for an input that was built before.
    pub(super) fn list_input(&self, input: Value) -> Listing {
        let compiled = self.compiled_listing(Source::Built(&input));
        self.listing(compiled, || input)
    }

    /// The listing, as [`Self::decision`].
    fn listing(&self, compiled: Option<Listing>, input: impl FnOnce() -> Value) -> Listing {
        let shadowed = self.take_shadow_turn();
        let Some(compiled) = compiled else { return self.strict_listing(input()) };
        if !shadowed {
            return compiled;
        }
        let strict = self.strict_listing(input());
        let late = matches!(&strict, Listing::Withhold { reason, .. } if is_timeout(reason));
        if late || strict == compiled {
            return compiled;
        }
        self.demote("listing", format!("{strict:?}"), format!("{compiled:?}"));
        strict
    }
}

/// The strict engine's value, where it is defined.
fn defined(value: &Value) -> Option<&Value> {
    (*value != Value::Undefined).then_some(value)
}

/// Whether an evaluation exceeded its time limit. A timeout of the strict engine is no disagreement.
fn is_timeout(reason: &Reason) -> bool {
    reason.origin == Origin::Indeterminate && &*reason.code == TIMED_OUT
}

/// Whether two decisions are equal apart from the engine's name.
pub(super) fn same_decision(strict: &Decision, compiled: &Decision) -> bool {
    strict.effect == compiled.effect
        && strict.reasons == compiled.reasons
        && strict.obligations == compiled.obligations
}

impl Pdp for RegoPdp {
    fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        if let Some(fault) = self.policy.ambiguous_name(request) {
            return fault.deny(self.policy.revision(), self.engine());
        }
        let reads = self.policy.reads();
        if let Some(pointer) = input::first_inexact(request, reads) {
            let fault = Indeterminate::inexact_number(&pointer);
            return fault.deny(self.policy.revision(), self.engine());
        }
        let compiled = self.compiled_decision(Source::Request(request));
        self.decision(compiled, || input::of_request(request, reads).value)
    }

    fn list(&self, request: &AccessRequest<'_>, entries: &[ListEntry<'_>]) -> Listing {
        if entries.len() <= LISTED_AT_ONCE_MAX {
            return self.list_part(request, entries);
        }
        let mut hidden = Vec::new();
        for part in entries.chunks(LISTED_AT_ONCE_MAX) {
            match self.list_part(request, part) {
                Listing::Hide { names, .. } => hidden.extend(names),
                withheld @ Listing::Withhold { .. } => return withheld,
            }
        }
        Listing::Hide { names: hidden, revision: self.policy.revision() }
    }

    fn reads_definitions(&self) -> bool {
        let tool = self.policy.reads().member("tool");
        tool.is_some_and(|tool| tool.member("definition").is_some())
    }

    fn reads_fact(&self, name: &str) -> bool {
        let facts = self.policy.reads().member("session").and_then(|it| it.member("facts"));
        facts.is_some_and(|facts| facts.reads_names() || facts.member(name).is_some())
    }

    fn recorded_input(&self, request: &AccessRequest<'_>, inputs: Inputs) -> Option<RecordedInput> {
        recorded_input(request, inputs)
    }

    fn revision(&self) -> PolicyRevision {
        self.policy.revision()
    }
}

impl RegoPdp {
    /// The listing for so many entries of a page as are judged at once.
    fn list_part(&self, request: &AccessRequest<'_>, entries: &[ListEntry<'_>]) -> Listing {
        let reads = self.policy.reads();
        if let Some(pointer) = input::first_inexact(request, reads) {
            return Indeterminate::inexact_number(&pointer).withhold(self.policy.revision());
        }
        let source = Source::Page(request, entries, reads);
        let compiled = self.compiled_listing(source);
        self.listing(compiled, || input::of_listing(request, entries, reads).value)
    }
}
