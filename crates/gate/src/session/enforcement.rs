//! What all sessions share: mode and limits, the current policy, the rate limits, the counter of
//! calls, and the key of digests.

use core::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::sender::Peer;
use crate::duty::decision::Origin;
use crate::duty::limit::shared::SharedLimits;
use crate::duty::limit::{KeptBucket, LimitStore, RateLimits};
use crate::duty::pdp::Pdp;
use crate::duty::pdp::{Inputs, RecordedInput};
use crate::evidence::record::{
    AuditRecord, CallId, DecisionFacts, Event, HttpFacts, Now, ReasonFacts,
};
use crate::evidence::refusal::{Addressee, DoorRefusal, Refusal};
use crate::evidence::step::{Act, Step};
use crate::evidence::text::{Code, Listed, Text};
use crate::memory::MemoryBudget;
use crate::question::access::{AccessRequest, Principal};
use crate::question::task::OwnTasks;
use crate::wire::frame::FrameLimits;
use crate::wire::hex::{hex, write_hex};
use crate::wire::mac::keyed;
use crate::wire::protocol::Era;

use super::payment::Payments;

/// What the key of call ids is derived with. No frame is these bytes, so no digest is the key.
const CALL_IDS: &[u8] = b"bartizan call ids\0";
/// Length of a call id before it is written as hexadecimal digits, bytes.
const CALL_ID_BYTES: usize = 16;

/// Whether decisions are enforced (`mode` in the configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Decisions are enforced.
    Enforce,
    /// Decisions are recorded only; every message that keeps to the strict profile passes
    /// unchanged.
    Observe,
}

impl Mode {
    /// Its name in the configuration and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// The configuration of a gate.
#[derive(Clone)]
pub struct GateConfig {
    /// Enforce or observe.
    pub mode: Mode,
    /// Limits on frames of either side.
    pub frame: FrameLimits,
    /// Requests in flight in one session at most, in each direction.
    pub in_flight_max: usize,
    /// Rate-limit buckets at most.
    pub buckets_max: usize,
    /// A random text, new at each start: call ids of two runs differ by it.
    pub boot: Box<str>,
    /// Key of the HMAC-SHA-256 digests in records.
    pub digest_key: [u8; 32],
}

/// Leaves the digest key out, so that it cannot reach a log.
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

/// What all sessions share. Its methods may be called from any thread.
pub struct Gate {
    pub(super) config: GateConfig,
    pdp: ArcSwap<Arc<dyn Pdp>>,
    pub(super) limits: RateLimits,
    pub(super) payments: Payments,
    calls: AtomicU64,
    call_ids: Hmac<Sha256>,
    digest: Hmac<Sha256>,
    /// The keys of seals; the first one is used for new ones.
    seals: Vec<Hmac<Sha256>>,
    inputs: Inputs,
    memory: Arc<MemoryBudget>,
    own_tasks: OnceLock<Arc<dyn OwnTasks>>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Gate {
    /// Bytes kept between messages for all principals together, unless [`Gate::keeping`] sets others.
    pub const MEMORY_BYTES_DEFAULT: usize = 96 << 20;

    /// Creates a gate that asks `pdp`.
    pub fn new(config: GateConfig, pdp: Arc<dyn Pdp>) -> Self {
        let limits = RateLimits::new(config.buckets_max);
        let digest = keyed(&config.digest_key);
        let call_ids = Self::call_ids(&digest, &config.boot);
        let pdp = ArcSwap::from_pointee(pdp);
        let memory = MemoryBudget::new(Self::MEMORY_BYTES_DEFAULT);
        let (calls, inputs) = (AtomicU64::new(0), Inputs::None);
        let seals = vec![digest.clone()];
        let payments = Payments::default();
        Self {
            config,
            pdp,
            limits,
            payments,
            calls,
            call_ids,
            digest,
            seals,
            inputs,
            memory,
            own_tasks: OnceLock::new(),
        }
    }

    /// The function from the number of a call to its id: HMAC-SHA-256 under a key that is derived
    /// from that of the digests for this run alone.
    fn call_ids(digest: &Hmac<Sha256>, boot: &str) -> Hmac<Sha256> {
        let mut mac = digest.clone();
        mac.update(CALL_IDS);
        mac.update(boot.as_bytes());
        keyed(&mac.finalize().into_bytes().into())
    }

    /// Sets how many bytes may be kept between messages for all principals together. Default:
    /// [`Gate::MEMORY_BYTES_DEFAULT`].
    #[must_use]
    pub fn keeping(mut self, bytes: usize) -> Self {
        self.memory = MemoryBudget::new(bytes);
        self
    }

    /// Says where tasks of the gate's own are found, once. Default: there are none.
    pub fn find_tasks_in(&self, tasks: Arc<dyn OwnTasks>) {
        self.own_tasks.get_or_init(|| tasks);
    }

    /// Where tasks of the gate's own are found.
    pub(super) fn own_tasks(&self) -> Option<&dyn OwnTasks> {
        self.own_tasks.get().map(|tasks| &**tasks)
    }

    /// Continues with what the limits of an earlier run have counted, and keeps what limits of long
    /// periods count in `store`; see [`RateLimits::keeping`]. Default: all limits begin anew.
    #[must_use]
    pub fn keeping_limits(
        mut self,
        store: Arc<dyn LimitStore>,
        buckets: &[KeptBucket],
        zero_unix_ms: u64,
    ) -> Self {
        self.limits =
            RateLimits::new(self.config.buckets_max).keeping(store, buckets, zero_unix_ms);
        self
    }

    /// Counts rates together with other programs; see [`RateLimits::sharing`]. Default: alone.
    #[must_use]
    pub fn sharing_limits(mut self, shared: Arc<dyn SharedLimits>) -> Self {
        self.limits = self.limits.sharing(shared);
        self
    }

    /// Whether a step may wait for a store that other programs use, too: whoever waits for a session
    /// in such a step must delay no other task.
    pub fn waits_for_a_store(&self) -> bool {
        self.limits.is_shared()
    }

    /// Seals what a client brings back to this gate, or to another one with the same keys: the first
    /// key seals, each of them opens. Default: the key of digests. Without any key nothing changes.
    #[must_use]
    pub fn sealing(mut self, keys: &[[u8; 32]]) -> Self {
        if !keys.is_empty() {
            self.seals = keys.iter().map(keyed).collect();
        }
        self
    }

    /// What the limits have counted.
    pub fn limits(&self) -> &RateLimits {
        &self.limits
    }

    /// The memory for what is kept between messages, which the edge may charge too.
    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    /// Sets how much of the policy input its records keep. Default: nothing.
    #[must_use]
    pub fn recording(mut self, inputs: Inputs) -> Self {
        self.inputs = inputs;
        self
    }

    /// Returns the policy input for a record. `question` is not called where records keep none.
    pub(super) fn recorded<'a>(
        &self,
        question: impl FnOnce() -> AccessRequest<'a>,
    ) -> Option<RecordedInput> {
        if self.inputs == Inputs::None {
            return None;
        }
        self.policy().recorded_input(&question(), self.inputs)
    }

    /// Asks `pdp` from the next request on. Decisions already taken stand.
    pub fn replace_policy(&self, pdp: Arc<dyn Pdp>) {
        self.pdp.store(Arc::new(pdp));
    }

    /// The policy decision point that answers now.
    pub fn policy(&self) -> Arc<dyn Pdp> {
        Arc::clone(&self.pdp.load())
    }

    /// Refuses an HTTP request before its body is read as a frame, such as one with an unknown path
    /// or a foreign `Origin`. `facts` is what is known about it. The act is `Deliver`.
    pub fn refuse_at_door(&self, refusal: DoorRefusal, facts: DoorFacts<'_>, now: Now) -> Step {
        let call = self.next_call();
        let refusal = Refusal::Door(refusal);
        let mut record = AuditRecord::new(Event::Denial, now);
        record.call = Some(Arc::clone(&call));
        record.principal = facts.principal.map(|principal| principal.id.as_ref().into());
        record.peer = facts.peer.map(|peer| peer.to_string().into());
        record.http = facts.target.map(Box::new);
        record.server = facts.server.map(Into::into);
        record.decision = Some(self.refused(&refusal, None));
        record.note = facts.note.map(Into::into);
        let record = match refusal.finding() {
            Some(finding) => record.with_finding(finding),
            None => record,
        };
        let to = Addressee {
            id: None,
            decision_id: &call,
            era: Era::Legacy,
            tool_result: false,
            told: None,
        };
        Step::new(record, Act::Deliver(refusal.released(to))).if_unrecorded(Refusal::unrecorded(to))
    }

    /// The decision for the record of a refusal by the gate itself.
    pub(super) fn refused(&self, refusal: &Refusal, place: Option<&str>) -> DecisionFacts {
        let message = place.or(refusal.detail()).unwrap_or_else(|| refusal.code());
        self.denied(refusal.code(), message, refusal.origin())
    }

    /// The decision for the record of a message whose step an internal error interrupted.
    pub(super) fn interrupted(&self) -> DecisionFacts {
        self.denied("internal-error", "internal-error", Origin::Protocol)
    }

    fn denied(&self, code: &'static str, message: &str, origin: Origin) -> DecisionFacts {
        let origin = origin.as_str();
        let reason = ReasonFacts { code: Text::constant(code), message: message.into(), origin };
        DecisionFacts {
            effect: "deny",
            enforced: true,
            reasons: Listed::from(vec![reason]),
            obligations: Listed::default(),
            policy: Text::shared(&self.policy().revision()),
            engine: "none",
            told: None,
        }
    }

    /// The limits on frames of either side, for an edge that must read one itself.
    pub fn frame_limits(&self) -> &FrameLimits {
        &self.config.frame
    }

    /// Whether decisions are enforced.
    pub fn mode(&self) -> Mode {
        self.config.mode
    }

    /// Whether decisions are recorded and not enforced.
    pub fn observes(&self) -> bool {
        self.config.mode == Mode::Observe
    }

    /// A new call id: 128 bits that look random without the key. The agent sees it as
    /// `decision_id`, so it must not tell how many calls others have made.
    pub(super) fn next_call(&self) -> CallId {
        std::str::from_utf8(&self.next_id(b"")).unwrap_or_default().into()
    }

    /// A connection of a client from `address`, for [`Session::arrives_from`](super::Session).
    pub fn peer(&self, address: Option<IpAddr>) -> Peer {
        Peer::new(address, self.conversation())
    }

    /// A new name for a conversation in records, made as call ids are.
    pub(super) fn conversation(&self) -> Text<Code> {
        Text::digits(&self.next_id(b"conversation"))
    }

    /// 32 hexadecimal digits, in ASCII, that only this program can foresee.
    fn next_id(&self, what: &[u8]) -> [u8; 2 * CALL_ID_BYTES] {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut mac = self.call_ids.clone();
        mac.update(&number.to_be_bytes());
        mac.update(what);
        let tag = mac.finalize().into_bytes();
        let mut digits = [0; 2 * CALL_ID_BYTES];
        write_hex(&mut digits, &tag);
        digits
    }

    /// Returns the keyed digest of `bytes` for a record. Equal bytes have equal digests, but a
    /// reader of the record cannot test guesses without the key.
    pub(super) fn digest(&self, bytes: &[u8]) -> Text<Code> {
        let mut mac = self.digest.clone();
        mac.update(bytes);
        Text::hmac_sha256(&mac.finalize().into_bytes().into())
    }

    /// Keyed digests of `bytes` in hexadecimal digits, one under each key of seals: the first one is
    /// for a new seal.
    pub(super) fn seals(&self, bytes: &[u8]) -> impl Iterator<Item = String> {
        self.seals.iter().map(move |mac| {
            let mut mac = mac.clone();
            mac.update(bytes);
            hex(&mac.finalize().into_bytes())
        })
    }
}

/// The keyed digest of `bytes` as a record has it, under the key that [`GateConfig::digest_key`] is.
pub fn keyed_digest(key: &[u8; 32], bytes: &[u8]) -> Text<Code> {
    let mut mac = keyed(key);
    mac.update(bytes);
    Text::hmac_sha256(&mac.finalize().into_bytes().into())
}

/// What is known about an HTTP request that is refused before its body is read.
#[derive(Debug, Clone, Default)]
pub struct DoorFacts<'a> {
    /// The principal, if it is established already.
    pub principal: Option<&'a Principal>,
    /// The network address of the client.
    pub peer: Option<IpAddr>,
    /// The name of the server, if the path is known.
    pub server: Option<&'a str>,
    /// Where the request was sent to.
    pub target: Option<HttpFacts>,
    /// What was wrong, for the operator; must contain no header values.
    pub note: Option<String>,
}
