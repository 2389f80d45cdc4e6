//! Reads the lines of what is verified: the segments of a directory, or one exported file.
//!
//! Files may be compressed with gzip. A line is bounded, and counted from 1.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::VerifyError;
use crate::segment::LINE_BYTES_MAX;

/// How a file that is compressed with gzip begins (RFC 1952 §2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// One file, and the sequence number in its name, if its name has one.
struct Piece {
    path: PathBuf,
    first_seq: Option<u64>,
}

/// Where the current line is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) path: &'a Path,
    pub(super) line: u64,
}

/// What [`Lines::advance`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A line; [`Lines::line`] has it.
    Line,
    /// Bytes without LF at the end of the file.
    Torn,
    /// More bytes without LF than a record has.
    TooLong,
    /// The end of the last file.
    End,
}

/// All lines, one after the other.
pub(super) struct Lines {
    pieces: std::vec::IntoIter<Piece>,
    current: Option<(Piece, Box<dyn BufRead>)>,
    /// The path of the last file, for faults at its end.
    last: PathBuf,
    number: u64,
    line: Vec<u8>,
}

impl Lines {
    /// The segments in `directory`, oldest first. Also returns their number.
    pub(super) fn of_directory(directory: &Path) -> Result<(Self, usize), VerifyError> {
        let failed = |source| VerifyError::Io { path: directory.to_owned(), source };
        let mut pieces = Vec::new();
        for file in std::fs::read_dir(directory).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            if let Some(first_seq) = first_seq(&path) {
                pieces.push(Piece { path, first_seq: Some(first_seq) });
            }
        }
        pieces.sort_by(|a, b| (a.first_seq, &a.path).cmp(&(b.first_seq, &b.path)));
        // A segment that is being compressed is there twice, with the same lines.
        pieces.dedup_by_key(|piece| piece.first_seq);
        let Some(oldest) = pieces.first() else {
            return Err(VerifyError::Empty { directory: directory.to_owned() });
        };
        let (last, count) = (oldest.path.clone(), pieces.len());
        let pieces = pieces.into_iter();
        Ok((Self { pieces, current: None, last, number: 0, line: Vec::new() }, count))
    }

    /// The lines of one exported file, called `name` in faults.
    pub(super) fn of_export(name: &Path, read: Box<dyn Read>) -> Result<Self, VerifyError> {
        let reader =
            opened(read).map_err(|source| VerifyError::Io { path: name.to_owned(), source })?;
        let piece = Piece { path: name.to_owned(), first_seq: None };
        Ok(Self {
            pieces: Vec::new().into_iter(),
            current: Some((piece, reader)),
            last: name.to_owned(),
            number: 0,
            line: Vec::new(),
        })
    }

    /// The sequence number in the name of the first file, if it has one.
    pub(super) fn oldest_seq(&self) -> Option<u64> {
        self.pieces.as_slice().first()?.first_seq
    }

    /// Moves to the next line.
    pub(super) fn advance(&mut self) -> Result<Found, VerifyError> {
        loop {
            if self.current.is_none() {
                let Some(piece) = self.pieces.next() else { return Ok(Found::End) };
                let reader = open(&piece.path)
                    .map_err(|source| VerifyError::Io { path: piece.path.clone(), source })?;
                self.last.clone_from(&piece.path);
                self.number = 0;
                self.current = Some((piece, reader));
            }
            let Some((piece, reader)) = &mut self.current else { return Ok(Found::End) };
            self.line.clear();
            let mut found = read_line(reader, &mut self.line);
            if matches!(found, Ok(Found::Torn)) {
                // The writer may have been writing it: what is there now is its end.
                found = read_line(reader, &mut self.line);
            }
            let found =
                found.map_err(|source| VerifyError::Io { path: piece.path.clone(), source })?;
            if found != Found::End {
                self.number = self.number.saturating_add(1);
                return Ok(found);
            }
            self.current = None;
        }
    }

    /// The current line, without its LF.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// The sequence number in the name of the current file, if the current line is its first one.
    pub(super) fn named_seq(&self) -> Option<u64> {
        let (piece, _) = self.current.as_ref()?;
        piece.first_seq.filter(|_| self.number == 1)
    }

    /// Whether the files are segments, each of which begins with a `rotation` record.
    pub(super) fn are_segments(&self) -> bool {
        self.current.as_ref().is_some_and(|(piece, _)| piece.first_seq.is_some())
    }

    /// Whether no file follows the current one.
    pub(super) fn in_last_file(&self) -> bool {
        self.pieces.as_slice().is_empty()
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place { path: &self.last, line: self.number }
    }
}

/// Appends the rest of the next line to `line`, without its LF.
fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Found> {
    let room = LINE_BYTES_MAX.saturating_add(1).saturating_sub(line.len());
    reader.take(u64::try_from(room).unwrap_or(u64::MAX)).read_until(b'\n', line)?;
    Ok(if line.pop_if(|last| *last == b'\n').is_some() {
        Found::Line
    } else if line.is_empty() {
        Found::End
    } else if line.len() > LINE_BYTES_MAX {
        Found::TooLong
    } else {
        Found::Torn
    })
}

fn first_seq(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let digits = name.strip_prefix("journal-")?.strip_suffix(".ndjson")?;
    (digits.len() == 20 && digits.bytes().all(|c| c.is_ascii_digit())).then_some(())?;
    digits.parse().ok()
}

/// Opens a segment, which may have been compressed since the directory was listed.
fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut name = path.as_os_str().to_owned();
            name.push(".gz");
            opened(Box::new(File::open(name).map_err(|_| error)?))
        }
        file => opened(Box::new(file?)),
    }
}

fn opened(read: Box<dyn Read>) -> io::Result<Box<dyn BufRead>> {
    let mut reader = BufReader::with_capacity(1 << 16, read);
    if reader.fill_buf()?.starts_with(&GZIP_MAGIC) {
        return Ok(Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader))));
    }
    Ok(Box::new(reader))
}
