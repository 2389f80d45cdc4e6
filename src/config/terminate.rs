//! `oauth` of a server where tokens end here: who makes them, and what is taken from them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ::http::Uri;

use super::form::{Form, URL_PATTERN, existing, list, one_or_more, parse_url, text, word};
use super::problem::{Wrong, wrong};
use super::remote::is_loopback;
use super::section::{Section, section};
use super::table::Condition;
use bartizan_edge::oauth::token::ALGORITHMS;
use bartizan_jose::Algorithm;

/// Issuers of one server.
const ISSUERS_MAX: usize = 8;
/// Claims that rules see, beside those that they always see.
const CLAIMS_MAX: usize = 32;

/// What `issuers` must be.
pub(super) const ISSUERS_HINT: &str =
    "write `- issuer: https://…` with its `jwks_uri` or `jwks_file` below";

/// A resource of our own, `public_url`, where clients' tokens end.
#[derive(Debug, Clone)]
pub struct TerminateConfig {
    /// Who makes tokens for it (`oauth.issuers`), 1 to 8, each once.
    pub issuers: Vec<IssuerConfig>,
    /// Scopes that each token must grant (`oauth.scopes`).
    pub scopes: Vec<String>,
    /// The claim that names the principal (`oauth.principal_claim`): a name, or an RFC 6901
    /// pointer.
    pub principal_claim: String,
    /// The claim that holds its groups (`oauth.groups_claim`). Default none.
    pub groups_claim: Option<String>,
    /// Further claims that rules see (`oauth.claims`), at most 32.
    pub claims: Vec<String>,
}

/// An issuer of tokens.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// Its identifier (`issuer`): https, or http on loopback; `iss` of its tokens, byte for byte.
    pub issuer: String,
    /// Its public keys (`jwks_uri`, `jwks_file`).
    pub jwks: JwksConfig,
    /// Values of `aud` of which a token must have one (`audiences`). Default: `public_url`.
    pub audiences: Vec<String>,
    /// How it may sign (`algorithms`): some of
    /// [those that tokens may have](bartizan_edge::oauth::token::ALGORITHMS).
    pub algorithms: Vec<Algorithm>,
}

/// Where an issuer's public keys are.
#[derive(Debug, Clone)]
pub enum JwksConfig {
    /// At an address (`jwks_uri`): https, or http on loopback.
    Uri {
        /// The address.
        uri: Uri,
        /// Certificates to trust instead of the system's, PEM (`ca_file`).
        ca_file: Option<PathBuf>,
    },
    /// In a file (`jwks_file`).
    File(PathBuf),
}

impl TerminateConfig {
    /// Reads the keys that have a meaning where `only` holds. Tokens of an issuer that names no
    /// audience must be for `default_audience`.
    pub(super) fn read(
        s: &mut Section<'_>,
        only: Condition,
        default_audience: Option<&str>,
    ) -> Self {
        let issuers = issuers(s, only, default_audience);
        let scopes = s
            .key(
                "scopes",
                one_or_more(text().try_map(|text, _| scope(text))),
                "Text or texts: scopes that every token must grant, in its `scope` or `scp`.",
            )
            .only(only)
            .optional("none")
            .unwrap_or_default();
        let principal_claim = s
            .key(
                "principal_claim",
                claim(),
                "The claim that is `input.principal.id`: a name, or an RFC 6901 pointer such as \
                 `/user/name`. At most 256 bytes of text.",
            )
            .only(only)
            .or("sub".to_owned());
        let groups_claim = s
            .key(
                "groups_claim",
                claim(),
                "The claim that is `input.principal.groups`, likewise: a text or at most 256 \
                 texts.",
            )
            .only(only)
            .optional("none");
        let claims = s
            .key(
                "claims",
                one_or_more(claim()),
                "Text or texts, at most 32: further claims, likewise, for \
                 `input.principal.claims`. `iss`, `client_id` and `scope` are there anyway.",
            )
            .only(only)
            .optional("none")
            .unwrap_or_default();
        if claims.len() > CLAIMS_MAX {
            let what = format!("more than {CLAIMS_MAX} claims");
            s.problem("claims", what, "name those that rules read");
        }
        Self { issuers, scopes, principal_claim, groups_claim, claims }
    }
}

/// Reads `issuers`, each of which must be another one.
fn issuers(
    s: &mut Section<'_>,
    only: Condition,
    default_audience: Option<&str>,
) -> Vec<IssuerConfig> {
    let issuer = section(move |s| {
        let issuer = IssuerConfig::read(s, default_audience)?;
        Some((issuer, s.at("issuer")))
    });
    let issuers = s
        .key(
            "issuers",
            list(issuer).not_empty(ISSUERS_HINT),
            "Who makes tokens: a list of 1 to 8, each with the keys of the next table.",
        )
        .only(only)
        .optional("required")
        .unwrap_or_default();
    if issuers.len() > ISSUERS_MAX {
        let what = format!("more than {ISSUERS_MAX} issuers");
        s.problem("issuers", what, "use a server for each group of them");
    }
    let mut names = BTreeSet::new();
    for (issuer, location) in &issuers {
        if !names.insert(&issuer.issuer) {
            s.problem_at(location, "stands twice", "keep one");
        }
    }
    issuers.into_iter().map(|(issuer, _)| issuer).collect()
}

impl IssuerConfig {
    fn read(s: &mut Section<'_>, default_audience: Option<&str>) -> Option<Self> {
        let issuer = s
            .key(
                "issuer",
                issuer(),
                "Its identifier, https or on loopback http: `iss` of its tokens, compared byte \
                 for byte, and where agents are sent for a token.",
            )
            .required("write its identifier, the `iss` of its tokens: `issuer: https://…`");
        let jwks = JwksConfig::read(s);
        let audiences = s
            .key(
                "audiences",
                one_or_more(text()),
                "Text or texts: values of `aud` of which a token must have one.",
            )
            .optional("that of `public_url`")
            .unwrap_or_else(|| default_audience.into_iter().map(str::to_owned).collect());
        let algorithms = s
            .key(
                "algorithms",
                one_or_more(word(ALGORITHMS.map(|it| (it.as_str(), it)))),
                "Text or texts: how it may sign.",
            )
            .or(ALGORITHMS.to_vec());
        Some(Self { issuer: issuer?, jwks: jwks?, audiences, algorithms })
    }
}

impl JwksConfig {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        s.exactly_one_of(
            &["jwks_uri", "jwks_file"],
            "write `jwks_uri: https://…`, as the issuer's metadata names it",
        );
        let uri = s
            .key(
                "jwks_uri",
                text().checked(URL_PATTERN, |text| secure_url(&text)),
                "Where its public keys are (RFC 7517), https or on loopback http. Redirects are \
                 not followed.",
            )
            .optional("none");
        let file = s.key("jwks_file", existing(), "A file with its public keys.").optional("none");
        let only = Condition::written("jwks_uri", s.has("jwks_uri") || !s.has("jwks_file"));
        let ca_file = s
            .key(
                "ca_file",
                existing(),
                "Certificates to trust for `jwks_uri` instead of the system's, PEM.",
            )
            .only(only)
            .optional("the system's");
        match (uri, file) {
            (Some(uri), None) => Some(Self::Uri { uri, ca_file }),
            (None, Some(path)) => Some(Self::File(path)),
            _ => None,
        }
    }
}

/// An https address, or an http one on loopback: whoever can change what is said there can make
/// tokens.
fn secure_url(text: &str) -> Result<Uri, Wrong> {
    let url = parse_url(text)?;
    if url.scheme_str() == Some("http") && !is_loopback(url.host().unwrap_or_default()) {
        return wrong("is http beyond loopback", "use https");
    }
    Ok(url)
}

pub(super) fn issuer<'f>() -> Form<'f, String> {
    text().checked(URL_PATTERN, |text| {
        secure_url(&text)?;
        if text.contains('?') {
            return wrong("holds a query", "write it without a query (RFC 8414 §2)");
        }
        Ok(text)
    })
}

/// The name of a claim, or a pointer to one: a malformed one would never find anything.
pub(super) fn claim<'f>() -> Form<'f, String> {
    text()
        .try_map(|text, _| {
            let mut escapes = text.split('~').skip(1);
            if text.starts_with('/') && !escapes.all(|rest| rest.starts_with(['0', '1'])) {
                let hint = "write `~0` for `~` and `~1` for `/` inside a name (RFC 6901 §3)";
                return wrong("is no pointer", hint);
            }
            Ok(text)
        })
        .shown(String::clone)
}

/// A scope as challenges can name it (RFC 6749 §3.3).
pub(super) fn scope(text: String) -> Result<String, Wrong> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if !text.bytes().all(plain) {
        let hint = "write each as an element of its own; no spaces, no quotes";
        return wrong("is no scope", hint);
    }
    Ok(text)
}
