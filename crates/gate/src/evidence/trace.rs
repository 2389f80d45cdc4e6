//! The ids of the spans that are made of a call's records.
//!
//! They are digests of the run and the call, so that everybody who knows a call finds the same ids:
//! the exporter, which makes spans of records, and the gate, which tells a server below which span
//! its own belong.

use sha2::{Digest as _, Sha256};

/// The first `N` bytes of the id of `what` (`trace`, `server`, `client` or `hold`) in the run `boot`,
/// of the call or whatever `key` names there.
pub fn id<const N: usize>(what: &str, boot: &str, key: &str) -> [u8; N] {
    let digest = Sha256::digest(format!("{what}\n{boot}\n{key}"));
    let mut id = [0; N];
    for (to, from) in id.iter_mut().zip(digest) {
        *to = from;
    }
    id
}
