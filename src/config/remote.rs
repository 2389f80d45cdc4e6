//! A service that this program calls on its own behalf: where it is, and who we are to it.

use std::path::PathBuf;
use std::time::Duration;

use ::http::Uri;

use super::form::{existing, secret, time};
use super::limits::STEP_TIMES;
use super::secret::Secret;
use super::section::{Section, section};
use super::table::Condition;

/// A service that this program calls on its own behalf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Its address (`url`).
    pub url: Uri,
    /// Certificates to trust instead of the system's, PEM (`ca_file`).
    pub ca_file: Option<PathBuf>,
    /// For one call (`timeout`).
    pub timeout: Duration,
    /// Who we are to it (`credentials`). Default: no credentials are sent.
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

/// What differs between services in the keys beside `url`.
pub(super) struct RemoteKeys {
    /// What `timeout` means.
    pub(super) timeout_means: &'static str,
    pub(super) timeout: Duration,
    /// When the keys have a meaning.
    pub(super) only: Option<Condition>,
}

impl RemoteConfig {
    /// Reads the keys beside `url`, which was read already and is absent where it is wrong.
    pub(super) fn read(s: &mut Section<'_>, url: Option<Uri>, keys: &RemoteKeys) -> Option<Self> {
        let ca_file = ca_file(s, keys.only);
        let timeout =
            s.key("timeout", time(STEP_TIMES), keys.timeout_means).only(keys.only).or(keys.timeout);
        let credentials = s
            .key("credentials", section(CredentialsConfig::read), "Who we are to the service.")
            .only(keys.only)
            .optional("none");
        let url = url?;
        if s.has("credentials") && !is_protected(&url) {
            s.problem("credentials", "credentials would be sent unprotected", "use https");
        }
        warn_of_plain(s, &url);
        if matches!(credentials, Some(CredentialsConfig::ClientTls { .. })) && !is_tls(&url) {
            let what = "shows no certificate: the address is without TLS";
            s.idle("credentials", what, "use https, or remove it");
        }
        Some(Self { url, ca_file, timeout, credentials })
    }
}

impl CredentialsConfig {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        s.exactly_one_of(&["bearer", "bearer_file", "client_tls"], "write one of them");
        let bearer = s
            .key("bearer", secret(), "A bearer token for it; may hold a reference.")
            .optional("none");
        let bearer_file = s
            .key("bearer_file", existing(), "A file with a bearer token, read for each call.")
            .optional("none");
        let client_tls = s
            .key("client_tls", section(client_tls), "A certificate that we show to it.")
            .optional("none");
        match (bearer, bearer_file, client_tls) {
            (Some(token), None, None) => Some(Self::Bearer(token)),
            (None, Some(path), None) => Some(Self::BearerFile(path)),
            (None, None, Some((cert, key))) => Some(Self::ClientTls { cert, key }),
            _ => None,
        }
    }
}

/// Reads `ca_file`, which stands with `only`, if that is something.
pub(super) fn ca_file(s: &mut Section<'_>, only: impl Into<Option<Condition>>) -> Option<PathBuf> {
    s.key("ca_file", existing(), "Certificates to trust instead of the system's, PEM.")
        .only(only)
        .optional("the system's")
}

fn client_tls(s: &mut Section<'_>) -> Option<(PathBuf, PathBuf)> {
    let hint = "write both `cert` and `key`, each a PEM file";
    let cert = s.key("cert", existing(), "Our certificate and its chain, PEM.").required(hint);
    let key = s.key("key", existing(), "Its private key, PEM.").required(hint);
    Some((cert?, key?))
}

/// Tells of a `ca_file` that nothing is checked with, because `url` is plain http.
pub(super) fn warn_of_plain(s: &Section<'_>, url: &Uri) {
    if s.has("ca_file") && !is_tls(url) {
        let what = "does nothing: the address is plain http, which has no certificate";
        s.idle("ca_file", what, "use https, or remove it");
    }
}

fn is_tls(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

/// Whether nobody on the way to `url` can read or change what is sent: TLS, or this machine.
pub(super) fn is_protected(url: &Uri) -> bool {
    is_tls(url) || is_loopback(url.host().unwrap_or_default())
}

/// Whether `host` of a URL is this machine, whoever asks.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}
