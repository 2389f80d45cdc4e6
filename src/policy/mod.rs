//! Policies: loading, proving, watching.
