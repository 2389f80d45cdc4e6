//! Any bytes, read as a document and minified.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bartizan_fuzz::reading::minify(bytes));
