//! A release is spent once: it has no copy.

use bartizan_gate::evidence::step::Released;

fn twice(message: &Released) -> (Released, Released) {
    (message.clone(), message.clone())
}

fn main() {
    let _ = twice;
}
