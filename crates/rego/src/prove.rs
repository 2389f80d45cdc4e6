//! The proof of a policy: its tests, and whether it may run on the compiled engine.
//!
//! A policy may run on the compiled engine if its own tests pass, that engine has each of its
//! constructs (`program`), and both engines give the same answers to generated inputs (differential
//! testing). A hostile policy can end the process (stack overflow),
//! so the program calls [`prove`] in a child process (`src/policy/prove.rs`), which also applies
//! its limits.

use std::collections::BTreeSet;

use regorus::unstable::{Module, Ref};
use serde::{Deserialize, Serialize};

use super::check::{Index, dotted, location};
use super::engines::RegoPdp;
use super::generate::Generator;
use super::problem::PolicyProblem;
use super::strict::Interpreter;
use super::walk::{Visit, Walk};
use super::{Entrypoints, EvalLimits, Policy, PolicySources};

/// One test may take this many times the time of one decision: 2 s by default. A reload runs the
/// tests beside running traffic, so a test that loops must end soon.
const TEST_TIME_FACTOR: u32 = 10;

/// The result of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestOutcome {
    /// The test's rule, such as `data.mcp_test.test_reads`.
    pub name: String,
    /// The path of its source.
    pub file: String,
    /// Whether its value is defined and not false, and is no empty or partly false set of cases.
    pub passed: bool,
    /// Its value or error, where it did not pass.
    pub message: Option<String>,
}

/// The result of a proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Whether the policy may run on the compiled engine.
    pub compiled: bool,
    /// Why it may not, one line each, with file and line where they are known.
    pub reasons: Vec<String>,
    /// The results of the policy's tests.
    pub tests: Vec<TestOutcome>,
    /// How many generated inputs both engines answered alike.
    pub inputs: u64,
}

/// The test coverage of one source: lines, counted from 1, that tests evaluated or did not. Lines
/// without an expression are in neither set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileCoverage {
    /// The path of the source.
    pub file: String,
    /// Lines that were evaluated at least once.
    pub covered: BTreeSet<u32>,
    /// Lines that were never evaluated.
    pub not_covered: BTreeSet<u32>,
}

/// The results of a test run, with coverage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TestRun {
    /// The results of the tests, by rule name.
    pub outcomes: Vec<TestOutcome>,
    /// The coverage of every source, tests included, in the order of the sources.
    pub coverage: Vec<FileCoverage>,
}

/// Evaluates every rule whose name begins with `test_` on the strict engine, with an empty input
/// (OPA docs, "Policy Testing"). Rules with OPA's prefix `todo_test_` are not run.
///
/// # Errors
///
/// The sources cannot be parsed, a static check fails, or the interpreter cannot load them. A test
/// that fails is no error.
pub fn run_tests(
    sources: &PolicySources,
    limits: &EvalLimits,
) -> Result<Vec<TestOutcome>, Vec<PolicyProblem>> {
    run(sources, limits, &|_| true, false).map(|run| run.outcomes)
}

/// Runs the tests for whose rule name (`data.mcp_test.test_reads`) `select` is true, and measures
/// coverage.
///
/// # Errors
///
/// As for [`run_tests`].
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
    let test_limits =
        EvalLimits { time_max: limits.time_max.saturating_mul(TEST_TIME_FACTOR), ..*limits };
    let policy = Policy::parse(sources, None, &test_limits)?;
    let mut engine = policy.parsed().map_err(|problem| vec![problem])?;
    let index = Index::of(engine.get_modules());
    let mut interpreter = Interpreter::new(&policy).map_err(|problem| vec![problem])?;
    if cover {
        interpreter.enable_coverage();
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
        let file = location(rule.span()).0.to_owned();
        outcomes.push(TestOutcome { name, file, passed: message.is_none(), message });
    }
    let coverage = if cover {
        let counted = interpreter.coverage();
        engine.get_modules().iter().map(|module| coverage(module, &counted)).collect()
    } else {
        Vec::new()
    };
    Ok(TestRun { outcomes, coverage })
}

/// The coverage of one source. regorus reports no source of which nothing was evaluated; then
/// every line with an expression is uncovered.
fn coverage(module: &Ref<Module>, counted: &[FileCoverage]) -> FileCoverage {
    let file = location(module.package.refr.span()).0;
    if let Some(found) = counted.iter().find(|it| it.file == file) {
        let not_covered = found.not_covered.difference(&found.covered).copied().collect();
        return FileCoverage { not_covered, ..found.clone() };
    }
    let mut lines = BTreeSet::new();
    for rule in &module.policy {
        for visit in Walk::rule(rule) {
            if let Visit::Expr(expr) = visit {
                lines.insert(location(expr.span()).1);
            }
        }
    }
    FileCoverage { file: file.to_owned(), not_covered: lines, ..FileCoverage::default() }
}

/// Why a test's value is a failure; `None` where it passed. A test with cases (OPA docs, "Policy
/// Testing") has an object or set with one value for each case.
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

/// Proves one revision. The same `seed` generates the same inputs.
///
/// # Errors
///
/// The problems for which the policy may not run on either engine.
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
    // `shadow_one_in` = 1: each answer is compared with the strict engine's.
    match RegoPdp::compiled(policy.clone(), 1, 1) {
        Err(constructs) => reasons.extend(constructs),
        Ok(both) => {
            let (answered, difference) = compare(&policy, &both, seed);
            inputs = answered;
            reasons.extend(difference);
        }
    }
    Ok(Proof { compiled: reasons.is_empty(), reasons, tests, inputs })
}

/// Evaluates generated inputs on both engines until they differ. Returns how many were answered
/// alike, and the difference.
fn compare(policy: &Policy, both: &RegoPdp, seed: u64) -> (u64, Option<String>) {
    let mut engine = match policy.parsed() {
        Ok(engine) => engine,
        Err(problem) => return (0, Some(problem.to_string())),
    };
    let mut generator = Generator::new(engine.get_modules(), policy.reads(), seed);
    for count in 0..policy.limits().proof_inputs {
        let input = generator.input();
        drop(both.decide_input(input.clone()));
        drop(both.list_input(input.clone()));
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
