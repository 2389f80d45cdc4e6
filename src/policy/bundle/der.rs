//! Public keys out of PEM: what `ring` takes is inside what everybody else writes.
//!
//! Reads `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7), and no more of DER than that needs. Whether the key itself makes sense is for `ring` to say.

use rustls_pki_types::pem::{PemObject as _, SectionKind as S};

/// Algorithm identifiers, DER of the whole `AlgorithmIdentifier` without its header.
const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
const P256: &[u8] =
    &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] =
    &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 5, 0x2b, 0x81, 0x04, 0, 0x22];
const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// What a key can verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// The first public key in `pem`: its kind, and its bytes as `ring` takes them.
pub(super) fn public_key(pem: &[u8]) -> Result<(KeyKind, Vec<u8>), &'static str> {
    let (kind, der) =
        <(S, Vec<u8>)>::from_pem_slice(pem).map_err(|_| "it holds no PEM of a public key")?;
    if kind == S::PublicKey {
        return subject_public_key(&der).ok_or("a key of no known kind");
    }
    let private = matches!(kind, S::RsaPrivateKey | S::PrivateKey | S::EcPrivateKey);
    Err(if private {
        "a private key; only the signer may have that"
    } else {
        "it holds no public key (`BEGIN PUBLIC KEY`)"
    })
}

fn subject_public_key(der: &[u8]) -> Option<(KeyKind, Vec<u8>)> {
    let (info, rest) = element(der, SEQUENCE)?;
    let (algorithm, key) = element(info, SEQUENCE)?;
    let (bits, after) = element(key, BIT_STRING)?;
    if !rest.is_empty() || !after.is_empty() {
        return None;
    }
    let kind = match algorithm {
        RSA => KeyKind::Rsa,
        P256 => KeyKind::P256,
        P384 => KeyKind::P384,
        ED25519 => KeyKind::Ed25519,
        _ => return None,
    };
    // The first byte counts unused bits; keys are whole bytes.
    let key = bits.strip_prefix(&[0])?;
    Some((kind, key.to_vec()))
}

/// The content of the first element of `der`, which must have this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}
