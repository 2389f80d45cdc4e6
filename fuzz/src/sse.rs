//! Invariants of `bartizan_edge::sse`, checked against a reader of whole texts. The functions here
//! panic if one is broken.

use bartizan_edge::ServerEvent;
use bartizan_edge::sse::{EventReader, RETRY_MS, write};
use bytes::{Bytes, BytesMut};

/// Events read, and whether reading ended at one that was too large.
type Reading = (Vec<ServerEvent>, bool);

/// The first byte sets the bound, the second how the rest is cut. Any cut gives the same events;
/// none is larger than the bound; each is written as one event that reads back the same; a second
/// reader sees the same data.
pub fn sse(bytes: &[u8]) {
    let [bound, cut, text @ ..] = bytes else { return };
    let event_max = 16 + usize::from(*bound) * 4;
    let whole = read(text, text.len().max(1), event_max);
    assert_eq!(whole, read(text, 1, event_max), "byte by byte");
    assert_eq!(whole, read(text, usize::from(*cut) + 1, event_max), "cut every {cut} + 1 bytes");
    for event in &whole.0 {
        assert!(size(event) <= event_max, "an event larger than {event_max} bytes: {event:?}");
        written_back(event);
    }
    let (all, too_large) = read(text, text.len().max(1), usize::MAX);
    assert!(!too_large);
    assert_eq!(all.get(..whole.0.len()), Some(&*whole.0), "the bound changes an event");
    let data: Vec<_> =
        all.into_iter().map(|event| event.data).filter(|data| !data.is_empty()).collect();
    assert_eq!(data, second_reader(text), "the data of the events");
}

fn read(text: &[u8], piece: usize, event_max: usize) -> Reading {
    let mut reader = EventReader::new(event_max);
    let mut events = Vec::new();
    for piece in text.chunks(piece) {
        let mut chunk = Bytes::copy_from_slice(piece);
        loop {
            match reader.next(&mut chunk) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(_) => return (events, true),
            }
        }
        assert!(chunk.is_empty(), "bytes are left behind");
    }
    (events, false)
}

/// Bytes of what came as bytes. Text counts a character for each byte that was none.
fn size(event: &ServerEvent) -> usize {
    let chars = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.chars().count());
    event.data.len() + chars(&event.event) + chars(&event.id) + chars(&event.comment)
}

fn written_back(event: &ServerEvent) {
    let mut out = BytesMut::new();
    write(event, &mut out);
    let (again, too_large) = read(&out, out.len(), usize::MAX);
    assert!(!too_large);
    let retry = event.retry.map(|retry| retry.clamp(*RETRY_MS.start(), *RETRY_MS.end()));
    let expected = ServerEvent { retry, ..event.clone() };
    // An event that says nothing is no event.
    let expected = (expected != ServerEvent::default()).then_some(expected);
    assert_eq!(again, Vec::from_iter(expected), "written and read back");
}

/// The data of all events of a whole text that have any (WHATWG HTML §9.2.6).
fn second_reader(text: &[u8]) -> Vec<Bytes> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let text = replaced(&replaced(text, b"\r\n", b"\n"), b"\r", b"\n");
    let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    // What follows the last line end is no line.
    lines.pop();
    let mut found = Vec::new();
    for block in lines.split(|line| line.is_empty()) {
        let values: Vec<_> = block.iter().filter_map(|line| data_of(line)).collect();
        found.push(Bytes::from(values.join(&b'\n')));
    }
    // The last block is not ended by an empty line.
    found.pop();
    found.retain(|data| !data.is_empty());
    found
}

fn data_of(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data")?;
    let value = match value {
        [] => value,
        [b':', value @ ..] => value,
        _ => return None,
    };
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(from) {
            out.extend_from_slice(to);
            rest = after;
        } else {
            let (byte, after) = rest.split_at(1);
            out.extend_from_slice(byte);
            rest = after;
        }
    }
    out
}
