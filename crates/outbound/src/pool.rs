//! A pool of HTTP/1.1 connections to one address.
//!
//! The future that uses a connection also drives it; there is no separate task. A request therefore
//! costs no switch between tasks, nothing is read that nobody waits for, and dropping the future
//! closes the socket at once, which tells the server that its client went away.
//! `docs/decisions/0010-own-connection-pool.md` compares this with hyper-util's pool. A request is
//! sent once: it goes to another connection only if hyper returns it with no byte written.
//! `service` and the edge's HTTP upstream use it.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bartizan_sync::lock;
use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use tokio::runtime::{self, Handle};
use tokio::time::Instant;
use tower_service::Service as _;

use crate::address::{Address, Connector};
use crate::long::{Framing, HeadFirst, Hold, LongBody};
use crate::tls::Tls;
use crate::{Failure, SetUpError, causes};

/// Bytes of an answer that are read before other tasks run.
const PIECE_BYTES: usize = 128 << 10;
/// Smallest limit on a response's head that hyper accepts, bytes.
const HEAD_BYTES_LEAST: usize = 8192;

/// Limits of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// Largest number of idle connections.
    pub idle_max: usize,
    /// How long an idle connection is kept.
    pub idle: Duration,
    /// How long connecting may take, including DNS and TLS.
    pub connect: Duration,
    /// Largest number of header fields of a response.
    pub headers_max: usize,
    /// Largest size of a response's head, bytes; values below 8192 mean 8192.
    pub head_bytes_max: usize,
}

struct Connection {
    /// The runtime that waits for its socket. Only tasks of that runtime use it: for others, each
    /// piece of an answer would come through two threads.
    home: runtime::Id,
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` after the connection ended.
    driver: Option<http1::Connection<HeadFirst, Full<Bytes>>>,
}

impl Connection {
    /// Polls the connection once.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    /// Whether a request can be sent on it immediately.
    async fn is_ready(&mut self) -> bool {
        poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(self.driver.is_some() && self.sender.is_ready())
        })
        .await
    }
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// A pool of connections to one address.
pub struct Pool {
    address: Address,
    connector: Connector,
    limits: PoolLimits,
    /// In order of last use; the last one is used first, so that in quiet times the others reach
    /// the idle limit.
    idle: Mutex<Vec<Idle>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Pool {
    /// Prepares a pool for `address`; opens no connection yet.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub fn new(address: Address, tls: Tls, limits: PoolLimits) -> Result<Self, SetUpError> {
        let connector = address.connector(tls)?;
        Ok(Self { address, connector, limits, idle: Mutex::new(Vec::new()) })
    }

    /// The address that the pool connects to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends `request` and waits for the head of the response. The target of `request` must be path
    /// and query, and its headers are sent unchanged, so they must include `Host`. Only connecting
    /// has a time-out; the caller sets one for the whole exchange.
    ///
    /// # Errors
    ///
    /// The server cannot be reached or closed the connection before it responded.
    pub async fn send(
        self: &Arc<Self>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Parts, AnswerBody), Failure> {
        while let Some(mut connection) = self.take_idle().await {
            match exchange(&mut connection, request, None).await {
                Ok(answer) => return Ok(self.lease(connection, answer)),
                Err((_, Some(unsent))) => request = *unsent,
                Err((failure, None)) => return Err(failure),
            }
        }
        let mut connection = self.connect(None).await?;
        match exchange(&mut connection, request, None).await {
            Ok(answer) => Ok(self.lease(connection, answer)),
            Err((failure, _)) => Err(failure),
        }
    }

    /// Like [`Pool::send`], for a response whose body may be open for days. It comes on a connection
    /// of its own, which is closed at the end of the body, and takes no memory while nothing
    /// arrives, unless it has a length.
    ///
    /// # Errors
    ///
    /// The server cannot be reached or closed the connection before it responded.
    pub async fn open(
        self: &Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> Result<(Parts, AnswerBody), Failure> {
        let hold = Arc::<Hold>::default();
        let mut connection = self.connect(Some(Arc::clone(&hold))).await?;
        let answer = exchange(&mut connection, request, Some(&hold)).await;
        let answer = answer.map_err(|(failure, _)| failure)?;
        if hold.is_over()
            && !answer.body().is_end_stream()
            && let Some(framing) = Framing::of(answer.version(), answer.headers())
            && let Some(driver) = connection.driver.take()
        {
            let taken = driver.into_parts();
            let (parts, _) = answer.into_parts();
            let body = LongBody::new(taken.io, framing);
            return Ok((parts, AnswerBody(AnswerSource::Long(body))));
        }
        hold.release();
        Ok(self.lease(connection, answer))
    }

    fn lease(
        self: &Arc<Self>,
        connection: Box<Connection>,
        answer: Response<Incoming>,
    ) -> (Parts, AnswerBody) {
        let (parts, incoming) = answer.into_parts();
        let pool = Arc::clone(self);
        let mut body = HyperBody { incoming, connection: Some(connection), pool };
        if body.incoming.is_end_stream() {
            body.give_back();
        }
        (parts, AnswerBody(AnswerSource::Hyper(body)))
    }

    /// Takes an idle connection of this runtime that is still open.
    async fn take_idle(&self) -> Option<Box<Connection>> {
        let here = Handle::current().id();
        loop {
            let Idle { mut connection, since } = {
                let mut idle = lock(&self.idle);
                let last = idle.iter().rposition(|idle| idle.connection.home == here)?;
                idle.remove(last)
            };
            let fresh = since.elapsed() < self.limits.idle;
            if fresh && connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    async fn connect(&self, hold: Option<Arc<Hold>>) -> Result<Box<Connection>, Failure> {
        let connecting = async {
            let mut connector = self.connector.clone();
            poll_fn(|cx| connector.poll_ready(cx)).await.map_err(|error| causes(&*error))?;
            let url = self.address.url().clone();
            let io = connector.call(url).await.map_err(|error| causes(&*error))?;
            http1::Builder::new()
                .max_headers(self.limits.headers_max)
                .max_buf_size(self.limits.head_bytes_max.max(HEAD_BYTES_LEAST))
                .handshake(HeadFirst::new(io, hold))
                .await
                .map_err(|error| causes(&error))
        };
        let (sender, driver) = tokio::time::timeout(self.limits.connect, connecting)
            .await
            .map_err(|_| Failure::ConnectTimedOut)?
            .map_err(Failure::Unreachable)?;
        Ok(Box::new(Connection { home: Handle::current().id(), sender, driver: Some(driver) }))
    }

    fn put_idle(&self, connection: Box<Connection>) {
        let since = now();
        let mut idle = lock(&self.idle);
        let stale = idle
            .iter()
            .take_while(|kept| since.saturating_duration_since(kept.since) >= self.limits.idle)
            .count();
        idle.drain(..stale);
        if idle.len() < self.limits.idle_max {
            idle.push(Idle { connection, since });
        }
    }
}

/// The time of the tokio runtime, which tests can pause.
fn now() -> Instant {
    Instant::now()
}

type Unsent = Option<Box<Request<Full<Bytes>>>>;

/// Sends `request` and waits for the head of the response. What `hold` holds back of the response is
/// released if hyper needs it for the head.
async fn exchange(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
    hold: Option<&Hold>,
) -> Result<Response<Incoming>, (Failure, Unsent)> {
    let mut answer = pin!(connection.sender.try_send_request(request));
    let outcome = poll_fn(|cx| {
        loop {
            if let Some(driver) = &mut connection.driver
                && Pin::new(driver).poll(cx).is_ready()
            {
                // The connection ended; hyper has already told `answer` the result for this request.
                connection.driver = None;
            }
            let answer = answer.as_mut().poll(cx);
            match hold {
                Some(hold) if answer.is_pending() && hold.stopped() => hold.release(),
                _ => return answer,
            }
        }
    })
    .await;
    outcome.map_err(|mut error| {
        let unsent = error.take_message().map(Box::new);
        (Failure::Unreachable(causes(error.error())), unsent)
    })
}

/// The body of a response, with the connection that carries it.
pub struct AnswerBody(AnswerSource);

enum AnswerSource {
    Hyper(HyperBody),
    Long(LongBody),
}

/// A body that hyper reads.
struct HyperBody {
    incoming: Incoming,
    connection: Option<Box<Connection>>,
    pool: Arc<Pool>,
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").finish_non_exhaustive()
    }
}

impl AnswerBody {
    /// Reads the whole body; `None` if it is longer than `bytes_max`. A body that arrives in one
    /// piece is not copied.
    ///
    /// # Errors
    ///
    /// The connection ended before the body did.
    pub async fn whole(self, bytes_max: usize) -> Result<Option<Bytes>, Failure> {
        self.whole_within(bytes_max, |_| true).await
    }

    /// Like [`AnswerBody::whole`]; `takes` is asked with the number of bytes of each piece, and
    /// whether there is memory for it.
    ///
    /// # Errors
    ///
    /// The connection ended before the body did, or there was no memory.
    pub async fn whole_within(
        mut self,
        bytes_max: usize,
        mut takes: impl FnMut(usize) -> bool,
    ) -> Result<Option<Bytes>, Failure> {
        if self.size_hint().lower() > u64::try_from(bytes_max).unwrap_or(u64::MAX) {
            return Ok(None);
        }
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut yielded = 0_usize;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            // Trailers are ignored.
            let Ok(data) = frame?.into_data() else { continue };
            let size = first.len().saturating_add(rest.len()).saturating_add(data.len());
            if size > bytes_max {
                return Ok(None);
            }
            if !takes(data.len()) {
                return Err(Failure::BrokenOff("no memory for the answer".into()));
            }
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                // Not kept apart: a piece holds all of the buffer that it was read into.
                rest.extend_from_slice(&std::mem::take(&mut first));
                rest.extend_from_slice(&data);
            }
            // What is already there would be read in one go otherwise.
            if size.saturating_sub(yielded) >= PIECE_BYTES {
                yielded = size;
                tokio::task::yield_now().await;
            }
        }
        Ok(Some(if rest.is_empty() { first } else { rest.freeze() }))
    }
}

impl HyperBody {
    /// After the end of the body, returns the connection to the pool.
    fn give_back(&mut self) {
        if let Some(connection) = self.connection.take()
            && connection.driver.is_some()
        {
            self.pool.put_idle(connection);
        }
    }
}

impl HyperBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let mut frame = Pin::new(&mut self.incoming).poll_frame(cx);
        if frame.is_pending() {
            if let Some(connection) = &mut self.connection {
                connection.drive(cx);
            }
            frame = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        let frame = std::task::ready!(frame);
        if self.incoming.is_end_stream() || frame.is_none() {
            if let Some(connection) = &mut self.connection {
                // Poll the connection so that it notices the end of the message.
                connection.drive(cx);
            }
            self.give_back();
        }
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                self.connection = None;
                Failure::BrokenOff(causes(&error))
            })
        }))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match &mut self.0 {
            AnswerSource::Hyper(body) => body.poll_frame(cx),
            AnswerSource::Long(body) => {
                body.poll_data(cx).map(|data| data.map(|data| data.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            AnswerSource::Hyper(body) => body.incoming.is_end_stream(),
            AnswerSource::Long(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            AnswerSource::Hyper(body) => body.incoming.size_hint(),
            AnswerSource::Long(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;

    use http::HeaderValue;
    use http::header::HOST;

    use super::*;

    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// Reads one request without a body; returns whether there was one.
    fn read(stream: &mut TcpStream) -> bool {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return false;
            }
            head.push(byte[0]);
        }
        true
    }

    /// A pool that connects to a test server. The server calls `serve` with each connection and its
    /// number; what `serve` returns arrives through the channel.
    fn pool<T: Send + 'static>(
        serve: impl Fn(usize, TcpStream) -> T + Send + 'static,
    ) -> (Arc<Pool>, mpsc::Receiver<T>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::parse(&format!("http://{}/", listener.local_addr().unwrap()));
        let (to, from) = mpsc::channel();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                drop(to.send(serve(number, stream.unwrap())));
            }
        });
        let limits = PoolLimits {
            idle_max: 4,
            idle: Duration::from_secs(30),
            connect: Duration::from_secs(5),
            headers_max: 100,
            head_bytes_max: 0,
        };
        (Arc::new(Pool::new(address.unwrap(), Tls::default(), limits).unwrap()), from)
    }

    async fn get(pool: &Arc<Pool>) -> Result<AnswerBody, Failure> {
        let mut request = Request::get("/").body(Full::default()).unwrap();
        request.headers_mut().insert(HOST, HeaderValue::from_static("any"));
        Ok(pool.send(request).await?.1)
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_a_closed_one_replaced() {
        let (pool, closed) = pool(|number, mut stream| {
            for _ in 0..2 {
                assert!(read(&mut stream));
                stream.write_all(WHOLE).unwrap();
            }
            number
        });
        for number in 0..3 {
            for _ in 0..2 {
                let body = get(&pool).await.unwrap().whole(10).await.unwrap();
                assert_eq!(body.as_deref(), Some(&b"ok"[..]));
            }
            assert_eq!(closed.recv().unwrap(), number);
            // Let the runtime notice that the connection ended.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_request_that_was_written_is_not_sent_again() {
        let (pool, asked) = pool(|_, mut stream| {
            let mut asked = 0;
            while read(&mut stream) {
                asked += 1;
                if asked == 2 {
                    break;
                }
                stream.write_all(WHOLE).unwrap();
            }
            asked
        });
        get(&pool).await.unwrap().whole(10).await.unwrap();
        assert!(matches!(get(&pool).await, Err(Failure::Unreachable(_))));
        assert_eq!(asked.recv().unwrap(), 2);
        assert!(asked.try_recv().is_err(), "on one connection");
    }

    #[tokio::test]
    async fn dropping_an_answer_closes_its_connection() {
        let (pool, closed) = pool(|_, mut stream| {
            assert!(read(&mut stream));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok").unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.read(&mut [0])
        });
        let body = get(&pool).await.unwrap();
        drop(body);
        // This thread runs no other task, so the socket must be closed already.
        assert_eq!(closed.recv().unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_body_is_bounded() {
        for head in ["Content-Length: 5\r\n\r\n", "Connection: close\r\n\r\n"] {
            let (pool, _) = pool(move |_, mut stream| {
                assert!(read(&mut stream));
                stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}12345").as_bytes())
            });
            assert_eq!(get(&pool).await.unwrap().whole(4).await, Ok(None), "{head}");
            assert!(get(&pool).await.unwrap().whole(5).await.unwrap().is_some(), "{head}");
        }
    }

    /// What a test server answers, in pieces; it waits after each until the client has taken note.
    type Pieces = Vec<&'static [u8]>;

    /// The bodies of [`Pool::send`] and [`Pool::open`] for one response in pieces: all that arrived,
    /// and how it failed; and whether the latter was read without hyper.
    async fn both(pieces: Pieces) -> ([(Vec<u8>, Option<Failure>); 2], bool) {
        let (pool, _sent) = pool(move |_, mut stream| {
            stream.set_nodelay(true).unwrap();
            read(&mut stream);
            for piece in &pieces {
                stream.write_all(piece).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let mut request = Request::get("/").body(Full::default()).unwrap();
        request.headers_mut().insert(HOST, HeaderValue::from_static("any"));
        let sent = rest(pool.send(request.clone()).await).await;
        let opened = pool.open(request).await;
        let is_long = matches!(&opened, Ok((_, AnswerBody(AnswerSource::Long(_)))));
        ([sent, rest(opened).await], is_long)
    }

    async fn rest(answer: Result<(Parts, AnswerBody), Failure>) -> (Vec<u8>, Option<Failure>) {
        let (mut bytes, mut failure) = (Vec::new(), None);
        match answer {
            Ok((parts, mut body)) => {
                bytes.extend_from_slice(parts.status.as_str().as_bytes());
                while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    match frame.map(Frame::into_data) {
                        Ok(Ok(data)) => bytes.extend_from_slice(&data),
                        Ok(Err(_trailers)) => {}
                        Err(error) => failure = Some(error),
                    }
                }
            }
            Err(error) => failure = Some(error),
        }
        (bytes, failure)
    }

    /// The heads of responses, and whether what follows them is read without hyper.
    const HEADS: [(&[u8], bool); 9] = [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true),
        (b"HTTP/1.1 404 No\r\na: b\r\ntransfer-encoding: Chunked\r\n\r\n", true),
        (b"HTTP/1.1 200 OK\r\n\r\n", true),
        (b"HTTP/1.0 200 OK\r\n\r\n", true),
        (b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", false),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        (b"HTTP/1.1 204 None\r\n\r\n", false),
    ];

    /// Bodies, whole and broken.
    const BODIES: [&[u8]; 22] = [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n00A;name=value\r\n0123456789\r\n0\r\n\r\n",
        b"5 \t\r\nhello\r\n0\r\nTrailer: one\r\nOther: two\r\n\r\n",
        b"4\r\n\r\n\r\n\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        b"0\r\n\r\nmore",
        b"5\r\nhello",
        b"5\r\nhel",
        b"5\r\nhello\r\n",
        b"5\r\nhello\r\n0\r\n",
        b"5\r\nhello\r\n0\r\n\r",
        b"",
        b"5\nhello\r\n0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b";a\r\n\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"10000000000000000\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\na\n\r\n",
    ];

    #[tokio::test]
    async fn a_long_body_is_read_as_hyper_reads_it() {
        for (head, is_long) in HEADS {
            for body in BODIES {
                let whole = [head, body].concat().leak();
                let middle = head.len().saturating_add(body.len() / 2);
                for cuts in [vec![], vec![head.len()], vec![middle], vec![head.len() - 1, middle]] {
                    let mut pieces: Pieces = Vec::new();
                    let mut from = 0;
                    for cut in cuts {
                        pieces.push(&whole[from..cut]);
                        from = cut;
                    }
                    pieces.push(&whole[from..]);
                    let shown = String::from_utf8_lossy(whole).into_owned();
                    let ([sent, opened], long) = both(pieces).await;
                    assert_eq!(long, is_long, "{shown:?}");
                    assert_eq!(sent.0, opened.0, "{shown:?}");
                    assert_eq!(sent.1.is_some(), opened.1.is_some(), "{shown:?}: {opened:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_ignored_in_a_long_body_is_bounded() {
        for (beside, fits) in [(16 << 10, true), ((16 << 10) + 1, false)] {
            for body in [
                format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(beside)),
                format!("5{}\r\nhello\r\n0\r\n\r\n", " ".repeat(beside)),
                format!("5\r\nhello\r\n0\r\n{}\r\n\r\n", "x".repeat(beside)),
            ] {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let whole = format!("{head}{body}").leak().as_bytes();
                let ([_, opened], long) = both(vec![whole]).await;
                assert!(long && opened.1.is_none() == fits, "{beside}: {opened:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_request_that_is_not_written_yet_stays_with_hyper() {
        const BYTES: usize = 8 << 20;
        let (pool, got) = pool(|_, mut stream| {
            // The answer comes before the request has been read, but not before it begins.
            let mut piece = vec![0; 1 << 16];
            let mut got = stream.read(&mut piece).unwrap();
            stream.write_all(HEADS[0].0).unwrap();
            stream.write_all(BODIES[0]).unwrap();
            while let Ok(read @ 1..) = stream.read(&mut piece) {
                got += read;
            }
            got
        });
        let mut request = Request::post("/").body(Full::from(vec![b'x'; BYTES])).unwrap();
        request.headers_mut().insert(HOST, HeaderValue::from_static("any"));
        let (bytes, failure) = rest(pool.open(request).await).await;
        assert_eq!((&*bytes, failure), (&b"200hello"[..], None));
        drop(pool);
        got.recv().unwrap();
    }
}
