//! `bartizan run`: serves a configuration over HTTP.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Failure, announce};
use crate::config::{Config, Front};
use crate::run::{self, RunOptions};
use bartizan_edge::client::ExitReason;

/// Guard the servers of a configuration file, over HTTP
///
/// Opens no port until the whole configuration has been checked. Stops on SIGTERM or SIGINT, after
/// the calls in progress have ended or `limits.drain` has passed, and the journal is closed; a further
/// signal ends the wait, that for the disk after half a second. Exit code 1 if the journal could not
/// be closed. Reads policies again on SIGHUP.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bartizan run -c /etc/bartizan/bartizan.yaml")]
pub(super) struct RunArgs {
    /// The configuration file, YAML.
    #[arg(short, long, value_name = "FILE", env = "BARTIZAN_CONFIG")]
    config: PathBuf,
}

/// Runs `bartizan run`.
pub(super) async fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let name = args.config.display().to_string();
    let config =
        Config::read(&args.config).map_err(|problems| Failure::configuration(&name, &problems))?;
    serve(config).await?;
    Ok(ExitCode::SUCCESS)
}

/// Serves `config` until a signal arrives, or, on stdio, the client ends. `wrap` calls it, too.
pub(super) async fn serve(config: Config) -> Result<Option<ExitReason>, Failure> {
    let options = RunOptions::this_program()?;
    run::diagnostics::install(&config.log)?;
    let signal = |kind, name: &str| {
        signal(kind).map_err(|error| Failure::failed(name.to_owned(), error.to_string()))
    };
    let mut terminate = signal(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt(), "SIGINT")?;
    let mut hangup = signal(SignalKind::hangup(), "SIGHUP")?;
    let announced = matches!(config.front, Front::Stdio { .. }).then(|| config.clone());
    if let Some(config) = &announced {
        run::diagnostics::say(&announce::guarding(config));
    }
    let running = run::start(config, options).await?;
    if let Some(config) = announced {
        for line in announce::recording(&config, running.state()) {
            run::diagnostics::say(&line);
        }
    }
    let (reload, hurry) = (running.reload_trigger(), running.hurry_trigger());
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    // Shutdown does not wait for it: it ends shutdown early.
    let signals = TaskTracker::new().spawn(async move {
        loop {
            let signal = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => {
                    reload.notify_one();
                    continue;
                }
            };
            if stopping.is_cancelled() {
                hurry.notify_one();
            } else {
                tracing::info!(
                    signal,
                    "stopping: no new calls; a further signal ends those in progress"
                );
            }
            stopping.cancel();
        }
    });
    let served = running.serve_until(stop.cancelled()).await;
    signals.abort();
    if served.is_ok() {
        tracing::info!("stopped: the journal is closed");
    }
    served.map_err(|error| Failure::failed("journal", error.to_string()))
}
