//! The `bartizan` program: calls the library and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    bartizan::cli::main(std::env::args_os())
}
