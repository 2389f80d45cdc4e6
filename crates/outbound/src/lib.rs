//! The connections that Bartizan opens: to the protected servers, and to the services that it
//! calls on its own behalf (bundles, decision logs, OTLP collectors, issuers' keys).
//!
//! There is one TLS set-up ([`tls`]), one way to connect ([`address`]), one pool of connections
//! ([`pool`]), and for services one bounded call ([`service`]). Whoever needs a connection takes
//! it from here, so that roots, client certificates, time-outs and limits mean the same
//! everywhere.
//!
//! For every connection:
//!
//! - HTTP/1.1 over TCP or TLS 1.2 and 1.3 with ring. No process-wide default is relied on.
//! - The address is fixed when the pool is made. No proxy is used, whatever the environment says.
//! - A redirect is an answer like any other here; nothing follows it. Nothing is decompressed.
//! - A request is sent once. It goes to a second connection only if no byte of it was written to
//!   the first.
//! - Nothing here decides, records, or knows MCP. Errors name no address, because an address may
//!   hold a secret.

pub mod tls;
pub mod address;
pub mod pool;
pub mod service;

use std::error::Error;
use std::fmt;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// Errors below an error that are named, outermost first.
const CAUSES_MAX: usize = 8;

/// Why no connection can ever be opened with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetUpError {
    /// The address is no absolute `http` or `https` URL.
    Url(String),
    /// The address holds a user or a password.
    UrlCredentials,
    /// The given roots are no PEM certificates, or the system has none.
    Roots(String),
    /// The client certificate or its key cannot be used.
    ClientCertificate(String),
    /// The bearer token cannot be sent.
    Token(String),
    /// TLS cannot be set up.
    Tls(String),
}

impl fmt::Display for SetUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(why) => write!(f, "not an absolute http or https URL: {why}"),
            Self::UrlCredentials => f.write_str("the URL holds credentials; use `headers`"),
            Self::Roots(why) => write!(f, "no root certificates: {why}"),
            Self::ClientCertificate(why) => write!(f, "the client certificate: {why}"),
            Self::Token(why) => write!(f, "the bearer token: {why}"),
            Self::Tls(why) => write!(f, "TLS cannot be set up: {why}"),
        }
    }
}

impl Error for SetUpError {}

/// Why a request has no answer, or its answer no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server cannot be reached, or closed the connection before it answered.
    Unreachable(String),
    /// Connecting took longer than it may.
    ConnectTimedOut,
    /// The answer's body broke off.
    BrokenOff(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::ConnectTimedOut => f.write_str("connecting took too long"),
            Self::BrokenOff(why) => write!(f, "the answer broke off: {why}"),
        }
    }
}

impl Error for Failure {}

/// An error and the errors that caused it, for the operator.
fn causes(error: &(dyn Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| Error::source(*error));
    let texts: Vec<String> = all.take(CAUSES_MAX).map(ToString::to_string).collect();
    texts.join(": ")
}

/// Whether `headers` name a content coding other than `identity`.
pub fn is_coded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}
