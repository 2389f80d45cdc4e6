//! Finding and reading policy files: paths in, sources with a revision out.
//!
//! Reading is bounded, follows links only inside the directory that was named, and gives one
//! consistent picture: where files change while they are read, it begins again. Nothing is
//! compiled or evaluated here.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::data::Data;
use super::embedded;
use crate::gate::rego::{Entrypoints, Module, PolicyProblem, PolicySources};

/// How often a reading is begun again because a file changed meanwhile.
const ATTEMPTS_MAX: usize = 5;
/// Problems reported at once; the rest would be noise.
const PROBLEMS_MAX: usize = 50;

/// Bounds on what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimits {
    /// Policy and data files, all paths together.
    pub files_max: usize,
    /// Directory entries looked at, all paths together.
    pub entries_max: usize,
    /// Size of one file, bytes.
    pub file_bytes_max: u64,
    /// Size of all files, bytes.
    pub total_bytes_max: u64,
    /// Directories below a path.
    pub depth_max: usize,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            files_max: 1024,
            entries_max: 65_536,
            file_bytes_max: 16 << 20,
            total_bytes_max: 64 << 20,
            depth_max: 16,
        }
    }
}

/// Which policy to load.
#[derive(Debug, Clone, Default)]
pub struct PolicyFiles {
    /// Files and directories, in order; none means the baseline.
    pub paths: Vec<PathBuf>,
    /// What is evaluated. Where neither is the default, `mcp/decision.rego` is not added.
    pub entrypoints: Entrypoints,
    /// Bounds on reading.
    pub limits: LoadLimits,
}

/// A policy as read, not yet proven.
#[derive(Debug)]
pub struct Loaded {
    /// What is to answer: no test in it.
    pub serving: PolicySources,
    /// The same and its tests, for the proof.
    pub proving: PolicySources,
    /// A number that follows from the revision, for whatever the proof chooses by chance.
    pub seed: u64,
    /// What the files looked like.
    pub fingerprint: Fingerprint,
}

/// What the files of a policy look like from outside. Another one means: read again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint {
    entries: Vec<Entry>,
    problems: Vec<PolicyProblem>,
}

/// What kind of file an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// Rules.
    Rules,
    /// Rules named `*_test.rego`: for the proof alone.
    Tests,
    /// A JSON object that belongs below these names of `data`.
    Data(Vec<String>),
}

/// One file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// The path as the operator wrote it, for messages.
    shown: String,
    /// The path below the named directory: part of the revision, the same on every host.
    name: String,
    /// Where it really is.
    real: PathBuf,
    content: Content,
    bytes: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

/// Looks at the files without reading them.
pub fn fingerprint(files: &PolicyFiles) -> Fingerprint {
    let mut walk = Walk {
        limits: files.limits,
        found: Fingerprint::default(),
        seen: BTreeSet::new(),
        entries_left: files.limits.entries_max,
    };
    for path in &files.paths {
        walk.root(path);
    }
    walk.found
}

/// Reads the files: all problems at once, or sources that belong together.
pub fn load(files: &PolicyFiles) -> Result<Loaded, Vec<PolicyProblem>> {
    let mut before = fingerprint(files);
    for _ in 0..ATTEMPTS_MAX {
        let outcome = read(files, &before);
        let after = fingerprint(files);
        if after == before {
            return outcome;
        }
        before = after;
    }
    Err(vec![PolicyProblem {
        file: files.paths.first().map_or_else(String::new, |path| shown(path)),
        line: None,
        message: "the files changed each time they were read".to_owned(),
        hint: Some("replace them all at once, by renaming a directory or a link".to_owned()),
    }])
}

/// One walk over the configured paths.
struct Walk {
    limits: LoadLimits,
    found: Fingerprint,
    /// Real paths, so that nothing is read twice and no ring of links is walked.
    seen: BTreeSet<PathBuf>,
    entries_left: usize,
}

/// Where a walk stands: `shown` for messages, `names` below the root.
struct Place<'a> {
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
                let place = Place { root: &real, shown: path.to_path_buf(), names: Vec::new() };
                self.directory(&real, &place);
            }
            Ok(metadata) => {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let extension = path.extension().and_then(|extension| extension.to_str());
                match (rules(name), extension) {
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

    fn directory(&mut self, real: &Path, place: &Place<'_>) {
        if !self.seen.insert(real.to_path_buf()) {
            return;
        }
        if place.names.len() > self.limits.depth_max {
            let message = format!("more than {} directories deep", self.limits.depth_max);
            return self.problem(&place.shown, message, "name the inner directory itself");
        }
        let mut names = Vec::new();
        let entries = match fs::read_dir(real) {
            Ok(entries) => entries,
            Err(error) => {
                return self.problem(&place.shown, format!("cannot be listed: {error}"), HINT_READ);
            }
        };
        for entry in entries {
            let Some(left) = self.entries_left.checked_sub(1) else {
                let message = format!("more than {} entries", self.limits.entries_max);
                return self.problem(&place.shown, message, "keep policies in their own directory");
            };
            self.entries_left = left;
            match entry {
                Ok(entry) => names.push(entry.file_name()),
                Err(error) => {
                    let message = format!("cannot be listed: {error}");
                    return self.problem(&place.shown, message, HINT_READ);
                }
            }
        }
        names.sort();
        for name in names {
            let path = place.shown.join(&name);
            match name.to_str() {
                // Hidden, and the versioned directories behind a mounted ConfigMap.
                Some(name) if name.starts_with('.') => {}
                Some(name) => self.child(real, place, name),
                None if path.extension().is_some_and(|extension| extension == "rego") => {
                    self.problem(&path, "the name is not UTF-8", "rename the file");
                }
                None => {}
            }
        }
    }

    fn child(&mut self, directory: &Path, place: &Place<'_>, name: &str) {
        let path = place.shown.join(name);
        let content = match name {
            "data.json" => Some(Content::Data(place.names.clone())),
            "data.yaml" | "data.yml" => {
                return self.problem(&path, "data must be JSON", "write it as data.json");
            }
            name => rules(name),
        };
        let real = match fs::canonicalize(directory.join(name)) {
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
        if !real.starts_with(place.root) {
            return self.problem(
                &path,
                "links outside of the directory that was named",
                "name its target in `policy.paths` as well",
            );
        }
        let mut names = place.names.clone();
        names.push(name.to_owned());
        if metadata.is_dir() {
            let place = Place { root: place.root, shown: path, names };
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
        self.found.entries.push(Entry {
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

const HINT_PATH: &str = "name a directory, a `.rego` file or a `.json` file";
const HINT_READ: &str = "let the account that Bartizan runs under read it";

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn problem(file: String, message: String, hint: &str) -> PolicyProblem {
    PolicyProblem { file, line: None, message, hint: Some(hint.to_owned()) }
}

/// What a name promises to hold, if rules.
fn rules(name: &str) -> Option<Content> {
    let stem = name.strip_suffix(".rego")?;
    Some(if stem.ends_with("_test") { Content::Tests } else { Content::Rules })
}

/// Reads everything that `found` names.
fn read(files: &PolicyFiles, found: &Fingerprint) -> Result<Loaded, Vec<PolicyProblem>> {
    let mut sources = Sources::default();
    let mut problems = found.problems.clone();
    let mut left = files.limits.total_bytes_max;
    for entry in &found.entries {
        let read = read_text(entry, files.limits.file_bytes_max.min(left)).and_then(|text| {
            sources.take(entry, text).map(|bytes| left = left.saturating_sub(bytes))
        });
        if let Err(problem) = read
            && problems.len() < PROBLEMS_MAX
        {
            problems.push(problem);
        }
    }
    if files.paths.is_empty() {
        sources.embed(embedded::baseline(), embedded::baseline_tests());
    } else if sources.rules.is_empty() && problems.is_empty() {
        let path = files.paths.first().map_or_else(String::new, |path| shown(path));
        problems.push(problem(path, "no `.rego` file here".to_owned(), HINT_PATH));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let default = Entrypoints::default();
    let combined = files.entrypoints.decision == default.decision
        || files.entrypoints.listing == default.listing;
    if combined && !sources.has_decision {
        sources.embed(embedded::decision(), embedded::decision_tests());
    }
    Ok(sources.finish(found.clone()))
}

fn read_text(entry: &Entry, bytes_max: u64) -> Result<String, PolicyProblem> {
    let unreadable = |error: std::io::Error| {
        problem(entry.shown.clone(), format!("cannot be read: {error}"), HINT_READ)
    };
    let file = File::open(&entry.real).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > bytes_max) {
        return Err(problem(
            entry.shown.clone(),
            format!("more than the {bytes_max} bytes that are left for it"),
            "split the file, or leave out what no rule reads",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes().iter().take(at);
        PolicyProblem {
            file: entry.shown.clone(),
            line: line_after(bytes),
            message: "not UTF-8".to_owned(),
            hint: Some("save the file as UTF-8".to_owned()),
        }
    })
}

/// The number of the line that follows `bytes`.
fn line_after<'a>(bytes: impl Iterator<Item = &'a u8>) -> Option<u32> {
    let newlines = bytes.filter(|byte| **byte == b'\n').count();
    u32::try_from(newlines.saturating_add(1)).ok()
}

/// What has been read so far.
#[derive(Default)]
struct Sources {
    rules: Vec<(String, Module)>,
    tests: Vec<Module>,
    data: Data,
    has_decision: bool,
}

impl Sources {
    /// Takes one file; gives its size.
    fn take(&mut self, entry: &Entry, text: String) -> Result<u64, PolicyProblem> {
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        match &entry.content {
            Content::Rules => {
                self.has_decision |= Path::new(&entry.shown).ends_with("mcp/decision.rego");
                self.rules.push((entry.name.clone(), Module { path: entry.shown.clone(), text }));
            }
            Content::Tests => self.tests.push(Module { path: entry.shown.clone(), text }),
            Content::Data(names) => {
                self.data.add(&text, names).map_err(|(at, message)| PolicyProblem {
                    file: entry.shown.clone(),
                    line: at.and_then(|at| line_after(text.as_bytes().iter().take(at))),
                    message,
                    hint: Some("write one JSON object, and each value once".to_owned()),
                })?;
            }
        }
        Ok(bytes)
    }

    fn embed(&mut self, rules: Vec<Module>, tests: Vec<Module>) {
        self.rules.extend(rules.into_iter().map(|module| (module.path.clone(), module)));
        self.tests.extend(tests);
    }

    fn finish(self, fingerprint: Fingerprint) -> Loaded {
        let data = self.data.text();
        let mut hash = Sha256::new();
        let files = self.rules.iter().map(|(name, module)| (&**name, &*module.text));
        for (name, text) in files.chain(data.iter().map(|text| ("data", &**text))) {
            for part in [name, text] {
                hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(part);
            }
        }
        let digest = hash.finalize();
        let seed = digest.iter().take(8).fold(0_u64, |seed, byte| seed << 8 | u64::from(*byte));
        let revision: std::sync::Arc<str> = format!("sha256:{seed:016x}").into();
        let serving: Vec<Module> = self.rules.into_iter().map(|(_, module)| module).collect();
        let proving = serving
            .iter()
            .chain(&self.tests)
            .map(|module| Module { path: module.path.clone(), text: module.text.clone() })
            .collect();
        Loaded {
            serving: PolicySources {
                modules: serving,
                data: data.clone(),
                revision: revision.clone(),
            },
            proving: PolicySources { modules: proving, data, revision },
            seed,
            fingerprint,
        }
    }
}
