//! HTTP clients, stdio servers: which child a message goes to.
//!
//! An `initialize` without a session starts a child of its own and mints the session's name; a
//! message of that session goes to that child (mcp transports, "Session Management"). Messages of
//! the modern era have no session and go to the child of their principal, which is started again
//! after it died, with growing pauses. The first of them waits until a child without a session has
//! said that it speaks that era; where it does not, the client is answered as a legacy HTTP server
//! would, and falls back to `initialize`. No child ever serves two principals (L1, F7). The number
//! of children is bounded, and one that nobody has used for a while is ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::conversation::{Common, Conversation, Kind};
use super::era::{Asked, KnownEra, NOT_INITIALIZED};
use super::process::{ChildLimits, ChildSpec};
use crate::duplex::{Answered, DRAIN_STEP, DuplexStream, End};
use crate::seats::{Seats, Unannounced, mint};
use crate::upstream::{SESSION_ID, SendContext};
use crate::{Answer, Shared};
use bartizan_gate::evidence::step::{Dispatch, Permitted};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::{Protected, UpstreamFailure};
use bartizan_gate::wire::headers::meta_version;
use bartizan_gate::wire::method::Role;
use bartizan_gate::wire::protocol::Era;
use bartizan_sync::lock;

/// How often the children are looked over, at most and at least.
const SWEEP_MIN: Duration = Duration::from_secs(1);
const SWEEP_MAX: Duration = Duration::from_mins(1);

/// Chooses a child.
#[derive(Debug, Clone, Copy)]
struct ChildKey<'a> {
    /// Whose message it is.
    principal: &'a Arc<Principal>,
    /// The session that the request named, if any.
    session: Option<&'a str>,
}

/// A protected server whose every instance is a child process.
#[derive(Debug)]
pub struct ChildUpstream {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    common: Arc<Common>,
    table: Mutex<Table>,
    /// One permit, held while a child is asked which era it speaks, so that it is done once.
    asking: Semaphore,
}

#[derive(Debug, Default)]
struct Table {
    sessions: Seats<Arc<Conversation>>,
    shared: BTreeMap<Box<str>, SharedSeat>,
    /// When a principal whose sessions' children die at once may start the next.
    openings: BTreeMap<Box<str>, Pace>,
    era: KnownEra,
    sweeping: bool,
}

/// The child of one principal, and when the next one may be started.
#[derive(Debug, Default)]
struct SharedSeat {
    child: Option<Arc<Conversation>>,
    pace: Pace,
}

/// When the next child may be started, by uptime.
#[derive(Debug, Default)]
struct Pace {
    pause: Duration,
    not_before: Duration,
}

impl ChildUpstream {
    /// No child is started before the first message. The tasks of the children are tracked in
    /// `shared`; once it is closing, calls in flight may end (bounded by
    /// [`ChildLimits::drain_max`]) and no child is started any more. What a child writes to nobody
    /// is recorded as said by `server`.
    pub fn new(
        spec: ChildSpec,
        limits: ChildLimits,
        shared: Shared,
        server: Arc<Protected>,
    ) -> Self {
        let common = Arc::new(Common { spec, limits, shared, server });
        let (table, asking) = (Mutex::default(), Semaphore::new(1));
        Self { inner: Arc::new(Inner { common, table, asking }) }
    }

    /// Sends one permitted message to its child. An unknown session is answered with 404, a
    /// second stream with 409, a legacy request outside a session with 400, as an HTTP server
    /// would.
    ///
    /// An `initialize` opens the session that `context` names, which the caller must have minted;
    /// where it names none, one is minted and named in the answer's headers.
    pub async fn send(
        &self,
        permitted: Permitted,
        context: &SendContext,
    ) -> Result<Answer, UpstreamFailure> {
        let key = ChildKey { principal: &context.principal, session: context.session.as_deref() };
        match permitted.dispatch() {
            Dispatch::Message => self.inner.message(&permitted, key).await,
            Dispatch::OpenStream => Ok(self.inner.open_stream(key)),
            Dispatch::EndSession => Ok(self.inner.end_session(key)),
        }
    }

    /// Children alive now.
    pub fn children(&self) -> usize {
        self.inner.table().alive(None)
    }
}

impl Drop for ChildUpstream {
    fn drop(&mut self) {
        self.inner.stop(|_| true);
    }
}

impl Inner {
    fn limits(&self) -> &ChildLimits {
        &self.common.limits
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    async fn message(
        self: &Arc<Self>,
        permitted: &Permitted,
        key: ChildKey<'_>,
    ) -> Result<Answer, UpstreamFailure> {
        let initialize = permitted.method().is_some_and(|method| method.role == Role::Handshake);
        let modern = permitted.frame().and_then(meta_version).is_some();
        // A session's only child is never tried with what it may not understand.
        let child = match key.session.filter(|_| !modern) {
            Some(session) => match self.session(session, key.principal) {
                Some(child) => child,
                None if initialize => return self.initialize(permitted, key).await,
                None => return Ok(Answer::bare(404)),
            },
            None if initialize => return self.initialize(permitted, key).await,
            None if modern => match self.modern(key.principal).await? {
                Some(child) => child,
                None => return Ok(not_initialized()),
            },
            None => return Ok(not_initialized()),
        };
        if permitted.id().is_none() {
            child.tell(permitted).await?;
            return Ok(Answer::accepted(202));
        }
        let stream = child.ask(permitted).await?;
        let (answer, _) = self.answer(stream, modern).await?;
        Ok(answer)
    }

    /// The answer: whole where it comes first and soon, else as a stream.
    async fn answer(
        &self,
        stream: DuplexStream,
        modern: bool,
    ) -> Result<(Answer, Option<End>), UpstreamFailure> {
        Ok(match stream.answer(true, self.limits().whole_wait).await? {
            Answered::Whole(body, end) => {
                let status = if modern { modern_status(end) } else { 200 };
                (Answer::json(status, body), Some(end))
            }
            Answered::Stream(stream) => (Answer::stream(stream), None),
            Answered::Turned(answer) => (answer, None),
        })
    }

    /// A new session with a child of its own. Where the child refuses, or the client does not
    /// wait, there is no session.
    async fn initialize(
        self: &Arc<Self>,
        permitted: &Permitted,
        key: ChildKey<'_>,
    ) -> Result<Answer, UpstreamFailure> {
        let principal = &*key.principal.id;
        let pause = self.table().openings.get(principal).map(|pace| pace.wait(self.uptime()));
        self.patiently(pause.unwrap_or_default()).await?;
        let name = match key.session {
            Some(name) => name.into(),
            None => mint().ok_or_else(no_randomness)?,
        };
        let child = {
            let mut table = self.table();
            if table.sessions.is_taken(&name) {
                // Another principal's: it does not exist for this one.
                return Ok(Answer::bare(404));
            }
            self.admit(&mut table, principal)?;
            let child = self.start(&mut table, Kind::Session, key.principal)?;
            let owner = Arc::clone(key.principal);
            table.sessions.begin(name.clone(), owner, Arc::clone(&child));
            child
        };
        let fresh = Unannounced::new(name, |name| self.forget(name));
        let answered = match child.ask(permitted).await {
            Ok(stream) => self.answer(stream, false).await,
            Err(failure) => Err(failure),
        };
        if answered.is_err() {
            let mut table = self.table();
            let pace = table.openings.entry(principal.into()).or_default();
            pace.died(false, self.uptime(), self.limits());
        } else {
            self.table().openings.remove(principal);
        }
        let (mut answer, end) = answered?;
        if !matches!(end, Some(End::Error(_)))
            && let Some(name) = fresh.announce()
            && let Ok(value) = HeaderValue::from_str(&name)
            && key.session.is_none()
        {
            answer.headers_mut().insert(SESSION_ID, value);
        }
        Ok(answer)
    }

    fn uptime(&self) -> Duration {
        self.common.uptime()
    }

    /// Waits until the next child may be started, unless that is too far off.
    async fn patiently(&self, wait: Duration) -> Result<(), UpstreamFailure> {
        if wait > self.limits().restart_wait_max {
            return Err(UpstreamFailure::Unreachable(format!(
                "child process ended and is not started again for {} ms",
                wait.as_millis()
            )));
        }
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(())
    }

    /// The child of a session, if it lives and is this principal's.
    fn session(&self, name: &str, principal: &Principal) -> Option<Arc<Conversation>> {
        let mut table = self.table();
        let child = table.sessions.get(name, principal)?;
        if !child.ended() {
            return Some(Arc::clone(child));
        }
        table.sessions.forget(name);
        None
    }

    /// The child of a principal for requests of the modern era; `None` where the server speaks the
    /// legacy era alone.
    async fn modern(
        self: &Arc<Self>,
        principal: &Arc<Principal>,
    ) -> Result<Option<Arc<Conversation>>, UpstreamFailure> {
        let _turn = match self.known_era() {
            Some(Era::Modern) => return self.shared(principal).await.map(Some),
            Some(Era::Legacy) => return Ok(None),
            None => self.asking.acquire().await,
        };
        // Another request may have learnt it meanwhile.
        match self.known_era() {
            Some(Era::Modern) => return self.shared(principal).await.map(Some),
            Some(Era::Legacy) => return Ok(None),
            None => {}
        }
        let child = self.shared(principal).await?;
        let mut unproven = Unproven { inner: self, principal: &principal.id, child: Some(&child) };
        let asked = child.asked_era().await;
        let limits = self.limits();
        let (era, held) = match asked {
            Asked::Speaks(era) => (era, limits.era_max),
            Asked::Silent => (Era::Legacy, limits.era_guess_max),
            Asked::Forbidden => {
                unproven.child = None;
                return Ok(Some(Arc::clone(&child)));
            }
        };
        tracing::info!(era = era.as_str(), ?asked, "asked a child which era it speaks");
        self.table().era.learn(era, self.uptime().saturating_add(held));
        if era == Era::Legacy {
            return Ok(None);
        }
        unproven.child = None;
        Ok(Some(Arc::clone(&child)))
    }

    fn known_era(&self) -> Option<Era> {
        self.table().era.at(self.uptime())
    }

    /// The child of a principal, started again where it died.
    async fn shared(
        self: &Arc<Self>,
        principal: &Arc<Principal>,
    ) -> Result<Arc<Conversation>, UpstreamFailure> {
        // Each round either ends or waits for a pause, and pauses double until a call would wait
        // too long: the loop is bounded.
        loop {
            let seated = self.seated(&mut self.table(), principal)?;
            match seated {
                Seated::Child(child) => return Ok(child),
                Seated::Wait(wait) => self.patiently(wait).await?,
            }
        }
    }

    fn seated(
        self: &Arc<Self>,
        table: &mut Table,
        principal: &Arc<Principal>,
    ) -> Result<Seated, UpstreamFailure> {
        let now = self.uptime();
        if let Some(seat) = table.shared.get_mut(&*principal.id) {
            match seat.child.take() {
                Some(child) if !child.ended() => {
                    seat.child = Some(Arc::clone(&child));
                    return Ok(Seated::Child(child));
                }
                Some(child) => seat.pace.died(child.was_healthy(), now, self.limits()),
                None => {}
            }
            let wait = seat.pace.wait(now);
            if !wait.is_zero() {
                return Ok(Seated::Wait(wait));
            }
        }
        self.admit(table, &principal.id)?;
        let started = self.start(table, Kind::Shared, principal);
        let seat = table.shared.entry(principal.id.clone()).or_default();
        match started {
            Ok(child) => {
                seat.child = Some(Arc::clone(&child));
                Ok(Seated::Child(child))
            }
            Err(failure) => {
                seat.pace.died(false, now, self.limits());
                Err(failure)
            }
        }
    }

    /// Whether one more child fits.
    fn admit(&self, table: &mut Table, principal: &str) -> Result<(), UpstreamFailure> {
        table.sweep(self.uptime(), self.limits());
        let bounds = [
            ("children_max", table.alive(None), self.limits().children_max),
            (
                "children_per_principal_max",
                table.alive(Some(principal)),
                self.limits().children_per_principal_max,
            ),
        ];
        for (name, alive, max) in bounds {
            if alive >= max {
                return Err(UpstreamFailure::Unreachable(format!(
                    "too many child processes (`{name}` {max})"
                )));
            }
        }
        Ok(())
    }

    fn start(
        self: &Arc<Self>,
        table: &mut Table,
        kind: Kind,
        principal: &Arc<Principal>,
    ) -> Result<Arc<Conversation>, UpstreamFailure> {
        let shared = &self.common.shared;
        if shared.closing.is_cancelled() {
            return Err(UpstreamFailure::Unreachable("closing".to_owned()));
        }
        if !std::mem::replace(&mut table.sweeping, true) {
            let closing = shared.closing.clone();
            shared.tasks.spawn(tend(Arc::downgrade(self), closing));
        }
        Conversation::start(kind, &self.common, principal)
            .map_err(|error| UpstreamFailure::Unreachable(error.to_string()))
    }

    fn open_stream(&self, key: ChildKey<'_>) -> Answer {
        let Some(session) = key.session else { return Answer::bare(405) };
        let Some(child) = self.session(session, key.principal) else { return Answer::bare(404) };
        child.hear().map_or_else(|| Answer::bare(409), Answer::stream)
    }

    fn end_session(&self, key: ChildKey<'_>) -> Answer {
        let Some(session) = key.session else { return Answer::bare(405) };
        if self.session(session, key.principal).is_none() {
            return Answer::bare(404);
        }
        self.forget(session);
        Answer::accepted(204)
    }

    /// Ends a session and its child.
    fn forget(&self, name: &str) {
        if let Some(child) = self.table().sessions.forget(name) {
            child.stop();
        }
    }

    /// Ends the children that `which` chooses, and says whether any is left.
    fn stop(&self, which: impl Fn(&Conversation) -> bool) -> bool {
        let mut table = self.table();
        table.end(which);
        table.alive(None) > 0
    }
}

enum Seated {
    Child(Arc<Conversation>),
    Wait(Duration),
}

impl Pace {
    /// How long the next start must wait.
    fn wait(&self, now: Duration) -> Duration {
        self.not_before.saturating_sub(now)
    }

    /// Whether nothing need be remembered of it any more.
    fn is_over(&self, now: Duration, limits: &ChildLimits) -> bool {
        self.not_before.saturating_add(limits.restart_pause_max) <= now
    }

    /// Puts off the next start: longer each time, unless the child had been healthy.
    fn died(&mut self, healthy: bool, now: Duration, limits: &ChildLimits) {
        self.pause = if healthy || self.pause.is_zero() {
            limits.restart_pause
        } else {
            self.pause.saturating_mul(2).min(limits.restart_pause_max)
        };
        self.not_before = now.saturating_add(self.pause);
        tracing::warn!(pause_ms = self.pause.as_millis(), "child ended; starting it again later");
    }
}

impl Table {
    /// Children alive, of one principal or of all.
    fn alive(&self, principal: Option<&str>) -> usize {
        let mine = |name: &str| principal.is_none_or(|principal| principal == name);
        let sessions =
            principal.map_or(self.sessions.len(), |principal| self.sessions.count_of(principal));
        let lives = |seat: &SharedSeat| seat.child.as_ref().is_some_and(|child| !child.ended());
        let shared = self.shared.iter().filter(|(name, seat)| mine(name) && lives(seat));
        sessions.saturating_add(shared.count())
    }

    /// Forgets children that ended and ends those that nobody uses.
    fn sweep(&mut self, now: Duration, limits: &ChildLimits) {
        drop(self.sessions.forget_if(|child| child.ended()));
        self.end(Conversation::is_idle);
        self.shared.retain(|_, seat| {
            // A seat without a child is kept while it still says when the next may start.
            seat.child.is_some() || !seat.pace.is_over(now, limits)
        });
        self.openings.retain(|_, pace| !pace.is_over(now, limits));
    }

    fn end(&mut self, which: impl Fn(&Conversation) -> bool) {
        for child in self.sessions.forget_if(|child| which(child)) {
            child.stop();
        }
        for seat in self.shared.values_mut() {
            if let Some(child) = seat.child.take_if(|child| which(child)) {
                child.stop();
            }
        }
    }
}

/// A child that has not yet shown that it speaks the modern era, and is ended unless it does.
struct Unproven<'a> {
    inner: &'a Inner,
    principal: &'a str,
    child: Option<&'a Arc<Conversation>>,
}

impl Drop for Unproven<'_> {
    fn drop(&mut self) {
        let Some(child) = self.child else { return };
        child.stop();
        if let Some(seat) = self.inner.table().shared.get_mut(self.principal) {
            drop(seat.child.take_if(|seated| Arc::ptr_eq(seated, child)));
        }
    }
}

/// Looks the children over until the upstream is gone or closing; then lets calls in flight end.
async fn tend(inner: Weak<Inner>, closing: CancellationToken) {
    loop {
        let Some(idle_max) = inner.upgrade().map(|inner| inner.limits().idle_max) else { return };
        tokio::select! {
            () = sleep(idle_max.clamp(SWEEP_MIN, SWEEP_MAX)) => {}
            () = closing.cancelled() => break,
        }
        let Some(inner) = inner.upgrade() else { return };
        inner.table().sweep(inner.uptime(), inner.limits());
    }
    let Some(inner) = inner.upgrade() else { return };
    let over = async {
        while inner.stop(|child| !child.is_busy()) {
            sleep(DRAIN_STEP).await;
        }
    };
    if timeout(inner.limits().drain_max, over).await.is_err() {
        inner.stop(|_| true);
    }
}

/// What a legacy server says to a request without a session.
fn not_initialized() -> Answer {
    Answer::json(400, Bytes::from_static(NOT_INITIALIZED))
}

/// The HTTP status of an answer in the modern era (revision 2026-07-28, streamable-http).
fn modern_status(end: End) -> u16 {
    match end {
        End::Error(-32601) => 404,
        End::Error(-32022..=-32020) => 400,
        End::Result | End::Error(_) => 200,
    }
}

fn no_randomness() -> UpstreamFailure {
    UpstreamFailure::Unreachable("no randomness for the name of a session".to_owned())
}
