//! `bartizan demo`: runs the demo with a private state directory.
//!
//! Exit code 0 if everything went as expected, also if nobody answers the held call, 1 if something did
//! not, the demo could not run or was interrupted, 64
//! if the arguments are wrong.

use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Exit, Failure};
use crate::run::RunOptions;
use bartizan_demo::{DemoError, Vendor};

/// Show the firewall at work: a service, an agent, every decision, the audit journal
///
/// Everything runs on loopback. One call waits for your approval, which you give from another
/// terminal, and the rest goes by itself; with --auto, all of it. Exit code 1 if something did not go as expected.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Keep serving until Ctrl-C, for other clients.
    #[arg(long)]
    stay: bool,
    /// Grant the call that waits for a person's approval, as a person would from another terminal.
    #[arg(long)]
    auto: bool,
    /// Keep the journal in this empty directory; by default it is deleted when the demo ends.
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,
    /// The server to protect: flag-service (the demo's own), or a stand-in with the tools of
    /// statsig-v1, statsig-v3, flagsmith or stigg.
    #[arg(long, value_name = "VENDOR", default_value = "flag-service", value_parser = vendor)]
    vendor: Vendor,
    /// Run only the service, without a firewall, and print its address.
    #[arg(long, conflicts_with_all = ["stay", "auto", "state"])]
    server_only: bool,
    /// The loopback port of the service; 0 means any free port.
    #[arg(long, default_value_t = 0, requires = "server_only")]
    port: u16,
}

fn vendor(name: &str) -> Result<Vendor, String> {
    let names = || Vendor::ALL.map(Vendor::name).join(", ");
    Vendor::of_name(name).ok_or_else(|| format!("not one of {}", names()))
}

/// Runs the demo and prints a failure to standard error.
pub async fn run(args: DemoArgs) -> ExitCode {
    match run_demo(&args, &mut io::stdout()).await {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // If standard error cannot be written either, the message is lost.
            drop(writeln!(io::stderr(), "{failure}"));
            failure.exit().into()
        }
    }
}

async fn run_demo(args: &DemoArgs, out: &mut (dyn Write + Send)) -> Result<Exit, Failure> {
    let failed = |error: DemoError| Failure::failed("demo", error.to_string());
    if args.server_only {
        bartizan_demo::serve_alone(args.vendor, args.port, out).await.map_err(failed)?;
        return Ok(Exit::Done);
    }
    let prover =
        RunOptions::this_program().map_err(|error| Failure::failed("demo", error.to_string()))?;
    let state = match &args.state {
        Some(directory) => empty_directory(directory)?,
        None => private_directory()
            .map_err(|error| Failure::failed("demo: state", error.to_string()))?,
    };
    let options = bartizan_demo::DemoOptions {
        state: state.clone(),
        auto: args.auto,
        stay: args.stay,
        vendor: args.vendor,
        interrupt: interrupt()?,
    };
    let summary =
        bartizan_demo::run(&options, |setting| crate::demo::start(setting, prover), out).await;
    if args.state.is_none() {
        let removed = std::fs::remove_dir_all(&state);
        removed.map_err(|error| Failure::failed(state.display().to_string(), error.to_string()))?;
    }
    let expected = summary.map_err(failed)?.is_as_expected();
    Ok(if expected { Exit::Done } else { Exit::Failed })
}

/// Is cancelled by the first SIGINT or SIGTERM, so that the demo ends in order and deletes its directory.
fn interrupt() -> Result<CancellationToken, Failure> {
    // Nothing waits for these tasks: they end with the program.
    let tasks = TaskTracker::new();
    let interrupt = CancellationToken::new();
    for (kind, name) in [(SignalKind::interrupt(), "SIGINT"), (SignalKind::terminate(), "SIGTERM")]
    {
        let mut signals = signal(kind).map_err(|error| Failure::failed(name, error.to_string()))?;
        let interrupt = interrupt.clone();
        tasks.spawn(async move {
            signals.recv().await;
            interrupt.cancel();
        });
    }
    Ok(interrupt)
}

/// Creates the directory that the user named, or checks that it is empty: the demo must count only
/// its own records.
fn empty_directory(directory: &Path) -> Result<PathBuf, Failure> {
    let name = || format!("--state {}", directory.display());
    let fault = |error: io::Error| Failure::failed(name(), error.to_string());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fault)?;
    if std::fs::read_dir(directory).map_err(fault)?.next().is_some() {
        return Err(Failure::usage(name(), "the directory is not empty")
            .hint("name a new directory: the demo shows only its own records"));
    }
    Ok(directory.to_owned())
}

/// Creates a directory that only this user can read, with a random name that others cannot predict.
fn private_directory() -> io::Result<PathBuf> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let name = format!("bartizan-demo-{:016x}", u64::from_be_bytes(random));
    let path = std::env::temp_dir().join(name);
    std::fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}
