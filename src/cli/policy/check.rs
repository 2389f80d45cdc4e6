//! `bartizan policy check`: proves a policy and reports traps in it.

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, OutputFormat, SourceArgs, failed, proven, settings};
use crate::cli::failure::plain;
use crate::cli::{Exit, print};
use crate::policy::embedded::PREFIX;
use crate::policy::load::load;
use crate::policy::{Ready, prepare};
use bartizan_rego::{EvalLimits, Lint, PolicyProblem, code_of, lint};

/// Arguments of `policy check`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PolicyCheckArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The output format.
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: OutputFormat,
}

/// Runs `bartizan policy check`: first the proof, then the search for traps.
pub(super) async fn run(args: PolicyCheckArgs) -> Result<ExitCode, Failure> {
    let named = !args.source.policies.is_empty();
    let files = args.source.files();
    let settings = settings(files.clone())?;
    let ready = match prepare(&settings).await {
        Ok(ready) => ready,
        Err(problems) if args.format == OutputFormat::Json => {
            print(&json_of(None, &problems, &[]))?;
            return Ok(Exit::Failed.into());
        }
        Err(problems) => return Err(failed(&problems)),
    };
    let loaded = load(&files).map_err(|problems| failed(&problems))?;
    let paths = loaded.serving.modules.iter().map(|module| module.path.as_str());
    let paths: BTreeSet<&str> = paths.filter(|path| !(named && path.starts_with(PREFIX))).collect();
    let lints = lint(&loaded.serving, &EvalLimits::default(), &|path| paths.contains(path))
        .map_err(|problems| failed(&problems))?;
    print(&match args.format {
        OutputFormat::Text => text(&ready, &lints),
        OutputFormat::Json => json_of(Some(&ready), &[], &lints),
    })?;
    Ok(if lints.is_empty() { Exit::Done } else { Exit::Failed }.into())
}

/// The result as text.
fn text(ready: &Ready, traps: &[Lint]) -> String {
    let mut lines = Vec::new();
    for Lint { file, line, code, message, hint } in traps {
        lines.push(plain(&format!("{file}:{line}: {code}: {message}")));
        lines.push(plain(&format!("  hint: {hint}")));
    }
    let good = if traps.is_empty() { "good".to_owned() } else { format!("{} traps", traps.len()) };
    lines.push(format!("{good}: {}", proven(ready)));
    for reason in &ready.proof.reasons {
        lines.push(format!("  not compiled: {reason}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The result as JSON.
fn json_of(ready: Option<&Ready>, problems: &[PolicyProblem], lints: &[Lint]) -> String {
    let problems = problems.iter().map(|problem| {
        json!({
            "file": problem.file,
            "line": problem.line,
            "code": code_of(problem),
            "message": problem.message,
            "hint": problem.hint,
        })
    });
    let found: Vec<_> = problems.chain(lints.iter().map(|lint| json!(lint))).collect();
    let report = json!({
        "revision": ready.map(|ready| ready.revision.to_string()),
        "engine": ready.map(|ready| ready.engine.as_str()),
        "not_compiled": ready.map(|ready| ready.proof.reasons.clone()),
        "tests": ready.map(|ready| ready.proof.tests.len()),
        "problems": found,
    });
    format!("{report:#}\n")
}
