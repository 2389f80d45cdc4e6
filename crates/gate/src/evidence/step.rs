//! No record, no act.
//!
//! A [`Step`] holds what is to be done and the record of it; the act can be had only by handing
//! the record to a sink that keeps it. [`Permitted`] and [`Released`] are the proofs that the
//! gate let a message go: the upstream takes only the one, the client only the other. Neither
//! can be made outside the gate, and neither can be copied. A proof says what the gate read in its
//! message, so that no edge reads it again.

use std::sync::Arc;

use bytes::Bytes;

use super::record::{AuditRecord, CallId};
use crate::question::handles::Teaching;
use crate::wire::document::minify;
use crate::wire::frame::{Frame, Id, Message};
use crate::wire::method::Method;
use crate::wire::protocol::{Era, Protocol, Revision};

/// What the transport is to do with a [`Permitted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatch {
    /// Send the message.
    Message,
    /// Open the legacy stream of server messages (HTTP GET); no body.
    OpenStream,
    /// End the legacy session (HTTP DELETE); no body.
    EndSession,
}

/// The body of what has none.
static EMPTY: Bytes = Bytes::new();

/// What a [`Permitted`] lets go to the server.
#[derive(Debug)]
pub(crate) enum Payload {
    /// [`Dispatch::OpenStream`].
    OpenStream,
    /// [`Dispatch::EndSession`].
    EndSession,
    /// One message of the client, as it goes on.
    Message(Arc<Frame>),
    /// A batch of the client, as it goes on, and the id of its first request.
    Batch(Bytes, Option<Id>),
    /// Our refusal of what the server asked, or an array of several. The gate wrote it.
    Refusal(Bytes),
}

/// A message that may go to the protected server.
#[must_use]
#[derive(Debug)]
pub struct Permitted {
    payload: Payload,
    method: Option<&'static Method>,
    protocol: Protocol,
    call: CallId,
    routing: Routing,
}

/// What must stand in HTTP headers beside a permitted message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routing {
    /// The value that `Mcp-Name` mirrors, where the method has one.
    pub name: Option<Box<str>>,
    /// `Mcp-Param-*` headers that differ from the client's, because arguments were set or because
    /// it has none on stdio: `(header, encoded value)`, an absent value meaning the header must go.
    pub params: Vec<(Box<str>, Option<Box<str>>)>,
}

impl Permitted {
    /// The one place where a permit becomes a message; `session` alone calls it, after a record's
    /// worth of facts was gathered and every obligation discharged.
    pub(crate) fn assertion(
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
        Self { payload, method, protocol, call, routing }
    }

    /// What to do with it.
    pub fn dispatch(&self) -> Dispatch {
        match self.payload {
            Payload::OpenStream => Dispatch::OpenStream,
            Payload::EndSession => Dispatch::EndSession,
            Payload::Message(_) | Payload::Batch(..) | Payload::Refusal(_) => Dispatch::Message,
        }
    }

    /// The bytes: the client's own, those with an argument set, or a refusal of ours.
    pub fn body(&self) -> &Bytes {
        match &self.payload {
            Payload::OpenStream | Payload::EndSession => &EMPTY,
            Payload::Message(frame) => frame.document().raw(),
            Payload::Batch(body, _) | Payload::Refusal(body) => body,
        }
    }

    /// The client's message as the gate read it, spans included: of exactly the bytes that
    /// [`Permitted::body`] gives. Absent for a batch, for a refusal of ours, and where there is no
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

    /// The request's id, of a batch its first request's; absent where nothing is asked.
    pub fn id(&self) -> Option<&Id> {
        match &self.payload {
            Payload::Message(frame) => match frame.message() {
                Message::Request { id, .. } => Some(id),
                Message::Notification { .. } | Message::Result { .. } | Message::Error { .. } => {
                    None
                }
            },
            Payload::Batch(_, asks) => asks.as_ref(),
            Payload::OpenStream | Payload::EndSession | Payload::Refusal(_) => None,
        }
    }

    /// The row of its method in the method table, whichever revision defines it; absent for a
    /// method that MCP does not know and where [`Permitted::frame`] is no request or notification.
    pub fn method(&self) -> Option<&'static Method> {
        self.method
    }

    /// The protocol that the client speaks with it.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// [`Permitted::body`] as one line: see [`Document::minified`](crate::wire::document::Document::minified).
    #[must_use]
    pub fn minified(&self) -> Bytes {
        minify(self.body())
    }

    /// The call that it belongs to.
    pub fn call(&self) -> &CallId {
        &self.call
    }

    /// What its HTTP headers must say.
    pub fn routing(&self) -> &Routing {
        &self.routing
    }
}

/// How a refusal shows in HTTP; other transports carry only the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 200: an ordinary answer, or a refusal by policy.
    Ok,
    /// 202: a notification was taken.
    Accepted,
    /// 400.
    BadRequest,
    /// 401: no access token, or none that is good here.
    Unauthorized,
    /// 403: a refused notification, or a foreign Origin or Host.
    Forbidden,
    /// 404: no such path or session.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 413.
    TooLarge,
    /// 415: not JSON in UTF-8, or coded.
    UnsupportedMediaType,
    /// 429: too many sessions, streams or calls at once.
    TooMany,
    /// 502: the upstream failed.
    BadGateway,
    /// 503: no record can be kept, or we are closing.
    Unavailable,
    /// 504: the upstream took too long.
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
            Self::BadGateway => 502,
            Self::Unavailable => 503,
            Self::GatewayTimeout => 504,
        }
    }
}

/// What a [`Released`] is.
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
    /// The body of an HTTP error that is no message: whatever the server wrote.
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

/// A message that may go to the client.
#[must_use]
#[derive(Debug)]
pub struct Released {
    body: Bytes,
    content: Content,
    id: Option<Id>,
    status: Status,
    own: bool,
    settles: Option<Revision>,
    back: Option<Box<Permitted>>,
}

impl Released {
    /// The one place where a message for the client is made.
    pub(crate) fn assertion(
        body: Bytes,
        content: Content,
        id: Option<Id>,
        status: Status,
        own: bool,
    ) -> Self {
        Self { body, content, id, status, own, settles: None, back: None }
    }

    /// Sends `back` to the server at the same time.
    pub(crate) fn answering(mut self, back: Option<Permitted>) -> Self {
        self.back = back.map(Box::new);
        self
    }

    /// It answers `initialize` and settles on `revision`.
    pub(crate) fn settling(mut self, revision: Option<Revision>) -> Self {
        self.settles = revision;
        self
    }

    /// Our refusal of what the server asked in the same batch: it goes back to the server.
    pub fn take_back(&mut self) -> Option<Permitted> {
        self.back.take().map(|back| *back)
    }

    /// The message: the server's bytes, those with entries hidden, or a refusal. Empty
    /// where there is nothing to say but the status.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What it is.
    pub fn content(&self) -> Content {
        self.content
    }

    /// The id that it stands under, by which its reader can tell what it answers or asks. Absent
    /// for a batch, for a notification, and for an error whose request could not be read.
    pub fn id(&self) -> Option<&Id> {
        self.id.as_ref()
    }

    /// The revision that it settles on, where it is the answer to `initialize` and names one.
    pub fn settles(&self) -> Option<Revision> {
        self.settles
    }

    /// [`Released::body`] as one line: see [`Document::minified`](crate::wire::document::Document::minified).
    /// Absent for the body of an HTTP error, which may be no JSON.
    #[must_use]
    pub fn minified(&self) -> Option<Bytes> {
        (self.content != Content::Opaque).then(|| minify(&self.body))
    }

    /// The status to answer with where [`Released::is_own`]; otherwise the upstream's stands.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether the gate wrote it (a refusal) rather than the server.
    pub fn is_own(&self) -> bool {
        self.own
    }
}

/// What is to be done with a frame.
#[must_use]
#[derive(Debug)]
pub enum Act {
    /// Send it to the server.
    Forward(Permitted),
    /// Send it to the client.
    Deliver(Released),
    /// Nothing: nobody is owed anything.
    Drop,
}

/// Keeps records.
pub trait AuditSink: Send + Sync {
    /// Keeps `record`, or says that it cannot. `Ok` means kept as durably as the sink promises.
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept>;
}

/// A sink could not keep a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unkept {
    /// Why, for the operator.
    pub cause: String,
}

/// No record, so no act: what to tell the client instead, where it waits for an answer. Its text
/// is constant and holds nothing of either peer, which is why it needs no record.
#[derive(Debug)]
pub struct Unrecorded {
    /// Why, for the operator.
    pub cause: Unkept,
    /// The call that will not happen: hand it to `Session::forget`.
    pub call: Option<CallId>,
    /// For the client.
    pub refusal: Option<Released>,
}

/// What the client is told if no record can be kept: written only then, not for each message.
#[derive(Debug)]
pub(crate) struct IfUnrecorded {
    /// The request that waits for an answer.
    pub(crate) id: Option<Id>,
    /// The era to word it for.
    pub(crate) era: Era,
    /// Writes it, given the call that the record names.
    pub(crate) write: fn(Option<&Id>, &str, Era) -> Released,
}

/// An act and the record without which it may not happen.
#[must_use]
#[derive(Debug)]
pub struct Step {
    record: AuditRecord,
    also: Vec<AuditRecord>,
    act: Act,
    if_unrecorded: Option<IfUnrecorded>,
    /// The call that will not happen if no record can be kept, where the first record is not its.
    exchange: Option<CallId>,
    teaching: Vec<Teaching>,
}

impl Step {
    pub(crate) fn new(record: AuditRecord, act: Act) -> Self {
        Self {
            record,
            also: Vec::new(),
            act,
            if_unrecorded: None,
            exchange: None,
            teaching: Vec::new(),
        }
    }

    /// An act that needs all of `records`; nothing if there are none.
    pub(crate) fn of_all(records: Vec<AuditRecord>, act: Act) -> Option<Self> {
        let mut records = records.into_iter();
        Some(Self::new(records.next()?, act).with_records(records))
    }

    /// The call that will not happen if no record can be kept.
    pub(crate) fn about(mut self, exchange: &CallId) -> Self {
        self.exchange = Some(CallId::clone(exchange));
        self
    }

    /// Whether the act goes to the server.
    pub(crate) fn forwards(&self) -> bool {
        matches!(self.act, Act::Forward(_))
    }

    /// The records and the act, for a step that needs them all.
    pub(crate) fn into_parts(self) -> (Vec<AuditRecord>, Act) {
        (std::iter::once(self.record).chain(self.also).collect(), self.act)
    }

    /// What the client is told if no record can be kept.
    pub(crate) fn if_unrecorded(mut self, told: IfUnrecorded) -> Self {
        self.if_unrecorded = Some(told);
        self
    }

    /// Further records that must be kept too.
    pub(crate) fn with_records(mut self, also: impl IntoIterator<Item = AuditRecord>) -> Self {
        self.also.extend(also);
        self
    }

    /// What is learnt once the record is kept.
    pub(crate) fn teaching(mut self, teaching: impl IntoIterator<Item = Teaching>) -> Self {
        self.teaching.extend(teaching);
        self
    }

    /// Takes that out, for a step that this one becomes part of.
    pub(crate) fn take_teaching(&mut self) -> Vec<Teaching> {
        std::mem::take(&mut self.teaching)
    }

    /// What will be recorded.
    pub fn audit_record(&self) -> &AuditRecord {
        &self.record
    }

    /// Keeps the record and gives the act, or no act.
    pub fn record(self, sink: &dyn AuditSink) -> Result<Act, Unrecorded> {
        let kept = std::iter::once(&self.record)
            .chain(&self.also)
            .try_for_each(|record| sink.keep(record));
        match kept {
            Ok(()) => {
                self.teaching.into_iter().for_each(Teaching::take_place);
                Ok(self.act)
            }
            Err(cause) => {
                let call = self.exchange.or(self.record.call);
                let named = call.as_deref().unwrap_or_default();
                let refusal =
                    self.if_unrecorded.map(|it| (it.write)(it.id.as_ref(), named, it.era));
                Err(Unrecorded { cause, call, refusal })
            }
        }
    }
}
