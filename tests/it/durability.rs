//! What acts wait for, over every transport, with a disk that does what the test says.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop at once, and say what it saw"
)]

pub(crate) mod disk;
mod acts;
mod faults;
