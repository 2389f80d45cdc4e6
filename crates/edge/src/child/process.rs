//! One child process: starts it without a shell, writes lines to it, and stops it in order.
//!
//! A child gets an argument vector, an environment built from an allow-list (threat M9) and a
//! process group of its own. Its standard error goes to our log, bounded and escaped, and never to
//! a client. Each child has three tasks: the writer of its standard input, the reader of its
//! standard error, and the supervisor, which alone waits for the process and signals it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process_group};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::lines::{Line, Lines};
use crate::clock::Clock;
use bartizan_gate::session::{Protected, UpstreamFailure};
use bartizan_gate::wire::frame::FrameLimits;

/// Environment variables that a child inherits by default: what a program needs to find
/// executables, its caches and its language. None of them holds a secret of ours.
pub const ENV_INHERITED: [&str; 11] = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR",
    "TZ",
];

/// Longest program that is compared with its pin, bytes.
pub const PROGRAM_BYTES_MAX: u64 = 1 << 30;

/// Bytes of a program that are read at once for its digest.
const DIGEST_CHUNK_BYTES: usize = 64 << 10;

/// How to start a child.
#[derive(Clone, PartialEq, Eq)]
pub struct ChildSpec {
    /// The program: a path, or a name looked up in the child's `PATH`. Never given to a shell.
    pub command: PathBuf,
    /// SHA-256 of the program's file; another file is not started. `None` accepts any file.
    pub sha256: Option<[u8; 32]>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables set for it; they override inherited ones.
    pub env: Vec<(String, String)>,
    /// Names of our environment variables that it inherits; it sees no others.
    pub env_inherit: Vec<String>,
    /// Its working directory; `None` means ours.
    pub cwd: Option<PathBuf>,
    /// The program that becomes it; `None` starts it directly.
    pub launcher: Option<Launcher>,
}

/// A program that prepares its process and then executes the child in it.
///
/// It gets its own arguments, `--`, the child's program as an absolute path, and the child's
/// arguments, in the child's environment and working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// The program, a path.
    pub program: PathBuf,
    /// Its own arguments; none is a secret.
    pub args: Vec<OsString>,
}

impl ChildSpec {
    /// `command` with `args`, inheriting [`ENV_INHERITED`] and nothing else.
    pub fn new(command: impl Into<PathBuf>, args: Vec<String>) -> Self {
        Self {
            command: command.into(),
            sha256: None,
            args,
            env: Vec::new(),
            env_inherit: ENV_INHERITED.map(str::to_owned).to_vec(),
            cwd: None,
            launcher: None,
        }
    }

    /// The executable file that [`Process::spawn`] would run. `config check` uses it before
    /// anything starts. Fails with [`SpawnError::NoProgram`] if there is no such file.
    pub fn resolve(&self) -> Result<PathBuf, SpawnError> {
        if self.command.components().count() > 1 || self.command.is_absolute() {
            let path = std::path::absolute(&self.command)
                .map_err(|cause| SpawnError::failed(&self.command, &cause))?;
            return is_program(&path)
                .then_some(path)
                .ok_or_else(|| SpawnError::NoProgram { command: self.command.clone() });
        }
        let path = self.variables().into_iter().find(|(name, _)| name == "PATH");
        path.iter()
            .flat_map(|(_, list)| std::env::split_paths(list))
            // An empty or relative entry of `PATH` depends on the current directory, so it is
            // ignored.
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(&self.command))
            .find(|path| is_program(path))
            .ok_or_else(|| SpawnError::NoProgram { command: self.command.clone() })
    }

    /// The file to run, compared with the pin; without a pin, nothing is read. Fails with
    /// [`SpawnError::NoProgram`] as [`Self::resolve`] does, with [`SpawnError::PinViolation`] if the
    /// digests differ, and with [`SpawnError::Failed`] if the file cannot be read or is longer than
    /// [`PROGRAM_BYTES_MAX`].
    pub async fn program(&self) -> Result<Program, SpawnError> {
        let path = self.resolve()?;
        let Some(expected) = self.sha256 else { return Ok(Program(path)) };
        let file = path.clone();
        let found = match spawn_blocking(move || digest(&file)).await {
            Ok(found) => found.map_err(|cause| SpawnError::failed(&path, &cause))?,
            Err(cause) => return Err(SpawnError::failed(&path, &cause.into())),
        };
        if found == expected {
            return Ok(Program(path));
        }
        Err(SpawnError::PinViolation { program: path, found })
    }

    /// The child's whole environment.
    fn variables(&self) -> Vec<(OsString, OsString)> {
        let set = |name: &str| self.env.iter().any(|(own, _)| own == name);
        let inherited =
            self.env_inherit.iter().filter(|name| !set(name)).filter_map(|name| {
                std::env::var_os(name).map(|value| (OsString::from(name), value))
            });
        let own = self.env.iter().map(|(name, value)| (name.into(), value.into()));
        inherited.chain(own).collect()
    }
}

/// Leaves out arguments and values of variables: they may be secrets.
impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ChildSpec")
            .field("command", &self.command)
            .field("sha256", &self.sha256)
            .field("args", &self.args.len())
            .field("env", &names)
            .field("env_inherit", &self.env_inherit)
            .field("cwd", &self.cwd)
            .field("launcher", &self.launcher)
            .finish()
    }
}

/// A file that a child may run; [`ChildSpec::program`] found it, and compared it with the pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(PathBuf);

/// SHA-256 of a regular file of at most [`PROGRAM_BYTES_MAX`] bytes.
fn digest(program: &Path) -> std::io::Result<[u8; 32]> {
    // Opening a FIFO would wait for somebody who writes to it.
    let file = open(program, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut file = file.take(PROGRAM_BYTES_MAX.saturating_add(1));
    let mut hash = Sha256::new();
    let mut buffer = vec![0; DIGEST_CHUNK_BYTES];
    let mut length = 0_u64;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(cause),
        };
        length = length.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        hash.update(buffer.get(..read).unwrap_or_default());
    }
    if length > PROGRAM_BYTES_MAX {
        return Err(std::io::Error::other("the file is too long to compare with `sha256`"));
    }
    Ok(hash.finalize().into())
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Bounds on children and on what passes through them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildLimits {
    /// Limits of frames that a child writes. `document.bytes_max` also bounds its lines; a child
    /// that writes a longer line is killed (threat C6). The only child of a client on a pipe may
    /// write lines of up to [`ENDLESS`](super::lines::ENDLESS) times that length; they are skipped.
    pub frame: FrameLimits,
    /// Messages queued for one child's standard input.
    pub write_queue_max: usize,
    /// How long writing one message may take before the child is killed.
    pub write_max: Duration,
    /// From closing its standard input to SIGTERM.
    pub close_grace: Duration,
    /// From SIGTERM to SIGKILL.
    pub term_grace: Duration,
    /// How long calls in flight may go on after the client disconnected or shutdown began.
    pub drain_max: Duration,
    /// Longest line of its standard error that is logged, bytes; longer ones are counted.
    pub stderr_line_bytes_max: usize,
    /// Lines of its standard error logged in one second; further ones are counted.
    pub stderr_lines_per_second: u32,
    /// Unsolicited lines of its output recorded in one second: answers to no request, and what is
    /// no message. Further ones are counted.
    pub strays_per_second: u32,
    /// How long a child may take to answer the era probe. A child that takes longer, or ends, is
    /// treated as legacy for [`ChildLimits::era_guess_max`].
    pub probe_max: Duration,
    /// How long the era that a probe found is cached.
    pub era_max: Duration,
    /// How long the era is cached when the probe got no answer.
    pub era_guess_max: Duration,
    /// Children of one server at once.
    pub children_max: usize,
    /// Children of one server at once for one principal.
    pub children_per_principal_max: usize,
    /// How long a child without open exchanges is kept.
    pub idle_max: Duration,
    /// Open exchanges with one child.
    pub exchanges_max: usize,
    /// Messages queued for the reader of one exchange.
    pub exchange_queue_max: usize,
    /// How long a slow reader may delay the child (backpressure) before its exchange is closed.
    pub exchange_wait_max: Duration,
    /// Messages of a child kept until the client opens the stream of server messages.
    pub backlog_max: usize,
    /// How long to wait for a whole answer before the response becomes an event stream.
    pub whole_wait: Duration,
    /// The first backoff pause before a child that died is started again; it doubles each time.
    pub restart_pause: Duration,
    /// The longest backoff pause. A call never waits longer than [`ChildLimits::restart_wait_max`].
    pub restart_pause_max: Duration,
    /// How long a call waits for a restart; it fails at once if the pause is longer.
    pub restart_wait_max: Duration,
    /// A child that ran this long counts as healthy: the backoff starts again at the first pause.
    pub healthy_after: Duration,
}

impl Default for ChildLimits {
    fn default() -> Self {
        Self {
            frame: FrameLimits::default(),
            write_queue_max: 64,
            write_max: Duration::from_mins(1),
            close_grace: Duration::from_millis(1500),
            term_grace: Duration::from_millis(1500),
            drain_max: Duration::from_secs(25),
            stderr_line_bytes_max: 4 << 10,
            stderr_lines_per_second: 100,
            strays_per_second: 10,
            probe_max: Duration::from_secs(20),
            era_max: Duration::from_mins(10),
            era_guess_max: Duration::from_mins(1),
            children_max: 64,
            children_per_principal_max: 16,
            idle_max: Duration::from_mins(10),
            exchanges_max: 256,
            exchange_queue_max: 16,
            exchange_wait_max: Duration::from_secs(10),
            backlog_max: 32,
            whole_wait: Duration::from_secs(2),
            restart_pause: Duration::from_millis(200),
            restart_pause_max: Duration::from_secs(30),
            restart_wait_max: Duration::from_secs(2),
            healthy_after: Duration::from_secs(30),
        }
    }
}

/// Why a child could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpawnError {
    /// No executable file of that name.
    NoProgram {
        /// The configured command.
        command: PathBuf,
    },
    /// The program's file is not the pinned one.
    PinViolation {
        /// The file.
        program: PathBuf,
        /// Its SHA-256.
        found: [u8; 32],
    },
    /// The operating system refused.
    Failed {
        /// The program.
        command: PathBuf,
        /// The system's error text.
        cause: String,
    },
}

impl SpawnError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoProgram { command } if command.to_string_lossy().contains(' ') => {
                Some("write the program and each argument as a text of its own")
            }
            Self::NoProgram { .. } => Some("give a full path, or a name that is in `PATH`"),
            Self::PinViolation { .. } => {
                Some("if the change of the program is intended, set `sha256` to the new digest")
            }
            Self::Failed { .. } => None,
        }
    }

    /// What a call ends with whose child could not be started. A child that differs from its pin
    /// is written to the log, because somebody may have replaced it.
    pub(crate) fn failure(&self, server: &Protected) -> UpstreamFailure {
        let what = self.to_string();
        if !matches!(self, Self::PinViolation { .. }) {
            return UpstreamFailure::Unreachable(what);
        }
        let server = &*server.facts.name;
        tracing::error!(server, hint = self.hint(), "the server is not started: {what}");
        UpstreamFailure::PinViolated(what)
    }

    fn failed(command: &Path, cause: &std::io::Error) -> Self {
        Self::Failed { command: command.to_owned(), cause: cause.to_string() }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram { command } => write!(f, "no such program: `{}`", command.display()),
            Self::PinViolation { program, found } => {
                write!(f, "`{}` differs from its `sha256`: found ", program.display())?;
                found.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Failed { command, cause } => {
                write!(f, "cannot start `{}`: {cause}", command.display())
            }
        }
    }
}

impl std::error::Error for SpawnError {}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit status; `None` if the system could not be asked.
    pub status: Option<ExitStatus>,
    /// How far we had asked it to stop by then.
    pub level: StopLevel,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("status unknown")?,
        }
        match self.level {
            StopLevel::Run | StopLevel::Close | StopLevel::Stop => Ok(()),
            StopLevel::Kill(why) => write!(f, " (killed: {why})"),
        }
    }
}

/// How far a child is asked to stop. The level only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopLevel {
    /// Keep running.
    Run,
    /// Close its standard input after the queued messages are written.
    Close,
    /// Stop: close its input, then SIGTERM, then SIGKILL to its process group, each after a grace
    /// period.
    Stop,
    /// SIGKILL now; the text says why.
    Kill(&'static str),
}

/// A running child. Dropping it stops the child as [`StopLevel::Stop`] does.
#[derive(Debug)]
pub struct Process {
    writes: mpsc::Sender<Bytes>,
    level: watch::Sender<StopLevel>,
    exit: watch::Receiver<Option<Exit>>,
}

/// The child accepts no more input; [`Process::exited`] gives the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl Process {
    /// Starts a child of `spec`, which runs `program`, and returns the reader of its standard output.
    /// Its tasks are tracked in `tasks`, so that shutdown waits until the child has ended.
    pub fn spawn(
        spec: &ChildSpec,
        Program(program): Program,
        limits: &ChildLimits,
        clock: Clock,
        tasks: &TaskTracker,
    ) -> Result<(Self, Lines<ChildStdout>), SpawnError> {
        let mut command = spec.launcher.as_ref().map_or_else(
            || Command::new(&program),
            |launcher| {
                let mut command = Command::new(&launcher.program);
                command.args(&launcher.args).arg("--").arg(&program);
                command
            },
        );
        command
            .args(&spec.args)
            .env_clear()
            .envs(spec.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(cwd) = &spec.cwd {
            command.current_dir(cwd);
        }
        let mut child = command.spawn().map_err(|cause| SpawnError::failed(&program, &cause))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(SpawnError::Failed { command: program, cause: "no pipes".into() });
        };
        let pid = child.id().unwrap_or_default();
        tracing::debug!(pid, program = %program.display(), "child started");

        let (writes, queue) = mpsc::channel(limits.write_queue_max);
        let (level, levels) = watch::channel(StopLevel::Run);
        let (ended, exit) = watch::channel(None);
        tasks.spawn(write(stdin, queue, level.clone(), limits.write_max));
        tasks.spawn(log_stderr(stderr, pid, limits.clone(), clock));
        tasks.spawn(supervise(child, levels, ended, limits.clone()));
        let lines = Lines::new(stdout, limits.frame.document.bytes_max);
        Ok((Self { writes, level, exit }, lines))
    }

    /// Queues one line, LF included; waits while the queue is full. Fails if the child's input is
    /// closed.
    pub async fn write(&self, line: Bytes) -> Result<(), Closed> {
        self.writes.send(line).await.map_err(|_gone| Closed)
    }

    /// Queues one line; fails if the queue is full or the input is closed.
    pub fn try_write(&self, line: Bytes) -> Result<(), Closed> {
        self.writes.try_send(line).map_err(|_full| Closed)
    }

    /// Raises the stop level; a lower level than the current one does nothing.
    pub fn raise(&self, level: StopLevel) {
        raise(&self.level, level);
    }

    /// Waits until the child has ended.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        // `supervise` always reports the exit, unless its task was aborted.
        ended.unwrap_or(Exit { status: None, level: *self.level.borrow() })
    }

    /// How the child ended; `None` while it runs.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.raise(StopLevel::Stop);
    }
}

fn raise(level: &watch::Sender<StopLevel>, to: StopLevel) {
    level.send_if_modified(|current| {
        let rises = to > *current;
        if rises {
            *current = to;
        }
        rises
    });
}

/// Writes queued lines until all senders are dropped, or until the level reaches `Close` and the
/// queue is empty.
async fn write(
    mut stdin: ChildStdin,
    mut queue: mpsc::Receiver<Bytes>,
    level: watch::Sender<StopLevel>,
    write_max: Duration,
) {
    let mut levels = level.subscribe();
    let mut open = true;
    loop {
        let line = tokio::select! {
            biased;
            line = queue.recv() => line,
            // After `close`, `recv` gives what is queued and then `None`.
            _ = levels.wait_for(|level| *level >= StopLevel::Close), if open => {
                open = false;
                queue.close();
                continue;
            }
        };
        let Some(line) = line else { break };
        match timeout(write_max, stdin.write_all(&line)).await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => {
                tracing::debug!(%cause, "child closed its input");
                raise(&level, StopLevel::Stop);
                break;
            }
            Err(_elapsed) => {
                raise(&level, StopLevel::Kill("it did not read its input"));
                break;
            }
        }
    }
}

/// Waits for the child, stops it when asked, and reports how it ended.
async fn supervise(
    mut child: Child,
    mut levels: watch::Receiver<StopLevel>,
    ended: watch::Sender<Option<Exit>>,
    limits: ChildLimits,
) {
    let id = child.id();
    let group = id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let status = 'ended: {
        tokio::select! {
            status = child.wait() => break 'ended status,
            _ = levels.wait_for(|level| *level >= StopLevel::Stop) => {}
        }
        for (grace, then) in [(limits.close_grace, Signal::TERM), (limits.term_grace, Signal::KILL)]
        {
            tokio::select! {
                status = child.wait() => break 'ended status,
                () = kill_requested(&mut levels) => {}
                () = tokio::time::sleep(grace) => {}
            }
            signal(group, then);
        }
        child.wait().await
    };
    // A wrapper such as `npx` may leave processes of its own behind, which would keep our pipes
    // open. The group id cannot have been reused this soon, because process ids are assigned in
    // increasing order and wrap around.
    signal(group, Signal::KILL);
    let exit = Exit { status: status.ok(), level: *levels.borrow() };
    tracing::debug!(pid = id.unwrap_or_default(), %exit, "child ended");
    ended.send_replace(Some(exit));
}

/// Waits until the level is `Kill`.
async fn kill_requested(levels: &mut watch::Receiver<StopLevel>) {
    if levels.wait_for(|level| matches!(level, StopLevel::Kill(_))).await.is_err() {
        // No sender is left, so the level cannot rise: the grace periods apply.
        std::future::pending::<()>().await;
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    // An error means that the group is empty.
    if let Some(group) = group
        && let Err(cause) = kill_process_group(group, signal)
    {
        tracing::trace!(%cause, "signal not delivered");
    }
}

/// Writes standard error to the log. Reads always, so the child never blocks; logs a bounded number
/// of lines.
async fn log_stderr(stderr: ChildStderr, pid: u32, limits: ChildLimits, clock: Clock) {
    let mut lines = Lines::new(stderr, limits.stderr_line_bytes_max);
    let mut window = LineRate::new(limits.stderr_lines_per_second);
    while let Ok(Some(line)) = lines.next().await {
        let (log, missed) = window.admit(clock.uptime());
        if missed > 0 {
            tracing::info!(target: "child", pid, missed, "lines of standard error not logged");
        }
        if !log {
            continue;
        }
        match line {
            Line::Whole(line) => tracing::info!(target: "child", pid, line = %escaped(&line)),
            Line::TooLong | Line::Skipped(_) => {
                tracing::info!(target: "child", pid, "line too long to log");
            }
        }
    }
    if window.missed > 0 {
        tracing::info!(
            target: "child", pid, missed = window.missed, "lines of standard error not logged"
        );
    }
}

/// Rate limit by line: a fixed number in each second of uptime.
#[derive(Debug)]
pub(super) struct LineRate {
    per_second: u32,
    second: u64,
    count: u32,
    missed: u64,
}

impl LineRate {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, second: 0, count: 0, missed: 0 }
    }

    /// Whether the line at `uptime` is within the limit, and how many lines before it were over the
    /// limit since the last report.
    pub(super) fn admit(&mut self, uptime: Duration) -> (bool, u64) {
        let mut missed = 0;
        if uptime.as_secs() != self.second {
            self.second = uptime.as_secs();
            self.count = 0;
            missed = std::mem::take(&mut self.missed);
        }
        self.count = self.count.saturating_add(1);
        let log = self.count <= self.per_second;
        if !log {
            self.missed = self.missed.saturating_add(1);
        }
        (log, missed)
    }
}

/// `line` as text that cannot control a terminal or forge a log line (threat M5): control,
/// bidirectional and zero-width characters are escaped, invalid UTF-8 becomes U+FFFD.
fn escaped(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for character in String::from_utf8_lossy(line).chars() {
        if matches!(character, '"' | '\'') {
            text.push(character);
        } else {
            text.extend(character.escape_debug());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path_of_the_child() {
        let mut spec = ChildSpec::new("sh", Vec::new());
        assert!(spec.resolve().unwrap().is_absolute());
        spec.env = vec![("PATH".into(), "/nonexistent:relative:".into())];
        assert!(matches!(spec.resolve(), Err(SpawnError::NoProgram { .. })));
        spec.command = "/etc/passwd".into();
        assert!(matches!(spec.resolve(), Err(SpawnError::NoProgram { .. })), "not executable");
    }

    #[tokio::test]
    async fn another_program_than_the_pinned_one_is_not_started() {
        let mut spec = ChildSpec::new("sh", Vec::new());
        let path = spec.resolve().unwrap();
        spec.sha256 = Some([0; 32]);
        let Err(SpawnError::PinViolation { found, .. }) = spec.program().await else {
            panic!("accepted");
        };
        assert_eq!(found, <[u8; 32]>::from(Sha256::digest(std::fs::read(&path).unwrap())));
        spec.sha256 = Some(found);
        assert_eq!(spec.program().await, Ok(Program(path)));
    }

    #[test]
    fn only_a_regular_file_is_read_for_a_digest() {
        assert!(digest(Path::new("/dev/zero")).is_err());
        assert!(digest(Path::new("/")).is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut spec = ChildSpec::new("server", vec!["--key=hidden-a".into()]);
        spec.env = vec![("API_KEY".into(), "hidden-b".into())];
        let shown = format!("{spec:?}");
        assert!(shown.contains("API_KEY") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn lines_of_standard_error_cannot_steer_a_terminal() {
        let cases: &[(&[u8], &str)] = &[
            (b"plain 'text' \"here\"", "plain 'text' \"here\""),
            (b"\x1b[31mred", "\\u{1b}[31mred"),
            (b"a\rb", "a\\rb"),
            ("a\u{202e}b\u{200b}c".as_bytes(), "a\\u{202e}b\\u{200b}c"),
            ("\u{85}\u{2028}".as_bytes(), "\\u{85}\\u{2028}"),
            (b"\xff", "\u{fffd}"),
        ];
        for (line, expected) in cases {
            assert_eq!(escaped(line), *expected);
        }
    }

    #[test]
    fn a_flood_is_counted_and_not_logged() {
        let mut window = LineRate::new(2);
        let at = |ms| Duration::from_millis(ms);
        let admitted: Vec<_> =
            [0, 1, 2, 3, 1000, 1001].into_iter().map(|ms| window.admit(at(ms))).collect();
        assert_eq!(admitted, [(true, 0), (true, 0), (false, 0), (false, 0), (true, 2), (true, 0)]);
    }

    #[test]
    fn the_stop_level_only_rises() {
        let (level, levels) = watch::channel(StopLevel::Run);
        raise(&level, StopLevel::Kill("a reason"));
        raise(&level, StopLevel::Stop);
        assert_eq!(*levels.borrow(), StopLevel::Kill("a reason"));
    }
}
