//! The one integration binary: one link for all of them.

mod frames;
mod packs;
mod reload;
