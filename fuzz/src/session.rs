//! Invariants of `bartizan_gate::session` over any order of events, checked against a small model
//! of what is outstanding. The functions here panic if one is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Act, Dispatch, Permitted, Released, Step};
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::session::{
    Arrival, ErrorAnswer, Gate, Protected, RefusalForm, Session, UpstreamFailure,
};
use bartizan_gate::wire::protocol::Transport;
use bytes::Bytes;
use serde_json::Value;

use super::stubs::{IN_FLIGHT_MAX, Tally, gate_config, now, policy, proof_is_true, refuses};

/// One line for each event, after a first byte that chooses policy and transport:
///
/// - `c` and `s` and a frame: from the client, from the server outside any exchange;
/// - `C`, `S`, `R`, `A` and two letters: the same in short, a call, a question of the server, its
///   answer to the client's request, the client's answer to it;
/// - `a`, `r` and a letter for a call, and a frame or a letter for an id: an answer in an exchange;
/// - `g`, `f`, `t`, `x` and a letter: the client has gone, the server failed, timed out, accepted;
/// - `e` and a letter and a body: the server answered with an HTTP error;
/// - `o`, `d`: the client opens the stream, ends the session; `!`: records cannot be kept, or can
///   again.
pub fn session(bytes: &[u8]) {
    let Some((choice, events)) = bytes.split_first() else { return };
    let mut stage = Stage::new(choice & 1 == 0, choice & 2 == 0);
    for (step, event) in events.split(|byte| *byte == b'\n').enumerate() {
        stage.clock = u64::try_from(step).expect("few events");
        stage.play(event);
        stage.check();
    }
}

struct Stage {
    gate: Gate,
    sink: Tally,
    session: Session,
    permits: bool,
    clock: u64,
    /// Calls that were forwarded, in order, settled ones too.
    calls: Vec<CallId>,
    /// The client's requests that the server has and has not answered, with their calls.
    waiting: BTreeMap<String, CallId>,
    /// Ids that reached the server, as text, with the last request that had them: `1` and `"1"` are
    /// one. None does twice, but for a request that was rejected and is sent again byte for byte.
    used: BTreeMap<String, Vec<u8>>,
    /// Ids, as text, of requests that the server answered with an HTTP error.
    rejected: BTreeSet<String>,
    /// Ids of questions that reached the client.
    asked_ever: BTreeSet<String>,
    /// The server's requests that the client has and has not answered.
    asked: BTreeSet<String>,
    /// Streams opened and sessions ended: acts without a message.
    bodiless: usize,
    /// The call of the last step's record.
    last_outcome: Option<CallId>,
}

impl Stage {
    fn new(permits: bool, http: bool) -> Self {
        let server = Arc::new(Protected::new(Server::default(), RefusalForm::Error));
        let transport = if http { Transport::Http } else { Transport::Stdio };
        Self {
            gate: Gate::new(gate_config(), policy(permits)),
            sink: Tally::default(),
            session: Session::new(Arc::<Principal>::default(), server, transport),
            permits,
            clock: 0,
            calls: Vec::new(),
            waiting: BTreeMap::new(),
            used: BTreeMap::new(),
            rejected: BTreeSet::new(),
            asked_ever: BTreeSet::new(),
            asked: BTreeSet::new(),
            bodiless: 0,
            last_outcome: None,
        }
    }

    fn play(&mut self, event: &[u8]) {
        let Some((kind, rest)) = event.split_first() else { return };
        let (first, after) = rest.split_first().map_or((b'a', rest), |(one, all)| (*one, all));
        let letter = plain(first);
        let second = plain(after.first().copied().unwrap_or(b'a'));
        let tool = if second == 'd' { "delete" } else { "get" };
        match kind {
            b'c' => self.client(rest),
            b's' => self.server(None, rest),
            b'C' => self.client(
                format!(r#"{{"jsonrpc":"2.0","id":"{letter}","method":"tools/call","params":{{"name":"{tool}"}}}}"#)
                    .as_bytes(),
            ),
            b'S' => self.server(
                None,
                format!(r#"{{"jsonrpc":"2.0","id":"{letter}","method":"roots/list"}}"#).as_bytes(),
            ),
            b'R' => self.server(
                None,
                format!(r#"{{"jsonrpc":"2.0","id":"{letter}","result":{{}}}}"#).as_bytes(),
            ),
            b'A' => self.client(
                format!(r#"{{"jsonrpc":"2.0","id":"{letter}","result":{{}}}}"#).as_bytes(),
            ),
            b'a' => self.server(self.call(first).as_ref(), after),
            b'r' => self.server(
                self.call(first).as_ref(),
                format!(r#"{{"jsonrpc":"2.0","id":"{second}","result":{{}}}}"#).as_bytes(),
            ),
            b'o' | b'd' => self.without_message(*kind == b'o'),
            b'!' => {
                self.sink.refusing.fetch_xor(true, Ordering::Relaxed);
            }
            _ => self.ended(*kind, first, after),
        }
    }

    /// The call that a letter names.
    fn call(&self, letter: u8) -> Option<CallId> {
        let count = self.calls.len().max(1);
        self.calls.get(usize::from(letter) % count).map(Arc::clone)
    }

    fn ended(&mut self, kind: u8, letter: u8, body: &[u8]) {
        let Some(call) = self.call(letter) else { return };
        let now = now(self.clock);
        let step = match kind {
            b'g' => self.session.client_gone(&call, now),
            b'x' => self.session.upstream_accepted(&call, now),
            b'f' => {
                let failure = UpstreamFailure::Unreachable("gone".into());
                self.session.upstream_failed(&call, &failure, now)
            }
            b't' => self.session.upstream_failed(&call, &UpstreamFailure::TimedOut, now),
            b'e' => {
                let body = Bytes::copy_from_slice(body);
                let answer = ErrorAnswer { status: 500, challenge_dropped: false, body };
                self.session.upstream_status(&self.gate, &call, answer, now)
            }
            _ => return,
        };
        let Some(step) = step else { return };
        if kind == b'e' {
            let of_call = self.waiting.iter().filter(|(_, waits)| **waits == call);
            self.rejected.extend(of_call.map(|(id, _)| alike(id)));
        }
        self.settled(&call);
        match self.record(step) {
            Some(Act::Forward(_)) => panic!("an end is forwarded"),
            Some(Act::Deliver(_) | Act::Hold(_) | Act::Drop) | None => {}
        }
    }

    fn without_message(&mut self, opens: bool) {
        let now = now(self.clock);
        let step = if opens {
            self.session.open_stream(&self.gate, now)
        } else {
            self.session.end(&self.gate, now)
        };
        if let Some(Act::Forward(permitted)) = self.record(step) {
            assert_ne!(permitted.dispatch(), Dispatch::Message);
            assert!(permitted.body().is_empty());
            self.bodiless += 1;
            self.forwarded(&permitted);
        }
    }

    fn client(&mut self, raw: &[u8]) {
        let arrival = Arrival { raw: Bytes::copy_from_slice(raw), ..Arrival::default() };
        let step = self.session.client_frame(&self.gate, &arrival, now(self.clock));
        let cancels = Self::cancelled(raw);
        let act = self.record(step);
        match act {
            Some(Act::Forward(permitted)) => {
                assert_eq!(permitted.body(), raw, "the bytes are kept");
                let body = read(raw);
                let id = body.get("id").map(Value::to_string);
                if let Some(method) = body.get("method").and_then(Value::as_str) {
                    assert!(self.permits && !refuses(subject(method, &body)), "was denied");
                    if let Some(id) = id {
                        let before = self.used.insert(alike(&id), raw.to_vec());
                        let again = before.as_deref() == Some(raw);
                        let rejected = self.rejected.contains(&alike(&id));
                        assert!(
                            before.is_none() || (again && rejected),
                            "an id is used twice: {id}"
                        );
                        self.waiting.insert(id, Arc::clone(permitted.call()));
                    }
                    // Which request ended is the named one's business, not the order's.
                    if let Some(id) = cancels {
                        let ended = self.waiting.remove(&id);
                        assert!(ended.is_some(), "cancels nothing in flight: {id}");
                    }
                    self.forwarded(&permitted);
                } else {
                    let id = id.expect("an answer has an id");
                    assert!(self.asked.remove(&id), "answers what nobody asked");
                }
            }
            Some(Act::Deliver(released)) => assert!(released.is_own(), "a refusal is ours"),
            Some(Act::Hold(_) | Act::Drop) => {}
            // The session has taken the answer as come, though it may not pass.
            None => self.unrecorded_answer(raw, false),
        }
    }

    fn server(&mut self, within: Option<&CallId>, raw: &[u8]) {
        let bytes = Bytes::copy_from_slice(raw);
        let now = now(self.clock);
        let step = match within {
            Some(call) => self.session.server_answer(&self.gate, call, &bytes, now),
            None => self.session.server_frame(&self.gate, &bytes, now),
        };
        match self.record(step) {
            Some(Act::Forward(permitted)) => {
                // Our refusal of the server's own request.
                let answer = read(permitted.body());
                let question = read(raw);
                assert_eq!(answer.get("id"), question.get("id"));
                assert!(answer.get("error").is_some() && question.get("method").is_some());
            }
            Some(Act::Deliver(released)) if released.is_own() => {
                // A call ended without its answer.
                let body = read(released.body());
                let id = body.get("id").map(Value::to_string).unwrap_or_default();
                let ended = self.waiting.remove(&id);
                assert!(ended.is_some(), "an error for what nobody asked: {body}");
            }
            Some(Act::Deliver(released)) => self.delivered(&released, raw, within),
            Some(Act::Hold(_) | Act::Drop) => {}
            None => self.unrecorded_answer(raw, true),
        }
    }

    fn delivered(&mut self, released: &Released, raw: &[u8], within: Option<&CallId>) {
        let body = read(raw);
        let id = body.get("id").filter(|id| !id.is_null()).map(Value::to_string);
        if let Some(method) = body.get("method").and_then(Value::as_str) {
            assert_eq!(released.body(), raw, "the bytes are kept");
            assert!(self.permits && !refuses(subject(method, &body)), "was denied");
            if let Some(id) = id {
                assert!(self.asked_ever.insert(alike(&id)), "a question's id is used twice");
                self.asked.insert(id);
            } else if let Some(id) = Self::cancelled(raw) {
                self.asked.remove(&id);
            }
            return;
        }
        if let Some(id) = id {
            let call = self.waiting.remove(&id);
            assert!(call.is_some(), "answers what nobody asked: {id}");
            // Judged and recorded as the answer to the request that has the id.
            assert_eq!(self.last_outcome, call, "recorded as another call's");
        } else {
            // An error that could not name its request belongs to its exchange.
            assert!(within.is_some());
            self.resync();
        }
    }

    /// The id that a cancellation names, as it stands in the body.
    fn cancelled(raw: &[u8]) -> Option<String> {
        // Parsed only if it may be one: letters can be escaped.
        if !raw.contains(&b'\\') && !raw.windows(9).any(|window| window == b"cancelled") {
            return None;
        }
        let body: Value = serde_json::from_slice(raw).ok()?;
        let cancels = body.get("method")?.as_str()? == "notifications/cancelled";
        cancels.then(|| body.pointer("/params/requestId").map(Value::to_string))?
    }

    fn forwarded(&mut self, permitted: &Permitted) {
        let kept = self.sink.calls().get(&**permitted.call()).copied().unwrap_or_default();
        assert!(kept.intents == 1 && kept.outcomes == 0, "forwarded without its record: {kept:?}");
        assert!(!self.calls.contains(permitted.call()), "one call forwarded twice");
        self.calls.push(Arc::clone(permitted.call()));
    }

    fn settled(&mut self, call: &CallId) {
        assert!(!self.session.awaits(call));
        self.resync();
    }

    /// Ends without a message name no id: what the session says to be in flight bounds the model.
    fn resync(&mut self) {
        let session = &self.session;
        self.waiting.retain(|_, call| session.awaits(call));
    }

    /// A record that is not kept: nothing happened, but for what has ended on the way.
    fn record(&mut self, step: Step) -> Option<Act> {
        self.last_outcome.clone_from(&step.audit_record().call);
        let recorded = step.record(&self.sink);
        match recorded {
            Ok(act) => {
                assert!(!self.sink.refusing.load(Ordering::Relaxed), "an act without a record");
                proof_is_true(&act);
                Some(act)
            }
            Err(unrecorded) => {
                if let Some(call) = &unrecorded.call {
                    self.session.forget(call);
                }
                if let Some(refusal) = unrecorded.refusal {
                    assert!(refusal.is_own());
                }
                self.resync();
                None
            }
        }
    }

    fn unrecorded_answer(&mut self, raw: &[u8], of_server: bool) {
        let Ok(body) = serde_json::from_slice::<Value>(raw) else { return };
        let id = body.get("id").map(Value::to_string).unwrap_or_default();
        if body.get("method").is_none() && !of_server {
            self.asked.remove(&id);
        }
        if let Some(id) = Self::cancelled(raw) {
            if of_server {
                self.asked.remove(&id);
            } else {
                self.waiting.remove(&id);
            }
        }
    }

    fn check(&self) {
        let in_flight = self.session.in_flight();
        assert!(in_flight.len() <= IN_FLIGHT_MAX + self.bodiless, "in flight: {in_flight:?}");
        assert!(self.waiting.len() <= in_flight.len(), "{:?} wait of {in_flight:?}", self.waiting);
        assert!(self.asked.len() <= IN_FLIGHT_MAX, "asked: {:?}", self.asked);
        // That each call has one intent and one outcome at most is asserted with each record.
        let kept = self.sink.calls();
        for call in &in_flight {
            let kept = kept.get(&**call).copied().unwrap_or_default();
            assert!(kept.intents == 1 && kept.outcomes == 0, "{call} ended and has not: {kept:?}");
        }
    }
}

/// An id without what tells `1` from `"1"`.
fn alike(id: &str) -> String {
    let text = serde_json::from_str::<String>(id).unwrap_or_else(|_| id.to_owned());
    // `1e0` is refused as an id, and `01` as JSON.
    text
}

fn read(raw: &[u8]) -> Value {
    serde_json::from_slice(raw).expect("passed, so JSON")
}

/// A letter that needs no escape.
fn plain(byte: u8) -> char {
    char::from(b'a' + byte % 26)
}

/// What the stub policy looks at.
fn subject<'a>(method: &'a str, body: &'a Value) -> &'a str {
    match method {
        "tools/call" => body.pointer("/params/name").and_then(Value::as_str).unwrap_or(method),
        _ => method,
    }
}
