//! The one integration binary: one link for all of them.

mod config;
mod firewall;
mod frames;
mod limits;
mod packs;
mod policies;
mod reload;
mod sim;
mod threats;
