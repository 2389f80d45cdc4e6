//! Any bytes, read as a document and as a frame of either side.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bartizan_fuzz::reading::frame(bytes));
