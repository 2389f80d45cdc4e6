//! What the store keeps: holds, the open hold of each key, wider grants, refusals, and tasks.
//!
//! Records are values. Times in them are of [`crate::clock::HighWater`], in milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bartizan_gate::duty::hold::{GrantScope, Hold};
use bartizan_gate::wire::hex::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::limits::{SCOPE_COUNT_MAX, SCOPE_LASTS_MAX, millis};

/// What has become of a hold.
///
/// From `Pending` a hold gets to `Granted`, `Refused`, `Expired` or `Cancelled`; from `Granted` to
/// `Spent`, `Expired` or `Cancelled`; from `Spent` to `Unknown`. There is no way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldState {
    /// It waits for people.
    Pending,
    /// Enough people granted it, and nobody has spent it yet.
    Granted,
    /// Somebody refused it.
    Refused,
    /// Its time is over.
    Expired,
    /// The call was cancelled, or a rule now asks under other conditions.
    Cancelled,
    /// One call was sent under it. It is never sent again.
    Spent,
    /// It was spent, and nothing says whether the server got the call: the program ended between
    /// the two. It is never sent again.
    Unknown,
}

impl HoldState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Granted,
        Self::Refused,
        Self::Expired,
        Self::Cancelled,
        Self::Spent,
        Self::Unknown,
    ];

    /// The name used in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Spent => "spent",
            Self::Unknown => "unknown",
        }
    }

    /// Whether something can still become of it.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Granted)
    }
}

impl fmt::Display for HoldState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A wider grant that a rule offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The rule's name for it.
    pub code: Box<str>,
    /// How long it lasts from the grant, milliseconds.
    pub lasts_ms: u64,
    /// How many calls it covers, the granted one included.
    pub count: u32,
}

impl From<&GrantScope> for Scope {
    fn from(scope: &GrantScope) -> Self {
        Self {
            code: scope.code.clone(),
            lasts_ms: millis(scope.lasts.min(SCOPE_LASTS_MAX)),
            count: scope.count.min(SCOPE_COUNT_MAX),
        }
    }
}

/// What a wider grant must find unchanged in another call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Who calls.
    pub principal: Box<str>,
    /// Which server.
    pub server: Box<str>,
    /// The method of MCP.
    pub method: Box<str>,
    /// The tool, prompt or resource.
    pub target: Option<Box<str>>,
    /// The environments that the call reaches.
    pub environments: Vec<Box<str>>,
    /// What the operation does.
    pub effect: Box<str>,
    /// The operation's tags.
    pub tags: Vec<Box<str>>,
    /// What earlier calls have selected at the server, by name.
    pub facts: BTreeMap<Box<str>, Box<str>>,
    /// Digest of the tool's definition.
    pub definition: Option<Box<str>>,
    /// Revision of the policy.
    pub revision: Box<str>,
    /// Code of the rule that asks.
    pub code: Box<str>,
    /// Groups of which an approver must be a member of one; empty for anybody.
    pub approvers: Vec<Box<str>>,
    /// How many approvers it takes, at least 1.
    pub quorum: u32,
    /// The wider grants that the rule offers.
    pub scopes: Vec<Scope>,
}

/// Everything that was asked. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Names the hold.
    pub id: Box<str>,
    /// The hold's key, hexadecimal.
    pub key: Box<str>,
    /// The call that was first held.
    pub call: Box<str>,
    /// Who wants what.
    pub subject: Subject,
    /// The parameters as they would be sent, a JSON text.
    pub shown: Box<str>,
    /// The rule's message.
    pub message: Box<str>,
    /// What the client calls itself.
    pub client: Option<Box<str>>,
    /// When.
    pub at_ms: u64,
    /// Until when it may be granted and spent.
    pub expires_ms: u64,
    /// Digest of all of the above: what an approver names to say what he saw.
    pub digest: Box<str>,
}

impl Asked {
    /// What `hold` asks, under the name `id`, between two times.
    pub fn new(hold: &Hold, id: &str, at_ms: u64, expires_ms: u64) -> Self {
        let mut asked = Self {
            id: id.into(),
            key: hold.key.to_string().into(),
            call: hold.call.as_ref().into(),
            subject: Subject {
                principal: hold.principal.clone(),
                server: hold.server.clone(),
                method: hold.method.clone(),
                target: hold.target.clone(),
                environments: hold.environments.clone(),
                effect: hold.effect.clone(),
                tags: hold.tags.clone(),
                facts: hold.facts.clone(),
                definition: hold.definition.clone(),
                revision: hold.revision.clone(),
                code: hold.code.clone(),
                approvers: hold.approvers.clone(),
                quorum: hold.quorum.max(1),
                scopes: hold.scopes.iter().map(Scope::from).collect(),
            },
            shown: String::from_utf8_lossy(&hold.shown).into(),
            message: hold.message.clone(),
            client: hold.client.clone(),
            at_ms,
            expires_ms,
            digest: Box::default(),
        };
        asked.digest = asked.compute_digest();
        asked
    }

    /// Whether it is as it was when its digest was made.
    pub fn is_intact(&self) -> bool {
        self.digest == self.compute_digest()
    }

    /// SHA-256 over all members but the digest; each text after its length, each list after its
    /// number of items.
    fn compute_digest(&self) -> Box<str> {
        let mut hash = Hash(Sha256::new());
        let of = &self.subject;
        for text in [&self.id, &self.key, &self.call, &of.principal, &of.server, &of.method] {
            hash.text(text);
        }
        hash.option(of.target.as_deref());
        hash.texts(&of.environments);
        hash.option(of.definition.as_deref());
        hash.text(&of.revision);
        hash.text(&of.code);
        hash.texts(&of.approvers);
        hash.number(of.quorum.into());
        hash.count(of.scopes.len());
        for scope in &of.scopes {
            hash.text(&scope.code);
            hash.number(scope.lasts_ms);
            hash.number(scope.count.into());
        }
        hash.text(&of.effect);
        hash.texts(&of.tags);
        hash.count(of.facts.len());
        for (name, value) in &of.facts {
            hash.text(name);
            hash.text(value);
        }
        hash.text(&self.shown);
        hash.text(&self.message);
        hash.option(self.client.as_deref());
        hash.number(self.at_ms);
        hash.number(self.expires_ms);
        hex(&hash.0.finalize()).into()
    }

    /// How many bytes its texts have.
    pub fn bytes(&self) -> usize {
        let of = &self.subject;
        let option = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
        let list = |texts: &[Box<str>]| texts.iter().map(|text| text.len()).fold(0, sum);
        let texts = [
            self.id.len(),
            self.key.len(),
            self.call.len(),
            of.principal.len(),
            of.server.len(),
            of.method.len(),
            option(&of.target),
            list(&of.environments),
            option(&of.definition),
            of.revision.len(),
            of.code.len(),
            list(&of.approvers),
            of.scopes.iter().map(|scope| scope.code.len()).fold(0, sum),
            of.effect.len(),
            list(&of.tags),
            of.facts.iter().map(|(name, value)| sum(name.len(), value.len())).fold(0, sum),
            self.shown.len(),
            self.message.len(),
            option(&self.client),
        ];
        texts.into_iter().fold(0, sum)
    }
}

fn sum(one: usize, other: usize) -> usize {
    one.saturating_add(other)
}

/// A hash over parts, none of which can be taken for another.
struct Hash(Sha256);

impl Hash {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).unwrap_or(u64::MAX));
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text);
    }

    fn option(&mut self, text: Option<&str>) {
        self.number(text.is_some().into());
        self.text(text.unwrap_or_default());
    }

    fn texts(&mut self, texts: &[Box<str>]) {
        self.count(texts.len());
        for text in texts {
            self.text(text);
        }
    }
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The call may be sent once.
    Grant,
    /// The call must not be sent.
    Refuse,
}

/// What one person answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Who.
    pub by: Box<str>,
    /// Yes or no.
    pub verdict: Verdict,
    /// Why; may be empty.
    pub reason: Box<str>,
    /// The wider grant that was chosen.
    pub scope: Option<Box<str>>,
    /// When.
    pub at_ms: u64,
}

/// The wider grant under which a hold was granted without asking anybody again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Through {
    /// The hold with which it was granted.
    pub hold: Box<str>,
    /// Which of the rule's offers.
    pub scope: Box<str>,
    /// Who granted it.
    pub approvers: Vec<Box<str>>,
    /// Why.
    pub reason: Box<str>,
}

/// One hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRecord {
    /// What was asked.
    pub asked: Arc<Asked>,
    /// What has become of it.
    pub state: HoldState,
    /// When it got into this state.
    pub changed_ms: u64,
    /// What people answered, in this order; at most as many as the quorum.
    pub answers: Vec<Answer>,
    /// The wider grant that came with its grant.
    pub scope: Option<Box<str>>,
    /// The wider grant under which it was granted.
    pub through: Option<Through>,
    /// Once spent: whether the end of its call is known.
    pub settled: bool,
}

impl HoldRecord {
    /// Who granted it.
    pub fn granted_by(&self) -> Vec<Box<str>> {
        if let Some(through) = &self.through {
            return through.approvers.clone();
        }
        let grants = self.answers.iter().filter(|answer| answer.verdict == Verdict::Grant);
        grants.map(|answer| answer.by.clone()).collect()
    }

    /// Why it was granted: the reasons of all who did, in their order.
    pub fn granted_because(&self) -> Box<str> {
        if let Some(through) = &self.through {
            return through.reason.clone();
        }
        let grants = self.answers.iter().filter(|answer| answer.verdict == Verdict::Grant);
        let reasons: Vec<&str> =
            grants.map(|answer| &*answer.reason).filter(|reason| !reason.is_empty()).collect();
        reasons.join("; ").into()
    }

    /// Whether what was asked is intact, and whether as many different people granted the hold as
    /// its state needs.
    fn is_consistent(&self) -> bool {
        let quorum = usize::try_from(self.asked.subject.quorum).unwrap_or(usize::MAX);
        let granted_by: BTreeSet<_> = self.granted_by().into_iter().collect();
        let granted = match self.state {
            HoldState::Granted | HoldState::Spent | HoldState::Unknown => {
                granted_by.len() >= quorum.max(1)
            }
            HoldState::Pending | HoldState::Refused | HoldState::Expired | HoldState::Cancelled => {
                true
            }
        };
        granted && self.asked.is_intact()
    }

    /// How many bytes its texts have.
    pub fn bytes(&self) -> usize {
        let answers = self.answers.iter().map(|answer| {
            let scope = answer.scope.as_deref().map_or(0, str::len);
            sum(sum(answer.by.len(), answer.reason.len()), scope)
        });
        answers.fold(self.asked.bytes(), sum)
    }
}

/// The open hold of a key: the store lets two replicas make only one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotRecord {
    /// The key, hexadecimal.
    pub key: Box<str>,
    /// The hold.
    pub hold: Box<str>,
}

/// A wider grant in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WiderRecord {
    /// What it covers, and how a hold under it says so.
    pub through: Through,
    /// What must be unchanged.
    pub subject: Subject,
    /// Until when.
    pub expires_ms: u64,
    /// How many more calls it covers.
    pub left: u32,
}

/// How often people refused a principal of late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalRecord {
    /// Who.
    pub principal: Box<str>,
    /// When, the oldest first; at most as many as begin a cool-down.
    pub refusals_ms: Vec<u64>,
    /// How many cool-downs followed one another.
    pub cool_downs: u32,
    /// No new hold before this time.
    pub until_ms: u64,
}

/// A call that waits as a task, or has waited so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRecord {
    /// Names the task to its client; nobody can guess it.
    pub id: Box<str>,
    /// Whose it is: nobody else finds it.
    pub principal: Box<str>,
    /// The server of the call.
    pub server: Box<str>,
    /// What the call is, in words for its client.
    pub what: Box<str>,
    /// The holds of the call.
    pub holds: Vec<Box<str>>,
    /// When it was made.
    pub created_ms: u64,
    /// When it got into its state.
    pub changed_ms: u64,
    /// Until when it is kept.
    pub expires_ms: u64,
    /// What has become of it.
    pub state: TaskState,
}

/// What the store has of a task. From `Waiting` it gets to `Running` or `Cancelled`; from `Running`
/// back to `Waiting`, where the call is held anew, or to an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Its holds say what has become of it.
    Waiting,
    /// Somebody makes the call.
    Running,
    /// The answer to the call.
    Completed {
        /// Its `result`, a JSON text, as the client may see it.
        result: Box<str>,
    },
    /// The call failed.
    Failed {
        /// The `error`, a JSON text, as the client may see it.
        error: Box<str>,
    },
    /// It was cancelled.
    Cancelled,
    /// Nobody knows whether the server got the call: the program ended before its end was known.
    Unknown,
    /// The call has ended, and its answer is not kept.
    Dropped,
}

impl TaskState {
    /// Whether nothing more becomes of it.
    pub fn is_ended(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }

    /// The bytes of the answer in it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Completed { result: text } | Self::Failed { error: text } => text.len(),
            Self::Waiting | Self::Running | Self::Cancelled | Self::Unknown | Self::Dropped => 0,
        }
    }
}

/// One record of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A hold.
    Hold(Arc<HoldRecord>),
    /// The open hold of a key.
    Slot(Arc<SlotRecord>),
    /// A wider grant.
    Wider(Arc<WiderRecord>),
    /// Refusals of a principal.
    Principal(Arc<PrincipalRecord>),
    /// A call that waits as a task.
    Task(Arc<TaskRecord>),
}

impl Record {
    /// Names the record in the store.
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Hold(hold) => RecordKey::hold(&hold.asked.id),
            Self::Slot(slot) => RecordKey::slot(&slot.key),
            Self::Wider(wider) => RecordKey::wider(&wider.through.hold),
            Self::Principal(of) => RecordKey::principal(&of.principal),
            Self::Task(task) => RecordKey::task(&task.id),
        }
    }

    /// Whether its parts fit each other: a damaged store grants nothing.
    pub fn is_consistent(&self) -> bool {
        match self {
            Self::Hold(hold) => hold.is_consistent(),
            Self::Slot(_) | Self::Wider(_) | Self::Principal(_) | Self::Task(_) => true,
        }
    }
}

/// The name of a record in the store: its kind, a slash, and its name among them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey(Box<str>);

impl RecordKey {
    /// The key that a store has written down as `name`.
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// The key of the hold `id`.
    pub fn hold(id: &str) -> Self {
        Self(format!("hold/{id}").into())
    }

    /// The key of the open hold of `key`.
    pub fn slot(key: &str) -> Self {
        Self(format!("slot/{key}").into())
    }

    /// The key of the wider grant that came with the hold `id`.
    pub fn wider(id: &str) -> Self {
        Self(format!("wider/{id}").into())
    }

    /// The key of the refusals of `principal`.
    pub fn principal(principal: &str) -> Self {
        Self(format!("principal/{principal}").into())
    }

    /// The key of the task `id`.
    pub fn task(id: &str) -> Self {
        Self(format!("task/{id}").into())
    }

    /// The name as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
