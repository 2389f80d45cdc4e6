//! The table of keys, as data: what the reader of each section asks for, in the order in which it
//! asks. The JSON Schema and the tables of `docs/configuration.md` are made from it.

use std::time::Duration;

use crate::yaml::Kind;

/// The keys of one mapping.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// Groups of keys of which exactly one must be written.
    pub(super) exclusive: Vec<&'static [&'static str]>,
}

/// One key.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) key: &'static str,
    /// What it means, in sentences of Markdown.
    pub(super) doc: &'static str,
    pub(super) shape: Shape,
    pub(super) absent: Absent,
    /// What must be written beside it.
    pub(super) only: Option<Condition>,
}

/// What holds where a key is not written.
#[derive(Debug)]
pub(super) enum Absent {
    /// The same as with this value, as one would write it.
    Default(String),
    /// What these words say.
    Means(&'static str),
    /// The configuration is refused.
    Refused,
}

/// When a key has a meaning: where another key of the same mapping is written, or has a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Condition {
    pub(super) key: &'static str,
    pub(super) value: Option<&'static str>,
    /// Whether it holds for what is being read.
    pub(super) holds: bool,
}

impl Condition {
    /// The other key must be written.
    pub(super) fn written(key: &'static str, holds: bool) -> Self {
        Self { key, value: None, holds }
    }

    /// The other key must have this value.
    pub(super) fn equals(key: &'static str, value: &'static str, holds: bool) -> Self {
        Self { key, value: Some(value), holds }
    }

    /// What must be written, as one would write it.
    pub(super) fn shown(&self) -> String {
        match self.value {
            Some(value) => format!("{}: {value}", self.key),
            None => self.key.to_owned(),
        }
    }
}

/// What may be written for a key.
#[derive(Debug)]
pub(super) enum Shape {
    /// A text of at least one character.
    Text {
        /// A regular expression that every text matches which may be meant; others are refused.
        pattern: Option<&'static str>,
        /// Whether it may hold `${…}`.
        references: bool,
    },
    /// `true` or `false`.
    Flag,
    /// A whole number in a range.
    Count { low: u64, high: u64 },
    /// A number of bytes in a range, or a text such as `4MiB`.
    Bytes { low: u64, high: u64 },
    /// A length of time in a range, such as `30s`.
    Time {
        low: Duration,
        high: Duration,
        /// Whether `off` may stand for it.
        off: bool,
    },
    /// One of these words.
    Word(Vec<&'static str>),
    /// A list.
    List {
        item: Box<Self>,
        empty: bool,
        /// Whether one element may stand for a list of one.
        alone: bool,
    },
    /// A mapping of names that the writer chooses.
    ByName {
        /// What stands for a name in documents, such as `<name>`.
        placeholder: &'static str,
        /// A regular expression that every name matches.
        pattern: Option<&'static str>,
        item: Box<Self>,
        empty: bool,
    },
    /// A mapping with keys of its own.
    Section(Table),
    /// A word, or a mapping with keys of its own.
    WordOr { word: Box<Self>, section: Box<Self> },
}

/// One row of the tables of `docs/configuration.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentedKey {
    /// The way to it, such as `limits.sessions` or `servers.<name>.oauth.issuers[].issuer`.
    pub path: String,
    /// What it means, in sentences of Markdown.
    pub means: &'static str,
    /// The least and the greatest value, as one would write them.
    pub range: Option<(String, String)>,
    /// What holds without it: a value in backticks, or words.
    pub default: String,
}

/// The keys of `table` and below, which is at `path`. A mapping with keys of its own is no row.
pub(super) fn documented(table: &Table, path: &str, into: &mut Vec<DocumentedKey>) {
    for row in &table.rows {
        let path = if path.is_empty() { row.key.to_owned() } else { format!("{path}.{}", row.key) };
        if !matches!(innermost(&row.shape), Shape::Section(_))
            || matches!(row.shape, Shape::List { .. })
        {
            into.push(DocumentedKey {
                path: path.clone(),
                means: row.doc,
                range: row.shape.range(),
                default: match &row.absent {
                    Absent::Default(text) => format!("`{text}`"),
                    Absent::Means(words) => (*words).to_owned(),
                    Absent::Refused => "required".to_owned(),
                },
            });
        }
        below(&row.shape, &path, into);
    }
}

fn below(shape: &Shape, path: &str, into: &mut Vec<DocumentedKey>) {
    match shape {
        Shape::Section(table) => documented(table, path, into),
        Shape::WordOr { section, .. } => below(section, path, into),
        Shape::List { item, .. } => below(item, &format!("{path}[]"), into),
        Shape::ByName { item, placeholder, .. } => {
            below(item, &format!("{path}.{placeholder}"), into);
        }
        Shape::Text { .. }
        | Shape::Flag
        | Shape::Count { .. }
        | Shape::Bytes { .. }
        | Shape::Time { .. }
        | Shape::Word(_) => {}
    }
}

/// What lists and names hold in the end.
fn innermost(shape: &Shape) -> &Shape {
    match shape {
        Shape::List { item, .. } | Shape::ByName { item, .. } => innermost(item),
        other @ (Shape::Text { .. }
        | Shape::Flag
        | Shape::Count { .. }
        | Shape::Bytes { .. }
        | Shape::Time { .. }
        | Shape::Word(_)
        | Shape::WordOr { .. }
        | Shape::Section(_)) => other,
    }
}

impl Shape {
    /// Whether `kind` is a list or a mapping that is empty, and may be.
    pub(super) fn takes_empty(&self, kind: &Kind) -> bool {
        match (self, kind) {
            (Self::List { empty, .. }, Kind::List(nodes)) => *empty && nodes.is_empty(),
            (Self::ByName { empty, .. }, Kind::Map(members)) => *empty && members.is_empty(),
            _ => false,
        }
    }

    /// The least and the greatest value, as one would write them.
    pub(super) fn range(&self) -> Option<(String, String)> {
        match self {
            Self::Count { low, high } => Some((low.to_string(), high.to_string())),
            Self::Bytes { low, high } => Some((show_bytes(*low), show_bytes(*high))),
            Self::Time { low, high, .. } => Some((show_time(*low), show_time(*high))),
            Self::Text { .. }
            | Self::Flag
            | Self::Word(_)
            | Self::List { .. }
            | Self::ByName { .. }
            | Self::WordOr { .. }
            | Self::Section(_) => None,
        }
    }
}

/// A number of bytes in the largest unit that needs no fraction, such as `4MiB`.
pub(super) fn show_bytes(bytes: u64) -> String {
    [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes >= 1 << shift && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| format!("{bytes}B"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// A time in the largest unit, up to hours, that needs no fraction, such as `5m`.
pub(super) fn show_time(time: Duration) -> String {
    let ms = time.as_millis();
    [(3_600_000, "h"), (60_000, "m"), (1000, "s")]
        .into_iter()
        .find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit))
        .map_or_else(
            || format!("{ms}ms"),
            |(unit, name)| format!("{}{name}", ms.checked_div(unit).unwrap_or(ms)),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_in_the_largest_unit() {
        for (bytes, shown) in [(0, "0B"), (4 << 20, "4MiB"), (1025, "1025B"), (1 << 30, "1GiB")] {
            assert_eq!(show_bytes(bytes), shown);
        }
        for (ms, shown) in
            [(1, "1ms"), (1500, "1500ms"), (60_000, "1m"), (90_000, "90s"), (86_400_000, "24h")]
        {
            assert_eq!(show_time(Duration::from_millis(ms)), shown);
        }
    }
}
