//! What several firewalls share, in one Redis or Valkey: held calls ([`holds`]) and what limits have
//! counted ([`limits`]).
//!
//! Everything that must be decided once among all of them is one script, which the server runs as a
//! whole: a batch of writes that names the versions it replaces, and what one call takes from all of
//! its limits.
//!
//! Nothing here passes a call. If the server is away, a held call waits, and each firewall counts its
//! limits alone, more strictly.

mod link;
pub mod holds;
pub mod limits;

pub use holds::SharedHolds;
pub use limits::SharedCounts;
pub use link::{Link, LinkConfig, LinkError};
