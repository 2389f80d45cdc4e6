//! The guarantees of the types, as programs that must not compile: nobody outside the gate makes a
//! proof, copies one, or has an act without its record kept.
//!
//! Each `tests/ui/fail/*.rs` is given to the compiler beside the library that this test was built
//! with, so nothing is built twice. The error codes are compared always; the whole text, held in
//! the `.stderr` file beside, only with the compiler that wrote it (`compiler.txt`).
//! `UI_BLESS=1 cargo test --test ui` writes all of it anew after a change of compiler or types. Read
//! the difference then: the reason must stay the same.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The errors of the compiler that each case is about, in the order that it gives them. Texts may
/// change with the compiler; these must not.
const REASONS: &[(&str, &[&str])] = &[
    ("act_without_record", &["E0616"]),
    ("asserted_permit", &["E0624"]),
    ("asserted_release", &["E0624"]),
    ("copied_permit", &["E0308", "E0308"]),
    ("copied_release", &["E0308", "E0308"]),
    ("edited_permit", &["E0308"]),
    ("forged_permit", &["E0451"]),
    ("forged_release", &["E0451"]),
    ("named_payload", &["E0603"]),
    ("refused_record", &["E0609"]),
    ("repeated_step", &["E0382"]),
];

#[test]
fn the_one_way_compiles() {
    let said = compile(&folder().join("the_one_way.rs"));
    assert_eq!(said, "", "the cases below prove nothing if even this is refused");
}

#[test]
fn a_proof_cannot_be_forged_copied_or_skipped() {
    let mut files: Vec<PathBuf> = fs::read_dir(folder().join("fail"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect();
    files.sort();
    let names: Vec<&str> =
        files.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    let expected: Vec<&str> = REASONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, expected, "each case has its reasons, and each reason its case");
    let bless = std::env::var_os("UI_BLESS").is_some();
    let version = Command::new(rustc()).arg("--version").output().unwrap().stdout;
    let version_held = folder().join("compiler.txt");
    if bless {
        fs::write(&version_held, &version).unwrap();
    }
    let same_compiler = fs::read(version_held).unwrap() == version;
    for (path, (name, reasons)) in files.iter().zip(REASONS) {
        let said = compile(path);
        let codes: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("error[")?.split(']').next())
            .collect();
        assert_eq!(&codes[..], *reasons, "{name} is refused for another reason:\n{said}");
        let held = path.with_extension("stderr");
        if bless {
            fs::write(&held, &said).unwrap();
        }
        let held = fs::read_to_string(&held).unwrap_or_else(|_| panic!("{name} has no .stderr"));
        if same_compiler {
            assert_eq!(said, held, "{name}: the compiler says something else; see UI_BLESS above");
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui")
}

/// The compiler that built the library: in cargo's own directory, where toolchains are managed.
fn rustc() -> PathBuf {
    let beside = Path::new(env!("CARGO")).with_file_name("rustc");
    if beside.exists() { beside } else { PathBuf::from("rustc") }
}

/// What the compiler says about `path`, without line numbers of the library; empty if it accepts
/// it.
fn compile(path: &Path) -> String {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(rustc())
        .args(["--edition=2024", "--crate-type=bin", "--emit=metadata", "--cap-lints=allow"])
        .args(["--color=never", "--diagnostic-width=140", "--out-dir"])
        .arg(out.path())
        .arg("-L")
        .arg(format!("dependency={}", deps.display()))
        .arg("--extern")
        .arg(format!("bartizan_gate={}", library(&deps).display()))
        .arg(path.file_name().unwrap())
        .current_dir(path.parent().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said.lines().map(|line| without_place(line) + "\n").collect()
}

/// `line` without line and column, where it names a place in the library.
fn without_place(line: &str) -> String {
    match line.split_once(" crates/gate/src/") {
        Some((arrow, place)) if matches!(arrow.trim(), "-->" | ":::") => {
            let file = place.split(':').next().unwrap_or_default();
            format!("{arrow} crates/gate/src/{file}")
        }
        _ => line.to_owned(),
    }
}

/// The library beside this test: the one built last.
fn library(deps: &Path) -> PathBuf {
    fs::read_dir(deps)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let is_library = Path::new(name).extension().is_some_and(|end| end == "rlib");
            is_library && name.starts_with("libbartizan_gate-")
        })
        .max_by_key(|entry| entry.metadata().unwrap().modified().unwrap())
        .unwrap_or_else(|| panic!("no library in {}", deps.display()))
        .path()
}
