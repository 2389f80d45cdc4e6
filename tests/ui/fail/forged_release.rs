//! A message for the client cannot be written down.

use bartizan_gate::evidence::step::{Content, Released, Status};

fn main() {
    let _ = Released {
        body: b"{}".as_slice().into(),
        content: Content::Opaque,
        id: None,
        status: Status::Ok,
        own: false,
        settles: None,
        follows: None,
        retry_after: 0,
    };
}
