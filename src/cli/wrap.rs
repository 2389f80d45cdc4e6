//! `bartizan wrap`: guards one server for a client that uses standard input and output.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use super::run::serve;
use crate::config::{Config, Confine, HttpTransport, Wrap};

/// Guard one server for a client that uses standard input and output
///
/// Replaces the server's command in the client's configuration, and guards a program (after `--`),
/// an HTTP server (`--url`), or a server of a configuration file (`-c`). Standard output carries only frames; diagnostics go to standard
/// error. The program inherits all environment variables.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("guarded").required(true).args(["url", "config", "command"])))]
#[command(after_help = "Examples:\n  \
    bartizan wrap --pack flag-service --environment staging -- npx -y some-mcp-server\n  \
    bartizan wrap --url https://api.example.com/mcp \\\n      \
    --header 'authorization: Bearer ${env:EXAMPLE_TOKEN}'")]
pub(super) struct WrapArgs {
    /// The server's name in rules and records, and of its state directory: 1 to 63 letters, digits,
    /// `-` and `_`. Default: the package, module, file or image that the command starts, or the host
    /// of the URL.
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    name: Option<String>,
    /// A pack that describes the server's tools: the name of a built-in pack, or a JSON file.
    #[arg(long, value_name = "NAME|FILE")]
    pack: Option<String>,
    /// A file or directory with Rego and data that decide; may be repeated. Default: the built-in
    /// baseline.
    #[arg(long, value_name = "PATH")]
    policy: Vec<String>,
    /// The environment of all calls.
    #[arg(long, value_name = "ENV")]
    environment: Option<String>,
    /// The directory for the audit journal. Default: `bartizan/<name>` in the user's state directory,
    /// or `bartizan/<name>.2` and so on where another program writes a journal there already.
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
    /// The principal that makes the calls, in rules and records. Default: `agent`.
    #[arg(long, value_name = "ID")]
    principal: Option<String>,
    /// Decide and record, but let every well-formed message pass.
    #[arg(long)]
    observe: bool,
    /// The URL of the HTTP server to guard, instead of a program.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A configuration file, YAML, whose server to guard. Other options stand in place of its keys.
    /// `listen` is not used, and the journal is where it is without a file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The name of that server. Default: the only one in the file.
    #[arg(long, value_name = "NAME", requires = "config")]
    server: Option<String>,
    /// The transport of that server: `streamable_http`, or `sse`, the HTTP+SSE transport of MCP
    /// 2024-11-05, whose stream is at the URL. Default: `streamable_http`.
    #[arg(long, value_name = "TRANSPORT", requires = "url", value_parser = transport)]
    transport: Option<HttpTransport>,
    /// A header for requests to that server, `name: value`; may be repeated. `${env:NAME}` and
    /// `${file:/path}` in the value keep a credential off the command line.
    #[arg(long, value_name = "HEADER", requires = "url")]
    header: Vec<String>,
    /// Whether the program is kept away from the files and the memory of this one: `on` (as far
    /// as the kernel can), `required` or `off`. Default: `on`.
    #[arg(long, value_name = "HOW", requires = "command", value_parser = confine)]
    confine: Option<Confine>,
    /// SHA-256 of the program's file, in hexadecimal digits. Another file is not started.
    #[arg(long, value_name = "DIGEST", requires = "command")]
    sha256: Option<String>,
    /// A file, YAML, with what stands below `approvals` in a configuration: who may answer calls that
    /// a rule holds. They answer at the address that `--admin` names.
    #[arg(long, value_name = "FILE")]
    approvals: Option<String>,
    /// The address for approvers, where `--approvals` names any: an IP address and a port. Default:
    /// `127.0.0.1:7071`.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// A bound, as below `limits` in a configuration, such as `answer_time=10m`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = limit)]
    limit: Vec<(String, String)>,
    /// What records keep of the policy's input: `none`, `facts` or `values`. Default: `none`.
    #[arg(long, value_name = "WHAT")]
    inputs: Option<String>,
    /// How a refusal looks: `error`, or `tool_result`, which models read more readily. Default:
    /// `error`.
    #[arg(long, value_name = "FORM")]
    refusal: Option<String>,
    /// The lock of tool definitions, written by `bartizan lock`.
    #[arg(long, value_name = "FILE")]
    lock: Option<String>,
    /// The base URL of an OpenTelemetry collector, to which spans are sent.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Which lines of diagnostics: a level, or targets with levels; `child` is what the program
    /// writes. Default: `warn,child=info`.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// The program to start, and its arguments. `--` before it may be left out.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Parses `name: value`. A text without `:` may be a credential, so it becomes the value, which no
/// message repeats; the empty name is then rejected.
pub(super) fn header(text: &str) -> (String, String) {
    let (name, value) = text.split_once(':').unwrap_or(("", text));
    (name.to_owned(), value.trim().to_owned())
}

/// Parses `key=value`.
fn limit(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| {
        "must be a key of `limits`, `=`, and a value, like `answer_time=10m`".to_owned()
    })
}

pub(super) fn transport(text: &str) -> Result<HttpTransport, String> {
    let known = HttpTransport::NAMES.iter().find(|(name, _)| *name == text);
    known.map(|(_, transport)| *transport).ok_or_else(|| {
        let names: Vec<&str> = HttpTransport::NAMES.iter().map(|(name, _)| *name).collect();
        format!("must be {}", names.join(" or "))
    })
}

pub(super) fn confine(text: &str) -> Result<Confine, String> {
    let known = Confine::NAMES.iter().find(|(name, _)| *name == text);
    known.map(|(_, confine)| *confine).ok_or_else(|| "must be on, required or off".to_owned())
}

impl From<WrapArgs> for Wrap {
    fn from(args: WrapArgs) -> Self {
        Self {
            command: args.command,
            url: args.url,
            config: args.config,
            server: args.server,
            transport: args.transport,
            headers: args.header.iter().map(|text| header(text)).collect(),
            name: args.name,
            pack: args.pack,
            policies: args.policy,
            environment: args.environment,
            state: args.state,
            principal: args.principal,
            observe: args.observe,
            confine: args.confine,
            sha256: args.sha256,
            approvals: args.approvals,
            admin: args.admin,
            limits: args.limit,
            inputs: args.inputs,
            refusal: args.refusal,
            lock: args.lock,
            otlp: args.otlp,
            log: args.log,
        }
    }
}

/// Runs `bartizan wrap` until the client closes its input.
pub(super) async fn run(args: WrapArgs) -> Result<ExitCode, Failure> {
    let file = args.config.as_ref().map(|path| path.display().to_string());
    let name = file.as_deref().unwrap_or("wrap");
    let config =
        Config::wrap(args.into()).map_err(|problems| Failure::configuration(name, &problems))?;
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
