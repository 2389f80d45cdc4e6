//! Any bytes, written to the agents' listener.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bartizan_fuzz::http1::http1(bytes));
