//! The body of a streamed answer: event after event, each judged before it is written.
//!
//! No task of its own runs a stream. The pump is a future that the connection polls when it can
//! write; it hands over one chunk and stops until that is taken, so nothing is read ahead and a
//! slow client slows its server. If the client goes away, the pump is dropped (2026-07-28: closing
//! the stream is the cancellation) or, in the legacy era, runs on in a tracked task so that the
//! outcome is known.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bartizan_sync::lock;
use bytes::{Bytes, BytesMut};

use super::in_flight::Exchange;
use super::reply::Events;
use super::wire::Busy;
use crate::session::Turn;
use crate::{EventStream, ServerEvent, sse};
use bartizan_gate::evidence::step::{Act, Released};
use bartizan_gate::session::UpstreamFailure;
use bartizan_gate::wire::protocol::Era;

/// Where the pump and the body meet.
#[derive(Debug, Default)]
struct Slot {
    chunk: Mutex<Option<Bytes>>,
    /// The client is gone: chunks go nowhere.
    gone: AtomicBool,
    /// The client took an event with an id, so it can ask for the rest with `Last-Event-ID`.
    resumable: AtomicBool,
}

impl Slot {
    fn take(&self) -> Option<Bytes> {
        lock(&self.chunk).take()
    }

    /// Hands over `chunk`, which holds an event id if `numbered`, and waits until it is taken.
    /// Wakes nobody: whoever takes it polls the pump again.
    async fn put(&self, chunk: Bytes, numbered: bool) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        *lock(&self.chunk) = Some(chunk);
        poll_fn(|_| {
            let chunk = lock(&self.chunk);
            let taken = chunk.is_none() || self.gone.load(Ordering::Relaxed);
            if taken { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        if numbered && !self.gone.load(Ordering::Relaxed) {
            self.resumable.store(true, Ordering::Relaxed);
        }
    }
}

/// A streamed answer on its way to the client.
pub(super) struct StreamBody {
    pump: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    slot: Arc<Slot>,
    exchange: Arc<Exchange>,
    busy: Option<Busy>,
}

impl fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBody").finish_non_exhaustive()
    }
}

impl StreamBody {
    /// The events of `exchange`.
    pub(super) fn new(exchange: Arc<Exchange>, events: EventStream) -> Self {
        let slot = Arc::new(Slot::default());
        let pump = pump(Arc::clone(&exchange), events, Arc::clone(&slot));
        Self { pump: Some(Box::pin(pump)), slot, exchange, busy: None }
    }
}

impl Events for StreamBody {
    fn hold(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(pump) = &mut self.pump else { return Poll::Ready(None) };
        let over = pump.as_mut().poll(cx).is_ready();
        if over {
            self.pump = None;
        }
        match self.slot.take() {
            Some(chunk) => Poll::Ready(Some(chunk)),
            None if over => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let Some(pump) = self.pump.take() else { return };
        self.slot.gone.store(true, Ordering::Relaxed);
        let exchange = &self.exchange;
        if exchange.era() == Era::Modern || !exchange.asks() {
            drop(pump);
            exchange.client_gone();
        } else if exchange.is_kept() && self.slot.resumable.load(Ordering::Relaxed) {
            // The client will come for the rest with `Last-Event-ID`, and the session still
            // knows the call.
            drop(pump);
            exchange.leave();
        } else {
            Exchange::run_on(exchange, pump);
        }
    }
}

/// What comes next on a stream.
enum Next {
    Event(ServerEvent),
    End,
    Failed(UpstreamFailure),
    Closing,
}

async fn pump(exchange: Arc<Exchange>, mut events: EventStream, slot: Arc<Slot>) {
    let scope = exchange.event_scope();
    let end = exchange.uptime().saturating_add(exchange.waits().stream);
    let mut out = BytesMut::new();
    loop {
        let mut numbered = false;
        let over = match next(&exchange, &mut events, end).await {
            Next::Event(mut event) => {
                event.id = event.id.and_then(|id| scope.seal(&id));
                let (event, over) = judge(&exchange, event).await;
                if let Some(event) = event {
                    numbered = is_numbered(&event);
                    sse::write(&event, &mut out);
                }
                if over {
                    // What came could not be recorded, so no answer can follow it.
                    fail(&exchange, &UpstreamFailure::EndedEarly, &mut out);
                }
                over
            }
            Next::End => {
                let resumable = exchange.is_kept() && slot.resumable.load(Ordering::Relaxed);
                if resumable && exchange.era() == Era::Legacy {
                    if exchange.asks() {
                        exchange.leave();
                    }
                } else {
                    fail(&exchange, &UpstreamFailure::EndedEarly, &mut out);
                }
                true
            }
            Next::Failed(failure) => {
                fail(&exchange, &failure, &mut out);
                true
            }
            Next::Closing => {
                fail(&exchange, &UpstreamFailure::EndedEarly, &mut out);
                true
            }
        };
        if !out.is_empty() {
            slot.put(out.split().freeze(), numbered).await;
        }
        if over {
            // A server ends its stream right after the answer: reading that end keeps the
            // connection to it. Whatever else comes is not for anybody.
            drop(tokio::time::timeout(exchange.waits().linger, events.next()).await);
            return;
        }
    }
}

/// Whether the client can name `event` when it resumes.
fn is_numbered(event: &ServerEvent) -> bool {
    event.id.as_deref().is_some_and(|id| !id.is_empty())
}

/// `end`: by when a stream that ends with an answer must have ended, by uptime.
async fn next(exchange: &Exchange, events: &mut EventStream, end: Duration) -> Next {
    let next = if exchange.is_endless() {
        tokio::select! {
            biased;
            next = events.next() => next,
            () = exchange.closing() => return Next::Closing,
        }
    } else {
        let left = end.saturating_sub(exchange.uptime());
        let wait = exchange.waits().idle_stream.min(left);
        tokio::select! {
            biased;
            next = tokio::time::timeout(wait, events.next()) => {
                match next {
                    Ok(next) => next,
                    Err(_) => return Next::Failed(UpstreamFailure::TimedOut),
                }
            }
            () = exchange.closing() => return Next::Closing,
        }
    };
    match next {
        Some(Ok(event)) => Next::Event(event),
        Some(Err(failure)) => Next::Failed(failure),
        None => Next::End,
    }
}

/// What the client may see of `event`, and whether the stream is over with it. A withheld event
/// that has an id leaves the id behind, so that resuming goes on from there.
async fn judge(exchange: &Arc<Exchange>, mut event: ServerEvent) -> (Option<ServerEvent>, bool) {
    if event.data.is_empty() {
        return (Some(event), false);
    }
    let data = std::mem::take(&mut event.data);
    match exchange.server_message(&data, is_numbered(&event)) {
        Turn::Act(Act::Deliver(mut released)) => {
            if let Some(permitted) = released.take_back() {
                exchange.answer_server(permitted).await;
            }
            event.data = released.body().clone();
            return (Some(event), exchange.asks() && !exchange.awaits());
        }
        // Rare and large: in a box, or every stream has room for it as long as it lasts.
        Turn::Act(Act::Forward(permitted)) => Box::pin(exchange.answer_server(permitted)).await,
        Turn::Act(Act::Drop) | Turn::Settled => {}
        Turn::Refused(refusal) => return (refusal.map(|refusal| own(&refusal)), true),
    }
    event.event = None;
    let rest = event.id.is_some() || event.retry.is_some() || event.comment.is_some();
    (rest.then_some(event), false)
}

fn fail(exchange: &Exchange, failure: &UpstreamFailure, out: &mut BytesMut) {
    match exchange.fail(failure) {
        Turn::Act(Act::Deliver(released)) | Turn::Refused(Some(released)) if exchange.asks() => {
            sse::write(&own(&released), out);
        }
        Turn::Act(Act::Deliver(_) | Act::Forward(_) | Act::Drop)
        | Turn::Settled
        | Turn::Refused(_) => {}
    }
}

/// A message of our own, without an id: it cannot be asked for again.
fn own(released: &Released) -> ServerEvent {
    ServerEvent { data: released.body().clone(), ..ServerEvent::default() }
}
