//! OPA's own tools work on the policies that ship: what can be checked of it without them.
//! `tests/differential/opa.py` runs the tests of these policies in OPA itself, and the examples of
//! `docs/opa-differences.md`.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bartizan::policy::bundle::LocalBundle;
use bartizan::policy::load::{PolicyFiles, load};
use bartizan_gate::duty::decision::Engine;
use bartizan_rego::{
    Entrypoints, EvalLimits, Module, Policy, PolicyProblem, PolicySources, run_tests,
};
use serde_json::{Map, Value};

use crate::policies::{files, policies};
use crate::readme::tables::{quoted, rows};

fn rego() -> Vec<(PathBuf, String)> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let found = [policies(), deploy].iter().flat_map(|it| files(it, ".rego")).collect::<Vec<_>>();
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn package(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("package ")).unwrap()
}

/// How many blocks of metadata annotate the package: those that stand directly above its name, and
/// those that say so.
fn annotations(text: &str) -> usize {
    let mut found = Vec::new();
    let mut block = false;
    for line in text.lines() {
        if line == "# METADATA" {
            block = true;
        } else if block && !line.starts_with('#') {
            found.extend(line.starts_with("package ").then_some(line));
            block = false;
        } else if block && matches!(line, "# scope: package" | "# scope: subpackages") {
            found.push(line);
            block = false;
        }
    }
    found.len()
}

/// OPA: "package annotation redeclared". `package mcp` has files of many authors, so ours leave its
/// annotation to its user.
#[test]
fn no_package_is_annotated_twice() {
    assert_eq!(annotations("# METADATA\n# title: a\npackage mcp\n"), 1);
    let mut packages: BTreeMap<String, usize> = BTreeMap::new();
    for (_, text) in rego() {
        *packages.entry(package(&text).to_owned()).or_default() += annotations(&text);
    }
    assert!(packages.len() > 20, "{packages:?}");
    for (package, count) in packages {
        let most = usize::from(package != "mcp");
        assert!(count <= most, "{count} blocks of metadata annotate `{package}`");
    }
}

/// Adds `document` to `data` as OPA does: objects are merged, and all else must be new.
fn merge(data: &mut Map<String, Value>, document: Map<String, Value>) -> Result<(), String> {
    for (key, value) in document {
        match (data.get_mut(&key), value) {
            (None, value) => {
                data.insert(key, value);
            }
            (Some(Value::Object(data)), Value::Object(value)) => merge(data, value)?,
            (Some(_), _) => return Err(key),
        }
    }
    Ok(())
}

/// `opa test policies/` makes each JSON and YAML file data at its directory.
#[test]
fn no_two_files_are_the_same_data() {
    let mut data = Map::new();
    let mut read = 0;
    for ending in [".json", ".yaml", ".yml"] {
        for path in files(&policies(), ending) {
            assert_eq!(ending, ".json", "{}: read as YAML, it could collide", path.display());
            let mut document: Value =
                serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            let below = path.strip_prefix(policies()).unwrap().parent().unwrap();
            for directory in below.iter().rev() {
                document = Value::Object(
                    [(directory.to_str().unwrap().into(), document)].into_iter().collect(),
                );
            }
            let Value::Object(document) = document else { panic!("{}", path.display()) };
            merge(&mut data, document)
                .unwrap_or_else(|key| panic!("{}: `{key}` is in another file", path.display()));
            read += 1;
        }
    }
    assert!(read >= 20, "{read}");
}

/// `opa test` and Regal take a rule for a test by its name, and a file by its.
#[test]
fn tests_stand_in_files_and_packages_for_tests() {
    let mut tests = 0;
    for (path, text) in rego() {
        let of_tests = path.to_str().unwrap().ends_with("_test.rego");
        assert_eq!(of_tests, package(&text).ends_with("_test"), "{}", path.display());
        let found = text.lines().filter(|line| line.starts_with("test_")).count();
        assert!(of_tests || found == 0, "{}", path.display());
        tests += found;
    }
    assert!(tests > 90, "{tests}");
}

/// What `opa fmt` changes and a look at the lines shows.
#[test]
fn files_are_laid_out_as_opa_fmt_does() {
    for (path, text) in rego() {
        let path = path.display();
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{path}: its end");
        assert!(!text.contains("\n\n\n"), "{path}: two empty lines");
        assert!(text.contains(&format!("package {}\n\n", package(&text))), "{path}: the package");
        for (number, line) in (1..).zip(text.lines()) {
            assert_eq!(line, line.trim_end(), "{path}:{number}: blanks at the end");
            let indent = line.len() - line.trim_start().len();
            assert!(line.bytes().take(indent).all(|it| it == b'\t'), "{path}:{number}: no tabs");
        }
    }
}

/// `opa test -b policies/`: the directory is a bundle, here as well.
#[test]
fn the_directory_is_a_bundle_whose_tests_pass() {
    let bundle = LocalBundle { path: policies(), signing: None };
    let files = PolicyFiles { bundle: Some(bundle), ..PolicyFiles::default() };
    let loaded = load(&files).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let tests = run_tests(&loaded.proving, &EvalLimits::default()).unwrap();
    let failed: Vec<_> = tests.iter().filter(|test| !test.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(tests.len() > 90, "{}", tests.len());
}

fn policy(rules: &str) -> Result<Policy, Vec<PolicyProblem>> {
    let text = format!("package p\n\n{rules}\n");
    let modules = vec![Module { path: "p.rego".to_owned(), text }];
    let sources = PolicySources { modules, data: None, revision: "r1".into() };
    let entry = || "data.p.x".to_owned();
    let entrypoints = Entrypoints { decision: entry(), listing: entry() };
    Policy::compile(&sources, &entrypoints, &EvalLimits::default())
}

/// What comes of `x` on an engine, in the words of the page.
fn outcomes(rules: &str) -> Vec<String> {
    let Ok(policy) = policy(rules) else { return vec!["Refused at load".to_owned()] };
    let mut engines = vec![Engine::Strict];
    engines.extend(policy.obstacles().is_empty().then_some(Engine::Compiled));
    let input = r#"{"n": 1, "s": "a"}"#;
    let value = |engine| policy.evaluate("data.p.x", input, engine);
    let said = |engine| value(engine).unwrap_or_else(|_| "The evaluation fails".to_owned());
    engines.into_iter().map(said).collect()
}

/// Each example of the page does here what the page says; `opa.py` compares its other column.
#[test]
fn the_page_of_differences_says_what_happens_here() {
    let page = include_str!("../../docs/opa-differences.md");
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::<String, usize>::new();
    for row in rows(page, "| What | Example | OPA | Here |") {
        let [_, example, _, here] = row.as_slice() else { panic!("{row:?}") };
        if example.is_empty() {
            continue;
        }
        let rules = quoted(example).join("\n");
        for outcome in outcomes(&rules) {
            let shown = here.trim_start_matches('`');
            if !shown.starts_with(&outcome) {
                wrong.push(format!("{rules}: {outcome}, but the page says: {here}"));
            }
            *seen.entry(outcome).or_default() += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen["Refused at load"] >= 10 && seen["The evaluation fails"] >= 5, "{seen:?}");
    assert!(seen.len() >= 4, "{seen:?}");
}
