//! What the configuration of one protected server means, and how several stand beside each other.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ::http::uri::Authority;
use ::http::{HeaderName, HeaderValue, Uri};

use super::file::{OAuthWord, ServerFile};
use super::meaning::{Reader, or, texts};
use super::problem::{Place, Spot};
use super::secret::{Secret, is_variable_name, resolve};
use super::{
    ChildUpstream, Front, HttpTransport, HttpUpstream, Inherit, PackRef, ServerConfig, Upstream,
};
use bartizan_gate::session::RefusalForm;

/// Variables that a child gets by default: what programs need to start, find their files and
/// speak the right language; none of them is a credential.
const INHERITED: [&str; 11] = [
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ",
    "USER",
];

/// Headers that the transport sets or that say how a message is framed; not for `headers`.
const TRANSPORT_HEADERS: [&str; 18] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// All servers. `front` is known unless it had problems of its own.
pub(super) fn servers(
    files: Vec<ServerFile>,
    front: Option<Front>,
    reader: &mut Reader<'_>,
) -> Vec<ServerConfig> {
    let single = files.len() == 1;
    let mut taken: Vec<(String, String)> = Vec::new();
    let mut servers: Vec<(ServerConfig, Place)> = Vec::new();
    for file in files {
        let (place, path) = reader.path(&file, single);
        match taken.iter().find(|(_, other)| *other == path) {
            Some((name, _)) => {
                let what = format!("`{path}` is already the path of `{name}`");
                reader.problems.push(&place, what, "give each server a path of its own");
            }
            None => taken.push((file.name.value.clone(), path.clone())),
        }
        if let Some(sse) = &file.sse_path {
            reader.plain_path(sse);
            match taken.iter().find(|(_, other)| *other == sse.value) {
                Some((other, _)) => {
                    let what = format!("`{}` is already a path of `{other}`", sse.value);
                    let hint = "give the stream a path of its own, such as `/sse`";
                    reader.problems.push(&sse.place, what, hint);
                }
                None => taken.push((file.name.value.clone(), sse.value.clone())),
            }
        }
        servers.extend(reader.server(file, path, front).map(|server| (server, place)));
    }
    reader.oauth_side_by_side(&servers);
    servers.into_iter().map(|(server, _)| server).collect()
}

impl Reader<'_> {
    fn server(
        &mut self,
        file: ServerFile,
        path: String,
        front: Option<Front>,
    ) -> Option<ServerConfig> {
        let name_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let name = &file.name.value;
        if name.is_empty() || name.len() > 63 || !name.chars().all(name_char) {
            let hint = "use 1 to 63 letters, digits, `-` and `_`";
            self.problems.push(&file.name.place, "is no name for a server", hint);
        }
        if let Some(environment) = file.environment.as_ref().filter(|spot| spot.value == "*") {
            let what = "`*` stands for every environment and pins nothing";
            self.problems.push(&environment.place, what, "name one, or remove the key");
        }
        for (_, name) in &file.environment_ids {
            if name.value.is_empty() || name.value == "*" {
                let what = "names no environment";
                self.problems.push(&name.place, what, "write the environment that this id is of");
            }
        }
        let streams = file.transport.as_ref().is_some_and(|spot| spot.value == HttpTransport::Sse);
        if let Some(batches) = file.batches.as_ref().filter(|spot| spot.value)
            && (streams || file.sse_path.is_some())
        {
            let hint = "keep one of the two";
            self.problems.push(&batches.place, "HTTP+SSE has no batches", hint);
        }
        let upstream = self.upstream(&file, front);
        let oauth = self.oauth(&file, upstream.as_ref(), front);
        let hosts = file.hosts.map(|hosts| self.hosts(hosts));
        let origins = file.origins.map(|origins| self.origins(origins));
        let pack = file.pack.map(|pack| self.pack(pack));
        Some(ServerConfig {
            name: file.name.value,
            path,
            sse_path: file.sse_path.map(|spot| spot.value),
            upstream: upstream?,
            pack,
            environment: file.environment.map(|spot| spot.value),
            environment_ids: texts(file.environment_ids),
            labels: texts(file.labels),
            hosts: hosts.unwrap_or_default(),
            origins: origins.unwrap_or_default(),
            refusal: or(file.refusal, RefusalForm::Error),
            batches: or(file.batches, false),
            oauth,
        })
    }

    /// The path that clients call, and where it was written.
    fn path(&mut self, file: &ServerFile, single: bool) -> (Place, String) {
        let Some(written) = &file.path else {
            let default = if single { "/mcp".to_owned() } else { format!("/{}", file.name.value) };
            return (file.name.place.clone(), default);
        };
        self.plain_path(written);
        (written.place.clone(), written.value.clone())
    }

    fn plain_path(&mut self, written: &Spot<String>) {
        let path = &written.value;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        let segment_is_plain = |segment: &str| {
            !segment.is_empty() && segment != "." && segment != ".." && segment.chars().all(plain)
        };
        let is_plain = path == "/"
            || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment_is_plain));
        if !is_plain {
            let what = "is no plain absolute path";
            let hint = "write it like `/mcp`: letters, digits, `-._~`; no `//`, `..`, `%`, `?`";
            self.problems.push(&written.place, what, hint);
        } else if path.starts_with("/.well-known") {
            let what = "`/.well-known` is taken (RFC 8615)";
            self.problems.push(&written.place, what, "give the server another path");
        }
    }

    fn upstream(&mut self, file: &ServerFile, front: Option<Front>) -> Option<Upstream> {
        match (&file.url, &file.command) {
            (Some(url), None) => {
                self.only_with("command", &child_keys(file));
                self.http(url, file, front).map(Upstream::Http)
            }
            (None, Some(command)) => {
                self.only_with("url", &http_keys(file));
                self.child(command, file).map(Upstream::Child)
            }
            (Some(url), Some(_)) => {
                let what = "`url` and `command` are two servers";
                self.problems.push(&url.place, what, "keep one, or name two servers");
                None
            }
            (None, None) if file.reachable => None,
            (None, None) => {
                let hint = "write `url: https://…` or `command: [program, argument]`";
                self.problems.push(&file.name.place, "has neither `url` nor `command`", hint);
                None
            }
        }
    }

    pub(super) fn only_with(&mut self, other: &str, places: &[Option<&Place>]) {
        for place in places.iter().flatten() {
            let what = format!("has a meaning only with `{other}`");
            self.problems.push(place, what, "remove it");
        }
    }

    fn http(
        &mut self,
        url: &Spot<String>,
        file: &ServerFile,
        front: Option<Front>,
    ) -> Option<HttpUpstream> {
        let headers = self.headers(file.headers.clone());
        let forward = file.forward_authorization.as_ref().filter(|spot| spot.value);
        if let Some(forward) = forward
            && headers.iter().any(|(name, _)| *name == ::http::header::AUTHORIZATION)
        {
            let what = "`headers` sets `authorization` too";
            self.problems.push(&forward.place, what, "keep one of them");
        }
        let ca_file = file.ca_file.clone().map(|path| self.existing(path));
        let target = self.url(url)?;
        if let Some(Front::Http { listen, admin }) = front
            && [listen, admin].iter().any(|own| leads_to(&target, *own))
        {
            let hint = "name the server that is to be protected";
            self.problems.push(&url.place, "leads back to this program", hint);
        }
        Some(HttpUpstream {
            url: target,
            transport: or(file.transport.clone(), HttpTransport::default()),
            headers,
            forward_authorization: forward.is_some() || forwards(file),
            ca_file,
            connect_timeout: or(file.connect_timeout.clone(), Duration::from_secs(5)),
        })
    }

    fn child(&mut self, command: &[Spot<String>], file: &ServerFile) -> Option<ChildUpstream> {
        let mut env = Vec::new();
        for (name, value) in &file.env {
            if !is_variable_name(name) {
                let hint = "use letters, digits and `_`, no digit first";
                self.problems.push(&value.place, "is no name for a variable", hint);
            }
            env.extend(self.secret(value).map(|secret| (name.clone(), secret)));
        }
        let cwd = file.cwd.clone().map(|path| self.existing(path));
        // Empty only where its words had problems of their own.
        let (program, words) = command.split_first()?;
        let inherit = match &file.env_inherit {
            None => Inherit::Only(INHERITED.map(str::to_owned).into()),
            Some(names) if names.iter().any(|name| name.value == "*") => Inherit::Everything,
            Some(names) => Inherit::Only(names.iter().map(|name| name.value.clone()).collect()),
        };
        let args = words.iter().chain(file.args.iter().flatten());
        Some(ChildUpstream {
            program: program.value.clone(),
            args: args.map(|word| word.value.clone()).collect(),
            env,
            inherit,
            cwd,
            stop_timeout: or(file.stop_timeout.clone(), Duration::from_secs(2)),
        })
    }

    fn pack(&mut self, written: Spot<String>) -> PackRef {
        match PackRef::named(&written.value) {
            PackRef::File(_) => PackRef::File(self.existing(written)),
            embedded @ PackRef::Embedded(_) => embedded,
        }
    }

    fn hosts(&mut self, written: Vec<Spot<String>>) -> Vec<String> {
        let mut hosts = Vec::new();
        for host in written {
            match host.value.parse::<Authority>() {
                Ok(parsed) if !parsed.as_str().contains(['@', '*']) => {
                    hosts.push(host.value.to_ascii_lowercase());
                }
                Ok(_) | Err(_) => {
                    let hint = "write a name, with a port if only that may be used: `localhost`";
                    self.problems.push(&host.place, "is no host name", hint);
                }
            }
        }
        hosts
    }

    fn origins(&mut self, written: Vec<Spot<String>>) -> Vec<String> {
        let mut origins = Vec::new();
        for origin in written {
            let parts = origin.value.split_once("://");
            let is_origin = parts.is_some_and(|(scheme, host)| {
                scheme.parse::<::http::uri::Scheme>().is_ok()
                    && host.parse::<Authority>().is_ok()
                    && !host.contains(['@', '*'])
            });
            if is_origin {
                origins.push(origin.value.to_ascii_lowercase());
            } else {
                let hint = "write scheme and host, like `https://app.example.com`; no path";
                self.problems.push(&origin.place, "is no origin", hint);
            }
        }
        origins
    }

    /// Header names and values. A value is never part of a problem.
    pub(super) fn headers(
        &mut self,
        written: Vec<(String, Spot<String>)>,
    ) -> Vec<(HeaderName, Secret)> {
        let mut headers: Vec<(HeaderName, Secret)> = Vec::new();
        for (name, value) in written {
            let secret = self.secret(&value);
            let Ok(name) = name.parse::<HeaderName>() else {
                self.problems.push(&value.place, "is no name for a header", "see RFC 9110 §5.1");
                continue;
            };
            if TRANSPORT_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("mcp-") {
                let what = format!("`{name}` belongs to the transport");
                self.problems.push(&value.place, what, "remove it");
            } else if headers.iter().any(|(other, _)| *other == name) {
                let what = format!("`{name}` stands twice, but for case");
                self.problems.push(&value.place, what, "keep one");
            }
            let Some(secret) = secret else { continue };
            if HeaderValue::from_str(secret.expose()).is_err() {
                let what = "its value holds a character that no header may hold";
                self.problems.push(&value.place, what, "is there a line end in the credential?");
                continue;
            }
            headers.push((name, secret));
        }
        headers
    }

    pub(super) fn secret(&mut self, written: &Spot<String>) -> Option<Secret> {
        match resolve(&written.value, self.surroundings) {
            Ok(secret) => Some(secret),
            Err(unresolved) => {
                self.problems.push(&written.place, unresolved.what, unresolved.hint);
                None
            }
        }
    }
}

fn forwards(file: &ServerFile) -> bool {
    let mode = file.oauth.as_ref().and_then(|oauth| oauth.mode.as_ref());
    mode.is_some_and(|mode| mode.value == OAuthWord::Forward)
}

/// The keys that mean something only with `command`.
fn child_keys(file: &ServerFile) -> [Option<&Place>; 5] {
    [
        file.args.as_ref().and_then(|args| args.first()).map(|arg| &arg.place),
        file.env.first().map(|(_, value)| &value.place),
        file.env_inherit.as_ref().and_then(|names| names.first()).map(|name| &name.place),
        file.cwd.as_ref().map(|cwd| &cwd.place),
        file.stop_timeout.as_ref().map(|timeout| &timeout.place),
    ]
}

/// The keys that mean something only with `url`.
fn http_keys(file: &ServerFile) -> [Option<&Place>; 6] {
    [
        file.transport.as_ref().map(|transport| &transport.place),
        file.headers.first().map(|(_, value)| &value.place),
        file.forward_authorization.as_ref().map(|forward| &forward.place),
        file.batches.as_ref().map(|batches| &batches.place),
        file.ca_file.as_ref().map(|path| &path.place),
        file.connect_timeout.as_ref().map(|timeout| &timeout.place),
    ]
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
