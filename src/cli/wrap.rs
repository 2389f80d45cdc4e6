//! `bartizan wrap`: one server guarded for a client that speaks over standard input and output.

use super::{Exit, Failure};
use crate::config::{Config, Wrap};

/// Guard one server for a client that speaks over standard input and output.
///
/// Stands where the server's command stood: in front of a program (after `--`), or of an HTTP
/// server (`--url`). Standard output carries frames and nothing else; diagnostics go to standard
/// error. The program gets all variables of this one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bartizan wrap --pack flagsmith --environment staging -- npx -y some-mcp-server\n  \
    bartizan wrap --url https://api.example.com/mcp \\\n      \
    --header 'authorization: Bearer ${env:EXAMPLE_TOKEN}'")]
pub(super) struct Args {
    /// What is known about the server's tools: the name of a built-in pack, or a JSON file.
    #[arg(long, value_name = "NAME|FILE")]
    pack: Option<String>,
    /// Rego and data that decide, a file or directory; may be repeated. Without it: the built-in
    /// baseline.
    #[arg(long, value_name = "PATH")]
    policy: Vec<String>,
    /// The environment that calls are pinned to.
    #[arg(long, value_name = "ENV")]
    environment: Option<String>,
    /// Where the audit journal is kept. Default: `bartizan/<server>` in the user's state
    /// directory.
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
    /// Whose calls these are, in rules and records. Default: `agent`.
    #[arg(long, value_name = "ID")]
    principal: Option<String>,
    /// Decide and record, but let everything well-formed pass.
    #[arg(long)]
    observe: bool,
    /// The HTTP server to guard, instead of a program.
    #[arg(long, value_name = "URL", required_unless_present = "command")]
    url: Option<String>,
    /// A header for that server, `name: value`; may be repeated. `${env:NAME}` and
    /// `${file:/path}` in the value keep a credential off the command line.
    #[arg(long, value_name = "HEADER", requires = "url", value_parser = header)]
    header: Vec<(String, String)>,
    /// The program to start and its arguments.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "url")]
    command: Vec<String>,
}

/// Reads `name: value`.
fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) => Ok((name.to_owned(), value.trim().to_owned())),
        // The text may be a credential: it is not repeated.
        None => Err("no `:` in it; write `name: value`".to_owned()),
    }
}

impl From<Args> for Wrap {
    fn from(args: Args) -> Self {
        Self {
            command: args.command,
            url: args.url,
            headers: args.header,
            pack: args.pack,
            policies: args.policy,
            environment: args.environment,
            state: args.state,
            principal: args.principal,
            observe: args.observe,
        }
    }
}

/// Serves until the client ends its input.
pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let config = Config::wrap(args.into())
        .map_err(|problems| Failure::configuration("wrap", &problems))?;
    std::future::ready(drop(config)).await;
    Err(Failure::failed("wrap", "this build serves nothing yet"))
}
