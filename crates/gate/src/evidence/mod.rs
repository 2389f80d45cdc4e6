//! What is written down before anything happens: the audit record, the step that holds an act until
//! its record is kept, and the refusals that a client gets.

pub mod record;
pub mod step;
pub mod refusal;
