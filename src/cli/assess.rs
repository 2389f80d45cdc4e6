//! `bartizan assess`: writes the threat model of one server.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::wrap::{confine, header, transport};
use super::{Failure, print};
use crate::assess::{observe, shown_word, shown_words};
use crate::config::{Config, Confine, HttpTransport, Inherit, PackRef, Upstream, Wrap};
use crate::lock::ask::AskError;
use crate::policy::embedded;
use crate::run::RunOptions;
use bartizan_assess::aivss::{Factor, Scoring, Version, slug};
use bartizan_assess::assessment::{Assessment, Chosen, PackInUse, Severity, resembling};
use bartizan_assess::observed::Observed;
use bartizan_assess::render;
use bartizan_assess::starter::{self, StarterFile, Way};
use bartizan_gate::question::pack::Pack;

/// Write the threat model of a server: what its tools can do, what is wrong, what nobody knows
///
/// Connects to an HTTP server, or to a program (after `--`), and asks for its lists of tools,
/// resources and prompts. Nothing is called, read or fetched. Classifies each tool by a pack, or by
/// hints, which can only make it worse, and reports findings by MAESTRO layer with ids of OWASP and
/// ATLAS, an inventory, the factors of AIVSS, and what could not be known.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("server").required(true).args(["url", "command"])))]
#[command(after_help = "Examples:\n  \
    bartizan assess http://127.0.0.1:8080/mcp\n  \
    bartizan assess https://api.example.com/mcp --format html -o assessment.html \\\n      \
    --header 'authorization: Bearer ${env:EXAMPLE_TOKEN}'\n  \
    bartizan assess --cvss 6.5 -- npx -y some-mcp-server@1.2.3")]
pub(super) struct AssessArgs {
    /// The URL of the HTTP server.
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// A pack that describes the server's tools: the name of a built-in pack, or a JSON file.
    /// Default: the built-in pack that the server's name and tools resemble, if there is one.
    #[arg(long, value_name = "NAME|FILE")]
    pack: Option<String>,
    /// A header for requests to the server, `name: value`; may be repeated. `${env:NAME}` and
    /// `${file:/path}` in the value keep a credential off the command line.
    #[arg(long, value_name = "HEADER", requires = "url")]
    header: Vec<String>,
    /// The transport of the server: `streamable_http` or `sse`. Default: `streamable_http`.
    #[arg(long, value_name = "TRANSPORT", requires = "url", value_parser = transport)]
    transport: Option<HttpTransport>,
    /// A variable of this program that the server's program gets too, besides PATH and the like; may
    /// be repeated.
    #[arg(long, value_name = "NAME", requires = "command")]
    env: Vec<String>,
    /// Whether the program is kept away from the files and the memory of this one: `on` (as far
    /// as the kernel can), `required` or `off`. Default: `on`.
    #[arg(long, value_name = "HOW", requires = "command", value_parser = confine)]
    confine: Option<Confine>,
    /// Time for connecting and listing.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    scoring: ScoringArgs,
    /// The format of the report.
    #[arg(long, value_enum, value_name = "FORM", default_value_t = ReportFormat::Text)]
    format: ReportFormat,
    /// Write the report to this file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also write a first policy into this directory: a configuration, a pack, rules and their tests.
    /// Existing files are not overwritten.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Exit with 1 if there is a finding of this severity or a worse one: `high`, `medium` or `low`.
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    fail_on: Option<Severity>,
    /// The program to start, and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What the user knows for the AIVSS score, which is advice only.
#[derive(Debug, clap::Args)]
struct ScoringArgs {
    /// The CVSS base score, 0 to 10, from which the AIVSS score is made.
    #[arg(long, value_name = "SCORE", value_parser = cvss)]
    cvss: Option<f64>,
    /// The version of AIVSS: `0.8`, `0.5`, or `mixed`, the factors of 0.5 with the formula of 0.8,
    /// as public threat models have it. Default: `mixed`.
    #[arg(long, value_name = "VERSION", value_parser = version)]
    aivss: Option<Version>,
    /// A factor that you know, such as `dynamic-identity=0.5`; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = factor)]
    factor: Vec<(String, f64)>,
    /// The threat multiplier of AIVSS, 0 to 1. Default: that of the version.
    #[arg(long, value_name = "VALUE", value_parser = unit)]
    threat_multiplier: Option<f64>,
    /// The mitigation factor of AIVSS, 0 to 1.
    #[arg(long, value_name = "VALUE", default_value = "1", value_parser = unit)]
    mitigation_factor: f64,
}

/// The formats of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ReportFormat {
    /// Text for a terminal.
    Text,
    /// JSON for a program.
    Json,
    /// Markdown for an issue or a wiki.
    Markdown,
    /// One HTML page without scripts.
    Html,
}

fn between(text: &str, max: f64) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=max).contains(&value) { Ok(value) } else { Err(format!("not 0 to {max}")) }
}

fn cvss(text: &str) -> Result<f64, String> {
    between(text, 10.0)
}

fn unit(text: &str) -> Result<f64, String> {
    between(text, 1.0)
}

fn factor(text: &str) -> Result<(String, f64), String> {
    let (name, value) = text.split_once('=').ok_or("write `name=value`")?;
    Ok((slug(name), unit(value)?))
}

fn named<T: Copy>(text: &str, names: &[(&'static str, T)]) -> Result<T, String> {
    let known = names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    known.ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        format!("must be {}", names.join(" or "))
    })
}

fn version(text: &str) -> Result<Version, String> {
    named(text, &Version::NAMES)
}

fn severity(text: &str) -> Result<Severity, String> {
    named(text, &Severity::ALL.map(|severity| (severity.as_str(), severity)))
}

impl ScoringArgs {
    fn read(&self) -> Result<Scoring, Failure> {
        let version = self.aivss.unwrap_or(Version::Mixed);
        let mut factors: Vec<(Factor, f64)> = Vec::new();
        for (name, value) in &self.factor {
            let known = version.factors().iter().find(|(_, known)| slug(known) == *name);
            let Some((factor, _)) = known else {
                let names: Vec<String> =
                    version.factors().iter().map(|(_, name)| slug(name)).collect();
                let what = format!("no factor is called `{}`", name.escape_debug());
                return Err(Failure::usage("--factor", what)
                    .hint(format!("the factors are {}", names.join(", "))));
            };
            factors.push((*factor, *value));
        }
        let mitigation = self.mitigation_factor;
        let threat = self.threat_multiplier;
        Ok(Scoring { version, cvss: self.cvss, factors, threat, mitigation })
    }
}

/// A pack with its text.
struct ReadPack {
    pack: Pack,
    text: String,
    chosen: Chosen,
}

/// The pack that the user named.
fn named_pack(name: &str) -> Result<ReadPack, Failure> {
    let wrong = |what: String| Failure::usage("--pack", what);
    let reference = PackRef::named(name);
    let pack = reference.read().map_err(|error| {
        error.whats.iter().map(|what| wrong(what.clone())).reduce(Failure::joined).map_or_else(
            || wrong("cannot be used".to_owned()),
            |failure| failure.hint(error.hint.clone()),
        )
    })?;
    let text = match &reference {
        PackRef::Embedded(name) => embedded::pack(name).unwrap_or_default().to_owned(),
        PackRef::File(path) => {
            fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?
        }
    };
    Ok(ReadPack { pack: Pack::clone(&pack), text, chosen: Chosen::Named })
}

/// The built-in pack that the server resembles.
fn found_pack(observed: &Observed) -> Option<ReadPack> {
    let texts = || embedded::PACKS.iter().map(|(_, text)| *text);
    let packs: Vec<Pack> =
        texts().map(|text| Pack::read(text.as_bytes()).unwrap_or_default()).collect();
    let index = resembling(observed, &packs)?;
    let pack = packs.into_iter().nth(index)?;
    let text = texts().nth(index)?.to_owned();
    Some(ReadPack { pack, text, chosen: Chosen::Found })
}

impl AssessArgs {
    /// The server as the configuration of a run that observes it.
    fn config(&self) -> Result<Config, Failure> {
        let wrap = Wrap {
            command: self.command.clone(),
            url: self.url.clone(),
            transport: self.transport,
            headers: self.header.iter().map(|text| header(text)).collect(),
            pack: self.pack.clone(),
            // Not used: the run has a directory of its own, which is deleted.
            state: Some(std::env::temp_dir().join("bartizan-assess").display().to_string()),
            observe: true,
            confine: self.confine,
            ..Wrap::default()
        };
        let mut config =
            Config::wrap(wrap).map_err(|problems| Failure::configuration("assess", &problems))?;
        // A server that is not trusted yet gets no variables that may be credentials.
        for server in &mut config.servers {
            if let Upstream::Child(child) = &mut server.upstream {
                child.inherit = match Inherit::default() {
                    Inherit::Only(names) => {
                        Inherit::Only(names.into_iter().chain(self.env.iter().cloned()).collect())
                    }
                    Inherit::Everything => Inherit::Everything,
                };
            }
        }
        Ok(config)
    }
}

/// The value of a header for a file: a reference that holds no credential itself.
fn reference(value: &str) -> Option<String> {
    let rest = value.strip_prefix("Bearer ").unwrap_or(value);
    let name = rest.strip_prefix("${")?.strip_suffix('}')?;
    (!name.contains(['$', '{', '}'])).then(|| value.to_owned())
}

/// How a configuration reaches the server, without credentials.
fn way(args: &AssessArgs) -> Way {
    let headers = args.header.iter().map(|text| header(text));
    Way {
        url: args.url.as_deref().map(shown_word).unwrap_or_default(),
        command: shown_words(&args.command),
        headers: headers.map(|(name, value)| (name, reference(&value))).collect(),
    }
}

/// The built-in baseline: file names and texts, tests included.
fn baseline() -> Vec<StarterFile> {
    let modules = [embedded::baseline(), embedded::baseline_tests()].concat();
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    modules.into_iter().map(|module| (name(&module.path), module.text)).collect()
}

/// Writes the files of a starter; what is written, a line each.
fn write_starter(directory: &Path, files: &[StarterFile]) -> Result<String, Failure> {
    let mut lines = Vec::new();
    for (name, text) in files {
        let path = directory.join(name);
        let shown = path.display().to_string();
        let written = || -> std::io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.write_all(text.as_bytes())
        };
        written()
            .map_err(|error| Failure::failed(&shown, format!("cannot be written: {error}")))?;
        lines.push(format!("wrote {shown}\n"));
    }
    Ok(lines.concat())
}

/// Runs `bartizan assess`.
pub(super) async fn run(args: AssessArgs) -> Result<ExitCode, Failure> {
    let named = args.pack.as_deref().map(named_pack).transpose()?;
    let config = args.config()?;
    let scoring = args.scoring.read()?;
    let options =
        RunOptions::this_program().map_err(|error| Failure::failed("assess", error.to_string()))?;
    let observed = observe(&config, options, args.timeout).await.map_err(|error| match error {
        AskError::Start(error) => Failure::from(error),
        AskError::Server { what, .. } => Failure::failed("assess", what),
    })?;
    let pack = named.or_else(|| found_pack(&observed));
    let pack =
        pack.as_ref().map(|it| PackInUse { pack: &it.pack, text: &it.text, chosen: it.chosen });
    let assessment = Assessment::new(&observed, pack, &scoring);
    let report = match args.format {
        ReportFormat::Text => render::text(&assessment),
        ReportFormat::Json => {
            assessment.to_json().map_err(|error| Failure::failed("assess", error.to_string()))?
        }
        ReportFormat::Markdown => render::markdown(&assessment),
        ReportFormat::Html => render::html(&assessment),
    };
    match &args.output {
        Some(path) => {
            let name = path.display().to_string();
            super::lock::write(path, &report)
                .map_err(|error| Failure::failed(&name, error.to_string()))?;
            print(&format!("wrote {name}\n"))?;
        }
        None => {
            print(&report)?;
        }
    }
    if let Some(directory) = &args.write {
        let files = starter::files(&assessment, &observed, pack, &way(&args), &baseline())
            .map_err(|what| Failure::failed("assess: pack", what))?;
        // A report on standard output stays whole.
        let lines = write_starter(directory, &files)?;
        drop(std::io::stderr().lock().write_all(lines.as_bytes()));
    }
    let fails =
        |severity: Severity| assessment.findings.iter().any(|finding| finding.severity <= severity);
    Ok(if args.fail_on.is_some_and(fails) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
