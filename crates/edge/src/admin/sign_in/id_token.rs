//! What an issuer says of a person: the ID token, verified (OpenID Connect Core §3.1.3.7; threat
//! I31).
//!
//! Pure: token, keys and time in, a caller out. The signature, `exp`, `nbf` and the forms that a token
//! may have are checked as for access tokens ([`crate::oauth::token`]); what an ID token needs beside is
//! checked here.

use std::sync::Arc;
use std::time::Duration;

use bartizan_jose::KeySet;

use super::super::approvers::{Caller, ID_BYTES_MAX};
use crate::oauth::token::{BadToken, LEEWAY, Unverified, Verified, date};
use bartizan_approvals::Approver;
use bartizan_gate::wire::document::{Kind, Value};
use bartizan_gate::wire::unseen::is_unseen;

/// Oldest ID token that is taken, by its `iat`: it was made in answer to our request.
const AGE_MAX: Duration = Duration::from_mins(10);
/// Values of the claim with the groups at most.
const VALUES_MAX: usize = 1024;

/// How the claims of an ID token become an approver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct People {
    /// What the id of each person begins with, before a colon.
    pub prefix: Box<str>,
    /// The claim that names the person; here and below a name, or a JSON pointer (RFC 6901).
    pub id_claim: Box<str>,
    /// The claims by which the same person is known as a principal. Each must be there.
    pub principal_claims: Vec<Box<str>>,
    /// The claim with the groups: a text, or texts.
    pub groups_claim: Box<str>,
    /// Groups of approvers, each with the values of the claim whose bearers are members.
    pub groups: Vec<(Box<str>, Vec<Box<str>>)>,
}

/// What an ID token must say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// The issuer: `iss`, byte for byte.
    pub(super) issuer: &'a str,
    /// Who we are to it: the one audience.
    pub(super) client_id: &'a str,
    /// Time since the Unix epoch.
    pub(super) now: Duration,
}

/// Why nobody is signed in by an ID token: for the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum BadIdToken {
    /// As for any token.
    Token(BadToken),
    /// It is an access token.
    Type,
    /// Of another issuer.
    Issuer,
    /// For another client, or for others, too.
    Audience,
    /// Issued to another client (`azp`).
    Party,
    /// It does not say when it was made, or was made long ago or later than now.
    Age,
    /// It is no answer to this sign-in.
    Nonce,
    /// It does not name the person as configured.
    Person,
    /// The claim with the groups has a form that cannot be read.
    GroupsForm,
    /// The person is in no group of approvers.
    NoGroup,
}

impl BadIdToken {
    /// The reason as text, without any part of the token.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Token(bad) => bad.as_str(),
            Self::Type => "the token is an access token",
            Self::Issuer => "the token is of another issuer",
            Self::Audience => "the token is for another client",
            Self::Party => "the token was issued to another client",
            Self::Age => "the token does not say that it was made just now",
            Self::Nonce => "the token is no answer to this sign-in",
            Self::Person => "the token does not name a person as configured",
            Self::GroupsForm => "the token's groups have a form that cannot be read",
            Self::NoGroup => "the person is in no group of approvers",
        }
    }
}

impl From<BadToken> for BadIdToken {
    fn from(bad: BadToken) -> Self {
        Self::Token(bad)
    }
}

/// An ID token whose signature is not verified yet.
#[derive(Debug)]
pub(super) struct IdToken<'a>(Unverified<'a>);

impl<'a> IdToken<'a> {
    /// Reads `token`.
    ///
    /// # Errors
    ///
    /// It is malformed, of another type, or signed with an algorithm that is not accepted.
    pub(super) fn read(token: &'a str) -> Result<Self, BadIdToken> {
        let token = Unverified::read(token)?;
        // RFC 9068 §2.1: what has this type is for resources, and says nothing of a sign-in.
        let typed = token.media_type().map(str::to_ascii_lowercase);
        if typed.is_some_and(|it| it.ends_with("at+jwt")) {
            return Err(BadIdToken::Type);
        }
        Ok(Self(token))
    }

    /// Whether `keys` has the one that it names.
    pub(super) fn has_key(&self, keys: &KeySet) -> bool {
        keys.find(self.0.key(), self.0.algorithm).is_some()
    }

    /// Verifies that it was signed with one of `keys`, and says what is `expected`; `is_nonce` tells
    /// whether a nonce is that of this sign-in.
    ///
    /// # Errors
    ///
    /// The first check that fails.
    pub(super) fn verify(
        self,
        keys: &KeySet,
        expected: Expected<'_>,
        is_nonce: impl Fn(&str) -> bool,
    ) -> Result<Claims, BadIdToken> {
        let Expected { issuer, client_id, now } = expected;
        if self.0.issuer() != Some(issuer) {
            return Err(BadIdToken::Issuer);
        }
        let key = keys.find(self.0.key(), self.0.algorithm).ok_or(BadToken::Key)?;
        let token = self.0.verify(key, &[client_id.into()], now)?;
        let text = |name: &str| token.claim(name).and_then(Value::as_str);
        // "The ID Token MUST be rejected if [...] it contains additional audiences not trusted by the
        // Client": none is.
        let audience = token.claim("aud").ok_or(BadIdToken::Audience)?;
        let ours = |value: Value<'_>| value.as_str() == Some(client_id);
        if !(ours(audience) || audience.elements().all(ours) && !audience.is_empty()) {
            return Err(BadIdToken::Audience);
        }
        if token.claim("azp").is_some() && text("azp") != Some(client_id) {
            return Err(BadIdToken::Party);
        }
        let made = token.claim("iat").and_then(date);
        let made = made.ok_or(BadIdToken::Age)?;
        if made > now.saturating_add(LEEWAY)
            || now > made.saturating_add(AGE_MAX).saturating_add(LEEWAY)
        {
            return Err(BadIdToken::Age);
        }
        if !text("nonce").is_some_and(is_nonce) {
            return Err(BadIdToken::Nonce);
        }
        if text("sub").is_none_or(str::is_empty) {
            return Err(BadIdToken::Person);
        }
        Ok(Claims(token))
    }
}

/// The claims of a verified ID token.
#[derive(Debug)]
pub(super) struct Claims(Verified);

impl Claims {
    /// Whom they name, as `people` says.
    ///
    /// # Errors
    ///
    /// A claim is missing or has another form, or the person is in no group of approvers.
    pub(super) fn caller(&self, people: &People, issuer: &str) -> Result<Caller, BadIdToken> {
        let name = |claim: &str| {
            let found = self.0.claim(claim).and_then(Value::as_str);
            found.filter(|name| is_name(name)).ok_or(BadIdToken::Person)
        };
        let own = name(&people.id_claim)?;
        let id = format!("{}:{own}", people.prefix);
        if id.len() > ID_BYTES_MAX {
            return Err(BadIdToken::Person);
        }
        let mut principals = vec![own, name("sub")?];
        for claim in &people.principal_claims {
            principals.push(name(claim)?);
        }
        // With several issuers of access tokens a principal is named with its issuer.
        let qualified = principals.iter().map(|it| format!("{issuer}#{it}").into());
        let known = principals.iter().map(|it| Box::from(*it)).chain(qualified).collect();
        let groups = self.groups(people)?;
        let approver = Approver { id: id.into(), groups };
        Ok(Caller::known_as(Arc::new(approver), known))
    }

    /// The groups of approvers that the person is a member of.
    fn groups(&self, people: &People) -> Result<Vec<Box<str>>, BadIdToken> {
        let claim = self.0.claim(&people.groups_claim).ok_or(BadIdToken::NoGroup)?;
        let values: Option<Vec<&str>> = match claim.kind() {
            Kind::String => Some(claim.as_str().into_iter().collect()),
            Kind::Array if claim.len() <= VALUES_MAX => {
                claim.elements().map(Value::as_str).collect()
            }
            Kind::Array | Kind::Null | Kind::Bool | Kind::Number | Kind::Object => None,
        };
        let values = values.ok_or(BadIdToken::GroupsForm)?;
        let member = |of: &[Box<str>]| of.iter().any(|value| values.contains(&&**value));
        let groups = people.groups.iter().filter(|(_, of)| member(of));
        let groups: Vec<Box<str>> = groups.map(|(group, _)| group.clone()).collect();
        if groups.is_empty() { Err(BadIdToken::NoGroup) } else { Ok(groups) }
    }
}

/// Whether people can read `text` as a name.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ID_BYTES_MAX
        && text.trim() == text
        && !text.chars().any(is_unseen)
}
