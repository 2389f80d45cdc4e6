//! Reads a request's body whole, within bounds on size, memory, rate and time, before anything is
//! decided or forwarded (threats E17, E18, K2). Called by the listener's request paths.
//!
//! Memory is accounted as bytes arrive: a length that a client only announces reserves nothing. A
//! body that is still arriving gives way to a later one when memory runs out.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;

use crate::budget::{Budget, Hold, Reservation, YieldingBudget};
use bartizan_gate::session::DoorRefusal;

/// Time in which [`PACE_BYTES`] of a body arrive, or its end.
const PACE: Duration = Duration::from_secs(5);
/// Least bytes of a body in each [`PACE`].
const PACE_BYTES: u64 = 16 << 10;

/// Bytes of a body that are read before other tasks run.
const PIECE_BYTES: u64 = 128 << 10;

/// Bounds on reading one body.
pub(super) struct BodyLimits<'a> {
    /// Size of this body, bytes.
    pub(super) bytes_max: usize,
    /// Where the memory of all bodies together is accounted, bytes.
    pub(super) budget: &'a Arc<YieldingBudget>,
    /// Where that of the principal's bodies is accounted, if it has a share of its own.
    pub(super) share: Option<&'a Arc<Budget>>,
    /// Time for the whole body.
    pub(super) timeout: Duration,
}

/// The memory reserved for a whole body.
#[derive(Debug, Default)]
pub(super) struct BodyMemory {
    _total: Option<Reservation>,
    _share: Option<Reservation>,
}

/// Reads `body` and reserves memory for it; the reservation is returned with it. Trailers are
/// dropped (P13). A body that came in one piece is not copied. Fails with `TooLarge`, `TooMany` (no
/// memory left in the budget), `Slow`, or `Framing` (the client closed the connection or broke its
/// framing).
pub(super) async fn read(
    body: Incoming,
    limits: BodyLimits<'_>,
) -> Result<(Bytes, BodyMemory), DoorRefusal> {
    let bytes_max = u64::try_from(limits.bytes_max).unwrap_or(u64::MAX);
    let timeout = limits.timeout;
    let announced = body.size_hint().lower();
    if announced > bytes_max {
        drop(tokio::time::timeout(timeout, discard(body, bytes_max)).await);
        return Err(DoorRefusal::TooLarge);
    }
    let arriving = Arriving {
        body,
        announced,
        bytes_max,
        limits,
        size: 0,
        yielded: 0,
        accounted: 0,
        first: Bytes::new(),
        rest: Vec::new(),
        memory: Memory::Nothing,
        share: None,
    };
    let reading = collect(arriving);
    tokio::time::timeout(timeout, reading).await.unwrap_or(Err(DoorRefusal::Slow))
}

async fn collect(mut arriving: Arriving<'_>) -> Result<(Bytes, BodyMemory), DoorRefusal> {
    loop {
        match tokio::time::timeout(PACE, arriving.advance()).await {
            Ok(Ok(false)) => arriving.let_others().await,
            Ok(Ok(true)) => return arriving.finish(),
            Ok(Err(DoorRefusal::TooLarge)) => {
                arriving.memory = Memory::Nothing;
                discard(arriving.body, arriving.bytes_max).await;
                return Err(DoorRefusal::TooLarge);
            }
            Ok(Err(why)) => return Err(why),
            Err(_elapsed) => return Err(DoorRefusal::Slow),
        }
    }
}

/// What a body holds of the budget.
enum Memory {
    Nothing,
    /// All of it has arrived.
    Whole(Reservation),
    /// More is to come.
    Unfinished(Hold),
}

/// A body of which a part has arrived.
struct Arriving<'a> {
    body: Incoming,
    limits: BodyLimits<'a>,
    /// Length that the client announced, bytes; 0 if it did not.
    announced: u64,
    bytes_max: u64,
    size: u64,
    /// [`Arriving::size`] when other tasks ran last.
    yielded: u64,
    /// Memory that is accounted, bytes.
    accounted: u64,
    /// The first piece, until a second one comes.
    first: Bytes,
    rest: Vec<u8>,
    memory: Memory,
    share: Option<Reservation>,
}

impl Arriving<'_> {
    /// Reads on until [`PACE_BYTES`] more have arrived; `true` at the end of the body.
    async fn advance(&mut self) -> Result<bool, DoorRefusal> {
        let enough = self.size.saturating_add(PACE_BYTES);
        while self.size < enough {
            let frame = match &self.memory {
                Memory::Unfinished(hold) => tokio::select! {
                    biased;
                    () = hold.gave_way().cancelled() => return Err(DoorRefusal::TooMany),
                    frame = next(&mut self.body) => frame,
                },
                Memory::Nothing | Memory::Whole(_) => next(&mut self.body).await,
            };
            // The client closed the connection or broke the framing, so there is no whole message.
            let Some(frame) = frame else { return Ok(true) };
            let Ok(frame) = frame else { return Err(DoorRefusal::Framing) };
            if let Ok(data) = frame.into_data() {
                self.add(data)?;
            }
        }
        Ok(false)
    }

    /// Lets other tasks run after each [`PIECE_BYTES`]: a body that is already there would be read in
    /// one go otherwise.
    async fn let_others(&mut self) {
        if self.size.saturating_sub(self.yielded) >= PIECE_BYTES {
            self.yielded = self.size;
            tokio::task::yield_now().await;
        }
    }

    fn add(&mut self, data: Bytes) -> Result<(), DoorRefusal> {
        self.size = self.size.saturating_add(length(&data));
        if self.size > self.bytes_max {
            return Err(DoorRefusal::TooLarge);
        }
        if self.first.is_empty() && self.rest.is_empty() {
            self.account(self.size)?;
            self.first = data;
            return Ok(());
        }
        let room = u64::try_from(self.rest.capacity()).unwrap_or(u64::MAX);
        if self.size > room {
            let most = if self.announced > 0 { self.announced } else { self.bytes_max };
            let room = self.size.saturating_mul(2).min(most).max(self.size);
            self.account(room)?;
            let more = usize::try_from(room).unwrap_or_default().saturating_sub(self.rest.len());
            self.rest.reserve_exact(more);
        }
        self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        self.rest.extend_from_slice(&data);
        Ok(())
    }

    /// Reserves memory up to `bytes` in all.
    fn account(&mut self, bytes: u64) -> Result<(), DoorRefusal> {
        let more = bytes.saturating_sub(self.accounted);
        self.accounted = bytes;
        if let Some(budget) = self.limits.share {
            let fits = match &mut self.share {
                Some(share) => share.grow(more),
                none => {
                    *none = budget.take(more);
                    none.is_some()
                }
            };
            if !fits {
                return Err(DoorRefusal::TooMany);
            }
        }
        let grown = match std::mem::replace(&mut self.memory, Memory::Nothing) {
            Memory::Nothing => self.limits.budget.take(more),
            Memory::Whole(mut held) => held.grow(more).then_some(held),
            Memory::Unfinished(hold) => {
                let fits = hold.grow(more);
                self.memory = Memory::Unfinished(hold);
                return if fits { Ok(()) } else { Err(DoorRefusal::TooMany) };
            }
        };
        let held = grown.ok_or(DoorRefusal::TooMany)?;
        self.memory = if self.body.is_end_stream() {
            Memory::Whole(held)
        } else {
            Memory::Unfinished(self.limits.budget.hold(held, || {}))
        };
        Ok(())
    }

    fn finish(self) -> Result<(Bytes, BodyMemory), DoorRefusal> {
        let total = match self.memory {
            Memory::Nothing => None,
            Memory::Whole(held) => Some(held),
            Memory::Unfinished(hold) => Some(hold.finish().ok_or(DoorRefusal::TooMany)?),
        };
        let body = if self.rest.is_empty() { self.first } else { Bytes::from(self.rest) };
        Ok((body, BodyMemory { _total: total, _share: self.share }))
    }
}

async fn next(body: &mut Incoming) -> Option<hyper::Result<http_body::Frame<Bytes>>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

fn length(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

/// Reads up to twice `bytes_max` more and drops it. Closing a connection with unread bytes sends a
/// TCP reset, and the client would not receive our refusal.
async fn discard(mut body: Incoming, bytes_max: u64) {
    let mut left = bytes_max.saturating_mul(2);
    while let Some(Ok(frame)) = next(&mut body).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, length));
        if left == 0 {
            return;
        }
    }
}
