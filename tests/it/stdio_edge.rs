//! Children and standard pipes: `wrap`, HTTP clients in front of stdio servers, stdio clients in
//! front of HTTP servers. Children are `sh` scripts; each test says in its script what the server
//! does.

mod bridge;
mod remote;
mod support;
mod wrap;
