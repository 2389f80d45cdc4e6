//! What `oauth` of a server means where tokens end here.

use std::collections::BTreeSet;

use ::http::Uri;

use super::file::{ISSUERS_HINT, IssuerFile, OAuthFile};
use super::meaning::Reader;
use super::oauth::is_loopback;
use super::problem::Spot;
use super::{IssuerConfig, JwksConfig, TerminateConfig};
use bartizan_edge::oauth::token::ALGORITHMS;

/// Issuers of one server.
const ISSUERS_MAX: usize = 8;
/// Claims that rules see, beside those that they always see.
const CLAIMS_MAX: usize = 32;

impl Reader<'_> {
    /// The resource of our own that `oauth` describes, which clients know as `public_url`.
    pub(super) fn terminate(
        &mut self,
        oauth: &OAuthFile,
        public_url: Option<&str>,
    ) -> TerminateConfig {
        if !oauth.has_issuers {
            self.problems.push(&oauth.place, "`issuers` is missing", ISSUERS_HINT);
        }
        let scopes = oauth.scopes.iter().flatten().map(|scope| self.scope(scope)).collect();
        let claims: Vec<_> = oauth.claims.iter().flatten().map(|name| self.claim(name)).collect();
        if let Some(first) =
            oauth.claims.iter().flatten().next().filter(|_| claims.len() > CLAIMS_MAX)
        {
            let what = format!("more than {CLAIMS_MAX} claims");
            self.problems.push(&first.place, what, "name those that rules read");
        }
        let files = oauth.issuers.as_deref().unwrap_or_default();
        if files.len() > ISSUERS_MAX {
            let what = format!("more than {ISSUERS_MAX} issuers");
            self.problems.push(&oauth.place, what, "use a server for each group of them");
        }
        let mut names = BTreeSet::new();
        let mut issuers = Vec::new();
        for file in files {
            if let Some(name) = &file.issuer
                && !names.insert(&name.value)
            {
                self.problems.push(&name.place, "stands twice", "keep one");
            }
            issuers.extend(self.issuer(file, public_url));
        }
        TerminateConfig {
            issuers,
            scopes,
            principal_claim: oauth
                .principal_claim
                .as_ref()
                .map_or_else(|| "sub".to_owned(), |name| self.claim(name)),
            groups_claim: oauth.groups_claim.as_ref().map(|name| self.claim(name)),
            claims,
        }
    }

    fn issuer(&mut self, file: &IssuerFile, public_url: Option<&str>) -> Option<IssuerConfig> {
        if !file.named {
            let hint = "write its identifier, the `iss` of its tokens: `issuer: https://…`";
            self.problems.push(&file.place, "`issuer` is missing", hint);
        }
        if let Some(name) = &file.issuer {
            self.secure(name);
            if name.value.contains('?') {
                let hint = "write it without a query (RFC 8414 §2)";
                self.problems.push(&name.place, "holds a query", hint);
            }
        }
        let jwks = self.jwks(file);
        let audiences = match &file.audiences {
            Some(audiences) => audiences.iter().map(|spot| spot.value.clone()).collect(),
            None => public_url.into_iter().map(str::to_owned).collect(),
        };
        let algorithms = match &file.algorithms {
            Some(algorithms) => algorithms.iter().map(|spot| spot.value).collect(),
            None => ALGORITHMS.to_vec(),
        };
        let issuer = file.issuer.as_ref()?.value.clone();
        Some(IssuerConfig { issuer, jwks: jwks?, audiences, algorithms })
    }

    fn jwks(&mut self, file: &IssuerFile) -> Option<JwksConfig> {
        let ca_file = file.ca_file.clone().map(|path| self.existing(path));
        match (&file.jwks_uri, &file.jwks_file) {
            (Some(uri), None) => {
                let uri = self.secure(uri)?;
                Some(JwksConfig::Uri { uri, ca_file })
            }
            (None, Some(path)) => {
                if let Some(ca) = &file.ca_file {
                    let what = "has a meaning only with `jwks_uri`";
                    self.problems.push(&ca.place, what, "remove it");
                }
                Some(JwksConfig::File(self.existing(path.clone())))
            }
            (Some(uri), Some(_)) => {
                let what = "`jwks_uri` and `jwks_file` are two sets of keys";
                self.problems.push(&uri.place, what, "keep one");
                None
            }
            (None, None) => {
                if !file.has_keys {
                    let hint = "write `jwks_uri: https://…`, as the issuer's metadata names it";
                    let what = "has neither `jwks_uri` nor `jwks_file`";
                    self.problems.push(&file.place, what, hint);
                }
                None
            }
        }
    }

    /// An https address, or an http one on loopback: whoever can change what is said there can
    /// make tokens.
    fn secure(&mut self, written: &Spot<String>) -> Option<Uri> {
        let url = self.url(written)?;
        if url.scheme_str() == Some("http") && !is_loopback(url.host().unwrap_or_default()) {
            self.problems.push(&written.place, "is http beyond loopback", "use https");
        }
        Some(url)
    }

    /// The name of a claim, or a pointer to one: a malformed one would never find anything.
    fn claim(&mut self, written: &Spot<String>) -> String {
        let mut escapes = written.value.split('~').skip(1);
        if written.value.starts_with('/') && !escapes.all(|rest| rest.starts_with(['0', '1'])) {
            let hint = "write `~0` for `~` and `~1` for `/` inside a name (RFC 6901 §3)";
            self.problems.push(&written.place, "is no pointer", hint);
        }
        written.value.clone()
    }

    /// A scope as challenges can name it (RFC 6749 §3.3).
    fn scope(&mut self, written: &Spot<String>) -> String {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        if !written.value.bytes().all(plain) {
            let hint = "write each as an element of its own; no spaces, no quotes";
            self.problems.push(&written.place, "is no scope", hint);
        }
        written.value.clone()
    }
}
