//! A protected server that is a child process.
//!
//! [`process`] starts and ends a child, [`lines`] frames the messages in its pipes, and
//! [`ChildUpstream`] lets HTTP clients share children: one child for each legacy session, one for
//! each principal where there are no sessions. `client::child` uses a [`process::Process`] directly
//! for one client on a pipe. Nothing here decides: what is written was permitted by the gate, and
//! what is read goes to the gate.

mod bridge;
mod conversation;
mod era;
pub mod lines;
mod numbers;
pub mod process;
mod relabel;

pub use bridge::ChildUpstream;
pub use process::{ChildLimits, ChildSpec, Launcher, SpawnError};
