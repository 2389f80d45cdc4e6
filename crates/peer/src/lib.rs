//! Bartizan as an MCP client: rmcp over plain HTTP, for the demo and for listing tools.

pub mod client;
