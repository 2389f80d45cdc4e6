//! The architecture as tests: what may name what, and what no file may do.
//!
//! Reads the sources as text, with comments, the contents of strings and test modules blanked out.
//! It is no compiler: a name is a name. Where a rule gets in the way of a better design, change the
//! rule here, in the open.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A function longer than this is on [`LONG_FUNCTIONS`].
const FUNCTION_LINES_MAX: usize = 70;

/// Functions of `src` over the limit, with their length in lines: `(file, function, lines)`. This
/// list may only shrink: no entry is added, no number raised, and what got shorter is written down.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// Modules of the gate whose own parts are not in order yet. This list may only shrink.
const UNORDERED: &[&str] = &["gate::rego"];

/// What `gate/` must not name: it is pure.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio_util",
    "hyper",
    "hyper_util",
    "tracing",
    "opentelemetry",
    "rmcp",
    "rustix",
    "notify",
    "getrandom",
    "std::net",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "async",
    "await",
    "println",
    "eprintln",
];

/// One foreign crate, one door: `(what, where it may be named)`.
const DOORS: &[(&str, &[&str])] = &[
    ("regorus", &["src/gate/rego/"]),
    ("governor", &["src/gate/limit.rs"]),
    ("opentelemetry", &["src/audit/"]),
    ("opentelemetry_sdk", &["src/audit/"]),
    ("opentelemetry_otlp", &["src/audit/"]),
    ("opentelemetry_http", &["src/audit/"]),
    ("Instant::now", &["src/edge/clock.rs"]),
    ("SystemTime::now", &["src/edge/clock.rs"]),
    ("hyper", &["src/edge/", "src/demo/", "src/audit/collector.rs"]),
    ("hyper_util", &["src/edge/", "src/demo/", "src/audit/collector.rs"]),
    ("hyper_rustls", &["src/edge/", "src/audit/collector.rs"]),
    ("rustls", &["src/edge/", "src/audit/collector.rs"]),
    ("ring", &["src/edge/", "src/audit/collector.rs", "src/policy/bundle/"]),
    ("tar", &["src/policy/bundle/archive.rs"]),
    ("rmcp", &["src/demo/", "src/lock/ask.rs"]),
    ("notify", &["src/policy/watch.rs"]),
    ("saphyr_parser", &["src/yaml.rs"]),
    ("clap", &["src/cli/"]),
];

/// What would let two readers of one JSON text disagree, or a value change on its way.
const SERDE_JSON_FEATURES: &[&str] =
    &["arbitrary_precision", "raw_value", "unbounded_depth", "preserve_order"];

#[test]
fn the_gate_is_pure() {
    let mut found = String::new();
    for source in sources("src/gate") {
        for name in IMPURE {
            for line in source.lines_naming(name) {
                writeln!(found, "{}:{line}: names `{name}`", source.path).unwrap();
            }
        }
    }
    assert_eq!(found, "", "`gate/` is pure: bytes and times come in, values go out");
}

#[test]
fn a_module_of_the_gate_uses_only_those_above_it() {
    let order = order_of_modules();
    assert!(order[&gate(&[])].len() > 10, "{order:?}");
    let mut found = String::new();
    let mut unordered: Vec<&str> = UNORDERED.to_vec();
    for source in sources("src/gate") {
        let own = source.module();
        for (line, target) in references(&source, &order) {
            let Some((parent, ours, theirs)) = first_difference(&own, &target, &order) else {
                continue;
            };
            if theirs <= ours {
                continue;
            }
            let target = target.join("::");
            if UNORDERED.contains(&parent.as_str()) {
                unordered.retain(|name| *name != parent);
            } else {
                writeln!(found, "{}:{line}: uses `{target}`, declared below", source.path).unwrap();
            }
        }
    }
    assert_eq!(found, "", "declare it above, or move what is shared up");
    assert!(unordered.is_empty(), "{unordered:?} is in order now: take it off UNORDERED");
}

#[test]
fn a_foreign_crate_has_one_door() {
    let mut found = String::new();
    for source in sources("src") {
        for (name, doors) in DOORS {
            if doors.iter().any(|door| source.path.starts_with(door)) {
                continue;
            }
            for line in source.lines_naming(name) {
                writeln!(found, "{}:{line}: names `{name}`: only {doors:?}", source.path).unwrap();
            }
        }
    }
    assert_eq!(found, "");
}

#[test]
fn edges_decide_nothing() {
    let mut found = String::new();
    for source in sources("src/edge") {
        for name in ["Decision", "Effect", "Obligation", "Pdp"] {
            for line in source.lines_naming(name) {
                writeln!(found, "{}:{line}: names `{name}`", source.path).unwrap();
            }
        }
    }
    assert_eq!(found, "", "an edge carries out acts; what they are is the gate's business");
}

#[test]
fn proofs_are_made_by_the_session_alone() {
    let mut made = Vec::new();
    for source in sources("src") {
        for name in ["Permitted::assertion", "Released::assertion", "Self::assertion"] {
            for _ in source.lines_naming(name) {
                made.push((name, source.path.clone()));
            }
        }
        assert!(
            source.lines_naming("assertion").len()
                == source.code.matches("::assertion").count()
                    + source.code.matches("fn assertion").count(),
            "{}: a proof's maker is passed around or renamed",
            source.path
        );
    }
    let elsewhere: Vec<_> = made
        .iter()
        .filter(|(name, path)| {
            let refusal = *name == "Released::assertion" && path == "src/gate/refusal.rs";
            !path.starts_with("src/gate/session/") && !refusal
        })
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert!(made.iter().any(|(name, _)| *name == "Permitted::assertion"), "{made:?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut seen = 0;
    for folder in ["src", "tests", "benches", "fuzz/fuzz_targets", "fuzz/src"] {
        for path in rust_files(&root().join(folder)) {
            let text = std::fs::read_to_string(&path).unwrap();
            // A fuzz target opens with the attribute that says that it has no `main`.
            let text = text.strip_prefix("#![no_main]\n").unwrap_or(&text);
            assert!(text.starts_with("//! "), "{}: opens with no module doc", path.display());
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn long_functions_only_get_fewer_and_shorter() {
    let mut listed: BTreeMap<(String, String), usize> = LONG_FUNCTIONS
        .iter()
        .map(|(file, name, lines)| (((*file).to_owned(), (*name).to_owned()), *lines))
        .collect();
    let mut found = String::new();
    for source in sources("src") {
        for (line, name, lines) in functions(&source.code) {
            let allowed = listed.get(&(source.path.clone(), name.clone())).copied();
            if lines <= FUNCTION_LINES_MAX {
                continue;
            }
            listed.remove(&(source.path.clone(), name.clone()));
            if allowed != Some(lines) {
                let listed = allowed.map_or("not listed".to_owned(), |n| format!("listed: {n}"));
                writeln!(found, "{}:{line}: `{name}` has {lines} lines ({listed})", source.path)
                    .unwrap();
            }
        }
    }
    for ((file, name), _) in listed {
        writeln!(found, "{file}: `{name}` is short enough now: take it off the list").unwrap();
    }
    assert_eq!(found, "", "split it, or write a smaller number into LONG_FUNCTIONS");
}

#[test]
fn no_test_is_left_out() {
    for folder in ["src", "tests"] {
        for path in rust_files(&root().join(folder)) {
            let text = std::fs::read_to_string(&path).unwrap();
            // A test program that another test starts as a child is no test of its own.
            let text = text.replace("#[ignore = \"a child of other tests\"]", "");
            let ignored = blank(&text).contains("#[ignore");
            assert!(!ignored, "{}: has an ignored test", path.display());
        }
    }
}

#[test]
fn there_are_no_feature_flags() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("\n[features]"), "one program, one behaviour");
}

#[test]
fn no_crate_changes_what_json_means() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "features", "--invert", "serde_json"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(tree.contains("serde_json feature \"std\""), "no tree: {complaint}");
    for feature in SERDE_JSON_FEATURES {
        let line = format!("serde_json feature \"{feature}\"");
        assert!(!tree.contains(&line), "a crate turns on {feature}:\n{tree}");
    }
}

/// One file of `src`, without what is no code.
struct Source {
    /// From the root, with `/`.
    path: String,
    /// The text with comments, strings and the test module blanked, line for line.
    code: String,
}

impl Source {
    /// The lines, from 1, on which `name` stands as a whole word. `std::x` is also found in
    /// `std::{x, …}`.
    fn lines_naming(&self, name: &str) -> Vec<usize> {
        let group = name.split_once("std::").map(|(_, inner)| inner);
        let mut inside_std_group = false;
        let mut lines = Vec::new();
        for (i, line) in self.code.lines().enumerate() {
            inside_std_group |= line.contains("use std::{");
            let grouped = inside_std_group && group.is_some_and(|inner| has_word(line, inner));
            if grouped || has_word(line, name) {
                lines.push(i + 1);
            }
            inside_std_group &= !line.contains(';');
        }
        lines
    }

    /// Its module, as the names from the crate's root.
    fn module(&self) -> Vec<String> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        path.split('/').map(str::to_owned).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return files };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn sources(folder: &str) -> Vec<Source> {
    let files = rust_files(&root().join(folder));
    assert!(!files.is_empty(), "{folder} has no sources");
    let source = |path: &PathBuf| {
        let mut code = blank(&std::fs::read_to_string(path).unwrap());
        // Tests come last in a file and may do what they like.
        if let Some(tests) = code.find("#[cfg(test)]\nmod tests {") {
            code.truncate(tests);
        }
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        Source { path, code }
    };
    files.iter().filter(|path| !path.ends_with("tests.rs")).map(source).collect()
}

/// Whether `word` stands in `line`, with no letter, digit or `_` beside it.
fn has_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let joined = word.starts_with(is_name) && line[..at].ends_with(is_name);
        !joined && !line[at + word.len()..].starts_with(is_name)
    })
}

/// `text` with comments and the contents of strings and characters replaced by spaces; every line
/// stays where it is.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest, 0),
            'r' if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if taken == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..taken].chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = &rest[taken..];
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().unwrap().len_utf8();
        }
    }
    text.len()
}

fn quoted(text: &str, opened: usize) -> usize {
    let mut escaped = false;
    for (at, c) in text[opened + 1..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return opened + 1 + at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> usize {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    text[body..].find(&end).map_or(text.len(), |at| body + at + end.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| 3 + at + 1),
        Some((_, _)) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

/// The functions of `code`: the line of each, its name, and its length from `fn` to its end.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at..];
        let name: String =
            rest[3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(length) = body_end(rest) else { continue };
        let line = code[..at].matches('\n').count() + 1;
        if !name.is_empty() {
            found.push((line, name, rest[..length].matches('\n').count() + 1));
        }
    }
    found
}

/// Where the body of the function that `text` begins with ends; absent for a mere signature.
fn body_end(text: &str) -> Option<usize> {
    let mut braces = 0_usize;
    let mut others = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.checked_sub(1)?,
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// A module of the gate.
type Module = Vec<String>;

fn gate(names: &[&str]) -> Module {
    std::iter::once("gate").chain(names.iter().copied()).map(str::to_owned).collect()
}

/// The modules that each module of the gate declares, in order.
fn order_of_modules() -> BTreeMap<Module, Vec<String>> {
    let declared = |source: &Source| {
        source
            .code
            .lines()
            .filter_map(|line| {
                let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
                line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
            })
            .collect()
    };
    sources("src/gate").iter().map(|source| (source.module(), declared(source))).collect()
}

/// The modules of the gate that `source` names, each with the line.
fn references(source: &Source, order: &BTreeMap<Module, Vec<String>>) -> Vec<(usize, Module)> {
    let own = source.module();
    let mut found = Vec::new();
    for start in ["super::", "self::", "crate::gate::"] {
        for (at, _) in source.code.match_indices(start) {
            let before = &source.code[..at];
            // A later `super::` of a chain was read with its first.
            if before.ends_with("::") || before.ends_with(|c: char| c.is_alphanumeric()) {
                continue;
            }
            let line = before.matches('\n').count() + 1;
            let mut rest = &source.code[at + start.len()..];
            let mut base = own.clone();
            match start {
                "super::" => drop(base.pop()),
                "crate::gate::" => base = gate(&[]),
                _ => {}
            }
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
            found.extend(named(rest, &base, order).into_iter().map(|target| (line, target)));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The modules that a path below `base` names: `a::b::C`, or `{a::C, b::{D, E}}`.
fn named(path: &str, base: &Module, order: &BTreeMap<Module, Vec<String>>) -> Vec<Module> {
    let mut paths = Vec::new();
    if let Some(group) = path.strip_prefix('{') {
        let mut depth = 0_usize;
        let mut start = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                ',' if depth == 0 => {
                    paths.push(&group[start..at]);
                    start = at + 1;
                }
                '}' if depth == 0 => {
                    paths.push(&group[start..at]);
                    break;
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    } else {
        paths.push(path);
    }
    let mut targets = Vec::new();
    for path in paths {
        let path = path.trim_start();
        let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let children = order.get(base).map(Vec::as_slice).unwrap_or_default();
        if children.contains(&name) {
            let mut deeper = base.clone();
            deeper.push(name.clone());
            match path[name.len()..].strip_prefix("::") {
                Some(rest) if order.contains_key(&deeper) => {
                    targets.extend(named(rest, &deeper, order));
                }
                _ => targets.push(deeper),
            }
        } else {
            // An item of `base` itself.
            targets.push(base.clone());
        }
    }
    targets
}

/// Where two modules part: the module that holds both branches, and the places of our branch and
/// of theirs in its declarations. Absent where one lies within the other: parent and child may use
/// each other.
fn first_difference(
    own: &Module,
    target: &Module,
    order: &BTreeMap<Module, Vec<String>>,
) -> Option<(String, usize, usize)> {
    let shared = own.iter().zip(target).take_while(|(ours, theirs)| ours == theirs).count();
    let (ours, theirs) = (own.get(shared)?, target.get(shared)?);
    let siblings = order.get(&own[..shared])?;
    let place = |name: &String| siblings.iter().position(|sibling| sibling == name);
    Some((own[..shared].join("::"), place(ours)?, place(theirs)?))
}

mod the_checker_itself {
    //! A checker that finds nothing is no better than none.

    use super::*;

    fn source(path: &str, code: &str) -> Source {
        Source { path: path.to_owned(), code: blank(code) }
    }

    #[test]
    fn what_is_no_code_is_blanked() {
        for (text, expected) in [
            ("a // tokio\nb", "a         \nb"),
            ("a /* x /* y */ \n z */ b", "a              \n      b"),
            ("f(\"tokio \\\" x\") g", "f(            ) g"),
            ("r#\"a \" b\"# c", "           c"),
            ("for'", "for'"),
            ("'a' <'a> '\\'' 'é'", "    <'a>          "),
            ("b\"x\" y", "b    y"),
        ] {
            let blanked = blank(text);
            assert_eq!(blanked.trim_end(), expected.trim_end(), "{text}");
        }
    }

    #[test]
    fn names_are_found_as_words() {
        let found = |code: &str, name: &str| source("src/x.rs", code).lines_naming(name);
        assert_eq!(found("use tokio::x;\n// tokio\nmy_tokio", "tokio"), [1]);
        assert_eq!(found("use std::{\n  fs,\n};\nfs();", "std::fs"), [2]);
        assert_eq!(found("std::fs::read()", "std::fs"), [1]);
        assert_eq!(found("Permitted::assertion(x)\nfn assertion()", "::assertion"), [1]);
        assert_eq!(found("an async\nasync_fn", "async"), [1]);
    }

    #[test]
    fn functions_are_measured() {
        let code =
            "trait T { fn a(&self); }\nfn b<const N: usize>(x: [u8; 3]) {\n  {}\n}\nfn c() {}";
        let found = functions(code);
        assert_eq!(found, [(2, "b".to_owned(), 3), (5, "c".to_owned(), 1)]);
    }

    #[test]
    fn a_use_of_a_lower_module_is_found() {
        let order = BTreeMap::from([
            (gate(&[]), vec!["low".to_owned(), "mid".to_owned(), "top".to_owned()]),
            (gate(&["low"]), vec![]),
            (gate(&["mid"]), vec!["a".to_owned(), "b".to_owned()]),
            (gate(&["mid", "a"]), vec![]),
            (gate(&["mid", "b"]), vec![]),
            (gate(&["top"]), vec![]),
        ]);
        for (path, code, bad) in [
            ("src/gate/mid/a.rs", "use super::super::low::X;", false),
            ("src/gate/mid/a.rs", "use super::super::top::X;", true),
            ("src/gate/mid/a.rs", "use super::Parent;", false),
            ("src/gate/mid/a.rs", "use super::b::X;", true),
            ("src/gate/mid/b.rs", "use super::a::X;", false),
            ("src/gate/mid/mod.rs", "use self::b::X; use super::low;", false),
            ("src/gate/low.rs", "use super::{mid::X, Y};", true),
            ("src/gate/low.rs", "use crate::gate::{a::B, top};", true),
            ("src/gate/low.rs", "let x = crate::gate::mid::a::B::new();", true),
            ("src/gate/top.rs", "use super::{low::{A, B}, mid::b};", false),
        ] {
            let source = source(path, code);
            let own = source.module();
            let found = references(&source, &order).into_iter().any(|(_, target)| {
                first_difference(&own, &target, &order)
                    .is_some_and(|(_, ours, theirs)| theirs > ours)
            });
            assert_eq!(found, bad, "{path}: {code}");
        }
    }
}
