//! Which files make a policy, the bounds on reading them, and how a problem with one is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bundle::signature::Signing;
use bartizan_rego::{Entrypoints, PolicyProblem};

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

/// A bundle on disk, and who must have signed it.
#[derive(Debug, Clone)]
pub struct LocalBundle {
    /// A directory, or a gzipped tarball.
    pub path: PathBuf,
    /// The keys; without them the bundle must be unsigned.
    pub signing: Option<Arc<Signing>>,
}

/// Problems reported at once; the rest would be noise.
pub(super) const PROBLEMS_MAX: usize = 50;

pub(super) const HINT_PATH: &str = "name a directory, a `.rego` file or a `.json` file";
pub(super) const HINT_READ: &str = "let the account that Bartizan runs under read it";

pub(super) fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(super) fn problem(file: String, message: String, hint: &str) -> PolicyProblem {
    PolicyProblem { file, line: None, message, hint: Some(hint.to_owned()) }
}
