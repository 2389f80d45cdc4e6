//! Proof that a journal is whole: every record there, in order, unchanged, every call ended.
//!
//! Reads files and nothing else; safe beside a program that writes. `tests/interop` has a second
//! verifier that shares no code with this one. What a chain cannot show is said in
//! [`audit`](super).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::chain::{self, Chain, Fault, Link};
use super::recover::Damage;
use super::segment::{self, Lines, Piece, Segment};

/// What a whole journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files.
    pub segments: usize,
    /// Records.
    pub records: u64,
    /// Sequence number of the first record there.
    pub first_seq: u64,
    /// Sequence number of the last one.
    pub last_seq: u64,
    /// Hash of the last one: compare it with a copy kept elsewhere.
    pub head: String,
    /// Runs of the program that began here.
    pub starts: u64,
    /// Calls let through.
    pub intents: u64,
    /// Refusals.
    pub denials: u64,
    /// Outcomes, of any kind.
    pub outcomes: u64,
    /// Times when records could not be kept.
    pub gaps: u64,
    /// Crashes recovered from.
    pub recoveries: u64,
    /// Calls of the last run without outcome: in flight, or lost with it.
    pub open: Vec<String>,
    /// Whether the last run ended in order.
    pub stopped: bool,
}

/// Whether a journal must be there from its first record on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extent {
    /// It must.
    #[default]
    Whole,
    /// The oldest segments may have been moved elsewhere.
    Remainder,
}

/// Why a journal is not proven.
#[derive(Debug)]
pub enum VerifyError {
    /// There is no journal.
    Empty {
        /// The directory.
        directory: PathBuf,
    },
    /// The system refused.
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The first bad record.
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

/// Reads the whole journal in `directory` and names the first record that is not as it should be.
pub fn verify(directory: &Path, extent: Extent) -> Result<Summary, VerifyError> {
    let segments = segment::list(directory)
        .map_err(|source| VerifyError::Io { path: directory.to_owned(), source })?;
    let Some(oldest) = segments.first() else {
        return Err(VerifyError::Empty { directory: directory.to_owned() });
    };
    let chain = match extent {
        Extent::Remainder if oldest.first_seq > 1 => {
            Chain { next_seq: oldest.first_seq, prev: None }
        }
        Extent::Whole | Extent::Remainder => Chain::START,
    };
    let mut calls = Calls::default();
    let mut summary =
        Summary { segments: segments.len(), first_seq: chain.next_seq, ..Summary::default() };
    let mut walk = Walk { segments: &segments, index: 0, lines: None, chain, before: None };
    while walk.advance()? {
        walk.take(&mut calls, &mut summary)?;
    }
    summary.last_seq = walk.chain.next_seq.saturating_sub(1);
    summary.head =
        walk.chain.prev.map(|hex| String::from_utf8_lossy(&hex).into()).unwrap_or_default();
    summary.open = calls.open.into_keys().collect();
    Ok(summary)
}

fn damage(path: &Path, seq: u64, fault: Fault) -> VerifyError {
    VerifyError::Damaged(Damage { path: path.to_owned(), seq, fault })
}

/// Goes through every line of every segment.
struct Walk<'a> {
    segments: &'a [Segment],
    /// Of the segment that is read.
    index: usize,
    lines: Option<Lines>,
    chain: Chain,
    /// Where the line before is.
    before: Option<&'a Path>,
}

impl<'a> Walk<'a> {
    fn path(&self) -> &'a Path {
        let segment = self.segments.get(self.index).or(self.segments.last());
        segment.map_or(Path::new(""), |segment| segment.path.as_path())
    }

    /// Goes to the next line; `false` at the end of the last segment.
    fn advance(&mut self) -> Result<bool, VerifyError> {
        loop {
            let Some(segment) = self.segments.get(self.index) else { return Ok(false) };
            let path = segment.path.as_path();
            let io = |source| VerifyError::Io { path: path.to_owned(), source };
            let seq = self.chain.next_seq;
            if self.lines.is_none() {
                if segment.first_seq != seq {
                    let missing = segment.first_seq > seq;
                    let fault = if missing { Fault::Missing } else { Fault::Name };
                    return Err(damage(path, seq, fault));
                }
                self.lines = Some(Lines::open(path).map_err(io)?);
            }
            let Some(lines) = &mut self.lines else { return Ok(false) };
            let mut piece = lines.advance().map_err(io)?;
            if piece == Piece::Partial {
                // Perhaps it was being written.
                piece = lines.advance().map_err(io)?;
            }
            match piece {
                Piece::Whole => return Ok(true),
                Piece::Partial => return Err(damage(path, seq, Fault::Torn)),
                Piece::TooLong => return Err(damage(path, seq, Fault::TooLong)),
                Piece::End => {
                    self.lines = None;
                    self.index = self.index.saturating_add(1);
                }
            }
        }
    }

    /// Checks the line that [`Walk::advance`] went to.
    fn take(&mut self, calls: &mut Calls, summary: &mut Summary) -> Result<(), VerifyError> {
        let path = self.path();
        let seq = self.chain.next_seq;
        let Some(lines) = &self.lines else { return Ok(()) };
        let link = match self.chain.take(lines.line()) {
            Ok(link) => link,
            Err(Fault::Changed) => return Err(self.find_changed(path, seq)),
            Err(fault) => return Err(damage(path, seq, fault)),
        };
        let first = lines.start() == 0;
        if (link.event == "rotation") != (first && seq > 1) {
            return Err(damage(path, seq, Fault::Rotation));
        }
        calls.take(&link, seq, path, self.before.is_none()).map_err(VerifyError::Damaged)?;
        summary.count(&link);
        self.before = Some(path);
        Ok(())
    }

    /// The current line and the one before do not fit. Whichever the line after speaks against is
    /// the changed one.
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
                damage(before, seq.saturating_sub(1), Fault::Changed)
            }
            _ => damage(path, seq, Fault::Changed),
        }
    }
}

impl Summary {
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

/// Calls that await their outcome.
#[derive(Default)]
struct Calls {
    open: BTreeMap<String, Awaited>,
    /// Open calls of segments that are not here, whose ids are not known.
    elided: u64,
    /// Whether the run that just started may still settle calls of earlier runs.
    settling: bool,
}

struct Awaited {
    outcomes: u32,
    seq: u64,
    path: PathBuf,
    boot: String,
}

impl Calls {
    fn take(&mut self, link: &Link<'_>, seq: u64, path: &Path, first: bool) -> Result<(), Damage> {
        let damage = |fault| Damage { path: path.to_owned(), seq, fault };
        match (&*link.event, &link.call) {
            ("start", _) => self.settling = true,
            ("rotation", _) if first => {
                self.elided = link.open_elided;
                for call in &link.open {
                    self.await_outcome(call, link, seq, path);
                }
            }
            ("rotation", _) if !self.agree_with(link) => return Err(damage(Fault::OpenCalls)),
            ("rotation" | "recovery" | "gap", _) => {}
            ("outcome", Some(call)) => {
                let Some(awaited) = self.open.get_mut(&**call) else {
                    if let Some(rest) = self.elided.checked_sub(1) {
                        self.elided = rest;
                        return Ok(());
                    }
                    let call = call.clone().into_owned();
                    return Err(damage(Fault::OutcomeWithoutIntent { call }));
                };
                awaited.outcomes = awaited.outcomes.saturating_sub(1);
                if awaited.outcomes == 0 {
                    self.open.remove(&**call);
                }
            }
            (event, call) => {
                // The journal settles what earlier runs left before it takes anything else.
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
                fault: Fault::Unsettled { call: call.clone() },
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
