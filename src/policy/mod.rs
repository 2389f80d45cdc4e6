//! Policies: found, proven, and put in place of the ones before.
//!
//! [`load`] reads files into sources and gives them a revision; [`prove`] tries those sources in a
//! child process, because a policy can overflow the stack or eat all memory and neither can be
//! caught; [`watch`] does both again whenever a file changes, and leaves the old policy whole
//! until the new one is proven. [`embedded`] is what runs where nothing is configured. Evaluation
//! itself is [`gate::rego`](crate::gate::rego).

pub mod embedded;
mod data;
pub mod load;
