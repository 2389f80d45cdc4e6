//! Reads a journal in order, from any sequence number, also while it is written.
//!
//! [`JournalReader`] only reads files, so other programs can use it. [`Follower`] is for the
//! program that writes the journal: the journal wakes it, and it reads from the files. Neither
//! queues records for a slow consumer, and neither can slow the writer down. They do not check the
//! chain; [`verify`](super::verify) does.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::segment::{self, LineReader, Piece};
use bartizan_sync::lock;

/// One record as the bytes of its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its sequence number.
    pub seq: u64,
    /// Its bytes, without the LF.
    pub bytes: Vec<u8>,
}

/// Why the next record cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// A file operation failed.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The record is missing, although later records exist.
    Missing {
        /// Its sequence number.
        seq: u64,
        /// The sequence number of the next existing record.
        found: u64,
    },
    /// The record's line is not a record.
    Unreadable {
        /// Its sequence number.
        seq: u64,
        /// The segment that should hold it.
        path: PathBuf,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "cannot read `{}`: {source}", path.display()),
            Self::Missing { seq, found } => {
                write!(f, "record {seq} is missing; the next one is {found}")
            }
            Self::Unreadable { seq, path } => {
                write!(f, "record {seq} in `{}` cannot be read", path.display())
            }
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Missing { .. } | Self::Unreadable { .. } => None,
        }
    }
}

/// Reads records across segments.
#[derive(Debug)]
pub struct JournalReader {
    directory: PathBuf,
    next_seq: u64,
    segment: Option<OpenSegment>,
}

#[derive(Debug)]
struct OpenSegment {
    first_seq: u64,
    path: PathBuf,
    lines: LineReader,
}

impl JournalReader {
    /// Reads the journal in `directory` from record `from_seq` on, or from the oldest existing
    /// record if that one is gone.
    pub fn new(directory: &Path, from_seq: u64) -> Self {
        Self { directory: directory.to_owned(), next_seq: from_seq.max(1), segment: None }
    }

    /// Sequence number of the record that the next call returns.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Makes `seq` the next record.
    pub fn seek(&mut self, seq: u64) {
        self.next_seq = seq.max(1);
        self.segment = None;
    }

    /// The next record; `None` at the current end of the journal.
    ///
    /// # Errors
    ///
    /// A file cannot be read, the record is missing, or its line is damaged.
    pub fn read(&mut self) -> Result<Option<Line>, ReadError> {
        loop {
            let Some(open) = &mut self.segment else {
                if self.find_segment()? {
                    continue;
                }
                return Ok(None);
            };
            let piece = advance(open)?;
            if piece == Piece::TooLong {
                return Err(ReadError::Unreadable { seq: self.next_seq, path: open.path.clone() });
            }
            if piece != Piece::Whole {
                if self.go_to_next_segment()? {
                    continue;
                }
                return Ok(None);
            }
            let seq = match seq_of(open.lines.line()) {
                Some(seq) => seq,
                None => read_seq_again(open, self.next_seq)?,
            };
            if seq > self.next_seq {
                return Err(ReadError::Missing { seq: self.next_seq, found: seq });
            }
            if seq == self.next_seq {
                self.next_seq = seq.saturating_add(1);
                return Ok(Some(Line { seq, bytes: open.lines.line().to_vec() }));
            }
        }
    }

    /// Up to `max` records; fewer at the current end of the journal.
    ///
    /// # Errors
    ///
    /// As [`JournalReader::read`].
    pub fn read_many(&mut self, max: usize) -> Result<Vec<Line>, ReadError> {
        let mut lines = Vec::new();
        while lines.len() < max {
            let Some(line) = self.read()? else { break };
            lines.push(line);
        }
        Ok(lines)
    }

    fn list(&self) -> Result<Vec<segment::Segment>, ReadError> {
        segment::list(&self.directory)
            .map_err(|source| ReadError::Io { path: self.directory.clone(), source })
    }

    /// Opens the segment with the next record, or the oldest segment; `false` if there is none.
    fn find_segment(&mut self) -> Result<bool, ReadError> {
        let segments = self.list()?;
        let Some(oldest) = segments.first() else { return Ok(false) };
        self.next_seq = self.next_seq.max(oldest.first_seq);
        let found = segments.iter().rev().find(|segment| segment.first_seq <= self.next_seq);
        let segment = found.unwrap_or(oldest);
        self.open(segment.first_seq, segment.path.clone())?;
        Ok(true)
    }

    fn open(&mut self, first_seq: u64, path: PathBuf) -> Result<(), ReadError> {
        let lines = LineReader::open(&path)
            .map_err(|source| ReadError::Io { path: path.clone(), source })?;
        self.segment = Some(OpenSegment { first_seq, path, lines });
        Ok(())
    }

    /// At the end of a segment: opens the next segment; `false` if there is none.
    fn go_to_next_segment(&mut self) -> Result<bool, ReadError> {
        let segments = self.list()?;
        let Some(open) = &mut self.segment else { return Ok(false) };
        let later = segments.into_iter().find(|other| other.first_seq > open.first_seq);
        let Some(later) = later else { return Ok(false) };
        // The writer has left this segment, but may have appended to it after we reached its end.
        if advance(open)? == Piece::Whole {
            open.lines
                .again()
                .map_err(|source| ReadError::Io { path: open.path.clone(), source })?;
            return Ok(true);
        }
        if later.first_seq > self.next_seq {
            return Err(ReadError::Missing { seq: self.next_seq, found: later.first_seq });
        }
        self.open(later.first_seq, later.path)?;
        Ok(true)
    }
}

fn advance(open: &mut OpenSegment) -> Result<Piece, ReadError> {
    open.lines.advance().map_err(|source| ReadError::Io { path: open.path.clone(), source })
}

/// Reads a line again that did not parse: the writer may have been replacing a torn line at that
/// moment. Returns its `seq`.
fn read_seq_again(open: &mut OpenSegment, seq: u64) -> Result<u64, ReadError> {
    open.lines.again().map_err(|source| ReadError::Io { path: open.path.clone(), source })?;
    let whole = advance(open)? == Piece::Whole;
    let found = whole.then(|| seq_of(open.lines.line())).flatten();
    found.ok_or_else(|| ReadError::Unreadable { seq, path: open.path.clone() })
}

/// The `seq` of a line; the journal always writes it first.
pub fn seq_of(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let digits = rest.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Follows the journal that this program writes.
#[derive(Debug)]
pub struct Follower {
    reader: Arc<Mutex<JournalReader>>,
    next_seq: u64,
    head: watch::Receiver<u64>,
}

impl Follower {
    pub(super) fn new(directory: &Path, from_seq: u64, head: watch::Receiver<u64>) -> Self {
        let reader = Arc::new(Mutex::new(JournalReader::new(directory, from_seq)));
        Self { reader, next_seq: from_seq.max(1), head }
    }

    /// Sequence number of the record that the next batch begins with.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Makes `seq` the next record.
    pub fn seek(&mut self, seq: u64) {
        self.next_seq = seq.max(1);
    }

    /// Number of records that were written and not yet returned.
    pub fn lag(&self) -> u64 {
        self.head.borrow().saturating_add(1).saturating_sub(self.next_seq)
    }

    /// Waits for records and returns up to `max` of them; none after the journal was dropped and
    /// all records were returned. Cancel-safe: dropping the future loses no record.
    ///
    /// # Errors
    ///
    /// As [`JournalReader::read`].
    pub async fn batch(&mut self, max: usize) -> Result<Vec<Line>, ReadError> {
        let next_seq = self.next_seq;
        if self.head.wait_for(|head| *head >= next_seq).await.is_err() && self.lag() == 0 {
            return Ok(Vec::new());
        }
        let reader = Arc::clone(&self.reader);
        let read = tokio::task::spawn_blocking(move || {
            let mut reader = lock(&reader);
            if reader.next_seq() != next_seq {
                reader.seek(next_seq);
            }
            reader.read_many(max)
        });
        let lines = read.await.map_err(|error| {
            let path = PathBuf::new();
            // The one record is given up, so that the later ones are read.
            if error.is_panic() {
                return ReadError::Unreadable { seq: next_seq, path };
            }
            ReadError::Io { path, source: io::Error::other(error) }
        })??;
        let Some(last) = lines.last() else {
            // The journal wrote these records, so another program removed them.
            return Err(ReadError::Missing {
                seq: next_seq,
                found: self.head.borrow().saturating_add(1),
            });
        };
        self.next_seq = last.seq.saturating_add(1);
        Ok(lines)
    }
}
