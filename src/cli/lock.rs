//! `bartizan lock`: writes the tools of every server to a file for review, and reports what changed
//! since.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, OutputFormat, print};
use crate::config::Config;
use crate::lock::ask::{AskError, ask};
use crate::lock::{LockFile, ToolChange, shown};
use crate::run::RunOptions;

/// The file name of the lock if the configuration names none; it is next to the configuration.
const FILE: &str = "bartizan.lock";

/// Longest member's value that `diff` prints as text, characters.
const VALUE_CHARS_MAX: usize = 400;

/// Write the tools of every server to a file for review, or report what changed since
///
/// Lists the tools of each server of the configuration and writes a lock: whole definitions,
/// sorted, with their digests. If the configuration names it with `lock:`, the firewall compares
/// every list and call with it.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:\n  \
    bartizan lock -c bartizan.yaml\n  \
    bartizan lock diff -c bartizan.yaml\n  \
    bartizan lock -c bartizan.yaml --update flags/get_flag")]
pub(super) struct LockArgs {
    #[command(subcommand)]
    command: Option<LockCommand>,
    #[command(flatten)]
    files: Option<FileArgs>,
    /// Update only this tool, `server/tool` or `tool`, and leave the others as they are locked; may
    /// be repeated.
    #[arg(long, value_name = "TOOL", requires = "config")]
    update: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum LockCommand {
    Diff(DiffArgs),
}

/// Report tools that differ from the lock; exit code 1 if there are any
#[derive(Debug, clap::Args)]
struct DiffArgs {
    #[command(flatten)]
    files: FileArgs,
    /// The output format.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// The configuration file, YAML.
    #[arg(short, long, value_name = "FILE", env = "BARTIZAN_CONFIG")]
    config: PathBuf,
    /// The lock file. Default: the one that the configuration names, otherwise `bartizan.lock` next
    /// to the configuration.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// A configuration and the path of its lock.
struct LockTarget {
    config: Config,
    path: PathBuf,
}

impl FileArgs {
    fn read(self) -> Result<LockTarget, Failure> {
        let name = self.config.display().to_string();
        let config = Config::read(&self.config)
            .map_err(|problems| Failure::configuration(&name, &problems))?;
        let beside = self.config.with_file_name(FILE);
        let path = self.file.or_else(|| config.lock.clone()).unwrap_or(beside);
        Ok(LockTarget { config, path })
    }
}

impl LockTarget {
    fn locked(&self) -> Result<LockFile, Failure> {
        LockFile::read(&self.path).map_err(|what| {
            Failure::failed(self.path.display().to_string(), what)
                .hint("run `bartizan lock` without `--update` to write a new one")
        })
    }

    async fn now(&self) -> Result<LockFile, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::failed("lock", error.to_string());
        let options = RunOptions::this_program().map_err(|error| failed(&error))?;
        ask(&self.config, options).await.map_err(|error| match error {
            AskError::Start(error) => Failure::from(error),
            AskError::Server { name, what } => Failure::failed(format!("servers.{name}"), what),
        })
    }
}

/// Runs `bartizan lock`.
pub(super) async fn run(args: LockArgs) -> Result<ExitCode, Failure> {
    if let Some(LockCommand::Diff(args)) = args.command {
        return diff(args).await;
    }
    let Some(files) = args.files else {
        return Err(Failure::usage("lock", "no configuration is named").hint("use `-c FILE`"));
    };
    let target = files.read()?;
    let name = target.path.display().to_string();
    let file = if args.update.is_empty() {
        target.now().await?
    } else {
        let locked = target.locked()?;
        renewed(locked, &target.now().await?, &args.update)?
    };
    write(&target.path, &file.text()).map_err(|error| Failure::failed(&name, error.to_string()))?;
    let (servers, tools) = file.counts();
    print(&format!("{name}: {tools} tools of {servers} servers\n"))
}

fn renewed(mut file: LockFile, now: &LockFile, names: &[String]) -> Result<LockFile, Failure> {
    for name in names {
        let mut found = file.find(name);
        found.extend(now.find(name));
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [(server, tool)] => file.renew(now, server, tool),
            [] => {
                let what = format!("no server has a tool `{}`", shown(name));
                return Err(Failure::usage("--update", what));
            }
            _ => {
                let what = format!("several servers have a tool `{}`", shown(name));
                return Err(Failure::usage("--update", what).hint("name it as `server/tool`"));
            }
        }
    }
    Ok(file)
}

async fn diff(args: DiffArgs) -> Result<ExitCode, Failure> {
    let target = args.files.read()?;
    let locked = target.locked()?;
    let changes = locked.diff(&target.now().await?);
    let text = match args.format {
        OutputFormat::Json => format!("{}\n", json!({ "changes": changes })),
        OutputFormat::Text if changes.is_empty() => {
            let (servers, tools) = locked.counts();
            format!("{tools} tools of {servers} servers, as they are locked\n")
        }
        OutputFormat::Text => as_text(&changes),
    };
    print(&text)?;
    Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The changes as text.
fn as_text(changes: &[ToolChange]) -> String {
    let mut out = String::new();
    for change in changes {
        let digests = [&change.before, &change.now];
        let digests: Vec<&str> = digests.iter().filter_map(|it| it.as_deref()).collect();
        let tool = format!("{}/{}", shown(&change.server), shown(&change.tool));
        writeln!(out, "{:<8} {tool}  {}", change.what, digests.join(" -> ")).unwrap_or_default();
        for member in &change.members {
            let side = |text: &Option<String>| match text {
                Some(text) => text.chars().take(VALUE_CHARS_MAX).collect(),
                None => "nothing".to_owned(),
            };
            let (before, now) = (side(&member.before), side(&member.now));
            writeln!(out, "           {}: {before} -> {now}", member.pointer).unwrap_or_default();
        }
    }
    writeln!(out, "{} changes", changes.len()).unwrap_or_default();
    out
}

/// Writes a new file and renames it over the old one, so that nobody reads half of it.
pub(super) fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, path)
}
