//! A permit is spent once: it has no copy.

use bartizan::gate::step::Permitted;

fn twice(message: &Permitted) -> (Permitted, Permitted) {
    (message.clone(), message.clone())
}

fn main() {
    let _ = twice;
}
