//! Reads the members of one mapping by key and form, and reports those that nobody asked for.
//!
//! Forms only: whether a port is free or a path exists is asked later. A value of the wrong form
//! is reported and then treated as left out, so that reading goes on.

#![expect(clippy::wildcard_enum_match_arm, reason = "every other kind is the wrong form")]

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::{Place, Problems, Spot, did_you_mean, list_of};
use super::secret::has_reference;
use super::yaml::{Entry, Kind, Node};

/// One mapping that is being read.
pub(super) struct Section<'p> {
    place: Place,
    entries: Vec<Entry>,
    asked: Vec<&'static str>,
    problems: &'p mut Problems,
}

impl<'p> Section<'p> {
    /// Reads `node` as a mapping.
    pub(super) fn open(node: Node, place: Place, problems: &'p mut Problems) -> Option<Self> {
        match node.kind {
            Kind::Map(entries) => Some(Self { place, entries, asked: Vec::new(), problems }),
            other => {
                expected(&place, "keys with values", &other, "indent them below", problems);
                None
            }
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn close(self) {
        for entry in &self.entries {
            let place = self.place.member(&entry.key, Some(entry.line));
            let hint = did_you_mean(&entry.key, &self.asked);
            self.problems.push(&place, "no such key", hint);
        }
    }

    /// Where this mapping stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether `key` was written, in whatever form.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// A text without references.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Spot<String>> {
        let (node, place) = self.take(key)?;
        text(node, place, References::Refused, self.problems)
    }

    /// A text that may hold references.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Spot<String>> {
        let (node, place) = self.take(key)?;
        text(node, place, References::Allowed, self.problems)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<Spot<bool>> {
        let (node, place) = self.take(key)?;
        match node.kind {
            Kind::Bool(value) => Some(Spot::new(value, place)),
            other => {
                expected(&place, "`true` or `false`", &other, "write one of them", self.problems);
                None
            }
        }
    }

    /// A count inside `range`.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Spot<u64>> {
        let (node, place) = self.take(key)?;
        match node.kind {
            Kind::Integer(Ok(value)) => {
                let value = u64::try_from(value).ok();
                in_range(value, range, |n| n.to_string(), place, self.problems)
            }
            other => {
                expected(&place, "a whole number", &other, "write digits only", self.problems);
                None
            }
        }
    }

    /// A number of bytes inside `range`: digits, or digits with `KiB`, `MiB` or `GiB`.
    pub(super) fn bytes(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Spot<u64>> {
        let (node, place) = self.take(key)?;
        let read = match &node.kind {
            Kind::Integer(Ok(value)) => u64::try_from(*value).ok(),
            Kind::Text(text) => size(text),
            _ => None,
        };
        if read.is_none() {
            let hint = "write bytes, or a size such as `4MiB`";
            expected(&place, "a size", &node.kind, hint, self.problems);
            return None;
        }
        in_range(read, range, show_size, place, self.problems)
    }

    /// A length of time inside `range`, such as `30s` or `5m`.
    pub(super) fn time(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Spot<Duration>> {
        let (node, place) = self.take(key)?;
        let read = match &node.kind {
            Kind::Text(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        if read.is_none() {
            let hint = "write a number with a unit, such as `500ms`, `30s` or `5m`";
            expected(&place, "a length of time", &node.kind, hint, self.problems);
            return None;
        }
        let show = |time| humantime::format_duration(time).to_string();
        in_range(read, range, show, place, self.problems)
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<Spot<T>> {
        let spot = self.text(key)?;
        chosen(spot, choices, self.problems)
    }

    /// A list of at least one of some words, or one that stands for a list of one.
    pub(super) fn choices<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<Vec<Spot<T>>> {
        let spots = self.text_or_texts(key)?.into_iter();
        Some(spots.filter_map(|spot| chosen(spot, choices, self.problems)).collect())
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<Spot<String>>> {
        let (node, place) = self.take(key)?;
        texts(node, &place, self.problems)
    }

    /// A list of at least one text, or one text that stands for a list of one.
    pub(super) fn text_or_texts(&mut self, key: &'static str) -> Option<Vec<Spot<String>>> {
        let (node, place) = self.take(key)?;
        match &node.kind {
            Kind::Text(_) => Some(vec![text(node, place, References::Refused, self.problems)?]),
            Kind::List(nodes) if nodes.is_empty() => {
                self.problems.push(&place, "is empty", "give it a value, or remove it");
                None
            }
            _ => texts(node, &place, self.problems),
        }
    }

    /// A mapping of free names to texts; the place of a name is that of its text.
    pub(super) fn texts_by_name(
        &mut self,
        key: &'static str,
        references: References,
    ) -> Vec<(String, Spot<String>)> {
        let mut found = Vec::new();
        let Some((node, place)) = self.take(key) else { return found };
        let Some(inner) = Section::open(node, place, self.problems) else { return found };
        for entry in inner.entries {
            let place = inner.place.member(&entry.key, Some(entry.line));
            if let Some(spot) = text(entry.value, place, references, inner.problems) {
                found.push((entry.key, spot));
            }
        }
        found
    }

    /// A mapping with keys of its own. An absent one is read as an empty one.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let (node, place) = self.take(key)?;
        let mut inner = Section::open(node, place, self.problems)?;
        let value = read(&mut inner);
        inner.close();
        Some(value)
    }

    /// A mapping of free names to mappings with keys of their own; at least one, `hint` says what.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        read: impl Fn(&mut Section<'_>, String) -> T,
    ) -> Vec<T> {
        let mut values = Vec::new();
        if !self.has(key) {
            self.problems.push(&self.place.member(key, None), "is missing", hint);
        }
        let Some((node, place)) = self.take(key) else { return values };
        let Some(inner) = Section::open(node, place, self.problems) else { return values };
        if inner.entries.is_empty() {
            inner.problems.push(&inner.place, "is empty", hint);
        }
        for entry in inner.entries {
            let place = inner.place.member(&entry.key, Some(entry.line));
            if let Some(mut section) = Section::open(entry.value, place, inner.problems) {
                values.push(read(&mut section, entry.key));
                section.close();
            }
        }
        values
    }

    /// A list of mappings with keys of their own; at least one, `hint` says what.
    pub(super) fn list_of_sections<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        read: impl Fn(&mut Section<'_>) -> T,
    ) -> Option<Vec<T>> {
        let (node, place) = self.take(key)?;
        let nodes = match node.kind {
            Kind::List(nodes) if !nodes.is_empty() => nodes,
            Kind::List(_) => {
                self.problems.push(&place, "is empty", hint);
                return None;
            }
            other => {
                expected(&place, "a list of keys with values", &other, hint, self.problems);
                return None;
            }
        };
        let mut values = Vec::new();
        for (index, node) in nodes.into_iter().enumerate() {
            let place = place.element(index, Some(node.line));
            if let Some(mut section) = Section::open(node, place, self.problems) {
                values.push(read(&mut section));
                section.close();
            }
        }
        Some(values)
    }

    /// Takes a member out; a member without a value is reported.
    fn take(&mut self, key: &'static str) -> Option<(Node, Place)> {
        self.asked.push(key);
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        let entry = self.entries.remove(index);
        let place = self.place.member(key, Some(entry.line));
        if entry.value.kind == Kind::Null {
            self.problems.push(&place, "has no value", "give it one, or remove the key");
            return None;
        }
        Some((entry.value, place))
    }
}

/// Whether a text may name a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum References {
    /// It may.
    Allowed,
    /// It may not: the text is shown, or visible to other processes.
    Refused,
}

fn expected(place: &Place, form: &str, found: &Kind, hint: &str, problems: &mut Problems) {
    problems.push(place, format!("must be {form}, is {}", found.describe()), hint);
}

fn chosen<T: Copy>(
    spot: Spot<String>,
    choices: &[(&'static str, T)],
    problems: &mut Problems,
) -> Option<Spot<T>> {
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == spot.value) {
        return Some(Spot::new(*value, spot.place));
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let what = format!("must be {}", list_of(&words));
    problems.push(&spot.place, what, did_you_mean(&spot.value, &words));
    None
}

fn text(
    node: Node,
    place: Place,
    references: References,
    problems: &mut Problems,
) -> Option<Spot<String>> {
    match node.kind {
        Kind::Text(text) if text.is_empty() => {
            problems.push(&place, "is empty", "give it a value, or remove it");
            None
        }
        Kind::Text(text) if references == References::Refused && has_reference(&text) => {
            let hint =
                "references are read only where credentials stand, such as `headers` and `env`";
            problems.push(&place, "a reference (`${…}`) stands where none is read", hint);
            None
        }
        Kind::Text(text) => Some(Spot::new(text, place)),
        other => {
            let hint = match other {
                Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Null => {
                    "put it in quotes"
                }
                Kind::Text(_) | Kind::List(_) | Kind::Map(_) => "write one value",
            };
            expected(&place, "a text", &other, hint, problems);
            None
        }
    }
}

fn texts(node: Node, place: &Place, problems: &mut Problems) -> Option<Vec<Spot<String>>> {
    match node.kind {
        Kind::List(nodes) => {
            let spots = nodes.into_iter().enumerate().filter_map(|(index, node)| {
                let place = place.element(index, Some(node.line));
                text(node, place, References::Refused, problems)
            });
            Some(spots.collect())
        }
        other => {
            expected(place, "a list of texts", &other, "write `[one, two]`", problems);
            None
        }
    }
}

fn in_range<T: PartialOrd + Copy, S: Display>(
    value: Option<T>,
    range: RangeInclusive<T>,
    show: impl Fn(T) -> S,
    place: Place,
    problems: &mut Problems,
) -> Option<Spot<T>> {
    match value {
        Some(value) if range.contains(&value) => Some(Spot::new(value, place)),
        _ => {
            let (low, high) = (show(*range.start()), show(*range.end()));
            problems.push(&place, "out of range", format!("from {low} to {high}"));
            None
        }
    }
}

/// Reads `4194304`, `4096KiB` or `4MiB`; a space may stand before the unit.
fn size(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(digits_end)?;
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// The largest unit that shows `bytes` without a fraction.
fn show_size(bytes: u64) -> String {
    [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes >= 1 << shift && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| format!("{bytes} B"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("4096", Some(4096)),
            ("4KiB", Some(4096)),
            ("4 MiB", Some(4 << 20)),
            ("1GiB", Some(1 << 30)),
            ("12 B", Some(12)),
            ("4MB", None),
            ("4mib", None),
            ("MiB", None),
            ("-4MiB", None),
            ("4.5MiB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
        for (bytes, expected) in
            [(0, "0 B"), (4 << 20, "4 MiB"), (1025, "1025 B"), (1 << 30, "1 GiB")]
        {
            assert_eq!(show_size(bytes), expected);
        }
    }
}
