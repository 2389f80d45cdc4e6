//! `bartizan config`: describes the configuration file.

use std::process::ExitCode;

use super::{Failure, print};
use crate::config::schema;

/// Describe the configuration file.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the JSON Schema (2020-12) of the configuration file
    ///
    /// An editor with this schema completes keys, shows their descriptions, and marks errors.
    /// `bartizan check` finds more: it resolves references and paths, and proves the policy.
    #[command(after_help = "Example:\n  bartizan config schema > bartizan.schema.json")]
    Schema,
}

/// Runs `bartizan config`.
pub(super) fn run(command: &ConfigCommand) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Schema => print(&schema()),
    }
}
