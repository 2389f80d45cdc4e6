//! Writes the journal's lines: decides where the next line goes and what must be written before it.
//!
//! Not synchronised: [`journal`](super::journal) holds it in a mutex. It does not know the readers.
//! It is one long file because its state (segment, torn line, gap, open calls, free space) changes
//! together in `keep`, which is easier to review in one place.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use bartizan_gate::evidence::record::{
    AuditRecord, CallId, Event, Finding, Now, Outcome, ProgramFacts, RECORD_BYTES_MAX, Target,
};

use super::chain::{self, Hex};
use super::checkpoint::CheckpointMember;
use super::commit::{CLOSED, Committer};
use super::durability::{Durabilities, Durability};
use super::encode::Encoder;
use super::entry::JournalRecord;
use super::inert;
use super::recover::{OpenIntents, Recovery, Survey};
use super::segment::{LINE_BYTES_MAX, Store, StoreError, caught};

/// Largest number of calls without outcome; a further intent is refused.
pub const OPEN_CALLS_MAX: usize = 65_536;

/// Largest number of call ids that a `rotation` record lists.
pub const OPEN_LISTED_MAX: usize = 4_096;

/// Largest total size of the call ids that a `rotation` record lists, bytes.
const OPEN_LISTED_BYTES_MAX: usize = LINE_BYTES_MAX / 2;

/// Outcomes that are written late at once at most, so that no record waits for all of them.
const OWED_AT_ONCE_MAX: usize = 256;

/// Bytes that may be written between two checks of the free space.
const SPACE_CHECK_BYTES: u64 = 1 << 20;

/// Largest size of `seq`, `boot` and `prev` together, bytes.
const ENVELOPE_BYTES_MAX: usize = 256;

// No record is refused for its size.
const _: () = assert!(RECORD_BYTES_MAX + ENVELOPE_BYTES_MAX <= LINE_BYTES_MAX);

/// Size of a `checkpoint` record without the checkpoint, about, bytes.
const CHECKPOINT_BODY_BYTES: usize = 128;

/// Buffer that stays allocated for the next line, bytes.
const LINE_BYTES_KEPT: usize = 1 << 16;

/// Where a journal is written, and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// Its directory; created if missing, accessible to its owner only.
    pub directory: PathBuf,
    /// Size at which a new segment begins, bytes.
    pub segment_bytes_max: u64,
    /// Size of all segments together at which intents and denials are refused, bytes. Outcomes are
    /// still recorded.
    pub bytes_max: u64,
    /// Free space on the file system, bytes, below which intents and denials are refused. Outcomes
    /// are still recorded, so that a full disk does not prevent the outcome of a call that was
    /// permitted. 0 turns the check off.
    pub reserve_bytes: u64,
    /// What its first record says of the program.
    pub program: Option<Arc<ProgramFacts>>,
    /// Which acts wait until their records are on the disk.
    pub durability: Durabilities,
}

impl JournalConfig {
    /// The defaults, in `directory`: segments of 64 MiB, 16 GiB in all, a reserve of 16 MiB; no act
    /// waits for the disk.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            segment_bytes_max: 64 << 20,
            bytes_max: 16 << 30,
            reserve_bytes: 16 << 20,
            program: None,
            durability: Durabilities::all(Durability::Written),
        }
    }
}

/// The journal's additional members of a `rotation` record.
#[derive(Serialize)]
struct RotationMembers<'a> {
    open: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_elided: Option<usize>,
}

/// The journal's additional member of a `checkpoint` record.
#[derive(Serialize)]
struct CheckpointMembers<'a> {
    checkpoint: &'a CheckpointMember,
}

/// The journal's additional member of a `gap` record.
#[derive(Serialize)]
struct GapMembers<'a> {
    gap: &'a RefusedRecords,
}

/// The records refused since the last one that was written.
#[derive(Debug, Serialize)]
struct RefusedRecords {
    #[serde(rename = "refused")]
    count: u64,
    since: String,
    cause: String,
}

/// Which segment receives the next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SegmentState {
    /// The store's current segment.
    Running,
    /// A new segment that does not exist yet.
    Wanted,
    /// The store's current segment, which still needs its `rotation` record.
    Begun,
}

/// What the log should say. It is logged once the writer's lock is released: whatever happens to a
/// log line, it happens to no record.
#[derive(Debug)]
pub(super) enum Said {
    Refused(String),
    Mended(u64),
    Torn(String),
}

impl Said {
    pub(super) fn log(self) {
        match self {
            Self::Refused(cause) => tracing::error!(cause, "audit records cannot be written"),
            Self::Mended(refused) => tracing::warn!(refused, "audit records can be written again"),
            Self::Torn(error) => tracing::warn!(
                error,
                "the torn line cannot be cut off; the next record tries again"
            ),
        }
    }
}

/// Records that were never handed to the writer.
#[derive(Debug, Default)]
pub(super) struct Missed {
    count: u64,
    since: Option<SystemTime>,
    /// The outcomes among them.
    ended: Vec<(CallId, Option<Outcome>)>,
}

impl Missed {
    /// Counts `record`.
    pub(super) fn count(&mut self, record: &AuditRecord) {
        self.count = self.count.saturating_add(1);
        self.since.get_or_insert(record.time);
        if record.event == Event::Outcome
            && let Some(call) = &record.call
            && self.ended.len() < OPEN_CALLS_MAX
        {
            self.ended.push((CallId::clone(call), record.outcome.clone()));
        }
    }
}

/// A call without all of its outcomes.
#[derive(Debug, Clone, Copy)]
struct OpenCall {
    /// Outcomes that are missing.
    owed: u32,
    /// What its acts wait for.
    durability: Durability,
}

pub(super) struct Writer {
    /// For the log; taken after each record.
    pub(super) said: Vec<Said>,
    store: Box<dyn Store>,
    boot: Box<str>,
    segment_bytes_max: u64,
    reserve_bytes: u64,
    bytes_max: u64,
    next_seq: u64,
    prev: Hex,
    /// Size of the whole lines in the segment, bytes.
    length: u64,
    segment: SegmentState,
    /// Whether part of a line may follow after `length`.
    torn: bool,
    line: Vec<u8>,
    durability: Durabilities,
    committer: Arc<Committer>,
    open: BTreeMap<CallId, OpenCall>,
    /// Outcomes of open calls that could not be written. Each is written once records can be
    /// written again, so that no call stays open for the rest of the run.
    owed: Vec<(CallId, Option<Outcome>)>,
    /// Why the segment before was given up, if it was, until the `rotation` record says so.
    rotates_because: Option<String>,
    refused: Option<RefusedRecords>,
    /// Why only records that end something are written, if so.
    low_on_space: Option<String>,
    unchecked_bytes: u64,
    closed: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("next_seq", &self.next_seq)
            .field("length", &self.length)
            .field("segment", &self.segment)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn new(
        config: &JournalConfig,
        boot: &str,
        survey: &Survey,
        store: Box<dyn Store>,
        committer: Arc<Committer>,
    ) -> Self {
        let (length, segment) = match &survey.segment {
            None => (0, SegmentState::Wanted),
            Some((segment, 0)) if segment.first_seq > 1 => (0, SegmentState::Begun),
            Some((_, length)) => (*length, SegmentState::Running),
        };
        let open = |owed: u32| OpenCall { owed, durability: Durability::Written };
        let open = survey
            .open
            .iter()
            .map(|(call, (owed, _))| (call.as_str().into(), open(*owed)))
            .collect();
        Self {
            said: Vec::new(),
            store,
            boot: boot.into(),
            segment_bytes_max: config.segment_bytes_max,
            reserve_bytes: config.reserve_bytes,
            bytes_max: config.bytes_max,
            next_seq: survey.chain.next_seq,
            prev: survey.chain.prev.unwrap_or(chain::GENESIS),
            length,
            segment,
            torn: false,
            line: Vec::new(),
            durability: config.durability,
            committer,
            open,
            owed: Vec::new(),
            rotates_because: None,
            refused: None,
            low_on_space: None,
            unchecked_bytes: u64::MAX,
            closed: false,
        }
    }

    /// Calls without all of their outcomes.
    pub(super) fn open_calls(&self) -> usize {
        self.open.len()
    }

    /// Sequence number of the last record; 0 before the first.
    pub(super) fn last_seq(&self) -> u64 {
        self.next_seq.saturating_sub(1)
    }

    /// After a run that did not close the journal: records the recovery, and an unknown outcome for
    /// each open call. Returns the number of these outcomes.
    pub(super) fn settle(
        &mut self,
        recovery: &Recovery,
        open: OpenIntents,
        now: Now,
    ) -> Result<usize, String> {
        if recovery.clean {
            return Ok(0);
        }
        let owed: usize = open
            .values()
            .map(|(owed, _)| usize::try_from(*owed).unwrap_or(usize::MAX))
            .fold(0, usize::saturating_add);
        let mut record = AuditRecord::new(Event::Recovery, now);
        let torn = recovery.torn.as_ref().map(|torn| {
            let file = torn.aside.file_name().unwrap_or_default().to_string_lossy();
            format!("; {} torn bytes moved to `{file}`", torn.bytes)
        });
        let note = format!(
            "the run before did not end in order; {owed} calls get the outcome `unknown`{}",
            torn.unwrap_or_default()
        );
        record.note = Some(note.into());
        self.keep_own(&record)?;
        for (call, (owed, intent)) in open {
            let record = unknown_outcome(&call, intent.as_deref(), now);
            for _ in 0..owed {
                self.keep_own(&record)?;
            }
        }
        Ok(owed)
    }

    pub(super) fn keep_own(&mut self, record: &AuditRecord) -> Result<u64, String> {
        let mut encoder = Encoder::new();
        self.keep(record, encoder.encode(record))
    }

    pub(super) fn close(&mut self, record: &AuditRecord) -> Result<u64, String> {
        // Calls that are still open now never get an outcome from their session.
        self.owed.clear();
        let open: Vec<_> = self.open.iter().map(|(call, it)| (call.clone(), it.owed)).collect();
        for (call, owed) in open {
            let mut ended = unknown_outcome(&call, None, now_of(record));
            ended.note = Some("the program stopped before the call ended".into());
            for _ in 0..owed {
                self.keep_own(&ended)?;
            }
        }
        let seq = self.keep_own(record)?;
        self.closed = true;
        caught(|| self.store.sync().map_err(|error| format!("cannot flush it: {error}")))?;
        Ok(seq)
    }

    /// Writes `record`, whose JSON is `body`, and returns its sequence number. Counts a refusal for
    /// the next `gap` record.
    pub(super) fn keep(
        &mut self,
        record: &AuditRecord,
        body: Result<&[u8], String>,
    ) -> Result<u64, String> {
        let kept = body.and_then(|body| caught(|| self.try_keep(record, body)));
        match &kept {
            Ok(_) => self.track(record),
            Err(cause) => self.count_refusal(record, cause),
        }
        kept
    }

    /// Writes the pending `gap` record, if there is one, and returns the sequence number of the
    /// last record. A failure is not counted, because no record was lost.
    pub(super) fn mend(&mut self, now: Now) -> Result<u64, String> {
        if self.closed {
            return Err(CLOSED.to_owned());
        }
        if self.refused.is_some() || !self.owed.is_empty() || self.committer.replaces().is_some() {
            // Demand enough space for further records, not only for the gap.
            caught(|| self.check_free_space(Event::Intent))?;
            caught(|| self.prepare(&AuditRecord::new(Event::Gap, now), 0))?;
        }
        Ok(self.last_seq())
    }

    /// Writes the record of a checkpoint, and returns its sequence number. A failure is not counted:
    /// the records that it would have covered are kept.
    pub(super) fn keep_checkpoint(
        &mut self,
        checkpoint: &CheckpointMember,
        now: Now,
    ) -> Result<u64, String> {
        if self.closed {
            return Err(CLOSED.to_owned());
        }
        let record = AuditRecord::new(Event::Checkpoint, now);
        let members = members(&CheckpointMembers { checkpoint })?;
        self.check_free_space(record.event)?;
        self.prepare(&record, members.len().saturating_add(CHECKPOINT_BODY_BYTES))?;
        self.write_own(&members, &record)
    }

    /// What the act waits for that `record` precedes, if it is the next one.
    pub(super) fn durability_of(&self, record: &AuditRecord) -> Durability {
        match record.event {
            Event::Intent => self.durability.of(record),
            Event::Outcome => {
                let open = record.call.as_ref().and_then(|call| self.open.get(call));
                open.map_or(Durability::Written, |open| open.durability)
            }
            Event::Start
            | Event::Stop
            | Event::Hold
            | Event::HoldState
            | Event::Denial
            | Event::Notice
            | Event::Drop
            | Event::Repeated
            | Event::Approval
            | Event::Webhook
            | Event::Policy
            | Event::Store
            | Event::Recovery
            | Event::Gap
            | Event::Rotation
            | Event::Checkpoint
            | Event::Retention => Durability::Written,
        }
    }

    fn try_keep(&mut self, record: &AuditRecord, body: &[u8]) -> Result<u64, String> {
        if self.closed {
            return Err(CLOSED.to_owned());
        }
        if record.event == Event::Intent
            && self.durability.of(record) == Durability::Durable
            && let Some(cause) = self.committer.unusable()
        {
            return Err(cause);
        }
        if record.event == Event::Intent && self.open.len() >= OPEN_CALLS_MAX {
            return Err(format!("{OPEN_CALLS_MAX} calls without outcome"));
        }
        self.check_free_space(record.event)?;
        self.prepare(record, body.len())?;
        self.write(&[], body)
    }

    /// Checks the free space. Below the reserve only records that end something, or that the
    /// journal itself needs, are written.
    fn check_free_space(&mut self, event: Event) -> Result<(), String> {
        if self.low_on_space.is_some() || self.unchecked_bytes >= SPACE_CHECK_BYTES {
            self.low_on_space = self.space_left()?;
            self.unchecked_bytes = 0;
        }
        let end = match event {
            Event::Outcome
            | Event::HoldState
            | Event::Stop
            | Event::Policy
            | Event::Store
            | Event::Recovery
            | Event::Gap
            | Event::Rotation
            | Event::Checkpoint
            | Event::Retention => true,
            Event::Start
            | Event::Intent
            | Event::Hold
            | Event::Denial
            | Event::Notice
            | Event::Drop
            | Event::Repeated
            | Event::Approval
            | Event::Webhook => false,
        };
        match &self.low_on_space {
            Some(why) if !end => Err(why.clone()),
            Some(_) | None => Ok(()),
        }
    }

    /// Why there is too little space for new calls, if there is.
    fn space_left(&self) -> Result<Option<String>, String> {
        let failed = |error: io::Error| format!("cannot read the free space: {error}");
        if self.reserve_bytes > 0 && self.store.free_bytes().map_err(failed)? < self.reserve_bytes {
            let why = format!("less than {} bytes of disk are free", self.reserve_bytes);
            return Ok(Some(why));
        }
        if self.store.total_bytes().map_err(failed)? >= self.bytes_max {
            let why = format!(
                "the journal has reached its size of {} bytes (`audit.bytes`); move its oldest \
                 files elsewhere",
                self.bytes_max
            );
            return Ok(Some(why));
        }
        Ok(None)
    }

    /// Does everything that must precede a record of `body_bytes` bytes: cuts off a torn line,
    /// begins a new segment, writes the `rotation` and `gap` records.
    fn prepare(&mut self, record: &AuditRecord, body_bytes: usize) -> Result<(), String> {
        if self.torn {
            self.cut_torn_line()?;
        }
        let line_bytes = body_bytes.saturating_add(ENVELOPE_BYTES_MAX);
        let after = self.length.saturating_add(u64::try_from(line_bytes).unwrap_or(u64::MAX));
        if self.segment == SegmentState::Running
            && self.length > 0
            && after > self.segment_bytes_max
        {
            self.segment = SegmentState::Wanted;
        }
        if let Some(cause) = self.committer.replaces() {
            self.segment = SegmentState::Wanted;
            self.rotates_because = Some(cause);
        }
        if self.segment == SegmentState::Wanted {
            let failed = |error| format!("cannot begin a segment: {error}");
            self.store.begin_segment(self.next_seq).map_err(failed)?;
            self.length = 0;
            self.committer.began(self.store.flush().map_err(failed)?, self.next_seq);
            // The first segment of a journal needs no `rotation` record: no calls are open.
            self.segment =
                if self.next_seq == 1 { SegmentState::Running } else { SegmentState::Begun };
        }
        let now = now_of(record);
        if self.segment == SegmentState::Begun {
            let members = self.rotation_members()?;
            let mut rotation = AuditRecord::new(Event::Rotation, now);
            rotation.note = self.rotates_because.as_deref().map(Into::into);
            self.write_own(&members, &rotation)?;
            self.rotates_because = None;
            self.segment = SegmentState::Running;
        }
        if let Some(refused) = self.refused.as_ref().filter(|_| self.low_on_space.is_none()) {
            let gap = AuditRecord::new(Event::Gap, now).with_finding(Finding::AuditSinkFailure);
            let (members, count) = (members(&GapMembers { gap: refused })?, refused.count);
            self.write_own(&members, &gap)?;
            self.refused = None;
            self.said.push(Said::Mended(count));
        }
        self.write_owed(now)
    }

    /// Writes the outcomes that could not be written before, a number of them at a time.
    fn write_owed(&mut self, now: Now) -> Result<(), String> {
        for _ in 0..OWED_AT_ONCE_MAX {
            let Some((call, outcome)) = self.owed.last().cloned() else { break };
            if !self.open.contains_key(&call) {
                self.owed.pop();
                continue;
            }
            let mut record = AuditRecord::new(Event::Outcome, now);
            record.call = Some(call);
            record.outcome = outcome.or(Some(Outcome::Unknown));
            record.note = Some("recorded late: it could not be kept when it happened".into());
            self.write_own(&[], &record)?;
            self.owed.pop();
            self.track(&record);
        }
        Ok(())
    }

    fn rotation_members(&self) -> Result<Vec<u8>, String> {
        let every =
            self.open.iter().flat_map(|(call, it)| (0..it.owed).map(move |_| call.as_ref()));
        let total = every.clone().count();
        let mut bytes: usize = 0;
        let open: Vec<&str> = every
            .take(OPEN_LISTED_MAX)
            .take_while(|call| {
                bytes = bytes.saturating_add(call.len());
                bytes <= OPEN_LISTED_BYTES_MAX
            })
            .collect();
        let elided = total.saturating_sub(open.len());
        members(&RotationMembers { open, open_elided: (elided > 0).then_some(elided) })
    }

    fn write_own(&mut self, members: &[u8], record: &AuditRecord) -> Result<u64, String> {
        let mut encoder = Encoder::new();
        self.write(members, encoder.encode(record)?)
    }

    /// Appends one line: the journal's members, `members`, and the members of the object `body`.
    fn write(&mut self, members: &[u8], body: &[u8]) -> Result<u64, String> {
        let record = body.strip_prefix(b"{").ok_or("the record is not a JSON object")?;
        let seq = self.next_seq;
        self.line.clear();
        self.line.shrink_to(LINE_BYTES_KEPT);
        write!(self.line, r#"{{"seq":{seq},"boot":"{}","prev":""#, self.boot)
            .map_err(|error| error.to_string())?;
        self.line.extend_from_slice(&self.prev);
        self.line.extend_from_slice(b"\",");
        self.line.extend_from_slice(members);
        self.line.extend_from_slice(record);
        if self.line.len() > LINE_BYTES_MAX {
            return Err(format!("the record is larger than {LINE_BYTES_MAX} bytes"));
        }
        let hash = chain::hash(&self.line);
        self.line.push(b'\n');
        self.append()?;
        let bytes = u64::try_from(self.line.len()).unwrap_or(u64::MAX);
        self.length = self.length.saturating_add(bytes);
        self.unchecked_bytes = self.unchecked_bytes.saturating_add(bytes);
        self.prev = hash;
        self.next_seq = seq.checked_add(1).ok_or("no sequence numbers are left")?;
        Ok(seq)
    }

    fn append(&mut self) -> Result<(), String> {
        // Until the store says otherwise: it may panic when a part is written.
        self.torn = true;
        let cause = match self.store.append(self.length, &self.line) {
            Ok(taken) if taken == self.line.len() => {
                self.torn = false;
                return Ok(());
            }
            Ok(taken) => format!("only {taken} of {} bytes were written", self.line.len()),
            Err(StoreError::Io(error)) => error.to_string(),
            Err(StoreError::Displaced) => {
                self.torn = false;
                self.segment = SegmentState::Wanted;
                return Err("another program removed or changed the segment".to_owned());
            }
        };
        // If this fails, too, the next record tries it again first.
        if let Err(error) = self.cut_torn_line() {
            self.said.push(Said::Torn(error));
        }
        Err(cause)
    }

    fn cut_torn_line(&mut self) -> Result<(), String> {
        self.store
            .truncate(self.length)
            .map_err(|error| format!("cannot cut off a torn line: {error}"))?;
        self.torn = false;
        Ok(())
    }

    /// Updates the calls without outcome.
    fn track(&mut self, record: &AuditRecord) {
        let Some(call) = &record.call else { return };
        if record.event == Event::Intent {
            let durability = self.durability.of(record);
            let new = OpenCall { owed: 0, durability };
            let open = self.open.entry(CallId::clone(call)).or_insert(new);
            open.owed = open.owed.saturating_add(1);
            if durability == Durability::Durable {
                open.durability = durability;
            }
        } else if record.event == Event::Outcome
            && let Some(open) = self.open.get_mut(call)
        {
            open.owed = open.owed.saturating_sub(1);
            if open.owed == 0 {
                self.open.remove(call);
            }
        }
    }

    /// Takes note of records that could not be handed over, because of `cause`.
    pub(super) fn missed(&mut self, missed: Missed, cause: &str) {
        let Some(since) = missed.since else { return };
        for (call, outcome) in missed.ended {
            self.owe(&call, outcome);
        }
        self.count_refused(missed.count, since, cause);
    }

    /// Notes the `outcome` of an open call, to be written later.
    fn owe(&mut self, call: &CallId, outcome: Option<Outcome>) {
        // As many as are open at most: a call is open once for each outcome that it owes.
        if self.open.contains_key(call) && self.owed.len() < OPEN_CALLS_MAX {
            self.owed.push((CallId::clone(call), outcome));
        }
    }

    fn count_refusal(&mut self, record: &AuditRecord, cause: &str) {
        if record.event == Event::Outcome
            && let Some(call) = &record.call
        {
            self.owe(call, record.outcome.clone());
        }
        self.count_refused(1, record.time, cause);
    }

    /// Counts `count` records, the first of which was refused at `since`, for the next `gap` record.
    fn count_refused(&mut self, count: u64, since: SystemTime, cause: &str) {
        if self.refused.is_none() {
            self.said.push(Said::Refused(cause.to_owned()));
        }
        let refused = self.refused.get_or_insert_with(|| RefusedRecords {
            count: 0,
            since: rfc3339(since),
            cause: String::new(),
        });
        refused.count = refused.count.saturating_add(count);
        cause.clone_into(&mut refused.cause);
    }
}

/// The members of the JSON object `value`, with a trailing comma.
fn members<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut json = Vec::new();
    inert::write_json(value, &mut json).map_err(|error| error.to_string())?;
    let members = json.strip_prefix(b"{").and_then(|json| json.strip_suffix(b"}"));
    let mut members = members.ok_or("no JSON object")?.to_vec();
    members.push(b',');
    Ok(members)
}

fn now_of(record: &AuditRecord) -> Now {
    Now { uptime: Duration::from_micros(record.uptime_us), wall: record.time }
}

fn rfc3339(time: SystemTime) -> String {
    let mut text = String::new();
    let time = humantime::format_rfc3339_micros(time.max(SystemTime::UNIX_EPOCH));
    // Formatting fails from the year 10000 on; the text then stays empty.
    std::fmt::Write::write_fmt(&mut text, format_args!("{time}")).unwrap_or_default();
    text
}

/// The record of an unknown outcome for a call of a run that crashed, with the facts of its intent.
fn unknown_outcome(call: &str, intent: Option<&[u8]>, now: Now) -> AuditRecord {
    let mut record = AuditRecord::new(Event::Outcome, now);
    record.call = Some(call.into());
    record.outcome = Some(Outcome::Unknown);
    let intent = intent.and_then(|line| JournalRecord::read(line).ok()).unwrap_or_default();
    record.principal = intent.principal.map(Into::into);
    record.server = intent.server.map(Into::into);
    record.method = intent.method.map(Into::into);
    record.id = intent.id.map(Into::into);
    record.trace_id = intent.trace_id.map(Into::into);
    record.parent_span_id = intent.parent_span_id.map(Into::into);
    record.target = intent.target.map(|target| {
        Arc::new(Target {
            tool: target.tool.map(Into::into),
            prompt: target.prompt.map(Into::into),
            uri: target.uri.map(Into::into),
            task: target.task.map(Into::into),
            definition: target.definition.map(Into::into),
            locked: None,
            drift: target.drift.map(Into::into),
            flags: target.flags.into_iter().collect(),
        })
    });
    record
}
