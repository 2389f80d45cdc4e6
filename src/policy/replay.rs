//! Replay: evaluates recorded requests with another policy and reports the verdicts that change
//! (`bartizan policy replay`).
//!
//! One thread reads the sources and sends batches of lines over a channel. Worker threads, each
//! with an engine of its own, evaluate them. The changes are sorted by source and line at the end.
//! No duty is discharged: limits are not spent, arguments are not set. The policies' verdicts are
//! compared, not the gate's outcomes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use bartizan_audit::journal_directory;
use bartizan_audit::tail::JournalReader;
use bartizan_rego::{Policy, PolicyProblem, ReplayEvaluator};
use bartizan_sync::lock;

use super::recorded::{
    Known, NotEvaluated, PolicyVerdict, Question, QuestionSummary, Recorded, Verdict,
};

/// Lines in one batch.
const BATCH_LINES: usize = 256;
/// Longest line of a file, bytes.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Most changes that are listed. Further ones are only counted.
pub const CHANGES_MAX: usize = 10_000;

/// The policies of a replay, and how to run it.
#[derive(Debug)]
pub struct Replay {
    /// The candidate policy.
    pub candidate: Policy,
    /// The policy to compare it with; `None` compares with the recorded verdicts.
    pub against: Option<Policy>,
    /// Facts that the records do not hold.
    pub known: Known,
    /// The number of worker threads; 0 counts as 1.
    pub workers: usize,
}

/// A source of recorded requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A state directory, which holds a journal.
    State(PathBuf),
    /// A file with one JSON value on each line; `-` is standard input.
    File(PathBuf),
}

/// The result of a replay. The counts are numbers of requests.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests that were evaluated.
    pub judged: u64,
    /// Lines that are no request to a policy.
    pub not_asked: u64,
    /// Evaluated, but without a verdict to compare with.
    pub incomparable: u64,
    /// Evaluated with the same verdict as before.
    pub same: u64,
    /// Of [`Self::same`], those with other codes.
    pub other_reasons: u64,
    /// Evaluated with another verdict, by the verdicts before and after.
    pub changed: BTreeMap<(Verdict, Verdict), u64>,
    /// All evaluated requests, by the candidate's verdict.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Not evaluated, by the reason.
    pub unjudged: BTreeMap<String, u64>,
    /// The first [`CHANGES_MAX`] changes, by source and line.
    pub changes: Vec<Change>,
}

/// One changed verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The index of the source, from 0.
    pub source: usize,
    /// The sequence number in a journal, or the line number in a file, from 1.
    pub line: u64,
    /// A summary of the request.
    pub about: QuestionSummary,
    /// The verdict to compare with.
    pub before: PolicyVerdict,
    /// The candidate's verdict.
    pub after: PolicyVerdict,
}

/// Why a replay was aborted.
#[derive(Debug)]
pub struct ReplayError {
    /// The file or directory, with the line where one is known.
    pub place: String,
    /// What is wrong there: lower case, no period.
    pub what: String,
}

impl Report {
    /// The number of changed verdicts.
    pub fn changes_all(&self) -> u64 {
        self.changed.values().sum()
    }

    /// The number of changes for which `select`, given the verdicts before and after, is true.
    pub fn changes_that(&self, select: impl Fn(Verdict, Verdict) -> bool) -> u64 {
        let chosen = self.changed.iter().filter(|((before, after), _)| select(*before, *after));
        chosen.map(|(_, count)| count).sum()
    }

    /// The number of requests that were not evaluated.
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

    fn question(&mut self, line: &Line, question: Question, evaluators: &mut Evaluators<'_>) {
        let (before, after) = match evaluators.verdicts(&question) {
            Ok(verdicts) => verdicts,
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
        // A worker gets its batches in order, so its first `CHANGES_MAX` changes hold all of its that
        // can be among the first of all workers.
        if self.changes.len() < CHANGES_MAX {
            let (source, line) = (line.source, line.number);
            self.changes.push(Change { source, line, about: question.about, before, after });
        }
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}

/// The engines of one worker.
struct Evaluators<'a> {
    candidate: ReplayEvaluator,
    against: Option<ReplayEvaluator>,
    known: &'a Known,
}

impl<'a> Evaluators<'a> {
    fn new(replay: &'a Replay) -> Result<Self, PolicyProblem> {
        Ok(Self {
            candidate: ReplayEvaluator::new(&replay.candidate)?,
            against: replay.against.as_ref().map(ReplayEvaluator::new).transpose()?,
            known: &replay.known,
        })
    }

    /// The verdict to compare with, where there is one, and the candidate's.
    fn verdicts(
        &mut self,
        question: &Question,
    ) -> Result<(Option<PolicyVerdict>, PolicyVerdict), NotEvaluated> {
        let before = match &mut self.against {
            Some(against) => Some(question.evaluate(against, self.known)?),
            None if question.by_gate() => return Err(NotEvaluated::Gate),
            None => question.before.clone(),
        };
        Ok((before, question.evaluate(&mut self.candidate, self.known)?))
    }
}

/// One line of a source.
struct Line {
    /// The index of the source, from 0.
    source: usize,
    /// The sequence number in a journal, or the line number in a file, from 1.
    number: u64,
    /// The line, without its line feed.
    bytes: Vec<u8>,
}

/// Lines for one worker.
type Batch = Vec<Line>;

/// Evaluates all requests in `sources`.
///
/// # Errors
///
/// A source cannot be read, a line of it is no record, or a policy cannot be loaded.
pub fn replay(replay: &Replay, sources: &[Source]) -> Result<Report, ReplayError> {
    let workers = replay.workers.max(1);
    let (send, batches) = sync_channel::<Batch>(workers.saturating_mul(2));
    // The last worker drops the receiver. Sending then fails, and the reader ends.
    let batches = Arc::new(Mutex::new(batches));
    let mut report = Report::default();
    thread::scope(|scope| {
        let feeder = scope.spawn(move || feed(sources, &send));
        let working: Vec<_> = (0..workers)
            .map(|_| Arc::clone(&batches))
            .map(|batches| scope.spawn(move || work(replay, sources, &batches)))
            .collect();
        drop(batches);
        let mut failed = None;
        for worker in working {
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
    ReplayError {
        place: "replay".to_owned(),
        what: "a thread panicked: report this as a bug".to_owned(),
    }
}

/// Evaluates batches until the channel is closed, or a line cannot be read.
fn work(
    replay: &Replay,
    sources: &[Source],
    batches: &Mutex<Receiver<Batch>>,
) -> Result<Report, ReplayError> {
    let mut report = Report::default();
    let mut evaluators = Evaluators::new(replay)
        .map_err(|problem| ReplayError { place: "policy".to_owned(), what: problem.to_string() })?;
    loop {
        let batch = lock(batches).recv();
        let Ok(batch) = batch else { return Ok(report) };
        for line in batch {
            match Recorded::read(&line.bytes) {
                Ok(Recorded::Question(question)) => {
                    report.question(&line, *question, &mut evaluators);
                }
                Ok(Recorded::Other) => report.not_asked = report.not_asked.saturating_add(1),
                Err(what) => {
                    let source = sources.get(line.source).map_or_else(String::new, Source::shown);
                    return Err(ReplayError { place: format!("{source}:{}", line.number), what });
                }
            }
        }
    }
}

impl Source {
    /// The path, for messages.
    pub fn shown(&self) -> String {
        match self {
            Self::State(path) | Self::File(path) => path.display().to_string(),
        }
    }
}

/// Reads all sources and sends their lines in batches. It ends early once no worker receives them.
fn feed(sources: &[Source], send: &SyncSender<Batch>) -> Result<(), ReplayError> {
    let mut batch = Vec::with_capacity(BATCH_LINES);
    read_lines(sources, |source, line, bytes| {
        batch.push(Line { source, number: line, bytes });
        batch.len() < BATCH_LINES || send.send(std::mem::take(&mut batch)).is_ok()
    })?;
    drop(send.send(batch));
    Ok(())
}

/// Reads all sources line by line, and calls `give` with the index of the source, the line's number
/// and its bytes. It ends once `give` returns `false`.
///
/// # Errors
///
/// A source cannot be read, or has a line longer than [`LINE_BYTES_MAX`].
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
