//! The flat tree: one vector of nodes in the order of the text.
//!
//! Names of members are nodes too, so a value and all below it are neighbours, and one allocation
//! holds the tree whatever its form. Built by `read` alone; never changed afterwards.

use std::ops::Range;

/// What is known of a node beside its span. Indices are of nodes; `at` and `len` of
/// [`Shape::Escaped`] are bytes in [`Tree::decoded`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Null,
    Bool(bool),
    Number,
    /// A string without escapes: its text is what stands between the quotes.
    Verbatim,
    /// A string with escapes.
    Escaped {
        at: u32,
        len: u32,
    },
    /// `after` is the first node behind all elements.
    Array {
        len: u32,
        after: u32,
    },
    /// `after` is the first node behind all members.
    Object {
        len: u32,
        after: u32,
    },
}

/// One value or member name: where it stands, first byte and one past the last, and what it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) shape: Shape,
}

/// The nodes of one document, the root first.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) decoded: Vec<u8>,
}

impl Tree {
    /// Every index in use was given out by the reader; `null` for another fails closed.
    pub(super) fn shape(&self, index: u32) -> Shape {
        self.nodes.get(wide(index)).map_or(Shape::Null, |node| node.shape)
    }

    pub(super) fn span(&self, index: u32) -> Range<usize> {
        self.nodes.get(wide(index)).map_or(0..0, |node| wide(node.start)..wide(node.end))
    }

    /// The decoded bytes of a string.
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

    /// The first node behind this one and all below it.
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

/// An index as the standard library wants it. Never saturates where a pointer has 32 bits.
pub(super) fn wide(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// A position as nodes keep it. Never saturates: the reader refuses what 32 bits cannot address.
pub(super) fn narrow(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
