//! The one way to an act: keep the record. Everything that the failing cases lean on compiles.

use bartizan_gate::evidence::record::{AuditRecord, CallId};
use bartizan_gate::evidence::step::{Act, AuditSink, Dispatch, Permitted, Released, Routing, Status, Step, Unkept, Unrecorded};

struct Memory;

impl AuditSink for Memory {
    fn keep(&self, _: &AuditRecord) -> Result<(), Unkept> {
        Ok(())
    }
}

fn to_server(message: &Permitted) -> (usize, Dispatch, &CallId, &Routing) {
    (message.body().len(), message.dispatch(), message.call(), message.routing())
}

fn to_client(message: &Released) -> (usize, Status, bool) {
    (message.body().len(), message.status(), message.is_own())
}

fn carry(step: Step) -> Result<(), Unrecorded> {
    match step.record(&Memory)? {
        Act::Forward(message) => drop(to_server(&message)),
        Act::Deliver(message) => drop(to_client(&message)),
        Act::Drop => {}
    }
    Ok(())
}

fn main() {
    let _ = carry;
}
