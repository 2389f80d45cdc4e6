//! Audit records, the step that releases an act only once its record is kept, and the refusals that
//! a client receives.
//!
//! Nothing here writes: a record is a value, and an [`AuditSink`](step::AuditSink) of the edge
//! keeps it.

pub mod trace;
mod mask;
pub mod text;
pub(crate) mod told;
pub mod finding;
pub mod record;
pub mod step;
pub mod repeats;
pub mod refusal;
pub(crate) mod task;
