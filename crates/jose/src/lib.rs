//! Verifies signed tokens (JOSE): algorithms, keys, key sets and compact JWS.
//!
//! Two callers verify a compact JWS (RFC 7515 §3.1): `bartizan-edge` verifies access tokens with an
//! issuer's JWK Set, and the policy loader verifies signatures of bundles with configured keys.
//! This crate does not interpret the payload (claims, expiry, audience, file names); the callers
//! do. It has
//!
//! - [`Algorithm`]: the algorithms that can be verified (RFC 7518 §3.1, RFC 8037 §3.1),
//! - [`Key`]: one key, out of a JWK (RFC 7517), of the PEM of a public key (RFC 7468 §13), or a
//!   shared secret,
//! - [`KeySet`]: the keys of one issuer (RFC 7517 §5),
//! - [`Jws`]: one token, and [`Jws::verify`], the only function that checks a signature.
//!
//! # What cannot happen
//!
//! - A token does not choose how it is verified. The caller passes the algorithms that it accepts,
//!   and the key states its use (RFC 8725 §3.1). A public key is never used as a shared secret,
//!   because [`Key`] holds the kind of the key.
//! - `alg: none` is not an [`Algorithm`], so it verifies nothing (RFC 8725 §3.2).
//! - No extension is ignored: a token with `crit` is refused (RFC 7515 §4.1.11).
//! - No header has two meanings: duplicate members are refused (RFC 7515 §4), by the same strict
//!   JSON reader that reads every message of MCP.
//! - Keys and addresses inside a token (`jwk`, `jku`, `x5c`, `x5u`) are not read.
//! - No error text and no `Debug` shows a key, a secret or a part of a token.
//!
//! It does not sign, and does no input or output. `ring` does the cryptography, `spki` reads DER,
//! `rustls-pki-types` reads PEM.

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
