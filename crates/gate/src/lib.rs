//! The gate: parses messages, decides what may pass, and says what is recorded. Functions on values.
//!
//! Nothing here opens a socket, reads a clock, a file or the environment, spawns a task or writes a
//! log. Bytes and the time ([`Now`](evidence::record::Now)) come in; a
//! [`Step`](evidence::step::Step) goes out, which holds an act and the record that must be kept
//! before it. The edge calls the gate; the gate calls nobody but the policy decision point
//! ([`Pdp`](duty::pdp::Pdp)) that it was given. It does not know Rego.
//!
//! Rooms, in the order in which a frame meets them; a module uses only those declared above it:
//!
//! 1. [`wire`]: bytes to [`Frame`](wire::frame::Frame): strict JSON, JSON-RPC, the method table,
//!    routing headers.
//! 2. [`question`]: frame to [`AccessRequest`](question::access::AccessRequest): packs, operations,
//!    handles.
//! 3. [`duty`]: the [`Decision`](duty::decision::Decision) and its obligations: limits, arguments to
//!    set, redaction.
//! 4. [`catalog`]: lists of definitions: filtering, and drift from a reviewed lock.
//! 5. [`evidence`]: audit records, steps, refusals.
//! 6. [`session`]: the policy enforcement point: the way of one frame, top to bottom, in both
//!    directions. Read [`Session::client_frame`](session::Session::client_frame) first.

pub mod wire;
pub mod question;
pub mod duty;
pub mod catalog;
pub mod evidence;
pub mod session;
