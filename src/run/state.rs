//! The state directory: the journal, the key for the digests in it, and the log of limits.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{StartError, limit_log};
use crate::config::Config;
use ::bartizan_audit;
use bartizan_audit::journal::{Journal, JournalConfig, JournalLock};
use bartizan_audit::recover::JournalError;
use bartizan_gate::evidence::record::{AuditRecord, Event, Finding, Now, ProgramFacts};
use bartizan_gate::evidence::step::AuditSink as _;
use bartizan_gate::session::keyed_digest;
use bartizan_gate::wire::hex::hex;

/// The file in the state directory with the digest key, 32 bytes.
const KEY_FILE: &str = "digest.key";
const KEY_BYTES: usize = 32;
/// State directories of one name at most, and so programs that run at once.
const NUMBERED_MAX: u32 = 64;
/// The bits of a mode that let others than the owner read or write, or enter a directory.
const OTHERS: u32 = 0o077;

/// The state directory, which persists across restarts.
pub(super) struct StateDirectory {
    /// The HMAC key of the digests in records, so that nobody can confirm a guessed value.
    pub(super) digest_key: [u8; KEY_BYTES],
    /// Whether the key was missing and was made.
    made_key: bool,
}

impl StateDirectory {
    /// Opens the directory of `config`, or, where that may be, the first of those beside it with a
    /// number that no other program uses; `config.state` is then that one.
    ///
    /// # Errors
    ///
    /// The directory or the key cannot be created or read, others can read or write them, or other
    /// programs write the journal there.
    pub(super) fn open(config: &mut Config) -> Result<(Self, JournalLock), StartError> {
        let last = if config.numbers_state { NUMBERED_MAX } else { 1 };
        for number in 1..last {
            let directory = numbered(&config.state, number);
            match Self::open_one(&directory) {
                Err(OpenError::Journal(JournalError::Locked { .. })) => {}
                opened => {
                    config.state = directory;
                    return opened.map_err(StartError::from);
                }
            }
        }
        config.state = numbered(&config.state, last);
        Ok(Self::open_one(&config.state)?)
    }

    /// Opens `directory`, accessible to its owner only, takes its journal, and reads or creates its
    /// key. The lock comes first: of two programs that start at once, one makes the key.
    fn open_one(directory: &Path) -> Result<(Self, JournalLock), OpenError> {
        let failed = |what: &str, error: std::io::Error| failed(directory, what, &error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed("cannot be created", error))?;
        let path = directory.join(KEY_FILE);
        let journal = bartizan_audit::journal_directory(directory);
        private(directory, "700")?;
        private(&journal, "700")?;
        private(&path, "600")?;
        private(&directory.join(limit_log::FILE), "600")?;
        let lock = JournalLock::take(&journal).map_err(OpenError::Journal)?;
        let (digest_key, made_key) = read_or_make(directory, &path)?;
        Ok((Self { digest_key, made_key }, lock))
    }

    /// Opens the journal and repairs what a crash left behind.
    ///
    /// # Errors
    ///
    /// As [`Journal::open`].
    pub(super) fn journal(
        &self,
        lock: JournalLock,
        config: &Config,
        boot: &str,
        now: Now,
    ) -> Result<Journal, StartError> {
        let program = self.program(config);
        let directory = bartizan_audit::journal_directory(&config.state);
        let config = &config.audit;
        let settings = JournalConfig {
            segment_bytes_max: config.segment_bytes,
            bytes_max: config.bytes,
            durability: config.durability,
            program: Some(Arc::new(program)),
            ..JournalConfig::new(directory)
        };
        let (journal, recovery) =
            Journal::open_locked(lock, &settings, boot, now).map_err(OpenError::Journal)?;
        if !recovery.clean {
            tracing::warn!(
                settled = recovery.settled,
                torn = recovery.torn.is_some(),
                "the journal was not closed in order and has been repaired"
            );
        }
        // Only a journal that is older than its key has lost one.
        if self.made_key && recovery.first_seq > 1 {
            tracing::warn!("`{KEY_FILE}` was missing and has been made anew");
            let mut record = AuditRecord::new(Event::Recovery, now);
            record.note = Some(
                "`digest.key` was missing and has been made anew: digests of earlier records \
                 cannot be compared with later ones"
                    .into(),
            );
            let kept = journal.keep(&record.with_finding(Finding::AuditSinkFailure));
            kept.map_err(|unkept| StartError::new("journal", unkept.cause))?;
        }
        Ok(journal)
    }

    /// What the first record of a run says of the program.
    fn program(&self, config: &Config) -> ProgramFacts {
        let configuration = config.sha256.map(|sha256| keyed_digest(&self.digest_key, &sha256));
        let host = rustix::system::uname();
        ProgramFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            host: host.nodename().to_string_lossy().into(),
            mode: config.mode.as_str(),
            configuration,
        }
    }
}

/// Why a state directory cannot be used.
enum OpenError {
    Journal(JournalError),
    Other(StartError),
}

impl From<StartError> for OpenError {
    fn from(error: StartError) -> Self {
        Self::Other(error)
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Journal(error) => Self {
                hint: error.hint().map(str::to_owned),
                ..Self::new("journal", error.to_string())
            },
            OpenError::Other(error) => error,
        }
    }
}

/// The directory `number` of those beside `state`: itself, `state.2`, `state.3`. No server's name has
/// a dot, so it is no other server's.
fn numbered(state: &Path, number: u32) -> PathBuf {
    if number == 1 {
        return state.to_owned();
    }
    let mut name = state.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{number}"));
    state.with_file_name(name)
}

/// The key in `file` of the state directory, for another purpose than the digests. It is made if it is
/// missing.
///
/// # Errors
///
/// It cannot be created or read, or others can read or write it.
pub(super) fn key(directory: &Path, file: &str) -> Result<[u8; KEY_BYTES], StartError> {
    let path = directory.join(file);
    private(&path, "600")?;
    Ok(read_or_make(directory, &path)?.0)
}

/// The key at `path`, and whether it was made.
fn read_or_make(directory: &Path, path: &Path) -> Result<([u8; KEY_BYTES], bool), StartError> {
    match read_key(path) {
        Ok(Some(key)) => Ok((key, false)),
        Ok(None) => match make_key(path) {
            Ok(key) => Ok((key, true)),
            Err(error) => Err(failed(directory, "its key cannot be created", &error)),
        },
        Err(error) => Err(failed(directory, "its key cannot be read", &error)),
    }
}

fn failed(directory: &Path, what: &str, error: &std::io::Error) -> StartError {
    StartError::new("state", format!("`{}`: {what}: {error}", directory.display()))
        .hint("name a directory that this user may write with `state:` (or `--state`)")
}

/// Refuses a file or directory at `path` that is another user's, or that others may read or write:
/// they could read arguments of calls, or write what this program takes for its own. What is not
/// there is fine.
fn private(path: &Path, mode: &str) -> Result<(), StartError> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let shown = path.display();
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own && found.uid() != 0 {
        return Err(StartError::new("state", format!("`{shown}` belongs to user {}", found.uid()))
            .hint(format!(
                "run `chown -R {own} '{shown}'`, or name another directory with `state:`"
            )));
    }
    if found.mode() & OTHERS == 0 {
        return Ok(());
    }
    let hint = if found.uid() == own {
        format!("run `chmod {mode} '{shown}'`")
    } else {
        format!(
            "run `chown {own} '{shown}' && chmod {mode} '{shown}'`, or name a directory in it, which is then created"
        )
    };
    Err(StartError::new("state", format!("others can read or write `{shown}`")).hint(hint))
}

/// A random identifier for this run.
pub(super) fn boot() -> Result<String, StartError> {
    let mut bytes = [0_u8; 8];
    random(&mut bytes).map_err(|error| StartError::new("random", error.to_string()))?;
    Ok(hex(&bytes))
}

fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    getrandom::fill(bytes).map_err(std::io::Error::other)
}

fn read_key(path: &Path) -> std::io::Result<Option<[u8; KEY_BYTES]>> {
    match fs::read(path) {
        Ok(bytes) => match <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
            Ok(key) => Ok(Some(key)),
            Err(_) => Err(std::io::Error::new(
                ErrorKind::InvalidData,
                format!(
                    "{} bytes instead of {KEY_BYTES}; move it away, and the next start creates a new one",
                    bytes.len()
                ),
            )),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the key to a new file and renames it, so that a crash leaves a whole key or none.
fn make_key(path: &Path) -> std::io::Result<[u8; KEY_BYTES]> {
    let mut key = [0_u8; KEY_BYTES];
    random(&mut key)?;
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    Ok(key)
}
