//! Resources of our own: issuers described, their keys found.

use std::collections::BTreeSet;
use std::fs;

use bartizan_outbound::address::Address;
use bartizan_outbound::service::{Credentials, Service, ServiceConfig};

use super::StartError;
use crate::config::{Config, IssuerConfig, JwksConfig, OAuthMode, ServerConfig, TerminateConfig};
use bartizan_edge::Shared;
use bartizan_edge::oauth::keys::{HINT, KeySource, Keys, PATIENCE};
use bartizan_edge::oauth::{Issuer, Naming, PublicUrl, Terminate};

/// The resource of our own at `public`, in front of a server. Keys in files are read now, so that
/// a bad file is found before anything is served; those at addresses once a token needs them.
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
