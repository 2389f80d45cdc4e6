//! The one integration binary: one link for all of them.

mod audit_cli;
mod cli;
mod config;
mod demo;
mod deploy;
mod firewall;
mod frames;
mod http_edge;
mod journal;
mod limits;
mod otlp;
mod packs;
mod policies;
mod reload;
mod sim;
mod sse;
mod stdio_edge;
mod threats;
mod tidy;
