//! What is wrong with a configuration: every problem at once, each with its place and a next step;
//! and what of a valid one is probably not meant.
//!
//! Knows no key, and never holds a secret: a problem about a value that may be one says where it
//! stands, not what it is.

use std::fmt;

use crate::yaml::{Origin, element_path, member_path};

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The way through the keys (`servers.flags.url`), or an argument (`--url`); empty for the
    /// file as a whole.
    pub path: String,
    /// The line in the file, from 1; absent for arguments and for what was left out.
    pub line: Option<usize>,
}

impl Location {
    /// A location without a line.
    pub fn named(path: impl Into<String>) -> Self {
        Self { path: path.into(), line: None }
    }

    /// Where what is at `path` came from.
    fn of(path: String, origin: Origin) -> Self {
        match origin {
            Origin::Line(line) => Self { path, line: Some(line) },
            Origin::Named(name) | Origin::Pair(name) => Self::named(name),
        }
    }

    /// The location of the member `key` of this mapping.
    pub(super) fn member(&self, key: &str, origin: Origin) -> Self {
        match origin {
            Origin::Pair(name) => Self::named(format!("{name} {key}")),
            Origin::Line(_) | Origin::Named(_) => Self::of(member_path(&self.path, key), origin),
        }
    }

    /// The location of the member `key` of this mapping, which has no such member.
    pub(super) fn absent_member(&self, key: &str) -> Self {
        Self::named(member_path(&self.path, key))
    }

    /// The location of the element `index` (from 0) of this list.
    pub(super) fn element(&self, index: usize, origin: Origin) -> Self {
        Self::of(element_path(&self.path, index), origin)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.as_str(), self.line) {
            ("", None) => f.write_str("the file"),
            ("", Some(line)) => write!(f, "line {line}"),
            (path, None) => f.write_str(path),
            (path, Some(line)) => write!(f, "{path} (line {line})"),
        }
    }
}

/// Something that is allowed and probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The key, such as `otlp.headers`.
    pub at: String,
    /// What follows from it, and what to do.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// One thing wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub location: Location,
    /// What.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.location, self.what, self.hint)
    }
}

/// Everything wrong; at least one thing where it stands in a `Result`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// One more.
    pub fn push(&mut self, location: &Location, what: impl Into<String>, hint: impl Into<String>) {
        self.list.push(Problem {
            location: location.clone(),
            what: what.into(),
            hint: hint.into(),
        });
    }

    /// All of them: by line, then as found.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `value`, unless something is wrong.
    pub(super) fn unless_any<T>(mut self, value: Option<T>) -> Result<T, Self> {
        self.list.sort_by_key(|problem| problem.location.line.unwrap_or(usize::MAX));
        match value {
            Some(value) if self.list.is_empty() => Ok(value),
            Some(_) | None => Err(self),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Why a value cannot be meant, before it is known where it stands.
#[derive(Debug)]
pub(super) struct Wrong {
    /// What is wrong.
    pub(super) what: String,
    /// What to do about it.
    pub(super) hint: String,
}

/// The error of a value: `what` is wrong, and `hint` says what to do.
pub(super) fn wrong<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { what: what.into(), hint: hint.into() })
}

/// What to write instead of `written`, which is none of `known`.
pub(super) fn did_you_mean(written: &str, known: &[&str]) -> String {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let written = plain(written);
    let nearest = known
        .iter()
        .map(|candidate| (distance(&written, &plain(candidate)), *candidate))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, candidate)) if distance <= written.chars().count().div_ceil(3) => {
            format!("did you mean `{candidate}`?")
        }
        _ if known.is_empty() => "remove it".to_owned(),
        _ => format!("known here: {}", list_of(known)),
    }
}

/// `a, b or c`, each in backticks.
pub(super) fn list_of(words: &[&str]) -> String {
    joined(words, "or")
}

/// `a, b and c` with another word for "and", each in backticks.
pub(super) fn joined(words: &[&str], and: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} {and} {last}", others.join(", ")),
        None => String::new(),
    }
}

/// The least number of characters to insert, remove or replace to make one text the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i.saturating_add(1));
        for ((to, above), above_left) in b.iter().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or(usize::MAX);
            let replaced = above_left.saturating_add(usize::from(from != *to));
            next.push(replaced.min(above.saturating_add(1)).min(left.saturating_add(1)));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_proposed() {
        let known = ["listen", "admin", "in_flight", "environment"];
        for (written, hint) in [
            ("lsten", "did you mean `listen`?"),
            ("Listen", "did you mean `listen`?"),
            ("in-flight", "did you mean `in_flight`?"),
            ("enviroment", "did you mean `environment`?"),
            ("zzz", "known here: `listen`, `admin`, `in_flight` or `environment`"),
        ] {
            assert_eq!(did_you_mean(written, &known), hint, "{written}");
        }
        assert_eq!(did_you_mean("x", &[]), "remove it");
        assert_eq!(did_you_mean("", &["a"]), "known here: `a`");
    }

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("", "ab", 2), ("ab", "", 2), ("kitten", "sitting", 3), ("é", "e", 1)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
