//! Routing headers and a body, through a session.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bartizan_fuzz::headers::headers(bytes));
