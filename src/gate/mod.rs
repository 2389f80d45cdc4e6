//! The gate: what may pass, decided on values.
//!
//! Nothing here opens a socket, reads a clock, a file or the environment, spawns a task or writes
//! a log: bytes and [`record::Now`] come in, a [`step::Step`] goes out. The edges call it; it
//! calls nobody. Modules are declared in the order a frame meets them, and each uses only those
//! above.

pub mod document;
pub mod secrets;
pub mod redact;
pub mod flags;
pub mod lock;
pub mod rate;
pub mod pack;
pub mod operation;
pub mod memory;
pub mod access;
pub mod method;
pub mod frame;
pub mod headers;
pub mod decision;
pub mod pdp;
pub mod rego;
pub mod limit;
pub mod inspect;
pub mod record;
pub mod step;
pub mod refusal;
pub mod tasks;
pub mod protected;
pub mod arguments;
pub mod session;
