//! OPA bundles: policy and data in one piece, with a manifest and, where configured, a signature.
//!
//! The format is OPA's (open-policy-agent, "Bundle File Format" and "Signing"): a directory or a
//! gzipped tarball of `.rego` files, `data.json` and `data.yaml`, `.manifest` with roots and
//! revision, `.signatures.json`. [`archive`] takes a tarball apart in memory, [`signature`] holds
//! its files against what was signed, [`manifest`] says what it may hold; here they become the
//! same sources as any other policy. Nothing is trusted for being in a bundle: it is proven like
//! every policy.
//!
//! Stricter than OPA: delta bundles, WebAssembly, Rego v0, a name that stands twice, and weak
//! hashes are refused; where keys are configured an unsigned bundle is refused, and no file can be
//! left out of the signature.

pub mod archive;
mod canonical;
pub mod manifest;
pub mod members;
pub mod signature;

use self::manifest::Manifest;
pub use self::members::Members;
use self::members::PATCH;
pub(super) use self::members::{MANIFEST, SIGNATURES};
use self::signature::Signing;
pub use super::files::LocalBundle;
use super::files::{PolicyFiles, problem};
use super::find::{Content, rules};
use super::sources::{Loaded, Sources};
use crate::yaml;
use bartizan_rego::PolicyProblem;

/// What stands before the path of each file in problems.
const SHOWN: &str = "bundle/";

const HINT_BUILD: &str = "build it with `opa build`, or as a tarball of `.rego` and `data.json`";

/// The sources in a bundle whose files are `members`.
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
        let message = format!("`data.{path}` lies outside the roots of its manifest");
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

/// Holds the bundle against its signature.
fn verify(members: &Members, signing: Option<&Signing>) -> Result<(), PolicyProblem> {
    if members.contains_key(PATCH) {
        let message = "a delta bundle".to_owned();
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
            .map_err(|what| problem(shown(SIGNATURES), what, "sign the bundle anew")),
    }
}

/// Takes one file in, if it holds policy or data; all others say nothing to us.
fn take(sources: &mut Sources, name: &str, bytes: &[u8]) -> Result<(), PolicyProblem> {
    let (directories, base) = name.rsplit_once('/').unwrap_or(("", name));
    let names = || directories.split('/').filter(|name| !name.is_empty()).map(str::to_owned);
    let content = match base {
        "data.json" | "data.yaml" | "data.yml" => Content::Data(names().collect()),
        MANIFEST if !directories.is_empty() => {
            let message = "a manifest that is not at the root of the bundle".to_owned();
            return Err(problem(shown(name), message, "keep one, at the root"));
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

/// Whether a source with this path, as problems show it, is a bundle's own.
pub(super) fn is_member(path: &str) -> bool {
    path.starts_with(SHOWN)
}
