//! Strict JSON-RPC 2.0: one document to one message (rules P5 and P7 to P10 of the profile).
//!
//! A frame is refused rather than interpreted whenever two common readers would take it for two
//! different messages. A batch is no frame; `batch` takes it apart into what may be some. What
//! `params` must look like stands in the method table; what a method means is `access`'s business.

mod look_alike;
mod batch;

use bytes::Bytes;

use super::document::{Document, DocumentLimits, Kind, Unreadable, Value, write_string};
use super::method::{Form, Method};
pub use batch::{BATCH_MAX, Batch, write_batch};
pub use look_alike::is_look_alike;

/// The largest integer that every reader keeps exactly: 2^53−1 (P8).
const ID_MAX: i64 = (1 << 53) - 1;

/// `_meta` key of the revision on each modern request.
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The first revision without sessions.
const MODERN: &str = "2026-07-28";

/// Members of the envelope (JSON-RPC 2.0 §4 and §5).
const ENVELOPE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];

/// Members of `params` that decide what a call does, in any revision of MCP.
const PARAMS: &[&str] = &[
    "name",
    "arguments",
    "uri",
    "cursor",
    "_meta",
    "ref",
    "argument",
    "context",
    "level",
    "taskId",
    "task",
    "requestId",
    "progressToken",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "inputResponses",
    "requestState",
    "notifications",
];

/// Members of a [`Form::Reference`].
const REFERENCE: &[&str] = &["type", "name", "uri"];
/// Members of a [`Form::Filter`] that are lists of texts: URIs and task ids.
const FILTER: &[&str] = &["resourceSubscriptions", "taskIds"];

/// Bounds on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bounds on the JSON itself.
    pub document: DocumentLimits,
    /// Length of a string id, bytes (P8).
    pub id_bytes_max: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { document: DocumentLimits::default(), id_bytes_max: 256 }
    }
}

/// A JSON-RPC id, or something that has the form of one: a progress token, the id that a
/// cancellation names. `1` and `"1"` are two ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// An integer in ±(2^53−1).
    Number(i64),
    /// A string of at most [`FrameLimits::id_bytes_max`] bytes, decoded.
    Text(Box<str>),
}

impl Id {
    /// The id that `value` spells, of whatever length: an integer or a string, else none.
    pub fn spelt_by(value: Value<'_>) -> Option<Self> {
        let number = value.as_i64().map(Self::Number);
        number.or_else(|| value.as_str().map(|text| Self::Text(text.into())))
    }
}

/// Who wrote the frame; a client may not send an error with a null id, a server may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The agent's side.
    Client,
    /// The protected server's side.
    Server,
}

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Asks; must be answered under this id.
    Request {
        /// The sender's id.
        id: Id,
        /// The exact method name, decoded.
        method: Box<str>,
    },
    /// Tells; is never answered.
    Notification {
        /// The exact method name, decoded.
        method: Box<str>,
    },
    /// Answers with a `result`.
    Result {
        /// The id that it answers.
        id: Id,
    },
    /// Answers with an `error`.
    Error {
        /// The id that it answers; absent where the asker's id could not be read.
        id: Option<Id>,
        /// The error's `code`.
        code: i64,
    },
}

impl Message {
    /// The id that it stands under: its own where it asks, the asker's where it answers. Absent for
    /// a notification, and for an error whose asker could not be read.
    pub fn id(&self) -> Option<&Id> {
        match self {
            Self::Request { id, .. } | Self::Result { id } => Some(id),
            Self::Error { id, .. } => id.as_ref(),
            Self::Notification { .. } => None,
        }
    }

    /// The method of a request or a notification.
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request { method, .. } | Self::Notification { method } => Some(method),
            Self::Result { .. } | Self::Error { .. } => None,
        }
    }
}

/// Why bytes are not one strict JSON-RPC message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// Not strict JSON.
    Unreadable(Unreadable),
    /// The top level is an array (P7).
    Batch,
    /// A batch is empty, or has more than [`BATCH_MAX`] messages.
    BatchSize,
    /// The top level is no object.
    NotObject,
    /// A member of the envelope or of `params` looks like a known one but is not (P5).
    LookAlike {
        /// Where the name begins, bytes.
        at: usize,
    },
    /// `jsonrpc` is missing or not `"2.0"`.
    Version,
    /// `method`, `result` and `error` do not make exactly one kind of message, an answer has
    /// `params`, or `result` or `error` is not of the form that MCP gives it.
    Shape,
    /// `id` is missing where it must be, present where it must not, or of a refused form.
    BadId,
    /// `method` is no string, or empty.
    BadMethod,
    /// `params` or one of its members has the wrong type (P10).
    BadParams {
        /// Which member.
        member: &'static str,
    },
}

/// One strict message and the document that it was read from.
#[derive(Debug)]
pub struct Frame {
    document: Document,
    message: Message,
}

impl Frame {
    /// Reads one frame.
    pub fn read(raw: Bytes, sender: Sender, limits: &FrameLimits) -> Result<Self, Malformed> {
        let document = Document::read(raw, &limits.document).map_err(Malformed::Unreadable)?;
        let message = Envelope::read(document.root())?.message(sender, limits)?;
        Ok(Self { document, message })
    }

    /// What it is.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The document.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// `params`, where present.
    pub fn params(&self) -> Option<Value<'_>> {
        self.document.root().get("params")
    }

    /// `result`, where present.
    pub fn result(&self) -> Option<Value<'_>> {
        self.document.root().get("result")
    }

    /// The id that `params` carries as `member`: `requestId` of a cancellation, `progressToken` of
    /// progress.
    pub fn named_id(&self, member: &str) -> Option<Id> {
        Id::spelt_by(self.params()?.get(member)?)
    }

    /// The token under which a request wants to hear of its progress (`params._meta`).
    pub fn progress_token(&self) -> Option<Id> {
        Id::spelt_by(self.params()?.get("_meta")?.get("progressToken")?)
    }

    /// The same bytes with only the literal of the envelope's id replaced by `id`. A frame without
    /// an id stays as it is.
    #[must_use]
    pub fn with_id(&self, id: &Id) -> Bytes {
        let Some(old) = self.document.root().get("id") else {
            return self.document.raw().clone();
        };
        let mut literal = Vec::new();
        write_id(&mut literal, id);
        self.document.splice(&[(old.span(), literal)])
    }
}

/// Appends `id` as a JSON literal.
pub fn write_id(out: &mut Vec<u8>, id: &Id) {
    match id {
        Id::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Id::Text(text) => write_string(out, text),
    }
}

/// Whether a tool or prompt name keeps to what MCP recommends: `[A-Za-z0-9_.-]{1,128}`. Another
/// name may be permitted only by its exact literal, never by a pattern (P10).
pub fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=128).contains(&name.len()) && name.bytes().all(plain)
}

/// The members of the envelope, each as it came.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<Value<'a>>,
    id: Option<Value<'a>>,
    method: Option<Value<'a>>,
    params: Option<Value<'a>>,
    result: Option<Value<'a>>,
    error: Option<Value<'a>>,
}

impl<'a> Envelope<'a> {
    fn read(root: Value<'a>) -> Result<Self, Malformed> {
        match root.kind() {
            Kind::Object => {}
            Kind::Array => return Err(Malformed::Batch),
            Kind::Null | Kind::Bool | Kind::Number | Kind::String => {
                return Err(Malformed::NotObject);
            }
        }
        let mut envelope = Self::default();
        for (name, value) in root.members() {
            let member = match name.text() {
                Some(b"jsonrpc") => &mut envelope.jsonrpc,
                Some(b"id") => &mut envelope.id,
                Some(b"method") => &mut envelope.method,
                Some(b"params") => &mut envelope.params,
                Some(b"result") => &mut envelope.result,
                Some(b"error") => &mut envelope.error,
                Some(_) | None => {
                    refuse_look_alike(name, ENVELOPE)?;
                    continue;
                }
            };
            *member = Some(value);
        }
        Ok(envelope)
    }

    /// P8: which of the four messages this is.
    fn message(&self, sender: Sender, limits: &FrameLimits) -> Result<Message, Malformed> {
        if self.jsonrpc.and_then(Value::text) != Some(b"2.0") {
            return Err(Malformed::Version);
        }
        match (self.method, self.params, self.result, self.error) {
            (Some(method), _, None, None) => self.asking(method, limits),
            (None, None, Some(result), None) => {
                let id = self.required_id(limits)?;
                if result.kind() == Kind::Object {
                    Ok(Message::Result { id })
                } else {
                    Err(Malformed::Shape)
                }
            }
            (None, None, None, Some(error)) => {
                let code = error_code(error, sender).ok_or(Malformed::Shape)?;
                // JSON-RPC 2.0 §5: null where the id of the request could not be read.
                let unknown = self.id.is_none_or(|id| id.kind() == Kind::Null);
                let id = match sender {
                    Sender::Server if unknown => None,
                    Sender::Server | Sender::Client => Some(self.required_id(limits)?),
                };
                Ok(Message::Error { id, code })
            }
            _ => Err(Malformed::Shape),
        }
    }

    /// A request or a notification; MCP tells them apart by name as well as by id.
    fn asking(&self, method: Value<'a>, limits: &FrameLimits) -> Result<Message, Malformed> {
        let name = method.as_str().filter(|name| !name.is_empty()).ok_or(Malformed::BadMethod)?;
        let method = Box::from(name);
        let message = match (Method::is_notification(name), self.id) {
            (true, None) => Message::Notification { method },
            (true, Some(_)) => return Err(Malformed::BadId),
            (false, _) => Message::Request { id: self.required_id(limits)?, method },
        };
        check_params(name, self.params)?;
        Ok(message)
    }

    fn required_id(&self, limits: &FrameLimits) -> Result<Id, Malformed> {
        self.id.and_then(|id| read_id(id, limits)).ok_or(Malformed::BadId)
    }
}

/// P8: an integer literal in ±(2^53−1), or a bounded string.
fn read_id(value: Value<'_>, limits: &FrameLimits) -> Option<Id> {
    if let Some(text) = value.as_str() {
        return (text.len() <= limits.id_bytes_max).then(|| Id::Text(Box::from(text)));
    }
    let number = value.as_i64()?;
    (-ID_MAX..=ID_MAX).contains(&number).then_some(Id::Number(number))
}

/// The `code` of a well-formed error object (JSON-RPC 2.0 §5.1). Servers may add members of their
/// own; a client has no reason to, and what it adds nobody has looked at.
fn error_code(error: Value<'_>, sender: Sender) -> Option<i64> {
    let known = |(name, _): (Value<'_>, Value<'_>)| {
        matches!(name.text(), Some(b"code" | b"message" | b"data"))
    };
    if sender == Sender::Client && !error.members().all(known) {
        return None;
    }
    error.get("message")?.text()?;
    error.get("code")?.as_i64()
}

/// Whether the request names the revision that took legacy methods out.
fn is_modern(params: Value<'_>) -> bool {
    let version = params.get("_meta").and_then(|meta| meta.get(META_PROTOCOL_VERSION));
    version.and_then(Value::as_str) == Some(MODERN)
}

/// P5 and P10 for `params`.
fn check_params(method: &str, params: Option<Value<'_>>) -> Result<(), Malformed> {
    let bad = |member| Err(Malformed::BadParams { member });
    if let Some(params) = params {
        if params.kind() != Kind::Object {
            return bad("params");
        }
        for (name, _) in params.members() {
            refuse_look_alike(name, PARAMS)?;
        }
    }
    let forms = Method::named(method).map_or(&[][..], |method| method.params);
    if forms.is_empty() {
        return Ok(());
    }
    let Some(params) = params else { return bad("params") };
    for (member, form) in forms {
        let value = params.get(member);
        let kind = value.map(Value::kind);
        let fits = match form {
            Form::Text => kind == Some(Kind::String),
            Form::LegacyText => kind == Some(Kind::String) || (kind.is_none() && is_modern(params)),
            Form::Arguments => matches!(kind, None | Some(Kind::Null | Kind::Object)),
            Form::Reference => value.is_some_and(is_reference),
            Form::Filter => value.is_none_or(is_filter),
        };
        if !fits {
            return bad(member);
        }
        let known = match form {
            Form::Text | Form::LegacyText | Form::Arguments => continue,
            Form::Reference => REFERENCE,
            Form::Filter => FILTER,
        };
        for (name, _) in value.into_iter().flat_map(Value::members) {
            refuse_look_alike(name, known)?;
        }
    }
    Ok(())
}

fn is_reference(value: Value<'_>) -> bool {
    value.kind() == Kind::Object && !(value.get("name").is_some() && value.get("uri").is_some())
}

fn is_filter(value: Value<'_>) -> bool {
    let texts = |list: Value<'_>| {
        list.kind() == Kind::Array && list.elements().all(|text| text.kind() == Kind::String)
    };
    value.kind() == Kind::Object && FILTER.iter().all(|member| value.get(member).is_none_or(texts))
}

/// P5 for one member name.
fn refuse_look_alike(name: Value<'_>, known: &[&str]) -> Result<(), Malformed> {
    if name.as_str().is_some_and(|text| is_look_alike(text, known)) {
        return Err(Malformed::LookAlike { at: name.span().start });
    }
    Ok(())
}
