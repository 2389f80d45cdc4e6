//! The parameters of a held call for a person: indented JSON whose members stand in the order of
//! their names, so that an agent cannot choose what comes last, and what differs from another text.
//!
//! Texts are decoded and escaped anew, so that `\u0064elete` reads as what it means, and no
//! character is invisible. Numbers stand as they were sent: nothing is rounded. Nothing is left out.

use std::fmt::Write as _;

use bytes::Bytes;

use bartizan_gate::wire::document::{Document, DocumentLimits, Kind, Value, write_string};
use bartizan_gate::wire::inert;

/// A text longer than this says how long it is, characters.
const UNMARKED_CHARS_MAX: usize = 200;
/// Differences that are shown.
const DIFFERENCES_MAX: usize = 200;
/// Characters of one value, and of one name, that a line about a difference shows.
const DIFFERENCE_CHARS_MAX: usize = 300;

/// As large as the firewall's own bounds can be.
const LIMITS: DocumentLimits = DocumentLimits {
    bytes_max: 256 << 20,
    depth_max: 130,
    number_chars_max: 4096,
    values_max: 1 << 24,
};

/// Characters of an excerpt.
const EXCERPT_CHARS_MAX: usize = 160;
/// Bytes that are looked at for an excerpt. A list has many, so no text is read whole.
const EXCERPT_BYTES_MAX: usize = 4096;

/// How the arguments of a call begin, on one line and with nothing invisible: of `shown`, which has the
/// parameters, the value of the member `arguments`, or all of it if its beginning has none. A `…` ends
/// what is cut.
pub fn excerpt(shown: &str) -> String {
    let start = shown.get(..shown.floor_char_boundary(EXCERPT_BYTES_MAX)).unwrap_or_default();
    let from = arguments_of(start).unwrap_or_default();
    let arguments = start.get(from..).unwrap_or_default();
    let arguments = if from > 0 && start.len() == shown.len() {
        // Without the brace that ends the parameters, unless other members follow.
        whole_value(arguments).unwrap_or(arguments)
    } else {
        arguments
    };
    let arguments = arguments.trim_ascii();
    let cut: String = arguments.chars().take(EXCERPT_CHARS_MAX).collect();
    let whole = cut.len() == arguments.len() && start.len() == shown.len();
    let mut out = inert::escaped(&cut).replace('\n', " ");
    if !whole {
        out.push('…');
    }
    out
}

/// Where the value of the member `arguments` of an object begins.
fn arguments_of(text: &str) -> Option<usize> {
    let mut scan = Scan::default();
    let mut key_from = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        let was_in_text = scan.in_text;
        scan.take(byte);
        match (was_in_text, scan.in_text) {
            (false, true) => key_from = at,
            (false, false) if byte == b':' && scan.depth == 1 => {
                let key = text.get(key_from..at)?.trim_ascii_end();
                if key == "\"arguments\"" {
                    return at.checked_add(1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The value that `text` begins with, if it is an object or an array that ends in it.
fn whole_value(text: &str) -> Option<&str> {
    let mut scan = Scan::default();
    for (at, byte) in text.bytes().enumerate() {
        let before = scan.depth;
        scan.take(byte);
        if before == 1 && scan.depth == 0 {
            return text.get(..at.checked_add(1)?);
        }
    }
    None
}

/// The place in a JSON text, byte by byte.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    fn take(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_text => self.escaped = true,
            b'"' => self.in_text = !self.in_text,
            b'{' | b'[' if !self.in_text => self.depth = self.depth.saturating_add(1),
            b'}' | b']' if !self.in_text => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

/// A JSON text that was read.
pub struct Parameters(Document);

impl Parameters {
    /// Reads `text`; `None` if it is not strict JSON, which the firewall never sends.
    pub fn read(text: &str) -> Option<Self> {
        Document::read(Bytes::copy_from_slice(text.as_bytes()), &LIMITS).ok().map(Self)
    }

    /// The text for a person; ends with a line end.
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        push(&mut out, self.0.root(), 0);
        out.push('\n');
        out
    }

    /// What differs from `before`, each a line with an RFC 6901 pointer: `+` is new, `-` is gone,
    /// `~` has another value. Empty if nothing does. Further ones than [`DIFFERENCES_MAX`] are
    /// counted.
    pub fn differences(&self, before: &Self) -> String {
        let mut found = Differences::default();
        found.compare(before.0.root(), self.0.root());
        let Differences { mut lines, more, .. } = found;
        if more > 0 {
            writeln!(lines, "  … and {more} more").unwrap_or_default();
        }
        lines
    }
}

/// What was found while two values are compared.
#[derive(Default)]
struct Differences<'a> {
    lines: String,
    count: usize,
    /// Differences without a line.
    more: usize,
    /// Where the comparison is: names and numbers.
    at: Vec<Step<'a>>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

impl<'a> Differences<'a> {
    /// Compares two values at the same place, which is as deep as the reader allows at most.
    fn compare(&mut self, before: Value<'a>, now: Value<'a>) {
        match (before.kind(), now.kind()) {
            (Kind::Object, Kind::Object) => self.members(before, now),
            (Kind::Array, Kind::Array) => {
                let (mut old, mut new) = (before.elements(), now.elements());
                for index in 0.. {
                    let pair = (old.next(), new.next());
                    if pair.0.is_none() && pair.1.is_none() {
                        break;
                    }
                    self.below(Step::Index(index), pair);
                }
            }
            (Kind::String, Kind::String) if before.as_str() == now.as_str() => {}
            (old, new) if old == new && before.raw() == now.raw() => {}
            _ => self.add('~', &format!("{} -> {}", short(before), short(now))),
        }
    }

    /// Compares two objects: merges their members, which are in the order of their names.
    fn members(&mut self, before: Value<'a>, now: Value<'a>) {
        let (mut old, mut new) =
            (sorted(before).into_iter().peekable(), sorted(now).into_iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((one, _)), Some((other, _))) => one.cmp(other),
            };
            let left = old.next_if(|_| order.is_le());
            let right = new.next_if(|_| order.is_ge());
            if let Some((name, _)) = left.or(right) {
                self.below(Step::Name(name), (left.map(|it| it.1), right.map(|it| it.1)));
            }
        }
    }

    fn below(&mut self, step: Step<'a>, pair: (Option<Value<'a>>, Option<Value<'a>>)) {
        self.at.push(step);
        match pair {
            (Some(before), Some(now)) => self.compare(before, now),
            (Some(before), None) => self.add('-', &short(before)),
            (None, Some(now)) => self.add('+', &short(now)),
            (None, None) => {}
        }
        self.at.pop();
    }

    fn add(&mut self, sign: char, value: &str) {
        if self.count >= DIFFERENCES_MAX {
            self.more = self.more.saturating_add(1);
            return;
        }
        self.count = self.count.saturating_add(1);
        write!(self.lines, "  {sign} ").unwrap_or_default();
        for step in &self.at {
            match step {
                Step::Name(name) => {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    self.lines.push('/');
                    inert::push(&mut self.lines, &name, DIFFERENCE_CHARS_MAX);
                }
                Step::Index(index) => write!(self.lines, "/{index}").unwrap_or_default(),
            }
        }
        writeln!(self.lines, ": {value}").unwrap_or_default();
    }
}

/// The beginning of a value on one line; the whole of what is new stands above the differences.
fn short(value: Value<'_>) -> String {
    let cut = |text: &str| text.char_indices().nth(DIFFERENCE_CHARS_MAX).map(|(at, _)| at);
    if let Some(text) = value.as_str() {
        return match cut(text).and_then(|at| text.get(..at)) {
            None => quoted(text),
            Some(start) => format!("{}… ({} characters)", quoted(start), text.chars().count()),
        };
    }
    let raw = std::str::from_utf8(value.raw()).unwrap_or_default();
    let start = cut(raw).and_then(|at| raw.get(..at));
    let mut out = inert::escaped(start.unwrap_or(raw)).replace('\n', " ");
    if start.is_some() {
        out.push('…');
    }
    out
}

/// The members of an object in the order of their names.
fn sorted(value: Value<'_>) -> Vec<(&str, Value<'_>)> {
    let mut members: Vec<_> =
        value.members().map(|(name, value)| (name.as_str().unwrap_or_default(), value)).collect();
    members.sort_by_key(|(name, _)| *name);
    members
}

/// Writes `value`; it stands `depth` levels deep, which the reader has bounded.
fn push(out: &mut String, value: Value<'_>, depth: usize) {
    let indent = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let inner = depth.saturating_add(1);
    match value.kind() {
        Kind::Object if !value.is_empty() => {
            out.push('{');
            for (index, (name, member)) in sorted(value).into_iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                indent(out, inner);
                out.push_str(&quoted(name));
                out.push_str(": ");
                push(out, member, inner);
            }
            indent(out, depth);
            out.push('}');
        }
        Kind::Array if !value.is_empty() => {
            out.push('[');
            for (index, element) in value.elements().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                indent(out, inner);
                push(out, element, inner);
            }
            indent(out, depth);
            out.push(']');
        }
        Kind::Object | Kind::Array | Kind::Null | Kind::Bool | Kind::Number | Kind::String => {
            out.push_str(&leaf(value));
        }
    }
}

/// A scalar, or an empty list or object, as JSON.
fn leaf(value: Value<'_>) -> String {
    match value.kind() {
        Kind::String => {
            let text = value.as_str().unwrap_or_default();
            let chars = text.chars().count();
            let mut out = quoted(text);
            if chars > UNMARKED_CHARS_MAX {
                write!(out, " ({chars} characters)").unwrap_or_default();
            }
            out
        }
        Kind::Object => "{}".to_owned(),
        Kind::Array => "[]".to_owned(),
        Kind::Null | Kind::Bool | Kind::Number => String::from_utf8_lossy(value.raw()).into_owned(),
    }
}

/// `text` as a string of JSON, in which every invisible character is an escape.
fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    write_string(&mut out, text);
    inert::escaped(&String::from_utf8_lossy(&out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Parameters {
        Parameters::read(text).unwrap()
    }

    #[test]
    fn nothing_is_hidden_rounded_or_left_out() {
        let text = r#"{"z":1,"name":"\u0064elete","arguments":{"n":12345678901234567890.10,"b":[],"bidi\u202e":"a\u200b\n\u001b[2J","a":[true,null,{}]}}"#;
        assert_eq!(
            read(text).pretty(),
            "{\n  \"arguments\": {\n    \"a\": [\n      true,\n      null,\n      {}\n    ],\n    \
             \"b\": [],\n    \"bidi\\u202e\": \"a\\u200b\\n\\u001b[2J\",\n    \
             \"n\": 12345678901234567890.10\n  },\n  \"name\": \"delete\",\n  \"z\": 1\n}\n"
        );
    }

    #[test]
    fn a_long_text_says_how_long_it_is() {
        let lines = "\\n".repeat(10_000);
        let pretty = read(&format!(r#"{{"a":"{lines}","b":"rm"}}"#)).pretty();
        assert_eq!(
            pretty.lines().count(),
            4,
            "line ends inside a text do not scroll anything away"
        );
        assert!(pretty.contains("\" (10000 characters),\n  \"b\": \"rm\"\n}"), "{pretty}");
    }

    #[test]
    fn differences_are_told_by_place() {
        let before = read(r#"{"a":{"x":1,"gone":"g","same":[1,{"k":2}]},"e":[]}"#);
        let now = read(r#"{"a":{"same":[1,{"k":3}],"x":1.0,"n/e~w":"\u202e"},"e":{}}"#);
        assert_eq!(
            now.differences(&before),
            "  - /a/gone: \"g\"\n  + /a/n~1e~0w: \"\\u202e\"\n  ~ /a/same/1/k: 2 -> 3\n  \
             ~ /a/x: 1 -> 1.0\n  ~ /e: [] -> {}\n"
        );
        assert_eq!(before.differences(&before), "");
        assert_eq!(now.differences(&now), "");
        let order = read(r#"{"e":{},"a":{"x":1.0,"n/e~w":"\u202e","same":[1,{"k":3}]}}"#);
        assert_eq!(now.differences(&order), "", "the order of members means nothing");
    }

    #[test]
    fn many_and_long_differences_stay_short() {
        let many = |value: &str| {
            let members: Vec<String> = (0..1000).map(|n| format!("\"m{n:04}\":{value}")).collect();
            read(&format!("{{\"{}\":{{{}}}}}", "long".repeat(10_000), members.join(",")))
        };
        let found = many("1").differences(&many("2"));
        assert!(found.len() < 100_000, "{}", found.len());
        assert_eq!(found.lines().count(), DIFFERENCES_MAX + 1);
        assert!(found.ends_with("  … and 800 more\n"));
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
        let found = read(&long).differences(&read("{}"));
        assert!(found.starts_with("  + /a: \"xxx") && found.ends_with("… (100000 characters)\n"));
    }

    #[test]
    fn an_excerpt_is_the_beginning_of_the_arguments_on_one_line() {
        for (shown, expected) in [
            (r#"{"name":"publish","arguments":{"n":1}}"#, r#"{"n":1}"#),
            (r#"{"arguments" : {"a":["}"]} ,"name":"publish"}"#, r#"{"a":["}"]}"#),
            (
                r#"{"name":"\",\"arguments\":{}","_meta":{"arguments":{"x":1}},"arguments":{"y":2}}"#,
                r#"{"y":2}"#,
            ),
            (r#"{"uri":"file:///x"}"#, r#"{"uri":"file:///x"}"#),
            (r#"{"name":"arguments","x":1}"#, r#"{"name":"arguments","x":1}"#),
            ("{\"arguments\":{\"a\":\"\u{1b}[2J\u{202e}\"}}", r#"{"a":"\u001b[2J\u202e"}"#),
            ("no json\n", "no json"),
            ("", ""),
        ] {
            assert_eq!(excerpt(shown), expected, "{shown}");
        }
        for long in ["é".repeat(10_000), format!("{{\"arguments\":\"{}\"}}", "x".repeat(300))] {
            let found = excerpt(&long);
            assert_eq!(
                (found.chars().count(), found.ends_with('…')),
                (EXCERPT_CHARS_MAX + 1, true)
            );
        }
    }

    #[test]
    fn what_is_no_json_is_not_read() {
        for text in ["", "{", r#"{"a":1,"a":2}"#] {
            assert!(Parameters::read(text).is_none(), "{text}");
        }
    }
}
