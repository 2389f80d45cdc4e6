//! `bartizan run`: a configuration file served over HTTP.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::config::Config;
use crate::run::{self, Options};
use bartizan_edge::client::ExitReason;

/// Guard the servers of a configuration file, over HTTP.
///
/// Nothing is bound before the whole configuration was found good. Stops on SIGTERM or SIGINT,
/// once calls in flight have ended or `limits.drain` is over; reads policies again on SIGHUP.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bartizan run -c /etc/bartizan/bartizan.yaml")]
pub(super) struct Args {
    /// The configuration, YAML.
    #[arg(short, long, value_name = "FILE", env = "BARTIZAN_CONFIG")]
    config: PathBuf,
}

/// Serves until told to stop.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let name = args.config.display().to_string();
    let config =
        Config::read(&args.config).map_err(|problems| Failure::configuration(&name, &problems))?;
    serve(config).await?;
    Ok(ExitCode::SUCCESS)
}

/// Serves what `config` means until a signal, or the client, ends it.
pub(super) async fn serve(config: Config) -> Result<Option<ExitReason>, Failure> {
    let options = Options::this_program()?;
    run::diagnostics(&config.log)?;
    let signal = |kind, name: &str| {
        signal(kind).map_err(|error| Failure::failed(name.to_owned(), error.to_string()))
    };
    let mut terminate = signal(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt(), "SIGINT")?;
    let mut hangup = signal(SignalKind::hangup(), "SIGHUP")?;
    let running = run::start(config, options).await?;
    let reload = running.reload_trigger();
    let stop = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = hangup.recv() => reload.notify_one(),
            }
        }
    };
    Ok(running.serve_until(stop).await)
}
