//! The one integration binary: one link for all of them.

mod frames;
mod limits;
mod sim;
mod stdio_edge;
