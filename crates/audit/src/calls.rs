//! Joins the records of a call: what was decided, who approved, how it ended.
//!
//! A call has several records, and others may lie between them. [`Calls`] joins them as they come,
//! for a reader that follows the journal; [`find`] looks for the calls that have a wanted record, and
//! [`collect`] reads all records of such calls. The records of the program itself stand alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use super::entry::{JournalRecord, OperationRecord};
use super::filter::{Filter, Matcher, call_of};
use super::recent::{RecentQuery, RecentRecords};
use super::scan::Scan;
use super::tail::{ReadError, seq_of};

/// Records that are kept of one call; a call that was held has about four.
const RECORDS_MAX: usize = 64;
/// Calls without an end that are kept; the oldest go first.
const OPEN_MAX: usize = 10_000;
/// Records before the first one that is wanted in which the beginning of its call is looked for.
const LOOK_BACK: u64 = 10_000;

/// The records of one call, oldest first, or one record of the program itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// At least one.
    pub records: Vec<JournalRecord>,
}

impl Call {
    /// The record with the decision that counts: the last of those that have one, otherwise the
    /// first.
    pub fn decided(&self) -> Option<&JournalRecord> {
        let decided = self.records.iter().rev().find(|it| it.decision.is_some());
        decided.or(self.records.first())
    }

    /// What it does: the newest of its records that says so.
    pub fn operation(&self) -> Option<&OperationRecord> {
        self.records.iter().rev().find_map(|it| it.operation.as_ref())
    }

    /// Its record with this event.
    pub fn with(&self, event: &str) -> Option<&JournalRecord> {
        self.records.iter().find(|it| it.event == event)
    }

    /// Whether nothing more of it is to come, apart from answers of approvers.
    pub fn has_ended(&self) -> bool {
        self.records.iter().any(|it| ends(&it.event)) || self.call().is_none()
    }

    fn call(&self) -> Option<&str> {
        self.records.first()?.call.as_deref()
    }
}

/// Whether a record with this event is the last one of a call.
pub(super) fn ends(event: &str) -> bool {
    !matches!(event, "intent" | "hold" | "hold_state" | "approval" | "repeated")
}

/// Whether a record with this event says something of a call that is told at once, since a person
/// may have to act, or does not belong to what is told of the call.
fn told_at_once(event: &str) -> bool {
    matches!(event, "hold" | "approval" | "repeated")
}

/// A call whose end is not there yet.
#[derive(Debug, Default)]
struct OpenCall {
    call: Call,
    /// Whether one of its records is wanted.
    wanted: bool,
}

/// Joins records as they come.
#[derive(Debug, Default)]
pub struct Calls {
    /// By the sequence number of their first record.
    open: BTreeMap<u64, OpenCall>,
    by_id: HashMap<String, u64>,
    /// Whether each record is told once, with all of its call.
    only_whole: bool,
}

impl Calls {
    /// Tells nothing of a call before its end: each record is told once.
    pub fn whole() -> Self {
        Self { only_whole: true, ..Self::default() }
    }

    /// Takes the next record in, `wanted` or not. Gives what is now to be told: a call that has ended
    /// and has a wanted record, or a wanted record that stands alone; and beyond the largest number
    /// of open calls the oldest of them, if it has a wanted record.
    pub fn push(&mut self, entry: JournalRecord, wanted: bool) -> Vec<Call> {
        let told = self.take(entry, wanted);
        let mut told: Vec<Call> = told.into_iter().collect();
        if self.open.len() > OPEN_MAX
            && let Some((_, OpenCall { call, wanted })) = self.open.pop_first()
        {
            if let Some(id) = call.call() {
                self.by_id.remove(id);
            }
            told.extend(wanted.then_some(call));
        }
        told
    }

    /// The calls with a wanted record whose end did not come.
    pub fn finish(self) -> impl Iterator<Item = Call> {
        self.open.into_values().filter(|open| open.wanted).map(|open| open.call)
    }

    fn take(&mut self, entry: JournalRecord, wanted: bool) -> Option<Call> {
        let alone = |entry| wanted.then(|| Call { records: vec![entry] });
        let Some(id) = entry.call.clone() else { return alone(entry) };
        let (seq, end, at_once) = (entry.seq, ends(&entry.event), told_at_once(&entry.event));
        let known = self.by_id.get(&id).copied();
        if known.is_none() && !matches!(entry.event.as_str(), "intent" | "hold") {
            return alone(entry);
        }
        let at_once = at_once && !self.only_whole;
        let told = if at_once { alone(entry.clone()) } else { None };
        let first = known.unwrap_or(seq);
        let open = self.open.entry(first).or_default();
        open.wanted |= wanted;
        if open.call.records.len() < RECORDS_MAX || end {
            open.call.records.push(entry);
        }
        if end {
            self.by_id.remove(&id);
            let OpenCall { call, wanted } = self.open.remove(&first)?;
            return wanted.then_some(call);
        }
        self.by_id.insert(id, first);
        told
    }

    /// Takes in a call of which nothing is to be told before its end.
    pub fn resume(&mut self, call: Call) {
        if let (Some(id), Some(first)) = (call.call(), call.records.first()) {
            self.by_id.insert(id.to_owned(), first.seq);
            self.open.insert(first.seq, OpenCall { call, wanted: true });
        }
    }
}

/// Calls that are wanted, and records that stand alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    calls: HashSet<Box<[u8]>>,
    seqs: HashSet<u64>,
    /// The first record that showed one of them.
    first: Option<u64>,
    /// Whether there are more than were asked for.
    pub more: bool,
}

impl Wanted {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.calls.len().saturating_add(self.seqs.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in what `line` is about, unless there are `max` others. Whether there was room.
    fn take(&mut self, line: &[u8], max: usize) -> bool {
        let (call, seq) = (call_of(line), seq_of(line).unwrap_or_default());
        let known = match call {
            Some(call) => self.calls.contains(call),
            None => self.seqs.contains(&seq),
        };
        if !known && self.len() >= max {
            self.more = true;
            return false;
        }
        match call {
            Some(call) => self.calls.insert(call.into()),
            None => self.seqs.insert(seq),
        };
        self.first = Some(self.first.map_or(seq, |first| first.min(seq)));
        true
    }

    fn has(&self, line: &[u8]) -> bool {
        match call_of(line) {
            Some(call) => self.calls.contains(call),
            None => !self.seqs.is_empty() && seq_of(line).is_some_and(|it| self.seqs.contains(&it)),
        }
    }
}

/// What was found, and how many lines were no records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found<T> {
    /// What was found.
    pub found: T,
    /// Lines that are no records: the journal is damaged there.
    pub unreadable: u64,
}

/// The first `max` calls with a record that `filter` admits, from record `from_seq` on.
///
/// # Errors
///
/// As [`Scan::run`].
pub fn find(
    directory: &Path,
    from_seq: u64,
    filter: &Filter,
    max: usize,
) -> Result<Found<Wanted>, ReadError> {
    let matcher = Matcher::new(filter);
    let mut all = Found::<Wanted>::default();
    Scan { directory, from_seq, filter }.run(
        |found: &mut Found<Vec<Vec<u8>>>, line| match matcher.read(line) {
            Ok(Some(entry)) if entry.seq >= from_seq => found.found.push(line.to_vec()),
            Ok(_) => {}
            Err(_) => found.unreadable = found.unreadable.saturating_add(1),
        },
        |Found { found, unreadable }| {
            all.unreadable = all.unreadable.saturating_add(unreadable);
            let has_room = found.iter().all(|line| all.found.take(line, max));
            if has_room { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        },
    )?;
    Ok(all)
}

/// The last `max` calls with a record that `filter` admits. The journal is read from its end.
///
/// # Errors
///
/// A file cannot be read.
pub fn find_last(
    directory: &Path,
    filter: &Filter,
    max: usize,
) -> Result<Found<Wanted>, ReadError> {
    let mut all = Found::<Wanted>::default();
    let mut query = RecentQuery { filter: filter.clone(), ..RecentQuery::default() };
    loop {
        let step = RecentRecords::read(directory, &query)
            .map_err(|source| ReadError::Io { path: directory.to_owned(), source })?;
        all.unreadable = all.unreadable.saturating_add(step.unreadable);
        if !step.lines.iter().all(|line| all.found.take(line, max)) || step.older.is_none() {
            return Ok(all);
        }
        query.before = step.older;
    }
}

/// All records of the calls in `wanted`, in the order of their first records. `upto`: the last record
/// that is looked at.
///
/// # Errors
///
/// As [`Scan::run`].
pub fn collect(directory: &Path, wanted: &Wanted, upto: u64) -> Result<Vec<Call>, ReadError> {
    let Some(first) = wanted.first else { return Ok(Vec::new()) };
    let from_seq = first.saturating_sub(LOOK_BACK);
    let (mut calls, mut by_id) = (BTreeMap::<u64, Call>::new(), HashMap::<String, u64>::new());
    let mut ended = 0_usize;
    let filter = Filter::default();
    Scan { directory, from_seq, filter: &filter }.run(
        |found: &mut Vec<JournalRecord>, line| {
            if seq_of(line).is_some_and(|seq| (from_seq..=upto).contains(&seq)) && wanted.has(line)
            {
                // What is no record was counted before.
                found.extend(JournalRecord::read(line).ok());
            }
        },
        |found| {
            for entry in found {
                let first = entry.call.as_ref().and_then(|id| by_id.get(id)).copied();
                let first = first.unwrap_or(entry.seq);
                if let Some(id) = &entry.call {
                    by_id.insert(id.clone(), first);
                }
                let call = calls.entry(first).or_default();
                let had_ended = call.has_ended();
                if call.records.len() < RECORDS_MAX {
                    call.records.push(entry);
                }
                if call.has_ended() && !had_ended {
                    ended = ended.saturating_add(1);
                }
            }
            // Nothing more of them is to come.
            if ended >= wanted.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    )?;
    Ok(calls.into_values().collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::filter::Field;
    use super::super::segment;
    use super::*;

    fn entry(seq: u64, event: &str, call: &str) -> JournalRecord {
        let call = (!call.is_empty()).then(|| call.to_owned());
        JournalRecord { seq, event: event.to_owned(), call, ..JournalRecord::default() }
    }

    fn seqs(call: &Call) -> Vec<u64> {
        call.records.iter().map(|it| it.seq).collect()
    }

    #[test]
    fn a_call_is_told_when_it_ends_and_a_hold_at_once() {
        let told_by = |mut calls: Calls, entries: &[(JournalRecord, bool)]| {
            let told = entries.iter().flat_map(|(it, wanted)| calls.push(it.clone(), *wanted));
            let mut told: Vec<_> = told.map(|call| seqs(&call)).collect();
            assert!(calls.by_id.len() == calls.open.len());
            told.extend(calls.finish().map(|call| seqs(&call)));
            told
        };
        let told = |entries: &[(JournalRecord, bool)]| told_by(Calls::default(), entries);
        let two = [
            (entry(1, "start", ""), true),
            (entry(2, "intent", "a"), true),
            (entry(3, "intent", "b"), false),
            (entry(4, "outcome", "b"), false),
            (entry(5, "denial", "c"), true),
            (entry(6, "outcome", "a"), false),
            (entry(7, "repeated", "c"), true),
        ];
        assert_eq!(told(&two), [vec![1], vec![5], vec![2, 6], vec![7]]);
        let held = [
            (entry(1, "hold", "a"), true),
            (entry(2, "approval", "a"), true),
            (entry(3, "intent", "a"), true),
            (entry(4, "outcome", "a"), true),
            (entry(5, "approval", "a"), true),
        ];
        assert_eq!(told(&held), [vec![1], vec![2], vec![1, 2, 3, 4], vec![5]]);
        assert_eq!(told_by(Calls::whole(), &held), [vec![1, 2, 3, 4], vec![5]]);
        assert_eq!(told_by(Calls::whole(), &held[..3]), [vec![1, 2, 3]], "open at the end");
    }

    #[test]
    fn calls_without_end_are_bounded() {
        let mut calls = Calls::default();
        for seq in 1..=20_000 {
            let told = calls.push(entry(seq, "intent", &seq.to_string()), seq % 2 == 0);
            let oldest = seq.checked_sub(10_000).filter(|oldest| *oldest > 0 && oldest % 2 == 0);
            assert_eq!(
                told.iter().map(seqs).collect::<Vec<_>>(),
                Vec::from_iter(oldest.map(|it| vec![it]))
            );
        }
        assert_eq!((calls.open.len(), calls.by_id.len()), (OPEN_MAX, OPEN_MAX));
        for seq in 1..=1000 {
            calls.push(entry(20_000, "approval", "20000"), seq > 0);
        }
        let told = calls.push(entry(20_001, "outcome", "20000"), true);
        let call = told.first().unwrap();
        assert_eq!(call.records.len(), RECORDS_MAX.saturating_add(1));
    }

    /// `event call` of each record, in two segments.
    fn journal(records: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let line = |(seq, text): (usize, &&str)| {
            let (event, call) = text.split_once(' ').unwrap_or((text, ""));
            let call =
                if call.is_empty() { String::new() } else { format!(",\"call\":\"{call}\"") };
            format!(
                "{{\"seq\":{seq},\"boot\":\"b\",\"prev\":\"\",\"schema\":1,\"event\":\"{event}\",\
                 \"time\":\"\",\"uptime_us\":0{call}}}\n"
            )
        };
        let lines: Vec<String> = (1..).zip(records).map(line).collect();
        let (one, two) = lines.split_at(lines.len() / 2);
        fs::write(directory.path().join(segment::name(1)), one.concat()).unwrap();
        let second = u64::try_from(one.len()).unwrap().saturating_add(1);
        fs::write(directory.path().join(segment::name(second)), two.concat()).unwrap();
        directory
    }

    #[test]
    fn all_records_of_the_calls_with_a_wanted_one_are_found() {
        let directory = journal(&[
            "start",
            "intent a",
            "intent b",
            "outcome b",
            "denial c",
            "hold d",
            "outcome a",
            "stop",
        ]);
        let path = directory.path();
        let found = |filter: &Filter, max: usize, last: bool| {
            let found = if last {
                find_last(path, filter, max).unwrap()
            } else {
                find(path, 1, filter, max).unwrap()
            };
            assert_eq!(found.unreadable, 0);
            let calls = collect(path, &found.found, u64::MAX).unwrap();
            (calls.iter().map(seqs).collect::<Vec<_>>(), found.found.more)
        };
        let all = [vec![1], vec![2, 7], vec![3, 4], vec![5], vec![6], vec![8]];
        let any = Filter::default();
        let outcomes = any.clone().and(Field::Event, "outcome");
        for (filter, max, last, expected) in [
            (&any, 9, false, (all.to_vec(), false)),
            (&any, 9, true, (all.to_vec(), false)),
            (&any, 2, false, (vec![vec![1], vec![2, 7]], true)),
            (&any, 2, true, (vec![vec![2, 7], vec![8]], true)),
            (&outcomes, 9, false, (vec![vec![2, 7], vec![3, 4]], false)),
            (&outcomes, 1, true, (vec![vec![2, 7]], true)),
        ] {
            assert_eq!(found(filter, max, last), expected, "{filter:?} {max} {last}");
        }
    }
}
