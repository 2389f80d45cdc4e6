//! `bartizan demo`: stands in until the demo is there.

use super::{Exit, Failure};

/// Show the firewall at work on a flag service of its own.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on serving until Ctrl-C, for other clients.
    #[arg(long)]
    stay: bool,
}

/// Gives the demo.
pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    std::future::ready(args.stay).await;
    Err(Failure::failed("demo", "this build has none yet"))
}
