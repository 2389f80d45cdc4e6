//! Invariants of `bartizan_gate::wire::{document, frame}`, checked against `serde_json` as a second
//! parser. The functions here panic if one is broken.

use bartizan_gate::wire::document::{Document, DocumentLimits, Kind, Unreadable, Value};
use bartizan_gate::wire::frame::{Frame, FrameLimits, Id, Message, Sender};
use bytes::Bytes;

/// Reading ends without a panic; what is accepted, a second reader reads as the same tree; what is
/// refused for its grammar, a second reader refuses.
pub fn frame(bytes: &[u8]) {
    let raw = Bytes::copy_from_slice(bytes);
    match Document::read(raw.clone(), &DocumentLimits::default()) {
        Ok(document) => {
            well_formed(document.root(), 0..bytes.len());
            second_reader_agrees(&document);
        }
        Err(Unreadable::NotJson { at } | Unreadable::LoneSurrogate { at }) => {
            assert!(at <= bytes.len());
            let second = serde_json::from_slice::<serde_json::Value>(bytes);
            assert!(second.is_err(), "refused at {at}, read elsewhere as {second:?}");
        }
        Err(_) => {}
    }
    for sender in [Sender::Client, Sender::Server] {
        if let Ok(frame) = Frame::read(raw.clone(), sender, &FrameLimits::default()) {
            assert_eq!(frame.document().raw(), &raw, "the bytes are kept");
            renamed(&frame, sender);
        }
    }
}

/// What is accepted is minified to one line of the same meaning.
pub fn minify(bytes: &[u8]) {
    let raw = Bytes::copy_from_slice(bytes);
    let limits = DocumentLimits { bytes_max: usize::MAX, ..DocumentLimits::default() };
    let Ok(document) = Document::read(raw, &limits) else { return };
    let line = document.minified();
    assert!(line.iter().all(|byte| *byte >= 0x20), "a byte below 0x20 is left");
    let text = std::str::from_utf8(&line).expect("minified is UTF-8");
    assert!(!text.contains(['\u{85}', '\u{2028}', '\u{2029}']), "a line separator is left");
    let again = Document::read(line.clone(), &limits).expect("minified is readable");
    assert!(same(document.root(), again.root()), "minified reads differently");
    assert_eq!(again.minified(), line, "minified twice is minified once");
}

/// Whether two values are the same tree: members in the same order, numbers by their literals.
pub fn same(one: Value<'_>, other: Value<'_>) -> bool {
    one.kind() == other.kind()
        && one.len() == other.len()
        && one.as_str() == other.as_str()
        && one.as_bool() == other.as_bool()
        && one.as_number() == other.as_number()
        && one.elements().zip(other.elements()).all(|(one, other)| same(one, other))
        && one
            .members()
            .zip(other.members())
            .all(|(one, other)| one.0.as_str() == other.0.as_str() && same(one.1, other.1))
}

/// `serde_json` reads the same tree. It may refuse a number next to the largest finite one, since
/// it does not round exactly unless told to.
fn second_reader_agrees(document: &Document) {
    match serde_json::from_slice::<serde_json::Value>(document.raw()) {
        Ok(second) => assert!(agrees(document.root(), &second), "read elsewhere as {second:?}"),
        Err(error) => assert!(
            error.to_string().contains("number out of range") && has_huge_number(document.root()),
            "accepted, but refused elsewhere: {error}"
        ),
    }
}

pub fn agrees(value: Value<'_>, second: &serde_json::Value) -> bool {
    match second {
        serde_json::Value::Null => value.kind() == Kind::Null,
        serde_json::Value::Bool(truth) => value.as_bool() == Some(*truth),
        serde_json::Value::String(text) => value.as_str() == Some(text),
        serde_json::Value::Number(number) => {
            value.as_number().is_some_and(|literal| number_agrees(value, literal, number))
        }
        serde_json::Value::Array(elements) => {
            value.kind() == Kind::Array
                && value.len() == elements.len()
                && value.elements().zip(elements).all(|(value, second)| agrees(value, second))
        }
        serde_json::Value::Object(members) => {
            value.kind() == Kind::Object
                && value.len() == members.len()
                && members.iter().all(|(name, second)| {
                    value.get(name).is_some_and(|value| agrees(value, second))
                })
        }
    }
}

/// Exact for integers that fit; within rounding otherwise.
fn number_agrees(value: Value<'_>, literal: &str, second: &serde_json::Number) -> bool {
    if let Some(integer) = second.as_i64() {
        return value.as_i64() == Some(integer);
    }
    if let Some(integer) = second.as_u64() {
        return literal.parse() == Ok(integer);
    }
    assert_eq!(value.as_i64(), None, "an integer that fits, read elsewhere as a float");
    let (Ok(exact), Some(second)) = (literal.parse::<f64>(), second.as_f64()) else { return false };
    let tolerance = exact.abs().max(f64::MIN_POSITIVE) * 4.0 * f64::EPSILON;
    exact == second || (exact - second).abs() <= tolerance
}

fn has_huge_number(value: Value<'_>) -> bool {
    let huge = |literal: &str| literal.parse::<f64>().is_ok_and(|number| number.abs() > 1e307);
    value.as_number().is_some_and(huge)
        || value.elements().any(has_huge_number)
        || value.members().any(|(_, value)| has_huge_number(value))
}

/// Spans lie inside their parents, in order and apart; counts are true; the bytes of a scalar are
/// a document of their own.
fn well_formed(value: Value<'_>, inside: std::ops::Range<usize>) {
    let span = value.span();
    assert!(inside.start <= span.start && span.start < span.end && span.end <= inside.end);
    let names_and_values: Vec<_> =
        value.members().flat_map(|(name, value)| [name, value]).chain(value.elements()).collect();
    let count = value.members().count() + value.elements().count();
    assert_eq!(count, value.len());
    let mut from = span.start + 1;
    for child in &names_and_values {
        well_formed(*child, from..span.end - 1);
        from = child.span().end + 1;
    }
    if names_and_values.is_empty() {
        let alone = Document::read(Bytes::copy_from_slice(value.raw()), &DocumentLimits::default());
        assert!(same(alone.expect("a scalar reads alone").root(), value));
    }
}

/// A frame given another id is the same frame but for that id.
fn renamed(frame: &Frame, sender: Sender) {
    for id in [Id::Number(-7), Id::Text("a\"\u{2028}".into())] {
        let bytes = frame.with_id(&id);
        let again = Frame::read(bytes, sender, &FrameLimits::default()).expect("still a frame");
        let expected = match frame.message().clone() {
            Message::Request { method, .. } => Message::Request { id, method },
            Message::Result { .. } => Message::Result { id },
            Message::Error { id: old, code } => {
                let answers = old.is_some() || frame.document().root().get("id").is_some();
                Message::Error { id: answers.then_some(id), code }
            }
            unchanged @ Message::Notification { .. } => unchanged,
        };
        assert_eq!(again.message(), &expected);
    }
}
