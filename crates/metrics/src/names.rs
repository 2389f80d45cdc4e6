//! Which names may be labels.
//!
//! A label is kept for the whole run and shown without a token, and who chooses its values chooses
//! how many there are. So a name that an agent or a server wrote becomes a label only if somebody
//! else wrote it, too: a tool if the server's pack or lock names it, a method if it is one of MCP, a
//! reason if it is the program's own or stands in the policy. Everything else is [`OTHER`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, RwLock};

use bartizan_gate::evidence::record::ReasonFacts;
use bartizan_gate::wire::method::Method;
use bartizan_sync::{read, write};
use opentelemetry::StringValue;

/// What stands for a name that is not known (OpenTelemetry's word for it).
pub const OTHER: &str = "_OTHER";

/// Codes of reasons of the policy that are remembered; there is no label for a further one.
pub const REASONS_MAX: usize = 256;

/// Codes of JSON-RPC and of MCP that errors of servers may have as labels; a server can invent others.
const ERROR_CODES: [i64; 12] = [
    -32_700, -32_600, -32_601, -32_602, -32_603, -32_000, -32_001, -32_002, -32_020, -32_021,
    -32_022, -32_042,
];

/// Codes of refusals that the gate gives where a policy's could stand.
const OWN_REASONS: [&str; 14] = [
    "denied",
    "limited",
    "approval-required",
    "approval-pending",
    "approval-refused",
    "approval-expired",
    "approval-cancelled",
    "approvals-full",
    "approvals-cooling-down",
    "approvals-unavailable",
    "approvals-too-many",
    "unsettable",
    "limit-not-kept",
    "no_policy",
];

/// Says whether a code stands in the policy that decides now.
pub type InPolicy = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// One protected server.
#[derive(Debug)]
pub(crate) struct KnownServer {
    pub(crate) name: StringValue,
    tools: HashMap<Box<str>, StringValue>,
    /// 0: nothing is known; 1: it failed; 2: it answered.
    health: AtomicU8,
}

/// The names that may be labels.
pub struct Names {
    servers: HashMap<Box<str>, KnownServer>,
    in_policy: InPolicy,
    reasons: RwLock<HashMap<Box<str>, Option<StringValue>>>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Names {
    /// Names of the configured `servers`, each with the tools that its pack and its lock name, and
    /// what stands in the policy.
    pub fn new(
        servers: impl IntoIterator<Item = (Box<str>, Vec<Box<str>>)>,
        in_policy: InPolicy,
    ) -> Self {
        let known = servers.into_iter().map(|(name, tools)| {
            let tools = tools.into_iter().map(|tool| (tool.clone(), text(&tool))).collect();
            let server = KnownServer { name: text(&name), tools, health: AtomicU8::new(0) };
            (name, server)
        });
        Self { servers: known.collect(), in_policy, reasons: RwLock::default() }
    }

    /// The configured server of this name.
    pub(crate) fn server(&self, name: &str) -> Option<&KnownServer> {
        self.servers.get(name)
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = &KnownServer> {
        self.servers.values()
    }

    /// A method of MCP.
    pub(crate) fn method(name: &str) -> StringValue {
        Method::named(name).map_or(OTHER, |method| method.name).into()
    }

    /// The code of a reason.
    pub(crate) fn reason(&self, reason: &ReasonFacts) -> StringValue {
        match reason.origin {
            // These come from a policy, or beside one.
            "rule" | "limited" | "undischarged" => self.code(&reason.code),
            // The codes of all others are texts of the program.
            _ => text(&reason.code),
        }
    }

    /// A code that a policy may have given.
    pub(crate) fn code(&self, code: &str) -> StringValue {
        if let Some(own) = OWN_REASONS.into_iter().find(|own| *own == code) {
            return own.into();
        }
        let known = |found: &Option<StringValue>| found.clone().unwrap_or_else(|| OTHER.into());
        if let Some(found) = read(&self.reasons).get(code) {
            return known(found);
        }
        let mut reasons = write(&self.reasons);
        if reasons.len() >= REASONS_MAX {
            return OTHER.into();
        }
        let found = (self.in_policy)(code).then(|| text(code));
        known(reasons.entry(code.into()).or_insert(found))
    }

    /// Another policy decides from now on.
    pub(crate) fn policy_changed(&self) {
        write(&self.reasons).clear();
    }

    /// A JSON-RPC code, an HTTP status, or the program's word for a class of errors.
    pub(crate) fn error(error: &str) -> StringValue {
        let known = match error.parse::<i64>() {
            // Ours, HTTP's, and those of the protocol.
            Ok(code) => {
                (-31_999..=-31_000).contains(&code)
                    || (400..=599).contains(&code)
                    || ERROR_CODES.contains(&code)
            }
            Err(_) => true,
        };
        if known { text(error) } else { OTHER.into() }
    }
}

impl KnownServer {
    /// A tool of this server.
    pub(crate) fn tool(&self, name: &str) -> StringValue {
        self.tools.get(name).cloned().unwrap_or_else(|| OTHER.into())
    }

    pub(crate) fn answered(&self, is_up: bool) {
        self.health.store(if is_up { 2 } else { 1 }, Ordering::Relaxed);
    }

    /// Whether its last request got an answer; `None` before the first.
    pub(crate) fn is_up(&self) -> Option<bool> {
        match self.health.load(Ordering::Relaxed) {
            0 => None,
            health => Some(health == 2),
        }
    }
}

/// A value whose clones share the text.
fn text(text: &str) -> StringValue {
    StringValue::from(Arc::<str>::from(text))
}
