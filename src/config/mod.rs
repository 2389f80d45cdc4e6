//! Configuration: what a file says, and what the program means by it.
//!
//! Two steps, two types. [`mod@file`] reads what is written, key by key; [`meaning`] turns that into a
//! [`Config`], the only thing that the rest of the program sees. Both report every problem, not
//! the first, each with its place and a next step; nothing is bound or started before. Packs and
//! policies are named here and read elsewhere.
//!
//! Everything that a [`Config`] holds has a default, a unit and a bound, stated at its field.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, Uri};
use bartizan_jose::Algorithm;

use bartizan_gate::duty::pdp::Inputs;
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::question::pack::Pack;
use bartizan_gate::session::{GateConfig, Mode, RefusalForm};
use bartizan_gate::wire::frame::FrameLimits;

mod problem;
mod secret;
mod yaml;
mod section;
mod file;
mod meaning;
mod server;
mod remote;
mod bundle;
mod oauth;
mod terminate;
mod wrap;
mod pack;

pub(crate) use bundle::pem as read_pem;
pub use pack::PackError;
pub use problem::{Place, Problem, Problems, Spot};
pub use secret::Secret;
pub use wrap::Wrap;
pub(crate) use yaml::to_json as yaml_to_json;

use file::ConfigFile;

/// Everything that the program means to do.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients come in (`listen`, `admin`).
    pub front: Front,
    /// Directory of the journal and of everything else that outlives a restart (`state`).
    /// Default `/var/lib/bartizan`.
    pub state: PathBuf,
    /// The lock of tool definitions (`lock`). Default: none.
    pub lock: Option<PathBuf>,
    /// Whether verdicts are carried out (`mode`: `enforce` or `observe`). Default `enforce`.
    pub mode: Mode,
    /// The policy (`policy`).
    pub policy: PolicyConfig,
    /// The protected servers (`servers`), at least one, in the order of the file.
    pub servers: Vec<ServerConfig>,
    /// Who the clients of this instance are (`principal`). Default: id and kind `agent`.
    pub principal: Principal,
    /// Bounds (`limits`).
    pub limits: Limits,
    /// The journal (`audit`).
    pub audit: AuditConfig,
    /// Where spans go, if anywhere (`otlp`).
    pub otlp: Option<OtlpConfig>,
    /// The program's own diagnostics (`log`).
    pub log: LogConfig,
}

/// Where clients come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// Over HTTP.
    Http {
        /// For agents (`listen`). Default `127.0.0.1:7070`; beyond loopback only with
        /// `listen_anywhere: true`.
        listen: SocketAddr,
        /// For operators: health and metrics (`admin`). Default `127.0.0.1:7071`; beyond loopback
        /// only with `admin_anywhere: true`; never the agents' address.
        admin: SocketAddr,
    },
    /// Over standard input and output, as `bartizan wrap` does; one server.
    Stdio,
}

/// Which policy decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Files and directories of Rego and data (`paths`). Empty: the built-in baseline.
    pub paths: Vec<PathBuf>,
    /// A bundle in the place of `paths` (`bundle`).
    pub bundle: Option<BundleConfig>,
    /// The rule that answers for a frame (`entrypoint`). Default `data.mcp.decision`.
    pub entrypoint: String,
    /// The rule that answers for a page of definitions (`listing_entrypoint`). Default
    /// `data.mcp.listing`.
    pub listing_entrypoint: String,
    /// One decision in this many is also put to the strict engine (`shadow_one_in`), 1 to
    /// 1,000,000. Default 1000.
    pub shadow_one_in: u32,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            bundle: None,
            entrypoint: "data.mcp.decision".to_owned(),
            listing_entrypoint: "data.mcp.listing".to_owned(),
            shadow_one_in: 1000,
        }
    }
}

/// An OPA bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleConfig {
    /// Where it is.
    pub source: BundleSource,
    /// Who must have signed it (`signing`). Nothing: it must be unsigned.
    pub signing: Option<SigningConfig>,
}

/// Where a bundle is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleSource {
    /// A directory or a gzipped tarball (`path`).
    Path(PathBuf),
    /// With a service that speaks OPA's bundle protocol (`url`).
    Service(Box<BundleServiceConfig>),
}

/// A service that hands out a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleServiceConfig {
    /// The way to it. Its default time for one call is 30 s.
    pub remote: RemoteConfig,
    /// Size of the bundle as it is sent, bytes (`bytes`), 1 KiB to 256 MiB. Default 16 MiB.
    pub bytes: usize,
    /// How often it is asked (`polling`).
    pub polling: PollingConfig,
}

/// How often a bundle service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollingConfig {
    /// Shortest pause between two questions (`min_delay`), 100 ms to 24 h. Default 1 min.
    pub min_delay: Duration,
    /// Longest pause, also after failures (`max_delay`), 100 ms to 24 h. Default 2 min, or
    /// `min_delay` where that is more.
    pub max_delay: Duration,
    /// How long the service may hold a question open (`long_polling_timeout`), 1 s to 1 h.
    /// Default: it is not asked to.
    pub long_polling_timeout: Option<Duration>,
}

/// A service that this program calls on its own behalf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Its address (`url`).
    pub url: Uri,
    /// Certificates to trust instead of the system's, PEM (`ca_file`).
    pub ca_file: Option<PathBuf>,
    /// For one call (`timeout`), 1 ms to 1 h.
    pub timeout: Duration,
    /// Who we are to it (`credentials`). Default: nobody in particular.
    pub credentials: Option<CredentialsConfig>,
}

/// Who we are to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialsConfig {
    /// A bearer token (`bearer`).
    Bearer(Secret),
    /// A file with a bearer token, read for each call (`bearer_file`).
    BearerFile(PathBuf),
    /// A client certificate (`client_tls`), PEM.
    ClientTls {
        /// The chain (`cert`).
        cert: PathBuf,
        /// Its private key (`key`).
        key: PathBuf,
    },
}

/// Who must have signed a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningConfig {
    /// Keys by id (`keys`).
    pub keys: Vec<(String, KeyConfig)>,
    /// The key that must have been used (`keyid`). Default: the one that the signature names.
    pub key_id: Option<String>,
    /// What the signature must be for (`scope`). Default: the key's scope, else none.
    pub scope: Option<String>,
}

/// A key that bundles are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyConfig {
    /// The algorithm (`algorithm`); what a signature says of itself is no choice.
    pub algorithm: Algorithm,
    /// The key itself.
    pub material: KeyMaterial,
    /// What signatures of it must be for (`scope`), where `signing` says nothing.
    pub scope: Option<String>,
}

/// A key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// A PEM file with a public key (`public_key`).
    File(PathBuf),
    /// What signer and verifier share (`secret`); for HS256 and its like.
    Secret(Secret),
}

/// One protected server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Its key below `servers`: 1 to 63 letters, digits, `-`, `_`.
    pub name: String,
    /// The path that clients call (`path`). Default `/mcp` for a single server, else `/<name>`.
    pub path: String,
    /// The path of the HTTP+SSE transport of 2024-11-05 for clients (`sse_path`); its messages are
    /// posted below it. Default: not served.
    pub sse_path: Option<String>,
    /// How it is reached.
    pub upstream: Upstream,
    /// What is known about its tools (`pack`). Default: nothing.
    pub pack: Option<PackRef>,
    /// The environment that calls are pinned to (`environment`). Default: none.
    pub environment: Option<String>,
    /// Names of environments by the identifiers that the server's tools take
    /// (`environment_ids`).
    pub environment_ids: BTreeMap<Box<str>, Box<str>>,
    /// Free labels for rules (`labels`).
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// Names that `Host` may have (`hosts`), lower case; without a port, any port. Empty, as by
    /// default: the loopback names.
    pub hosts: Vec<String>,
    /// Web origins that may call (`origins`), lower case, compared whole. Empty, as by
    /// default: those of the loopback names. A request without `Origin` comes from no browser.
    pub origins: Vec<String>,
    /// How a refusal by policy looks (`refusal`: `error` or `tool_result`). Default `error`.
    pub refusal: RefusalForm,
    /// Whether batches may pass where MCP 2025-03-26 is spoken over HTTP (`batches`). Default no.
    pub batches: bool,
    /// What stands in the way to tokens for it (`oauth`, `public_url`). Default: nothing.
    pub oauth: Option<OAuthConfig>,
}

/// What stands in the way to tokens for a server.
#[derive(Debug, Clone)]
pub struct OAuthConfig {
    /// The URL that clients dial (`public_url`): https, or http on loopback. With `forward` there
    /// is a default, on loopback alone: `http://`, the host of the request, and `path`.
    pub public_url: Option<String>,
    /// Who checks tokens (`oauth.mode`).
    pub mode: OAuthMode,
}

/// Who checks tokens.
#[derive(Debug, Clone)]
pub enum OAuthMode {
    /// The server (`forward`): we and it are one resource, and the client's token goes on.
    Forward {
        /// What the server calls itself in its metadata (`oauth.upstream_resource`). Default:
        /// `url`.
        upstream_resource: Option<Uri>,
        /// Whether the authorization endpoints of MCP 2025-03-26 at our origin reach the server's
        /// (`oauth.origin_endpoints`). Default no.
        origin_endpoints: bool,
    },
    /// We (`terminate`): we are a resource of our own, and the client's token ends here.
    Terminate(TerminateConfig),
}

/// A resource of our own, `public_url`, where clients' tokens end.
#[derive(Debug, Clone)]
pub struct TerminateConfig {
    /// Who makes tokens for it (`oauth.issuers`), 1 to 8, each once.
    pub issuers: Vec<IssuerConfig>,
    /// Scopes that each token must grant (`oauth.scopes`). Default none.
    pub scopes: Vec<String>,
    /// The claim that names the principal (`oauth.principal_claim`): a name, or an RFC 6901
    /// pointer. Default `sub`.
    pub principal_claim: String,
    /// The claim that holds its groups (`oauth.groups_claim`). Default none.
    pub groups_claim: Option<String>,
    /// Further claims that rules see (`oauth.claims`), at most 32. Default none.
    pub claims: Vec<String>,
}

/// An issuer of tokens.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// Its identifier (`issuer`): https, or http on loopback; `iss` of its tokens, byte for byte.
    pub issuer: String,
    /// Its public keys (`jwks_uri`, `jwks_file`).
    pub jwks: JwksConfig,
    /// Values of `aud` of which a token must have one (`audiences`). Default: `public_url`.
    pub audiences: Vec<String>,
    /// How it may sign (`algorithms`). Default:
    /// [all that tokens may have](bartizan_edge::oauth::token::ALGORITHMS).
    pub algorithms: Vec<Algorithm>,
}

/// Where an issuer's public keys are.
#[derive(Debug, Clone)]
pub enum JwksConfig {
    /// At an address (`jwks_uri`): https, or http on loopback.
    Uri {
        /// The address.
        uri: Uri,
        /// Certificates to trust instead of the system's, PEM (`ca_file`).
        ca_file: Option<PathBuf>,
    },
    /// In a file (`jwks_file`).
    File(PathBuf),
}

/// How a protected server is reached.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// Over HTTP (`url`).
    Http(HttpUpstream),
    /// As a child process, over its standard input and output (`command`).
    Child(ChildUpstream),
}

/// Which of the two HTTP transports of MCP a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpTransport {
    /// Streamable HTTP, of 2025-03-26 and later.
    #[default]
    StreamableHttp,
    /// HTTP+SSE, of 2024-11-05; the address is that of its stream.
    Sse,
}

impl HttpTransport {
    /// The words for them.
    pub const NAMES: [(&str, Self); 2] =
        [("streamable_http", Self::StreamableHttp), ("sse", Self::Sse)];
}

/// A server over HTTP.
#[derive(Debug, Clone)]
pub struct HttpUpstream {
    /// Its address (`url`): http or https, without credentials or fragment.
    pub url: Uri,
    /// What it speaks (`transport`). Default `streamable_http`.
    pub transport: HttpTransport,
    /// Headers that only this program sets (`headers`); the client's own of these names are
    /// dropped. None of those that the transport needs.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Whether the client's `Authorization` goes on (`forward_authorization`). Default no.
    pub forward_authorization: bool,
    /// Certificates to trust instead of the system's, PEM (`ca_file`).
    pub ca_file: Option<PathBuf>,
    /// For a connection to stand, TLS included (`connect_timeout`), 1 ms to 1 h. Default 5 s.
    pub connect_timeout: Duration,
}

/// A server as a child process.
#[derive(Debug, Clone)]
pub struct ChildUpstream {
    /// The program (`command`, first word); found by `PATH` where it has no `/`.
    pub program: String,
    /// Its arguments (`command`, further words, then `args`).
    pub args: Vec<String>,
    /// Variables set for it (`env`).
    pub env: Vec<(String, Secret)>,
    /// Variables of this program that it gets too (`env_inherit`).
    pub inherit: Inherit,
    /// Its working directory (`cwd`). Default: this program's.
    pub cwd: Option<PathBuf>,
    /// From being asked to end until being killed (`stop_timeout`), 1 ms to 1 h. Default 2 s.
    pub stop_timeout: Duration,
}

/// Which variables of this program a child gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inherit {
    /// All (`env_inherit: ["*"]`, and `bartizan wrap`).
    Everything,
    /// Those named; unset ones are left out. Default: what programs need to start at all, and no
    /// credential.
    Only(Vec<String>),
}

impl Inherit {
    /// The names of the variables to hand on, given the names of all that there are.
    pub fn names(&self, own: impl IntoIterator<Item = String>) -> Vec<String> {
        match self {
            Self::Everything => own.into_iter().collect(),
            Self::Only(names) => names.clone(),
        }
    }
}

/// Where a pack is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackRef {
    /// In the program, by name.
    Embedded(String),
    /// In a file: the text held a `/`, or ended in `.json`.
    File(PathBuf),
}

/// Bounds, each with its key, unit, range and default. All are inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// One message: `frame_bytes` (1 KiB to 256 MiB, default 4 MiB), `json_depth` (4 to 128,
    /// default 64), `json_values` (16 to 16,777,216, default 1,048,576), `number_chars` (16 to
    /// 4096, default 256), `id_bytes` (16 to 4096, default 256).
    pub frame: FrameLimits,
    /// The head of one request, bytes (`header_bytes`), 8 KiB to 1 MiB. Default 64 KiB.
    pub header_bytes: usize,
    /// Header lines of one request (`header_count`), 16 to 1000. Default 100.
    pub header_count: usize,
    /// For a client to send its headers (`header_time`), 1 ms to 1 h. Default 5 s.
    pub header_time: Duration,
    /// For a client to send a body (`body_time`), 1 ms to 1 h. Default 15 s.
    pub body_time: Duration,
    /// Bodies of all requests at once, bytes (`bodies_bytes`), 1 MiB to 64 GiB; at least
    /// `frame_bytes`. Default 256 MiB, or `frame_bytes` where that is more.
    pub bodies_bytes: u64,
    /// Client connections at once (`connections`), 1 to 100,000. Default 16,384.
    pub connections: usize,
    /// HTTP requests in progress at once, streams included (`requests`), 1 to 100,000. Default
    /// 16,384.
    pub requests: usize,
    /// Event streams without an end open at once (`streams`), 1 to 100,000. Default 12,288.
    pub streams: usize,
    /// Legacy MCP sessions of one server at once (`sessions`), 1 to 1,000,000. Default 8192.
    pub sessions: usize,
    /// Silence after which a session is forgotten (`session_idle`), 1 s to 24 h. Default 1 h.
    pub session_idle: Duration,
    /// Requests awaiting their answer in one session, each way (`in_flight`), 1 to 65,536.
    /// Default 256.
    pub in_flight: usize,
    /// From a message sent to its whole answer, or to the head of a stream (`answer_time`), 1 s
    /// to 24 h. Default 5 min.
    pub answer_time: Duration,
    /// Silence on a stream that is to end with an answer (`stream_idle`), 1 s to 24 h. Default
    /// 5 min.
    pub stream_idle: Duration,
    /// Children of one server at once (`children`), 1 to 10,000. Default 64.
    pub children: usize,
    /// Rate-limit buckets (`buckets`), 16 to 10,000,000. Default 65,536.
    pub buckets: usize,
    /// For calls in flight to end once the program was told to stop (`drain`), 1 ms to 1 h.
    /// Default 25 s, which fits into the 30 s that Kubernetes grants.
    pub drain: Duration,
}

/// The journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// Size at which a new file begins, bytes (`segment_bytes`), 64 KiB to 16 GiB. Default
    /// 64 MiB.
    pub segment_bytes: u64,
    /// What records keep of the policy's input (`inputs`: `none`, `facts` or `values`). Default
    /// `none`.
    pub inputs: Inputs,
    /// Where decisions are sent, if anywhere (`decision_logs`).
    pub decision_logs: Option<DecisionLogsConfig>,
}

/// A service that takes OPA's decision logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionLogsConfig {
    /// The way to it; `/logs` is added to its address. Its default time for one call is 10 s.
    pub remote: RemoteConfig,
    /// Labels of each event (`labels`), beside `id` and `version`.
    pub labels: BTreeMap<String, String>,
}

/// Where spans go: OTLP over HTTP.
#[derive(Debug, Clone)]
pub struct OtlpConfig {
    /// The way to the collector. Its address (`endpoint`) is such as `http://127.0.0.1:4318`; its
    /// default time for one call is 10 s.
    pub remote: RemoteConfig,
    /// Headers for it (`headers`).
    pub headers: Vec<(HeaderName, Secret)>,
}

/// The program's own diagnostics, on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How a line looks (`format`: `text` or `json`). Default `text`.
    pub format: LogFormat,
    /// Which lines (`filter`), such as `info` or `bartizan::edge=debug,warn`. Default `info`;
    /// `warn` for `bartizan wrap`.
    pub filter: String,
}

/// How a line of diagnostics looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a configuration may look at outside its own text.
#[expect(missing_debug_implementations, reason = "holds functions")]
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// At most this many of the first bytes of a file that a reference names.
    pub read: &'a dyn Fn(&Path, usize) -> io::Result<Vec<u8>>,
    /// Whether a file or directory is there.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

impl Config {
    /// Reads the file at `path`. Paths in it are relative to its directory.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let text = match read_file(path, file::FILE_BYTES_MAX.saturating_add(1)) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()),
            Err(error) => Err(format!("it cannot be read: {error}")),
        };
        match text {
            Ok(text) => {
                let base = path.parent().unwrap_or_else(|| Path::new(""));
                Self::parse(&text, base, &|name| std::env::var(name).ok())
            }
            Err(what) => {
                let mut problems = Problems::default();
                problems.push(&Place::named(""), what, "name a configuration file with `-c`");
                Err(problems)
            }
        }
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
        let mut problems = Problems::default();
        let config = ConfigFile::read(text, &mut problems)
            .and_then(|file| meaning::config(file, base, surroundings, &mut problems));
        problems.unless_any(config)
    }

    /// What `bartizan wrap` means by its arguments. Problems name arguments instead of keys.
    pub fn wrap(wrap: Wrap) -> Result<Self, Problems> {
        let env = |name: &str| std::env::var(name).ok();
        let surroundings = Surroundings { env: &env, read: &read_file, exists: &Path::exists };
        Self::wrap_in(wrap, &surroundings)
    }

    /// What `bartizan wrap` means by its arguments, with everything outside handed in.
    pub fn wrap_in(wrap: Wrap, surroundings: &Surroundings<'_>) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let file = wrap.into_file(surroundings, &mut problems);
        let config = meaning::config(file, Path::new(""), surroundings, &mut problems)
            .map(|config| Self { front: Front::Stdio, ..config });
        problems.unless_any(config)
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

impl ServerConfig {
    /// What policy sees of this server, whose pack was loaded.
    pub fn facts(&self, pack: Option<Arc<Pack>>) -> Server {
        Server {
            name: self.name.as_str().into(),
            environment: self.environment.as_deref().map(Into::into),
            labels: self.labels.clone(),
            environment_ids: self.environment_ids.clone(),
            pack,
        }
    }
}

fn read_file(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(u64::try_from(bytes_max).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
