//! What a permit holds has no name outside the gate, so none can be made or taken apart.

use bartizan::gate::step::Payload;

fn main() {}
