//! Invariants of `bartizan_edge::child::lines`, checked against splitting the whole text. The
//! functions here panic if one is broken.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bartizan_edge::child::lines::{
    Line, Lines, has_foreign_line_end, line_for_child, line_for_client,
};
use bartizan_gate::wire::document::{Document, DocumentLimits};
use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::reading::same;

/// The first byte sets the bound, the second how the rest is cut. Any cut gives the same lines;
/// none is longer than the bound; what is written for either peer is one line to every reader of
/// lines, and reads as the same document.
pub fn stdio(bytes: &[u8]) {
    let [bound, cut, text @ ..] = bytes else { return };
    let bytes_max = 8 + usize::from(*bound) * 4;
    let whole = read(text, text.len().max(1), bytes_max);
    assert_eq!(whole, read(text, 1, bytes_max), "byte by byte");
    assert_eq!(whole, read(text, usize::from(*cut) + 1, bytes_max), "cut every {cut} + 1 bytes");
    assert_eq!(whole, second_reader(text, bytes_max));
    for line in whole {
        if let Line::Whole(line) = line {
            assert!(line.len() <= bytes_max);
            written(&line);
        }
    }
    written(&Bytes::copy_from_slice(text));
}

fn read(text: &[u8], piece: usize, bytes_max: usize) -> Vec<Line> {
    let mut lines = Lines::new(Pieces { left: text, piece }, bytes_max);
    let mut found = Vec::new();
    while let Some(line) = at_once(lines.next()).expect("a slice reads without error") {
        found.push(line);
    }
    found
}

/// Every whole line, without the CR of a CRLF and without blank ones.
fn second_reader(text: &[u8], bytes_max: usize) -> Vec<Line> {
    let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    let mut found = Vec::new();
    for line in lines {
        let bare = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > bytes_max {
            found.push(Line::TooLong);
        } else if bare.iter().any(|byte| !matches!(byte, b' ' | b'\t')) {
            found.push(Line::Whole(Bytes::copy_from_slice(bare)));
        }
    }
    found
}

fn written(body: &Bytes) {
    let Ok(document) = Document::read(body.clone(), &DocumentLimits::default()) else { return };
    let child = one_line(&line_for_child(&document.minified()));
    let client = line_for_client(body, || Some(document.minified()));
    assert!(child.iter().all(|byte| *byte >= 0x20), "a byte below 0x20 is left");
    let client = one_line(&client.expect("what reads can be written"));
    assert!(!has_foreign_line_end(&client));
    for line in [child, client] {
        let again = Document::read(line, &DocumentLimits::default()).expect("still a document");
        assert!(same(document.root(), again.root()), "written reads differently");
    }
}

/// The line without its LF, and no other line end in it.
fn one_line(line: &Bytes) -> Bytes {
    let end = line.len() - 1;
    assert_eq!(line.get(end), Some(&b'\n'));
    let line = line.slice(..end);
    let text = std::str::from_utf8(&line).expect("a document is UTF-8");
    assert!(!text.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']), "two lines to some");
    line
}

/// A source that gives `piece` bytes at a time.
struct Pieces<'a> {
    left: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.piece.min(self.left.len()).min(buf.remaining());
        let (now, left) = self.left.split_at(count);
        buf.put_slice(now);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

/// What a future gives that never has to wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits for nobody"),
    }
}
