//! Old segments of a journal: compresses them, and removes them once the operator wants no more of
//! them.
//!
//! The newest segment is left alone, because the journal writes to it, and so are those that the next
//! start reads to repair the journal. Which files are removed is recorded before they are: the caller
//! keeps the record. `bartizan run` looks for work from time to time, in a task of its own, so no call
//! waits for it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::recover::{self, JournalError};
use super::segment::{self, Segment};

/// What is to be done with old segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Size that all segments together may have, bytes; the oldest are removed beyond it.
    pub bytes: Option<u64>,
    /// Age of a segment's newest record from which on it is removed.
    pub age: Option<Duration>,
    /// Age of a segment's newest record from which on it is compressed.
    pub compress_after: Option<Duration>,
}

/// Segments that are to be removed, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Their files, oldest first; at least one.
    pub files: Vec<PathBuf>,
    /// Sequence number of their first record.
    pub first_seq: u64,
    /// Sequence number of their last record.
    pub last_seq: u64,
    /// Size of the files together, bytes.
    pub bytes: u64,
    /// The setting that wants it: `age` or `bytes`.
    pub by: &'static str,
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, first_seq, last_seq, bytes, by } = self;
        write!(
            f,
            "removes {} files with the records {first_seq} to {last_seq}, {bytes} bytes, by \
             `audit.retention.{by}`",
            files.len()
        )
    }
}

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Segments to remove.
    pub expired: Option<Expired>,
    /// Sequence number of the first record of a segment that would be removed, but somebody still needs
    /// it.
    pub blocked: Option<u64>,
    /// Segments to compress, oldest first.
    pub compressible: Vec<PathBuf>,
}

impl Retention {
    /// What there is to do in `directory` at the time `now`, where all records from `needed` on are
    /// still needed: no exporter has sent them, or no checkpoint covers them.
    ///
    /// # Errors
    ///
    /// The directory or a segment cannot be read.
    pub fn due(&self, directory: &Path, needed: u64, now: SystemTime) -> Result<Due, JournalError> {
        let files = Files::of(directory)?;
        let (expired, blocked) = self.expired(&files, needed, now);
        let removed = expired.as_ref().map_or(0, |expired| expired.files.len());
        let old = |file: &&File| {
            let age = self.compress_after;
            !file.segment.is_compressed() && age.is_some_and(|age| file.age(now) >= age)
        };
        let closed = files.closed().skip(removed).filter(old);
        let compressible = closed.map(|file| file.segment.path.clone()).collect();
        Ok(Due { expired, blocked, compressible })
    }

    fn expired(
        &self,
        files: &Files,
        needed: u64,
        now: SystemTime,
    ) -> (Option<Expired>, Option<u64>) {
        let mut left = files.bytes();
        let mut expired: Option<Expired> = None;
        for (file, next) in files.closed().zip(files.0.iter().skip(1)) {
            let over = self.bytes.is_some_and(|bytes| left > bytes);
            let by = match self.age {
                Some(age) if file.age(now) >= age => "age",
                _ if over => "bytes",
                _ => break,
            };
            let Segment { first_seq, path } = &file.segment;
            if next.segment.first_seq > files.repair_from() {
                break;
            }
            if next.segment.first_seq > needed {
                return (expired, Some(*first_seq));
            }
            let all = expired.get_or_insert_with(|| Expired {
                files: Vec::new(),
                first_seq: *first_seq,
                last_seq: 0,
                bytes: 0,
                by,
            });
            // Each reason has its own record; the next look finds the rest.
            if all.by != by {
                break;
            }
            all.files.push(path.clone());
            all.last_seq = next.segment.first_seq.saturating_sub(1);
            all.bytes = all.bytes.saturating_add(file.bytes);
            left = left.saturating_sub(file.bytes);
        }
        (expired, None)
    }
}

/// A segment with what its file says.
struct File {
    segment: Segment,
    bytes: u64,
    /// When the last record was written.
    written: SystemTime,
    /// Whether a start after a crash may read it.
    repairs: bool,
}

impl File {
    fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.written).unwrap_or_default()
    }
}

/// All segments, oldest first.
struct Files(Vec<File>);

impl Files {
    fn of(directory: &Path) -> Result<Self, JournalError> {
        let segments = segment::list(directory).map_err(recover::at("list", directory))?;
        let repairs = recover::first_needed(&segments)?;
        let mut files = Vec::new();
        for (index, segment) in segments.into_iter().enumerate() {
            let facts =
                std::fs::metadata(&segment.path).and_then(|it| Ok((it.len(), it.modified()?)));
            let (bytes, written) = facts.map_err(recover::at("read", &segment.path))?;
            files.push(File { segment, bytes, written, repairs: index >= repairs });
        }
        Ok(Self(files))
    }

    fn bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Those to which nothing is written any more.
    fn closed(&self) -> impl Iterator<Item = &File> {
        self.0.iter().take(self.0.len().saturating_sub(1))
    }

    /// Sequence number of the first record that a start after a crash may read.
    fn repair_from(&self) -> u64 {
        self.0.iter().find(|file| file.repairs).map_or(0, |file| file.segment.first_seq)
    }
}

impl Expired {
    /// Removes the files from `directory`. Keep a record of it before: it is flushed to the disk first,
    /// with all of the newest segment.
    ///
    /// # Errors
    ///
    /// A file cannot be flushed or removed; those before it are removed.
    pub fn remove(&self, directory: &Path) -> io::Result<()> {
        if let Some(newest) = segment::list(directory)?.last() {
            std::fs::File::open(&newest.path)?.sync_data()?;
        }
        for file in &self.files {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "tests")]

    use std::fs;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    /// A journal whose segments begin with these records and are so many days old, each of 1,000 bytes,
    /// and the time that it is now.
    fn journal(segments: &[(u64, u32)]) -> (tempfile::TempDir, SystemTime) {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        for (first_seq, days) in segments {
            let mut line = format!(
                "{{\"seq\":{first_seq},\"boot\":\"b\",\"prev\":\"\",\"open\":[],\"event\":\"rotation\",\
                 \"time\":\"\",\"note\":\""
            );
            line.push_str(&"x".repeat(997 - line.len()));
            line.push_str("\"}\n");
            let path = directory.path().join(segment::name(*first_seq));
            fs::write(&path, line).unwrap();
            let file = fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(now - DAY * *days).unwrap();
        }
        (directory, now)
    }

    fn removed(
        journal: &(tempfile::TempDir, SystemTime),
        retention: Retention,
        needed: u64,
    ) -> (Option<(usize, u64, &'static str)>, Option<u64>) {
        let due = retention.due(journal.0.path(), needed, journal.1).unwrap();
        let expired = due.expired.map(|it| (it.files.len(), it.last_seq, it.by));
        (expired, due.blocked)
    }

    #[test]
    fn what_is_too_old_or_too_much_is_removed_from_the_oldest_on() {
        let scene = journal(&[(1, 9), (11, 5), (21, 3), (31, 1), (41, 0)]);
        let days = |days: u32| Retention { age: Some(DAY * days), ..Retention::default() };
        let bytes = |bytes| Retention { bytes: Some(bytes), ..Retention::default() };
        assert_eq!(removed(&scene, Retention::default(), u64::MAX), (None, None));
        assert_eq!(removed(&scene, days(4), u64::MAX), (Some((2, 20, "age")), None));
        assert_eq!(removed(&scene, days(10), u64::MAX), (None, None));
        assert_eq!(removed(&scene, bytes(4000), u64::MAX), (Some((1, 10, "bytes")), None));
        assert_eq!(removed(&scene, bytes(5000), u64::MAX), (None, None));
        // The newest, and the one before, whose last line the next one's first refers to, stay.
        assert_eq!(removed(&scene, bytes(0), u64::MAX), (Some((3, 30, "bytes")), None));
        assert_eq!(
            removed(&scene, Retention { bytes: Some(0), ..days(4) }, u64::MAX).0,
            Some((2, 20, "age"))
        );
    }

    #[test]
    fn what_somebody_needs_stays_and_is_told() {
        let scene = journal(&[(1, 9), (11, 8), (21, 7), (31, 6), (41, 0)]);
        let old = Retention { age: Some(DAY), ..Retention::default() };
        for (needed, expected) in [
            (1, (None, Some(1))),
            (10, (None, Some(1))),
            (11, (Some((1, 10, "age")), Some(11))),
            (25, (Some((2, 20, "age")), Some(21))),
        ] {
            assert_eq!(removed(&scene, old, needed), expected, "from {needed} on");
        }
    }

    #[test]
    fn closed_segments_are_compressed_after_a_while_and_keep_their_age() {
        let (directory, now) = journal(&[(1, 3), (2, 2), (3, 1)]);
        let path = directory.path();
        let packs = Retention { compress_after: Some(DAY * 2), ..Retention::default() };
        let due = packs.due(path, u64::MAX, now).unwrap().compressible;
        assert_eq!(due, [path.join(segment::name(1)), path.join(segment::name(2))]);
        let before = segment::last_line(&due[0]).unwrap();
        for file in &due {
            segment::compress(file).unwrap();
        }
        assert_eq!(packs.due(path, u64::MAX, now).unwrap(), Due::default());
        let segments = segment::list(path).unwrap();
        assert_eq!(
            segments.iter().map(Segment::is_compressed).collect::<Vec<_>>(),
            [true, true, false]
        );
        assert_eq!(segment::last_line(&segments[0].path).unwrap(), before);
        // An interrupted compression left both files, or a part of one: it is done again.
        fs::write(path.join(segment::name(2)), "all of it\n").unwrap();
        fs::write(path.join(segment::name(2) + ".gz.new"), "a part").unwrap();
        segment::compress(&segment::list(path).unwrap()[1].path).unwrap();
        let again = &segment::list(path).unwrap()[1];
        assert!(again.is_compressed());
        assert_eq!(segment::last_line(&again.path).unwrap().unwrap(), b"all of it");
        let old = Retention { age: Some(DAY * 3), ..Retention::default() };
        let expired = old.due(path, u64::MAX, now).unwrap().expired.unwrap();
        assert_eq!(expired.files, [segments[0].path.clone()]);
        expired.remove(path).unwrap();
        assert_eq!(segment::list(path).unwrap().len(), 2);
    }
}
