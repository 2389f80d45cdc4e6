//! Public keys of an issuer (RFC 7517): those that can check what clients bring.
//!
//! Pure: bytes in, yes or no out. Symmetric keys are none of ours: whoever can check with one can
//! also sign.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::metadata::DOCUMENT;
use bartizan_gate::wire::document::{Document, Kind, Unreadable, Value};

/// Keys in one set.
pub const KEYS_MAX: usize = 64;

/// Size of an RSA modulus, bytes: 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
/// Size of one coordinate on P-256, and of an Ed25519 key, bytes.
const COORDINATE: usize = 32;
/// First byte of an uncompressed point (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

/// How a token may be signed (RFC 7518 §3.1, RFC 8037 §3.1). No others: not `none`, and nothing
/// that is made with a shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// The algorithm that `alg` names, exactly. `Ed25519` is the newer name of what `EdDSA` means
    /// here (RFC 9864 §2.2).
    pub fn parse(alg: &str) -> Option<Self> {
        match alg {
            "RS256" => Some(Self::Rs256),
            "PS256" => Some(Self::Ps256),
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// Why there are no keys in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoKeySet {
    /// It is not one strict JSON document within [`DOCUMENT`].
    Unreadable(Unreadable),
    /// It is no object with an array `keys` of at most [`KEYS_MAX`].
    NoSet,
    /// It holds a private or a shared key, which then is a secret no more.
    Secret,
    /// None of its keys can check a signature of one of ours [`Algorithm`]s.
    NoneUsable,
}

impl fmt::Display for NoKeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "is not one strict JSON document: {why:?}"),
            Self::NoSet => write!(f, "is no JWK Set of at most {KEYS_MAX} keys"),
            Self::Secret => f.write_str("holds a private or a shared key"),
            Self::NoneUsable => f.write_str("holds no public key for RS256, PS256, ES256 or EdDSA"),
        }
    }
}

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

/// One public key.
#[derive(Debug)]
pub struct Key {
    id: Option<Box<str>>,
    /// The one algorithm that it is for, where it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl KeySet {
    /// Reads a JWK Set. Keys of kinds and for uses that are none of ours are passed over (RFC 7517
    /// §5).
    pub fn read(raw: Bytes) -> Result<Self, NoKeySet> {
        let document = Document::read(raw, &DOCUMENT).map_err(NoKeySet::Unreadable)?;
        let keys = document.root().get("keys").filter(|keys| keys.kind() == Kind::Array);
        let keys = keys.filter(|keys| keys.len() <= KEYS_MAX).ok_or(NoKeySet::NoSet)?;
        let secret = |key: Value<'_>| key.get("d").is_some() || key.get("k").is_some();
        if keys.elements().any(secret) {
            return Err(NoKeySet::Secret);
        }
        let usable: Vec<Key> = keys.elements().filter_map(Key::read).collect();
        if usable.is_empty() { Err(NoKeySet::NoneUsable) } else { Ok(Self(usable)) }
    }

    /// The one key that a token means which names `id` and is signed with `algorithm`. A token
    /// that names none means the only key that there is for it.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
        let mut fitting = self.0.iter().filter(named).filter(|key| key.fits(algorithm));
        fitting.next().filter(|_| fitting.next().is_none())
    }
}

impl Key {
    fn read(key: Value<'_>) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        if key.get("use").is_some() && text("use") != Some("sig") {
            return None;
        }
        if let Some(operations) = key.get("key_ops")
            && !operations.elements().any(|operation| operation.as_str() == Some("verify"))
        {
            return None;
        }
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let modulus = bytes("n").filter(|modulus| MODULUS.contains(&modulus.len()))?;
                Material::Rsa { modulus, exponent: bytes("e")? }
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != COORDINATE || y.len() != COORDINATE {
                    return None;
                }
                Material::P256([&[UNCOMPRESSED][..], &x, &y].concat())
            }
            ("OKP", Some("Ed25519")) => {
                Material::Ed25519(bytes("x").filter(|x| x.len() == COORDINATE)?)
            }
            _ => return None,
        };
        let algorithm = match key.get("alg") {
            Some(alg) => Some(alg.as_str().and_then(Algorithm::parse)?),
            None => None,
        };
        let id = match key.get("kid") {
            Some(id) => Some(id.as_str()?.into()),
            None => None,
        };
        Some(Self { id, algorithm, material })
    }

    /// Whether signatures of `algorithm` can be checked with it: the key decides, not the token
    /// (RFC 8725 §3.1).
    fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match self.material {
            Material::Rsa { .. } => matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256),
            Material::P256(_) => algorithm == Algorithm::Es256,
            Material::Ed25519(_) => algorithm == Algorithm::EdDsa,
        };
        kind && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether `signature` of `algorithm` over `message` was made with the private half.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let checked = match (&self.material, algorithm) {
            (Material::Rsa { modulus, exponent }, Algorithm::Rs256) => {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(
                    &RSA_PKCS1_2048_8192_SHA256,
                    message,
                    signature,
                )
            }
            (Material::Rsa { modulus, exponent }, Algorithm::Ps256) => {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(
                    &RSA_PSS_2048_8192_SHA256,
                    message,
                    signature,
                )
            }
            (Material::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            (Material::Ed25519(point), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
            }
            (Material::Rsa { .. } | Material::P256(_) | Material::Ed25519(_), _) => return false,
        };
        checked.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &str) -> Result<KeySet, NoKeySet> {
        KeySet::read(Bytes::from(format!("{{\"keys\":[{keys}]}}")))
    }

    /// A key of `kind` whose point is nonsense of the right length.
    fn key(kind: &str, more: &str) -> String {
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
        use Algorithm::{EdDsa, Es256, Ps256, Rs256};
        let set = [
            key("RSA", ",\"kid\":\"a\""),
            key("RSA", ",\"kid\":\"b\",\"alg\":\"PS256\""),
            key("EC", ",\"kid\":\"a\""),
            key("OKP", ""),
            key("EC", ",\"kid\":\"twice\""),
            key("EC", ",\"kid\":\"twice\""),
        ];
        let set = read(&set.join(",")).unwrap();
        for (id, algorithm, found) in [
            (Some("a"), Rs256, true),
            (Some("a"), Ps256, true),
            (Some("a"), Es256, true),
            (Some("a"), EdDsa, false),
            (Some("b"), Ps256, true),
            (Some("b"), Rs256, false),
            (Some("A"), Rs256, false),
            (Some("twice"), Es256, false),
            (Some(""), EdDsa, false),
            (None, EdDsa, true),
            (None, Rs256, true),
            (None, Ps256, false),
            (None, Es256, false),
        ] {
            assert_eq!(set.find(id, algorithm).is_some(), found, "{id:?} {algorithm:?}");
        }
    }

    #[test]
    fn keys_that_are_none_of_ours_are_passed_over() {
        let good = key("EC", ",\"use\":\"sig\",\"key_ops\":[\"verify\"]");
        assert_eq!(read(&good).unwrap().0.len(), 1);
        for bad in [
            key("EC", ",\"use\":\"enc\""),
            key("EC", ",\"use\":1"),
            key("EC", ",\"key_ops\":[\"sign\"]"),
            key("EC", ",\"key_ops\":\"verify\""),
            key("EC", ",\"alg\":\"ES384\""),
            key("RSA", ",\"alg\":\"HS256\""),
            key("EC", ",\"kid\":7"),
            key("EC", "").replace("P-256", "P-384"),
            key("OKP", "").replace("Ed25519", "X25519"),
            key("EC", "").replace("AAAA\"", "AA\""),
            key("RSA", "").replace(&"_".repeat(341), &"_".repeat(170)),
            "{\"kty\":\"oct\"}".to_owned(),
            "7".to_owned(),
        ] {
            assert_eq!(read(&bad).unwrap_err(), NoKeySet::NoneUsable, "{bad}");
            assert_eq!(read(&format!("{bad},{good}")).unwrap().0.len(), 1, "{bad}");
        }
    }

    #[test]
    fn what_is_no_set_of_public_keys_is_none() {
        for (text, why) in [
            ("{}", NoKeySet::NoSet),
            ("{\"keys\":{}}", NoKeySet::NoSet),
            ("[]", NoKeySet::NoSet),
            ("{\"keys\":[]}", NoKeySet::NoneUsable),
            ("{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}]}", NoKeySet::Secret),
            ("{\"keys\":[{\"kty\":\"EC\",\"d\":\"c2VjcmV0\"}]}", NoKeySet::Secret),
        ] {
            assert_eq!(KeySet::read(Bytes::from(text)).unwrap_err(), why, "{text}");
        }
        let many = vec![key("EC", ""); KEYS_MAX + 1].join(",");
        assert_eq!(read(&many).unwrap_err(), NoKeySet::NoSet);
        let twice = Bytes::from("{\"keys\":[],\"keys\":[]}");
        assert!(matches!(KeySet::read(twice), Err(NoKeySet::Unreadable(_))));
    }
}
