//! The authority: regorus's interpreter with strict built-in errors.
//!
//! One [`Interpreter`] belongs to one worker and shares nothing with another: modules and data
//! are its own copies, so that workers do not meet on a reference count. An error in any rule, a
//! failure of any built-in, a panic or a spent limit ends an evaluation as an error. After a panic
//! the interpreter is made anew.

use std::num::{NonZeroU32, NonZeroUsize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, PolicyLengthConfig, Value};

use super::builtins;
use super::problem::{Message, PolicyProblem};
use super::{EvalLimits, FileCoverage, Policy};
use bartizan_sync::lock;

/// How many steps pass between two looks at the time.
const TIMER_STEPS: u32 = 16;

/// The first failure of a built-in in the evaluation at hand.
type Failure = Arc<Mutex<Option<String>>>;

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The time for one evaluation was spent. It may say more about the machine than the policy.
    Late(String),
    /// Anything else.
    Error(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Late(message) | Self::Error(message) => f.write_str(message),
        }
    }
}

/// One worker's interpreter.
#[derive(Debug)]
pub(super) struct Interpreter {
    policy: Policy,
    engine: Option<Engine>,
    failure: Failure,
}

/// An engine for parsing and evaluation, with nothing in it.
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

/// The time limit of one evaluation.
pub(super) fn timer(limits: &EvalLimits) -> ExecutionTimerConfig {
    let check_interval = NonZeroU32::new(TIMER_STEPS).unwrap_or(NonZeroU32::MIN);
    ExecutionTimerConfig { limit: limits.time_max, check_interval }
}

impl Interpreter {
    /// An interpreter of its own for `policy`.
    pub(super) fn new(policy: &Policy) -> Result<Self, PolicyProblem> {
        let failure = Failure::default();
        let engine = Some(build(policy, &failure)?);
        Ok(Self { policy: policy.clone(), engine, failure })
    }

    /// The same, for a policy that was checked: what still goes wrong shows at each evaluation.
    pub(super) fn ready(policy: &Policy) -> Self {
        let failure = Failure::default();
        let engine = build(policy, &failure).ok();
        Self { policy: policy.clone(), engine, failure }
    }

    /// Has the engine prepare for evaluation, which finds what it finds only then.
    pub(super) fn prepare(&mut self, path: &str) -> Result<(), PolicyProblem> {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let path: Arc<str> = path.into();
        let prepared = catch_unwind(AssertUnwindSafe(|| engine.compile_with_entrypoint(&path)));
        match prepared {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(PolicyProblem::of_regorus(&error.to_string(), "")),
            Err(_) => Err(PolicyProblem::whole("the interpreter panicked on this policy")),
        }
    }

    /// Counts from now on which lines are evaluated.
    pub(super) fn count_lines(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.set_enable_coverage(true);
        }
    }

    /// Which lines were, of the sources that were touched.
    pub(super) fn counted_lines(&self) -> Vec<FileCoverage> {
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

    /// The value of the rule at `path`, or what went wrong.
    pub(super) fn evaluate(&mut self, path: &str, input: Value) -> Result<Value, Trouble> {
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => build(&self.policy, &self.failure)
                .map_err(|problem| Trouble::Error(problem.to_string()))?,
        };
        *lock(&self.failure) = None;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            engine.set_input(input);
            let value = engine.eval_rule(path.to_owned());
            drop(engine.take_prints());
            (value, engine)
        }));
        let Ok((value, engine)) = outcome else {
            return Err(Trouble::Error("the interpreter panicked".to_owned()));
        };
        self.engine = Some(engine);
        let failure = lock(&self.failure).take();
        match (value, failure) {
            (Ok(value), None) => Ok(value),
            (Ok(_), Some(failure)) => Err(Trouble::Error(failure)),
            (Err(error), _) => {
                let message = Message::of(&error.to_string()).one_line();
                // Inside a function regorus keeps only the text of an error.
                Err(if message.contains("exceeded time limit") {
                    Trouble::Late(message)
                } else {
                    Trouble::Error(message)
                })
            }
        }
    }
}

/// Parses and prepares the policy, and hangs the table of built-ins in.
fn build(policy: &Policy, failure: &Failure) -> Result<Engine, PolicyProblem> {
    let limits = policy.limits();
    let mut engine = empty_engine(limits);
    for module in policy.modules() {
        engine
            .add_policy(module.path.clone(), module.text.clone())
            .map_err(|error| PolicyProblem::of_regorus(&error.to_string(), &module.path))?;
    }
    engine
        .add_data(policy.data())
        .map_err(|error| PolicyProblem::of_regorus(&error.to_string(), "data"))?;
    for builtin in builtins::TABLE {
        let failure = Arc::clone(failure);
        let limits = *limits;
        let arity = u8::try_from(builtin.arity()).unwrap_or(u8::MAX);
        let call = move |args: Vec<Value>| {
            let value = builtins::call(builtin, &args, &limits).map_err(|error| {
                let mut first = lock(&failure);
                PolicyProblem::whole(first.get_or_insert(error).as_str())
            })?;
            Ok(value)
        };
        engine
            .add_extension(builtin.name.to_owned(), arity, Box::new(call))
            .map_err(|error| PolicyProblem::whole(error.to_string()))?;
    }
    Ok(engine)
}
