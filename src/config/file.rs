//! What a configuration file says, key by key, before anybody asks what it means.
//!
//! Each value keeps its place. Nothing is defaulted, looked up or compared here; the forms that
//! values can take (numbers in a range, sizes, times, choices) are. `bartizan wrap` fills in the
//! same structure from its arguments.

use std::ops::RangeInclusive;
use std::time::Duration;

use bartizan_jose::Algorithm;

use super::bundle::BundleFile;
use super::problem::{Place, Problems, Spot};
use super::remote::RemoteFile;
use super::section::{References, Section};
use super::yaml;
use super::{HttpTransport, LogFormat};
use bartizan_edge::oauth::token::ALGORITHMS;
use bartizan_gate::duty::pdp::Inputs;
use bartizan_gate::session::{Mode, RefusalForm};

/// Size of the file's text, bytes; a configuration of a thousand servers has less.
pub(super) const FILE_BYTES_MAX: usize = 1 << 20;

const SERVERS_HINT: &str = "name at least one server, with its `url` or its `command`";

/// What `oauth.issuers` must be.
pub(super) const ISSUERS_HINT: &str =
    "write `- issuer: https://…` with its `jwks_uri` or `jwks_file` below";

const HOUR: Duration = Duration::from_hours(1);
const TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=HOUR;
const LONG_TIME: RangeInclusive<Duration> = Duration::from_secs(1)..=HOUR.saturating_mul(24);

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    pub(super) listen: Option<Spot<String>>,
    pub(super) listen_anywhere: Option<Spot<bool>>,
    pub(super) admin: Option<Spot<String>>,
    pub(super) admin_anywhere: Option<Spot<bool>>,
    pub(super) state: Option<Spot<String>>,
    pub(super) lock: Option<Spot<String>>,
    pub(super) mode: Option<Spot<Mode>>,
    pub(super) policy: PolicyFile,
    pub(super) servers: Vec<ServerFile>,
    pub(super) principal: PrincipalFile,
    pub(super) limits: LimitsFile,
    pub(super) audit: AuditFile,
    pub(super) otlp: Option<OtlpFile>,
    pub(super) log: LogFile,
}

/// `policy`.
#[derive(Debug, Default)]
pub(super) struct PolicyFile {
    pub(super) paths: Vec<Spot<String>>,
    pub(super) bundle: Option<BundleFile>,
    pub(super) entrypoint: Option<Spot<String>>,
    pub(super) listing_entrypoint: Option<Spot<String>>,
    pub(super) shadow_one_in: Option<Spot<u64>>,
}

/// One member of `servers`.
#[derive(Debug)]
pub(super) struct ServerFile {
    pub(super) name: Spot<String>,
    /// Whether `url` or `command` was written, if only wrongly.
    pub(super) reachable: bool,
    pub(super) path: Option<Spot<String>>,
    pub(super) sse_path: Option<Spot<String>>,
    pub(super) url: Option<Spot<String>>,
    pub(super) transport: Option<Spot<HttpTransport>>,
    pub(super) headers: Vec<(String, Spot<String>)>,
    pub(super) forward_authorization: Option<Spot<bool>>,
    pub(super) batches: Option<Spot<bool>>,
    pub(super) ca_file: Option<Spot<String>>,
    pub(super) command: Option<Vec<Spot<String>>>,
    pub(super) args: Option<Vec<Spot<String>>>,
    pub(super) env: Vec<(String, Spot<String>)>,
    pub(super) env_inherit: Option<Vec<Spot<String>>>,
    pub(super) cwd: Option<Spot<String>>,
    pub(super) pack: Option<Spot<String>>,
    pub(super) environment: Option<Spot<String>>,
    pub(super) environment_ids: Vec<(String, Spot<String>)>,
    pub(super) labels: Vec<(String, Spot<String>)>,
    pub(super) hosts: Option<Vec<Spot<String>>>,
    pub(super) origins: Option<Vec<Spot<String>>>,
    pub(super) refusal: Option<Spot<RefusalForm>>,
    pub(super) public_url: Option<Spot<String>>,
    pub(super) oauth: Option<OAuthFile>,
    pub(super) connect_timeout: Option<Spot<Duration>>,
    pub(super) stop_timeout: Option<Spot<Duration>>,
}

/// `oauth` of a server.
#[derive(Debug)]
pub(super) struct OAuthFile {
    pub(super) place: Place,
    pub(super) mode: Option<Spot<OAuthWord>>,
    /// Whether `mode` was written, if only wrongly.
    pub(super) has_mode: bool,
    pub(super) upstream_resource: Option<Spot<String>>,
    pub(super) origin_endpoints: Option<Spot<bool>>,
    /// Whether `issuers` was written, if only wrongly.
    pub(super) has_issuers: bool,
    pub(super) issuers: Option<Vec<IssuerFile>>,
    pub(super) scopes: Option<Vec<Spot<String>>>,
    pub(super) principal_claim: Option<Spot<String>>,
    pub(super) groups_claim: Option<Spot<String>>,
    pub(super) claims: Option<Vec<Spot<String>>>,
}

/// The words that `oauth.mode` can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OAuthWord {
    /// `forward`.
    Forward,
    /// `terminate`.
    Terminate,
}

/// One element of `oauth.issuers`.
#[derive(Debug)]
pub(super) struct IssuerFile {
    pub(super) place: Place,
    /// Whether `issuer` was written, if only wrongly.
    pub(super) named: bool,
    pub(super) issuer: Option<Spot<String>>,
    /// Whether `jwks_uri` or `jwks_file` was written, if only wrongly.
    pub(super) has_keys: bool,
    pub(super) jwks_uri: Option<Spot<String>>,
    pub(super) jwks_file: Option<Spot<String>>,
    pub(super) ca_file: Option<Spot<String>>,
    pub(super) audiences: Option<Vec<Spot<String>>>,
    pub(super) algorithms: Option<Vec<Spot<Algorithm>>>,
}

/// `principal`.
#[derive(Debug, Default)]
pub(super) struct PrincipalFile {
    pub(super) id: Option<Spot<String>>,
    pub(super) kind: Option<Spot<String>>,
    pub(super) groups: Vec<Spot<String>>,
    pub(super) claims: Vec<(String, Spot<String>)>,
}

/// `limits`.
#[derive(Debug, Default)]
pub(super) struct LimitsFile {
    pub(super) frame_bytes: Option<Spot<u64>>,
    pub(super) json_depth: Option<Spot<u64>>,
    pub(super) json_values: Option<Spot<u64>>,
    pub(super) number_chars: Option<Spot<u64>>,
    pub(super) id_bytes: Option<Spot<u64>>,
    pub(super) header_bytes: Option<Spot<u64>>,
    pub(super) header_count: Option<Spot<u64>>,
    pub(super) header_time: Option<Spot<Duration>>,
    pub(super) body_time: Option<Spot<Duration>>,
    pub(super) bodies_bytes: Option<Spot<u64>>,
    pub(super) connections: Option<Spot<u64>>,
    pub(super) requests: Option<Spot<u64>>,
    pub(super) streams: Option<Spot<u64>>,
    pub(super) sessions: Option<Spot<u64>>,
    pub(super) session_idle: Option<Spot<Duration>>,
    pub(super) in_flight: Option<Spot<u64>>,
    pub(super) answer_time: Option<Spot<Duration>>,
    pub(super) stream_idle: Option<Spot<Duration>>,
    pub(super) children: Option<Spot<u64>>,
    pub(super) buckets: Option<Spot<u64>>,
    pub(super) drain: Option<Spot<Duration>>,
}

/// `audit`.
#[derive(Debug, Default)]
pub(super) struct AuditFile {
    pub(super) segment_bytes: Option<Spot<u64>>,
    pub(super) inputs: Option<Spot<Inputs>>,
    pub(super) decision_logs: Option<DecisionLogsFile>,
}

/// `audit.decision_logs`.
#[derive(Debug)]
pub(super) struct DecisionLogsFile {
    pub(super) place: Place,
    pub(super) remote: RemoteFile,
    pub(super) labels: Vec<(String, Spot<String>)>,
}

/// `otlp`.
#[derive(Debug)]
pub(super) struct OtlpFile {
    pub(super) place: Place,
    pub(super) remote: RemoteFile,
    pub(super) headers: Vec<(String, Spot<String>)>,
}

/// `log`.
#[derive(Debug, Default)]
pub(super) struct LogFile {
    pub(super) format: Option<Spot<LogFormat>>,
    pub(super) filter: Option<Spot<String>>,
}

impl ConfigFile {
    /// Reads the text of a file. Absent where it is not even a mapping.
    pub(super) fn read(text: &str, problems: &mut Problems) -> Option<Self> {
        if text.len() > FILE_BYTES_MAX {
            let what = format!("larger than {FILE_BYTES_MAX} bytes");
            problems.push(&Place::named(""), what, "is this the right file?");
            return None;
        }
        let node = yaml::read(text, problems)?;
        let mut root = Section::open(node, Place::named(""), problems)?;
        let file = Self {
            listen: root.text("listen"),
            listen_anywhere: root.flag("listen_anywhere"),
            admin: root.text("admin"),
            admin_anywhere: root.flag("admin_anywhere"),
            state: root.text("state"),
            lock: root.text("lock"),
            mode: root.choice("mode", &[("enforce", Mode::Enforce), ("observe", Mode::Observe)]),
            policy: root.section("policy", PolicyFile::read).unwrap_or_default(),
            servers: root.sections("servers", SERVERS_HINT, ServerFile::read),
            principal: root.section("principal", PrincipalFile::read).unwrap_or_default(),
            limits: root.section("limits", LimitsFile::read).unwrap_or_default(),
            audit: root.section("audit", AuditFile::read).unwrap_or_default(),
            otlp: root.section("otlp", OtlpFile::read),
            log: root.section("log", LogFile::read).unwrap_or_default(),
        };
        root.close();
        Some(file)
    }
}

impl PolicyFile {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            paths: section.texts("paths").unwrap_or_default(),
            bundle: section.section("bundle", BundleFile::read),
            entrypoint: section.text("entrypoint"),
            listing_entrypoint: section.text("listing_entrypoint"),
            shadow_one_in: section.count("shadow_one_in", 1..=1_000_000),
        }
    }
}

impl ServerFile {
    /// A server that says nothing yet.
    pub(super) fn named(name: Spot<String>) -> Self {
        Self {
            name,
            reachable: true,
            path: None,
            sse_path: None,
            url: None,
            transport: None,
            headers: Vec::new(),
            forward_authorization: None,
            batches: None,
            ca_file: None,
            command: None,
            args: None,
            env: Vec::new(),
            env_inherit: None,
            cwd: None,
            pack: None,
            environment: None,
            environment_ids: Vec::new(),
            labels: Vec::new(),
            hosts: None,
            origins: None,
            refusal: None,
            public_url: None,
            oauth: None,
            connect_timeout: None,
            stop_timeout: None,
        }
    }

    fn read(section: &mut Section<'_>, name: String) -> Self {
        let refusals = [("error", RefusalForm::Error), ("tool_result", RefusalForm::ToolResult)];
        Self {
            name: Spot::new(name, section.place().clone()),
            reachable: section.has("url") || section.has("command"),
            path: section.text("path"),
            sse_path: section.text("sse_path"),
            url: section.text("url"),
            transport: section.choice("transport", &HttpTransport::NAMES),
            headers: section.texts_by_name("headers", References::Allowed),
            forward_authorization: section.flag("forward_authorization"),
            batches: section.flag("batches"),
            ca_file: section.text("ca_file"),
            command: section.text_or_texts("command"),
            args: section.texts("args"),
            env: section.texts_by_name("env", References::Allowed),
            env_inherit: section.texts("env_inherit"),
            cwd: section.text("cwd"),
            pack: section.text("pack"),
            environment: section.text("environment"),
            environment_ids: section.texts_by_name("environment_ids", References::Refused),
            labels: section.texts_by_name("labels", References::Refused),
            hosts: section.text_or_texts("hosts"),
            origins: section.text_or_texts("origins"),
            refusal: section.choice("refusal", &refusals),
            public_url: section.text("public_url"),
            oauth: section.section("oauth", OAuthFile::read),
            connect_timeout: section.time("connect_timeout", TIME),
            stop_timeout: section.time("stop_timeout", TIME),
        }
    }
}

impl OAuthFile {
    fn read(section: &mut Section<'_>) -> Self {
        let modes = [("forward", OAuthWord::Forward), ("terminate", OAuthWord::Terminate)];
        Self {
            place: section.place().clone(),
            has_mode: section.has("mode"),
            mode: section.choice("mode", &modes),
            upstream_resource: section.text("upstream_resource"),
            origin_endpoints: section.flag("origin_endpoints"),
            has_issuers: section.has("issuers"),
            issuers: section.list_of_sections("issuers", ISSUERS_HINT, IssuerFile::read),
            scopes: section.text_or_texts("scopes"),
            principal_claim: section.text("principal_claim"),
            groups_claim: section.text("groups_claim"),
            claims: section.text_or_texts("claims"),
        }
    }
}

impl IssuerFile {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            place: section.place().clone(),
            named: section.has("issuer"),
            issuer: section.text("issuer"),
            has_keys: section.has("jwks_uri") || section.has("jwks_file"),
            jwks_uri: section.text("jwks_uri"),
            jwks_file: section.text("jwks_file"),
            ca_file: section.text("ca_file"),
            audiences: section.text_or_texts("audiences"),
            algorithms: section.choices("algorithms", &ALGORITHMS.map(|it| (it.as_str(), it))),
        }
    }
}

impl PrincipalFile {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            id: section.text("id"),
            kind: section.text("kind"),
            groups: section.texts("groups").unwrap_or_default(),
            claims: section.texts_by_name("claims", References::Refused),
        }
    }
}

impl LimitsFile {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            frame_bytes: section.bytes("frame_bytes", 1 << 10..=256 << 20),
            json_depth: section.count("json_depth", 4..=128),
            json_values: section.count("json_values", 16..=1 << 24),
            number_chars: section.count("number_chars", 16..=4096),
            id_bytes: section.bytes("id_bytes", 16..=4096),
            header_bytes: section.bytes("header_bytes", 8 << 10..=1 << 20),
            header_count: section.count("header_count", 16..=1000),
            header_time: section.time("header_time", TIME),
            body_time: section.time("body_time", TIME),
            bodies_bytes: section.bytes("bodies_bytes", 1 << 20..=64 << 30),
            connections: section.count("connections", 1..=100_000),
            requests: section.count("requests", 1..=100_000),
            streams: section.count("streams", 1..=100_000),
            sessions: section.count("sessions", 1..=1_000_000),
            session_idle: section.time("session_idle", LONG_TIME),
            in_flight: section.count("in_flight", 1..=65_536),
            answer_time: section.time("answer_time", LONG_TIME),
            stream_idle: section.time("stream_idle", LONG_TIME),
            children: section.count("children", 1..=10_000),
            buckets: section.count("buckets", 16..=10_000_000),
            drain: section.time("drain", TIME),
        }
    }
}

impl AuditFile {
    fn read(section: &mut Section<'_>) -> Self {
        let inputs = [("none", Inputs::None), ("facts", Inputs::Facts), ("values", Inputs::Values)];
        Self {
            segment_bytes: section.bytes("segment_bytes", 64 << 10..=16 << 30),
            inputs: section.choice("inputs", &inputs),
            decision_logs: section.section("decision_logs", DecisionLogsFile::read),
        }
    }
}

impl DecisionLogsFile {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            place: section.place().clone(),
            remote: RemoteFile::read(section),
            labels: section.texts_by_name("labels", References::Refused),
        }
    }
}

impl OtlpFile {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            place: section.place().clone(),
            remote: RemoteFile::read_at("endpoint", section),
            headers: section.texts_by_name("headers", References::Allowed),
        }
    }
}

impl LogFile {
    fn read(section: &mut Section<'_>) -> Self {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Self { format: section.choice("format", &formats), filter: section.text("filter") }
    }
}
