//! The public keys of an issuer: a JWK Set (RFC 7517 §5).
//!
//! A set with shared secrets is refused: whoever can verify with a secret can also sign.

use std::fmt;

use bartizan_gate::wire::document::{Document, DocumentLimits, Kind, Unreadable, Value};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use spki::der::Encode as _;
use spki::der::asn1::UintRef;

use crate::algorithm::{Algorithm, KeyKind};
use crate::key::Key;

/// Largest JWK Set, bytes.
pub const KEY_SET_BYTES_MAX: usize = 64 << 10;
/// Keys in one set at most.
pub const KEYS_MAX: usize = 64;

/// Limits on the JSON of a JWK Set.
const LIMITS: DocumentLimits = DocumentLimits {
    bytes_max: KEY_SET_BYTES_MAX,
    depth_max: 16,
    number_chars_max: 64,
    values_max: 8192,
};

/// Size of an RSA modulus, bytes: 2048 to 8192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Size of an Ed25519 public key, bytes (RFC 8032 §5.1.5).
const ED25519_BYTES: usize = 32;
/// First byte of an uncompressed point (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

/// Why a document is not a usable set of public keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoKeySet {
    /// Not one strict JSON document of at most [`KEY_SET_BYTES_MAX`].
    Unreadable(Unreadable),
    /// Not an object with an array `keys` of at most [`KEYS_MAX`].
    NoSet,
    /// It contains a private or a shared key, which is compromised by being published.
    Secret,
    /// None of its keys can verify a signature of one of these algorithms, which the caller
    /// accepts.
    NoneUsable(Box<[Algorithm]>),
}

impl fmt::Display for NoKeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "is not one strict JSON document: {why:?}"),
            Self::NoSet => write!(f, "is no JWK Set of at most {KEYS_MAX} keys"),
            Self::Secret => f.write_str("holds a private or a shared key"),
            Self::NoneUsable(accepted) => {
                let names: Vec<&str> =
                    accepted.iter().map(|algorithm| algorithm.as_str()).collect();
                write!(f, "holds no public key for any of {}", names.join(", "))
            }
        }
    }
}

impl std::error::Error for NoKeySet {}

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a JWK Set. Ignores keys that cannot verify a signature of one of the `accepted`
    /// algorithms: keys of other kinds, for other uses, or damaged ones (RFC 7517 §5).
    ///
    /// # Errors
    ///
    /// [`NoKeySet`]: the set is not usable.
    pub fn read(raw: Bytes, accepted: &[Algorithm]) -> Result<Self, NoKeySet> {
        let document = Document::read(raw, &LIMITS).map_err(NoKeySet::Unreadable)?;
        let keys = document.root().get("keys").filter(|keys| keys.kind() == Kind::Array);
        let keys = keys.filter(|keys| keys.len() <= KEYS_MAX).ok_or(NoKeySet::NoSet)?;
        let secret = |key: Value<'_>| key.get("d").is_some() || key.get("k").is_some();
        if keys.elements().any(secret) {
            return Err(NoKeySet::Secret);
        }
        let usable = |key: &Key| accepted.iter().any(|algorithm| key.fits(*algorithm));
        let usable: Vec<Key> = keys.elements().filter_map(key).filter(usable).collect();
        if usable.is_empty() {
            Err(NoKeySet::NoneUsable(accepted.into()))
        } else {
            Ok(Self(usable))
        }
    }

    /// Returns the key for a token that names the key id `id` and `algorithm`. For a token without
    /// a key id, the set must have exactly one key for the algorithm. `None` if no key or more than
    /// one matches.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
        let mut fitting = self.0.iter().filter(named).filter(|key| key.fits(algorithm));
        fitting.next().filter(|_| fitting.next().is_none())
    }
}

/// Reads the public key in one JWK (RFC 7517 §4); `None` if it is not one for signatures.
fn key(jwk: Value<'_>) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if jwk.get("use").is_some() && text("use") != Some("sig") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops")
        && !operations.elements().any(|operation| operation.as_str() == Some("verify"))
    {
        return None;
    }
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let (kind, bytes) = match (text("kty")?, text("crv")) {
        ("RSA", _) => (KeyKind::Rsa, rsa(&bytes("n")?, &bytes("e")?)?),
        ("EC", Some("P-256")) => (KeyKind::P256, point(32, &bytes("x")?, &bytes("y")?)?),
        ("EC", Some("P-384")) => (KeyKind::P384, point(48, &bytes("x")?, &bytes("y")?)?),
        ("OKP", Some("Ed25519")) => {
            (KeyKind::Ed25519, bytes("x").filter(|x| x.len() == ED25519_BYTES)?)
        }
        _ => return None,
    };
    let algorithm = match jwk.get("alg") {
        Some(alg) => Some(alg.as_str().and_then(Algorithm::parse)?),
        None => None,
    };
    let id = match jwk.get("kid") {
        Some(id) => Some(id.as_str()?.into()),
        None => None,
    };
    Some(Key { id, algorithm, kind, bytes })
}

/// Writes an `RSAPublicKey` in DER (RFC 8017 §A.1.1): a sequence of modulus and exponent, which
/// must be big-endian without leading zero bytes (RFC 7518 §6.3.1).
fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let padded = |number: &[u8]| number.first().is_none_or(|first| *first == 0);
    if !MODULUS_BYTES.contains(&modulus.len()) || padded(modulus) || padded(exponent) {
        return None;
    }
    let key = [UintRef::new(modulus).ok()?, UintRef::new(exponent).ok()?];
    let mut der = vec![0; usize::try_from(key.encoded_len().ok()?).ok()?];
    key.encode_to_slice(&mut der).ok()?;
    Some(der)
}

/// Writes an uncompressed point (SEC 1 §2.3.3). Both coordinates must have exactly
/// `coordinate_bytes` bytes (RFC 7518 §6.2.1.2).
fn point(coordinate_bytes: usize, x: &[u8], y: &[u8]) -> Option<Vec<u8>> {
    let whole = x.len() == coordinate_bytes && y.len() == coordinate_bytes;
    whole.then(|| [&[UNCOMPRESSED], x, y].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Algorithm::{ES256, ES384, EdDSA, PS256, RS256, RS512};

    const ACCEPTED: [Algorithm; 4] = [RS256, PS256, ES256, EdDSA];

    fn read(keys: &str) -> Result<KeySet, NoKeySet> {
        KeySet::read(Bytes::from(format!("{{\"keys\":[{keys}]}}")), &ACCEPTED)
    }

    /// A key of `kind` whose point is nonsense of the right length.
    fn jwk(kind: &str, more: &str) -> String {
        let point = "A".repeat(43);
        match kind {
            "RSA" => {
                format!("{{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"{}w\"{more}}}", "_".repeat(341))
            }
            "EC" => {
                format!(
                    "{{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"{point}\",\"y\":\"{point}\"{more}}}"
                )
            }
            _ => format!("{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{point}\"{more}}}"),
        }
    }

    #[test]
    fn a_token_means_one_key() {
        let set = [
            jwk("RSA", ",\"kid\":\"a\""),
            jwk("RSA", ",\"kid\":\"b\",\"alg\":\"PS256\""),
            jwk("EC", ",\"kid\":\"a\""),
            jwk("OKP", ""),
            jwk("EC", ",\"kid\":\"twice\""),
            jwk("EC", ",\"kid\":\"twice\""),
        ];
        let set = read(&set.join(",")).unwrap();
        for (id, algorithm, found) in [
            (Some("a"), RS256, true),
            (Some("a"), PS256, true),
            (Some("a"), ES256, true),
            (Some("a"), EdDSA, false),
            (Some("b"), PS256, true),
            (Some("b"), RS256, false),
            (Some("A"), RS256, false),
            (Some("twice"), ES256, false),
            (Some(""), EdDSA, false),
            (None, EdDSA, true),
            (None, RS256, true),
            (None, PS256, false),
            (None, ES256, false),
            (None, ES384, false),
        ] {
            assert_eq!(set.find(id, algorithm).is_some(), found, "{id:?} {algorithm:?}");
        }
        for secret in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            assert!(set.find(None, secret).is_none(), "a public key is no secret");
        }
    }

    #[test]
    fn keys_that_are_none_of_ours_are_passed_over() {
        let good = jwk("EC", ",\"use\":\"sig\",\"key_ops\":[\"verify\"]");
        assert_eq!(read(&good).unwrap().0.len(), 1);
        let none = NoKeySet::NoneUsable(ACCEPTED.into());
        for bad in [
            jwk("EC", ",\"use\":\"enc\""),
            jwk("EC", ",\"use\":1"),
            jwk("EC", ",\"key_ops\":[\"sign\"]"),
            jwk("EC", ",\"key_ops\":\"verify\""),
            jwk("EC", ",\"alg\":\"ES384\""),
            jwk("EC", ",\"alg\":\"none\""),
            jwk("EC", ",\"alg\":7"),
            jwk("RSA", ",\"alg\":\"HS256\""),
            jwk("RSA", ",\"alg\":\"RS512\""),
            jwk("EC", ",\"kid\":7"),
            jwk("EC", "").replace("P-256", "P-384"),
            jwk("EC", "").replace("P-256", "P-384").replace(&"A".repeat(43), &"A".repeat(64)),
            jwk("OKP", "").replace("Ed25519", "X25519"),
            jwk("EC", "").replace("AAAA\"", "AA\""),
            jwk("RSA", "").replace(&"_".repeat(341), &"_".repeat(170)),
            // 2048 bits with a zero byte before them, and an exponent of nothing.
            jwk("RSA", "")
                .replace(&format!("{}w", "_".repeat(341)), &format!("AP{}", "_".repeat(341))),
            jwk("RSA", "").replace("AQAB", ""),
            "{\"kty\":\"oct\"}".to_owned(),
            "7".to_owned(),
        ] {
            assert_eq!(read(&bad).unwrap_err(), none, "{bad}");
            assert_eq!(read(&format!("{bad},{good}")).unwrap().0.len(), 1, "{bad}");
        }
        assert_eq!(none.to_string(), "holds no public key for any of RS256, PS256, ES256, EdDSA");
    }

    #[test]
    fn the_caller_says_which_algorithms_a_key_may_be_for() {
        let p384 =
            jwk("EC", "").replace("P-256", "P-384").replace(&"A".repeat(43), &"A".repeat(64));
        let rs512 = jwk("RSA", ",\"alg\":\"RS512\"");
        let set = Bytes::from(format!("{{\"keys\":[{p384},{rs512},{}]}}", jwk("OKP", "")));
        for (accepted, count) in [
            (&[ES384][..], 1),
            (&[RS512], 1),
            (&[RS512, ES384, EdDSA], 3),
            (&[ES256, RS256, Algorithm::HS256], 0),
            (&[], 0),
        ] {
            let read = KeySet::read(set.clone(), accepted).map_or(0, |set| set.0.len());
            assert_eq!(read, count, "{accepted:?}");
        }
    }

    #[test]
    fn what_is_no_set_of_public_keys_is_none() {
        for (text, why) in [
            ("{}", NoKeySet::NoSet),
            ("{\"keys\":{}}", NoKeySet::NoSet),
            ("[]", NoKeySet::NoSet),
            ("{\"keys\":[]}", NoKeySet::NoneUsable(ACCEPTED.into())),
            ("{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}]}", NoKeySet::Secret),
            ("{\"keys\":[{\"kty\":\"EC\",\"d\":\"c2VjcmV0\"}]}", NoKeySet::Secret),
        ] {
            assert_eq!(KeySet::read(Bytes::from(text), &ACCEPTED).unwrap_err(), why, "{text}");
        }
        let many = vec![jwk("EC", ""); KEYS_MAX + 1].join(",");
        assert_eq!(read(&many).unwrap_err(), NoKeySet::NoSet);
        let twice = Bytes::from("{\"keys\":[],\"keys\":[]}");
        assert!(matches!(KeySet::read(twice, &ACCEPTED), Err(NoKeySet::Unreadable(_))));
        let large = Bytes::from(" ".repeat(KEY_SET_BYTES_MAX) + "{\"keys\":[]}");
        let too_large = NoKeySet::Unreadable(Unreadable::TooLarge);
        assert_eq!(KeySet::read(large, &ACCEPTED).unwrap_err(), too_large);
    }
}
