//! What `public_url` and `oauth` of a server mean, and what about them cannot be.

use std::collections::HashMap;
use std::iter;

use ::http::Uri;

use super::file::{OAuthFile, OAuthWord, ServerFile};
use super::meaning::{Reader, or};
use super::problem::Place;
use super::{Front, OAuthConfig, OAuthMode, ServerConfig, Upstream};

/// Paths at the origin that `origin_endpoints` answers beside the well-known one.
const ENDPOINTS: [&str; 3] = ["/authorize", "/token", "/register"];

impl Reader<'_> {
    /// What stands in the way to tokens for `file`'s server, which is at `upstream`.
    pub(super) fn oauth(
        &mut self,
        file: &ServerFile,
        upstream: Option<&Upstream>,
        front: Option<Front>,
    ) -> Option<OAuthConfig> {
        let Some(oauth) = &file.oauth else {
            if let Some(public) = &file.public_url {
                self.problems.push(&public.place, "has a meaning only with `oauth`", "remove it");
            }
            return None;
        };
        if oauth.mode.is_none() && !oauth.has_mode {
            let hint = "write `mode: forward` or `mode: terminate`";
            self.problems.push(&oauth.place, "`mode` is missing", hint);
        }
        let mode = oauth.mode.as_ref()?.value;
        let public_url = self.public_url(file, front, (&oauth.place, mode));
        let forwards = mode == OAuthWord::Forward;
        let foreign = if forwards { terminate_keys(oauth) } else { forward_keys(oauth) };
        let other = if forwards { "oauth.mode: terminate" } else { "oauth.mode: forward" };
        self.only_with(other, &foreign);
        let mode = match mode {
            OAuthWord::Forward => self.forward(file, oauth, upstream),
            OAuthWord::Terminate => {
                if let Some(forward) = file.forward_authorization.as_ref().filter(|it| it.value) {
                    let what = "`oauth.mode: terminate` lets no token go on";
                    self.problems.push(&forward.place, what, "remove one of them");
                }
                OAuthMode::Terminate(self.terminate(oauth, public_url.as_deref()))
            }
        };
        Some(OAuthConfig { public_url, mode })
    }

    fn forward(
        &mut self,
        file: &ServerFile,
        oauth: &OAuthFile,
        upstream: Option<&Upstream>,
    ) -> OAuthMode {
        let upstream_resource =
            oauth.upstream_resource.as_ref().and_then(|written| self.url(written));
        match upstream {
            Some(Upstream::Http(http)) => {
                if let Some(forward) =
                    file.forward_authorization.as_ref().filter(|spot| !spot.value)
                {
                    let what = "`oauth.mode: forward` sends it on";
                    self.problems.push(&forward.place, what, "remove one of them");
                }
                if http.headers.iter().any(|(name, _)| *name == ::http::header::AUTHORIZATION) {
                    let what = "`headers` sets `authorization`, so no client's can go on";
                    self.problems.push(&oauth.place, what, "keep one of them");
                }
            }
            Some(Upstream::Child(_)) => {
                let what = "a program's standard input takes no token";
                let hint = "use it with `url`, or write `mode: terminate`";
                self.problems.push(&oauth.place, what, hint);
            }
            None => {}
        }
        OAuthMode::Forward {
            upstream_resource,
            origin_endpoints: or(oauth.origin_endpoints.clone(), false),
        }
    }

    /// The URL that clients dial. It can be left out where the server checks tokens, on loopback
    /// alone, where whoever names us by another name deceives nobody but itself.
    fn public_url(
        &mut self,
        file: &ServerFile,
        front: Option<Front>,
        (oauth, mode): (&Place, OAuthWord),
    ) -> Option<String> {
        let Some(written) = &file.public_url else {
            let loopback = match front {
                Some(Front::Http { listen, .. }) => listen.ip().to_canonical().is_loopback(),
                Some(Front::Stdio) | None => true,
            };
            if !loopback || file.hosts.is_some() || mode == OAuthWord::Terminate {
                let what = "`public_url` is missing";
                self.problems.push(oauth, what, "write the URL that clients dial");
            }
            return None;
        };
        let url = self.url(written)?;
        let host = url.host().unwrap_or_default();
        if written.value.contains(['?', '"', '\\']) {
            let hint = "write it without a query, quotes and backslashes: it names a resource";
            self.problems.push(&written.place, "holds a query, or what must be quoted", hint);
        } else if url.scheme_str() == Some("http") && !is_loopback(host) {
            let hint = "use https: tokens travel under it (RFC 9728 §3)";
            self.problems.push(&written.place, "is http beyond loopback", hint);
        }
        Some(written.value.clone())
    }

    /// No two servers may be found at one place.
    pub(super) fn oauth_side_by_side(&mut self, servers: &[(ServerConfig, Place)]) {
        let mut metadata: HashMap<String, &str> = HashMap::new();
        let mut endpoints: Option<&str> = None;
        for (server, place) in servers {
            let Some(oauth) = &server.oauth else { continue };
            let path = oauth.public_url.as_ref().and_then(|url| url.parse::<Uri>().ok());
            let path = path.map_or_else(|| server.path.clone(), |url| url.path().to_owned());
            let path = path.trim_end_matches('/').to_owned();
            if let Some(other) = metadata.get(&path) {
                let what = format!("its metadata is where that of `{other}` is");
                self.problems.push(place, what, "give each `public_url` a path of its own");
            }
            metadata.insert(path, &server.name);
            let origin_endpoints =
                matches!(oauth.mode, OAuthMode::Forward { origin_endpoints: true, .. });
            if !origin_endpoints {
                continue;
            }
            if let Some(other) = endpoints.replace(&server.name) {
                let what = format!("`{other}` has `origin_endpoints` too");
                self.problems.push(place, what, "one origin has one authorization server");
            }
            for (other, place) in servers {
                for path in iter::once(&other.path).chain(&other.sse_path) {
                    if ENDPOINTS.contains(&path.as_str()) {
                        let what = format!("`{path}` is an origin endpoint of `{}`", server.name);
                        self.problems.push(place, what, "give the server another path");
                    }
                }
            }
        }
    }
}

/// The keys that mean something only where the server checks tokens.
fn forward_keys(oauth: &OAuthFile) -> Vec<Option<&Place>> {
    vec![
        oauth.upstream_resource.as_ref().map(|spot| &spot.place),
        oauth.origin_endpoints.as_ref().map(|spot| &spot.place),
    ]
}

/// The keys that mean something only where tokens end here.
fn terminate_keys(oauth: &OAuthFile) -> Vec<Option<&Place>> {
    vec![
        oauth.issuers.as_ref().and_then(|issuers| issuers.first()).map(|issuer| &issuer.place),
        oauth.scopes.as_ref().and_then(|scopes| scopes.first()).map(|spot| &spot.place),
        oauth.principal_claim.as_ref().map(|spot| &spot.place),
        oauth.groups_claim.as_ref().map(|spot| &spot.place),
        oauth.claims.as_ref().and_then(|claims| claims.first()).map(|spot| &spot.place),
    ]
}

/// Whether `host` of a URL is this machine, whoever asks.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}
