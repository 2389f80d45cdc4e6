//! A message for the server cannot be asserted from outside the gate.

use bartizan::gate::access::Protocol;
use bartizan::gate::record::CallId;
use bartizan::gate::step::{Permitted, Routing};

fn assert(protocol: Protocol) -> Permitted {
    Permitted::assertion(loop {}, protocol, CallId::from("1"), Routing::default())
}

fn main() {
    let _ = assert;
}
