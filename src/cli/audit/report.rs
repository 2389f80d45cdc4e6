//! `bartizan audit report`: what happened in a time.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};

use super::AuditError;
use super::export::output;
use super::select::{PlaceArgs, SelectArgs, When};
use bartizan_audit::journal_directory;
use bartizan_audit::report::{Report, html, markdown, text};

/// The time that a report is about, if none is named.
const USUAL_TIME: Duration = Duration::from_hours(24);

/// Arguments of `audit report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The form.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: ReportFormat,
    /// Write to this file, which only its owner can read, instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    select: SelectArgs,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// For a terminal
    Text,
    /// Markdown with tables
    Markdown,
    /// One page with charts, which needs no script and no other file
    Html,
}

/// Writes to the file of `args`, or to `out`.
///
/// # Errors
///
/// No record of the journal has a value that is wanted, the journal cannot be read, a line of it is no
/// record (the report is about the others), the output cannot be written, or the configuration does
/// not tell where the journal is.
pub fn report(args: &ReportArgs, now: SystemTime, out: &mut dyn Write) -> Result<(), AuditError> {
    let state = args.place.state().map_err(|it| AuditError::Configuration(it.into()))?;
    let mut select = args.select.clone();
    if select.since.is_none() && select.until.is_none() {
        select.since = Some(When::Ago(USUAL_TIME));
        select.until = Some(When::Ago(Duration::ZERO));
    }
    let filter = select.filter(now);
    args.select.check(&journal_directory(&state))?;
    let report = Report::read(&journal_directory(&state), &filter).map_err(AuditError::Read)?;
    let written = match args.format {
        ReportFormat::Text => text::write(&report),
        ReportFormat::Markdown => markdown::write(&report),
        ReportFormat::Html => html::write(&report),
    };
    let mut to = output(args.output.as_deref(), out)?;
    to.write_all(written.as_bytes()).and_then(|()| to.flush()).map_err(AuditError::Output)?;
    let lines = report.unreadable();
    if lines > 0 { Err(AuditError::Damaged { lines }) } else { Ok(()) }
}
