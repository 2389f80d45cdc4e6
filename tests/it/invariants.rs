//! What must hold of a session and of the edges' readers, for generated input: the invariants that
//! the fuzzer searches, and properties of the whole way up.
//!
//! Properties of reading alone are in `frames`, those of event streams in `sse`.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::format_push_string,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "the fuzzer's invariants, and tests"
)]

#[path = "../../fuzz/src/stubs.rs"]
pub(crate) mod stubs;
#[path = "../../fuzz/src/headers.rs"]
mod headers;
#[path = "../../fuzz/src/sse.rs"]
mod sse;
#[path = "../../fuzz/src/stdio.rs"]
mod stdio;
#[path = "../../fuzz/src/session.rs"]
mod session;
mod properties;

use crate::frames::reading;

/// An invariant of a target.
type Invariant = fn(&[u8]);

#[test]
fn the_committed_seeds_keep_the_invariants() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let targets: [(&str, Invariant); 6] = [
        ("frame", reading::frame),
        ("minify", reading::minify),
        ("headers", headers::headers),
        ("sse", sse::sse),
        ("stdio", stdio::stdio),
        ("session", session::session),
    ];
    for (target, invariant) in targets {
        let mut count = 0;
        for seed in std::fs::read_dir(seeds.join(target)).unwrap() {
            invariant(&std::fs::read(seed.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 3, "{target}: seeds are missing");
    }
}
