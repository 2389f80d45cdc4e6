//! For tests: a key of each algorithm, and tokens signed with it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::{hmac, signature};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use crate::{Algorithm, Key};

// Key pairs for tests only; they are files because `ring` cannot generate RSA keys.
pub(crate) const RSA: &str = include_str!("../../../tests/it/bundles/keys/rsa.pem");
pub(crate) const P256: &str = include_str!("../../../tests/it/bundles/keys/p256.pem");
pub(crate) const P384: &str = include_str!("../../../tests/it/bundles/keys/p384.pem");
pub(crate) const ED25519: &str = include_str!("../../../tests/it/bundles/keys/ed25519.pem");
pub(crate) const RSA_PRIVATE: &str = include_str!("../../../tests/it/bundles/keys/rsa.key");
pub(crate) const P256_PRIVATE: &str = include_str!("../../../tests/it/bundles/keys/p256.key");
const P384_PRIVATE: &str = include_str!("../../../tests/it/bundles/keys/p384.key");
const ED25519_PRIVATE: &str = include_str!("../../../tests/it/bundles/keys/ed25519.key");
const SECRET: &[u8] = b"a secret that signer and verifier share";

/// The key that verifies tokens of `algorithm` from [`token`].
pub(crate) fn key(algorithm: Algorithm) -> Key {
    use Algorithm::{
        ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
    };
    let pem = match algorithm {
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => RSA,
        ES256 => P256,
        ES384 => P384,
        EdDSA => ED25519,
        HS256 | HS384 | HS512 => return Key::from_secret(algorithm, SECRET).unwrap(),
    };
    Key::from_pem(algorithm, pem.as_bytes()).unwrap()
}

/// A token with this header and payload, signed with `algorithm`, whatever the header says.
pub(crate) fn token(algorithm: Algorithm, header: &str, payload: &[u8]) -> String {
    let signed = format!("{}.{}", encoded(header), encoded(payload));
    format!("{signed}.{}", encoded(sign(algorithm, signed.as_bytes())))
}

pub(crate) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A PEM section.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn private(pem: &str) -> Vec<u8> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap().secret_der().to_vec()
}

fn sign(algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let rsa = |padding: &'static dyn signature::RsaEncoding| {
        let key = signature::RsaKeyPair::from_pkcs8(&private(RSA_PRIVATE)).unwrap();
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(padding, &random, message, &mut signature).unwrap();
        signature
    };
    let ecdsa = |algorithm, pem| {
        let key = signature::EcdsaKeyPair::from_pkcs8(algorithm, &private(pem), &random).unwrap();
        key.sign(&random, message).unwrap().as_ref().to_vec()
    };
    let mac = |mac| hmac::sign(&hmac::Key::new(mac, SECRET), message).as_ref().to_vec();
    match algorithm {
        Algorithm::RS256 => rsa(&signature::RSA_PKCS1_SHA256),
        Algorithm::RS384 => rsa(&signature::RSA_PKCS1_SHA384),
        Algorithm::RS512 => rsa(&signature::RSA_PKCS1_SHA512),
        Algorithm::PS256 => rsa(&signature::RSA_PSS_SHA256),
        Algorithm::PS384 => rsa(&signature::RSA_PSS_SHA384),
        Algorithm::PS512 => rsa(&signature::RSA_PSS_SHA512),
        Algorithm::ES256 => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, P256_PRIVATE),
        Algorithm::ES384 => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, P384_PRIVATE),
        Algorithm::EdDSA => {
            let key = private(ED25519_PRIVATE);
            let key = signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key).unwrap();
            key.sign(message).as_ref().to_vec()
        }
        Algorithm::HS256 => mac(hmac::HMAC_SHA256),
        Algorithm::HS384 => mac(hmac::HMAC_SHA384),
        Algorithm::HS512 => mac(hmac::HMAC_SHA512),
    }
}
