//! A protected server that is a child process.
//!
//! [`process`] starts and ends a child, [`lines`] frames what passes through its pipes, and
//! [`ChildUpstream`] lets HTTP clients share children: one for each legacy session, one for each
//! principal where there are no sessions. `stdio` uses a [`process::Process`] directly. Nothing
//! here decides: what goes in was permitted, and what comes out is yet to be judged.

mod bridge;
mod conversation;
mod era;
pub mod lines;
pub mod process;
mod relabel;

pub use bridge::ChildUpstream;
pub use process::{ChildLimits, ChildSpec, SpawnError};
