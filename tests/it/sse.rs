//! Event streams: any chunking gives the same events, and what is written reads back.

#![expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]

use bartizan_edge::ServerEvent;
use bartizan_edge::sse::{EventReader, RETRY_MS, write};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

const EVENT_MAX: usize = 1 << 20;

/// What `text` says when it comes in pieces that end at `cuts`.
fn read(text: &[u8], cuts: &[usize]) -> Vec<ServerEvent> {
    let mut reader = EventReader::new(EVENT_MAX);
    let mut events = Vec::new();
    let mut from = 0;
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    ends.push(text.len());
    ends.sort_unstable();
    for end in ends {
        let mut chunk = Bytes::copy_from_slice(text.get(from..end).unwrap());
        while let Some(event) = reader.next(&mut chunk).unwrap() {
            events.push(event);
        }
        assert!(chunk.is_empty());
        from = end;
    }
    events
}

/// Text that is dense in what the format gives a meaning to.
fn stream_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"\n"[..]),
        Just(&b"\r"[..]),
        Just(&b"\r\n"[..]),
        Just(&b"\n\n"[..]),
        Just(&b"data"[..]),
        Just(&b"data: {\"a\":1}"[..]),
        Just(&b"event: x"[..]),
        Just(&b"id: 1"[..]),
        Just(&b"id: a\0b"[..]),
        Just(&b"retry: 15"[..]),
        Just(&b"retry: 1x"[..]),
        Just(&b": comment"[..]),
        Just(&b":"[..]),
        Just(&b" "[..]),
        Just(&b"\xef\xbb\xbf"[..]),
        Just(&b"\xef\xbb"[..]),
        Just(&b"\xff"[..]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn event() -> impl Strategy<Value = ServerEvent> {
    (
        "[^\r]{0,40}",
        // A name may hold a NUL, an id may not.
        prop::option::of("[a-z\0]{1,4}|[^\r\n]{1,12}"),
        prop::option::of("[^\r\n\0]{0,12}"),
        prop::option::of(RETRY_MS),
        prop::option::of("[^\r\n]{0,12}(\n[^\r\n]{0,12}){0,3}"),
    )
        .prop_map(|(data, event, id, retry, comment)| ServerEvent {
            data: Bytes::from(data.into_bytes()),
            event: event.filter(|name| name != "message").map(Into::into),
            id: id.map(Into::into),
            retry,
            comment: comment.map(Into::into),
            stray: None,
        })
        .prop_filter("says something", |event| *event != ServerEvent::default())
}

proptest! {
    #[test]
    fn chunking_changes_nothing(
        text in stream_text(),
        cuts in prop::collection::vec(any::<usize>(), 0..30),
    ) {
        let every: Vec<_> = (0..text.len()).collect();
        let whole = read(&text, &[]);
        prop_assert_eq!(&read(&text, &cuts), &whole);
        prop_assert_eq!(&read(&text, &every), &whole);
    }

    #[test]
    fn what_is_written_reads_back(
        events in prop::collection::vec(event(), 0..6),
        cuts in prop::collection::vec(any::<usize>(), 0..30),
    ) {
        let mut out = BytesMut::new();
        for event in &events {
            write(event, &mut out);
        }
        prop_assert_eq!(read(&out, &cuts), events);
    }

    /// Whatever an event holds, it reaches a reader as one event: no field can add another.
    #[test]
    fn one_event_stays_one(
        data in prop::collection::vec(any::<u8>(), 1..60),
        id in ".{0,12}",
        name in ".{0,12}",
        comment in "(?s).{0,20}",
    ) {
        let event = ServerEvent {
            data: Bytes::from(data),
            event: Some(name.into()),
            id: Some(id.into()),
            retry: Some(u64::MAX),
            comment: Some(comment.into()),
            stray: None,
        };
        let mut out = BytesMut::new();
        write(&event, &mut out);
        prop_assert_eq!(read(&out, &[]).len(), 1);
    }
}
