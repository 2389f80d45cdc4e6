//! What must hold for any bytes. Each target in `fuzz_targets/` is one call of a function here;
//! `tests/it` calls the same functions with generated input and with the committed seeds, all but
//! `http1`, which uses virtual time that advances only when all tasks are idle, and a thread of its
//! own.
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
