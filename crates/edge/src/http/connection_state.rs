//! The byte stream of one client connection: checked for ambiguous framing and held to deadlines.
//! `http` wraps each accepted socket in a [`WatchedStream`].
//!
//! A timer is set only when a read or write has to wait, and one timer serves all deadlines of a
//! connection, so a busy connection pays nothing for them. A missed deadline closes the connection
//! without an answer, because no complete request has arrived.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::framing::FramingWatch;
use crate::budget::{Budget, Reservation};
use crate::clock::Clock;
use bartizan_gate::session::{DoorRefusal, Gate, Peer};

/// Bytes of an incomplete head that are not accounted, because each connection has them anyway.
const HEAD_FREE_BYTES: usize = 4 << 10;
/// One begun request in [`ConnectionState::requests`].
const BEGUN: u64 = 1 << 32;
/// The connection preface of HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a client gets for which there is no memory.
pub(super) const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 0\r\n\r\n";

/// State that a connection's stream and its requests share.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    ambiguous: AtomicBool,
    /// In the lower half requests in progress, in the upper half how many began.
    requests: AtomicU64,
    /// Requests in progress whose body has not arrived.
    arriving: AtomicUsize,
    /// Since when there is no request, as uptime, ms.
    idle_since_ms: AtomicU64,
    /// Its number in the table of connections.
    number: AtomicU64,
    /// It is older than [`ConnectionTimeouts::age`].
    old: AtomicBool,
    http2: AtomicBool,
    /// The client's network address, where the system tells it.
    address: OnceLock<IpAddr>,
    /// Its name in records, once a message has arrived.
    peer: OnceLock<Peer>,
    /// Whether a head was begun and not finished in time.
    slow: AtomicBool,
    /// Whether a refusal was recorded on this connection.
    refused: AtomicBool,
    /// Whether a head was longer than [`LONG_HEAD_BYTES`](super::LONG_HEAD_BYTES).
    long_head: AtomicBool,
    /// A request began, and we have not waited for the client since.
    in_a_row: AtomicBool,
}

impl ConnectionState {
    /// Takes note of the client's network address, once.
    pub(super) fn set_address(&self, address: Option<IpAddr>) {
        if let Some(address) = address {
            self.address.set(address).unwrap_or_default();
        }
    }

    /// The client's network address.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address.get().copied()
    }

    /// The connection as records name it.
    pub(super) fn peer(&self, gate: &Gate) -> Peer {
        self.peer.get_or_init(|| gate.peer(self.address())).clone()
    }

    /// Takes note that a head was long.
    pub(super) fn note_long_head(&self) {
        self.long_head.store(true, Ordering::Relaxed);
    }

    /// Whether a head was long.
    pub(super) fn had_long_head(&self) -> bool {
        self.long_head.load(Ordering::Relaxed)
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

    /// Lets all other tasks run first, if the client sent this request together with the one before:
    /// requests in a row are answered one by one, and those of others in between (threat K13).
    pub(super) async fn let_others(&self) {
        if self.in_a_row.swap(true, Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }

    /// Counts one request in progress until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> RequestGuard {
        self.requests.fetch_add(BEGUN.saturating_add(1), Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }

    /// Counts one body that has not arrived until the guard is dropped.
    pub(super) fn body_arrives(&self) -> ArrivalGuard<'_> {
        self.arriving.fetch_add(1, Ordering::Relaxed);
        ArrivalGuard(self)
    }

    /// Requests in progress.
    fn busy(&self) -> u64 {
        self.requests.load(Ordering::Relaxed) & BEGUN.saturating_sub(1)
    }

    /// Whether it has no request that has arrived as a whole, so that it gives way to a new
    /// connection.
    pub(super) fn gives_way(&self) -> bool {
        let arriving = u64::try_from(self.arriving.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        self.busy() <= arriving
    }

    /// In which order connections give way: those that never had a request first, then by the time
    /// since the last one.
    pub(super) fn idle_order(&self) -> (bool, u64) {
        let used = self.requests.load(Ordering::Relaxed) >= BEGUN && self.busy() == 0;
        (used, self.idle_since_ms.load(Ordering::Relaxed))
    }

    /// Sets the connection's number.
    pub(super) fn set_number(&self, number: u64) {
        self.number.store(number, Ordering::Relaxed);
    }

    /// The connection's number.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Whether the connection has reached its age.
    pub(super) fn is_old(&self) -> bool {
        self.old.load(Ordering::Relaxed)
    }

    /// Whether it takes no further request over HTTP/1.
    pub(super) fn takes_no_more(&self) -> bool {
        self.is_old() || self.had_long_head()
    }

    /// Over HTTP/1, it takes one further request at most.
    pub(super) fn ends_soon(&self) {
        self.old.store(true, Ordering::Relaxed);
    }

    /// Whether it speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }
}

/// A request in progress. While one exists, the connection is not idle.
#[derive(Debug)]
pub(super) struct RequestGuard(Arc<ConnectionState>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request whose body has not arrived.
#[derive(Debug)]
pub(super) struct ArrivalGuard<'a>(&'a ConnectionState);

impl Drop for ArrivalGuard<'_> {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Timeouts of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionTimeouts {
    /// From the first byte of a request's head to its end.
    pub(super) head: Duration,
    /// Between requests, whatever else the client sends.
    pub(super) idle: Duration,
    /// While the client accepts no byte of what we write.
    pub(super) write: Duration,
    /// After which a connection takes no new requests.
    pub(super) age: Duration,
}

/// What all connections share.
#[derive(Debug, Clone)]
pub(super) struct ConnectionLimits {
    pub(super) timeouts: ConnectionTimeouts,
    /// Size of a request's head, bytes.
    pub(super) head_max: usize,
    /// Where the memory of incomplete heads is accounted, bytes.
    pub(super) heads: Arc<Budget>,
    /// Connections that speak HTTP/2.
    pub(super) http2: Arc<Budget>,
}

/// The version of HTTP that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpVersion {
    Http1,
    Http2,
}

/// The first bytes of a connection, read to tell its version, until hyper has taken them.
#[derive(Debug, Default)]
struct FirstBytes {
    bytes: [u8; PREFACE.len()],
    /// How many were read.
    read: usize,
    /// How many of them hyper has taken.
    taken: usize,
}

impl FirstBytes {
    fn read(&self) -> &[u8] {
        self.bytes.get(..self.read).unwrap_or_default()
    }

    fn add(&mut self, new: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.read).zip(new) {
            *to = *from;
        }
        self.read = self.read.saturating_add(new.len()).min(self.bytes.len());
    }

    /// Gives those that are left to `buf`; whether there were any.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let left = self.read().get(self.taken..).unwrap_or_default();
        let given = left.get(..buf.remaining()).unwrap_or(left);
        buf.put_slice(given);
        let any = !given.is_empty();
        self.taken = self.taken.saturating_add(given.len());
        any
    }
}

/// The socket that hyper reads and writes.
#[derive(Debug)]
pub(super) struct WatchedStream {
    io: TcpStream,
    first: FirstBytes,
    peer: Arc<ConnectionState>,
    framing: FramingWatch,
    clock: Clock,
    limits: ConnectionLimits,
    /// When the connection was accepted, as uptime.
    since: Duration,
    /// Since when there is no request, as uptime.
    idle_since: Duration,
    /// [`ConnectionState::requests`] at that time.
    seen: u64,
    /// When the incomplete request head began, as uptime.
    head_since: Option<Duration>,
    /// Since when a write has been waiting, as uptime.
    stalled_since: Option<Duration>,
    /// The memory of the incomplete head, if it is long.
    head: Option<Reservation>,
    /// The place among the connections that speak HTTP/2.
    http2: Option<Reservation>,
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl WatchedStream {
    pub(super) fn new(
        io: TcpStream,
        peer: Arc<ConnectionState>,
        clock: Clock,
        limits: ConnectionLimits,
    ) -> Self {
        let since = clock.uptime();
        peer.idle_since_ms.store(millis(since), Ordering::Relaxed);
        Self {
            io,
            first: FirstBytes::default(),
            peer,
            framing: FramingWatch::new(limits.head_max),
            clock,
            limits,
            since,
            idle_since: since,
            seen: 0,
            head_since: None,
            stalled_since: None,
            head: None,
            http2: None,
            timer: None,
        }
    }

    /// Reads the first bytes, as many as tell the version; hyper gets them again. A client that
    /// closes the connection speaks HTTP/1. Fails like a read.
    pub(super) async fn version(&mut self) -> io::Result<HttpVersion> {
        while PREFACE.starts_with(self.first.read()) {
            if self.first.read == PREFACE.len() {
                return Ok(HttpVersion::Http2);
            }
            let mut bytes = [0; PREFACE.len()];
            let left = bytes.get_mut(self.first.read..).unwrap_or_default();
            let mut buf = ReadBuf::new(left);
            poll_fn(|cx| self.poll_socket(cx, &mut buf)).await?;
            if buf.filled().is_empty() {
                break;
            }
            self.first.add(buf.filled());
        }
        Ok(HttpVersion::Http1)
    }

    /// Takes note of bytes that were read. Fails if there is no room for what they begin.
    fn note(&mut self, new: &[u8]) -> io::Result<()> {
        if self.framing.see(new).is_err() {
            self.peer.ambiguous.store(true, Ordering::Relaxed);
        }
        let now = self.clock.uptime();
        self.head_since = self.framing.mid_head().then(|| self.head_since.unwrap_or(now));
        if now.saturating_sub(self.since) >= self.limits.timeouts.age {
            self.peer.old.store(true, Ordering::Relaxed);
        }
        if self.framing.is_http2() && self.http2.is_none() {
            self.peer.http2.store(true, Ordering::Relaxed);
            self.http2 = self.limits.http2.take(1);
            if self.http2.is_none() {
                return Err(io::Error::other("too many HTTP/2 connections"));
            }
        }
        let head = self.framing.head_bytes().saturating_sub(HEAD_FREE_BYTES);
        if !reserved(&mut self.head, &self.limits.heads, head) {
            // The client may not read it, but it gets the chance.
            drop(self.io.try_write(NO_ROOM));
            return Err(io::Error::other("no memory for request heads"));
        }
        Ok(())
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
        if self.overdue(now, since.saturating_add(self.limits.timeouts.write), cx) {
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
        let any = self.first.give(buf);
        if any && buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let more = self.poll_socket(cx, buf)?;
        // The first bytes are handed on, whether or not there are more.
        if any || more.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl WatchedStream {
    /// Reads from the socket, within the deadlines.
    fn poll_socket(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self;
        let before = buf.filled().len();
        if Pin::new(&mut this.io).poll_read(cx, buf)?.is_ready() {
            let new = buf.filled().get(before..).unwrap_or_default();
            return Poll::Ready(this.note(new));
        }
        this.peer.in_a_row.store(false, Ordering::Relaxed);
        let requests = this.peer.requests.load(Ordering::Relaxed);
        if this.peer.busy() > 0 {
            return Poll::Pending;
        }
        let now = this.clock.uptime();
        if this.seen != requests {
            (this.seen, this.idle_since) = (requests, now);
            this.peer.idle_since_ms.store(millis(now), Ordering::Relaxed);
        }
        let timeouts = this.limits.timeouts;
        let deadline = match this.head_since {
            Some(since) => since.saturating_add(timeouts.head),
            // Not since the last bytes: frames of HTTP/2 and empty lines are no requests.
            None => this.idle_since.saturating_add(timeouts.idle),
        };
        if this.overdue(now, deadline, cx) {
            this.peer.slow.store(this.head_since.is_some(), Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

/// Makes `held` a reservation of `bytes`; `false` if there is no room for them.
fn reserved(held: &mut Option<Reservation>, budget: &Arc<Budget>, bytes: usize) -> bool {
    if bytes == 0 {
        *held = None;
        return true;
    }
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    match held {
        Some(held) => held.grow(bytes.saturating_sub(held.amount())),
        none => {
            *none = budget.take(bytes);
            none.is_some()
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
