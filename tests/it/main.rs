//! Integration tests, in one binary: one link.

mod journal;
