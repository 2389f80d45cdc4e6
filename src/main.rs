//! The `bartizan` program. Everything is in the library; this is where its exit code leaves.

use std::process::ExitCode;

fn main() -> ExitCode {
    bartizan::cli::main(std::env::args_os())
}
