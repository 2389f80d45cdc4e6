//! Stdio servers for HTTP clients: chooses and starts the child process that a message goes to.
//!
//! An `initialize` without a session starts a child and mints a session id; messages of that
//! session go to that child (2025-11-25, basic/transports, "Session Management"). Messages of the
//! modern era have no session and go to the one child of their principal, which is started again
//! after it died, with exponential backoff. The first of them waits for a probe of the era
//! ([`era`](super::era)); a legacy server is answered for as a legacy HTTP server would do, and the
//! client falls back to `initialize`. No child serves two principals (threats L1, F7). The number
//! of children is limited, and idle children are stopped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::conversation::{ChildScope, ChildSetup, Conversation};
use super::era::{KnownEra, NOT_INITIALIZED, ProbeOutcome};
use super::process::{ChildLimits, ChildSpec, Program};
use crate::duplex::{DRAIN_STEP, DuplexStream, End, ExchangeAnswer};
use crate::registry::{SessionRegistry, Unannounced, mint};
use crate::session::Departure;
use crate::upstream::{SESSION_ID, SendContext};
use crate::{Answer, Shared};
use bartizan_gate::evidence::step::{Dispatch, Permitted};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::{Protected, UpstreamFailure};
use bartizan_gate::wire::frame::Frame;
use bartizan_gate::wire::method::Role;
use bartizan_gate::wire::protocol::Era;
use bartizan_sync::{caught, lock};

/// Shortest and longest interval between two sweeps of the children.
const SWEEP_MIN: Duration = Duration::from_secs(1);
const SWEEP_MAX: Duration = Duration::from_mins(1);

/// Chooses a child.
#[derive(Debug, Clone, Copy)]
struct ChildKey<'a> {
    /// Whose message it is.
    principal: &'a Arc<Principal>,
    /// The session that the request named, if any.
    session: Option<&'a str>,
    /// Decides whether the child is told that the client has gone.
    departure: Option<&'a Arc<dyn Departure>>,
}

/// A protected server that runs as child processes.
#[derive(Debug)]
pub struct ChildUpstream {
    inner: Arc<ChildPool>,
}

#[derive(Debug)]
struct ChildPool {
    common: Arc<ChildSetup>,
    table: Mutex<ChildTable>,
    /// One permit, held during a probe, so that only one probe runs at a time.
    asking: Semaphore,
}

#[derive(Debug, Default)]
struct ChildTable {
    sessions: SessionRegistry<Arc<Conversation>>,
    shared: BTreeMap<Box<str>, SharedChild>,
    /// Backoff of principals whose sessions failed to start, by principal id.
    openings: BTreeMap<Box<str>, RestartBackoff>,
    era: KnownEra,
    sweeping: bool,
}

/// The child of one principal in the modern era, and its restart backoff.
#[derive(Debug, Default)]
struct SharedChild {
    child: Option<Arc<Conversation>>,
    pace: RestartBackoff,
}

/// Exponential backoff before the next start, in uptime.
#[derive(Debug, Default)]
struct RestartBackoff {
    pause: Duration,
    not_before: Duration,
}

impl ChildUpstream {
    /// A server described by `spec`. Its first child is started for the first message. The
    /// children's tasks are tracked in `shared`. After shutdown begins, calls in flight may finish
    /// (within [`ChildLimits::drain_max`]) and no child is started. Unsolicited output of a child
    /// is recorded as output of `server`.
    pub fn new(
        spec: ChildSpec,
        limits: ChildLimits,
        shared: Shared,
        server: Arc<Protected>,
    ) -> Self {
        let common = Arc::new(ChildSetup { spec, limits, shared, server });
        let (table, asking) = (Mutex::default(), Semaphore::new(1));
        Self { inner: Arc::new(ChildPool { common, table, asking }) }
    }

    /// Sends one permitted message to its child. As an HTTP server would, it answers an unknown
    /// session with 404, a second stream of server messages with 409, and a legacy request outside
    /// a session with 400.
    ///
    /// An `initialize` opens the session that `context` names, whose id the caller must have
    /// minted; if it names none, one is minted and put into the answer's headers. Fails if the
    /// child cannot be started or ends.
    pub async fn send(
        &self,
        permitted: Permitted,
        context: &SendContext,
    ) -> Result<Answer, UpstreamFailure> {
        let key = ChildKey {
            principal: &context.principal,
            session: context.session.as_deref(),
            departure: context.departure.as_ref(),
        };
        match permitted.dispatch() {
            Dispatch::Message => self.inner.message(&permitted, key).await,
            Dispatch::OpenStream => Ok(self.inner.open_stream(key)),
            Dispatch::EndSession => Ok(self.inner.end_session(key)),
        }
    }

    /// Number of running children.
    pub fn children(&self) -> usize {
        self.inner.table().alive(None)
    }
}

impl Drop for ChildUpstream {
    fn drop(&mut self) {
        self.inner.stop(|_| true);
    }
}

impl ChildPool {
    fn limits(&self) -> &ChildLimits {
        &self.common.limits
    }

    fn table(&self) -> MutexGuard<'_, ChildTable> {
        lock(&self.table)
    }

    async fn message(
        self: &Arc<Self>,
        permitted: &Permitted,
        key: ChildKey<'_>,
    ) -> Result<Answer, UpstreamFailure> {
        let initialize = permitted.method().is_some_and(|method| method.role == Role::Handshake);
        let modern = permitted.frame().and_then(Frame::claimed_version).is_some();
        // A session's child is never sent a modern request, which a legacy server may misread.
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
        let stream = child.ask(permitted, key.departure).await?;
        let (answer, _) = self.answer(stream, modern).await?;
        Ok(answer)
    }

    /// The answer: whole if it comes first and within [`ChildLimits::whole_wait`], else a stream.
    async fn answer(
        &self,
        stream: DuplexStream,
        modern: bool,
    ) -> Result<(Answer, Option<End>), UpstreamFailure> {
        Ok(match stream.answer(true, self.limits().whole_wait).await? {
            ExchangeAnswer::Whole(body, end) => {
                let status = if modern { modern_status(end) } else { 200 };
                (Answer::json(status, body), Some(end))
            }
            ExchangeAnswer::Stream(stream) => (Answer::stream(stream), None),
            ExchangeAnswer::Status(answer) => (answer, None),
        })
    }

    /// Starts a session with a child of its own. If the child refuses or the client disconnects,
    /// the session is discarded.
    async fn initialize(
        self: &Arc<Self>,
        permitted: &Permitted,
        key: ChildKey<'_>,
    ) -> Result<Answer, UpstreamFailure> {
        let principal = &*key.principal.id;
        let pause = self.table().openings.get(principal).map(|pace| pace.wait(self.uptime()));
        self.wait_for_restart(pause.unwrap_or_default()).await?;
        let name = match key.session {
            Some(name) => name.into(),
            None => mint().ok_or_else(no_randomness)?,
        };
        let program = self.program().await;
        let child = {
            let mut table = self.table();
            if table.sessions.is_taken(&name) {
                // The session belongs to another principal, so for this one it does not exist.
                return Ok(Answer::bare(404));
            }
            self.admit(&mut table, principal)?;
            let started = program.and_then(|program| {
                self.start(&mut table, ChildScope::Session, program, key.principal)
            });
            if started.is_err() {
                self.opening_failed(&mut table, principal);
            }
            let child = started?;
            let owner = Arc::clone(key.principal);
            table.sessions.begin(name.clone(), owner, Arc::clone(&child));
            child
        };
        let fresh = Unannounced::new(name, |name| self.forget(name));
        let answered = match child.ask(permitted, None).await {
            Ok(stream) => self.answer(stream, false).await,
            Err(failure) => Err(failure),
        };
        if answered.is_err() {
            self.opening_failed(&mut self.table(), principal);
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

    /// The next session of `principal` starts after a pause.
    fn opening_failed(&self, table: &mut ChildTable, principal: &str) {
        let pace = table.openings.entry(principal.into()).or_default();
        pace.died(false, self.uptime(), self.limits());
    }

    /// The file that the next child runs.
    async fn program(&self) -> Result<Program, UpstreamFailure> {
        let program = self.common.spec.program().await;
        program.map_err(|error| error.failure(&self.common.server))
    }

    fn uptime(&self) -> Duration {
        self.common.uptime()
    }

    /// Waits for the backoff pause; fails if it is longer than [`ChildLimits::restart_wait_max`].
    async fn wait_for_restart(&self, wait: Duration) -> Result<(), UpstreamFailure> {
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

    /// The child of a session, if it runs and the session belongs to this principal.
    fn session(&self, name: &str, principal: &Principal) -> Option<Arc<Conversation>> {
        let mut table = self.table();
        let child = table.sessions.get(name, principal)?;
        if !child.ended() {
            return Some(Arc::clone(child));
        }
        table.sessions.forget(name);
        None
    }

    /// The child of a principal for requests of the modern era; `None` if the server speaks only
    /// the legacy era.
    async fn modern(
        self: &Arc<Self>,
        principal: &Arc<Principal>,
    ) -> Result<Option<Arc<Conversation>>, UpstreamFailure> {
        let _turn = match self.known_era() {
            Some(Era::Modern) => return self.shared(principal).await.map(Some),
            Some(Era::Legacy) => return Ok(None),
            None => self.asking.acquire().await,
        };
        // Another request may have finished the probe while we waited for the permit.
        match self.known_era() {
            Some(Era::Modern) => return self.shared(principal).await.map(Some),
            Some(Era::Legacy) => return Ok(None),
            None => {}
        }
        let child = self.shared(principal).await?;
        let mut unprobed =
            UnprobedChild { inner: self, principal: &principal.id, child: Some(&child) };
        let asked = child.probe_era().await;
        let limits = self.limits();
        let (era, held) = match asked {
            ProbeOutcome::Speaks(era) => (era, limits.era_max),
            ProbeOutcome::Silent => (Era::Legacy, limits.era_guess_max),
            ProbeOutcome::Forbidden => {
                unprobed.child = None;
                return Ok(Some(Arc::clone(&child)));
            }
        };
        tracing::info!(era = era.as_str(), ?asked, "asked a child which era it speaks");
        self.table().era.learn(era, self.uptime().saturating_add(held));
        if era == Era::Legacy {
            return Ok(None);
        }
        unprobed.child = None;
        Ok(Some(Arc::clone(&child)))
    }

    fn known_era(&self) -> Option<Era> {
        self.table().era.at(self.uptime())
    }

    /// The child of a principal; started again if it died.
    async fn shared(
        self: &Arc<Self>,
        principal: &Arc<Principal>,
    ) -> Result<Arc<Conversation>, UpstreamFailure> {
        let mut program = None;
        // Bounded: each round ends, finds the program or waits for a pause, and pauses double until
        // they exceed `restart_wait_max`.
        loop {
            let next_shared = self.next_shared(&mut self.table(), &mut program, principal)?;
            match next_shared {
                NextChild::Child(child) => return Ok(child),
                NextChild::Wait(wait) => self.wait_for_restart(wait).await?,
                NextChild::Start => program = Some(self.program().await),
            }
        }
    }

    fn next_shared(
        self: &Arc<Self>,
        table: &mut ChildTable,
        program: &mut Option<Result<Program, UpstreamFailure>>,
        principal: &Arc<Principal>,
    ) -> Result<NextChild, UpstreamFailure> {
        let now = self.uptime();
        if let Some(seat) = table.shared.get_mut(&*principal.id) {
            match seat.child.take() {
                Some(child) if !child.ended() => {
                    seat.child = Some(Arc::clone(&child));
                    return Ok(NextChild::Child(child));
                }
                Some(child) => seat.pace.died(child.was_healthy(), now, self.limits()),
                None => {}
            }
            let wait = seat.pace.wait(now);
            if !wait.is_zero() {
                return Ok(NextChild::Wait(wait));
            }
        }
        let Some(program) = program.take() else { return Ok(NextChild::Start) };
        self.admit(table, &principal.id)?;
        let started =
            program.and_then(|program| self.start(table, ChildScope::Shared, program, principal));
        let seat = table.shared.entry(principal.id.clone()).or_default();
        match started {
            Ok(child) => {
                seat.child = Some(Arc::clone(&child));
                Ok(NextChild::Child(child))
            }
            Err(failure) => {
                seat.pace.died(false, now, self.limits());
                Err(failure)
            }
        }
    }

    /// Fails if one more child would exceed a limit.
    fn admit(&self, table: &mut ChildTable, principal: &str) -> Result<(), UpstreamFailure> {
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
        table: &mut ChildTable,
        kind: ChildScope,
        program: Program,
        principal: &Arc<Principal>,
    ) -> Result<Arc<Conversation>, UpstreamFailure> {
        let shared = &self.common.shared;
        if shared.closing.is_cancelled() {
            return Err(UpstreamFailure::Unreachable("closing".to_owned()));
        }
        if !std::mem::replace(&mut table.sweeping, true) {
            let closing = shared.closing.clone();
            shared.tasks.spawn(sweep_children(Arc::downgrade(self), closing));
        }
        Conversation::start(kind, &self.common, program, principal)
            .map_err(|error| error.failure(&self.common.server))
    }

    fn open_stream(&self, key: ChildKey<'_>) -> Answer {
        let Some(session) = key.session else { return Answer::bare(405) };
        let Some(child) = self.session(session, key.principal) else { return Answer::bare(404) };
        child.open_server_stream().map_or_else(|| Answer::bare(409), Answer::stream)
    }

    fn end_session(&self, key: ChildKey<'_>) -> Answer {
        let Some(session) = key.session else { return Answer::bare(405) };
        if self.session(session, key.principal).is_none() {
            return Answer::bare(404);
        }
        self.forget(session);
        Answer::accepted(204)
    }

    /// Removes a session and stops its child.
    fn forget(&self, name: &str) {
        if let Some(child) = self.table().sessions.forget(name) {
            child.stop();
        }
    }

    /// Stops the children that `which` chooses; `true` if others are still running.
    fn stop(&self, which: impl Fn(&Conversation) -> bool) -> bool {
        let mut table = self.table();
        table.end(which);
        table.alive(None) > 0
    }
}

enum NextChild {
    Child(Arc<Conversation>),
    /// None runs; the program must be found first.
    Start,
    Wait(Duration),
}

impl RestartBackoff {
    /// How long the next start must wait at uptime `now`.
    fn wait(&self, now: Duration) -> Duration {
        self.not_before.saturating_sub(now)
    }

    /// Whether the backoff can be forgotten at uptime `now`.
    fn is_over(&self, now: Duration, limits: &ChildLimits) -> bool {
        self.not_before.saturating_add(limits.restart_pause_max) <= now
    }

    /// Doubles the pause, or resets it to the first one if the child was healthy.
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

impl ChildTable {
    /// Number of running children, of one principal or of all.
    fn alive(&self, principal: Option<&str>) -> usize {
        let mine = |name: &str| principal.is_none_or(|principal| principal == name);
        let sessions =
            principal.map_or(self.sessions.len(), |principal| self.sessions.count_of(principal));
        let lives = |seat: &SharedChild| seat.child.as_ref().is_some_and(|child| !child.ended());
        let shared = self.shared.iter().filter(|(name, seat)| mine(name) && lives(seat));
        sessions.saturating_add(shared.count())
    }

    /// Removes ended children and stops idle ones.
    fn sweep(&mut self, now: Duration, limits: &ChildLimits) {
        drop(self.sessions.forget_if(|child| child.ended()));
        self.end(Conversation::is_idle);
        self.shared.retain(|_, seat| {
            // Without a child the entry is kept only while its backoff matters.
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

/// A child whose era is not known yet. Dropping this stops the child unless `child` was taken out.
struct UnprobedChild<'a> {
    inner: &'a ChildPool,
    principal: &'a str,
    child: Option<&'a Arc<Conversation>>,
}

impl Drop for UnprobedChild<'_> {
    fn drop(&mut self) {
        let Some(child) = self.child else { return };
        child.stop();
        if let Some(seat) = self.inner.table().shared.get_mut(self.principal) {
            drop(seat.child.take_if(|shared| Arc::ptr_eq(shared, child)));
        }
    }
}

/// Sweeps the children until the upstream is dropped or shutdown begins; then lets calls in flight
/// finish.
async fn sweep_children(inner: Weak<ChildPool>, closing: CancellationToken) {
    loop {
        let Some(idle_max) = inner.upgrade().map(|inner| inner.limits().idle_max) else { return };
        tokio::select! {
            () = sleep(idle_max.clamp(SWEEP_MIN, SWEEP_MAX)) => {}
            () = closing.cancelled() => break,
        }
        let Some(inner) = inner.upgrade() else { return };
        let swept = caught(async { inner.table().sweep(inner.uptime(), inner.limits()) }).await;
        if swept.is_err() {
            tracing::error!(
                "the sweep of idle programs was interrupted by a panic; it is tried again"
            );
        }
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

/// The answer of a legacy server to a request without a session.
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
    UpstreamFailure::Unreachable("the system gives no randomness for a session id".to_owned())
}
