//! A message for the server cannot be asserted from outside the gate.

use bartizan::gate::record::CallId;
use bartizan::gate::step::{Dispatch, Permitted, Routing};

fn main() {
    let body = b"{}".as_slice().into();
    let _ = Permitted::assertion(Dispatch::Message, body, None, CallId::from("1"), Routing::default());
}
