//! The one integration binary: one link for all of them.

mod frames;
mod http_edge;
mod limits;
mod sim;
mod sse;
