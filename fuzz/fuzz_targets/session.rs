//! A sequence of frames of both sides and other events, through a session.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bartizan_fuzz::session::session(bytes));
