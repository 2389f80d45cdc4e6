//! `bartizan audit`: prints and verifies a journal.
//!
//! Reads the files of a state directory. A running firewall is neither needed nor disturbed.

mod verify;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use bartizan_audit::entry::JournalRecord;
use bartizan_audit::filter::Filter;
use bartizan_audit::journal_directory;
use bartizan_audit::pretty::{self, Colour};
use bartizan_audit::tail::{JournalReader, ReadError};
use bartizan_audit::verify::VerifyError;
use bartizan_edge::clock::Clock;

pub use verify::{KeyArgs, ProveArgs, VerifyArgs, check, inclusion, key};

/// How often `--follow` checks for new records.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// Print the records of an audit journal, or verify it
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
    /// Print records
    ///
    /// On a terminal each record is one readable line; elsewhere the journal's JSON lines are
    /// printed.
    #[command(after_help = "Examples:\n  \
        bartizan audit tail --state /var/lib/bartizan --follow --decision deny\n  \
        bartizan audit tail --state /var/lib/bartizan --since 15m | jq .decision.reasons")]
    Tail(Box<TailArgs>),
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

/// Arguments of `audit tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The state directory of the configuration.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Keep printing new records as they are written.
    #[arg(short, long)]
    pub follow: bool,
    /// Start with this sequence number.
    #[arg(long, value_name = "N", conflicts_with = "lines")]
    pub from_seq: Option<u64>,
    /// Start with the last N records that match.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub lines: Option<u32>,
    /// Only records since this time: RFC 3339 in UTC, or a duration before now, such as `15m`.
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Since>,
    /// Only records of this protected server. This and the options below may be repeated.
    #[arg(long)]
    pub server: Vec<String>,
    /// Only records about this tool.
    #[arg(long)]
    pub tool: Vec<String>,
    /// Only records with this MCP method.
    #[arg(long)]
    pub method: Vec<String>,
    /// Only records with this event: intent, denial, outcome and so on.
    #[arg(long)]
    pub event: Vec<String>,
    /// Only records with this decision.
    #[arg(long, value_parser = ["permit", "deny"])]
    pub decision: Vec<String>,
    /// Only records of operations with this effect: read, write, destructive and so on.
    #[arg(long)]
    pub effect: Vec<String>,
    /// Only records with this reason: the code of a rule, or one of the firewall's own.
    #[arg(long)]
    pub rule: Vec<String>,
    /// Only records in this MAESTRO layer.
    #[arg(long, value_parser = ["L1", "L2", "L3", "L4", "L5", "L6", "L7", "X"])]
    pub layer: Vec<String>,
    /// Only records with this finding.
    #[arg(long)]
    pub finding: Vec<String>,
    /// Only records of this principal.
    #[arg(long)]
    pub principal: Vec<String>,
    /// Only records of this call, by its decision id.
    #[arg(long)]
    pub call: Vec<String>,
    /// Print one readable line per record; the default on a terminal.
    #[arg(long, conflicts_with = "json")]
    pub pretty: bool,
    /// Print the journal's JSON lines; the default if the output is not a terminal.
    #[arg(long)]
    pub json: bool,
}

/// The value of `--since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// A point in time.
    At(SystemTime),
    /// A duration before now.
    Ago(Duration),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(Since::At(time));
    }
    let span = humantime::parse_duration(text);
    span.map(Since::Ago).map_err(|_| "neither RFC 3339 in UTC nor a span like `15m`".to_owned())
}

/// How records are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFormat {
    /// One readable line per record.
    Pretty(Colour),
    /// The journal's lines, unchanged.
    Raw,
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
    /// What was given cannot be used, or proves nothing.
    Argument(String),
    /// The output cannot be written.
    Output(io::Error),
}

impl std::fmt::Display for AuditError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Unreadable { seq, cause } => write!(f, "record {seq} cannot be read: {cause}"),
            Self::Verify(error) => error.fmt(f),
            Self::Argument(what) => f.write_str(what),
            Self::Output(error) => write!(f, "cannot print: {error}"),
        }
    }
}

/// Runs `bartizan audit`. Exit code 0, or 1 after a failure or for a journal that does not verify.
pub fn run(args: &AuditArgs) -> ExitCode {
    match &args.command {
        AuditCommand::Tail(args) => {
            let now = Clock::start().now().wall;
            let out = io::stdout();
            let no_color = std::env::var_os("NO_COLOR");
            let form = form(args, out.is_terminal(), no_color.as_deref());
            let wait = || {
                std::thread::sleep(FOLLOW_EVERY);
                true
            };
            end(&tail(args, form, now, wait, &mut BufWriter::new(out.lock())))
        }
        AuditCommand::Verify(args) => end(&check(args, &mut io::stdout().lock())),
        AuditCommand::Prove(args) => end(&inclusion(args, &mut io::stdout().lock())),
        AuditCommand::Key(args) => end(&key(args, &mut io::stdout().lock())),
    }
}

/// Chooses how records are printed: by the options, otherwise by whether the output is a terminal.
/// `no_color` is the value of `NO_COLOR` (no-color.org: any value except the empty one turns
/// colours off).
fn form(args: &TailArgs, terminal: bool, no_color: Option<&OsStr>) -> RecordFormat {
    let plain = no_color.is_some_and(|value| !value.is_empty());
    let colour = if terminal && !plain { Colour::Ansi } else { Colour::None };
    let pretty = args.pretty || (terminal && !args.json);
    if pretty { RecordFormat::Pretty(colour) } else { RecordFormat::Raw }
}

/// Prints a failure to standard error. A closed pipe (`| head`) is not a failure.
fn end(ended: &Result<(), AuditError>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(AuditError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // If standard error cannot be written either, the message is lost.
            writeln!(io::stderr(), "error: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

/// Prints records to `out`. With `--follow`, `wait` is called at the end of the journal; the
/// function returns when `wait` returns `false`.
///
/// # Errors
///
/// A record cannot be read or printed.
pub fn tail(
    args: &TailArgs,
    form: RecordFormat,
    now: SystemTime,
    mut wait: impl FnMut() -> bool,
    out: &mut dyn Write,
) -> Result<(), AuditError> {
    let filter = filter(args, now);
    let mut reader =
        JournalReader::new(&journal_directory(&args.state), args.from_seq.unwrap_or(1));
    let mut last = args.lines.map(|lines| (lines, VecDeque::new()));
    loop {
        while let Some(line) = reader.read().map_err(AuditError::Read)? {
            let unreadable = |cause| AuditError::Unreadable { seq: line.seq, cause };
            if form == RecordFormat::Raw && filter.is_empty() {
                keep_or_print(line.bytes, &mut last, out)?;
                continue;
            }
            let entry = JournalRecord::read(&line.bytes).map_err(unreadable)?;
            if !filter.admits(&entry) {
                continue;
            }
            let text = match form {
                RecordFormat::Raw => line.bytes,
                RecordFormat::Pretty(colour) => pretty::line(&entry, colour).into_bytes(),
            };
            keep_or_print(text, &mut last, out)?;
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

/// Prints `text`, or with `--lines` stores it among the last lines.
fn keep_or_print(
    text: Vec<u8>,
    last: &mut Option<(u32, VecDeque<Vec<u8>>)>,
    out: &mut dyn Write,
) -> Result<(), AuditError> {
    let Some((lines, texts)) = last else { return print(&text, out) };
    texts.push_back(text);
    if texts.len() > usize::try_from(*lines).unwrap_or(usize::MAX) {
        texts.pop_front();
    }
    Ok(())
}

fn print(text: &[u8], out: &mut dyn Write) -> Result<(), AuditError> {
    out.write_all(text).and_then(|()| out.write_all(b"\n")).map_err(AuditError::Output)
}

fn filter(args: &TailArgs, now: SystemTime) -> Filter {
    let since = args.since.map(|since| {
        let time = match since {
            Since::At(time) => time,
            Since::Ago(span) => now.checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH),
        };
        humantime::format_rfc3339_micros(time.max(SystemTime::UNIX_EPOCH)).to_string()
    });
    Filter {
        server: args.server.clone(),
        tool: args.tool.clone(),
        method: args.method.clone(),
        event: args.event.clone(),
        decision: args.decision.clone(),
        effect: args.effect.clone(),
        rule: args.rule.clone(),
        layer: args.layer.clone(),
        finding: args.finding.clone(),
        principal: args.principal.clone(),
        call: args.call.clone(),
        since,
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
    fn a_person_gets_pretty_lines_and_a_pipe_the_bytes() {
        let ansi = RecordFormat::Pretty(Colour::Ansi);
        let plain = RecordFormat::Pretty(Colour::None);
        let cases = [
            (None, true, None, ansi),
            (None, true, Some("1"), plain),
            (None, true, Some(""), ansi),
            (None, false, None, RecordFormat::Raw),
            (Some("--json"), true, None, RecordFormat::Raw),
            (Some("--pretty"), false, None, plain),
        ];
        for (option, terminal, no_color, expected) in cases {
            let line = ["tail", "--state", "x"].into_iter().chain(option);
            let args = Tail::try_parse_from(line).unwrap().args;
            let shown = form(&args, terminal, no_color.map(OsStr::new));
            assert_eq!(shown, expected, "{option:?} {terminal} {no_color:?}");
        }
    }
}
