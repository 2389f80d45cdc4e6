//! A message for the server cannot be written down.

use bartizan::gate::record::CallId;
use bartizan::gate::step::{Dispatch, Permitted, Routing};

fn main() {
    let _ = Permitted {
        dispatch: Dispatch::Message,
        body: b"{}".as_slice().into(),
        id: None,
        call: CallId::from("1"),
        routing: Routing::default(),
    };
}
