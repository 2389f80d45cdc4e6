//! What the policy answers, and what it demands: the decision, limits, arguments to set, things to
//! take out of an answer.

pub mod secrets;
pub mod redact;
pub mod decision;
pub mod pdp;
pub mod limit;
pub mod arguments;
