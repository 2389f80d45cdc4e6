//! YAML text to a tree of nodes, each with the line that it begins on. The only user of
//! `saphyr_parser`.
//!
//! Reads what a configuration and the data of a policy need of YAML 1.2: one document of mappings,
//! lists and scalars of the core schema. Anchors, aliases and tags are refused, because a reader of
//! the file does not see what they stand for. The tree is built without recursion and is bounded in
//! depth; the caller bounds the length of the text.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use bartizan_gate::wire::document::write_string;

/// Nesting of lists and mappings; the deepest key of a configuration has 7.
const DEPTH_MAX: usize = 16;

/// One value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub origin: Origin,
    /// What it is.
    pub kind: Kind,
}

impl Node {
    /// The value of the member `key`, if this is a mapping that has it.
    pub fn member(&self, key: &str) -> Option<&Self> {
        let Kind::Map(members) = &self.kind else { return None };
        members.iter().find(|member| member.key == key).map(|member| &member.value)
    }

    /// The text, if this is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            Kind::Null
            | Kind::Bool(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::List(_)
            | Kind::Map(_) => None,
        }
    }
}

/// Where a value or a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This line of the text, from 1.
    Line(usize),
    /// Something that has a name and no line, such as the argument `--url` of a command.
    Named(&'static str),
    /// An argument that is given a key with its value, such as `--limit KEY=VALUE`.
    Pair(&'static str),
}

/// What a [`Node`] is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Nothing: `null`, `~`, or no text at all.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer, or one too large for `i64` as its text.
    Integer(Result<i64, String>),
    /// A number with a fraction or an exponent, as written.
    Float(String),
    /// Any other scalar, and whatever stands in quotes.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the text.
    Map(Vec<Member>),
}

impl Kind {
    /// Its name in problems.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Integer(Ok(value)) => format!("the number {value}"),
            Self::Integer(Err(text)) | Self::Float(text) => format!("the number {text}"),
            // A text may be a secret that stands in the wrong place.
            Self::Text(_) => "a text".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }

    /// The same as JSON text.
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        write_json(&mut json, self);
        json
    }
}

/// One member of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its key.
    pub key: String,
    /// Where the key stands.
    pub origin: Origin,
    /// Its value.
    pub value: Node,
}

/// Why a text, or a part of it, is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The keys that lead to it, like `servers.flags`; empty where only the line is known.
    pub path: String,
    /// Its line, from 1; absent for the text as a whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: &'static str,
}

/// Most faults that are reported of one text. A text with more is not read to its end.
const FAULTS_MAX: usize = 64;

/// A list or mapping that is not closed yet.
struct Open {
    line: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map {
        members: Vec<Member>,
        /// The line of each key so far. A key is found without a look at the others.
        lines: HashMap<String, usize>,
        key: Option<(String, usize)>,
    },
}

/// Reads `text`. Absent where it is empty, or no such tree; then `faults` says why. There can be
/// faults and a tree, so that its reader can go on and find more.
pub fn read(text: &str, faults: &mut Vec<Fault>) -> Option<Node> {
    build(text, Builder { depth_max: DEPTH_MAX, ..Builder::default() }, faults)
}

/// The path of the member `key` of what is at `path`.
pub fn member_path(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The path of the element `index` (from 0) of the list at `path`.
pub fn element_path(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

fn fault(line: Option<usize>, what: impl Into<String>, hint: &'static str) -> Fault {
    Fault { path: String::new(), line, what: what.into(), hint }
}

fn build(text: &str, mut builder: Builder, faults: &mut Vec<Fault>) -> Option<Node> {
    let mut parser = Parser::new_from_str(text);
    loop {
        match parser.next_event() {
            Some(Ok((event, span))) => {
                if !builder.event(event, span, faults) || faults.len() >= FAULTS_MAX {
                    return None;
                }
            }
            Some(Err(error)) => {
                let what = format!("not YAML: {}", error.info());
                let hint = "check indentation, quotes and brackets";
                faults.push(fault(Some(error.marker().line()), what, hint));
                return None;
            }
            None => break,
        }
    }
    builder.root
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    depth_max: usize,
    /// Whether what YAML 1.1 reads otherwise is refused.
    unambiguous: bool,
}

impl Builder {
    /// Takes one event in; false where reading on makes no sense.
    fn event(&mut self, event: Event<'_>, span: Span, faults: &mut Vec<Fault>) -> bool {
        let line = span.start.line();
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => true,
            Event::DocumentStart(_) => {
                self.documents = self.documents.saturating_add(1);
                if self.documents > 1 {
                    faults.push(fault(Some(line), "a second document begins", "keep one document"));
                }
                self.documents == 1
            }
            Event::Alias(_) => {
                faults.push(fault(Some(line), "an alias (`*name`)", "write the value itself"));
                false
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_properties(anchor, tag.is_some(), line, faults);
                self.scalar(text, style, line, faults);
                true
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_properties(anchor, tag.is_some(), line, faults);
                self.begin(OpenKind::List(Vec::new()), line, faults)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_properties(anchor, tag.is_some(), line, faults);
                let kind = OpenKind::Map { members: Vec::new(), lines: HashMap::new(), key: None };
                self.begin(kind, line, faults)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let kind = match open.kind {
                        OpenKind::List(nodes) => Kind::List(nodes),
                        OpenKind::Map { members, .. } => Kind::Map(members),
                    };
                    self.add(Node { origin: Origin::Line(open.line), kind });
                }
                true
            }
        }
    }

    fn begin(&mut self, kind: OpenKind, line: usize, faults: &mut Vec<Fault>) -> bool {
        if let Some(Open { kind: OpenKind::Map { key: None, .. }, .. }) = self.open.last() {
            let path = self.path();
            let what = "a key that is no text".to_owned();
            faults.push(Fault { path, line: Some(line), what, hint: "write a plain key" });
            return false;
        }
        if self.open.len() >= self.depth_max {
            let path = self.path();
            let what = format!("nested deeper than {} levels", self.depth_max);
            faults.push(Fault { path, line: Some(line), what, hint: "remove levels" });
            return false;
        }
        self.open.push(Open { line, kind });
        true
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        line: usize,
        faults: &mut Vec<Fault>,
    ) {
        if self.unambiguous && style == ScalarStyle::Plain && is_ambiguous(&text) {
            let what = format!("`{}` has more than one meaning", text.escape_debug());
            faults.push(fault(Some(line), what, "put it in quotes, or write it otherwise"));
        }
        if let Some(Open { kind: OpenKind::Map { lines, key: key @ None, .. }, .. }) =
            self.open.last_mut()
        {
            let first = lines.get(text.as_ref()).copied();
            *key = Some((text.into_owned(), line));
            if let Some(first) = first {
                let path = self.path();
                let what = format!("the key stands twice, first on line {first}");
                faults.push(Fault { path, line: Some(line), what, hint: "keep one" });
            }
            return;
        }
        self.add(Node { origin: Origin::Line(line), kind: resolve(text, style) });
    }

    /// Puts a finished node into the list or mapping that is open.
    fn add(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { kind: OpenKind::List(nodes), .. }) => nodes.push(node),
            Some(Open { kind: OpenKind::Map { members, lines, key }, .. }) => {
                // Of a key that stands twice, which is a fault, the first value is kept.
                if let Some((key, line)) = key.take()
                    && !lines.contains_key(&key)
                {
                    lines.insert(key.clone(), line);
                    members.push(Member { key, origin: Origin::Line(line), value: node });
                }
            }
        }
    }

    /// The path of the node that begins next. Only faults need it: were it kept for each node, a long
    /// key would be copied for each value below it.
    fn path(&self) -> String {
        self.open.iter().fold(String::new(), |path, open| match &open.kind {
            OpenKind::List(nodes) => element_path(&path, nodes.len()),
            OpenKind::Map { key, .. } => {
                member_path(&path, key.as_ref().map_or("?", |(key, _)| key))
            }
        })
    }
}

fn refuse_properties(anchor: usize, tagged: bool, line: usize, faults: &mut Vec<Fault>) {
    if anchor != 0 {
        faults.push(fault(Some(line), "an anchor (`&name`)", "remove it"));
    }
    if tagged {
        faults.push(fault(Some(line), "a tag (`!name`)", "remove it"));
    }
}

/// What a scalar means: YAML 1.2.2 §10.3.2, the core schema.
fn resolve(text: Cow<'_, str>, style: ScalarStyle) -> Kind {
    if style != ScalarStyle::Plain {
        return Kind::Text(text.into_owned());
    }
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        plain => {
            let digits = plain.strip_prefix(['-', '+']).unwrap_or(plain);
            if digits.is_empty() || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
                return Kind::Text(text.into_owned());
            }
            if digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Kind::Integer(plain.parse().map_err(|_| plain.to_owned()));
            }
            let number_like =
                |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+');
            if digits.chars().all(number_like) && plain.parse::<f64>().is_ok() {
                return Kind::Float(plain.to_owned());
            }
            Kind::Text(text.into_owned())
        }
    }
}

/// Nesting of data, as in JSON.
const DATA_DEPTH_MAX: usize = 64;

/// `text` as JSON. What readers of YAML 1.1, OPA's among them, take for something else than those
/// of YAML 1.2 is refused, so that nobody can sign one thing and have another one enforced. The
/// error says what is wrong.
pub fn to_json(text: &str) -> Result<String, String> {
    let builder = Builder { depth_max: DATA_DEPTH_MAX, unambiguous: true, ..Builder::default() };
    let mut faults = Vec::new();
    let node = build(text, builder, &mut faults);
    match (node, faults.first()) {
        (Some(node), None) => Ok(node.kind.to_json()),
        (_, Some(fault)) => Err(fault.to_string()),
        (None, None) => Err("it is empty".to_owned()),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.as_str(), self.line) {
            ("", None) => f.write_str("the text")?,
            ("", Some(line)) => write!(f, "line {line}")?,
            (path, None) => f.write_str(path)?,
            (path, Some(line)) => write!(f, "{path} (line {line})")?,
        }
        write!(f, ": {}", self.what)
    }
}

/// Whether YAML 1.1 makes a truth, a number or a merge of what is a text or another number in
/// YAML 1.2 (yaml.org/type: bool, int, float, merge).
fn is_ambiguous(plain: &str) -> bool {
    let digits = plain.strip_prefix(['-', '+']).unwrap_or(plain);
    let lower = digits.to_ascii_lowercase();
    let word = matches!(
        lower.as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | ".inf" | ".nan" | "<<" | "="
    );
    let based = ["0x", "0o", "0b"].iter().any(|base| lower.starts_with(base));
    let number_like = |c: char| c.is_ascii_digit() || matches!(c, '_' | '.' | 'e' | '+' | '-');
    let starts = digits.starts_with(|c: char| c.is_ascii_digit());
    let numeric = starts && lower.chars().all(number_like);
    let octal = starts && digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    word || based || numeric && (digits.contains('_') || octal && !digits.contains('-'))
}

/// The recursion is as deep as the tree, which its reader bounds.
fn write_json(out: &mut String, kind: &Kind) {
    match kind {
        Kind::Null => out.push_str("null"),
        Kind::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Kind::Integer(Ok(value)) => out.push_str(&value.to_string()),
        Kind::Integer(Err(text)) => out.push_str(text.trim_start_matches('+')),
        Kind::Float(text) => out.push_str(&float(text)),
        Kind::Text(text) => write_text(out, text),
        Kind::List(nodes) => {
            out.push('[');
            for (at, node) in nodes.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_json(out, &node.kind);
            }
            out.push(']');
        }
        Kind::Map(members) => {
            out.push('{');
            for (at, member) in members.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_text(out, &member.key);
                out.push(':');
                write_json(out, &member.value.kind);
            }
            out.push('}');
        }
    }
}

fn write_text(out: &mut String, text: &str) {
    let mut literal = Vec::new();
    write_string(&mut literal, text);
    out.push_str(&String::from_utf8_lossy(&literal));
}

/// A number as Go's `encoding/json` writes it, which is what OPA signs for YAML.
fn float(text: &str) -> String {
    let Ok(value) = text.parse::<f64>() else { return text.to_owned() };
    if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) {
        let written = format!("{value:e}");
        return if value.abs() >= 1.0 { written.replace('e', "e+") } else { written };
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str) -> Result<Kind, String> {
        let mut faults = Vec::new();
        match read(text, &mut faults) {
            Some(node) if faults.is_empty() => Ok(node.kind),
            _ => Err(faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")),
        }
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let text = |text: &str| Kind::Text(text.to_owned());
        for (written, expected) in [
            ("~", Kind::Null),
            ("True", Kind::Bool(true)),
            ("yes", text("yes")),
            ("12", Kind::Integer(Ok(12))),
            ("-3", Kind::Integer(Ok(-3))),
            ("99999999999999999999", Kind::Integer(Err("99999999999999999999".to_owned()))),
            ("1.5", Kind::Float("1.5".to_owned())),
            ("2025-06-18", text("2025-06-18")),
            ("127.0.0.1:7070", text("127.0.0.1:7070")),
            ("4MiB", text("4MiB")),
            ("30s", text("30s")),
            ("'12'", text("12")),
            ("-", Kind::List(vec![Node { origin: Origin::Line(1), kind: Kind::Null }])),
        ] {
            assert_eq!(outcome(written).unwrap(), expected, "{written}");
        }
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let Kind::Map(members) = outcome("# first\na: 1\n\nb:\n  - x\n  - y: 2\n").unwrap() else {
            panic!("no mapping");
        };
        assert_eq!(members[0].origin, Origin::Line(2));
        assert_eq!(members[1].origin, Origin::Line(4));
        let Kind::List(nodes) = &members[1].value.kind else { panic!("no list") };
        assert_eq!((nodes[0].origin, nodes[1].origin), (Origin::Line(5), Origin::Line(6)));
    }

    #[test]
    fn what_is_not_read_is_named_with_its_line() {
        for (written, expected) in [
            ("a: [1", "line "),
            ("a: 1\nb: 2\na: 3", "a (line 3): the key stands twice, first on line 1"),
            ("s:\n  x:\n    u: 1\n    u: 2", "s.x.u (line 4): the key stands twice"),
            ("a: &x 1", "line 1: an anchor"),
            ("a: &x 1\nb: *x", "line 2: an alias"),
            ("a: !y 1", "line 1: a tag"),
            ("a: 1\n---\nb: 2", "line 2: a second document begins"),
            ("? [a]\n: 1", "a key that is no text"),
            ("a:\n\tb: 1", "line 2: not YAML"),
        ] {
            let problems = outcome(written).unwrap_err();
            assert!(problems.contains(expected), "{written:?}: {problems}");
        }
    }

    #[test]
    fn data_becomes_json_that_every_reader_of_yaml_means() {
        for (yaml, json) in [
            (
                "a: 1\nb: [x, 'yes', -2.50, 1e21, 0.0000001, 1.0, ~, true]",
                r#"{"a":1,"b":["x","yes",-2.5,1e+21,1e-7,1,null,true]}"#,
            ),
            (
                "a: {b: 10.0.0.1, d: 2025-06-18, e: 0.5}",
                r#"{"a":{"b":"10.0.0.1","d":"2025-06-18","e":0.5}}"#,
            ),
            ("a: |\n  two\n  lines\n", r#"{"a":"two\nlines\n"}"#),
        ] {
            assert_eq!(to_json(yaml).unwrap(), json);
        }
        for yaml in [
            "yes",
            "On",
            "N",
            "0777",
            "0x1f",
            "1_000",
            ".inf",
            "-.INF",
            "a: &x 1",
            "a: 1\na: 2",
            "",
        ] {
            let text = if yaml.contains(':') && yaml.contains('a') {
                yaml.to_owned()
            } else {
                format!("a: {yaml}")
            };
            if yaml.is_empty() {
                assert_eq!(to_json(""), Err("it is empty".to_owned()));
                assert_eq!(outcome(""), Err(String::new()));
            } else {
                assert!(to_json(&text).is_err(), "{text}: {:?}", to_json(&text));
            }
        }
    }

    #[test]
    fn faults_are_bounded_and_a_key_is_found_among_many() {
        let twice = "a: 1\n".repeat(10_000);
        let mut faults = Vec::new();
        assert_eq!(read(&twice, &mut faults), None);
        assert_eq!(faults.len(), FAULTS_MAX);

        let many: Vec<String> = (0..50_000).map(|at| format!("k{at}: []\n")).collect();
        let mut faults = Vec::new();
        let text = many.concat() + "k49999: 1\nlast: 1\n";
        let node = read(&text, &mut faults);
        let Some(Node { kind: Kind::Map(members), .. }) = node else { panic!("no mapping") };
        assert_eq!((members.len(), faults.len()), (50_001, 1));
        assert_eq!(faults[0].path, "k49999");
    }

    #[test]
    fn depth_is_bounded() {
        for bracket in ["[", "- ", "{a: "] {
            let problems = outcome(&bracket.repeat(DEPTH_MAX + 1)).unwrap_err();
            assert!(problems.contains("nested deeper than 16"), "{problems}");
            assert!(outcome(&bracket.repeat(100_000)).is_err());
        }
    }
}
