//! Write-ahead auditing: an act is available only once its record is kept.
//!
//! A [`Step`] holds an act and its records; [`Step::begin`] hands the records to a sink and
//! returns the act only if the sink kept them all. Where the sink says that the act must wait until
//! the records are on the disk, it returns [`Waits`] instead, from which there is no way to the act
//! but to wait. [`Permitted`] and [`Released`] are proof types:
//! the upstream accepts only the one, the client's side only the other. Code outside the gate can
//! neither create nor copy them (`tests/ui` shows that it does not compile). A proof carries what
//! the gate read in its message, so that the edge does not read it again.

mod waits;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use super::record::{AuditRecord, CallId, Event, Outcome};
use super::text::Listed;
use crate::duty::duties::Duties;
use crate::question::handles::PendingUpdate;
use crate::question::hold::Hold;
use crate::question::task::TaskAct;
use crate::wire::document::{Document, DocumentLimits, minify};
use crate::wire::frame::{Frame, Id, Message, write_batch, write_id};
use crate::wire::method::Method;
use crate::wire::protocol::{Era, Protocol, Revision};

pub use self::waits::{IsOpen, UntilDurable, Waits};

/// How the transport sends a [`Permitted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatch {
    /// Send the message.
    Message,
    /// Open the legacy stream of server messages (HTTP GET, without a body).
    OpenStream,
    /// End the legacy session (HTTP DELETE, without a body).
    EndSession,
}

/// The body of a message that has none.
static EMPTY: Bytes = Bytes::new();

/// What a [`Permitted`] sends to the server.
#[derive(Debug)]
pub(crate) enum Payload {
    /// [`Dispatch::OpenStream`].
    OpenStream,
    /// [`Dispatch::EndSession`].
    EndSession,
    /// One message of the client, as it is forwarded.
    Message(Arc<Frame>),
    /// A batch of the client, as it is forwarded.
    Batch(ClientBatch),
    /// The gate's own refusal of a request of the server, or an array of several.
    Refusal(Bytes),
}

/// A batch of the client, each message of which may pass.
#[derive(Debug)]
pub(crate) struct ClientBatch {
    /// All of it, as it is forwarded.
    pub(crate) body: Bytes,
    /// Its messages, in order.
    pub(crate) messages: Vec<BatchedMessage>,
}

/// One message of a [`ClientBatch`].
#[derive(Debug)]
pub(crate) struct BatchedMessage {
    /// The call that it begins; absent for an answer, which begins none.
    pub(crate) begins: Option<CallId>,
    /// The id, if it is a request.
    pub(crate) id: Option<Id>,
    /// The message, as it is forwarded.
    pub(crate) body: Bytes,
}

impl ClientBatch {
    /// Leaves out the messages whose calls have ended. Bytes change only if there are any.
    fn without_ended(&mut self, is_open: &IsOpen<'_>) {
        let before = self.messages.len();
        self.messages.retain(|message| message.begins.as_ref().is_none_or(is_open));
        if self.messages.len() < before {
            self.body = write_batch(self.messages.iter().map(|message| &message.body));
        }
    }
}

/// Proof that a message may go to the protected server. Only the gate creates one.
#[must_use]
#[derive(Debug)]
pub struct Permitted {
    payload: Payload,
    method: Option<&'static Method>,
    protocol: Protocol,
    call: CallId,
    routing: Routing,
    duties: Duties,
}

/// The routing headers (P11) that must accompany a permitted message over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routing {
    /// The value of `Mcp-Name`, not encoded, where the method has one.
    pub name: Option<Box<str>>,
    /// All `Mcp-Param-*` headers to send: `(header, encoded value)`. The client's own are not
    /// forwarded besides these.
    pub params: Vec<(Box<str>, Box<str>)>,
    /// The value of `traceparent`, in place of the client's.
    pub traceparent: Option<Box<str>>,
}

impl Permitted {
    /// Only `session` calls it, once the decision is a permit and every obligation is discharged.
    pub(crate) fn issue_proof(
        payload: Payload,
        protocol: Protocol,
        call: CallId,
        routing: Routing,
    ) -> Self {
        let method = match &payload {
            Payload::Message(frame) => frame.message().method().and_then(Method::named),
            Payload::OpenStream
            | Payload::EndSession
            | Payload::Batch(..)
            | Payload::Refusal(_) => None,
        };
        Self { payload, method, protocol, call, routing, duties: Duties::default() }
    }

    /// Leaves out the messages of a batch whose calls have ended meanwhile.
    fn without_ended(&mut self, is_open: &IsOpen<'_>) {
        if let Payload::Batch(batch) = &mut self.payload {
            batch.without_ended(is_open);
        }
    }

    /// Notes what its call demands of messages that name no call.
    pub(crate) fn under(self, duties: Duties) -> Self {
        Self { duties, ..self }
    }

    /// How to send it.
    pub fn dispatch(&self) -> Dispatch {
        match self.payload {
            Payload::OpenStream => Dispatch::OpenStream,
            Payload::EndSession => Dispatch::EndSession,
            Payload::Message(_) | Payload::Batch(..) | Payload::Refusal(_) => Dispatch::Message,
        }
    }

    /// The bytes to send: the client's own, those with an argument set, or the gate's refusal.
    /// Empty for [`Dispatch::OpenStream`] and [`Dispatch::EndSession`].
    pub fn body(&self) -> &Bytes {
        match &self.payload {
            Payload::OpenStream | Payload::EndSession => &EMPTY,
            Payload::Message(frame) => frame.document().raw(),
            Payload::Batch(ClientBatch { body, .. }) | Payload::Refusal(body) => body,
        }
    }

    /// The client's message as the gate read it; its spans refer to exactly the bytes of
    /// [`Permitted::body`]. Absent for a batch, for a refusal of the gate, and where there is no
    /// body.
    pub fn frame(&self) -> Option<&Frame> {
        match &self.payload {
            Payload::Message(frame) => Some(frame),
            Payload::OpenStream
            | Payload::EndSession
            | Payload::Batch(..)
            | Payload::Refusal(_) => None,
        }
    }

    /// The id of the request, or of the first request of a batch; absent where no answer is
    /// expected.
    pub fn id(&self) -> Option<&Id> {
        match &self.payload {
            Payload::Message(frame) => match frame.message() {
                Message::Request { id, .. } => Some(id),
                Message::Notification { .. } | Message::Result { .. } | Message::Error { .. } => {
                    None
                }
            },
            Payload::Batch(batch) => batch.messages.iter().find_map(|it| it.id.as_ref()),
            Payload::OpenStream | Payload::EndSession | Payload::Refusal(_) => None,
        }
    }

    /// The method's row in the method table, in any revision. Absent for a method that MCP does not
    /// define, and where [`Permitted::frame`] is not a request or notification.
    pub fn method(&self) -> Option<&'static Method> {
        self.method
    }

    /// The protocol that the client uses for it.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// [`Permitted::body`] as one line: see
    /// [`Document::minified`](crate::wire::document::Document::minified).
    #[must_use]
    pub fn minified(&self) -> Bytes {
        minify(self.body())
    }

    /// The id of the call that it belongs to.
    pub fn call(&self) -> &CallId {
        &self.call
    }

    /// What its call demands of messages that name no call, on the line that it is sent on.
    pub fn duties(&self) -> &Duties {
        &self.duties
    }

    /// The routing headers that must accompany it over HTTP.
    pub fn routing(&self) -> &Routing {
        &self.routing
    }
}

/// The HTTP status of an answer that the gate wrote; other transports send only the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 200: an answer, or a refusal by policy, which is a JSON-RPC error.
    Ok,
    /// 202: a notification was accepted.
    Accepted,
    /// 400: a malformed message, header or framing.
    BadRequest,
    /// 401: no access token, or one that is not valid here.
    Unauthorized,
    /// 403: a refused notification, or an `Origin` or `Host` that is not allowed.
    Forbidden,
    /// 404: no such path or session.
    NotFound,
    /// 405: the path does not support this HTTP method.
    MethodNotAllowed,
    /// 413: the message is larger than `limits.frame_bytes`.
    TooLarge,
    /// 415: not JSON in UTF-8, or with a content coding.
    UnsupportedMediaType,
    /// 431: the head is larger than `limits.header_bytes`.
    HeadTooLarge,
    /// 429: too many sessions, streams or calls at once.
    TooMany,
    /// 502: the server failed.
    BadGateway,
    /// 503: no record can be kept, or the program is shutting down.
    Unavailable,
    /// 504: the server did not answer in time.
    GatewayTimeout,
}

impl Status {
    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Accepted => 202,
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::TooMany => 429,
            Self::HeadTooLarge => 431,
            Self::BadGateway => 502,
            Self::Unavailable => 503,
            Self::GatewayTimeout => 504,
        }
    }
}

/// The kind of message in a [`Released`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// An answer with a `result`.
    Result,
    /// An answer with an `error`.
    Error,
    /// A request of the server.
    Request,
    /// A notification of the server.
    Notification,
    /// Several messages in one array.
    Batch,
    /// No message: an HTTP error of the server without a body.
    Opaque,
}

impl From<&Message> for Content {
    fn from(message: &Message) -> Self {
        match message {
            Message::Request { .. } => Self::Request,
            Message::Notification { .. } => Self::Notification,
            Message::Result { .. } => Self::Result,
            Message::Error { .. } => Self::Error,
        }
    }
}

/// Proof that a message may go to the client. Only the gate creates one.
#[must_use]
#[derive(Debug)]
pub struct Released {
    /// Not sent with [`Content::Opaque`]: see [`Released::unsaid`].
    body: Bytes,
    content: Content,
    id: Option<Id>,
    status: Status,
    own: bool,
    /// In seconds; 0 where it is not known.
    retry_after: u32,
    settles: Option<Revision>,
    follows: Option<Box<Follows>>,
}

/// What the edge does besides delivering a message.
#[derive(Debug)]
enum Follows {
    /// Sends the gate's refusal of a request of the server in the same batch.
    Back(Permitted),
    /// Does what a request about a task of the gate's own asks for.
    Task(TaskAct),
}

impl Released {
    /// Only the gate calls it: `session` for a message of the server, `refusal` for its own. `own`
    /// says which of the two it is.
    pub(crate) fn issue_proof(
        body: Bytes,
        content: Content,
        id: Option<Id>,
        status: Status,
        own: bool,
    ) -> Self {
        Self { body, content, id, status, own, retry_after: 0, settles: None, follows: None }
    }

    /// Notes after what time the refused message may pass.
    pub(crate) fn retrying(self, after: Option<Duration>) -> Self {
        let seconds = after.map(|after| after.as_nanos().div_ceil(1_000_000_000).max(1));
        let retry_after = seconds.map_or(0, |it| u32::try_from(it).unwrap_or(u32::MAX));
        Self { retry_after, ..self }
    }

    /// Attaches the gate's refusal of a request of the server in the same batch.
    pub(crate) fn answering(mut self, back: Option<Permitted>) -> Self {
        self.follows = back.map(|back| Box::new(Follows::Back(back)));
        self
    }

    /// Attaches what the edge does for a request about a task of the gate's own.
    pub(crate) fn with_task(mut self, act: Option<TaskAct>) -> Self {
        self.follows = act.map(|act| Box::new(Follows::Task(act)));
        self
    }

    /// Takes what the edge does for a request about a task of the gate's own, which this answers.
    pub fn take_task(&mut self) -> Option<TaskAct> {
        let task = self.follows.take_if(|it| matches!(**it, Follows::Task(_)))?;
        let Follows::Task(task) = *task else { return None };
        Some(task)
    }

    /// This message and then `more` in one array, under this one's status: the client of a batch
    /// waits for an answer to each of its requests (JSON-RPC 2.0 §6).
    pub fn joined(mut self, more: &Self) -> Self {
        self.body = write_batch([self.elements(), more.elements()].iter());
        self.content = Content::Batch;
        self.id = None;
        self
    }

    /// The messages, with commas between them and nothing around them.
    fn elements(&self) -> Bytes {
        let body = self.body.trim_ascii();
        let inside = body.strip_prefix(b"[").and_then(|body| body.strip_suffix(b"]"));
        let inside = inside.filter(|_| self.content == Content::Batch);
        inside.map_or_else(|| self.body.clone(), |inside| self.body.slice_ref(inside))
    }

    /// Notes the revision that an answer to `initialize` negotiates.
    pub(crate) fn settling(mut self, revision: Option<Revision>) -> Self {
        self.settles = revision;
        self
    }

    /// Takes the gate's refusal of a request of the server in the same batch, which the edge must
    /// send to the server.
    pub fn take_back(&mut self) -> Option<Permitted> {
        let back = self.follows.take_if(|it| matches!(**it, Follows::Back(_)))?;
        let Follows::Back(back) = *back else { return None };
        Some(back)
    }

    /// The bytes to deliver: the server's own, those with something removed, or a refusal. Empty
    /// where only the HTTP status answers.
    pub fn body(&self) -> &Bytes {
        if self.content == Content::Opaque { &EMPTY } else { &self.body }
    }

    /// The error that tells the client of an HTTP error without a body, where its status cannot be
    /// sent. Absent for any other message, and where nobody waits for an answer.
    pub fn unsaid(&self) -> Option<&Bytes> {
        (self.content == Content::Opaque && !self.body.is_empty()).then_some(&self.body)
    }

    /// An error without an id as the answer to the request `id`, for a stream, where a client finds
    /// its request by the id alone. `None` for any other message.
    pub fn addressed(&self, id: &Id) -> Option<Bytes> {
        if self.content != Content::Error || self.id.is_some() {
            return None;
        }
        // It was read within the limits before.
        let limits = DocumentLimits {
            bytes_max: usize::MAX,
            depth_max: usize::MAX,
            number_chars_max: usize::MAX,
            values_max: usize::MAX,
        };
        let document = Document::read(self.body.clone(), &limits).ok()?;
        let error = document.root().get("error")?.raw();
        let mut body = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
        write_id(&mut body, id);
        Some([&*body, b",\"error\":", error, b"}"].concat().into())
    }

    /// The kind of message.
    pub fn content(&self) -> Content {
        self.content
    }

    /// The JSON-RPC id of the message. Absent for a batch, for a notification, and for an error
    /// whose request could not be read.
    pub fn id(&self) -> Option<&Id> {
        self.id.as_ref()
    }

    /// The revision that it negotiates, where it answers `initialize` and names a known one.
    pub fn settles(&self) -> Option<Revision> {
        self.settles
    }

    /// [`Released::body`] as one line: see
    /// [`Document::minified`](crate::wire::document::Document::minified). Absent for an HTTP error
    /// without a body.
    #[must_use]
    pub fn minified(&self) -> Option<Bytes> {
        (self.content != Content::Opaque).then(|| minify(&self.body))
    }

    /// The HTTP status to answer with where [`Released::is_own`]; otherwise the server's is used.
    pub fn status(&self) -> Status {
        self.status
    }

    /// After how many seconds the refused message may pass, where a limit refuses it and that is
    /// known; rounded up, so not before the wait is over.
    pub fn retry_after(&self) -> Option<u32> {
        Some(self.retry_after).filter(|seconds| *seconds > 0)
    }

    /// Whether the message is a refusal of the gate. If not, it answers under the server's HTTP
    /// status, also where the gate wrote a body in place of the server's.
    pub fn is_own(&self) -> bool {
        self.own
    }
}

/// What the edge does with a message once its record is kept.
#[must_use]
#[derive(Debug)]
pub enum Act {
    /// Send it to the server.
    Forward(Permitted),
    /// Send it to the client.
    Deliver(Released),
    /// Ask for approval, and hand the message to the gate again once there is one
    /// ([`Session::client_frame_approved`](crate::session::Session::client_frame_approved)). Only
    /// for an [`Arrival`](crate::session::Arrival) that may wait.
    Hold(Box<Hold>),
    /// Send nothing: nobody waits for an answer.
    Drop,
}

impl Act {
    /// Whether it may have to wait for the disk. What the gate writes itself has nothing of a peer
    /// that a record must precede.
    fn waits(&self) -> bool {
        match self {
            Self::Forward(permitted) => !matches!(permitted.payload, Payload::Refusal(_)),
            Self::Deliver(released) => !released.own,
            Self::Hold(_) | Self::Drop => false,
        }
    }

    /// Names `kept` in place of `call` in a refusal of the gate's own.
    fn rename(&mut self, call: &str, kept: &str) {
        let body = match self {
            Self::Deliver(released) if released.own => &mut released.body,
            Self::Forward(Permitted { payload: Payload::Refusal(body), .. }) => body,
            Self::Deliver(_) | Self::Forward(_) | Self::Hold(_) | Self::Drop => return,
        };
        // The peer chose what stands before its `decision_id`, so look from the end.
        let found = body.windows(call.len().max(1)).rposition(|at| at == call.as_bytes());
        let Some((before, rest)) = found.and_then(|at| body.split_at_checked(at)) else { return };
        let after = rest.get(call.len()..).unwrap_or_default();
        *body = [before, kept.as_bytes(), after].concat().into();
    }
}

/// Keeps audit records; the journal implements it.
pub trait AuditSink: Send + Sync {
    /// Keeps `record`: it is written once this returns, but not necessarily on the disk.
    ///
    /// # Errors
    ///
    /// [`Unkept`]: the record is not kept, so the act must not happen.
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept>;

    /// Keeps `record` for an act that must not happen before [`AuditSink::durable`] says so of the
    /// returned position; `None` if the act need not wait. A sink that keeps in memory has nothing to
    /// wait for.
    ///
    /// # Errors
    ///
    /// As [`AuditSink::keep`].
    fn keep_before_act(&self, record: &AuditRecord) -> Result<Option<Position>, Unkept> {
        self.keep(record).map(|()| None)
    }

    /// Waits until the records up to `position` are on the disk. Dropping the future waits for
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Unkept`]: they are not, or not in time, so the act must not happen.
    fn durable(&self, _position: Position) -> Flushed<'_> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Counts `record`, a refusal, to one of the same kind that was kept, and returns the call of
    /// that one; `None` if the record must be kept. A sink that does not count keeps all.
    fn count(&self, _record: &AuditRecord) -> Option<CallId> {
        None
    }

    /// The time since the program started, on the clock of [`Now`](super::record::Now). A sink
    /// without a clock has none, and then no outcome says how long the server took.
    fn uptime(&self) -> Option<Duration> {
        None
    }
}

/// Where a record stands among those of a sink; a later record has a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// What [`AuditSink::durable`] waits for.
pub type Flushed<'a> = Pin<Box<dyn Future<Output = Result<(), Unkept>> + Send + 'a>>;

/// The sink could not keep a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unkept {
    /// Why, for the operator.
    pub cause: String,
}

/// A record could not be kept, so the act does not happen. Holds what the client is told instead,
/// where it waits for an answer: a constant text with nothing from either peer, which therefore
/// needs no record itself.
#[derive(Debug)]
pub struct Unrecorded {
    /// Why the record could not be kept, for the operator.
    pub cause: Unkept,
    /// The call that does not happen; the edge passes it to `Session::forget`.
    pub call: Option<CallId>,
    /// The refusal for the client, if it waits for an answer.
    pub refusal: Option<Released>,
    /// Whether the sink panicked.
    pub panicked: bool,
}

/// How to write the refusal if no record can be kept. It is written only then, because that is
/// rare.
#[derive(Debug)]
pub(crate) struct IfUnrecorded {
    /// The id of the request that waits for an answer.
    pub(crate) id: Option<Id>,
    /// The era of the client, which decides the form of the refusal.
    pub(crate) era: Era,
    /// Writes the refusal, given the id, the call that the record names, and the era.
    pub(crate) write: fn(Option<&Id>, &str, Era) -> Released,
}

/// An act and the records that must be kept before it.
#[must_use]
#[derive(Debug)]
pub struct Step {
    record: AuditRecord,
    also: Vec<AuditRecord>,
    act: Act,
    if_unrecorded: Option<IfUnrecorded>,
    /// The call that does not happen if no record can be kept, where it is not the first record's.
    exchange: Option<CallId>,
    updates: Vec<PendingUpdate>,
    /// Whether the act may wait for the disk.
    waits: bool,
    forwarded: Vec<ForwardedAt>,
}

/// When a call was forwarded: set when its records are kept, because its first byte goes on next.
#[derive(Debug, Clone, Default)]
pub(crate) struct ForwardedAt(Arc<OnceLock<Duration>>);

impl ForwardedAt {
    /// The time since the program started; `None` if the call was not forwarded.
    pub(crate) fn get(&self) -> Option<Duration> {
        self.0.get().copied()
    }
}

/// Notes in `marks` that the act happens now.
fn forwards_now(marks: &[ForwardedAt], sink: &dyn AuditSink) {
    if marks.is_empty() {
        return;
    }
    if let Some(now) = sink.uptime() {
        for mark in marks {
            mark.0.get_or_init(|| now);
        }
    }
}

impl Step {
    pub(crate) fn new(record: AuditRecord, act: Act) -> Self {
        Self {
            record,
            also: Vec::new(),
            act,
            if_unrecorded: None,
            exchange: None,
            updates: Vec::new(),
            waits: true,
            forwarded: Vec::new(),
        }
    }

    /// Creates a step whose act needs all of `records`; `None` if there are none.
    pub(crate) fn of_all(records: Vec<AuditRecord>, act: Act) -> Option<Self> {
        let mut records = records.into_iter();
        Some(Self::new(records.next()?, act).with_records(records))
    }

    /// Names the call that does not happen if no record can be kept.
    pub(crate) fn about(mut self, exchange: &CallId) -> Self {
        self.exchange = Some(CallId::clone(exchange));
        self
    }

    /// Adds `note` to the first record's.
    pub(crate) fn noting(mut self, note: &'static str) -> Self {
        self.record.note = Some(match self.record.note.take() {
            Some(first) => format!("{first}; {note}").into(),
            None => note.into(),
        });
        self
    }

    /// Lets the act happen once its records are written, whatever the sink would have it wait for:
    /// for what only takes a call back, and cannot wait.
    pub(crate) fn at_once(self) -> Self {
        Self { waits: false, ..self }
    }

    /// Whether the act sends something to the server.
    pub(crate) fn forwards(&self) -> bool {
        matches!(self.act, Act::Forward(_))
    }

    /// Takes the step apart, to make its records and its act part of another step.
    pub(crate) fn into_parts(self) -> (Vec<AuditRecord>, Act) {
        (std::iter::once(self.record).chain(self.also).collect(), self.act)
    }

    /// Sets the refusal that the client gets if no record can be kept.
    pub(crate) fn if_unrecorded(mut self, told: IfUnrecorded) -> Self {
        self.if_unrecorded = Some(told);
        self
    }

    /// Adds records that must be kept too.
    pub(crate) fn with_records(mut self, also: impl IntoIterator<Item = AuditRecord>) -> Self {
        self.also.extend(also);
        self
    }

    /// Adds updates of the handle store that are applied once the records are kept.
    pub(crate) fn updates(mut self, updates: impl IntoIterator<Item = PendingUpdate>) -> Self {
        self.updates.extend(updates);
        self
    }

    /// Takes those updates, for a step that this one becomes part of.
    pub(crate) fn take_updates(&mut self) -> Vec<PendingUpdate> {
        std::mem::take(&mut self.updates)
    }

    /// Notes in `marks` when the records were kept.
    pub(crate) fn marking(mut self, marks: impl IntoIterator<Item = ForwardedAt>) -> Self {
        self.forwarded.extend(marks);
        self
    }

    /// Takes those marks, for a step that this one becomes part of.
    pub(crate) fn take_marks(&mut self) -> Vec<ForwardedAt> {
        std::mem::take(&mut self.forwarded)
    }

    /// The first record.
    pub fn audit_record(&self) -> &AuditRecord {
        &self.record
    }

    /// Hands the records to `sink`, as [`Step::begin`] does, and returns the act. An act that would
    /// have to wait for the disk does not happen.
    ///
    /// # Errors
    ///
    /// [`Unrecorded`]: a record could not be kept, or its act would have to wait.
    pub fn record(self, sink: &dyn AuditSink) -> Result<Act, Unrecorded> {
        match self.begin(sink)? {
            Begun::Act(act) => Ok(act),
            Begun::Waits(waits) => Err(waits.not_sent(Unkept { cause: CANNOT_WAIT.into() }, sink)),
        }
    }

    /// Hands the records to `sink`, in order, and returns the act if all were kept, or what it must
    /// wait for. If one is not kept, each intent that was kept gets the outcome
    /// [`Outcome::NotSent`], and the outcomes among the other records are kept nevertheless, because
    /// those calls have ended.
    ///
    /// A refusal that the sink only counts is told to the peer under the call that was kept.
    ///
    /// # Errors
    ///
    /// [`Unrecorded`]: a record could not be kept, and the act does not happen.
    pub fn begin(mut self, sink: &dyn AuditSink) -> Result<Begun, Unrecorded> {
        let records = || std::iter::once(&self.record).chain(&self.also);
        let waits = self.waits && self.act.waits();
        let mut failed = None;
        let mut position = None;
        let mut counted = Vec::new();
        for (index, record) in records().enumerate() {
            if failed.is_some() && record.event != Event::Outcome {
                continue;
            }
            if matches!(record.event, Event::Denial | Event::Drop)
                && let Some(kept) = sink.count(record)
            {
                counted.extend(record.call.clone().map(|call| (call, kept)));
                continue;
            }
            match keep(sink, record, waits) {
                Ok(kept) => position = position.max(kept),
                Err(cause) => failed = failed.or(Some((index, cause))),
            }
        }
        if let Some((kept, (cause, panicked))) = failed {
            let call = self.exchange.or(self.record.call.clone());
            let kept: Vec<_> = std::iter::once(self.record).chain(self.also).take(kept).collect();
            return Err(unrecorded((cause, panicked), &kept, (call, self.if_unrecorded), sink));
        }
        for (call, kept) in counted {
            self.act.rename(&call, &kept);
        }
        self.updates.into_iter().for_each(PendingUpdate::apply);
        let Some(position) = position else {
            forwards_now(&self.forwarded, sink);
            return Ok(Begun::Act(self.act));
        };
        let call = self.exchange.or(self.record.call.clone());
        let intents = std::iter::once(self.record).chain(self.also);
        let intents = intents.filter(|record| record.event == Event::Intent).collect();
        let (act, if_unrecorded, forwarded) = (self.act, self.if_unrecorded, self.forwarded);
        Ok(Begun::Waits(Box::new(Waits { act, position, intents, call, if_unrecorded, forwarded })))
    }
}

/// Why an act does not happen whose caller cannot wait for the disk.
const CANNOT_WAIT: &str = "the act must wait for the disk, and its caller cannot wait";

/// A step whose records are written.
#[must_use]
#[derive(Debug)]
pub enum Begun {
    /// The act, which waits for nothing.
    Act(Act),
    /// What the act waits for.
    Waits(Box<Waits>),
}

/// The error of a step that does not happen, of which `kept` are the records that were kept.
fn unrecorded(
    (cause, panicked): (Unkept, bool),
    kept: &[AuditRecord],
    (call, refusal): (Option<CallId>, Option<IfUnrecorded>),
    sink: &dyn AuditSink,
) -> Unrecorded {
    for intent in kept.iter().filter(|record| record.event == Event::Intent) {
        // The sink counts what it cannot keep, so there is nothing else to do about a failure.
        drop(keep(sink, &not_sent(intent), false));
    }
    let named = call.as_deref().unwrap_or_default();
    let refusal = refusal.map(|it| (it.write)(it.id.as_ref(), named, it.era));
    Unrecorded { cause, call, refusal, panicked }
}

/// Hands one record to `sink`, and returns what its act `waits` for; a panic of the sink is an
/// error, too, and the second value says so.
fn keep(
    sink: &dyn AuditSink,
    record: &AuditRecord,
    waits: bool,
) -> Result<Option<Position>, (Unkept, bool)> {
    let keep =
        || if waits { sink.keep_before_act(record) } else { sink.keep(record).map(|()| None) };
    match catch_unwind(AssertUnwindSafe(keep)) {
        Ok(kept) => kept.map_err(|cause| (cause, false)),
        Err(_) => Err((Unkept { cause: "the sink panicked".to_owned() }, true)),
    }
}

/// The outcome of a call whose `intent` was kept and that was not sent.
fn not_sent(intent: &AuditRecord) -> AuditRecord {
    AuditRecord {
        event: Event::Outcome,
        outcome: Some(Outcome::NotSent),
        decision: None,
        bytes: None,
        digest: None,
        input: None,
        input_left_out: Listed::default(),
        ..intent.clone()
    }
}
