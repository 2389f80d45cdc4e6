//! HMAC-SHA-256 under a key of 32 bytes.

use hmac::{Hmac, KeyInit as _};
use sha2::Sha256;

/// HMAC-SHA-256 under `key`. HMAC pads a shorter key with zeros to one block (RFC 2104 §2), so the
/// padded key is equivalent; this constructor cannot fail.
pub fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = [0_u8; 64];
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    Hmac::new(&block.into())
}
