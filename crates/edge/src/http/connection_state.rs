//! The byte stream of one client connection: checked for ambiguous framing and held to deadlines.
//! `http` wraps each accepted socket in a [`WatchedStream`].
//!
//! A timer is set only when a read or write has to wait, and one timer serves all deadlines of a
//! connection, so a busy connection pays nothing for them. A missed deadline closes the connection
//! without an answer, because no complete request has arrived.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::framing::FramingWatch;
use crate::clock::Clock;
use bartizan_gate::session::DoorRefusal;

/// State that a connection's stream and its requests share.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    ambiguous: AtomicBool,
    busy: AtomicUsize,
    /// The client's network address, where the system tells it.
    address: Option<IpAddr>,
    /// Whether a head was begun and not finished in time.
    slow: AtomicBool,
    /// Whether a refusal was recorded on this connection.
    refused: AtomicBool,
}

impl ConnectionState {
    /// The state of a new connection from `address`.
    pub(super) fn from(address: Option<IpAddr>) -> Self {
        Self { address, ..Self::default() }
    }

    /// The client's network address.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Takes note that a refusal was recorded.
    pub(super) fn note_refusal(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Why the connection ended without a request that could be refused, if it did: hyper answered
    /// the head itself, or it did not arrive. With a note for the record.
    pub(super) fn refused_head(
        &self,
        error: &(dyn Error + 'static),
    ) -> Option<(DoorRefusal, &'static str)> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        if self.is_ambiguous() {
            return Some((DoorRefusal::Framing, "the head cannot be read"));
        }
        if self.slow.load(Ordering::Relaxed) {
            return Some((DoorRefusal::Slow, "the head did not arrive in time"));
        }
        let error = error.downcast_ref::<hyper::Error>()?;
        // The h2 crate tells an error that it found from one that the client reports.
        let h2 = || error.source().is_some_and(|it| it.to_string().contains("error detected"));
        if error.is_parse_too_large() {
            Some((DoorRefusal::Header, "the head is too large, or has too many lines"))
        } else if error.is_parse() {
            Some((DoorRefusal::Header, "the head cannot be read"))
        } else if h2() {
            Some((DoorRefusal::Framing, "HTTP/2 frames that break the protocol"))
        } else {
            None
        }
    }

    /// Whether ambiguous framing was seen on this connection; never reset.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Ordering::Relaxed)
    }

    /// Counts one request in progress until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> RequestGuard {
        self.busy.fetch_add(1, Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }
}

/// A request in progress. While one exists, the connection is not idle.
#[derive(Debug)]
pub(super) struct RequestGuard(Arc<ConnectionState>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Timeouts of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionTimeouts {
    /// From the first byte of a request's head to its end.
    pub(super) head: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// While the client accepts no byte of what we write.
    pub(super) write: Duration,
}

/// The socket that hyper reads and writes.
#[derive(Debug)]
pub(super) struct WatchedStream {
    io: TcpStream,
    peer: Arc<ConnectionState>,
    framing: FramingWatch,
    clock: Clock,
    timeouts: ConnectionTimeouts,
    /// When the last bytes were read, as uptime.
    last_read: Duration,
    /// When the incomplete request head began, as uptime.
    head_since: Option<Duration>,
    /// Since when a write has been waiting, as uptime.
    stalled_since: Option<Duration>,
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl WatchedStream {
    pub(super) fn new(
        io: TcpStream,
        peer: Arc<ConnectionState>,
        clock: Clock,
        timeouts: ConnectionTimeouts,
    ) -> Self {
        Self {
            io,
            peer,
            framing: FramingWatch::new(),
            last_read: clock.uptime(),
            clock,
            timeouts,
            head_since: None,
            stalled_since: None,
            timer: None,
        }
    }

    /// Whether `deadline` has passed; if not, the task is woken when it does.
    fn overdue(&mut self, now: Duration, deadline: Duration, cx: &mut Context<'_>) -> bool {
        if now >= deadline {
            return true;
        }
        let left = deadline.saturating_sub(now);
        let (at, timer) =
            self.timer.get_or_insert_with(|| (deadline, Box::pin(tokio::time::sleep(left))));
        // A timer set for an earlier deadline is kept: a spurious fire is cheaper than resetting
        // the timer for each request.
        if *at > deadline {
            *timer = Box::pin(tokio::time::sleep(left));
            *at = deadline;
        }
        while timer.as_mut().poll(cx).is_ready() {
            *timer = Box::pin(tokio::time::sleep(left));
            *at = deadline;
        }
        false
    }

    fn poll_write_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let now = self.clock.uptime();
        let since = *self.stalled_since.get_or_insert(now);
        if self.overdue(now, since.saturating_add(self.timeouts.write), cx) {
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        Poll::Pending
    }

    fn written(
        &mut self,
        outcome: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if outcome.is_ready() {
            self.stalled_since = None;
            return outcome;
        }
        self.poll_write_deadline(cx).map(Err)
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if Pin::new(&mut this.io).poll_read(cx, buf)?.is_ready() {
            let new = buf.filled().get(before..).unwrap_or_default();
            if this.framing.see(new).is_err() {
                this.peer.ambiguous.store(true, Ordering::Relaxed);
            }
            this.last_read = this.clock.uptime();
            this.head_since =
                this.framing.mid_head().then(|| this.head_since.unwrap_or(this.last_read));
            return Poll::Ready(Ok(()));
        }
        if this.peer.busy.load(Ordering::Relaxed) > 0 {
            return Poll::Pending;
        }
        let deadline = match this.head_since {
            Some(since) => since.saturating_add(this.timeouts.head),
            None => this.last_read.saturating_add(this.timeouts.idle),
        };
        if this.overdue(this.clock.uptime(), deadline, cx) {
            this.peer.slow.store(this.head_since.is_some(), Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
