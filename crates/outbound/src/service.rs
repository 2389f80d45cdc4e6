//! An HTTP service that this program calls on its own behalf: one that hands out policy, one that
//! takes decision logs.
//!
//! Nothing of an agent ever goes this way. Each call has a deadline and a bound on the answer;
//! redirects are not followed, because a credential and a trusted policy belong to one origin;
//! coded answers are refused. Failures are told without the address, which may hold a secret.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::http::header::{ACCEPT_ENCODING, AUTHORIZATION, USER_AGENT};
use ::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::tls::tls;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Header fields of an answer.
const HEADERS_MAX: usize = 100;
/// Head of an answer, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Size of a file with a token, bytes.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// Causes of a failure that are named, outermost first.
const CAUSES_MAX: usize = 8;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("bartizan/", env!("CARGO_PKG_VERSION")));
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// How to reach a service.
pub struct ServiceConfig {
    /// Roots to trust instead of the system's, PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Who we are to it.
    pub credentials: Credentials,
    /// Whether it is reached over TLS.
    pub secure: bool,
    /// Time for one call, beyond what the service was asked to wait.
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
    /// A TLS client certificate with its chain, and its key; both PEM.
    ClientTls {
        /// The chain, our own certificate first.
        certificates: Vec<u8>,
        /// The private key.
        key: Vec<u8>,
    },
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
    /// Where to.
    pub url: Uri,
    /// Headers beside our own.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How long the service was asked to wait before it answers.
    pub wait: Duration,
    /// Size of the answer, bytes.
    pub bytes_max: usize,
}

/// The way to a service.
pub struct Service {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    token: Token,
    timeout: Duration,
}

enum Token {
    None,
    Fixed(HeaderValue),
    File(PathBuf),
}

// Headers hold secrets.
impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Service {
    /// Prepares the way; connects to nothing yet. The error says what is wrong.
    pub fn new(config: ServiceConfig) -> Result<Self, String> {
        let (token, client_tls) = match config.credentials {
            Credentials::None => (Token::None, None),
            Credentials::Bearer(token) => (Token::Fixed(bearer(&token)?), None),
            Credentials::BearerFile(path) => (Token::File(path), None),
            Credentials::ClientTls { certificates, key } => {
                (Token::None, Some((certificates, key)))
            }
        };
        let tls = tls(config.ca_pem.as_deref(), client_tls, config.secure)
            .map_err(|problem| problem.to_string())?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(config.timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_headers(HEADERS_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        Ok(Self { client, token, timeout: config.timeout })
    }

    /// Makes a call and waits for the whole answer.
    pub async fn call(&self, call: ServiceCall) -> Result<ServiceAnswer, ServiceFailure> {
        let most = self.timeout.saturating_add(call.wait);
        tokio::time::timeout(most, self.exchange(call)).await.map_err(|_| ServiceFailure::Late)?
    }

    async fn exchange(&self, call: ServiceCall) -> Result<ServiceAnswer, ServiceFailure> {
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.uri_mut() = call.url;
        let headers = request.headers_mut();
        headers.extend(call.headers);
        headers.insert(USER_AGENT, AGENT);
        headers.insert(ACCEPT_ENCODING, IDENTITY);
        if let Some(token) = self.token().await? {
            headers.insert(AUTHORIZATION, token);
        }
        let response = self.client.request(request).await;
        let (head, body) = response.map_err(|error| unreachable(&error))?.into_parts();
        if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
            return Err(ServiceFailure::Redirected);
        }
        if crate::is_coded(&head.headers) {
            return Err(ServiceFailure::Coded);
        }
        let body = Limited::new(body, call.bytes_max).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                ServiceFailure::TooLarge(call.bytes_max)
            } else {
                unreachable(&*error)
            }
        })?;
        let body = body.to_bytes();
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

/// The causes of an error, which hyper keeps one below the other.
fn unreachable(error: &(dyn std::error::Error + 'static)) -> ServiceFailure {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let said: Vec<String> = causes.take(CAUSES_MAX).map(ToString::to_string).collect();
    ServiceFailure::Unreachable(said.join(": "))
}
