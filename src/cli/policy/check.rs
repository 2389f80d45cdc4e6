//! `bartizan policy check`: whether a policy would be served, and whether it has traps.

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Format, SourceArgs, failed, proven, settings};
use crate::cli::failure::plain;
use crate::cli::{Exit, print};
use crate::policy::load::load;
use crate::policy::{Ready, prepare};
use bartizan_rego::{EvalLimits, Lint, PolicyProblem, code_of, lint};

/// Arguments of `policy check`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CheckArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// How to print.
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
}

/// Checks: first what keeps the policy from running, then traps.
pub(super) async fn run(args: CheckArgs) -> Result<ExitCode, Failure> {
    let named = !args.source.policies.is_empty();
    let files = args.source.files();
    let settings = settings(files.clone())?;
    let ready = match prepare(&settings).await {
        Ok(ready) => ready,
        Err(problems) if args.format == Format::Json => {
            print(&json_of(None, &problems, &[]))?;
            return Ok(Exit::Failed.into());
        }
        Err(problems) => return Err(failed(&problems)),
    };
    let loaded = load(&files).map_err(|problems| failed(&problems))?;
    let paths = loaded.serving.modules.iter().map(|module| module.path.as_str());
    let paths: BTreeSet<&str> =
        paths.filter(|path| !(named && path.starts_with("embedded/"))).collect();
    let lints = lint(&loaded.serving, &EvalLimits::default(), &|path| paths.contains(path))
        .map_err(|problems| failed(&problems))?;
    print(&match args.format {
        Format::Text => text(&ready, &lints),
        Format::Json => json_of(Some(&ready), &[], &lints),
    })?;
    Ok(if lints.is_empty() { Exit::Done } else { Exit::Failed }.into())
}

/// For a person.
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

/// For a program.
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
