//! What a person is asked before a held call may pass, and the evidence that one was.
//!
//! The gate makes a [`Hold`] where a policy permits a call with the obligation `hold`. The edge asks
//! the approval service, waits, and hands the same bytes to the gate again with the [`Approval`].
//! The call passes only if the hold that results then has the key of that approval, so a grant is
//! bound to everything that the key covers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::question::handles::Facts;
use crate::wire::document::{Kind, Value, write_string};
use crate::wire::headers::{META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_PROTOCOL_VERSION};
use crate::wire::hex::hex;

/// Approvals that one call may need at most: one for each different rule that holds it.
pub const HOLDS_MAX: usize = 8;

/// How long a hold waits for its answer where the rule does not say.
pub const TTL_DEFAULT: Duration = Duration::from_mins(15);
/// The longest time that a rule may name for a hold or a grant: 30 days.
pub const TTL_MAX: Duration = Duration::from_hours(30 * 24);

/// The name under which a client of 2026-07-28 is asked to open the page of a hold, among the input
/// requests of an answer.
pub(crate) const ELICITATION: &str = "bartizan-approval";

/// Members of `_meta` that the protocol itself defines for a request and that say nothing of what the
/// call does (MCP 2026-07-28, basic, "_meta"): an approver does not see them, and a grant does not
/// depend on them. Any other member is shown, whatever its prefix, because the server gets it.
const PROTOCOL: [&str; 5] = [
    "progressToken",
    META_PROTOCOL_VERSION,
    META_CLIENT_INFO,
    META_CLIENT_CAPABILITIES,
    "io.modelcontextprotocol/logLevel",
];
/// Bytes of a `traceparent`, which has hexadecimal digits and `-` alone (W3C Trace Context §3.2.2).
const TRACEPARENT_BYTES: usize = 55;
/// Bytes of a `tracestate` at most (W3C Trace Context §3.3.1.5: the least that all must pass on).
const TRACESTATE_BYTES_MAX: usize = 512;

/// A call that waits for a person, with all that the person must see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What a grant is bound to.
    pub key: HoldKey,
    /// The call, by which its records are found (`call` in the journal).
    pub call: Arc<str>,
    /// Id of the principal that makes the call. It cannot approve.
    pub principal: Box<str>,
    /// Name of the server in the configuration.
    pub server: Box<str>,
    /// JSON-RPC method.
    pub method: Box<str>,
    /// The tool, the prompt, or the URI; absent where the method names none.
    pub target: Option<Box<str>>,
    /// What the call does, as its pack classifies it: `read`, `write`, `destructive`, `exec` or
    /// `unknown`.
    pub effect: Box<str>,
    /// The tags that the pack gives the call.
    pub tags: Vec<Box<str>>,
    /// The environments that it reaches; `*` for every one.
    pub environments: Vec<Box<str>>,
    /// What earlier calls have selected and the server holds, by name: where a call lands may depend
    /// on it although no argument says so.
    pub facts: Facts,
    /// The members of `params` as they would be sent, as one JSON object without spaces, with names
    /// in the order in which they are sent. Left out are the members of `_meta` that change with each
    /// attempt. Text of the client: untrusted.
    pub shown: Bytes,
    /// Digest of the tool's definition as last listed, `sha256:<hex>`; absent if it was never listed.
    pub definition: Option<Box<str>>,
    /// The policy that holds the call.
    pub revision: Box<str>,
    /// Code of the rule that holds it.
    pub code: Box<str>,
    /// The rule's message.
    pub message: Box<str>,
    /// Groups of which the approvers must be members, each of at least one; empty: any approver.
    pub approvers: Vec<Box<str>>,
    /// How many different people must grant it, at least 1.
    pub quorum: u32,
    /// How long it waits, and how long a grant may be spent, from its beginning.
    pub ttl: Duration,
    /// What the client calls itself: untrusted.
    pub client: Option<Box<str>>,
    /// Wider grants that the rule offers.
    pub scopes: Vec<GrantScope>,
    /// The holds of the other rules that hold the same call: it passes when all are granted. They
    /// have none of their own.
    pub also: Vec<Self>,
}

/// A grant that covers further calls: the same principal, server, method, tool, effect, tags,
/// environments, facts, definition, policy and rule, with any arguments, for a bounded time and
/// number of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantScope {
    /// The name by which an approver chooses it.
    pub code: Box<str>,
    /// How long it holds from the moment of the grant.
    pub lasts: Duration,
    /// Calls that it covers, the first included; at least 1.
    pub count: u32,
}

/// The SHA-256 of everything that a grant is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldKey(pub [u8; 32]);

impl fmt::Display for HoldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for HoldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a hold: 128 random bits as lower-case hexadecimal digits. People and clients see it;
/// it authorizes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId(pub Box<str>);

impl HoldId {
    /// The name `text`.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Evidence that a hold was granted and that its grant was spent on this call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The hold.
    pub hold: HoldId,
    /// The key of the call that it was spent on.
    pub key: HoldKey,
    /// Of whom it was asked: the hold's [`Hold::approvers`].
    pub groups: Vec<Box<str>>,
    /// Of how many: the hold's [`Hold::quorum`].
    pub quorum: u32,
    /// Who granted it: ids of approvers.
    pub approvers: Vec<Box<str>>,
    /// What they gave as a reason.
    pub reason: Box<str>,
    /// The wider grant that it comes from, where one was chosen.
    pub scope: Option<Box<str>>,
    /// When it was granted, milliseconds since the Unix epoch.
    pub granted_unix_ms: u64,
}

/// Why a held call does not pass, as far as its client may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldEnd {
    /// Nobody has answered yet. The hold waits on: the same call, made again, attaches to it.
    Pending {
        /// The hold.
        hold: HoldId,
        /// When it makes sense to call again.
        retry_after: Duration,
        /// The `requestState` with which a client of revision 2026-07-28 calls again by itself; the
        /// gate sets it where the client can.
        state: Option<Box<str>>,
        /// The address of a page where it is approved, if clients are told.
        page: Option<Box<str>>,
    },
    /// A person refused it.
    Refused,
    /// Nobody answered in time.
    Expired,
    /// Somebody cancelled it, such as another client that makes the same call.
    Cancelled,
    /// There are too many holds: of the principal, of the server, or in all.
    Full,
    /// Holds of the principal were refused repeatedly, so no other is accepted for a while.
    CoolingDown {
        /// How long.
        retry_after: Duration,
    },
    /// The store of holds cannot be used, so nothing is granted.
    Unavailable,
    /// The call needs more approvals than [`HOLDS_MAX`].
    TooMany,
}

impl HoldEnd {
    /// The reason code of [`HoldEnd::Pending`].
    pub(crate) const PENDING: &str = "approval-pending";

    /// The stable reason code in records.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Pending { .. } => Self::PENDING,
            Self::Refused => "approval-refused",
            Self::Expired => "approval-expired",
            Self::Cancelled => "approval-cancelled",
            Self::Full => "approvals-full",
            Self::CoolingDown { .. } => "approvals-cooling-down",
            Self::Unavailable => "approvals-unavailable",
            Self::TooMany => "approvals-too-many",
        }
    }

    /// What the client is told.
    pub(crate) fn text(&self) -> &'static str {
        match self {
            Self::Pending { .. } => {
                "Approval pending: a person has been asked. Call again with the same arguments"
            }
            Self::Refused => "Approval refused by a person",
            Self::Expired => "Approval expired: nobody answered in time",
            Self::Cancelled => "Approval cancelled",
            Self::Full => "Approval required, and too many calls wait for one already",
            Self::CoolingDown { .. } => {
                "Approval required, and recent requests were refused; try later"
            }
            Self::Unavailable => "Approval required, and approvals are not available now",
            Self::TooMany => "Approval required by too many rules at once",
        }
    }

    /// When it makes sense to call again, where that is known.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Pending { retry_after, .. } | Self::CoolingDown { retry_after } => {
                Some(*retry_after)
            }
            Self::Refused
            | Self::Expired
            | Self::Cancelled
            | Self::Full
            | Self::Unavailable
            | Self::TooMany => None,
        }
    }
}

impl Hold {
    /// This hold and those beside it ([`Hold::also`]).
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.also)
    }

    /// This hold and those beside it, apart.
    pub fn apart(mut self) -> Vec<Self> {
        let also = std::mem::take(&mut self.also);
        [vec![self], also].concat()
    }

    /// Computes the key from the other members: SHA-256 over each part with its length before it, so
    /// that no two different holds have the same text.
    #[must_use]
    pub fn keyed(mut self) -> Self {
        self.key = self.digest(Some(&self.shown));
        self
    }

    /// The key that holds share which a wider grant covers: that of the hold without what is shown of
    /// its arguments.
    pub fn scope_key(&self) -> HoldKey {
        self.digest(None)
    }

    fn digest(&self, shown: Option<&[u8]>) -> HoldKey {
        let mut sum = Sha256::new();
        let mut part = |bytes: Option<&[u8]>| {
            // A length that no text has stands for an absent part.
            let length = bytes.map_or(u64::MAX, |it| u64::try_from(it.len()).unwrap_or(u64::MAX));
            sum.update(length.to_be_bytes());
            sum.update(bytes.unwrap_or_default());
        };
        part(Some(self.principal.as_bytes()));
        part(Some(self.server.as_bytes()));
        part(Some(self.method.as_bytes()));
        part(self.target.as_deref().map(str::as_bytes));
        part(shown);
        part(self.definition.as_deref().map(str::as_bytes));
        part(Some(self.revision.as_bytes()));
        part(Some(self.code.as_bytes()));
        part(Some(self.effect.as_bytes()));
        for texts in [&self.environments, &self.tags] {
            part(Some(&texts.len().to_be_bytes()));
            for text in texts {
                part(Some(text.as_bytes()));
            }
        }
        for (name, value) in &self.facts {
            part(Some(name.as_bytes()));
            part(Some(value.as_bytes()));
        }
        HoldKey(sum.finalize().into())
    }
}

/// Writes `params` as a person is shown them: see [`Hold::shown`].
pub(crate) fn shown(params: Option<Value<'_>>) -> Bytes {
    let mut out = vec![b'{'];
    for (name, value) in params.into_iter().flat_map(Value::members) {
        let name = name.as_str().unwrap_or_default();
        if name == "_meta" && value.kind() == Kind::Object {
            let mut meta = Vec::new();
            for (name, value) in value.members() {
                let name = name.as_str().unwrap_or_default();
                if !is_volatile(name, value) {
                    member(&mut meta, name, value);
                }
            }
            if !meta.is_empty() {
                name_of(&mut out, name);
                out.push(b'{');
                out.extend_from_slice(&meta);
                out.push(b'}');
            }
        } else {
            member(&mut out, name, value);
        }
    }
    out.push(b'}');
    out.into()
}

/// Whether a member of `_meta` differs from call to call although the call is the same. A trace
/// context does, if it has the form of one: any other text is data for the server.
fn is_volatile(name: &str, value: Value<'_>) -> bool {
    match name {
        "traceparent" => value.as_str().is_some_and(is_traceparent),
        "tracestate" => value.as_str().is_some_and(|text| text.len() <= TRACESTATE_BYTES_MAX),
        _ => PROTOCOL.contains(&name),
    }
}

fn is_traceparent(text: &str) -> bool {
    text.len() == TRACEPARENT_BYTES
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// Adds a member after those that `out` has already.
fn member(out: &mut Vec<u8>, name: &str, value: Value<'_>) {
    name_of(out, name);
    out.extend_from_slice(&crate::wire::document::minify(value.raw()));
}

fn name_of(out: &mut Vec<u8>, name: &str) {
    if !matches!(out.last(), None | Some(b'{')) {
        out.push(b',');
    }
    write_string(out, name);
    out.push(b':');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::document::{Document, DocumentLimits};

    fn hold() -> Hold {
        Hold {
            key: HoldKey([0; 32]),
            call: "c".into(),
            principal: "p".into(),
            server: "s".into(),
            method: "tools/call".into(),
            target: Some("t".into()),
            effect: "write".into(),
            tags: Vec::new(),
            environments: vec!["production".into()],
            facts: Facts::from([("project".into(), "7".into())]),
            shown: Bytes::from_static(b"{}"),
            definition: None,
            revision: "r".into(),
            code: "c".into(),
            message: "m".into(),
            approvers: Vec::new(),
            quorum: 1,
            ttl: TTL_DEFAULT,
            client: None,
            scopes: Vec::new(),
            also: Vec::new(),
        }
        .keyed()
    }

    #[test]
    fn each_part_that_binds_a_grant_changes_its_key() {
        let first = hold();
        let changed: [fn(&mut Hold); 16] = [
            |it| it.principal = "q".into(),
            |it| it.server = "q".into(),
            |it| it.method = "q".into(),
            |it| it.target = None,
            |it| it.target = Some("".into()),
            |it| it.shown = Bytes::from_static(b"{ }"),
            |it| it.definition = Some("d".into()),
            |it| it.revision = "q".into(),
            |it| it.code = "q".into(),
            |it| it.environments.push("staging".into()),
            |it| it.tags.push("production".into()),
            |it| it.tags = std::mem::take(&mut it.environments),
            |it| it.effect = "destructive".into(),
            |it| it.facts.clear(),
            |it| drop(it.facts.insert("project".into(), "8".into())),
            |it| drop(it.facts.insert("account".into(), "8".into())),
        ];
        let mut seen = std::collections::HashSet::from([first.key]);
        for change in changed {
            let mut other = hold();
            change(&mut other);
            assert!(seen.insert(other.keyed().key));
        }
        // A byte that moves from one part to its neighbour.
        let (mut one, mut other) = (hold(), hold());
        (one.principal, one.server) = ("ab".into(), "c".into());
        (other.principal, other.server) = ("a".into(), "bc".into());
        assert_ne!(one.keyed().key, other.keyed().key);
    }

    #[test]
    fn a_wider_grant_depends_on_all_but_the_arguments() {
        let (one, mut other) = (hold(), hold());
        other.shown = Bytes::from_static(b"{\"a\":1}");
        assert_eq!(one.scope_key(), other.scope_key());
        other.environments = vec!["staging".into()];
        assert_ne!(one.scope_key(), other.scope_key());
    }

    #[test]
    fn what_changes_with_each_attempt_is_not_shown() {
        let of = |text: &'static str| {
            let limits = DocumentLimits::default();
            let document = Document::read(Bytes::from_static(text.as_bytes()), &limits).unwrap();
            String::from_utf8(shown(Some(document.root())).to_vec()).unwrap()
        };
        let plain = r#"{"name":"t","arguments":{"a":[1,"x y"]}}"#;
        assert_eq!(of(plain), plain);
        assert_eq!(of(r#"{"name": "t", "arguments" :{ "a":[1, "x y"]} }"#), plain);
        let meta = r#"{"_meta":{"progressToken":7,"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00","io.modelcontextprotocol/clientInfo":{}},"name":"t","arguments":{"a":[1,"x y"]}}"#;
        assert_eq!(of(meta), plain);
        for kept in [
            r#"{"_meta":{"vendor/dry-run":false},"name":"t"}"#,
            r#"{"_meta":{"io.modelcontextprotocol/dry-run":false},"name":"t"}"#,
            r#"{"_meta":{"traceparent":"force"},"name":"t"}"#,
            r#"{"_meta":{"baggage":"force=true"},"name":"t"}"#,
        ] {
            assert_eq!(of(kept), kept);
        }
    }
}
