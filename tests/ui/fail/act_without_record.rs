//! An act cannot be taken out of its step: only a kept record gives it.

use bartizan_gate::evidence::step::{Act, Step};

fn take(step: Step) -> Act {
    step.act
}

fn main() {
    let _ = take;
}
