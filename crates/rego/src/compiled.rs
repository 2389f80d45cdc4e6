//! The bytecode machine, held so tight that it cannot permit by mistake.
//!
//! Every built-in and every guard is a call of the host: the machine stops there, and where the
//! call fails it is not started again, so no rule body can hide the failure. Whatever is not a
//! clean result is [`Doubt`], and doubt is answered by the strict engine. A machine, its program
//! and its data belong to one worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use regorus::Value;
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::instructions::Instruction;
use regorus::rvm::program::Program;
use regorus::rvm::vm::{ExecutionMode, ExecutionState, RegoVM};

use super::eligible::{self, GUARDS, Guard};
use super::problem::PolicyProblem;
use super::{Module, Policy, builtins, strict};

/// Built-ins of the machine itself that are let through: their operands are guarded.
const OPERATORS: [&str; 2] = ["__builtin_sets.union", "__builtin_sets.intersection"];

/// Why the machine gave no answer that counts.
#[derive(Debug)]
pub(super) struct Doubt(pub(super) String);

/// Which rule to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// The decision.
    Decision,
    /// The listing.
    Listing,
}

/// One worker's machine.
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

/// The modules in the form that the machine gets, or why it may not run them.
pub(super) fn rewritten(policy: &Policy) -> Result<Arc<[Module]>, Vec<String>> {
    let mut engine = strict::empty_engine(policy.limits());
    for module in policy.modules() {
        engine
            .add_policy(module.path.clone(), module.text.clone())
            .map_err(|error| vec![PolicyProblem::of_regorus(&error.to_string(), "").to_string()])?;
    }
    let modules = eligible::rewrite(policy.modules(), engine.get_modules(), policy.entrypoints())?;
    Ok(modules.into())
}

impl Machine {
    /// A machine of its own for a policy whose modules were [`rewritten`].
    pub(super) fn new(policy: &Policy, modules: &Arc<[Module]>) -> Result<Self, PolicyProblem> {
        let vm = Some(load(policy, modules)?);
        Ok(Self { policy: policy.clone(), modules: Arc::clone(modules), vm })
    }

    /// The value of the rule that is asked, or doubt.
    pub(super) fn evaluate(&mut self, entry: Entry, input: Value) -> Result<Value, Doubt> {
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

/// Runs until there is a result, answering each call of the host.
fn run(vm: &mut RegoVM, entry: Entry, policy: &Policy) -> Result<Value, Doubt> {
    let doubt = |error: &dyn std::fmt::Display| Doubt(error.to_string());
    let index = match entry {
        Entry::Decision => 0,
        Entry::Listing => 1,
    };
    let mut value = vm.execute_entry_point_by_index(index).map_err(|error| doubt(&error))?;
    // Each round carries out at least one instruction, and those are counted.
    for _ in 0..policy.limits().instructions_max {
        match vm.execution_state() {
            ExecutionState::Suspended { .. } => {}
            ExecutionState::Completed { .. } => return Ok(value),
            ExecutionState::Ready | ExecutionState::Running | ExecutionState::Error { .. } => {
                return Err(Doubt("the machine stopped without a result".to_owned()));
            }
        }
        let answer = host_call(vm, policy)?;
        value = vm.resume(Some(answer)).map_err(|error| doubt(&error))?;
    }
    Err(Doubt("too many calls of the host".to_owned()))
}

fn host_call(vm: &RegoVM, policy: &Policy) -> Result<Value, Doubt> {
    let (Some(Value::String(name)), Some(Value::Array(args))) =
        (vm.get_host_await_identifier(), vm.get_host_await_argument())
    else {
        return Err(Doubt("the machine stopped for something else than a call".to_owned()));
    };
    if let Some(guard) = guard(name) {
        let value = args.first().filter(|value| guard.admits(value));
        return value.cloned().ok_or_else(|| Doubt(format!("an operand is no {guard:?}")));
    }
    let builtin = builtins::find(name).ok_or_else(|| Doubt(format!("no built-in `{name}`")))?;
    builtins::call(builtin, args.as_slice(), policy.limits()).map_err(Doubt)
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
        vm.set_data(policy.data()).map_err(|error| PolicyProblem::whole(error.to_string()))?;
        vm.set_max_instructions(policy.limits().instructions_max);
        vm.set_execution_timer_config(Some(strict::timer(policy.limits())));
        // Comparing values of two types is no error in Rego; the machine's strictness calls it one.
        vm.set_strict_builtin_errors(false);
        vm.set_execution_mode(ExecutionMode::Suspendable);
        Ok(vm)
    }));
    loaded.unwrap_or_else(|_| Err(PolicyProblem::whole("the compiler panicked on this policy")))
}

fn compile(policy: &Policy, modules: &[Module]) -> Result<Program, PolicyProblem> {
    let limits = policy.limits();
    let longest = modules.iter().map(|module| module.text.len()).max().unwrap_or_default();
    // Guards make lines longer than what was written.
    let wider = super::EvalLimits {
        source_bytes_max: longest.max(limits.source_bytes_max),
        columns_max: longest.max(limits.columns_max),
        ..*limits
    };
    let mut engine = strict::empty_engine(&wider);
    for module in modules {
        engine
            .add_policy(module.path.clone(), module.text.clone())
            .map_err(|error| PolicyProblem::of_regorus(&error.to_string(), &module.path))?;
    }
    engine
        .add_data(policy.data())
        .map_err(|error| PolicyProblem::of_regorus(&error.to_string(), "data"))?;
    let entrypoints = policy.entrypoints();
    let compiled = engine
        .compile_with_entrypoint(&entrypoints.decision.as_str().into())
        .map_err(|error| PolicyProblem::of_regorus(&error.to_string(), ""))?;
    let guards = GUARDS.iter().map(|(name, _)| (*name, 1));
    let table = builtins::TABLE.iter().map(|builtin| (builtin.name, builtin.arity()));
    let host: Vec<(&str, usize)> = table.chain(guards).collect();
    let entries = [entrypoints.decision.as_str(), entrypoints.listing.as_str()];
    let program = Compiler::compile_from_policy_with_host_await(&compiled, &entries, &host)
        .map_err(|error| PolicyProblem::of_regorus(&error.to_string(), ""))?;
    let mut program = Arc::unwrap_or_clone(program);
    for rule in &mut program.rule_infos {
        // The interpreter tries every definition, and so meets every error.
        rule.early_exit_on_first_success = false;
    }
    inspect(&program)?;
    Ok(program)
}

/// Holds the bytecode itself to the rules: nothing that calls past the host, nothing that looks
/// rules up at run time.
fn inspect(program: &Program) -> Result<(), PolicyProblem> {
    let refused = |what: String| Err(PolicyProblem::whole(format!("the program {what}")));
    for builtin in &program.builtin_info_table {
        if !OPERATORS.contains(&builtin.name.as_str()) {
            return refused(format!("calls `{}` past the host", builtin.name));
        }
    }
    for instruction in &program.instructions {
        if matches!(instruction, Instruction::VirtualDataDocumentLookup { .. }) {
            return refused("looks rules up at run time".to_owned());
        }
    }
    if program.needs_runtime_recursion_check || program.needs_recompilation {
        return refused("is not whole".to_owned());
    }
    Ok(())
}
