//! Tells a server below which span its own belong (W3C Trace Context; MCP, `_meta.traceparent`),
//! where its configuration says so (`propagate`). One value of the message is set, and no other byte
//! changes.

use std::sync::Arc;

use crate::duty::arguments;
use crate::evidence::step::{Payload, Routing};
use crate::evidence::trace;
use crate::wire::document::Kind;
use crate::wire::frame::{Frame, FrameLimits, Sender};
use crate::wire::hex::hex;

use super::{CallFacts, Gate, Session};

impl Session {
    /// What of a message goes on: `frame`, or `edited` in its place, with the context of its CLIENT
    /// span in it and in a header, where the server is told it. A message without `params` has it in
    /// the header alone, and so has one that would get too large.
    pub(super) fn propagated(
        &self,
        gate: &Gate,
        (frame, edited): (&Arc<Frame>, Option<Frame>),
        facts: &CallFacts,
        routing: Routing,
    ) -> (Payload, Routing) {
        let sent = edited.map_or_else(|| Arc::clone(frame), Arc::new);
        if !self.server.propagate {
            return (Payload::Message(sent), routing);
        }
        let context = context(gate, facts);
        let told = with_context(&sent, &context, &gate.config.frame);
        let routing = Routing { traceparent: Some(context.into()), ..routing };
        (Payload::Message(told.map_or(sent, Arc::new)), routing)
    }
}

/// The `traceparent` of a call's CLIENT span: in the caller's trace if there is one. It is always
/// sampled, because the span is always sent.
fn context(gate: &Gate, facts: &CallFacts) -> String {
    let boot = &gate.config.boot;
    let span = hex(&trace::id::<8>("client", boot, &facts.call));
    match facts.trace_id.as_deref() {
        Some(trace_id) => format!("00-{trace_id}-{span}-01"),
        None => format!("00-{}-{span}-01", hex(&trace::id::<16>("trace", boot, &facts.call))),
    }
}

/// `frame` with `context` as its `_meta.traceparent`, read again by the same rules as any frame.
fn with_context(frame: &Frame, context: &str, limits: &FrameLimits) -> Option<Frame> {
    let document = frame.document();
    let params = document.root().get("params").filter(|params| params.kind() == Kind::Object)?;
    // It has hexadecimal digits and `-` alone.
    let quoted = format!("\"{context}\"");
    let edit = match params.get("_meta") {
        None => {
            let meta = format!("{{\"traceparent\":{quoted}}}");
            arguments::insert(params, "_meta", meta.as_bytes())
        }
        Some(meta) if meta.kind() == Kind::Object => match meta.get("traceparent") {
            Some(present) => (present.span(), quoted.into_bytes()),
            None => arguments::insert(meta, "traceparent", quoted.as_bytes()),
        },
        Some(_) => return None,
    };
    Frame::read(document.splice(&[edit]), Sender::Client, limits).ok()
}
