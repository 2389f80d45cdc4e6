//! Outbound connections: to the protected servers, and to the services that Bartizan itself uses
//! (bundles, decision logs, OTLP collectors, issuers' keys).
//!
//! There is one TLS configuration ([`tls`]), one connector ([`address`]), one connection pool
//! ([`pool`]), and for services one call with a deadline and a size limit ([`service`], and
//! [`grpc`] for those that speak gRPC). All other crates connect through this one, so that root
//! certificates, client certificates, time-outs and limits mean the same everywhere.
//!
//! For every connection:
//!
//! - HTTP/1.1 (of [`grpc`]: HTTP/2) over TCP, or over TLS 1.2 or 1.3 with ring. No process-wide
//!   default is used.
//! - The address is fixed when the pool is made. No proxy is used, even if the environment names
//!   one.
//! - A redirect is returned like any other response and never followed. Nothing is decompressed.
//! - A request is sent once. It goes to a second connection only if hyper reports that no byte of
//!   it was written to the first.
//! - This crate decides nothing, records nothing, and does not know MCP. Errors do not contain the
//!   address, because an address may contain a secret.

pub mod tls;
pub mod address;
mod long;
pub mod pool;
pub mod service;
pub mod grpc;

use std::error::Error;
use std::fmt;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// Largest number of errors in a chain of causes that a message names, outermost first.
const CAUSES_MAX: usize = 8;

/// Why a configuration cannot be used to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetUpError {
    /// The address is not an absolute `http` or `https` URL; the text says what is wrong.
    Url(String),
    /// The address contains a user or a password.
    UrlCredentials,
    /// The configured root certificates are not valid PEM, or the system has none.
    Roots(String),
    /// The client certificate or its key cannot be used.
    ClientCertificate(String),
    /// The bearer token cannot be sent in a header.
    Token(String),
    /// rustls rejects the configuration.
    Tls(String),
}

impl fmt::Display for SetUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(why) => write!(f, "not an absolute http or https URL: {why}"),
            Self::UrlCredentials => f.write_str("the URL contains credentials; use `headers`"),
            Self::Roots(why) => write!(f, "no root certificates: {why}"),
            Self::ClientCertificate(why) => write!(f, "the client certificate: {why}"),
            Self::Token(why) => write!(f, "the bearer token: {why}"),
            Self::Tls(why) => write!(f, "TLS cannot be set up: {why}"),
        }
    }
}

impl Error for SetUpError {}

/// Why a request has no response, or its response is incomplete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server cannot be reached, or closed the connection before it responded.
    Unreachable(String),
    /// Connecting took longer than [`PoolLimits::connect`](pool::PoolLimits::connect).
    ConnectTimedOut,
    /// The connection ended before the response body did.
    BrokenOff(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::ConnectTimedOut => f.write_str("connecting took too long"),
            Self::BrokenOff(why) => write!(f, "the response ended early: {why}"),
        }
    }
}

impl Error for Failure {}

/// The messages of an error and of its causes, separated by `: `.
fn causes(error: &(dyn Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| Error::source(*error));
    let texts: Vec<String> = all.take(CAUSES_MAX).map(ToString::to_string).collect();
    texts.join(": ")
}

/// Whether `headers` contain a content coding other than `identity` (RFC 9110, section 8.4).
pub fn is_coded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}
