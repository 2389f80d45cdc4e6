//! What a call's answer teaches about later calls, and when: only a good answer to a tool call,
//! complete, delivered as the client gets it, and recorded.

use bytes::Bytes;

use crate::evidence::record::Now;
use crate::question::access::Resource;
use crate::question::handles::{Facts, Learnt, OfPrincipal, Teaching};
use crate::question::operation::{Handles, Knowledge, Lesson};
use crate::wire::document::{Document, Value};
use crate::wire::frame::Frame;
use crate::wire::protocol::Era;
use bartizan_sync::lock;

use super::answer::kind;
use super::question::Question;
use super::{Call, Gate, Session};

impl Session {
    /// What a call of a tool is resolved against.
    pub(super) fn knowledge<'a>(&'a self, handles: Option<&'a OfPrincipal<'a>>) -> Knowledge<'a> {
        let handles: Option<&dyn Handles> = match handles {
            Some(handles) => Some(handles),
            None => None,
        };
        Knowledge { handles, ..self.server.knowledge() }
    }

    /// What this principal's earlier calls have set.
    pub(super) fn facts(&self, now: Now) -> Facts {
        self.server.session_facts(&self.principal.id, now.uptime)
    }

    /// What a good answer to `question` will teach, which goes on as `edited` where a rule set an
    /// argument. What the call may change is unknown from here on.
    pub(super) fn lesson(
        &self,
        question: &Question<'_>,
        edited: Option<&Frame>,
        now: Now,
    ) -> Option<Box<Lesson>> {
        let Resource::Tool { name, arguments, .. } = question.resource else { return None };
        let handles = self.server.handles(&self.principal.id, now.uptime);
        let known = self.knowledge(Some(&handles));
        // What counts is what the server gets.
        let sent = match edited {
            Some(frame) => frame.params().and_then(|params| params.get("arguments")),
            None => arguments,
        };
        let mut lesson = Lesson::of_call(known, name, sent)?;
        if !lesson.facts.is_empty() {
            let mut memory = lock(self.server.memory());
            lesson.sent = memory.sent(&self.principal.id, &lesson, now.uptime);
        }
        Some(Box::new(lesson))
    }

    /// What the answer `frame` to `entry` teaches, delivered as `edited` where the gate changed it.
    pub(super) fn taught(
        &self,
        gate: &Gate,
        (entry, frame): (&Call, &Frame),
        edited: Option<&Bytes>,
        now: Now,
    ) -> Option<Teaching> {
        let lesson = entry.lesson.as_deref()?;
        let learnt = match edited {
            None => learnt(lesson, frame.result()?, entry.facts.protocol.era),
            Some(body) => {
                let given = Document::read(body.clone(), &gate.config.frame.document).ok()?;
                learnt(lesson, given.root().get("result")?, entry.facts.protocol.era)
            }
        };
        Some(Teaching {
            memory: self.server.memory().clone(),
            principal: self.principal.id.clone(),
            learnt: learnt?,
            now: now.uptime,
        })
    }
}

/// A question in return, or the promise of a task, is no answer yet; and what the end of a task
/// brings is not read.
fn learnt(lesson: &Lesson, result: Value<'_>, era: Era) -> Option<Learnt> {
    let failed = result.get("isError").is_some_and(|failed| failed.as_bool() != Some(false));
    let whole = match era {
        Era::Modern => kind(result) == "complete",
        Era::Legacy => result.get("task").is_none(),
    };
    (whole && !failed).then(|| Learnt::of_answer(lesson, result)).flatten()
}
