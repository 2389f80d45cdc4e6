//! The capabilities file of what runs here, in OPA's format.
//!
//! `opa check --capabilities` and Regal then flag what would not run, before it is deployed.

/// OPA's capabilities file.
pub fn capabilities() -> String {
    String::new()
}
