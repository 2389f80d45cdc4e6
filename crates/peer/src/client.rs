//! The HTTP transport of rmcp's client, over hyper.
//!
//! rmcp brings reqwest for this; this module avoids that dependency. It speaks plain HTTP to
//! loopback, follows no redirects and retries nothing. [`HttpClient::post`] also sends bytes that
//! no MCP library would send.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::common::client_side_sse::BoxedSseResponse;
use rmcp::transport::common::http_header::{
    EVENT_STREAM_MIME_TYPE, HEADER_LAST_EVENT_ID, HEADER_SESSION_ID, JSON_MIME_TYPE,
};
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::SseStream;

use bartizan_sync::lock;

/// Most characters of a server's text that an error shows.
const TEXT_CHARS_MAX: usize = 400;

/// Largest answer that is read whole, and most bytes that one event stream may carry.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Most sent bodies that are kept.
const SENT_MAX: usize = 256;

/// Why an HTTP exchange failed.
#[derive(Debug)]
pub enum HttpFault {
    /// The request could not be built.
    Request(http::Error),
    /// The server could not be reached or did not answer.
    Connection(hyper_util::client::legacy::Error),
    /// The answer ended early or was too large.
    Body(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for HttpFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => write!(f, "cannot build the request: {error}"),
            Self::Connection(error) => write!(f, "no answer: {error}"),
            Self::Body(error) => write!(f, "cannot read the answer: {error}"),
        }
    }
}

impl std::error::Error for HttpFault {}

type Fault = StreamableHttpError<HttpFault>;

/// A pooled HTTP/1.1 client that keeps the last 256 bodies that it sent.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
    sent: Arc<Mutex<VecDeque<Bytes>>>,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient {
    /// A client without connections.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, sent: Arc::default() }
    }

    /// Whether exactly these bytes are among the kept bodies.
    pub fn sent(&self, body: &Bytes) -> bool {
        lock(&self.sent).contains(body)
    }

    fn remember(&self, body: &Bytes) {
        let mut sent = lock(&self.sent);
        if sent.len() >= SENT_MAX {
            sent.pop_front();
        }
        sent.push_back(body.clone());
    }

    /// Sends `body` unchanged with `headers`, `Accept` and `Content-Type`, and reads the answer
    /// whole. Fails if the request cannot be built or sent, or the answer not be read.
    pub async fn post(
        &self,
        uri: &str,
        headers: &[(&'static str, &str)],
        body: &'static str,
    ) -> Result<(StatusCode, Bytes), HttpFault> {
        let mut request = request(Method::POST, uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Bytes::from_static(body.as_bytes());
        self.remember(&body);
        let request = request.body(Full::new(body)).map_err(HttpFault::Request)?;
        let answer = self.client.request(request).await.map_err(HttpFault::Connection)?;
        let status = answer.status();
        Ok((status, whole(answer.into_body()).await?))
    }

    async fn send(
        &self,
        mut request: http::request::Builder,
        extras: RequestExtras,
        body: Bytes,
    ) -> Result<Response<Incoming>, Fault> {
        for (name, value) in extras.headers {
            // A caller of rmcp may add headers, but not those that the transport itself sets.
            if name == HOST || name == ACCEPT || name.as_str() == "mcp-session-id" {
                return Err(StreamableHttpError::ReservedHeaderConflict(name.to_string()));
            }
            request = request.header(name, value);
        }
        if let Some(token) = extras.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(session) = extras.session {
            request = request.header(HEADER_SESSION_ID, &*session);
        }
        self.remember(&body);
        let request = request.body(Full::new(body)).map_err(HttpFault::Request);
        let request = request.map_err(StreamableHttpError::Client)?;
        let answer = self.client.request(request).await.map_err(HttpFault::Connection);
        answer.map_err(StreamableHttpError::Client)
    }
}

/// What rmcp sends besides the message.
struct RequestExtras {
    session: Option<Arc<str>>,
    token: Option<String>,
    headers: HashMap<HeaderName, HeaderValue>,
}

impl StreamableHttpClient for HttpClient {
    type Error = HttpFault;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Fault> {
        let had_session = session_id.is_some();
        let extras =
            RequestExtras { session: session_id, token: auth_header, headers: custom_headers };
        let body = Bytes::from(serde_json::to_vec(&message)?);
        let answer = self.send(request(Method::POST, &uri), extras, body).await?;
        let status = answer.status();
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if status == StatusCode::NOT_FOUND && had_session {
            return Err(StreamableHttpError::SessionExpired);
        }
        let session = header(&answer, HEADER_SESSION_ID);
        let kind = header(&answer, CONTENT_TYPE.as_str()).unwrap_or_default();
        if status.is_success() && kind.starts_with(EVENT_STREAM_MIME_TYPE) {
            return Ok(StreamableHttpPostResponse::Sse(events(answer.into_body()), session));
        }
        let body = whole(answer.into_body()).await.map_err(StreamableHttpError::Client)?;
        let text = String::from_utf8_lossy(&body);
        // A 4xx answer of the modern era carries a JSON-RPC error (MCP 2026-07-28,
        // basic/transports/streamable-http); returned as such, rmcp reports it to the caller
        // instead of a transport failure.
        let message = serde_json::from_str::<ServerJsonRpcMessage>(&text).ok().filter(|message| {
            status.is_success() || matches!(message, ServerJsonRpcMessage::Error(_))
        });
        message.map(|message| StreamableHttpPostResponse::Json(message, session)).ok_or_else(|| {
            let text = format!("HTTP {status}: {}", escaped(&text));
            StreamableHttpError::UnexpectedServerResponse(Cow::Owned(text))
        })
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Fault> {
        let extras = RequestExtras {
            session: Some(session_id),
            token: auth_header,
            headers: custom_headers,
        };
        let answer = self.send(request(Method::DELETE, &uri), extras, Bytes::new()).await?;
        match answer.status() {
            StatusCode::METHOD_NOT_ALLOWED => {
                Err(StreamableHttpError::ServerDoesNotSupportDeleteSession)
            }
            status if status.is_success() => Ok(()),
            status => Err(unexpected(status)),
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxedSseResponse, Fault> {
        let mut request = request(Method::GET, &uri);
        if let Some(id) = last_event_id {
            request = request.header(HEADER_LAST_EVENT_ID, id);
        }
        let extras =
            RequestExtras { session: session_id, token: auth_header, headers: custom_headers };
        let answer = self.send(request, extras, Bytes::new()).await?;
        match answer.status() {
            StatusCode::METHOD_NOT_ALLOWED => Err(StreamableHttpError::ServerDoesNotSupportSse),
            status if status.is_success() => Ok(events(answer.into_body())),
            status => Err(unexpected(status)),
        }
    }
}

fn request(method: Method, uri: &str) -> http::request::Builder {
    let accepted = format!("{JSON_MIME_TYPE}, {EVENT_STREAM_MIME_TYPE}");
    let request = Request::builder().uri(uri).header(ACCEPT, accepted);
    let request =
        if method == Method::POST { request.header(CONTENT_TYPE, JSON_MIME_TYPE) } else { request };
    request.method(method)
}

fn header(answer: &Response<Incoming>, name: &str) -> Option<String> {
    answer.headers().get(name)?.to_str().ok().map(str::to_owned)
}

fn events(body: Incoming) -> BoxedSseResponse {
    let body = Limited::new(body, ANSWER_BYTES_MAX).map_err(std::io::Error::other);
    Box::pin(SseStream::new(body))
}

async fn whole(body: Incoming) -> Result<Bytes, HttpFault> {
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(HttpFault::Body)?;
    Ok(body.to_bytes())
}

fn unexpected(status: StatusCode) -> Fault {
    StreamableHttpError::UnexpectedServerResponse(Cow::Owned(format!("HTTP {status}")))
}

/// `text`, at most [`TEXT_CHARS_MAX`] characters of it, with control characters escaped.
fn escaped(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).flat_map(char::escape_debug).collect()
}
