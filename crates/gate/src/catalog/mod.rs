//! The server's lists of definitions: filtering them, and comparing definitions with the lock.

pub mod lists;
pub mod drift;
