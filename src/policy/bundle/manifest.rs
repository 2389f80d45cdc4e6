//! `.manifest`: the roots in `data` that a bundle owns, and its revision (OPA documentation,
//! "Bundle File Format").

use std::collections::BTreeMap;

use serde::Deserialize;

/// Largest length of a revision, which every record contains, bytes.
const REVISION_BYTES_MAX: usize = 256;
/// Largest number of roots of one bundle.
const ROOTS_MAX: usize = 256;

/// A path below `data` as its segments; empty means all of `data`.
pub type Root = Vec<String>;

/// The parsed `.manifest`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The revision of the bundle.
    pub revision: Option<String>,
    /// The roots that it owns; packages and data outside them are rejected. `None` means all of
    /// `data`.
    pub roots: Option<Vec<Root>>,
}

/// The members that are used; others are ignored, as OPA does.
#[derive(Debug, Deserialize)]
struct ManifestFile {
    #[serde(default)]
    revision: String,
    roots: Option<Vec<String>>,
    #[serde(default)]
    wasm: Vec<serde::de::IgnoredAny>,
    rego_version: Option<u64>,
    #[serde(default)]
    file_rego_versions: BTreeMap<String, u64>,
}

impl Manifest {
    /// Parses `bytes`.
    ///
    /// # Errors
    ///
    /// What is wrong with the manifest.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
        let written: ManifestFile =
            serde_json::from_str(text).map_err(|error| format!("not a valid manifest: {error}"))?;
        if !written.wasm.is_empty() {
            return Err("it contains WebAssembly, which is not supported".to_owned());
        }
        if written
            .rego_version
            .into_iter()
            .chain(written.file_rego_versions.into_values())
            .any(|version| version != 1)
        {
            return Err("it contains Rego of a version other than v1".to_owned());
        }
        let revision = Some(written.revision).filter(|revision| !revision.is_empty());
        if let Some(revision) = &revision
            && (revision.len() > REVISION_BYTES_MAX || revision.contains(char::is_control))
        {
            return Err(format!(
                "a revision longer than {REVISION_BYTES_MAX} bytes, or not printable"
            ));
        }
        let roots = written.roots.map(|roots| self::roots(&roots)).transpose()?;
        Ok(Self { revision, roots })
    }
}

fn roots(written: &[String]) -> Result<Vec<Root>, String> {
    if written.len() > ROOTS_MAX {
        return Err(format!("more than {ROOTS_MAX} roots"));
    }
    let segments = |root: &String| -> Root {
        root.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    };
    let roots: Vec<Root> = written.iter().map(segments).collect();
    for (at, root) in roots.iter().enumerate() {
        let others = roots.iter().take(at);
        if others.into_iter().any(|other| root.starts_with(other) || other.starts_with(root)) {
            return Err(format!("the root `{}` overlaps another one", root.join("/")));
        }
    }
    Ok(roots)
}

/// Whether `path` is one of `roots` or below one.
pub(in crate::policy) fn owns<S: AsRef<str>>(roots: &[Root], path: &[S]) -> bool {
    roots.iter().any(|root| {
        root.len() <= path.len() && root.iter().zip(path).all(|(root, name)| root == name.as_ref())
    })
}

/// Whether `path` is an ancestor of one of `roots`.
pub(in crate::policy) fn leads_to<S: AsRef<str>>(roots: &[Root], path: &[S]) -> bool {
    roots.iter().any(|root| {
        path.len() < root.len() && root.iter().zip(path).all(|(root, name)| root == name.as_ref())
    })
}
