//! Builds the edges of a run: binds sockets, describes servers, starts listeners. It translates the
//! configuration to the edge's types; how an edge works is in [`bartizan_edge`].

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, HeaderValue};

use super::metering::Metering;
use super::{Serving, StartError, confinement, terminate};
use crate::config::{self, Config, Front, HttpTransport, OAuthMode, PackRef, ServerConfig};
use crate::confine::Support;
use crate::lock::LockFile;
use bartizan_edge::Shared;
use bartizan_edge::admin::api::ApprovalsApi;
use bartizan_edge::admin::{AdminListener, Component, Readiness};
use bartizan_edge::child::{ChildLimits, ChildSpec, ChildUpstream};
use bartizan_edge::client::{RemoteLimits, StdioLimits, StdioUpstream, serve_stdio};
use bartizan_edge::http::{HttpConfig, HttpLimits, HttpTimeouts, Listener, Route};
use bartizan_edge::oauth::{Forward, OAuth, PublicUrl};
use bartizan_edge::processors;
use bartizan_edge::upstream::{
    HttpUpstream, HttpUpstreamConfig, HttpUpstreamLimits, LegacySseLimits, LegacySseUpstream,
    Upstream,
};
use bartizan_gate::question::pack::Pack;
use bartizan_gate::session::Protected;

/// How servers that are programs are started.
#[derive(Debug, Clone)]
pub(super) struct Launching {
    /// This program, whose subcommand `confine` becomes a server.
    pub(super) program: PathBuf,
    /// What the kernel offers.
    pub(super) support: Support,
}

/// The bound sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// For agents; `None` on stdio.
    agents: Option<TcpListener>,
    /// For operators; on stdio only if there are approvers.
    operators: Option<TcpListener>,
}

/// Connections that the system makes for us before we accept them; its own limit bounds it. The
/// standard library asks for 128. A burst of more would make a probe, or an agent, that comes at that
/// moment wait a second before it tries again (threat K1).
const BACKLOG: i32 = 4096;

/// Binds the addresses of the configuration.
///
/// # Errors
///
/// An address cannot be bound.
pub(super) fn bind(config: &Config) -> Result<Sockets, StartError> {
    let (listen, admin) = match config.front {
        Front::Http { listen, admin } => (Some(listen), Some(admin)),
        Front::Stdio { admin } => (None, admin),
    };
    let agents = listen.map(|address| socket("listen", address)).transpose()?;
    let operators = admin.map(|address| socket("admin", address)).transpose()?;
    Ok(Sockets { agents, operators })
}

fn socket(key: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).and_then(|tcp| {
        rustix::net::listen(&tcp, BACKLOG)?;
        Ok(tcp)
    });
    bound.map_err(|error| {
        StartError::new(key, format!("cannot listen on {address}: {error}"))
            .hint("stop what listens there, or name another port")
    })
}

/// The protected servers: what the policy sees of each, with its pack and its lock.
///
/// # Errors
///
/// The lock or a pack cannot be read.
pub(super) fn protected(config: &Config) -> Result<Vec<Arc<Protected>>, StartError> {
    let lock = config.lock.as_ref().map(|path| {
        LockFile::read(path).map_err(|what| {
            StartError::new("lock", format!("`{}`: {what}", path.display()))
                .hint("run `bartizan lock` to write it")
        })
    });
    let lock = lock.transpose()?;
    config
        .servers
        .iter()
        .map(|server| {
            let pack = server.pack.as_ref().map(|pack| self::pack(server, pack)).transpose()?;
            let mut protected = Protected::new(server.facts(pack), server.refusal);
            protected.batches = server.batches;
            protected.propagate = server.propagate;
            protected.address = server.address();
            if let Some(lock) = &lock {
                protected.lock = lock.of_server(&server.name);
            }
            Ok(Arc::new(protected))
        })
        .collect()
}

fn pack(server: &ServerConfig, wanted: &PackRef) -> Result<Arc<Pack>, StartError> {
    wanted.read().map_err(|error| {
        StartError::new(format!("servers.{}.pack", server.name), error.whats.join("\n"))
            .hint(error.hint)
    })
}

/// What the edges are made of, beside the configuration and the servers.
pub(super) struct Edges<'a> {
    pub(super) sockets: Sockets,
    pub(super) launching: &'a Launching,
    /// What approvers reach, if there are any.
    pub(super) answering: Option<ApprovalsApi>,
    /// What is counted and measured.
    pub(super) metering: &'a Arc<Metering>,
}

/// Starts the listeners, or prepares to serve the client at standard input and output.
///
/// # Errors
///
/// The configuration of a server cannot be used.
pub(super) fn serve(
    config: &Config,
    servers: Vec<Arc<Protected>>,
    edges: Edges<'_>,
    shared: &Shared,
    readiness: &Readiness,
) -> Result<Serving, StartError> {
    let Edges { sockets, launching, answering, metering } = edges;
    let principal = Arc::new(config.principal.clone());
    let operators =
        sockets.operators.map(|tcp| operators(tcp, (answering, metering), shared, readiness));
    let operators = operators.transpose()?;
    // Not tracked in `shared.tasks`: the listeners wait until that tracker is empty, so they would
    // wait for themselves.
    let serving = tokio_util::task::TaskTracker::new();
    let Some(agents) = sockets.agents else {
        let first = servers.into_iter().next().zip(config.servers.first());
        let Some((server, described)) = first else {
            return Err(StartError::new("servers", "the configuration names no server"));
        };
        let upstream = stdio_upstream(config, described, launching, shared, &server)?;
        let client = serve_stdio(shared.clone(), server, principal, upstream, stdio_limits(config));
        if let Some((admin, probes)) = operators {
            readiness.ready(Component::Listener);
            tracing::info!(%admin, "serving approvers");
            drop(serving.spawn(probes));
        }
        return Ok(Serving::Stdio(Box::pin(client)));
    };
    let Some((admin, probes)) = operators else {
        return Err(StartError::new("admin", "operators have no listener"));
    };
    let mut routes = Vec::new();
    for (server, described) in servers.into_iter().zip(&config.servers) {
        routes.push(Route {
            path: described.path.clone(),
            sse_path: described.sse_path.clone(),
            upstream: upstream(config, described, launching, shared, &server)?,
            oauth: oauth(config, described, shared)?,
            server,
            hosts: described.hosts.clone(),
            origins: described.origins.clone(),
            principal: Arc::clone(&principal),
        });
    }
    let listening = |error: std::io::Error| StartError::new("listen", error.to_string());
    let listener =
        Listener::new(agents, routes, http_config(config), shared.clone()).map_err(listening)?;
    metering.reads_usage(listener.usage());
    let address = listener.local_addr().map_err(listening)?;
    readiness.ready(Component::Listener);
    tracing::info!(%address, %admin, servers = config.servers.len(), "serving");
    let done = serving.spawn(async move {
        tokio::join!(listener.serve(), probes);
    });
    Ok(Serving::Http { address, admin, done })
}

/// What approvers and probes reach: its address, and the future that serves them.
type Operators = (SocketAddr, Pin<Box<dyn Future<Output = ()> + Send>>);

fn operators(
    tcp: TcpListener,
    (answering, metering): (Option<ApprovalsApi>, &Arc<Metering>),
    shared: &Shared,
    readiness: &Readiness,
) -> Result<Operators, StartError> {
    let failed = |error: std::io::Error| StartError::new("admin", error.to_string());
    let (tasks, closing) = (shared.tasks.clone(), shared.closing.clone());
    let page = Arc::<Metering>::clone(metering);
    let mut listener =
        AdminListener::new(tcp, readiness.clone(), tasks, closing).with_metrics(page);
    if let Some(answering) = answering {
        listener = listener.with_approvals(answering);
    }
    let admin = listener.local_addr().map_err(failed)?;
    Ok((admin, Box::pin(listener.start().map_err(failed)?)))
}

/// The OAuth settings of `server`, if it has any.
fn oauth(
    config: &Config,
    server: &ServerConfig,
    shared: &Shared,
) -> Result<Option<OAuth>, StartError> {
    let Some(oauth) = &server.oauth else { return Ok(None) };
    let public = oauth.public_url.as_deref().map(|url| {
        PublicUrl::parse(url).ok_or_else(|| {
            let subject = format!("servers.{}.public_url", server.name);
            StartError::new(subject, "is not an absolute http or https URL")
        })
    });
    let public = public.transpose()?;
    Ok(match (&oauth.mode, &server.upstream, public) {
        (
            OAuthMode::Forward { upstream_resource, origin_endpoints },
            config::Upstream::Http(http),
            public,
        ) => Some(OAuth::Forward(Forward::new(
            public,
            &http.url,
            upstream_resource.clone(),
            *origin_endpoints,
        ))),
        (OAuthMode::Terminate(ours), _, Some(public)) => {
            Some(OAuth::Terminate(terminate::resource(config, server, ours, public, shared)?))
        }
        // The configuration's parser rejects these combinations.
        (OAuthMode::Forward { .. }, config::Upstream::Child(_), _)
        | (OAuthMode::Terminate(_), _, None) => {
            let subject = format!("servers.{}.oauth", server.name);
            return Err(StartError::new(subject, "has no resource"));
        }
    })
}

pub(super) fn upstream(
    config: &Config,
    server: &ServerConfig,
    launching: &Launching,
    shared: &Shared,
    protected: &Arc<Protected>,
) -> Result<Upstream, StartError> {
    match &server.upstream {
        config::Upstream::Http(http) => {
            let mut way = http_upstream(config, server, http, protected)?;
            if checks_tokens(server) {
                way = way.with_own_credential();
            }
            Ok(match http.transport {
                HttpTransport::StreamableHttp => way.into(),
                HttpTransport::Sse => {
                    LegacySseUpstream::new(way, legacy_sse_limits(config), shared.clone()).into()
                }
            })
        }
        config::Upstream::Child(child) => Ok(Upstream::Child(ChildUpstream::new(
            child_spec(config, server, child, launching)?,
            child_limits(config, child, checks_tokens(server)),
            shared.clone(),
            Arc::clone(protected),
        ))),
    }
}

fn stdio_upstream(
    config: &Config,
    server: &ServerConfig,
    launching: &Launching,
    shared: &Shared,
    protected: &Arc<Protected>,
) -> Result<StdioUpstream, StartError> {
    match &server.upstream {
        config::Upstream::Child(child) => Ok(StdioUpstream::Child {
            spec: Box::new(child_spec(config, server, child, launching)?),
            limits: Box::new(child_limits(config, child, false)),
        }),
        config::Upstream::Http(_) => {
            let upstream = upstream(config, server, launching, shared, protected)?;
            Ok(StdioUpstream::Http(Arc::new(upstream)))
        }
    }
}

/// Each server's part of the memory for answers that arrive.
fn arriving_bytes(config: &Config) -> u64 {
    let servers = u64::try_from(config.servers.len()).unwrap_or(u64::MAX).max(1);
    config.limits.bodies_bytes.checked_div(servers).unwrap_or_default()
}

pub(super) fn stdio_limits(config: &Config) -> StdioLimits {
    let limits = &config.limits;
    StdioLimits {
        line_bytes_max: limits.frame.document.bytes_max,
        http: RemoteLimits {
            requests_max: limits.in_flight,
            answer_max: limits.answer_time,
            silence_max: limits.stream_idle,
            drain_max: limits.drain,
            ..RemoteLimits::default()
        },
        ..StdioLimits::default()
    }
}

fn http_upstream(
    config: &Config,
    server: &ServerConfig,
    http: &config::HttpUpstream,
    protected: &Protected,
) -> Result<HttpUpstream, StartError> {
    let subject = format!("servers.{}", server.name);
    let mut headers = HeaderMap::new();
    for (name, secret) in &http.headers {
        let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| {
            StartError::new(format!("{subject}.headers.{name}"), "is not a valid header value")
        })?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    let pack = protected.facts.pack.as_deref();
    for (name, value) in pack.iter().flat_map(|pack| &pack.headers) {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            StartError::new(
                format!("{subject}.pack"),
                format!("`{name}` is not a valid header name"),
            )
        })?;
        if let (false, Ok(value)) = (headers.contains_key(&name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    let ca_pem = http.ca_file.as_ref().map(fs::read).transpose().map_err(|error| {
        StartError::new(format!("{subject}.ca_file"), format!("cannot be read: {error}"))
    })?;
    let mut owned_headers = pack.map(|pack| pack.owned_headers.clone()).unwrap_or_default();
    owned_headers.extend(pack.and_then(|pack| pack.credential_header.clone()));
    let document = config.limits.frame.document;
    HttpUpstream::new(HttpUpstreamConfig {
        url: http.url.to_string(),
        headers,
        owned_headers,
        forward_authorization: http.forward_authorization,
        context: http.context.clone(),
        ca_pem,
        limits: HttpUpstreamLimits {
            answer_bytes_max: document.bytes_max,
            event_bytes_max: document.bytes_max,
            arriving_bytes_max: arriving_bytes(config),
            connect: http.connect_timeout,
            ..HttpUpstreamLimits::default()
        },
    })
    .map_err(|problem| StartError::new(format!("{subject}.url"), problem.to_string()))
}

fn legacy_sse_limits(config: &Config) -> LegacySseLimits {
    LegacySseLimits {
        sessions_max: config.limits.sessions,
        frame: config.limits.frame,
        exchanges_max: config.limits.in_flight,
        idle_max: config.limits.session_idle,
        drain_max: config.limits.drain,
        ..LegacySseLimits::default()
    }
}

fn child_spec(
    config: &Config,
    server: &ServerConfig,
    child: &config::ChildUpstream,
    launching: &Launching,
) -> Result<ChildSpec, StartError> {
    let Launching { program, support } = launching;
    let launcher = confinement::launcher(config, &server.name, child, program, *support)?;
    Ok(ChildSpec { launcher, ..unconfined(child) })
}

/// How `child` is started, its confinement apart.
pub(crate) fn unconfined(child: &config::ChildUpstream) -> ChildSpec {
    let own = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    ChildSpec {
        launcher: None,
        command: child.program.clone().into(),
        sha256: child.sha256,
        args: child.args.clone(),
        env: child
            .env
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().to_owned()))
            .collect(),
        env_inherit: child.inherit.names(own),
        cwd: child.cwd.clone(),
    }
}

/// Whether the principals of `server` come from access tokens, so that there are several.
fn checks_tokens(server: &ServerConfig) -> bool {
    matches!(&server.oauth, Some(oauth) if matches!(oauth.mode, OAuthMode::Terminate(_)))
}

/// `tokens`: see [`checks_tokens`].
fn child_limits(config: &Config, child: &config::ChildUpstream, tokens: bool) -> ChildLimits {
    let half = child.stop_timeout.checked_div(2).unwrap_or_default();
    ChildLimits {
        frame: config.limits.frame,
        close_grace: half,
        term_grace: half,
        drain_max: config.limits.drain,
        children_max: config.limits.children,
        // Where no tokens are checked there is one principal, so no children are reserved for others.
        children_per_principal_max: if tokens {
            config.limits.children.div_ceil(2)
        } else {
            config.limits.children
        },
        ..ChildLimits::default()
    }
}

fn http_config(config: &Config) -> HttpConfig {
    let limits = &config.limits;
    HttpConfig {
        limits: HttpLimits {
            connections_max: limits.connections,
            h2_connections_max: u64::try_from(limits.connections.div_ceil(8)).unwrap_or(u64::MAX),
            exchanges_max: u64::try_from(limits.requests).unwrap_or(u64::MAX),
            refusals_max: limits.refusals,
            streams_max: u64::try_from(limits.streams).unwrap_or(u64::MAX),
            sessions_max: limits.sessions,
            body_bytes_max: limits.frame.document.bytes_max,
            body_budget_bytes: limits.bodies_bytes,
            answer_budget_bytes: limits.bodies_bytes.div_ceil(2),
            headers_max: limits.header_count,
            head_bytes_max: limits.header_bytes,
            ..HttpLimits::default()
        },
        timeouts: HttpTimeouts {
            header: limits.header_time,
            body: limits.body_time,
            answer: limits.answer_time,
            idle_stream: limits.stream_idle,
            keep_alive: limits.keep_alive,
            drain: limits.drain,
            idle_session: limits.session_idle,
            ..HttpTimeouts::default()
        },
        threads: processors(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_of_connections_finds_room_before_they_are_accepted() {
        let tcp = socket("listen", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = tcp.local_addr().unwrap();
        let limit = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
        let count = limit.trim().parse().unwrap_or(128).min(300);
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(1)).unwrap();
        let made: Vec<_> = (0..count).map(connect).collect();
        assert_eq!(made.len(), count);
    }

    #[test]
    fn one_principal_may_have_all_children_and_one_of_several_half() {
        let text = "\
            listen: 127.0.0.1:0\nadmin: 127.0.0.1:1\nstate: s\nlimits: {children: 100}\n\
            servers: {s: {path: /s, command: [x]}}\n";
        let config = Config::parse(text, std::path::Path::new("."), &|_| None).unwrap();
        let config::Upstream::Child(child) = &config.servers[0].upstream else { panic!() };
        for (tokens, share) in [(false, 100), (true, 50)] {
            let limits = child_limits(&config, child, tokens);
            assert_eq!((limits.children_max, limits.children_per_principal_max), (100, share));
        }
    }
}
