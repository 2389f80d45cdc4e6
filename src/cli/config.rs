//! `bartizan config`: what a configuration file may hold.

use std::process::ExitCode;

use super::{Failure, print};
use crate::config::schema;

/// Say what a configuration file may hold.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print the JSON Schema (2020-12) of the configuration file
    ///
    /// An editor that knows it completes keys, shows what they mean, and marks what cannot be
    /// meant. `bartizan check` finds more: it follows references and paths, and proves the policy.
    #[command(after_help = "Example:\n  bartizan config schema > bartizan.schema.json")]
    Schema,
}

/// Does what was asked.
pub(super) fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Schema => print(&schema()),
    }
}
