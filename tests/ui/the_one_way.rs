//! The one way to an act: keep the record. Everything that the failing cases lean on compiles.

use bartizan::gate::record::AuditRecord;
use bartizan::gate::step::{Act, AuditSink, Permitted, Released, Step, Unkept, Unrecorded};

struct Memory;

impl AuditSink for Memory {
    fn keep(&self, _: &AuditRecord) -> Result<(), Unkept> {
        Ok(())
    }
}

fn to_server(message: &Permitted) -> usize {
    message.body().len()
}

fn to_client(message: &Released) -> usize {
    message.body().len()
}

fn carry(step: Step) -> Result<usize, Unrecorded> {
    Ok(match step.record(&Memory)? {
        Act::Forward(message) => to_server(&message),
        Act::Deliver(message) => to_client(&message),
        Act::Drop => 0,
    })
}

fn main() {
    let _ = carry;
}
