//! The command line: arguments in, exit code out.
//!
//! One file a subcommand: its arguments, and what it does with them. Results go to standard
//! output, everything else to standard error; `wrap` keeps standard output for frames alone. Exit
//! codes: 0 done, 1 failed, 64 asked wrongly.

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::policy::prove::child_main;

mod failure;
mod run;
mod wrap;
mod check;
mod config;
mod lock;
pub mod demo;
mod policy;
pub mod audit;

pub use failure::{Exit, Failure};

/// A policy-enforcing firewall for the Model Context Protocol.
///
/// Bartizan stands between an agent and the MCP servers that it uses. It reads every message
/// strictly, asks a Rego policy whether it may pass, and writes down what it decided before
/// anything happens.
#[derive(Debug, Parser)]
#[command(
    name = "bartizan",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 64 bad arguments or configuration.\n\
                  Try `bartizan demo` first: it needs nothing else."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Wrap(wrap::Args),
    Check(check::Args),
    /// Say what a configuration file may hold
    #[command(subcommand)]
    Config(config::Command),
    Lock(lock::Args),
    Demo(demo::Args),
    /// Try, explain, test and prove policies
    #[command(subcommand)]
    Policy(policy::Command),
    Audit(audit::AuditArgs),
    /// Prove a policy in a process that may die of it
    #[command(name = "policy-prove", hide = true)]
    PolicyProve,
}

/// Runs the program with `args`, the first being its own name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results; anything else is a wrong use.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // Nobody is left to tell if this fails too.
            drop(error.print());
            return exit.into();
        }
    };
    let ended = match cli.command {
        Command::Run(args) => asynchronous(run::run(args)).flatten(),
        Command::Wrap(args) => asynchronous(wrap::run(args)).flatten(),
        Command::Lock(args) => asynchronous(lock::run(args)).flatten(),
        Command::Check(args) => asynchronous(check::run(args)).flatten(),
        Command::Config(command) => config::run(&command),
        Command::Demo(args) => asynchronous(demo::run(args)),
        Command::Policy(command) => asynchronous(policy::run(command)).flatten(),
        Command::Audit(args) => Ok(audit::run(&args)),
        Command::PolicyProve => Ok(child_main(io::stdin().lock(), io::stdout().lock())),
    };
    ended.unwrap_or_else(|failure| {
        drop(writeln!(io::stderr().lock(), "{failure}"));
        failure.exit().into()
    })
}

/// Whether `args`, the first being the program's name, are a valid use; else, what is wrong.
/// For those who write such lines into files: nothing is run.
pub fn accepts(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    Cli::try_parse_from(args).map(drop).map_err(|error| error.to_string())
}

/// Runs `work` to its end on a runtime of its own.
fn asynchronous<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed("runtime", error.to_string()))?;
    Ok(runtime.block_on(work))
}

/// Writes a result. A reader who went away (`| head`) is no failure.
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
