//! Server-sent events: a reader for any chunking, a writer, and a body that yields events.
//!
//! The reader follows WHATWG HTML §9.2.6, "Interpreting an event stream": lines end with CR, LF or
//! CRLF, one BOM at the start is skipped, and an event that the stream does not finish is
//! discarded. It also keeps what a proxy must forward and a browser would not show: comments, and
//! events with only an id or a `retry`. The writer always ends lines with LF, so that only the
//! fields of one event can reach the client. The content of an event is not checked here; the gate
//! does that.

use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;

use super::ServerEvent;
use super::kept::{Account, ArrivingMessage, no_room};
use bartizan_gate::memory::NoRoom;
use bartizan_gate::session::UpstreamFailure;

/// `retry` values that reach a client, ms. The range prevents both a storm of reconnects and a
/// client that never reconnects (threat F5). Some servers ask for half a second, which passes.
pub const RETRY_MS: RangeInclusive<u64> = 100..=60_000;

const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// An event is larger than the reader's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTooLarge;

/// Reads events from chunks of bytes.
#[derive(Debug)]
pub struct EventReader {
    event_max: usize,
    /// Bytes of a BOM seen so far; `None` after the start of the stream.
    bom: Option<usize>,
    /// The last line ended with CR, so an LF that follows belongs to it.
    after_cr: bool,
    /// The part of the current line that has arrived.
    line: BytesMut,
    /// Bytes of the current event's lines so far.
    size: usize,
    event: EventFields,
}

/// The fields of the current event so far.
#[derive(Debug, Default)]
struct EventFields {
    touched: bool,
    data: Option<Bytes>,
    /// `data` of several lines; `data` is then `None`.
    joined: Option<BytesMut>,
    event: Option<Box<str>>,
    id: Option<Box<str>>,
    retry: Option<u64>,
    comment: Option<String>,
}

impl EventReader {
    /// A reader at the start of a stream. `event_max` limits one event, field names included,
    /// bytes.
    pub fn new(event_max: usize) -> Self {
        Self {
            event_max,
            bom: Some(0),
            after_cr: false,
            line: BytesMut::new(),
            size: 0,
            event: EventFields::default(),
        }
    }

    /// Consumes bytes from the front of `chunk` until an event is complete or `chunk` is empty. A
    /// single `data` line that lies whole in `chunk` is not copied. Fails if the event is larger
    /// than the limit.
    pub fn next(&mut self, chunk: &mut Bytes) -> Result<Option<ServerEvent>, EventTooLarge> {
        self.skip_bom(chunk);
        while let Some(line) = self.take_line(chunk)? {
            if !line.is_empty() {
                self.event.add(&line);
            } else if let Some(event) = self.dispatch() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Bytes of the current event that have arrived.
    pub(crate) fn buffered(&self) -> usize {
        self.size.saturating_add(self.line.len())
    }

    fn skip_bom(&mut self, chunk: &mut Bytes) {
        while let (Some(seen), Some(byte)) = (self.bom, chunk.first()) {
            if BOM.get(seen) == Some(byte) {
                chunk.advance(1);
                let seen = seen.saturating_add(1);
                self.bom = (seen < BOM.len()).then_some(seen);
            } else {
                // An incomplete BOM is part of the text.
                self.line.extend_from_slice(BOM.get(..seen).unwrap_or_default());
                self.bom = None;
            }
        }
    }

    fn take_line(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, EventTooLarge> {
        if self.after_cr && !chunk.is_empty() {
            self.after_cr = false;
            if chunk.first() == Some(&b'\n') {
                chunk.advance(1);
            }
        }
        let end = line_end(chunk);
        let seen = end.unwrap_or(chunk.len()).saturating_add(self.line.len());
        if self.size.saturating_add(seen) > self.event_max {
            return Err(EventTooLarge);
        }
        let Some(end) = end else {
            self.line.extend_from_slice(chunk);
            chunk.clear();
            return Ok(None);
        };
        let rest = chunk.split_to(end);
        self.after_cr = chunk.first() == Some(&b'\r');
        chunk.advance(1);
        self.size = self.size.saturating_add(seen).saturating_add(1);
        if self.line.is_empty() {
            return Ok(Some(rest));
        }
        self.line.extend_from_slice(&rest);
        Ok(Some(self.line.split().freeze()))
    }

    fn dispatch(&mut self) -> Option<ServerEvent> {
        self.size = 0;
        let event = std::mem::take(&mut self.event);
        event.touched.then(|| event.finish())
    }
}

impl EventFields {
    fn add(&mut self, line: &Bytes) {
        let colon = line.iter().position(|byte| *byte == b':');
        let name = line.get(..colon.unwrap_or(line.len())).unwrap_or_default();
        let mut value = match colon {
            Some(at) => line.slice(at.saturating_add(1)..),
            None => Bytes::new(),
        };
        if value.first() == Some(&b' ') {
            value.advance(1);
        }
        match name {
            b"" => self.add_comment(&value),
            b"data" => self.add_data(value),
            b"event" => {
                let name = text(&value);
                self.event = (!name.is_empty() && *name != *"message").then_some(name);
            }
            b"id" if value.contains(&0) => return,
            b"id" => self.id = Some(text(&value)),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let digits = std::str::from_utf8(&value).unwrap_or_default();
                self.retry = Some(digits.parse().unwrap_or(u64::MAX));
            }
            _ => return,
        }
        self.touched = true;
    }

    fn add_comment(&mut self, value: &Bytes) {
        match &mut self.comment {
            Some(comment) => {
                comment.push('\n');
                comment.push_str(&text(value));
            }
            None => self.comment = Some(text(value).into()),
        }
    }

    fn add_data(&mut self, value: Bytes) {
        match (&mut self.joined, self.data.take()) {
            (Some(joined), _) => {
                joined.extend_from_slice(b"\n");
                joined.extend_from_slice(&value);
            }
            (None, Some(first)) => {
                let room = first.len().saturating_add(value.len()).saturating_add(1);
                let mut joined = BytesMut::with_capacity(room);
                joined.extend_from_slice(&first);
                joined.extend_from_slice(b"\n");
                joined.extend_from_slice(&value);
                self.joined = Some(joined);
            }
            (None, None) => self.data = Some(value),
        }
    }

    fn finish(self) -> ServerEvent {
        let data = match self.joined {
            Some(joined) => joined.freeze(),
            None => self.data.unwrap_or_default(),
        };
        ServerEvent {
            data,
            event: self.event,
            id: self.id,
            retry: self.retry,
            comment: self.comment.map(Into::into),
            stray: None,
        }
    }
}

/// Event names, ids and comments, decoded lossily as the standard says; no decision depends on
/// them.
fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

/// Appends `event` to `out`: one `data` line for each line of `data`, and `retry` clamped to
/// [`RETRY_MS`]. An event with an id always has a `data` line, because clients ignore an id without
/// one.
pub fn write(event: &ServerEvent, out: &mut BytesMut) {
    out.reserve(event.data.len().saturating_add(64));
    if let Some(comment) = &event.comment {
        for line in comment.split(['\n', '\r']) {
            field(out, b"", line.as_bytes());
        }
    }
    if let Some(id) = &event.id {
        // A reader ignores an id with a NUL (WHATWG HTML §9.2.6).
        let id = id.split('\0').next().unwrap_or_default();
        field(out, b"id", one_line(id).as_bytes());
    }
    if let Some(name) = &event.event {
        field(out, b"event", one_line(name).as_bytes());
    }
    if let Some(retry) = event.retry {
        let retry = retry.clamp(*RETRY_MS.start(), *RETRY_MS.end());
        field(out, b"retry", retry.to_string().as_bytes());
    }
    if !event.data.is_empty() || event.id.is_some() {
        write_data(out, &event.data);
    }
    out.extend_from_slice(b"\n");
}

fn write_data(out: &mut BytesMut, data: &[u8]) {
    let mut rest = data;
    while let Some(at) = line_end(rest) {
        let (line, tail) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        field(out, b"data", line);
        let end = if tail.starts_with(b"\r\n") { 2 } else { 1 };
        rest = tail.get(end..).unwrap_or_default();
    }
    field(out, b"data", rest);
}

/// Bytes in which a line end is looked for at once. In so many the compiler looks with vector
/// instructions; byte by byte, an event of 1 KiB takes 10,000 instructions to read.
const LOOKED_AT: usize = 64;

/// Where the first CR or LF of `bytes` is.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let ends = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let has_none = |block: &&[u8]| !block.iter().fold(false, |any, byte| any | ends(byte));
    let blocks = bytes.chunks_exact(LOOKED_AT).take_while(has_none).count();
    let before = blocks.saturating_mul(LOOKED_AT);
    let rest = bytes.get(before..).unwrap_or_default();
    rest.iter().position(ends).map(|at| before.saturating_add(at))
}

fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\n");
}

/// A value that cannot end its line: what the reader gives never can.
fn one_line(value: &str) -> &str {
    value.split(['\n', '\r']).next().unwrap_or_default()
}

/// Bytes of an answer, with the failure that ended them.
pub type ByteStream = UnsyncBoxBody<Bytes, UpstreamFailure>;

/// An event stream read from an HTTP body, event by event and never ahead.
#[derive(Debug)]
pub struct SseBody {
    body: ByteStream,
    chunk: Bytes,
    reader: EventReader,
    over: bool,
    /// Where what is buffered is charged, if it is.
    arriving: Option<ArrivingMessage>,
}

impl SseBody {
    /// The events of `body`, each of at most `event_max` bytes.
    pub fn new(body: ByteStream, event_max: usize) -> Self {
        let reader = EventReader::new(event_max);
        Self { body, chunk: Bytes::new(), reader, over: false, arriving: None }
    }

    /// Charges what is buffered of the events to `account`.
    pub(crate) fn charge_to(&mut self, account: &Account) {
        self.arriving = Some(account.arriving());
    }

    /// The next event; `None` at the end, and after a failure.
    ///
    /// Dropping the future loses nothing: what was read stays in the body.
    pub async fn next(&mut self) -> Option<Result<ServerEvent, UpstreamFailure>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// A whole event, with its data charged.
    fn whole(&mut self, mut event: ServerEvent) -> Result<ServerEvent, UpstreamFailure> {
        if let Some(arriving) = &mut self.arriving {
            let data = arriving.whole(std::mem::take(&mut event.data));
            event.data = data.map_err(|NoRoom| {
                self.over = true;
                no_room()
            })?;
        }
        Ok(event)
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ServerEvent, UpstreamFailure>>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            match self.reader.next(&mut self.chunk) {
                Ok(Some(event)) => return Poll::Ready(Some(self.whole(event))),
                Ok(None) => {
                    let held = self.reader.buffered();
                    let arriving = self.arriving.as_mut();
                    if arriving.is_some_and(|arriving| arriving.buffered(held).is_err()) {
                        self.over = true;
                        return Poll::Ready(Some(Err(no_room())));
                    }
                }
                Err(EventTooLarge) => {
                    self.over = true;
                    let why = format!("an event larger than {} bytes", self.reader.event_max);
                    return Poll::Ready(Some(Err(UpstreamFailure::Unreadable(why))));
                }
            }
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // Trailers say nothing here.
                Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                Some(Err(failure)) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(failure)));
                }
                None => self.over = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &[u8]) -> Vec<ServerEvent> {
        let mut reader = EventReader::new(1 << 20);
        let mut chunk = Bytes::copy_from_slice(text);
        let mut events = Vec::new();
        while let Some(event) = reader.next(&mut chunk).unwrap() {
            events.push(event);
        }
        events
    }

    fn data(text: &str) -> ServerEvent {
        ServerEvent { data: Bytes::copy_from_slice(text.as_bytes()), ..ServerEvent::default() }
    }

    #[test]
    fn follows_the_standard() {
        let named = ServerEvent { event: Some("x".into()), ..data("a") };
        let with_id = ServerEvent { id: Some("7".into()), ..data("") };
        let retry = ServerEvent { retry: Some(10), ..data("") };
        let comment = ServerEvent { comment: Some("a\nb".into()), ..data("") };
        let cases: &[(&str, Vec<ServerEvent>)] = &[
            ("data: a\n\n", vec![data("a")]),
            ("data:a\n\n", vec![data("a")]),
            ("data:  a\n\n", vec![data(" a")]),
            ("data: a\r\rdata: b\r\n\r\ndata: c\n\n", vec![data("a"), data("b"), data("c")]),
            ("data: a\ndata: b\ndata:\n\n", vec![data("a\nb\n")]),
            ("data\n\n", vec![data("")]),
            ("\u{feff}data: a\n\n", vec![data("a")]),
            ("data: a\n\u{feff}data: b\n\n", vec![data("a")]),
            ("\n\n\ndata: a\n\n\n\n", vec![data("a")]),
            ("event: x\ndata: a\n\n", vec![named.clone()]),
            ("event: y\nevent: x\ndata: a\n\n", vec![named]),
            ("event: message\ndata: a\n\n", vec![data("a")]),
            ("id: 7\ndata:\n\n", vec![with_id.clone()]),
            ("id: 7\nid: 8\u{0}\n\n", vec![with_id]),
            ("retry: 10\n\n", vec![retry.clone()]),
            ("retry: 10\nretry: 1x\nretry: -2\nretry\n\n", vec![retry]),
            (": a\n:b\n\n", vec![comment]),
            ("Data: a\nunknown: b\ndatas: c\n\n", vec![]),
            ("data: unfinished\n", vec![]),
            // A comment cannot hide a message behind a bare CR.
            (
                ": note\rdata: {}\r\r",
                vec![ServerEvent { comment: Some("note".into()), ..data("{}") }],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(&read_all(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn the_first_line_end_is_found_wherever_it_is() {
        for length in 0..200 {
            let text = vec![b'x'; length];
            assert_eq!(line_end(&text), None);
            for at in 0..length {
                for (end, later) in [(b'\n', b'\r'), (b'\r', b'\n'), (b'\n', b'\n')] {
                    let mut text = text.clone();
                    text[at..].fill(later);
                    text[at] = end;
                    assert_eq!(line_end(&text), Some(at), "{length}");
                }
            }
        }
    }

    #[test]
    fn one_data_line_is_not_copied() {
        let mut chunk = Bytes::from_static(b"data: {\"a\":1}\n\n");
        let start = chunk.as_ptr().addr();
        let event = EventReader::new(100).next(&mut chunk).unwrap().unwrap();
        assert_eq!(event.data.as_ptr().addr(), start + 6);
    }

    #[test]
    fn an_event_is_bounded_however_it_comes() {
        for text in [
            &b"data: aaaaaaaaaaaaaa"[..],
            b":\n:\n:\n:\n:\n:\n:\n:\n:\n:\n",
            b"data: 1\ndata: 2\ndata: 3\n",
        ] {
            let mut reader = EventReader::new(16);
            let mut outcome = Ok(None);
            for byte in text {
                outcome = reader.next(&mut Bytes::copy_from_slice(&[*byte]));
                if outcome.is_err() {
                    break;
                }
            }
            assert_eq!(outcome, Err(EventTooLarge), "{text:?}");
        }
        // Size is counted anew for each event.
        let mut reader = EventReader::new(16);
        let mut chunk = Bytes::from_static(b"data: 1234\n\ndata: 5678\n\ndata: 9\n\n");
        for _ in 0..3 {
            assert!(reader.next(&mut chunk).unwrap().is_some());
        }
    }

    #[test]
    fn writes_one_event_whatever_its_fields_hold() {
        let event = ServerEvent {
            data: Bytes::from_static(b"a\r\nb\rc\n"),
            event: Some("x\ndata: forged".into()),
            id: Some("1\n\ndata: forged".into()),
            retry: Some(u64::MAX),
            comment: Some("c\rdata: forged".into()),
            stray: None,
        };
        let mut out = BytesMut::new();
        write(&event, &mut out);
        let text = std::str::from_utf8(&out).unwrap();
        assert_eq!(
            text,
            ": c\n: data: forged\nid: 1\nevent: x\nretry: 60000\ndata: a\ndata: b\ndata: c\ndata: \n\n"
        );
    }
}
