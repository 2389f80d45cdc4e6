//! Whether a revision may run on the compiled engine, shown rather than hoped.
//!
//! Run inside a child process: what a policy can do to either engine includes ending the process.
//! The proof holds that the policy's own tests pass, that each of its constructs is known to mean
//! the same on both engines, and that generated inputs were answered alike by both.

use std::collections::BTreeSet;

use regorus::unstable::{Module, Ref};
use serde::{Deserialize, Serialize};

use super::check::{Index, dotted, place};
use super::engines::RegoPdp;
use super::generate::Generator;
use super::problem::PolicyProblem;
use super::strict::{self, Interpreter};
use super::walk::{Visit, Walk};
use super::{Entrypoints, EvalLimits, Policy, PolicySources, compiled};

/// One test may take this many times the time of one decision: 2 s by default. A reload runs the
/// tests beside running traffic, so a test that loops must end soon.
const TEST_TIME_FACTOR: u32 = 10;

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestOutcome {
    /// The rule, `data.mcp_test.test_reads`.
    pub name: String,
    /// The source that it is in.
    pub file: String,
    /// Whether it is defined and not false.
    pub passed: bool,
    /// What it came to, where it did not pass.
    pub message: Option<String>,
}

/// What a proof found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Whether the policy may run on the compiled engine.
    pub compiled: bool,
    /// Why it may not; with places, where there are any.
    pub reasons: Vec<String>,
    /// Its tests.
    pub tests: Vec<TestOutcome>,
    /// How many inputs both engines answered.
    pub inputs: u64,
}

/// Lines of one source that tests came to, and those that none did. Only lines that hold
/// something to evaluate count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileCoverage {
    /// The source.
    pub file: String,
    /// Evaluated at least once.
    pub covered: BTreeSet<u32>,
    /// Never evaluated.
    pub not_covered: BTreeSet<u32>,
}

/// Tests that ran, and what they came to of each source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TestRun {
    /// The tests.
    pub outcomes: Vec<TestOutcome>,
    /// Every source, tests among them; in their order.
    pub coverage: Vec<FileCoverage>,
}

/// Runs every rule whose name begins with `test_` on the strict engine. `todo_test_` is OPA's
/// prefix for a test that is not to run yet.
pub fn run_tests(
    sources: &PolicySources,
    limits: &EvalLimits,
) -> Result<Vec<TestOutcome>, Vec<PolicyProblem>> {
    run(sources, limits, &|_| true, false).map(|run| run.outcomes)
}

/// The same for the tests whose names `select` wants, with their coverage.
pub fn cover_tests(
    sources: &PolicySources,
    limits: &EvalLimits,
    select: &dyn Fn(&str) -> bool,
) -> Result<TestRun, Vec<PolicyProblem>> {
    run(sources, limits, select, true)
}

fn run(
    sources: &PolicySources,
    limits: &EvalLimits,
    select: &dyn Fn(&str) -> bool,
    cover: bool,
) -> Result<TestRun, Vec<PolicyProblem>> {
    let patient =
        EvalLimits { time_max: limits.time_max.saturating_mul(TEST_TIME_FACTOR), ..*limits };
    let policy = Policy::parse(sources, None, &patient)?;
    let mut engine = parsed(&policy).map_err(|problem| vec![problem])?;
    let index = Index::of(engine.get_modules());
    let mut interpreter = Interpreter::new(&policy).map_err(|problem| vec![problem])?;
    if cover {
        interpreter.count_lines();
    }
    let mut outcomes = Vec::new();
    for (path, rules) in &index.rules {
        let Some((_, rule)) =
            rules.first().filter(|_| path.last().is_some_and(|name| name.starts_with("test_")))
        else {
            continue;
        };
        let name = dotted(path);
        if !select(&name) {
            continue;
        }
        let message = match interpreter.evaluate(&name, regorus::Value::new_object()) {
            Ok(value) => failed(&value),
            Err(error) => Some(error.to_string()),
        };
        let file = place(rule.span()).0.to_owned();
        outcomes.push(TestOutcome { name, file, passed: message.is_none(), message });
    }
    let coverage = if cover {
        let counted = interpreter.counted_lines();
        engine.get_modules().iter().map(|module| coverage(module, &counted)).collect()
    } else {
        Vec::new()
    };
    Ok(TestRun { outcomes, coverage })
}

/// The engine says nothing of a source that was never touched: then every line with something in
/// it is uncovered.
fn coverage(module: &Ref<Module>, counted: &[FileCoverage]) -> FileCoverage {
    let file = place(module.package.refr.span()).0;
    if let Some(found) = counted.iter().find(|it| it.file == file) {
        let not_covered = found.not_covered.difference(&found.covered).copied().collect();
        return FileCoverage { not_covered, ..found.clone() };
    }
    let mut lines = BTreeSet::new();
    for rule in &module.policy {
        for visit in Walk::rule(rule) {
            if let Visit::Expr(expr) = visit {
                lines.insert(place(expr.span()).1);
            }
        }
    }
    FileCoverage { file: file.to_owned(), not_covered: lines, ..FileCoverage::default() }
}

/// What is wrong with a test's value. A test with cases holds one value for each.
fn failed(value: &regorus::Value) -> Option<String> {
    use regorus::Value;
    match value {
        Value::Undefined => Some("undefined".to_owned()),
        Value::Bool(false) => Some("false".to_owned()),
        Value::Object(cases) if cases.values().any(|case| *case == Value::Bool(false)) => {
            Some("false for a case".to_owned())
        }
        Value::Object(cases) if cases.is_empty() => Some("no case".to_owned()),
        Value::Set(cases) if cases.is_empty() => Some("no case".to_owned()),
        _ => None,
    }
}

pub(super) fn parsed(policy: &Policy) -> Result<regorus::Engine, PolicyProblem> {
    let mut engine = strict::empty_engine(policy.limits());
    for module in policy.modules() {
        engine
            .add_policy(module.path.clone(), module.text.clone())
            .map_err(|error| PolicyProblem::of_regorus(&error.to_string(), &module.path))?;
    }
    Ok(engine)
}

/// Proves one revision. Problems mean that it may not run at all.
pub fn prove(
    sources: &PolicySources,
    entrypoints: &Entrypoints,
    limits: &EvalLimits,
    seed: u64,
) -> Result<Proof, Vec<PolicyProblem>> {
    let policy = Policy::compile(sources, entrypoints, limits)?;
    let tests = run_tests(sources, limits)?;
    let mut reasons: Vec<String> = tests
        .iter()
        .filter(|test| !test.passed)
        .map(|test| {
            let message = test.message.as_deref().unwrap_or("failed");
            format!("{}: {}: {message}", test.file, test.name)
        })
        .collect();
    let mut inputs = 0;
    match compiled::rewritten(&policy) {
        Err(constructs) => reasons.extend(constructs),
        // Every answer is shadowed.
        Ok(_) => match RegoPdp::compiled(policy.clone(), 1, 1) {
            Err(problem) => reasons.push(problem.to_string()),
            Ok(both) => {
                let (answered, difference) = compare(&policy, &both, seed);
                inputs = answered;
                reasons.extend(difference);
            }
        },
    }
    Ok(Proof { compiled: reasons.is_empty(), reasons, tests, inputs })
}

/// Asks both engines the same until they differ or the inputs are used up.
fn compare(policy: &Policy, both: &RegoPdp, seed: u64) -> (u64, Option<String>) {
    let mut engine = match parsed(policy) {
        Ok(engine) => engine,
        Err(problem) => return (0, Some(problem.to_string())),
    };
    let mut generator = Generator::new(engine.get_modules(), policy.reads(), seed);
    for count in 0..policy.limits().proof_inputs {
        let input = generator.input();
        drop(both.judge(input.clone()));
        drop(both.judge_page(input.clone()));
        if let Some(found) = both.demotion() {
            let shown: String = super::value::json(&input).chars().take(4_000).collect();
            let reason = format!(
                "the engines differ on a {}: strict {}, compiled {}, input {shown}",
                found.question, found.strict, found.compiled
            );
            return (count, Some(reason));
        }
    }
    (policy.limits().proof_inputs, None)
}
