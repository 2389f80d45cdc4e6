//! What a configuration looks at outside its own text: variables and files. Handed in, so that
//! tests need neither.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Size of a file with a key or a certificate, bytes.
const PEM_BYTES_MAX: usize = 1 << 20;

/// What a configuration may look at outside its own text.
#[expect(missing_debug_implementations, reason = "holds functions")]
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// At most this many of the first bytes of a file that a reference names.
    pub read: &'a dyn Fn(&Path, usize) -> io::Result<Vec<u8>>,
    /// Whether a file or directory is there.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

/// At most `bytes_max` of the first bytes of a file.
pub(super) fn read_file(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(u64::try_from(bytes_max).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The bytes of a file with keys or certificates, 1 MiB at most. The error names the file and says
/// what is wrong with it.
pub(crate) fn read_pem(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read_file(path, PEM_BYTES_MAX.saturating_add(1))
        .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    if bytes.len() > PEM_BYTES_MAX {
        return Err(format!("`{}` is larger than {PEM_BYTES_MAX} bytes", path.display()));
    }
    Ok(bytes)
}
