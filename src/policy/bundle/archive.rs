//! Unpacks a gzip-compressed tarball in memory.
//!
//! Nothing is written to disk under a name from the archive, so such a name can at most mislead a
//! reader; misleading names are rejected. The unpacked size, the ratio of unpacked to packed size,
//! the entries and the files have limits. An archive that is cut off anywhere is rejected, even
//! between two files.

use std::io::Read as _;

use flate2::bufread::GzDecoder;
use tar::{Archive, Entry, EntryType};

use super::members::Members;
use crate::policy::files::LoadLimits;

/// Largest ratio of unpacked to packed size. Text of rules and data stays far below it; gzip allows
/// more than a thousand.
const EXPANSION_MAX: usize = 200;
/// Unpacked size that is allowed whatever the ratio, bytes.
const EXPANSION_FREE_BYTES: usize = 4 << 20;
/// Largest size of headers and padding, bytes.
const OVERHEAD_BYTES_MAX: u64 = 8 << 20;
/// The zero blocks at the end of an archive, bytes (POSIX.1-2017, pax, "ustar Interchange Format").
const END_BYTES: usize = 1024;
/// Size of a block, bytes.
const BLOCK_BYTES: usize = 512;
/// Largest length of a name, bytes.
const NAME_BYTES_MAX: usize = 1024;

/// Unpacks `packed`.
///
/// # Errors
///
/// What is wrong with the archive.
pub fn unpack(packed: &[u8], limits: &LoadLimits) -> Result<Members, String> {
    if packed.is_empty() {
        return Err("the archive is empty".to_owned());
    }
    let tarball = gunzip(packed, limits)?;
    let ended = tarball.len().checked_sub(END_BYTES).and_then(|end| tarball.get(end..));
    let whole = tarball.len().is_multiple_of(BLOCK_BYTES)
        && ended.is_some_and(|end| end.iter().all(|byte| *byte == 0));
    if !whole {
        return Err("the tar archive is incomplete or invalid".to_owned());
    }
    let mut members = Members::new();
    let mut archive = Archive::new(tarball.as_slice());
    let entries = archive.entries().map_err(|error| damaged(&error))?;
    for (count, entry) in entries.enumerate() {
        if count >= limits.entries_max {
            return Err(format!("more than {} entries", limits.entries_max));
        }
        let mut entry = entry.map_err(|error| damaged(&error))?;
        let Some(name) = file_name(&entry, limits)? else { continue };
        if members.len() >= limits.files_max {
            return Err(format!("more than {} files", limits.files_max));
        }
        let bytes = content(&mut entry, &name, limits)?;
        if members.insert(name.clone(), bytes).is_some() {
            return Err(format!("the archive contains `{name}` twice"));
        }
    }
    Ok(members)
}

fn damaged(error: &std::io::Error) -> String {
    format!("the archive is damaged: {error}")
}

fn gunzip(packed: &[u8], limits: &LoadLimits) -> Result<Vec<u8>, String> {
    let ratio = packed.len().saturating_mul(EXPANSION_MAX).max(EXPANSION_FREE_BYTES);
    let all = limits.total_bytes_max.saturating_add(OVERHEAD_BYTES_MAX);
    let max = u64::try_from(ratio).unwrap_or(u64::MAX).min(all);
    let mut decoder = GzDecoder::new(packed);
    let mut unpacked = Vec::new();
    (&mut decoder)
        .take(max.saturating_add(1))
        .read_to_end(&mut unpacked)
        .map_err(|error| format!("the gzip stream is incomplete or invalid: {error}"))?;
    if u64::try_from(unpacked.len()).map_or(true, |length| length > max) {
        return Err(format!("{} bytes unpack to more than {max}", packed.len()));
    }
    if !decoder.into_inner().is_empty() {
        return Err("the archive has data after the gzip stream".to_owned());
    }
    Ok(unpacked)
}

/// The name of a regular file; `None` for entries that are skipped, such as directories.
fn file_name<R: std::io::Read>(
    entry: &Entry<'_, R>,
    limits: &LoadLimits,
) -> Result<Option<String>, String> {
    let bytes = entry.path_bytes();
    let Ok(name) = std::str::from_utf8(&bytes) else {
        return Err("a file name is not UTF-8".to_owned());
    };
    let kind = entry.header().entry_type();
    if matches!(kind, EntryType::Directory | EntryType::XGlobalHeader) {
        return Ok(None);
    }
    // Reject links, devices, pipes, sparse and contiguous files.
    if kind != EntryType::Regular {
        return Err(format!("`{}` is not a regular file", name.escape_debug()));
    }
    member_name(name, limits).map(Some)
}

/// The path below the bundle's root. `opa build` begins names with `/`, which means the root of the
/// bundle; `tar` may begin them with `./`.
fn member_name(name: &str, limits: &LoadLimits) -> Result<String, String> {
    let path = name.strip_prefix("./").or_else(|| name.strip_prefix('/')).unwrap_or(name);
    let refused = |why: &str| Err(format!("`{}`: {why}", name.escape_debug()));
    if path.len() > NAME_BYTES_MAX {
        return Err(format!("a name is longer than {NAME_BYTES_MAX} bytes"));
    }
    if path.contains('\\') || path.contains(char::is_control) {
        return refused("the name contains a backslash or a control character");
    }
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return refused("the path contains an empty segment, `.` or `..`");
    }
    if path.split('/').count() > limits.depth_max.saturating_add(1) {
        return refused("more directories than are allowed");
    }
    Ok(path.to_owned())
}

fn content<R: std::io::Read>(
    entry: &mut Entry<'_, R>,
    name: &str,
    limits: &LoadLimits,
) -> Result<Vec<u8>, String> {
    let size = entry.size();
    if size > limits.file_bytes_max {
        return Err(format!("`{name}` is larger than {} bytes", limits.file_bytes_max));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| damaged(&error))?;
    if u64::try_from(bytes.len()).ok() != Some(size) {
        return Err(format!("`{name}` is cut off"));
    }
    Ok(bytes)
}
