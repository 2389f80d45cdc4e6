//! Redaction carried out: whose duties reach which message, and what its record says.
//!
//! A duty to redact begins with a call and reaches whatever comes of it: its answer, what the
//! server says meanwhile, the task that it begins and the results of that.

use bytes::Bytes;

use crate::duty::decision::Decision;
use crate::duty::redact::{Redaction, Scope, redact};
use crate::evidence::record::{AuditRecord, CallId, Finding, PlaceFacts, RedactionFacts};
use crate::evidence::refusal::Refusal;
use crate::session::tasks::Maker;
use crate::wire::document::{Document, Kind};

use super::{Gate, Session};

/// Places that a record names; the others are counted.
const PLACES_NAMED_MAX: usize = 32;
/// Longest pointer in a record, characters; what is longer ends in `…`.
const POINTER_CHARS_MAX: usize = 256;

/// What must be taken out of the answer to a question: what the policy says now, and what it said
/// when the task that is asked about was made.
pub(super) fn redactions(decision: &Decision, task: Option<&Maker>) -> Vec<Redaction> {
    let of_task = task.into_iter().flat_map(|task| &task.redact);
    let mut all: Vec<Redaction> = Vec::new();
    for redaction in decision.redactions().chain(of_task) {
        if !all.contains(redaction) {
            all.push(redaction.clone());
        }
    }
    all
}

/// The bytes of `document` without what must not be in them, where something was taken out;
/// `record` says what. While observing nothing is, and the record says what would have been.
pub(super) fn redacted(
    gate: &Gate,
    document: &Document,
    redactions: &[Redaction],
    record: &mut AuditRecord,
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
    let named = redacted.places.iter().take(PLACES_NAMED_MAX);
    record.redacted = Some(RedactionFacts {
        count: redacted.places.len(),
        places: named
            .map(|place| PlaceFacts { pointer: shortened(&place.pointer), rule: place.rule })
            .collect(),
    });
    *record = record.clone().with_finding(Finding::ResponseSecretLeak);
    if gate.observes() {
        record.note = Some("observe: nothing was redacted".into());
        return Ok(None);
    }
    record.bytes = u64::try_from(redacted.body.len()).ok();
    record.digest = Some(gate.digest(&redacted.body));
    Ok(Some(redacted.body))
}

/// What of a message is its content: not its envelope, whose ids must stay what they are. The
/// result of a task stands inside the answer about it, or inside the news of it.
fn scope(document: &Document) -> Scope<'_> {
    let root = document.root();
    let mut scope = Scope { error: root.get("error"), ..Scope::default() };
    for part in ["result", "error", "params"] {
        let Some(value) = root.get(part) else { continue };
        scope.searched.push((format!("/{part}"), value));
        if part == "result" {
            scope.results.push(("/result".to_owned(), value));
        }
        let inner = value.get("result").filter(|inner| inner.kind() == Kind::Object);
        if let Some(inner) = inner.filter(|_| part != "error") {
            scope.results.push((format!("/{part}/result"), inner));
        }
    }
    scope
}

fn shortened(pointer: &str) -> Box<str> {
    match pointer.char_indices().nth(POINTER_CHARS_MAX) {
        Some((end, _)) => format!("{}…", pointer.get(..end).unwrap_or_default()).into(),
        None => pointer.into(),
    }
}

impl Session {
    /// What must be taken out of a message of the server in the exchange of `within`; outside any
    /// exchange, nobody can say which of the calls in flight it speaks of.
    pub(super) fn redactions_within<'a>(
        &'a self,
        within: Option<&'a CallId>,
    ) -> impl Iterator<Item = &'a Redaction> {
        let here = move |entry: &&super::Call| within.is_none_or(|call| entry.exchange == *call);
        self.calls.values().filter(here).flat_map(|entry| &entry.redact)
    }
}
