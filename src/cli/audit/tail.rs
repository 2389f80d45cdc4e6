//! `bartizan audit tail`: the newest calls or records, and those that follow.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use clap::Args;

use super::select::{PlaceArgs, SelectArgs};
use super::{AuditError, print};
use bartizan_audit::calls::{Calls, collect, find, find_last};
use bartizan_audit::entry::JournalRecord;
use bartizan_audit::filter::{Filter, Matcher};
use bartizan_audit::journal_directory;
use bartizan_audit::pretty::{self, Colour};
use bartizan_audit::recent::{RecentQuery, RecentRecords};
use bartizan_audit::tail::{JournalReader, ReadError, seq_of};

/// Calls or records that are printed where nothing says how many.
const LINES: u32 = 10;
/// Calls that are joined at most.
pub(super) const CALLS_MAX: u32 = 100_000;

/// Arguments of `audit tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Keep printing new calls as they end, and new holds at once.
    #[arg(short, long)]
    follow: bool,
    /// Start with this sequence number.
    #[arg(long, value_name = "N", conflicts_with = "lines")]
    from_seq: Option<u64>,
    /// Start with the last N that match. Default: 10, or all if `--since` or `--from-seq` is given.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=100_000))]
    lines: Option<u32>,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    form: FormArgs,
}

/// How what was found is printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct FormArgs {
    /// Print each record on a line of its own, with its reasons, instead of one line a call.
    #[arg(long, conflicts_with = "json")]
    records: bool,
    /// Print readable lines; the default on a terminal.
    #[arg(long, conflicts_with = "json")]
    pretty: bool,
    /// Print the records as the journal has them, one JSON object a line; the default if the output
    /// is not a terminal.
    #[arg(long)]
    json: bool,
}

/// How records are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFormat {
    /// One readable line per call.
    Calls(Colour),
    /// One readable line per record.
    Pretty(Colour),
    /// The journal's lines, unchanged.
    Raw,
}

impl FormArgs {
    /// Chooses by the options, otherwise by whether the output is a terminal. `no_color` is the value
    /// of `NO_COLOR` (no-color.org: any value except the empty one turns colours off).
    pub fn format(self, terminal: bool, no_color: Option<&OsStr>) -> RecordFormat {
        let colour = colour(terminal, no_color);
        if self.records {
            RecordFormat::Pretty(colour)
        } else if self.pretty || (terminal && !self.json) {
            RecordFormat::Calls(colour)
        } else {
            RecordFormat::Raw
        }
    }
}

/// Whether colours are used.
pub(super) fn colour(terminal: bool, no_color: Option<&OsStr>) -> Colour {
    let plain = no_color.is_some_and(|value| !value.is_empty());
    if terminal && !plain { Colour::Ansi } else { Colour::None }
}

impl TailArgs {
    /// The options for how it is printed.
    pub fn form(&self) -> FormArgs {
        self.form
    }

    /// How many are printed of those that are there.
    fn lines(&self) -> Option<u32> {
        let bounded = self.from_seq.is_some() || self.select.since.is_some();
        self.lines.or((!bounded).then_some(LINES))
    }
}

/// Prints to `out`. With `--follow`, `wait` is called at the end of the journal; the function returns
/// when `wait` returns `false`.
///
/// # Errors
///
/// A record cannot be read or printed, or the configuration does not tell where the journal is.
pub fn tail(
    args: &TailArgs,
    form: RecordFormat,
    now: SystemTime,
    wait: impl FnMut() -> bool,
    out: &mut dyn Write,
) -> Result<(), AuditError> {
    let state = args.place.state().map_err(|it| AuditError::Configuration(it.into()))?;
    let directory = journal_directory(&state);
    let matcher = Matcher::new(&args.select.filter(now));
    match form {
        RecordFormat::Calls(colour) => tail_calls(args, &directory, &matcher, colour, wait, out),
        RecordFormat::Pretty(colour) => {
            let show = |entry: &JournalRecord| Some(pretty::line(entry, colour).into_bytes());
            tail_records(args, &directory, &matcher, show, wait, out)
        }
        RecordFormat::Raw => tail_records(args, &directory, &matcher, |_| None, wait, out),
    }
}

/// Prints one line per record: what `show` makes of it, or the line as it is in the journal.
fn tail_records(
    args: &TailArgs,
    directory: &Path,
    matcher: &Matcher,
    show: impl Fn(&JournalRecord) -> Option<Vec<u8>>,
    mut wait: impl FnMut() -> bool,
    out: &mut dyn Write,
) -> Result<(), AuditError> {
    let mut reader = JournalReader::new(directory, args.from_seq.unwrap_or(1));
    let mut last = args.lines().map(|lines| (lines, VecDeque::new()));
    if let Some((lines, _)) = last {
        // The last ones are found from the end, so that no more is read than is needed.
        let max = usize::try_from(lines).unwrap_or(usize::MAX);
        reader.seek(last_records(directory, matcher.filter(), max)?);
    }
    loop {
        while let Some(line) = reader.read().map_err(AuditError::Read)? {
            let unreadable = |cause| AuditError::Unreadable { seq: line.seq, cause };
            let Some(entry) = matcher.read(&line.bytes).map_err(unreadable)? else { continue };
            let text = show(&entry).unwrap_or(line.bytes);
            let Some((lines, texts)) = &mut last else {
                print(&text, out)?;
                continue;
            };
            texts.push_back(text);
            if texts.len() > usize::try_from(*lines).unwrap_or(usize::MAX) {
                texts.pop_front();
            }
        }
        for text in last.take().into_iter().flat_map(|(_, texts)| texts) {
            print(&text, out)?;
        }
        out.flush().map_err(AuditError::Output)?;
        if !args.follow || !wait() {
            return Ok(());
        }
    }
}

/// Prints one line per call.
fn tail_calls(
    args: &TailArgs,
    directory: &Path,
    matcher: &Matcher,
    colour: Colour,
    mut wait: impl FnMut() -> bool,
    out: &mut dyn Write,
) -> Result<(), AuditError> {
    let end = end(directory)?;
    let filter = matcher.filter();
    let found = if let Some(max) = args.lines() {
        find_last(directory, filter, usize::try_from(max).unwrap_or(usize::MAX))
    } else {
        let max = usize::try_from(CALLS_MAX).unwrap_or(usize::MAX);
        find(directory, args.from_seq.unwrap_or(1), filter, max)
    };
    let found = found.map_err(AuditError::Read)?;
    let mut calls = Calls::default();
    for call in collect(directory, &found.found, end).map_err(AuditError::Read)? {
        print(pretty::call_line(&call, colour).as_bytes(), out)?;
        if !call.has_ended() {
            calls.resume(call);
        }
    }
    out.flush().map_err(AuditError::Output)?;
    if found.unreadable > 0 {
        return Err(AuditError::Damaged { lines: found.unreadable });
    }
    let mut reader = JournalReader::new(directory, end.saturating_add(1));
    while args.follow && wait() {
        while let Some(line) = reader.read().map_err(AuditError::Read)? {
            let entry = JournalRecord::read(&line.bytes)
                .map_err(|cause| AuditError::Unreadable { seq: line.seq, cause })?;
            let wanted = filter.admits(&entry);
            for call in calls.push(entry, wanted) {
                print(pretty::call_line(&call, colour).as_bytes(), out)?;
            }
        }
        out.flush().map_err(AuditError::Output)?;
    }
    Ok(())
}

/// The sequence number of the last record that is there.
pub(super) fn end(directory: &Path) -> Result<u64, AuditError> {
    let query = RecentQuery::default();
    let newest = RecentRecords::read(directory, &query)
        .map_err(|source| AuditError::Read(ReadError::Io { path: directory.to_owned(), source }))?;
    Ok(newest.lines.first().and_then(|line| seq_of(line)).unwrap_or_default())
}

/// The sequence number of the first of the last `max` records that `filter` admits.
fn last_records(directory: &Path, filter: &Filter, max: usize) -> Result<u64, AuditError> {
    let mut query = RecentQuery { filter: filter.clone(), ..RecentQuery::default() };
    let (mut found, mut first) = (0_usize, None);
    loop {
        let step = RecentRecords::read(directory, &query).map_err(|source| {
            AuditError::Read(ReadError::Io { path: directory.to_owned(), source })
        })?;
        let room = max.saturating_sub(found);
        let wanted = step.lines.iter().take(room).filter_map(|line| seq_of(line));
        first = wanted.min().or(first);
        found = found.saturating_add(step.lines.len());
        if found >= max || step.older.is_none() {
            // Where nothing matches, what comes later may.
            return first.map_or_else(|| Ok(end(directory)?.saturating_add(1)), Ok);
        }
        query.before = step.older;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Tail {
        #[command(flatten)]
        args: TailArgs,
    }

    #[test]
    fn a_person_gets_a_line_per_call_and_a_pipe_the_bytes() {
        let ansi = RecordFormat::Calls(Colour::Ansi);
        let plain = RecordFormat::Calls(Colour::None);
        let cases = [
            (None, true, None, ansi),
            (None, true, Some("1"), plain),
            (None, true, Some(""), ansi),
            (None, false, None, RecordFormat::Raw),
            (Some("--json"), true, None, RecordFormat::Raw),
            (Some("--pretty"), false, None, plain),
            (Some("--records"), true, None, RecordFormat::Pretty(Colour::Ansi)),
            (Some("--records"), false, None, RecordFormat::Pretty(Colour::None)),
        ];
        for (option, terminal, no_color, expected) in cases {
            let line = ["tail", "--state", "x"].into_iter().chain(option);
            let args = Tail::try_parse_from(line).unwrap().args;
            let shown = args.form().format(terminal, no_color.map(OsStr::new));
            assert_eq!(shown, expected, "{option:?} {terminal} {no_color:?}");
        }
    }

    #[test]
    fn the_last_ten_are_shown_unless_something_else_bounds_them() {
        for (options, expected) in [
            (&[][..], Some(10)),
            (&["-n", "3"], Some(3)),
            (&["--since", "15m"], None),
            (&["--since", "15m", "-n", "3"], Some(3)),
            (&["--from-seq", "7"], None),
            (&["--until", "today"], Some(10)),
        ] {
            let args = Tail::try_parse_from(["tail"].iter().chain(options)).unwrap().args;
            assert_eq!(args.lines(), expected, "{options:?}");
        }
    }
}
