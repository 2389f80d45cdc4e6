//! The one integration binary: one link for all of them.

mod audit_cli;
mod cli;
mod config;
mod demo;
mod deploy;
mod engine_safety;
mod failures;
mod fidelity;
mod firewall;
mod frames;
mod http_edge;
mod journal;
mod limits;
mod otlp;
mod packs;
mod policies;
mod readme;
mod rego;
mod reload;
mod sim;
mod sse;
mod stdio_edge;
mod threats;
mod threats_http;
mod threats_stdio;
mod tidy;
