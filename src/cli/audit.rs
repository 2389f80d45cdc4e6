//! `bartizan audit`: looks at a journal from outside.
//!
//! Reads the files of a state directory; needs no running program and disturbs none.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use bartizan_audit::entry::Entry;
use bartizan_audit::filter::Filter;
use bartizan_audit::journal_directory;
use bartizan_audit::pretty::{self, Colour};
use bartizan_audit::tail::{ReadError, Reader};
use bartizan_audit::verify::{Extent, Summary, VerifyError, verify};
use bartizan_edge::clock::Clock;

/// How often a followed journal is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// Look at an audit journal: print its records, or prove them whole.
///
/// Reads files and nothing else; a program that writes the journal is not disturbed.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

/// What to do with the journal.
#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Print records
    ///
    /// One line each for a person on a terminal, the journal's own lines elsewhere.
    #[command(after_help = "Examples:\n  \
        bartizan audit tail --state /var/lib/bartizan --follow --decision deny\n  \
        bartizan audit tail --state /var/lib/bartizan --since 15m | jq .decision.reasons")]
    Tail(Box<TailArgs>),
    /// Prove that the journal is whole, or name the first bad record
    ///
    /// Exit code 1 where it is not. Compare the head that is printed with a copy kept elsewhere:
    /// no chain shows by itself that records are missing at its end.
    #[command(after_help = "Example:\n  bartizan audit verify --state /var/lib/bartizan")]
    Verify(VerifyArgs),
}

/// Arguments of `audit tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// State directory, as the configuration names it.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Go on with new records as they come.
    #[arg(short, long)]
    pub follow: bool,
    /// Begin at this record.
    #[arg(long, value_name = "N", conflicts_with = "lines")]
    pub from_seq: Option<u64>,
    /// Begin with the last N records that match.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub lines: Option<u32>,
    /// Records from this time on: RFC 3339 in UTC, or a span back from now, like `15m`.
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Since>,
    /// Of this protected server. This and the options below may be repeated.
    #[arg(long)]
    pub server: Vec<String>,
    /// About this tool.
    #[arg(long)]
    pub tool: Vec<String>,
    /// With this method.
    #[arg(long)]
    pub method: Vec<String>,
    /// Of this event: intent, denial, outcome and so on.
    #[arg(long)]
    pub event: Vec<String>,
    /// Decided so.
    #[arg(long, value_parser = ["permit", "deny"])]
    pub decision: Vec<String>,
    /// In this MAESTRO layer.
    #[arg(long, value_parser = ["L1", "L2", "L3", "L4", "L5", "L6", "L7", "X"])]
    pub layer: Vec<String>,
    /// With this finding.
    #[arg(long)]
    pub finding: Vec<String>,
    /// Of this principal.
    #[arg(long)]
    pub principal: Vec<String>,
    /// Of this call, by its decision id.
    #[arg(long)]
    pub call: Vec<String>,
    /// One line for a person; the default on a terminal.
    #[arg(long, conflicts_with = "json")]
    pub pretty: bool,
    /// The journal's own lines; the default elsewhere.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// State directory, as the configuration names it.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// The oldest segments were moved elsewhere: begin with the oldest that is there.
    #[arg(long)]
    pub remainder: bool,
}

/// A point in time, or a span before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// This time.
    At(SystemTime),
    /// So long ago.
    Ago(Duration),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(Since::At(time));
    }
    let span = humantime::parse_duration(text);
    span.map(Since::Ago).map_err(|_| "neither RFC 3339 in UTC nor a span like `15m`".to_owned())
}

/// Whether records are shown to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One line for a person.
    Pretty(Colour),
    /// The journal's bytes.
    Raw,
}

/// Why a command ended before its end.
#[derive(Debug)]
pub enum AuditError {
    /// The journal cannot be read on.
    Read(ReadError),
    /// A line is no record.
    Unreadable {
        /// Its sequence number.
        seq: u64,
        /// What the reader says.
        cause: String,
    },
    /// The journal is not proven whole.
    Verify(VerifyError),
    /// Nothing more can be printed.
    Output(io::Error),
}

impl std::fmt::Display for AuditError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Unreadable { seq, cause } => write!(f, "record {seq} cannot be read: {cause}"),
            Self::Verify(error) => error.fmt(f),
            Self::Output(error) => write!(f, "cannot print: {error}"),
        }
    }
}

/// Carries out `audit`; 0 for success, 1 for a failure or a journal that is not whole.
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
        AuditCommand::Verify(args) => end(&prove(args, &mut io::stdout().lock())),
    }
}

/// How records are shown: as asked, else by whether a terminal looks on. `no_color` is the
/// variable of that name (no-color.org: any value but the empty one).
fn form(args: &TailArgs, terminal: bool, no_color: Option<&OsStr>) -> Form {
    let plain = no_color.is_some_and(|value| !value.is_empty());
    let colour = if terminal && !plain { Colour::Ansi } else { Colour::None };
    let pretty = args.pretty || (terminal && !args.json);
    if pretty { Form::Pretty(colour) } else { Form::Raw }
}

/// Says on standard error what failed. A reader that went away has seen what it wanted.
fn end(ended: &Result<(), AuditError>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(AuditError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // There is nowhere left to say that this failed.
            writeln!(io::stderr(), "error: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

/// Prints records to `out`. Where `--follow` is asked, `wait` is called each time there is
/// nothing new, and ends the run by `false`.
pub fn tail(
    args: &TailArgs,
    form: Form,
    now: SystemTime,
    mut wait: impl FnMut() -> bool,
    out: &mut dyn Write,
) -> Result<(), AuditError> {
    let filter = filter(args, now);
    let mut reader = Reader::new(&journal_directory(&args.state), args.from_seq.unwrap_or(1));
    let mut last = args.lines.map(|lines| (lines, VecDeque::new()));
    loop {
        while let Some(line) = reader.read().map_err(AuditError::Read)? {
            let unreadable = |cause| AuditError::Unreadable { seq: line.seq, cause };
            if form == Form::Raw && filter.is_empty() {
                keep_or_print(line.bytes, &mut last, out)?;
                continue;
            }
            let entry = Entry::read(&line.bytes).map_err(unreadable)?;
            if !filter.admits(&entry) {
                continue;
            }
            let text = match form {
                Form::Raw => line.bytes,
                Form::Pretty(colour) => pretty::line(&entry, colour).into_bytes(),
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

/// Prints `text`, or keeps it among the last ones while those are wanted alone.
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
        layer: args.layer.clone(),
        finding: args.finding.clone(),
        principal: args.principal.clone(),
        call: args.call.clone(),
        since,
    }
}

/// Proves the journal whole and says on `out` what it holds.
pub fn prove(args: &VerifyArgs, out: &mut dyn Write) -> Result<(), AuditError> {
    let extent = if args.remainder { Extent::Remainder } else { Extent::Whole };
    let summary = verify(&journal_directory(&args.state), extent).map_err(AuditError::Verify)?;
    print_summary(&summary, out).map_err(AuditError::Output)
}

fn print_summary(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "whole: records {} to {} in {} segments",
        summary.first_seq, summary.last_seq, summary.segments
    )?;
    writeln!(
        out,
        "       {} intents, {} outcomes, {} denials, {} starts, {} recoveries, {} gaps",
        summary.intents,
        summary.outcomes,
        summary.denials,
        summary.starts,
        summary.recoveries,
        summary.gaps
    )?;
    let end = if summary.stopped { "ended in order" } else { "goes on, or did not end in order" };
    writeln!(out, "       the last run {end}; {} calls await their outcome", summary.open.len())?;
    writeln!(out, "head:  {}", summary.head)
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
        let ansi = Form::Pretty(Colour::Ansi);
        let plain = Form::Pretty(Colour::None);
        let cases = [
            (None, true, None, ansi),
            (None, true, Some("1"), plain),
            (None, true, Some(""), ansi),
            (None, false, None, Form::Raw),
            (Some("--json"), true, None, Form::Raw),
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
