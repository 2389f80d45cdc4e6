//! A release is spent once: it has no copy.

use bartizan::gate::step::Released;

fn twice(message: &Released) -> (Released, Released) {
    (message.clone(), message.clone())
}

fn main() {
    let _ = twice;
}
