//! Maps ids between the clients and one child: the edge's network address translation for JSON-RPC
//! ids.
//!
//! Several exchanges share a child, and ids of different clients collide (threat D5). So each
//! request gets a number of ours as its id and progress token, and answers and notifications get
//! the client's own values back. Only those spans of the bytes change. This module is pure: it does
//! no I/O.
//!
//! Ids of the child's own requests are not changed: a child sends requests within one session only.

use std::ops::Range;

use bytes::Bytes;

use bartizan_gate::wire::document::{Document, Value, write_string};

/// Where in `params` or `result` a message carries the id of its `subscriptions/listen` (revision
/// 2026-07-28, basic/patterns/subscriptions).
const SUBSCRIPTION_ID: &str = "/_meta/io.modelcontextprotocol~1subscriptionId";

/// An id or progress token as the client wrote it: the bytes of a JSON string or number.
pub(super) type Label = Bytes;

/// The client's id and progress token of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labels {
    /// Its `id`.
    pub(super) id: Label,
    /// Its `params._meta.progressToken`.
    pub(super) token: Option<Label>,
    /// Whether the token stays valid after the answer, as in a task-augmented request (2025-11-25).
    pub(super) lasting: bool,
}

/// A request with our number as id and progress token, minified, and the values that it had. `None`
/// if the message has no id.
pub(super) fn outbound(document: &Document, number: i64) -> Option<(Bytes, Labels)> {
    let id = document.root().get("id")?;
    let token = document.root().pointer("/params/_meta/progressToken");
    let number = number.to_string();
    let edits = [Some(id), token].into_iter().flatten().map(|value| (value.span(), number.clone()));
    let line = document.minified_with(&in_order(edits));
    let labels = Labels {
        id: raw(id),
        token: token.map(raw),
        lasting: document.root().pointer("/params/task").is_some(),
    };
    Some((line, labels))
}

/// A client's `notifications/cancelled` with our number, minified; `None` if it names no request.
pub(super) fn cancelled(document: &Document, number: i64) -> Option<Bytes> {
    let id = document.root().pointer("/params/requestId")?;
    Some(document.minified_with(&in_order([(id.span(), number.to_string())])))
}

/// Our number in a child's `notifications/cancelled`.
pub(super) fn cancelled_number(document: &Document) -> Option<i64> {
    number_of(document.root().pointer("/params/requestId")?)
}

/// Our number in a child's `notifications/progress`.
pub(super) fn progress_number(document: &Document) -> Option<i64> {
    number_of(document.root().pointer("/params/progressToken")?)
}

/// Our number in a notification of a subscription.
pub(super) fn subscription_number(document: &Document) -> Option<i64> {
    number_of(document.root().get("params")?.pointer(SUBSCRIPTION_ID)?)
}

/// A child's answer with the client's `id` instead of our `number`.
pub(super) fn answer(document: &Document, number: i64, id: &Label) -> Bytes {
    let subscription =
        document.root().get("result").and_then(|result| result.pointer(SUBSCRIPTION_ID));
    let own = document.root().get("id").map(|value| (value.span(), text(id)));
    let tagged = subscription
        .filter(|value| number_of(*value) == Some(number))
        .map(|value| (value.span(), alike(value, id)));
    spliced(document, [own, tagged].into_iter().flatten())
}

/// A child's notification with the client's `label` put back at `field`.
pub(super) fn notification(document: &Document, field: LabelField, label: &Label) -> Bytes {
    let value = document.root().get("params").and_then(|params| params.pointer(field.pointer()));
    let edit = value.map(|value| match field {
        LabelField::Subscription => (value.span(), alike(value, label)),
        LabelField::Progress | LabelField::Cancelled => (value.span(), text(label)),
    });
    spliced(document, edit)
}

/// Which member of `params` holds the label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LabelField {
    /// `progressToken` of `notifications/progress`.
    Progress,
    /// `requestId` of `notifications/cancelled`.
    Cancelled,
    /// The subscription id in `_meta`.
    Subscription,
}

impl LabelField {
    fn pointer(self) -> &'static str {
        match self {
            Self::Progress => "/progressToken",
            Self::Cancelled => "/requestId",
            Self::Subscription => SUBSCRIPTION_ID,
        }
    }
}

/// Our number, even if the child wrote it as a string.
fn number_of(value: Value<'_>) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn raw(value: Value<'_>) -> Label {
    Bytes::copy_from_slice(value.raw())
}

fn text(label: &Label) -> String {
    String::from_utf8_lossy(label).into_owned()
}

/// The label in the JSON type that the child used: a child that turned our number into a string
/// would have done so with the client's number.
fn alike(value: Value<'_>, label: &Label) -> String {
    let label = text(label);
    if value.as_str().is_none() || label.starts_with('"') {
        return label;
    }
    let mut quoted = Vec::new();
    write_string(&mut quoted, &label);
    String::from_utf8_lossy(&quoted).into_owned()
}

/// The document with these spans replaced; `edits` may come in any order.
fn spliced(document: &Document, edits: impl IntoIterator<Item = (Range<usize>, String)>) -> Bytes {
    document.splice(&in_order(edits))
}

fn in_order(
    edits: impl IntoIterator<Item = (Range<usize>, String)>,
) -> Vec<(Range<usize>, Vec<u8>)> {
    let mut edits: Vec<_> =
        edits.into_iter().map(|(span, text)| (span, text.into_bytes())).collect();
    edits.sort_by_key(|(span, _)| span.start);
    edits
}

#[cfg(test)]
mod tests {
    use super::*;
    use bartizan_gate::wire::document::DocumentLimits;

    fn read(text: &str) -> Document {
        Document::read(Bytes::copy_from_slice(text.as_bytes()), &DocumentLimits::default()).unwrap()
    }

    #[test]
    fn requests_go_out_under_our_number() {
        let cases = [
            (
                r#"{"id": "a\u0062", "method":"m","params":{"_meta":{"progressToken": 1.0 }}}"#,
                r#"{"id":7,"method":"m","params":{"_meta":{"progressToken":7}}}"#,
                r#""a\u0062""#,
                Some("1.0"),
            ),
            (
                r#"{"params":{"_meta":{"progressToken":"t"},"n":1e400,"id":5},"id":5}"#,
                r#"{"params":{"_meta":{"progressToken":7},"n":1e400,"id":5},"id":7}"#,
                "5",
                Some(r#""t""#),
            ),
            (r#"{"id":5,"method":"m"}"#, r#"{"id":7,"method":"m"}"#, "5", None),
        ];
        for (input, expected, id, token) in cases {
            // 1e400 is for the gate to refuse; here only bytes are moved.
            let input = input.replace("1e400", "1e40");
            let expected = expected.replace("1e400", "1e40");
            let (line, labels) = outbound(&read(&input), 7).unwrap();
            assert_eq!(line, expected);
            assert_eq!(labels.id, id);
            assert_eq!(labels.token.as_deref(), token.map(str::as_bytes));
            assert!(!labels.lasting);
        }
    }

    #[test]
    fn answers_come_back_under_the_label_of_the_client() {
        let tag = "io.modelcontextprotocol/subscriptionId";
        let cases = [
            (r#"{"id":7,"result":{"id":7}}"#.to_owned(), r#"{"id":"x","result":{"id":7}}"#.into()),
            (
                format!(r#"{{"result":{{"_meta":{{"{tag}":7}}}},"id":7}}"#),
                format!(r#"{{"result":{{"_meta":{{"{tag}":"x"}}}},"id":"x"}}"#),
            ),
            (
                format!(r#"{{"result":{{"_meta":{{"{tag}":8}}}},"id":7}}"#),
                format!(r#"{{"result":{{"_meta":{{"{tag}":8}}}},"id":"x"}}"#),
            ),
        ];
        for (input, expected) in cases {
            let label = Label::from_static(br#""x""#);
            assert_eq!(answer(&read(&input), 7, &label), expected);
        }
    }

    #[test]
    fn notifications_come_back_under_the_label_of_the_client() {
        let tag = "io.modelcontextprotocol/subscriptionId";
        let three = Label::from_static(b"3");
        let message = read(r#"{"method":"m","params":{"progressToken":7,"progress":7}}"#);
        assert_eq!(progress_number(&message), Some(7));
        assert_eq!(
            notification(&message, LabelField::Progress, &three),
            r#"{"method":"m","params":{"progressToken":3,"progress":7}}"#
        );
        let message = read(r#"{"method":"m","params":{"requestId":7}}"#);
        assert_eq!(cancelled_number(&message), Some(7));
        assert_eq!(
            notification(&message, LabelField::Cancelled, &three),
            r#"{"method":"m","params":{"requestId":3}}"#
        );
        for (ours, theirs) in [("7", "3"), (r#""7""#, r#""3""#)] {
            let message = read(&format!(r#"{{"params":{{"_meta":{{"{tag}":{ours}}}}}}}"#));
            assert_eq!(subscription_number(&message), Some(7));
            assert_eq!(
                notification(&message, LabelField::Subscription, &three),
                format!(r#"{{"params":{{"_meta":{{"{tag}":{theirs}}}}}}}"#)
            );
        }
    }

    #[test]
    fn a_cancel_names_the_request_in_either_space() {
        let message = read(r#"{"method":"notifications/cancelled","params":{"requestId":"a"}}"#);
        assert_eq!(
            cancelled(&message, 9).unwrap(),
            r#"{"method":"notifications/cancelled","params":{"requestId":9}}"#
        );
        let line = cancelled(&message, 9).unwrap();
        assert_eq!(cancelled_number(&read(std::str::from_utf8(&line).unwrap())), Some(9));
    }
}
