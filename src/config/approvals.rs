//! `approvals`: who may answer a `hold` rule, how long a call waits for them, and how many may wait.

use std::collections::BTreeSet;
use std::time::Duration;

use super::form::{
    self, Form, bytes, count, flag, list, one_or_more, random_secret, time, time_or_off,
};
use super::limits::{COMMENT_INTERVALS, STEP_TIMES};
use super::oauth::public_url;
use super::problem::wrong;
use super::secret::Secret;
use super::section::{Section, section};
use super::sign_in::OidcConfig;
use super::webhook::{self, WebhookConfig};
use bartizan_edge::admin::approvers::{
    APPROVERS_MAX, ID_BYTES_MAX, TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, TokenDigest,
};

/// Groups of one approver.
const GROUPS_MAX: usize = 32;

const HINT_APPROVER: &str =
    "write `- id: alice` with its `token` below, and `groups` if rules name any";

/// Who may answer, and the bounds of what waits for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalsConfig {
    /// How long the answer to a held call is kept open (`wait`).
    pub wait: Duration,
    /// How often a client that asked for progress is told that its call waits (`progress`).
    pub progress: Option<Duration>,
    /// The URL under which approvers reach `admin`, without a slash at its end (`public_url`).
    pub public_url: Option<String>,
    /// Whether clients are asked to show their user where a call is approved (`elicit`).
    pub elicit: bool,
    /// Whether agents that declare the tasks extension wait as tasks (`tasks`).
    pub tasks: bool,
    /// Holds that wait at once (`holds`).
    pub holds: usize,
    /// Holds of one principal that wait at once (`holds_principal`); at most [`Self::holds`].
    pub holds_principal: usize,
    /// Size of what all holds keep, bytes (`bytes`).
    pub bytes: usize,
    /// Who may answer (`approvers`). If there is nobody, and no `oidc`, a `hold` rule refuses.
    pub approvers: Vec<ApproverConfig>,
    /// Where approvers sign in (`oidc`).
    pub oidc: Option<OidcConfig>,
    /// Who is told of held calls (`webhooks`).
    pub webhooks: Vec<WebhookConfig>,
    /// The key of the links in webhooks (`callback_key`). Default: one in the state directory.
    pub callback_key: Option<Secret>,
}

/// A person or a program that may answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApproverConfig {
    /// Its name in records (`id`): 1 to 128 bytes, each approver's another one.
    pub id: Box<str>,
    /// The groups that rules can ask for (`groups`).
    pub groups: Vec<Box<str>>,
    /// What is kept of its token (`token`).
    pub token: TokenDigest,
}

impl ApprovalsConfig {
    /// Reads the section.
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let wait = s
            .key(
                "wait",
                time(STEP_TIMES),
                "How long the answer to a held call is kept open. Then the agent is told to call \
                 again. Many clients give up after a minute.",
            )
            .or(Duration::from_secs(45));
        let progress = s
            .key(
                "progress",
                time_or_off(COMMENT_INTERVALS),
                "How often an agent that asked for progress of a held call gets some; or `off`. The \
                 first comes at once.",
            )
            .or(Some(Duration::from_secs(5)));
        let (public_url, elicit) = pages(s);
        let tasks = tasks(s);
        let holds = s.key("holds", count(1..=100_000), "Held calls that wait at once.").or(500);
        let holds_principal = s
            .key(
                "holds_principal",
                count(1..=100_000),
                "Held calls of one principal that wait at once; never more than `holds`. Further \
                 ones are refused.",
            )
            .or(20);
        let bytes = s
            .key(
                "bytes",
                bytes(64 << 10..=1 << 30),
                "Size of all held calls together, as approvers see them. Without room a call is \
                 refused.",
            )
            .or(16 << 20);
        let approvers = approvers(s);
        let oidc = oidc(s);
        let has_approvers = !approvers.is_empty() || oidc.is_some();
        let webhooks = webhook::read(s, public_url.is_some(), has_approvers);
        check_ids(s, oidc.as_ref(), &approvers, &webhooks);
        let callback_key = webhook::key(s);
        if s.has("callback_key") && webhooks.iter().all(|webhook| webhook.callback.is_none()) {
            let what = "does nothing: no webhook has `callback`, so no link is made";
            s.idle("callback_key", what, "remove it, or write `callback` at a webhook");
        }
        if s.is_written() && !has_approvers {
            let what = "nobody may answer, so every `hold` rule refuses";
            s.idle_at(s.location(), what, "write `approvers` or `oidc`");
        }
        if s.has("progress") && progress.is_some_and(|progress| progress >= wait) {
            let what = "is never reached: `wait` ends before a second notification";
            s.idle("progress", what, "shorten it, or write `off`");
        }
        s.idle_above(&[("holds_principal", holds_principal, "holds", holds)]);
        Self {
            wait,
            progress,
            public_url,
            elicit,
            tasks,
            holds,
            holds_principal: holds_principal.min(holds),
            bytes,
            approvers,
            oidc,
            webhooks,
            callback_key,
        }
    }

    /// Whether anybody may answer.
    pub fn has_approvers(&self) -> bool {
        !self.approvers.is_empty() || self.oidc.is_some()
    }
}

/// Reads `oidc`, which needs the address that people come back to.
fn oidc(s: &mut Section<'_>) -> Option<OidcConfig> {
    let oidc = s
        .key(
            "oidc",
            section(OidcConfig::read),
            "Where approvers sign in: an issuer of OpenID Connect.",
        )
        .optional("none")?;
    if !s.has("public_url") {
        let hint = "write the URL at which people reach `admin`, beside `oidc`: the issuer sends \
                    them back to it";
        s.problem("oidc", "`public_url` is missing", hint);
    }
    Some(oidc)
}

/// Nobody else has an id that somebody who signs in may have.
fn check_ids(
    s: &Section<'_>,
    oidc: Option<&OidcConfig>,
    approvers: &[ApproverConfig],
    webhooks: &[WebhookConfig],
) {
    let Some(oidc) = oidc else { return };
    let own = format!("{}:", oidc.name);
    let like = |id: &str| id.get(..own.len()).is_some_and(|it| it.eq_ignore_ascii_case(&own));
    let callbacks = webhooks.iter().filter_map(|webhook| webhook.callback.as_ref());
    for (key, found) in [
        ("approvers", approvers.iter().any(|approver| like(&approver.id))),
        ("webhooks", callbacks.map(|callback| &callback.approver).any(|id| like(id))),
    ] {
        if found {
            let what = format!("an id begins with `{own}`, as those of people who sign in");
            s.problem(key, what, "choose another id, or another `name` for the issuer");
        }
    }
}

/// Where people reach the page of a held call, and whether agents are told.
fn pages(s: &mut Section<'_>) -> (Option<String>, bool) {
    let public_url = s
        .key(
            "public_url",
            public_url(),
            "The URL under which approvers reach `admin`, for links to the page of a held call: \
             https, or http on loopback.",
        )
        .optional("none")
        .map(|url| url.trim_end_matches('/').to_owned());
    let elicit = s
        .key(
            "elicit",
            flag(),
            "Whether an agent is told the page where its held call is approved, so that its \
             user can open it. Needs `public_url`.",
        )
        .or(false);
    if elicit && !s.has("public_url") {
        let what = "there is no address to tell";
        s.problem(
            "elicit",
            what,
            "write `public_url`, the URL under which approvers reach `admin`",
        );
    }
    (public_url, elicit)
}

/// Whether agents may wait as tasks.
fn tasks(s: &mut Section<'_>) -> bool {
    let tasks = s.key(
        "tasks",
        flag(),
        "Whether an agent that declares the tasks extension of 2026-07-28 gets a task for a held \
         call, at once, and polls. The answer to its call is kept for it for an hour.",
    );
    tasks.or(false)
}

/// Reads `approvers`. Each has an id and a token of its own.
fn approvers(s: &mut Section<'_>) -> Vec<ApproverConfig> {
    let approver = section(|s| Some((ApproverConfig::read(s)?, s.at("id"), s.at("token"))));
    let found = s
        .key(
            "approvers",
            list(approver),
            "Who may answer held calls, on `admin`: a list, each with the keys of the next table. \
             Without any, and without `oidc`, a `hold` rule refuses. See \
             [approvals.md](approvals.md).",
        )
        .optional("none")
        .unwrap_or_default();
    if found.len() > APPROVERS_MAX {
        let what = format!("more than {APPROVERS_MAX} approvers");
        s.problem("approvers", what, "name those who answer");
    }
    let mut ids = BTreeSet::new();
    for (number, (approver, id, token)) in found.iter().enumerate() {
        if !ids.insert(&approver.id) {
            s.problem_at(id, "stands twice", "give each approver an id of its own");
        }
        let mut before = found.iter().take(number);
        if before.any(|(other, _, _)| other.token == approver.token) {
            let hint = "give each approver a token of its own, so that records say who answered";
            s.problem_at(token, "is the token of another approver, too", hint);
        }
    }
    found.into_iter().map(|(approver, _, _)| approver).collect()
}

impl ApproverConfig {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let id = s
            .key(
                "id",
                name(),
                "Its name in records and in `input.approval`, at most 128 bytes. A principal with \
                 this id cannot have its own calls approved by it.",
            )
            .required(HINT_APPROVER);
        let groups = s
            .key(
                "groups",
                one_or_more(name()),
                "Text or texts, at most 32: groups that `approvers` of a rule can ask for.",
            )
            .optional("none")
            .unwrap_or_default();
        if groups.len() > GROUPS_MAX {
            let what = format!("more than {GROUPS_MAX} groups");
            s.problem("groups", what, "name those that rules ask for");
        }
        let token = s
            .key(
                "token",
                token(),
                "What it authenticates with: 32 to 512 characters of ASCII without space, made at \
                 random; may hold a reference. Only a digest of it is kept.",
            )
            .required(HINT_TOKEN);
        Some(Self { id: id?, groups, token: token? })
    }
}

const HINT_TOKEN: &str =
    "make one with `openssl rand -hex 32`, and refer to it: `token: ${file:/run/secrets/alice}`";

/// A name of an approver or of a group.
fn name<'f>() -> Form<'f, Box<str>> {
    form::name(ID_BYTES_MAX)
}

fn token<'f>() -> Form<'f, TokenDigest> {
    let token = random_secret(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX, HINT_TOKEN);
    token.try_map(|token, _| {
        let digest = TokenDigest::of(token.expose());
        digest.or_else(|_| wrong("must be visible ASCII, without space", HINT_TOKEN))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::context::Context;
    use super::super::surroundings::Surroundings;
    use super::super::{Agents, Config, Front};
    use crate::yaml;

    #[test]
    fn approvers_have_a_listener_also_where_agents_have_none() {
        let token = "0123456789abcdef0123456789abcdef";
        let approvers = format!("approvals: {{approvers: [{{id: a, token: {token}a}}]}}\n");
        let surroundings =
            Surroundings { env: &|_| None, read: &|_, _| Ok(Vec::new()), exists: &|_| true };
        for (approvals, admin, expected) in [
            ("", "", None),
            ("", "admin: 127.0.0.1:9\n", None),
            (&*approvers, "", Some("127.0.0.1:7071")),
            (&*approvers, "admin: 127.0.0.1:7070\n", Some("127.0.0.1:7070")),
        ] {
            let text = format!("servers: {{s: {{command: x}}}}\n{approvals}{admin}");
            let cx = Context::new(Path::new("/"), &surroundings);
            let tree = yaml::read(&text, &mut Vec::new()).unwrap();
            let config = Config::meant(tree, Agents::OverStdio, &cx).unwrap();
            assert_eq!(cx.into_findings().0.to_string(), "");
            let admin = expected.map(|admin| admin.parse().unwrap());
            assert_eq!(config.front, Front::Stdio { admin }, "{text}");
        }
    }
}
