//! Repairs a journal directory before it is written again.
//!
//! A killed program leaves at most a torn last line, and intents without outcomes. The torn line is
//! moved to another file: the program never learned that the record was written, so it did not
//! perform the act. The open intents go to the journal, which records an unknown outcome for each.
//! A crash does not explain any other damage, so nothing else is repaired: opening fails, and the
//! evidence stays unchanged. Only the segments that are needed for this are read;
//! [`verify`](super::verify) checks the whole journal.
//! [`Journal::open`](super::journal::Journal::open) calls it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::chain::{ChainFault, HashChain, Link};
use super::segment::{self, LineReader, Piece, Segment};

/// What opening a journal found and repaired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Sequence number of the first record that this run wrote.
    pub first_seq: u64,
    /// Whether the previous run closed the journal, or there was none.
    pub clean: bool,
    /// The torn line that was moved, if there was one.
    pub torn: Option<Torn>,
    /// Number of records with `outcome: unknown` that were written for open calls.
    pub settled: usize,
}

/// A partly written record that a crash left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The file to which it was moved.
    pub aside: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
}

/// Why a journal cannot be opened.
#[derive(Debug)]
pub enum JournalError {
    /// The run's identifier is not valid.
    Config(&'static str),
    /// Another program has locked this journal.
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// The journal is damaged in a way that a crash does not explain.
    Damaged(Damage),
    /// A file operation failed.
    Io {
        /// The operation, such as `read`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The first records of this run could not be written; the text is the cause.
    Unkept(String),
}

/// The first record that fails a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment that holds it, or should.
    pub path: PathBuf,
    /// The sequence number expected there.
    pub seq: u64,
    /// The number of its line in that file, from 1; 0 where lines were not counted.
    pub line: u64,
    /// Which check failed.
    pub fault: ChainFault,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seq, path) = (self.seq, self.path.display());
        match self.line {
            0 => write!(f, "record {seq} in `{path}`: {}", self.fault),
            line => write!(f, "record {seq} in `{path}`, line {line}: {}", self.fault),
        }
    }
}

impl JournalError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Locked { .. } => {
                Some("stop it, or name another directory with `state:` (or `--state`)")
            }
            Self::Damaged(_) => Some(
                "keep the directory as evidence, and name a new one with `state:` (or `--state`)",
            ),
            Self::Config(_) | Self::Io { .. } | Self::Unkept(_) => None,
        }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(what) => f.write_str(what),
            Self::Locked { directory } => {
                write!(f, "journal `{}` is being written by another program", directory.display())
            }
            Self::Damaged(damage) => write!(f, "journal is damaged: {damage}"),
            Self::Io { doing, path, source } => {
                write!(f, "cannot {doing} `{}`: {source}", path.display())
            }
            Self::Unkept(cause) => write!(f, "cannot write the journal: {cause}"),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Config(_) | Self::Locked { .. } | Self::Damaged(_) | Self::Unkept(_) => None,
        }
    }
}

/// Adds the operation and the path to an [`io::Error`].
pub(super) fn at<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> JournalError + 'a {
    move |source| JournalError::Io { doing, path: path.to_owned(), source }
}

/// The state of an existing journal: where the writer continues.
#[derive(Debug)]
pub(super) struct Survey {
    /// The chain after the last whole record.
    pub(super) chain: HashChain,
    /// The segment to append to, with its length in bytes; `None` if a new one begins.
    pub(super) segment: Option<(Segment, u64)>,
    /// Whether the last record is `stop`, or there are no records.
    pub(super) clean: bool,
    /// The torn line that was moved, if there was one.
    pub(super) torn: Option<Torn>,
    /// Calls without outcome, each with the line of its intent if that line was read.
    pub(super) open: OpenIntents,
}

/// Call ids, each with the number of outcomes that are missing and the line of its last intent.
pub(super) type OpenIntents = BTreeMap<String, (u32, Option<Vec<u8>>)>;

/// Moves a torn last line of the journal in `directory` away, and reads the state of the chain and
/// the open calls.
pub(super) fn survey(directory: &Path) -> Result<Survey, JournalError> {
    let segments = segment::list(directory).map_err(at("list", directory))?;
    let Some(last) = segments.last() else {
        return Ok(Survey {
            chain: HashChain::START,
            segment: None,
            clean: true,
            torn: None,
            open: OpenIntents::new(),
        });
    };
    let torn = cut_torn_tail(directory, &segments)?;
    let first = first_to_read(&segments)?;
    let chain = start_of(&segments, first)?;
    let mut survey = Survey { chain, segment: None, clean: true, torn, open: OpenIntents::new() };
    for (index, segment) in segments.iter().enumerate().skip(first) {
        let length = read(segment, index == first, &mut survey)?;
        // Nothing is added to a compressed one.
        survey.segment = (!segment.is_compressed()).then(|| (segment.clone(), length));
    }
    if survey.chain.prev.is_none() {
        let seq = survey.chain.next_seq.saturating_sub(1);
        let path = last.path.clone();
        return Err(JournalError::Damaged(Damage {
            path,
            seq,
            line: 0,
            fault: ChainFault::Missing,
        }));
    }
    Ok(survey)
}

/// Moves a torn last line of the last segment to a file of its own. Leaves broken lines elsewhere:
/// [`read`] reports them as damage.
fn cut_torn_tail(directory: &Path, segments: &[Segment]) -> Result<Option<Torn>, JournalError> {
    let Some(last) = segments.last() else { return Ok(None) };
    let path = last.path.as_path();
    let mut lines = LineReader::open(path).map_err(at("read", path))?;
    let mut seq = last.first_seq;
    loop {
        let broken = match lines.advance().map_err(at("read", path))? {
            Piece::End => return Ok(None),
            Piece::Whole => super::entry::read::<Link<'_>>(lines.line()).is_err(),
            Piece::Partial | Piece::TooLong => true,
        };
        if broken && last.is_compressed() {
            // Nobody writes to it, so no crash explains that.
            return Ok(None);
        }
        if broken {
            if segment::has_more_lines(path, lines.start()).map_err(at("read", path))? {
                return Ok(None);
            }
            let aside = directory.join(format!("torn-{seq}.bin"));
            let bytes = segment::cut(path, lines.start(), &aside).map_err(at("repair", path))?;
            return Ok(Some(Torn { aside, bytes }));
        }
        seq = seq.saturating_add(1);
    }
}

/// The index of the last segment whose first record lists all open calls. Reading from there is
/// enough to know every open call.
fn first_to_read(segments: &[Segment]) -> Result<usize, JournalError> {
    for (index, segment) in segments.iter().enumerate().rev() {
        let path = segment.path.as_path();
        let mut lines = LineReader::open(path).map_err(at("read", path))?;
        if lines.advance().map_err(at("read", path))? != Piece::Whole {
            continue; // Begun and still empty: the one before counts.
        }
        // If the line cannot be parsed, begin here: `read` reports it.
        let complete =
            super::entry::read::<Link<'_>>(lines.line()).map_or(true, |link| link.open_elided == 0);
        if complete {
            return Ok(index);
        }
    }
    Ok(0)
}

/// The index of the first of `segments` that [`survey`] may read.
pub(super) fn first_needed(segments: &[Segment]) -> Result<usize, JournalError> {
    // Of the one before, the last line.
    first_to_read(segments).map(|index| index.saturating_sub(1))
}

/// The state of the chain before the segment at `index`.
fn start_of(segments: &[Segment], index: usize) -> Result<HashChain, JournalError> {
    let next_seq = segments.get(index).map_or(1, |segment| segment.first_seq);
    if next_seq == 1 {
        return Ok(HashChain::START);
    }
    let before = index.checked_sub(1).and_then(|before| segments.get(before));
    let Some(before) = before else { return Ok(HashChain { next_seq, prev: None }) };
    let path = before.path.as_path();
    let line = segment::last_line(path).map_err(at("read", path))?;
    let damaged = |fault| {
        JournalError::Damaged(Damage {
            path: path.to_owned(),
            seq: next_seq.saturating_sub(1),
            line: 0,
            fault,
        })
    };
    let line = line.ok_or_else(|| damaged(ChainFault::Torn))?;
    Ok(HashChain { next_seq, prev: Some(super::chain::hash(&line)) })
}

/// Reads one segment to its end and returns its length in bytes. In the `first` segment that is
/// read, the `rotation` record adds the calls that were open before.
fn read(segment: &Segment, first: bool, survey: &mut Survey) -> Result<u64, JournalError> {
    let path = segment.path.as_path();
    let damaged =
        |seq, fault| JournalError::Damaged(Damage { path: path.to_owned(), seq, line: 0, fault });
    if segment.first_seq != survey.chain.next_seq {
        return Err(damaged(survey.chain.next_seq, ChainFault::Name));
    }
    let mut lines = LineReader::open(path).map_err(at("read", path))?;
    loop {
        let seq = survey.chain.next_seq;
        match lines.advance().map_err(at("read", path))? {
            Piece::End => return Ok(lines.start()),
            Piece::Partial => return Err(damaged(seq, ChainFault::Torn)),
            Piece::TooLong => return Err(damaged(seq, ChainFault::TooLong)),
            Piece::Whole => {}
        }
        let link = survey.chain.take(lines.line()).map_err(|fault| damaged(seq, fault))?;
        survey.clean = link.event == "stop";
        if first && seq == segment.first_seq {
            for call in &link.open {
                owe(&mut survey.open, call, None);
            }
        }
        match (&*link.event, &link.call) {
            ("intent", Some(call)) => owe(&mut survey.open, call, Some(lines.line().to_vec())),
            ("outcome", Some(call)) => settle(&mut survey.open, call),
            _ => {}
        }
    }
}

fn owe(open: &mut OpenIntents, call: &str, line: Option<Vec<u8>>) {
    let owed = open.entry(call.to_owned()).or_default();
    owed.0 = owed.0.saturating_add(1);
    owed.1 = line;
}

fn settle(open: &mut OpenIntents, call: &str) {
    if let Some(owed) = open.get_mut(call) {
        owed.0 = owed.0.saturating_sub(1);
        if owed.0 == 0 {
            open.remove(call);
        }
    }
}
