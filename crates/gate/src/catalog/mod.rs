//! The server's lists of definitions: digests, filtering, and comparison with the lock file.
//!
//! Pure functions on one page or one definition; `session` calls them and asks the policy which
//! entries to hide.

pub mod flags;
pub mod lists;
pub mod drift;
