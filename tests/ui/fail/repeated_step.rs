//! One record gives one act.

use bartizan_gate::evidence::step::{Act, AuditSink, Step, Unrecorded};

fn twice(step: Step, sink: &dyn AuditSink) -> (Result<Act, Unrecorded>, Result<Act, Unrecorded>) {
    (step.record(sink), step.record(sink))
}

fn main() {
    let _ = twice;
}
