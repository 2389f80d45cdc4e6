//! The threat model of an MCP server, made from what its lists show (`bartizan assess`).
//!
//! Nothing here reads or writes: the program connects to the server and hands over what it listed
//! ([`observed`]); an [`Assessment`](assessment::Assessment) is a value, which [`render`] turns into
//! text, JSON, Markdown or HTML, and [`starter`] into the files of a first policy.
//!
//! What a server says of itself is a claim. Names and annotations are therefore hints that can only
//! make the classification of a tool worse, and what no list can show is reported as not certain.

pub mod observed;
pub mod hints;
pub mod aivss;
mod kinds;
mod layers;
mod search;
mod findings;
mod tools;
mod factors;
pub mod assessment;
pub mod render;
pub mod starter;
