//! A message for the server cannot be written down.

use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Permitted, Routing};
use bartizan_gate::wire::protocol::Protocol;

fn forge(protocol: Protocol) -> Permitted {
    Permitted {
        payload: loop {},
        method: None,
        protocol,
        call: CallId::from("1"),
        routing: Routing::default(),
        duties: loop {},
    }
}

fn main() {
    let _ = forge;
}
