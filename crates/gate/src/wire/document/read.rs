//! The reader: bytes to a flat tree, in one pass, without recursion.
//!
//! Knows the rules P2 to P6 of the strict profile and nothing of what the values mean. Work is
//! linear in the bytes but for one sort of the names of each large object.

use std::cmp::Ordering;

use super::text::plain_len;
use super::tree::{Node, Shape, Tree, narrow, wide};
use super::{DocumentLimits, Unreadable};

/// Objects up to this many members are searched for duplicates pair by pair.
const PAIRWISE_MAX: usize = 12;

/// Any literal of this many digits without an exponent is finite: binary64 ends at 1.8e308.
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
    // A guess that fits most calls without growing; the bound keeps a large body from claiming
    // memory before it has shown values.
    let nodes = Vec::with_capacity((bytes.len() >> 3).saturating_add(4).min(4096));
    let mut reader = Reader {
        bytes,
        limits,
        at: 0,
        tree: Tree { nodes, decoded: Vec::new() },
        values: 0,
        open: Vec::with_capacity(8),
        names: Vec::with_capacity(16),
    };
    reader.document()?;
    Ok(reader.tree)
}

/// A container whose end has not been met.
struct Open {
    node: u32,
    len: u32,
    /// For an object, where its names begin in [`Reader::names`]; `None` for an array.
    names: Option<usize>,
}

/// A member name, with what settles most comparisons without looking at the text.
#[derive(Clone, Copy)]
struct Name {
    /// See [`head`].
    head: u64,
    len: u32,
    node: u32,
}

/// What follows the point just reached.
enum Next {
    Value,
    Separator,
    End,
}

struct Reader<'a> {
    bytes: &'a [u8],
    limits: &'a DocumentLimits,
    at: usize,
    tree: Tree,
    values: usize,
    open: Vec<Open>,
    names: Vec<Name>,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<(), Unreadable> {
        let mut next = Next::Value;
        loop {
            next = match next {
                Next::Value => self.value()?,
                Next::Separator => self.separator()?,
                Next::End => return Ok(()),
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// Skips white space and shows what follows.
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

    /// Reads a scalar, or the beginning of a container.
    fn value(&mut self) -> Result<Next, Unreadable> {
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
        Ok(Next::Separator)
    }

    /// Reads what stands behind a value: a comma, the end of its container, or the end of all.
    fn separator(&mut self) -> Result<Next, Unreadable> {
        let token = self.token();
        let Some(parent) = self.open.last() else {
            return if token.is_none() { Ok(Next::End) } else { self.stopped() };
        };
        match (token, parent.names.is_some()) {
            (Some(b','), true) => {
                self.step();
                self.name()
            }
            (Some(b','), false) => {
                self.step();
                Ok(Next::Value)
            }
            (Some(b'}'), true) | (Some(b']'), false) => self.end(),
            _ => self.stopped(),
        }
    }

    fn begin_object(&mut self) -> Result<Next, Unreadable> {
        self.begin(Some(self.names.len()))?;
        if self.token() == Some(b'}') { self.end() } else { self.name() }
    }

    fn begin_array(&mut self) -> Result<Next, Unreadable> {
        self.begin(None)?;
        if self.token() == Some(b']') { self.end() } else { Ok(Next::Value) }
    }

    fn begin(&mut self, names: Option<usize>) -> Result<(), Unreadable> {
        if self.open.len() >= self.limits.depth_max {
            return Err(Unreadable::TooDeep { at: self.at });
        }
        self.open.push(Open { node: narrow(self.tree.nodes.len()), len: 0, names });
        // The span and the shape are put right by `end`.
        self.push(self.at, Shape::Null);
        self.step();
        Ok(())
    }

    /// Ends the innermost container; its closing bracket is what `at` shows.
    fn end(&mut self) -> Result<Next, Unreadable> {
        self.step();
        let after = narrow(self.tree.nodes.len());
        let Some(Open { node, len, names }) = self.open.pop() else { return self.stopped() };
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
        Ok(Next::Separator)
    }

    /// Adds a node that begins at `start` and ends where the reader is.
    fn push(&mut self, start: usize, shape: Shape) {
        self.tree.nodes.push(Node { start: narrow(start), end: narrow(self.at), shape });
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

    /// A member name and its colon.
    fn name(&mut self) -> Result<Next, Unreadable> {
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
        let name = Name { head: head(text), len: narrow(text.len()), node };
        self.names.push(name);
        if self.token() != Some(b':') {
            return self.stopped();
        }
        self.step();
        Ok(Next::Value)
    }

    /// Refuses two equal names among those from `from` on (P4).
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
            let seen_before = |(count, name): &(usize, &Name)| {
                names.iter().take(*count).any(|seen| order(seen, name).is_eq())
            };
            names.iter().enumerate().find(seen_before).map(|(_, name)| name.node)
        } else {
            names.sort_unstable_by(|one, other| order(one, other).then(one.node.cmp(&other.node)));
            let repeats = names.array_windows().filter(|[one, other]| order(one, other).is_eq());
            repeats.map(|[_, other]| other.node).min()
        };
        second.map_or(Ok(()), |node| Err(Unreadable::DuplicateName { at: tree.span(node).start }))
    }

    /// A number by the grammar of RFC 8259 §6, bounded in length and in size.
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

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Unreadable> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.step();
        }
        if self.at == from { self.stopped() } else { Ok(()) }
    }

    /// A string literal; its opening quote is what `at` shows.
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

    /// One escape, decoded; its backslash is what `at` shows.
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

    /// `\uXXXX`, or two of them that make a surrogate pair; the `u` is what `at` shows.
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

    /// `uXXXX`.
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

/// The first eight bytes, or all of a shorter text; with the length it settles those.
fn head(text: &[u8]) -> u64 {
    match text.first_chunk::<8>() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => text.iter().fold(0, |head, byte| head << 8 | u64::from(*byte)),
    }
}

/// P6: names that a reader may take for an instruction. `__proto__` reaches a JavaScript object's
/// prototype; the others are how Rust's `serde` passes private values between its parts.
fn is_reserved(name: &[u8]) -> bool {
    name == b"__proto__" || name.starts_with(b"$serde") || name.starts_with(b"$__serde")
}

/// Whether a literal of the grammar above is finite as binary64 (RFC 8259 §6).
fn is_finite(literal: &[u8]) -> bool {
    let literal = std::str::from_utf8(literal).ok();
    literal.and_then(|literal| literal.parse().ok()).is_some_and(f64::is_finite)
}
