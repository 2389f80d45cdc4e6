//! Configuration: what a file says, and what the program means by it.
//!
//! A file is read into a tree ([`crate::yaml`]), and the tree straight into a [`Config`], the
//! only thing that the rest of the program sees. Each part has a file here: what the program means
//! by it, and the function that reads it. Every key is one call of `Section::key`, with its name,
//! its form, range and unit, what it means, and its default. The calls are the table of keys: they
//! read a file, and they describe what may stand in one, from which [`schema()`] and the tables of
//! `docs/configuration.md` ([`documented_keys`]) are made.
//!
//! Every problem is reported, not the first, each with its place and a next step; nothing is bound
//! or started before. Packs and policies are named here and read elsewhere.
//!
//! To add a key: add its call to the function that reads its part, and
//! `BARTIZAN_BLESS=1 cargo test --test it config::` writes the schema and the page anew.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use crate::yaml;
use sha2::{Digest as _, Sha256};

use bartizan_gate::question::access::Principal;
use bartizan_gate::session::{GateConfig, Mode};

mod problem;
mod surroundings;
mod context;
mod secret;
mod table;
mod form;
mod section;
mod schema;
mod listeners;
mod limits;
mod headers;
mod remote;
mod bundle;
mod policy;
mod pack;
mod upstream;
mod terminate;
mod oauth;
mod server;
mod servers;
mod principal;
mod audit;
mod otlp;
mod sign_in;
mod webhook;
mod approvals;
mod replicas;
mod log;
mod warnings;
mod launched;
mod wrap;
mod part;

pub use approvals::{ApprovalsConfig, ApproverConfig};
pub use audit::{AuditConfig, CheckpointsConfig, DecisionLogsConfig, RetentionConfig};
pub use bundle::{
    BundleConfig, BundleServiceConfig, BundleSource, KeyConfig, KeyMaterial, PollingConfig,
    SigningConfig,
};
pub use limits::Limits;
pub use listeners::Front;
pub use log::{LogConfig, LogFormat};
pub use oauth::{OAuthConfig, OAuthMode};
pub use otlp::{OtlpConfig, OtlpProtocol};
pub use pack::{PackError, PackRef};
pub use policy::PolicyConfig;
pub use problem::{Location, Problem, Problems, Warning};
pub(crate) use remote::is_loopback;
pub use remote::{CredentialsConfig, RemoteConfig};
pub use replicas::{ReplicasConfig, SharedKey, StoreAddress};
pub use secret::Secret;
pub use server::ServerConfig;
pub use sign_in::{OidcConfig, PeopleConfig};
pub use surroundings::Surroundings;
pub(crate) use surroundings::read_pem;
pub use table::DocumentedKey;
pub use terminate::{IssuerConfig, JwksConfig, TerminateConfig};
pub use upstream::{ChildUpstream, Confine, HttpTransport, HttpUpstream, Inherit, Upstream};
pub use webhook::{CallbackConfig, WebhookConfig};
pub use wrap::Wrap;

use self::context::Context;
use self::form::{path, word};
use self::section::{Section, defaulted, describe, section};
use self::surroundings::read_file;

/// Size of the file's text, bytes; a configuration of a thousand servers has less.
const FILE_BYTES_MAX: usize = 1 << 20;

const STATE: &str = "/var/lib/bartizan";

/// Everything that the program means to do.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients come in (`listen`, `admin`).
    pub front: Front,
    /// Directory of the journal and of everything else that outlives a restart (`state`).
    pub state: PathBuf,
    /// The lock of tool definitions (`lock`). Default: none.
    pub lock: Option<PathBuf>,
    /// Whether verdicts are carried out (`mode`).
    pub mode: Mode,
    /// The policy (`policy`).
    pub policy: PolicyConfig,
    /// The protected servers (`servers`), at least one, in the order of the file.
    pub servers: Vec<ServerConfig>,
    /// Who the clients of this instance are (`principal`).
    pub principal: Principal,
    /// Bounds (`limits`).
    pub limits: Limits,
    /// The journal (`audit`).
    pub audit: AuditConfig,
    /// Who may answer `hold` rules (`approvals`).
    pub approvals: ApprovalsConfig,
    /// What several instances share (`replicas`). Default: nothing.
    pub replicas: Option<ReplicasConfig>,
    /// Where spans go, if anywhere (`otlp`).
    pub otlp: Option<OtlpConfig>,
    /// The program's own diagnostics (`log`).
    pub log: LogConfig,
    /// The file itself, where there is one, and the files of secrets that references in it name.
    pub own_files: Vec<PathBuf>,
    /// SHA-256 of the file itself, where there is one.
    pub sha256: Option<[u8; 32]>,
    /// Whether programs are kept from `state`. Not where it is thrown away after the run.
    pub hides_state: bool,
    /// Whether the state directory may be one beside `state` with a number (`state.2`), where another
    /// program writes the journal in `state`. So with `bartizan wrap`, whose user chose none.
    pub numbers_state: bool,
    /// Settings that do nothing beside the others; [`Config::warnings`] has them, too.
    pub idle: Vec<Warning>,
}

/// Where agents come from, as far as the reader of the keys must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agents {
    /// They call `listen`.
    OverHttp,
    /// There is one, at standard input and output.
    OverStdio,
}

impl Config {
    /// Reads the file at `path`. Paths in it are relative to its directory.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let text = text_of(path)?;
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        let mut config = Self::parse(&text, base, &|name| std::env::var(name).ok())?;
        config.own_files.push(path.to_owned());
        config.sha256 = Some(Sha256::digest(text.as_bytes()).into());
        Ok(config)
    }

    /// Reads `text`, with paths in it relative to `base` and variables from `env`. Looks at the
    /// file system for what the text names, and changes nothing.
    pub fn parse(
        text: &str,
        base: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Problems> {
        let surroundings = Surroundings { env, read: &read_file, exists: &Path::exists };
        Self::parse_in(text, base, &surroundings)
    }

    /// Reads `text`, with everything outside of it handed in.
    pub fn parse_in(
        text: &str,
        base: &Path,
        surroundings: &Surroundings<'_>,
    ) -> Result<Self, Problems> {
        Self::noting_files(surroundings, |surroundings| {
            let cx = Context::new(base, surroundings);
            let config = tree(text, &cx).and_then(|tree| Self::meant(tree, Agents::OverHttp, &cx));
            found(cx, config)
        })
    }

    /// What `bartizan wrap` means by its arguments. Problems name arguments instead of keys.
    pub fn wrap(wrap: Wrap) -> Result<Self, Problems> {
        let env = |name: &str| std::env::var(name).ok();
        let surroundings = Surroundings { env: &env, read: &read_file, exists: &Path::exists };
        Self::wrap_in(wrap, &surroundings)
    }

    /// What `bartizan wrap` means by its arguments, with everything outside handed in.
    pub fn wrap_in(wrap: Wrap, surroundings: &Surroundings<'_>) -> Result<Self, Problems> {
        let folder = wrap.config.as_deref().and_then(Path::parent).map(Path::to_owned);
        let base = folder.unwrap_or_default();
        Self::noting_files(surroundings, |surroundings| {
            let cx = Context::new(&base, surroundings);
            let config = Self::wrapped(wrap, &cx);
            found(cx, config)
        })
    }

    /// What `wrap` means. Absent where a needed part could not be made out.
    fn wrapped(wrap: Wrap, cx: &Context<'_>) -> Option<Self> {
        let mut sha256 = None;
        let mut file = None;
        if let Some(path) = &wrap.config {
            let at = Location::named("");
            let bytes = bytes_of(path, &at, "name a configuration file with `-c`", cx)?;
            sha256 = Some(Sha256::digest(&bytes).into());
            file = Some(tree_of(&bytes, &at, cx)?);
        }
        let approvals = wrap.approvals.as_deref().and_then(|path| {
            let at = Location::named("--approvals");
            let hint = "name a file that holds what stands below `approvals`";
            tree_of(&bytes_of(Path::new(path), &at, hint, cx)?, &at, cx)
        });
        // A `run` of the file keeps its journal there, which the program must not reach either.
        let state = file.as_ref().and_then(|file| file.member("state"));
        let state = state.and_then(yaml::Node::as_text).map(|state| cx.base.join(state));
        let numbers_state = wrap.state.is_none();
        let tree = wrap.into_tree(file, cx.surroundings, approvals, &|location, what, hint| {
            cx.problem(location, what, hint);
        });
        let config = Self::meant(tree?, Agents::OverStdio, cx)?;
        let own_files = state.into_iter().filter(|state| (cx.surroundings.exists)(state)).collect();
        Some(Self { own_files, sha256, numbers_state, ..config })
    }

    /// Reads with `surroundings`, and puts the files that were read into [`Config::own_files`].
    fn noting_files(
        surroundings: &Surroundings<'_>,
        reading: impl FnOnce(&Surroundings<'_>) -> Result<Self, Problems>,
    ) -> Result<Self, Problems> {
        let files = RefCell::new(Vec::new());
        let read = |path: &Path, bytes_max: usize| {
            files.borrow_mut().push(path.to_owned());
            (surroundings.read)(path, bytes_max)
        };
        let noting = Surroundings { read: &read, ..*surroundings };
        let mut config = reading(&noting)?;
        config.own_files.extend(files.into_inner());
        Ok(config)
    }

    /// What `tree` means. Absent where a needed part could not be made out.
    fn meant(tree: yaml::Node, agents: Agents, cx: &Context<'_>) -> Option<Self> {
        at_top(tree, cx, |s| Self::keys(s, agents))
    }

    /// The keys of the whole file.
    fn keys(s: &mut Section<'_>, agents: Agents) -> Option<Self> {
        let front = Front::read(s, agents);
        let state = state_key(s);
        let lock = s
            .key(
                "lock",
                path(),
                "The lock of tool definitions, written by `bartizan lock`. \
                 See [policy.md](policy.md#the-lock-of-tool-definitions).",
            )
            .optional("none");
        let mode = s
            .key(
                "mode",
                word([Mode::Enforce, Mode::Observe].map(|mode| (mode.as_str(), mode))),
                "`enforce`, or `observe`: decide and record everything, let everything \
                 well-formed pass.",
            )
            .or(Mode::Enforce);
        let servers = servers::read(s, front);
        let policy =
            s.key("policy", defaulted(PolicyConfig::read), "Which policy decides.").or_empty();
        let principal = s
            .key("principal", defaulted(principal::read), "Who the agents of this instance are.")
            .or_empty();
        let limits = s.key("limits", defaulted(Limits::read), "Bounds.").or_empty();
        let audit = s.key("audit", defaulted(AuditConfig::read), "The journal.").or_empty();
        let approvals = s
            .key("approvals", defaulted(ApprovalsConfig::read), "Approval of calls by people.")
            .or_empty();
        let replicas = replicas::read(s);
        let otlp = s
            .key("otlp", section(OtlpConfig::read), "Where spans and log records go: OTLP.")
            .optional("none");
        let log =
            s.key("log", defaulted(LogConfig::read), "The program's own diagnostics.").or_empty();
        let audit = audit?;
        let (servers, otlp_journal) =
            (servers?, otlp.as_ref().is_some_and(|otlp| !otlp.signals.is_empty()));
        warn_of_pairs(s, &servers, &audit, otlp_journal);
        Some(Self {
            front: front?,
            state,
            lock,
            mode,
            policy: policy?,
            servers,
            principal: principal?,
            limits: limits?,
            audit,
            approvals: approvals?,
            replicas,
            otlp,
            log: log?,
            own_files: Vec::new(),
            sha256: None,
            hides_state: true,
            numbers_state: false,
            idle: Vec::new(),
        })
    }

    /// Bounds and identity of the gate. `boot` is new at each start; `digest_key` keys the digests
    /// in records.
    pub fn gate(&self, boot: Box<str>, digest_key: [u8; 32]) -> GateConfig {
        GateConfig {
            mode: self.mode,
            frame: self.limits.frame,
            in_flight_max: self.limits.in_flight,
            buckets_max: self.limits.buckets,
            boot,
            digest_key,
        }
    }
}

/// `config` with what `cx` has found to do nothing, unless something is wrong.
fn found(cx: Context<'_>, config: Option<Config>) -> Result<Config, Problems> {
    let (problems, idle) = cx.into_findings();
    problems.unless_any(config.map(|config| Config { idle, ..config }))
}

/// Tells of keys that do nothing because of keys of another section.
fn warn_of_pairs(
    s: &Section<'_>,
    servers: &[ServerConfig],
    audit: &AuditConfig,
    otlp_sends_journal: bool,
) {
    if audit.retention.removes_unsent && !otlp_sends_journal && audit.decision_logs.is_none() {
        let at = s.at("audit").absent_member("retention").absent_member("unsent");
        let what = "does nothing: neither `otlp` nor `audit.decision_logs` sends the journal";
        s.idle_at(&at, what, "remove it");
    }
    let terminates = |server: &ServerConfig| {
        matches!(server.oauth.as_ref().map(|oauth| &oauth.mode), Some(OAuthMode::Terminate(_)))
    };
    if s.has("principal") && !servers.is_empty() && servers.iter().all(terminates) {
        let what = "names nobody but for `kind`: every server takes the principal from tokens";
        s.idle("principal", what, "write `kind` alone");
    }
}

/// The text of the file at `path`.
fn text_of(path: &Path) -> Result<String, Problems> {
    let text = match read_file(path, FILE_BYTES_MAX.saturating_add(1)) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()),
        Err(error) => Err(format!("it cannot be read: {error}")),
    };
    text.map_err(|what| {
        let mut problems = Problems::default();
        problems.push(&Location::named(""), what, "name a configuration file with `-c`");
        problems
    })
}

/// What `read` makes of the top-level keys of `tree`.
fn at_top<T>(
    tree: yaml::Node,
    cx: &Context<'_>,
    read: impl Fn(&mut Section<'_>) -> Option<T>,
) -> Option<T> {
    let written = form::Written { node: tree, location: Location::named(""), name: String::new() };
    section(read).read(written, cx)
}

fn state_key(s: &mut Section<'_>) -> PathBuf {
    s.key(
        "state",
        path(),
        "Directory of the journal, of the key of its digests, and of the held calls \
         (`approvals.redb`). It is created if it is missing, for its owner alone.",
    )
    .or(STATE.into())
}

/// The tree of a file's text.
fn tree(text: &str, cx: &Context<'_>) -> Option<yaml::Node> {
    let whole = Location::named("");
    if text.len() > FILE_BYTES_MAX {
        let what = format!("larger than {FILE_BYTES_MAX} bytes");
        cx.problem(&whole, what, "is this the right file?");
        return None;
    }
    let mut faults = Vec::new();
    let tree = yaml::read(text, &mut faults);
    if tree.is_none() && faults.is_empty() {
        cx.problem(&whole, "it is empty", "name at least one server");
    }
    for fault in faults {
        let location = Location { path: fault.path, line: fault.line };
        cx.problem(&location, fault.what, fault.hint);
    }
    tree
}

/// The bytes of a file that an argument of `wrap` names, which stands at `location`.
fn bytes_of(path: &Path, location: &Location, hint: &str, cx: &Context<'_>) -> Option<Vec<u8>> {
    let read = (cx.surroundings.read)(path, FILE_BYTES_MAX.saturating_add(1));
    read.map_err(|error| cx.problem(location, format!("it cannot be read: {error}"), hint)).ok()
}

/// The tree of the text in a file that an argument of `wrap` names, which stands at `location`.
fn tree_of(bytes: &[u8], location: &Location, cx: &Context<'_>) -> Option<yaml::Node> {
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|_| cx.problem(location, "it is not UTF-8", "is this the right file?"));
    tree(text.ok()?, cx)
}

fn table() -> table::Table {
    describe(|s| Config::keys(s, Agents::OverHttp))
}

/// Every key: what it means, its range and its default, as `docs/configuration.md` shows them, in
/// the order in which they are read.
pub fn documented_keys() -> Vec<DocumentedKey> {
    let mut keys = Vec::new();
    table::documented(&table(), "", &mut keys);
    keys
}

/// The JSON Schema (2020-12) of a configuration, as text that ends with a line end. It accepts
/// every configuration that can be meant, and refuses unknown keys, wrong forms and numbers out of
/// range; [`Config::parse`] also follows references and paths, and compares keys.
pub fn schema() -> String {
    schema::text(&table())
}
