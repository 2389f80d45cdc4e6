//! Segments: the files of a journal.
//!
//! The only module of the journal that touches files: it names and lists segments, reads whole
//! lines, and defines [`Store`], through which the journal writes and tests inject faults. It knows
//! lines and not what is in them.
//!
//! A segment that is no longer written may be compressed with gzip (RFC 1952): its name then ends in
//! `.gz`. Every reader reads both.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Longest line that is written or read, without its LF, bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// The file that is locked while a program writes.
pub(super) const LOCK_FILE: &str = "journal.lock";

pub(super) const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The destination of the journal's lines.
///
/// The writer counts the bytes of the lines that were written whole. After a fault it has the store
/// truncate the segment to that length.
pub trait Store: Send {
    /// Appends `line` with one write to the segment, which must be `length` bytes long. Returns the
    /// number of bytes written; fewer than all of them is a fault, too.
    fn append(&mut self, length: u64, line: &[u8]) -> Result<usize, StoreError>;
    /// Truncates the segment to `length` bytes.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Creates the segment whose first record will be `first_seq`; later lines go there.
    fn begin_segment(&mut self, first_seq: u64) -> io::Result<()>;
    /// Free space of the file system for this user, bytes.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Size of all segments together, bytes.
    fn total_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }
    /// Flushes written data to the disk (`fsync`).
    fn sync(&mut self) -> io::Result<()>;
    /// What flushes the current segment while others write to it.
    fn flush(&mut self) -> io::Result<Arc<dyn Flush>>;
}

/// Flushes one segment to the disk. It is called by one thread at a time, and never again once it
/// has failed.
pub trait Flush: Send + Sync {
    /// Returns once everything that was written to the segment before the call is on the disk.
    fn flush(&self) -> io::Result<()>;
}

/// One segment, and the directory that names it.
#[derive(Debug)]
struct SegmentFlush {
    segment: File,
    directory: File,
    /// Whether its name is on the disk.
    named: AtomicBool,
}

impl Flush for SegmentFlush {
    fn flush(&self) -> io::Result<()> {
        self.segment.sync_data()?;
        if !self.named.load(Ordering::Relaxed) {
            self.directory.sync_all()?;
            self.named.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Why a line was not appended.
#[derive(Debug)]
pub enum StoreError {
    /// A file operation failed.
    Io(io::Error),
    /// Another program removed, truncated or extended the segment. It is left unchanged, as
    /// evidence; the journal continues in a new segment.
    Displaced,
}

/// What the caller of a record is told that caused a panic.
const PANICKED: &str = "a panic interrupted the writing of the record";

/// The result of `write`, or of a flush; an error if it panicked (threat K11). That leaves nothing
/// half-updated: a line counts once it is written whole, what may follow after it is cut off first,
/// and a gap or a late outcome is forgotten only when its record is written.
pub(super) fn caught<T>(write: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|_| Err(PANICKED.to_owned()))
}

/// A [`Store`] that writes segments into a directory.
#[derive(Debug)]
pub struct SegmentDirectory {
    path: PathBuf,
    segment: Option<File>,
}

impl SegmentDirectory {
    /// Creates the directory `path` if it is missing, accessible to its owner only.
    pub fn create(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }

    /// A store in `path` that appends to the segment that begins with `first_seq`, or that has no
    /// segment yet.
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

impl Store for SegmentDirectory {
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
        let begun = match create_new(&path) {
            // An earlier attempt was interrupted right after it made the file.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_empty(&path) => {
                OpenOptions::new().append(true).open(&path)
            }
            begun => begun,
        };
        self.segment = Some(begun?);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        free_bytes(&self.path)
    }

    fn total_bytes(&self) -> io::Result<u64> {
        total_bytes(&self.path)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.segment()?.sync_all()
    }

    fn flush(&mut self) -> io::Result<Arc<dyn Flush>> {
        let directory = File::open(&self.path)?;
        let segment = self.segment()?.try_clone()?;
        Ok(Arc::new(SegmentFlush { segment, directory, named: AtomicBool::new(false) }))
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0)
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Writes `text` to a new file beside `path`, for its owner alone, and renames it, so that a reader
/// finds all of it or what was there before.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// Bytes that are free for this user on the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let status = rustix::fs::statvfs(path)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// Size of all segments in `directory` together, bytes.
pub fn total_bytes(directory: &Path) -> io::Result<u64> {
    let mut total = 0_u64;
    for segment in list(directory)? {
        match std::fs::metadata(&segment.path) {
            Ok(file) => total = total.saturating_add(file.len()),
            // Moved elsewhere since the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// Opens and locks the lock file of `directory`; `None` if another program has locked it.
pub(super) fn lock(directory: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(directory.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// The file name of the segment that begins with record `first_seq`, while it is not compressed.
pub fn name(first_seq: u64) -> String {
    format!("journal-{first_seq:020}.ndjson")
}

/// The extension of a compressed segment.
const COMPRESSED: &str = "gz";

/// The path that the segment at `path` has once it is compressed.
pub(super) fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(COMPRESSED);
    name.into()
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == COMPRESSED)
}

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of its first record, from the file name.
    pub first_seq: u64,
    /// The path of the file.
    pub path: PathBuf,
}

impl Segment {
    /// Whether its file is compressed.
    pub fn is_compressed(&self) -> bool {
        is_compressed(&self.path)
    }
}

/// The segments in `directory`, oldest first. Other files are ignored. Of one that is there twice,
/// because it is being compressed, the file that is not compressed counts.
pub fn list(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        let digits = path
            .file_name()
            .and_then(|name| name.to_str())
            .map(|name| name.strip_suffix(".gz").unwrap_or(name))
            .and_then(|name| name.strip_prefix("journal-")?.strip_suffix(".ndjson"))
            .filter(|digits| digits.len() == 20 && digits.bytes().all(|c| c.is_ascii_digit()));
        if let Some(first_seq) = digits.and_then(|digits| digits.parse().ok()) {
            segments.push(Segment { first_seq, path });
        }
    }
    segments.sort_by(|a, b| (a.first_seq, &a.path).cmp(&(b.first_seq, &b.path)));
    segments.dedup_by_key(|segment| segment.first_seq);
    Ok(segments)
}

/// Compresses the segment at `path`, to which nobody writes, and removes the file that it was in.
/// Whatever interrupts it, all of the segment is in one file or in both.
///
/// # Errors
///
/// A file cannot be read, written or removed.
pub fn compress(path: &Path) -> io::Result<()> {
    let (whole, fresh) = (compressed(path), compressed(path).with_extension("gz.new"));
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&fresh)?;
    let mut encoder = GzEncoder::new(file, Compression::fast());
    let mut plain = File::open(path)?;
    io::copy(&mut plain, &mut encoder)?;
    let file = encoder.finish()?;
    // Its age is that of its records.
    file.set_modified(plain.metadata()?.modified()?)?;
    file.sync_all()?;
    std::fs::rename(&fresh, &whole)?;
    sync_directory(path)?;
    // Both would take up space that nobody counts.
    std::fs::remove_file(path).inspect_err(|_| drop(std::fs::remove_file(&whole)))
}

/// Flushes the two newest segments in `directory` to the disk: of older ones a start reads nothing.
pub(super) fn flush_newest(directory: &Path) -> io::Result<()> {
    let segments = list(directory)?;
    segments.iter().rev().take(2).try_for_each(|it| File::open(&it.path)?.sync_data())
}

/// Flushes the directory of `path`, so that a file that was made or renamed in it is there after a
/// crash of the machine.
fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// The content of a segment.
#[derive(Debug)]
pub(super) enum Content {
    /// Of a file that may grow.
    Plain(BufReader<File>),
    /// Of a compressed one.
    Compressed(Box<BufReader<MultiGzDecoder<BufReader<File>>>>),
}

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 16;

impl Content {
    /// Opens the segment at `path`, which may have been compressed since it was listed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_compressed(path) => {
                Ok(Self::decoded(File::open(compressed(path)).map_err(|_| error)?))
            }
            file if is_compressed(path) => Ok(Self::decoded(file?)),
            file => Ok(Self::Plain(BufReader::with_capacity(READ_BYTES, file?))),
        }
    }

    fn decoded(file: File) -> Self {
        let file = BufReader::with_capacity(READ_BYTES, file);
        let decoder = MultiGzDecoder::new(file);
        Self::Compressed(Box::new(BufReader::with_capacity(READ_BYTES, decoder)))
    }

    /// Goes from its beginning to `offset`, bytes. That takes time in a compressed one.
    pub(super) fn skip(&mut self, offset: u64) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.seek(SeekFrom::Start(offset)).map(drop),
            Self::Compressed(decoder) => {
                io::copy(&mut decoder.take(offset), &mut io::sink()).map(drop)
            }
        }
    }
}

impl io::Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Compressed(decoder) => decoder.read(buffer),
        }
    }
}

impl BufRead for Content {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Plain(file) => file.fill_buf(),
            Self::Compressed(decoder) => decoder.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match self {
            Self::Plain(file) => file.consume(amount),
            Self::Compressed(decoder) => decoder.consume(amount),
        }
    }
}

/// What [`LineReader::advance`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A whole line; [`LineReader::line`] has it.
    Whole,
    /// Bytes without LF at the end of the file. The next call reads them again, since the line may
    /// be complete by then.
    Partial,
    /// More than [`LINE_BYTES_MAX`] bytes without LF.
    TooLong,
    /// The end of the file, for now.
    End,
}

/// Reads a segment line by line, also while it grows.
#[derive(Debug)]
pub struct LineReader {
    reader: Content,
    line: Vec<u8>,
    start: u64,
    end: u64,
    /// Whether the current line comes again: nobody writes to a compressed file.
    again: bool,
}

impl LineReader {
    /// Reads the segment at `path` from its beginning.
    pub fn open(path: &Path) -> io::Result<Self> {
        let reader = Content::open(path)?;
        Ok(Self { reader, line: Vec::new(), start: 0, end: 0, again: false })
    }

    /// Moves to the next line.
    pub fn advance(&mut self) -> io::Result<Piece> {
        if std::mem::take(&mut self.again) {
            return Ok(Piece::Whole);
        }
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
        // The file may be truncated and grow again, so discard the read-ahead buffer.
        if let Content::Plain(file) = &mut self.reader {
            file.seek(SeekFrom::Start(self.start))?;
        }
        Ok(if read > LINE_BYTES_MAX { Piece::TooLong } else { Piece::Partial })
    }

    /// Makes the next [`LineReader::advance`] read the current line, a whole one, again, from the file
    /// if it may have changed.
    pub fn again(&mut self) -> io::Result<()> {
        match &mut self.reader {
            Content::Plain(file) => {
                self.end = self.start;
                file.seek(SeekFrom::Start(self.start)).map(drop)
            }
            Content::Compressed(_) => {
                self.again = true;
                Ok(())
            }
        }
    }

    /// The current line, without its LF.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Offset at which the current line, or incomplete line, begins, bytes from the start of the
    /// segment.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Offset after the current line and its LF, bytes from the start of the segment.
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// The last `bytes_max` bytes of the segment at `path` before the offset `end` (default: its end),
/// and the offset at which they begin.
pub(super) fn tail(path: &Path, end: Option<u64>, bytes_max: usize) -> io::Result<(u64, Vec<u8>)> {
    let mut tail = Vec::new();
    let most = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    match Content::open(path)? {
        Content::Plain(mut file) => {
            let length = file.seek(SeekFrom::End(0))?;
            let end = end.unwrap_or(length).min(length);
            let start = end.saturating_sub(most);
            file.seek(SeekFrom::Start(start))?;
            file.take(end.saturating_sub(start)).read_to_end(&mut tail)?;
            Ok((start, tail))
        }
        Content::Compressed(decoder) => {
            let mut decoder = decoder.take(end.unwrap_or(u64::MAX));
            let mut start = 0_u64;
            // As much again is read before what is too much is cut off, so each byte moves once.
            while (&mut decoder).take(most).read_to_end(&mut tail)? > 0 {
                let over = tail.len().saturating_sub(bytes_max);
                tail.drain(..over);
                start = start.saturating_add(u64::try_from(over).unwrap_or(u64::MAX));
            }
            Ok((start, tail))
        }
    }
}

/// The last whole line of the segment at `path`; `None` if there is none.
pub(super) fn last_line(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Enough for the longest line, its LF and the LF before it.
    let (_, mut tail) = tail(path, None, LINE_BYTES_MAX.saturating_add(2))?;
    if tail.pop_if(|last| *last == b'\n').is_none() {
        return Ok(None);
    }
    Ok(tail.rsplit(|byte| *byte == b'\n').next().map(<[u8]>::to_vec))
}

/// Moves the bytes of the file at `path` from `offset` on to the end of the file `aside`. Returns
/// their number.
pub(super) fn cut(path: &Path, offset: u64, aside: &Path) -> io::Result<u64> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut kept = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(aside)?;
    let bytes = io::copy(&mut file, &mut kept)?;
    kept.sync_all()?;
    file.set_len(offset)?;
    Ok(bytes)
}

/// Whether the file at `path` has any bytes after the first LF after `offset`.
pub(super) fn has_more_lines(path: &Path, offset: u64) -> io::Result<bool> {
    let mut reader = BufReader::new(File::open(path)?);
    reader.seek(SeekFrom::Start(offset))?;
    reader.skip_until(b'\n')?;
    Ok(!reader.fill_buf()?.is_empty())
}
