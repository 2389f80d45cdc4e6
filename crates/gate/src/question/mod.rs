//! What a frame asks: what a call comes to by its pack, handles given out
//! earlier, and the [`AccessRequest`](access::AccessRequest) that is put to the policy.

pub mod standing;
pub mod rate;
pub mod pack;
pub mod operation;
pub mod handles;
pub mod access;
pub mod routing;
