//! The HTTP edges over real sockets: what reaches the server to the byte, and what the client
//! gets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

pub(crate) mod rig;
mod door;
mod exchange;
pub(crate) mod streams;
pub(crate) mod legacy_sse;
mod resume;
mod panics;
mod tls;
mod admin;
mod children;
mod starvation;
mod kept;
mod holds;
mod waiting;
mod tasks;
mod keep_alive;
mod senders;
