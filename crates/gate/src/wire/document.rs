//! Strict JSON: bytes to one tree with exactly one meaning, spans kept.
//!
//! This reader carries out rules P2 to P6 of the strict profile: one value, RFC 8259 grammar,
//! bounded depth and numbers, no duplicate member names, no lone surrogates, nothing two common
//! parsers would read differently. It keeps the original bytes and the span of every value, so
//! that an edit touches only what it must. It knows nothing of JSON-RPC; `frame` does.
//!
//! Reading is one pass without recursion (`read`); a string is copied only if it holds an escape.
//! Errors come in the order in which that pass meets them: when bytes have several faults, which
//! one is named is not part of the contract, only that one is.

mod tree;
mod text;
mod read;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;

pub use text::write_string;

use tree::{Shape, Tree, wide};

/// Bounds on one document. Every bound is inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "a limit is named for what it is the most of")]
pub struct DocumentLimits {
    /// Size of the whole document, bytes.
    pub bytes_max: usize,
    /// Nesting of arrays and objects; a scalar at the top has depth 0.
    pub depth_max: usize,
    /// Length of one number literal, characters.
    pub number_chars_max: usize,
    /// Values (scalars, arrays and objects) in the whole document.
    pub values_max: usize,
}

impl Default for DocumentLimits {
    fn default() -> Self {
        Self { bytes_max: 4 << 20, depth_max: 64, number_chars_max: 256, values_max: 1 << 20 }
    }
}

/// Why bytes are not one strict JSON document. Offsets are bytes from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// Larger than [`DocumentLimits::bytes_max`].
    TooLarge,
    /// Not valid UTF-8, or begins with a byte order mark.
    NotUtf8 {
        /// Where the first bad byte is.
        at: usize,
    },
    /// Breaks the grammar of RFC 8259, or something follows the value.
    NotJson {
        /// Where reading stopped.
        at: usize,
    },
    /// Nested deeper than [`DocumentLimits::depth_max`].
    TooDeep {
        /// Where the first too deep value begins.
        at: usize,
    },
    /// A number literal too long, or not finite as binary64.
    BadNumber {
        /// Where the literal begins.
        at: usize,
    },
    /// An escape names half a surrogate pair.
    LoneSurrogate {
        /// Where the escape begins.
        at: usize,
    },
    /// More values than [`DocumentLimits::values_max`].
    TooMany,
    /// Two members of one object have the same name after unescaping (P4).
    DuplicateName {
        /// Where the second name begins.
        at: usize,
    },
    /// A member name that some readers treat as an instruction (P6: `__proto__`, `$serde…`).
    ReservedName {
        /// Where the name begins.
        at: usize,
    },
}

/// The kind of a [`Value`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the six kinds of RFC 8259 §3")]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// One strict document: the bytes as they came and the tree read from them, once.
pub struct Document {
    raw: Bytes,
    tree: Tree,
}

/// Shows the size alone: a document may carry secrets and must not reach a log by accident.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("bytes", &self.raw.len()).finish_non_exhaustive()
    }
}

impl Document {
    /// Reads `raw`.
    pub fn read(raw: Bytes, limits: &DocumentLimits) -> Result<Self, Unreadable> {
        let tree = read::read(&raw, limits)?;
        Ok(Self { raw, tree })
    }

    /// The bytes as they came.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The one value of the document.
    pub fn root(&self) -> Value<'_> {
        Value { document: self, index: 0 }
    }

    /// The document with each `(span, text)` replaced, spans in rising order and not overlapping.
    /// An empty span inserts before its byte.
    ///
    /// Spans that are out of order, overlap or end outside the document are the caller's fault;
    /// the answer is then empty, so that a half-applied edit can never be forwarded.
    #[must_use]
    pub fn splice(&self, edits: &[(Range<usize>, Vec<u8>)]) -> Bytes {
        self.spliced(edits).map_or_else(Bytes::new, Bytes::from)
    }

    fn spliced(&self, edits: &[(Range<usize>, Vec<u8>)]) -> Option<Vec<u8>> {
        let added = edits.iter().fold(0_usize, |sum, (_, text)| sum.saturating_add(text.len()));
        let mut out = Vec::with_capacity(self.raw.len().saturating_add(added));
        let mut kept_to = 0;
        for (span, text) in edits {
            if span.end < span.start {
                return None;
            }
            out.extend_from_slice(self.raw.get(kept_to..span.start)?);
            out.extend_from_slice(text);
            kept_to = span.end;
        }
        out.extend_from_slice(self.raw.get(kept_to..)?);
        Some(out)
    }

    /// [`Document::minified`] of the document with `edits` carried out, which are as for
    /// [`Document::splice`]; each text must be one JSON value.
    #[must_use]
    pub fn minified_with(&self, edits: &[(Range<usize>, Vec<u8>)]) -> Bytes {
        minify(&self.splice(edits))
    }

    /// The same tokens without white space between them and with no byte below 0x20; U+0085,
    /// U+2028 and U+2029 inside strings are written as escapes. What a line-framed peer may be
    /// given: no reader of lines finds a line end in it.
    #[must_use]
    pub fn minified(&self) -> Bytes {
        minify(&self.raw)
    }
}

/// [`Document::minified`] of a text that is known to be strict JSON.
pub(crate) fn minify(text: &[u8]) -> Bytes {
    Bytes::from(text::minify(text))
}

/// One value inside a [`Document`].
#[derive(Clone, Copy)]
pub struct Value<'a> {
    document: &'a Document,
    index: u32,
}

/// Shows where the value stands, never what it says, for the reason given at [`Document`].
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("kind", &self.kind()).field("span", &self.span()).finish()
    }
}

impl<'a> Value<'a> {
    fn shape(self) -> Shape {
        self.document.tree.shape(self.index)
    }

    /// Its kind.
    pub fn kind(self) -> Kind {
        match self.shape() {
            Shape::Null => Kind::Null,
            Shape::Bool(_) => Kind::Bool,
            Shape::Number => Kind::Number,
            Shape::Verbatim | Shape::Escaped { .. } => Kind::String,
            Shape::Array { .. } => Kind::Array,
            Shape::Object { .. } => Kind::Object,
        }
    }

    /// Where it stands in [`Document::raw`].
    pub fn span(self) -> Range<usize> {
        self.document.tree.span(self.index)
    }

    /// Its own bytes, as they came.
    pub fn raw(self) -> &'a [u8] {
        self.document.raw.get(self.span()).unwrap_or_default()
    }

    /// The decoded bytes of a string; `None` for other kinds. Always UTF-8; for comparing, where
    /// [`Value::as_str`] would check that again.
    pub(super) fn text(self) -> Option<&'a [u8]> {
        self.document.tree.text(&self.document.raw, self.index)
    }

    /// Where in [`Document::raw`] the characters of a string stand that decode to each of
    /// `ranges` of its text: in order, not overlapping, cutting no character.
    pub(crate) fn spans_of(self, ranges: &[Range<usize>]) -> Vec<Range<usize>> {
        let start = self.span().start;
        let spans = text::literal_ranges(self.raw(), ranges).into_iter();
        spans.map(|at| start.saturating_add(at.start)..start.saturating_add(at.end)).collect()
    }

    /// The decoded text of a string.
    pub fn as_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.text()?).ok()
    }

    /// A boolean.
    pub fn as_bool(self) -> Option<bool> {
        if let Shape::Bool(truth) = self.shape() { Some(truth) } else { None }
    }

    /// The literal of a number, as it came.
    pub fn as_number(self) -> Option<&'a str> {
        if self.kind() == Kind::Number { std::str::from_utf8(self.raw()).ok() } else { None }
    }

    /// An integer literal (no fraction, no exponent, not `-0`) that fits.
    pub fn as_i64(self) -> Option<i64> {
        // A fraction or an exponent does not parse as an integer; `-0` does.
        self.as_number().filter(|literal| *literal != "-0")?.parse().ok()
    }

    /// The member of an object by its decoded name.
    pub fn get(self, name: &str) -> Option<Self> {
        let named = |member: &(Self, Self)| member.0.text() == Some(name.as_bytes());
        self.members().find(named).map(|(_, value)| value)
    }

    /// The members of an object, `(name, value)`, in order; nothing for other kinds. The name is
    /// a [`Value`] of kind string, so its span is at hand.
    pub fn members(self) -> impl Iterator<Item = (Self, Self)> {
        let is_object = self.kind() == Kind::Object;
        let mut nodes = self.below(is_object);
        std::iter::from_fn(move || Some((nodes.next()?, nodes.next()?)))
    }

    /// The elements of an array, in order; nothing for other kinds.
    pub fn elements(self) -> impl Iterator<Item = Self> {
        self.below(self.kind() == Kind::Array)
    }

    /// The nodes directly below this one, names of members among them; nothing unless `wanted`.
    fn below(self, wanted: bool) -> impl Iterator<Item = Self> {
        let end = if wanted { self.document.tree.after(self.index) } else { 0 };
        let mut index = self.index.saturating_add(1);
        std::iter::from_fn(move || {
            let here = Self { index, ..self };
            (index < end).then(|| {
                index = self.document.tree.after(index);
                here
            })
        })
    }

    /// Members of an object or elements of an array; 0 for scalars.
    pub fn len(self) -> usize {
        match self.shape() {
            Shape::Array { len, .. } | Shape::Object { len, .. } => wide(len),
            Shape::Null
            | Shape::Bool(_)
            | Shape::Number
            | Shape::Verbatim
            | Shape::Escaped { .. } => 0,
        }
    }

    /// Whether [`Value::len`] is 0.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The value at an RFC 6901 pointer below this one. `None` also for a malformed pointer and
    /// for `-`, which names the element after the last (RFC 6901 §4).
    pub fn pointer(self, pointer: &str) -> Option<Self> {
        match pointer.strip_prefix('/') {
            Some(tokens) => tokens.split('/').try_fold(self, Self::step),
            None => pointer.is_empty().then_some(self),
        }
    }

    /// One reference token of a pointer.
    fn step(self, token: &str) -> Option<Self> {
        match self.kind() {
            Kind::Object => self.get(&unescaped(token)?),
            Kind::Array => self.elements().nth(array_index(token)?),
            Kind::Null | Kind::Bool | Kind::Number | Kind::String => None,
        }
    }
}

/// A reference token with `~1` and `~0` replaced, in that order (RFC 6901 §4).
pub(crate) fn unescaped(token: &str) -> Option<Cow<'_, str>> {
    let mut after_tildes = token.split('~').skip(1).peekable();
    if after_tildes.peek().is_none() {
        return Some(Cow::Borrowed(token));
    }
    after_tildes
        .all(|rest| rest.starts_with(['0', '1']))
        .then(|| Cow::Owned(token.replace("~1", "/").replace("~0", "~")))
}

/// An array index: digits without a leading zero (RFC 6901 §4).
fn array_index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = token.len() > 1 && token.starts_with('0');
    if digits && !leading_zero { token.parse().ok() } else { None }
}
