//! Updates the store of handles and session facts from answers of tool calls: only from an answer
//! that is successful and complete, as it is delivered, and once it is recorded.

use bytes::Bytes;

use crate::evidence::record::Now;
use crate::question::access::Resource;
use crate::question::handles::{Facts, PendingUpdate, PrincipalHandles, StoreUpdate};
use crate::question::operation::{HandleLookup, OnSuccess, ResolutionContext};
use crate::wire::document::{Document, Value};
use crate::wire::frame::Frame;
use crate::wire::protocol::Era;
use bartizan_sync::lock;

use super::answer::kind;
use super::question::Question;
use super::{Gate, InFlightCall, Session};

impl Session {
    /// What a call of a tool is classified with.
    pub(super) fn resolution_context<'a>(
        &'a self,
        handles: Option<&'a PrincipalHandles<'a>>,
    ) -> ResolutionContext<'a> {
        let handles: Option<&dyn HandleLookup> = match handles {
            Some(handles) => Some(handles),
            None => None,
        };
        ResolutionContext { handles, ..self.server.resolution_context() }
    }

    /// The session facts that this principal's earlier calls have set.
    pub(super) fn facts(&self, now: Now) -> Facts {
        self.server.session_facts(&self.principal.id, now.uptime)
    }

    /// Returns what the call changes if it succeeds. `edited` is the frame with arguments that
    /// rules set. The session facts that it may set are unknown from now on.
    pub(super) fn on_success(
        &self,
        question: &Question<'_>,
        edited: Option<&Frame>,
        now: Now,
    ) -> Option<Box<OnSuccess>> {
        let Resource::Tool { name, arguments, .. } = question.resource else { return None };
        let handles = self.server.handles(&self.principal.id, now.uptime);
        let known = self.resolution_context(Some(&handles));
        // Use the arguments that the server receives.
        let sent = match edited {
            Some(frame) => frame.params().and_then(|params| params.get("arguments")),
            None => arguments,
        };
        let mut on_success = OnSuccess::of_call(known, name, sent)?;
        if !on_success.facts.is_empty() {
            let mut store = lock(self.server.handle_store());
            on_success.sent = store.call_sent(&self.principal.id, &on_success, now.uptime);
        }
        Some(Box::new(on_success))
    }

    /// Returns the update of the store by the answer `frame` to `entry`, as it is delivered:
    /// `edited` where the gate changed it.
    pub(super) fn pending_update(
        &self,
        gate: &Gate,
        entry: &InFlightCall,
        frame: &Frame,
        edited: Option<&Bytes>,
        now: Now,
    ) -> Option<PendingUpdate> {
        let on_success = entry.on_success.as_deref()?;
        let store_update = match edited {
            None => store_update(on_success, frame.result()?, entry.facts.protocol.era),
            Some(body) => {
                let given = Document::read(body.clone(), &gate.config.frame.document).ok()?;
                store_update(on_success, given.root().get("result")?, entry.facts.protocol.era)
            }
        };
        Some(PendingUpdate {
            store: self.server.handle_store().clone(),
            principal: self.principal.id.clone(),
            update: store_update?,
            now: now.uptime,
        })
    }
}

/// Reads the update from a result that is complete and successful. A request for input or a created
/// task is not a complete answer, and the later result of a task is not read.
fn store_update(on_success: &OnSuccess, result: Value<'_>, era: Era) -> Option<StoreUpdate> {
    let failed = result.get("isError").is_some_and(|failed| failed.as_bool() != Some(false));
    let whole = match era {
        Era::Modern => kind(result) == "complete",
        Era::Legacy => result.get("task").is_none(),
    };
    (whole && !failed).then(|| StoreUpdate::of_answer(on_success, result)).flatten()
}
