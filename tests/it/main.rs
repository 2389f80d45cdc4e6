//! The one integration binary.

mod limits;
