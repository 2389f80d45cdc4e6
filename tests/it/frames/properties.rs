//! Properties of reading, for generated trees in generated spellings.

use bartizan_gate::wire::document::{Kind, Unreadable, Value};
use bytes::Bytes;
use proptest::prelude::*;

use super::{document, reading};

/// A tree as its writer means it. Members are kept in order, with distinct names.
#[derive(Debug, Clone)]
pub(crate) enum Tree {
    Word(&'static str),
    Number(String),
    Text(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,12}",
        proptest::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter),
        proptest::sample::select(vec!["name", "Name", "", "\"", "\\", "\0", "\u{2028}", "é", "😀"])
            .prop_map(str::to_owned),
    ]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
    ]
}

pub(crate) fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        proptest::sample::select(vec!["null", "true", "false"]).prop_map(Tree::Word),
        number().prop_map(Tree::Number),
        text().prop_map(Tree::Text),
    ];
    leaf.prop_recursive(5, 64, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Tree::Array),
            proptest::collection::btree_map(text(), inner, 0..20)
                .prop_map(|members| Tree::Object(members.into_iter().collect())),
        ]
    })
}

/// Whether a member has a control character in its name, at any depth.
pub(crate) fn has_control_in_name(tree: &Tree) -> bool {
    match tree {
        Tree::Array(items) => items.iter().any(has_control_in_name),
        Tree::Object(members) => members
            .iter()
            .any(|(name, tree)| name.contains(char::is_control) || has_control_in_name(tree)),
        Tree::Word(_) | Tree::Number(_) | Tree::Text(_) => false,
    }
}

/// A tree that is an object with one member at least.
pub(crate) fn object() -> impl Strategy<Value = Tree> {
    proptest::collection::btree_map(text(), tree(), 1..6)
        .prop_map(|members| Tree::Object(members.into_iter().collect()))
}

/// Free choices of a writer, taken one by one; the plainest once they are used up.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        self.0.next().map_or(0, |choice| usize::from(*choice) % count)
    }
}

pub(crate) fn choices() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..400)
}

fn write(tree: &Tree, choices: &mut Choices<'_>, out: &mut String) {
    space(choices, out);
    match tree {
        Tree::Word(literal) => out.push_str(literal),
        Tree::Number(literal) => out.push_str(literal),
        Tree::Text(text) => write_text(text, choices, out),
        Tree::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write(element, choices, out);
            }
            space(choices, out);
            out.push(']');
        }
        Tree::Object(members) => {
            out.push('{');
            let mut left: Vec<_> = members.iter().collect();
            while !left.is_empty() {
                let (name, value) = left.swap_remove(choices.below(left.len()));
                space(choices, out);
                write_text(name, choices, out);
                space(choices, out);
                out.push(':');
                write(value, choices, out);
                out.push_str(if left.is_empty() { "" } else { "," });
            }
            space(choices, out);
            out.push('}');
        }
    }
    space(choices, out);
}

fn space(choices: &mut Choices<'_>, out: &mut String) {
    out.push_str(["", "", "", " ", "\n", "\r", "\t", " \r\n\t "][choices.below(8)]);
}

fn write_text(text: &str, choices: &mut Choices<'_>, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        let short = match char {
            '"' | '\\' => Some(char),
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\t' => Some('t'),
            '\u{8}' => Some('b'),
            '\u{c}' => Some('f'),
            _ => None,
        };
        match (short, choices.below(3)) {
            (Some(letter), 0 | 1) => out.extend(['\\', letter]),
            (None, 0 | 1) if char >= ' ' => out.push(char),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let lower = format!("\\u{unit:04x}");
                    let upper = format!("\\u{unit:04X}");
                    out.push_str(if choices.below(2) == 0 { &lower } else { &upper });
                }
            }
        }
    }
    out.push('"');
}

pub(crate) fn spell(tree: &Tree, choices: &[u8]) -> String {
    let mut out = String::new();
    write(tree, &mut Choices(choices.iter()), &mut out);
    out
}

/// Whether what was read is what was meant.
fn reads_as(value: Value<'_>, tree: &Tree) -> bool {
    match tree {
        Tree::Word("null") => value.kind() == Kind::Null,
        Tree::Word(word) => value.as_bool() == Some(*word == "true"),
        Tree::Number(literal) => value.as_number() == Some(literal),
        Tree::Text(text) => value.as_str() == Some(text),
        Tree::Array(elements) => {
            value.kind() == Kind::Array
                && value.len() == elements.len()
                && value.elements().zip(elements).all(|(value, tree)| reads_as(value, tree))
        }
        Tree::Object(members) => {
            value.kind() == Kind::Object
                && value.len() == members.len()
                && members
                    .iter()
                    .all(|(name, tree)| value.get(name).is_some_and(|value| reads_as(value, tree)))
        }
    }
}

/// Repeats one member's name in the object that is the `nth` of those with members.
fn repeat_a_name(tree: &mut Tree, nth: &mut usize, member: usize, at: usize) -> bool {
    match tree {
        Tree::Word(_) | Tree::Number(_) | Tree::Text(_) => false,
        Tree::Array(elements) => {
            elements.iter_mut().any(|element| repeat_a_name(element, nth, member, at))
        }
        Tree::Object(members) => {
            let Some(count) = members.len().checked_sub(1) else { return false };
            if *nth == 0 {
                let name = members[member % (count + 1)].0.clone();
                members.insert(at % (count + 2), (name, Tree::Word("null")));
                return true;
            }
            *nth -= 1;
            members.iter_mut().any(|(_, value)| repeat_a_name(value, nth, member, at))
        }
    }
}

/// All values below `value`, itself and the names of members included.
fn all<'a>(value: Value<'a>, found: &mut Vec<Value<'a>>) {
    found.push(value);
    for element in value.elements() {
        all(element, found);
    }
    for (name, value) in value.members() {
        found.push(name);
        all(value, found);
    }
}

/// What a YAML reader makes of the text: JSON is nearly a part of YAML 1.2, and this reader shares
/// nothing with the others. It knows no surrogate pairs and has its own view of tabs and of long
/// names, so it refuses some. A scalar keeps its text and whether it was quoted.
#[derive(Debug, PartialEq)]
enum Yaml {
    Scalar(String, bool),
    List(Vec<Self>),
    Map(Vec<(Self, Self)>),
}

fn yaml(raw: &str) -> Option<Yaml> {
    use saphyr_parser::{Event, Parser, ScalarStyle};
    // The containers that are open, each with what it holds so far, names before values.
    let mut open: Vec<(bool, Vec<Yaml>)> = vec![(false, Vec::new())];
    for event in Parser::new_from_str(raw) {
        let done = match event.ok()?.0 {
            Event::SequenceStart(..) => {
                open.push((false, Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push((true, Vec::new()));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop()? {
                (false, items) => Yaml::List(items),
                (true, items) => {
                    let mut items = items.into_iter();
                    let pairs = std::iter::from_fn(|| Some((items.next()?, items.next()?)));
                    Yaml::Map(pairs.collect())
                }
            },
            Event::Scalar(text, style, ..) => {
                Yaml::Scalar(text.into_owned(), style == ScalarStyle::DoubleQuoted)
            }
            Event::Alias(_) => return None,
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => continue,
        };
        open.last_mut()?.1.push(done);
    }
    open.pop()?.1.pop()
}

fn reads_as_yaml(tree: &Tree, yaml: &Yaml) -> bool {
    match (tree, yaml) {
        (Tree::Word(word), Yaml::Scalar(text, quoted)) => !quoted && text == word,
        (Tree::Number(literal), Yaml::Scalar(text, quoted)) => !quoted && text == literal,
        (Tree::Text(wanted), Yaml::Scalar(text, quoted)) => *quoted && text == wanted,
        (Tree::Array(elements), Yaml::List(found)) => {
            elements.len() == found.len()
                && elements.iter().zip(found).all(|(tree, yaml)| reads_as_yaml(tree, yaml))
        }
        (Tree::Object(members), Yaml::Map(found)) => {
            members.len() == found.len()
                && members.iter().all(|(name, tree)| {
                    let name = Yaml::Scalar(name.clone(), true);
                    found.iter().any(|(key, yaml)| *key == name && reads_as_yaml(tree, yaml))
                })
        }
        _ => false,
    }
}

#[test]
fn the_yaml_reader_reads_json() {
    let raw = r#" {"a":[1.5e3,"\u00e9\n",null,{}], "" : "" } "#;
    let text = |text: &str| Tree::Text(text.to_owned());
    let tree = Tree::Object(vec![
        (String::new(), text("")),
        (
            "a".to_owned(),
            Tree::Array(vec![
                Tree::Number("1.5e3".to_owned()),
                text("é\n"),
                Tree::Word("null"),
                Tree::Object(Vec::new()),
            ]),
        ),
    ]);
    assert!(reads_as_yaml(&tree, &yaml(raw).unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_spelling_of_a_tree_reads_as_that_tree(tree in tree(), choices in choices()) {
        let raw = spell(&tree, &choices);
        let document = document(&raw).unwrap();
        prop_assert_eq!(document.raw(), raw.as_bytes());
        prop_assert!(reads_as(document.root(), &tree), "{}", raw);
        reading::frame(raw.as_bytes());
        reading::minify(raw.as_bytes());
        if let Some(second) = yaml(&raw) {
            prop_assert!(reads_as_yaml(&tree, &second), "{} read as {:?}", raw, second);
        }
    }

    #[test]
    fn a_repeated_name_is_refused_wherever_it_stands(
        tree in object(),
        nth in 0_usize..8,
        (member, at) in any::<(usize, usize)>(),
        choices in choices(),
    ) {
        let mut faulty = tree;
        let repeated = repeat_a_name(&mut faulty, &mut nth.clone(), member, at)
            || repeat_a_name(&mut faulty, &mut 0, member, at);
        prop_assert!(repeated);
        let raw = spell(&faulty, &choices);
        let error = document(&raw).err();
        prop_assert!(matches!(error, Some(Unreadable::DuplicateName { .. })), "{:?}: {}", error, raw);
    }

    #[test]
    fn a_splice_changes_its_spans_and_nothing_else(
        tree in tree(),
        choices in choices(),
        (one, other) in any::<(usize, usize)>(),
        new in text(),
    ) {
        let raw = spell(&tree, &choices);
        let document = document(&raw).unwrap();
        let mut values = Vec::new();
        all(document.root(), &mut values);
        let (one, other) = (values[one % values.len()].span(), values[other % values.len()].span());
        let new = new.into_bytes();
        let single = document.splice(&[(one.clone(), new.clone())]);
        let wanted = [&raw.as_bytes()[..one.start], &new, &raw.as_bytes()[one.end..]].concat();
        prop_assert_eq!(&single, &wanted);
        if one.end <= other.start {
            let both = document.splice(&[(one, new.clone()), (other.clone(), new.clone())]);
            let grown = wanted.len() - raw.len().min(wanted.len());
            let shrunk = raw.len() - raw.len().min(wanted.len());
            let at = |place: usize| place + grown - shrunk;
            let wanted =
                [&wanted[..at(other.start)], &new, &wanted[at(other.end)..]].concat();
            prop_assert_eq!(&both, &wanted);
        }
    }

    #[test]
    fn any_bytes_keep_the_invariants(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        reading::frame(&bytes);
        reading::minify(&bytes);
    }

    #[test]
    fn json_like_text_keeps_the_invariants(text in "[\\[\\]{}\",:\\\\u0-9a-fntrl.eE+ \n-]{0,48}") {
        reading::frame(text.as_bytes());
        reading::minify(text.as_bytes());
    }

    #[test]
    fn a_changed_byte_keeps_the_invariants(
        tree in tree(),
        choices in choices(),
        at in any::<usize>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut raw = spell(&tree, &choices).into_bytes();
        let at = at % raw.len();
        if cut { raw.truncate(at) } else { raw[at] = byte }
        reading::frame(&raw);
        reading::minify(&raw);
    }

    #[test]
    fn a_call_in_any_spelling_is_the_same_call(
        name in text(),
        arguments in object(),
        id in -9_007_199_254_740_991_i64..=9_007_199_254_740_991,
        choices in choices(),
    ) {
        use bartizan_gate::wire::frame::{Id, Malformed, Message, Sender};
        let member = |name: &str, tree| (name.to_owned(), tree);
        let params = vec![
            member("name", Tree::Text(name.clone())),
            member("arguments", arguments.clone()),
        ];
        let call = Tree::Object(vec![
            member("jsonrpc", Tree::Text("2.0".to_owned())),
            member("id", Tree::Number(id.to_string())),
            member("method", Tree::Text("tools/call".to_owned())),
            member("params", Tree::Object(params)),
        ]);
        let raw = spell(&call, &choices);
        if has_control_in_name(&call) {
            let fault = super::read(&raw, Sender::Client).unwrap_err();
            prop_assert!(matches!(fault, Malformed::ControlInName { .. }), "{:?}", fault);
        }
        let sender = if has_control_in_name(&call) { Sender::Server } else { Sender::Client };
        let frame = super::read(&raw, sender).unwrap();
        let wanted = Message::Request { id: Id::Number(id), method: "tools/call".into() };
        prop_assert_eq!(frame.message(), &wanted);
        let params = frame.params().unwrap();
        prop_assert_eq!(params.get("name").and_then(Value::as_str), Some(&*name));
        prop_assert!(reads_as(params.get("arguments").unwrap(), &arguments));
        prop_assert_eq!(frame.document().raw(), &Bytes::from(raw));
    }
}
