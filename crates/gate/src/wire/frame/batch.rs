//! A batch: several messages in one array (JSON-RPC 2.0 §6; of MCP's revisions only 2025-03-26 has
//! them). This module splits and joins arrays; each element must be read as a frame by the caller.

use bytes::Bytes;

use super::{FrameLimits, Malformed};
use crate::wire::document::{Document, Kind};

/// Messages in one batch at most.
pub const BATCH_MAX: usize = 64;

/// A strict JSON array of 1 to [`BATCH_MAX`] elements, which are not read as frames yet.
#[derive(Debug)]
pub struct Batch {
    document: Document,
}

impl Batch {
    /// Reads the array; `limits.document` applies to it as a whole.
    ///
    /// # Errors
    ///
    /// `Unreadable` if it is not strict JSON, `Shape` if it is not an array, `BatchSize` if it is
    /// empty or too large.
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

    /// Returns the same bytes, with each element replaced by the one of `bodies` in its position
    /// where they differ.
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

/// Writes `messages`, each one JSON text, as an array.
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
