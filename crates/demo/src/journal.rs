//! Reads the journal back, as an analyst would: what the demo says of a rule, it has from here.
//!
//! Records are only looked at; [`verify`](bartizan_audit::verify) proves them whole.

use std::path::Path;

use super::DemoError;
use bartizan_audit::entry::{JournalRecord, ReasonRecord};
use bartizan_audit::tail::{JournalReader, Line};
use bartizan_gate::duty::decision::Origin;

/// Records of a demo that are read; its script leaves some hundred.
const RECORDS_MAX: usize = 10_000;

/// The records of the journal in `directory` from number `from_seq` on; none where there is no
/// journal.
pub(super) fn read(directory: &Path, from_seq: u64) -> Result<Vec<JournalRecord>, DemoError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let lines = JournalReader::new(directory, from_seq).read_many(RECORDS_MAX);
    let lines = lines.map_err(|error| DemoError::Journal(error.to_string()))?;
    let read = |line: &Line| {
        JournalRecord::read(&line.bytes)
            .map_err(|error| DemoError::Journal(format!("record {}: {error}", line.seq)))
    };
    lines.iter().map(read).collect()
}

/// The codes of a record's reasons on one of `grounds`; of all where it has none on them.
pub(super) fn codes<'a>(record: &'a JournalRecord, grounds: &[Origin]) -> Vec<&'a str> {
    let on_grounds =
        |reason: &&ReasonRecord| grounds.iter().any(|ground| reason.origin == ground.as_str());
    let all = || record.decision.iter().flat_map(|decision| &decision.reasons);
    let some: Vec<&str> = all().filter(on_grounds).map(|reason| reason.code.as_str()).collect();
    if some.is_empty() { all().map(|reason| reason.code.as_str()).collect() } else { some }
}

/// Whether a record has a reason on one of `grounds`.
pub(super) fn is_on(record: &JournalRecord, grounds: &[Origin]) -> bool {
    let mut reasons = record.decision.iter().flat_map(|decision| &decision.reasons);
    reasons.any(|reason| grounds.iter().any(|ground| reason.origin == ground.as_str()))
}

/// The first record that tells what was decided: of `decision`, where its id is known, else of
/// this method and tool.
pub(super) fn decided<'a>(
    records: &'a [JournalRecord],
    decision: Option<&str>,
    method: Option<&str>,
    tool: Option<&str>,
) -> Option<&'a JournalRecord> {
    let about = |record: &&JournalRecord| {
        let found = record.target.as_ref().and_then(|target| target.tool.as_deref());
        (method.is_none() || record.method.as_deref() == method)
            && (tool.is_none() || found == tool)
    };
    let mut decided = records.iter().filter(|record| record.decision.is_some());
    if decision.is_some() {
        decided.find(|record| record.call.as_deref() == decision)
    } else {
        decided.find(about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bartizan_audit::entry::{DecisionRecord, TargetRecord};

    fn reason(code: &str, origin: Origin) -> ReasonRecord {
        let (code, origin) = (code.to_owned(), origin.as_str().to_owned());
        ReasonRecord { code, origin, ..ReasonRecord::default() }
    }

    fn record(call: &str, tool: &str, code: &str) -> JournalRecord {
        let reason = reason(code, Origin::Rule);
        JournalRecord {
            call: Some(call.to_owned()),
            method: Some("tools/call".to_owned()),
            target: Some(TargetRecord { tool: Some(tool.to_owned()), ..TargetRecord::default() }),
            decision: Some(DecisionRecord { reasons: vec![reason], ..DecisionRecord::default() }),
            ..JournalRecord::default()
        }
    }

    #[test]
    fn a_decision_is_found_by_its_id_or_by_what_it_was_about() {
        let outcome = JournalRecord { decision: None, ..record("b", "y", "none") };
        let records =
            [JournalRecord::default(), record("a", "x", "one"), outcome, record("b", "y", "two")];
        let code =
            |id, method, tool| decided(&records, id, method, tool).map(|found| codes(found, &[]));
        let call = Some("tools/call");
        assert_eq!(code(Some("b"), None, None), Some(vec!["two"]));
        assert_eq!(code(Some("c"), call, None), None);
        assert_eq!(code(None, call, Some("y")), Some(vec!["two"]));
        assert_eq!(code(None, call, None), Some(vec!["one"]));
        assert_eq!(code(None, None, None), Some(vec!["one"]));
        assert_eq!(code(None, Some("tools/list"), None), None);
    }

    #[test]
    fn the_reasons_that_count_are_those_on_the_grounds() {
        let reasons = vec![reason("spent", Origin::Limited), reason("open", Origin::Rule)];
        let decision = DecisionRecord { reasons, ..DecisionRecord::default() };
        let record = JournalRecord { decision: Some(decision), ..JournalRecord::default() };
        assert_eq!(codes(&record, &[Origin::Limited]), ["spent"]);
        assert_eq!(codes(&record, &[]), ["spent", "open"]);
        assert_eq!(codes(&record, &[Origin::Malformed]), ["spent", "open"]);
        assert!(is_on(&record, &[Origin::Malformed, Origin::Limited]));
        assert!(!is_on(&record, &[Origin::Malformed]) && !is_on(&record, &[]));
    }

    #[test]
    fn no_journal_holds_no_records() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(&directory.path().join("none"), 1).unwrap().is_empty());
        assert!(read(directory.path(), 1).unwrap().is_empty());
    }
}
