//! The command line: parses arguments, runs a subcommand, returns an exit code.
//!
//! Each subcommand has a file with its arguments and its code. Results go to standard output,
//! everything else to standard error; `wrap` uses standard output only for frames. Exit codes: 0
//! success, 1 failure, 64 wrong arguments or configuration.

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::confine::protect_self;
use crate::policy::prove::child_main;
use crate::run::diagnostics as run_diagnostics;
use bartizan_edge::http::{TASKS_BETWEEN_EVENTS, TASKS_BETWEEN_QUEUES};
use bartizan_edge::processors;

mod failure;
mod check;
mod announce;
mod run;
mod wrap;
mod config;
mod confine;
mod lock;
mod assess;
pub mod demo;
mod policy;
mod approvals;
pub mod audit;

pub use failure::{Exit, Failure};

/// A policy-enforcing firewall for the Model Context Protocol.
///
/// Bartizan stands between an agent and the MCP servers that it uses. It parses every message
/// strictly, asks a Rego policy whether the message may pass, and records the decision before it
/// acts.
#[derive(Debug, Parser)]
#[command(
    name = "bartizan",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 64 bad arguments or configuration.\n\
                  Try `bartizan demo --auto` first: it needs nothing else."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Wrap(Box<wrap::WrapArgs>),
    Check(check::CheckArgs),
    /// Describe the configuration file
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Lock(lock::LockArgs),
    Assess(Box<assess::AssessArgs>),
    Demo(demo::DemoArgs),
    /// Try, explain, test and prove policies
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    Approvals(approvals::ApprovalsArgs),
    Audit(audit::AuditArgs),
    /// Prove a policy in a child process, which a bad policy may crash
    #[command(name = "policy-prove", hide = true)]
    PolicyProve,
    /// Become a protected server that is kept away from this program
    #[command(name = "confine", hide = true)]
    Confine(confine::ConfineArgs),
}

/// The output formats of commands that print results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OutputFormat {
    /// Text for a person.
    Text,
    /// JSON for a program.
    Json,
}

/// Runs the program with `args`, the first of which is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` print results; any other parser message is a usage error.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // If standard error cannot be written either, the message is lost.
            drop(error.print());
            return exit.into();
        }
    };
    // `confine` becomes another program, whose own business this is.
    if !matches!(cli.command, Command::Confine(_))
        && let Err(error) = protect_self()
    {
        drop(writeln!(io::stderr().lock(), "{}", Failure::failed("process", error.to_string())));
        return Exit::Failed.into();
    }
    let ended = match cli.command {
        Command::Run(args) => asynchronous(run::run(args)).flatten(),
        Command::Wrap(args) => asynchronous(wrap::run(*args)).flatten(),
        Command::Lock(args) => asynchronous(lock::run(args)).flatten(),
        Command::Assess(args) => asynchronous(assess::run(*args)).flatten(),
        Command::Check(args) => asynchronous(check::run(args)).flatten(),
        Command::Config(command) => config::run(&command),
        Command::Demo(args) => asynchronous(demo::run(args)),
        Command::Policy(command) => asynchronous(policy::run(command)).flatten(),
        Command::Approvals(args) => asynchronous(approvals::run(args)).flatten(),
        Command::Audit(args) => Ok(audit::run(&args)),
        Command::Confine(args) => confine::run(args),
        Command::PolicyProve => Ok(child_main(io::stdin().lock(), io::stdout().lock())),
    };
    run_diagnostics::flush();
    ended.unwrap_or_else(|failure| {
        drop(writeln!(io::stderr().lock(), "{failure}"));
        failure.exit().into()
    })
}

/// Checks whether `args`, the first of which is the program's name, parse; the error says why not.
/// Tests check the command lines in documentation and configuration files with it. Nothing is run.
pub fn accepts(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    Cli::try_parse_from(args).map(drop).map_err(|error| error.to_string())
}

/// How long the program waits at its end for threads that wait for the disk.
const RUNTIME_END_MAX: Duration = Duration::from_secs(1);

/// Runs `work` on a new tokio runtime.
fn asynchronous<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One may hang in a system call that waits for the disk.
        .worker_threads(processors().max(2))
        .event_interval(TASKS_BETWEEN_EVENTS)
        .global_queue_interval(TASKS_BETWEEN_QUEUES)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::failed("runtime", error.to_string()))?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(RUNTIME_END_MAX);
    Ok(done)
}

/// Prints a result. A closed pipe (`| head`) is not a failure.
fn print(text: &str) -> Result<ExitCode, Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::failed("standard output", error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
