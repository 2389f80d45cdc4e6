//! Resources of our own: issuers described, their keys found.

use std::collections::BTreeSet;
use std::fs;

use ::http::{HeaderMap, Uri};
use bartizan_jose::KEY_SET_BYTES_MAX;

use super::StartError;
use crate::config::{Config, IssuerConfig, JwksConfig, OAuthMode, ServerConfig, TerminateConfig};
use bartizan_edge::Shared;
use bartizan_edge::oauth::keys::{HINT, KeySource, Keys, PATIENCE};
use bartizan_edge::oauth::{Issuer, Naming, PublicUrl, Terminate};
use bartizan_edge::upstream::{HttpUpstream, HttpUpstreamConfig, HttpUpstreamLimits};

/// The resource of our own at `public`, in front of a server. Keys in files are read now, so that
/// a bad file is found before anything is served; those at addresses once a token needs them.
pub(super) fn resource(
    config: &Config,
    (server, ours): (&ServerConfig, &TerminateConfig),
    public: PublicUrl,
    shared: &Shared,
) -> Result<Terminate, StartError> {
    let boxed = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
    let mut issuers = Vec::new();
    for described in &ours.issuers {
        issuers.push(Issuer {
            name: described.issuer.as_str().into(),
            audiences: boxed(&described.audiences),
            algorithms: described.algorithms.clone(),
            keys: keys(&server.name, described, shared)?,
        });
    }
    let naming = Naming {
        id: ours.principal_claim.as_str().into(),
        qualified: names_several_issuers(config),
        kind: config.principal.kind.clone(),
        groups: ours.groups_claim.as_deref().map(Into::into),
        claims: boxed(&ours.claims),
    };
    Ok(Terminate::new(public, issuers, boxed(&ours.scopes), naming))
}

/// Whether subjects of two issuers could be taken for one another: rate limits and records are not
/// of one server alone.
fn names_several_issuers(config: &Config) -> bool {
    let mut names = BTreeSet::new();
    for server in &config.servers {
        if let Some(OAuthMode::Terminate(ours)) = server.oauth.as_ref().map(|oauth| &oauth.mode) {
            names.extend(ours.issuers.iter().map(|issuer| &issuer.issuer));
        }
    }
    names.len() > 1
}

fn keys(server: &str, described: &IssuerConfig, shared: &Shared) -> Result<Keys, StartError> {
    let subject = |key: &str| format!("servers.{server}.oauth.issuers.{key}");
    let source = match &described.jwks {
        JwksConfig::File(path) => KeySource::File(path.clone()),
        JwksConfig::Uri { uri, ca_file } => {
            let ca_pem = ca_file.as_ref().map(fs::read).transpose().map_err(|error| {
                StartError::new(subject("ca_file"), format!("cannot be read: {error}"))
            })?;
            let server = HttpUpstream::new(HttpUpstreamConfig {
                url: uri.to_string(),
                headers: HeaderMap::new(),
                owned_headers: Vec::new(),
                forward_authorization: false,
                ca_pem,
                limits: HttpUpstreamLimits {
                    error_bytes_max: KEY_SET_BYTES_MAX,
                    // Asked seldom; a connection kept meanwhile would be closed by then.
                    idle_connections_max: 0,
                    connect: PATIENCE,
                    ..HttpUpstreamLimits::default()
                },
            })
            .map_err(|problem| StartError::new(subject("jwks_uri"), problem.to_string()))?;
            let target = uri.path_and_query().map_or("/", |target| target.as_str());
            let target = Uri::try_from(target)
                .map_err(|error| StartError::new(subject("jwks_uri"), error.to_string()))?;
            KeySource::Address { server: Box::new(server), target }
        }
    };
    Keys::new(&described.issuer, source, shared.clock.uptime())
        .map_err(|why| StartError::new(subject("jwks_file"), why).hint(HINT))
}
