//! Integration tests, in one binary: one link.

mod journal;
mod audit_cli;
mod otlp;
