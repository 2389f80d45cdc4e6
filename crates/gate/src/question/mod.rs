//! From a frame to the [`AccessRequest`](access::AccessRequest) that the policy decides: the packs
//! that classify tools, the operation that a call means, handles and session facts of earlier
//! calls, and routing headers.
//!
//! Nothing here decides. `session` calls these modules for each request and notification.

pub mod status;
pub mod rate;
mod path;
pub mod uri;
pub mod pack;
pub mod operation;
pub mod readers;
pub mod handles;
pub mod hold;
pub mod task;
pub mod access;
pub mod routing;
