//! Strict JSON-RPC 2.0: from one document to one message (P5 and P7 to P10 of the strict profile).
//!
//! A frame is refused whenever two common readers would take it for two different messages. A batch
//! is not a frame; `batch` splits it into texts that may be frames. The method table states which
//! form `params` must have. What a message means for policy is decided in `question`.

mod look_alike;
mod batch;
mod inside;
mod outer;

use bytes::Bytes;

use super::document::{Document, DocumentLimits, Kind, Unreadable, Value, write_string};
use super::headers::{META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_PROTOCOL_VERSION};
use super::method::{Method, ParamForm};
use super::protocol::{ClaimedVersion, Era};
pub use batch::{BATCH_MAX, Batch, write_batch};
pub use inside::{is_ambiguous_answer, is_readable_request};
pub use look_alike::{KnownNames, is_look_alike, is_other_spelling};
pub use outer::OuterMembers;

/// The largest integer that every JSON reader keeps exactly: 2^53−1 (P8; RFC 8259 §6).
const ID_MAX: i64 = (1 << 53) - 1;

/// Members of the envelope (JSON-RPC 2.0 §4 and §5).
const ENVELOPE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];

/// Members of `params` on which depends what a call does, in any revision of MCP.
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
    "mode",
    "url",
];

/// Members of `params` with one form in every method that has them; each may be absent or `null`.
const COMMON: &[(&str, Kind)] =
    &[("task", Kind::Object), ("inputResponses", Kind::Object), ("requestState", Kind::String)];

/// Members of `params._meta` on which depends how the message is read.
const META: &[&str] =
    &[META_PROTOCOL_VERSION, META_CLIENT_CAPABILITIES, META_CLIENT_INFO, PROGRESS_TOKEN];
/// `_meta` key of the token with which a request asks for progress.
const PROGRESS_TOKEN: &str = "progressToken";

/// Members of a [`ParamForm::Reference`].
const REFERENCE: &[&str] = &["type", "name", "uri"];
/// Members of a [`ParamForm::Filter`] that are lists of texts: URIs and task ids.
const FILTER: &[&str] = &["resourceSubscriptions", "taskIds"];

/// Limits on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Limits on the JSON document.
    pub document: DocumentLimits,
    /// Length of a string id, bytes (P8).
    pub id_bytes_max: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { document: DocumentLimits::default(), id_bytes_max: 256 }
    }
}

/// A JSON-RPC id, or a value of the same form: a progress token, the id that a cancellation names.
/// `1` and `"1"` are different ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// An integer in ±(2^53−1).
    Number(i64),
    /// A string of at most [`FrameLimits::id_bytes_max`] bytes, decoded.
    Text(Box<str>),
}

impl Id {
    /// Reads an id of any length: an integer or a string; `None` for any other value.
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

/// The kind of a message, with what correlates it (JSON-RPC 2.0 §4 and §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A request, which must be answered with the same id.
    Request {
        /// The sender's id.
        id: Id,
        /// The exact method name, decoded.
        method: Box<str>,
    },
    /// A notification, which is never answered.
    Notification {
        /// The exact method name, decoded.
        method: Box<str>,
    },
    /// A successful answer.
    Result {
        /// The id of the request.
        id: Id,
    },
    /// An error answer.
    Error {
        /// The id of the request; absent where the server could not read it.
        id: Option<Id>,
        /// The error's `code`.
        code: i64,
    },
}

impl Message {
    /// The id: of the request itself, or of the request that it answers. Absent for a notification,
    /// and for an error whose request could not be read.
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

/// Why bytes are not one strict JSON-RPC message. Offsets are bytes from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// Not strict JSON.
    Unreadable(Unreadable),
    /// The top level is an array (P7).
    Batch,
    /// A batch is empty, or has more than [`BATCH_MAX`] messages.
    BatchSize,
    /// The top level is a scalar.
    NotObject,
    /// The name of a member of the envelope or of `params` looks like a known one but differs (P5).
    LookAlike {
        /// Offset of the name.
        at: usize,
    },
    /// The name of a member, anywhere in a message of a client, has a control character (P5).
    ControlInName {
        /// Offset of the name.
        at: usize,
    },
    /// `jsonrpc` is missing or not `"2.0"`.
    Version,
    /// Not exactly one of `method`, `result` and `error` is present, an answer has `params`, or
    /// `result` or `error` does not have the form that MCP requires.
    Shape,
    /// `id` is missing from a request or answer, present in a notification, or of a refused form.
    BadId,
    /// `method` is not a string, or empty.
    BadMethod,
    /// `params` or one of its members has the wrong type (P10).
    BadParams {
        /// The name of the member, or `params`.
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
    /// Reads one frame that `sender` wrote.
    ///
    /// # Errors
    ///
    /// [`Malformed`] names one breach of the strict profile.
    pub fn read(raw: Bytes, sender: Sender, limits: &FrameLimits) -> Result<Self, Malformed> {
        let document = Document::read(raw, &limits.document).map_err(Malformed::Unreadable)?;
        let message = Envelope::read(document.root())?.message(sender, limits)?;
        if let Some(at) = document.control_in_name().filter(|_| sender == Sender::Client) {
            return Err(Malformed::ControlInName { at });
        }
        Ok(Self { document, message })
    }

    /// The kind of the message, with its id and method.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The document that it was read from.
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

    /// Reads an id from the member `member` of `params`: `requestId` of a cancellation,
    /// `progressToken` of a progress notification.
    pub fn named_id(&self, member: &str) -> Option<Id> {
        Id::spelt_by(self.params()?.get(member)?)
    }

    /// The token with which a request asks for progress notifications (`params._meta`).
    pub fn progress_token(&self) -> Option<Id> {
        Id::spelt_by(self.params()?.get("_meta")?.get(PROGRESS_TOKEN)?)
    }

    /// The revision that `_meta` claims: present in modern messages alone (MCP 2026-07-28, basic,
    /// "Protocol Version"). [`Frame::read`] has refused a message whose claim has another type, or
    /// names a legacy revision.
    pub fn claimed_version(&self) -> Option<ClaimedVersion<'_>> {
        claim(self.params()?)
    }

    /// Returns the same bytes with the envelope's id replaced by `id`; unchanged where there is
    /// none.
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

/// The members of the envelope as they came.
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

    /// Determines which of the four kinds of message this is (P8).
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

    /// Reads a request or a notification. In MCP both the method's name and the id tell which it
    /// is, and they must agree (P8).
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

/// Reads an id (P8): an integer literal in ±(2^53−1), or a string of limited length.
fn read_id(value: Value<'_>, limits: &FrameLimits) -> Option<Id> {
    if let Some(text) = value.as_str() {
        return (text.len() <= limits.id_bytes_max).then(|| Id::Text(Box::from(text)));
    }
    let number = value.as_i64()?;
    (-ID_MAX..=ID_MAX).contains(&number).then_some(Id::Number(number))
}

/// The `code` of a well-formed error object (JSON-RPC 2.0 §5.1). Servers may add members; a
/// client's error with further members is refused, because nothing would check them.
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

/// The revision that `params._meta` claims.
fn claim(params: Value<'_>) -> Option<ClaimedVersion<'_>> {
    ClaimedVersion::parse(params.get("_meta")?.get(META_PROTOCOL_VERSION)?.as_str()?)
}

/// Checks the members of `_meta` that decide how the message is read: names (P5) and
/// types (P10). What has another type is absent to one reader and a claim to another.
fn check_meta(params: Value<'_>) -> Result<(), Malformed> {
    let bad = Err(Malformed::BadParams { member: "_meta" });
    let Some(meta) = params.get("_meta").filter(|meta| meta.kind() != Kind::Null) else {
        return Ok(());
    };
    if meta.kind() != Kind::Object {
        return bad;
    }
    for (name, _) in meta.members() {
        refuse_look_alike(name, META)?;
    }
    let object = |name| meta.get(name).is_none_or(|value| value.kind() == Kind::Object);
    let version = meta
        .get(META_PROTOCOL_VERSION)
        .is_none_or(|_| claim(params).is_some_and(|claim| claim.era() == Era::Modern));
    let token = meta.get(PROGRESS_TOKEN).is_none_or(|token| Id::spelt_by(token).is_some());
    if version && token && object(META_CLIENT_CAPABILITIES) && object(META_CLIENT_INFO) {
        Ok(())
    } else {
        bad
    }
}

/// Checks the names (P5) and types (P10) of members of `params`.
fn check_params(method: &str, params: Option<Value<'_>>) -> Result<(), Malformed> {
    let bad = |member| Err(Malformed::BadParams { member });
    if let Some(params) = params {
        if params.kind() != Kind::Object {
            return bad("params");
        }
        for (name, _) in params.members() {
            refuse_look_alike(name, PARAMS)?;
        }
        check_meta(params)?;
        for (member, kind) in COMMON {
            let value = params.get(member).map(Value::kind);
            if value.is_some_and(|it| it != *kind && it != Kind::Null) {
                return bad(member);
            }
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
            ParamForm::Text => kind == Some(Kind::String),
            ParamForm::LegacyText => {
                let modern = || claim(params).is_some_and(|claim| claim.era() == Era::Modern);
                kind == Some(Kind::String) || (kind.is_none() && modern())
            }
            ParamForm::Arguments => matches!(kind, None | Some(Kind::Null | Kind::Object)),
            ParamForm::Reference => value.is_some_and(is_reference),
            ParamForm::Filter => value.is_none_or(is_filter),
        };
        if !fits {
            return bad(member);
        }
        let known = match form {
            ParamForm::Text | ParamForm::LegacyText | ParamForm::Arguments => continue,
            ParamForm::Reference => REFERENCE,
            ParamForm::Filter => FILTER,
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

/// Refuses a member name that looks like a known one (P5).
fn refuse_look_alike(name: Value<'_>, known: &[&str]) -> Result<(), Malformed> {
    if name.as_str().is_some_and(|text| is_look_alike(text, known)) {
        return Err(Malformed::LookAlike { at: name.span().start });
    }
    Ok(())
}
