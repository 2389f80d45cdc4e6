//! A proof lends what the gate read, for reading: nothing in it can be exchanged for another.

use bartizan_gate::evidence::step::Permitted;
use bartizan_gate::wire::frame::Frame;

fn exchange(message: &Permitted, other: Frame) -> Frame {
    std::mem::replace(message.frame().unwrap(), other)
}

fn main() {
    let _ = exchange;
}
