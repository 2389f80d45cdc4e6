//! `bartizan policy`: try, explain and test policies, without serving anything.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;

/// Try, explain and test policies.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print what a rule comes to for an input, as JSON
    ///
    /// Evaluates on the strict engine, as the firewall does first. An undefined rule prints
    /// `undefined`; an error inside any rule is an error here.
    #[command(after_help = "Example:\n  \
        bartizan policy eval -p policies/ --input input.json --entrypoint data.mcp.decision")]
    Eval(EvalArgs),
    /// Print what the firewall would do with a message, and why
    ///
    /// Reads one JSON-RPC message as a client would send it, or a policy input (an object with
    /// `phase` and without `jsonrpc`), and prints effect, reasons with their codes, obligations, engine and
    /// revision.
    #[command(after_help = "Example:\n  \
        echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}' \\\n    \
        | bartizan policy explain -p policies/ --pack flag-service --environment staging")]
    Explain(ExplainArgs),
    /// Run the `test_` rules of policies
    #[command(after_help = "Example:\n  bartizan policy test -p policies/")]
    Test(SourceArgs),
    /// Print the capabilities file for `opa check --capabilities` and Regal
    #[command(after_help = "Example:\n  bartizan policy capabilities > capabilities.json")]
    Capabilities,
}

/// Which policy.
#[derive(Debug, clap::Args)]
pub(super) struct SourceArgs {
    /// Rego and data, a file or directory; may be repeated. Without it: the built-in baseline.
    #[arg(short, long = "policy", value_name = "PATH")]
    policies: Vec<PathBuf>,
}

/// Arguments of `policy eval`.
#[derive(Debug, clap::Args)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The input, a JSON file; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,
    /// The rule to evaluate.
    #[arg(short, long, value_name = "RULE", default_value = "data.mcp.decision")]
    entrypoint: String,
}

/// Arguments of `policy explain`.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The message or input, a JSON file; `-` is standard input.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// The server's name in the input.
    #[arg(long, value_name = "NAME", default_value = "server")]
    server: String,
    /// What is known about the server's tools: the name of a built-in pack, or a JSON file.
    #[arg(long, value_name = "NAME|FILE")]
    pack: Option<String>,
    /// The environment that calls are pinned to.
    #[arg(long, value_name = "ENV")]
    environment: Option<String>,
    /// A label of the server, `name=value`; may be repeated.
    #[arg(long, value_name = "LABEL", value_parser = label)]
    label: Vec<(String, String)>,
    /// Whose call it is.
    #[arg(long, value_name = "ID", default_value = "agent")]
    principal: String,
    /// A group of the principal; may be repeated.
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
}

/// Reads `name=value`.
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("no `=` in it; write `name=value`")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Does it.
pub(super) fn run(command: Command) -> Result<ExitCode, Failure> {
    drop(command);
    Err(Failure::failed("policy", "this build has no engine yet"))
}

/// The child's side of a proof.
pub(super) fn prove() -> Result<ExitCode, Failure> {
    Ok(crate::policy::prove::child_main(std::io::stdin().lock(), std::io::stdout().lock()))
}
