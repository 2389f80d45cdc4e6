//! The last good bundle, kept on disk for a start while its service is away.
//!
//! Kept are the bytes as they came, so that they are verified and proven again like new ones. The
//! file's name is made of the service's address: what one service gave never stands in for
//! another. It is replaced whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bartizan_gate::wire::hex::hex;
use sha2::{Digest as _, Sha256};

/// Bytes of the address's digest that name the file.
const NAME_BYTES: usize = 8;

/// Where the last good bundle of one service is kept.
#[derive(Debug, Clone)]
pub struct LastGood {
    directory: PathBuf,
    file: PathBuf,
}

impl LastGood {
    /// Below `state`, for the service at `url`. Touches nothing yet.
    pub fn new(state: &Path, url: &str) -> Self {
        let directory = state.join("bundle");
        let digest = Sha256::digest(url);
        let digest: &[u8] = digest.as_ref();
        let name = hex(digest.get(..NAME_BYTES).unwrap_or(digest));
        let file = directory.join(format!("{name}.tar.gz"));
        Self { directory, file }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The bytes that were kept, if there are any. Larger ones than `bytes_max` are an error.
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

    /// Keeps `bytes` in the place of what was there: written beside, forced onto the disk, and
    /// renamed.
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
