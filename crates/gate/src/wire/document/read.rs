//! The reader: from bytes to a flat tree, in one pass, without recursion.
//!
//! It checks P2 to P6 of the strict profile. Its work is linear in the bytes, except one sort of
//! the names of each large object.

use std::cmp::Ordering;

use super::text::plain_len;
use super::tree::{Shape, Tree, TreeNode, narrow, wide};
use super::{DocumentLimits, Unreadable};

/// Objects with at most this many members are checked for duplicates pair by pair; larger ones are
/// sorted.
const PAIRWISE_MAX: usize = 12;

/// A literal of at most this many characters without an exponent is always finite: the largest
/// binary64 is about 1.8e308.
const FINITE_DIGITS: usize = 300;

/// Reads one document.
pub(super) fn read(bytes: &[u8], limits: &DocumentLimits) -> Result<Tree, Unreadable> {
    if bytes.len() > limits.bytes_max || u32::try_from(bytes.len()).is_err() {
        return Err(Unreadable::TooLarge);
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        return Err(Unreadable::NotUtf8 { at: 0 });
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(Unreadable::NotUtf8 { at: error.valid_up_to() });
    }
    // Enough for most calls without reallocation; the bound prevents a large body from reserving
    // memory before its values are read.
    let nodes = Vec::with_capacity((bytes.len() >> 3).saturating_add(4).min(4096));
    let mut reader = TreeReader {
        bytes,
        limits,
        at: 0,
        tree: Tree { nodes, decoded: Vec::new(), control_in_name: None },
        values: 0,
        open: Vec::with_capacity(8),
        names: Vec::with_capacity(16),
    };
    reader.document()?;
    Ok(reader.tree)
}

/// An array or object whose end is not read yet.
struct OpenContainer {
    node: u32,
    len: u32,
    /// For an object, where its names begin in [`TreeReader::names`]; `None` for an array.
    names: Option<usize>,
}

/// A member name, with a prefix and a length that decide most comparisons without the text.
#[derive(Clone, Copy)]
struct Name {
    /// See [`head`].
    head: u64,
    len: u32,
    node: u32,
}

impl Name {
    /// One of 64 bits; names without a common bit differ.
    fn mark(&self) -> u64 {
        // A multiplicative hash (Knuth, TAOCP 6.4), of which the six highest bits are the best.
        let mixed = (self.head ^ u64::from(self.len)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        1 << (mixed >> 58)
    }
}

/// What the reader expects next.
enum NextToken {
    Value,
    Separator,
    End,
}

struct TreeReader<'a> {
    bytes: &'a [u8],
    limits: &'a DocumentLimits,
    at: usize,
    tree: Tree,
    values: usize,
    open: Vec<OpenContainer>,
    names: Vec<Name>,
}

impl TreeReader<'_> {
    fn document(&mut self) -> Result<(), Unreadable> {
        let mut next = NextToken::Value;
        loop {
            next = match next {
                NextToken::Value => self.value()?,
                NextToken::Separator => self.separator()?,
                NextToken::End => return Ok(()),
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// Skips white space and returns the byte that follows, without consuming it.
    fn token(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.step(),
                other => return other,
            }
        }
    }

    fn stopped<T>(&self) -> Result<T, Unreadable> {
        Err(Unreadable::NotJson { at: self.at })
    }

    /// Reads a scalar, or the beginning of an array or object.
    fn value(&mut self) -> Result<NextToken, Unreadable> {
        let token = self.token();
        if self.values >= self.limits.values_max {
            return Err(Unreadable::TooMany);
        }
        self.values = self.values.saturating_add(1);
        if let Some(parent) = self.open.last_mut() {
            parent.len = parent.len.saturating_add(1);
        }
        match token {
            Some(b'"') => self.string()?,
            Some(b'{') => return self.begin_object(),
            Some(b'[') => return self.begin_array(),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word(b"true", Shape::Bool(true))?,
            Some(b'f') => self.word(b"false", Shape::Bool(false))?,
            Some(b'n') => self.word(b"null", Shape::Null)?,
            Some(_) | None => return self.stopped(),
        }
        Ok(NextToken::Separator)
    }

    /// Reads what follows a value: a comma, the end of its array or object, or the end of the
    /// document.
    fn separator(&mut self) -> Result<NextToken, Unreadable> {
        let token = self.token();
        let Some(parent) = self.open.last() else {
            return if token.is_none() { Ok(NextToken::End) } else { self.stopped() };
        };
        match (token, parent.names.is_some()) {
            (Some(b','), true) => {
                self.step();
                self.name()
            }
            (Some(b','), false) => {
                self.step();
                Ok(NextToken::Value)
            }
            (Some(b'}'), true) | (Some(b']'), false) => self.end(),
            _ => self.stopped(),
        }
    }

    fn begin_object(&mut self) -> Result<NextToken, Unreadable> {
        self.begin(Some(self.names.len()))?;
        if self.token() == Some(b'}') { self.end() } else { self.name() }
    }

    fn begin_array(&mut self) -> Result<NextToken, Unreadable> {
        self.begin(None)?;
        if self.token() == Some(b']') { self.end() } else { Ok(NextToken::Value) }
    }

    fn begin(&mut self, names: Option<usize>) -> Result<(), Unreadable> {
        if self.open.len() >= self.limits.depth_max {
            return Err(Unreadable::TooDeep { at: self.at });
        }
        self.open.push(OpenContainer { node: narrow(self.tree.nodes.len()), len: 0, names });
        // `end` sets the final span and shape.
        self.push(self.at, Shape::Null);
        self.step();
        Ok(())
    }

    /// Ends the innermost array or object; `at` is at its closing bracket.
    fn end(&mut self) -> Result<NextToken, Unreadable> {
        self.step();
        let after = narrow(self.tree.nodes.len());
        let Some(OpenContainer { node, len, names }) = self.open.pop() else {
            return self.stopped();
        };
        let shape = match names {
            Some(from) => {
                self.distinct(from)?;
                self.names.truncate(from);
                Shape::Object { len, after }
            }
            None => Shape::Array { len, after },
        };
        if let Some(node) = self.tree.nodes.get_mut(wide(node)) {
            node.end = narrow(self.at);
            node.shape = shape;
        }
        Ok(NextToken::Separator)
    }

    /// Adds a node that begins at `start` and ends at the current position.
    fn push(&mut self, start: usize, shape: Shape) {
        self.tree.nodes.push(TreeNode { start: narrow(start), end: narrow(self.at), shape });
    }

    fn word(&mut self, word: &[u8], shape: Shape) -> Result<(), Unreadable> {
        let start = self.at;
        let end = start.saturating_add(word.len());
        if self.bytes.get(start..end) != Some(word) {
            return self.stopped();
        }
        self.at = end;
        self.push(start, shape);
        Ok(())
    }

    /// Reads a member name and its colon.
    fn name(&mut self) -> Result<NextToken, Unreadable> {
        if self.token() != Some(b'"') {
            return self.stopped();
        }
        let start = self.at;
        let node = narrow(self.tree.nodes.len());
        self.string()?;
        let text = self.tree.text(self.bytes, node).unwrap_or_default();
        if is_reserved(text) {
            return Err(Unreadable::ReservedName { at: start });
        }
        let controls = has_control(text);
        let name = Name { head: head(text), len: narrow(text.len()), node };
        self.names.push(name);
        if controls && self.tree.control_in_name.is_none() {
            self.tree.control_in_name = Some(start);
        }
        if self.token() != Some(b':') {
            return self.stopped();
        }
        self.step();
        Ok(NextToken::Value)
    }

    /// Refuses an object in which two names are equal (P4); its names begin at `from`.
    fn distinct(&mut self, from: usize) -> Result<(), Unreadable> {
        let (bytes, tree) = (self.bytes, &self.tree);
        let names = self.names.get_mut(from..).unwrap_or_default();
        let text = |name: &Name| tree.text(bytes, name.node);
        let order = |one: &Name, other: &Name| {
            one.head.cmp(&other.head).then(one.len.cmp(&other.len)).then_with(|| {
                if one.len > 8 { text(one).cmp(&text(other)) } else { Ordering::Equal }
            })
        };
        let second = if names.len() <= PAIRWISE_MAX {
            let mut marks = 0_u64;
            let seen_before = |(count, name): &(usize, &Name)| {
                let mark = name.mark();
                let may_be = marks & mark != 0;
                marks |= mark;
                may_be && names.iter().take(*count).any(|seen| order(seen, name).is_eq())
            };
            names.iter().enumerate().find(seen_before).map(|(_, name)| name.node)
        } else {
            names.sort_unstable_by(|one, other| order(one, other).then(one.node.cmp(&other.node)));
            let repeats = names.array_windows().filter(|[one, other]| order(one, other).is_eq());
            repeats.map(|[_, other]| other.node).min()
        };
        second.map_or(Ok(()), |node| Err(Unreadable::DuplicateName { at: tree.span(node).start }))
    }

    /// Reads a number (RFC 8259 §6), limited in length and in magnitude.
    fn number(&mut self) -> Result<(), Unreadable> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.step();
        }
        if self.peek() == Some(b'0') {
            self.step();
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.step();
            self.digits()?;
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent {
            self.step();
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.step();
            }
            self.digits()?;
        }
        let literal = self.bytes.get(start..self.at).unwrap_or_default();
        let too_long = literal.len() > self.limits.number_chars_max;
        if too_long || ((has_exponent || literal.len() > FINITE_DIGITS) && !is_finite(literal)) {
            return Err(Unreadable::BadNumber { at: start });
        }
        self.push(start, Shape::Number);
        Ok(())
    }

    /// Reads one digit or more.
    fn digits(&mut self) -> Result<(), Unreadable> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.step();
        }
        if self.at == from { self.stopped() } else { Ok(()) }
    }

    /// Reads a string literal; `at` is at its opening quote.
    fn string(&mut self) -> Result<(), Unreadable> {
        let start = self.at;
        self.step();
        self.skip_plain();
        if self.peek() == Some(b'"') {
            self.step();
            self.push(start, Shape::Verbatim);
            return Ok(());
        }
        let decoded_from = self.tree.decoded.len();
        let mut run_from = start.saturating_add(1);
        loop {
            let run = self.bytes.get(run_from..self.at).unwrap_or_default();
            self.tree.decoded.extend_from_slice(run);
            match self.peek() {
                Some(b'\\') => self.escape()?,
                Some(b'"') => break,
                Some(_) | None => return self.stopped(),
            }
            run_from = self.at;
            self.skip_plain();
        }
        self.step();
        let len = self.tree.decoded.len().saturating_sub(decoded_from);
        self.push(start, Shape::Escaped { at: narrow(decoded_from), len: narrow(len) });
        Ok(())
    }

    fn skip_plain(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at = self.at.saturating_add(plain_len(rest));
    }

    /// Reads and decodes one escape; `at` is at its backslash.
    fn escape(&mut self) -> Result<(), Unreadable> {
        let start = self.at;
        self.step();
        let char = match self.peek() {
            Some(b'u') => return self.unicode_escape(start),
            Some(char @ (b'"' | b'\\' | b'/')) => char,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(_) | None => return self.stopped(),
        };
        self.step();
        self.tree.decoded.push(char);
        Ok(())
    }

    /// Reads `\uXXXX`, or two of them that form a surrogate pair; `at` is at the first `u`.
    fn unicode_escape(&mut self, start: usize) -> Result<(), Unreadable> {
        let mut units = [self.code_unit()?, 0];
        let mut used = 1;
        let opens_pair = (0xd800..0xdc00).contains(&units[0]);
        let follows = self.bytes.get(self.at..).unwrap_or_default().starts_with(b"\\u");
        if opens_pair && follows {
            self.step();
            units[1] = self.code_unit()?;
            used = 2;
        }
        for char in char::decode_utf16(units.into_iter().take(used)) {
            let char = char.map_err(|_| Unreadable::LoneSurrogate { at: start })?;
            self.tree.decoded.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }

    /// Reads `uXXXX`: one UTF-16 code unit.
    fn code_unit(&mut self) -> Result<u16, Unreadable> {
        let mut unit = 0;
        for _ in 0..4 {
            self.step();
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit.and_then(|digit| u16::try_from(digit).ok()) else {
                return self.stopped();
            };
            unit = unit << 4 | digit;
        }
        self.step();
        Ok(unit)
    }
}

/// The first eight bytes, or all bytes of a shorter text. Two texts of at most eight bytes are
/// equal if this and their lengths are.
fn head(text: &[u8]) -> u64 {
    match text.first_chunk::<8>() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => text.iter().fold(0, |head, byte| head << 8 | u64::from(*byte)),
    }
}

/// Whether a reader may treat the name as an instruction (P6). `__proto__` sets the prototype of a
/// JavaScript object; Rust's `serde` passes private values between its parts under the others.
fn is_reserved(name: &[u8]) -> bool {
    match name.first() {
        Some(b'_') => name == b"__proto__",
        Some(b'$') => name.starts_with(b"$serde") || name.starts_with(b"$__serde"),
        Some(_) | None => false,
    }
}

/// Whether decoded text has a control character: U+0000 to U+001F, U+007F to U+009F. The last ones
/// are C2 80 to C2 9F in UTF-8.
fn has_control(text: &[u8]) -> bool {
    if text.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return false;
    }
    text.iter().any(u8::is_ascii_control)
        || text.array_windows().any(|pair| matches!(pair, [0xc2, 0x80..=0x9f]))
}

/// Whether a number literal is finite as binary64 (RFC 8259 §6).
fn is_finite(literal: &[u8]) -> bool {
    let literal = std::str::from_utf8(literal).ok();
    literal.and_then(|literal| literal.parse().ok()).is_some_and(f64::is_finite)
}
