//! `bartizan audit query`: all calls or records that match, or how many there are.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::SystemTime;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::select::{PlaceArgs, SelectArgs};
use super::tail::{CALLS_MAX, FormArgs, RecordFormat};
use super::{AuditError, print};
use bartizan_audit::beginning::Beginning;
use bartizan_audit::calls::{Found, collect, find};
use bartizan_audit::entry::JournalRecord;
use bartizan_audit::filter::{Field, Filter, Matcher};
use bartizan_audit::pretty;
use bartizan_audit::scan::Scan;
use bartizan_audit::tally::tally;
use bartizan_audit::{inert, journal_directory};

/// Arguments of `audit query`.
#[derive(Debug, Args)]
pub struct QueryArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Print at most the first N calls, or with `--records` or `--json` records. Default: all records,
    /// or 100,000 calls.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Print how many calls match.
    #[arg(long, conflicts_with_all = ["limit", "records"])]
    count: bool,
    /// Print how many calls match, by their values of this field, the most frequent first.
    #[arg(
        long,
        value_name = "FIELD",
        conflicts_with_all = ["limit", "records", "count"],
        value_parser = PossibleValuesParser::new(Field::ALL.map(Field::name)),
    )]
    group_by: Option<String>,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    form: FormArgs,
}

impl QueryArgs {
    /// How it is printed; see [`FormArgs::format`]. Numbers are JSON only where that is asked for.
    pub fn format(&self, terminal: bool, no_color: Option<&OsStr>) -> RecordFormat {
        let counts = self.count || self.group_by.is_some();
        self.form.format(terminal || counts, no_color)
    }
}

/// Prints to `out`, oldest first.
///
/// # Errors
///
/// The journal cannot be read, a line of it is no record, the output cannot be written, or the
/// configuration does not tell where the journal is.
pub fn query(
    args: &QueryArgs,
    form: RecordFormat,
    now: SystemTime,
    out: &mut dyn Write,
) -> Result<(), AuditError> {
    let state = args.place.state().map_err(|it| AuditError::Configuration(it.into()))?;
    let directory = journal_directory(&state);
    let filter = args.select.filter(now);
    if filter.since.is_some()
        && let Some(beginning) = Beginning::read(&directory).map_err(AuditError::Read)?
        && beginning.is_after(filter.since.as_deref())
    {
        // If standard error cannot be written, the note is lost.
        writeln!(io::stderr(), "note: {beginning}").unwrap_or_default();
    }
    let max = args.limit.and_then(|limit| usize::try_from(limit).ok());
    let unreadable = if args.count || args.group_by.is_some() {
        let field = args.group_by.as_deref().and_then(Field::named);
        let Found { found, unreadable } =
            tally(&directory, &filter, field).map_err(AuditError::Read)?;
        match field {
            Some(field) => print_groups(field, &found, form, out)?,
            None => print_count(found.first().map_or(0, |(_, count)| *count), form, out)?,
        }
        unreadable
    } else if let RecordFormat::Calls(colour) = form {
        let max = max.or_else(|| usize::try_from(CALLS_MAX).ok()).unwrap_or(usize::MAX);
        let Found { found, unreadable } =
            find(&directory, 1, &filter, max).map_err(AuditError::Read)?;
        for call in collect(&directory, &found, u64::MAX).map_err(AuditError::Read)? {
            print(pretty::call_line(&call, colour).as_bytes(), out)?;
        }
        if found.more {
            let more = format!("… there are more than {max}; `--limit` shows more of them");
            print(more.as_bytes(), out)?;
        }
        unreadable
    } else {
        let show = |line: &[u8], entry: &JournalRecord| match form {
            RecordFormat::Pretty(colour) => pretty::line(entry, colour).into_bytes(),
            RecordFormat::Calls(_) | RecordFormat::Raw => line.to_vec(),
        };
        let scan = Scan { directory: &directory, from_seq: 1, filter: &filter };
        print_records(scan, &filter, max.unwrap_or(usize::MAX), show, out)?
    };
    out.flush().map_err(AuditError::Output)?;
    if unreadable > 0 { Err(AuditError::Damaged { lines: unreadable }) } else { Ok(()) }
}

/// Prints the first `max` records that `filter` admits. Gives the number of lines that are no records.
fn print_records(
    scan: Scan<'_>,
    filter: &Filter,
    max: usize,
    show: impl Fn(&[u8], &JournalRecord) -> Vec<u8> + Sync,
    out: &mut dyn Write,
) -> Result<u64, AuditError> {
    let matcher = Matcher::new(filter);
    let (mut printed, mut unreadable, mut failed) = (0_usize, 0_u64, Ok(()));
    let read = scan.run(
        |found: &mut Found<Vec<Vec<u8>>>, line| match matcher.read(line) {
            Ok(Some(entry)) => found.found.push(show(line, &entry)),
            Ok(None) => {}
            Err(_) => found.unreadable = found.unreadable.saturating_add(1),
        },
        |found| {
            unreadable = unreadable.saturating_add(found.unreadable);
            let room = max.saturating_sub(printed);
            printed = printed.saturating_add(found.found.len());
            failed = found.found.iter().take(room).try_for_each(|text| print(text, out));
            let done = failed.is_err() || printed >= max;
            if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    failed?;
    read.map_err(AuditError::Read)?;
    Ok(unreadable)
}

fn print_count(count: u64, form: RecordFormat, out: &mut dyn Write) -> Result<(), AuditError> {
    let text = match form {
        RecordFormat::Raw => format!("{{\"calls\":{count}}}"),
        RecordFormat::Calls(_) | RecordFormat::Pretty(_) => count.to_string(),
    };
    print(text.as_bytes(), out)
}

fn print_groups(
    field: Field,
    groups: &[(String, u64)],
    form: RecordFormat,
    out: &mut dyn Write,
) -> Result<(), AuditError> {
    for (value, count) in groups {
        if form == RecordFormat::Raw {
            let mut text = format!("{{\"{}\":", field.name()).into_bytes();
            inert::write_json(value, &mut text)
                .map_err(|error| AuditError::Output(error.into()))?;
            text.extend(format!(",\"calls\":{count}}}").as_bytes());
            print(&text, out)?;
        } else {
            let mut text = format!("{count:>10}  ");
            inert::push(&mut text, value, 200);
            print(text.as_bytes(), out)?;
        }
    }
    Ok(())
}
