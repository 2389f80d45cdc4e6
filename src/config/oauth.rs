//! `public_url` and `oauth` of a server: who checks the tokens that agents bring.

use ::http::Uri;

use super::form::{Form, URL_PATTERN, flag, parse_url, text, url, word};
use super::listeners::Front;
use super::problem::wrong;
use super::remote::is_loopback;
use super::section::{Section, section};
use super::table::Condition;
use super::terminate::{ISSUERS_HINT, TerminateConfig};
use super::upstream::Upstream;

/// The words that `oauth.mode` can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Terminate,
}

/// Who checks tokens for a server, and under which URL.
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
        /// (`oauth.origin_endpoints`).
        origin_endpoints: bool,
    },
    /// We (`terminate`): we are a resource of our own, and the client's token ends here.
    Terminate(TerminateConfig),
}

impl OAuthConfig {
    /// Reads `oauth` and `public_url` of the server at `upstream`. With `forward` the client's
    /// `Authorization` goes on to it.
    pub(super) fn read(
        s: &mut Section<'_>,
        front: Option<Front>,
        upstream: &mut Option<Upstream>,
    ) -> Option<Self> {
        let only = Condition::written("oauth", s.has("oauth"));
        let public_url = s
            .key(
                "public_url",
                public_url(),
                "The URL that agents dial: https, or http on loopback. It names the resource that \
                 their tokens are for. Needs `oauth`. Required with `mode: terminate`, with \
                 `hosts`, and where `listen` is no loopback address; else it is made of the \
                 request's host and `path`.",
            )
            .only(only)
            .optional("the one that was dialled");
        let default_audience = public_url.clone();
        let mode = s
            .key(
                "oauth",
                section(|s| OAuthMode::read(s, default_audience.as_deref())),
                "Who checks the tokens that agents bring.",
            )
            .optional("none")?;
        let terminates = matches!(mode, OAuthMode::Terminate(_));
        if matches!(front, Some(Front::Stdio { .. })) {
            return refused_on_stdio(s);
        }
        if !s.has("public_url") {
            let loopback = match front {
                Some(Front::Http { listen, .. }) => listen.ip().to_canonical().is_loopback(),
                Some(Front::Stdio { .. }) | None => true,
            };
            // On loopback, whoever calls us by another name deceives nobody but itself.
            if !loopback || s.has("hosts") || terminates {
                let what = "`public_url` is missing";
                s.problem("oauth", what, "write the URL that clients dial");
            }
        }
        match upstream {
            Some(Upstream::Http(http)) if terminates => {
                if http.forward_authorization {
                    let what = "`oauth.mode: terminate` lets no token go on";
                    s.problem("forward_authorization", what, "remove one of them");
                }
            }
            Some(Upstream::Http(http)) => {
                if s.has("forward_authorization") && !http.forward_authorization {
                    let what = "`oauth.mode: forward` sends it on";
                    s.problem("forward_authorization", what, "remove one of them");
                }
                if http.sets_authorization() {
                    let what = "`headers` sets `authorization`, so no client's can go on";
                    s.problem("oauth", what, "keep one of them");
                }
                http.forward_authorization = true;
            }
            Some(Upstream::Child(_)) if !terminates => {
                let what = "a program's standard input takes no token";
                s.problem("oauth", what, "use it with `url`, or write `mode: terminate`");
            }
            Some(Upstream::Child(_)) | None => {}
        }
        Some(Self { public_url, mode })
    }
}

/// `oauth` of a server that `bartizan wrap` guards.
fn refused_on_stdio(s: &Section<'_>) -> Option<OAuthConfig> {
    let what = "a client on standard input brings no token";
    s.problem("oauth", what, "use `bartizan run` for it, or `wrap` a server without `oauth`");
    None
}

/// An http or https address as clients and tokens name it: byte for byte as it is written.
pub(super) fn public_url<'f>() -> Form<'f, String> {
    text().checked(URL_PATTERN, |text| {
        let url = parse_url(&text)?;
        if text.contains(['?', '"', '\\']) {
            return wrong(
                "holds a query, or what must be quoted",
                "write it without a query, quotes and backslashes: it names a resource",
            );
        }
        if url.scheme_str() == Some("http") && !is_loopback(url.host().unwrap_or_default()) {
            let hint = "use https: tokens travel under it (RFC 9728 §3)";
            return wrong("is http beyond loopback", hint);
        }
        Ok(text)
    })
}

impl OAuthMode {
    fn read(s: &mut Section<'_>, default_audience: Option<&str>) -> Option<Self> {
        let mode = s
            .key(
                "mode",
                word([("forward", Mode::Forward), ("terminate", Mode::Terminate)]),
                "Who checks tokens. `forward`: the server, which is one resource with us; the \
                 agent's `Authorization` goes on. `terminate`: Bartizan, which is a resource of \
                 its own; no token goes on.",
            )
            .required("write `mode: forward` or `mode: terminate`");
        let only_forward = Condition::equals("mode", "forward", mode != Some(Mode::Terminate));
        let only_terminate = Condition::equals("mode", "terminate", mode != Some(Mode::Forward));
        let upstream_resource = s
            .key(
                "upstream_resource",
                url(),
                "What the server calls itself in its metadata, where that is not `url`.",
            )
            .only(only_forward)
            .optional("that of `url`");
        let origin_endpoints = s
            .key(
                "origin_endpoints",
                flag(),
                "Lets `/.well-known/oauth-authorization-server`, `/authorize`, `/token` and \
                 `/register` at our origin reach the server's, for clients of MCP 2025-03-26. One \
                 server at most.",
            )
            .only(only_forward)
            .or(false);
        let ours = TerminateConfig::read(s, only_terminate, default_audience);
        match mode? {
            Mode::Forward => Some(Self::Forward { upstream_resource, origin_endpoints }),
            Mode::Terminate => {
                if !s.has("issuers") {
                    s.problem_here("`issuers` is missing", ISSUERS_HINT);
                }
                Some(Self::Terminate(ours))
            }
        }
    }
}
