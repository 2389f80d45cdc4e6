//! `bartizan wrap`: one server guarded for a client that speaks over standard input and output.

use std::process::ExitCode;

use super::Failure;
use super::run::serve;
use crate::config::{Config, HttpTransport, Wrap};

/// Guard one server for a client that speaks over standard input and output.
///
/// Stands where the server's command stood: in front of a program (after `--`), or of an HTTP
/// server (`--url`). Standard output carries frames and nothing else; diagnostics go to standard
/// error. The program gets all variables of this one.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("server").required(true).args(["url", "command"])))]
#[command(after_help = "Examples:\n  \
    bartizan wrap --pack flag-service --environment staging -- npx -y some-mcp-server\n  \
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
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// What that server speaks: `streamable_http`, or `sse`, the transport of 2024-11-05, whose
    /// stream is at the URL. Default: `streamable_http`.
    #[arg(long, value_name = "TRANSPORT", requires = "url", value_parser = transport)]
    transport: Option<HttpTransport>,
    /// A header for that server, `name: value`; may be repeated. `${env:NAME}` and
    /// `${file:/path}` in the value keep a credential off the command line.
    #[arg(long, value_name = "HEADER", requires = "url")]
    header: Vec<String>,
    /// The program to start and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Reads `name: value`. A text without `:` may be a credential; it is left as a value, which no
/// message repeats, and its empty name is refused.
fn header(text: &str) -> (String, String) {
    let (name, value) = text.split_once(':').unwrap_or(("", text));
    (name.to_owned(), value.trim().to_owned())
}

fn transport(text: &str) -> Result<HttpTransport, String> {
    let known = HttpTransport::NAMES.iter().find(|(name, _)| *name == text);
    known.map(|(_, transport)| *transport).ok_or_else(|| {
        let names: Vec<&str> = HttpTransport::NAMES.iter().map(|(name, _)| *name).collect();
        format!("must be {}", names.join(" or "))
    })
}

impl From<Args> for Wrap {
    fn from(args: Args) -> Self {
        Self {
            command: args.command,
            url: args.url,
            transport: args.transport,
            headers: args.header.iter().map(|text| header(text)).collect(),
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
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let config =
        Config::wrap(args.into()).map_err(|problems| Failure::configuration("wrap", &problems))?;
    match serve(config).await? {
        Some(reason) if reason.is_failure() => {
            let failure = Failure::failed("wrap", reason.to_string());
            Err(match reason.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
        Some(_) | None => Ok(ExitCode::SUCCESS),
    }
}
