//! Reading a journal in order, from any sequence number, also while it is written.
//!
//! [`Reader`] reads files and nothing else, so it serves other programs too. [`Follower`] is for
//! this program: the journal wakes it, and it reads on from the files. Neither holds anything for
//! a slow consumer, and neither can slow the writer down. They do not check the chain;
//! [`verify`](super::verify) does.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::segment::{self, Lines, Piece};
use bartizan_sync::lock;

/// One record as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its sequence number.
    pub seq: u64,
    /// Its bytes, without the LF.
    pub bytes: Vec<u8>,
}

/// Why a journal cannot be read on.
#[derive(Debug)]
pub enum ReadError {
    /// The system refused.
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The record is not there, though later ones are.
    Missing {
        /// Its sequence number.
        seq: u64,
        /// The next one that is there.
        found: u64,
    },
    /// In the place of the record is something else.
    Unreadable {
        /// Its sequence number.
        seq: u64,
        /// The segment.
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
pub struct Reader {
    directory: PathBuf,
    next_seq: u64,
    segment: Option<Open>,
}

#[derive(Debug)]
struct Open {
    first_seq: u64,
    path: PathBuf,
    lines: Lines,
}

impl Reader {
    /// Reads the journal in `directory` from record `from_seq` on, or from the oldest there is.
    pub fn new(directory: &Path, from_seq: u64) -> Self {
        Self { directory: directory.to_owned(), next_seq: from_seq.max(1), segment: None }
    }

    /// Sequence number of the record that is read next.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Goes to record `seq`.
    pub fn seek(&mut self, seq: u64) {
        self.next_seq = seq.max(1);
        self.segment = None;
    }

    /// The next record; `None` where the journal ends for now.
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
                None => reread(open, self.next_seq)?,
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

    /// Up to `max` records.
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

    /// Opens the segment that has the next record, or the oldest; `false` where there is none.
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
        let lines =
            Lines::open(&path).map_err(|source| ReadError::Io { path: path.clone(), source })?;
        self.segment = Some(Open { first_seq, path, lines });
        Ok(())
    }

    /// At the end of a segment: goes on where there is a next one.
    fn go_to_next_segment(&mut self) -> Result<bool, ReadError> {
        let segments = self.list()?;
        let Some(open) = &mut self.segment else { return Ok(false) };
        let later = segments.into_iter().find(|other| other.first_seq > open.first_seq);
        let Some(later) = later else { return Ok(false) };
        // The writer is done with this segment, but may have written to it since we looked.
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

fn advance(open: &mut Open) -> Result<Piece, ReadError> {
    open.lines.advance().map_err(|source| ReadError::Io { path: open.path.clone(), source })
}

/// A line that is no record may be a piece that was being replaced while it was read: it is read
/// once more.
fn reread(open: &mut Open, seq: u64) -> Result<u64, ReadError> {
    open.lines.again().map_err(|source| ReadError::Io { path: open.path.clone(), source })?;
    let whole = advance(open)? == Piece::Whole;
    let found = whole.then(|| seq_of(open.lines.line())).flatten();
    found.ok_or_else(|| ReadError::Unreadable { seq, path: open.path.clone() })
}

/// The `seq` of a line, which the journal always writes first.
fn seq_of(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let digits = rest.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Follows the journal of this program.
#[derive(Debug)]
pub struct Follower {
    reader: Arc<Mutex<Reader>>,
    next_seq: u64,
    head: watch::Receiver<u64>,
}

impl Follower {
    pub(super) fn new(directory: &Path, from_seq: u64, head: watch::Receiver<u64>) -> Self {
        let reader = Arc::new(Mutex::new(Reader::new(directory, from_seq)));
        Self { reader, next_seq: from_seq.max(1), head }
    }

    /// Sequence number of the record that comes next.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Goes to record `seq`.
    pub fn seek(&mut self, seq: u64) {
        self.next_seq = seq.max(1);
    }

    /// How many records are kept and not yet handed out.
    pub fn lag(&self) -> u64 {
        self.head.borrow().saturating_add(1).saturating_sub(self.next_seq)
    }

    /// Waits for records and hands out up to `max` of them; none once the journal is gone and
    /// everything was handed out. Dropping the future loses nothing.
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
        let lines = read.await.map_err(|error| ReadError::Io {
            path: PathBuf::new(),
            source: io::Error::other(error),
        })??;
        let Some(last) = lines.last() else {
            // They were kept, so someone took the file away.
            return Err(ReadError::Missing {
                seq: next_seq,
                found: self.head.borrow().saturating_add(1),
            });
        };
        self.next_seq = last.seq.saturating_add(1);
        Ok(lines)
    }
}
