//! Any bytes, read as an event stream in pieces.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bartizan_fuzz::sse::sse(bytes));
