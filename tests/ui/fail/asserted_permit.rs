//! A message for the server cannot be asserted from outside the gate.

use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Permitted, Routing};
use bartizan_gate::wire::protocol::Protocol;

fn assert(protocol: Protocol) -> Permitted {
    Permitted::issue_proof(loop {}, protocol, CallId::from("1"), Routing::default())
}

fn main() {
    let _ = assert;
}
