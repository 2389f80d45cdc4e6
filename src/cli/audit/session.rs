//! `bartizan audit session`: one conversation as a story.

use std::ffi::OsStr;
use std::io::Write;

use clap::Args;

use super::AuditError;
use super::select::PlaceArgs;
use super::tail::{CALLS_MAX, RecordFormat, colour};
use bartizan_audit::calls::{Call, collect, find};
use bartizan_audit::filter::{Field, Filter};
use bartizan_audit::journal_directory;
use bartizan_audit::story::Story;

/// Arguments of `audit session`.
#[derive(Debug, Args)]
pub struct SessionArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The conversation: `session` in its records.
    #[arg(value_name = "ID", required_unless_present = "call")]
    session: Option<String>,
    /// The conversation of this call instead: its decision id, or at least the first 8 digits of it.
    #[arg(long, value_name = "ID", conflicts_with = "session")]
    call: Option<String>,
    /// Tell at most the first N calls.
    #[arg(long, value_name = "N", default_value_t = CALLS_MAX, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl SessionArgs {
    /// How it is printed: as text, also into a pipe, unless JSON is asked for.
    pub fn format(&self, terminal: bool, no_color: Option<&OsStr>) -> RecordFormat {
        if self.json {
            return RecordFormat::Raw;
        }
        RecordFormat::Calls(colour(terminal, no_color))
    }
}

/// Prints the story to `out`.
///
/// # Errors
///
/// No record has such an id, the journal cannot be read, the output cannot be written, or the
/// configuration does not tell where the journal is.
pub fn session(
    args: &SessionArgs,
    form: RecordFormat,
    out: &mut dyn Write,
) -> Result<(), AuditError> {
    let state = args.place.state().map_err(|it| AuditError::Configuration(it.into()))?;
    let directory = journal_directory(&state);
    let max = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let calls = |field, value: &str, max| {
        let filter = Filter::default().and(field, value);
        let found = find(&directory, 1, &filter, max)?;
        let more = found.found.more;
        collect(&directory, &found.found, u64::MAX).map(|calls| (calls, more))
    };
    let mut session = args.session.clone();
    let mut alone: Vec<Call> = Vec::new();
    if let Some(id) = &args.call {
        (alone, _) = calls(Field::Call, id, 1).map_err(AuditError::Read)?;
        session = alone.iter().flat_map(|call| &call.records).find_map(|it| it.session.clone());
    }
    let (calls, more) = match &session {
        Some(session) => calls(Field::Session, session, max).map_err(AuditError::Read)?,
        None => (alone, false),
    };
    if calls.is_empty() {
        let id = args.call.as_ref().or(args.session.as_ref()).cloned().unwrap_or_default();
        return Err(AuditError::NotFound { id });
    }
    let story = Story { session: session.as_deref(), calls: &calls, more };
    let text = match form {
        RecordFormat::Calls(colour) | RecordFormat::Pretty(colour) => story.text(colour),
        RecordFormat::Raw => format!("{}\n", story.json()),
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(AuditError::Output)
}
