//! Bytes and what they say: strict JSON, JSON-RPC frames, routing headers, the protocol spoken, and
//! characters that cannot be seen.

pub mod protocol;
pub mod document;
pub mod frame;
pub mod headers;
pub mod unseen;
