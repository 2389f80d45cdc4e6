//! Bytes and what they say: strict JSON, JSON-RPC frames, the methods of MCP, routing headers, the
//! protocol spoken, and characters that cannot be seen.

pub mod protocol;
pub mod document;
pub mod method;
pub mod frame;
pub mod headers;
pub mod unseen;
