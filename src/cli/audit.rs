//! `bartizan audit`: prints, searches and verifies a journal.
//!
//! Reads the files of a state directory. A running firewall is neither needed nor disturbed.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Exit, Failure};
use bartizan_audit::inert;
use bartizan_audit::recover::Damage;
use bartizan_audit::tail::ReadError;
use bartizan_audit::verify::VerifyError;
use bartizan_edge::clock::Clock;

mod select;
mod tail;
mod query;
mod session;
mod export;
mod report;
mod verify;

pub use export::{ExportArgs, export};
pub use query::{QueryArgs, query};
pub use report::{ReportArgs, report};
pub use select::{PlaceArgs, SelectArgs, When};
pub use session::{SessionArgs, session};
pub use tail::{FormArgs, RecordFormat, TailArgs, tail};
pub use verify::{KeyArgs, ProveArgs, VerifyArgs, check, inclusion, key};

/// How often `--follow` checks for new records.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// Print the calls and records of an audit journal, search it, or verify it
///
/// Only reads files, so a running firewall is not disturbed.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

/// The subcommands of `bartizan audit`.
#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Print the newest calls, and those that follow
    ///
    /// On a terminal each call is one line: when, what was decided, how it ended and after how long,
    /// effect, environment, who, server and tool, and the first digits of its id. `(deny)` was let
    /// through in observe mode. Elsewhere the records are printed as the journal has them, one JSON
    /// object a line.
    #[command(after_help = "Examples:\n  \
        bartizan audit tail --follow --decision deny\n  \
        bartizan audit tail --environment production --since yesterday --until today\n  \
        bartizan audit tail --state /var/lib/bartizan --since 15m | jq .decision.reasons")]
    Tail(Box<TailArgs>),
    /// Print all calls that match, oldest first, or count them
    ///
    /// Reads the whole journal, several files at once; files of another time are left out. A call
    /// matches if one of its records does. It counts once for each value that it has, and as often
    /// as a `repeated` record says.
    #[command(after_help = "Examples:\n  \
        bartizan audit query --environment production --since yesterday --until today \\\n    \
        --group-by principal\n  \
        bartizan audit query --decision deny --rule wrong-environment\n  \
        bartizan audit query --principal agent-a --since 7d --json > agent-a.ndjson\n  \
        bartizan audit query --decision deny --since 24h --count")]
    Query(Box<QueryArgs>),
    /// Tell one conversation: who spoke to whom, and each call with what was decided and why
    #[command(after_help = "Examples:\n  \
        bartizan audit session 5b0c1f6e9d3a4c72\n  \
        bartizan audit session --call b33453e4 --json")]
    Session(SessionArgs),
    /// Write calls and findings in a form that another program reads
    ///
    /// A call is written with all its records if one of them matches, in the order in which calls
    /// ended; at last those that are open. Needs little memory however large the journal is.
    #[command(after_help = "Examples:\n  \
        bartizan audit export --format ocsf --since yesterday --until today -o day.ocsf.ndjson\n  \
        bartizan audit export --format csv --decision deny --since 7d > denied.csv\n  \
        bartizan audit export --format otlp-json --call b33453e4")]
    Export(Box<ExportArgs>),
    /// Report what happened in a time: findings by MAESTRO layer, denials, approvals, limits, changes
    ///
    /// Without times, it is about the last 24 hours. Names are cut, and of each table the most
    /// frequent rows are shown, so it needs little memory.
    #[command(after_help = "Examples:\n  \
        bartizan audit report --since yesterday --until today\n  \
        bartizan audit report --since 7d --format html -o week.html\n  \
        bartizan audit report --server flags --format markdown")]
    Report(Box<ReportArgs>),
    /// Verify the journal, or name the first record that is wrong
    ///
    /// Exit code 1 if the journal does not verify. Neither hash chain nor checkpoints show that
    /// records were removed from the end: keep a head or a checkpoint elsewhere, and give it with
    /// `--head` or `--checkpoint`.
    #[command(after_help = "Examples:\n  \
        bartizan audit verify --state /var/lib/bartizan --key checkpoint.pub\n  \
        bartizan audit verify --file journal.ndjson.gz --key checkpoint.pub --checkpoint saved")]
    Verify(Box<VerifyArgs>),
    /// Prove that one record is in the journal, to somebody who may not see the others
    ///
    /// Prints the record, the hashes beside its way to the root of the tree, and the signed
    /// checkpoint (C2SP tlog-proof). `audit verify --proof` checks it.
    #[command(after_help = "Example:\n  \
        bartizan audit prove 4711 --state /var/lib/bartizan > 4711.tlog-proof")]
    Prove(ProveArgs),
    /// Print the public key that verifies the checkpoints
    ///
    /// Keep it where nobody who can write the state directory can change it.
    #[command(after_help = "Example:\n  \
        bartizan audit key --state /var/lib/bartizan > checkpoint.pub")]
    Key(KeyArgs),
}

/// Why a command failed.
#[derive(Debug)]
pub enum AuditError {
    /// The journal cannot be read.
    Read(ReadError),
    /// A line is not a record.
    Unreadable {
        /// Its sequence number.
        seq: u64,
        /// The JSON parser's error.
        cause: String,
    },
    /// The journal does not verify.
    Verify(VerifyError),
    /// The journal does not verify, because its first records are gone.
    BeginningGone(Damage),
    /// What was given cannot be used, or proves nothing.
    Argument(String),
    /// So many lines are no records; the others were printed.
    Damaged {
        /// Their number.
        lines: u64,
    },
    /// No record has this id.
    NotFound {
        /// The id of a call or a conversation.
        id: String,
    },
    /// The configuration does not tell where the journal is.
    Configuration(Box<Failure>),
    /// The output cannot be written.
    Output(io::Error),
}

impl std::fmt::Display for AuditError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Unreadable { seq, cause } => write!(f, "record {seq} cannot be read: {cause}"),
            Self::Verify(error) => error.fmt(f),
            Self::BeginningGone(damage) => write!(
                f,
                "{damage}; if `audit.retention` or somebody has removed the oldest files, verify the \
                 rest with `--remainder`"
            ),
            Self::Argument(what) => f.write_str(what),
            Self::Damaged { lines } => write!(
                f,
                "{lines} lines of the journal are no records; `bartizan audit verify` names the first"
            ),
            Self::NotFound { id } => {
                let mut shown = String::new();
                inert::push(&mut shown, id, 200);
                write!(f, "no record in the journal has the id `{shown}`")
            }
            Self::Configuration(failure) => failure.fmt(f),
            Self::Output(error) => write!(f, "cannot print: {error}"),
        }
    }
}

/// Runs `bartizan audit`. Exit code 0, or 1 after a failure or for a journal that does not verify.
pub fn run(args: &AuditArgs) -> ExitCode {
    let now = Clock::start().now().wall;
    let out = io::stdout();
    let terminal = out.is_terminal();
    let no_color = std::env::var_os("NO_COLOR");
    let no_color = no_color.as_deref();
    match &args.command {
        AuditCommand::Tail(args) => {
            let form = args.form().format(terminal, no_color);
            let wait = || {
                std::thread::sleep(FOLLOW_EVERY);
                true
            };
            end(&tail(args, form, now, wait, &mut BufWriter::new(out.lock())))
        }
        AuditCommand::Query(args) => {
            // Numbers are for people, unless JSON is asked for.
            let form = args.format(terminal, no_color);
            end(&query(args, form, now, &mut BufWriter::new(out.lock())))
        }
        AuditCommand::Session(args) => {
            let form = args.format(terminal, no_color);
            end(&session(args, form, &mut BufWriter::new(out.lock())))
        }
        AuditCommand::Export(args) => end(&export(args, now, &mut io::stdout().lock())),
        AuditCommand::Report(args) => end(&report(args, now, &mut io::stdout().lock())),
        AuditCommand::Verify(args) => end(&check(args, &mut io::stdout().lock())),
        AuditCommand::Prove(args) => end(&inclusion(args, &mut io::stdout().lock())),
        AuditCommand::Key(args) => end(&key(args, &mut io::stdout().lock())),
    }
}

/// Prints a failure to standard error. A closed pipe (`| head`) is not a failure.
fn end(ended: &Result<(), AuditError>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(AuditError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(AuditError::Configuration(failure)) => {
            writeln!(io::stderr(), "{failure}").unwrap_or_default();
            Exit::Usage.into()
        }
        Err(error) => {
            // If standard error cannot be written either, the message is lost.
            writeln!(io::stderr(), "error: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

fn print(text: &[u8], out: &mut dyn Write) -> Result<(), AuditError> {
    out.write_all(text).and_then(|()| out.write_all(b"\n")).map_err(AuditError::Output)
}
