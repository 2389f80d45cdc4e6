//! Makes the call of a task for a client that polls over HTTP: as a request of its own, with the head
//! of the poll, that no connection can end.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, HeaderValue, Response};
use bytes::Bytes;
use http_body::Body as _;

use super::reply::{ReplyBody, Unsaid};
use crate::own_tasks::Making;
use crate::sse::EventReader;
use bartizan_gate::wire::headers::encode;

/// The head of a request of `method` that names `target`, made of that of a poll.
pub(super) fn head(
    mut headers: HeaderMap,
    (method, target): (&str, Option<&str>),
) -> Option<HeaderMap> {
    const METHOD: HeaderName = HeaderName::from_static("mcp-method");
    const NAME: HeaderName = HeaderName::from_static("mcp-name");
    headers.insert(METHOD, HeaderValue::from_str(method).ok()?);
    headers.remove(NAME);
    if let Some(target) = target {
        headers.insert(NAME, HeaderValue::from_str(&encode(target)).ok()?);
    }
    Some(headers)
}

/// Reads the response to the call until it has its end.
pub(super) async fn end(response: Response<ReplyBody>, making: Arc<Making>, event_max: usize) {
    let (parts, mut body) = response.into_parts();
    let mut events = match &body {
        ReplyBody::Events(_) => Some(EventReader::new(event_max)),
        ReplyBody::Whole(_) | ReplyBody::Watched(_) => None,
    };
    let mut whole = false;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(mut chunk) = frame.into_data() else { continue };
        let Some(events) = &mut events else {
            whole = true;
            making.ends(&chunk);
            continue;
        };
        while let Ok(Some(event)) = events.next(&mut chunk) {
            if making.ends(&event.data) {
                return;
            }
        }
    }
    let unsaid = parts.extensions.get::<Unsaid>().filter(|_| !whole);
    if let Some(Unsaid(error)) = unsaid {
        making.ends(&Bytes::clone(error));
    }
}
