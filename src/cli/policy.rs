//! `bartizan policy`: tries, explains, tests and proves policies without serving them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::failure::plain;
use super::{Exit, Failure, OutputFormat, print};
use crate::config::PolicyConfig;
use crate::policy::approving::Approving;
use crate::policy::load::{PolicyFiles, load};
use crate::policy::prove::Prover;
use crate::policy::{PolicySettings, Ready};
use bartizan_gate::duty::decision::Engine;
use bartizan_rego::{EvalLimits, Lint, Policy, PolicyProblem, capabilities, input_schema};

mod check;
mod explain;
mod learn;
mod replay;
mod test;

/// Largest size of an input or message that is read, bytes.
const INPUT_BYTES_MAX: u64 = 8 << 20;

/// The JSON Schema of packs.
const PACK_SCHEMA: &str = include_str!("../../policies/packs/pack.schema.json");

/// Try, explain, test and prove policies.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PolicyCommand {
    /// Print the value of a rule for an input, as JSON
    ///
    /// Evaluates with the strict engine, not with the compiled one. An undefined rule prints
    /// `undefined`; an error inside any rule is an error here. A decision is `deny` if a name in the
    /// input looks like one that the policy reads, as in the firewall.
    #[command(after_help = "Example:\n  \
        bartizan policy eval -p policies/ --input input.json --entrypoint data.mcp.decision")]
    Eval(EvalArgs),
    /// Print what the firewall would do with a message, and why
    ///
    /// Handles one JSON-RPC message like a client's message: parses it strictly, asks the policy,
    /// carries out the obligations with fresh rate limits, and prints effect, reasons with their
    /// codes, obligations, engine and revision. Nothing is sent or recorded.
    #[command(after_help = "Example:\n  \
        echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}' \\\n    \
        | bartizan policy explain -p policies/ --pack flag-service --environment staging")]
    Explain(ExplainArgs),
    /// Prove a policy as `run` would, and report everything that is wrong with it
    ///
    /// Exit code 1 if the policy would be rejected, or if it has a trap: something that compiles
    /// and does not do what its author means. A comment `# bartizan:allow CODE` permits one.
    #[command(after_help = "Example:\n  bartizan policy check -p policies/")]
    Check(check::PolicyCheckArgs),
    /// Run the `test_` rules of policies
    ///
    /// Exit code 1 if a test fails; `run` rejects such a policy, too.
    #[command(after_help = "Example:\n  \
        bartizan policy test -p policies/ --coverage --threshold 90")]
    Test(test::TestArgs),
    /// Evaluate a policy for recorded inputs, and report which decisions would change
    ///
    /// Reads the journal of a state directory, or files with one JSON object per line: records,
    /// events of an OPA decision log, or inputs. Compares the policy's decisions with the recorded
    /// ones, or with those of the policy `--against`. Does not use up rate limits. Skips a record
    /// if a rule reads a member that the record does not hold; `audit.inputs` makes records hold
    /// more, and `--config` supplies the servers and the principal.
    #[command(after_help = "Example:\n  \
        bartizan policy replay -p policies/ -c bartizan.yaml --state state --fail-on opened")]
    Replay(Box<replay::ReplayArgs>),
    /// Draft a policy from what a journal recorded
    ///
    /// Permits what was let through, by principal, server, tool, operation, effect and
    /// environments, and nothing else; comments mark what needs review. Also writes tests, and an
    /// incomplete pack for each server with tools that no pack describes. Works best with a journal
    /// recorded in `mode: observe`.
    #[command(after_help = "Example:\n  bartizan policy learn --state state --out learned/")]
    Learn(learn::LearnArgs),
    /// Print the capabilities file for `opa check --capabilities` and Regal
    #[command(after_help = "Example:\n  bartizan policy capabilities > capabilities.json")]
    Capabilities,
    /// Print the JSON Schema of `input`, or of packs
    #[command(after_help = "Example:\n  bartizan policy schema > input.schema.json")]
    Schema(SchemaArgs),
}

/// Arguments of `policy schema`.
#[derive(Debug, clap::Args)]
pub(super) struct SchemaArgs {
    /// Print the schema of pack files instead.
    #[arg(long)]
    packs: bool,
}

/// Arguments that select a policy.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SourceArgs {
    /// A file or directory with Rego and data; may be repeated. Default: the built-in baseline.
    #[arg(short, long = "policy", value_name = "PATH")]
    policies: Vec<PathBuf>,
}

/// Arguments of `policy eval`.
#[derive(Debug, clap::Args)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The input, a JSON file; `-` means standard input.
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
    /// The message, a JSON file; `-` means standard input.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// The server's name in the input.
    #[arg(long, value_name = "NAME", default_value = "server")]
    server: String,
    /// A pack that describes the server's tools: the name of a built-in pack, or a JSON file.
    #[arg(long, value_name = "NAME|FILE")]
    pack: Option<String>,
    /// The environment of all calls.
    #[arg(long, value_name = "ENV")]
    environment: Option<String>,
    /// A label of the server, `name=value`; may be repeated.
    #[arg(long, value_name = "LABEL", value_parser = label)]
    label: Vec<(String, String)>,
    /// An identifier that the server's tools use for an environment, `id=environment`; may be
    /// repeated.
    #[arg(long, value_name = "ID", value_parser = label)]
    environment_id: Vec<(String, String)>,
    /// The principal that makes the call.
    #[arg(long, value_name = "ID", default_value = "agent")]
    principal: String,
    /// A group of the principal; may be repeated.
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
}

/// Parses `name=value`.
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("`=` is missing; write `name=value`")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs `bartizan policy`.
pub(super) async fn run(command: PolicyCommand) -> Result<ExitCode, Failure> {
    match command {
        PolicyCommand::Check(args) => check::run(args).await,
        PolicyCommand::Test(args) => test::run(&args),
        PolicyCommand::Eval(args) => eval(args),
        PolicyCommand::Explain(args) => explain::run(args),
        PolicyCommand::Learn(args) => learn::run(args),
        PolicyCommand::Replay(args) => replay::run(*args),
        PolicyCommand::Capabilities => print(&(capabilities() + "\n")),
        PolicyCommand::Schema(args) if args.packs => print(PACK_SCHEMA),
        PolicyCommand::Schema(_) => print(&input_schema()),
    }
}

impl SourceArgs {
    fn files(self) -> PolicyFiles {
        PolicyFiles { paths: self.policies, ..PolicyFiles::default() }
    }

    /// Compiles the sources that would serve for the strict engine, with `rule` as the decision.
    fn compile(self, rule: &str) -> Result<Policy, Failure> {
        let mut files = self.files();
        rule.clone_into(&mut files.entrypoints.decision);
        let loaded = load(&files).map_err(|problems| failed(&problems))?;
        Policy::compile(&loaded.serving, &files.entrypoints, &EvalLimits::default())
            .map_err(|problems| failed(&problems))
    }
}

fn failed(problems: &[PolicyProblem]) -> Failure {
    Failure::policy(problems, Exit::Failed)
}

/// A prover that runs this program as its child process.
pub(super) fn prover() -> Result<Prover, Failure> {
    Prover::this_program().map_err(|error| {
        Failure::failed(
            "program",
            format!("the path of this program cannot be determined: {error}"),
        )
    })
}

/// Settings that prove the policy in `files` with this program and the default limits.
fn settings(files: PolicyFiles) -> Result<PolicySettings, Failure> {
    Ok(PolicySettings {
        files,
        limits: EvalLimits::default(),
        prover: prover()?,
        workers: 1,
        shadow_one_in: PolicyConfig::default().shadow_one_in,
        // Who answers stands in the configuration, which `bartizan check` reads.
        approving: Approving::Unknown,
    })
}

/// A warning on one line.
pub(super) fn warning(lint: &Lint) -> String {
    let Lint { file, line, message, hint, .. } = lint;
    plain(&format!("{file}:{line}: {message}: {hint}"))
}

/// The result of a proof on one line.
pub(super) fn proven(ready: &Ready) -> String {
    let tests = ready.proof.tests.len();
    format!("{}, {} engine, {tests} tests passed", ready.revision, ready.engine.as_str())
}

fn eval(args: EvalArgs) -> Result<ExitCode, Failure> {
    let input = read_input(&args.input)?;
    let policy = args.source.compile(&args.entrypoint)?;
    let value = policy
        .evaluate(&args.entrypoint, &input, Engine::Strict)
        .map_err(|problem| failed(&[problem]))?;
    // Other rules have their value; a decision is what the gate would take it to be.
    let decides = serde_json::from_str::<serde_json::Value>(&value)
        .is_ok_and(|value| value.get("effect").is_some());
    let denial = decides.then(|| policy.denial_of_name(&input)).flatten();
    print(&(denial.unwrap_or(value) + "\n"))
}

/// Reads a JSON file or standard input, up to [`INPUT_BYTES_MAX`].
fn read_input(path: &Path) -> Result<String, Failure> {
    let subject =
        || if path == Path::new("-") { "input".to_owned() } else { path.display().to_string() };
    let mut text = String::new();
    let mut limited: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock().take(INPUT_BYTES_MAX))
    } else {
        let file = File::open(path)
            .map_err(|error| Failure::failed(subject(), format!("cannot be read: {error}")))?;
        Box::new(file.take(INPUT_BYTES_MAX))
    };
    limited
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed(subject(), format!("cannot be read: {error}")))?;
    Ok(text)
}
