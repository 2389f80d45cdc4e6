//! A permit is spent once: it has no copy.

use bartizan_gate::evidence::step::Permitted;

fn twice(message: &Permitted) -> (Permitted, Permitted) {
    (message.clone(), message.clone())
}

fn main() {
    let _ = twice;
}
