//! What must hold for any bytes. Each target in `fuzz_targets/` is one call of a function here;
//! `tests/it` calls the same functions with generated input and with the committed seeds, all but
//! `http1`: it makes time pass only once nobody has anything left to do, and owns its thread.
//!
//! `cargo +nightly fuzz run frame fuzz/corpus/frame fuzz/seeds/frame -- -dict=fuzz/json.dict`
//! searches on from the seeds; what it finds of interest stays in the uncommitted `corpus/`.

pub mod reading;
pub mod stubs;
pub mod headers;
pub mod sse;
pub mod stdio;
pub mod session;
pub mod http1;
