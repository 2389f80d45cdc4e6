//! Where a journal begins whose earlier records were removed or moved elsewhere.

use std::fmt;
use std::path::Path;

use super::scan::first_time;
use super::segment;
use super::tail::ReadError;

/// The first record of a journal that has no longer its record 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// Its sequence number.
    pub seq: u64,
    /// Its time, as the record has it.
    pub time: String,
}

impl Beginning {
    /// Of the journal in `directory`; `None` if record 1 is there, or no record.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn read(directory: &Path) -> Result<Option<Self>, ReadError> {
        let failed = |path: &Path, source| ReadError::Io { path: path.to_owned(), source };
        let segments = segment::list(directory).map_err(|source| failed(directory, source))?;
        let Some(first) = segments.first().filter(|it| it.first_seq > 1) else { return Ok(None) };
        let time = first_time(&first.path).map_err(|source| failed(&first.path, source))?;
        Ok(time.map(|time| Self { seq: first.first_seq, time }))
    }

    /// Whether records since `since` (RFC 3339, as in records; without it, all) may be missing.
    pub fn is_after(&self, since: Option<&str>) -> bool {
        since.is_none_or(|since| since < self.time.as_str())
    }
}

impl fmt::Display for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut time = String::new();
        super::inert::push(&mut time, &self.time, 40);
        write!(f, "the journal begins with record {} at {time}", self.seq)
    }
}
