//! A proof lends what the gate read, for reading: nothing in it can be exchanged for another.

use bartizan::gate::frame::Frame;
use bartizan::gate::step::Permitted;

fn exchange(message: &Permitted, other: Frame) -> Frame {
    std::mem::replace(message.frame().unwrap(), other)
}

fn main() {
    let _ = exchange;
}
