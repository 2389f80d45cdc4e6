//! The gate: what may pass, decided on values.
//!
//! Nothing here opens a socket, reads a clock, a file or the environment, spawns a task or writes
//! a log: bytes and [`record::Now`] come in, a [`step::Step`] goes out. The edges call it; it
//! calls nobody. Modules are declared in the order a frame meets them, and each uses only those
//! above.

pub mod wire;
pub mod question;
pub mod duty;
pub mod catalog;
pub mod evidence;
pub mod session;
