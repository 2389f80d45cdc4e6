//! Reads the pack that a configuration names: from the program, or from a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::did_you_mean;
use super::surroundings::read_file;
use crate::policy::embedded;
use bartizan_gate::question::pack::Pack;

/// Size of a pack's file, bytes; the largest vendor has a few hundred tools.
const FILE_BYTES_MAX: usize = 4 << 20;

/// Where a pack is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackRef {
    /// In the program, by name.
    Embedded(String),
    /// In a file: the text held a `/`, or ended in `.json`.
    File(PathBuf),
}

/// A pack that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackError {
    /// What is wrong: each thing, one at least.
    pub whats: Vec<String>,
    /// What to do about it.
    pub hint: String,
}

impl PackRef {
    /// What `text` names: a file where it holds a `/` or ends in `.json`.
    pub fn named(text: &str) -> Self {
        let json = Path::new(text).extension().is_some_and(|end| end == "json");
        if json || text.contains('/') {
            Self::File(text.into())
        } else {
            Self::Embedded(text.to_owned())
        }
    }

    /// Reads the pack. Every problem of its text is reported.
    pub fn read(&self) -> Result<Arc<Pack>, PackError> {
        match self {
            Self::Embedded(name) => {
                if let Some(text) = embedded::pack(name) {
                    return parse(text.as_bytes());
                }
                let known: Vec<&str> = embedded::PACKS.iter().map(|(name, _)| *name).collect();
                Err(PackError {
                    whats: vec![format!("no pack is called `{}`", name.escape_debug())],
                    hint: format!("{}; a file's name ends in `.json`", did_you_mean(name, &known)),
                })
            }
            Self::File(path) => parse(&file(path)?),
        }
    }
}

fn file(path: &Path) -> Result<Vec<u8>, PackError> {
    let failed = |what: String| PackError {
        whats: vec![what],
        hint: "name a readable JSON file of the form in policies/packs/pack.schema.json".into(),
    };
    let bytes = read_file(path, FILE_BYTES_MAX.saturating_add(1));
    let bytes = bytes.map_err(|error| failed(format!("cannot be read: {error}")))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(failed(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn parse(text: &[u8]) -> Result<Arc<Pack>, PackError> {
    Pack::read(text).map(Arc::new).map_err(|problems| PackError {
        whats: problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect(),
        hint: "policies/packs/pack.schema.json has the form of a pack".into(),
    })
}
