//! Bartizan as an MCP client: rmcp over plain HTTP. The demo's agent and `bartizan lock` (which
//! lists tools) use it; no message of an agent passes through it.

pub mod client;
