//! Which places of the file system a server must not reach so that a path stays hidden from it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The places that `paths` name: each file or directory itself, where it really is, and each
/// symbolic link on the way to it, which could be replaced to lead elsewhere.
///
/// The results are absolute and have no symbolic link in their parents. A path that does not exist
/// counts as where it would be, as far as its parents exist; one without any parent is left out.
pub fn resolve(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in paths {
        let Ok(path) = std::path::absolute(path) else { continue };
        if let Ok(real) = path.canonicalize() {
            found.insert(real);
        } else if let Some(place) = missing(&path) {
            found.insert(place);
        }
        let links = path.ancestors().filter(|part| part.is_symlink());
        found.extend(links.filter_map(place));
    }
    found
}

/// The directories above `places`: in them nothing can be listed or created.
pub fn above(places: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let above = places.iter().flat_map(|place| place.ancestors().skip(1));
    above.map(Path::to_owned).collect()
}

/// Where the entry `path` itself is, whatever it leads to.
fn place(path: &Path) -> Option<PathBuf> {
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
}

/// Where the first part of `path` that does not exist would be.
fn missing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(place)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_what_they_lead_to_are_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/state")).unwrap();
        symlink(root.join("real"), root.join("link")).unwrap();
        let found = resolve(&[root.join("link/state"), root.join("gone/state")]);
        let expected = ["gone", "link", "real/state"].map(|name| root.join(name));
        assert_eq!(found, BTreeSet::from(expected));
        let above = above(&found);
        assert!(above.contains(Path::new("/")) && above.contains(&root.join("real")));
        assert!(!above.contains(&root.join("real/state")));
    }
}
