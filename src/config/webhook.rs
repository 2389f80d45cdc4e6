//! `approvals.webhooks`: which services are told of held calls, and who answers by their links.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::form::{
    self, Form, list, one_or_more, parse_url, random_secret, secret, text, time, word,
};
use super::limits::STEP_TIMES;
use super::problem::wrong;
use super::remote::{ca_file, is_protected};
use super::secret::Secret;
use super::section::{Section, section};
use bartizan_edge::admin::approvers::{ID_BYTES_MAX, looks_random};
use bartizan_edge::webhook::Template;
use bartizan_edge::webhook::link::KEY_BYTES_MIN;
use bartizan_edge::webhook::sign::SigningSecret;

/// Groups of one webhook.
const GROUPS_MAX: usize = 32;
/// Webhooks of one program.
const WEBHOOKS_MAX: usize = 16;
/// Size of the name of a webhook, bytes.
const NAME_BYTES_MAX: usize = 32;
/// What the name of a webhook matches.
const NAME_PATTERN: &str = "^[a-z0-9][a-z0-9-]{0,31}$";
/// How long links take an answer.
const LINKS_LAST: std::ops::RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(24);

/// Largest size of the key of links, bytes.
const KEY_BYTES_MAX: usize = 512;

const HINT_SECRET: &str =
    "make one with `echo \"whsec_$(openssl rand -base64 32)\"`, and give it to the receiver, too";
const HINT_KEY: &str = "make one with `openssl rand -hex 32`";

/// A service that is told of held calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Its name (`name`).
    pub name: Box<str>,
    /// Its address (`url`), which is a secret: who knows it can write to a chat.
    pub url: Secret,
    /// What it understands (`template`).
    pub template: Template,
    /// What requests are signed with (`secret`): the text of a [`SigningSecret`].
    pub secret: Option<Secret>,
    /// Of which calls it is told (`groups`); empty for all.
    pub groups: Vec<Box<str>>,
    /// Who answers by its links (`callback`), if it gets any.
    pub callback: Option<CallbackConfig>,
    /// Certificates to trust instead of the system's, PEM (`ca_file`).
    pub ca_file: Option<PathBuf>,
    /// For one attempt (`timeout`).
    pub timeout: Duration,
}

/// Who answers by the links of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackConfig {
    /// The approver whose answers they are (`approver`).
    pub approver: Box<str>,
    /// How long after a call was held (`lasts`).
    pub lasts: Duration,
}

/// The key of the links.
pub(super) fn key(s: &mut Section<'_>) -> Option<Secret> {
    s.key(
        "callback_key",
        random_secret(KEY_BYTES_MIN..=KEY_BYTES_MAX, HINT_KEY),
        "What links in webhooks are authenticated with: 32 to 512 characters, made at random; may \
         hold a reference. Without it, `replicas.keys` or, if there are none, `callback.key` in \
         `state`, which is made once.",
    )
    .optional("none")
}

/// Reads `webhooks`.
pub(super) fn read(
    s: &mut Section<'_>,
    has_public_url: bool,
    has_approvers: bool,
) -> Vec<WebhookConfig> {
    let webhook = section(|s| Some((WebhookConfig::read(s)?, s.at("name"), s.at("callback"))));
    let found = s
        .key(
            "webhooks",
            list(webhook),
            "Services that are told of held calls, such as a chat: a list, each with the keys of \
             the next table. See [approvals.md](approvals.md#webhooks).",
        )
        .optional("none")
        .unwrap_or_default();
    if found.len() > WEBHOOKS_MAX {
        let what = format!("more than {WEBHOOKS_MAX} webhooks");
        s.problem("webhooks", what, "let one receiver tell the others");
    }
    if !found.is_empty() && !has_approvers {
        let what = "nobody may answer, so no call is held";
        s.problem("webhooks", what, "name `approvers`, too");
    }
    let mut names = BTreeSet::new();
    for (webhook, name, callback) in &found {
        if !names.insert(&webhook.name) {
            s.problem_at(name, "stands twice", "give each webhook a name of its own");
        }
        if webhook.callback.is_some() && !has_public_url {
            let what = "links need the address at which people reach `admin`";
            s.problem_at(callback, what, "write `approvals.public_url`");
        }
    }
    found.into_iter().map(|(webhook, _, _)| webhook).collect()
}

impl WebhookConfig {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let own_name = s
            .key(
                "name",
                webhook_name(),
                "Its name in logs: at most 32 lower-case letters, digits and `-`.",
            )
            .required("write a name, such as `on-call`");
        let url = s
            .key(
                "url",
                secret_url(),
                "Where it is told of calls: https, or this machine; may hold a reference. It is \
                 never logged, because who knows the address of a chat can write there.",
            )
            .required("write its address, like `${file:/run/secrets/webhook-url}`");
        let template = s
            .key(
                "template",
                word(Template::NAMES),
                "What it understands: `plain`, JSON for a receiver of your own; `slack`, an \
                 incoming webhook; `teams`, a workflow.",
            )
            .or_if_absent(Template::Plain);
        let signing = signing(s, template);
        let groups = groups(s);
        let callback = s
            .key(
                "callback",
                section(CallbackConfig::read),
                "Puts links into messages by which whoever reads them can answer. \
                 See [approvals.md](approvals.md#answers-by-a-link).",
            )
            .optional("none");
        let ca_file = ca_file(s, None);
        let timeout =
            s.key("timeout", time(STEP_TIMES), "Time for one attempt.").or(Duration::from_secs(10));
        Some(Self {
            name: own_name?,
            url: url?,
            template: template?,
            secret: signing,
            groups,
            callback,
            ca_file,
            timeout,
        })
    }
}

/// What requests are signed with.
fn signing(s: &mut Section<'_>, template: Option<Template>) -> Option<Secret> {
    let signing = s
        .key(
            "secret",
            signing_secret(),
            "What requests are signed with, as Standard Webhooks says: `whsec_` and base64 of 24 to \
             64 bytes; may hold a reference. `plain` needs it.",
        )
        .optional("none");
    if template == Some(Template::Plain) && !s.has("secret") {
        let what = "`secret` is missing: a receiver could not tell who writes to it";
        s.problem("secret", what, HINT_SECRET);
    }
    signing
}

/// Of which calls it is told.
fn groups(s: &mut Section<'_>) -> Vec<Box<str>> {
    let groups = s
        .key(
            "groups",
            one_or_more(name()),
            "Text or texts, at most 32: it is told of calls that ask one of these groups, and of \
             those that ask anybody; without any, of all. The approver of `callback` is in them.",
        )
        .optional("none")
        .unwrap_or_default();
    if groups.len() > GROUPS_MAX {
        let what = format!("more than {GROUPS_MAX} groups");
        s.problem("groups", what, "name those that rules ask for");
    }
    groups
}

impl CallbackConfig {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let approver = s
            .key(
                "approver",
                name(),
                "The id of the approver whose answers these are, whoever follows a link. Where one \
                 person alone reads the messages, write the id that this person has in \
                 `approvers`, so that a quorum counts both as one; calls with a `quorum` get no links \
                 otherwise.",
            )
            .required("write an id, such as `chat-on-call`");
        let lasts = s
            .key("lasts", time(LINKS_LAST), "How long after a call was held a link can be used.")
            .or(Duration::from_mins(30));
        Some(Self { approver: approver?, lasts })
    }
}

/// A name of an approver or of a group.
fn name<'f>() -> Form<'f, Box<str>> {
    form::name(ID_BYTES_MAX)
}

fn webhook_name<'f>() -> Form<'f, Box<str>> {
    text().checked(NAME_PATTERN, |text| {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = text.len() <= NAME_BYTES_MAX
            && text.bytes().all(|byte| known(byte) || byte == b'-')
            && text.bytes().next().is_some_and(known);
        if fits {
            return Ok(text.into_boxed_str());
        }
        wrong("is no name for a webhook", "use at most 32 lower-case letters, digits and `-`")
    })
}

/// An address that is shown to nobody, and that nobody on the way reads what is sent to.
fn secret_url<'f>() -> Form<'f, Secret> {
    secret().try_map(|text, _| {
        let url = parse_url(text.expose())?;
        if !is_protected(&url) {
            return wrong("messages would be sent unprotected", "use https");
        }
        Ok(text)
    })
}

fn signing_secret<'f>() -> Form<'f, Secret> {
    secret().try_map(|text, _| match SigningSecret::read(text.expose()) {
        Some(_) if looks_random(text.expose().trim_start_matches("whsec_")) => Ok(text),
        Some(_) => wrong("has too few different characters to be made at random", HINT_SECRET),
        None => wrong("is not `whsec_` and base64 of 24 to 64 bytes", HINT_SECRET),
    })
}
