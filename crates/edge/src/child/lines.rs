//! Line framing of the stdio transport: reads lines with a bound and writes each message as one
//! line.
//!
//! The transport separates messages by LF alone, while many line readers also split at CR, and some
//! at U+0085, U+2028 or U+2029. So no line is written that any of them would split (threats C3, C4,
//! C7), and the reader never buffers more than its bound (C6). Of a child's line that is too long
//! it tells whom it concerns, as far as that can be read.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::kept::{Account, ArrivingMessage};
use bartizan_gate::wire::frame::OuterMembers;

/// Buffer space reserved before each read, bytes.
const READ_BYTES: usize = 16 << 10;

/// What the reader found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line without its line end; never blank.
    Whole(Bytes),
    /// A line longer than the bound. Its bytes are discarded, and so is the rest of it up to the
    /// next LF. From [`Lines::telling_of_skipped`]: it is longer than [`ENDLESS`] times the bound.
    TooLong,
    /// A line longer than the bound, from [`Lines::telling_of_skipped`]. Its bytes are discarded;
    /// this is what was read of them.
    Skipped(Box<OuterMembers>),
}

/// A child's line this many times as long as the bound counts as one that never ends.
pub const ENDLESS: usize = 16;

/// Reads lines, each at most `bytes_max` bytes long. Blank lines are skipped.
#[derive(Debug)]
pub struct Lines<R> {
    source: R,
    buffer: BytesMut,
    /// Bytes at the start of `buffer` that were searched and hold no LF.
    scanned: usize,
    bytes_max: usize,
    /// Whether the current line was already reported as too long, or is being skipped.
    skipping: bool,
    /// What is read of a line that is being skipped; absent if it is reported at once.
    skipped: Option<SkippedLine>,
    ended: bool,
    /// Where what is buffered is charged, if it is.
    arriving: Option<ArrivingMessage>,
}

/// A line that is being skipped.
#[derive(Debug, Default)]
struct SkippedLine {
    outer: Box<OuterMembers>,
    /// Bytes so far.
    bytes: usize,
    /// Whether it was reported as endless.
    endless: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// A reader of `source` whose lines are at most `bytes_max` bytes long.
    pub fn new(source: R, bytes_max: usize) -> Self {
        Self {
            source,
            buffer: BytesMut::new(),
            scanned: 0,
            bytes_max,
            skipping: false,
            skipped: None,
            ended: false,
            arriving: None,
        }
    }

    /// Charges what is buffered of a line to `account`.
    pub(crate) fn charged_to(self, account: &Account) -> Self {
        Self { arriving: Some(account.arriving()), ..self }
    }

    /// From now on reports a line that is too long at its end, with what it says of itself, so that
    /// the call that it answers gets an error.
    #[must_use]
    pub fn telling_of_skipped(self) -> Self {
        Self { skipped: Some(SkippedLine::default()), ..self }
    }

    /// The next line; `None` at the end of the source. A last line without LF counts. Cancel-safe:
    /// dropping the future loses no bytes. Fails if the source fails, or if there is no memory for
    /// what is buffered.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            self.buffer.reserve(READ_BYTES);
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                self.ended = true;
            }
            if let Some(arriving) = &mut self.arriving
                && arriving.buffered(self.buffer.len()).is_err()
            {
                return Err(io::Error::other("no memory is left for it (`limits.kept_bytes`)"));
            }
        }
    }

    fn take_line(&mut self) -> Option<Line> {
        loop {
            let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
            let Some(offset) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffer.len();
                return self.unfinished();
            };
            let line = self.buffer.split_to(self.scanned.saturating_add(offset)).freeze();
            self.buffer.advance(1);
            self.scanned = 0;
            if std::mem::take(&mut self.skipping) {
                match self.skipped(&line) {
                    Some(skipped) => return Some(skipped),
                    None => continue,
                }
            }
            if line.len() > self.bytes_max {
                return Some(self.skipped(&line).unwrap_or(Line::TooLong));
            }
            if let Some(line) = trimmed(line) {
                return Some(Line::Whole(line));
            }
        }
    }

    /// The report of a child's line that was skipped; `rest` is its end. `None` if it was reported.
    fn skipped(&mut self, rest: &[u8]) -> Option<Line> {
        let SkippedLine { mut outer, endless, .. } = self.skipped.as_mut().map(std::mem::take)?;
        outer.push(rest);
        (!endless).then_some(Line::Skipped(outer))
    }

    /// Handles buffered bytes without an LF: they are a line only at the end of the source, or if
    /// they are too many.
    fn unfinished(&mut self) -> Option<Line> {
        if self.skipping || self.buffer.len() > self.bytes_max {
            self.scanned = 0;
            let piece = self.buffer.split();
            let began = !std::mem::replace(&mut self.skipping, true);
            let Some(skipped) = &mut self.skipped else { return began.then_some(Line::TooLong) };
            skipped.outer.push(&piece);
            skipped.bytes = skipped.bytes.saturating_add(piece.len());
            if skipped.bytes > self.bytes_max.saturating_mul(ENDLESS) {
                return (!std::mem::replace(&mut skipped.endless, true)).then_some(Line::TooLong);
            }
            if self.ended {
                self.skipping = false;
                return self.skipped(&[]);
            }
            return None;
        }
        if !self.ended {
            return None;
        }
        self.scanned = 0;
        trimmed(self.buffer.split().freeze()).map(Line::Whole)
    }
}

/// Removes the CR of a CRLF; `None` if the line is blank.
fn trimmed(mut line: Bytes) -> Option<Bytes> {
    if line.last() == Some(&b'\r') {
        line.truncate(line.len().saturating_sub(1));
    }
    let blank = line.iter().all(|byte| matches!(byte, b' ' | b'\t'));
    (!blank).then_some(line)
}

/// Whether some reader would split or cut `line`: it holds a CR (threat C3), an LF or a NUL (C5).
/// JSON allows a CR between tokens; a line does not.
pub fn has_foreign_line_end(line: &[u8]) -> bool {
    line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

/// A line for a child, LF included. `minified` is a message as
/// [`Document::minified`](bartizan_gate::wire::document::Document::minified) gives it: no byte is
/// below 0x20 (threats C3, C4), and U+2028 and U+2029 are escaped (C7).
pub fn line_for_child(minified: &[u8]) -> Bytes {
    terminated(minified)
}

/// A message as one line for the client, LF included: its bytes unchanged, unless some reader would
/// split them; then `minified`, which is the same message. `None` if there is no minified form.
pub fn line_for_client(body: &[u8], minified: impl FnOnce() -> Option<Bytes>) -> Option<Bytes> {
    if has_foreign_line_end(body) || has_unicode_line_end(body) {
        minified().map(|minified| terminated(&minified))
    } else {
        Some(terminated(body))
    }
}

fn terminated(body: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(body.len().saturating_add(1));
    line.extend_from_slice(body);
    line.extend_from_slice(b"\n");
    line.freeze()
}

/// U+0085, U+2028 or U+2029 in UTF-8.
fn has_unicode_line_end(body: &[u8]) -> bool {
    body.windows(3).any(|bytes| matches!(bytes, [0xe2, 0x80, 0xa8 | 0xa9] | [0xc2, 0x85, _]))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &[u8], bytes_max: usize) -> Vec<Option<String>> {
        let mut lines = Lines::new(input, bytes_max);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(match line {
                Line::Whole(line) => Some(String::from_utf8(line.to_vec()).unwrap()),
                Line::TooLong | Line::Skipped(_) => None,
            });
        }
        found
    }

    #[tokio::test]
    async fn lines_are_split_at_lf_and_bounded() {
        let cases: &[(&str, &[Option<&str>])] = &[
            ("", &[]),
            ("a\n", &[Some("a")]),
            ("a", &[Some("a")]),
            ("a\r\nb\r\n", &[Some("a"), Some("b")]),
            ("a\rb\n", &[Some("a\rb")]),
            ("\n \n\t\r\n\na\n\n", &[Some("a")]),
            ("12345\n", &[Some("12345")]),
            ("123456\n12\n", &[None, Some("12")]),
            ("123456789012345678901234567890\n1\n", &[None, Some("1")]),
            ("123456789", &[None]),
            ("1\n123456789", &[Some("1"), None]),
        ];
        for (input, expected) in cases {
            let found = all(input.as_bytes(), 5).await;
            let found: Vec<_> = found.iter().map(Option::as_deref).collect();
            assert_eq!(found, *expected, "{input:?}");
        }
    }

    #[tokio::test]
    async fn an_endless_line_is_not_kept() {
        let (mut from, to) = tokio::io::duplex(1 << 10);
        let mut lines = Lines::new(to, 100);
        let flood = async {
            for _ in 0..1000 {
                tokio::io::AsyncWriteExt::write_all(&mut from, &[b'x'; 1000]).await.unwrap();
            }
            tokio::io::AsyncWriteExt::write_all(&mut from, b"\nok\n").await.unwrap();
            drop(from);
        };
        let read = async {
            assert_eq!(lines.next().await.unwrap(), Some(Line::TooLong));
            assert_eq!(lines.next().await.unwrap(), Some(Line::Whole(Bytes::from_static(b"ok"))));
            assert!(lines.buffer.capacity() < 64 << 10, "{}", lines.buffer.capacity());
        };
        tokio::join!(flood, read);
    }
}
