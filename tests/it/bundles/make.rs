//! Makes bundles, good and bad.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::rand::SystemRandom;
use ring::{digest, hmac, signature};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use tar::{Builder, EntryType, Header};

/// Permits `ping` for this reason.
pub(crate) fn rules(code: &str) -> String {
    format!(
        "package mcp\n\npermit contains {{\"code\": \"{code}\", \"message\": \"x\"}} if \
         input.method == \"ping\"\n"
    )
}

/// A gzipped tarball of these files.
pub(crate) fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    gzip(&tar(files))
}

/// A small bundle that calls itself `revision`.
pub(crate) fn bundle(revision: &str) -> Vec<u8> {
    let manifest = json!({"revision": revision, "roots": ["mcp"]}).to_string();
    tarball(&[("/mcp/rules.rego", rules(revision).as_bytes()), ("/.manifest", manifest.as_bytes())])
}

pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in files {
        append(&mut builder, name, EntryType::Regular, bytes);
    }
    builder.into_inner().unwrap()
}

/// Adds an entry whose name is taken as it is, which [`Builder`] itself would not do.
pub(crate) fn append(builder: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, bytes: &[u8]) {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(u64::try_from(bytes.len()).unwrap());
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, bytes).unwrap();
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What signs: the private key of `tests/it/bundles/keys`, or a secret.
pub(crate) enum Signer<'a> {
    Rsa(&'static dyn signature::RsaEncoding),
    P256,
    P384,
    Ed25519,
    Secret(hmac::Algorithm, &'a str),
}

fn private(pem: &str) -> Vec<u8> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap().secret_der().to_vec()
}

impl Signer<'_> {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let ecdsa = |algorithm, pem| {
            let key = signature::EcdsaKeyPair::from_pkcs8(algorithm, &private(pem), &random);
            key.unwrap().sign(&random, message).unwrap().as_ref().to_vec()
        };
        match self {
            Self::Rsa(padding) => {
                let key = private(include_str!("keys/rsa.key"));
                let key = signature::RsaKeyPair::from_pkcs8(&key).unwrap();
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::P256 => {
                let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
                ecdsa(algorithm, include_str!("keys/p256.key"))
            }
            Self::P384 => {
                let algorithm = &signature::ECDSA_P384_SHA384_FIXED_SIGNING;
                ecdsa(algorithm, include_str!("keys/p384.key"))
            }
            Self::Ed25519 => {
                let key = private(include_str!("keys/ed25519.key"));
                let key = signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key).unwrap();
                key.sign(message).as_ref().to_vec()
            }
            Self::Secret(algorithm, secret) => {
                let key = hmac::Key::new(*algorithm, secret.as_bytes());
                hmac::sign(&key, message).as_ref().to_vec()
            }
        }
    }

    /// A JWT.
    pub(crate) fn token(&self, header: &serde_json::Value, payload: &serde_json::Value) -> String {
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(payload));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// SHA-256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    bartizan_gate::wire::hex::hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// `.signatures.json` with one token.
pub(crate) fn signatures(token: &str) -> String {
    json!({ "signatures": [token] }).to_string()
}

/// A signed bundle, in the algorithm `RS256` with the key `release`, that calls itself `revision`.
pub(crate) fn signed_bundle(revision: &str) -> Vec<u8> {
    let manifest = format!("{{\"revision\":\"{revision}\",\"roots\":[\"mcp\"]}}");
    // In canonical form already but for the order of its members, which is alphabetical.
    let files = json!([
        {"name": ".manifest", "hash": sha256(manifest.as_bytes()), "algorithm": "SHA-256"},
        {"name": "mcp/rules.rego", "hash": sha256(rules(revision).as_bytes()), "algorithm": "SHA-256"},
    ]);
    let header = json!({"alg": "RS256", "kid": "release"});
    let token = Signer::Rsa(&signature::RSA_PKCS1_SHA256).token(&header, &json!({"files": files}));
    tarball(&[
        ("mcp/rules.rego", rules(revision).as_bytes()),
        (".manifest", manifest.as_bytes()),
        (".signatures.json", signatures(&token).as_bytes()),
    ])
}
