//! Bytes and what they say: strict JSON, JSON-RPC frames, the methods of MCP, routing headers, the
//! protocol spoken, characters that cannot be seen, and hexadecimal.
//!
//! Comments cite rules of reading as P1 to P16 (`docs/strict-profile.md`) and attacks by a letter and
//! a number (`docs/threats.md`).

pub mod hex;
pub mod protocol;
pub mod document;
pub mod unseen;
pub mod method;
pub mod frame;
pub mod headers;
