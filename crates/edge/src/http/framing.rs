//! Detects ambiguous HTTP/1 framing, byte by byte, before hyper parses the request.
//!
//! hyper resolves what RFC 9112 §6 lets a server resolve: it drops `Content-Length` beside
//! `Transfer-Encoding`, merges equal lengths, accepts a bare LF as a line end and skips chunk
//! extensions. A service behind it cannot see any of that. Another hop may resolve it differently
//! (request smuggling), so the strict profile (P12) refuses it. [`FramingWatch`] only observes: it
//! changes no byte and answers nobody. HTTP/2 frames are left to the h2 crate.

/// Two parsers may split these bytes into different messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// Bytes that are kept of a line that comes in pieces; what decides about framing is shorter.
const LINE_KEPT_MAX: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FramingState {
    /// In a request line or header line.
    Head,
    /// In a body of known length; bytes left.
    Body(u64),
    /// In the line that gives a chunk's size.
    ChunkSize,
    /// In a chunk; bytes left.
    Chunk(u64),
    /// In the empty line that ends a chunk.
    ChunkEnd,
    /// In the trailer section, up to its empty line.
    Trailers,
    /// The connection speaks HTTP/2.
    Http2,
    /// The connection was already found ambiguous.
    Off,
}

/// A line, or what is known of one that came in pieces.
#[derive(Debug, Default)]
struct Line<'a> {
    /// Its text without the line end; at most [`LINE_KEPT_MAX`] bytes if it is `cut`.
    text: &'a [u8],
    /// Its length with the line end, bytes.
    bytes: usize,
    /// There is more text, which was not kept.
    cut: bool,
    /// A `#` is in it.
    has_hash: bool,
    /// A `:` is in it.
    has_colon: bool,
}

/// The part of the current line that has arrived.
#[derive(Debug, Default)]
struct PartialLine {
    /// Its beginning.
    kept: Vec<u8>,
    /// Its length so far, bytes.
    bytes: usize,
    /// Its last two bytes.
    end: [u8; 2],
    has_hash: bool,
    has_colon: bool,
}

impl PartialLine {
    fn add(&mut self, part: &[u8]) {
        self.bytes = self.bytes.saturating_add(part.len());
        let room = LINE_KEPT_MAX.saturating_add(2).saturating_sub(self.kept.len());
        self.kept.extend_from_slice(part.get(..room).unwrap_or(part));
        for byte in part.iter().skip(part.len().saturating_sub(2)) {
            self.end = [self.end[1], *byte];
        }
        self.has_hash |= part.contains(&b'#');
        self.has_colon |= part.contains(&b':');
    }

    /// The line, which is complete. Fails if it does not end with CRLF.
    fn line(&self) -> Result<Line<'_>, Ambiguous> {
        if self.end != *b"\r\n" {
            return Err(Ambiguous);
        }
        let text = self.bytes.saturating_sub(2);
        Ok(Line {
            text: self.kept.get(..text.min(LINE_KEPT_MAX)).unwrap_or_default(),
            bytes: self.bytes,
            cut: text > LINE_KEPT_MAX,
            has_hash: self.has_hash,
            has_colon: self.has_colon,
        })
    }

    fn clear(&mut self) {
        self.kept.clear();
        *self = Self { kept: std::mem::take(&mut self.kept), ..Self::default() };
    }
}

impl<'a> Line<'a> {
    /// A line that came in one piece. Fails if it does not end with CRLF: only some parsers accept a
    /// bare LF as a line end.
    fn whole(line: &'a [u8]) -> Result<Self, Ambiguous> {
        let text = line.strip_suffix(b"\r\n").ok_or(Ambiguous)?;
        Ok(Self {
            text,
            bytes: line.len(),
            cut: false,
            has_hash: text.contains(&b'#'),
            has_colon: text.contains(&b':'),
        })
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub(super) struct FramingWatch {
    state: FramingState,
    line: PartialLine,
    /// Longest request head, and longest line of chunk framing, bytes.
    head_max: usize,
    head_bytes: usize,
    lengths: u8,
    length: u64,
    codings: u8,
}

impl FramingWatch {
    /// Follows a connection whose heads have at most `head_max` bytes.
    pub(super) fn new(head_max: usize) -> Self {
        Self {
            head_max,
            state: FramingState::Head,
            line: PartialLine::default(),
            head_bytes: 0,
            lengths: 0,
            length: 0,
            codings: 0,
        }
    }

    /// Whether a request head has begun and is not complete.
    pub(super) fn mid_head(&self) -> bool {
        self.head_bytes() > 0
    }

    /// Bytes of the incomplete request head that have arrived.
    pub(super) fn head_bytes(&self) -> usize {
        if self.state == FramingState::Head { self.head_bytes } else { 0 }
    }

    /// Whether the connection speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.state == FramingState::Http2
    }

    /// Takes the next `bytes` that the client sent. Fails if they are ambiguous; from then on
    /// everything is ignored.
    pub(super) fn see(&mut self, mut bytes: &[u8]) -> Result<(), Ambiguous> {
        while !bytes.is_empty() {
            bytes = match self.state {
                FramingState::Http2 | FramingState::Off => return Ok(()),
                FramingState::Body(left) => {
                    let (rest, left) = skip(bytes, left);
                    self.state =
                        if left == 0 { FramingState::Head } else { FramingState::Body(left) };
                    rest
                }
                FramingState::Chunk(left) => {
                    let (rest, left) = skip(bytes, left);
                    self.state =
                        if left == 0 { FramingState::ChunkEnd } else { FramingState::Chunk(left) };
                    rest
                }
                FramingState::Head
                | FramingState::ChunkSize
                | FramingState::ChunkEnd
                | FramingState::Trailers => {
                    let Ok(rest) = self.see_line(bytes) else {
                        self.state = FramingState::Off;
                        return Err(Ambiguous);
                    };
                    rest
                }
            };
        }
        Ok(())
    }

    /// Takes one line, or the part of it that is there, and returns the bytes after it.
    fn see_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Ambiguous> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(bytes.len(), |at| at.saturating_add(1));
        let (line, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
        self.head_bytes = self.head_bytes.saturating_add(line.len());
        if self.head_bytes > self.head_max {
            return Err(Ambiguous);
        }
        if end.is_none() {
            self.line.add(line);
            return Ok(rest);
        }
        if self.line.bytes == 0 {
            self.line_ended(&Line::whole(line)?)?;
        } else {
            let mut partial = std::mem::take(&mut self.line);
            partial.add(line);
            self.line_ended(&partial.line()?)?;
            partial.clear();
            self.line = partial;
        }
        Ok(rest)
    }

    fn line_ended(&mut self, line: &Line<'_>) -> Result<(), Ambiguous> {
        match self.state {
            FramingState::Head => self.head_line(line),
            FramingState::ChunkSize => self.chunk_size(line.text),
            FramingState::ChunkEnd if line.is_empty() => {
                self.state = FramingState::ChunkSize;
                self.head_bytes = 0;
                Ok(())
            }
            FramingState::ChunkEnd => Err(Ambiguous),
            FramingState::Trailers => {
                if line.is_empty() {
                    self.next_request(FramingState::Head);
                }
                Ok(())
            }
            FramingState::Body(_)
            | FramingState::Chunk(_)
            | FramingState::Http2
            | FramingState::Off => Ok(()),
        }
    }

    fn head_line(&mut self, line: &Line<'_>) -> Result<(), Ambiguous> {
        let first = self.head_bytes == line.bytes;
        if first && line.is_empty() {
            // Empty lines before a request line are skipped (RFC 9112 §2.2).
            self.head_bytes = 0;
            return Ok(());
        }
        if first {
            if line.text == b"PRI * HTTP/2.0" {
                self.state = FramingState::Http2;
            }
            // A request target has no fragment (RFC 9112 §3.2); the URI parser would drop it
            // silently.
            return if line.has_hash { Err(Ambiguous) } else { Ok(()) };
        }
        if line.is_empty() {
            return self.head_ended();
        }
        if !line.has_colon {
            return Err(Ambiguous);
        }
        let colon = line.text.iter().position(|byte| *byte == b':');
        // A name that is longer than what is kept is none of the two.
        let Some((name, value)) = colon.and_then(|colon| line.text.split_at_checked(colon)) else {
            return Ok(());
        };
        let decides = name.eq_ignore_ascii_case(b"content-length")
            || name.eq_ignore_ascii_case(b"transfer-encoding");
        if decides && line.cut {
            return Err(Ambiguous);
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths = self.lengths.saturating_add(1);
            self.length = decimal(value).ok_or(Ambiguous)?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.codings = self.codings.saturating_add(1);
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Ambiguous);
            }
        }
        Ok(())
    }

    fn head_ended(&mut self) -> Result<(), Ambiguous> {
        let next = match (self.lengths, self.codings) {
            (0, 0) => FramingState::Head,
            (1, 0) if self.length == 0 => FramingState::Head,
            (1, 0) => FramingState::Body(self.length),
            (0, 1) => FramingState::ChunkSize,
            _ => return Err(Ambiguous),
        };
        self.next_request(next);
        Ok(())
    }

    fn next_request(&mut self, state: FramingState) {
        self.state = state;
        self.head_bytes = 0;
        self.lengths = 0;
        self.length = 0;
        self.codings = 0;
    }

    /// Hexadecimal digits only: parsers differ in how they read chunk extensions.
    fn chunk_size(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        if line.is_empty() || line.len() > 15 || !line.iter().all(u8::is_ascii_hexdigit) {
            return Err(Ambiguous);
        }
        let text = std::str::from_utf8(line).map_err(|_| Ambiguous)?;
        let size = u64::from_str_radix(text, 16).map_err(|_| Ambiguous)?;
        self.state = if size == 0 { FramingState::Trailers } else { FramingState::Chunk(size) };
        self.head_bytes = 0;
        Ok(())
    }
}

fn skip(bytes: &[u8], left: u64) -> (&[u8], u64) {
    let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(left);
    let rest = usize::try_from(here).ok().and_then(|here| bytes.get(here..)).unwrap_or_default();
    (rest, left.saturating_sub(here))
}

fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD_MAX: usize = 64 << 10;

    fn watch(bytes: &[u8]) -> Result<FramingWatch, Ambiguous> {
        let mut watch = FramingWatch::new(HEAD_MAX);
        watch.see(bytes)?;
        // The same bytes one at a time must come to the same.
        let mut slow = FramingWatch::new(HEAD_MAX);
        for byte in bytes {
            slow.see(&[*byte])?;
        }
        assert_eq!(watch.state, slow.state);
        Ok(watch)
    }

    #[test]
    fn ordinary_requests_are_followed_to_their_end() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\ncontent-length:0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n00a\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            let watch = watch(text.as_bytes()).unwrap();
            assert_eq!(watch.state, FramingState::Head, "{text:?}");
            assert!(!watch.mid_head(), "{text:?}");
        }
    }

    #[test]
    fn what_two_readers_cut_differently_is_ambiguous() {
        for text in [
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
            "GET /#x HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        ] {
            assert_eq!(watch(text.as_bytes()).err(), Some(Ambiguous), "{text:?}");
        }
    }

    #[test]
    fn http2_is_left_alone() {
        let watch = watch(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\n\n").unwrap();
        assert!(watch.is_http2());
    }

    #[test]
    fn long_lines_are_followed_and_not_kept() {
        let long = "a".repeat(4 * LINE_KEPT_MAX);
        for text in [
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET / HTTP/1.1\r\n{long}: b\r\nX: {long}:#\r\n\r\n"),
            format!("POST / HTTP/1.1\r\nX: {long}\r\nContent-Length: 3\r\n\r\nabc"),
        ] {
            assert_eq!(watch(text.as_bytes()).unwrap().state, FramingState::Head, "{text}");
        }
        let spaces = " ".repeat(LINE_KEPT_MAX);
        for text in [
            format!("GET /{long}# HTTP/1.1\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nX: {long}\n\r\n"),
            format!("GET / HTTP/1.1\r\n{long}\r\n\r\n"),
            format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{long}\r\n"),
        ] {
            assert_eq!(watch(text.as_bytes()).err(), Some(Ambiguous), "{text}");
        }
        let mut slow = FramingWatch::new(HEAD_MAX);
        let padded = format!("POST / HTTP/1.1\r\nContent-Length: {spaces}3\r\n\r\n");
        assert!(padded.bytes().any(|byte| slow.see(&[byte]).is_err()));
    }

    #[test]
    fn a_head_without_end_is_bounded() {
        for head_max in [HEAD_MAX, 1 << 20] {
            let mut watch = FramingWatch::new(head_max);
            for _ in 0..head_max {
                assert_eq!(watch.see(b"a"), Ok(()));
            }
            assert_eq!(watch.see(b"a"), Err(Ambiguous), "{head_max}");
            assert!(watch.line.kept.capacity() <= 2 * LINE_KEPT_MAX + 2);
        }
    }
}
