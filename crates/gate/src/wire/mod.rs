//! From bytes to frames: strict JSON, JSON-RPC 2.0, the methods of MCP, routing headers, protocol
//! revisions, invisible characters, hexadecimal, and the code that authenticates bytes.
//!
//! Nothing here knows principals, policies or sessions. Comments cite the strict profile as P1 to
//! P16 (`docs/strict-profile.md`) and threats by a letter and a number (`docs/threats.md`).

pub mod hex;
pub mod mac;
pub mod protocol;
pub mod document;
pub mod unseen;
pub mod inert;
pub(crate) mod fold;
pub mod method;
pub mod name;
pub mod headers;
pub mod frame;
