//! A message for the server cannot be written down.

use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Dispatch, Permitted, Routing};

fn main() {
    let _ = Permitted {
        dispatch: Dispatch::Message,
        body: b"{}".as_slice().into(),
        id: None,
        call: CallId::from("1"),
        routing: Routing::default(),
    };
}
