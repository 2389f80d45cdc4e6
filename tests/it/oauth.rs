//! OAuth through the firewall: the metadata that a client finds, and the tokens that may and may
//! not reach the server. Real requests, real signatures, a whole firewall.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod configuration;
mod forward;
pub(crate) mod issuer;
mod terminate;

use super::firewall::{Firewall, Received, Reply};

/// A GET of `target` with `headers`, each ended by CRLF.
fn get(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost:7\r\n{headers}\r\n").into_bytes()
}

/// The target of a request.
fn target(received: &Received) -> &str {
    received.head.split(' ').nth(1).unwrap()
}

/// The targets that reached the server.
fn targets(firewall: &Firewall) -> Vec<String> {
    firewall.received().iter().map(|received| target(received).to_owned()).collect()
}

/// The one `WWW-Authenticate` of a reply.
fn challenge(reply: &Reply) -> &str {
    let found = reply.header("www-authenticate");
    assert_eq!(found.len(), 1, "{reply:?}");
    found[0]
}
