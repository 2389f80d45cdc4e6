//! Strict JSON-RPC 2.0: one document to one message (rules P5 and P7 to P10 of the profile).
//!
//! A frame is refused rather than interpreted whenever two common readers would take it for two
//! different messages. Batches are refused here. Knows no method by name except through the
//! member names that MCP gives to `params`; what a method means is `access`'s business.

use bytes::Bytes;

use super::document::{Document, DocumentLimits, Unreadable, Value};

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

/// A JSON-RPC id. `1` and `"1"` are two ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// An integer in ±(2^53−1).
    Number(i64),
    /// A string of at most [`FrameLimits::id_bytes_max`] bytes, decoded.
    Text(Box<str>),
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

/// Why bytes are not one strict JSON-RPC message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// Not strict JSON.
    Unreadable(Unreadable),
    /// The top level is an array (P7).
    Batch,
    /// The top level is no object.
    NotObject,
    /// A member of the envelope or of `params` looks like a known one but is not (P5).
    LookAlike {
        /// Where the name begins, bytes.
        at: usize,
    },
    /// `jsonrpc` is missing or not `"2.0"`.
    Version,
    /// `method`, `result` and `error` do not make exactly one kind of message.
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
        let _ = (raw, sender, limits);
        Err(Malformed::Shape)
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
}

/// Appends an id as JSON.
pub fn write_id(out: &mut Vec<u8>, id: &Id) {
    match id {
        Id::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Id::Text(text) => super::document::write_string(out, text),
    }
}
