//! The strict engine: regorus's interpreter with strict built-in errors (OPA's option of the same
//! name).
//!
//! One [`Interpreter`] belongs to one worker. It has its own copy of modules and data, so workers
//! do not contend for reference counts. An error in any rule, a failure of any built-in, a panic
//! or an exceeded limit makes the evaluation an error. After a panic the interpreter is built anew.

use std::num::{NonZeroU32, NonZeroUsize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, PolicyLengthConfig, Value};

use super::builtins;
use super::problem::{PolicyProblem, RegorusError, without_values};
use super::{EvalLimits, FileCoverage, Module, Policy};
use bartizan_sync::lock;

/// The interpreter compares the time with the limit once in this many steps.
const TIMER_STEPS: u32 = 16;

/// What the built-ins of one evaluation leave behind.
#[derive(Debug, Default)]
struct Calls {
    /// The first failure. It makes the evaluation an error even where regorus returns a value.
    failure: Option<String>,
    /// The steps so far.
    meter: builtins::Meter,
}

type SharedCalls = Arc<Mutex<Calls>>;

/// Why an evaluation has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EvalError {
    /// Whether the time limit was exceeded. A busy machine can cause it, so it is no disagreement
    /// of the engines.
    pub(super) timed_out: bool,
    /// What went wrong, without the values that the evaluation met: for records and logs.
    pub(super) recorded: String,
    /// The same in the engine's words, which can hold values of the input: for a person who
    /// evaluates an input of their own.
    message: String,
}

impl EvalError {
    /// An error whose text holds no values.
    fn plain(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { timed_out: false, recorded: message.clone(), message }
    }
}

impl std::fmt::Display for EvalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// The interpreter of one worker.
#[derive(Debug)]
pub(super) struct Interpreter {
    policy: Policy,
    engine: Option<Engine>,
    calls: SharedCalls,
}

/// An engine with the limits of `limits`, without modules, data and built-ins.
pub(super) fn empty_engine(limits: &EvalLimits) -> Engine {
    let mut engine = Engine::new();
    let columns = u32::try_from(limits.columns_max).ok().and_then(NonZeroU32::new);
    engine.set_policy_length_config(PolicyLengthConfig {
        max_col: columns.unwrap_or(NonZeroU32::MAX),
        max_file_bytes: NonZeroUsize::new(limits.source_bytes_max).unwrap_or(NonZeroUsize::MIN),
        max_lines: NonZeroUsize::new(limits.lines_max).unwrap_or(NonZeroUsize::MIN),
    });
    engine.set_strict_builtin_errors(true);
    engine.set_gather_prints(true);
    engine.set_execution_timer_config(timer(limits));
    engine
}

/// Modules, parsed in an engine without data and built-ins.
pub(super) fn parsed(modules: &[Module], limits: &EvalLimits) -> Result<Engine, PolicyProblem> {
    let mut engine = empty_engine(&super::wider(modules, limits));
    for module in modules {
        engine
            .add_policy(module.path.clone(), module.text.clone())
            .map_err(|error| PolicyProblem::from_regorus(&error.to_string(), &module.path))?;
    }
    Ok(engine)
}

/// The time limit of one evaluation, as regorus takes it.
pub(super) fn timer(limits: &EvalLimits) -> ExecutionTimerConfig {
    let check_interval = NonZeroU32::new(TIMER_STEPS).unwrap_or(NonZeroU32::MIN);
    ExecutionTimerConfig { limit: limits.time_max, check_interval }
}

impl Interpreter {
    /// Builds an interpreter for `policy`.
    ///
    /// # Errors
    ///
    /// The policy cannot be parsed, or its data cannot be added.
    pub(super) fn new(policy: &Policy) -> Result<Self, PolicyProblem> {
        let calls = SharedCalls::default();
        let engine = Some(build(policy, &calls)?);
        Ok(Self { policy: policy.clone(), engine, calls })
    }

    /// Builds an interpreter for a policy that was checked before. If that fails, each evaluation
    /// tries again and reports the error.
    pub(super) fn ready(policy: &Policy) -> Self {
        let calls = SharedCalls::default();
        let engine = build(policy, &calls).ok();
        Self { policy: policy.clone(), engine, calls }
    }

    /// Makes the engine prepare for an evaluation of `path`, because it reports some errors only
    /// then.
    pub(super) fn prepare(&mut self, path: &str) -> Result<(), PolicyProblem> {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let path: Arc<str> = path.into();
        let prepared = catch_unwind(AssertUnwindSafe(|| engine.compile_with_entrypoint(&path)));
        match prepared {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(PolicyProblem::from_regorus(&error.to_string(), "")),
            Err(_) => Err(PolicyProblem::unlocated("the interpreter panicked on this policy")),
        }
    }

    /// Turns on coverage: from now on, evaluated lines are recorded.
    pub(super) fn enable_coverage(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.set_enable_coverage(true);
        }
    }

    /// The coverage of the sources of which anything was evaluated.
    pub(super) fn coverage(&self) -> Vec<FileCoverage> {
        let report = self.engine.as_ref().and_then(|engine| engine.get_coverage_report().ok());
        let files = report.into_iter().flat_map(|report| report.files);
        files
            .map(|file| FileCoverage {
                file: file.path,
                covered: file.covered,
                not_covered: file.not_covered,
            })
            .collect()
    }

    /// Evaluates the rule at `path`, such as `data.mcp.decision`. The value is undefined where the
    /// rule has none.
    pub(super) fn evaluate(&mut self, path: &str, input: Value) -> Result<Value, EvalError> {
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => build(&self.policy, &self.calls)
                .map_err(|problem| EvalError::plain(problem.to_string()))?,
        };
        *lock(&self.calls) = Calls::default();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            engine.set_input(input);
            let value = engine.eval_rule(path.to_owned());
            drop(engine.take_prints());
            (value, engine)
        }));
        let Ok((value, engine)) = outcome else {
            return Err(EvalError::plain("the interpreter panicked"));
        };
        self.engine = Some(engine);
        let failure = lock(&self.calls).failure.take();
        match (value, failure) {
            (Ok(value), None) => Ok(value),
            (Ok(_), Some(failure)) => Err(self.error(RegorusError::parse(&failure))),
            (Err(error), _) => Err(self.error(RegorusError::parse(&error.to_string()))),
        }
    }

    fn error(&self, error: RegorusError) -> EvalError {
        let modules = self.policy.modules();
        let files: Vec<&str> = modules.iter().map(|module| module.path.as_str()).collect();
        let names = builtins::all().map(|builtin| builtin.name);
        let recorded = without_values(&error, &files, names);
        let message = error.one_line();
        // For an error inside a function, regorus returns a text, not its error type.
        EvalError { timed_out: message.contains("exceeded time limit"), recorded, message }
    }
}

/// Builds an engine with the policy's modules and data, and the functions of [`builtins::all`].
fn build(policy: &Policy, calls: &SharedCalls) -> Result<Engine, PolicyProblem> {
    let limits = policy.limits();
    let mut engine = policy.parsed()?;
    engine
        .add_data(policy.data())
        .map_err(|error| PolicyProblem::from_regorus(&error.to_string(), "data"))?;
    for builtin in builtins::all() {
        let calls = Arc::clone(calls);
        let limits = *limits;
        let arity = u8::try_from(builtin.arity()).unwrap_or(u8::MAX);
        let call = move |args: Vec<Value>| {
            let mut calls = lock(&calls);
            let value = builtins::call(builtin, &args, &limits, &mut calls.meter);
            let value = value.map_err(|error| {
                PolicyProblem::unlocated(calls.failure.get_or_insert(error).as_str())
            })?;
            Ok(value)
        };
        engine
            .add_extension(builtin.name.to_owned(), arity, Box::new(call))
            .map_err(|error| PolicyProblem::unlocated(error.to_string()))?;
    }
    Ok(engine)
}
