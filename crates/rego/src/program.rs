//! The compiled engine: a policy as a program that finds its input where it stands.
//!
//! [`compile`](Program::compile) turns the syntax trees of the rules that the entrypoints reach into
//! terms with resolved names; [`evaluate`](Program::evaluate) computes a rule for one input. Rules
//! with many definitions are indexed by the texts of the input that they demand. The strict engine
//! stays the authority: an evaluation that meets an error, a conflict or a limit ends in [`Doubt`],
//! and a construct that could mean something else there is not compiled at all.

mod part;
mod operand;
mod input;
mod native;
mod ir;
mod schedule;
mod needs;
mod index;
mod compile;
mod eval;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Policy;
use crate::check::Index;
use eval::Evaluation;
pub(crate) use input::Source;
pub(crate) use operand::{Operand, Type};

/// Why an evaluation gives no answer: one line of text, for a problem or a proof.
#[derive(Debug)]
pub(super) struct Doubt(pub(super) String);

/// Which of the policy's [`Entrypoints`](super::Entrypoints) to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entrypoint {
    /// The rule for one message.
    Decision,
    /// The rule for one page of a list.
    Listing,
}

/// A compiled policy. Threads share it.
#[derive(Debug)]
pub(super) struct Program {
    policy: Policy,
    program: ir::Program,
}

impl Program {
    /// Compiles a policy.
    ///
    /// # Errors
    ///
    /// One line for each rule that must be evaluated by the strict engine.
    pub(super) fn compile(policy: &Policy) -> Result<Self, Vec<String>> {
        let mut engine = policy.parsed().map_err(|problem| vec![problem.to_string()])?;
        let index = Index::of(engine.get_modules());
        let program = compile::compile(&index, &policy.data(), policy.entrypoints())?;
        Ok(Self { policy: policy.clone(), program })
    }

    /// Evaluates an entrypoint, and gives its value to `read`: `None` where the rule has none.
    pub(super) fn evaluate<T>(
        &self,
        entry: Entrypoint,
        source: Source<'_>,
        read: impl FnOnce(Option<Operand<'_>>) -> Result<T, Doubt>,
    ) -> Result<T, Doubt> {
        let at = match entry {
            Entrypoint::Decision => self.program.decision,
            Entrypoint::Listing => self.program.listing,
        };
        let at = at.ok_or_else(|| Doubt("the policy has no such rule".to_owned()))?;
        let evaluated = catch_unwind(AssertUnwindSafe(|| {
            let mut evaluation = Evaluation::new(&self.program, source, self.policy.limits());
            let value = evaluation.rule(at)?;
            read(value.map(Operand::stored).transpose()?)
        }));
        evaluated.unwrap_or_else(|_| Err(Doubt("the program panicked".to_owned())))
    }
}
