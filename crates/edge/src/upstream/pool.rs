//! Connections to one protected server, kept between exchanges.
//!
//! A connection is driven by whoever uses it and not by a task of its own: a request then costs
//! no hop between tasks on the way up or down, and dropping the user closes the socket at once,
//! which is how a server learns that its client went away. HTTP/1.1 only. A request is sent once:
//! it is given to another connection only if hyper hands it back with not one byte written.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::response::Parts;
use ::http::{Request, Uri};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service as _;

use crate::clock::Clock;
use bartizan_gate::session::UpstreamFailure;

type Io = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Bounds of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct PoolLimits {
    /// Connections kept while nobody uses them.
    pub(super) idle_max: usize,
    /// How long one is kept so.
    pub(super) idle: Duration,
    /// How long connecting may take, name look-up and TLS included.
    pub(super) connect: Duration,
    /// Header fields of an answer.
    pub(super) headers_max: usize,
    /// Bytes of an answer's head.
    pub(super) head_bytes_max: usize,
}

struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Absent once it has ended.
    driver: Option<http1::Connection<Io, Full<Bytes>>>,
}

impl Connection {
    /// Does what can be done now.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    /// Whether a request can be sent on it at once.
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
    since: Duration,
}

/// Connections to one address.
pub(super) struct Pool {
    address: Uri,
    connector: HttpsConnector<HttpConnector>,
    limits: PoolLimits,
    clock: Clock,
    /// Last used last; used in that order, so that a quiet time lets the rest grow old.
    idle: Mutex<Vec<Idle>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(
        address: Uri,
        connector: HttpsConnector<HttpConnector>,
        limits: PoolLimits,
    ) -> Self {
        let clock = Clock::start();
        Self { address, connector, limits, clock, idle: Mutex::new(Vec::new()) }
    }

    /// Whose connections these are.
    pub(super) fn address(&self) -> &Uri {
        &self.address
    }

    /// Sends `request` and waits for the head of its answer.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Parts, AnswerBody), UpstreamFailure> {
        while let Some(mut connection) = self.kept().await {
            match exchange(&mut connection, request).await {
                Ok(answer) => return Ok(self.lease(connection, answer)),
                Err((_, Some(unsent))) => request = *unsent,
                Err((failure, None)) => return Err(failure),
            }
        }
        let mut connection = self.connect().await?;
        match exchange(&mut connection, request).await {
            Ok(answer) => Ok(self.lease(connection, answer)),
            Err((failure, _)) => Err(failure),
        }
    }

    fn lease(
        self: &Arc<Self>,
        connection: Box<Connection>,
        answer: ::http::Response<Incoming>,
    ) -> (Parts, AnswerBody) {
        let (parts, incoming) = answer.into_parts();
        let mut body =
            AnswerBody { incoming, connection: Some(connection), pool: Arc::clone(self) };
        if body.incoming.is_end_stream() {
            body.give_back();
        }
        (parts, body)
    }

    /// A kept connection that still stands.
    async fn kept(&self) -> Option<Box<Connection>> {
        loop {
            let Idle { mut connection, since } =
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            let fresh = self.clock.uptime().saturating_sub(since) < self.limits.idle;
            if fresh && connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Box<Connection>, UpstreamFailure> {
        let connecting = async {
            let mut connector = self.connector.clone();
            poll_fn(|cx| connector.poll_ready(cx)).await.map_err(|error| causes(&*error))?;
            let io = connector.call(self.address.clone()).await.map_err(|error| causes(&*error))?;
            http1::Builder::new()
                .max_headers(self.limits.headers_max)
                .max_buf_size(self.limits.head_bytes_max)
                .handshake(io)
                .await
                .map_err(|error| causes(&error))
        };
        let (sender, driver) = tokio::time::timeout(self.limits.connect, connecting)
            .await
            .map_err(|_| UpstreamFailure::TimedOut)?
            .map_err(UpstreamFailure::Unreachable)?;
        Ok(Box::new(Connection { sender, driver: Some(driver) }))
    }

    fn keep(&self, connection: Box<Connection>) {
        let since = self.clock.uptime();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = idle
            .iter()
            .take_while(|kept| since.saturating_sub(kept.since) >= self.limits.idle)
            .count();
        idle.drain(..stale);
        if idle.len() < self.limits.idle_max {
            idle.push(Idle { connection, since });
        }
    }
}

type Unsent = Option<Box<Request<Full<Bytes>>>>;

async fn exchange(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<::http::Response<Incoming>, (UpstreamFailure, Unsent)> {
    let mut answer = pin!(connection.sender.try_send_request(request));
    let outcome = poll_fn(|cx| {
        if let Some(driver) = &mut connection.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            // Ended: whatever it had to say about the request it has said.
            connection.driver = None;
        }
        answer.as_mut().poll(cx)
    })
    .await;
    outcome.map_err(|mut error| {
        let unsent = error.take_message().map(Box::new);
        (UpstreamFailure::Unreachable(causes(error.error())), unsent)
    })
}

/// An answer's body and the connection that it comes on.
pub(super) struct AnswerBody {
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
    /// The body is over, so the connection can serve another exchange.
    fn give_back(&mut self) {
        if let Some(connection) = self.connection.take()
            && connection.driver.is_some()
        {
            self.pool.keep(connection);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = UpstreamFailure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamFailure>>> {
        let this = &mut *self;
        let mut frame = Pin::new(&mut this.incoming).poll_frame(cx);
        if frame.is_pending() {
            if let Some(connection) = &mut this.connection {
                connection.drive(cx);
            }
            frame = Pin::new(&mut this.incoming).poll_frame(cx);
        }
        let frame = std::task::ready!(frame);
        if this.incoming.is_end_stream() || frame.is_none() {
            if let Some(connection) = &mut this.connection {
                // Lets it notice that the message is over.
                connection.drive(cx);
            }
            this.give_back();
        }
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                this.connection = None;
                UpstreamFailure::Unreadable(causes(&error))
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// An error and everything under it, for the operator.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
