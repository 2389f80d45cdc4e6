//! OPA bundles: policy and data in one archive or directory, with a manifest and, if configured, a
//! signature.
//!
//! The format is OPA's (Open Policy Agent documentation, "Bundle File Format" and "Signing"): a
//! directory or gzip-compressed tarball with `.rego` files, `data.json` and `data.yaml`,
//! `.manifest` with roots and revision, and `.signatures.json`. [`archive`] unpacks a tarball in
//! memory, [`signature`] verifies the files, [`manifest`] reads which paths the bundle may hold;
//! this module converts the files to the same sources as any other policy. A bundle is not trusted
//! for its format: it is proven like every policy.
//!
//! Stricter than OPA: delta bundles, WebAssembly, Rego v0, repeated file names and weak hashes are
//! rejected. If keys are configured, an unsigned bundle is rejected, and no file may be excluded
//! from the signature.

pub mod archive;
mod canonical;
pub mod manifest;
pub mod order;
pub mod members;
pub mod signature;

use self::manifest::Manifest;
pub use self::members::Members;
use self::members::PATCH;
pub(super) use self::members::{MANIFEST, SIGNATURES};
use self::signature::Signing;
pub use super::files::LocalBundle;
use super::files::{PolicyFiles, problem};
use super::find::{FileContent, rules};
use super::sources::{Loaded, Sources};
use crate::yaml;
use bartizan_rego::PolicyProblem;

/// Prefix of a bundle file's path in messages.
const SHOWN: &str = "bundle/";

const HINT_BUILD: &str = "build it with `opa build`, or as a tarball of `.rego` and `data.json`";

/// The policy sources of a bundle with the files `members`.
///
/// # Errors
///
/// All problems that were found.
pub fn read(
    members: &Members,
    signing: Option<&Signing>,
    files: &PolicyFiles,
) -> Result<Loaded, Vec<PolicyProblem>> {
    verify(members, signing).map_err(|problem| vec![problem])?;
    let manifest = match members.get(MANIFEST) {
        Some(bytes) => Manifest::read(bytes)
            .map_err(|what| vec![problem(shown(MANIFEST), what, HINT_BUILD)])?,
        None => Manifest::default(),
    };
    let mut sources = Sources::default();
    let mut problems = Vec::new();
    for (name, bytes) in members {
        match take(&mut sources, name, bytes) {
            Ok(()) => {}
            Err(problem) => problems.push(problem),
        }
    }
    if let Some(path) = manifest.roots.as_deref().and_then(|roots| sources.data.outside(roots)) {
        let message = format!("`data.{path}` lies outside the roots of the manifest");
        problems.push(problem(shown(MANIFEST), message, "name its root in `.manifest`"));
    }
    if sources.rules.is_empty() && problems.is_empty() {
        let message = "no `.rego` file in the bundle".to_owned();
        problems.push(problem(String::new(), message, HINT_BUILD));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    sources.combine(&files.entrypoints);
    let loaded = sources.finish(manifest.revision.as_deref());
    Ok(Loaded { roots: manifest.roots, ..loaded })
}

/// Verifies the signature of the bundle, if one is required.
fn verify(members: &Members, signing: Option<&Signing>) -> Result<(), PolicyProblem> {
    if members.contains_key(PATCH) {
        let message = "delta bundles are not supported".to_owned();
        return Err(problem(shown(PATCH), message, "publish whole bundles (snapshots)"));
    }
    match (signing, members.get(SIGNATURES)) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(problem(
            shown(SIGNATURES),
            "the bundle is signed, and no key is configured".to_owned(),
            "name the key in `policy.bundle.signing.keys`",
        )),
        (Some(_), None) => Err(problem(
            shown(SIGNATURES),
            "the bundle is not signed".to_owned(),
            "sign it with `opa sign` or `opa build --signing-key`",
        )),
        (Some(signing), Some(signatures)) => signing
            .verify(members, signatures)
            .map_err(|refused| problem(shown(SIGNATURES), refused.what, refused.hint)),
    }
}

/// Adds one file to the sources if it contains policy or data; ignores other files.
fn take(sources: &mut Sources, name: &str, bytes: &[u8]) -> Result<(), PolicyProblem> {
    let (directories, base) = name.rsplit_once('/').unwrap_or(("", name));
    let names = || directories.split('/').filter(|name| !name.is_empty()).map(str::to_owned);
    let content = match base {
        "data.json" | "data.yaml" | "data.yml" => FileContent::Data(names().collect()),
        MANIFEST if !directories.is_empty() => {
            let message = "the manifest is not at the root of the bundle".to_owned();
            return Err(problem(shown(name), message, "keep one manifest, at the root"));
        }
        base => match rules(base) {
            Some(content) => content,
            None => return Ok(()),
        },
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|_| problem(shown(name), "not UTF-8".to_owned(), "save the file as UTF-8"))?;
    let text = if base.ends_with("ml") {
        yaml::to_json(text)
            .map_err(|what| problem(shown(name), what, "or write it as data.json"))?
    } else {
        text.to_owned()
    };
    sources.take(&content, name.to_owned(), shown(name), text)
}

fn shown(name: &str) -> String {
    format!("{SHOWN}{name}")
}

/// Whether a source with this path (as messages show it) comes from a bundle.
pub(super) fn is_member(path: &str) -> bool {
    path.starts_with(SHOWN)
}
