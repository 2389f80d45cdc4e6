//! A key with the algorithms that it may verify.

use std::fmt;

use ring::hmac;
use ring::signature::UnparsedPublicKey;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use spki::der::Decode as _;
use spki::der::asn1::AnyRef;
use spki::{AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef};

use crate::algorithm::{Algorithm, Check, KeyKind};

/// Largest PEM from which a key is read, bytes.
pub const PEM_BYTES_MAX: usize = 1 << 20;

/// `rsaEncryption` (RFC 3279 §2.3.1).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// `id-ecPublicKey` (RFC 5480 §2.1.1).
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `secp256r1`, the curve P-256 (RFC 5480 §2.1.1.1).
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// `secp384r1`, the curve P-384 (RFC 5480 §2.1.1.1).
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// `id-Ed25519` (RFC 8410 §3).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// One key: a public key, or a shared secret.
#[derive(Clone)]
pub struct Key {
    /// Its id in a JWK Set (`kid`, RFC 7517 §4.5).
    pub(crate) id: Option<Box<str>>,
    /// The only algorithm that it may be used with, where one is stated.
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) kind: KeyKind,
    /// The key in the form that `ring` expects: an `RSAPublicKey` in DER (RFC 8017 §A.1.1), an
    /// uncompressed point (SEC 1 §2.3.3), 32 bytes (RFC 8032 §5.1.5), or the secret itself.
    pub(crate) bytes: Vec<u8>,
}

/// Does not show the bytes of the key, which may be a secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Why a key cannot be read, or cannot be used with an algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKey {
    /// Larger than [`PEM_BYTES_MAX`].
    TooLarge,
    /// There is no PEM section, or it is damaged.
    NoPem,
    /// The first PEM section is a private key, which only the signer may have.
    Private,
    /// The first PEM section is not a public key; it may be a certificate.
    NotPublic,
    /// Not a `SubjectPublicKeyInfo` in DER (RFC 5280 §4.1.2.7), or one of a kind that no
    /// [`Algorithm`] uses.
    UnknownKind,
    /// The key is of another kind than this algorithm needs.
    OtherKind(Algorithm),
    /// The secret has no bytes.
    EmptySecret,
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "it is larger than {PEM_BYTES_MAX} bytes"),
            Self::NoPem => f.write_str("it holds no PEM of a public key"),
            Self::Private => f.write_str("a private key; only the signer may have that"),
            Self::NotPublic => f.write_str("it holds no public key (`BEGIN PUBLIC KEY`)"),
            Self::UnknownKind => f.write_str("a key of no known kind"),
            Self::OtherKind(algorithm) => {
                write!(f, "a key of another kind than {} needs", algorithm.as_str())
            }
            Self::EmptySecret => f.write_str("the secret is empty"),
        }
    }
}

impl std::error::Error for NoKey {}

impl Key {
    /// Reads the public key in the first section of `pem` (RFC 7468 §13), for use with `algorithm`
    /// alone. Whether its numbers form a valid key is checked when it verifies.
    ///
    /// # Errors
    ///
    /// [`NoKey`], except `EmptySecret`.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, NoKey> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(NoKey::TooLarge);
        }
        let (section, der) =
            <(SectionKind, Vec<u8>)>::from_pem_slice(pem).map_err(|_| NoKey::NoPem)?;
        let private = matches!(
            section,
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey
        );
        if section != SectionKind::PublicKey {
            return Err(if private { NoKey::Private } else { NoKey::NotPublic });
        }
        let info = SubjectPublicKeyInfoRef::from_der(&der).map_err(|_| NoKey::UnknownKind)?;
        let kind = kind(&info.algorithm).ok_or(NoKey::UnknownKind)?;
        let bytes = info.subject_public_key.as_bytes().ok_or(NoKey::UnknownKind)?.to_vec();
        if kind != algorithm.key_kind() {
            return Err(NoKey::OtherKind(algorithm));
        }
        Ok(Self { id: None, algorithm: Some(algorithm), kind, bytes })
    }

    /// Takes a secret that signer and verifier share, for use with `algorithm` alone.
    ///
    /// # Errors
    ///
    /// `OtherKind` if `algorithm` is not symmetric, `EmptySecret`.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, NoKey> {
        if !algorithm.is_symmetric() {
            return Err(NoKey::OtherKind(algorithm));
        }
        if secret.is_empty() {
            return Err(NoKey::EmptySecret);
        }
        let bytes = secret.to_vec();
        Ok(Self { id: None, algorithm: Some(algorithm), kind: KeyKind::Secret, bytes })
    }

    /// Whether the key may verify signatures of `algorithm`. The key decides this, not the token
    /// (RFC 8725 §3.1).
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind == algorithm.key_kind() && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether `signature` over `message` is valid. `algorithm` must be one that this key
    /// [fits](Self::fits).
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match algorithm.check() {
            Check::Signature(check) => {
                UnparsedPublicKey::new(check, &self.bytes).verify(message, signature).is_ok()
            }
            // `hmac::verify` compares in constant time.
            Check::Mac(mac) => {
                hmac::verify(&hmac::Key::new(mac, &self.bytes), message, signature).is_ok()
            }
        }
    }
}

/// Returns the kind of key of an algorithm identifier. Its parameters must be as the RFCs require:
/// NULL for RSA (RFC 3279 §2.3.1), the curve for a point (RFC 5480 §2.1.1), absent for Ed25519 (RFC
/// 8410 §3).
fn kind(found: &AlgorithmIdentifierRef<'_>) -> Option<KeyKind> {
    if found.oid == RSA && found.parameters == Some(AnyRef::NULL) {
        Some(KeyKind::Rsa)
    } else if found.assert_oids(EC, P256).is_ok() {
        Some(KeyKind::P256)
    } else if found.assert_oids(EC, P384).is_ok() {
        Some(KeyKind::P384)
    } else if found.oid == ED25519 && found.parameters.is_none() {
        Some(KeyKind::Ed25519)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made;

    const NO_KIND: &str = "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn each_algorithm_takes_the_keys_of_its_kind_alone() {
        for algorithm in Algorithm::ALL {
            for (kind, pem) in [
                (KeyKind::Rsa, made::RSA),
                (KeyKind::P256, made::P256),
                (KeyKind::P384, made::P384),
                (KeyKind::Ed25519, made::ED25519),
            ] {
                let read = Key::from_pem(algorithm, pem.as_bytes());
                match read {
                    Ok(key) => assert!(kind == algorithm.key_kind() && key.kind == kind),
                    Err(why) => {
                        assert_ne!(kind, algorithm.key_kind(), "{algorithm:?}");
                        assert_eq!(why, NoKey::OtherKind(algorithm));
                    }
                }
            }
            let shared = Key::from_secret(algorithm, b"secret");
            assert_eq!(shared.is_ok(), algorithm.is_symmetric(), "{algorithm:?}");
        }
        let empty = Key::from_secret(Algorithm::HS256, b"");
        assert_eq!(empty.unwrap_err(), NoKey::EmptySecret);
    }

    #[test]
    fn what_holds_no_public_key_is_named() {
        let (text, large) = ("-- no PEM --".to_owned(), " ".repeat(PEM_BYTES_MAX + 1));
        let cut = made::RSA.replace("-----END", "----END");
        let below = made::RSA.replace("PUBLIC KEY", "CERTIFICATE");
        let ec = made::P256_PRIVATE.replace("PRIVATE KEY", "EC PRIVATE KEY");
        for (pem, why) in [
            ("", NoKey::NoPem),
            (&text, NoKey::NoPem),
            (&cut, NoKey::NoPem),
            (&large, NoKey::TooLarge),
            (made::RSA_PRIVATE, NoKey::Private),
            (made::P256_PRIVATE, NoKey::Private),
            (&ec, NoKey::Private),
            (&below, NoKey::NotPublic),
            (NO_KIND, NoKey::UnknownKind),
        ] {
            assert_eq!(Key::from_pem(Algorithm::RS256, pem.as_bytes()).unwrap_err(), why, "{pem}");
        }
        let mut first = made::RSA_PRIVATE.to_owned();
        first.push_str(made::RSA);
        let read = Key::from_pem(Algorithm::RS256, first.as_bytes());
        assert_eq!(read.unwrap_err(), NoKey::Private, "the first section counts");
        let with_text = format!("the key of the release:\r\n\r\n{}\nno more\n", made::RSA);
        assert!(Key::from_pem(Algorithm::RS256, with_text.as_bytes()).is_ok());
    }

    /// DER around a key, each with one thing wrong.
    #[test]
    fn what_is_no_subject_public_key_info_is_refused() {
        let (section, good) =
            <(SectionKind, Vec<u8>)>::from_pem_slice(made::ED25519.as_bytes()).unwrap();
        assert_eq!((section, good.len()), (SectionKind::PublicKey, 44));
        assert_eq!(good[..12], [0x30, 42, 0x30, 5, 0x06, 3, 0x2b, 0x65, 0x70, 0x03, 33, 0]);
        let changed = |at: usize, byte: u8| {
            let mut der = good.clone();
            der[at] = byte;
            der
        };
        // X25519's identifier; an unused bit; another tag; lengths that do not fit or are not the
        // shortest; a byte more, a byte less; parameters, which Ed25519 has none.
        let mut long = vec![0x30, 0x81];
        long.extend_from_slice(&good[1..]);
        let null = [&[0x30, 44, 0x30, 7], &good[4..9], &[0x05, 0], &good[9..]].concat();
        for der in [
            changed(8, 0x6e),
            changed(11, 1),
            changed(9, 0x04),
            changed(1, 41),
            changed(3, 6),
            long,
            [&good[..], &[0]].concat(),
            good[..43].to_vec(),
            null,
            Vec::new(),
        ] {
            let pem = made::pem("PUBLIC KEY", &der);
            let read = Key::from_pem(Algorithm::EdDSA, pem.as_bytes());
            assert_eq!(read.unwrap_err(), NoKey::UnknownKind, "{der:02x?}");
        }
        assert!(Key::from_pem(Algorithm::EdDSA, made::pem("PUBLIC KEY", &good).as_bytes()).is_ok());
    }

    #[test]
    fn no_text_shows_a_key() {
        let key = Key::from_secret(Algorithm::HS256, b"s3cret").unwrap();
        let shown = format!("{key:?}");
        assert_eq!(shown, "Key { id: None, algorithm: Some(HS256), kind: Secret, .. }");
    }
}
