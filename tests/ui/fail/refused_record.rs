//! What a sink that keeps nothing leaves is no act.

use bartizan_gate::evidence::step::{Act, AuditSink, Step};

fn take(step: Step, sink: &dyn AuditSink) -> Act {
    match step.record(sink) {
        Ok(act) => act,
        Err(unrecorded) => unrecorded.act,
    }
}

fn main() {
    let _ = take;
}
