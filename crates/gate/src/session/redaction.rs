//! Applies redactions: which of them concern a message, and what its record says.
//!
//! The redactions of a call apply to its answer, to the task that the call creates, to that task's
//! results, and to every later message of the session that names no call ([`Duties`](crate::duty::duties::Duties)).

use bytes::Bytes;

use crate::duty::decision::Decision;
use crate::duty::redact::{Redaction, RedactionScope, below, redact};
use crate::evidence::record::{AuditRecord, Finding, PlaceFacts, RedactionFacts};
use crate::evidence::refusal::Refusal;
use crate::session::tasks::TaskCreation;
use crate::wire::document::{Document, Kind, Value};
use crate::wire::frame::is_other_spelling;

use super::Gate;

/// The redactions of an answer: those of the current decision, and those of the decision by which
/// the task that the request names was created.
pub(super) fn redactions(decision: &Decision, task: Option<&TaskCreation>) -> Vec<Redaction> {
    let of_task = task.into_iter().flat_map(|task| &task.redact);
    let mut all: Vec<Redaction> = Vec::new();
    for redaction in decision.redactions().chain(of_task) {
        if !all.contains(redaction) {
            all.push(redaction.clone());
        }
    }
    all
}

/// Redacts `document` and notes in `record` what was removed. `None` if nothing was. In observe
/// mode nothing is removed; the record says what would have been.
///
/// # Errors
///
/// The message cannot be redacted, so it must be withheld.
pub(super) fn redacted(
    gate: &Gate,
    document: &Document,
    redactions: &[Redaction],
    record: &mut AuditRecord,
) -> Result<Option<Bytes>, Refusal> {
    let finding = Finding::ResponseSecretLeak;
    redacted_in(gate, document, &scope, redactions, (record, finding))
}

/// As [`redacted`], for a message of the client.
///
/// # Errors
///
/// As [`redacted`].
pub(super) fn redacted_of_client(
    gate: &Gate,
    document: &Document,
    redactions: &[Redaction],
    record: &mut AuditRecord,
) -> Result<Option<Bytes>, Refusal> {
    let finding = Finding::RequestExfiltration;
    redacted_in(gate, document, &scope, redactions, (record, finding))
}

/// As [`redacted`], in the parts of `document` that `scope` returns; what is removed is a `finding`.
///
/// # Errors
///
/// As [`redacted`].
pub(super) fn redacted_in(
    gate: &Gate,
    document: &Document,
    scope: &dyn for<'a> Fn(&'a Document) -> RedactionScope<'a>,
    redactions: &[Redaction],
    (record, finding): (&mut AuditRecord, Finding),
) -> Result<Option<Bytes>, Refusal> {
    if redactions.is_empty() {
        return Ok(None);
    }
    let limits = &gate.config.frame.document;
    let redacted = match redact(document, &scope(document), redactions, limits) {
        Ok(redacted) => redacted,
        Err(why) => {
            record.note = Some(why.as_str().into());
            return if gate.observes() { Ok(None) } else { Err(Refusal::Withheld) };
        }
    };
    if redacted.places.is_empty() {
        return Ok(None);
    }
    record.redacted = Some(Box::new(RedactionFacts {
        count: redacted.places.len(),
        places: redacted
            .places
            .iter()
            .map(|place| PlaceFacts { pointer: (&place.pointer).into(), rule: place.rule })
            .collect(),
    }));
    record.set_finding(finding);
    if gate.observes() {
        record.note = Some("observe: nothing was redacted".into());
        return Ok(None);
    }
    record.bytes = u64::try_from(redacted.body.len()).ok();
    record.digest = Some(gate.digest(&redacted.body));
    Ok(Some(redacted.body))
}

/// The parts of a message that may be redacted: not the members of the envelope that JSON-RPC
/// defines, whose ids must not change, but any other. A method and the id of a request are the
/// sender's choice, so they must hold no secret; the id of an answer is the other side's. The result
/// of a task is inside the answer or the notification about it.
fn scope(document: &Document) -> RedactionScope<'_> {
    let root = document.root();
    let mut scope = RedactionScope { error: root.get("error"), ..RedactionScope::default() };
    if let Some(method) = root.get("method").and_then(Value::as_str) {
        scope.names.push(method);
        scope.names.extend(root.get("id").and_then(Value::as_str));
    }
    for part in ["result", "error", "params"] {
        let Some(value) = root.get(part) else { continue };
        scope.searched.push((format!("/{part}"), value));
        if part == "result" {
            scope.results.push(("/result".to_owned(), value));
        }
        for (name, inner) in value.members().filter(|_| part != "error") {
            let name = name.as_str().unwrap_or_default();
            let is_result = name == "result" || is_other_spelling(name, &["result"]);
            if is_result && inner.kind() == Kind::Object {
                scope.results.push((below(&format!("/{part}"), name), inner));
            }
        }
    }
    for (name, value) in root.members() {
        let name = name.as_str().unwrap_or_default();
        if !matches!(name, "jsonrpc" | "id" | "method" | "result" | "error" | "params") {
            scope.names.push(name);
            scope.searched.push((below("", name), value));
        }
    }
    scope
}
