//! The files of a bundle, and the names of those that say something about it.

use std::collections::BTreeMap;

/// The files of a bundle by their path below its root.
pub type Members = BTreeMap<String, Vec<u8>>;

/// Says what the bundle owns and what it is called.
pub(in crate::policy) const MANIFEST: &str = ".manifest";
/// Says who signed it.
pub(in crate::policy) const SIGNATURES: &str = ".signatures.json";
/// Would make the bundle a change to another one.
pub(super) const PATCH: &str = "patch.json";
