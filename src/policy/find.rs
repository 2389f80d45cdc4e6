//! Finding policy files: what is where, without reading it.
//!
//! The walk is bounded, sorted, follows links only inside the directory that was named, and meets
//! nothing twice. What it finds also tells whether anything changed since.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::bundle::members::{MANIFEST, SIGNATURES};
use super::files::{HINT_PATH, HINT_READ, LoadLimits, PROBLEMS_MAX, PolicyFiles, problem, shown};
use bartizan_rego::PolicyProblem;

/// What the files of a policy look like from outside. Another one means: read again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint {
    pub(super) entries: Vec<FoundFile>,
    pub(super) problems: Vec<PolicyProblem>,
}

/// What kind of file an [`FoundFile`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Rules.
    Rules,
    /// Rules named `*_test.rego`: for the proof alone.
    Tests,
    /// A JSON object that belongs below these names of `data`.
    Data(Vec<String>),
    /// A file of a bundle, or a bundle as a whole: what is in it decides.
    Member,
}

/// One file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundFile {
    /// The path as the operator wrote it, for messages.
    pub(super) shown: String,
    /// The path below the named directory: part of the revision, the same on every host.
    pub(super) name: String,
    /// Where it really is.
    pub(super) real: PathBuf,
    pub(super) content: Content,
    bytes: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

/// Looks at the files without reading them.
pub fn fingerprint(files: &PolicyFiles) -> Fingerprint {
    let mut walk = Walk {
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

/// One walk over the configured paths.
struct Walk {
    limits: LoadLimits,
    /// Whether every file counts.
    bundle: bool,
    found: Fingerprint,
    /// Real paths, so that nothing is read twice and no ring of links is walked.
    seen: BTreeSet<PathBuf>,
    entries_left: usize,
}

/// A directory that is being walked: `shown` for messages, `names` the way below the root.
struct Directory<'a> {
    root: &'a Path,
    shown: PathBuf,
    names: Vec<String>,
}

impl Walk {
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
                let place = Directory { root: &real, shown: path.to_path_buf(), names: Vec::new() };
                self.directory(&real, &place);
            }
            Ok(metadata) => {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let extension = path.extension().and_then(|extension| extension.to_str());
                match (rules(name), extension) {
                    _ if self.bundle => {
                        self.file(path, &[name.into()], real, Content::Member, &metadata);
                    }
                    (Some(content), _) => self.file(path, &[name.into()], real, content, &metadata),
                    (None, Some("json")) => {
                        self.file(path, &[name.into()], real, Content::Data(Vec::new()), &metadata);
                    }
                    (None, _) => self.problem(path, "neither `.rego` nor `.json`", HINT_PATH),
                }
            }
            Err(error) => self.problem(path, format!("cannot be opened: {error}"), HINT_PATH),
        }
    }

    fn directory(&mut self, real: &Path, directory: &Directory<'_>) {
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
                // Hidden, and the versioned directories behind a mounted ConfigMap.
                Some(name) if name.starts_with('.') && !self.is_bundle_fact(name, directory) => {}
                Some(name) => self.child(real, directory, name),
                None if path.extension().is_some_and(|extension| extension == "rego") => {
                    self.problem(&path, "the name is not UTF-8", "rename the file");
                }
                None => {}
            }
        }
    }

    /// Whether a hidden file says something about the bundle at whose root it is.
    fn is_bundle_fact(&self, name: &str, directory: &Directory<'_>) -> bool {
        self.bundle && directory.names.is_empty() && matches!(name, MANIFEST | SIGNATURES)
    }

    fn child(&mut self, real: &Path, directory: &Directory<'_>, name: &str) {
        let path = directory.shown.join(name);
        let content = match name {
            _ if self.bundle => Some(Content::Member),
            "data.json" => Some(Content::Data(directory.names.clone())),
            "data.yaml" | "data.yml" => {
                return self.problem(&path, "data must be JSON", "write it as data.json");
            }
            name => rules(name),
        };
        let real = match fs::canonicalize(real.join(name)) {
            Ok(real) => real,
            // A dangling link to something else than a policy is no business of ours.
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
                "links outside of the directory that was named",
                "name its target in `policy.paths` as well",
            );
        }
        let mut names = directory.names.clone();
        names.push(name.to_owned());
        if metadata.is_dir() {
            let place = Directory { root: directory.root, shown: path, names };
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
        content: Content,
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

/// What a name promises to hold, if rules.
pub(super) fn rules(name: &str) -> Option<Content> {
    let stem = name.strip_suffix(".rego")?;
    Some(if stem.ends_with("_test") { Content::Tests } else { Content::Rules })
}
