//! Reads a request's body whole, within bounds on size, memory and time, before anything is decided
//! or forwarded (threats E17, E18). Called by the listener's request paths.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;

use super::budget::{Budget, Reservation};
use bartizan_gate::session::DoorRefusal;

/// Bounds on reading one body.
pub(super) struct BodyLimits<'a> {
    /// Size of this body, bytes.
    pub(super) bytes_max: usize,
    /// Where the memory of all bodies together is accounted, bytes.
    pub(super) budget: &'a Arc<Budget>,
    /// Time for the whole body.
    pub(super) timeout: Duration,
}

/// Reads `body` and reserves memory for it; the reservation is returned with it. Trailers are
/// dropped (P13). A body that came in one piece is not copied. Fails with `TooLarge`, `TooMany` (no
/// memory left in the budget), `Slow`, or `Framing` (the client closed the connection or broke its
/// framing).
pub(super) async fn read(
    body: Incoming,
    limits: BodyLimits<'_>,
) -> Result<(Bytes, Reservation), DoorRefusal> {
    let bytes_max = u64::try_from(limits.bytes_max).unwrap_or(u64::MAX);
    let announced = body.size_hint().lower();
    if announced > bytes_max {
        let discarding = discard(body, bytes_max);
        drop(tokio::time::timeout(limits.timeout, discarding).await);
        return Err(DoorRefusal::TooLarge);
    }
    let held = limits.budget.take(announced).ok_or(DoorRefusal::TooMany)?;
    let reading = collect(body, held, bytes_max);
    tokio::time::timeout(limits.timeout, reading).await.unwrap_or(Err(DoorRefusal::Slow))
}

async fn collect(
    mut body: Incoming,
    mut held: Reservation,
    bytes_max: u64,
) -> Result<(Bytes, Reservation), DoorRefusal> {
    let announced = body.size_hint().lower();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut size = 0_u64;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        // The client closed the connection or broke the framing, so there is no whole message.
        let Ok(frame) = frame else { return Err(DoorRefusal::Framing) };
        let Ok(data) = frame.into_data() else { continue };
        let more = u64::try_from(data.len()).unwrap_or(u64::MAX);
        size = size.saturating_add(more);
        if size > bytes_max {
            drop(held);
            discard(body, bytes_max).await;
            return Err(DoorRefusal::TooLarge);
        }
        if size > announced && !held.grow(more) {
            return Err(DoorRefusal::TooMany);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(usize::try_from(announced.max(size)).unwrap_or_default());
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() { Ok((first, held)) } else { Ok((rest.freeze(), held)) }
}

/// Reads up to twice `bytes_max` more and drops it. Closing a connection with unread bytes sends a
/// TCP reset, and the client would not receive our refusal.
async fn discard(mut body: Incoming, bytes_max: u64) {
    let mut left = bytes_max.saturating_mul(2);
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let size = frame.data_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(u64::try_from(size).unwrap_or(u64::MAX));
        if left == 0 {
            return;
        }
    }
}
