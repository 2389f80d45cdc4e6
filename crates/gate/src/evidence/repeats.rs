//! Counts refusals that repeat, so that a flood of them does not fill the disk.
//!
//! The first refusal of a kind is recorded in full. Further ones within the interval are counted,
//! and their number is recorded at its end ([`Event::Repeated`]), with the call of the first. The
//! agent is told that call as its `decision_id`, so the id finds both records. Refusals are of one
//! kind if their records differ at most in time, call, id, size, digest, trace, conversation, client,
//! target of the HTTP request, and recorded input; so principal, peer, method, target, operation and
//! reasons are kept for each.
//!
//! The table is bounded, and one caller (principal and network address) gets a share of it. Further
//! kinds of one caller are counted together, by caller and first reason; what does not fit into
//! that table, in one last entry. Nothing is left uncounted. The counts are in memory: a program
//! that is killed loses those of one interval.
//!
//! Time is read from the records. The sink of the program calls it.

use core::net::IpAddr;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::record::{
    AuditRecord, CallId, DecisionFacts, ENVIRONMENTS_MAX, Event, FLAGS_MAX, Now, TAGS_MAX, micros,
};
use super::text::{Code, Label, Listed, Message, Name, Note, TextKind as _, UriText};
use bartizan_sync::lock;

/// Kinds that are counted at once.
const KINDS_MAX: usize = 512;
/// Kinds of one caller that are counted at once.
const KINDS_OF_ONE_MAX: usize = 64;
/// Callers whose further kinds are counted together, by first reason.
const OVERFLOWS_MAX: usize = 512;
/// Reasons that the record of a count names.
const REASONS_NAMED_MAX: usize = 4;

/// What the record of one kind costs at most, bytes: names, texts, the lists of an operation and a
/// few reasons.
const KIND_BYTES_MAX: usize = 10 * Name::BYTES_MAX
    + UriText::BYTES_MAX
    + Note::BYTES_MAX
    + 8 * Code::BYTES_MAX
    + FLAGS_MAX * Code::BYTES_MAX
    + (ENVIRONMENTS_MAX + TAGS_MAX) * Label::BYTES_MAX
    + REASONS_NAMED_MAX * (Code::BYTES_MAX + Message::BYTES_MAX)
    + size_of::<Counted>();
/// What the record of several kinds costs at most, bytes.
const OVERFLOW_BYTES_MAX: usize = 5 * Name::BYTES_MAX
    + Note::BYTES_MAX
    + 4 * Code::BYTES_MAX
    + Message::BYTES_MAX
    + size_of::<Counted>();

/// A digest of what makes refusals one kind.
type Kind = [u8; 32];

/// The table of counts. Shared by all threads.
#[derive(Debug)]
pub struct Repeats {
    interval: Duration,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    counted: HashMap<Kind, Counted>,
    /// Number of kinds of each caller.
    shares: HashMap<Kind, usize>,
    overflows: usize,
}

/// Refusals of one kind.
#[derive(Debug)]
struct Counted {
    /// The record of the first, without what differs from refusal to refusal.
    first: AuditRecord,
    caller: Kind,
    overflow: bool,
    /// Whether the first one's record could not be kept: the next is recorded in full, too.
    unkept: bool,
    count: u64,
    /// The time of the first that was counted.
    since: SystemTime,
}

impl Repeats {
    /// What all counts together cost at most, bytes.
    pub const BYTES_MAX: usize =
        KINDS_MAX * KIND_BYTES_MAX + (OVERFLOWS_MAX + 1) * OVERFLOW_BYTES_MAX;

    /// Counts refusals over `interval`, which is above 0.
    pub fn new(interval: Duration) -> Self {
        Self { interval, table: Mutex::default() }
    }

    /// How long refusals are counted before their number is recorded.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Counts `record` if it is a refusal of a kind that was recorded before, and returns the call
    /// of the one that was recorded. `None`: keep the record.
    pub fn count(&self, record: &AuditRecord) -> Option<CallId> {
        let first = template(record)?;
        let caller = caller(&first);
        let mut table = lock(&self.table);
        let kind = table.kind_of(&first, caller);
        if let Some(counted) = table.counted.get_mut(&kind) {
            if counted.unkept {
                counted.first.call.clone_from(&record.call);
                counted.unkept = false;
                return None;
            }
            if counted.count == 0 {
                counted.since = record.time;
            }
            counted.count = counted.count.saturating_add(1);
            return counted.first.call.clone();
        }
        table.begin(kind, first, caller);
        None
    }

    /// Takes note that `record`, for which [`Repeats::count`] returned `None`, was not kept.
    pub fn unkept(&self, record: &AuditRecord) {
        let Some(first) = template(record) else { return };
        let caller = caller(&first);
        let mut table = lock(&self.table);
        let kind = table.kind_of(&first, caller);
        if let Some(counted) = table.counted.get_mut(&kind) {
            counted.unkept = true;
        }
    }

    /// The records of the counts whose interval is over; with `all`, of every count. Kinds that did
    /// not repeat are forgotten. Each record must be kept, or given to [`Repeats::put_back`].
    pub fn take(&self, now: Now, all: bool) -> Vec<AuditRecord> {
        let (uptime, interval) = (micros(now.uptime), micros(self.interval));
        let mut table = lock(&self.table);
        let over =
            |counted: &Counted| all || uptime.saturating_sub(counted.first.uptime_us) >= interval;
        let over: Vec<_> = table.counted.extract_if(|_, counted| over(counted)).collect();
        let mut records = Vec::new();
        for (_, counted) in over {
            table.forget(&counted);
            if counted.count > 0 {
                records.push(counted.record(now));
            }
        }
        records.sort_by_key(|record| record.since);
        records
    }

    /// Takes back the record of a count that could not be kept, so that the next attempt counts it.
    pub fn put_back(&self, record: AuditRecord) {
        let count = record.repeated.unwrap_or_default();
        let since = record.since.unwrap_or(record.time);
        let first = AuditRecord { event: Event::Denial, repeated: None, since: None, ..record };
        let caller = caller(&first);
        let mut table = lock(&self.table);
        let kind = digest(&[&first_bytes(&first)]);
        let counted = table.counted.entry(kind).or_insert_with(|| Counted {
            first,
            caller,
            overflow: true,
            unkept: false,
            count: 0,
            since,
        });
        counted.count = counted.count.saturating_add(count);
        counted.since = counted.since.min(since);
    }
}

impl Table {
    /// The kind under which a refusal is counted: its own, or that of the caller's overflow.
    fn kind_of(&self, first: &AuditRecord, caller: Kind) -> Kind {
        let own = digest(&[&first_bytes(first)]);
        let share = self.shares.get(&caller).copied().unwrap_or_default();
        let room = share < KINDS_OF_ONE_MAX && self.counted.len() < KINDS_MAX;
        if room || self.counted.contains_key(&own) {
            return own;
        }
        let reason = first.decision.as_ref().and_then(|decision| decision.reasons.first());
        let code = reason.map_or("", |reason| &*reason.code);
        let shared = digest(&[b"overflow", &caller, code.as_bytes()]);
        if self.overflows < OVERFLOWS_MAX || self.counted.contains_key(&shared) {
            return shared;
        }
        digest(&[b"overflow of all"])
    }

    fn begin(&mut self, kind: Kind, first: AuditRecord, caller: Kind) {
        let own = kind == digest(&[&first_bytes(&first)]);
        let since = first.time;
        let first = if own {
            let share = self.shares.entry(caller).or_default();
            *share = share.saturating_add(1);
            first
        } else {
            self.overflows = self.overflows.saturating_add(1);
            of_many_kinds(first)
        };
        let counted = Counted { first, caller, overflow: !own, unkept: false, count: 0, since };
        self.counted.insert(kind, counted);
    }

    fn forget(&mut self, counted: &Counted) {
        if counted.overflow {
            self.overflows = self.overflows.saturating_sub(1);
        } else if let Some(share) = self.shares.get_mut(&counted.caller) {
            *share = share.saturating_sub(1);
            if *share == 0 {
                self.shares.remove(&counted.caller);
            }
        }
    }
}

impl Counted {
    fn record(self, now: Now) -> AuditRecord {
        AuditRecord {
            event: Event::Repeated,
            time: now.wall,
            uptime_us: micros(now.uptime),
            repeated: Some(self.count),
            since: Some(self.since),
            ..self.first
        }
    }
}

/// `record` without what differs between refusals of one kind; `None` if it is no refusal.
fn template(record: &AuditRecord) -> Option<AuditRecord> {
    let refused = matches!(record.event, Event::Denial | Event::Drop) && record.outcome.is_none();
    // One that has used a grant is kept: approvers are few, and ask what became of theirs.
    if !refused || record.approval.is_some() {
        return None;
    }
    let mut first = AuditRecord {
        id: None,
        bytes: None,
        digest: None,
        duration_us: None,
        within: None,
        trace_id: None,
        parent_span_id: None,
        link: None,
        session: None,
        identity: None,
        client: None,
        http: None,
        input: None,
        input_left_out: Listed::default(),
        hidden: Listed::default(),
        ..record.clone()
    };
    if let Some(decision) = &mut first.decision {
        decision.reasons = std::mem::take(&mut decision.reasons).shortened(REASONS_NAMED_MAX);
        decision.told = None;
    }
    Some(first)
}

/// What remains of a refusal that is counted together with others.
fn of_many_kinds(first: AuditRecord) -> AuditRecord {
    AuditRecord {
        method: None,
        target: None,
        operation: None,
        decision: first.decision.map(|decision| DecisionFacts {
            reasons: decision.reasons.shortened(1),
            obligations: Listed::default(),
            ..decision
        }),
        note: Some("refusals of several kinds, counted together".into()),
        ..first
    }
}

/// Bytes that are equal for refusals of one kind.
fn first_bytes(first: &AuditRecord) -> Vec<u8> {
    let kind =
        AuditRecord { call: None, time: SystemTime::UNIX_EPOCH, uptime_us: 0, ..first.clone() };
    // A record can always be serialised; if not, all such refusals are one kind.
    serde_json::to_vec(&kind).unwrap_or_default()
}

/// Principal and network address. A host has a whole /64 of IPv6 addresses, which count as one.
fn caller(first: &AuditRecord) -> Kind {
    let principal = first.principal.as_deref().unwrap_or_default();
    let peer = first.peer.as_deref().and_then(|peer| peer.parse::<IpAddr>().ok());
    match peer.map(|peer| peer.to_canonical()) {
        None => digest(&[principal.as_bytes()]),
        Some(IpAddr::V4(peer)) => digest(&[principal.as_bytes(), &peer.octets()]),
        Some(IpAddr::V6(peer)) => {
            let [a, b, c, d, ..] = peer.segments();
            let network = [a, b, c, d].map(u16::to_be_bytes).concat();
            digest(&[principal.as_bytes(), &network])
        }
    }
}

fn digest(parts: &[&[u8]]) -> Kind {
    let mut hash = Sha256::new();
    for part in parts {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        hash.update(length.to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(seconds: u64) -> Now {
        let uptime = Duration::from_secs(seconds);
        Now { uptime, wall: SystemTime::UNIX_EPOCH.checked_add(uptime).unwrap() }
    }

    fn denial(call: &str, method: &str, principal: &str, seconds: u64) -> AuditRecord {
        let mut record = AuditRecord::new(Event::Denial, now(seconds));
        record.call = Some(call.into());
        record.method = Some(method.into());
        record.principal = Some(principal.into());
        record.id = Some(call.into());
        record.bytes = Some(seconds);
        record
    }

    #[test]
    fn the_first_is_kept_and_the_rest_is_counted() {
        let repeats = Repeats::new(Duration::from_secs(10));
        let state = AuditRecord::new(Event::HoldState, now(1));
        assert_eq!(
            [&state; 3].map(|state| repeats.count(state)),
            [None, None, None],
            "all are kept"
        );
        assert_eq!(repeats.count(&denial("c1", "a", "p", 1)), None);
        assert_eq!(repeats.count(&denial("c2", "a", "p", 2)).as_deref(), Some("c1"));
        assert_eq!(repeats.count(&denial("c3", "b", "p", 3)), None, "another kind");
        assert_eq!(repeats.count(&denial("c4", "a", "q", 3)), None, "another principal");
        assert_eq!(repeats.count(&denial("c5", "a", "p", 9)).as_deref(), Some("c1"));
        assert!(repeats.take(now(10), false).is_empty(), "not over");
        let taken = repeats.take(now(11), false);
        assert_eq!(taken.len(), 1, "what did not repeat has no count");
        let record = taken.first().unwrap();
        assert_eq!((record.event, record.repeated), (Event::Repeated, Some(2)));
        assert_eq!((record.call.as_deref(), record.id.as_deref()), (Some("c1"), None));
        assert_eq!(record.since, Some(now(2).wall));
        assert_eq!(repeats.count(&denial("c6", "a", "p", 12)), None, "a new interval");
        assert!(repeats.count(&AuditRecord::new(Event::Intent, now(1))).is_none());
    }

    #[test]
    fn nothing_is_lost_in_a_flood_of_kinds() {
        let repeats = Repeats::new(Duration::from_secs(10));
        let mut kept = 0_u64;
        let total = 20_000;
        for n in 0..total {
            let principal = format!("p{}", n % 700);
            let record = denial(&format!("c{n}"), &format!("m{n}"), &principal, 1);
            if repeats.count(&record).is_none() {
                kept += 1;
            }
        }
        assert!(lock(&repeats.table).counted.len() <= KINDS_MAX + OVERFLOWS_MAX + 1);
        let counted: u64 = repeats.take(now(1), true).iter().filter_map(|it| it.repeated).sum();
        assert_eq!(kept + counted, total);
        assert!(kept < 1100, "{kept}");
        let table = lock(&repeats.table);
        assert!(table.counted.is_empty() && table.shares.is_empty() && table.overflows == 0);
    }

    #[test]
    fn one_caller_does_not_take_the_others_room() {
        let repeats = Repeats::new(Duration::from_secs(10));
        for n in 0..10_000 {
            repeats.count(&denial("c", &format!("m{n}"), "flood", 1));
        }
        assert_eq!(repeats.count(&denial("x", "a", "other", 1)), None);
        assert_eq!(repeats.count(&denial("y", "a", "other", 1)).as_deref(), Some("x"));
    }

    #[test]
    fn what_could_not_be_kept_is_neither_lost_nor_told() {
        let repeats = Repeats::new(Duration::from_secs(10));
        let first = denial("c1", "a", "p", 1);
        assert_eq!(repeats.count(&first), None);
        repeats.unkept(&first);
        assert_eq!(repeats.count(&denial("c2", "a", "p", 1)), None, "recorded in full");
        assert_eq!(repeats.count(&denial("c3", "a", "p", 1)).as_deref(), Some("c2"));
        let record = repeats.take(now(1), true).pop().unwrap();
        repeats.put_back(record);
        let again = repeats.take(now(2), true);
        assert_eq!(again.iter().filter_map(|it| it.repeated).collect::<Vec<_>>(), [1]);
        assert_eq!(again.first().unwrap().call.as_deref(), Some("c2"));
    }
}
