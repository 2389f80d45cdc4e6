//! OAuth protected resources whose tokens Bartizan checks itself: reads their issuers and keys from
//! the configuration.

use std::collections::BTreeSet;
use std::fs;

use bartizan_outbound::address::Address;
use bartizan_outbound::service::{Credentials, Service, ServiceConfig};

use super::StartError;
use crate::config::{Config, IssuerConfig, JwksConfig, OAuthMode, ServerConfig, TerminateConfig};
use bartizan_edge::Shared;
use bartizan_edge::oauth::keys::{HINT, KeySource, Keys, PATIENCE};
use bartizan_edge::oauth::{Issuer, Naming, PublicUrl, Terminate};

/// The protected resource at `public` in front of a server. Key files are read now, so that an
/// invalid file is reported before anything is served; keys at a URL are fetched when the first
/// token needs them.
///
/// # Errors
///
/// A file cannot be read, or an address cannot be used.
pub(super) fn resource(
    config: &Config,
    server: &ServerConfig,
    ours: &TerminateConfig,
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

/// Whether the configuration names several issuers. Their subjects must then be qualified by
/// issuer, because rate limits and records are shared by all servers.
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
            let service = Address::parse(&uri.to_string()).and_then(|address| {
                let credentials = Credentials::None;
                Service::new(ServiceConfig { address, ca_pem, credentials, timeout: PATIENCE })
            });
            let service = service
                .map_err(|problem| StartError::new(subject("jwks_uri"), problem.to_string()))?;
            KeySource::Address(Box::new(service))
        }
    };
    Keys::new(&described.issuer, source, shared.clock.uptime())
        .map_err(|why| StartError::new(subject("jwks_file"), why).hint(HINT))
}
