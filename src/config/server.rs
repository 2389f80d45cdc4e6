//! One member of `servers`: a protected server.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use ::http::uri::{Authority, Scheme};

use super::form::{Form, Names, by_name, flag, must_exist, one_or_more, text, texts_by_name, word};
use super::listeners::Front;
use super::oauth::OAuthConfig;
use super::pack::PackRef;
use super::problem::{Location, wrong};
use super::section::Section;
use super::upstream::{HttpTransport, HttpUpstream, Upstream, over_http};
use bartizan_gate::evidence::record::ServerAddress;
use bartizan_gate::question::access::Server;
use bartizan_gate::question::pack::Pack;
use bartizan_gate::session::RefusalForm;

/// What every path that clients may call matches.
const PATH_PATTERN: &str = r"^(/|(/[A-Za-z0-9._~-]+)+)$";

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
    /// How a refusal by policy looks (`refusal`).
    pub refusal: RefusalForm,
    /// Whether batches may pass where MCP 2025-03-26 is spoken over HTTP (`batches`).
    pub batches: bool,
    /// Whether it is told the trace context of our span (`propagate`).
    pub propagate: bool,
    /// Who checks tokens for it, and how (`oauth`, `public_url`). Default: nobody asks for any.
    pub oauth: Option<OAuthConfig>,
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

    /// Where this server is, for records; `None` for a command.
    pub fn address(&self) -> Option<ServerAddress> {
        let Upstream::Http(HttpUpstream { url, .. }) = &self.upstream else { return None };
        let default = if url.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        // A URL has an IPv6 address in brackets; the convention has it without.
        let host = url.host()?.trim_start_matches('[').trim_end_matches(']');
        Some(ServerAddress { address: host.into(), port: url.port_u16().unwrap_or(default) })
    }
}

/// Paths that clients call, each with the name of its server.
pub(super) type Paths = RefCell<Vec<(String, String)>>;

/// Reads one server, and says where its path stands. `front` is known unless it had problems of
/// its own; `single` says whether there is no other server.
pub(super) fn read(
    s: &mut Section<'_>,
    front: Option<Front>,
    single: bool,
    paths: &Paths,
) -> Option<(ServerConfig, Location)> {
    let name = s.name().to_owned();
    let (path, sse_path) = client_paths(s, single, paths);
    let path_at = if s.has("path") { s.at("path") } else { s.location().clone() };
    let pack = s
        .key(
            "pack",
            pack(),
            "What is known about its tools: the name of a built-in pack, or a JSON file (a text \
             with `/` or ending in `.json`). See [policy.md](policy.md#packs).",
        )
        .optional("none");
    let environment = s
        .key(
            "environment",
            environment(),
            "The environment that calls are pinned to. Rules read it as \
             `input.server.environment`.",
        )
        .optional("none");
    let environment_ids = environment_ids(s);
    let labels = s
        .key("labels", texts_by_name(), "Names and texts for rules: `input.server.labels`.")
        .optional("none")
        .unwrap_or_default();
    let (hosts, origins) = hosts_and_origins(s);
    let refusal = s
        .key(
            "refusal",
            word([("error", RefusalForm::Error), ("tool_result", RefusalForm::ToolResult)]),
            "How a refusal by policy looks: `error`, or `tool_result` with `isError: true`, which \
             models read more readily.",
        )
        .or(RefusalForm::Error);
    let mut upstream = Upstream::read(s, front);
    let batches = batches(s, upstream.as_ref());
    let propagate = s
        .key(
            "propagate",
            flag(),
            "Tells the server our CLIENT span as the parent of its own: `traceparent` in `_meta`, and \
             as header over HTTP, in place of the agent's. See [audit.md](audit.md#opentelemetry).",
        )
        .or(false);
    let oauth = OAuthConfig::read(s, front, &mut upstream);
    let server = ServerConfig {
        name,
        path,
        sse_path,
        upstream: upstream?,
        pack,
        environment,
        environment_ids,
        labels,
        hosts,
        origins,
        refusal,
        batches,
        propagate,
        oauth,
    };
    Some((server, path_at))
}

/// The paths that clients call. No two may be the same, of this server or of another one.
fn client_paths(s: &mut Section<'_>, single: bool, paths: &Paths) -> (String, Option<String>) {
    let path = s
        .key(
            "path",
            plain_path(),
            "The path that agents call: `/` or plain segments, compared byte for byte.",
        )
        .optional("`/mcp` for a single server, else `/<name>`");
    let sse_path = s
        .key(
            "sse_path",
            plain_path(),
            "The path of a stream for agents that speak HTTP+SSE, the transport of 2024-11-05, \
             such as `/sse`. Their messages are posted to `<sse_path>/<session>`. Without it the \
             transport is not served.",
        )
        .optional("none");
    let name = s.name().to_owned();
    let is_wrong = path.is_none() && s.has("path");
    let default = || if single { "/mcp".to_owned() } else { format!("/{name}") };
    let path = path.unwrap_or_else(default);
    let mut paths = paths.borrow_mut();
    let mut claim = |path: &str| {
        let other = paths.iter().find(|(_, taken)| taken == path).map(|(other, _)| other.clone());
        if other.is_none() {
            paths.push((name.clone(), path.to_owned()));
        }
        other
    };
    if let Some(other) = claim(&path).filter(|_| !is_wrong) {
        let what = format!("`{path}` is already the path of `{other}`");
        let hint = "give each server a path of its own";
        if s.has("path") { s.problem("path", what, hint) } else { s.problem_here(what, hint) }
    }
    if let Some(sse) = &sse_path
        && let Some(other) = claim(sse)
    {
        let what = format!("`{sse}` is already a path of `{other}`");
        s.problem("sse_path", what, "give the stream a path of its own, such as `/sse`");
    }
    (path, sse_path)
}

fn plain_path<'f>() -> Form<'f, String> {
    text().checked(PATH_PATTERN, |path| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        let segment_is_plain = |segment: &str| {
            !segment.is_empty() && segment != "." && segment != ".." && segment.chars().all(plain)
        };
        let is_plain = path == "/"
            || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment_is_plain));
        if !is_plain {
            let hint = "write it like `/mcp`: letters, digits, `-._~`; no `//`, `..`, `%`, `?`";
            return wrong("is no plain absolute path", hint);
        }
        if path.starts_with("/.well-known") {
            return wrong("`/.well-known` is taken (RFC 8615)", "give the server another path");
        }
        Ok(path)
    })
}

fn pack<'f>() -> Form<'f, PackRef> {
    text().try_map(|text, cx| match PackRef::named(&text) {
        PackRef::File(path) => Ok(PackRef::File(must_exist(cx.base.join(path), cx)?)),
        embedded @ PackRef::Embedded(_) => Ok(embedded),
    })
}

fn environment<'f>() -> Form<'f, String> {
    text().try_map(|name, _| {
        if name == "*" {
            let what = "`*` stands for every environment and pins nothing";
            return wrong(what, "name one, or remove the key");
        }
        Ok(name)
    })
}

fn environment_ids(s: &mut Section<'_>) -> BTreeMap<Box<str>, Box<str>> {
    let ids = Names { placeholder: "<id>", pattern: None, read: |id| Ok(id.to_owned()) };
    let name = text().try_map(|name, _| {
        if name == "*" {
            return wrong("names no environment", "write the environment that this id is of");
        }
        Ok(name)
    });
    let ids = s
        .key(
            "environment_ids",
            by_name(&ids, name),
            "Identifiers that the server's tools take for environments, each with the name of its \
             environment: `{\"1842\": staging, \"ser.9hQ\": production}`. An identifier that is \
             not here counts as every environment.",
        )
        .optional("none");
    ids.into_iter().flatten().map(|(id, name)| (id.into(), name.into())).collect()
}

/// The names that requests may come under: hosts, and web origins.
fn hosts_and_origins(s: &mut Section<'_>) -> (Vec<String>, Vec<String>) {
    let host = text().try_map(|host, _| match host.parse::<Authority>() {
        Ok(parsed) if !parsed.as_str().contains(['@', '*']) => Ok(host.to_ascii_lowercase()),
        Ok(_) | Err(_) => wrong(
            "is no host name",
            "write a name, with a port if only that may be used: `localhost`",
        ),
    });
    let hosts = s
        .key(
            "hosts",
            one_or_more(host),
            "Text or texts: names that the `Host` of a request may have; without a port, any port.",
        )
        .optional("the loopback names");
    let origin = text().try_map(|origin, _| {
        let parts = origin.split_once("://");
        let is_origin = parts.is_some_and(|(scheme, host)| {
            scheme.parse::<Scheme>().is_ok()
                && host.parse::<Authority>().is_ok()
                && !host.contains(['@', '*'])
        });
        if !is_origin {
            let hint = "write scheme and host, like `https://app.example.com`; no path";
            return wrong("is no origin", hint);
        }
        Ok(origin.to_ascii_lowercase())
    });
    let origins = s
        .key(
            "origins",
            one_or_more(origin),
            "Text or texts: web origins that may call, such as `https://app.example.com`, compared \
             whole. A request without `Origin` comes from no browser and passes.",
        )
        .optional("those of the loopback names");
    (hosts.unwrap_or_default(), origins.unwrap_or_default())
}

fn batches(s: &mut Section<'_>, upstream: Option<&Upstream>) -> bool {
    let only = over_http(s);
    let batches = s
        .key(
            "batches",
            flag(),
            "Lets JSON-RPC batches of MCP 2025-03-26 pass, of at most 64 messages: each is judged \
             and recorded alone, and all reach the server or none. Not beside HTTP+SSE, which has \
             none.",
        )
        .only(only)
        .or(false);
    let streams = match upstream {
        Some(Upstream::Http(http)) => http.transport == HttpTransport::Sse,
        Some(Upstream::Child(_)) | None => false,
    };
    if batches && (streams || s.has("sse_path")) {
        s.problem("batches", "HTTP+SSE has no batches", "keep one of the two");
    }
    batches
}
