//! One client connection's bytes: followed for ambiguous framing, and held to deadlines.
//!
//! Timers are armed only where a read or a write has to wait, and one timer serves all of a
//! connection's deadlines, so that a busy connection pays nothing for them. What a deadline ends
//! is the connection; nothing is answered, because the peer has not asked anything whole.

use std::io;
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

/// What a connection's bytes and its requests tell each other.
#[derive(Debug, Default)]
pub(super) struct Peer {
    ambiguous: AtomicBool,
    busy: AtomicUsize,
}

impl Peer {
    /// Whether something on this connection can be read as two different messages. It stays so.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Ordering::Relaxed)
    }

    /// Counts one request in progress, until the guard goes.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

/// A request in progress: its connection is not idle.
#[derive(Debug)]
pub(super) struct Busy(Arc<Peer>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a connection may keep us waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first byte of a head to its end.
    pub(super) head: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// Without taking a byte that we want to write.
    pub(super) write: Duration,
}

/// A connection as hyper sees it.
#[derive(Debug)]
pub(super) struct WatchedStream {
    io: TcpStream,
    peer: Arc<Peer>,
    framing: FramingWatch,
    clock: Clock,
    patience: Patience,
    /// When the last bytes came, by uptime.
    heard: Duration,
    /// When the head in progress began.
    head_since: Option<Duration>,
    /// Since when writing waits.
    stalled_since: Option<Duration>,
    alarm: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl WatchedStream {
    pub(super) fn new(io: TcpStream, peer: Arc<Peer>, clock: Clock, patience: Patience) -> Self {
        Self {
            io,
            peer,
            framing: FramingWatch::new(),
            heard: clock.uptime(),
            clock,
            patience,
            head_since: None,
            stalled_since: None,
            alarm: None,
        }
    }

    /// Whether `deadline` has passed; if not, this task wakes when it does.
    fn overdue(&mut self, now: Duration, deadline: Duration, cx: &mut Context<'_>) -> bool {
        if now >= deadline {
            return true;
        }
        let left = deadline.saturating_sub(now);
        let (at, alarm) =
            self.alarm.get_or_insert_with(|| (deadline, Box::pin(tokio::time::sleep(left))));
        // An alarm set for earlier rings in vain once and is set anew; that is cheaper than
        // moving it with every request.
        if *at > deadline {
            *alarm = Box::pin(tokio::time::sleep(left));
            *at = deadline;
        }
        while alarm.as_mut().poll(cx).is_ready() {
            *alarm = Box::pin(tokio::time::sleep(left));
            *at = deadline;
        }
        false
    }

    fn waits_to_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let now = self.clock.uptime();
        let since = *self.stalled_since.get_or_insert(now);
        if self.overdue(now, since.saturating_add(self.patience.write), cx) {
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
        self.waits_to_write(cx).map(Err)
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
            this.heard = this.clock.uptime();
            this.head_since =
                this.framing.mid_head().then(|| this.head_since.unwrap_or(this.heard));
            return Poll::Ready(Ok(()));
        }
        if this.peer.busy.load(Ordering::Relaxed) > 0 {
            return Poll::Pending;
        }
        let deadline = match this.head_since {
            Some(since) => since.saturating_add(this.patience.head),
            None => this.heard.saturating_add(this.patience.idle),
        };
        if this.overdue(this.clock.uptime(), deadline, cx) {
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
