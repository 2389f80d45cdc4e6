//! `bartizan audit export`: calls and findings in the forms of other programs.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, ValueEnum};

use super::AuditError;
use super::select::{PlaceArgs, SelectArgs};
use bartizan_audit::formats::{ExportError, Format, write};
use bartizan_audit::journal_directory;

/// Access to a file that is written: its owner's, as that of the journal.
const FILE_MODE: u32 = 0o600;

/// Arguments of `audit export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The form.
    #[arg(long, value_name = "ocsf|otlp-json|opa|csv")]
    format: ExportFormat,
    /// Write to this file, which only its owner can read, instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    select: SelectArgs,
}

/// See [`Format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// Events of the Open Cybersecurity Schema Framework 1.8.0, one JSON object a line
    Ocsf,
    /// OpenTelemetry spans as OTLP/JSON, some hundred a line
    OtlpJson,
    /// OPA's decision log events, one JSON object a line, not masked
    Opa,
    /// A line for each call, after a header (RFC 4180)
    Csv,
}

impl From<ExportFormat> for Format {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Ocsf => Self::Ocsf,
            ExportFormat::OtlpJson => Self::OtlpJson,
            ExportFormat::Opa => Self::Opa,
            ExportFormat::Csv => Self::Csv,
        }
    }
}

/// Writes to the file of `args`, or to `out`.
///
/// # Errors
///
/// The journal cannot be read, a line of it is no record (the others are written), the output cannot
/// be written, or the configuration does not tell where the journal is.
pub fn export(args: &ExportArgs, now: SystemTime, out: &mut dyn Write) -> Result<(), AuditError> {
    let state = args.place.state().map_err(|it| AuditError::Configuration(it.into()))?;
    let directory = journal_directory(&state);
    let filter = args.select.filter(now);
    let mut to = output(args.output.as_deref(), out)?;
    let unreadable =
        write(&directory, &filter, args.format.into(), &mut *to).map_err(|error| match error {
            ExportError::Read(error) => AuditError::Read(error),
            ExportError::Write(error) => AuditError::Output(error),
        })?;
    if unreadable > 0 { Err(AuditError::Damaged { lines: unreadable }) } else { Ok(()) }
}

/// What `--output` names, in place of a file that is there; otherwise `out`.
pub(super) fn output<'o>(
    path: Option<&Path>,
    out: &'o mut dyn Write,
) -> Result<Box<dyn Write + 'o>, AuditError> {
    let Some(path) = path else { return Ok(Box::new(out)) };
    let open = || {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
        // A file that was there has kept its mode; devices and pipes are left as they are.
        if file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        }
        Ok(file)
    };
    let failed = |source: io::Error| {
        AuditError::Argument(format!("cannot write `{}`: {source}", path.display()))
    };
    Ok(Box::new(open().map_err(failed)?))
}
