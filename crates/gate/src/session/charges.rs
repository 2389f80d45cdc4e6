//! Charges a session's principal for what the session keeps of each call.
//!
//! A call is charged once, when it is forwarded, for all that may remain of it: its entry among the
//! calls in flight, then among those that are owed or may be redelivered, and its id and token
//! among those that are used. So nothing has to be refused when a call ends.

use crate::duty::redact::Redaction;
use crate::evidence::refusal::Refusal;
use crate::memory::Charge;
use crate::wire::frame::Id;

use super::ids::RUN_BYTES;
use super::sizes::texts;
use super::{CallFacts, DutyScope, Gate, Session};

/// The fixed part of a call in flight, bytes: the entry, its place in two tables, and the id and the
/// progress token that are remembered when it has ended.
pub(super) const CALL_BYTES: usize = 1536;

const _: () = assert!(
    size_of::<super::InFlightCall>() + 2 * RUN_BYTES + 3 * size_of::<Id>() + 128 <= CALL_BYTES
);
const _: () = assert!(size_of::<super::ServerRequest>() + RUN_BYTES + 64 <= CALL_BYTES);

impl CallFacts {
    /// The bytes of its texts.
    pub(super) fn bytes(&self) -> usize {
        let link = self.link.as_deref();
        let own = [
            self.method.as_deref(),
            self.trace_id.as_deref(),
            self.parent_span_id.as_deref(),
            link.map(|link| &*link.trace_id),
            link.map(|link| &*link.span_id),
        ];
        let mut bytes = texts(own.into_iter().flatten());
        if let Some(target) = &self.target {
            let names = [&target.tool, &target.prompt, &target.task];
            let names = names.into_iter().filter_map(|text| text.as_deref());
            let codes = [&target.definition, &target.locked, &target.drift];
            let codes = codes.into_iter().filter_map(|text| text.as_deref());
            let flags = target.flags.iter().map(|text| &**text);
            let all = names.chain(target.uri.as_deref()).chain(codes).chain(flags);
            bytes = bytes.saturating_add(texts(all));
        }
        if let Some(approval) = &self.approval {
            let own = [Some(&*approval.hold), approval.by.as_deref(), approval.reason.as_deref()];
            let all = own.into_iter().flatten().chain(approval.scope.as_deref());
            bytes = bytes.saturating_add(texts(all));
        }
        if let Some(operation) = &self.operation {
            let environments = operation.environments.iter().map(|text| &**text);
            let tags = operation.tags.iter().map(|text| &**text);
            let names = [operation.name.as_deref(), operation.pack.as_deref()];
            let all = environments.chain(tags).chain(names.into_iter().flatten());
            bytes = bytes.saturating_add(texts(all));
        }
        bytes
    }
}

impl Session {
    /// Charges the principal for `bytes` that are kept after this message.
    ///
    /// # Errors
    ///
    /// There is no room; the refusal says so.
    pub(super) fn charge(&self, gate: &Gate, bytes: usize) -> Result<Charge, Refusal> {
        gate.memory().charge_to(&self.owner, bytes).map_err(|_| Refusal::MemorySpent)
    }

    /// Adds redactions to what the session demands of messages that name no call; `of` is the
    /// charge of the call that brought them, which has counted them twice.
    pub(super) fn add_duties(&mut self, gate: &Gate, redact: &[Redaction], of: &mut Charge) {
        if self.duty_scope != DutyScope::Line {
            self.server.duties().add(&self.principal.id, redact, gate.memory());
        }
        let before = self.duties.bytes();
        self.duties.add(redact);
        let more = self.duties.bytes().saturating_sub(before);
        if more > 0 {
            self.keep(of.split(more));
        }
    }

    /// Keeps `charge` as long as the session.
    fn keep(&mut self, charge: Charge) {
        match &mut self.kept {
            Some(kept) => kept.join(charge),
            none => *none = Some(charge),
        }
    }
}
