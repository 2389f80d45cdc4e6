//! Any bytes, read as lines in pieces, and written as lines.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bartizan_fuzz::stdio::stdio(bytes));
