//! Webhooks: tells other services, such as a chat, of each held call, and of its end.
//!
//! | module | what it does |
//! |---|---|
//! | [`sign`] | Signs a request as Standard Webhooks says. |
//! | [`link`] | Makes and checks the links by which a held call is answered. |
//! | `story` | What people are told of a held call: bounded, without secrets, nothing invisible. |
//! | `plain`, `slack`, `teams` | The body of a request, in three formats. |
//! | `deliver` | Sends what is due, and tries again. |
//!
//! No call waits for a webhook: the deliverer looks at what is held whenever something changes, and
//! what waits to be sent is bounded. The address of a webhook is a secret: no log names it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use bartizan_approvals::HoldView;
use bartizan_gate::evidence::record::Now;
use bartizan_outbound::service::Service;

pub mod sign;
pub mod link;
pub(crate) mod story;
mod plain;
mod slack;
mod teams;
mod deliver;

pub use self::deliver::tell;
use self::link::Links;
use self::sign::SigningSecret;
use self::story::{Params, Story};

/// What a webhook's receiver understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// JSON of our own, as `docs/approvals.md` describes it.
    Plain,
    /// A message for an incoming webhook of Slack, in Block Kit.
    Slack,
    /// A message for a workflow of Microsoft Teams, with an Adaptive Card.
    Teams,
}

impl Template {
    /// The words for them.
    pub const NAMES: [(&str, Self); 3] =
        [("plain", Self::Plain), ("slack", Self::Slack), ("teams", Self::Teams)];
}

/// One webhook.
pub struct Webhook {
    /// Its name in logs, and in the links that it sends.
    pub name: Box<str>,
    /// The receiver.
    pub service: Service,
    /// What the receiver understands.
    pub template: Template,
    /// Signs the requests, if there is one.
    pub secret: Option<SigningSecret>,
    /// Only held calls that ask one of these groups are told of, and those that ask nobody in
    /// particular. Empty for all.
    pub groups: Vec<Box<str>>,
    /// The URL of the operators' listener as people reach it, without a slash at its end.
    pub public_url: Option<Box<str>>,
    /// Makes the links by which a held call is answered, if this webhook sends any.
    pub links: Option<Arc<Links>>,
    /// The pause before the second attempt; each further one is twice as long.
    pub retry_pause: Duration,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where people go from a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ways {
    /// The page of the held call.
    pub(crate) console: Option<String>,
    /// The pages that take an answer.
    pub(crate) answer: Option<AnswerWays>,
}

/// The pages that take an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnswerWays {
    pub(crate) grant: String,
    pub(crate) refuse: String,
    /// Until when they take one, milliseconds since 1970.
    pub(crate) until_unix_ms: u64,
}

impl Webhook {
    /// Whether its receiver is told of `hold`.
    fn concerns(&self, hold: &HoldView) -> bool {
        self.groups.is_empty()
            || hold.approvers.is_empty()
            || hold.approvers.iter().any(|group| self.groups.contains(group))
    }

    /// The body that tells of `hold`, which waits.
    fn asking(&self, hold: &HoldView, now: Now) -> Bytes {
        let (story, params) = (Story::of(hold), Params::of(hold));
        let ways = self.ways(hold, &params, now);
        match self.template {
            Template::Plain => plain::asking(hold, &story, &params, &ways),
            Template::Slack => slack::asking(&story, &params, &ways),
            Template::Teams => teams::asking(&story, &params, &ways),
        }
    }

    /// The body that tells what has become of `hold`.
    fn ended(&self, hold: &HoldView) -> Bytes {
        let story = Story::of(hold);
        match self.template {
            Template::Plain => plain::ended(hold, &story, &self.console(hold)),
            Template::Slack => slack::ended(&story),
            Template::Teams => teams::ended(&story),
        }
    }

    fn ways(&self, hold: &HoldView, params: &Params, now: Now) -> Ways {
        let answer = self.links.as_ref().filter(|_| params.are_shown());
        let answer = answer.and_then(|links| {
            let (until_unix_ms, made) = links.make(&self.name, hold, now)?;
            let [grant, refuse] = made.map(|token| format!("{}/{token}", links.root()));
            Some(AnswerWays { grant, refuse, until_unix_ms })
        });
        Ways { answer, ..self.console(hold) }
    }

    fn console(&self, hold: &HoldView) -> Ways {
        let console = self.public_url.as_ref().map(|url| format!("{url}/console#hold={}", hold.id));
        Ways { console, answer: None }
    }
}
