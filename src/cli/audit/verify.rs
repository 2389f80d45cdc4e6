//! `bartizan audit verify`, `prove` and `key`: what a journal proves, to whoever has its files.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde_json::json;

use super::AuditError;
use bartizan_audit::chain::ChainFault;
use bartizan_audit::journal_directory;
use bartizan_audit::note::PublicKey;
use bartizan_audit::prove::{PROOF_BYTES_MAX, Proof, prove};
use bartizan_audit::signing::{CHECKPOINT_FILE, PUBLIC_KEY_FILE};
use bartizan_audit::verify::{
    Extent, JournalSummary, SavedCheckpoint, SavedHead, Source, VerifyError, VerifyOptions,
    verify_with,
};

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct VerifyArgs {
    /// The state directory of the configuration; a firewall may be writing it.
    #[arg(long, value_name = "DIR", group = "what")]
    pub state: Option<PathBuf>,
    /// Verify a file with exported records, also compressed with gzip; `-` is standard input.
    #[arg(long, value_name = "FILE", group = "what")]
    pub file: Option<PathBuf>,
    /// Verify the proof of one record, which `audit prove` has made.
    #[arg(long, value_name = "FILE", group = "what", requires = "key")]
    pub proof: Option<PathBuf>,
    /// Start with the oldest record that is present: older ones were archived elsewhere.
    #[arg(long, conflicts_with = "proof")]
    pub remainder: bool,
    /// A hash that was kept elsewhere: `HEX`, `SEQ:HEX`, or a file with what `verify` has printed.
    /// Its record must be there. This and the options below may be repeated.
    #[arg(long, value_name = "HEAD", conflicts_with = "proof")]
    pub head: Vec<String>,
    /// A file with a checkpoint that was kept elsewhere. The records that it covers must be there,
    /// unchanged.
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "proof")]
    pub checkpoint: Vec<PathBuf>,
    /// The public key that must have signed each checkpoint, or a file with it: see `audit key`.
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `audit prove`.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// The record's sequence number.
    #[arg(value_name = "SEQ")]
    pub seq: u64,
    /// The state directory of the configuration.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// A checkpoint that covers the record; by default the newest one in the state directory.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
}

/// Arguments of `audit key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The state directory of the configuration.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
}

/// Verifies a journal or a proof, and prints a summary to `out`.
///
/// # Errors
///
/// It does not verify, a file cannot be read, or the summary cannot be printed.
pub fn check(args: &VerifyArgs, out: &mut dyn Write) -> Result<(), AuditError> {
    let keys = args.key.iter().map(|key| public_key(key)).collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = &args.proof {
        return check_proof(path, &keys, args.json, out);
    }
    let saved = |path: &PathBuf| {
        let from = format!("the checkpoint in `{}`", path.display());
        SavedCheckpoint::read(&text(path)?, &keys, &from)
            .map_err(|error| AuditError::Argument(format!("`{}`: {error}", path.display())))
    };
    let options = VerifyOptions {
        extent: if args.remainder { Extent::Remainder } else { Extent::Whole },
        checkpoints: args.checkpoint.iter().map(saved).collect::<Result<_, _>>()?,
        heads: args.head.iter().map(|head| saved_head(head)).collect::<Result<_, _>>()?,
        keys: keys.clone(),
    };
    let directory = args.state.as_deref().map(journal_directory);
    let source = match (&directory, &args.file) {
        (Some(directory), _) => Source::Directory(directory),
        (None, Some(name)) if name == Path::new("-") => {
            Source::Export { name, read: Box::new(io::stdin()) }
        }
        (None, Some(name)) => {
            let read = File::open(name).map_err(|error| unreadable(name, &error))?;
            Source::Export { name, read: Box::new(read) }
        }
        (None, None) => return Err(AuditError::Argument("nothing to verify".to_owned())),
    };
    let verified = verify_with(source, &options);
    let printed = match &verified {
        Ok(summary) if args.json => writeln!(out, "{}", whole(summary)),
        Ok(summary) => print_summary(summary, out),
        Err(VerifyError::Damaged(damage)) if args.json => {
            let first_bad = json!({
                "seq": damage.seq,
                "file": damage.path.display().to_string(),
                "line": (damage.line > 0).then_some(damage.line),
                "what": damage.fault.to_string(),
            });
            writeln!(out, "{}", json!({ "whole": false, "first_bad": first_bad }))
        }
        Err(_) => Ok(()),
    };
    printed.map_err(AuditError::Output)?;
    verified.map(drop).map_err(|error| match error {
        VerifyError::Damaged(damage)
            if damage.seq == 1 && damage.fault == ChainFault::Missing && !args.remainder =>
        {
            AuditError::BeginningGone(damage)
        }
        other @ (VerifyError::Empty { .. } | VerifyError::Io { .. } | VerifyError::Damaged(_)) => {
            AuditError::Verify(other)
        }
    })
}

/// Makes the proof of one record, and prints it to `out`.
///
/// # Errors
///
/// There is no checkpoint that covers it, or the records are not all there.
pub fn inclusion(args: &ProveArgs, out: &mut dyn Write) -> Result<(), AuditError> {
    let newest = args.state.join(CHECKPOINT_FILE);
    let note = text(args.checkpoint.as_deref().unwrap_or(&newest))?;
    let proof = prove(&journal_directory(&args.state), args.seq, &note);
    let proof = proof.map_err(|error| AuditError::Argument(error.to_string()))?;
    write!(out, "{proof}").map_err(AuditError::Output)
}

/// Prints the public key that verifies the checkpoints.
///
/// # Errors
///
/// No firewall has begun a journal there yet.
pub fn key(args: &KeyArgs, out: &mut dyn Write) -> Result<(), AuditError> {
    let key = text(&args.state.join(PUBLIC_KEY_FILE))?;
    write!(out, "{key}").map_err(AuditError::Output)
}

fn check_proof(
    path: &Path,
    keys: &[PublicKey],
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), AuditError> {
    let failed = |error| AuditError::Argument(format!("`{}`: {error}", path.display()));
    let proof = Proof::read(&text(path)?).map_err(failed)?;
    let checkpoint = proof.check(keys).map_err(failed)?;
    let (seq, record) = (proof.seq(), String::from_utf8_lossy(&proof.line));
    let printed = if as_json {
        let proven = json!({
            "proven": true,
            "seq": seq,
            "origin": checkpoint.origin,
            "covers": checkpoint.size,
            "record": record,
        });
        writeln!(out, "{proven}")
    } else {
        writeln!(
            out,
            "proven: record {seq} is one of the {} that `{}` has signed\n{record}",
            checkpoint.size, checkpoint.origin
        )
    };
    printed.map_err(AuditError::Output)
}

fn whole(summary: &JournalSummary) -> serde_json::Value {
    json!({
        "whole": true,
        "segments": summary.segments,
        "records": summary.records,
        "first_seq": summary.first_seq,
        "last_seq": summary.last_seq,
        "head": summary.head,
        "starts": summary.starts,
        "intents": summary.intents,
        "outcomes": summary.outcomes,
        "denials": summary.denials,
        "recoveries": summary.recoveries,
        "gaps": summary.gaps,
        "open": summary.open,
        "stopped": summary.stopped,
        "being_written": summary.being_written,
        "checkpoints": summary.checkpoints,
        "covered_to": summary.proven,
        "origin": summary.origin,
        "signatures_checked": summary.signatures_checked,
    })
}

fn print_summary(summary: &JournalSummary, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "whole: records {} to {} in {} segment{}",
        summary.first_seq,
        summary.last_seq,
        summary.segments,
        if summary.segments == 1 { "" } else { "s" }
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
    if summary.being_written {
        writeln!(out, "       a further record is being written")?;
    }
    match summary.proven {
        Some(last) if summary.signatures_checked => {
            writeln!(
                out,
                "       {} checkpoints, signed up to record {last}",
                summary.checkpoints
            )?;
        }
        Some(last) => writeln!(
            out,
            "       {} checkpoints, up to record {last}; signatures not checked (no --key)",
            summary.checkpoints
        )?,
        None => writeln!(out, "       no checkpoint")?,
    }
    writeln!(out, "head:  {}", summary.head)
}

fn unreadable(path: &Path, error: &io::Error) -> AuditError {
    AuditError::Argument(format!("`{}` cannot be read: {error}", path.display()))
}

/// The text of a small file.
fn text(path: &Path) -> Result<String, AuditError> {
    let most = u64::try_from(PROOF_BYTES_MAX).unwrap_or(u64::MAX);
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(most).read_to_string(&mut text))
        .map_err(|error| unreadable(path, &error))?;
    Ok(text)
}

/// A public key, or the one in the file that is named.
fn public_key(given: &str) -> Result<PublicKey, AuditError> {
    let parsed = if given.contains('+') { given.parse() } else { text(Path::new(given))?.parse() };
    parsed.map_err(|error| AuditError::Argument(format!("key `{given}`: {error}")))
}

/// `HEX`, `SEQ:HEX`, or what `verify` has printed in the file that is named.
fn saved_head(given: &str) -> Result<SavedHead, AuditError> {
    let (seq, digits) =
        given.split_once(':').map_or((None, given), |(seq, digits)| (Some(seq), digits));
    if let Some(hash) = from_hex(digits)
        && let Ok(seq) = seq.map(str::parse).transpose()
    {
        return Ok(SavedHead { seq, hash, from: "the saved head".to_owned() });
    }
    let printed = text(Path::new(given))?;
    let from = format!("the head in `{given}`");
    let (seq, hash) = printed_head(&printed)
        .ok_or_else(|| AuditError::Argument(format!("`{given}` has no head of a journal")))?;
    Ok(SavedHead { seq, hash, from })
}

/// The head in what `verify` has printed, as JSON or for people.
fn printed_head(printed: &str) -> Option<(Option<u64>, [u8; 32])> {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(printed) {
        let seq = json.get("last_seq").and_then(serde_json::Value::as_u64);
        return Some((seq, from_hex(json.get("head")?.as_str()?)?));
    }
    let after = |word: &str| printed.lines().find_map(|line| line.strip_prefix(word));
    let hash = from_hex(after("head:").or(printed.lines().next())?.trim())?;
    let last = after("whole: records ").and_then(|rest| {
        let (_, rest) = rest.split_once(" to ")?;
        rest.split(' ').next()?.parse().ok()
    });
    Some((last, hash))
}

/// 32 bytes of 64 hexadecimal digits.
fn from_hex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0_u8; 32];
    for (byte, at) in bytes.iter_mut().zip((0_usize..64).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at.saturating_add(2))?, 16).ok()?;
    }
    Some(bytes)
}
