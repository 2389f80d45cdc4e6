//! Acts that wait until their records are on the disk.
//!
//! There is no way from [`Waits`] to the act but to wait, and none where all calls that the act would
//! begin have ended meanwhile.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::{
    Act, AuditSink, Flushed, ForwardedAt, IfUnrecorded, Position, Unkept, Unrecorded, forwards_now,
    unrecorded,
};
use crate::evidence::record::{AuditRecord, CallId, Now, micros};

/// An act whose records are written, and not known to be on the disk. The act cannot be had before
/// they are.
#[must_use]
#[derive(Debug)]
pub struct Waits {
    pub(super) act: Act,
    pub(super) position: Position,
    /// The intents among its records.
    pub(super) intents: Vec<AuditRecord>,
    pub(super) call: Option<CallId>,
    pub(super) if_unrecorded: Option<IfUnrecorded>,
    pub(super) forwarded: Vec<ForwardedAt>,
}

impl Waits {
    /// Where the last of its records stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Waits until the records are on the disk, and returns the act: [`Act::Drop`] if each call that it
    /// would begin has ended meanwhile, because its client has cancelled it, and a batch without those
    /// of its messages whose calls have; `is_open` says of a call whether it has not. Dropping the future leaves `waits` as it was; it must then be
    /// [refused](Waits::refused).
    ///
    /// # Errors
    ///
    /// As [`AuditSink::durable`]; then it must be refused, too.
    pub fn act<'a>(
        waits: &'a mut Option<Box<Self>>,
        sink: &'a dyn AuditSink,
        is_open: &'a IsOpen<'a>,
    ) -> UntilDurable<'a> {
        let flushed = match waits {
            Some(waits) => sink.durable(waits.position),
            None => Box::pin(std::future::ready(Ok(()))),
        };
        UntilDurable { flushed, waits, sink, is_open }
    }

    /// Forgets the calls that have ended meanwhile. Whether the act would begin some, and all have.
    fn is_over(&mut self, is_open: &IsOpen<'_>) -> bool {
        let begins = !self.intents.is_empty();
        self.intents.retain(|intent| intent.call.as_ref().is_none_or(is_open));
        begins && self.intents.is_empty()
    }

    /// The act does not happen, because of `cause`, at the time `now`. Each call that it would begin
    /// gets the outcome `not_sent`, unless it has ended meanwhile; `None` if all have. Without any, the
    /// act would have delivered something, and no call is named: what the records say has happened.
    pub fn refused(
        mut self,
        cause: Unkept,
        now: Now,
        sink: &dyn AuditSink,
        is_open: &IsOpen<'_>,
    ) -> Option<Unrecorded> {
        if self.is_over(is_open) {
            return None;
        }
        for intent in &mut self.intents {
            (intent.time, intent.uptime_us) = (now.wall, micros(now.uptime));
        }
        Some(self.not_sent(cause, sink))
    }

    /// The same without a look at what has happened meanwhile, for a caller that does not wait.
    pub(super) fn not_sent(self, cause: Unkept, sink: &dyn AuditSink) -> Unrecorded {
        let about = (self.call, self.if_unrecorded);
        let refused = unrecorded((cause, false), &self.intents, about, sink);
        Unrecorded { call: refused.call.filter(|_| !self.intents.is_empty()), ..refused }
    }
}

/// Says of a call whether the record of its intent has no outcome yet.
pub type IsOpen<'a> = dyn Fn(&CallId) -> bool + Send + Sync + 'a;

/// The future of [`Waits::act`].
pub struct UntilDurable<'a> {
    flushed: Flushed<'a>,
    waits: &'a mut Option<Box<Waits>>,
    sink: &'a dyn AuditSink,
    is_open: &'a IsOpen<'a>,
}

impl Future for UntilDurable<'_> {
    type Output = Result<Act, Unkept>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        std::task::ready!(self.flushed.as_mut().poll(cx))?;
        let Some(mut waits) = self.waits.take() else { return Poll::Ready(Ok(Act::Drop)) };
        if waits.is_over(self.is_open) {
            return Poll::Ready(Ok(Act::Drop));
        }
        if let Act::Forward(permitted) = &mut waits.act {
            permitted.without_ended(self.is_open);
        }
        forwards_now(&waits.forwarded, self.sink);
        Poll::Ready(Ok(waits.act))
    }
}

impl std::fmt::Debug for UntilDurable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UntilDurable").field("waits", &self.waits).finish_non_exhaustive()
    }
}
