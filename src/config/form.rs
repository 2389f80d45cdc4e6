//! The forms that values have: a text, a number in a range, a size, a time, a list, ...
//!
//! A [`Form`] reads a value into what the program means by it, says what may be written, and shows
//! a default as one would write it. A value of another form is reported where it stands, and
//! reading goes on without it.

#![expect(clippy::wildcard_enum_match_arm, reason = "every other kind is the wrong form")]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ::http::Uri;

use super::context::Context;
use super::problem::{Location, Wrong, did_you_mean, list_of, wrong};
use super::secret::{Secret, has_reference, resolve};
use super::table::{Shape, show_bytes, show_time};
use crate::yaml::{Kind, Node, Origin};
use bartizan_edge::admin::approvers::looks_random;
use bartizan_gate::wire::unseen::is_unseen;

/// Written in place of a length of time for what can be switched off.
pub(super) const OFF: &str = "off";

/// A value in the tree, and where it stands.
pub(super) struct Written {
    pub(super) node: Node,
    pub(super) location: Location,
    /// The name of the member that it is, where the writer chooses names; else empty.
    pub(super) name: String,
}

type Read<'f, T> = Box<dyn Fn(Written, &Context<'_>) -> Option<T> + 'f>;
type Show<'f, T> = Box<dyn Fn(&T) -> String + 'f>;

/// How a value is written, and read into a `T`.
pub(super) struct Form<'f, T> {
    /// What it is called in problems, such as `texts`; for lists of it.
    plural: &'static str,
    /// What may be written. Made on demand: a section asks for all of its keys to know.
    shape: Box<dyn Fn(&Context<'_>) -> Shape + 'f>,
    /// Absent where it was reported what is wrong.
    read: Read<'f, T>,
    /// A value as one would write it, where the form has defaults.
    show: Option<Show<'f, T>>,
}

impl<'f, T: 'f> Form<'f, T> {
    pub(super) fn new(
        plural: &'static str,
        shape: impl Fn(&Context<'_>) -> Shape + 'f,
        read: impl Fn(Written, &Context<'_>) -> Option<T> + 'f,
    ) -> Self {
        Self { plural, shape: Box::new(shape), read: Box::new(read), show: None }
    }

    pub(super) fn shape(&self, cx: &Context<'_>) -> Shape {
        (self.shape)(cx)
    }

    pub(super) fn read(&self, written: Written, cx: &Context<'_>) -> Option<T> {
        (self.read)(written, cx)
    }

    /// `value` as one would write it; nothing for a form without defaults.
    pub(super) fn show(&self, value: &T) -> String {
        self.show.as_ref().map_or_else(String::new, |show| show(value))
    }

    /// Shows defaults by `show`.
    pub(super) fn shown(self, show: impl Fn(&T) -> String + 'f) -> Self {
        Self { show: Some(Box::new(show)), ..self }
    }

    /// Makes something else of what was read.
    pub(super) fn map<U: 'f>(self, make: impl Fn(T) -> U + 'f) -> Form<'f, U> {
        self.try_map(move |value, _| Ok(make(value)))
    }

    /// Makes something else of what was read, or says why that cannot be meant.
    pub(super) fn try_map<U: 'f>(
        self,
        make: impl Fn(T, &Context<'_>) -> Result<U, Wrong> + 'f,
    ) -> Form<'f, U> {
        let read = self.read;
        Form {
            plural: self.plural,
            shape: self.shape,
            read: Box::new(move |written, cx| {
                let location = written.location.clone();
                match make(read(written, cx)?, cx) {
                    Ok(value) => Some(value),
                    Err(Wrong { what, hint }) => {
                        cx.problem(&location, what, hint);
                        None
                    }
                }
            }),
            show: None,
        }
    }
}

impl<'f> Form<'f, String> {
    /// A text that must be accepted by `check`. All that are match the regular expression
    /// `pattern`, which stands in the schema.
    pub(super) fn checked<T: 'f>(
        self,
        pattern: &'static str,
        check: impl Fn(String) -> Result<T, Wrong> + 'f,
    ) -> Form<'f, T> {
        let mut form = self.try_map(move |text, _| check(text));
        form.shape = Box::new(|_| Shape::Text { pattern: Some(pattern), references: false });
        form
    }
}

impl<'f, T: 'f> Form<'f, Vec<T>> {
    /// Refuses an empty list or mapping; `hint` says what to write.
    pub(super) fn not_empty(self, hint: &'static str) -> Self {
        let Self { plural, shape, read, show } = self;
        let shape = move |cx: &Context<'_>| match shape(cx) {
            Shape::List { item, alone, .. } => Shape::List { item, alone, empty: false },
            Shape::ByName { placeholder, pattern, item, .. } => {
                Shape::ByName { placeholder, pattern, item, empty: false }
            }
            other => other,
        };
        let read = move |written: Written, cx: &Context<'_>| {
            let (empty, location) = (is_empty(&written.node.kind), written.location.clone());
            // Where it is no list or mapping at all, this is reported instead.
            let value = read(written, cx)?;
            if empty {
                cx.problem(&location, "is empty", hint);
                return None;
            }
            Some(value)
        };
        Self { plural, shape: Box::new(shape), read: Box::new(read), show }
    }
}

/// Whether it is a list or a mapping with nothing in it.
fn is_empty(kind: &Kind) -> bool {
    match kind {
        Kind::List(nodes) => nodes.is_empty(),
        Kind::Map(members) => members.is_empty(),
        _ => false,
    }
}

/// Reports that what stands at `location` is `found` instead of `form`.
pub(super) fn expected(
    cx: &Context<'_>,
    location: &Location,
    form: &str,
    found: &Kind,
    hint: &str,
) {
    cx.problem(location, format!("must be {form}, is {}", found.describe()), hint);
}

/// A text without references: it is shown, or other processes see it.
pub(super) fn text<'f>() -> Form<'f, String> {
    let read = |written: Written, cx: &Context<'_>| {
        let is_argument = !matches!(written.node.origin, Origin::Line(_));
        let location = written.location.clone();
        let text = any_text(written, cx)?;
        // A shell has read an argument already; what is left of `${…}` in it is meant as it stands.
        if has_reference(&text) && !is_argument {
            let hint =
                "references are read only where credentials stand, such as `headers` and `env`";
            cx.problem(&location, "a reference (`${…}`) stands where none is read", hint);
            return None;
        }
        Some(text)
    };
    Form::new("texts", |_| Shape::Text { pattern: None, references: false }, read)
        .shown(String::clone)
}

/// A name that people can read, of at most `bytes_max` bytes.
pub(super) fn name<'f>(bytes_max: usize) -> Form<'f, Box<str>> {
    text().try_map(move |text, _| {
        if text.len() > bytes_max {
            return wrong(format!("is longer than {bytes_max} bytes"), "shorten it");
        }
        if !is_seen(&text) {
            return wrong("holds what nobody can see", HINT_SEEN);
        }
        Ok(text.into_boxed_str())
    })
}

/// What to write for a text that [`is_seen`] refuses.
pub(super) const HINT_SEEN: &str = "use visible characters, and no space at either end";

/// Whether people can read all of `text`.
pub(super) fn is_seen(text: &str) -> bool {
    text.trim() == text && !text.chars().any(is_unseen)
}

/// A text that may hold references to where secrets are kept.
pub(super) fn secret<'f>() -> Form<'f, Secret> {
    Form::new("texts", |_| Shape::Text { pattern: None, references: true }, any_text)
        .try_map(|text, cx| resolve(&text, cx.surroundings))
}

/// A secret of a number of bytes in `sizes` that was made at random, as `hint` says.
pub(super) fn random_secret<'f>(
    sizes: RangeInclusive<usize>,
    hint: &'static str,
) -> Form<'f, Secret> {
    secret().try_map(move |secret, _| {
        let text = secret.expose();
        if !sizes.contains(&text.len()) {
            let what = format!("must have {} to {} characters", sizes.start(), sizes.end());
            return wrong(what, hint);
        }
        if !looks_random(text) {
            return wrong("has too few different characters to be made at random", hint);
        }
        Ok(secret)
    })
}

fn any_text(written: Written, cx: &Context<'_>) -> Option<String> {
    let Written { node, location, .. } = written;
    match node.kind {
        Kind::Text(text) if text.is_empty() && matches!(node.origin, Origin::Line(_)) => {
            cx.problem(&location, "is empty", "give it a value, or remove it");
            None
        }
        Kind::Text(text) => Some(text),
        other => {
            let hint = match other {
                Kind::List(_) | Kind::Map(_) => "write one value",
                _ => "put it in quotes",
            };
            expected(cx, &location, "a text", &other, hint);
            None
        }
    }
}

/// `true` or `false`.
pub(super) fn flag<'f>() -> Form<'f, bool> {
    let read = |written: Written, cx: &Context<'_>| match written.node.kind {
        Kind::Bool(value) => Some(value),
        other => {
            expected(cx, &written.location, "`true` or `false`", &other, "write one of them");
            None
        }
    };
    Form::new("flags", |_| Shape::Flag, read).shown(bool::to_string)
}

/// A type that holds counts and sizes.
pub(super) trait Whole: Copy + PartialOrd + Display + TryFrom<u64> + TryInto<u64> {}

impl Whole for u32 {}
impl Whole for u64 {}
impl Whole for usize {}

fn wide(value: impl Whole) -> u64 {
    value.try_into().unwrap_or(u64::MAX)
}

/// A whole number inside `range`.
pub(super) fn count<'f, T: Whole + 'f>(range: RangeInclusive<T>) -> Form<'f, T> {
    let (low, high) = (wide(*range.start()), wide(*range.end()));
    let read = move |written: Written, cx: &Context<'_>| match written.node.kind {
        Kind::Integer(Ok(value)) => {
            let value = u64::try_from(value).ok().and_then(|value| T::try_from(value).ok());
            in_range(value, &range, |n| n.to_string(), &written.location, cx)
        }
        other => {
            expected(cx, &written.location, "a whole number", &other, "write digits only");
            None
        }
    };
    Form::new("numbers", move |_| Shape::Count { low, high }, read).shown(T::to_string)
}

/// A number of bytes inside `range`: digits, or digits with `KiB`, `MiB` or `GiB`.
pub(super) fn bytes<'f, T: Whole + 'f>(range: RangeInclusive<T>) -> Form<'f, T> {
    let (low, high) = (wide(*range.start()), wide(*range.end()));
    let read = move |written: Written, cx: &Context<'_>| {
        let size = match &written.node.kind {
            Kind::Integer(Ok(value)) => u64::try_from(*value).ok(),
            Kind::Text(text) => size(text),
            _ => None,
        };
        if size.is_none() {
            let hint = "write bytes, or a size such as `4MiB`";
            expected(cx, &written.location, "a size", &written.node.kind, hint);
            return None;
        }
        let size = size.and_then(|size| T::try_from(size).ok());
        in_range(size, &range, |size| show_bytes(wide(size)), &written.location, cx)
    };
    Form::new("sizes", move |_| Shape::Bytes { low, high }, read)
        .shown(|size| show_bytes(wide(*size)))
}

/// A length of time inside `range`, such as `30s` or `5m`.
pub(super) fn time<'f>(range: RangeInclusive<Duration>) -> Form<'f, Duration> {
    time_with(range, "write a number with a unit, such as `500ms`, `30s` or `5m`")
}

/// As [`time`]; `hint` says what to write.
fn time_with(range: RangeInclusive<Duration>, hint: &str) -> Form<'_, Duration> {
    let (low, high) = (*range.start(), *range.end());
    let read = move |written: Written, cx: &Context<'_>| {
        let time = match &written.node.kind {
            Kind::Text(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        if time.is_none() {
            expected(cx, &written.location, "a length of time", &written.node.kind, hint);
            return None;
        }
        in_range(time, &range, show_time, &written.location, cx)
    };
    Form::new("times", move |_| Shape::Time { low, high, off: false }, read)
        .shown(|time| show_time(*time))
}

/// A length of time inside `range`, or `off`.
pub(super) fn time_or_off<'f>(range: RangeInclusive<Duration>) -> Form<'f, Option<Duration>> {
    let (low, high) = (*range.start(), *range.end());
    let time = time_with(range, "write a number with a unit, such as `15s`, or `off`");
    let read = move |written: Written, cx: &Context<'_>| match &written.node.kind {
        Kind::Text(text) if text == OFF => Some(None),
        _ => time.read(written, cx).map(Some),
    };
    Form::new("times", move |_| Shape::Time { low, high, off: true }, read)
        .shown(|time| time.map_or_else(|| OFF.to_owned(), show_time))
}

fn in_range<T: PartialOrd + Copy>(
    value: Option<T>,
    range: &RangeInclusive<T>,
    show: impl Fn(T) -> String,
    location: &Location,
    cx: &Context<'_>,
) -> Option<T> {
    let inside = value.filter(|value| range.contains(value));
    if inside.is_none() {
        let (low, high) = (show(*range.start()), show(*range.end()));
        cx.problem(location, "out of range", format!("from {low} to {high}"));
    }
    inside
}

/// One of some words, each with what it means.
pub(super) fn word<'f, T: Copy + PartialEq + 'f>(
    words: impl IntoIterator<Item = (&'static str, T)>,
) -> Form<'f, T> {
    let words: Vec<(&'static str, T)> = words.into_iter().collect();
    let names: Vec<&'static str> = words.iter().map(|(name, _)| *name).collect();
    let known = names.clone();
    let meanings = words.clone();
    let mut form =
        text().try_map(move |text, _| match meanings.iter().find(|(name, _)| *name == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => wrong(format!("must be {}", list_of(&known)), did_you_mean(&text, &known)),
        });
    form.shape = Box::new(move |_| Shape::Word(names.clone()));
    form.shown(move |meaning| {
        let name = words.iter().find(|(_, other)| other == meaning).map(|(name, _)| *name);
        name.unwrap_or_default().to_owned()
    })
}

/// What `word` reads, or a mapping that `section` reads.
pub(super) fn word_or<'f, T: 'f>(word: Form<'f, T>, section: Form<'f, T>) -> Form<'f, T> {
    let (word_shape, section_shape) = (word.shape, section.shape);
    let shape = move |cx: &Context<'_>| Shape::WordOr {
        word: Box::new(word_shape(cx)),
        section: Box::new(section_shape(cx)),
    };
    let (read_word, read_section) = (word.read, section.read);
    Form::new("words", shape, move |written, cx| match written.node.kind {
        Kind::Map(_) => read_section(written, cx),
        _ => read_word(written, cx),
    })
}

/// A path, relative to the directory of the file.
pub(super) fn path<'f>() -> Form<'f, PathBuf> {
    text()
        .try_map(|text, cx| Ok(cx.base.join(text)))
        .shown(|path: &PathBuf| path.display().to_string())
}

/// The path of something that must be there.
pub(super) fn existing<'f>() -> Form<'f, PathBuf> {
    path().try_map(must_exist)
}

/// `path`, if something is there.
pub(super) fn must_exist(path: PathBuf, cx: &Context<'_>) -> Result<PathBuf, Wrong> {
    if (cx.surroundings.exists)(&path) {
        return Ok(path);
    }
    wrong(
        format!("`{}` does not exist, or may not be seen", path.display()),
        "correct the path; in a configuration, a relative path starts at the directory of its file",
    )
}

/// What every http or https address matches.
pub(super) const URL_PATTERN: &str = "^[Hh][Tt][Tt][Pp][Ss]?://[^#]+$";

/// An http or https address without anything that would be lost or shown.
pub(super) fn url<'f>() -> Form<'f, Uri> {
    text().checked(URL_PATTERN, |text| parse_url(&text))
}

/// `text` as an http or https address, without credentials and fragment.
pub(super) fn parse_url(text: &str) -> Result<Uri, Wrong> {
    let hint = "write it like `https://host/mcp`; credentials belong into `headers`";
    let Ok(url) = text.parse::<Uri>() else { return wrong("is no URL", hint) };
    let (Some("http" | "https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return wrong("is no http or https URL", hint);
    };
    if authority.as_str().contains('@') {
        wrong("holds a user or a password", hint)
    } else if authority.host().is_empty() {
        wrong("names no host", hint)
    } else if text.contains('#') {
        wrong("holds a fragment (`#…`)", hint)
    } else {
        Ok(url)
    }
}

/// A list, which may be empty.
pub(super) fn list<'f, T: 'f>(item: Form<'f, T>) -> Form<'f, Vec<T>> {
    list_of_items(item, false)
}

/// A list of at least one element; one that stands alone is a list of one.
pub(super) fn one_or_more<'f, T: 'f>(item: Form<'f, T>) -> Form<'f, Vec<T>> {
    list_of_items(item, true).not_empty("give it a value, or remove it")
}

fn list_of_items<'f, T: 'f>(item: Form<'f, T>, alone: bool) -> Form<'f, Vec<T>> {
    let Form { plural, shape, read, show } = item;
    let read = move |written: Written, cx: &Context<'_>| {
        let Written { node, location, name } = written;
        match node.kind {
            Kind::List(nodes) => {
                let elements = nodes.into_iter().enumerate().map(|(index, node)| Written {
                    location: location.element(index, node.origin),
                    node,
                    name: String::new(),
                });
                Some(elements.filter_map(|element| read(element, cx)).collect())
            }
            Kind::Text(_) if alone => Some(vec![read(Written { node, location, name }, cx)?]),
            other => {
                let form = format!("a list of {plural}");
                expected(cx, &location, &form, &other, "write `[one, two]`");
                None
            }
        }
    };
    let shape = move |cx: &Context<'_>| {
        let item = Box::new(shape(cx));
        Shape::List { item, alone, empty: true }
    };
    let form = Form::new("lists", shape, read);
    match show {
        None => form,
        Some(show) => form.shown(move |values: &Vec<T>| {
            let shown: Vec<String> = values.iter().map(&show).collect();
            format!("[{}]", shown.join(", "))
        }),
    }
}

/// Names that the writer chooses.
pub(super) struct Names<N> {
    /// What stands for one in documents.
    pub(super) placeholder: &'static str,
    /// A regular expression that each matches.
    pub(super) pattern: Option<&'static str>,
    pub(super) read: fn(&str) -> Result<N, Wrong>,
}

/// A mapping of names that the writer chooses. Names that are read into the same thing are refused.
pub(super) fn by_name<'f, N: Display + PartialEq + 'f, T: 'f>(
    names: &Names<N>,
    item: Form<'f, T>,
) -> Form<'f, Vec<(N, T)>> {
    let Form { plural, shape, read, .. } = item;
    let &Names { placeholder, pattern, read: read_name } = names;
    let read = move |written: Written, cx: &Context<'_>| {
        let members = match written.node.kind {
            Kind::Map(members) => members,
            other => {
                let hint = "write its keys below it, indented";
                expected(cx, &written.location, "keys with values", &other, hint);
                return None;
            }
        };
        let mut found: Vec<(N, T)> = Vec::new();
        for member in members {
            let location = written.location.member(&member.key, member.origin);
            let name = read_name(&member.key);
            let of_value =
                Written { node: member.value, location: location.clone(), name: member.key };
            let value = read(of_value, cx);
            match name {
                Err(Wrong { what, hint }) => cx.problem(&location, what, hint),
                Ok(name) if found.iter().any(|(other, _)| *other == name) => {
                    cx.problem(
                        &location,
                        format!("`{name}` stands twice, but for case"),
                        "keep one",
                    );
                }
                Ok(name) => found.extend(value.map(|value| (name, value))),
            }
        }
        Some(found)
    };
    let shape = move |cx: &Context<'_>| Shape::ByName {
        placeholder,
        pattern,
        item: Box::new(shape(cx)),
        empty: true,
    };
    Form::new(plural, shape, read)
}

/// A mapping of any names to texts.
pub(super) fn texts_by_name<'f>() -> Form<'f, BTreeMap<Box<str>, Box<str>>> {
    let names = Names { placeholder: "<name>", pattern: None, read: |name| Ok(name.to_owned()) };
    by_name(&names, text())
        .map(|texts| texts.into_iter().map(|(name, text)| (name.into(), text.into())).collect())
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
    }
}
