//! The client's side of a connection that carries one stream of messages: a pipe or an HTTP+SSE
//! stream. The program's `run` and `http::legacy_sse` start it.
//!
//! One run is one [`Session`]. [`child`] joins a client on a pipe to a child process, [`remote`]
//! joins any client to a server over HTTP; both pass every message of either direction to the gate.
//! [`Client`] is what they share: the session, the records, and the writer to the client.

mod exit;
mod child;
pub(crate) mod remote;
mod renewal;
mod pipe;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bartizan_sync::lock;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::exit::ExitReason;
pub use self::pipe::{Serving, StdioLimits, StdioUpstream, serve_pipes, serve_stdio};
pub use self::remote::RemoteLimits;
use crate::aside::{Turn, Weight};
use crate::child::lines::{Line, Lines, has_foreign_line_end, line_for_client};
use crate::held::{HeldRequest, SpentGrants};
use crate::kept::Account;
use crate::own_tasks::{self, AsTask, Making};
use crate::session::{SessionHandle, StepOutcome, Taken};
use crate::{ServerEvent, Shared, sse};
use bartizan_gate::evidence::record::{CallId, Now};
use bartizan_gate::evidence::step::{Act, Permitted, Released, Step};
use bartizan_gate::memory::{Charge, NoRoom};
use bartizan_gate::question::access::Principal;
use bartizan_gate::question::hold::Hold;
use bartizan_gate::question::task::TaskAct;
use bartizan_gate::session::{
    Arrival, DoorFacts, DoorRefusal, ErrorAnswer, Gate, Protected, ServerState, Session,
    UpstreamFailure,
};
use bartizan_gate::wire::frame::Id;
use bartizan_gate::wire::method::Role;
use bartizan_gate::wire::protocol::{Protocol, Transport};

/// How messages are framed for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageFraming {
    /// One message on each line of a pipe.
    Lines,
    /// One message in each event of an HTTP stream.
    Events,
}

/// The client of one run.
pub(crate) struct Client {
    pub(crate) shared: Shared,
    server: Arc<Protected>,
    principal: Arc<Principal>,
    session: SessionHandle,
    form: MessageFraming,
    out: mpsc::Sender<Bytes>,
    /// Cancelled when the client no longer reads.
    pub(crate) gone: CancellationToken,
    /// Notified after each step, which may have settled a call.
    settled: Notify,
    /// Held between the first and the second attempt of a request: no call of it waits then, and
    /// the client still expects an answer.
    between_attempts: Mutex<()>,
    me: Weak<Self>,
    /// Acts for requests that waited for approval, one for each, for [`Client::next`].
    resumed: Mutex<mpsc::Receiver<Act>>,
    resume: mpsc::Sender<Act>,
    /// Requests that wait for approval, and acts in `resumed`.
    resuming: AtomicUsize,
    /// Calls of tasks that are being made, by the id of the request.
    making: Mutex<HashMap<Box<str>, Arc<Making>>>,
    /// Their number.
    made: AtomicUsize,
    /// Open subscriptions (`subscriptions/listen`), for which [`Client::idle`] does not wait.
    listens: Mutex<BTreeSet<CallId>>,
}

/// Acts for requests that have waited for approval and that nobody has taken yet.
const RESUMED_MAX: usize = 16;

/// What was read from the client.
pub(crate) enum Input {
    /// The gate's act for a message.
    Act(Act),
    /// The client closed its end.
    Closed,
    /// Reading failed.
    Broken(io::Error),
}

impl Client {
    pub(crate) fn new(
        shared: Shared,
        server: Arc<Protected>,
        principal: Arc<Principal>,
        form: MessageFraming,
        out: mpsc::Sender<Bytes>,
    ) -> Arc<Self> {
        let transport = match form {
            MessageFraming::Lines => Transport::Stdio,
            MessageFraming::Events => Transport::Http,
        };
        let session = Session::new(Arc::clone(&principal), Arc::clone(&server), transport);
        let (resume, resumed) = mpsc::channel(RESUMED_MAX);
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            resumed: Mutex::new(resumed),
            resume,
            resuming: AtomicUsize::new(0),
            session: SessionHandle::new(&shared, session),
            shared,
            server,
            principal,
            form,
            out,
            gone: CancellationToken::new(),
            settled: Notify::new(),
            between_attempts: Mutex::default(),
            making: Mutex::default(),
            made: AtomicUsize::new(0),
            listens: Mutex::default(),
        })
    }

    pub(crate) fn principal(&self) -> Arc<Principal> {
        Arc::clone(&self.principal)
    }

    /// The protocol that the session speaks, as far as it is known.
    pub(crate) fn protocol(&self) -> Protocol {
        self.session.protocol()
    }

    /// The protected server.
    pub(crate) fn server(&self) -> &Protected {
        &self.server
    }

    /// Says what the server holds for the session.
    pub(crate) fn set_server_state(&self, state: ServerState) {
        self.session.set_server_state(state);
    }

    /// Whether `call` was judged by what is known of the server's session as it is now.
    pub(crate) fn is_current(&self, call: &CallId) -> bool {
        self.session.is_current(call)
    }

    /// Cancelled when a panic has closed the session, which ends the run.
    pub(crate) fn closed(&self) -> &CancellationToken {
        self.session.closed()
    }

    /// Takes one step, about `call` if it is about a call in flight.
    pub(crate) fn step(
        &self,
        call: Option<&CallId>,
        step: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step>,
    ) -> Taken<'_> {
        let taken = self.session.step(call, step);
        self.settled.notify_one();
        taken
    }

    /// See [`SessionHandle::turn`].
    pub(crate) async fn turn(&self, weight: Weight) -> Turn {
        self.session.turn(weight).await
    }

    /// See [`SessionHandle::weight`].
    pub(crate) fn weight(&self, raw: &[u8]) -> Weight {
        self.session.weight(raw)
    }

    /// See [`SessionHandle::step_over`].
    pub(crate) fn step_over(
        &self,
        turn: impl Into<Turn>,
        call: Option<&CallId>,
        step: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step> + Send,
    ) -> Taken<'_> {
        let taken = self.session.step_over(turn, call, step);
        self.settled.notify_one();
        taken
    }

    /// The act for a message of the server that belongs to no call.
    pub(crate) async fn unasked(&self, raw: &Bytes) -> Act {
        let taken = self.step_over(raw.len(), None, |session, gate, now| {
            Some(session.server_frame(gate, raw, now))
        });
        taken.durable().await.into_act()
    }

    /// Takes a step that is not about a call in flight. If its record cannot be kept, the act is
    /// the refusal.
    pub(crate) async fn act(&self, step: impl FnOnce(&mut Session, &Gate, Now) -> Step) -> Act {
        let taken = self.step(None, |session, gate, now| Some(step(session, gate, now)));
        taken.durable().await.into_act()
    }

    /// Takes a step that settles `call` with nothing of the server; the act is `Drop` if it was
    /// settled before.
    fn settle(&self, call: &CallId, step: impl FnOnce(&mut Session, Now) -> Option<Step>) -> Act {
        self.step(Some(call), |session, _, now| step(session, now)).at_once().into_act()
    }

    /// The next line of the client and the gate's act for it, or the act for a line that waited for
    /// approval.
    pub(crate) async fn next<R: AsyncRead + Unpin>(&self, input: &mut Lines<R>) -> Input {
        loop {
            let line = tokio::select! {
                biased;
                Some(act) = self.resumed() => return self.noted(act),
                line = input.next() => line,
            };
            if let Ok(None) = line
                && self.resuming.load(Ordering::Relaxed) > 0
                && let Some(act) = self.resumed().await
            {
                return self.noted(act);
            }
            match self.read(line).await {
                Some(Input::Act(act)) => return self.noted(act),
                Some(end) => return end,
                None => {}
            }
        }
    }

    /// The act as what is read, once a subscription is noted as one.
    fn noted(&self, act: Act) -> Input {
        if let Act::Forward(permitted) = &act
            && permitted.method().is_some_and(|method| method.role == Role::Listen)
        {
            lock(&self.listens).insert(Arc::clone(permitted.call()));
        }
        Input::Act(act)
    }

    /// The act for the next request that has waited for approval.
    async fn resumed(&self) -> Option<Act> {
        let act = std::future::poll_fn(|cx| lock(&self.resumed).poll_recv(cx)).await;
        self.resuming.fetch_sub(1, Ordering::Relaxed);
        act
    }

    /// The gate's act for what was read; `None` for a line that a rule holds, which waits in a task
    /// of its own.
    async fn read(&self, line: io::Result<Option<Line>>) -> Option<Input> {
        let refused = match line {
            Ok(Some(Line::Whole(line))) if !has_foreign_line_end(&line) => {
                let mut act = self.judge(line.clone()).await;
                if let Act::Deliver(released) = &mut act
                    && let Some(of_task) = released.take_task()
                {
                    self.act_on_task(of_task).await;
                }
                if let Act::Hold(hold) = act {
                    self.hold(line, hold, None);
                    return None;
                }
                return Some(Input::Act(act));
            }
            Ok(Some(Line::Whole(_))) => DoorRefusal::Framing,
            Ok(Some(Line::TooLong | Line::Skipped(_))) => DoorRefusal::TooLarge,
            Ok(None) => return Some(Input::Closed),
            Err(cause) => return Some(Input::Broken(cause)),
        };
        let refusal = self.act(|_, gate, now| {
            let facts = DoorFacts {
                principal: Some(&self.principal),
                server: Some(&self.server.facts.name),
                ..DoorFacts::default()
            };
            gate.refuse_at_door(refused, facts, now)
        });
        Some(Input::Act(refusal.await))
    }

    /// Does what follows from a request about a task of the gate's own.
    async fn act_on_task(&self, act: TaskAct) {
        let (name, raw, id) = match act {
            TaskAct::Cancel { name } => return own_tasks::cancel(&self.shared, &name),
            TaskAct::Make { name, raw, id, .. } => (name, raw, id),
        };
        let Some(making) = Making::claim(&self.shared, &name, &id).map(Arc::new) else { return };
        lock(&self.making).insert(id, Arc::clone(&making));
        self.made.fetch_add(1, Ordering::Relaxed);
        match self.judge(raw.clone()).await {
            Act::Hold(hold) => self.hold(raw, hold, Some(making)),
            act @ (Act::Forward(_) | Act::Deliver(_) | Act::Drop) => {
                let Some(client) = self.me.upgrade() else { return };
                self.resuming.fetch_add(1, Ordering::Relaxed);
                drop(self.shared.tasks.spawn(async move { drop(client.resume.send(act).await) }));
            }
        }
    }

    /// Keeps `released` if it is the end of a task's call, which the client did not send. Whether it
    /// is.
    fn ends_task(&self, released: &Released) -> bool {
        if self.made.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let Some(Id::Text(id)) = released.id() else { return false };
        let Some(making) = lock(&self.making).remove(id) else { return false };
        self.made.fetch_sub(1, Ordering::Relaxed);
        making.ends(released.body());
        true
    }

    /// Lets a line wait for approval.
    fn hold(&self, raw: Bytes, hold: Box<Hold>, making: Option<Arc<Making>>) {
        let Some(client) = self.me.upgrade() else { return };
        self.resuming.fetch_add(1, Ordering::Relaxed);
        self.shared.tasks.spawn(async move {
            let arrival = Arrival { raw, may_wait: true, ..Arrival::default() };
            let as_task = making.as_deref().map_or(AsTask::Offered, AsTask::Made);
            let (act, spent) = client.settled_hold(&arrival, hold, as_task).await;
            let call = if let Act::Forward(permitted) = &act {
                Some(Arc::clone(permitted.call()))
            } else {
                None
            };
            // The receiver lives as long as the client.
            drop(client.resume.send(act).await);
            if let (Some(call), Some(spent)) = (call, spent) {
                client.over(&call).await;
                drop(spent);
            }
        });
    }

    /// Waits for the approval of a request, and returns the act for it then, with the grants that
    /// must be kept until the outcome of the call is recorded.
    pub(crate) async fn settled_hold(
        &self,
        arrival: &Arrival,
        hold: Box<Hold>,
        as_task: AsTask<'_>,
    ) -> (Act, Option<SpentGrants>) {
        let (shared, session) = (&self.shared, &self.session);
        let tell = |told: &Released| self.tell(told);
        let until = None;
        let request = HeldRequest { shared, session, arrival, until, tell: &tell, as_task };
        let (outcome, spent) = tokio::select! {
            settled = request.settle(hold) => settled,
            () = self.gone.cancelled() => (StepOutcome::Settled, None),
        };
        self.settled.notify_one();
        (outcome.into_act(), spent)
    }

    /// Waits until the outcome of `call` is recorded.
    pub(crate) async fn over(&self, call: &CallId) {
        self.session.over(call).await;
    }

    /// Sends a message to the client; waits while the client does not read (backpressure).
    pub(crate) async fn deliver(&self, released: Released) {
        if released.body().is_empty() || self.ends_task(&released) {
            return;
        }
        let message = match self.form {
            MessageFraming::Lines => match line_for_client(released.body(), || released.minified())
            {
                Some(line) => line,
                // The body of an HTTP error, which is not JSON, so no line can carry it.
                None => return,
            },
            // A refusal without an id: its POST was answered, and the client could not match it on
            // the stream.
            MessageFraming::Events if released.is_own() && released.id().is_none() => return,
            MessageFraming::Events => event(released.body()),
        };
        let message = self.account().count(message);
        if self.out.send(message).await.is_err() {
            self.gone.cancel();
        }
    }

    /// Sends a notification that the client can do without: none if the client does not read.
    fn tell(&self, released: &Released) {
        let message = match self.form {
            MessageFraming::Lines => line_for_client(released.body(), || released.minified()),
            MessageFraming::Events => Some(event(released.body())),
        };
        if let Some(message) = message {
            drop(self.out.try_send(self.account().count(message)));
        }
    }

    /// Charges `bytes` that are kept for this client.
    pub(crate) fn charge(&self, bytes: usize) -> Result<Charge, NoRoom> {
        self.shared.gate.memory().charge(&self.principal.id, bytes)
    }

    /// Where messages for this client are charged.
    pub(crate) fn account(&self) -> Account {
        Account::new(self.shared.gate.memory(), &self.principal.id)
    }

    /// How messages are framed for this client.
    pub(crate) fn form(&self) -> MessageFraming {
        self.form
    }

    /// Delivers a message for the client; returns a message for the server.
    pub(crate) async fn carry(&self, act: Act) -> Option<Permitted> {
        match act {
            Act::Forward(permitted) => Some(permitted),
            Act::Deliver(released) => {
                self.deliver(released).await;
                None
            }
            Act::Hold(_) | Act::Drop => None,
        }
    }

    /// Settles `call`, which opened the client's stream.
    pub(crate) fn opened(&self, call: &CallId) {
        drop(self.settle(call, |session, now| session.upstream_accepted(call, now)));
    }

    /// Settles `call`: the server accepted it.
    pub(crate) async fn accepted(&self, call: &CallId) {
        let act = self.settle(call, |session, now| session.upstream_accepted(call, now));
        drop(self.carry(act).await);
    }

    /// Settles `call` as failed at the server; its client gets an error.
    pub(crate) async fn failed(&self, call: &CallId, failure: &UpstreamFailure) {
        let act = self.settle(call, |session, now| session.upstream_failed(call, failure, now));
        drop(self.carry(act).await);
    }

    /// Settles `call` as failed at the server without telling the client.
    pub(super) fn failed_unheard(&self, call: &CallId, failure: &UpstreamFailure) {
        drop(self.settle(call, |session, now| session.upstream_failed(call, failure, now)));
    }

    /// Settles `call`: the server answered with an HTTP error status, and the client gets that
    /// status.
    pub(crate) fn upstream_status(&self, call: &CallId, answer: ErrorAnswer) -> Taken<'_> {
        self.step(Some(call), |session, gate, now| session.upstream_status(gate, call, answer, now))
    }

    /// The act for a message of the server that belongs to `call`.
    pub(crate) async fn answered(&self, call: &CallId, raw: &Bytes) -> Act {
        let taken = self.step_over(raw.len(), Some(call), |session, gate, now| {
            Some(session.server_answer(gate, call, raw, now))
        });
        taken.durable().await.into_act()
    }

    /// Settles `call`, the first attempt of a request, as failed without telling the client, and
    /// returns the act for its request `raw`, which is sent again. [`Client::idle`] waits meanwhile.
    pub(super) async fn judge_again(
        &self,
        call: &CallId,
        failure: &UpstreamFailure,
        raw: Bytes,
    ) -> Act {
        let taken = {
            let _between = lock(&self.between_attempts);
            self.failed_unheard(call, failure);
            self.taken_once_more(raw)
        };
        taken.durable().await.into_act()
    }

    /// The act for a message of the client.
    pub(super) async fn judge(&self, raw: Bytes) -> Act {
        let weight = self.weight(&raw);
        let may_wait = self.shared.holding.is_some();
        let arrival = Arrival { raw, may_wait, ..Arrival::default() };
        let taken = self.step_over(weight, None, |session, gate, now| {
            Some(session.client_frame(gate, &arrival, now))
        });
        taken.durable().await.into_act()
    }

    /// The act for a message that the client sent before and that is sent once more.
    pub(super) async fn judge_once_more(&self, raw: Bytes) -> Act {
        self.taken_once_more(raw).durable().await.into_act()
    }

    fn taken_once_more(&self, raw: Bytes) -> Taken<'_> {
        let arrival = Arrival { raw, ..Arrival::default() };
        self.step(None, |session, gate, now| Some(session.client_frame_again(gate, &arrival, now)))
    }

    /// Whether `call` still waits for its answer.
    pub(crate) fn awaits(&self, call: &CallId) -> bool {
        self.session.awaits(call)
    }

    /// Waits until no call waits for an answer, subscriptions apart.
    pub(crate) async fn idle(&self) {
        loop {
            let busy = {
                let _none_between = lock(&self.between_attempts);
                let calls = self.session.waiting();
                let listens = lock(&self.listens);
                calls.iter().any(|call| !listens.contains(call))
            };
            if !busy {
                return;
            }
            self.settled.notified().await;
        }
    }

    /// Settles all calls at the end of the run. With `failure` the client gets an error for each;
    /// writing them may take `flush_max`.
    pub(crate) async fn close(&self, failure: Option<&UpstreamFailure>, flush_max: Duration) {
        let left = self.session.settle_all(failure);
        let told = async {
            for released in left {
                self.deliver(released).await;
            }
        };
        if timeout(flush_max, told).await.is_err() {
            tracing::debug!("the client did not read the errors of its open calls in time");
        }
    }
}

/// A message as one event named `message`, as revision 2024-11-05 requires.
fn event(message: &Bytes) -> Bytes {
    let mut out = BytesMut::new();
    let event = ServerEvent {
        data: message.clone(),
        event: Some("message".into()),
        ..ServerEvent::default()
    };
    sse::write(&event, &mut out);
    out.freeze()
}
