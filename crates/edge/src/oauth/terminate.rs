//! A resource of our own: access tokens are verified here and not forwarded.
//!
//! We are the protected resource (RFC 9728). A token that a configured issuer made for us names the
//! principal of the request. The server behind us gets a credential of ours and never sees a
//! client's token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bartizan_jose::Algorithm;
use bytes::Bytes;

use super::PublicUrl;
use super::keys::Keys;
use super::token::{BadToken, Unverified, Verified};
use bartizan_gate::evidence::record::Now;
use bartizan_gate::question::access::Principal;
use bartizan_gate::wire::document::{Kind, Value, write_string};

/// Longest claim that names a principal or a group, bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Most groups of one principal.
pub const GROUPS_MAX: usize = 256;
/// Longest claim that policy gets, bytes.
pub const CLAIM_BYTES_MAX: usize = 4096;

/// Claims that policy gets whenever a token has them.
const CLAIMS: [&str; 3] = ["iss", "client_id", "scope"];

/// One issuer of tokens.
#[derive(Debug)]
pub struct Issuer {
    /// Its identifier: compared byte by byte with `iss`, and published in our metadata.
    pub name: Box<str>,
    /// Accepted values of `aud`; a token must have one of them.
    pub audiences: Vec<Box<str>>,
    /// The algorithms it may sign with, a subset of [`ALGORITHMS`](super::token::ALGORITHMS).
    pub algorithms: Vec<Algorithm>,
    /// Its keys.
    pub keys: Keys,
}

/// How the claims of a token become a principal.
#[derive(Debug)]
pub struct Naming {
    /// The claim that holds the principal's id: a name, or a JSON pointer (RFC 6901).
    pub id: Box<str>,
    /// Whether the principal's id contains the issuer. Needed with several issuers, whose subjects
    /// may be equal.
    pub qualified: bool,
    /// The `kind` of every principal.
    pub kind: Box<str>,
    /// The claim that holds groups.
    pub groups: Option<Box<str>>,
    /// Further claims that policy gets.
    pub claims: Vec<Box<str>>,
}

/// A resource of our own.
#[derive(Debug)]
pub struct Terminate {
    public: PublicUrl,
    issuers: Vec<Issuer>,
    /// Scopes that each token must grant.
    scopes: Vec<Box<str>>,
    naming: Naming,
}

/// The caller that a verified token names.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// The principal.
    pub principal: Arc<Principal>,
    /// How long the token is still valid, clock leeway included.
    pub left: Duration,
}

/// Why a token is not accepted.
#[derive(Debug)]
pub enum TokenRefusal {
    /// It is not valid here.
    Bad(BadToken),
    /// It is valid but does not grant all required scopes; the principal that it names.
    Scope(Arc<Principal>),
    /// It cannot be verified: its issuer's keys, or the time, are not available.
    Unchecked,
}

impl From<BadToken> for TokenRefusal {
    fn from(bad: BadToken) -> Self {
        Self::Bad(bad)
    }
}

impl Terminate {
    /// A resource at `public` that accepts tokens of `issuers` granting all of `scopes`.
    pub fn new(
        public: PublicUrl,
        issuers: Vec<Issuer>,
        scopes: Vec<Box<str>>,
        naming: Naming,
    ) -> Self {
        Self { public, issuers, scopes, naming }
    }

    /// The URL that clients connect to.
    pub fn public(&self) -> &PublicUrl {
        &self.public
    }

    /// Its metadata (RFC 9728 §2).
    pub fn metadata(&self) -> Bytes {
        let mut out = b"{\"resource\":".to_vec();
        write_string(&mut out, self.public.as_str());
        let issuers = self.issuers.iter().map(|issuer| &*issuer.name);
        write_list(&mut out, "authorization_servers", issuers);
        if !self.scopes.is_empty() {
            write_list(&mut out, "scopes_supported", self.scopes.iter().map(|scope| &**scope));
        }
        write_list(&mut out, "bearer_methods_supported", ["header"].into_iter());
        out.push(b'}');
        out.into()
    }

    /// The value of `WWW-Authenticate` (RFC 6750 §3, RFC 9728 §5.1); `error` is given if the
    /// request had a token.
    pub fn challenge(&self, error: Option<&str>) -> String {
        let mut parts = Vec::new();
        parts.extend(error.map(|error| format!("error=\"{error}\"")));
        if !self.scopes.is_empty() {
            parts.push(format!("scope=\"{}\"", self.scopes.join(" ")));
        }
        parts.push(format!("resource_metadata=\"{}\"", self.public.metadata_url()));
        format!("Bearer {}", parts.join(", "))
    }

    /// Verifies `token` at `now` and returns its principal. Fails if it is not valid, lacks a
    /// scope, or cannot be verified now.
    pub async fn admit(&self, token: &str, now: Now) -> Result<Bearer, TokenRefusal> {
        let token = Unverified::read(token)?;
        let issuer = self.issuers.iter().find(|issuer| token.issuer() == Some(&issuer.name));
        let issuer = issuer.ok_or(BadToken::Issuer)?;
        let algorithm = token.algorithm;
        if !issuer.algorithms.contains(&algorithm) {
            return Err(BadToken::Algorithm.into());
        }
        let id = token.key().map(str::to_owned);
        let keys =
            issuer.keys.with(|keys| keys.find(id.as_deref(), algorithm).is_some(), now.uptime);
        let keys = keys.await.ok_or(TokenRefusal::Unchecked)?;
        let key = keys.find(id.as_deref(), algorithm).ok_or(BadToken::Key)?;
        let now = now.wall.duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_err(|_| TokenRefusal::Unchecked)?;
        let token = token.verify(key, &issuer.audiences, now)?;
        let principal = Arc::new(self.naming.principal(&issuer.name, &token)?);
        if !self.scopes.iter().all(|scope| token.grants(scope)) {
            return Err(TokenRefusal::Scope(principal));
        }
        Ok(Bearer { principal, left: token.until.saturating_sub(now) })
    }
}

impl Naming {
    /// The principal that `token` of `issuer` names. Fails if a configured claim cannot be given to
    /// policy: a rule that would deny because of it must see it.
    fn principal(&self, issuer: &str, token: &Verified) -> Result<Principal, BadToken> {
        let subject = token.claim(&self.id).and_then(Value::as_str).filter(|name| is_name(name));
        let subject = subject.ok_or(BadToken::Principal)?;
        // An issuer identifier has no fragment (RFC 8414 §2), so the first `#` ends it.
        let id = if self.qualified { format!("{issuer}#{subject}") } else { subject.to_owned() };
        let groups = self.groups.as_ref().and_then(|name| token.claim(name));
        let groups = groups.map_or(Some(Vec::new()), names).ok_or(BadToken::Claim)?;
        let mut claims = BTreeMap::new();
        for name in CLAIMS.into_iter().chain(self.claims.iter().map(|name| &**name)) {
            let Some(claim) = token.claim(name) else { continue };
            let text = claim_text(claim).filter(|text| text.len() <= CLAIM_BYTES_MAX);
            claims.insert(name.into(), text.ok_or(BadToken::Claim)?);
        }
        Ok(Principal { id: id.into(), kind: self.kind.clone(), groups, claims })
    }
}

/// Whether `text` can be used as a name in rules, records and on a terminal.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.contains(char::is_control)
}

/// The groups in `claim`, a string or an array of strings; `None` for anything else.
fn names(claim: Value<'_>) -> Option<Vec<Box<str>>> {
    let names: Option<Vec<&str>> = match claim.kind() {
        Kind::String => Some(vec![claim.as_str()?]),
        Kind::Array => claim.elements().map(Value::as_str).collect(),
        Kind::Null | Kind::Bool | Kind::Number | Kind::Object => None,
    };
    let names = names.filter(|names| names.len() <= GROUPS_MAX)?;
    names.iter().all(|name| is_name(name)).then(|| names.into_iter().map(Box::from).collect())
}

/// The text of a claim for policy: a string, number or boolean as it is, an array of strings joined
/// by spaces; `None` for anything else.
fn claim_text(claim: Value<'_>) -> Option<Box<str>> {
    match claim.kind() {
        Kind::String => claim.as_str().map(Box::from),
        Kind::Number => claim.as_number().map(Box::from),
        Kind::Bool => Some(claim.as_bool()?.to_string().into()),
        Kind::Array => {
            let texts: Option<Vec<&str>> = claim.elements().map(Value::as_str).collect();
            Some(texts?.join(" ").into())
        }
        Kind::Null | Kind::Object => None,
    }
}

fn write_list<'a>(out: &mut Vec<u8>, name: &str, texts: impl Iterator<Item = &'a str>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":[");
    for (index, text) in texts.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, text);
    }
    out.push(b']');
}
