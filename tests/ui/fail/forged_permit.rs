//! A message for the server cannot be written down.

use bartizan::gate::access::Protocol;
use bartizan::gate::record::CallId;
use bartizan::gate::step::{Permitted, Routing};

fn forge(protocol: Protocol) -> Permitted {
    Permitted {
        payload: loop {},
        method: None,
        protocol,
        call: CallId::from("1"),
        routing: Routing::default(),
    }
}

fn main() {
    let _ = forge;
}
