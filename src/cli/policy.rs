//! `bartizan policy`: try, explain and test policies, without serving anything.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Exit, Failure, print};
use crate::config::PolicyConfig;
use crate::policy::load::{Loaded, PolicyFiles, load};
use crate::policy::prove::Prover;
use crate::policy::{PolicySettings, Ready};
use bartizan_gate::duty::decision::Engine;
use bartizan_rego::{EvalLimits, Policy, PolicyProblem, capabilities, input_schema};

mod check;
mod explain;
mod learn;
mod replay;
mod test;

/// Size of an input or a message read from a file, bytes.
const INPUT_BYTES_MAX: u64 = 8 << 20;

/// The form of a pack.
const PACK_SCHEMA: &str = include_str!("../../policies/schema/pack.schema.json");

/// Try, explain, test and prove policies.
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
    /// Takes one JSON-RPC message the way that a client's message takes, reads it strictly, asks
    /// the policy, discharges the obligations on fresh limits, and prints effect, reasons with
    /// their codes, obligations, engine and revision. Nothing is sent or recorded.
    #[command(after_help = "Example:\n  \
        echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}' \\\n    \
        | bartizan policy explain -p policies/ --pack flag-service --environment staging")]
    Explain(ExplainArgs),
    /// Prove a policy as `run` would, and say everything that is wrong with it
    ///
    /// Exit code 1 where it would not be served, and where it has a trap: something that compiles
    /// and does not do what its author means. A comment `# bartizan:allow CODE` lets one stand.
    #[command(after_help = "Example:\n  bartizan policy check -p policies/")]
    Check(check::CheckArgs),
    /// Run the `test_` rules of policies
    ///
    /// Exit code 1 where one fails; such a policy is not served either.
    #[command(after_help = "Example:\n  \
        bartizan policy test -p policies/ --coverage --threshold 90")]
    Test(test::TestArgs),
    /// Put recorded questions to a policy, and say which verdicts would change
    ///
    /// Reads the journal of a state directory, or files with a JSON object on each line: records,
    /// events of an OPA decision log, or inputs. What a policy says is compared with what was
    /// recorded, or with what the policy `--against` says. Rate limits are not spent. A question
    /// is not judged where a rule reads what the record does not hold; `audit.inputs` has more
    /// recorded, and `--config` tells the servers and the principal.
    #[command(after_help = "Example:\n  \
        bartizan policy replay -p policies/ -c bartizan.yaml --state state --fail-on opened")]
    Replay(Box<replay::ReplayArgs>),
    /// Draft a policy from what a journal saw
    ///
    /// Permits what went through, by principal, server, tool, operation, effect and environments,
    /// and nothing else; comments say what needs a second look. With it come its tests, and a pack
    /// to complete for each server with tools that no pack knows. Best from a journal that was
    /// written with `mode: observe`.
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
    /// The schema of pack files instead.
    #[arg(long)]
    packs: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For a person.
    Text,
    /// For a program.
    Json,
}

/// Which policy.
#[derive(Debug, Clone, clap::Args)]
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
    /// The message, a JSON file; `-` is standard input.
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
    /// An identifier that the server's tools take for an environment, `id=environment`; may be
    /// repeated.
    #[arg(long, value_name = "ID", value_parser = label)]
    environment_id: Vec<(String, String)>,
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
pub(super) async fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Check(args) => check::run(args).await,
        Command::Test(args) => test::run(&args),
        Command::Eval(args) => eval(args),
        Command::Explain(args) => explain::run(args),
        Command::Learn(args) => learn::run(args),
        Command::Replay(args) => replay::run(*args),
        Command::Capabilities => print(&(capabilities() + "\n")),
        Command::Schema(args) if args.packs => print(PACK_SCHEMA),
        Command::Schema(_) => print(&input_schema()),
    }
}

impl SourceArgs {
    fn files(self) -> PolicyFiles {
        PolicyFiles { paths: self.policies, ..PolicyFiles::default() }
    }

    fn load(self) -> Result<Loaded, Failure> {
        load(&self.files()).map_err(|problems| failed(&problems))
    }

    /// What would serve, on the strict engine, with `rule` in the place of the decision.
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

/// This program proves.
pub(super) fn prover() -> Result<Prover, Failure> {
    Prover::this_program()
        .map_err(|error| Failure::failed("program", format!("cannot find itself: {error}")))
}

/// How the policy in `files` is proven: by this program itself, with the defaults.
fn settings(files: PolicyFiles) -> Result<PolicySettings, Failure> {
    Ok(PolicySettings {
        files,
        limits: EvalLimits::default(),
        prover: prover()?,
        workers: 1,
        shadow_one_in: PolicyConfig::default().shadow_one_in,
    })
}

/// What the proof found, on one line.
pub(super) fn proven(ready: &Ready) -> String {
    let tests = ready.proof.tests.len();
    format!("{}, {} engine, {tests} tests passed", ready.revision, ready.engine.as_str())
}

fn eval(args: EvalArgs) -> Result<ExitCode, Failure> {
    let input = read_input(&args.input)?;
    let policy = args.source.compile(&args.entrypoint)?;
    let value = policy.evaluate(&args.entrypoint, &input, Engine::Strict);
    print(&(value.map_err(|problem| failed(&[problem]))? + "\n"))
}

/// The text of a JSON file, or of standard input; bounded.
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
