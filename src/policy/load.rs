//! Reads policy files: from paths to sources with a revision.
//!
//! Reading has limits and gives a consistent snapshot: if files change while they are read, it
//! starts again. [`find`](super::find) says which files there are; nothing is compiled or evaluated
//! here.

use std::fs::File;
use std::io::Read;

use super::bundle::{self, Members, archive};
use super::embedded;
use super::files::{HINT_PATH, HINT_READ, LocalBundle, PROBLEMS_MAX, problem, shown};
pub use super::files::{LoadLimits, PolicyFiles};
use super::find::FoundFile;
pub use super::find::{Fingerprint, fingerprint};
pub use super::sources::Loaded;
use super::sources::{Sources, line_after};
use bartizan_rego::PolicyProblem;

/// Largest number of attempts if files change while they are read.
const ATTEMPTS_MAX: usize = 5;

/// Reads the files as one consistent snapshot.
///
/// # Errors
///
/// All problems that were found.
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

/// Reads all files of `found`.
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
        problems.push(problem(path, "no `.rego` file found here".to_owned(), HINT_PATH));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    sources.combine(&files.entrypoints);
    Ok(Loaded { fingerprint: found.clone(), ..sources.finish(None) })
}

/// The files of a bundle on disk, from a directory or from an archive.
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

const HINT_ARCHIVE: &str = "create it again with `opa build` or `tar -czf`";

fn read_bytes(entry: &FoundFile, bytes_max: u64) -> Result<Vec<u8>, PolicyProblem> {
    let unreadable = |error: std::io::Error| {
        problem(entry.shown.clone(), format!("cannot be read: {error}"), HINT_READ)
    };
    let file = File::open(&entry.real).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > bytes_max) {
        return Err(problem(
            entry.shown.clone(),
            format!("larger than the {bytes_max} bytes that remain of the limit"),
            "split the file, or leave out what no rule reads",
        ));
    }
    Ok(bytes)
}

fn read_text(entry: &FoundFile, bytes_max: u64) -> Result<String, PolicyProblem> {
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
