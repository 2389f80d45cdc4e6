//! A batch: several messages in one array (JSON-RPC 2.0 §6). Of MCP's revisions 2025-03-26 alone
//! has them. Each element is a frame of its own and must be read as one.

use bytes::Bytes;

use super::{FrameLimits, Malformed};
use crate::wire::document::{Document, Kind};

/// Messages in one batch at most.
pub const BATCH_MAX: usize = 64;

/// A strict array of 1 to [`BATCH_MAX`] elements, none of them looked at yet.
#[derive(Debug)]
pub struct Batch {
    document: Document,
}

impl Batch {
    /// Reads the array; `limits.document` bounds it as a whole.
    pub fn read(raw: Bytes, limits: &FrameLimits) -> Result<Self, Malformed> {
        let document = Document::read(raw, &limits.document).map_err(Malformed::Unreadable)?;
        let root = document.root();
        if root.kind() != Kind::Array {
            return Err(Malformed::Shape);
        }
        if root.is_empty() || root.len() > BATCH_MAX {
            return Err(Malformed::BatchSize);
        }
        Ok(Self { document })
    }

    /// The bytes of each element, as they came.
    pub fn elements(&self) -> impl Iterator<Item = Bytes> {
        let raw = self.document.raw();
        self.document.root().elements().map(|element| raw.slice(element.span()))
    }

    /// The same bytes with each element that differs from its one of `bodies` replaced by it.
    #[must_use]
    pub fn with(&self, bodies: &[Bytes]) -> Bytes {
        let edits: Vec<_> = self
            .document
            .root()
            .elements()
            .zip(bodies)
            .filter(|(element, body)| element.raw() != &body[..])
            .map(|(element, body)| (element.span(), body.to_vec()))
            .collect();
        if edits.is_empty() { self.document.raw().clone() } else { self.document.splice(&edits) }
    }
}

/// An array of `messages`.
#[must_use]
pub fn write_batch<'a>(messages: impl IntoIterator<Item = &'a Bytes>) -> Bytes {
    let mut out = vec![b'['];
    for message in messages {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(message);
    }
    out.push(b']');
    out.into()
}
