//! Reads and verifies one access token: a signed JWT (RFC 7519, RFC 9068) that was issued for us.
//!
//! Pure: token, keys and time in. `bartizan_jose` verifies the signature; the claims are checked
//! here afterwards. Before the signature is verified, the header and `iss` are used only to choose
//! a key among those that the configuration allows (RFC 8725 §3.10).

use std::time::Duration;

use bartizan_jose::{Algorithm, Jws, Key, Malformed, NotVerified};
use bytes::Bytes;

use bartizan_gate::wire::document::{Document, DocumentLimits, Kind, Value};

/// Longest token, bytes.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Allowed difference between the issuer's clock and ours.
pub const LEEWAY: Duration = Duration::from_mins(1);

/// Signature algorithms that are accepted, unless the configuration allows fewer. None uses a
/// shared secret: whoever can verify such a token can also make one.
pub const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

/// Limits of a token's claims.
const CLAIMS: DocumentLimits = DocumentLimits {
    bytes_max: TOKEN_BYTES_MAX,
    depth_max: 16,
    number_chars_max: 64,
    values_max: 4096,
};

/// Accepted values of `typ`, which exclude other kinds of JWT (RFC 9068 §2.1, RFC 8725 §3.11). Many
/// issuers send the plain one, or none.
const TYPES: [&str; 4] = ["at+jwt", "application/at+jwt", "jwt", "application/jwt"];

/// Why a token is not valid here: for the journal, never for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what `as_str` says")]
pub enum BadToken {
    TooLong,
    Form,
    Type,
    Critical,
    Algorithm,
    Issuer,
    Key,
    Signature,
    Expiry,
    Expired,
    NotYet,
    Audience,
    Bound,
    Principal,
    Claim,
}

impl BadToken {
    /// The reason as text, without any part of the token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "the token is too long",
            Self::Form => "the token is no signed JWT in strict JSON",
            Self::Type => "the token is another kind of JWT",
            Self::Critical => "the token has critical extensions",
            Self::Algorithm => "the token is signed with an algorithm that is not allowed",
            Self::Issuer => "the token is of an issuer that is not configured",
            Self::Key => "the token is signed with a key that its issuer does not publish",
            Self::Signature => "the signature of the token is wrong",
            Self::Expiry => "the token has no readable expiry or beginning",
            Self::Expired => "the token is expired",
            Self::NotYet => "the token is not valid yet",
            Self::Audience => "the token is for another audience",
            Self::Bound => "the token is bound to a key of its client, which is not checked here",
            Self::Principal => "the token does not name a principal as configured",
            Self::Claim => "a configured claim of the token has a form or size that cannot be used",
        }
    }
}

impl From<Malformed> for BadToken {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::TooLong(_) => Self::TooLong,
            Malformed::Critical => Self::Critical,
            Malformed::Algorithm => Self::Algorithm,
            Malformed::Parts | Malformed::Header | Malformed::KeyId => Self::Form,
        }
    }
}

impl From<NotVerified> for BadToken {
    fn from(not: NotVerified) -> Self {
        match not {
            NotVerified::Algorithm => Self::Algorithm,
            NotVerified::Key => Self::Key,
            NotVerified::Signature => Self::Signature,
        }
    }
}

/// A parsed token whose signature is not verified yet.
#[derive(Debug)]
pub struct Unverified<'a> {
    jws: Jws<'a>,
    /// The algorithm that its header names: one of [`ALGORITHMS`].
    pub algorithm: Algorithm,
    claims: Document,
}

impl<'a> Unverified<'a> {
    /// Parses `token` in compact serialization (RFC 7515 §7.1). Fails if it is malformed, too long,
    /// of another type, or names an algorithm that is not accepted.
    pub fn read(token: &'a str) -> Result<Self, BadToken> {
        let jws = Jws::read(token, TOKEN_BYTES_MAX)?;
        if let Some(found) = jws.media_type()
            && !TYPES.iter().any(|known| known.eq_ignore_ascii_case(found))
        {
            return Err(BadToken::Type);
        }
        let algorithm = Algorithm::parse(jws.algorithm()).filter(|it| ALGORITHMS.contains(it));
        let algorithm = algorithm.ok_or(BadToken::Algorithm)?;
        let claims = claims(jws.unverified_payload().clone())?;
        Ok(Self { jws, algorithm, claims })
    }

    /// Its `iss`, not verified.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.root().get("iss")?.as_str()
    }

    /// Its `typ`, not verified.
    pub fn media_type(&self) -> Option<&str> {
        self.jws.media_type()
    }

    /// Its `kid`, not verified.
    pub fn key(&self) -> Option<&str> {
        self.jws.key_id()
    }

    /// Verifies that it was signed with `key`, names one of `audiences`, and is valid at `now`, the
    /// time since the Unix epoch. The error names the first check that failed.
    pub fn verify(
        self,
        key: &Key,
        audiences: &[Box<str>],
        now: Duration,
    ) -> Result<Verified, BadToken> {
        self.jws.verify(key, &ALGORITHMS)?;
        let claims = self.claims.root();
        let until = claims.get("exp").and_then(date).ok_or(BadToken::Expiry)?;
        let until = until.saturating_add(LEEWAY);
        if now >= until {
            return Err(BadToken::Expired);
        }
        if let Some(from) = claims.get("nbf") {
            let from = date(from).ok_or(BadToken::Expiry)?;
            if now.saturating_add(LEEWAY) < from {
                return Err(BadToken::NotYet);
            }
        }
        let ours = |found: &str| audiences.iter().any(|ours| **ours == *found);
        if !claims.get("aud").is_some_and(|aud| texts(aud).any(ours)) {
            return Err(BadToken::Audience);
        }
        // A token bound to a key (`cnf`, RFC 7800) needs a proof of that key, which we do not ask
        // for. Accepting it without one would let a thief use it (RFC 9449 §7.2).
        if claims.get("cnf").is_some() {
            return Err(BadToken::Bound);
        }
        Ok(Verified { claims: self.claims, until })
    }
}

/// The claims of a verified token.
#[derive(Debug)]
pub struct Verified {
    claims: Document,
    /// When it expires, [`LEEWAY`] included: time since the Unix epoch.
    pub until: Duration,
}

impl Verified {
    /// The claim `name`; an RFC 6901 pointer where it begins with `/`.
    pub fn claim(&self, name: &str) -> Option<Value<'_>> {
        let claims = self.claims.root();
        if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) }
    }

    /// Whether it grants `scope`: in `scope`, a text of several (RFC 9068 §2.2.3), or in `scp`, a
    /// text or an array, as some issuers have it.
    pub fn grants(&self, scope: &str) -> bool {
        let among = |text: &str| text.split(' ').any(|granted| granted == scope);
        ["scope", "scp"].iter().any(|name| {
            let granted = self.claims.root().get(name);
            granted.is_some_and(|granted| texts(granted).any(among))
        })
    }
}

/// One text, or the texts of an array.
fn texts(value: Value<'_>) -> impl Iterator<Item = &str> {
    value.as_str().into_iter().chain(value.elements().filter_map(Value::as_str))
}

/// The claims of a token: a JSON object (RFC 7519 §3).
fn claims(payload: Bytes) -> Result<Document, BadToken> {
    let document = Document::read(payload, &CLAIMS).map_err(|_| BadToken::Form)?;
    if document.root().kind() == Kind::Object { Ok(document) } else { Err(BadToken::Form) }
}

/// A `NumericDate` (RFC 7519 §2): seconds since the Unix epoch, perhaps with a fraction.
pub(crate) fn date(value: Value<'_>) -> Option<Duration> {
    Duration::try_from_secs_f64(value.as_number()?.parse().ok()?).ok()
}
