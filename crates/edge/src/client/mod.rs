//! The client's side: a client with one stream of messages, on a pipe or on an HTTP+SSE stream.
//!
//! One run is one [`Session`]. [`child`] joins a client on a pipe to a child process, [`remote`] joins
//! any client to a server over HTTP; both walk every frame of either direction through the gate.
//! [`Client`] is what they share: the session, the records, and the way to the client.

mod exit;
mod child;
pub(crate) mod remote;
mod renewal;
mod pipe;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
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
use crate::child::lines::{Line, Lines, has_foreign_line_end, line_for_client};
use crate::session::{SessionHandle, Turn};
use crate::{ServerEvent, Shared, sse};
use bartizan_gate::evidence::record::{CallId, Now};
use bartizan_gate::evidence::step::{Act, Permitted, Released, Step};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::{
    Arrival, DoorFacts, DoorRefusal, ErrorAnswer, Gate, Protected, Session, UpstreamFailure,
};
use bartizan_gate::wire::method::Role;
use bartizan_gate::wire::protocol::{Protocol, Transport};

/// How messages are framed for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As lines on a pipe.
    Lines,
    /// As events on an HTTP stream.
    Events,
}

/// The client of one run.
pub(crate) struct Client {
    pub(crate) shared: Shared,
    server: Arc<Protected>,
    principal: Arc<Principal>,
    session: SessionHandle,
    form: Form,
    out: mpsc::Sender<Bytes>,
    /// Cancelled once the client no longer reads.
    pub(crate) gone: CancellationToken,
    /// Told whenever a call may have been settled.
    settled: Notify,
    /// Held while a request is between its first attempt and its second one: no call of it waits
    /// then, and yet it is to be answered.
    between_attempts: Mutex<()>,
    /// Subscriptions, which nobody expects to be answered soon.
    listens: Mutex<BTreeSet<CallId>>,
}

/// What came from the client.
pub(crate) enum Input {
    /// Something was decided about a line.
    Act(Act),
    /// The client closed our input.
    Closed,
    /// Reading failed.
    Broken(io::Error),
}

impl Client {
    pub(crate) fn new(
        shared: Shared,
        server: Arc<Protected>,
        principal: Arc<Principal>,
        (form, out): (Form, mpsc::Sender<Bytes>),
    ) -> Self {
        let transport = match form {
            Form::Lines => Transport::Stdio,
            Form::Events => Transport::Http,
        };
        let session = Session::new(Arc::clone(&principal), Arc::clone(&server), transport);
        Self {
            session: SessionHandle::new(&shared, session),
            shared,
            server,
            principal,
            form,
            out,
            gone: CancellationToken::new(),
            settled: Notify::new(),
            between_attempts: Mutex::default(),
            listens: Mutex::default(),
        }
    }

    pub(crate) fn principal(&self) -> Arc<Principal> {
        Arc::clone(&self.principal)
    }

    /// What the conversation speaks, as far as is known.
    pub(crate) fn protocol(&self) -> Protocol {
        self.session.protocol()
    }

    /// Cancelled once a panic has closed the session, which ends the run.
    pub(crate) fn closed(&self) -> &CancellationToken {
        self.session.closed()
    }

    /// Takes one step, about `call` if it is about a call in flight.
    pub(crate) fn turn(
        &self,
        call: Option<&CallId>,
        step: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step>,
    ) -> Turn {
        let turn = self.session.step(call, step);
        self.settled.notify_one();
        turn
    }

    /// Takes one step about no call in flight. Without a record there is no act but the refusal.
    pub(crate) fn act(&self, step: impl FnOnce(&mut Session, &Gate, Now) -> Step) -> Act {
        self.turn(None, |session, gate, now| Some(step(session, gate, now))).into_act()
    }

    /// Takes one step about `call`; there may be nothing to do.
    fn settle(&self, call: &CallId, step: impl FnOnce(&mut Session, Now) -> Option<Step>) -> Act {
        self.turn(Some(call), |session, _, now| step(session, now)).into_act()
    }

    /// The next line of the client and what is to be done about it.
    pub(crate) async fn next<R: AsyncRead + Unpin>(&self, input: &mut Lines<R>) -> Input {
        let refused = match input.next().await {
            Ok(Some(Line::Whole(line))) if !has_foreign_line_end(&line) => {
                let act = self.judge(line);
                if let Act::Forward(permitted) = &act
                    && permitted.method().is_some_and(|method| method.role == Role::Listen)
                {
                    let mut listens = lock(&self.listens);
                    listens.insert(Arc::clone(permitted.call()));
                }
                return Input::Act(act);
            }
            Ok(Some(Line::Whole(_))) => DoorRefusal::Framing,
            Ok(Some(Line::TooLong)) => DoorRefusal::TooLarge,
            Ok(None) => return Input::Closed,
            Err(cause) => return Input::Broken(cause),
        };
        Input::Act(self.act(|_, gate, now| {
            let facts = DoorFacts {
                principal: Some(&self.principal),
                server: Some(&self.server.facts.name),
                note: None,
            };
            gate.refuse_at_door(refused, facts, now)
        }))
    }

    /// Gives a message to the client, waiting while it does not read.
    pub(crate) async fn deliver(&self, released: Released) {
        if released.body().is_empty() {
            return;
        }
        let message = match self.form {
            Form::Lines => match line_for_client(released.body(), || released.minified()) {
                Some(line) => line,
                // The body of an HTTP error, which no line can carry.
                None => return,
            },
            // Its POST is over, and on the stream nobody could tell what it is about.
            Form::Events if released.is_own() && released.id().is_none() => return,
            Form::Events => event(released.body()),
        };
        if self.out.send(message).await.is_err() {
            self.gone.cancel();
        }
    }

    /// How messages are framed for it.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Gives what there is to the client. A message for the server comes back.
    pub(crate) async fn carry(&self, act: Act) -> Option<Permitted> {
        match act {
            Act::Forward(permitted) => Some(permitted),
            Act::Deliver(released) => {
                self.deliver(released).await;
                None
            }
            Act::Drop => None,
        }
    }

    /// The client's stream stands: `call`, which asked for it, is over.
    pub(crate) fn opened(&self, call: &CallId) {
        drop(self.settle(call, |session, now| session.upstream_accepted(call, now)));
    }

    /// The server took `call`.
    pub(crate) async fn accepted(&self, call: &CallId) {
        let act = self.settle(call, |session, now| session.upstream_accepted(call, now));
        drop(self.carry(act).await);
    }

    /// The way to the server failed for `call`; who waits for it is told.
    pub(crate) async fn failed(&self, call: &CallId, failure: &UpstreamFailure) {
        let act = self.settle(call, |session, now| session.upstream_failed(call, failure, now));
        drop(self.carry(act).await);
    }

    /// The way to the server failed for `call`, of which nobody is told.
    pub(super) fn failed_unheard(&self, call: &CallId, failure: &UpstreamFailure) {
        drop(self.settle(call, |session, now| session.upstream_failed(call, failure, now)));
    }

    /// The server answered `call` with an HTTP error that its client gets as one.
    pub(crate) fn turned_away(&self, call: &CallId, answer: ErrorAnswer) -> Turn {
        self.turn(Some(call), |session, gate, now| session.upstream_status(gate, call, answer, now))
    }

    /// What is to be done about a message of the server that belongs to `call`.
    pub(crate) fn answered(&self, call: &CallId, raw: &Bytes) -> Act {
        self.turn(Some(call), |session, gate, now| {
            Some(session.server_answer(gate, call, raw, now))
        })
        .into_act()
    }

    /// The first attempt at `call` failed, of which nobody is told; judges its request `raw` for a
    /// second one. The client waits for its answer all the while.
    pub(super) fn judge_again(&self, call: &CallId, failure: &UpstreamFailure, raw: Bytes) -> Act {
        let _between = lock(&self.between_attempts);
        self.failed_unheard(call, failure);
        self.judge(raw)
    }

    /// What is to be done about a message of the client.
    pub(super) fn judge(&self, raw: Bytes) -> Act {
        let arrival = Arrival { raw, ..Arrival::default() };
        self.act(|session, gate, now| session.client_frame(gate, &arrival, now))
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

    /// Settles what is left at the end: with an error where the client may still read one, for
    /// which it has `flush_max`.
    pub(crate) async fn close(&self, failure: Option<&UpstreamFailure>, flush_max: Duration) {
        let left = self.session.settle_all(failure);
        let told = async {
            for released in left {
                self.deliver(released).await;
            }
        };
        if timeout(flush_max, told).await.is_err() {
            tracing::debug!("the client does not read how its calls ended");
        }
    }
}

/// A message as an event of its own, named as 2024-11-05 has it.
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
