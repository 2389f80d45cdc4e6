//! A strict JSON reader: from bytes to one tree, with the span of every value.
//!
//! It carries out P2 to P6 of the strict profile: one value, the grammar of RFC 8259, bounded depth
//! and numbers, no duplicate member names, no lone surrogates, nothing that two common parsers
//! would read differently. It keeps the original bytes and the span of every value, so that an edit
//! replaces only the bytes of one value. It knows nothing of JSON-RPC; `frame` does.
//!
//! Reading is one pass without recursion (`read`); a string is copied only if it contains an
//! escape. If the bytes have several faults, one of them is reported; which one is not part of the
//! contract.

mod tree;
mod text;
mod read;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;

pub use text::write_string;

use tree::{Shape, Tree, wide};

/// Limits on one document. Every limit is inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "every limit is a maximum and says so")]
pub struct DocumentLimits {
    /// Size of the whole document, bytes.
    pub bytes_max: usize,
    /// Nesting of arrays and objects, levels; a scalar at the top has depth 0.
    pub depth_max: usize,
    /// Length of one number literal, characters.
    pub number_chars_max: usize,
    /// Number of values (scalars, arrays and objects) in the whole document.
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
        /// Offset of the first invalid byte.
        at: usize,
    },
    /// Breaks the grammar of RFC 8259, or bytes follow the value.
    NotJson {
        /// Offset at which reading stopped.
        at: usize,
    },
    /// Nested deeper than [`DocumentLimits::depth_max`].
    TooDeep {
        /// Offset of the first value that is too deep.
        at: usize,
    },
    /// A number literal is too long, or not finite as binary64.
    BadNumber {
        /// Offset of the literal.
        at: usize,
    },
    /// An escape encodes half of a surrogate pair.
    LoneSurrogate {
        /// Offset of the escape.
        at: usize,
    },
    /// More values than [`DocumentLimits::values_max`].
    TooMany,
    /// Two members of one object have the same name after unescaping (P4).
    DuplicateName {
        /// Offset of the second name.
        at: usize,
    },
    /// A member name that some readers treat as an instruction (P6: `__proto__`, `$serde…`).
    ReservedName {
        /// Offset of the name.
        at: usize,
    },
}

impl Unreadable {
    /// Whether a reader that is less strict may read the bytes as JSON all the same.
    pub fn may_be_json(&self) -> bool {
        !matches!(self, Self::NotJson { .. } | Self::NotUtf8 { .. })
    }
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

/// Shows only the size, because a document may contain secrets and must not reach a log.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("bytes", &self.raw.len()).finish_non_exhaustive()
    }
}

impl Document {
    /// Reads `raw` as one strict JSON document.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] names one fault.
    pub fn read(raw: Bytes, limits: &DocumentLimits) -> Result<Self, Unreadable> {
        let tree = read::read(&raw, limits)?;
        Ok(Self { raw, tree })
    }

    /// The bytes as they came.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Offset of the first member name that has a control character (U+0000 to U+001F, U+007F to
    /// U+009F) after unescaping; `None` if no name has one.
    pub fn control_in_name(&self) -> Option<usize> {
        self.tree.control_in_name
    }

    /// The one value of the document.
    pub fn root(&self) -> Value<'_> {
        Value { document: self, index: 0 }
    }

    /// Returns the document with each `(span, text)` replaced. Spans must be in rising order and
    /// must not overlap. An empty span inserts before its byte.
    ///
    /// If a span breaks these rules or ends outside the document, the result is empty, so that a
    /// partly applied edit can never be forwarded.
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

    /// [`Document::minified`] of the document with `edits` applied, which are as for
    /// [`Document::splice`]; each text must be one JSON value.
    #[must_use]
    pub fn minified_with(&self, edits: &[(Range<usize>, Vec<u8>)]) -> Bytes {
        minify(&self.splice(edits))
    }

    /// Returns the same tokens without white space between them and without any byte below 0x20;
    /// U+0085, U+2028 and U+2029 inside strings become escapes. Safe for a line-framed peer: no
    /// line reader finds a line end in it.
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

/// Shows kind and span, never the content, for the reason given at [`Document`].
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("kind", &self.kind()).field("span", &self.span()).finish()
    }
}

impl<'a> Value<'a> {
    fn shape(self) -> Shape {
        self.document.tree.shape(self.index)
    }

    /// Which of the six JSON kinds it has.
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

    /// Its range of bytes in [`Document::raw`].
    pub fn span(self) -> Range<usize> {
        self.document.tree.span(self.index)
    }

    /// Its own bytes, as they came.
    pub fn raw(self) -> &'a [u8] {
        self.document.raw.get(self.span()).unwrap_or_default()
    }

    /// The decoded bytes of a string, always UTF-8; `None` for other kinds. For comparisons: unlike
    /// [`Value::as_str`] it does not check UTF-8 again.
    pub(super) fn text(self) -> Option<&'a [u8]> {
        self.document.tree.text(&self.document.raw, self.index)
    }

    /// Returns, for each of `ranges` of a string's decoded text, the range in [`Document::raw`]
    /// that decodes to it. `ranges` must be in order, must not overlap, and must not cut a
    /// character.
    pub(crate) fn spans_of(self, ranges: &[Range<usize>]) -> Vec<Range<usize>> {
        let start = self.span().start;
        let spans = text::literal_ranges(self.raw(), ranges).into_iter();
        spans.map(|at| start.saturating_add(at.start)..start.saturating_add(at.end)).collect()
    }

    /// The decoded text of a string; `None` for other kinds.
    pub fn as_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.text()?).ok()
    }

    /// The value of a boolean; `None` for other kinds.
    pub fn as_bool(self) -> Option<bool> {
        if let Shape::Bool(truth) = self.shape() { Some(truth) } else { None }
    }

    /// The literal of a number as it came; `None` for other kinds.
    pub fn as_number(self) -> Option<&'a str> {
        if self.kind() == Kind::Number { std::str::from_utf8(self.raw()).ok() } else { None }
    }

    /// The value of an integer literal (no fraction, no exponent, not `-0`) that fits; else `None`.
    pub fn as_i64(self) -> Option<i64> {
        // A fraction or an exponent does not parse as an integer; `-0` does.
        self.as_number().filter(|literal| *literal != "-0")?.parse().ok()
    }

    /// The member of an object with this decoded name; `None` for other kinds.
    pub fn get(self, name: &str) -> Option<Self> {
        let document = self.document;
        let index = document.tree.member(&document.raw, self.index, name.as_bytes())?;
        Some(Self { document, index })
    }

    /// The members of an object, `(name, value)`, in order; none for other kinds. The name is a
    /// [`Value`] of kind string, so that it has a span.
    pub fn members(self) -> impl Iterator<Item = (Self, Self)> {
        let is_object = self.kind() == Kind::Object;
        let mut nodes = self.below(is_object);
        std::iter::from_fn(move || Some((nodes.next()?, nodes.next()?)))
    }

    /// The elements of an array, in order; none for other kinds.
    pub fn elements(self) -> impl Iterator<Item = Self> {
        self.below(self.kind() == Kind::Array)
    }

    /// The nodes directly below this one, including names of members; none unless `wanted`.
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

    /// The number of members of an object or elements of an array; 0 for scalars.
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

    /// The value at an RFC 6901 pointer below this one. `None` if there is none, for a malformed
    /// pointer, and for `-`, which names the element after the last (RFC 6901 §4).
    pub fn pointer(self, pointer: &str) -> Option<Self> {
        match pointer.strip_prefix('/') {
            Some(tokens) => tokens.split('/').try_fold(self, Self::step),
            None => pointer.is_empty().then_some(self),
        }
    }

    /// Follows one reference token of a pointer.
    fn step(self, token: &str) -> Option<Self> {
        match self.kind() {
            Kind::Object => self.get(&unescaped(token)?),
            Kind::Array => self.elements().nth(array_index(token)?),
            Kind::Null | Kind::Bool | Kind::Number | Kind::String => None,
        }
    }
}

/// Decodes a reference token: `~1` first, then `~0` (RFC 6901 §4). `None` for an invalid escape.
pub(crate) fn unescaped(token: &str) -> Option<Cow<'_, str>> {
    let mut after_tildes = token.split('~').skip(1).peekable();
    if after_tildes.peek().is_none() {
        return Some(Cow::Borrowed(token));
    }
    after_tildes
        .all(|rest| rest.starts_with(['0', '1']))
        .then(|| Cow::Owned(token.replace("~1", "/").replace("~0", "~")))
}

/// Parses an array index: digits without a leading zero (RFC 6901 §4).
fn array_index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = token.len() > 1 && token.starts_with('0');
    if digits && !leading_zero { token.parse().ok() } else { None }
}
