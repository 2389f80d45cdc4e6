//! The body of a streamed answer: the gate decides on each event before it is written.
//!
//! A stream has no task of its own. The pump is a future that the connection polls when it can
//! write. It hands over one chunk and waits until that is taken, so a slow client slows its server
//! (backpressure). If the client disconnects, the pump is dropped (2026-07-28: closing the stream
//! is the cancellation) or, in the legacy eras, goes on in a tracked task, so that the outcome is
//! recorded.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bartizan_sync::lock;
use bytes::{Bytes, BytesMut};

use super::connection_state::RequestGuard;
use super::in_flight::Exchange;
use super::keep_alive::Silence;
use super::reply::Events;
use super::shaped;
use crate::session::StepOutcome;
use crate::{EventStream, ServerEvent, sse};
use bartizan_gate::duty::secrets::is_suspicious;
use bartizan_gate::evidence::step::{Act, Released};
use bartizan_gate::session::UpstreamFailure;
use bartizan_gate::wire::protocol::Era;

/// A one-chunk buffer between the pump and the body.
#[derive(Debug, Default)]
struct Slot {
    chunk: Mutex<Option<Bytes>>,
    /// The client disconnected: chunks are dropped.
    gone: AtomicBool,
    /// The client received an event with an id, so it can resume with `Last-Event-ID`.
    resumable: AtomicBool,
}

impl Slot {
    fn take(&self) -> Option<Bytes> {
        lock(&self.chunk).take()
    }

    /// Puts `chunk` into the slot and waits until it is taken. `numbered`: it holds an event id. No
    /// waker is registered: the body polls the pump again after it has taken the chunk.
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

/// A streamed answer; hyper polls it.
pub(super) struct StreamBody {
    pump: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    slot: Arc<Slot>,
    exchange: Arc<Exchange>,
    silence: Silence,
    busy: Option<RequestGuard>,
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
        let silence = Silence::new(exchange.waits().keep_alive);
        Self { pump: Some(Box::pin(pump)), slot, exchange, silence, busy: None }
    }
}

impl Events for StreamBody {
    fn hold(&mut self, busy: RequestGuard) {
        self.busy = Some(busy);
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(pump) = &mut self.pump else { return Poll::Ready(None) };
        let over = pump.as_mut().poll(cx).is_ready();
        if over {
            self.pump = None;
        }
        match self.slot.take() {
            Some(chunk) => {
                self.silence.broken();
                Poll::Ready(Some(chunk))
            }
            None if over => Poll::Ready(None),
            None => self.silence.poll_comment(cx).map(Some),
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
            // The client can resume with `Last-Event-ID`, and the session still knows the call.
            drop(pump);
            exchange.await_resume();
        } else {
            Exchange::run_on(exchange, pump);
        }
    }
}

/// The next thing on a server's stream.
enum NextEvent {
    Event(ServerEvent),
    End,
    Failed(UpstreamFailure),
    Closing,
}

async fn pump(exchange: Arc<Exchange>, mut events: EventStream, slot: Arc<Slot>) {
    let scope = exchange.event_scope();
    let mut patience = Patience::new(&exchange);
    let account = exchange.account();
    let mut out = BytesMut::new();
    loop {
        let mut numbered = false;
        let mut progress = false;
        let over = match next(&exchange, &mut events, &patience).await {
            NextEvent::Event(mut event) => {
                progress = !event.data.is_empty();
                let id = event.id.filter(|id| !is_suspicious(id));
                event.id = id.and_then(|id| scope.seal(&id));
                shaped::event(&mut event);
                let (event, over) = judge(&exchange, event).await;
                if let Some(event) = event {
                    numbered = is_numbered(&event);
                    sse::write(&event, &mut out);
                }
                if over {
                    // The message could not be recorded, so the stream ends with an error.
                    fail(&exchange, &UpstreamFailure::EndedEarly, &mut out);
                }
                over
            }
            NextEvent::End => {
                let resumable = exchange.is_kept() && slot.resumable.load(Ordering::Relaxed);
                if resumable && exchange.era() == Era::Legacy {
                    if exchange.asks() {
                        exchange.await_resume();
                    }
                } else {
                    fail(&exchange, &UpstreamFailure::EndedEarly, &mut out);
                }
                true
            }
            NextEvent::Failed(failure) => {
                fail(&exchange, &failure, &mut out);
                true
            }
            NextEvent::Closing => {
                fail(&exchange, &UpstreamFailure::EndedEarly, &mut out);
                true
            }
        };
        if !out.is_empty() {
            slot.put(account.count(out.split().freeze()), numbered).await;
        }
        if progress {
            patience.quiet_since = exchange.uptime();
        }
        if over {
            // A server ends its stream right after the answer. Reading that end lets the connection
            // be reused; anything else is dropped.
            drop(tokio::time::timeout(exchange.waits().linger, events.next()).await);
            return;
        }
    }
}

/// Whether the client can resume after `event`.
fn is_numbered(event: &ServerEvent) -> bool {
    event.id.as_deref().is_some_and(|id| !id.is_empty())
}

/// How long the next event of a stream that ends with an answer is waited for.
struct Patience {
    /// Uptime by which the stream must have ended.
    end: Duration,
    /// Uptime of the last message. Comments and events without data do not count: a server can send
    /// them for ever (threat K6).
    quiet_since: Duration,
}

impl Patience {
    fn new(exchange: &Exchange) -> Self {
        let quiet_since = exchange.uptime();
        Self { end: quiet_since.saturating_add(exchange.waits().stream), quiet_since }
    }

    fn left(&self, exchange: &Exchange) -> Duration {
        let silent = self.quiet_since.saturating_add(exchange.waits().idle_stream);
        self.end.min(silent).saturating_sub(exchange.uptime())
    }
}

/// The next event, or why the stream ends.
async fn next(exchange: &Exchange, events: &mut EventStream, patience: &Patience) -> NextEvent {
    let next = if exchange.is_endless() {
        tokio::select! {
            biased;
            next = events.next() => next,
            () = exchange.closing() => return NextEvent::Closing,
        }
    } else {
        let wait = patience.left(exchange);
        tokio::select! {
            biased;
            next = tokio::time::timeout(wait, events.next()) => {
                match next {
                    Ok(next) => next,
                    Err(_) => return NextEvent::Failed(UpstreamFailure::TimedOut),
                }
            }
            () = exchange.closing() => return NextEvent::Closing,
        }
    };
    match next {
        Some(Ok(event)) => NextEvent::Event(event),
        Some(Err(failure)) => NextEvent::Failed(failure),
        None => NextEvent::End,
    }
}

/// What the client gets of `event`, and whether the stream ends with it. If the gate withholds the
/// message, the event's id still passes, so that the client can resume after it.
async fn judge(exchange: &Arc<Exchange>, mut event: ServerEvent) -> (Option<ServerEvent>, bool) {
    if event.data.is_empty() {
        return (Some(event), false);
    }
    let data = std::mem::take(&mut event.data);
    let stray = event.stray.take();
    match exchange.server_message(&data, is_numbered(&event), stray.as_deref()).await {
        StepOutcome::Act(Act::Deliver(mut released)) => {
            // Boxed, here and below, because it is rare and large: otherwise every stream's future
            // would be that large.
            if let Some(permitted) = released.take_back() {
                Box::pin(exchange.answer_server(permitted)).await;
            }
            if released.is_own() {
                // The server chose the name for a message that the client does not get.
                event.event = None;
            }
            event.data = released.body().clone();
            return (Some(event), exchange.asks() && !exchange.awaits());
        }
        StepOutcome::Act(Act::Forward(permitted)) => {
            Box::pin(exchange.answer_server(permitted)).await;
        }
        StepOutcome::Act(Act::Hold(_) | Act::Drop) | StepOutcome::Settled => {}
        StepOutcome::Refused(refusal) => return (refusal.map(|refusal| own(&refusal)), true),
    }
    event.event = None;
    let rest = event.id.is_some() || event.retry.is_some() || event.comment.is_some();
    (rest.then_some(event), false)
}

fn fail(exchange: &Exchange, failure: &UpstreamFailure, out: &mut BytesMut) {
    match exchange.fail(failure) {
        StepOutcome::Act(Act::Deliver(released)) | StepOutcome::Refused(Some(released))
            if exchange.asks() =>
        {
            sse::write(&own(&released), out);
        }
        StepOutcome::Act(Act::Deliver(_) | Act::Forward(_) | Act::Hold(_) | Act::Drop)
        | StepOutcome::Settled
        | StepOutcome::Refused(_) => {}
    }
}

/// A refusal of the gate as an event. It has no id, because it cannot be replayed.
fn own(released: &Released) -> ServerEvent {
    ServerEvent { data: released.body().clone(), ..ServerEvent::default() }
}
