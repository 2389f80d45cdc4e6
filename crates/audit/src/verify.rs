//! Verifies a journal: every record is present, in order and unchanged, and every call has its
//! outcome.
//!
//! Only reads files, so it can run while a program writes the journal. `tests/interop` has a second
//! verifier that shares no code with this one. [`bartizan_audit`](super) says what a hash chain
//! cannot show. `bartizan audit verify` and the demo use it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::chain::{self, ChainFault, HashChain, Link};
use super::inert;
use super::recover::Damage;
use super::segment::{self, LineReader, Piece, Segment};
use bartizan_gate::evidence::record::Event;

/// Characters of an unknown event that an error shows.
const EVENT_CHARS_SHOWN: usize = 40;

/// What a verified journal contains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalSummary {
    /// Number of segment files.
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
    let segments = segment::list(directory)
        .map_err(|source| VerifyError::Io { path: directory.to_owned(), source })?;
    let Some(oldest) = segments.first() else {
        return Err(VerifyError::Empty { directory: directory.to_owned() });
    };
    let chain = match extent {
        Extent::Remainder if oldest.first_seq > 1 => {
            HashChain { next_seq: oldest.first_seq, prev: None }
        }
        Extent::Whole | Extent::Remainder => HashChain::START,
    };
    let mut calls = OpenCalls::default();
    let mut summary = JournalSummary {
        segments: segments.len(),
        first_seq: chain.next_seq,
        ..JournalSummary::default()
    };
    let mut walk = JournalWalk { segments: &segments, index: 0, lines: None, chain, before: None };
    while walk.advance()? {
        walk.take(&mut calls, &mut summary)?;
    }
    summary.last_seq = walk.chain.next_seq.saturating_sub(1);
    summary.head =
        walk.chain.prev.map(|hex| String::from_utf8_lossy(&hex).into()).unwrap_or_default();
    summary.open = calls.open.into_keys().collect();
    Ok(summary)
}

fn damage(path: &Path, seq: u64, fault: ChainFault) -> VerifyError {
    VerifyError::Damaged(Damage { path: path.to_owned(), seq, fault })
}

/// Reads every line of every segment.
struct JournalWalk<'a> {
    segments: &'a [Segment],
    /// The index of the current segment.
    index: usize,
    lines: Option<LineReader>,
    chain: HashChain,
    /// The segment of the line before.
    before: Option<&'a Path>,
}

impl<'a> JournalWalk<'a> {
    fn path(&self) -> &'a Path {
        let segment = self.segments.get(self.index).or(self.segments.last());
        segment.map_or(Path::new(""), |segment| segment.path.as_path())
    }

    /// Moves to the next line; `false` at the end of the last segment.
    fn advance(&mut self) -> Result<bool, VerifyError> {
        loop {
            let Some(segment) = self.segments.get(self.index) else { return Ok(false) };
            let path = segment.path.as_path();
            let io = |source| VerifyError::Io { path: path.to_owned(), source };
            let seq = self.chain.next_seq;
            if self.lines.is_none() {
                if segment.first_seq != seq {
                    let missing = segment.first_seq > seq;
                    let fault = if missing { ChainFault::Missing } else { ChainFault::Name };
                    return Err(damage(path, seq, fault));
                }
                self.lines = Some(LineReader::open(path).map_err(io)?);
            }
            let Some(lines) = &mut self.lines else { return Ok(false) };
            let mut piece = lines.advance().map_err(io)?;
            if piece == Piece::Partial {
                // The writer may have been writing it; read it once more.
                piece = lines.advance().map_err(io)?;
            }
            match piece {
                Piece::Whole => return Ok(true),
                Piece::Partial => return Err(damage(path, seq, ChainFault::Torn)),
                Piece::TooLong => return Err(damage(path, seq, ChainFault::TooLong)),
                Piece::End => {
                    self.lines = None;
                    self.index = self.index.saturating_add(1);
                }
            }
        }
    }

    /// Checks the current line.
    fn take(
        &mut self,
        calls: &mut OpenCalls,
        summary: &mut JournalSummary,
    ) -> Result<(), VerifyError> {
        let path = self.path();
        let seq = self.chain.next_seq;
        let Some(lines) = &self.lines else { return Ok(()) };
        let link = match self.chain.take(lines.line()) {
            Ok(link) => link,
            Err(ChainFault::Changed) => return Err(self.find_changed(path, seq)),
            Err(fault) => return Err(damage(path, seq, fault)),
        };
        if Event::named(&link.event).is_none() {
            let mut event = String::new();
            inert::push(&mut event, &link.event, EVENT_CHARS_SHOWN);
            return Err(damage(path, seq, ChainFault::UnknownEvent { event }));
        }
        let first = lines.start() == 0;
        if (link.event == "rotation") != (first && seq > 1) {
            return Err(damage(path, seq, ChainFault::Rotation));
        }
        calls.take(&link, seq, path, self.before.is_none()).map_err(VerifyError::Damaged)?;
        summary.count(&link);
        self.before = Some(path);
        Ok(())
    }

    /// Finds the changed record after the current line's `prev` did not match the line before. If
    /// the next line's `prev` matches the current line, the line before was changed; otherwise the
    /// current one was.
    fn find_changed(&mut self, path: &Path, seq: u64) -> VerifyError {
        let own = self.lines.as_ref().map(|lines| chain::hash(lines.line()));
        self.chain.next_seq = seq.saturating_add(1);
        let vouched = self.advance().unwrap_or(false)
            && self.lines.as_ref().is_some_and(|lines| {
                super::entry::read::<Link<'_>>(lines.line())
                    .is_ok_and(|after| own.is_some_and(|own| own == after.prev.as_bytes()))
            });
        let last = self.index >= self.segments.len();
        match self.before {
            Some(before) if vouched || last => {
                damage(before, seq.saturating_sub(1), ChainFault::Changed)
            }
            _ => damage(path, seq, ChainFault::Changed),
        }
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

/// Calls without outcome.
#[derive(Default)]
struct OpenCalls {
    open: BTreeMap<String, Awaited>,
    /// Number of open calls of missing segments whose ids are not known.
    elided: u64,
    /// Whether the current run may still record unknown outcomes for calls of earlier runs: it does
    /// so before anything else.
    settling: bool,
}

struct Awaited {
    outcomes: u32,
    seq: u64,
    path: PathBuf,
    boot: String,
}

impl OpenCalls {
    fn take(&mut self, link: &Link<'_>, seq: u64, path: &Path, first: bool) -> Result<(), Damage> {
        let damage = |fault| Damage { path: path.to_owned(), seq, fault };
        match (&*link.event, &link.call) {
            ("start", _) => self.settling = true,
            ("stop", _) if !self.settling => {
                let oldest = self.open.iter().min_by_key(|(_, awaited)| awaited.seq);
                if let Some((call, _)) = oldest {
                    let call = call.clone();
                    return Err(damage(ChainFault::StoppedWithOpenCall { call }));
                }
            }
            ("rotation", _) if first => {
                self.elided = link.open_elided;
                for call in &link.open {
                    self.await_outcome(call, link, seq, path);
                }
            }
            ("rotation", _) if !self.agree_with(link) => return Err(damage(ChainFault::OpenCalls)),
            ("rotation" | "recovery" | "gap", _) => {}
            ("outcome", Some(call)) => {
                let Some(awaited) = self.open.get_mut(&**call) else {
                    if let Some(rest) = self.elided.checked_sub(1) {
                        self.elided = rest;
                        return Ok(());
                    }
                    let call = call.clone().into_owned();
                    return Err(damage(ChainFault::OutcomeWithoutIntent { call }));
                };
                awaited.outcomes = awaited.outcomes.saturating_sub(1);
                if awaited.outcomes == 0 {
                    self.open.remove(&**call);
                }
            }
            (event, call) => {
                // After `start` the journal first records the outcomes of earlier runs' calls, so
                // none may be open now.
                self.demand_settled(&link.boot)?;
                if let ("intent", Some(call)) = (event, call) {
                    self.await_outcome(call, link, seq, path);
                }
            }
        }
        Ok(())
    }

    fn await_outcome(&mut self, call: &str, link: &Link<'_>, seq: u64, path: &Path) {
        let awaited = self.open.entry(call.to_owned()).or_insert_with(|| Awaited {
            outcomes: 0,
            seq,
            path: path.to_owned(),
            boot: link.boot.clone().into_owned(),
        });
        awaited.outcomes = awaited.outcomes.saturating_add(1);
    }

    fn demand_settled(&mut self, boot: &str) -> Result<(), Damage> {
        if !std::mem::take(&mut self.settling) {
            return Ok(());
        }
        let unsettled =
            self.open.iter().filter(|(_, awaited)| awaited.boot != boot).min_by_key(|(_, a)| a.seq);
        unsettled.map_or(Ok(()), |(call, awaited)| {
            Err(Damage {
                path: awaited.path.clone(),
                seq: awaited.seq,
                fault: ChainFault::Unsettled { call: call.clone() },
            })
        })
    }

    fn agree_with(&self, rotation: &Link<'_>) -> bool {
        let mut listed: BTreeMap<&str, u32> = BTreeMap::new();
        for call in &rotation.open {
            let count = listed.entry(call).or_default();
            *count = count.saturating_add(1);
        }
        let known = listed.iter().all(|(call, count)| {
            self.open.get(*call).is_some_and(|awaited| *count <= awaited.outcomes)
        });
        let owed = self.open.values().map(|awaited| u64::from(awaited.outcomes)).sum::<u64>();
        let told = listed.values().map(|count| u64::from(*count)).sum::<u64>();
        known && owed.saturating_add(self.elided) == told.saturating_add(rotation.open_elided)
    }
}
