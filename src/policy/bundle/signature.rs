//! `.signatures.json`: one JWT whose payload names every file of the bundle with its hash.
//!
//! Algorithm and key come from the configuration, never from the token (RFC 8725 §3.1); a token
//! that names another algorithm is refused. Every file but the signature itself must be named and
//! hash alike, and every named file must be there.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac, signature};
use serde::Deserialize;

use super::canonical::canonical;
use super::der::{self, KeyKind};
use super::{MANIFEST, Members, SIGNATURES};
use crate::yaml;

/// Files that one signature may name.
const FILES_MAX: usize = 65_536;

/// Who may sign.
#[derive(Debug, Clone, Default)]
pub struct Signing {
    /// Keys by id.
    pub keys: BTreeMap<String, Key>,
    /// The id of the key that must have signed; by default the one that the token names.
    pub key_id: Option<String>,
    /// What the payload's `scope` must be; by default what the key says, else empty.
    pub scope: Option<String>,
}

/// An algorithm of RFC 7518 §3.1 or RFC 8037 that a signature may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in RFC 7518 and RFC 8037")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
    HS256,
    HS384,
    HS512,
}

impl Algorithm {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
        Self::HS256,
        Self::HS384,
        Self::HS512,
    ];

    /// Its name in `alg`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
        }
    }

    /// Whether signer and verifier share one secret.
    pub fn is_symmetric(self) -> bool {
        self.mac().is_some()
    }

    fn mac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::HS256 => Some(hmac::HMAC_SHA256),
            Self::HS384 => Some(hmac::HMAC_SHA384),
            Self::HS512 => Some(hmac::HMAC_SHA512),
            Self::RS256
            | Self::RS384
            | Self::RS512
            | Self::PS256
            | Self::PS384
            | Self::PS512
            | Self::ES256
            | Self::ES384
            | Self::EdDSA => None,
        }
    }

    fn verification(self) -> Option<(KeyKind, &'static dyn signature::VerificationAlgorithm)> {
        Some(match self {
            Self::RS256 => (KeyKind::Rsa, &signature::RSA_PKCS1_2048_8192_SHA256),
            Self::RS384 => (KeyKind::Rsa, &signature::RSA_PKCS1_2048_8192_SHA384),
            Self::RS512 => (KeyKind::Rsa, &signature::RSA_PKCS1_2048_8192_SHA512),
            Self::PS256 => (KeyKind::Rsa, &signature::RSA_PSS_2048_8192_SHA256),
            Self::PS384 => (KeyKind::Rsa, &signature::RSA_PSS_2048_8192_SHA384),
            Self::PS512 => (KeyKind::Rsa, &signature::RSA_PSS_2048_8192_SHA512),
            Self::ES256 => (KeyKind::P256, &signature::ECDSA_P256_SHA256_FIXED),
            Self::ES384 => (KeyKind::P384, &signature::ECDSA_P384_SHA384_FIXED),
            Self::EdDSA => (KeyKind::Ed25519, &signature::ED25519),
            Self::HS256 | Self::HS384 | Self::HS512 => return None,
        })
    }
}

/// One key.
#[derive(Clone)]
pub struct Key {
    algorithm: Algorithm,
    material: Vec<u8>,
    scope: Option<String>,
}

// A shared secret is in it.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Key {
    /// A key from `material`: the PEM of a public key, or the secret itself where the algorithm is
    /// symmetric. `scope` as in [`Signing::scope`].
    pub fn new(
        algorithm: Algorithm,
        material: &[u8],
        scope: Option<String>,
    ) -> Result<Self, String> {
        let material = match algorithm.verification() {
            None if material.is_empty() => return Err("the secret is empty".to_owned()),
            None => material.to_vec(),
            Some((wanted, _)) => {
                let (kind, key) = der::public_key(material)?;
                if kind != wanted {
                    return Err(format!("a key of another kind than {} needs", algorithm.as_str()));
                }
                key
            }
        };
        Ok(Self { algorithm, material, scope })
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        if let Some((_, verification)) = self.algorithm.verification() {
            let key = signature::UnparsedPublicKey::new(verification, &self.material);
            return key.verify(message, signature).is_ok();
        }
        self.algorithm.mac().is_some_and(|mac| {
            let key = hmac::Key::new(mac, &self.material);
            hmac::verify(&key, message, signature).is_ok()
        })
    }
}

#[derive(Debug, Deserialize)]
struct Signatures {
    signatures: Vec<String>,
    #[serde(default)]
    plugin: String,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Payload {
    files: Vec<Signed>,
    #[serde(default)]
    keyid: String,
    #[serde(default)]
    scope: String,
}

#[derive(Debug, Deserialize)]
struct Signed {
    name: String,
    hash: String,
    #[serde(default)]
    algorithm: String,
}

impl Signing {
    /// Holds `members` against `signatures`, the text of `.signatures.json`. The error says what
    /// is wrong.
    pub fn verify(&self, members: &Members, signatures: &[u8]) -> Result<(), String> {
        let signed = self.signed(&read::<Signatures>(signatures)?)?;
        if signed.len() > FILES_MAX {
            return Err(format!("more than {FILES_MAX} files are signed"));
        }
        let mut left: BTreeMap<&str, &Signed> = BTreeMap::new();
        for file in &signed {
            let name = file.name.strip_prefix('/').unwrap_or(&file.name);
            if left.insert(name, file).is_some() {
                return Err(format!("`{}` is signed twice", name.escape_debug()));
            }
        }
        for (name, bytes) in members.iter().filter(|(name, _)| *name != SIGNATURES) {
            let signed = left.remove(name.as_str());
            let signed = signed.ok_or_else(|| format!("`{name}` is not signed"))?;
            if hash(name, bytes, &signed.algorithm)? != signed.hash.to_ascii_lowercase() {
                return Err(format!("`{name}` is not what was signed"));
            }
        }
        match left.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("`{}` is signed and missing", name.escape_debug())),
        }
    }

    /// The files that the one token names, once it is known to be genuine.
    fn signed(&self, written: &Signatures) -> Result<Vec<Signed>, String> {
        if !matches!(written.plugin.as_str(), "" | "_default") {
            return Err("a signature of another form than OPA's own".to_owned());
        }
        let [token] = written.signatures.as_slice() else {
            return Err(format!("{} signatures instead of one", written.signatures.len()));
        };
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = parts.as_slice() else {
            return Err("the signature is no JWT".to_owned());
        };
        let message = token.get(..token.len().saturating_sub(signature.len()).saturating_sub(1));
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header: Header = read(&header)?;
        if header.crit.is_some() {
            return Err("the JWT has critical extensions".to_owned());
        }
        let claimed: Payload = read(&payload)?;
        let id = self.key_id.as_deref().or(header.kid.as_deref()).unwrap_or(&claimed.keyid);
        let key = match self.keys.get(id) {
            Some(key) => key,
            None if id.is_empty() => return Err("the signature names no key".to_owned()),
            None => return Err(format!("no key is called `{}`", id.escape_debug())),
        };
        if header.alg != key.algorithm.as_str() {
            return Err(format!("the signature is not {}", key.algorithm.as_str()));
        }
        if !key.verifies(message.unwrap_or_default().as_bytes(), &signature) {
            return Err("the signature is not genuine".to_owned());
        }
        let scope = self.scope.as_deref().or(key.scope.as_deref()).unwrap_or_default();
        if claimed.scope != scope {
            return Err("the signature is for another scope".to_owned());
        }
        Ok(claimed.files)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| "the signature is no JWT".to_owned())
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    serde_json::from_str(text).map_err(|error| format!("of no known form: {error}"))
}

/// The hash of a file, lower-case hex: of its canonical form where it holds data, else of its
/// bytes (OPA, "Signing", "Bundle Signature").
fn hash(name: &str, bytes: &[u8], algorithm: &str) -> Result<String, String> {
    let algorithm = match algorithm {
        "SHA-256" => &digest::SHA256,
        "SHA-384" => &digest::SHA384,
        "SHA-512" => &digest::SHA512,
        "SHA-512-256" => &digest::SHA512_256,
        other => {
            return Err(format!("`{name}` is hashed with `{}`", other.escape_debug()));
        }
    };
    let base = name.rsplit('/').next().unwrap_or(name);
    let text = || std::str::from_utf8(bytes).map_err(|_| format!("`{name}` is not UTF-8"));
    let form = match base {
        "data.json" | MANIFEST => canonical(text()?),
        "data.yaml" => yaml::to_json(text()?).and_then(|json| canonical(&json)),
        _ => Ok(bytes.to_vec()),
    };
    let form = form.map_err(|what| format!("`{name}`: {what}"))?;
    let mut hex = String::new();
    bartizan_gate::catalog::lists::hex(digest::digest(algorithm, &form).as_ref(), &mut hex);
    Ok(hex)
}
