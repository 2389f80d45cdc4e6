//! The client on our standard input and output.
//!
//! One run is one [`Session`](bartizan_gate::session::Session). `wrap` joins it to a child process,
//! `remote` to an HTTP server; both walk every frame of either direction through the gate.
//! Standard output carries frames and nothing else. A slow client holds up the server and never
//! fills our memory.

pub(crate) mod client;
pub(crate) mod remote;
mod renewal;
mod wrap;

use std::fmt;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use self::client::{Client, Form};
use super::Shared;
use super::child::lines::Lines;
use super::child::process::Exit;
use super::child::{ChildLimits, ChildSpec, SpawnError};
use super::upstream::Upstream;
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::Protected;

/// Bytes between the threads at our standard input and output and the rest.
const PIPE_BYTES: usize = 64 << 10;

/// Where the client's messages go.
#[derive(Debug)]
pub enum StdioUpstream {
    /// To a child process of its own.
    Child {
        /// How to start it.
        spec: ChildSpec,
        /// Bounds on it.
        limits: Box<ChildLimits>,
    },
    /// To a server over HTTP.
    Http(Arc<Upstream>),
}

/// Bounds on a client at standard input and output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StdioLimits {
    /// Length of a line of the client, bytes; longer ones are refused and skipped.
    pub line_bytes_max: usize,
    /// Messages waiting to be written to the client.
    pub write_queue_max: usize,
    /// How long the last messages may take to be written once all is over.
    pub flush_max: Duration,
    /// Bounds on the way to an HTTP server.
    pub http: RemoteLimits,
}

/// Bounds on a stdio client's way to an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLimits {
    /// Requests of the client in flight at once.
    pub requests_max: usize,
    /// How long a notification or an answer may take to be accepted.
    pub accept_max: Duration,
    /// From a request sent to its whole answer, or to the head of a stream. Subscriptions are
    /// exempt from this and the next.
    pub answer_max: Duration,
    /// Silence on the stream of an answer: no event and no comment.
    pub silence_max: Duration,
    /// How often a stream that broke off is resumed for one request.
    pub resumes_max: u32,
    /// Pause before a stream is opened again, where its server names none.
    pub retry: Duration,
    /// The longest pause, whatever a server names and however often it failed.
    pub retry_max: Duration,
    /// Failures in a row after which the stream of server messages is given up.
    pub stream_failures_max: u32,
    /// How long calls in flight may go on once the client has gone or we are closing.
    pub drain_max: Duration,
    /// How long ending the session may take.
    pub end_max: Duration,
}

impl Default for StdioLimits {
    fn default() -> Self {
        Self {
            line_bytes_max: 4 << 20,
            write_queue_max: 16,
            flush_max: Duration::from_secs(5),
            http: RemoteLimits::default(),
        }
    }
}

impl Default for RemoteLimits {
    fn default() -> Self {
        Self {
            requests_max: 256,
            accept_max: Duration::from_secs(30),
            answer_max: Duration::from_mins(5),
            silence_max: Duration::from_mins(5),
            resumes_max: 100,
            retry: Duration::from_secs(1),
            retry_max: Duration::from_mins(1),
            stream_failures_max: 10,
            drain_max: Duration::from_secs(25),
            end_max: Duration::from_secs(2),
        }
    }
}

/// Why a run at standard input and output ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// The client closed our standard input: the ordinary end.
    ClientClosed,
    /// The client's pipes broke.
    ClientBroken(String),
    /// We were told to close.
    Closing,
    /// The child could not be started.
    NotStarted(SpawnError),
    /// The child ended while the client was still there.
    ChildEnded(Exit),
    /// The server no longer knows the session, which the client can only begin anew.
    SessionLost,
}

impl ExitReason {
    /// Whether the program should say that it failed.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::ClientClosed | Self::Closing => false,
            Self::ClientBroken(_)
            | Self::NotStarted(_)
            | Self::ChildEnded(_)
            | Self::SessionLost => true,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotStarted(error) => error.hint(),
            Self::ChildEnded(_) => {
                Some("run its command alone and read what it writes to standard error")
            }
            Self::ClientClosed | Self::ClientBroken(_) | Self::Closing | Self::SessionLost => None,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientClosed => f.write_str("the client closed standard input"),
            Self::ClientBroken(why) => write!(f, "the client's pipe broke: {why}"),
            Self::Closing => f.write_str("closing"),
            Self::NotStarted(error) => error.fmt(f),
            Self::ChildEnded(exit) => write!(f, "the server process ended by itself: {exit}"),
            Self::SessionLost => f.write_str("the server ended the session"),
        }
    }
}

/// Serves the client at our standard input and output until one side ends. Ends with every task
/// of its own finished and the child, if any, gone.
pub async fn serve_stdio(
    shared: Shared,
    server: Arc<Protected>,
    principal: Arc<Principal>,
    upstream: StdioUpstream,
    limits: StdioLimits,
) -> ExitReason {
    let flush_max = limits.flush_max;
    let serving = Serving { shared, server, principal, upstream, limits };
    let input = standard_input();
    let (output, written) = standard_output();
    let reason = serve_pipes(serving, input, output).await;
    if timeout(flush_max, written).await.is_err() {
        tracing::warn!("the client did not read all of its messages");
    }
    reason
}

/// What a run needs besides its pipes.
pub struct Serving {
    /// What every edge shares.
    pub shared: Shared,
    /// The protected server.
    pub server: Arc<Protected>,
    /// The client.
    pub principal: Arc<Principal>,
    /// The way to the server.
    pub upstream: StdioUpstream,
    /// Bounds.
    pub limits: StdioLimits,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

/// Like [`serve_stdio`], for a client at any pair of pipes.
pub async fn serve_pipes<R, W>(serving: Serving, input: R, output: W) -> ExitReason
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let Serving { shared, server, principal, upstream, limits } = serving;
    let (out, lines) = mpsc::channel(limits.write_queue_max);
    let (done, written) = oneshot::channel();
    shared.tasks.spawn(write_lines(output, lines, done));
    let input = Lines::new(input, limits.line_bytes_max);
    let client = Arc::new(Client::new(shared, server, principal, (Form::Lines, out)));
    let reason = match upstream {
        StdioUpstream::Child { spec, limits } => wrap::serve(&client, input, &spec, &limits).await,
        StdioUpstream::Http(upstream) => {
            remote::serve(Arc::clone(&client), input, upstream, limits.http).await
        }
    };
    // The writer ends with the last sender.
    drop(client);
    if timeout(limits.flush_max, written).await.is_err() {
        tracing::warn!("the client did not read all of its messages");
    }
    reason
}

/// Writes lines until nobody sends any; flushes when none waits. Dropping `done` says that all is
/// written.
async fn write_lines<W: AsyncWrite + Unpin>(
    mut output: W,
    mut lines: mpsc::Receiver<Bytes>,
    done: oneshot::Sender<()>,
) {
    let written = async {
        while let Some(line) = lines.recv().await {
            output.write_all(&line).await?;
            if lines.is_empty() {
                output.flush().await?;
            }
        }
        output.shutdown().await
    };
    if let Err(cause) = written.await {
        tracing::debug!(%cause, "the client closed its pipe");
    }
    drop(done);
}

/// Our standard input. A thread of its own reads it, not the runtime: a read cannot be cancelled,
/// and a runtime waits for its blocking threads when it ends.
fn standard_input() -> DuplexStream {
    let (mut to, from) = tokio::io::duplex(PIPE_BYTES);
    let runtime = Handle::current();
    let copy = move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; PIPE_BYTES];
        loop {
            let read = match stdin.read(&mut buffer) {
                Ok(read) => read,
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() || runtime.block_on(to.write_all(bytes)).is_err() {
                return;
            }
        }
    };
    if let Err(cause) = std::thread::Builder::new().name("stdin".into()).spawn(copy) {
        tracing::error!(%cause, "no thread for standard input");
    }
    from
}

/// Our standard output, and word that all was written. A thread of its own writes it, for the
/// reason given at [`standard_input`].
fn standard_output() -> (DuplexStream, oneshot::Receiver<()>) {
    let (to, mut from) = tokio::io::duplex(PIPE_BYTES);
    let (done, written) = oneshot::channel();
    let runtime = Handle::current();
    let copy = move || {
        let mut stdout = std::io::stdout().lock();
        let mut buffer = vec![0; PIPE_BYTES];
        while let Ok(read) = runtime.block_on(from.read(&mut buffer)) {
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() || stdout.write_all(bytes).is_err() || stdout.flush().is_err() {
                break;
            }
        }
        drop(done);
    };
    if let Err(cause) = std::thread::Builder::new().name("stdout".into()).spawn(copy) {
        tracing::error!(%cause, "no thread for standard output");
    }
    (to, written)
}
