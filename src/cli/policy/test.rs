//! `bartizan policy test`: runs a policy's tests and measures their coverage.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, SourceArgs, failed};
use crate::cli::failure::plain;
use crate::cli::{Exit, print};
use crate::policy::embedded::PREFIX;
use crate::policy::load::{Loaded, load};
use bartizan_gate::wire::inert;
use bartizan_rego::{EvalLimits, FileCoverage, Policy, TestOutcome, TestRun, cover_tests};

/// Arguments of `policy test`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TestArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Run only tests whose full name, such as `data.mcp_test.test_reads`, contains this text; may
    /// be repeated.
    #[arg(long, value_name = "TEXT")]
    run: Vec<String>,
    /// Print which lines of each source the tests covered.
    #[arg(long)]
    coverage: bool,
    /// Exit with 1 if the tests cover less than this percentage of the lines.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    threshold: Option<f64>,
    /// The output format.
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: TestFormat,
    /// Also list the tests that passed.
    #[arg(short, long)]
    verbose: bool,
}

/// The output formats of `policy test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum TestFormat {
    /// Text for a person.
    Text,
    /// JSON for a program.
    Json,
    /// `JUnit` XML for a build server.
    Junit,
}

/// Parses a percentage, 0 to 100.
fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=100.0).contains(&percent) { Ok(percent) } else { Err("not 0 to 100".to_owned()) }
}

/// Runs `bartizan policy test`. After the results it fails if the policy itself cannot be loaded:
/// tests also run on a policy that `run` would refuse, so their success alone would mislead.
pub(super) fn run(args: &TestArgs) -> Result<ExitCode, Failure> {
    let named = !args.source.policies.is_empty();
    let files = args.source.clone().files();
    let loaded = load(&files).map_err(|problems| failed(&problems))?;
    let select =
        |name: &str| args.run.is_empty() || args.run.iter().any(|text| name.contains(text));
    let mut run = cover_tests(&loaded.proving, &EvalLimits::default(), &select)
        .map_err(|problems| failed(&problems))?;
    let served = served(&loaded, named);
    run.coverage.retain(|file| served.contains(file.file.as_str()));
    if run.outcomes.is_empty() && !args.run.is_empty() {
        return Err(Failure::usage("--run", "no test name contains this text"));
    }
    let share = share(&run.coverage);
    let failures = run.outcomes.iter().filter(|outcome| !outcome.passed).count();
    let under = args.threshold.is_some_and(|threshold| share < threshold);
    let text = match args.format {
        TestFormat::Text => text(args, &run, failures, share),
        TestFormat::Json => json(&run, share),
        TestFormat::Junit => junit(&run),
    };
    print(&text)?;
    Policy::compile(&loaded.serving, &files.entrypoints, &EvalLimits::default())
        .map_err(|problems| failed(&problems))?;
    if let Some(threshold) = args.threshold.filter(|_| under) {
        let what = format!("{share:.1}% of the lines, under the threshold of {threshold}%");
        return Err(Failure::failed("coverage", what).hint("`--coverage` names the lines"));
    }
    Ok(if failures == 0 { Exit::Done } else { Exit::Failed }.into())
}

/// The sources whose coverage counts. If the user named policies, the built-in ones that are added
/// to every policy do not count.
fn served(loaded: &Loaded, named: bool) -> BTreeSet<&str> {
    let paths = loaded.serving.modules.iter().map(|module| module.path.as_str());
    paths.filter(|path| !(named && path.starts_with(PREFIX))).collect()
}

/// The share of covered lines, percent; 100 if there are no lines.
fn share(coverage: &[FileCoverage]) -> f64 {
    let covered: usize = coverage.iter().map(|file| file.covered.len()).sum();
    let missed: usize = coverage.iter().map(|file| file.not_covered.len()).sum();
    let counted = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let all = counted(covered.saturating_add(missed));
    if all > 0.0 { counted(covered) / all * 100.0 } else { 100.0 }
}

/// The results as text.
fn text(args: &TestArgs, run: &TestRun, failures: usize, share: f64) -> String {
    let mut lines = Vec::new();
    for outcome in &run.outcomes {
        let TestOutcome { name, file, message, .. } = outcome;
        if !outcome.passed {
            let message = message.as_deref().unwrap_or("false");
            lines.push(plain(&format!("failed: {name} ({file}): {message}")));
        } else if args.verbose {
            lines.push(plain(&format!("passed: {name} ({file})")));
        }
    }
    let all = run.outcomes.len();
    lines.push(format!("{} of {all} tests passed", all.saturating_sub(failures)));
    if args.coverage {
        lines.push(format!("coverage: {share:.1}% of the lines"));
        for file in &run.coverage {
            let share = self::share(std::slice::from_ref(file));
            let missed = ranges(&file.not_covered);
            let missed =
                if missed.is_empty() { String::new() } else { format!(", not line {missed}") };
            lines.push(plain(&format!("  {share:>5.1}%  {}{missed}", file.file)));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Line numbers as ranges, such as `3, 7-9`.
fn ranges(lines: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for line in lines {
        match ranges.last_mut() {
            Some((_, last)) if last.saturating_add(1) == *line => *last = *line,
            _ => ranges.push((*line, *line)),
        }
    }
    let shown = ranges.iter().map(|(first, last)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The results as JSON.
fn json(run: &TestRun, share: f64) -> String {
    let coverage: Vec<_> = run
        .coverage
        .iter()
        .map(|file| {
            json!({
                "file": file.file,
                "percent": self::share(std::slice::from_ref(file)),
                "covered": file.covered,
                "not_covered": file.not_covered,
            })
        })
        .collect();
    let report = json!({"tests": run.outcomes, "percent": share, "coverage": coverage});
    format!("{report:#}\n")
}

/// The results as `JUnit` XML: a suite for each source, a case for each test.
fn junit(run: &TestRun) -> String {
    let mut suites: BTreeMap<&str, Vec<&TestOutcome>> = BTreeMap::new();
    for outcome in &run.outcomes {
        suites.entry(&outcome.file).or_default().push(outcome);
    }
    let counts = |cases: &[&TestOutcome]| {
        let failed = cases.iter().filter(|case| !case.passed).count();
        format!("tests=\"{}\" failures=\"{failed}\"", cases.len())
    };
    let all: Vec<&TestOutcome> = run.outcomes.iter().collect();
    let mut lines = vec![
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned(),
        format!("<testsuites {}>", counts(&all)),
    ];
    for (file, cases) in suites {
        let file = xml(file);
        lines.push(format!("  <testsuite name=\"{file}\" {}>", counts(&cases)));
        for case in cases {
            let (class, name) = case.name.rsplit_once('.').unwrap_or(("", &case.name));
            let (class, name) = (xml(class), xml(name));
            let head = format!("classname=\"{class}\" name=\"{name}\" file=\"{file}\"");
            let Some(message) = case.message.as_deref().filter(|_| !case.passed) else {
                lines.push(format!("    <testcase {head}/>"));
                continue;
            };
            lines.push(format!("    <testcase {head}>"));
            lines.push(format!("      <failure message=\"{}\"/>", xml(message)));
            lines.push("    </testcase>".to_owned());
        }
        lines.push("  </testsuite>".to_owned());
    }
    lines.push("</testsuites>\n".to_owned());
    lines.join("\n")
}

/// `text` escaped for an attribute. Characters that XML 1.0 §2.2 cannot represent are replaced.
fn xml(text: &str) -> String {
    let fits = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let text: String = text.chars().map(|c| if fits(c) { c } else { ' ' }).collect();
    let mut out = String::with_capacity(text.len());
    inert::push_markup(&mut out, &text);
    out
}
