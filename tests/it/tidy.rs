//! The architecture as tests: what may name what, and what no file may do.
//!
//! Reads the sources as text, with comments, the contents of strings and test modules blanked out.
//! It matches names as text and resolves nothing. If a rule prevents a better design, change the
//! rule here, with the reason in the commit.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bartizan_gate::wire::method::Method;

/// The sources of each crate.
const CRATES: &[&str] = &[
    "crates/gate/src",
    "crates/jose/src",
    "crates/rego/src",
    "crates/outbound/src",
    "crates/approvals/src",
    "crates/replicas/src",
    "crates/assess/src",
    "crates/audit/src",
    "crates/metrics/src",
    "crates/edge/src",
    "crates/peer/src",
    "crates/demo/src",
    "crates/sync/src",
    "crates/testing/src",
    "src",
];

/// A function longer than this is on [`LONG_FUNCTIONS`].
const FUNCTION_LINES_MAX: usize = 70;

/// Functions over the limit, with their length in lines: `(file, function, lines)`. This
/// list may only shrink: no entry is added, no number raised, and what got shorter is written down.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// Crates whose modules use only those declared above them.
const ORDERED: &[&str] = &["crates/gate/src", "crates/rego/src"];

/// Circles of modules that are still there, each with its files. This list may only shrink.
const CIRCLES: &[&[&str]] = &[];

/// What the gate's manifest must not bring, at any depth.
const IMPURE_CRATES: &[&str] =
    &["tokio", "hyper", "regorus", "tracing", "opentelemetry", "rmcp", "rustix", "getrandom"];

/// What the standard library offers and the gate must not name: it is pure.
const IMPURE: &[&str] = &[
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

/// Inside the crates whose manifests name it, a foreign crate or a clock has one door: `(what,
/// where it may be named)`.
const DOORS: &[(&str, &[&str])] = &[
    // The pool measures age by the runtime's clock, which a test can pause.
    // The connection to the shared store is not tried again for a moment after it failed.
    // The flushing thread measures how long the disk takes.
    (
        "Instant::now",
        &[
            "crates/audit/src/commit.rs",
            "crates/edge/src/clock.rs",
            "crates/outbound/src/pool.rs",
            "crates/replicas/src/link.rs",
        ],
    ),
    ("SystemTime::now", &["crates/edge/src/clock.rs"]),
    ("socket2", &["crates/edge/src/http/connections.rs"]),
    ("redb", &["crates/approvals/src/store/embedded.rs"]),
    ("redis", &["crates/replicas/src/link.rs"]),
    ("governor", &["crates/gate/src/duty/limit/gcra.rs"]),
    ("tar", &["src/policy/bundle/archive.rs"]),
    ("rmcp", &["crates/demo/src/", "crates/peer/src/", "src/lock/"]),
    ("notify", &["src/policy/watch.rs"]),
    ("saphyr_parser", &["src/yaml.rs"]),
    ("clap", &["src/cli/"]),
    ("close_fds", &["src/confine/linux.rs"]),
    ("landlock", &["src/confine/linux.rs"]),
    ("libc", &["src/confine/linux.rs"]),
    ("seccompiler", &["src/confine/linux.rs"]),
];

/// The files of the edge that read JSON: messages that the gate has yet to judge, to find whose
/// they are or under which id they belong, and what is no message.
const EDGE_READERS: &[&str] = &[
    "crates/edge/src/admin/answer.rs",
    "crates/edge/src/admin/sign_in/provider.rs",
    "crates/edge/src/child/conversation.rs",
    "crates/edge/src/child/era.rs",
    "crates/edge/src/client/remote.rs",
    "crates/edge/src/oauth/metadata.rs",
    "crates/edge/src/oauth/token.rs",
    "crates/edge/src/upstream/legacy_sse/conversation.rs",
    "crates/edge/src/webhook/story.rs",
];

/// Where methods are named.
const METHOD_TABLE: &str = "crates/gate/src/wire/method.rs";

/// What would let two readers of one JSON text disagree, or a value change on its way.
const SERDE_JSON_FEATURES: &[&str] =
    &["arbitrary_precision", "raw_value", "unbounded_depth", "preserve_order"];

#[test]
fn the_gate_is_pure() {
    let mut found = String::new();
    for source in sources("crates/gate/src") {
        for name in IMPURE {
            for line in source.lines_naming(name) {
                writeln!(found, "{}:{line}: names `{name}`", source.path).unwrap();
            }
        }
    }
    assert_eq!(found, "", "the gate is pure: bytes and times come in, values go out");
}

#[test]
fn the_gate_brings_no_runtime_and_no_network() {
    let tree = cargo_tree(&["--package", "bartizan-gate", "--edges", "normal", "--prefix", "none"]);
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"serde_json"), "no tree: {tree}");
    for name in IMPURE_CRATES {
        assert!(!names.contains(name), "bartizan-gate depends on {name}");
    }
}

#[test]
fn a_module_uses_only_those_above_it() {
    for folder in ORDERED {
        let order = order_of_modules(folder);
        assert!(order[&vec![]].len() >= 5, "{order:?}");
        let mut found = String::new();
        for source in sources(folder) {
            let own = source.module();
            for (line, target) in references(&source, &order) {
                let Some((ours, theirs)) = first_difference(&own, &target, &order) else {
                    continue;
                };
                if theirs > ours {
                    let target = target.join("::");
                    writeln!(found, "{}:{line}: uses `{target}`, declared below", source.path)
                        .unwrap();
                }
            }
        }
        assert_eq!(found, "", "declare it above, or move what is shared up");
    }
}

#[test]
fn modules_use_one_another_in_no_circle() {
    let mut found: Vec<Vec<String>> = Vec::new();
    for folder in CRATES {
        let order = order_of_modules(folder);
        let mut uses: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for source in sources(folder) {
            let own = source.module();
            let targets = references(&source, &order).into_iter().map(|(_, target)| target);
            // A module and one inside it may use each other.
            let apart = targets.filter(|it| !it.starts_with(&own) && !own.starts_with(it));
            uses.entry(own.clone()).or_default().extend(apart);
        }
        // What can be reached from each module, and the modules that can be reached back.
        for module in uses.keys() {
            let circle: BTreeSet<&Module> = reached(module, &uses)
                .into_iter()
                .filter(|other| reached(other, &uses).contains(module))
                .collect();
            if circle.first() == Some(&module) {
                found
                    .push(circle.iter().map(|it| format!("{folder}: {}", it.join("::"))).collect());
            }
        }
    }
    assert_eq!(found, CIRCLES, "move what they share into a module of its own");
}

#[test]
fn a_foreign_crate_is_used_in_one_place() {
    let mut found = String::new();
    for source in all_sources() {
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
    for source in sources("crates/edge/src") {
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
    for source in all_sources() {
        for name in ["Permitted::issue_proof", "Released::issue_proof", "Self::issue_proof"] {
            for _ in source.lines_naming(name) {
                made.push((name, source.path.clone()));
            }
        }
        assert!(
            source.lines_naming("issue_proof").len()
                == source.code.matches("::issue_proof").count()
                    + source.code.matches("fn issue_proof").count(),
            "{}: a proof's maker is passed around or renamed",
            source.path
        );
    }
    let elsewhere: Vec<_> = made
        .iter()
        .filter(|(name, path)| {
            let refusal =
                *name == "Released::issue_proof" && path == "crates/gate/src/evidence/refusal.rs";
            !path.starts_with("crates/gate/src/session/") && !refusal
        })
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert!(made.iter().any(|(name, _)| *name == "Permitted::issue_proof"), "{made:?}");
}

#[test]
fn methods_are_named_in_the_table_alone() {
    let mut found = String::new();
    let mut rows = 0;
    let folders = ["crates/gate/src", "crates/edge/src"];
    for path in folders.iter().flat_map(|folder| rust_files(&root().join(folder))) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap();
        for (line, name) in method_literals(code) {
            if path == METHOD_TABLE {
                rows += 1;
            } else {
                writeln!(found, "{path}:{line}: names `{name}`").unwrap();
            }
        }
    }
    assert_eq!(found, "", "give the method table a column, and ask the row");
    assert_eq!(rows, Method::all().count() + 1, "each row, and how notifications begin");
}

/// The string literals in `code` that are names of methods, each with its line. One inside a
/// message that is written out is none: nothing is compared with it.
fn method_literals(code: &str) -> Vec<(usize, &'static str)> {
    let names = Method::all().map(|method| method.name).chain(["notifications/"]);
    let names: Vec<_> = names.map(|name| (name, format!("\"{name}\""))).collect();
    let mut found = Vec::new();
    for (number, line) in (1..).zip(code.lines()) {
        if line.trim_start().starts_with("//") {
            continue;
        }
        for (name, literal) in &names {
            let hits = line.match_indices(literal.as_str());
            let own = hits.filter(|(at, _)| !line[..*at].ends_with("\"method\":"));
            found.extend(own.map(|_| (number, *name)));
        }
    }
    found
}

#[test]
fn edges_read_no_message_that_the_gate_has_read() {
    let mut found = String::new();
    let mut readers = BTreeSet::new();
    for source in sources("crates/edge/src") {
        for name in ["Frame::read", "Document::read", "Batch::read", "serde_json::from_slice"] {
            for line in source.lines_naming(name) {
                if EDGE_READERS.contains(&&*source.path) {
                    readers.insert(source.path.clone());
                } else {
                    writeln!(found, "{}:{line}: names `{name}`", source.path).unwrap();
                }
            }
        }
    }
    assert_eq!(found, "", "ask the `Permitted` or the `Released`: it says what the gate read");
    assert_eq!(readers.len(), EDGE_READERS.len(), "take off the list what reads no more");
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut seen = 0;
    for folder in ["src", "crates", "tests", "benches", "fuzz/fuzz_targets", "fuzz/src"] {
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
    for source in all_sources() {
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
    for folder in ["src", "crates", "tests"] {
        for path in rust_files(&root().join(folder)) {
            let text = std::fs::read_to_string(&path).unwrap();
            // A test program that another test starts as a child is no test of its own.
            let text = text.replace("#[ignore = \"a child of other tests\"]", "");
            // Needs a server that is installed and started for it.
            let text = text.replace("#[ignore = \"run by tests/interop/redis.sh\"]", "");
            let ignored = blank(&text).contains("#[ignore");
            assert!(!ignored, "{}: has an ignored test", path.display());
        }
    }
}

#[test]
fn tests_that_need_a_server_are_run_by_a_script() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let script = read("tests/interop/redis.sh");
    assert!(script.contains("cargo test --locked -p bartizan-replicas --test server -- --ignored"));
    assert!(read(".ci/run").contains("\nrun tests/interop/redis.sh\n"));
}

#[test]
fn there_are_no_feature_flags() {
    let manifests = CRATES.iter().map(|folder| root().join(folder).with_file_name("Cargo.toml"));
    for path in manifests {
        let manifest = std::fs::read_to_string(&path).unwrap();
        let path = path.display();
        assert!(!manifest.contains("\n[features]"), "{path}: one program, one behaviour");
    }
}

#[test]
fn no_crate_changes_what_json_means() {
    let tree = cargo_tree(&["--workspace", "--edges", "features", "--invert", "serde_json"]);
    assert!(tree.contains("serde_json feature \"std\""), "no tree: {tree}");
    for feature in SERDE_JSON_FEATURES {
        let line = format!("serde_json feature \"{feature}\"");
        assert!(!tree.contains(&line), "a crate turns on {feature}:\n{tree}");
    }
}

/// What `cargo tree` prints for `arguments`, and what it complains of.
fn cargo_tree(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked"])
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
}

/// What can be reached from `module` by `uses`, itself only in a circle.
fn reached<'a>(
    module: &Module,
    uses: &'a BTreeMap<Module, BTreeSet<Module>>,
) -> BTreeSet<&'a Module> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&Module> = uses.get(module).into_iter().flatten().collect();
    while let Some(next) = open.pop() {
        if seen.insert(next) {
            open.extend(uses.get(next).into_iter().flatten());
        }
    }
    seen
}

/// One source file, without what is no code.
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

    /// Its module, as the names from the root of its crate; empty for the root itself.
    fn module(&self) -> Vec<String> {
        let path = self.path.split_once("src/").unwrap().1.trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if matches!(path, "lib" | "main") {
            return Vec::new();
        }
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

fn all_sources() -> impl Iterator<Item = Source> {
    CRATES.iter().flat_map(|folder| sources(folder))
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

/// A module, as the names from the root of its crate.
type Module = Vec<String>;

/// The modules that each module of the crate in `folder` declares, in order.
fn order_of_modules(folder: &str) -> BTreeMap<Module, Vec<String>> {
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
    sources(folder).iter().map(|source| (source.module(), declared(source))).collect()
}

/// The modules of its crate that `source` names, each with the line.
fn references(source: &Source, order: &BTreeMap<Module, Vec<String>>) -> Vec<(usize, Module)> {
    let own = source.module();
    let mut found = Vec::new();
    for start in ["super::", "self::", "crate::"] {
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
                "crate::" => base.clear(),
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

/// Where two modules part: the places of our branch and of theirs in the declarations of the module
/// that holds both. Absent where one lies within the other: parent and child may use each other.
fn first_difference(
    own: &Module,
    target: &Module,
    order: &BTreeMap<Module, Vec<String>>,
) -> Option<(usize, usize)> {
    let shared = own.iter().zip(target).take_while(|(ours, theirs)| ours == theirs).count();
    let (ours, theirs) = (own.get(shared)?, target.get(shared)?);
    let siblings = order.get(&own[..shared])?;
    let place = |name: &String| siblings.iter().position(|sibling| sibling == name);
    Some((place(ours)?, place(theirs)?))
}

mod the_checker_itself {
    //! Tests of the checker: it must find violations in small examples.

    use super::*;

    fn module(path: &str) -> Module {
        path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

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
        assert_eq!(found("Permitted::issue_proof(x)\nfn issue_proof()", "::issue_proof"), [1]);
        assert_eq!(found("an async\nasync_fn", "async"), [1]);
    }

    #[test]
    fn names_of_methods_are_found_as_literals() {
        for (code, lines) in [
            ("if name == \"tools/call\" {", &[1][..]),
            ("x\nmatch name {\n    \"ping\" => {}\n    \"initialize\" => {}", &[3, 4]),
            ("name.starts_with(\"notifications/\")", &[1]),
            ("// as in \"tools/call\"", &[]),
            ("r#\"{\"method\":\"tools/call\"}\"#", &[]),
            ("\"tools/caller\"", &[]),
        ] {
            let found: Vec<_> = method_literals(code).into_iter().map(|(line, _)| line).collect();
            assert_eq!(found, lines, "{code}");
        }
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
            (module(""), vec!["low".to_owned(), "mid".to_owned(), "top".to_owned()]),
            (module("low"), vec![]),
            (module("mid"), vec!["a".to_owned(), "b".to_owned()]),
            (module("mid::a"), vec![]),
            (module("mid::b"), vec![]),
            (module("top"), vec![]),
        ]);
        for (path, code, bad) in [
            ("crates/x/src/mid/a.rs", "use super::super::low::X;", false),
            ("crates/x/src/mid/a.rs", "use super::super::top::X;", true),
            ("crates/x/src/mid/a.rs", "use super::Parent;", false),
            ("crates/x/src/mid/a.rs", "use super::b::X;", true),
            ("crates/x/src/mid/b.rs", "use super::a::X;", false),
            ("crates/x/src/mid/mod.rs", "use self::b::X; use super::low;", false),
            ("crates/x/src/low.rs", "use super::{mid::X, Y};", true),
            ("crates/x/src/low.rs", "use crate::{a::B, top};", true),
            ("crates/x/src/low.rs", "let x = crate::mid::a::B::new();", true),
            ("crates/x/src/top.rs", "use super::{low::{A, B}, mid::b};", false),
        ] {
            let source = source(path, code);
            let own = source.module();
            let found = references(&source, &order).into_iter().any(|(_, target)| {
                first_difference(&own, &target, &order).is_some_and(|(ours, theirs)| theirs > ours)
            });
            assert_eq!(found, bad, "{path}: {code}");
        }
    }
}
