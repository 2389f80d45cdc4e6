//! Signed tokens and the keys that verify them: JOSE, as far as a verifier needs it.
//!
//! Two callers verify a compact JWS (RFC 7515 §3.1): `bartizan-edge`, access tokens of clients with
//! an issuer's JWK Set; the policy loader, signatures of bundles with keys of the configuration.
//! What the payload says is theirs to judge: claims, expiry, audience, names of files. Here are
//!
//! - [`Algorithm`]: the algorithms that can be verified (RFC 7518 §3.1, RFC 8037 §3.1),
//! - [`Key`]: one key, out of a JWK (RFC 7517), of the PEM of a public key (RFC 7468 §13), or a
//!   shared secret,
//! - [`KeySet`]: the keys of one issuer (RFC 7517 §5),
//! - [`Jws`]: one token, and [`Jws::verify`], the only function that checks a signature.
//!
//! # What cannot happen
//!
//! - A token does not choose how it is checked. The caller passes the algorithms that it accepts,
//!   and the key says what it is for (RFC 8725 §3.1). A public key is never taken as a shared
//!   secret, because [`Key`] knows what kind of key it is.
//! - `alg: none` verifies nothing: it is no [`Algorithm`] (RFC 8725 §3.2).
//! - No extension is ignored: a token with `crit` is refused (RFC 7515 §4.1.11).
//! - No header has two meanings: members that stand twice are refused (RFC 7515 §4), by the reader
//!   that also reads every message of MCP.
//! - Keys and addresses inside a token (`jwk`, `jku`, `x5c`, `x5u`) are not even read.
//! - No error text and no `Debug` shows a key, a secret or a part of a token.
//!
//! Signing is not here; the crate is pure: bytes in, values out. The mathematics are `ring`'s, DER
//! is read by `spki`, PEM by `rustls-pki-types`.

mod algorithm;
mod key;
mod jwk;
mod jws;
#[cfg(test)]
mod made;

pub use algorithm::Algorithm;
pub use jwk::{KEY_SET_BYTES_MAX, KEYS_MAX, KeySet, NoKeySet};
pub use jws::{HEADER_BYTES_MAX, Jws, Malformed, NotVerified};
pub use key::{Key, NoKey, PEM_BYTES_MAX};
