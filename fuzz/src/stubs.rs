//! What stands around a session under test: two policies, counts of its records, clocks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use bartizan_gate::evidence::record::{AuditRecord, Event, Now};
use bartizan_gate::evidence::step::{Act, AuditSink, Content, Unkept};
use bartizan_gate::question::access::AccessRequest;
use bartizan_gate::session::{GateConfig, Mode};
use bartizan_gate::wire::frame::{Frame, FrameLimits, Message, Sender};
use bartizan_gate::wire::method::Method;
use bartizan_testing::ByName;
use bytes::Bytes;

/// Requests in flight in one session.
pub const IN_FLIGHT_MAX: usize = 4;

/// Tools and methods whose name says so are refused even by a policy that permits.
pub fn refuses(name: &str) -> bool {
    name.starts_with("delete")
}

/// Permits everything but what [`refuses`] names, or nothing at all.
pub fn policy(permits: bool) -> Arc<ByName> {
    Arc::new(if permits {
        let judge = |name: &str, _: &AccessRequest<'_>| (!refuses(name)).then(Vec::new);
        ByName { hides: refuses, ..ByName::new(judge) }
    } else {
        ByName { hides: |_| true, ..ByName::new(|_, _| None) }
    })
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
    /// Intents. What was found in an answer is a notice of the same call, and not counted.
    pub intents: u32,
    /// Denials.
    pub denials: u32,
    /// Outcomes.
    pub outcomes: u32,
}

/// What was recorded, by call.
pub type Calls = HashMap<Box<str>, Kept>;

/// Counts records as they are kept, or refuses them.
#[derive(Debug, Default)]
pub struct Tally {
    calls: Mutex<Calls>,
    /// Keeps nothing while set.
    pub refusing: AtomicBool,
}

impl AuditSink for Tally {
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
        if self.refusing.load(Ordering::Relaxed) {
            return Err(Unkept { cause: "the test says no".into() });
        }
        let mut calls = self.calls();
        let call = record.call.as_deref().unwrap_or_default();
        if !calls.contains_key(call) {
            calls.insert(call.into(), Kept::default());
        }
        let kept = calls.get_mut(call).expect("was inserted");
        match record.event {
            Event::Intent => kept.intents += 1,
            Event::Denial => kept.denials += 1,
            Event::Outcome => kept.outcomes += 1,
            _ => {}
        }
        let once = call.is_empty() || (kept.intents <= 1 && kept.outcomes <= 1);
        assert!(once, "{call} recorded twice: {kept:?}");
        Ok(())
    }
}

impl Tally {
    /// What was counted.
    pub fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().expect("no panic before")
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
        Act::Hold(_) | Act::Drop => {}
    }
}
