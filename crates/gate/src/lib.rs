//! The gate: parses messages, enforces policy decisions, and produces audit records. Pure functions
//! on values; the policy enforcement point (PEP) of the firewall, without its input and output.
//!
//! Nothing here opens a socket, reads a clock, a file or the environment, spawns a task or writes a
//! log. Its inputs are bytes and the time ([`Now`](evidence::record::Now)); its output is a
//! [`Step`](evidence::step::Step), which holds an act and the record that must be kept before it.
//! `bartizan-edge` calls the gate; the gate calls only the policy decision point
//! ([`Pdp`](duty::pdp::Pdp)) that it was given. It does not know Rego.
//!
//! [`memory`] counts the bytes that are kept between two messages, by principal and in total.
//!
//! Rooms, in the order in which a frame meets them; a module uses only those declared above it:
//!
//! 1. [`wire`]: bytes to [`Frame`](wire::frame::Frame): strict JSON, JSON-RPC, the method table,
//!    routing headers.
//! 2. [`question`]: frame to [`AccessRequest`](question::access::AccessRequest): packs, operations,
//!    handles.
//! 3. [`duty`]: the [`Decision`](duty::decision::Decision) and its obligations: limits, arguments
//!    to set, redaction.
//! 4. [`catalog`]: lists of definitions: filtering, and drift from a reviewed lock.
//! 5. [`evidence`]: audit records, steps, refusals.
//! 6. [`session`]: one conversation: what happens to one frame, in both directions. Read
//!    [`Session::client_frame`](session::Session::client_frame) first.

pub mod memory;
mod steps;
pub mod wire;
pub mod question;
pub mod duty;
pub mod catalog;
pub mod evidence;
pub mod session;
