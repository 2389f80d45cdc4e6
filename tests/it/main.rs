//! The one integration binary: one link for all of them.

mod demo;
mod frames;
mod limits;
mod sim;
