//! A request's body, read whole before anything is decided or forwarded (threats E17, E18).

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;

use super::gauge::{Gauge, Held};
use bartizan_gate::session::DoorRefusal;

/// Bounds on reading one body.
pub(super) struct BodyLimits<'a> {
    /// Size of this body, bytes.
    pub(super) bytes_max: usize,
    /// Bytes of all bodies at once.
    pub(super) budget: &'a Arc<Gauge>,
    /// Time for the whole of it.
    pub(super) patience: Duration,
}

/// The whole of `body`, and its share of the budget. Trailers are dropped (P13). A body that came
/// in one piece is not copied.
pub(super) async fn read(
    body: Incoming,
    limits: BodyLimits<'_>,
) -> Result<(Bytes, Held), DoorRefusal> {
    let bytes_max = u64::try_from(limits.bytes_max).unwrap_or(u64::MAX);
    let announced = body.size_hint().lower();
    if announced > bytes_max {
        let discarding = discard(body, bytes_max);
        drop(tokio::time::timeout(limits.patience, discarding).await);
        return Err(DoorRefusal::TooLarge);
    }
    let held = limits.budget.take(announced).ok_or(DoorRefusal::TooMany)?;
    let reading = collect(body, held, bytes_max);
    tokio::time::timeout(limits.patience, reading).await.unwrap_or(Err(DoorRefusal::Slow))
}

async fn collect(
    mut body: Incoming,
    mut held: Held,
    bytes_max: u64,
) -> Result<(Bytes, Held), DoorRefusal> {
    let announced = body.size_hint().lower();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut size = 0_u64;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        // The peer broke off or broke the framing: there is no message.
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

/// Reads on for up to twice `bytes_max` and keeps nothing: a connection closed with bytes unread
/// is reset, and the client would not see why.
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
