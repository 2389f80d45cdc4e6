//! The ways to services that a configuration names.

use std::path::Path;

use super::StartError;
use crate::config::{CredentialsConfig, RemoteConfig};
use bartizan_outbound::service::{Credentials, Service, ServiceConfig};

/// The way to `remote`, which the configuration names at `subject`.
pub(super) fn open(subject: &str, remote: &RemoteConfig) -> Result<Service, StartError> {
    let file = |key: &str, path: &Path| {
        crate::config::read_pem(path)
            .map_err(|what| StartError::new(format!("{subject}.{key}"), what))
    };
    let ca_pem = remote.ca_file.as_deref().map(|path| file("ca_file", path)).transpose()?;
    let credentials = match &remote.credentials {
        None => Credentials::None,
        Some(CredentialsConfig::Bearer(token)) => Credentials::Bearer(token.expose().to_owned()),
        Some(CredentialsConfig::BearerFile(path)) => Credentials::BearerFile(path.clone()),
        Some(CredentialsConfig::ClientTls { cert, key }) => Credentials::ClientTls {
            certificates: file("credentials.client_tls.cert", cert)?,
            key: file("credentials.client_tls.key", key)?,
        },
    };
    Service::new(ServiceConfig {
        ca_pem,
        credentials,
        secure: remote.url.scheme_str() == Some("https"),
        timeout: remote.timeout,
    })
    .map_err(|what| StartError::new(subject, what).hint("correct its credentials or `ca_file`"))
}
