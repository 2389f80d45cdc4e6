//! A service that Bartizan calls on its own behalf: one that hands out policy, one that takes
//! decision logs, a collector of OpenTelemetry, an issuer of access tokens.
//!
//! Nothing of an agent ever goes this way. Each call has a deadline and a bound on the answer;
//! redirects are refused, because a credential and a trusted policy belong to one origin; coded
//! answers are refused. Failures are told without the address, which may hold a secret.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;

use crate::address::Address;
use crate::pool::{Pool, PoolLimits};
use crate::tls::{ClientCertificate, Tls};
use crate::{Failure, SetUpError, is_coded};

/// Connections to one service that are kept while idle. Calls come one at a time.
const IDLE_CONNECTIONS_MAX: usize = 1;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Header fields of an answer.
const HEADERS_MAX: usize = 100;
/// Head of an answer, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Size of a file with a token, bytes.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("bartizan/", env!("CARGO_PKG_VERSION")));
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// How to reach a service.
#[derive(Debug)]
pub struct ServiceConfig {
    /// Its address; each call names the path.
    pub address: Address,
    /// Root certificates to trust instead of the system's, PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Who we are to it.
    pub credentials: Credentials,
    /// Time for one call, connecting included, beyond what the service was asked to wait.
    pub timeout: Duration,
}

/// Who we are to a service.
pub enum Credentials {
    /// Nobody in particular.
    None,
    /// A bearer token (RFC 6750).
    Bearer(String),
    /// A bearer token in a file, read anew for each call, because others replace it.
    BearerFile(PathBuf),
    /// A TLS client certificate.
    ClientTls(ClientCertificate),
}

// Holds secrets.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceFailure {
    /// It could not be reached, or broke off.
    Unreachable(String),
    /// It took longer than it may.
    Late,
    /// The answer is larger than this many bytes.
    TooLarge(usize),
    /// It answered with a redirect.
    Redirected,
    /// It answered in a coding that was not asked for.
    Coded,
    /// The token to show cannot be read.
    Token(String),
}

impl fmt::Display for ServiceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            Self::Late => f.write_str("it took too long"),
            Self::TooLarge(max) => write!(f, "it sent more than {max} bytes"),
            Self::Redirected => f.write_str("it sent a redirect, which is not followed"),
            Self::Coded => f.write_str("it sent a content coding that was not asked for"),
            Self::Token(why) => write!(f, "the bearer token cannot be read: {why}"),
        }
    }
}

impl std::error::Error for ServiceFailure {}

impl From<Failure> for ServiceFailure {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable(_) | Failure::BrokenOff(_) => {
                Self::Unreachable(failure.to_string())
            }
            Failure::ConnectTimedOut => Self::Late,
        }
    }
}

/// What a service answered, whatever the status but a redirect.
#[derive(Debug)]
pub struct ServiceAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// One call.
#[derive(Debug)]
pub struct ServiceCall {
    /// `GET` or `POST`.
    pub method: Method,
    /// Path and query.
    pub target: PathAndQuery,
    /// Headers beside our own. A `User-Agent` here replaces ours.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How long the service was asked to wait before it answers.
    pub wait: Duration,
    /// Size of the answer's body, bytes.
    pub bytes_max: usize,
}

/// The way to a service.
pub struct Service {
    pool: Arc<Pool>,
    token: Token,
    timeout: Duration,
}

enum Token {
    None,
    Fixed(HeaderValue),
    File(PathBuf),
}

// Addresses, tokens and keys may be secret.
impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Service {
    /// Prepares the way; connects to nothing yet.
    pub fn new(config: ServiceConfig) -> Result<Self, SetUpError> {
        let (token, client_certificate) = match config.credentials {
            Credentials::None => (Token::None, None),
            Credentials::Bearer(token) => {
                (Token::Fixed(bearer(&token).map_err(SetUpError::Token)?), None)
            }
            Credentials::BearerFile(path) => (Token::File(path), None),
            Credentials::ClientTls(certificate) => (Token::None, Some(certificate)),
        };
        let tls = Tls { ca_pem: config.ca_pem, client_certificate };
        let limits = PoolLimits {
            idle_max: IDLE_CONNECTIONS_MAX,
            idle: IDLE,
            connect: config.timeout,
            headers_max: HEADERS_MAX,
            head_bytes_max: HEAD_BYTES_MAX,
        };
        let pool = Arc::new(Pool::new(config.address, tls, limits)?);
        Ok(Self { pool, token, timeout: config.timeout })
    }

    /// Its address.
    pub fn url(&self) -> &Uri {
        self.pool.address().url()
    }

    /// Path and query of its address.
    pub fn target(&self) -> PathAndQuery {
        let target = self.url().path_and_query().cloned();
        target.unwrap_or_else(|| PathAndQuery::from_static("/"))
    }

    /// The path of its address with `path` behind it, and its query.
    pub fn target_below(&self, path: &str) -> PathAndQuery {
        let (base, query) = (self.url().path().trim_end_matches('/'), self.url().query());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        // What was the path of a URL is one with another path behind it too.
        format!("{base}{path}{query}").parse().unwrap_or_else(|_| self.target())
    }

    /// Makes a call and waits for the whole answer.
    pub async fn call(&self, call: ServiceCall) -> Result<ServiceAnswer, ServiceFailure> {
        let most = self.timeout.saturating_add(call.wait);
        tokio::time::timeout(most, self.exchange(call)).await.map_err(|_| ServiceFailure::Late)?
    }

    async fn exchange(&self, call: ServiceCall) -> Result<ServiceAnswer, ServiceFailure> {
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.uri_mut() = Uri::from(call.target);
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, AGENT);
        headers.extend(call.headers);
        headers.insert(HOST, self.pool.address().host().clone());
        headers.insert(ACCEPT_ENCODING, IDENTITY);
        if let Some(token) = self.token().await? {
            headers.insert(AUTHORIZATION, token);
        }
        let (head, body) = self.pool.send(request).await?;
        if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
            return Err(ServiceFailure::Redirected);
        }
        if is_coded(&head.headers) {
            return Err(ServiceFailure::Coded);
        }
        let body = body.whole(call.bytes_max).await?;
        let body = body.ok_or(ServiceFailure::TooLarge(call.bytes_max))?;
        Ok(ServiceAnswer { status: head.status, headers: head.headers, body })
    }

    async fn token(&self) -> Result<Option<HeaderValue>, ServiceFailure> {
        let path = match &self.token {
            Token::None => return Ok(None),
            Token::Fixed(token) => return Ok(Some(token.clone())),
            Token::File(path) => path,
        };
        let path = path.clone();
        let read = tokio::task::spawn_blocking(move || token_in(&path)).await;
        let token = read.map_err(|error| ServiceFailure::Token(error.to_string()))?;
        token.and_then(|token| bearer(&token)).map(Some).map_err(ServiceFailure::Token)
    }
}

/// The text of a file, without white space around it.
fn token_in(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| file.take(TOKEN_BYTES_MAX.saturating_add(1)).read_to_string(&mut text));
    match read {
        Err(error) => Err(error.to_string()),
        Ok(_) if u64::try_from(text.len()).map_or(true, |length| length > TOKEN_BYTES_MAX) => {
            Err(format!("larger than {TOKEN_BYTES_MAX} bytes"))
        }
        Ok(_) => Ok(text.trim_ascii().to_owned()),
    }
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    if token.is_empty() {
        return Err("the token is empty".to_owned());
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "the token holds a character that no header may hold".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
