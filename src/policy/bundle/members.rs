//! The files of a bundle, and the names of files with a special meaning.

use std::collections::BTreeMap;

/// The contents of a bundle's files by path below its root.
pub type Members = BTreeMap<String, Vec<u8>>;

/// Names the bundle's roots and revision.
pub(in crate::policy) const MANIFEST: &str = ".manifest";
/// Contains the bundle's signature.
pub(in crate::policy) const SIGNATURES: &str = ".signatures.json";
/// Marks a delta bundle.
pub(super) const PATCH: &str = "patch.json";
