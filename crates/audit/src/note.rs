//! Signed notes: a text with Ed25519 signatures, in the form that transparency logs use.
//!
//! The form is C2SP's `signed-note`: the text, an empty line, and a line `— <key name> <base64>` for
//! each signature. Public keys are written as `<key name>+<key id>+<base64>`, which tools for such
//! logs call a verifier key. `ring` does the cryptography. [`checkpoint`](super::checkpoint) signs
//! notes, [`verify`](super::verify) opens them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

/// Longest note that is read, bytes.
pub const NOTE_BYTES_MAX: usize = 1 << 16;

/// Longest name of a key, bytes.
pub const KEY_NAME_BYTES_MAX: usize = 256;

/// The byte that says Ed25519 (`signed-note`, "Signature types").
const TYPE_ED25519: u8 = 1;

/// How a line with a signature begins.
const SIGNATURE_PREFIX: &str = "— ";

/// A public key with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: Box<str>,
    id: [u8; 4],
    key: [u8; 32],
}

/// A private key with its name.
pub struct Signer {
    public: PublicKey,
    pair: Ed25519KeyPair,
}

/// Shows the public part alone.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKey {
    /// Not `<name>+<id>+<base64>`.
    Form,
    /// The name is empty, too long, or has a space, a control character or `+`.
    Name,
    /// The key is of another kind than Ed25519.
    Kind,
    /// The id in the text is not the one of name and key.
    Id,
    /// No PEM of a private key of Ed25519 (PKCS #8).
    Private,
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "a key is written as `<name>+<8 hexadecimal digits>+<base64>`",
            Self::Name => "a name of a key has 1 to 256 bytes, and no space and no `+`",
            Self::Kind => "the key is not one of Ed25519",
            Self::Id => "the key's id is not the one of its name and its bytes",
            Self::Private => {
                "it holds no PEM of a private key of Ed25519; \
                 `openssl genpkey -algorithm ed25519` makes one"
            }
        })
    }
}

impl std::error::Error for NoKey {}

/// Why a note is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadNote {
    /// Not a text with an empty line and signatures after it.
    Form,
    /// A signature of a known key is not one of this text.
    Signature,
    /// No known key has signed it.
    UnknownKey,
}

impl fmt::Display for BadNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "it is not a signed note",
            Self::Signature => "its signature is not one of this text",
            Self::UnknownKey => "it is signed by none of the given keys",
        })
    }
}

impl std::error::Error for BadNote {}

fn is_name(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    (1..=KEY_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(bad)
}

impl PublicKey {
    /// The key `key` (RFC 8032 §5.1.5) under `name`.
    ///
    /// # Errors
    ///
    /// [`NoKey::Name`].
    pub fn new(name: &str, key: [u8; 32]) -> Result<Self, NoKey> {
        if !is_name(name) {
            return Err(NoKey::Name);
        }
        let mut hash = Sha256::new();
        hash.update(name);
        hash.update([b'\n', TYPE_ED25519]);
        hash.update(key);
        let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
        Ok(Self { name: name.into(), id: [a, b, c, d], key })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `signature` is this key's over `text`.
    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(text.as_bytes(), signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed: Vec<u8> = std::iter::once(TYPE_ED25519).chain(self.key).collect();
        let id = u32::from_be_bytes(self.id);
        write!(f, "{}+{id:08x}+{}", self.name, STANDARD.encode(typed))
    }
}

impl FromStr for PublicKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let mut parts = text.trim().splitn(3, '+');
        let mut part = || parts.next().ok_or(NoKey::Form);
        let (name, id, encoded) = (part()?, part()?, part()?);
        let typed = STANDARD.decode(encoded).map_err(|_| NoKey::Form)?;
        let (kind, key) = typed.split_first().ok_or(NoKey::Form)?;
        if *kind != TYPE_ED25519 {
            return Err(NoKey::Kind);
        }
        let key = Self::new(name, key.try_into().map_err(|_| NoKey::Kind)?)?;
        if id != format!("{:08x}", u32::from_be_bytes(key.id)) {
            return Err(NoKey::Id);
        }
        Ok(key)
    }
}

impl Signer {
    /// The key of `seed` (RFC 8032 §5.1.5). Without `name` it is called after its public key.
    ///
    /// # Errors
    ///
    /// [`NoKey::Name`].
    pub fn from_seed(seed: &[u8; 32], name: Option<&str>) -> Result<Self, NoKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoKey::Private)?;
        Self::new(pair, name)
    }

    /// The key in `pem`, a private key in PKCS #8 (RFC 8410). Without `name` it is called after its
    /// public key.
    ///
    /// # Errors
    ///
    /// [`NoKey::Private`], [`NoKey::Name`].
    pub fn from_pem(pem: &[u8], name: Option<&str>) -> Result<Self, NoKey> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| NoKey::Private)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_der())
            .map_err(|_| NoKey::Private)?;
        Self::new(pair, name)
    }

    fn new(pair: Ed25519KeyPair, name: Option<&str>) -> Result<Self, NoKey> {
        let key: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| NoKey::Kind)?;
        let name = name.map_or_else(|| own_name(&key), str::to_owned);
        Ok(Self { public: PublicKey::new(&name, key)?, pair })
    }

    /// The public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// `text` as a note with one signature. It must end with a line feed.
    pub fn sign(&self, text: &str) -> String {
        let mut signature = self.public.id.to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n{SIGNATURE_PREFIX}{} {}\n", self.public.name, STANDARD.encode(signature))
    }
}

/// `bartizan/` and the first 8 bytes of the key's SHA-256, hexadecimal.
fn own_name(key: &[u8; 32]) -> String {
    let digest = Sha256::digest(key);
    let first = digest.iter().take(8).fold(0_u64, |all, byte| (all << 8) | u64::from(*byte));
    format!("bartizan/{first:016x}")
}

/// The text of `note`, without checking a signature, and its lines of signatures.
///
/// # Errors
///
/// [`BadNote::Form`].
pub fn split(note: &str) -> Result<(&str, &str), BadNote> {
    if note.len() > NOTE_BYTES_MAX || note.contains(|c: char| c < ' ' && c != '\n') {
        return Err(BadNote::Form);
    }
    let (text, signatures) = note.rsplit_once("\n\n").ok_or(BadNote::Form)?;
    let whole = signatures.strip_suffix('\n').ok_or(BadNote::Form)?;
    if whole.is_empty() || !whole.lines().all(|line| line.starts_with(SIGNATURE_PREFIX)) {
        return Err(BadNote::Form);
    }
    let text = note.get(..text.len().saturating_add(1)).ok_or(BadNote::Form)?;
    Ok((text, whole))
}

/// The text of `note` and the first key of `keys` that has signed it.
///
/// # Errors
///
/// The note has no valid signature of one of `keys`, or an invalid one.
pub fn open<'n, 'k>(
    note: &'n str,
    keys: &'k [PublicKey],
) -> Result<(&'n str, &'k PublicKey), BadNote> {
    let (text, signatures) = split(note)?;
    let mut signed = None;
    for line in signatures.lines() {
        let rest = line.strip_prefix(SIGNATURE_PREFIX).ok_or(BadNote::Form)?;
        let (name, encoded) = rest.rsplit_once(' ').ok_or(BadNote::Form)?;
        let decoded = STANDARD.decode(encoded).map_err(|_| BadNote::Form)?;
        let (id, signature) = decoded.split_at_checked(4).ok_or(BadNote::Form)?;
        let mut known = keys.iter().filter(|key| &*key.name == name && key.id == id).peekable();
        if known.peek().is_none() {
            continue;
        }
        let key = known.find(|key| key.verifies(text, signature)).ok_or(BadNote::Signature)?;
        signed = signed.or(Some(key));
    }
    signed.map(|key| (text, key)).ok_or(BadNote::UnknownKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of C2SP's `tlog-checkpoint` is signed with a key that is not published, so this
    /// takes the note and key of Go's checksum database (`golang.org/x/mod/sumdb/note`, its
    /// documentation's example).
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_of_another_program_is_opened() {
        let key: PublicKey = PETER.parse().unwrap();
        assert_eq!(key.to_string(), PETER);
        let (text, by) = open(NOTE, std::slice::from_ref(&key)).unwrap();
        assert!(text.starts_with("If you think") && text.ends_with("problem is.\n"), "{text}");
        assert_eq!(by, &key);
        let changed = NOTE.replace("your", "our");
        assert_eq!(open(&changed, std::slice::from_ref(&key)), Err(BadNote::Signature));
        assert_eq!(open(NOTE, &[]), Err(BadNote::UnknownKey));
    }

    #[test]
    fn what_is_signed_is_opened_with_the_public_key_alone() {
        let signer = Signer::from_seed(&[7; 32], Some("log.example/a")).unwrap();
        let other = Signer::from_seed(&[8; 32], Some("log.example/a")).unwrap();
        let note = signer.sign("log.example/a\n3\nAAAA\n");
        let keys = [other.public().clone(), signer.public().to_string().parse().unwrap()];
        assert_eq!(open(&note, &keys).unwrap(), ("log.example/a\n3\nAAAA\n", &keys[1]));
        assert_eq!(open(&note, &keys[..1]), Err(BadNote::UnknownKey));
        let named = Signer::from_seed(&[7; 32], None).unwrap();
        assert!(named.public().name().starts_with("bartizan/"), "{}", named.public());
        assert!(!format!("{signer:?}").contains("pair"));
    }

    #[test]
    fn what_is_no_note_or_key_is_refused() {
        for note in ["", "text\n", "text\n\n", "text\n\n— name\n", "a\tb\n\n— n AAAA\n", "t\n\nx\n"]
        {
            assert!(open(note, &[PETER.parse().unwrap()]).is_err(), "{note:?}");
        }
        let other_id = PETER.replace("c74f20a3", "c74f20a4");
        for (text, why) in [
            ("name", NoKey::Form),
            ("a+b", NoKey::Form),
            (&*other_id, NoKey::Id),
            ("a b+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", NoKey::Name),
            ("a+c74f20a3+AhpB", NoKey::Kind),
        ] {
            assert_eq!(text.parse::<PublicKey>(), Err(why), "{text}");
        }
        assert_eq!(Signer::from_pem(b"x", None).unwrap_err(), NoKey::Private);
    }
}
