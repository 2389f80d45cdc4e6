//! What stands around a session under test: two policies, a sink that keeps its records, clocks.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bartizan_gate::duty::decision::{
    Decision, Effect, Engine, Listing, Origin, PolicyRevision, Reason,
};
use bartizan_gate::duty::pdp::{ListEntry, Pdp};
use bartizan_gate::evidence::record::{AuditRecord, Event, Now};
use bartizan_gate::evidence::step::{Act, AuditSink, Content, Unkept};
use bartizan_gate::question::access::{AccessRequest, Resource};
use bartizan_gate::session::{GateConfig, Mode};
use bartizan_gate::wire::frame::{Frame, FrameLimits, Message, Sender};
use bartizan_gate::wire::method::Method;
use bytes::Bytes;

/// Requests in flight in one session.
pub const IN_FLIGHT_MAX: usize = 4;

/// Permits everything but what is named in [`ByName::refuses`], or nothing at all.
#[derive(Debug)]
pub struct ByName {
    /// Whether anything is permitted.
    pub permits: bool,
}

impl ByName {
    /// Tools and methods whose name says so are refused even by a policy that permits.
    pub fn refuses(name: &str) -> bool {
        name.starts_with("delete")
    }
}

impl Pdp for ByName {
    fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let name = match request.resource {
            Resource::Tool { name, .. } => name,
            Resource::Uri(_)
            | Resource::Uris(_)
            | Resource::Prompt { .. }
            | Resource::Task { .. }
            | Resource::Whole => request.method,
        };
        let reason = Reason { code: "stub".into(), message: "stub".into(), origin: Origin::Rule };
        if !self.permits || Self::refuses(name) {
            return Decision::deny(self.revision(), Engine::Strict, reason);
        }
        Decision {
            effect: Effect::Permit,
            reasons: vec![reason],
            obligations: Vec::new(),
            revision: self.revision(),
            engine: Engine::Strict,
        }
    }

    fn list(&self, _: &AccessRequest<'_>, entries: &[ListEntry<'_>]) -> Listing {
        let hides = |name: &str| !self.permits || Self::refuses(name);
        let names = entries.iter().map(|entry| entry.name).filter(|name| hides(name));
        Listing::Hide { names: names.map(Into::into).collect(), revision: self.revision() }
    }

    fn revision(&self) -> PolicyRevision {
        "stub".into()
    }
}

/// A gate's bounds, small enough to be met.
pub fn gate_config() -> GateConfig {
    GateConfig {
        mode: Mode::Enforce,
        frame: FrameLimits::default(),
        in_flight_max: IN_FLIGHT_MAX,
        buckets_max: 4,
        boot: "fuzz".into(),
        digest_key: [7; 32],
    }
}

/// What was recorded of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Intents and notices.
    pub intents: u32,
    /// Denials.
    pub denials: u32,
    /// Outcomes.
    pub outcomes: u32,
}

/// Counts what is kept of each call.
#[derive(Debug, Default)]
pub struct Sink {
    calls: Mutex<BTreeMap<Box<str>, Kept>>,
    /// Keeps nothing while set.
    pub refusing: AtomicBool,
}

impl Sink {
    /// What was kept of `call`.
    pub fn of(&self, call: &str) -> Kept {
        self.calls.lock().expect("one thread").get(call).copied().unwrap_or_default()
    }

    /// Takes all that was kept.
    pub fn take(&self) -> BTreeMap<Box<str>, Kept> {
        std::mem::take(&mut self.calls.lock().expect("one thread"))
    }
}

impl AuditSink for Sink {
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
        if self.refusing.load(Ordering::Relaxed) {
            return Err(Unkept { cause: "the sink is full".into() });
        }
        let call = record.call.as_deref().unwrap_or_default();
        let mut calls = self.calls.lock().expect("one thread");
        let kept = calls.entry(call.into()).or_default();
        match record.event {
            Event::Intent | Event::Notice => kept.intents += 1,
            Event::Denial => kept.denials += 1,
            Event::Outcome => kept.outcomes += 1,
            _ => {}
        }
        Ok(())
    }
}

/// Both clocks, `step` ms after the start.
pub fn now(step: u64) -> Now {
    let uptime = Duration::from_millis(step);
    Now { uptime, wall: UNIX_EPOCH + Duration::from_secs(1_700_000_000) + uptime }
}

/// What a proof says of its message is what a fresh reading of its bytes says.
pub fn proof_is_true(act: &Act) {
    let read = |raw: &Bytes, sender| Frame::read(raw.clone(), sender, &FrameLimits::default());
    match act {
        Act::Forward(permitted) => {
            let Some(frame) = permitted.frame() else { return };
            assert_eq!(frame.document().raw(), permitted.body());
            let again = read(permitted.body(), Sender::Client).expect("it was read before");
            assert_eq!(frame.message(), again.message());
            assert_eq!(permitted.method().map(|row| row.name), {
                let named = again.message().method();
                named.filter(|name| Method::all().any(|row| row.name == *name))
            });
            let asks = matches!(again.message(), Message::Request { .. });
            assert_eq!(permitted.id(), again.message().id().filter(|_| asks));
        }
        Act::Deliver(released) => {
            if matches!(released.content(), Content::Batch | Content::Opaque) {
                assert_eq!(released.id(), None);
                return;
            }
            let again = read(released.body(), Sender::Server).expect("it is a message");
            assert_eq!(released.content(), Content::from(again.message()));
            assert_eq!(released.id(), again.message().id());
        }
        Act::Drop => {}
    }
}
