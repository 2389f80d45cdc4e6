//! Stores the last bundle that was proven, for a start while its service cannot be reached.
//!
//! The file holds the bytes as the service sent them, so a start verifies and proves them again.
//! Its name is a digest of the service's address, so the bundle of one service is never used for
//! another. It is replaced atomically (rename(2)). `poll` calls this module.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bartizan_gate::wire::hex::hex;
use sha2::{Digest as _, Sha256};

/// How many bytes of the address's SHA-256 digest make the file's name.
const NAME_BYTES: usize = 8;

/// The file that stores the last good bundle of one service.
#[derive(Debug, Clone)]
pub struct LastGood {
    directory: PathBuf,
    file: PathBuf,
}

impl LastGood {
    /// The file in the state directory `state` for the service at `url`. It makes no access to the
    /// disk.
    pub fn new(state: &Path, url: &str) -> Self {
        let directory = state.join("bundle");
        let digest = Sha256::digest(url);
        let digest: &[u8] = digest.as_ref();
        let name = hex(digest.get(..NAME_BYTES).unwrap_or(digest));
        let file = directory.join(format!("{name}.tar.gz"));
        Self { directory, file }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The stored bundle; `None` where there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is larger than `bytes_max`.
    pub fn load(&self, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() > bytes_max {
            let what = format!("larger than {bytes_max} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        Ok(Some(bytes))
    }

    /// Replaces the stored bundle: writes a new file, syncs it, and renames it over the old one. It
    /// creates the directory (mode 0700) and file (mode 0600).
    ///
    /// # Errors
    ///
    /// A step failed; the old bundle is then still there.
    pub fn save(&self, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let fresh = self.file.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.file)?;
        File::open(&self.directory)?.sync_all()
    }
}
