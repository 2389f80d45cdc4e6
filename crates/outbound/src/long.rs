//! Response bodies that may be open for days, read without hyper.
//!
//! hyper keeps 28 KiB for each connection of a client: a buffer in each direction, and a queue with
//! room for 32 requests. For an event stream without an end, which is idle most of the time, that
//! is all waste. So hyper writes the request and reads the head of the response; then the socket is
//! taken from it, and the body is read here, into memory that lasts as long as the bytes do.
//!
//! hyper must not have read a byte of the body by then, so its socket is a [`HeadFirst`], which
//! stops after the head. Where anything is not as usual (an informational response, a length, a
//! request that is not written yet) hyper goes on. The connection is not used again.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Version};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{Failure, causes};

/// A connection without or with TLS.
pub(crate) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Bytes that are read at once.
const READ_BYTES: usize = 8 << 10;
/// Most bytes between the size of a chunk and the end of its line, and most bytes of trailers.
const IGNORED_MAX: u32 = 16 << 10;

/// How far the exchange on a connection has come whose socket may be taken from hyper.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    /// hyper got the head and nothing after it.
    stopped: AtomicBool,
    /// hyper gets the rest as well.
    released: AtomicBool,
    /// Something was written and not flushed.
    unflushed: AtomicBool,
}

impl Hold {
    /// Whether hyper got the head of the response and nothing after it.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) && !self.released.load(Ordering::Relaxed)
    }

    /// Lets hyper read on.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    /// Whether the socket can be taken from hyper: it stopped, and the request is written.
    pub(crate) fn is_over(&self) -> bool {
        self.stopped() && !self.unflushed.load(Ordering::Relaxed)
    }
}

/// A socket for hyper. With a [`Hold`], it ends after the head of the first response, until it is
/// released.
#[derive(Debug)]
pub(crate) struct HeadFirst {
    io: Stream,
    hold: Option<Arc<Hold>>,
    /// What was read and not handed on.
    rest: Bytes,
    /// The current line has no bytes so far, except for a CR.
    blank: bool,
}

impl HeadFirst {
    pub(crate) fn new(io: Stream, hold: Option<Arc<Hold>>) -> Self {
        Self { io, hold, rest: Bytes::new(), blank: true }
    }

    /// How many of `bytes` belong to the head, if its end is among them: an empty line. hyper takes
    /// a bare LF for the end of a line, too.
    fn head_end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.blank => return Some(at.saturating_add(1)),
                b'\n' => self.blank = true,
                b'\r' => {}
                _ => self.blank = false,
            }
        }
        None
    }

    fn flushed(&self, flushed: bool) {
        if let Some(hold) = &self.hold {
            hold.unflushed.store(!flushed, Ordering::Relaxed);
        }
    }
}

impl Read for HeadFirst {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(hold) = this.hold.clone() else {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        };
        let released = hold.released.load(Ordering::Relaxed);
        if released && this.rest.is_empty() {
            this.hold = None;
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        if hold.stopped() {
            // Whoever waits has the head, and takes the socket or releases it.
            return Poll::Pending;
        }
        if this.rest.is_empty() {
            this.rest = ready!(read(&mut this.io, cx))?;
        }
        let mut given = this.rest.slice(..this.rest.len().min(buf.remaining()));
        if !released && let Some(end) = this.head_end(&given) {
            given.truncate(end);
            hold.stopped.store(true, Ordering::Relaxed);
        }
        buf.put_slice(&given);
        this.rest.advance(given.len());
        Poll::Ready(Ok(()))
    }
}

impl Write for HeadFirst {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.flushed(false);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.flushed(true);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.flushed(false);
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

/// What has arrived; empty at the end. No memory is held while nothing arrives.
fn read(io: &mut (impl Read + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
    let mut buf = ReadBuf::uninit(&mut bytes);
    ready!(Pin::new(io).poll_read(cx, buf.unfilled()))?;
    Poll::Ready(Ok(Bytes::copy_from_slice(buf.filled())))
}

/// How the end of a body is told (RFC 9112 §6.3).
#[derive(Debug)]
pub(crate) enum Framing {
    /// By the end of the connection.
    Close,
    /// By a last chunk.
    Chunked(Chunks),
}

impl Framing {
    /// That of a response that may have a body; `None` if it has a length, or anything else that
    /// is left to hyper.
    pub(crate) fn of(version: Version, headers: &HeaderMap) -> Option<Self> {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        match (codings.next(), codings.next()) {
            _ if headers.contains_key(CONTENT_LENGTH) => None,
            (None, _) => Some(Self::Close),
            (Some(coding), None)
                if version == Version::HTTP_11
                    && coding.as_bytes().eq_ignore_ascii_case(b"chunked") =>
            {
                Some(Self::Chunked(Chunks::default()))
            }
            (Some(_), _) => None,
        }
    }
}

/// A body that is read here.
#[derive(Debug)]
pub(crate) struct LongBody {
    /// `None` after the end.
    io: Option<LongIo>,
    framing: Framing,
    /// What was read and not decoded.
    rest: Bytes,
}

/// TLS needs much room, and is boxed.
#[derive(Debug)]
enum LongIo {
    Plain(TokioIo<TcpStream>),
    Tls(Box<Stream>),
}

impl LongBody {
    /// The body after the head that `io` gave to hyper.
    pub(crate) fn new(io: HeadFirst, framing: Framing) -> Self {
        let HeadFirst { io, rest, .. } = io;
        let io = match io {
            MaybeHttpsStream::Http(io) => LongIo::Plain(io),
            io @ MaybeHttpsStream::Https(_) => LongIo::Tls(Box::new(io)),
        };
        Self { io: Some(io), framing, rest }
    }

    /// The next bytes; `None` at the end, after which the connection is closed.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            let Some(io) = &mut self.io else { return Poll::Ready(None) };
            let decoded = match &mut self.framing {
                Framing::Close => Ok(Decoded::data(std::mem::take(&mut self.rest))),
                Framing::Chunked(chunks) => chunks.decode(&mut self.rest),
            };
            let read = match decoded {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Decoded::More) => ready!(match io {
                    LongIo::Plain(io) => read(io, cx),
                    LongIo::Tls(io) => read(io, cx),
                }),
                Ok(Decoded::End) => Ok(Bytes::new()),
                Err(why) => Err(io::Error::new(io::ErrorKind::InvalidData, why)),
            };
            match read {
                Ok(read) if !read.is_empty() => self.rest = read,
                Ok(_) if self.is_complete() => self.io = None,
                Ok(_) => {
                    self.io = None;
                    let why = "the connection ended before the last chunk".to_owned();
                    return Poll::Ready(Some(Err(Failure::BrokenOff(why))));
                }
                Err(error) => {
                    self.io = None;
                    return Poll::Ready(Some(Err(Failure::BrokenOff(causes(&error)))));
                }
            }
        }
    }

    /// Whether the body may end here.
    fn is_complete(&self) -> bool {
        match &self.framing {
            Framing::Close => true,
            Framing::Chunked(chunks) => chunks.state == ChunkState::End,
        }
    }
}

/// What some bytes of a body are.
#[derive(Debug, PartialEq, Eq)]
enum Decoded {
    /// Bytes of the content.
    Data(Bytes),
    /// Nothing yet; all bytes are used.
    More,
    /// The end of the body.
    End,
}

impl Decoded {
    fn data(data: Bytes) -> Self {
        if data.is_empty() { Self::More } else { Self::Data(data) }
    }
}

/// Where in a chunked body the next byte is (RFC 9112 §7.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum ChunkState {
    /// Before the first digit of a chunk's size.
    #[default]
    Start,
    /// In the size.
    Size,
    /// In white space after the size.
    Space,
    /// In the extensions after the size, which are ignored.
    Extension,
    /// After the CR that ends the line with the size.
    SizeEnd,
    /// In the content of a chunk.
    Data,
    /// After the content.
    DataEnd,
    /// After the CR that ends the content.
    DataCr,
    /// At the beginning of a line of trailers, which are ignored.
    Trailer,
    /// In a line of trailers.
    TrailerLine,
    /// After the CR that ends a line of trailers.
    TrailerCr,
    /// After the CR of the empty line that ends the body.
    LastCr,
    End,
}

/// Decodes the chunked coding, as strictly as hyper does.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: ChunkState,
    /// The size of the chunk, and in [`ChunkState::Data`] what is left of it, bytes.
    left: u64,
    /// Bytes of the extensions of this chunk, or of the trailers.
    ignored: u32,
}

impl Chunks {
    /// Decodes the front of `bytes`.
    fn decode(&mut self, bytes: &mut Bytes) -> Result<Decoded, &'static str> {
        loop {
            if self.state == ChunkState::End {
                return Ok(Decoded::End);
            }
            if self.state == ChunkState::Data && !bytes.is_empty() {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                let data = bytes.split_to(bytes.len().min(most));
                self.left = self.left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
                if self.left == 0 {
                    self.state = ChunkState::DataEnd;
                }
                return Ok(Decoded::Data(data));
            }
            let Some(byte) = bytes.first().copied() else { return Ok(Decoded::More) };
            bytes.advance(1);
            self.state = self.after(byte)?;
        }
    }

    /// The state after `byte`.
    fn after(&mut self, byte: u8) -> Result<ChunkState, &'static str> {
        Ok(match (self.state, byte) {
            (ChunkState::Start, _) => {
                (self.left, self.ignored) = (0, 0);
                self.digit(byte)?;
                ChunkState::Size
            }
            (ChunkState::Size | ChunkState::Space | ChunkState::Extension, b'\r') => {
                ChunkState::SizeEnd
            }
            (ChunkState::Size | ChunkState::Space, b';') => ChunkState::Extension,
            (ChunkState::Size | ChunkState::Space, b' ' | b'\t') => {
                self.ignore()?;
                ChunkState::Space
            }
            (ChunkState::Size, _) => {
                self.digit(byte)?;
                ChunkState::Size
            }
            (ChunkState::Extension, byte) if byte != b'\n' => {
                self.ignore()?;
                ChunkState::Extension
            }
            (ChunkState::SizeEnd, b'\n') if self.left == 0 => ChunkState::Trailer,
            (ChunkState::SizeEnd, b'\n') => ChunkState::Data,
            (ChunkState::DataEnd, b'\r') => ChunkState::DataCr,
            (ChunkState::DataCr, b'\n') => ChunkState::Start,
            (ChunkState::Trailer, b'\r') => ChunkState::LastCr,
            (ChunkState::TrailerLine, b'\r') => ChunkState::TrailerCr,
            (ChunkState::Trailer | ChunkState::TrailerLine, _) => {
                self.ignore()?;
                ChunkState::TrailerLine
            }
            (ChunkState::TrailerCr, b'\n') => ChunkState::Trailer,
            (ChunkState::LastCr, b'\n') => ChunkState::End,
            (
                ChunkState::Space
                | ChunkState::Extension
                | ChunkState::SizeEnd
                | ChunkState::Data
                | ChunkState::DataEnd
                | ChunkState::DataCr
                | ChunkState::TrailerCr
                | ChunkState::LastCr
                | ChunkState::End,
                _,
            ) => return Err("a chunk that breaks the coding"),
        })
    }

    /// Takes a digit of the size.
    fn digit(&mut self, byte: u8) -> Result<(), &'static str> {
        let digit = char::from(byte).to_digit(16).ok_or("a chunk without a size")?;
        let size = self.left.checked_mul(16).and_then(|size| size.checked_add(digit.into()));
        self.left = size.ok_or("a chunk that is too large")?;
        Ok(())
    }

    /// Counts a byte that is ignored.
    fn ignore(&mut self) -> Result<(), &'static str> {
        self.ignored = self.ignored.saturating_add(1);
        if self.ignored > IGNORED_MAX {
            Err("too much beside the content of chunks")
        } else {
            Ok(())
        }
    }
}
