//! The compiled engine: regorus's bytecode machine (RVM), run so that no error is lost.
//!
//! Every built-in and every guard is a host call ("host await" in regorus): the machine suspends,
//! and where the call fails it is not resumed, so no rule body can ignore the failure. An
//! evaluation without a clean result returns [`Doubt`]; the strict engine then answers. A machine,
//! its program and its data belong to one worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use regorus::Value;
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::instructions::Instruction;
use regorus::rvm::program::Program;
use regorus::rvm::vm::{ExecutionMode, ExecutionState, RegoVM};

use super::builtins::Meter;
use super::eligible::{self, GUARDS, Guard};
use super::problem::PolicyProblem;
use super::{Module, Policy, builtins, strict};

/// Built-ins that the machine may run by itself: guards have checked the types of their operands.
const OPERATORS: [&str; 2] = ["__builtin_sets.union", "__builtin_sets.intersection"];

/// Why the machine's answer does not count: one line of text, for a problem or a proof.
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

/// The machine of one worker. After a panic it is built anew for the next evaluation.
pub(super) struct Machine {
    policy: Policy,
    modules: Arc<[Module]>,
    vm: Option<RegoVM>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("revision", &self.policy.revision()).finish_non_exhaustive()
    }
}

/// The modules with guards written in, ready for [`Machine::new`].
///
/// # Errors
///
/// One line for each construct that keeps the policy from the compiled engine (see `eligible`).
pub(super) fn rewritten(policy: &Policy) -> Result<Arc<[Module]>, Vec<String>> {
    let mut engine = policy.parsed().map_err(|problem| vec![problem.to_string()])?;
    let modules = eligible::rewrite(policy.modules(), engine.get_modules(), policy.entrypoints())?;
    Ok(modules.into())
}

impl Machine {
    /// Compiles and loads a policy whose modules were [`rewritten`].
    pub(super) fn new(policy: &Policy, modules: &Arc<[Module]>) -> Result<Self, PolicyProblem> {
        let vm = Some(load(policy, modules)?);
        Ok(Self { policy: policy.clone(), modules: Arc::clone(modules), vm })
    }

    /// Evaluates an entrypoint. The value is undefined where the rule has none.
    pub(super) fn evaluate(&mut self, entry: Entrypoint, input: Value) -> Result<Value, Doubt> {
        let mut vm = match self.vm.take() {
            Some(vm) => vm,
            None => load(&self.policy, &self.modules).map_err(|it| Doubt(it.to_string()))?,
        };
        let policy = &self.policy;
        let outcome = catch_unwind(AssertUnwindSafe(move || {
            vm.set_input(input);
            let value = run(&mut vm, entry, policy);
            (value, vm)
        }));
        match outcome {
            Ok((value, vm)) => {
                self.vm = Some(vm);
                value
            }
            Err(_) => Err(Doubt("the machine panicked".to_owned())),
        }
    }
}

/// Runs the machine until it has a result, and answers its host calls.
fn run(vm: &mut RegoVM, entry: Entrypoint, policy: &Policy) -> Result<Value, Doubt> {
    let doubt = |error: &dyn std::fmt::Display| Doubt(error.to_string());
    let index = match entry {
        Entrypoint::Decision => 0,
        Entrypoint::Listing => 1,
    };
    let mut value = vm.execute_entry_point_by_index(index).map_err(|error| doubt(&error))?;
    let mut meter = Meter::default();
    // Each round runs at least one instruction, and the machine bounds instructions by itself.
    for _ in 0..policy.limits().instructions_max {
        match vm.execution_state() {
            ExecutionState::Suspended { .. } => {}
            ExecutionState::Completed { .. } => return Ok(value),
            ExecutionState::Ready | ExecutionState::Running | ExecutionState::Error { .. } => {
                return Err(Doubt("the machine stopped without a result".to_owned()));
            }
        }
        let answer = host_call(vm, policy, &mut meter)?;
        value = vm.resume(Some(answer)).map_err(|error| doubt(&error))?;
    }
    Err(Doubt("too many host calls".to_owned()))
}

fn host_call(vm: &RegoVM, policy: &Policy, meter: &mut Meter) -> Result<Value, Doubt> {
    let (Some(Value::String(name)), Some(Value::Array(args))) =
        (vm.get_host_await_identifier(), vm.get_host_await_argument())
    else {
        return Err(Doubt("the machine suspended for another reason than a host call".to_owned()));
    };
    if let Some(guard) = guard(name) {
        let value = args.first().filter(|value| guard.admits(value));
        return value
            .cloned()
            .ok_or_else(|| Doubt(format!("an operand fails the guard {guard:?}")));
    }
    let builtin = builtins::find_any(name).ok_or_else(|| Doubt(format!("no built-in `{name}`")))?;
    builtins::call(builtin, args.as_slice(), policy.limits(), meter).map_err(Doubt)
}

fn guard(name: &str) -> Option<Guard> {
    let guards = name.starts_with("__").then_some(GUARDS)?;
    guards.iter().find(|(guard, _)| *guard == name).map(|(_, guard)| *guard)
}

/// Parses, compiles and loads the rewritten modules.
fn load(policy: &Policy, modules: &[Module]) -> Result<RegoVM, PolicyProblem> {
    let loaded = catch_unwind(AssertUnwindSafe(|| {
        let program = Arc::new(compile(policy, modules)?);
        let mut vm = RegoVM::new();
        vm.load_program(program);
        vm.set_data(policy.data()).map_err(|error| PolicyProblem::unlocated(error.to_string()))?;
        vm.set_max_instructions(policy.limits().instructions_max);
        vm.set_execution_timer_config(Some(strict::timer(policy.limits())));
        // The machine's strict mode reports a comparison of two types as an error. Rego allows it.
        vm.set_strict_builtin_errors(false);
        vm.set_execution_mode(ExecutionMode::Suspendable);
        Ok(vm)
    }));
    loaded.unwrap_or_else(|_| Err(PolicyProblem::unlocated("the compiler panicked on this policy")))
}

fn compile(policy: &Policy, modules: &[Module]) -> Result<Program, PolicyProblem> {
    let mut engine = strict::parsed(modules, policy.limits())?;
    engine
        .add_data(policy.data())
        .map_err(|error| PolicyProblem::from_regorus(&error.to_string(), "data"))?;
    let entrypoints = policy.entrypoints();
    let compiled = engine
        .compile_with_entrypoint(&entrypoints.decision.as_str().into())
        .map_err(|error| PolicyProblem::from_regorus(&error.to_string(), ""))?;
    let guards = GUARDS.iter().map(|(name, _)| (*name, 1));
    let table = builtins::all().map(|builtin| (builtin.name, builtin.arity()));
    let host: Vec<(&str, usize)> = table.chain(guards).collect();
    let entries = [entrypoints.decision.as_str(), entrypoints.listing.as_str()];
    let program = Compiler::compile_from_policy_with_host_await(&compiled, &entries, &host)
        .map_err(|error| PolicyProblem::from_regorus(&error.to_string(), ""))?;
    let mut program = Arc::unwrap_or_clone(program);
    for rule in &mut program.rule_infos {
        // The interpreter evaluates every definition, and so reports an error in any of them.
        rule.early_exit_on_first_success = false;
    }
    check_bytecode(&program)?;
    Ok(program)
}

/// Checks the bytecode: it may call no function except through the host, and may not look up rules
/// at run time, because then a rule that [`eligible`] did not check could be evaluated.
fn check_bytecode(program: &Program) -> Result<(), PolicyProblem> {
    let refused = |what: String| Err(PolicyProblem::unlocated(format!("the program {what}")));
    for builtin in &program.builtin_info_table {
        if !OPERATORS.contains(&builtin.name.as_str()) {
            return refused(format!("calls `{}` without the host", builtin.name));
        }
    }
    for instruction in &program.instructions {
        if matches!(instruction, Instruction::VirtualDataDocumentLookup { .. }) {
            return refused("looks rules up at run time".to_owned());
        }
    }
    if program.needs_runtime_recursion_check || program.needs_recompilation {
        return refused("must be compiled again before it can run".to_owned());
    }
    Ok(())
}
