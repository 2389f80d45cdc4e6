//! Reads the journal back, as an analyst would: what the demo says of a rule, it has from here.
//!
//! Whole files are read each time; a demo's journal is small. Records are only looked at, the
//! chain is verified by the audit code.

use std::path::Path;
use std::{fs, io};

use serde_json::Value;

/// All lines of the journal in `directory`, in order; none where there is no journal.
pub(super) fn lines(directory: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    match fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "ndjson") {
                    files.push(path);
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(file)?;
        // A line without its end is still being written.
        lines.extend(
            text.split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'))
                .map(str::to_owned),
        );
    }
    Ok(lines)
}

/// The record of a line, which may stand beside the journal's own members or inside them.
pub(super) fn body(line: &Value) -> &Value {
    line.get("record").unwrap_or(line)
}

/// The codes of a record's reasons.
pub(super) fn codes(record: &Value) -> Vec<String> {
    reasons(record, "code")
}

/// The origins of a record's reasons.
pub(super) fn origins(record: &Value) -> Vec<String> {
    reasons(record, "origin")
}

fn reasons(record: &Value, member: &str) -> Vec<String> {
    let reasons = record.pointer("/decision/reasons").and_then(Value::as_array);
    reasons
        .into_iter()
        .flatten()
        .filter_map(|reason| reason.get(member)?.as_str().map(str::to_owned))
        .collect()
}

/// The first record that tells what was decided: of `decision`, where its id is known, else of
/// this method and tool.
pub(super) fn decided<'a>(
    records: &'a [Value],
    decision: Option<&str>,
    (method, tool): (Option<&str>, Option<&str>),
) -> Option<&'a Value> {
    let text = |record: &'a Value, pointer| record.pointer(pointer).and_then(Value::as_str);
    records.iter().map(body).filter(|record| record.get("decision").is_some()).find(|record| {
        match decision {
            Some(id) => text(record, "/call") == Some(id),
            None => {
                (method.is_none() || text(record, "/method") == method)
                    && (tool.is_none() || text(record, "/target/tool") == tool)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_decision_is_found_by_its_id_or_by_what_it_was_about() {
        let reason = |code| json!({"reasons": [{"code": code, "origin": "rule"}]});
        let records = [
            json!({"event": "start"}),
            json!({"call": "a", "method": "tools/call", "target": {"tool": "x"}, "decision": reason("one")}),
            json!({"record": {"call": "b", "method": "tools/call", "target": {"tool": "y"}, "decision": reason("two")}}),
        ];
        let code = |id, target| decided(&records, id, target).map(codes);
        assert_eq!(code(Some("b"), (None, None)), Some(vec!["two".to_owned()]));
        assert_eq!(code(Some("c"), (Some("tools/call"), None)), None);
        assert_eq!(code(None, (Some("tools/call"), Some("y"))), Some(vec!["two".to_owned()]));
        assert_eq!(code(None, (Some("tools/call"), None)), Some(vec!["one".to_owned()]));
        assert_eq!(code(None, (Some("tools/list"), None)), None);
    }

    #[test]
    fn half_a_line_is_no_line() {
        let directory = tempfile::tempdir().unwrap();
        assert!(lines(&directory.path().join("none")).unwrap().is_empty());
        fs::write(directory.path().join("1.ndjson"), "{}\n{\"a\"").unwrap();
        fs::write(directory.path().join("other.txt"), "no\n").unwrap();
        assert_eq!(lines(directory.path()).unwrap(), ["{}"]);
    }
}
