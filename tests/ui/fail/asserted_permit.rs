//! A message for the server cannot be asserted from outside the gate.

use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Dispatch, Permitted, Routing};

fn main() {
    let body = b"{}".as_slice().into();
    let _ = Permitted::assertion(Dispatch::Message, body, None, CallId::from("1"), Routing::default());
}
