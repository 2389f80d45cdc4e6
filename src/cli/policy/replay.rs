//! `bartizan policy replay`: evaluates a policy for recorded inputs and reports changed decisions.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use serde_json::{Value, json};

use super::{Failure, OutputFormat, SourceArgs};
use crate::cli::failure::plain;
use crate::cli::{Exit, print};
use crate::config::{Config, OAuthMode};
use crate::policy::recorded::{Known, PolicyVerdict, Verdict};
use crate::policy::replay::{Change, Replay, Report, Source, replay};

/// Arguments of `policy replay`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ReplayArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Files with one JSON object per line: records of a journal, events of an OPA decision log, or
    /// inputs; `-` means standard input.
    #[arg(value_name = "FILE", required_unless_present = "state")]
    files: Vec<PathBuf>,
    /// A state directory whose journal is replayed; may be repeated.
    #[arg(long, value_name = "DIR")]
    state: Vec<PathBuf>,
    /// The configuration with the servers and the principal of the records. Secrets are not read.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Compare with the decisions of this policy instead of the recorded ones; may be repeated.
    #[arg(long, value_name = "PATH")]
    against: Vec<PathBuf>,
    /// Exit with 1 if there is one of these; may be repeated.
    #[arg(long, value_name = "WHAT")]
    fail_on: Vec<FailOn>,
    /// The output format.
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: OutputFormat,
    /// How many changed decisions to print.
    #[arg(long, value_name = "N", default_value_t = 100)]
    list: usize,
}

/// The results that make a replay fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// A changed decision.
    Changed,
    /// A decision that permits more than before.
    Opened,
    /// A decision that permits less than before.
    Closed,
    /// A record that could not be evaluated.
    Unjudged,
}

impl FailOn {
    fn count(self, report: &Report) -> u64 {
        match self {
            Self::Changed => report.changes_all(),
            Self::Opened => report.changes_that(|before, after| before < after),
            Self::Closed => report.changes_that(|before, after| before > after),
            Self::Unjudged => report.unjudged_all(),
        }
    }
}

/// Runs `bartizan policy replay`.
pub(super) fn run(args: ReplayArgs) -> Result<ExitCode, Failure> {
    let known = args.config.as_deref().map_or_else(|| Ok(Known::default()), known)?;
    let against = (!args.against.is_empty())
        .then(|| SourceArgs { policies: args.against }.compile("data.mcp.decision"))
        .transpose()?;
    let work = Replay {
        candidate: args.source.compile("data.mcp.decision")?,
        against,
        known,
        workers: thread::available_parallelism().map_or(1, usize::from),
    };
    let states = args.state.into_iter().map(Source::State);
    let sources: Vec<Source> = states.chain(args.files.into_iter().map(Source::File)).collect();
    let report =
        replay(&work, &sources).map_err(|error| Failure::failed(error.place, error.what))?;
    let text = match args.format {
        OutputFormat::Text => text(&work, &report, args.list),
        OutputFormat::Json => json(&work, &report, &sources, args.list),
    };
    print(&text)?;
    let failed = args.fail_on.iter().any(|what| what.count(&report) > 0);
    Ok(if failed { Exit::Failed } else { Exit::Done }.into())
}

/// Reads the servers and the principal from the configuration.
fn known(path: &Path) -> Result<Known, Failure> {
    let name = path.display().to_string();
    // No connection is made, so secrets are not resolved.
    let config =
        Config::read_facts(path).map_err(|problems| Failure::configuration(&name, &problems))?;
    let mut known = Known { principal: Some(config.principal.clone()), ..Known::default() };
    for server in &config.servers {
        if server.oauth.as_ref().is_some_and(|oauth| matches!(oauth.mode, OAuthMode::Terminate(_)))
        {
            known.by_token.insert(server.name.clone());
        }
        let pack = server.pack.as_ref().map(|pack| {
            pack.read().map_err(|error| {
                let subject = format!("{name}: servers.{}.pack", server.name);
                Failure::usage(subject, error.whats.join("; ")).hint(error.hint)
            })
        });
        known.servers.insert(server.name.clone(), server.facts(pack.transpose()?));
    }
    Ok(known)
}

/// The report as text.
fn text(work: &Replay, report: &Report, list: usize) -> String {
    let mut lines = Vec::new();
    let mut line = |key: &str, value: String| lines.push(format!("{key:<11} {value}"));
    line("candidate", work.candidate.revision().to_string());
    let before = work.against.as_ref().map(|policy| policy.revision().to_string());
    line("against", before.unwrap_or_else(|| "what was recorded".to_owned()));
    line("judged", format!("{} questions", report.judged));
    let tally = |(verdict, count): (&Verdict, &u64)| format!("{count} {}", verdict.as_str());
    let verdicts: Vec<String> = report.verdicts.iter().map(tally).collect();
    line("verdicts", verdicts.join(", "));
    line("same", format!("{}, {} for other reasons", report.same, report.other_reasons));
    line("changed", report.changes_all().to_string());
    for ((before, after), count) in &report.changed {
        line("", format!("{} -> {}: {count}", before.as_str(), after.as_str()));
    }
    if report.incomparable > 0 {
        line("new", format!("{} without a verdict to compare with", report.incomparable));
    }
    line("not judged", report.unjudged_all().to_string());
    for (why, count) in &report.unjudged {
        line("", format!("{count}: {why}"));
    }
    if report.unjudged.keys().any(|why| why.contains("`/server/") || why.contains("`/principal/")) {
        lines.push("hint: `--config` supplies the servers and the principal".to_owned());
    }
    lines.extend(report.changes.iter().take(list).map(change_line));
    let left = report.changes_all().saturating_sub(u64::try_from(list).unwrap_or(u64::MAX));
    if left > 0 {
        lines.push(format!("and {left} more: see --list"));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn change_line(change: &Change) -> String {
    let about = &change.about;
    let said =
        |said: &PolicyVerdict| format!("{} [{}]", said.verdict.as_str(), said.codes.join(" "));
    let place = [&about.principal, &about.server, &about.method, &about.target];
    let place: Vec<&str> = place.into_iter().flatten().map(String::as_str).collect();
    let call = about.call.as_deref().unwrap_or("-");
    let line = format!(
        "#{} {call} {}: {} -> {}",
        change.line,
        place.join(" "),
        said(&change.before),
        said(&change.after)
    );
    plain(&line)
}

/// The report as JSON.
fn json(work: &Replay, report: &Report, sources: &[Source], list: usize) -> String {
    let counts: Vec<Value> = report
        .changed
        .iter()
        .map(|((before, after), count)| {
            json!({"before": before.as_str(), "after": after.as_str(), "count": count})
        })
        .collect();
    let unjudged: Vec<Value> =
        report.unjudged.iter().map(|(why, count)| json!({"why": why, "count": count})).collect();
    let changes = report.changes.iter().take(list);
    let changes: Vec<Value> = changes.map(|change| change_json(change, sources)).collect();
    let verdicts: serde_json::Map<String, Value> = report
        .verdicts
        .iter()
        .map(|(verdict, count)| (verdict.as_str().to_owned(), Value::from(*count)))
        .collect();
    let report = json!({
        "candidate": &*work.candidate.revision(),
        "against": work.against.as_ref().map(|policy| policy.revision().to_string()),
        "judged": report.judged,
        "verdicts": verdicts,
        "same": report.same,
        "other_reasons": report.other_reasons,
        "changed": counts,
        "opened": FailOn::Opened.count(report),
        "closed": FailOn::Closed.count(report),
        "incomparable": report.incomparable,
        "unjudged": unjudged,
        "not_asked": report.not_asked,
        "changes": changes,
    });
    format!("{report:#}\n")
}

fn change_json(change: &Change, sources: &[Source]) -> Value {
    let about = &change.about;
    let said = |said: &PolicyVerdict| json!({"verdict": said.verdict.as_str(), "codes": said.codes, "policy": said.policy});
    json!({
        "source": sources.get(change.source).map(Source::shown),
        "line": change.line,
        "call": about.call,
        "time": about.time,
        "principal": about.principal,
        "server": about.server,
        "method": about.method,
        "target": about.target,
        "before": said(&change.before),
        "after": said(&change.after),
    })
}
