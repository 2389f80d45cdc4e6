//! Selects records by the options of `bartizan audit tail`.
//!
//! A record is selected if it has one of the listed values for every field with a list. Pure: it
//! reads parsed records and knows no files.

use super::entry::{DecisionRecord, JournalRecord};

/// The wanted values by field. An empty list selects every value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Names of protected servers.
    pub server: Vec<String>,
    /// Names of tools.
    pub tool: Vec<String>,
    /// MCP methods, such as `tools/call`.
    pub method: Vec<String>,
    /// Events, such as `intent` or `denial`.
    pub event: Vec<String>,
    /// `permit` or `deny`.
    pub decision: Vec<String>,
    /// Effects of operations, such as `read` or `write`.
    pub effect: Vec<String>,
    /// Codes of rules that decided or made a duty of the call, and the firewall's own codes.
    pub rule: Vec<String>,
    /// MAESTRO layers, `L1` to `L7` or `X`.
    pub layer: Vec<String>,
    /// Identifiers of findings.
    pub finding: Vec<String>,
    /// Identifiers of principals.
    pub principal: Vec<String>,
    /// Call ids (`decision_id` in OPA's terms).
    pub call: Vec<String>,
    /// Earliest time, in the form in which records hold it: RFC 3339 in UTC with microseconds.
    pub since: Option<String>,
}

impl Filter {
    /// Whether every record is selected.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `entry` is selected.
    pub fn admits(&self, entry: &JournalRecord) -> bool {
        let tool = entry.target.as_ref().and_then(|target| target.tool.as_deref());
        let decision = entry.decision.as_ref().map(|decision| decision.effect.as_str());
        let effect = entry.operation.as_ref().map(|operation| operation.effect.as_str());
        let mut rules = entry.decision.iter().flat_map(DecisionRecord::codes);
        let layer = entry.maestro.as_ref().map(|maestro| maestro.layer.as_str());
        matches_any(&self.server, entry.server.as_deref())
            && matches_any(&self.tool, tool)
            && matches_any(&self.method, entry.method.as_deref())
            && matches_any(&self.event, Some(&entry.event))
            && matches_any(&self.decision, decision)
            && matches_any(&self.effect, effect)
            && (self.rule.is_empty() || rules.any(|rule| matches_any(&self.rule, Some(rule))))
            && matches_any(&self.layer, layer)
            && matches_any(&self.finding, entry.finding.as_deref())
            && matches_any(&self.principal, entry.principal.as_deref())
            && matches_any(&self.call, entry.call.as_deref())
            // Both are RFC 3339 in UTC with microseconds, so comparing the text compares the times.
            && self.since.as_ref().is_none_or(|since| entry.time >= *since)
    }
}

fn matches_any(wanted: &[String], found: Option<&str>) -> bool {
    wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|wanted| wanted == found))
}

#[cfg(test)]
mod tests {
    use super::super::entry::{OperationRecord, ReasonRecord};
    use super::*;

    #[test]
    fn a_rule_decides_or_makes_a_duty_of_a_call() {
        let reason = |code: &str| ReasonRecord { code: code.to_owned(), ..ReasonRecord::default() };
        let decision = DecisionRecord {
            effect: "permit".to_owned(),
            reasons: vec![reason("open"), reason("a:b")],
            obligations: vec!["hold:second-pair".to_owned(), "redact".to_owned()],
            ..DecisionRecord::default()
        };
        let operation =
            OperationRecord { effect: "write".to_owned(), ..OperationRecord::default() };
        let entry = JournalRecord {
            decision: Some(decision),
            operation: Some(operation),
            ..JournalRecord::default()
        };
        for (rule, found) in [
            ("open", true),
            ("a:b", true),
            ("second-pair", true),
            ("redact", true),
            ("hold:second-pair", false),
            ("b", false),
            ("", false),
        ] {
            let filter = Filter { rule: vec![rule.to_owned()], ..Filter::default() };
            assert_eq!(filter.admits(&entry), found, "{rule}");
        }
        for (effect, found) in [("write", true), ("read", false)] {
            let filter = Filter { effect: vec![effect.to_owned()], ..Filter::default() };
            assert_eq!(filter.admits(&entry), found);
            assert!(!filter.admits(&JournalRecord::default()), "there is no operation");
        }
    }

    #[test]
    fn every_question_must_be_answered() {
        let entry = JournalRecord {
            event: "denial".to_owned(),
            time: "2026-11-20T08:00:00.000000Z".to_owned(),
            server: Some("flags".to_owned()),
            ..JournalRecord::default()
        };
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let cases: [(Filter, bool); 6] = [
            (Filter::default(), true),
            (Filter { server: list(&["other", "flags"]), ..Filter::default() }, true),
            (Filter { server: list(&["other"]), ..Filter::default() }, false),
            (Filter { tool: list(&["delete"]), ..Filter::default() }, false),
            (
                Filter {
                    since: Some("2026-11-20T08:00:00.000000Z".to_owned()),
                    event: list(&["denial"]),
                    ..Filter::default()
                },
                true,
            ),
            (
                Filter {
                    since: Some("2026-11-20T08:00:00.000001Z".to_owned()),
                    ..Filter::default()
                },
                false,
            ),
        ];
        for (filter, expected) in cases {
            assert_eq!(filter.admits(&entry), expected, "{filter:?}");
        }
    }
}
