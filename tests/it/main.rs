//! The one integration binary: one link for all of them.

mod config;
mod engine_safety;
mod firewall;
mod frames;
mod limits;
mod packs;
mod rego;
mod sim;
mod threats;
