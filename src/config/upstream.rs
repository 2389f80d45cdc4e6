//! How a protected server is reached: over HTTP (`url`), or as a child process (`command`).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ::http::{HeaderName, Uri};

use super::form::{
    Names, by_name, existing, flag, list, one_or_more, secret, text, time, url, word,
};
use super::headers::headers;
use super::limits::STEP_TIMES;
use super::listeners::Front;
use super::problem::{Wrong, wrong};
use super::remote::{ca_file, warn_of_plain};
use super::secret::{Secret, is_variable_name};
use super::section::Section;
use super::table::Condition;
use crate::confine::User;

/// Variables that a child gets by default: what programs need to start, find their files and
/// speak the right language; none of them is a credential.
const INHERITED: [&str; 11] = [
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ",
    "USER",
];

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
    /// What it speaks (`transport`).
    pub transport: HttpTransport,
    /// Headers that only this program sets (`headers`); the client's own of these names are
    /// dropped. None of those that the transport needs.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Whether the client's `Authorization` goes on (`forward_authorization`, or
    /// `oauth.mode: forward`).
    pub forward_authorization: bool,
    /// Headers of the client's trace context that go on beside `traceparent` (`forward_context`).
    pub context: Vec<HeaderName>,
    /// Certificates to trust instead of the system's, PEM (`ca_file`).
    pub ca_file: Option<PathBuf>,
    /// For a connection to stand, TLS included (`connect_timeout`).
    pub connect_timeout: Duration,
}

/// A server as a child process.
#[derive(Debug, Clone)]
pub struct ChildUpstream {
    /// The program (`command`, first word); found by `PATH` where it has no `/`.
    pub program: String,
    /// SHA-256 of the program's file (`sha256`). Default: any file.
    pub sha256: Option<[u8; 32]>,
    /// Its arguments (`command`, further words, then `args`).
    pub args: Vec<String>,
    /// Variables set for it (`env`).
    pub env: Vec<(String, Secret)>,
    /// Variables of this program that it gets too (`env_inherit`).
    pub inherit: Inherit,
    /// Its working directory (`cwd`). Default: this program's.
    pub cwd: Option<PathBuf>,
    /// From being asked to end until being killed (`stop_timeout`).
    pub stop_timeout: Duration,
    /// Whether it is kept away from this program's own files and processes (`confine`).
    pub confine: Confine,
    /// Who it runs as (`user`). Default: this program's user.
    pub user: Option<User>,
}

/// Whether a child is kept away from this program's own files and processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Confine {
    /// As far as the kernel can.
    #[default]
    On,
    /// Yes, or it is not started.
    Required,
    /// No.
    Off,
}

impl Confine {
    /// The words for them.
    pub const NAMES: [(&str, Self); 3] =
        [("on", Self::On), ("required", Self::Required), ("off", Self::Off)];
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

impl Default for Inherit {
    /// What programs need to start at all, and no credential.
    fn default() -> Self {
        Self::Only(INHERITED.map(str::to_owned).into())
    }
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

/// When the keys of a server over HTTP have a meaning.
pub(super) fn over_http(s: &Section<'_>) -> Condition {
    Condition::written("url", s.has("url") || !s.has("command"))
}

impl Upstream {
    /// `front` is known unless it had problems of its own.
    pub(super) fn read(s: &mut Section<'_>, front: Option<Front>) -> Option<Self> {
        let hint = "write `url: https://…` or `command: [program, argument]`";
        s.exactly_one_of(&["url", "command"], hint);
        match (HttpUpstream::read(s, front), ChildUpstream::read(s)) {
            (Some(http), None) => Some(Self::Http(http)),
            (None, Some(child)) => Some(Self::Child(child)),
            _ => None,
        }
    }
}

impl HttpUpstream {
    fn read(s: &mut Section<'_>, front: Option<Front>) -> Option<Self> {
        let only = over_http(s);
        let url = s
            .key("url", url(), "Its address: http or https, without credentials and fragment.")
            .optional("required");
        let transport = s
            .key(
                "transport",
                word(HttpTransport::NAMES),
                "`streamable_http`, or `sse`: HTTP+SSE of 2024-11-05, whose stream is at `url`.",
            )
            .only(only)
            .or(HttpTransport::default());
        let headers = s
            .key(
                "headers",
                headers(),
                "Headers that only this program sets; the agent's own of these names are dropped. \
                 Not those of the transport, and none that begins with `mcp-`.",
            )
            .only(only)
            .optional("none")
            .unwrap_or_default();
        let forward_authorization = s
            .key(
                "forward_authorization",
                flag(),
                "Lets the agent's `Authorization` go on to the server.",
            )
            .only(only)
            .or(false);
        let context = context(s, only);
        if forward_authorization && headers.iter().any(is_authorization) {
            let what = "`headers` sets `authorization` too";
            s.problem("forward_authorization", what, "keep one of them");
        }
        let ca_file = ca_file(s, only);
        let connect_timeout = s
            .key(
                "connect_timeout",
                time(STEP_TIMES),
                "Time for a connection to stand, TLS included.",
            )
            .only(only)
            .or(Duration::from_secs(5));
        let url = url?;
        warn_of_plain(s, &url);
        if let Some(Front::Http { listen, admin }) = front
            && [listen, admin].iter().any(|own| leads_to(&url, *own))
        {
            let hint = "name the server that is to be protected";
            s.problem("url", "leads back to this program", hint);
        }
        Some(Self {
            url,
            transport,
            headers,
            forward_authorization,
            context,
            ca_file,
            connect_timeout,
        })
    }

    /// Whether `headers` sets the credential, so that no client's can go on.
    pub(super) fn sets_authorization(&self) -> bool {
        self.headers.iter().any(is_authorization)
    }
}

/// Headers of the client's trace context that go on beside `traceparent`.
fn context(s: &mut Section<'_>, only: Condition) -> Vec<HeaderName> {
    let names = s
        .key(
            "forward_context",
            list(word([("tracestate", "tracestate"), ("baggage", "baggage")])),
            "Which of the agent's headers `tracestate` and `baggage` go on to the server. \
             `traceparent` always does. What they hold is the agent's choice.",
        )
        .only(only)
        .optional("none")
        .unwrap_or_default();
    names.into_iter().map(HeaderName::from_static).collect()
}

fn is_authorization((name, _): &(HeaderName, Secret)) -> bool {
    *name == ::http::header::AUTHORIZATION
}

/// The bytes of 64 hexadecimal digits.
fn sha256_of(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        let digits = text.get(at.checked_mul(2)?..)?.get(..2)?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(digest)
}

impl ChildUpstream {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let only = Condition::written("command", s.has("command") || !s.has("url"));
        let command = s
            .key(
                "command",
                one_or_more(text()),
                "Text or texts: the program and its arguments. No shell reads it.",
            )
            .optional("required");
        let sha256 = s
            .key(
                "sha256",
                text().try_map(|text, _| match sha256_of(&text) {
                    Some(digest) => Ok(digest),
                    None => wrong("is no SHA-256", "write 64 hexadecimal digits"),
                }),
                "SHA-256 of the program's file, in hexadecimal digits. Another file is not started.",
            )
            .only(only)
            .optional("none");
        let args = s
            .key("args", list(text()), "Further arguments.")
            .only(only)
            .optional("none")
            .unwrap_or_default();
        let variables = Names {
            placeholder: "<variable>",
            pattern: Some("^[A-Za-z_][A-Za-z0-9_]*$"),
            read: variable_name,
        };
        let env = s
            .key("env", by_name(&variables, secret()), "Environment variables that are set for it.")
            .only(only)
            .optional("none")
            .unwrap_or_default();
        let inherit = s
            .key(
                "env_inherit",
                list(text()),
                "Variables of this program that it gets too; `[\"*\"]` is all of them.",
            )
            .only(only)
            .or(INHERITED.map(str::to_owned).into());
        let cwd = s
            .key("cwd", existing(), "Its working directory.")
            .only(only)
            .optional("this program's");
        let stop_timeout = s
            .key(
                "stop_timeout",
                time(STEP_TIMES),
                "Time from being asked to end until being killed.",
            )
            .only(only)
            .or(Duration::from_secs(2));
        let (confine, user) = Self::confinement(s, only);
        let mut words = command?.into_iter();
        // Nothing only where the words had problems of their own.
        let program = words.next()?;
        let inherit = if inherit.iter().any(|name| name == "*") {
            Inherit::Everything
        } else {
            Inherit::Only(inherit)
        };
        let args = words.chain(args).collect();
        Some(Self { program, sha256, args, env, inherit, cwd, stop_timeout, confine, user })
    }

    /// How it is kept apart from this program.
    fn confinement(s: &mut Section<'_>, only: Condition) -> (Confine, Option<User>) {
        let confine = s
            .key(
                "confine",
                word(Confine::NAMES),
                "Keeps it from reading this program's memory and environment, and from opening \
                 `state`, the files of secrets, this file, policies, packs and the lock: `on`, as \
                 far as the kernel can; `required`, or it is not started; `off`. \
                 See [below](#confined-programs).",
            )
            .only(only)
            .or(Confine::default());
        let user = s
            .key(
                "user",
                text().try_map(|text, _| match text.parse() {
                    Ok(user) => Ok(user),
                    Err(what) => wrong(what, "write numbers, such as `\"65532:65532\"`"),
                }),
                "Who it runs as: `UID`, or `UID:GID`, in numbers and quotes. Only root can start \
                 programs as others.",
            )
            .only(only)
            .optional("this program's");
        if user.is_some() && confine == Confine::Off {
            let hint = "remove `confine: off`, or `user`";
            s.problem("user", "is part of the confinement that `confine` switches off", hint);
        }
        (confine, user)
    }
}

fn variable_name(name: &str) -> Result<String, Wrong> {
    if is_variable_name(name) {
        return Ok(name.to_owned());
    }
    wrong("is no name for a variable", "use letters, digits and `_`, no digit first")
}

/// Whether calling `url` would call our own listener `own`.
fn leads_to(url: &Uri, own: SocketAddr) -> bool {
    let default_port = if url.scheme_str() == Some("https") { 443 } else { 80 };
    let host = url.host().unwrap_or_default();
    let is_us = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => ip == own.ip() || (ip.is_loopback() && own.ip().is_unspecified()),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    is_us && own.port() != 0 && url.port_u16().unwrap_or(default_port) == own.port()
}
