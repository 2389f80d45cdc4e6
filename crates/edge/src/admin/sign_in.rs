//! Signing in at an issuer: OpenID Connect, authorization code flow with PKCE.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /console/options` | How one can sign in. |
//! | `GET /console/sign-in`, with `?hold=` and the id of a held call | Sends the browser to the issuer, with a cookie that binds the answer to it ([`attempts`]). |
//! | `GET /console/callback` | Takes the issuer's answer ([`provider`], [`exchanges`], [`id_token`]), opens a session ([`sessions`]), and sends the browser to the page. |
//! | `GET /console/session` | Who is signed in. |
//! | `POST /console/sign-out` | Ends the session. |
//!
//! A session is worth something only with its cookie and with its key, which the page gets after the
//! `#` of its address, where no server and no referrer sees it, and sends in a header of its own: no
//! other page can send that header, because that needs a permission (CORS) that is never given. What
//! changes something needs the `Origin` of this page as well (threat I32). [`super::api`] asks who it is,
//! here.

mod attempts;
mod exchanges;
mod id_token;
mod provider;
mod sessions;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::header::{ORIGIN, SET_COOKIE};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use serde::Serialize;

use self::attempts::{Attempts, Known};
use self::exchanges::{ExchangeLimit, Visitor};
use self::id_token::{BadIdToken, Expected, IdToken};
use self::provider::{Metadata, Provider, Unexchanged};
use self::sessions::Sessions;
use super::approvers::Caller;
use super::message::{self, cookie, encoded, field, one};
use super::reply::{self, Body};
use crate::oauth::PublicUrl;
use bartizan_gate::evidence::record::Now;
use bartizan_gate::session::DoorRefusal;
use bartizan_outbound::SetUpError;

pub(super) use self::attempts::Attempt;
pub use self::attempts::LIFE;
pub use self::id_token::People;
pub use self::provider::ClientConfig;
pub use self::sessions::{SESSIONS_MAX, SESSIONS_OF_ONE_MAX};

/// The header with the key of a session.
const KEY: HeaderName = HeaderName::from_static("x-bartizan-session");

/// How approvers sign in.
#[derive(Debug, Clone)]
pub struct SignInConfig {
    /// Where the issuer is, and who we are to it.
    pub client: ClientConfig,
    /// What the page calls it.
    pub name: Box<str>,
    /// The URL at which people reach the operators' listener.
    pub public_url: PublicUrl,
    /// Scopes that are asked for beside `openid`.
    pub scopes: Vec<Box<str>>,
    /// How claims become an approver.
    pub people: People,
    /// How long a session may be unused.
    pub idle: Duration,
    /// How long one lasts at most.
    pub lifetime: Duration,
}

/// Why sign-in cannot be set up.
#[derive(Debug)]
pub enum NoSignIn {
    /// The issuer's address or the certificates cannot be used.
    SetUp(SetUpError),
    /// The system gives no random bits.
    Random(getrandom::Error),
}

impl fmt::Display for NoSignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetUp(error) => error.fmt(f),
            Self::Random(error) => write!(f, "the system gives no random bits: {error}"),
        }
    }
}

impl std::error::Error for NoSignIn {}

/// Signing in at one issuer.
#[derive(Debug)]
pub struct SignIn {
    config: SignInConfig,
    /// `Origin` of our page.
    origin: Box<str>,
    cookies: Cookies,
    provider: Arc<Provider>,
    attempts: Attempts,
    exchanges: ExchangeLimit,
    sessions: Sessions,
}

/// Names and attributes of our cookies.
#[derive(Debug, Clone, Copy)]
struct Cookies {
    session: &'static str,
    attempt: &'static str,
    /// Of a browser in which somebody has signed in.
    known: &'static str,
    secure: &'static str,
}

/// A browser keeps these from everybody but this host over TLS (RFC 6265bis §4.1.3.2).
const OVER_TLS: Cookies = Cookies {
    session: "__Host-bartizan-session",
    attempt: "__Host-bartizan-sign-in",
    known: "__Host-bartizan-known",
    secure: "; Secure",
};
/// On loopback alone. Other ports of this host see them, and a session needs its key, too.
const PLAIN: Cookies = Cookies {
    session: "bartizan-session",
    attempt: "bartizan-sign-in",
    known: "bartizan-known",
    secure: "",
};

/// How long a browser remembers that somebody has signed in there; this program, until it ends.
const KNOWN_FOR: Duration = Duration::from_hours(30 * 24);

/// What the page offers.
#[derive(Debug, Serialize)]
pub(super) struct Offer<'a> {
    /// The name of the issuer.
    name: &'a str,
    /// Where a sign-in begins.
    url: String,
}

/// Why nobody is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The issuer's metadata or keys cannot be had, or it does not answer.
    Unavailable,
    /// This browser did not begin it, or long ago.
    NotBegun,
    /// `state` is not that of this browser.
    State,
    /// Too many codes come from there, or in total.
    TooMany,
    /// The answer is of another issuer (RFC 9207 §2.4).
    Issuer,
    /// The answer cannot be read.
    Malformed,
    /// The person or the issuer said no.
    Denied,
    /// The issuer does not take the code, or gives no ID token for it.
    Code,
    /// It succeeded before.
    Repeated,
    /// The ID token is not good.
    Token(BadIdToken),
}

impl Trouble {
    /// For the page, which has a text for each.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::NotBegun => "not-begun",
            Self::TooMany => "too-many",
            Self::Denied => "denied",
            Self::Token(BadIdToken::NoGroup) => "no-group",
            Self::State
            | Self::Issuer
            | Self::Malformed
            | Self::Code
            | Self::Repeated
            | Self::Token(_) => "refused",
        }
    }

    /// For the journal.
    pub(super) fn note(self) -> &'static str {
        match self {
            Self::Unavailable => "the issuer cannot be used now",
            Self::NotBegun => "this browser did not begin it, or long ago",
            Self::State => "it was begun in another browser: `state` differs",
            Self::TooMany => "too many codes in a minute; the issuer was not asked",
            Self::Issuer => "the answer is of another issuer",
            Self::Malformed => "the answer of the issuer cannot be read",
            Self::Denied => "the issuer said no",
            Self::Code => "the issuer gave no ID token for the code",
            Self::Repeated => "it succeeded before",
            Self::Token(bad) => bad.as_str(),
        }
    }

    pub(super) fn refusal(self) -> DoorRefusal {
        match self {
            Self::Unavailable => DoorRefusal::NoKeys,
            Self::NotBegun | Self::Denied => DoorRefusal::NoToken,
            Self::TooMany => DoorRefusal::TooMany,
            Self::State
            | Self::Issuer
            | Self::Malformed
            | Self::Code
            | Self::Repeated
            | Self::Token(_) => DoorRefusal::BadToken,
        }
    }
}

impl From<BadIdToken> for Trouble {
    fn from(bad: BadIdToken) -> Self {
        Self::Token(bad)
    }
}

/// Why a request has no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSession {
    /// It would change something, and does not come from our page.
    Origin,
    /// Cookie and key are those of no session, or it is over.
    Unknown,
}

impl SignIn {
    /// Nothing is fetched yet.
    ///
    /// # Errors
    ///
    /// See [`NoSignIn`].
    pub fn new(config: SignInConfig) -> Result<Self, NoSignIn> {
        let https = config.public_url.origin().starts_with("https://");
        let provider = Provider::new(config.client.clone()).map_err(NoSignIn::SetUp)?;
        Ok(Self {
            origin: origin(&config.public_url).into(),
            cookies: if https { OVER_TLS } else { PLAIN },
            provider: Arc::new(provider),
            attempts: Attempts::new().map_err(NoSignIn::Random)?,
            exchanges: ExchangeLimit::default(),
            sessions: Sessions::new(config.idle, config.lifetime),
            config,
        })
    }

    /// What the page offers.
    pub(super) fn offer(&self) -> Offer<'_> {
        Offer { name: &self.config.name, url: self.url("/console/sign-in") }
    }

    /// Sends the browser to the issuer at `now` (uptime), for the held call that `query` names.
    pub(super) async fn begin(
        &self,
        query: &str,
        now: Duration,
    ) -> Result<Response<Body>, Trouble> {
        let metadata = self.provider.metadata(now).await.ok_or(Trouble::Unavailable)?;
        let hold = field(query, "hold").ok().flatten();
        let attempt = Attempt::begin(now, hold.as_deref()).map_err(|_| Trouble::Unavailable)?;
        let to = self.request(&metadata, &attempt);
        let to = HeaderValue::try_from(to).map_err(|_| Trouble::Unavailable)?;
        let mut response = reply::see_other(to);
        let Cookies { attempt: name, secure, .. } = self.cookies;
        let value = self.attempts.cookie(&attempt);
        // `Lax`, because the answer of the issuer comes by way of another site.
        let cookie = format!(
            "{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={}{secure}",
            LIFE.as_secs()
        );
        set(&mut response, &cookie);
        Ok(response)
    }

    /// The address of the request to the issuer (OpenID Connect Core §3.1.2.1, RFC 7636 §4.3).
    fn request(&self, metadata: &Metadata, attempt: &Attempt) -> String {
        let scopes: Vec<&str> =
            std::iter::once("openid").chain(self.config.scopes.iter().map(|it| &**it)).collect();
        let fields = message::form(&[
            ("response_type", "code"),
            ("client_id", &self.provider.client().client_id),
            ("redirect_uri", &self.redirect_uri()),
            ("scope", &scopes.join(" ")),
            ("state", &self.attempts.state(attempt)),
            ("nonce", &self.attempts.nonce(attempt)),
            ("code_challenge", &self.attempts.challenge(attempt)),
            ("code_challenge_method", "S256"),
        ]);
        // A query that is there stays (RFC 6749 §3.1).
        let joint = if metadata.authorization.query().is_some() { '&' } else { '?' };
        format!("{}{joint}{fields}", metadata.authorization)
    }

    /// Takes the answer of the issuer, which `visitor` brings at `now` with `query`.
    ///
    /// # Errors
    ///
    /// Why nobody is signed in.
    pub(super) async fn finish(
        &self,
        attempt: &Attempt,
        query: &str,
        visitor: Visitor,
        now: Now,
    ) -> Result<Response<Body>, Trouble> {
        let field = |name: &str| field(query, name).map_err(|()| Trouble::Malformed);
        let metadata = self.provider.metadata(now.uptime).await.ok_or(Trouble::Unavailable)?;
        let issuer = &*self.provider.client().issuer;
        let named = field("iss")?;
        if named.as_deref().map_or(metadata.names_itself, |named| named != issuer) {
            return Err(Trouble::Issuer);
        }
        if field("error")?.is_some() {
            return Err(Trouble::Denied);
        }
        let code = field("code")?.filter(|code| !code.is_empty()).ok_or(Trouble::Malformed)?;
        if !self.exchanges.allows(visitor, now.uptime) {
            return Err(Trouble::TooMany);
        }
        let caller = self.identify(&metadata, attempt, &code, now).await?;
        if !self.attempts.succeed(attempt, now.uptime) {
            return Err(Trouble::Repeated);
        }
        tracing::info!(approver = %caller.approver.id, "an approver signed in");
        let opened = self.sessions.open(Arc::new(caller), now.uptime);
        let opened = opened.map_err(|_| Trouble::Unavailable)?;
        let browser = Known::new().map_err(|_| Trouble::Unavailable)?;
        let told = format!("signed-in={}", encoded(&opened.key));
        let mut response = self.to_page(&told, Some(attempt));
        let Cookies { session, attempt, known, secure } = self.cookies;
        let id = &opened.id;
        set(&mut response, &format!("{session}={id}; Path=/; HttpOnly; SameSite=Strict{secure}"));
        set(
            &mut response,
            &format!("{attempt}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0{secure}"),
        );
        let value = self.attempts.known_cookie(browser);
        let age = KNOWN_FOR.as_secs();
        set(
            &mut response,
            &format!("{known}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}"),
        );
        Ok(response)
    }

    /// Where a request of `peer` with `headers` comes from.
    pub(super) fn visitor(&self, headers: &HeaderMap, peer: IpAddr) -> Visitor {
        let known = cookie(headers, self.cookies.known);
        Visitor { peer, known: known.and_then(|cookie| self.attempts.read_known(cookie)) }
    }

    /// The sign-in that the browser with `headers` began, if `query` is an answer to it.
    ///
    /// # Errors
    ///
    /// There is none, or `state` is of another one.
    pub(super) fn attempt(
        &self,
        headers: &HeaderMap,
        query: &str,
        now: Duration,
    ) -> Result<Attempt, Trouble> {
        let cookie = cookie(headers, self.cookies.attempt).ok_or(Trouble::NotBegun)?;
        let attempt = self.attempts.read(cookie, now).ok_or(Trouble::NotBegun)?;
        let state = field(query, "state").map_err(|()| Trouble::Malformed)?;
        let same = state.is_some_and(|state| self.attempts.is_state(&attempt, &state));
        if same { Ok(attempt) } else { Err(Trouble::State) }
    }

    /// Whom the issuer names for `code`.
    async fn identify(
        &self,
        metadata: &Arc<Metadata>,
        attempt: &Attempt,
        code: &str,
        now: Now,
    ) -> Result<Caller, Trouble> {
        let (redirect_uri, verifier) = (self.redirect_uri(), self.attempts.verifier(attempt));
        let exchanged = self.provider.exchange(metadata, code, &redirect_uri, &verifier).await;
        let token = exchanged.map_err(|why| match why {
            Unexchanged::Failed => Trouble::Unavailable,
            Unexchanged::Refused | Unexchanged::NoToken => Trouble::Code,
        })?;
        let token = IdToken::read(&token)?;
        let keys = metadata.keys.with(|keys| token.has_key(keys), now.uptime).await;
        let keys = keys.ok_or(Trouble::Unavailable)?;
        let since_epoch = now.wall.duration_since(SystemTime::UNIX_EPOCH);
        let client = self.provider.client();
        let expected = Expected {
            issuer: &client.issuer,
            client_id: &client.client_id,
            now: since_epoch.map_err(|_| Trouble::Unavailable)?,
        };
        let is_nonce = |nonce: &str| self.attempts.is_nonce(attempt, nonce);
        let claims = token.verify(&keys, expected, is_nonce)?;
        Ok(claims.caller(&self.config.people, &client.issuer)?)
    }

    /// Sends the browser to the page, which tells of `trouble` with `attempt`, if there is one.
    pub(super) fn failed(&self, trouble: Trouble, attempt: Option<&Attempt>) -> Response<Body> {
        self.to_page(&format!("failed={}", trouble.code()), attempt)
    }

    /// Whether a request says that it is of a session.
    pub(super) fn is_meant(headers: &HeaderMap) -> bool {
        headers.contains_key(&KEY)
    }

    /// Who is signed in where a request with `method` and `headers` comes from.
    ///
    /// # Errors
    ///
    /// Nobody is.
    pub(super) fn caller(
        &self,
        method: &Method,
        headers: &HeaderMap,
        now: Duration,
    ) -> Result<Arc<Caller>, NoSession> {
        // Browsers send `Origin` with each request that is no GET or HEAD.
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let origin = one(headers, &ORIGIN).map_err(|()| NoSession::Origin)?;
        let ours = |origin: &HeaderValue| origin.as_bytes() == self.origin.as_bytes();
        if !origin.map_or(reads, ours) {
            return Err(NoSession::Origin);
        }
        let key = one(headers, &KEY).map_err(|()| NoSession::Unknown)?;
        let key = key.and_then(|key| key.to_str().ok()).ok_or(NoSession::Unknown)?;
        let id = cookie(headers, self.cookies.session).ok_or(NoSession::Unknown)?;
        self.sessions.find(id, key, now).ok_or(NoSession::Unknown)
    }

    /// Ends the session whose cookie is among `headers`, and takes the cookie away.
    pub(super) fn sign_out(&self, headers: &HeaderMap) -> Response<Body> {
        let Cookies { session, secure, .. } = self.cookies;
        if let Some(id) = cookie(headers, session) {
            self.sessions.close(id);
        }
        let mut response = reply::of(&SignedOut { signed_out: true });
        let gone = format!("{session}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{secure}");
        set(&mut response, &gone);
        response
    }

    /// Sends the browser to the page, which is `told` what has come of `attempt`.
    fn to_page(&self, told: &str, attempt: Option<&Attempt>) -> Response<Body> {
        let hold = attempt.and_then(Attempt::hold);
        let hold = hold.map_or_else(String::new, |id| format!("&hold={id}"));
        let to = self.url(&format!("/console#{told}{hold}"));
        // All of it is visible ASCII.
        reply::see_other(HeaderValue::try_from(to).unwrap_or(HeaderValue::from_static("/console")))
    }

    /// Where the issuer sends the browser back to: exactly what is registered there.
    fn redirect_uri(&self) -> String {
        self.url("/console/callback")
    }

    fn url(&self, path: &str) -> String {
        let public = &self.config.public_url;
        format!("{}{}{path}", public.origin(), public.path())
    }
}

#[derive(Debug, Serialize)]
struct SignedOut {
    signed_out: bool,
}

/// The origin of `url` as browsers write it (RFC 6454 §6.1).
fn origin(url: &PublicUrl) -> String {
    let origin = url.origin().to_ascii_lowercase();
    let usual = if origin.starts_with("https://") { ":443" } else { ":80" };
    origin.strip_suffix(usual).map_or_else(|| origin.clone(), str::to_owned)
}

fn set(response: &mut Response<Body>, cookie: &str) {
    // All of it is visible ASCII.
    if let Ok(mut value) = HeaderValue::from_str(cookie) {
        value.set_sensitive(true);
        response.headers_mut().append(SET_COOKIE, value);
    }
}
