//! Verifies a journal: every record is present, in order and unchanged, and every call has its
//! outcome.
//!
//! Only reads files, so it can run while a program writes the journal, and an exported file will do.
//! With the writer it shares only what decodes a line; `tests/interop` has a second verifier that
//! shares no code with this one. [`bartizan_audit`](super) says what chain and checkpoints cannot
//! show. `bartizan audit verify` and the demo use it.

mod lines;
mod calls;
mod signed;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use self::calls::OpenCalls;
use self::lines::{Found, Lines, Place};
use self::signed::Signed;
use super::chain::{ChainFault, Link};
use super::checkpoint::Checkpoint;
use super::note::{self, BadNote, PublicKey};
use super::recover::Damage;
use super::{entry, inert, segment};
use bartizan_gate::evidence::record::Event;

/// Characters of an unknown event that an error shows.
const EVENT_CHARS_SHOWN: usize = 40;

/// What a verified journal contains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalSummary {
    /// Number of segment files; 1 for an exported file.
    pub segments: usize,
    /// Number of records.
    pub records: u64,
    /// Sequence number of the first record.
    pub first_seq: u64,
    /// Sequence number of the last record.
    pub last_seq: u64,
    /// Hash of the last record, hexadecimal. Compare it with a copy that is kept elsewhere: only
    /// that reveals records removed from the end.
    pub head: String,
    /// Number of `start` records.
    pub starts: u64,
    /// Number of `intent` records: calls that were permitted.
    pub intents: u64,
    /// Number of `denial` records.
    pub denials: u64,
    /// Number of `outcome` records, of any kind.
    pub outcomes: u64,
    /// Number of `gap` records: periods in which records could not be written.
    pub gaps: u64,
    /// Number of `recovery` records.
    pub recoveries: u64,
    /// Ids of calls of the last run without outcome: they are in progress, or the run ended in a
    /// crash.
    pub open: Vec<String>,
    /// Whether the last record is `stop`.
    pub stopped: bool,
    /// Whether a record after the last one was being written.
    pub being_written: bool,
    /// Number of `checkpoint` records.
    pub checkpoints: u64,
    /// The last record that a checkpoint covers, in the journal or a saved one.
    pub proven: Option<u64>,
    /// The origin that the last checkpoint names.
    pub origin: Option<String>,
    /// Whether a key was given, so that the signatures of the checkpoints were checked.
    pub signatures_checked: bool,
}

/// What a journal is compared with.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Which part must be present.
    pub extent: Extent,
    /// Keys, of which one must have signed each checkpoint. Without keys the signatures are not
    /// checked.
    pub keys: Vec<PublicKey>,
    /// Checkpoints that were kept elsewhere.
    pub checkpoints: Vec<SavedCheckpoint>,
    /// Hashes that were kept elsewhere.
    pub heads: Vec<SavedHead>,
}

/// A checkpoint that was kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedCheckpoint {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// What it is called in faults.
    pub from: String,
}

impl SavedCheckpoint {
    /// Reads `note`, which one of `keys` must have signed.
    ///
    /// # Errors
    ///
    /// It is no checkpoint of these keys.
    pub fn read(note: &str, keys: &[PublicKey], from: &str) -> Result<Self, BadNote> {
        let (text, _) = note::open(note, keys)?;
        let checkpoint = Checkpoint::read(text).ok_or(BadNote::Form)?;
        Ok(Self { checkpoint, from: from.to_owned() })
    }
}

/// The hash of a record that was kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedHead {
    /// Which record it was, if that is known.
    pub seq: Option<u64>,
    /// SHA-256 of its line.
    pub hash: [u8; 32],
    /// What it is called in faults.
    pub from: String,
}

/// What is verified.
pub enum Source<'a> {
    /// The segments in a directory, also while they are written.
    Directory(&'a Path),
    /// Lines that were exported from a journal, as they are or compressed with gzip.
    Export {
        /// What the file is called in faults.
        name: &'a Path,
        /// Its content.
        read: Box<dyn Read>,
    },
}

/// Which part of a journal must be present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extent {
    /// All of it, from the first record on.
    #[default]
    Whole,
    /// The oldest segments may be missing, because an operator archived them.
    Remainder,
}

/// Why a journal does not verify.
#[derive(Debug)]
pub enum VerifyError {
    /// The directory contains no segment.
    Empty {
        /// The directory.
        directory: PathBuf,
    },
    /// A file operation failed.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The first record that fails a check.
    Damaged(Damage),
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { directory } => {
                write!(f, "`{}` holds no journal", directory.display())
            }
            Self::Io { path, source } => write!(f, "cannot read `{}`: {source}", path.display()),
            Self::Damaged(damage) => damage.fmt(f),
        }
    }
}

impl std::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Empty { .. } | Self::Damaged(_) => None,
        }
    }
}

/// Reads the whole journal in `directory` and checks every record.
///
/// # Errors
///
/// The first record that fails a check, or the file that cannot be read.
pub fn verify(directory: &Path, extent: Extent) -> Result<JournalSummary, VerifyError> {
    let options = VerifyOptions { extent, ..VerifyOptions::default() };
    verify_with(Source::Directory(directory), &options)
}

/// Reads all of `source`, checks every record, and compares it with what `options` have.
///
/// # Errors
///
/// The first record that fails a check, or the file that cannot be read.
pub fn verify_with(
    source: Source<'_>,
    options: &VerifyOptions,
) -> Result<JournalSummary, VerifyError> {
    let (mut lines, segments, directory) = match source {
        Source::Directory(directory) => {
            let (lines, segments) = Lines::of_directory(directory)?;
            (lines, segments, Some(directory))
        }
        Source::Export { name, read } => (Lines::of_export(name, read)?, 1, None),
    };
    let remainder = options.extent == Extent::Remainder;
    let mut next_seq = if remainder { lines.oldest_seq().unwrap_or(1) } else { 1 };
    let mut found = lines.advance()?;
    if remainder && lines.named_seq().is_none() && found == Found::Line {
        next_seq = read_link(lines.line()).map_or(next_seq, |link| link.seq);
    }
    let mut walk = Walk {
        next_seq,
        prev: (next_seq == 1).then_some([0; 32]),
        before: None,
        calls: OpenCalls::default(),
        signed: Signed::new(options, next_seq),
        summary: JournalSummary { segments, first_seq: next_seq, ..JournalSummary::default() },
    };
    while found == Found::Line {
        walk.take(&mut lines)?;
        found = lines.advance()?;
    }
    let last = walk.next_seq.saturating_sub(1);
    match found {
        Found::Torn if lines.in_last_file() && directory.is_some_and(is_being_written) => {
            walk.summary.being_written = true;
        }
        Found::Torn => return Err(damaged(lines.place(), walk.next_seq, ChainFault::Torn)),
        Found::TooLong => return Err(damaged(lines.place(), walk.next_seq, ChainFault::TooLong)),
        Found::Line | Found::End => {}
    }
    if walk.summary.records == 0 && directory.is_none() {
        return Err(VerifyError::Empty { directory: lines.place().path.to_owned() });
    }
    let Walk { signed, mut summary, prev, calls, .. } = walk;
    let place = Place { line: 0, ..lines.place() };
    signed.finish(last, &mut summary).map_err(|(seq, fault)| damaged(place, seq, fault))?;
    summary.last_seq = last;
    summary.head = prev.map(|hash| hex(&hash)).unwrap_or_default();
    summary.open = calls.ids();
    Ok(summary)
}

/// Whether a program writes the journal in `directory` now.
fn is_being_written(directory: &Path) -> bool {
    let lock = File::open(directory.join(segment::LOCK_FILE));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn read_link(line: &[u8]) -> Result<Link<'_>, ChainFault> {
    entry::read(line).map_err(|cause| ChainFault::Unreadable { cause })
}

fn damaged(place: Place<'_>, seq: u64, fault: ChainFault) -> VerifyError {
    VerifyError::Damaged(place.damage(seq, fault))
}

fn hex(hash: &[u8; 32]) -> String {
    bartizan_gate::wire::hex::hex(hash)
}

impl Place<'_> {
    fn damage(self, seq: u64, fault: ChainFault) -> Damage {
        Damage { path: self.path.to_owned(), seq, line: self.line, fault }
    }
}

/// What must hold for the next record, and what was found so far.
struct Walk<'o> {
    next_seq: u64,
    /// The hash of the line before; `None` where that line is elsewhere.
    prev: Option<[u8; 32]>,
    /// The file and number of the line before.
    before: Option<(PathBuf, u64)>,
    calls: OpenCalls,
    signed: Signed<'o>,
    summary: JournalSummary,
}

impl Walk<'_> {
    /// Checks the current line of `lines`.
    fn take(&mut self, lines: &mut Lines) -> Result<(), VerifyError> {
        let seq = self.next_seq;
        if let Some(named) = lines.named_seq().filter(|named| *named != seq) {
            let fault = if named > seq { ChainFault::Missing } else { ChainFault::Name };
            return Err(damaged(Place { line: 0, ..lines.place() }, seq, fault));
        }
        let own: [u8; 32] = Sha256::digest(lines.line()).into();
        let fault = |fault| damaged(lines.place(), seq, fault);
        let link = read_link(lines.line()).map_err(fault)?;
        if link.seq != seq {
            return Err(fault(ChainFault::Sequence { found: link.seq }));
        }
        if self.prev.is_some_and(|prev| hex(&prev) != link.prev) {
            return Err(self.find_changed(lines, own));
        }
        if Event::named(&link.event).is_none() {
            let mut event = String::new();
            inert::push(&mut event, &link.event, EVENT_CHARS_SHOWN);
            return Err(fault(ChainFault::UnknownEvent { event }));
        }
        let begins = if lines.are_segments() { lines.place().line == 1 } else { false };
        let rotation = link.event == "rotation";
        if lines.are_segments() && rotation != (begins && seq > 1) {
            return Err(fault(ChainFault::Rotation));
        }
        let first = self.summary.records == 0;
        self.calls.take(&link, lines.place(), first).map_err(VerifyError::Damaged)?;
        let taken = self.signed.take(&link, lines.line(), &own, lines.place());
        taken.map_err(VerifyError::Damaged)?;
        self.summary.count(&link);
        self.next_seq = seq.saturating_add(1);
        self.prev = Some(own);
        self.before = Some((lines.place().path.to_owned(), lines.place().line));
        Ok(())
    }

    /// Finds the changed record after the current line's `prev` did not match the line before. If
    /// the next line's `prev` matches the current line, whose hash is `own`, the line before was
    /// changed; otherwise the current one was.
    fn find_changed(&self, lines: &mut Lines, own: [u8; 32]) -> VerifyError {
        let seq = self.next_seq;
        let Place { path, line } = lines.place();
        let here = (path.to_owned(), line);
        let vouched = match lines.advance() {
            Ok(Found::Line) => read_link(lines.line()).is_ok_and(|after| after.prev == hex(&own)),
            Ok(Found::End) => true,
            Ok(Found::Torn | Found::TooLong) | Err(_) => false,
        };
        let ((path, line), seq) = match &self.before {
            Some(before) if vouched => (before.clone(), seq.saturating_sub(1)),
            Some(_) | None => (here, seq),
        };
        damaged(Place { path: &path, line }, seq, ChainFault::Changed)
    }
}

impl JournalSummary {
    fn count(&mut self, link: &Link<'_>) {
        self.records = self.records.saturating_add(1);
        self.stopped = link.event == "stop";
        let counter = match &*link.event {
            "start" => &mut self.starts,
            "intent" => &mut self.intents,
            "denial" => &mut self.denials,
            "outcome" => &mut self.outcomes,
            "gap" => &mut self.gaps,
            "recovery" => &mut self.recoveries,
            _ => return,
        };
        *counter = counter.saturating_add(1);
    }
}
