//! Which records someone wants to see.
//!
//! A record is admitted when, for every question that was asked, it gives one of the answers.
//! Pure; it reads entries and knows no files.

use super::entry::Entry;

/// Answers asked for; an empty list asks nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Protected servers.
    pub server: Vec<String>,
    /// Tools.
    pub tool: Vec<String>,
    /// Methods.
    pub method: Vec<String>,
    /// Events.
    pub event: Vec<String>,
    /// `permit` or `deny`.
    pub decision: Vec<String>,
    /// MAESTRO layers, `L1` to `L7` or `X`.
    pub layer: Vec<String>,
    /// Findings.
    pub finding: Vec<String>,
    /// Principals.
    pub principal: Vec<String>,
    /// Calls.
    pub call: Vec<String>,
    /// Earliest time, as records write it.
    pub since: Option<String>,
}

impl Filter {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `entry` is wanted.
    pub fn admits(&self, entry: &Entry) -> bool {
        let tool = entry.target.as_ref().and_then(|target| target.tool.as_deref());
        let decision = entry.decision.as_ref().map(|decision| decision.effect.as_str());
        let layer = entry.maestro.as_ref().map(|maestro| maestro.layer.as_str());
        answers(&self.server, entry.server.as_deref())
            && answers(&self.tool, tool)
            && answers(&self.method, entry.method.as_deref())
            && answers(&self.event, Some(&entry.event))
            && answers(&self.decision, decision)
            && answers(&self.layer, layer)
            && answers(&self.finding, entry.finding.as_deref())
            && answers(&self.principal, entry.principal.as_deref())
            && answers(&self.call, entry.call.as_deref())
            // Both are RFC 3339 in UTC with microseconds: their order is that of their text.
            && self.since.as_ref().is_none_or(|since| entry.time >= *since)
    }
}

fn answers(wanted: &[String], found: Option<&str>) -> bool {
    wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|wanted| wanted == found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_must_be_answered() {
        let entry = Entry {
            event: "denial".to_owned(),
            time: "2026-11-20T08:00:00.000000Z".to_owned(),
            server: Some("flags".to_owned()),
            ..Entry::default()
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
