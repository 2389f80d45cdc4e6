//! What a permit holds has no name outside the gate, so none can be made or taken apart.

use bartizan_gate::evidence::step::Payload;

fn main() {}
