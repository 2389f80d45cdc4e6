//! Children and standard pipes: `wrap`, HTTP clients in front of stdio servers, stdio clients in
//! front of HTTP servers. Children are `sh` scripts; each test says in its script what the server
//! does.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on should stop at once, and say what it saw"
)]

mod bridge;
mod panics;
mod remote;
mod support;
mod wrap;
mod approved;
