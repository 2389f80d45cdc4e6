//! `bartizan run`: a configuration file served over HTTP.

use std::path::PathBuf;

use super::{Exit, Failure};
use crate::config::Config;

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
pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let name = args.config.display().to_string();
    let config = Config::read(&args.config)
        .map_err(|problems| Failure::configuration(&name, &problems))?;
    std::future::ready(drop(config)).await;
    Err(Failure::failed("run", "this build serves nothing yet"))
}
