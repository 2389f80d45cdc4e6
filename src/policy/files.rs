//! The settings for loading a policy from files: which files, the limits on reading them, and the
//! form of a problem with one of them.
//!
//! It reads nothing: `find`, `load` and `bundle` do. `config` and the command line make the settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bundle::signature::Signing;
use bartizan_rego::{Entrypoints, PolicyProblem};

/// Limits on reading a policy's files. Every limit is inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "limits end in `_max` everywhere")]
pub struct LoadLimits {
    /// Most policy and data files, of all paths together.
    pub files_max: usize,
    /// Most directory entries that are read, of all paths together.
    pub entries_max: usize,
    /// Largest file, bytes.
    pub file_bytes_max: u64,
    /// Most bytes of all files together.
    pub total_bytes_max: u64,
    /// Deepest nesting of directories below a path.
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

/// The policy to load.
#[derive(Debug, Clone, Default)]
pub struct PolicyFiles {
    /// Files and directories, in order. If there are none, the baseline is loaded.
    pub paths: Vec<PathBuf>,
    /// A bundle, which is loaded instead of `paths`.
    pub bundle: Option<LocalBundle>,
    /// The rules to evaluate. If neither is the default, `mcp/decision.rego` is not added.
    pub entrypoints: Entrypoints,
    /// Limits on reading.
    pub limits: LoadLimits,
}

/// A bundle on disk, and the keys for its signature (OPA docs, "Bundles").
#[derive(Debug, Clone)]
pub struct LocalBundle {
    /// A directory, or a gzipped tarball.
    pub path: PathBuf,
    /// The keys, one of which must have signed it; with `None` it must be unsigned.
    pub signing: Option<Arc<Signing>>,
}

/// Most problems that are reported at once.
pub(super) const PROBLEMS_MAX: usize = 50;

pub(super) const HINT_PATH: &str = "name a directory, a `.rego` file or a `.json` file";
pub(super) const HINT_READ: &str = "let the account that Bartizan runs under read it";

/// A path for messages. Bytes that are not UTF-8 are replaced.
pub(super) fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A problem with a file as a whole.
pub(super) fn problem(file: String, message: String, hint: &str) -> PolicyProblem {
    PolicyProblem { file, line: None, message, hint: Some(hint.to_owned()) }
}
