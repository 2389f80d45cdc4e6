//! A client for unary gRPC calls to services that Bartizan itself uses (gRPC over HTTP2: "PROTOCOL-
//! HTTP2.md" of gRPC), over hyper's HTTP/2 and without a gRPC library: `docs/decisions/0043-grpc.md`.
//!
//! One connection is kept, and the tasks that drive it end with the client. Over `http` HTTP/2 is
//! spoken at once; over `https` it is negotiated (ALPN). Messages are sent as the caller compressed
//! them; compressed answers are refused. Each call has a deadline and a limit on the answer's size.

use std::fmt;
use std::future::poll_fn;
use std::sync::Mutex;
use std::time::Duration;

use bartizan_sync::lock;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, TE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::address::{Address, Connector};
use crate::service::{AGENT, BearerToken, ServiceConfig, ServiceFailure};
use crate::tls::Tls;
use crate::{SetUpError, causes};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Largest size of the header fields of an answer, bytes.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// Longest status message that is kept, bytes.
const MESSAGE_BYTES_MAX: usize = 512;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const DEADLINE: HeaderName = HeaderName::from_static("grpc-timeout");

/// How binary metadata is encoded: base64, and receivers take it with padding and without.
const BINARY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One call.
#[derive(Debug)]
pub struct GrpcCall {
    /// `/package.Service/Method`.
    pub method: PathAndQuery,
    /// Additional headers (metadata).
    pub headers: HeaderMap,
    /// The request message, encoded.
    pub message: Bytes,
    /// How `message` is compressed, as `grpc-encoding` names it; `None` if it is not.
    pub encoding: Option<HeaderValue>,
    /// Largest size of the answer, bytes.
    pub bytes_max: usize,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcAnswer {
    /// The status code; 0 is success.
    pub code: u32,
    /// The status message, as it was sent.
    pub message: String,
    /// The details of a status (`grpc-status-details-bin`): a `google.rpc.Status`, encoded; empty
    /// without them.
    pub details: Bytes,
    /// The answer's message, encoded; empty without one.
    pub body: Bytes,
}

/// A client for one gRPC service.
pub struct GrpcService {
    address: Address,
    connector: Connector,
    token: BearerToken,
    timeout: Duration,
    kept: Mutex<Option<SendRequest<Full<Bytes>>>>,
    tasks: TaskTracker,
}

// By hand, because addresses and tokens may be secret.
impl fmt::Debug for GrpcService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcService").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Runs the tasks of hyper's connections.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        drop(self.0.spawn(task));
    }
}

impl GrpcService {
    /// Prepares a client; opens no connection yet.
    ///
    /// # Errors
    ///
    /// The token or TLS settings cannot be used.
    pub fn new(config: ServiceConfig) -> Result<Self, SetUpError> {
        let ServiceConfig { address, ca_pem, credentials, timeout } = config;
        let (token, client_certificate) = credentials.split()?;
        let connector = address.http2_connector(Tls { ca_pem, client_certificate })?;
        let (kept, tasks) = (Mutex::default(), TaskTracker::new());
        Ok(Self { address, connector, token, timeout, kept, tasks })
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    ///
    /// Any [`ServiceFailure`]; a status other than 0 is not one.
    pub async fn call(&self, call: GrpcCall) -> Result<GrpcAnswer, ServiceFailure> {
        let done = tokio::time::timeout(self.timeout, self.exchange(call)).await;
        let done = done.unwrap_or(Err(ServiceFailure::Late));
        if done.is_err() {
            // Whatever is wrong with the connection, the next call has another one.
            *lock(&self.kept) = None;
        }
        done
    }

    async fn exchange(&self, call: GrpcCall) -> Result<GrpcAnswer, ServiceFailure> {
        let bytes_max = call.bytes_max;
        let request = self.request(call).await?;
        let broken = |error: hyper::Error| ServiceFailure::Unreachable(causes(&error));
        let kept = lock(&self.kept).clone().filter(|kept| !kept.is_closed());
        let answer = match kept {
            Some(mut kept) => match kept.try_send_request(request).await {
                Ok(answer) => answer,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => {
                        self.connect().await?.send_request(unsent).await.map_err(broken)?
                    }
                    None => return Err(broken(error.into_error())),
                },
            },
            None => self.connect().await?.send_request(request).await.map_err(broken)?,
        };
        let (head, body) = answer.into_parts();
        if head.status != StatusCode::OK {
            let message = format!("HTTP status {}", head.status.as_u16());
            let (code, details, body) = (code_of(head.status), Bytes::new(), Bytes::new());
            return Ok(GrpcAnswer { code, message, details, body });
        }
        let body = Limited::new(body, bytes_max.saturating_add(PREFIX_BYTES)).collect().await;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                ServiceFailure::TooLarge(bytes_max)
            } else {
                ServiceFailure::Unreachable(causes(&*error))
            }
        })?;
        // An answer without a message has its status in the header.
        let trailers = body.trailers().cloned();
        let status = trailers
            .as_ref()
            .and_then(status_in)
            .or_else(|| status_in(&head.headers))
            .ok_or_else(|| ServiceFailure::Unreachable("it sent no gRPC status".to_owned()))?;
        Ok(GrpcAnswer { body: unframed(body.to_bytes())?, ..status })
    }

    async fn request(&self, call: GrpcCall) -> Result<Request<Full<Bytes>>, ServiceFailure> {
        let length = u32::try_from(call.message.len())
            .map_err(|_| ServiceFailure::Unreachable("the message is too large".to_owned()))?;
        let mut framed = BytesMut::with_capacity(call.message.len().saturating_add(PREFIX_BYTES));
        framed.put_u8(u8::from(call.encoding.is_some()));
        framed.put_u32(length);
        framed.put(call.message);
        let mut request = Request::new(Full::new(framed.freeze()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri(call.method);
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, AGENT);
        headers.extend(call.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if let Some(encoding) = call.encoding {
            headers.insert(ENCODING, encoding);
        }
        // At most eight digits.
        let deadline = self.timeout.as_millis().clamp(1, 99_999_999);
        if let Ok(deadline) = HeaderValue::from_str(&format!("{deadline}m")) {
            headers.insert(DEADLINE, deadline);
        }
        if let Some(token) = self.token.value().await? {
            headers.insert(AUTHORIZATION, token);
        }
        Ok(request)
    }

    /// The address with `method` as path.
    fn uri(&self, method: PathAndQuery) -> Uri {
        let mut parts = self.address.url().clone().into_parts();
        parts.path_and_query = Some(method);
        // Valid, because scheme and authority are.
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Opens a connection, and keeps it.
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ServiceFailure> {
        let mut connector = self.connector.clone();
        let unreachable = |error: Box<dyn std::error::Error + Send + Sync>| {
            ServiceFailure::Unreachable(causes(&*error))
        };
        poll_fn(|cx| connector.poll_ready(cx)).await.map_err(unreachable)?;
        let io = connector.call(self.address.url().clone()).await.map_err(unreachable)?;
        let executor = Tracked(self.tasks.clone());
        let (sender, connection) = Builder::new(executor)
            .max_header_list_size(HEAD_BYTES_MAX)
            .handshake(io)
            .await
            .map_err(|error| ServiceFailure::Unreachable(causes(&error)))?;
        // It ends when the last sender is dropped, or with an error that the sender tells, too.
        drop(self.tasks.spawn(async move { drop(connection.await) }));
        *lock(&self.kept) = Some(sender.clone());
        Ok(sender)
    }
}

/// The status in the trailers or in the header of an answer, as an answer without a message.
fn status_in(headers: &HeaderMap) -> Option<GrpcAnswer> {
    let code = headers.get(STATUS)?.to_str().ok()?.parse().ok()?;
    let message = headers.get(MESSAGE).map(HeaderValue::as_bytes).unwrap_or_default();
    let message = message.get(..message.len().min(MESSAGE_BYTES_MAX)).unwrap_or_default();
    let message = String::from_utf8_lossy(message).into_owned();
    // The header fields, and so the details, are at most `HEAD_BYTES_MAX`.
    let details = headers.get(DETAILS).and_then(|value| BINARY.decode(value).ok());
    let details = details.unwrap_or_default().into();
    Some(GrpcAnswer { code, message, details, body: Bytes::new() })
}

/// What an HTTP status of something on the way means ("HTTP to gRPC Status Code Mapping").
fn code_of(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The message without its prefix; empty if there is none.
fn unframed(body: Bytes) -> Result<Bytes, ServiceFailure> {
    let wrong = |what: &str| ServiceFailure::Unreachable(what.to_owned());
    if body.is_empty() {
        return Ok(body);
    }
    let Some((prefix, message)) = body.split_at_checked(PREFIX_BYTES) else {
        return Err(wrong("it sent an incomplete gRPC message"));
    };
    match prefix {
        [0, length @ ..]
            if length == u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes() =>
        {
            Ok(body.slice(PREFIX_BYTES..))
        }
        [0, ..] => Err(wrong("it sent an incomplete gRPC message")),
        _ => Err(ServiceFailure::Coded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_prefix_of_its_length() {
        let read = |bytes: &[u8]| unframed(Bytes::copy_from_slice(bytes));
        assert_eq!(read(b"").unwrap(), "");
        assert_eq!(read(b"\0\0\0\0\0").unwrap(), "");
        assert_eq!(read(b"\0\0\0\0\x02ok").unwrap(), "ok");
        assert_eq!(read(b"\x01\0\0\0\x02ok"), Err(ServiceFailure::Coded));
        for wrong in [&b"\0\0\0"[..], b"\0\0\0\0\x03ok", b"\0\0\0\0\x01ok"] {
            assert!(matches!(read(wrong), Err(ServiceFailure::Unreachable(_))), "{wrong:?}");
        }
    }
}
