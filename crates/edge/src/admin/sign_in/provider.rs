//! The issuer: its metadata (OpenID Connect Discovery 1.0), its keys, and its token endpoint.
//!
//! Everything is fetched when a sign-in needs it, so an issuer that is down delays no start. The
//! metadata comes from the configured address alone, over TLS except on loopback, and what it names is
//! held to the same. Redirects are not followed.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::admin::message::{encoded, form};
use crate::oauth::challenge::is_loopback;
use crate::oauth::keys::{KeySource, Keys};
use bartizan_gate::wire::document::{Document, DocumentLimits, Kind, Value};
use bartizan_outbound::SetUpError;
use bartizan_outbound::address::Address;
use bartizan_outbound::service::{Credentials, Service, ServiceCall, ServiceConfig};
use bartizan_sync::lock;

/// How long metadata are used without fetching them again.
const FRESH: Duration = Duration::from_mins(15);
/// How long they are used while fetching fails.
const STALE_MAX: Duration = Duration::from_hours(24);
/// Shortest time between two fetches of them.
const PAUSE: Duration = Duration::from_secs(2);
/// Timeout of one call to the issuer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Size of an answer of the issuer, bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Below the issuer's address (OpenID Connect Discovery §4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

const LIMITS: DocumentLimits = DocumentLimits {
    bytes_max: ANSWER_BYTES_MAX,
    depth_max: 16,
    number_chars_max: 64,
    values_max: 8192,
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// Who we are to an issuer.
#[derive(Clone)]
pub struct ClientConfig {
    /// The issuer's identifier, which is an address.
    pub issuer: Box<str>,
    /// Our id there.
    pub client_id: Box<str>,
    /// Our secret; without one we are a public client, which PKCE alone protects.
    pub client_secret: Option<Box<str>>,
    /// Root certificates to trust in place of the system's, PEM.
    pub ca_pem: Option<Vec<u8>>,
}

// By hand, because the secret is one.
impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Codes that are exchanged at once at most; further ones wait.
const EXCHANGES_MAX: usize = 4;

/// An issuer as we know it.
#[derive(Debug)]
pub(super) struct Provider {
    config: ClientConfig,
    service: Service,
    cached: Mutex<Cached>,
    /// One permit, held by the task that fetches.
    fetching: Arc<Semaphore>,
    /// A place for each code that is being exchanged.
    exchanging: Arc<Semaphore>,
    /// Where requests to the issuer run, if not on the listener's own runtime: a resolver of names that
    /// hangs takes threads that approvers with a token need there.
    runtime: Option<Handle>,
}

#[derive(Debug, Default)]
struct Cached {
    metadata: Option<Arc<Metadata>>,
    /// When they were fetched, and when that was last tried, as uptime.
    since: Duration,
    attempted: Option<Duration>,
}

/// How we authenticate at the token endpoint (OpenID Connect Core §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authentication {
    Public,
    Basic,
    Post,
}

/// What an issuer says of itself.
#[derive(Debug)]
pub(super) struct Metadata {
    /// Where browsers are sent.
    pub(super) authorization: Uri,
    /// Whether its answers name it (RFC 9207 §3).
    pub(super) names_itself: bool,
    token: Service,
    authentication: Authentication,
    keys_at: Uri,
    /// Its keys.
    pub(super) keys: Arc<Keys>,
}

impl Provider {
    /// An issuer, of which nothing is fetched yet.
    ///
    /// # Errors
    ///
    /// Its address or the certificates cannot be used.
    pub(super) fn new(config: ClientConfig) -> Result<Self, SetUpError> {
        let service = service(Address::parse(&config.issuer)?, &config)?;
        Ok(Self {
            config,
            service,
            cached: Mutex::default(),
            fetching: Arc::new(Semaphore::new(1)),
            exchanging: Arc::new(Semaphore::new(EXCHANGES_MAX)),
            runtime: Handle::try_current().ok(),
        })
    }

    /// Who we are to it.
    pub(super) fn client(&self) -> &ClientConfig {
        &self.config
    }

    /// What it says of itself at `now` (uptime), fetched if what is known is not fresh. `None` if
    /// nothing can be had; the log says why.
    pub(super) async fn metadata(self: &Arc<Self>, now: Duration) -> Option<Arc<Metadata>> {
        if let Some(found) = self.found(now, FRESH) {
            return Some(found);
        }
        let permit = Arc::clone(&self.fetching).acquire_owned().await.ok()?;
        let attempted = lock(&self.cached).attempted;
        if self.found(now, FRESH).is_none()
            && attempted.is_none_or(|attempted| now.saturating_sub(attempted) >= PAUSE)
        {
            lock(&self.cached).attempted = Some(now);
            // A task of its own: who asked may go, and would take the attempt of all others along.
            let this = Arc::clone(self);
            let fetched = self.spawn(async move {
                this.renew(now).await;
                drop(permit);
            });
            drop(fetched.await);
        }
        self.found(now, STALE_MAX)
    }

    fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        // Nothing is kept by such a task: a shutdown may end it at any time.
        self.runtime.clone().unwrap_or_else(Handle::current).spawn(task)
    }

    /// Fetches what it says of itself.
    async fn renew(&self, now: Duration) {
        match self.fetch(now).await {
            Ok(metadata) => {
                let mut cached = lock(&self.cached);
                cached.metadata = Some(Arc::new(metadata));
                cached.since = now;
            }
            Err(why) => {
                let issuer = &self.config.issuer;
                tracing::warn!(%issuer, %why, "the issuer of sign-ins cannot be used");
            }
        }
    }

    fn found(&self, now: Duration, age_max: Duration) -> Option<Arc<Metadata>> {
        let cached = lock(&self.cached);
        let metadata = cached.metadata.as_ref()?;
        (now.saturating_sub(cached.since) < age_max).then(|| Arc::clone(metadata))
    }

    async fn fetch(&self, now: Duration) -> Result<Metadata, String> {
        let call = call(Method::GET, self.service.target_below(WELL_KNOWN), Bytes::new());
        let (status, document) = asked(&self.service, call).await?;
        if status != StatusCode::OK {
            return Err(format!("its metadata: status {}", status.as_u16()));
        }
        let said = document.root();
        let text = |name: &str| said.get(name).and_then(Value::as_str);
        if text("issuer") != Some(&self.config.issuer) {
            return Err("its metadata are of another issuer than the configured one".to_owned());
        }
        let lists = |name: &str, wanted: &str| {
            said.get(name).map(|list| list.elements().any(|it| it.as_str() == Some(wanted)))
        };
        if lists("code_challenge_methods_supported", "S256") == Some(false) {
            return Err("it does not support PKCE with S256".to_owned());
        }
        if lists("response_types_supported", "code") == Some(false) {
            return Err("it does not support the authorization code flow".to_owned());
        }
        let methods = "token_endpoint_auth_methods_supported";
        let authentication = match self.config.client_secret {
            None => Authentication::Public,
            // The default is Basic (OpenID Connect Discovery §3).
            Some(_) if lists(methods, "client_secret_basic") != Some(false) => {
                Authentication::Basic
            }
            Some(_) if lists(methods, "client_secret_post") == Some(true) => Authentication::Post,
            Some(_) => return Err("it takes no client secret".to_owned()),
        };
        let address = |name: &str| {
            let found = text(name).ok_or_else(|| format!("its metadata have no `{name}`"))?;
            self.address(found).map_err(|why| format!("`{name}` of its metadata {why}"))
        };
        let token = service(address("token_endpoint")?, &self.config);
        let keys_at = address("jwks_uri")?;
        Ok(Metadata {
            authorization: address("authorization_endpoint")?.url().clone(),
            names_itself: said
                .get("authorization_response_iss_parameter_supported")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            token: token.map_err(|error| error.to_string())?,
            authentication,
            keys_at: keys_at.url().clone(),
            keys: self.keys(keys_at, now)?,
        })
    }

    /// The keys at `address`; those that are known, if it is still the same one.
    fn keys(&self, address: Address, now: Duration) -> Result<Arc<Keys>, String> {
        let known = lock(&self.cached).metadata.clone();
        let same = known.filter(|known| known.keys_at == *address.url());
        if let Some(known) = same {
            return Ok(Arc::clone(&known.keys));
        }
        let service = service(address, &self.config).map_err(|error| error.to_string())?;
        let source = KeySource::Address(Box::new(service));
        Keys::new(&self.config.issuer, source, now).map(Arc::new)
    }

    /// An address that the metadata name: https, or http where the issuer itself is on loopback.
    fn address(&self, text: &str) -> Result<Address, String> {
        let address = Address::parse(text).map_err(|error| format!("is no address: {error}"))?;
        let own = self.service.url().scheme_str();
        let named = address.url();
        let protected = named.scheme_str() == Some("https")
            || own == Some("http") && named.host().is_some_and(is_loopback);
        if protected && !text.contains('#') {
            Ok(address)
        } else {
            Err("is not https, or has a fragment".to_owned())
        }
    }

    /// Exchanges `code` for an ID token (RFC 6749 §4.1.3, RFC 7636 §4.5).
    ///
    /// # Errors
    ///
    /// Why there is none, without any part of a code, token or secret.
    pub(super) async fn exchange(
        &self,
        metadata: &Arc<Metadata>,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<Box<str>, Unexchanged> {
        let ClientConfig { client_id, client_secret, .. } = &self.config;
        let secret = client_secret.as_deref().unwrap_or_default();
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, FORM), (ACCEPT, JSON)]);
        match metadata.authentication {
            Authentication::Public => fields.push(("client_id", client_id)),
            Authentication::Post => {
                fields.extend([("client_id", &**client_id), ("client_secret", secret)]);
            }
            Authentication::Basic => {
                // Both are encoded as in a form (RFC 6749 §2.3.1).
                let pair = format!("{}:{}", encoded(client_id), encoded(secret));
                let value = format!("Basic {}", STANDARD.encode(pair));
                let mut value = HeaderValue::try_from(value).map_err(|_| Unexchanged::Failed)?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
        }
        let target = metadata.token.target();
        let call = ServiceCall { headers, ..call(Method::POST, target, form(&fields).into()) };
        let place = Arc::clone(&self.exchanging).acquire_owned().await;
        let place = place.map_err(|_| Unexchanged::Failed)?;
        let at = Arc::clone(metadata);
        let exchanged = self.spawn(async move {
            let answer = asked(&at.token, call).await;
            drop(place);
            answer
        });
        let answer = exchanged.await.unwrap_or_else(|stopped| Err(stopped.to_string()));
        let (status, document) = answer.map_err(|why| {
            let issuer = &self.config.issuer;
            tracing::warn!(%issuer, %why, "the issuer of sign-ins did not exchange a code");
            Unexchanged::Failed
        })?;
        if status.is_client_error() {
            tracing::info!(status = status.as_u16(), "the issuer of sign-ins refuses a code");
            return Err(Unexchanged::Refused);
        }
        let token = document.root().get("id_token").and_then(Value::as_str);
        token.filter(|_| status == StatusCode::OK).map(Box::from).ok_or(Unexchanged::NoToken)
    }
}

/// Why there is no ID token for a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unexchanged {
    /// The issuer cannot be reached, or its answer not be read.
    Failed,
    /// The issuer does not take the code, or us: status 4xx.
    Refused,
    /// Its answer has none.
    NoToken,
}

fn service(address: Address, config: &ClientConfig) -> Result<Service, SetUpError> {
    let ca_pem = config.ca_pem.clone();
    let credentials = Credentials::None;
    Service::new(ServiceConfig { address, ca_pem, credentials, timeout: TIMEOUT })
}

fn call(method: Method, target: PathAndQuery, body: Bytes) -> ServiceCall {
    ServiceCall {
        method,
        target,
        headers: HeaderMap::from_iter([(ACCEPT, JSON)]),
        body,
        wait: Duration::ZERO,
        bytes_max: ANSWER_BYTES_MAX,
    }
}

/// The status and the JSON object that `service` answers with.
async fn asked(service: &Service, call: ServiceCall) -> Result<(StatusCode, Document), String> {
    let answer = service.call(call).await.map_err(|failure| failure.to_string())?;
    let document = Document::read(answer.body, &LIMITS);
    let document = document.ok().filter(|it| it.root().kind() == Kind::Object);
    let status = answer.status;
    document.map(|it| (status, it)).ok_or_else(|| {
        format!("its answer, of status {}, is no strict JSON object", status.as_u16())
    })
}
