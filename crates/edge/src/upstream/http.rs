//! A protected server over Streamable HTTP.
//!
//! The configuration fixes the connection: address, credentials and TLS roots. Only headers of an
//! allow-list are forwarded from the client (P13), never one that the sidecar sets itself.
//! Redirects are not followed, answers are not decompressed, and a request that may have been
//! written is never sent again. The only timeout here is that of connecting: the caller knows
//! whether it waits for an answer or for a stream.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT, WWW_AUTHENTICATE,
};
use ::http::response::Parts;
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use bartizan_gate::evidence::step::{Dispatch, Permitted};
use bartizan_gate::session::UpstreamFailure;
use bartizan_gate::wire::method::Role;
use bartizan_outbound::address::Address;
use bartizan_outbound::pool::{AnswerBody, Pool, PoolLimits};
use bartizan_outbound::tls::Tls;
use bartizan_outbound::{Failure, SetUpError, is_coded};
use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt as _, Full};

use super::{LAST_EVENT_ID, Media, SESSION_ID, SendContext, media};
use crate::budget::YieldingBudget;
use crate::sse::SseBody;
use crate::{Answer, AnswerMemory, EventStream};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// An answer of at most so many bytes is not counted.
const SMALL_BYTES: u64 = 16 << 10;
/// The buffer of a connection from which a large answer is read, bytes: it counts as well.
const BUFFER_BYTES: u64 = 64 << 10;
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// The configuration of an HTTP server.
pub struct HttpUpstreamConfig {
    /// Its URL, `http` or `https`. Nothing of a client's request target is added to it.
    pub url: String,
    /// Headers set on every request. They replace the client's headers of the same name and are
    /// never logged.
    pub headers: HeaderMap,
    /// Names, in lower case, of headers that only the sidecar may set: the client's are dropped
    /// even if `headers` has no value for them.
    pub owned_headers: Vec<Box<str>>,
    /// Whether the client's `Authorization` is forwarded. Only safe if this sidecar and the server
    /// are one resource to the authorization server (MCP, security best practices, "Token
    /// Passthrough").
    pub forward_authorization: bool,
    /// Headers of the client's trace context that are forwarded beside `traceparent`: `tracestate`,
    /// `baggage`. What they hold is the client's choice.
    pub context: Vec<HeaderName>,
    /// PEM root certificates to trust instead of the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Bounds.
    pub limits: HttpUpstreamLimits,
}

impl fmt::Debug for HttpUpstreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpUpstreamConfig").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Limits of an HTTP server's answers and connections.
#[derive(Debug, Clone, Copy)]
pub struct HttpUpstreamLimits {
    /// Largest answer in one body, bytes.
    pub answer_bytes_max: usize,
    /// Largest body of an error answer that is forwarded, bytes; a larger one is dropped. Also the
    /// largest answer that is no MCP message, such as metadata.
    pub error_bytes_max: usize,
    /// Bytes of all answers in one body that are arriving or have not been judged, without those of
    /// at most 16 KiB; at least `answer_bytes_max`. An answer that is not complete gives way to later
    /// ones.
    pub arriving_bytes_max: u64,
    /// Largest event of a stream, bytes.
    pub event_bytes_max: usize,
    /// Most header fields of an answer.
    pub headers_max: usize,
    /// Largest head of an answer, bytes; at least 8192.
    pub head_bytes_max: usize,
    /// Most idle connections that are kept.
    pub idle_connections_max: usize,
    /// How long an idle connection is kept.
    pub idle: Duration,
    /// Timeout of connecting, DNS and TLS included.
    pub connect: Duration,
}

impl Default for HttpUpstreamLimits {
    fn default() -> Self {
        Self {
            answer_bytes_max: 4 << 20,
            error_bytes_max: 64 << 10,
            arriving_bytes_max: 16 << 20,
            event_bytes_max: 4 << 20,
            headers_max: 100,
            head_bytes_max: 64 << 10,
            idle_connections_max: 256,
            idle: Duration::from_secs(30),
            connect: Duration::from_secs(5),
        }
    }
}

/// An HTTP server and the connections to it.
pub struct HttpUpstream {
    pool: Arc<Pool>,
    target: Uri,
    /// Headers of every request: host, configured headers, and the accepted content coding.
    base: HeaderMap,
    owned: BTreeSet<Box<str>>,
    forward_authorization: bool,
    context: Vec<HeaderName>,
    own_credential: bool,
    arriving: Arc<YieldingBudget>,
    limits: HttpUpstreamLimits,
}

// Addresses and headers may hold secrets.
impl fmt::Debug for HttpUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpUpstream").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl HttpUpstream {
    /// Prepares the way; connects to nothing yet.
    pub fn new(config: HttpUpstreamConfig) -> Result<Self, SetUpError> {
        let HttpUpstreamConfig { url, headers, owned_headers, .. } = config;
        let address = Address::parse(&url)?;
        let host = address.host().clone();
        let target = address.url().path_and_query().cloned();
        let target = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
        let limits = config.limits;
        let pool = PoolLimits {
            idle_max: limits.idle_connections_max,
            idle: limits.idle,
            connect: limits.connect,
            headers_max: limits.headers_max,
            head_bytes_max: limits.head_bytes_max,
        };
        let tls = Tls { ca_pem: config.ca_pem, client_certificate: None };
        let pool = Arc::new(Pool::new(address, tls, pool)?);
        let mut base = HeaderMap::new();
        base.extend(headers);
        for value in base.values_mut() {
            value.set_sensitive(true);
        }
        let mut owned: BTreeSet<Box<str>> =
            owned_headers.iter().map(|name| name.to_ascii_lowercase().into()).collect();
        owned.extend(base.keys().map(|name| Box::from(name.as_str())));
        base.insert(HOST, host);
        // A coded answer could not be judged (threat B9).
        base.insert(ACCEPT_ENCODING, IDENTITY);
        Ok(Self {
            pool,
            target,
            base,
            owned,
            forward_authorization: config.forward_authorization,
            context: config.context,
            own_credential: false,
            arriving: YieldingBudget::new(
                limits
                    .arriving_bytes_max
                    .max(u64::try_from(limits.answer_bytes_max).unwrap_or(u64::MAX)),
            ),
            limits,
        })
    }

    /// For a route that verifies clients' tokens itself. A 401 or 403 of the server is then about
    /// our own credential: the client cannot fix it, so it becomes a failure, and the server's
    /// challenges are removed.
    #[must_use]
    pub fn with_own_credential(self) -> Self {
        Self { own_credential: true, ..self }
    }

    /// Sends `permitted` and waits for the answer, or for the head of its stream. Fails if a 2xx
    /// answer is neither JSON, an event stream nor empty, or if the server cannot be reached. There
    /// is no timeout: the caller sets one.
    pub async fn send(
        &self,
        permitted: Permitted,
        context: &SendContext,
    ) -> Result<Answer, UpstreamFailure> {
        let dispatch = permitted.dispatch();
        let method = match dispatch {
            Dispatch::Message => Method::POST,
            Dispatch::OpenStream => Method::GET,
            Dispatch::EndSession => Method::DELETE,
        };
        let headers = self.headers(&permitted, &context.headers, context.session.as_deref());
        let request = Self::request(method, self.target.clone(), headers, permitted.body().clone());
        let listens = permitted.method().is_some_and(|method| method.role == Role::Listen);
        // `permitted` is consumed: it cannot be sent again.
        drop(permitted);
        let sent = if listens || dispatch == Dispatch::OpenStream {
            self.pool.open(request).await
        } else {
            self.pool.send(request).await
        };
        let (parts, body) = sent.map_err(failed)?;
        self.answer(dispatch == Dispatch::EndSession, parts, body).await
    }

    /// Opens the stream of the HTTP+SSE transport with the headers of the session's first message.
    pub(super) async fn open_legacy(
        &self,
        mut headers: HeaderMap,
    ) -> Result<Answer, UpstreamFailure> {
        headers.remove(CONTENT_TYPE);
        headers.insert(ACCEPT, EVENT_STREAM);
        let request = Self::request(Method::GET, self.target.clone(), headers, Bytes::new());
        let (parts, body) = self.pool.open(request).await.map_err(failed)?;
        self.answer(false, parts, body).await
    }

    /// Posts a message of the HTTP+SSE transport to `endpoint`, a target on this server. A success
    /// only means that it was accepted.
    pub(super) async fn post_legacy(
        &self,
        endpoint: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, UpstreamFailure> {
        let request = Self::request(Method::POST, endpoint, headers, body);
        let (parts, body) = self.pool.send(request).await.map_err(failed)?;
        self.answer(true, parts, body).await
    }

    /// The configured address.
    pub(crate) fn address(&self) -> &Uri {
        self.pool.address().url()
    }

    fn request(
        method: Method,
        target: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target;
        *request.headers_mut() = headers;
        request
    }

    /// Sends a request that is no MCP message to the server's origin. `request` has its path and
    /// all of its headers except the host; no header of ours is added, so no credential is sent.
    /// The answer is read whole, whatever its status; a content coding is refused. There is no
    /// timeout: the caller sets one.
    pub async fn ask(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, UpstreamFailure> {
        let headers = request.headers_mut();
        headers.extend(self.base.get(HOST).map(|host| (HOST, host.clone())));
        headers.insert(ACCEPT_ENCODING, IDENTITY);
        let (parts, body) = self.pool.send(request).await.map_err(failed)?;
        if is_coded(&parts.headers) {
            return Err(UpstreamFailure::Unreadable("a content coding".into()));
        }
        let max = self.limits.error_bytes_max;
        let body = collect(body, max).await?.ok_or_else(|| {
            UpstreamFailure::Unreadable(format!("a body larger than {max} bytes"))
        })?;
        Ok(Response::from_parts(parts, body))
    }

    /// The headers of one request: ours, and those of the client that are on the allow-list.
    pub(super) fn headers(
        &self,
        permitted: &Permitted,
        client: &HeaderMap,
        session: Option<&str>,
    ) -> HeaderMap {
        let dispatch = permitted.dispatch();
        let mut headers = self.base.clone();
        for (name, value) in client {
            if self.passes(name, dispatch) {
                headers.append(name, value.clone());
            }
        }
        if dispatch == Dispatch::Message {
            headers.insert(CONTENT_TYPE, JSON);
        }
        if let Some(session) = session.map(HeaderValue::from_str) {
            headers.extend(session.ok().map(|session| (SESSION_ID, session)));
        }
        let context = permitted.routing().traceparent.as_deref().map(HeaderValue::from_str);
        if let Some(Ok(context)) = context {
            headers.insert("traceparent", context);
        }
        for (name, value) in &permitted.routing().params {
            let Ok(name) = HeaderName::try_from(&**name) else { continue };
            if !self.owned.contains(name.as_str()) {
                headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
            }
        }
        headers
    }

    /// The allow-list of P13: headers of MCP, `traceparent`, `Accept`, `User-Agent`, and what the
    /// configuration names: `Authorization`, `tracestate`, `baggage`. `Mcp-Param-*` come from the
    /// gate.
    fn passes(&self, name: &HeaderName, dispatch: Dispatch) -> bool {
        if *name == AUTHORIZATION {
            return self.forward_authorization && !self.owned.contains(name.as_str());
        }
        let listed = *name == ACCEPT
            || *name == USER_AGENT
            || (*name == LAST_EVENT_ID && dispatch == Dispatch::OpenStream)
            || matches!(
                name.as_str(),
                "mcp-protocol-version" | "mcp-method" | "mcp-name" | "traceparent"
            )
            || self.context.contains(name);
        listed && !self.owned.contains(name.as_str())
    }

    /// Turns the server's response into an answer. `mute`: ignore the body of a success.
    async fn answer(
        &self,
        mute: bool,
        parts: Parts,
        body: AnswerBody,
    ) -> Result<Answer, UpstreamFailure> {
        let Parts { status, mut headers, .. } = parts;
        let code = status.as_u16();
        if self.own_credential {
            headers.remove(WWW_AUTHENTICATE);
        }
        if !status.is_success() {
            return self.error_answer(status, headers, body).await;
        }
        if is_coded(&headers) {
            return Err(UpstreamFailure::Unreadable("a content coding".into()));
        }
        let empty =
            matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) || body.is_end_stream();
        if empty || mute {
            // The body is ignored; reading it lets the connection be reused if it is short.
            drop(collect(body, self.limits.error_bytes_max).await?);
            return Ok(Answer::Accepted { status: code, headers });
        }
        match media(&headers) {
            Some(Media::EventStream) => {
                let events =
                    SseBody::new(body.map_err(failed).boxed_unsync(), self.limits.event_bytes_max);
                Ok(Answer::Stream {
                    status: code,
                    headers,
                    events: EventStream::Sse(Box::new(events)),
                })
            }
            Some(Media::Json) => match self.collect(body, self.limits.answer_bytes_max).await? {
                Some((body, _)) if body.is_empty() => {
                    Ok(Answer::Accepted { status: code, headers })
                }
                Some((body, memory)) => Ok(Answer::Whole { status: code, headers, body, memory }),
                None => {
                    let max = self.limits.answer_bytes_max;
                    Err(UpstreamFailure::Unreadable(format!("a body larger than {max} bytes")))
                }
            },
            None => Err(UpstreamFailure::Unreadable(
                "a content type that is neither JSON nor an event stream, in UTF-8".into(),
            )),
        }
    }

    /// The whole body of an answer, with what it holds of the memory for answers; nothing if it is
    /// longer than `max` bytes. If that memory runs out, those that arrive longest fail first (threat
    /// K9). One that has arrived whole keeps its part until it has been judged: otherwise a server
    /// that answers faster than its answers are judged would fill the memory (threat K12).
    async fn collect(
        &self,
        body: AnswerBody,
        max: usize,
    ) -> Result<Option<(Bytes, AnswerMemory)>, UpstreamFailure> {
        if body.size_hint().upper().is_some_and(|bytes| bytes <= SMALL_BYTES) {
            let whole = collect(body, max).await?;
            return Ok(whole.map(|whole| (whole, AnswerMemory::default())));
        }
        let none = || UpstreamFailure::Unreadable("no memory for the answer".into());
        let begun = self.arriving.take(BUFFER_BYTES).ok_or_else(none)?;
        let hold = self.arriving.hold(begun, || {});
        let takes = |bytes: usize| hold.grow(u64::try_from(bytes).unwrap_or(u64::MAX));
        let whole = tokio::select! {
            biased;
            () = hold.gave_way().cancelled() => return Err(none()),
            whole = body.whole_within(max, takes) => whole.map_err(failed)?,
        };
        let Some(whole) = whole else { return Ok(None) };
        let memory = hold.finish().ok_or_else(none)?;
        Ok(Some((whole, AnswerMemory { _reserved: Some(memory) })))
    }

    async fn error_answer(
        &self,
        status: StatusCode,
        headers: HeaderMap,
        body: AnswerBody,
    ) -> Result<Answer, UpstreamFailure> {
        let refuses_us = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && self.own_credential;
        // A redirect could lead the client around the sidecar, and who takes 101 for an answer takes
        // what follows for another protocol (threat E14).
        let leads_away = status.is_redirection() || status.is_informational();
        if leads_away || is_coded(&headers) || refuses_us {
            return Err(UpstreamFailure::Status(status.as_u16()));
        }
        let whole = self.collect(body, self.limits.error_bytes_max).await?;
        let (body, memory) = whole.unwrap_or_default();
        Ok(Answer::Whole { status: status.as_u16(), headers, body, memory })
    }
}

/// The whole of `body`; nothing if it is longer than `max` bytes.
async fn collect(body: AnswerBody, max: usize) -> Result<Option<Bytes>, UpstreamFailure> {
    body.whole(max).await.map_err(failed)
}

fn failed(failure: Failure) -> UpstreamFailure {
    match failure {
        Failure::Unreachable(why) => UpstreamFailure::Unreachable(why),
        Failure::ConnectTimedOut => UpstreamFailure::TimedOut,
        Failure::BrokenOff(why) => UpstreamFailure::Unreadable(why),
    }
}
