//! What documents cite of the sources: each test, file and function that a page names is there,
//! and each rule and threat that the sources name has its place in a page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::tables::{quoted, rows};
use super::{is_path, root, text_of};

/// Where sources are.
const SOURCES: &[&str] = &["src", "crates", "tests", "fuzz/src", "fuzz/fuzz_targets", "benches"];

const THREATS: &str = "| Id | Attack | What Bartizan does | Where | Held by |";
const CRATES: &str = "| Crate | What it is for | Uses of ours | Must not |";
const WAY: &str = "| # | What happens | File | Function |";

/// Rules of the strict profile.
const RULES: std::ops::RangeInclusive<u32> = 1..=16;

#[test]
fn each_rule_of_the_profile_has_its_place_and_its_tests() {
    let page = text_of("docs/strict-profile.md");
    let known = tests();
    let mut rule = 0;
    for section in page.split("\n## P").skip(1) {
        rule += 1;
        let lines: Vec<&str> = section.lines().collect();
        assert!(lines[0].starts_with(&format!("{rule}: ")), "the section after P{}", rule - 1);
        for part in ["**Rule.**", "**Why.**", "**Where.**", "**The client sees.**", "**Tests.**"] {
            let count = lines.iter().filter(|line| line.starts_with(part)).count();
            assert_eq!(count, 1, "P{rule}: {part}");
        }
        for line in lines {
            if line.starts_with("**Where.**") {
                stands_there(&format!("P{rule}"), line);
            }
            if line.starts_with("**Tests.**") {
                assert!(!quoted(line).is_empty(), "P{rule} has no test");
                for test in quoted(line) {
                    assert!(known.contains(test), "P{rule}: there is no test `{test}`");
                }
            }
        }
    }
    assert_eq!(rule, *RULES.end());
}

#[test]
fn each_threat_has_its_place_and_its_tests() {
    let page = text_of("docs/threats.md");
    let known = tests();
    let cases: String = rust_files("tests").iter().map(|path| read(path)).collect();
    let mut ids = BTreeSet::new();
    for row in rows(&page, THREATS) {
        let [id, .., place, held] = row.as_slice() else { panic!("{row:?}") };
        assert!(ids.insert(id.clone()), "{id} has two rows");
        stands_there(id, place);
        assert!(!quoted(held).is_empty(), "{id} has no test");
        for name in quoted(held) {
            let case = || [format!("\"{name}\""), format!("\"{id} {name}\"")];
            let found = if name.contains("::") {
                known.contains(name)
            } else {
                case().iter().any(|text| cases.contains(text.as_str()))
            };
            assert!(found, "{id}: there is no test or case `{name}`");
        }
    }
    let cited = cited_ids();
    assert!(cited.len() > 60, "{cited:?}");
    for (id, place) in cited {
        let rule = id.strip_prefix('P').and_then(|number| number.parse().ok());
        match rule {
            Some(rule) => assert!(RULES.contains(&rule), "{place}: there is no rule {id}"),
            None => assert!(ids.contains(&id), "{place}: docs/threats.md has no row {id}"),
        }
    }
}

#[test]
fn the_way_of_a_call_leads_through_functions_that_are_there() {
    let rows = rows(&text_of("ARCHITECTURE.md"), WAY);
    assert!(rows.len() > 10, "{}", rows.len());
    for row in rows {
        let [number, _, file, function] = row.as_slice() else { panic!("{row:?}") };
        let text = text_of(quoted(file)[0]);
        for function in quoted(function) {
            let there = text.contains(&format!("fn {function}("))
                || text.contains(&format!("fn {function}<"));
            assert!(there, "row {number}: {file} has no function `{function}`");
        }
    }
}

/// Each crate has its row, which names the crates of ours that its manifest names.
#[test]
fn the_map_of_the_crates_is_that_of_the_manifests() {
    let rows = rows(&text_of("ARCHITECTURE.md"), CRATES);
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap();
        let cell = format!("`crates/{name}`");
        let row = rows.iter().find(|row| row[0] == cell);
        let uses = &row.unwrap_or_else(|| panic!("ARCHITECTURE.md has no {cell}"))[2];
        let manifest = read(&folder.join("Cargo.toml"));
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
        let dependencies = dependencies.split("\n[").next().unwrap();
        let ours = dependencies.lines().filter_map(|line| line.strip_prefix("bartizan-"));
        let ours: Vec<&str> = ours.filter_map(|line| line.split(['.', ' ', '=']).next()).collect();
        let expected = if ours.is_empty() { "nothing".to_owned() } else { ours.join(", ") };
        assert_eq!(*uses, expected, "{cell} uses");
        count += 1;
    }
    assert!(count > 5 && rows.len() == count + 1, "{count} crates and `src`, {} rows", rows.len());
}

/// In a list of places each file is there, and names what is quoted behind it.
fn stands_there(what: &str, places: &str) {
    let mut file: Option<(&str, String)> = None;
    for text in quoted(places) {
        if is_path(text) {
            assert!(root().join(text).exists(), "{what}: `{text}` is not there");
            file = Some((
                text,
                if root().join(text).is_file() { text_of(text) } else { String::new() },
            ));
        } else {
            let (path, source) =
                file.as_ref().unwrap_or_else(|| panic!("{what}: `{text}` is where?"));
            assert!(source.contains(text), "{what}: `{path}` does not name `{text}`");
        }
    }
    assert!(file.is_some(), "{what} names no file: {places}");
}

/// The full names of all tests. Those of the one integration binary begin with their module, those
/// of a crate with its name: `frames::refusals::…`, `bartizan_gate::wire::headers::tests::…`.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in SOURCES {
        for path in rust_files(folder) {
            let module = module_of(&path);
            let (mut inner, mut marked) = (false, false);
            for line in read(&path).lines() {
                inner |= line.trim_start().starts_with("mod tests {");
                let line = line.trim_start();
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    marked = true;
                } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| marked) {
                    let name = rest.split(['(', '<']).next().unwrap();
                    let tests = if inner { "tests::" } else { "" };
                    found.insert(format!("{module}::{tests}{name}"));
                    marked = false;
                }
            }
        }
    }
    assert!(found.len() > 300, "{}", found.len());
    found
}

/// What precedes the names of the tests in a file.
fn module_of(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap().with_extension("");
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    let (head, rest): (Vec<String>, &[&str]) = match parts.as_slice() {
        ["tests", "it", rest @ ..] | ["tests" | "benches", rest @ ..] => (Vec::new(), rest),
        ["crates", name, "src" | "tests", rest @ ..] => (vec![format!("bartizan_{name}")], rest),
        ["src", rest @ ..] => (vec!["bartizan".to_owned()], rest),
        other => (Vec::new(), other),
    };
    let inner = rest.iter().filter(|part| !["lib", "mod", "main"].contains(part));
    let parts: Vec<String> = head.into_iter().chain(inner.map(|part| (*part).to_owned())).collect();
    parts.join("::")
}

/// Rules and threats that comments name, and those that a case of a test is for; with a place of
/// each.
fn cited_ids() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for folder in SOURCES {
        for path in rust_files(folder) {
            let text = read(&path);
            for (number, line) in text.lines().enumerate() {
                let place = format!("{}:{}", path.display(), number + 1);
                // `L1` to `L7` are MAESTRO's layers there.
                if !line.contains("layer") {
                    let comment = line.split_once("//").map_or("", |(_, comment)| comment);
                    found.extend(ids(comment).map(|id| (id, place.clone())));
                }
                // A case begins with its row.
                let texts = line.split('"').skip(1).step_by(2);
                let cases = texts.filter_map(|text| text.split(' ').next());
                let cases = cases
                    .filter(|word| is_id(word) && word.starts_with(|c| ('A'..='H').contains(&c)));
                found.extend(cases.map(|id| (id.to_owned(), place.clone())));
            }
        }
    }
    found
}

/// The words of `text` that are ids.
fn ids(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && !"-_+.\\".contains(c));
    words.map(|word| word.trim_end_matches('.')).filter(|word| is_id(word)).map(str::to_owned)
}

/// A letter from A to M, or P for a rule, and a number from 1 to 99.
fn is_id(word: &str) -> bool {
    let number = word.strip_prefix(|c| ('A'..='M').contains(&c) || c == 'P').unwrap_or_default();
    (1..=2).contains(&number.len())
        && !number.starts_with('0')
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn ids_are_told_from_other_words() {
    let found: Vec<String> =
        ids("(threats A1, C3 to C7.) L8, P10: H0 U+E1 x-A1 B256 \\u0041 N1").collect();
    assert_eq!(found, ["A1", "C3", "C7", "L8", "P10"]);
}
