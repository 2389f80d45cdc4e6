//! `bartizan lock`: the tools of every server written down for review, and what changed since.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, print};
use crate::config::Config;
use crate::lock::ask::{AskError, ask};
use crate::lock::{Change, LockFile, shown};
use crate::run::Options;

/// The file beside the configuration where that names none.
const FILE: &str = "bartizan.lock";

/// Longest value of a member that `diff` prints for a person, characters.
const VALUE_CHARS_MAX: usize = 400;

/// Write down the tools of every server for review, or say what changed since
///
/// Asks each server of the configuration for its tools and writes a lock: whole definitions,
/// sorted, with their digests. Named in the configuration with `lock:`, it is what every list and
/// call is held against.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:\n  \
    bartizan lock -c bartizan.yaml\n  \
    bartizan lock diff -c bartizan.yaml\n  \
    bartizan lock -c bartizan.yaml --update flags/get_flag")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    files: Option<Files>,
    /// Renew this tool alone, `server/tool` or `tool`, and leave the others as they are locked;
    /// may be repeated.
    #[arg(long, value_name = "TOOL", requires = "config")]
    update: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Diff(DiffArgs),
}

/// Say what the servers list now that is not as it is locked; exit code 1 where there is something
#[derive(Debug, clap::Args)]
struct DiffArgs {
    #[command(flatten)]
    files: Files,
    /// How the answer looks.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Debug, clap::Args)]
struct Files {
    /// The configuration, YAML.
    #[arg(short, long, value_name = "FILE", env = "BARTIZAN_CONFIG")]
    config: PathBuf,
    /// The lock. Default: what the configuration names, else `bartizan.lock` beside it.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// A configuration and where its lock is.
struct Asked {
    config: Config,
    path: PathBuf,
}

impl Files {
    fn read(self) -> Result<Asked, Failure> {
        let name = self.config.display().to_string();
        let config = Config::read(&self.config)
            .map_err(|problems| Failure::configuration(&name, &problems))?;
        let beside = self.config.with_file_name(FILE);
        let path = self.file.or_else(|| config.lock.clone()).unwrap_or(beside);
        Ok(Asked { config, path })
    }
}

impl Asked {
    fn locked(&self) -> Result<LockFile, Failure> {
        LockFile::read(&self.path).map_err(|what| {
            Failure::failed(self.path.display().to_string(), what)
                .hint("`bartizan lock` without `--update` writes it anew")
        })
    }

    async fn now(&self) -> Result<LockFile, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::failed("lock", error.to_string());
        let options = Options::this_program().map_err(|error| failed(&error))?;
        ask(&self.config, options).await.map_err(|error| match error {
            AskError::Start(error) => Failure::from(error),
            AskError::Server { name, what } => Failure::failed(format!("servers.{name}"), what),
        })
    }
}

/// Asks, and writes or compares.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    if let Some(Command::Diff(args)) = args.command {
        return diff(args).await;
    }
    let Some(files) = args.files else {
        return Err(Failure::usage("lock", "no configuration is named").hint("use `-c FILE`"));
    };
    let asked = files.read()?;
    let name = asked.path.display().to_string();
    let file = if args.update.is_empty() {
        asked.now().await?
    } else {
        let locked = asked.locked()?;
        renewed(locked, &asked.now().await?, &args.update)?
    };
    write(&asked.path, &file.text()).map_err(|error| Failure::failed(&name, error.to_string()))?;
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
    let asked = args.files.read()?;
    let locked = asked.locked()?;
    let changes = locked.diff(&asked.now().await?);
    let text = match args.format {
        Format::Json => format!("{}\n", json!({ "changes": changes })),
        Format::Text if changes.is_empty() => {
            let (servers, tools) = locked.counts();
            format!("{tools} tools of {servers} servers, as they are locked\n")
        }
        Format::Text => told(&changes),
    };
    print(&text)?;
    Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Changes for a person.
fn told(changes: &[Change]) -> String {
    let mut out = String::new();
    for change in changes {
        let digests = [&change.before, &change.now];
        let digests: Vec<&str> = digests.iter().filter_map(|it| it.as_deref()).collect();
        let tool = format!("{}/{}", shown(&change.server), shown(&change.tool));
        writeln!(out, "{:<8} {tool}  {}", change.change, digests.join(" -> ")).unwrap_or_default();
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

/// Written beside and renamed, so that nobody reads half a lock.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, path)
}
