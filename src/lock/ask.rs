//! Lists the tools of a configuration's servers, and for an assessment whatever one server offers.
//!
//! Starts a firewall on loopback that observes and refuses nothing, with the configuration's
//! servers behind it; rmcp lists their tools through it, page by page. So each server is reached
//! exactly as in a run (transport, credentials, limits), and the definitions are the bytes that the
//! gate parsed, not what a typed client model made of them. The journal of this run is deleted with
//! its directory.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;

use super::client::{self, Surveyed, list_all};
use super::{LockFile, LockedTool};
use crate::config::{Config, Front, PolicyConfig, ServerConfig};
use crate::run::{self, RunOptions, Running, StartError};
use bartizan_audit::entry::JournalRecord;
use bartizan_audit::tail::JournalReader;
use bartizan_audit::{inert, journal_directory};
use bartizan_gate::question::operation::Operation;
use bartizan_gate::session::{Mode, Protected};
use bartizan_gate::wire::hex::hex;
use bartizan_peer::client::HttpClient;

/// Time limit for one server to list all its tools.
const SERVER_MAX: Duration = Duration::from_mins(2);

/// Why the tools could not be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskError {
    /// The temporary firewall does not start.
    Start(StartError),
    /// A server did not list its tools.
    Server {
        /// The server's name.
        name: String,
        /// What happened.
        what: String,
    },
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => write!(f, "{error}"),
            Self::Server { name, what } => write!(f, "servers.{name}: {what}"),
        }
    }
}

impl std::error::Error for AskError {}

/// Time for requests that are still open when the temporary firewall stops. All lists that are
/// wanted have come by then, or are given up.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Characters of what is told of a failure.
const FAILURE_CHARS_MAX: usize = 400;

/// A directory that is deleted when the value is dropped.
struct Scratch(PathBuf);

impl Scratch {
    /// A random path in the directory for temporary files. The run creates it, accessible to its
    /// owner only.
    fn new() -> Result<Self, AskError> {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|error| {
            AskError::Start(StartError {
                subject: "random".to_owned(),
                what: error.to_string(),
                hint: None,
            })
        })?;
        Ok(Self(std::env::temp_dir().join(format!("bartizan-lock-{}", hex(&random)))))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // There is no way to report an error here.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A temporary firewall that observes, with the servers of a configuration behind it.
struct Observing {
    running: Running,
    scratch: Scratch,
}

impl Observing {
    /// Starts it on loopback; the server with index 0 is at the path `/0`.
    async fn start(config: &Config, options: RunOptions) -> Result<Self, AskError> {
        let scratch = Scratch::new()?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut asking = Config {
            front: Front::Http { listen: any, admin: any },
            state: scratch.path().to_owned(),
            lock: None,
            mode: Mode::Observe,
            policy: PolicyConfig::default(),
            otlp: None,
            // It lies where programs have their temporary files.
            sha256: None,
            hides_state: false,
            ..config.clone()
        };
        asking.limits.drain = asking.limits.drain.min(DRAIN_MAX);
        let kept = [Some(&config.state), config.lock.as_ref()];
        asking.own_files.extend(kept.into_iter().flatten().cloned());
        asking.own_files.extend(config.policy.paths.iter().cloned());
        for (index, server) in asking.servers.iter_mut().enumerate() {
            server.path = format!("/{index}");
            server.hosts = Vec::new();
            server.origins = Vec::new();
            server.oauth = None;
        }
        let running = run::start(asking, options).await.map_err(AskError::Start)?;
        Ok(Self { running, scratch })
    }

    /// A client's connection to the server with this index.
    fn connect(&self, index: usize) -> Result<StreamableHttpClientTransport<HttpClient>, String> {
        let address = self.running.address().ok_or_else(|| "is not served".to_owned())?;
        Ok(StreamableHttpClientTransport::with_client(
            HttpClient::new(),
            StreamableHttpClientTransportConfig::with_uri(Arc::<str>::from(format!(
                "http://{address}/{index}"
            ))),
        ))
    }
}

/// Lists the tools of every server of `config`.
///
/// # Errors
///
/// The firewall does not start, or a server does not list its tools.
pub async fn ask(config: &Config, options: RunOptions) -> Result<LockFile, AskError> {
    let observing = Observing::start(config, options).await?;
    let asked = ask_all(&observing, &config.servers).await;
    observing.running.end().await;
    asked.map_err(|error| match error {
        AskError::Server { name, what } => {
            let what = failure(observing.scratch.path(), &name).unwrap_or(what);
            AskError::Server { name, what }
        }
        AskError::Start(error) => AskError::Start(error),
    })
}

/// What a server offers: the survey, and its tools by name with their definitions as the gate read
/// them.
pub(crate) struct Survey {
    /// What the client saw.
    pub(crate) surveyed: Surveyed,
    /// Name and definition of each tool.
    pub(crate) tools: Vec<(String, String)>,
}

/// Lists everything that the first server of `config` offers, within `time`.
///
/// # Errors
///
/// The firewall does not start, or no session with the server can be opened.
pub(crate) async fn survey(
    config: &Config,
    options: RunOptions,
    time: Duration,
) -> Result<Survey, AskError> {
    let observing = Observing::start(config, options).await?;
    for protected in observing.running.protected() {
        protected.keep_texts();
    }
    let surveyed = match observing.connect(0) {
        Ok(transport) => client::survey(transport, time).await,
        Err(what) => Err(what),
    };
    let tools = observing.running.protected().first().map(|it| it.tools()).unwrap_or_default();
    observing.running.end().await;
    let name = config.servers.first().map(|server| server.name.clone()).unwrap_or_default();
    let surveyed = surveyed.map_err(|what| {
        let what = failure(observing.scratch.path(), &name).unwrap_or(what);
        AskError::Server { name, what }
    })?;
    let tools = tools.into_iter().map(|(name, definition)| {
        (name.into(), definition.text.as_deref().unwrap_or_default().to_owned())
    });
    Ok(Survey { surveyed, tools: tools.collect() })
}

async fn ask_all(observing: &Observing, servers: &[ServerConfig]) -> Result<LockFile, AskError> {
    let mut file = LockFile::default();
    for (index, (server, protected)) in
        servers.iter().zip(observing.running.protected()).enumerate()
    {
        let failed = |what: String| AskError::Server { name: server.name.clone(), what };
        protected.keep_texts();
        let transport = observing.connect(index).map_err(failed)?;
        match tokio::time::timeout(SERVER_MAX, list_all(transport)).await {
            Ok(listed) => listed.map_err(failed)?,
            Err(_) => return Err(failed("did not list its tools in time".to_owned())),
        }
        let tools = tools(protected).map_err(failed)?;
        file.servers.insert(server.name.clone(), tools);
    }
    Ok(file)
}

/// What went wrong last between the firewall with its files in `state` and the server `name`. The
/// client, for which every failure looks alike, cannot say it.
fn failure(state: &Path, name: &str) -> Option<String> {
    let mut reader = JournalReader::new(&journal_directory(state), 1);
    let mut last = None;
    while let Ok(Some(line)) = reader.read() {
        let Ok(record) = JournalRecord::read(&line.bytes) else { continue };
        if record.server.as_deref() == Some(name) && record.outcome.is_some() {
            last = Some(record);
        }
    }
    let record = last?;
    let code = record.error_type.as_deref().unwrap_or_default();
    let note = record.note.as_deref().unwrap_or(code);
    let what = match (record.outcome.as_deref()?, code) {
        (_, "unreachable") => format!("the server cannot be reached: {note}"),
        (_, "timeout") => "the server did not answer in time".to_owned(),
        (_, "ended_early") => "the server ended its answer too early".to_owned(),
        ("upstream_failed" | "error", status) if status.parse::<u16>().is_ok() => {
            let next = match status {
                "401" | "403" => "; it asks for other credentials",
                "404" | "405" => "; is the URL that of its MCP endpoint?",
                _ => "",
            };
            format!("the server answered with HTTP status {status}{next}")
        }
        ("upstream_failed" | "withheld", _) => {
            format!("the server's answer cannot be used: {note}")
        }
        _ => return None,
    };
    let mut shown = "the MCP session cannot be opened: ".to_owned();
    inert::push(&mut shown, &what, FAILURE_CHARS_MAX);
    Some(shown)
}

/// The tools that the firewall parsed.
fn tools(protected: &Protected) -> Result<std::collections::BTreeMap<String, LockedTool>, String> {
    let pack = protected.facts.pack.as_deref();
    let listed = protected.tools();
    if listed.len() >= Protected::TOOLS_MAX {
        return Err(format!("has more than {} tools", Protected::TOOLS_MAX));
    }
    listed
        .into_iter()
        .map(|(name, definition)| {
            let text = definition.text.as_deref().unwrap_or_default();
            let effect = Operation::of_tool(pack, &name).effect.as_str();
            Ok((name.into(), LockedTool::new(text, effect, &definition.flags)?))
        })
        .collect()
}
