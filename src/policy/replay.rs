//! Replay: recorded questions put to another policy, on as many threads as there are processors.
//!
//! A reader hands out batches of lines, each worker judges them with an engine of its own, and
//! what differs is put together in the order of the lines. Rate limits are not spent and nothing
//! is set: what is compared is what the policies say.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use bartizan_audit::journal_directory;
use bartizan_audit::tail::JournalReader;
use bartizan_rego::{Judge, Policy, PolicyProblem};
use bartizan_sync::lock;

use super::recorded::{About, Known, NotJudged, Question, Recorded, Said, Verdict};

/// Lines handed to a worker at once.
const BATCH_LINES: usize = 256;
/// Size of one line of a file, bytes.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Changes that are listed; the rest are counted.
pub const CHANGES_MAX: usize = 10_000;

/// What is put to what.
#[derive(Debug)]
pub struct Replay {
    /// The policy that is tried.
    pub candidate: Policy,
    /// The policy that it is compared with. Absent: with what was recorded.
    pub against: Option<Policy>,
    /// What is known besides the records.
    pub known: Known,
    /// Threads.
    pub workers: usize,
}

/// Where questions are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A state directory with its journal.
    State(PathBuf),
    /// A file of lines; `-` is standard input.
    File(PathBuf),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Questions that were judged.
    pub judged: u64,
    /// Lines that are no question to a policy.
    pub not_asked: u64,
    /// Judged, and there was nothing to compare with.
    pub incomparable: u64,
    /// The same verdict as before.
    pub same: u64,
    /// Of those, how many for other reasons.
    pub other_reasons: u64,
    /// Another verdict, by the verdicts before and after.
    pub changed: BTreeMap<(Verdict, Verdict), u64>,
    /// What the candidate said, by verdict.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Not judged, by the reason.
    pub unjudged: BTreeMap<String, u64>,
    /// The changed verdicts in order, the first [`CHANGES_MAX`].
    pub changes: Vec<Change>,
}

/// One changed verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which source, counted from 0.
    pub source: usize,
    /// The sequence number in a journal, the line in a file.
    pub line: u64,
    /// What it was about.
    pub about: About,
    /// What was said before.
    pub before: Said,
    /// What the candidate says.
    pub after: Said,
}

/// Why a replay ended before its end.
#[derive(Debug)]
pub struct ReplayError {
    /// Which file or directory, perhaps with a line.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

impl Report {
    /// Changed verdicts, all together.
    pub fn changes_all(&self) -> u64 {
        self.changed.values().sum()
    }

    /// Changes for which `select` holds, given the verdicts before and after.
    pub fn changes_that(&self, select: impl Fn(Verdict, Verdict) -> bool) -> u64 {
        let chosen = self.changed.iter().filter(|((before, after), _)| select(*before, *after));
        chosen.map(|(_, count)| count).sum()
    }

    /// Questions that were not judged, all together.
    pub fn unjudged_all(&self) -> u64 {
        self.unjudged.values().sum()
    }

    fn add(&mut self, other: Self) {
        let sum = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        sum(&mut self.judged, other.judged);
        sum(&mut self.not_asked, other.not_asked);
        sum(&mut self.incomparable, other.incomparable);
        sum(&mut self.same, other.same);
        sum(&mut self.other_reasons, other.other_reasons);
        for (key, count) in other.changed {
            sum(self.changed.entry(key).or_default(), count);
        }
        for (key, count) in other.verdicts {
            sum(self.verdicts.entry(key).or_default(), count);
        }
        for (key, count) in other.unjudged {
            sum(self.unjudged.entry(key).or_default(), count);
        }
        self.changes.extend(other.changes);
    }

    fn question(&mut self, place: (usize, u64), question: Question, judges: &mut Judges<'_>) {
        let (before, after) = match judges.ask(&question) {
            Ok(said) => said,
            Err(why) => return count(&mut self.unjudged, why.to_string()),
        };
        self.judged = self.judged.saturating_add(1);
        count(&mut self.verdicts, after.verdict);
        let Some(before) = before else {
            self.incomparable = self.incomparable.saturating_add(1);
            return;
        };
        if before.verdict == after.verdict {
            self.same = self.same.saturating_add(1);
            let other = u64::from(before.codes != after.codes);
            self.other_reasons = self.other_reasons.saturating_add(other);
            return;
        }
        count(&mut self.changed, (before.verdict, after.verdict));
        // Batches come in order, so a worker's first are all that can be among the first of all.
        if self.changes.len() < CHANGES_MAX {
            let (source, line) = place;
            self.changes.push(Change { source, line, about: question.about, before, after });
        }
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}

/// One worker's engines.
struct Judges<'a> {
    candidate: Judge,
    against: Option<Judge>,
    known: &'a Known,
}

impl<'a> Judges<'a> {
    fn new(replay: &'a Replay) -> Result<Self, PolicyProblem> {
        Ok(Self {
            candidate: Judge::new(&replay.candidate)?,
            against: replay.against.as_ref().map(Judge::new).transpose()?,
            known: &replay.known,
        })
    }

    fn ask(&mut self, question: &Question) -> Result<(Option<Said>, Said), NotJudged> {
        let before = match &mut self.against {
            Some(against) => Some(question.judge(against, self.known)?),
            None if question.by_gate() => return Err(NotJudged::Gate),
            None => question.before.clone(),
        };
        Ok((before, question.judge(&mut self.candidate, self.known)?))
    }
}

/// Lines with their source and number.
type Batch = Vec<(usize, u64, Vec<u8>)>;

/// Puts everything in `sources` to the policies.
pub fn replay(replay: &Replay, sources: &[Source]) -> Result<Report, ReplayError> {
    let workers = replay.workers.max(1);
    let (send, batches) = sync_channel::<Batch>(workers.saturating_mul(2));
    // Gone with the last worker, so that the reader ends where nobody is left to judge.
    let batches = Arc::new(Mutex::new(batches));
    let mut report = Report::default();
    thread::scope(|scope| {
        let feeder = scope.spawn(move || feed(sources, &send));
        let judging: Vec<_> = (0..workers)
            .map(|_| Arc::clone(&batches))
            .map(|batches| scope.spawn(move || work(replay, sources, &batches)))
            .collect();
        drop(batches);
        let mut failed = None;
        for worker in judging {
            match worker.join().unwrap_or_else(|_| Err(panicked())) {
                Ok(part) => report.add(part),
                Err(error) => failed = Some(error),
            }
        }
        let fed = feeder.join().unwrap_or_else(|_| Err(panicked()));
        failed.map_or(fed, Err)
    })?;
    report.changes.sort_by_key(|change| (change.source, change.line));
    report.changes.truncate(CHANGES_MAX);
    Ok(report)
}

fn panicked() -> ReplayError {
    ReplayError { place: "replay".to_owned(), what: "a thread panicked; report this".to_owned() }
}

/// Judges batches until there are no more, or one cannot be read.
fn work(
    replay: &Replay,
    sources: &[Source],
    batches: &Mutex<Receiver<Batch>>,
) -> Result<Report, ReplayError> {
    let mut report = Report::default();
    let mut judges = Judges::new(replay)
        .map_err(|problem| ReplayError { place: "policy".to_owned(), what: problem.to_string() })?;
    loop {
        let batch = lock(batches).recv();
        let Ok(batch) = batch else { return Ok(report) };
        for (source, line, bytes) in batch {
            match Recorded::read(&bytes) {
                Ok(Recorded::Question(question)) => {
                    report.question((source, line), *question, &mut judges);
                }
                Ok(Recorded::Other) => report.not_asked = report.not_asked.saturating_add(1),
                Err(what) => {
                    let place = sources.get(source).map_or_else(String::new, Source::shown);
                    return Err(ReplayError { place: format!("{place}:{line}"), what });
                }
            }
        }
    }
}

impl Source {
    /// As it is named in messages.
    pub fn shown(&self) -> String {
        match self {
            Self::State(path) | Self::File(path) => path.display().to_string(),
        }
    }
}

/// Reads all sources and hands their lines out. Ends early where nobody takes them.
fn feed(sources: &[Source], send: &SyncSender<Batch>) -> Result<(), ReplayError> {
    let mut batch = Vec::with_capacity(BATCH_LINES);
    read_lines(sources, |source, line, bytes| {
        batch.push((source, line, bytes));
        batch.len() < BATCH_LINES || send.send(std::mem::take(&mut batch)).is_ok()
    })?;
    drop(send.send(batch));
    Ok(())
}

/// Reads all sources, a line at a time: the source, the line's number, its bytes. Ends early once
/// `give` says `false`.
pub(super) fn read_lines(
    sources: &[Source],
    mut give: impl FnMut(usize, u64, Vec<u8>) -> bool,
) -> Result<(), ReplayError> {
    for (index, source) in sources.iter().enumerate() {
        let mut give = |line: u64, bytes: Vec<u8>| give(index, line, bytes);
        match source {
            Source::State(state) => journal(state, &mut give)?,
            Source::File(path) => lines(path, &mut give)
                .map_err(|error| ReplayError { place: source.shown(), what: error.to_string() })?,
        }
    }
    Ok(())
}

fn journal(state: &Path, give: &mut impl FnMut(u64, Vec<u8>) -> bool) -> Result<(), ReplayError> {
    let directory = journal_directory(state);
    let mut reader = JournalReader::new(&directory, 1);
    let failed = |error: &dyn std::fmt::Display| ReplayError {
        place: directory.display().to_string(),
        what: error.to_string(),
    };
    while let Some(line) = reader.read().map_err(|error| failed(&error))? {
        if !give(line.seq, line.bytes) {
            break;
        }
    }
    Ok(())
}

fn lines(path: &Path, give: &mut impl FnMut(u64, Vec<u8>) -> bool) -> io::Result<()> {
    let mut from: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(path)?))
    };
    let mut number = 0_u64;
    loop {
        let mut line = Vec::new();
        let read = (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        number = number.saturating_add(1);
        if read == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if u64::try_from(read).is_ok_and(|read| read == LINE_BYTES_MAX) {
            let what = format!("line {number} is longer than {LINE_BYTES_MAX} bytes");
            return Err(io::Error::other(what));
        }
        if !line.trim_ascii().is_empty() && !give(number, line) {
            return Ok(());
        }
    }
}
