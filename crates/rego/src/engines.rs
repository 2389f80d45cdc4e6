//! The policy decision point (PDP) over both engines.
//!
//! The compiled engine answers where the policy may run on it; the strict engine answers where
//! the compiled one is in doubt, and checks a share of its answers. No method returns an error to
//! the gate: a failed evaluation is a denial, or a withheld list (`docs/strict-profile.md`, P15).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use regorus::Value;

use super::cache::DecisionCache;
use super::compiled::{self, Entrypoint, Machine};
use super::pool::Pool;
use super::problem::PolicyProblem;
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
    /// Present where the policy's decisions may be cached (see `cache`).
    cache: Option<DecisionCache>,
    demotion: OnceLock<Demotion>,
}

/// The compiled engine and its shadowing.
#[derive(Debug)]
struct Compiled {
    machines: Pool<Machine>,
    /// One answer in this many is checked against the strict engine; 1 checks each.
    shadow_one_in: u64,
    answered: AtomicU64,
}

impl RegoPdp {
    /// A PDP that uses the strict engine alone, with `workers` interpreters (at least one).
    pub fn strict(policy: Policy, workers: usize) -> Self {
        let others = (1..workers).map(|_| Interpreter::ready(&policy));
        let strict = Pool::new(Interpreter::ready(&policy), others);
        let cache = DecisionCache::for_policy(policy.reads());
        Self { policy, strict, compiled: None, cache, demotion: OnceLock::new() }
    }

    /// A PDP that uses the compiled engine, with `workers` machines and as many interpreters (at
    /// least one each), and checks one answer in `shadow_one_in` (0 counts as 1) against the
    /// strict engine. The caller has a [`Proof`](super::Proof) that allows it.
    ///
    /// # Errors
    ///
    /// The policy uses a construct that the compiled engine may not run, or it cannot be compiled.
    pub fn compiled(
        policy: Policy,
        workers: usize,
        shadow_one_in: u32,
    ) -> Result<Self, PolicyProblem> {
        let modules = compiled::rewritten(&policy).map_err(|reasons| {
            PolicyProblem::unlocated(format!(
                "the compiled engine may not run this policy: {}",
                reasons.join("; ")
            ))
        })?;
        let first = Machine::new(&policy, &modules)?;
        let others: Result<Vec<Machine>, PolicyProblem> =
            (1..workers).map(|_| Machine::new(&policy, &modules)).collect();
        let compiled = Compiled {
            machines: Pool::new(first, others?),
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

    /// The compiled engine's value; `None` where the strict engine must answer: the policy has no
    /// compiled engine, was demoted, or the evaluation ended in doubt.
    fn compiled_value(&self, entry: Entrypoint, input: &Value) -> Option<Value> {
        let compiled = self.compiled.as_ref().filter(|_| self.demotion.get().is_none())?;
        compiled.machines.acquire()?.evaluate(entry, input.clone()).ok()
    }

    fn demote(&self, question: &'static str, strict: String, compiled: String) {
        let revision = self.policy.revision();
        // Only the first disagreement is stored.
        self.demotion.get_or_init(|| Demotion { revision, question, strict, compiled });
    }

    fn strict_decision(&self, input: Value) -> Decision {
        let revision = self.policy.revision();
        self.strict_value(&self.policy.entrypoints().decision, input)
            .and_then(|value| result::decision(&value, revision.clone(), Engine::Strict))
            .unwrap_or_else(|fault| fault.deny(revision, Engine::Strict))
    }

    /// Evaluates the decision for an input, without the cache.
    pub(super) fn decide_input(&self, input: Value) -> Decision {
        self.decide_uncached(input, self.take_shadow_turn())
    }

    /// The decision for an input, from the cache where it is there. An answer whose turn it is to
    /// be checked is evaluated again, by both engines.
    fn decide_cached(&self, input: Value) -> Decision {
        let shadowed = self.take_shadow_turn();
        let Some(cache) = &self.cache else { return self.decide_uncached(input, shadowed) };
        if !shadowed && let Some(known) = cache.get(&input, self.engine()) {
            return known;
        }
        let decision = self.decide_uncached(input.clone(), shadowed);
        cache.insert(input, &decision);
        decision
    }

    fn decide_uncached(&self, input: Value, shadowed: bool) -> Decision {
        let Some(value) = self.compiled_value(Entrypoint::Decision, &input) else {
            return self.strict_decision(input);
        };
        let revision = self.policy.revision();
        let compiled = result::decision(&value, revision.clone(), Engine::Compiled)
            .unwrap_or_else(|fault| fault.deny(revision, Engine::Compiled));
        if !shadowed {
            return compiled;
        }
        let strict = self.strict_decision(input);
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
            .and_then(|value| result::listing(&value, revision.clone()))
            .unwrap_or_else(|fault| fault.withhold(revision))
    }

    /// Evaluates the listing for an input.
    pub(super) fn list_input(&self, input: Value) -> Listing {
        let shadowed = self.take_shadow_turn();
        let Some(value) = self.compiled_value(Entrypoint::Listing, &input) else {
            return self.strict_listing(input);
        };
        let revision = self.policy.revision();
        let compiled = result::listing(&value, revision.clone())
            .unwrap_or_else(|fault| fault.withhold(revision));
        if !shadowed {
            return compiled;
        }
        let strict = self.strict_listing(input);
        let late = matches!(&strict, Listing::Withhold { reason, .. } if is_timeout(reason));
        if late || strict == compiled {
            return compiled;
        }
        self.demote("listing", format!("{strict:?}"), format!("{compiled:?}"));
        strict
    }
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
        let input = input::of_request(request, self.policy.reads());
        match input.inexact.first() {
            Some(pointer) => {
                Indeterminate::inexact_number(pointer).deny(self.policy.revision(), self.engine())
            }
            // What a person answered must not be stored after it passed.
            None if input::is_answer(request) => self.decide_input(input.value),
            None => self.decide_cached(input.value),
        }
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
        let input = input::of_listing(request, entries, self.policy.reads());
        match input.inexact.first() {
            Some(pointer) => {
                Indeterminate::inexact_number(pointer).withhold(self.policy.revision())
            }
            None => self.list_input(input.value),
        }
    }
}
