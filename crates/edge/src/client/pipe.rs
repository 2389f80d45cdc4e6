//! A client on our standard input and output, or on any other pair of pipes.
//!
//! Only frames are written to standard output. A slow client delays the server (backpressure);
//! memory is bounded.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::exit::ExitReason;
use super::remote::{self, RemoteLimits};
use super::{Client, MessageFraming, child};
use crate::Shared;
use crate::child::lines::Lines;
use crate::child::{ChildLimits, ChildSpec};
use crate::upstream::Upstream;
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::{Protected, ServerState};

/// Size of the buffers between the threads that read and write standard input and output and the
/// runtime, bytes.
const PIPE_BYTES: usize = 64 << 10;

/// The server of a client on a pipe.
#[derive(Debug)]
pub enum StdioUpstream {
    /// To a child process of its own.
    Child {
        /// How to start it.
        spec: Box<ChildSpec>,
        /// Bounds on it.
        limits: Box<ChildLimits>,
    },
    /// To a server over HTTP.
    Http(Arc<Upstream>),
}

/// Limits of a client on a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StdioLimits {
    /// Longest line of the client, bytes; longer ones are refused and skipped.
    pub line_bytes_max: usize,
    /// Messages queued for the client.
    pub write_queue_max: usize,
    /// How long writing the last messages may take at the end.
    pub flush_max: Duration,
    /// Limits for a server over HTTP.
    pub http: RemoteLimits,
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

/// Serves the client on our standard input and output until one side ends. Returns after all of its
/// tasks have finished and the child, if any, has ended.
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
        tracing::warn!("the client did not read its last messages in time");
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
    /// Where its messages go.
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
    let client = Client::new(shared, server, principal, MessageFraming::Lines, out);
    let reason = match upstream {
        StdioUpstream::Child { spec, limits } => {
            client.set_server_state(ServerState::Process);
            child::serve(&client, input, &spec, &limits).await
        }
        StdioUpstream::Http(upstream) => {
            remote::serve(Arc::clone(&client), input, upstream, limits.http).await
        }
    };
    // Dropping the last sender ends the writer.
    drop(client);
    if timeout(limits.flush_max, written).await.is_err() {
        tracing::warn!("the client did not read its last messages in time");
    }
    reason
}

/// Writes lines until all senders are dropped; flushes when the queue is empty. Drops `done` when
/// everything is written.
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

/// Our standard input, read by a thread of its own: the runtime cannot cancel a blocking read and
/// would wait for it at shutdown.
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
        tracing::error!(%cause, "cannot start the thread for standard input");
    }
    from
}

/// Our standard output, written by a thread of its own for the same reason as [`standard_input`],
/// and a receiver that ends when everything is written.
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
        tracing::error!(%cause, "cannot start the thread for standard output");
    }
    (to, written)
}
