//! Segments: the files that a journal is made of, one after the other.
//!
//! This is all that touches files: names, listing, reading whole lines, and [`Store`], through
//! which the journal writes and tests inject faults. It knows lines, not records.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Longest line that is written or read, bytes, without its LF.
pub const LINE_BYTES_MAX: usize = 1 << 20;

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Where the journal's lines go.
///
/// The writer keeps count of the bytes that it was told were taken, and tells the store to cut
/// off what is beyond them after a fault.
pub trait Store: Send {
    /// Appends `line` to the segment, which must be `length` bytes long, with one write. Says how
    /// many bytes were taken; fewer than all of them is a fault too.
    fn append(&mut self, length: u64, line: &[u8]) -> Result<usize, StoreError>;
    /// Cuts the segment to `length` bytes.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Creates the segment whose first record will be `first_seq`, and writes there from now on.
    fn begin_segment(&mut self, first_seq: u64) -> io::Result<()>;
    /// Bytes that may still be written to the file system.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Forces what was written onto the disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// Why a line was not appended.
#[derive(Debug)]
pub enum StoreError {
    /// The system refused.
    Io(io::Error),
    /// The segment was removed, cut or added to by another program. What is in it stays as it is,
    /// as evidence; the journal goes on in a new segment.
    Displaced,
}

/// A directory of segments.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    segment: Option<File>,
}

impl Directory {
    /// Creates `path` where it is missing, for its owner alone.
    pub fn create(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }

    /// A store in `path` that goes on with the segment of `first_seq`, or has none yet.
    pub fn open(path: &Path, first_seq: Option<u64>) -> io::Result<Self> {
        let segment = first_seq
            .map(|first_seq| OpenOptions::new().append(true).open(path.join(name(first_seq))))
            .transpose()?;
        Ok(Self { path: path.to_owned(), segment })
    }

    fn segment(&mut self) -> io::Result<&mut File> {
        self.segment.as_mut().ok_or_else(|| io::Error::other("no segment was begun"))
    }
}

impl Store for Directory {
    fn append(&mut self, length: u64, line: &[u8]) -> Result<usize, StoreError> {
        let segment = self.segment().map_err(StoreError::Io)?;
        let status = rustix::fs::fstat(&*segment).map_err(|error| StoreError::Io(error.into()))?;
        if status.st_nlink == 0 || u64::try_from(status.st_size) != Ok(length) {
            return Err(StoreError::Displaced);
        }
        loop {
            match segment.write(line) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                taken => return taken.map_err(StoreError::Io),
            }
        }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.segment()?.set_len(length)
    }

    fn begin_segment(&mut self, first_seq: u64) -> io::Result<()> {
        let path = self.path.join(name(first_seq));
        self.segment = Some(create_new(&path)?);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let status = rustix::fs::statvfs(&self.path)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.segment()?.sync_all()
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Opens the lock file of `directory`, which nobody else may have locked.
pub(super) fn lock(directory: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(directory.join("journal.lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// The file name of the segment whose first record is `first_seq`.
pub fn name(first_seq: u64) -> String {
    format!("journal-{first_seq:020}.ndjson")
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of its first record, from its name.
    pub first_seq: u64,
    /// The file.
    pub path: PathBuf,
}

/// The segments of `directory`, oldest first. Other files are passed over.
pub fn list(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        let digits = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("journal-")?.strip_suffix(".ndjson"))
            .filter(|digits| digits.len() == 20 && digits.bytes().all(|c| c.is_ascii_digit()));
        if let Some(first_seq) = digits.and_then(|digits| digits.parse().ok()) {
            segments.push(Segment { first_seq, path });
        }
    }
    segments.sort_by_key(|segment| segment.first_seq);
    Ok(segments)
}

/// What [`Lines::advance`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A whole line; [`Lines::line`] has it.
    Whole,
    /// Bytes without LF at the end of the file. They are read anew next time.
    Partial,
    /// No LF within [`LINE_BYTES_MAX`].
    TooLong,
    /// Nothing more, for now.
    End,
}

/// Reads a segment line by line, also while it grows.
#[derive(Debug)]
pub struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
    start: u64,
    end: u64,
}

impl Lines {
    /// Reads the file at `path` from its beginning.
    pub fn open(path: &Path) -> io::Result<Self> {
        let reader = BufReader::with_capacity(1 << 16, File::open(path)?);
        Ok(Self { reader, line: Vec::new(), start: 0, end: 0 })
    }

    /// Goes on to the next line.
    pub fn advance(&mut self) -> io::Result<Piece> {
        self.start = self.end;
        self.line.clear();
        let bytes_max = u64::try_from(LINE_BYTES_MAX.saturating_add(1)).unwrap_or(u64::MAX);
        let read = (&mut self.reader).take(bytes_max).read_until(b'\n', &mut self.line)?;
        if self.line.pop_if(|last| *last == b'\n').is_some() {
            let read = u64::try_from(read).map_err(io::Error::other)?;
            self.end = self.start.saturating_add(read);
            return Ok(Piece::Whole);
        }
        if read == 0 {
            return Ok(Piece::End);
        }
        // The file may be cut and grow again: forget what was read ahead.
        self.reader.seek(SeekFrom::Start(self.start))?;
        Ok(if read > LINE_BYTES_MAX { Piece::TooLong } else { Piece::Partial })
    }

    /// Makes the next [`Lines::advance`] read the current line once more, from the file.
    pub fn again(&mut self) -> io::Result<()> {
        self.end = self.start;
        self.reader.seek(SeekFrom::Start(self.start)).map(drop)
    }

    /// The current line, without its LF.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Where the current line, or piece of one, begins, bytes from the start of the file.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Where the current line ends, its LF included.
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// The last whole line of the file at `path`, if it has one.
pub(super) fn last_line(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    // Room for the line, its LF and the LF before it.
    let tail_max = u64::try_from(LINE_BYTES_MAX.saturating_add(2)).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(length.saturating_sub(tail_max)))?;
    let mut tail = Vec::new();
    file.take(tail_max).read_to_end(&mut tail)?;
    if tail.pop_if(|last| *last == b'\n').is_none() {
        return Ok(None);
    }
    Ok(tail.rsplit(|byte| *byte == b'\n').next().map(<[u8]>::to_vec))
}

/// Moves what the file at `path` has from `offset` on into `aside`, after anything already there.
pub(super) fn cut(path: &Path, offset: u64, aside: &Path) -> io::Result<u64> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut kept = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(aside)?;
    let bytes = io::copy(&mut file, &mut kept)?;
    kept.sync_all()?;
    file.set_len(offset)?;
    Ok(bytes)
}

/// Whether the file at `path` has anything behind the first LF after `offset`.
pub(super) fn has_more_lines(path: &Path, offset: u64) -> io::Result<bool> {
    let mut reader = BufReader::new(File::open(path)?);
    reader.seek(SeekFrom::Start(offset))?;
    reader.skip_until(b'\n')?;
    Ok(!reader.fill_buf()?.is_empty())
}
