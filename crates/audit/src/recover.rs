//! Puts a journal directory right before it is written again.
//!
//! A killed program leaves at most a torn last line and intents without outcomes. The torn line
//! is moved aside: its record was never reported as kept, so nothing was done on its strength.
//! The intents are handed to the journal, which settles them as unknown. Everything else that is
//! wrong with the last segment is not what a crash leaves, so it is not repaired: opening fails,
//! and the evidence stays as it is. Older segments are [`verify`](super::verify)'s matter.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::chain::{Chain, Fault, Link};
use super::segment::{self, Lines, Piece, Segment};

/// What opening a journal found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Sequence number of the first record that this run wrote.
    pub first_seq: u64,
    /// Whether the run before ended in order, or there was none.
    pub clean: bool,
    /// What was cut off.
    pub torn: Option<Torn>,
    /// Calls settled as `outcome: unknown`.
    pub settled: usize,
}

/// The piece of a record that a crash left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// Where it was moved.
    pub aside: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
}

/// Why a journal cannot be opened.
#[derive(Debug)]
pub enum JournalError {
    /// The configuration or the name of the run cannot be used.
    Config(&'static str),
    /// Another program writes this journal.
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// The journal was damaged in a way that no crash leaves.
    Damaged(Damage),
    /// The system refused.
    Io {
        /// What was done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The first records of this run could not be kept.
    Unkept(String),
}

/// The first record that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// The sequence number that belongs there.
    pub seq: u64,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} in `{}`: {}", self.seq, self.path.display(), self.fault)
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(what) => f.write_str(what),
            Self::Locked { directory } => write!(
                f,
                "journal `{}` is being written by another program\n\
                 hint: stop it, or give this one another `state` directory",
                directory.display()
            ),
            Self::Damaged(damage) => write!(
                f,
                "journal is damaged: {damage}\n\
                 hint: keep the directory as evidence, and give a new `state` directory to go on"
            ),
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

/// Names what was being done where, for an [`io::Error`].
pub(super) fn at<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> JournalError + 'a {
    move |source| JournalError::Io { doing, path: path.to_owned(), source }
}

/// Where the writer goes on.
#[derive(Debug)]
pub(super) struct Survey {
    /// Behind the last whole record.
    pub(super) chain: Chain,
    /// The segment to append to, and its length; `None` in a new directory.
    pub(super) segment: Option<(Segment, u64)>,
    /// Whether the last record was `stop`, or there is none.
    pub(super) clean: bool,
    /// What was cut off.
    pub(super) torn: Option<Torn>,
    /// Calls without outcome, each with the line of its intent where that was read.
    pub(super) open: OpenIntents,
}

/// Call id to how many outcomes it is owed and the line of its last intent.
pub(super) type OpenIntents = BTreeMap<String, (u32, Option<Vec<u8>>)>;

/// Cuts off a torn tail in `directory` and reads where the journal stands.
pub(super) fn survey(directory: &Path) -> Result<Survey, JournalError> {
    let segments = segment::list(directory).map_err(at("list", directory))?;
    let Some(last) = segments.last() else {
        return Ok(Survey {
            chain: Chain::START,
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
        survey.segment = Some((segment.clone(), length));
    }
    if survey.chain.prev.is_none() {
        let seq = survey.chain.next_seq.saturating_sub(1);
        let path = last.path.clone();
        return Err(JournalError::Damaged(Damage { path, seq, fault: Fault::Missing }));
    }
    Ok(survey)
}

/// Moves a torn last line of the last segment aside. Broken lines elsewhere are left to be met by
/// [`read`].
fn cut_torn_tail(directory: &Path, segments: &[Segment]) -> Result<Option<Torn>, JournalError> {
    let Some(last) = segments.last() else { return Ok(None) };
    let path = last.path.as_path();
    let mut lines = Lines::open(path).map_err(at("read", path))?;
    let mut seq = last.first_seq;
    loop {
        let broken = match lines.advance().map_err(at("read", path))? {
            Piece::End => return Ok(None),
            Piece::Whole => super::entry::read::<Link<'_>>(lines.line()).is_err(),
            Piece::Partial | Piece::TooLong => true,
        };
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

/// Index of the segment from which on every open call can be known: the last one whose first
/// record lists them all.
fn first_to_read(segments: &[Segment]) -> Result<usize, JournalError> {
    for (index, segment) in segments.iter().enumerate().rev() {
        let path = segment.path.as_path();
        let mut lines = Lines::open(path).map_err(at("read", path))?;
        if lines.advance().map_err(at("read", path))? != Piece::Whole {
            continue; // Begun and still empty: the one before counts.
        }
        // A line that cannot be read is met again, and reported, by `read`.
        let complete =
            super::entry::read::<Link<'_>>(lines.line()).map_or(true, |link| link.open_elided == 0);
        if complete {
            return Ok(index);
        }
    }
    Ok(0)
}

/// The chain before the segment at `index`.
fn start_of(segments: &[Segment], index: usize) -> Result<Chain, JournalError> {
    let next_seq = segments.get(index).map_or(1, |segment| segment.first_seq);
    if next_seq == 1 {
        return Ok(Chain::START);
    }
    let before = index.checked_sub(1).and_then(|before| segments.get(before));
    let Some(before) = before else { return Ok(Chain { next_seq, prev: None }) };
    let path = before.path.as_path();
    let line = segment::last_line(path).map_err(at("read", path))?;
    let damaged = |fault| {
        JournalError::Damaged(Damage {
            path: path.to_owned(),
            seq: next_seq.saturating_sub(1),
            fault,
        })
    };
    let line = line.ok_or_else(|| damaged(Fault::Torn))?;
    Ok(Chain { next_seq, prev: Some(super::chain::hash(&line)) })
}

/// Reads one segment to its end, which it tells. The `first` one tells what was open before it.
fn read(segment: &Segment, first: bool, survey: &mut Survey) -> Result<u64, JournalError> {
    let path = segment.path.as_path();
    let damaged = |seq, fault| JournalError::Damaged(Damage { path: path.to_owned(), seq, fault });
    if segment.first_seq != survey.chain.next_seq {
        return Err(damaged(survey.chain.next_seq, Fault::Name));
    }
    let mut lines = Lines::open(path).map_err(at("read", path))?;
    loop {
        let seq = survey.chain.next_seq;
        match lines.advance().map_err(at("read", path))? {
            Piece::End => return Ok(lines.start()),
            Piece::Partial => return Err(damaged(seq, Fault::Torn)),
            Piece::TooLong => return Err(damaged(seq, Fault::TooLong)),
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
