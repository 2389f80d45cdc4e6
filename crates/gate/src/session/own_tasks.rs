//! Held calls whose clients wait for them as tasks (the tasks extension of MCP 2026-07-28).
//!
//! A client that declares the extension gets a task in the place of the answer to a held call, and
//! polls. No request about such a task reaches the server. A poll that finds the call approved has
//! the edge make it: as a request of its own, which takes the whole way of any other, finds the
//! grant of the same bytes, and is judged with it. So nothing acts but what was shown.

use bytes::Bytes;

use crate::evidence::record::{CallId, Event, Now};
use crate::evidence::refusal::{Refusal, WITHHELD};
use crate::evidence::step::{Act, Content, Released, Status, Step};
use crate::evidence::task;
use crate::question::hold::HoldEnd;
use crate::question::task::{HeldRequest, OwnTask, OwnTaskState, PREFIX, TaskAct};
use crate::wire::document::{Document, DocumentLimits, Value, write_string};
use crate::wire::frame::{Frame, FrameLimits, Id, Sender, write_id};
use crate::wire::headers::META_CLIENT_CAPABILITIES;
use crate::wire::headers::{META_CLIENT_INFO, META_PROTOCOL_VERSION, TASKS_EXTENSION};
use crate::wire::method::{Action, Method, Subject};
use crate::wire::protocol::Era;

use super::client::ClientMessage;
use super::question::Question;
use super::{Gate, Session};

/// How the call of a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEnd {
    /// Its `result`, a JSON text.
    Result(Box<str>),
    /// Its `error`, a JSON text.
    Error(Box<str>),
}

impl TaskEnd {
    /// How `message`, which the gate has released, ends the request `id`; `None` if it does not.
    ///
    /// A result that asks for something is an error: a task's result is final (the tasks extension,
    /// "Task Status").
    pub fn of(message: &Bytes, id: &str, limits: &FrameLimits) -> Option<Self> {
        let frame = Frame::read(message.clone(), Sender::Server, limits).ok()?;
        if frame.message().id() != Some(&Id::Text(id.into())) {
            return None;
        }
        let text = |value: Value<'_>| {
            let minified = crate::wire::document::minify(value.raw());
            String::from_utf8_lossy(&minified).as_ref().into()
        };
        if let Some(error) = frame.document().root().get("error") {
            return Some(Self::Error(text(error)));
        }
        let result = frame.result()?;
        match result.get("resultType").map(Value::as_str) {
            None | Some(Some("complete")) => Some(Self::Result(text(result))),
            Some(_) => Some(Self::Error(asks_back())),
        }
    }
}

/// The error of a task whose server answers the call with a question.
fn asks_back() -> Box<str> {
    let mut error = format!("{{\"code\":{WITHHELD},\"message\":").into_bytes();
    write_string(
        &mut error,
        "The server asks back, which a call that waited as a task cannot answer",
    );
    error.push(b'}');
    String::from_utf8_lossy(&error).as_ref().into()
}

impl Session {
    /// Whether the client of a held request takes a task as its answer.
    pub fn takes_task(&self, call: &CallId) -> bool {
        self.held.iter().any(|held| held.facts.call == *call && held.takes_task)
    }

    /// Answers a held request with a task, which is kept already. The act is `Deliver`. What the
    /// request has paid is left to the call that a poll makes. `None` if it no longer waits.
    pub fn waits_as(
        &mut self,
        gate: &Gate,
        call: &CallId,
        task: &OwnTask,
        now: Now,
    ) -> Option<Step> {
        let held = self.take_held(call)?;
        gate.payments.put(held.payment.clone());
        let mut record = self.held_record(Event::Denial, &held, HoldEnd::PENDING, now);
        record.note = Some("its client polls for it".into());
        let unrecorded = Refusal::unrecorded(self.addressee(Some(&held.id), call));
        let released = answer(&held.id, &task::created(task));
        Some(Step::new(record, Act::Deliver(released)).if_unrecorded(unrecorded))
    }

    /// Answers a request about a task of the gate's own. `None` if it is not about one, so that it
    /// takes the usual way.
    pub(super) fn own_task(
        &self,
        message: &ClientMessage<'_>,
        question: &Question<'_>,
    ) -> Option<Result<Step, Refusal>> {
        if message.row.is_none_or(|row| row.subject != Subject::Task) {
            return None;
        }
        let method = question.method.filter(|_| question.protocol.era == Era::Modern)?;
        let (tasks, id) = (message.gate.own_tasks()?, message.id?);
        let name = message.frame.params()?.get("taskId")?.as_str()?.strip_prefix(PREFIX)?;
        if !Self::declares_tasks(question) {
            return Some(Err(Refusal::TasksUndeclared));
        }
        let Some(task) = tasks.find(name, &self.principal.id, self.server_name()) else {
            return Some(Err(Refusal::UnknownTask));
        };
        let polls = method.action == Action::GetTask;
        // A task asks for nothing, so every response is one to nothing: "Task Update Requests".
        let result = if polls { task::polled(&task) } else { acknowledged() };
        let act = if let (OwnTaskState::Ready(call), true) = (&task.state, polls) {
            make(message.gate, message.frame, (name, call))
        } else {
            let cancels = method.action == Action::CancelTask;
            cancels.then(|| TaskAct::Cancel { name: name.into() })
        };
        let mut record = self.record_of(Event::Notice, &message.facts, message.now);
        message.describe(&mut record);
        record.note = Some(format!("{}, {}", task::text(&task.state), task.hold).into());
        let released = answer(id, &result).with_task(act);
        let unrecorded = Refusal::unrecorded(message.addressee());
        Some(Ok(Step::new(record, Act::Deliver(released)).if_unrecorded(unrecorded)))
    }
}

/// The answer to `server/discover` with the extension among the server's, if held calls wait as tasks
/// here: clients take a task only from who has declared it (the tasks extension, "Capability
/// Negotiation"). `None` if the answer stays as it is.
pub(super) fn announced(
    gate: &Gate,
    frame: &Frame,
    method: Option<&'static Method>,
) -> Option<Bytes> {
    let discovers = method.is_some_and(|it| it.action == Action::Discover);
    gate.own_tasks().filter(|_| discovers && !gate.observes())?;
    let capabilities = frame.result()?.get("capabilities")?;
    let (place, added) = match capabilities.get("extensions") {
        Some(extensions) if extensions.get(TASKS_EXTENSION).is_some() => return None,
        Some(extensions) => (extensions, format!("\"{TASKS_EXTENSION}\":{{}}}}")),
        None => (capabilities, format!("\"extensions\":{{\"{TASKS_EXTENSION}\":{{}}}}}}")),
    };
    let inside = place.raw().strip_suffix(b"}")?;
    let comma: &[u8] = if place.is_empty() { b"" } else { b"," };
    Some(frame.document().splice(&[(place.span(), [inside, comma, added.as_bytes()].concat())]))
}

fn acknowledged() -> Vec<u8> {
    b"{\"resultType\":\"complete\"}".to_vec()
}

fn answer(id: &Id, result: &[u8]) -> Released {
    let mut body = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
    write_id(&mut body, id);
    body.extend_from_slice(b",\"result\":");
    body.extend_from_slice(result);
    body.push(b'}');
    Released::issue_proof(body.into(), Content::Result, Some(id.clone()), Status::Ok, true)
}

/// The held request as a client would send it, for the client of `poll`.
fn make(gate: &Gate, poll: &Frame, (name, request): (&str, &HeldRequest)) -> Option<TaskAct> {
    let call = gate.next_call();
    let shown = Bytes::copy_from_slice(request.shown.as_bytes());
    let params = Document::read(shown, &DocumentLimits::default()).ok()?;
    let mut raw = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
    write_string(&mut raw, &call);
    raw.extend_from_slice(b",\"method\":");
    write_string(&mut raw, &request.method);
    raw.extend_from_slice(b",\"params\":{");
    let meta = protocol_meta(poll)?;
    let mut members: Vec<Vec<u8>> = Vec::new();
    let mut placed = false;
    for (member, value) in params.root().members() {
        let inside = value.raw().strip_prefix(b"{").and_then(|it| it.strip_suffix(b"}"));
        members.push(match (member.as_str(), inside) {
            (Some("_meta"), Some(inside)) => {
                placed = true;
                [b"\"_meta\":{", inside, b",", &*meta, b"}"].concat()
            }
            _ => [member.raw(), b":", value.raw()].concat(),
        });
    }
    if !placed {
        members.push([b"\"_meta\":{", &*meta, b"}"].concat());
    }
    raw.extend_from_slice(&members.join(&b','));
    raw.extend_from_slice(b"}}");
    let routing = (request.method.clone(), request.target.clone());
    Some(TaskAct::Make { name: name.into(), raw: raw.into(), id: (&*call).into(), routing })
}

/// The members of `_meta` that the protocol demands, as `poll` has them. It declares no
/// capabilities: a task's client is not there to be asked, so its server must not ask.
fn protocol_meta(poll: &Frame) -> Option<Vec<u8>> {
    let meta = poll.params()?.get("_meta")?;
    let mut out = Vec::new();
    for name in [META_PROTOCOL_VERSION, META_CLIENT_INFO] {
        if let Some(value) = meta.get(name) {
            write_string(&mut out, name);
            out.push(b':');
            out.extend_from_slice(value.raw());
            out.push(b',');
        }
    }
    write_string(&mut out, META_CLIENT_CAPABILITIES);
    out.extend_from_slice(b":{}");
    Some(out)
}
