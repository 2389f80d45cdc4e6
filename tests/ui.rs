//! The guarantees of the types, as programs that must not compile: nobody outside the gate makes a
//! proof, copies one, or has an act without its record kept.
//!
//! What the compiler says is held in `tests/ui/*.stderr`; `TRYBUILD=overwrite cargo test --test ui`
//! writes it anew after a change of the compiler or of the types. Read the difference: the reason
//! must stay the same.

#[test]
fn a_proof_cannot_be_forged_copied_or_skipped() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/the_one_way.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
