//! The client on our standard input and output, or at any other pair of pipes.
//!
//! Standard output carries frames and nothing else. A slow client holds up the server and never
//! fills our memory.

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
use super::{Client, Form, child};
use crate::Shared;
use crate::child::lines::Lines;
use crate::child::{ChildLimits, ChildSpec};
use crate::upstream::Upstream;
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
        StdioUpstream::Child { spec, limits } => child::serve(&client, input, &spec, &limits).await,
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
