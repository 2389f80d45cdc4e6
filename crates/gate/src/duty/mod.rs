//! The policy's decision and its obligations: rate limits, arguments to set, redaction of answers.
//!
//! Functions on values: nothing here reads a clock, waits, or asks the policy. `session` calls it,
//! in the order limits, arguments, approval; redaction follows when the answer comes.

pub use crate::question::hold;

pub mod secrets;
pub mod redact;
pub mod duties;
pub mod decision;
pub mod pdp;
pub mod limit;
pub mod arguments;
