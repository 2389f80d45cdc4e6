//! What several firewalls share, in one Redis or Valkey: held calls ([`holds`]).
//!
//! Everything that must be decided once among all of them is one script, which the server runs as a
//! whole, such as a batch of writes that names the versions it replaces.
//!
//! Nothing here passes a call. If the server is away, a held call waits.

mod link;
pub mod holds;

pub use holds::SharedHolds;
pub use link::{Link, LinkConfig, LinkError};
