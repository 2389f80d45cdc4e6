//! What all sessions share: the policy, the buckets, the counter of calls.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::duty::limit::Limits;
use crate::duty::pdp::Pdp;
use crate::duty::pdp::{Inputs, RecordedInput};
use crate::evidence::record::{AuditRecord, CallId, DecisionFacts, Event, Now, ReasonFacts};
use crate::evidence::refusal::{Addressee, DoorRefusal, Refusal};
use crate::evidence::step::{Act, Step};
use crate::question::access::{AccessRequest, Principal};
use crate::wire::frame::FrameLimits;
use crate::wire::hex::hex;
use crate::wire::protocol::Era;

/// Whether verdicts are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are decided and recorded, and everything well-formed passes unchanged.
    Observe,
}

/// Bounds and identity of a gate.
#[derive(Clone)]
pub struct GateConfig {
    /// Enforce or observe.
    pub mode: Mode,
    /// Bounds on frames of either side.
    pub frame: FrameLimits,
    /// Requests in flight in one session, each way.
    pub in_flight_max: usize,
    /// Rate-limit buckets.
    pub buckets_max: usize,
    /// Random text, new at each start; the first half of every call id.
    pub boot: Box<str>,
    /// Key of the digests in records.
    pub digest_key: [u8; 32],
}

// The key must not reach a log.
impl std::fmt::Debug for GateConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GateConfig")
            .field("mode", &self.mode)
            .field("frame", &self.frame)
            .field("in_flight_max", &self.in_flight_max)
            .field("buckets_max", &self.buckets_max)
            .field("boot", &self.boot)
            .finish_non_exhaustive()
    }
}

/// What all sessions share.
pub struct Gate {
    pub(super) config: GateConfig,
    pdp: ArcSwap<Arc<dyn Pdp>>,
    pub(super) limits: Limits,
    calls: AtomicU64,
    digest: Hmac<Sha256>,
    inputs: Inputs,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate that asks `pdp`.
    pub fn new(config: GateConfig, pdp: Arc<dyn Pdp>) -> Self {
        let limits = Limits::new(config.buckets_max);
        // HMAC pads its key with zeros to one block (RFC 2104 §2), so this is the same key.
        let mut block = [0_u8; 64];
        for (to, from) in block.iter_mut().zip(config.digest_key) {
            *to = from;
        }
        let digest = Hmac::<Sha256>::new(&block.into());
        let pdp = ArcSwap::from_pointee(pdp);
        Self { config, pdp, limits, calls: AtomicU64::new(0), digest, inputs: Inputs::None }
    }

    /// The same gate, whose records keep so much of what the policy was asked.
    #[must_use]
    pub fn recording(mut self, inputs: Inputs) -> Self {
        self.inputs = inputs;
        self
    }

    /// What the record about a question keeps of it. Where that is nothing, it is not even asked
    /// for.
    pub(super) fn recorded<'a>(
        &self,
        question: impl FnOnce() -> AccessRequest<'a>,
    ) -> Option<RecordedInput> {
        if self.inputs == Inputs::None {
            return None;
        }
        self.policy().recorded_input(&question(), self.inputs)
    }

    /// From the next question on, asks `pdp`. Questions already asked keep their answer.
    pub fn replace_policy(&self, pdp: Arc<dyn Pdp>) {
        self.pdp.store(Arc::new(pdp));
    }

    /// The policy that answers now.
    pub fn policy(&self) -> Arc<dyn Pdp> {
        Arc::clone(&self.pdp.load())
    }

    /// A refusal of something that never became a frame: a bad path, a foreign Origin, a coded
    /// body. `facts` says what is known of it.
    pub fn refuse_at_door(&self, refusal: DoorRefusal, facts: DoorFacts<'_>, now: Now) -> Step {
        let call = self.next_call();
        let refusal = Refusal::Door(refusal);
        let mut record = AuditRecord::new(Event::Denial, now);
        record.call = Some(Arc::clone(&call));
        record.principal = facts.principal.map(|principal| principal.id.clone());
        record.server = facts.server.map(Into::into);
        record.decision = Some(self.refused(&refusal, None));
        record.note = facts.note.map(Cow::Owned);
        let record = match refusal.finding() {
            Some(finding) => record.with_finding(finding),
            None => record,
        };
        let to = Addressee { id: None, decision_id: &call, era: Era::Legacy, tool_result: false };
        Step::new(record, Act::Deliver(refusal.released(to))).if_unrecorded(Refusal::unrecorded(to))
    }

    /// The decision of the gate itself, for a record.
    pub(super) fn refused(&self, refusal: &Refusal, place: Option<String>) -> DecisionFacts {
        DecisionFacts {
            effect: "deny",
            enforced: true,
            reasons: vec![ReasonFacts {
                code: refusal.code().into(),
                message: place.unwrap_or_else(|| refusal.code().to_owned()).into(),
                origin: refusal.origin().as_str(),
            }],
            obligations: Vec::new(),
            policy: self.policy().revision(),
            engine: "none",
        }
    }

    /// The bounds on frames of either side, for an edge that must read one itself.
    pub fn frame_limits(&self) -> &FrameLimits {
        &self.config.frame
    }

    pub(super) fn observes(&self) -> bool {
        self.config.mode == Mode::Observe
    }

    pub(super) fn next_call(&self) -> CallId {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:x}", self.config.boot).into()
    }

    /// Keyed digest of `bytes` for a record: equal bytes can be found, guessed ones cannot.
    pub(super) fn digest(&self, bytes: &[u8]) -> Box<str> {
        let mut mac = self.digest.clone();
        mac.update(bytes);
        format!("hmac-sha256:{}", hex(&mac.finalize().into_bytes())).into()
    }
}

/// What is known about something refused at the door.
#[derive(Debug, Clone, Default)]
pub struct DoorFacts<'a> {
    /// Whose it was.
    pub principal: Option<&'a Principal>,
    /// For which server.
    pub server: Option<&'a str>,
    /// What exactly was wrong, for the operator; no header values.
    pub note: Option<String>,
}
