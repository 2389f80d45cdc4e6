//! `.signatures.json`: one JWT whose payload lists every file of the bundle with its hash (OPA
//! documentation, "Signing").
//!
//! Algorithm and key come from the configuration, never from the token (RFC 8725, section 3.1); a
//! token with another algorithm is rejected. `bartizan_jose` verifies the token. Every file except
//! the signature itself must be listed with the right hash, and every listed file must be present.

use std::collections::BTreeMap;

use bartizan_gate::wire::hex::hex;
pub use bartizan_jose::Algorithm;
use bartizan_jose::Jws;
use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha384, Sha512, Sha512_256};

use super::canonical::canonical;
use super::{MANIFEST, Members, SIGNATURES};
use crate::yaml;

/// Largest number of files that one signature lists.
const FILES_MAX: usize = 65_536;
/// Largest length of the JWT, bytes: the same as of any file of a bundle.
const TOKEN_BYTES_MAX: usize = 16 << 20;

/// The keys that may sign a bundle.
#[derive(Debug, Clone, Default)]
pub struct Signing {
    /// The keys by id.
    pub keys: BTreeMap<String, SigningKey>,
    /// The id of the key that must have signed; `None` means the key that the token names.
    pub key_id: Option<String>,
    /// The `scope` that the payload must have; `None` means the key's scope, or else an empty one.
    pub scope: Option<String>,
}

/// One key with its algorithm and scope.
#[derive(Debug, Clone)]
pub struct SigningKey {
    material: bartizan_jose::Key,
    /// The only algorithm that the key may be used with.
    algorithm: Algorithm,
    scope: Option<String>,
}

impl SigningKey {
    /// A key from `material`: the PEM of a public key, or, for a symmetric algorithm, the secret
    /// itself. `scope` is as in [`Signing::scope`].
    ///
    /// # Errors
    ///
    /// The material does not fit the algorithm.
    pub fn new(
        algorithm: Algorithm,
        material: &[u8],
        scope: Option<String>,
    ) -> Result<Self, String> {
        let material = if algorithm.is_symmetric() {
            bartizan_jose::Key::from_secret(algorithm, material)
        } else {
            bartizan_jose::Key::from_pem(algorithm, material)
        };
        Ok(Self { material: material.map_err(|why| why.to_string())?, algorithm, scope })
    }
}

#[derive(Debug, Deserialize)]
struct Signatures {
    signatures: Vec<String>,
    #[serde(default)]
    plugin: String,
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

/// Why a bundle is refused for its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong with the signature or with a file.
    pub what: String,
    /// What to do about it.
    pub hint: &'static str,
}

impl From<String> for Refused {
    fn from(what: String) -> Self {
        Self { what, hint: HINT_SIGN }
    }
}

const HINT_SIGN: &str = "sign the bundle anew";

/// Signing anew with the same command would name no other key.
const HINT_KEY: &str = "set `policy.bundle.signing.keyid` to the one of `keys` that must have signed \
    it: what `opa sign` and `opa build` write names none, or `default`";

impl Signing {
    /// Verifies `members` with `signatures`, the content of `.signatures.json`.
    ///
    /// # Errors
    ///
    /// What is wrong with the signature or with a file.
    pub fn verify(&self, members: &Members, signatures: &[u8]) -> Result<(), Refused> {
        let signed = self.signed(&read::<Signatures>(signatures)?)?;
        if signed.len() > FILES_MAX {
            return Err(format!("more than {FILES_MAX} files are signed").into());
        }
        let mut left: BTreeMap<&str, &Signed> = BTreeMap::new();
        for file in &signed {
            let name = file.name.strip_prefix('/').unwrap_or(&file.name);
            if left.insert(name, file).is_some() {
                return Err(format!("`{}` is signed twice", name.escape_debug()).into());
            }
        }
        for (name, bytes) in members.iter().filter(|(name, _)| *name != SIGNATURES) {
            let signed = left.remove(name.as_str());
            let signed = signed.ok_or_else(|| format!("`{name}` is not signed"))?;
            if hash(name, bytes, &signed.algorithm)? != signed.hash.to_ascii_lowercase() {
                return Err(format!("`{name}` differs from the signed file").into());
            }
        }
        match left.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("`{}` is signed, but missing", name.escape_debug()).into()),
        }
    }

    /// The files that the token lists, after its signature was verified.
    fn signed(&self, written: &Signatures) -> Result<Vec<Signed>, Refused> {
        if !matches!(written.plugin.as_str(), "" | "_default") {
            return Err("the signature uses a plugin, which is not supported".to_owned().into());
        }
        let [token] = written.signatures.as_slice() else {
            return Err(format!(
                "{} signatures, but exactly one is allowed",
                written.signatures.len()
            )
            .into());
        };
        let jws =
            Jws::read(token, TOKEN_BYTES_MAX).map_err(|why| format!("the signature {why}"))?;
        let claimed: Payload = read(jws.unverified_payload())?;
        let id = self.key_id.as_deref().or(jws.key_id()).unwrap_or(&claimed.keyid);
        let key = self.keys.get(id).ok_or_else(|| Refused {
            what: match id {
                "" => "the signature does not name a key".to_owned(),
                _ => format!("no key with the id `{}` is configured", id.escape_debug()),
            },
            hint: if self.key_id.is_none() { HINT_KEY } else { HINT_SIGN },
        })?;
        // Compare the exact name: OPA accepts no other name for an algorithm.
        if jws.algorithm() != key.algorithm.as_str() {
            return Err(format!("the signature is not {}", key.algorithm.as_str()).into());
        }
        jws.verify(&key.material, &[key.algorithm])
            .map_err(|why| format!("the signature {why}"))?;
        let scope = self.scope.as_deref().or(key.scope.as_deref()).unwrap_or_default();
        if claimed.scope != scope {
            return Err("the signature has another scope".to_owned().into());
        }
        Ok(claimed.files)
    }
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    serde_json::from_str(text).map_err(|error| format!("not in the expected format: {error}"))
}

/// The hash of a file as lower-case hexadecimal: for data, of its canonical JSON, otherwise of its
/// bytes (OPA documentation, "Signing").
fn hash(name: &str, bytes: &[u8], algorithm: &str) -> Result<String, String> {
    let digest: fn(&[u8]) -> Vec<u8> = match algorithm {
        "SHA-256" => |form| Sha256::digest(form).to_vec(),
        "SHA-384" => |form| Sha384::digest(form).to_vec(),
        "SHA-512" => |form| Sha512::digest(form).to_vec(),
        "SHA-512-256" => |form| Sha512_256::digest(form).to_vec(),
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
    Ok(hex(&digest(&form)))
}
