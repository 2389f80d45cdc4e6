//! Converts a journal for other programs: `bartizan audit export`.
//!
//! [`write()`] reads the journal once, in order, joins the records of each call, and hands the calls
//! that are wanted to a converter: [`ocsf`] for security data lakes, [`traces`] for collectors of
//! OpenTelemetry, [`decisions`](super::decisions) for what reads OPA's decision logs, and [`csv`] for
//! spreadsheets. What it writes goes out at once, and the calls that are open at a time are bounded,
//! so memory is bounded however large the journal is. Nothing here sends anything.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

use super::calls::{Call, Calls};
use super::decisions::EventTemplate;
use super::entry::JournalRecord;
use super::filter::Filter;
use super::inert;
use super::scan::Scan;
use super::tail::ReadError;

pub mod csv;
pub mod ocsf;
pub mod traces;

/// The rule that decides, as decision logs name it: that of a policy whose `entrypoint` is not
/// configured.
const DECISION_PATH: &str = "mcp/decision";

/// A form that another program reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Events of the Open Cybersecurity Schema Framework, one JSON object a line.
    Ocsf,
    /// OTLP/JSON: one export request with some hundred spans a line.
    OtlpJson,
    /// OPA's decision log events, one JSON object a line.
    Opa,
    /// Comma-separated values (RFC 4180), one call a line after a header.
    Csv,
}

/// Why an export stopped.
#[derive(Debug)]
pub enum ExportError {
    /// The journal cannot be read.
    Read(ReadError),
    /// The output cannot be written.
    Write(io::Error),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Write(error) => write!(f, "cannot write: {error}"),
        }
    }
}

impl std::error::Error for ExportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => error.source(),
            Self::Write(error) => Some(error),
        }
    }
}

/// Makes text of calls that come one after the other.
trait Convert {
    /// Appends what comes before the first call.
    fn begin(&mut self, _out: &mut Vec<u8>) {}

    /// Sees each record as it is read, before its call is handed over.
    fn see(&mut self, _entry: &JournalRecord) {}

    /// Appends a call.
    fn call(&mut self, call: Call, out: &mut Vec<u8>);

    /// Appends what comes after the last call.
    fn end(&mut self, _out: &mut Vec<u8>) {}
}

/// Writes the calls with a record that `filter` admits to `out`, in the order in which they ended; at
/// last those without an end. Gives the number of lines that are no records: the journal is damaged
/// there.
///
/// # Errors
///
/// The journal cannot be read ([`Scan::run`]), or `out` cannot be written.
pub fn write(
    directory: &Path,
    filter: &Filter,
    format: Format,
    out: &mut dyn Write,
) -> Result<u64, ExportError> {
    let mut to: Box<dyn Convert> = match format {
        Format::Ocsf => Box::new(ocsf::Events),
        Format::OtlpJson => Box::new(traces::Traces::default()),
        Format::Opa => Box::new(Decisions),
        Format::Csv => Box::new(csv::Table),
    };
    let mut text = Vec::new();
    to.begin(&mut text);
    let mut calls = Calls::whole();
    let mut written = Ok(());
    let unreadable = each(directory, filter, format == Format::Opa, |entry, wanted| {
        to.see(&entry);
        for call in calls.push(entry, wanted) {
            to.call(call, &mut text);
        }
        if text.len() >= WRITE_BYTES {
            written = out.write_all(&text);
            text.clear();
        }
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let unreadable = unreadable.map_err(ExportError::Read)?;
    written.map_err(ExportError::Write)?;
    for call in calls.finish() {
        to.call(call, &mut text);
    }
    to.end(&mut text);
    out.write_all(&text).and_then(|()| out.flush()).map_err(ExportError::Write)?;
    Ok(unreadable)
}

/// Bytes after which text is written.
const WRITE_BYTES: usize = 256 << 10;

/// Records of a piece of the journal, and how many of its lines are none.
#[derive(Default)]
struct Records {
    entries: Vec<(JournalRecord, bool)>,
    unreadable: u64,
}

/// Hands each record to `take`, with whether `filter` admits it, until `take` says that it is enough.
/// The policy input is left out unless `inputs`. Gives the number of lines that are no records.
pub(super) fn each(
    directory: &Path,
    filter: &Filter,
    inputs: bool,
    mut take: impl FnMut(JournalRecord, bool) -> ControlFlow<()>,
) -> Result<u64, ReadError> {
    let mut unreadable = 0_u64;
    Scan { directory, from_seq: 1, filter }.run(
        |records: &mut Records, line| match JournalRecord::read(line) {
            Ok(mut entry) => {
                if !inputs {
                    entry.input = None;
                }
                let wanted = filter.admits(&entry);
                records.entries.push((entry, wanted));
            }
            Err(_) => records.unreadable = records.unreadable.saturating_add(1),
        },
        |records| {
            unreadable = unreadable.saturating_add(records.unreadable);
            records.entries.into_iter().try_for_each(|(entry, wanted)| take(entry, wanted))
        },
    )?;
    Ok(unreadable)
}

/// Events of OPA's decision logs. The policy's mask is not applied: what is written is the journal's.
struct Decisions;

impl Convert for Decisions {
    fn call(&mut self, call: Call, out: &mut Vec<u8>) {
        for entry in call.records {
            let mut labels = BTreeMap::new();
            labels.insert("id".to_owned(), entry.boot.clone());
            labels.insert("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
            let template = EventTemplate { labels, path: DECISION_PATH.to_owned() };
            if let Some(event) = template.event(entry) {
                push_json(&event, out);
            }
        }
    }
}

/// Appends `value` as one line.
fn push_json(value: &serde_json::Value, out: &mut Vec<u8>) {
    // Values that are made here can be written.
    inert::write_json(value, out).unwrap_or_default();
    out.push(b'\n');
}
