//! `approvals.oidc`: approvers sign in at an OpenID Connect issuer.

use std::path::PathBuf;
use std::time::Duration;

use super::form::{
    Form, HINT_SEEN, Names, by_name, is_seen, name, one_or_more, secret, text, time,
};
use super::problem::{Wrong, wrong};
use super::remote::ca_file;
use super::secret::Secret;
use super::section::Section;
use super::terminate::{claim, issuer, scope};
use bartizan_edge::admin::approvers::ID_BYTES_MAX;

/// Groups of approvers that claims can give.
const GROUPS_MAX: usize = 32;
/// Size of the name of the issuer, bytes: ids of approvers begin with it.
const NAME_BYTES_MAX: usize = 64;
/// Claims that name the same person as a principal.
const PRINCIPAL_CLAIMS_MAX: usize = 8;

const HINT_GROUPS: &str =
    "write each group of approvers with the values of the claim: `groups: {on-call: sre-on-call}`";

/// How approvers sign in at an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// Its identifier (`issuer`): https, or http on loopback; `iss` of its tokens, byte for byte.
    pub issuer: String,
    /// What people and ids call it (`name`). Default: the host of `issuer`.
    pub name: String,
    /// Who we are to it (`client_id`).
    pub client_id: String,
    /// Our secret there (`client_secret`). Default: a public client.
    pub client_secret: Option<Secret>,
    /// Certificates to trust instead of the system's, PEM (`ca_file`).
    pub ca_file: Option<PathBuf>,
    /// Scopes beside `openid` (`scopes`).
    pub scopes: Vec<String>,
    /// How claims become an approver.
    pub people: PeopleConfig,
    /// How long a session may be unused (`idle`).
    pub idle: Duration,
    /// How long one lasts (`session`).
    pub session: Duration,
}

impl OidcConfig {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let issuer = s
            .key(
                "issuer",
                issuer(),
                "Its identifier, https or on loopback http: where its metadata are found, and \
                 `iss` of its tokens, compared byte for byte.",
            )
            .required("write its identifier: `issuer: https://login.example.com`");
        let called = s
            .key(
                "name",
                issuer_name(),
                "What the page calls it, and what the id of everybody who signs in there begins \
                 with, before a colon: at most 64 bytes, without a colon.",
            )
            .optional("the host of `issuer`");
        let client_id = s
            .key("client_id", text(), "Who Bartizan is to it.")
            .required("register Bartizan there, and write the id that it got");
        let client_secret = s
            .key(
                "client_secret",
                secret(),
                "The secret of that client; may hold a reference, such as \
                 `${file:/run/secrets/oidc}`. Without one it is a public client, protected by \
                 PKCE alone.",
            )
            .optional("none");
        let ca_file = ca_file(s, None);
        let scopes = s
            .key(
                "scopes",
                one_or_more(text().try_map(|text, _| scope(text))),
                "Text or texts: scopes to ask for beside `openid`, such as one that brings the \
                 groups.",
            )
            .optional("none")
            .unwrap_or_default();
        let people = PeopleConfig::read(s);
        let (idle, session) = times(s);
        let (issuer, people) = (issuer?, people?);
        Some(Self {
            name: called.unwrap_or_else(|| host(&issuer)),
            issuer,
            client_id: client_id?,
            client_secret,
            ca_file,
            scopes,
            people,
            idle,
            session,
        })
    }
}

/// Reads `idle` and `session`.
fn times(s: &mut Section<'_>) -> (Duration, Duration) {
    let range = || Duration::from_mins(1)..=Duration::from_hours(24);
    let idle = s
        .key("idle", time(range()), "How long a session may go unused; an open page uses it.")
        .or(Duration::from_mins(30));
    let session = s
        .key(
            "session",
            time(range()),
            "How long a session lasts at most. Whoever loses a group keeps it until then.",
        )
        .or(Duration::from_hours(8));
    if s.has("idle") && idle > session {
        s.idle(
            "idle",
            "is never reached: `session` ends before",
            "shorten it, or lengthen `session`",
        );
    }
    (idle, session)
}

/// How claims become an approver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeopleConfig {
    /// The claim that names the person (`id_claim`): a name, or an RFC 6901 pointer.
    pub id_claim: String,
    /// Claims by which the same person is a principal (`principal_claims`), at most 8.
    pub principal_claims: Vec<String>,
    /// The claim with the groups (`groups_claim`).
    pub groups_claim: String,
    /// Groups of approvers, each with values of the claim (`groups`): 1 to 32.
    pub groups: Vec<(String, Vec<String>)>,
}

impl PeopleConfig {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let id_claim = s
            .key(
                "id_claim",
                claim(),
                "The claim of the ID token that names the person: a name, or an RFC 6901 pointer. \
                 Choose one that is never given to somebody else. The id of the approver is \
                 `name:` and its value, at most 128 bytes.",
            )
            .or("sub".to_owned());
        let principal_claims = s
            .key(
                "principal_claims",
                one_or_more(claim()),
                "Text or texts, at most 8: claims by which the same person is a principal, beside \
                 `id_claim` and `sub`. Nobody approves a call of a principal with one of these \
                 names. All must be there.",
            )
            .optional("none")
            .unwrap_or_default();
        if principal_claims.len() > PRINCIPAL_CLAIMS_MAX {
            let what = format!("more than {PRINCIPAL_CLAIMS_MAX} claims");
            s.problem("principal_claims", what, "name those that principals are named by");
        }
        let groups_claim = s
            .key(
                "groups_claim",
                claim(),
                "The claim of the ID token with the groups: a text, or texts.",
            )
            .or("groups".to_owned());
        let names = Names { placeholder: "<group>", pattern: None, read: group };
        let groups = s
            .key(
                "groups",
                by_name(&names, one_or_more(text())).not_empty(HINT_GROUPS),
                "At most 32 groups that `approvers` of a rule can ask for, each with the values of \
                 the claim, one of which makes a member. Whoever is in none cannot sign in.",
            )
            .required(HINT_GROUPS);
        if groups.as_ref().is_some_and(|groups| groups.len() > GROUPS_MAX) {
            let what = format!("more than {GROUPS_MAX} groups");
            s.problem("groups", what, "name those that rules ask for");
        }
        Some(Self { id_claim, principal_claims, groups_claim, groups: groups? })
    }
}

/// The host of an address that was read already.
fn host(issuer: &str) -> String {
    let url = issuer.parse::<::http::Uri>().ok();
    // A colon would make two readings of an id.
    let host = url.and_then(|url| url.host().map(|host| host.replace(':', ".")));
    host.filter(|host| host.len() <= NAME_BYTES_MAX).unwrap_or_else(|| "oidc".to_owned())
}

fn issuer_name<'f>() -> Form<'f, String> {
    name(NAME_BYTES_MAX).try_map(|name, _| {
        if name.contains(':') {
            return wrong("has a colon, which ends it in ids", "write it without");
        }
        Ok(name.into_string())
    })
}

fn group(name: &str) -> Result<String, Wrong> {
    if name.is_empty() || name.len() > ID_BYTES_MAX || !is_seen(name) {
        return wrong(format!("is no name of at most {ID_BYTES_MAX} bytes"), HINT_SEEN);
    }
    Ok(name.to_owned())
}
