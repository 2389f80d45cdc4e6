//! One child process: started without a shell, fed lines, and ended in order.
//!
//! A child gets an argument vector, an environment built from an allow-list (M9) and a process
//! group of its own. Its standard error is drained into our log, bounded and escaped, and never
//! reaches a client. Three tasks live with a child: the writer of its input, the drain of its
//! standard error, and the warden, the only one that waits for it and signals it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::lines::{Line, Lines};
use crate::clock::Clock;
use bartizan_gate::wire::frame::FrameLimits;

/// Variables that a child inherits unless its configuration says otherwise: what a program needs
/// to find itself, its caches and its language, and no secret of ours.
pub const ENV_INHERITED: [&str; 11] = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR",
    "TZ",
];

/// How to start a child.
#[derive(Clone, PartialEq, Eq)]
pub struct ChildSpec {
    /// The program: a path, or a name looked up in the child's `PATH`. Never given to a shell.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables set for it; they win over inherited ones.
    pub env: Vec<(String, String)>,
    /// Names of our variables that it inherits; all others it does not see.
    pub env_inherit: Vec<String>,
    /// Its working directory; ours where absent.
    pub cwd: Option<PathBuf>,
}

impl ChildSpec {
    /// `command` with `args`, inheriting [`ENV_INHERITED`] and nothing else.
    pub fn new(command: impl Into<PathBuf>, args: Vec<String>) -> Self {
        Self {
            command: command.into(),
            args,
            env: Vec::new(),
            env_inherit: ENV_INHERITED.map(str::to_owned).to_vec(),
            cwd: None,
        }
    }

    /// The file that would be run. A configuration can be checked with this before anything
    /// starts.
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
            // An empty or relative entry of `PATH` means "whatever directory we are in".
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(&self.command))
            .find(|path| is_program(path))
            .ok_or_else(|| SpawnError::NoProgram { command: self.command.clone() })
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

/// Arguments and values of variables may be secrets and stay out.
impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ChildSpec")
            .field("command", &self.command)
            .field("args", &self.args.len())
            .field("env", &names)
            .field("env_inherit", &self.env_inherit)
            .field("cwd", &self.cwd)
            .finish()
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Bounds on children and on what passes through them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildLimits {
    /// Bounds on frames that a child writes; `document.bytes_max` also bounds its lines. A child
    /// that writes a longer line is killed (C6).
    pub frame: FrameLimits,
    /// Messages waiting to be written to one child.
    pub write_queue_max: usize,
    /// How long one message may take to be written before the child is given up.
    pub write_max: Duration,
    /// From closing its input to SIGTERM.
    pub close_grace: Duration,
    /// From SIGTERM to SIGKILL.
    pub term_grace: Duration,
    /// How long calls in flight may go on once the client has gone or we are closing.
    pub drain_max: Duration,
    /// Length of a line of its standard error that is logged, bytes; longer ones are counted.
    pub stderr_line_bytes_max: usize,
    /// Lines of its standard error logged in one second; further ones are counted.
    pub stderr_lines_per_second: u32,
    /// Lines of its output recorded in one second that are for nobody: answers to what was not
    /// asked, and what is no message. Further ones are counted.
    pub strays_per_second: u32,
    /// How long a child may take to say which era it speaks; one that takes longer, or ends, is
    /// taken for a legacy one for [`ChildLimits::era_guess_max`].
    pub probe_max: Duration,
    /// How long the era that a child named is relied on.
    pub era_max: Duration,
    /// How long an era is relied on that no child named.
    pub era_guess_max: Duration,
    /// Children of one server at once.
    pub children_max: usize,
    /// Children of one server at once for one principal.
    pub children_per_principal_max: usize,
    /// How long a child without open exchanges lives.
    pub idle_max: Duration,
    /// Exchanges open with one child.
    pub exchanges_max: usize,
    /// Messages waiting for the reader of one exchange.
    pub exchange_queue_max: usize,
    /// How long a child is held up by the reader of one exchange before that one is given up.
    pub exchange_wait_max: Duration,
    /// Messages of a child kept for a stream that is not open yet.
    pub backlog_max: usize,
    /// How long an answer may take and still be given whole rather than as a stream.
    pub whole_wait: Duration,
    /// The first pause before a child that died is started again; it doubles each time.
    pub restart_pause: Duration,
    /// The longest such pause. A call never waits longer than [`ChildLimits::restart_wait_max`].
    pub restart_pause_max: Duration,
    /// How long a call waits for a restart; one that would wait longer fails at once.
    pub restart_wait_max: Duration,
    /// A child that lived this long was healthy: the next pause is the first one again.
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

/// A child could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpawnError {
    /// No executable file of that name.
    NoProgram {
        /// What was asked for.
        command: PathBuf,
    },
    /// The system refused.
    Failed {
        /// What was to be run.
        command: PathBuf,
        /// Its words.
        cause: String,
    },
}

impl SpawnError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoProgram { .. } => Some("give a full path, or a name that is in `PATH`"),
            Self::Failed { .. } => None,
        }
    }

    fn failed(command: &Path, cause: &std::io::Error) -> Self {
        Self::Failed { command: command.to_owned(), cause: cause.to_string() }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram { command } => write!(f, "no such program: `{}`", command.display()),
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
    /// What the system says of it; absent where it could not be asked.
    pub status: Option<ExitStatus>,
    /// What we had wanted of it by then.
    pub wish: Wish,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("status unknown")?,
        }
        match self.wish {
            Wish::Run | Wish::Close | Wish::Stop => Ok(()),
            Wish::Kill(why) => write!(f, " (killed: {why})"),
        }
    }
}

/// What we want of a child. It only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// To live.
    Run,
    /// To see the end of its input, once what is queued is written.
    Close,
    /// To end: close, then SIGTERM, then SIGKILL to its group, each after a grace.
    Stop,
    /// To end now, and why.
    Kill(&'static str),
}

/// A running child. Dropping it stops the child in order.
#[derive(Debug)]
pub struct Process {
    writes: mpsc::Sender<Bytes>,
    wish: watch::Sender<Wish>,
    exit: watch::Receiver<Option<Exit>>,
}

/// The child takes no more input; [`Process::exited`] will say why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl Process {
    /// Starts a child and gives the reader of its output. The tasks that live with it are
    /// tracked, so that shutdown waits until it is gone.
    pub fn spawn(
        spec: &ChildSpec,
        limits: &ChildLimits,
        clock: Clock,
        tasks: &TaskTracker,
    ) -> Result<(Self, Lines<ChildStdout>), SpawnError> {
        let program = spec.resolve()?;
        let mut command = Command::new(&program);
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
        let (wish, wished) = watch::channel(Wish::Run);
        let (ended, exit) = watch::channel(None);
        tasks.spawn(write(stdin, queue, wish.clone(), limits.write_max));
        tasks.spawn(log_stderr(stderr, pid, limits.clone(), clock));
        tasks.spawn(guard(child, wished, ended, limits.clone()));
        let lines = Lines::new(stdout, limits.frame.document.bytes_max);
        Ok((Self { writes, wish, exit }, lines))
    }

    /// Queues one line, LF included, waiting while the queue is full.
    pub async fn write(&self, line: Bytes) -> Result<(), Closed> {
        self.writes.send(line).await.map_err(|_gone| Closed)
    }

    /// Queues one line if there is room.
    pub fn try_write(&self, line: Bytes) -> Result<(), Closed> {
        self.writes.try_send(line).map_err(|_full| Closed)
    }

    /// Raises what is wanted of the child; it never sinks.
    pub fn wish(&self, wish: Wish) {
        raise(&self.wish, wish);
    }

    /// How it ended, once it has.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        // The warden always says how it ended, unless its task was thrown away.
        ended.unwrap_or(Exit { status: None, wish: *self.wish.borrow() })
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.wish(Wish::Stop);
    }
}

fn raise(wish: &watch::Sender<Wish>, to: Wish) {
    wish.send_if_modified(|current| {
        let rises = to > *current;
        if rises {
            *current = to;
        }
        rises
    });
}

/// Writes lines until nobody sends any, or until the input is to be closed and all is written.
async fn write(
    mut stdin: ChildStdin,
    mut queue: mpsc::Receiver<Bytes>,
    wish: watch::Sender<Wish>,
    write_max: Duration,
) {
    let mut wished = wish.subscribe();
    let mut open = true;
    loop {
        let line = tokio::select! {
            biased;
            line = queue.recv() => line,
            // From here on `recv` gives what is queued and then `None`.
            _ = wished.wait_for(|wish| *wish >= Wish::Close), if open => {
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
                raise(&wish, Wish::Stop);
                break;
            }
            Err(_elapsed) => {
                raise(&wish, Wish::Kill("it did not read its input"));
                break;
            }
        }
    }
}

/// Waits for the child, ends it when that is wanted, and says how it ended.
async fn guard(
    mut child: Child,
    mut wished: watch::Receiver<Wish>,
    ended: watch::Sender<Option<Exit>>,
    limits: ChildLimits,
) {
    let id = child.id();
    let group = id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let status = 'ended: {
        tokio::select! {
            status = child.wait() => break 'ended status,
            _ = wished.wait_for(|wish| *wish >= Wish::Stop) => {}
        }
        for (grace, then) in [(limits.close_grace, Signal::TERM), (limits.term_grace, Signal::KILL)]
        {
            tokio::select! {
                status = child.wait() => break 'ended status,
                () = hurried(&mut wished) => {}
                () = tokio::time::sleep(grace) => {}
            }
            signal(group, then);
        }
        child.wait().await
    };
    // A wrapper such as `npx` may leave its own children behind, which would keep our pipes open.
    // The group's number cannot have been given away again this soon: numbers are handed out in
    // a circle.
    signal(group, Signal::KILL);
    let exit = Exit { status: status.ok(), wish: *wished.borrow() };
    tracing::debug!(pid = id.unwrap_or_default(), %exit, "child ended");
    ended.send_replace(Some(exit));
}

/// Waits until the child is to be killed at once.
async fn hurried(wished: &mut watch::Receiver<Wish>) {
    if wished.wait_for(|wish| matches!(wish, Wish::Kill(_))).await.is_err() {
        // Nobody is left to wish anything: the graces apply.
        std::future::pending::<()>().await;
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    // An error means that the group is already empty.
    if let Some(group) = group
        && let Err(cause) = kill_process_group(group, signal)
    {
        tracing::trace!(%cause, "signal not delivered");
    }
}

/// Drains standard error into the log: never blocks the child, never floods us.
async fn log_stderr(stderr: ChildStderr, pid: u32, limits: ChildLimits, clock: Clock) {
    let mut lines = Lines::new(stderr, limits.stderr_line_bytes_max);
    let mut window = Window::new(limits.stderr_lines_per_second);
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
            Line::TooLong => tracing::info!(target: "child", pid, "line too long to log"),
        }
    }
    if window.missed > 0 {
        tracing::info!(
            target: "child", pid, missed = window.missed, "lines of standard error not logged"
        );
    }
}

/// A count of lines by the second.
#[derive(Debug)]
pub(super) struct Window {
    per_second: u32,
    second: u64,
    count: u32,
    missed: u64,
}

impl Window {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, second: 0, count: 0, missed: 0 }
    }

    /// Whether a line at `uptime` is kept, and how many before it were not since this was last
    /// said.
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

/// Text that cannot steer a terminal or forge a log line (M5): control, bidirectional and
/// zero-width characters are shown as escapes, bytes that are no UTF-8 as U+FFFD.
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
        let mut window = Window::new(2);
        let at = |ms| Duration::from_millis(ms);
        let admitted: Vec<_> =
            [0, 1, 2, 3, 1000, 1001].into_iter().map(|ms| window.admit(at(ms))).collect();
        assert_eq!(admitted, [(true, 0), (true, 0), (false, 0), (false, 0), (true, 2), (true, 0)]);
    }

    #[test]
    fn a_wish_only_rises() {
        let (wish, wished) = watch::channel(Wish::Run);
        raise(&wish, Wish::Kill("a reason"));
        raise(&wish, Wish::Stop);
        assert_eq!(*wished.borrow(), Wish::Kill("a reason"));
    }
}
