//! The flat tree: one vector of nodes, in the order of the text.
//!
//! Names of members are nodes too. A value and everything below it are adjacent, so one allocation
//! holds the whole tree. Only `read` builds it; it is immutable afterwards.

use std::ops::Range;

/// The kind of a node, with what is needed to navigate. `after` is an index of nodes; `at` and
/// `len` of [`Shape::Escaped`] are bytes in [`Tree::decoded`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Null,
    Bool(bool),
    Number,
    /// A string without escapes: its text is the bytes between the quotes.
    Verbatim,
    /// A string with escapes.
    Escaped {
        at: u32,
        len: u32,
    },
    /// `len` elements; `after` is the first node after all of them.
    Array {
        len: u32,
        after: u32,
    },
    /// `len` members; `after` is the first node after all of them.
    Object {
        len: u32,
        after: u32,
    },
}

/// One value or member name: its first byte, the byte after its last, and its kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct TreeNode {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) shape: Shape,
}

impl TreeNode {
    /// The length of a string's decoded text, bytes.
    fn text_len(&self) -> Option<usize> {
        match self.shape {
            Shape::Verbatim => Some(wide(self.end.saturating_sub(self.start).saturating_sub(2))),
            Shape::Escaped { len, .. } => Some(wide(len)),
            Shape::Null
            | Shape::Bool(_)
            | Shape::Number
            | Shape::Array { .. }
            | Shape::Object { .. } => None,
        }
    }
}

/// The nodes of one document, the root first.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<TreeNode>,
    pub(super) decoded: Vec<u8>,
    /// Offset of the first member name that has a control character.
    pub(super) control_in_name: Option<usize>,
}

impl Tree {
    /// The kind of a node. Every index in use comes from the reader; any other reads as `null`.
    #[inline]
    pub(super) fn shape(&self, index: u32) -> Shape {
        self.nodes.get(wide(index)).map_or(Shape::Null, |node| node.shape)
    }

    #[inline]
    pub(super) fn span(&self, index: u32) -> Range<usize> {
        self.nodes.get(wide(index)).map_or(0..0, |node| wide(node.start)..wide(node.end))
    }

    /// The decoded bytes of a string.
    #[inline]
    pub(super) fn text<'a>(&'a self, raw: &'a [u8], index: u32) -> Option<&'a [u8]> {
        let node = self.nodes.get(wide(index))?;
        match node.shape {
            Shape::Verbatim => {
                raw.get(wide(node.start).saturating_add(1)..wide(node.end).saturating_sub(1))
            }
            Shape::Escaped { at, len } => {
                self.decoded.get(wide(at)..wide(at).saturating_add(wide(len)))
            }
            Shape::Null
            | Shape::Bool(_)
            | Shape::Number
            | Shape::Array { .. }
            | Shape::Object { .. } => None,
        }
    }

    /// The value of the member `name` of an object; `None` for other kinds, too.
    pub(super) fn member(&self, raw: &[u8], object: u32, name: &[u8]) -> Option<u32> {
        let Shape::Object { after, .. } = self.shape(object) else { return None };
        let mut at = object.saturating_add(1);
        while at < after {
            let value = at.saturating_add(1);
            if self.nodes.get(wide(at))?.text_len() == Some(name.len())
                && self.text(raw, at) == Some(name)
            {
                return Some(value);
            }
            at = self.after(value);
        }
        None
    }

    /// The first node after this one and everything below it.
    #[inline]
    pub(super) fn after(&self, index: u32) -> u32 {
        match self.shape(index) {
            Shape::Array { after, .. } | Shape::Object { after, .. } => after,
            Shape::Null
            | Shape::Bool(_)
            | Shape::Number
            | Shape::Verbatim
            | Shape::Escaped { .. } => index.saturating_add(1),
        }
    }
}

/// Converts an index to `usize`. Never saturates where pointers have at least 32 bits.
pub(super) fn wide(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// Converts a position to 32 bits. Never saturates: the reader refuses larger documents.
pub(super) fn narrow(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
