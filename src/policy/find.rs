//! Finds policy files without reading them.
//!
//! The walk has limits, is sorted, follows links only inside the named directory, and visits no
//! file twice. Its result also tells whether anything changed since an earlier walk.
//! [`load`](super::load) reads the files, and `watch` compares fingerprints.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::bundle::members::{MANIFEST, SIGNATURES};
use super::files::{HINT_PATH, HINT_READ, LoadLimits, PROBLEMS_MAX, PolicyFiles, problem, shown};
use bartizan_rego::PolicyProblem;

/// Metadata of a policy's files. A different fingerprint means that the files must be read again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint {
    pub(super) entries: Vec<FoundFile>,
    pub(super) problems: Vec<PolicyProblem>,
}

/// What a [`FoundFile`] contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileContent {
    /// Rego rules.
    Rules,
    /// Rego rules in `*_test.rego`: used for the proof only.
    Tests,
    /// A JSON object for the place in `data` that these names lead to.
    Data(Vec<String>),
    /// A file of a bundle, or a whole bundle; its content decides what it is.
    Member,
}

/// One file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundFile {
    /// The path below the name that the operator gave, for messages.
    pub(super) shown: String,
    /// The path relative to the named directory. It is part of the revision, so it is the same on
    /// every host.
    pub(super) name: String,
    /// The canonical path, with links resolved.
    pub(super) real: PathBuf,
    pub(super) content: FileContent,
    bytes: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

/// Finds the files of `files` without reading them. Problems are part of the result.
pub fn fingerprint(files: &PolicyFiles) -> Fingerprint {
    let mut walk = PolicyWalk {
        bundle: files.bundle.is_some(),
        limits: files.limits,
        found: Fingerprint::default(),
        seen: BTreeSet::new(),
        entries_left: files.limits.entries_max,
    };
    let bundle = files.bundle.as_ref().map(|bundle| &bundle.path);
    for path in files.paths.iter().chain(bundle) {
        walk.root(path);
    }
    walk.found
}

/// The state of one walk over the configured paths.
struct PolicyWalk {
    limits: LoadLimits,
    /// Whether every file counts, because the paths are a bundle.
    bundle: bool,
    found: Fingerprint,
    /// Canonical paths that were visited, so that nothing is read twice and a cycle of links ends.
    seen: BTreeSet<PathBuf>,
    entries_left: usize,
}

/// A directory in the walk: `shown` is for messages, `names` is the path below the root.
struct WalkedDirectory<'a> {
    root: &'a Path,
    shown: PathBuf,
    names: Vec<String>,
}

impl PolicyWalk {
    fn problem(&mut self, path: &Path, message: impl Into<String>, hint: &str) {
        if self.found.problems.len() < PROBLEMS_MAX {
            self.found.problems.push(problem(shown(path), message.into(), hint));
        }
    }

    fn root(&mut self, path: &Path) {
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) => {
                return self.problem(path, format!("cannot be opened: {error}"), HINT_PATH);
            }
        };
        match fs::metadata(&real) {
            Ok(metadata) if metadata.is_dir() => {
                let place =
                    WalkedDirectory { root: &real, shown: path.to_path_buf(), names: Vec::new() };
                self.directory(&real, &place);
            }
            Ok(metadata) => {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let extension = path.extension().and_then(|extension| extension.to_str());
                match (rules(name), extension) {
                    _ if self.bundle => {
                        self.file(path, &[name.into()], real, FileContent::Member, &metadata);
                    }
                    (Some(content), _) => self.file(path, &[name.into()], real, content, &metadata),
                    (None, Some("json")) => {
                        self.file(
                            path,
                            &[name.into()],
                            real,
                            FileContent::Data(Vec::new()),
                            &metadata,
                        );
                    }
                    (None, _) => self.problem(path, "neither `.rego` nor `.json`", HINT_PATH),
                }
            }
            Err(error) => self.problem(path, format!("cannot be opened: {error}"), HINT_PATH),
        }
    }

    fn directory(&mut self, real: &Path, directory: &WalkedDirectory<'_>) {
        if !self.seen.insert(real.to_path_buf()) {
            return;
        }
        if directory.names.len() > self.limits.depth_max {
            let message = format!("more than {} directories deep", self.limits.depth_max);
            return self.problem(&directory.shown, message, "name the inner directory itself");
        }
        let mut names = Vec::new();
        let entries = match fs::read_dir(real) {
            Ok(entries) => entries,
            Err(error) => {
                return self.problem(
                    &directory.shown,
                    format!("cannot be listed: {error}"),
                    HINT_READ,
                );
            }
        };
        for entry in entries {
            let Some(left) = self.entries_left.checked_sub(1) else {
                let message = format!("more than {} entries", self.limits.entries_max);
                return self.problem(
                    &directory.shown,
                    message,
                    "keep policies in their own directory",
                );
            };
            self.entries_left = left;
            match entry {
                Ok(entry) => names.push(entry.file_name()),
                Err(error) => {
                    let message = format!("cannot be listed: {error}");
                    return self.problem(&directory.shown, message, HINT_READ);
                }
            }
        }
        names.sort();
        for name in names {
            let path = directory.shown.join(&name);
            match name.to_str() {
                // Skip hidden files, among them the versioned directories of a mounted ConfigMap.
                Some(name) if name.starts_with('.') && !self.is_bundle_fact(name, directory) => {}
                Some(name) => self.child(real, directory, name),
                None if path.extension().is_some_and(|extension| extension == "rego") => {
                    self.problem(&path, "the name is not UTF-8", "rename the file");
                }
                None => {}
            }
        }
    }

    /// Whether a hidden file is the manifest or signature at the root of a bundle.
    fn is_bundle_fact(&self, name: &str, directory: &WalkedDirectory<'_>) -> bool {
        self.bundle && directory.names.is_empty() && matches!(name, MANIFEST | SIGNATURES)
    }

    fn child(&mut self, real: &Path, directory: &WalkedDirectory<'_>, name: &str) {
        let path = directory.shown.join(name);
        let content = match name {
            _ if self.bundle => Some(FileContent::Member),
            "data.json" => Some(FileContent::Data(directory.names.clone())),
            "data.yaml" | "data.yml" => {
                return self.problem(&path, "data must be JSON", "write it as data.json");
            }
            name => rules(name),
        };
        let real = match fs::canonicalize(real.join(name)) {
            Ok(real) => real,
            // A dangling link that does not have the name of a policy file is ignored.
            Err(_) if content.is_none() => return,
            Err(error) => {
                return self.problem(&path, format!("cannot be opened: {error}"), HINT_READ);
            }
        };
        let metadata = match fs::metadata(&real) {
            Ok(metadata) => metadata,
            Err(_) if content.is_none() => return,
            Err(error) => {
                return self.problem(&path, format!("cannot be opened: {error}"), HINT_READ);
            }
        };
        if content.is_none() && !metadata.is_dir() {
            return;
        }
        if !real.starts_with(directory.root) {
            return self.problem(
                &path,
                "links outside of the named directory",
                "name its target in `policy.paths` as well",
            );
        }
        let mut names = directory.names.clone();
        names.push(name.to_owned());
        if metadata.is_dir() {
            let place = WalkedDirectory { root: directory.root, shown: path, names };
            self.directory(&real, &place);
        } else if let Some(content) = content {
            self.file(&path, &names, real, content, &metadata);
        }
    }

    fn file(
        &mut self,
        path: &Path,
        names: &[String],
        real: PathBuf,
        content: FileContent,
        metadata: &fs::Metadata,
    ) {
        if !metadata.is_file() {
            return self.problem(path, "not a regular file", HINT_PATH);
        }
        if self.found.entries.len() >= self.limits.files_max {
            let message = format!("more than {} files", self.limits.files_max);
            return self.problem(path, message, "keep policies in their own directory");
        }
        if !self.seen.insert(real.clone()) {
            return;
        }
        self.found.entries.push(FoundFile {
            shown: shown(path),
            name: names.join("/"),
            real,
            content,
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            inode: metadata.ino(),
        });
    }
}

/// What a file with this name contains, if it is Rego.
pub(super) fn rules(name: &str) -> Option<FileContent> {
    let stem = name.strip_suffix(".rego")?;
    Some(if stem.ends_with("_test") { FileContent::Tests } else { FileContent::Rules })
}
