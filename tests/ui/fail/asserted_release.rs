//! A message for the client cannot be asserted from outside the gate.

use bartizan_gate::evidence::step::{Content, Released, Status};

fn main() {
    let _ = Released::issue_proof(b"{}".as_slice().into(), Content::Opaque, None, Status::Ok, false);
}
