//! `bartizan confine`: becomes a protected server, confined. Hidden: `run` and `wrap` start their
//! servers with it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use crate::confine::{Confinement, User, enter};

/// Confine this process and execute a server in its place
#[derive(Debug, clap::Args)]
pub(super) struct ConfineArgs {
    /// A file or directory that the server cannot open; may be repeated.
    #[arg(long, value_name = "PATH")]
    hide: Vec<PathBuf>,
    /// The user, and the group, that the server runs as.
    #[arg(long, value_name = "UID[:GID]", value_parser = user)]
    user: Option<User>,
    /// The server's soft limit of file descriptors.
    #[arg(long, value_name = "COUNT")]
    descriptors: Option<u64>,
    /// Fail where the kernel cannot hide files.
    #[arg(long)]
    required: bool,
    /// The server, and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// For `--user`, here and elsewhere.
pub(super) fn user(text: &str) -> Result<User, String> {
    text.parse().map_err(str::to_owned)
}

/// Runs `bartizan confine`; returns only if it fails.
pub(super) fn run(args: ConfineArgs) -> Result<ExitCode, Failure> {
    let ConfineArgs { hide, user, descriptors, required, command } = args;
    let confinement = Confinement { hidden: hide, user, descriptors, required };
    let (program, rest) =
        command.split_first().map_or((OsString::new(), &[][..]), |(a, b)| (a.clone(), b));
    let error = enter(&confinement, program.as_ref(), rest);
    Err(Failure::failed("confine", error.to_string()))
}
