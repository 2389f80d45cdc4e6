//! The findings of an assessment, as they are collected and as reports have them.

use std::collections::BTreeMap;

use serde::Serialize;

use bartizan_gate::evidence::finding::Tags;

use crate::kinds::{self, Kind, Severity};

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// `tool`, `resource`, `template`, `prompt` or `server`.
    pub list: &'static str,
    /// The entry's name.
    pub name: String,
    /// What was seen.
    pub detail: String,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FindingRow {
    /// The letter F and a number from 1, the most urgent first.
    pub id: String,
    /// The kind of finding.
    pub kind: &'static str,
    /// How urgent it is.
    pub severity: Severity,
    /// What is wrong.
    pub title: &'static str,
    /// What to do about it.
    pub advice: &'static str,
    /// Where it was seen.
    pub subjects: Vec<Subject>,
    /// Layer and threats of MAESTRO, and the ids of OWASP and ATLAS.
    #[serde(flatten)]
    pub tags: &'static Tags,
}

/// Collects where each kind of finding was seen.
#[derive(Debug, Default)]
pub(crate) struct Collector(BTreeMap<&'static str, Vec<Subject>>);

impl Collector {
    pub(crate) fn add(
        &mut self,
        kind: &'static Kind,
        list: &'static str,
        name: &str,
        detail: &str,
    ) {
        let subject = Subject { list, name: name.to_owned(), detail: detail.to_owned() };
        self.0.entry(kind.name).or_default().push(subject);
    }

    pub(crate) fn rows(mut self) -> Vec<FindingRow> {
        let mut rows = Vec::new();
        for kind in kinds::ALL {
            let Some(subjects) = self.0.remove(kind.name) else { continue };
            rows.push(FindingRow {
                id: format!("F{}", rows.len().saturating_add(1)),
                kind: kind.name,
                severity: kind.severity,
                title: kind.title,
                advice: kind.advice,
                subjects,
                tags: kind.tags(),
            });
        }
        rows
    }
}
