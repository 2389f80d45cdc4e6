//! The program.

use std::process::ExitCode;

use bartizan::policy::prove;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == prove::SUBCOMMAND) {
        return prove::child_main(std::io::stdin(), std::io::stdout());
    }
    ExitCode::FAILURE
}
