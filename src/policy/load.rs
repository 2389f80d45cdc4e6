//! Reading policy files: paths in, sources with a revision out.
//!
//! Reading is bounded and gives one consistent picture: where files change while they are read, it
//! begins again. `find` says which files there are; nothing is compiled or evaluated here.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::bundle::manifest::Root;
use super::bundle::{self, LocalBundle, Members, archive};
use super::data::Data;
use super::embedded;
use super::find::{Content, Entry, HINT_PATH, HINT_READ, PROBLEMS_MAX, problem, shown};
pub use super::find::{Fingerprint, fingerprint};
use bartizan_rego::{Entrypoints, Module, PolicyProblem, PolicySources};

/// How often a reading is begun again because a file changed meanwhile.
const ATTEMPTS_MAX: usize = 5;

/// Bounds on what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "limits end in `_max` everywhere")]
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
    /// A bundle in the place of `paths`.
    pub bundle: Option<LocalBundle>,
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
    /// What packages and data a bundle owns; nothing where it owns all.
    pub roots: Option<Vec<Root>>,
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

/// Reads everything that `found` names.
fn read(files: &PolicyFiles, found: &Fingerprint) -> Result<Loaded, Vec<PolicyProblem>> {
    if let Some(bundle) = &files.bundle {
        let members = members(bundle, files, found)?;
        let loaded = bundle::read(&members, bundle.signing.as_deref(), files)?;
        return Ok(Loaded { fingerprint: found.clone(), ..loaded });
    }
    let mut sources = Sources::default();
    let mut problems = found.problems.clone();
    let mut left = files.limits.total_bytes_max;
    for entry in &found.entries {
        let read = read_text(entry, files.limits.file_bytes_max.min(left)).and_then(|text| {
            left = left.saturating_sub(u64::try_from(text.len()).unwrap_or(u64::MAX));
            sources.take(&entry.content, entry.name.clone(), entry.shown.clone(), text)
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
    sources.combine(&files.entrypoints);
    Ok(Loaded { fingerprint: found.clone(), ..sources.finish(None) })
}

/// The files of a bundle on disk: of a directory, or out of an archive.
fn members(
    bundle: &LocalBundle,
    files: &PolicyFiles,
    found: &Fingerprint,
) -> Result<Members, Vec<PolicyProblem>> {
    if !found.problems.is_empty() {
        return Err(found.problems.clone());
    }
    let limits = &files.limits;
    let mut left = limits.total_bytes_max;
    let mut members = Members::new();
    for entry in &found.entries {
        let bytes = read_bytes(entry, limits.file_bytes_max.min(left)).map_err(|it| vec![it])?;
        left = left.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        members.insert(entry.name.clone(), bytes);
    }
    match found.entries.as_slice() {
        [archive] if archive.shown == shown(&bundle.path) => {
            let packed = members.values().next().map(Vec::as_slice).unwrap_or_default();
            archive::unpack(packed, limits)
                .map_err(|what| vec![problem(archive.shown.clone(), what, HINT_ARCHIVE)])
        }
        _ => Ok(members),
    }
}

const HINT_ARCHIVE: &str = "make it anew, with `opa build` or `tar -czf`";

fn read_bytes(entry: &Entry, bytes_max: u64) -> Result<Vec<u8>, PolicyProblem> {
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
    Ok(bytes)
}

fn read_text(entry: &Entry, bytes_max: u64) -> Result<String, PolicyProblem> {
    String::from_utf8(read_bytes(entry, bytes_max)?).map_err(|error| {
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
pub(super) struct Sources {
    pub(super) rules: Vec<(String, Module)>,
    tests: Vec<Module>,
    pub(super) data: Data,
    has_decision: bool,
}

impl Sources {
    /// Takes the text of one file. `name` goes into the revision, `shown` into problems.
    pub(super) fn take(
        &mut self,
        content: &Content,
        name: String,
        shown: String,
        text: String,
    ) -> Result<(), PolicyProblem> {
        match content {
            Content::Rules => {
                self.has_decision |= Path::new(&shown).ends_with("mcp/decision.rego");
                self.rules.push((name, Module { path: shown, text }));
            }
            Content::Tests => self.tests.push(Module { path: shown, text }),
            Content::Data(names) => {
                self.data.add(&text, names).map_err(|(at, message)| PolicyProblem {
                    file: shown,
                    line: at.and_then(|at| line_after(text.as_bytes().iter().take(at))),
                    message,
                    hint: Some("write one JSON object, and each value once".to_owned()),
                })?;
            }
            // Read as a whole, by `members`.
            Content::Member => {}
        }
        Ok(())
    }

    /// Adds what combines the rules, unless it is there or nobody asks for it.
    pub(super) fn combine(&mut self, entrypoints: &Entrypoints) {
        let default = Entrypoints::default();
        let combined =
            entrypoints.decision == default.decision || entrypoints.listing == default.listing;
        if combined && !self.has_decision {
            self.embed(embedded::decision(), embedded::decision_tests());
        }
    }

    fn embed(&mut self, rules: Vec<Module>, tests: Vec<Module>) {
        self.rules.extend(rules.into_iter().map(|module| (module.path.clone(), module)));
        self.tests.extend(tests);
    }

    /// All of it. The revision is the digest, behind what the bundle is `called`.
    pub(super) fn finish(self, called: Option<&str>) -> Loaded {
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
        let prefix = called.map(|called| format!("{called}@")).unwrap_or_default();
        let revision: std::sync::Arc<str> = format!("{prefix}sha256:{seed:016x}").into();
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
            fingerprint: Fingerprint::default(),
            roots: None,
        }
    }
}
