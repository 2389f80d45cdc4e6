//! The only way to get the act out of a step is to keep its record. This file must compile: it
//! shows that the failing cases fail for their own reason, not because of something they share.

use bartizan_gate::evidence::record::{AuditRecord, CallId};
use bartizan_gate::evidence::step::{Act, AuditSink, Content, Dispatch, Permitted, Released, Routing, Status, Step, Unkept, Unrecorded};
use bartizan_gate::wire::frame::{Frame, Id};
use bartizan_gate::wire::protocol::Protocol;

struct Memory;

impl AuditSink for Memory {
    fn keep(&self, _: &AuditRecord) -> Result<(), Unkept> {
        Ok(())
    }
}

fn to_server(message: &Permitted) -> (usize, Dispatch, &CallId, &Routing) {
    (message.body().len(), message.dispatch(), message.call(), message.routing())
}

fn read(message: &Permitted) -> (Option<&Frame>, Option<&Id>, Protocol) {
    (message.frame(), message.id(), message.protocol())
}

fn to_client(message: &Released) -> (usize, Content, Option<&Id>, Status, bool) {
    (message.body().len(), message.content(), message.id(), message.status(), message.is_own())
}

fn carry(step: Step) -> Result<(), Unrecorded> {
    match step.record(&Memory)? {
        Act::Forward(message) => drop((to_server(&message), read(&message))),
        Act::Deliver(message) => drop(to_client(&message)),
        Act::Hold(_) | Act::Drop => {}
    }
    Ok(())
}

fn main() {
    let _ = carry;
}
