//! What a valid configuration does that its author should know of. `check` prints it, `run` logs it.

use ::http::Uri;

use super::listeners::Front;
use super::problem::Warning;
use super::remote::is_protected;
use super::upstream::Upstream;
use super::{Config, ServerConfig};

impl Config {
    /// What its author should know of: settings that do nothing beside the others, in the order in
    /// which they are read; then what others can reach or read.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = self.idle.clone();
        for server in &self.servers {
            open_to_anybody(self.front, server, &mut warnings);
            unprotected(server, &mut warnings);
        }
        if let Some(replicas) = self.replicas.as_ref().filter(|it| !it.store.is_protected()) {
            warnings.push(Warning {
                at: "replicas.url".to_owned(),
                what: format!(
                    "held calls and the password go to `{}` without TLS, which others can read; use \
                     rediss",
                    replicas.store.host
                ),
            });
        }
        if let Some(otlp) = &self.otlp
            && !otlp.headers.is_empty()
            && !is_protected(&otlp.remote.url)
        {
            warnings.push(plain("otlp.headers".to_owned(), "they go", &otlp.remote.url));
        }
        warnings
    }
}

/// A listener that other machines reach, and a server behind it for which no token is asked.
fn open_to_anybody(front: Front, server: &ServerConfig, warnings: &mut Vec<Warning>) {
    let Front::Http { listen, .. } = front else { return };
    if server.oauth.is_none() && !listen.ip().to_canonical().is_loopback() {
        warnings.push(Warning {
            at: format!("servers.{}", server.name),
            what: format!(
                "whoever reaches {listen} can call it: no access token is asked for; set `oauth`, \
                 or listen on 127.0.0.1"
            ),
        });
    }
}

/// Credentials that go to the server over a network without TLS.
fn unprotected(server: &ServerConfig, warnings: &mut Vec<Warning>) {
    let Upstream::Http(http) = &server.upstream else { return };
    if is_protected(&http.url) {
        return;
    }
    let at = |key: &str| format!("servers.{}.{key}", server.name);
    if !http.headers.is_empty() {
        warnings.push(plain(at("headers"), "they go", &http.url));
    }
    if http.forward_authorization {
        warnings.push(plain(at("forward_authorization"), "agents' tokens go", &http.url));
    }
}

fn plain(at: String, subject: &str, url: &Uri) -> Warning {
    let host = url.host().unwrap_or_default();
    Warning {
        at,
        what: format!("{subject} to `{host}` over plain http, which others can read; use https"),
    }
}
