//! A client for services that Bartizan itself uses: bundle servers, decision log services,
//! OpenTelemetry collectors, issuers of access tokens.
//!
//! It never carries an agent's message. Each call has a deadline and a limit on the response's
//! size. Redirects are rejected, because credentials and trusted policies belong to one origin.
//! Compressed responses are rejected. Errors do not contain the address, because it may contain a
//! secret.

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

/// Largest number of idle connections to one service. Calls come one at a time.
const IDLE_CONNECTIONS_MAX: usize = 1;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Largest number of header fields of a response.
const HEADERS_MAX: usize = 100;
/// Largest size of a response's head, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Largest size of a token file, bytes.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

pub(crate) const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("bartizan/", env!("CARGO_PKG_VERSION")));
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// How to connect to a service.
#[derive(Debug)]
pub struct ServiceConfig {
    /// Its address; each call gives path and query.
    pub address: Address,
    /// Root certificates to trust in place of the system's, PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// How to authenticate.
    pub credentials: Credentials,
    /// Deadline of one call, including connecting; [`ServiceCall::wait`] is added to it.
    pub timeout: Duration,
}

/// How to authenticate to a service.
pub enum Credentials {
    /// No authentication.
    None,
    /// A bearer token (RFC 6750).
    Bearer(String),
    /// A file with a bearer token. It is read for each call, because other programs renew it.
    BearerFile(PathBuf),
    /// A TLS client certificate.
    ClientTls(ClientCertificate),
}

// By hand, because the fields are secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceFailure {
    /// The service cannot be reached, or the response ended early.
    Unreachable(String),
    /// The deadline passed.
    Late,
    /// The response body is larger than this many bytes.
    TooLarge(usize),
    /// The response is a redirect (status 3xx).
    Redirected,
    /// The response has a content coding, such as gzip, although none was requested.
    Coded,
    /// The token file cannot be read.
    Token(String),
}

impl fmt::Display for ServiceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            Self::Late => f.write_str("it did not respond in time"),
            Self::TooLarge(max) => write!(f, "it sent more than {max} bytes"),
            Self::Redirected => f.write_str("it sent a redirect, which is not followed"),
            Self::Coded => f.write_str("it sent a content coding that was not requested"),
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

/// A service's response, with any status except a redirect.
#[derive(Debug)]
pub struct ServiceAnswer {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// One call to a service.
#[derive(Debug)]
pub struct ServiceCall {
    /// `GET` or `POST`.
    pub method: Method,
    /// Path and query, which replace those of the address.
    pub target: PathAndQuery,
    /// Additional headers. A `User-Agent` here replaces the default one.
    pub headers: HeaderMap,
    /// The request body; may be empty.
    pub body: Bytes,
    /// How long the request asks the service to wait before it responds (long polling).
    pub wait: Duration,
    /// Largest size of the response body, bytes.
    pub bytes_max: usize,
}

/// A client for one service.
pub struct Service {
    pool: Arc<Pool>,
    token: BearerToken,
    timeout: Duration,
}

/// The value of `Authorization`, or where it comes from.
pub(crate) enum BearerToken {
    None,
    Fixed(HeaderValue),
    File(PathBuf),
}

impl Credentials {
    /// The token, and the client certificate.
    ///
    /// # Errors
    ///
    /// The token cannot be sent in a header.
    pub(crate) fn split(self) -> Result<(BearerToken, Option<ClientCertificate>), SetUpError> {
        Ok(match self {
            Self::None => (BearerToken::None, None),
            Self::Bearer(token) => {
                (BearerToken::Fixed(bearer(&token).map_err(SetUpError::Token)?), None)
            }
            Self::BearerFile(path) => (BearerToken::File(path), None),
            Self::ClientTls(certificate) => (BearerToken::None, Some(certificate)),
        })
    }
}

impl BearerToken {
    /// The value now; a file is read each time.
    pub(crate) async fn value(&self) -> Result<Option<HeaderValue>, ServiceFailure> {
        let path = match self {
            Self::None => return Ok(None),
            Self::Fixed(token) => return Ok(Some(token.clone())),
            Self::File(path) => path,
        };
        let path = path.clone();
        let read = tokio::task::spawn_blocking(move || token_in(&path)).await;
        let token = read.map_err(|error| ServiceFailure::Token(error.to_string()))?;
        token.and_then(|token| bearer(&token)).map(Some).map_err(ServiceFailure::Token)
    }
}

// By hand, because addresses, tokens and keys may be secret.
impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Service {
    /// Prepares a client; opens no connection yet.
    ///
    /// # Errors
    ///
    /// The token or TLS settings cannot be used.
    pub fn new(config: ServiceConfig) -> Result<Self, SetUpError> {
        let (token, client_certificate) = config.credentials.split()?;
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

    /// The service's address.
    pub fn url(&self) -> &Uri {
        self.pool.address().url()
    }

    /// Path and query of the address.
    pub fn target(&self) -> PathAndQuery {
        let target = self.url().path_and_query().cloned();
        target.unwrap_or_else(|| PathAndQuery::from_static("/"))
    }

    /// The path of the address with `path` appended, and the address's query.
    pub fn target_below(&self, path: &str) -> PathAndQuery {
        let (base, query) = (self.url().path().trim_end_matches('/'), self.url().query());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        // The result is a valid path, because the address's path is one.
        format!("{base}{path}{query}").parse().unwrap_or_else(|_| self.target())
    }

    /// Sends a request and waits for the whole response.
    ///
    /// # Errors
    ///
    /// Any [`ServiceFailure`]; a status such as 500 is not one.
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
        if let Some(token) = self.token.value().await? {
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
}

/// The text of a file without surrounding white space.
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
        .map_err(|_| "the token contains a character that is not allowed in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
