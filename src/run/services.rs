//! Builds clients for the services that a configuration names.

use std::path::Path;

use bartizan_outbound::SetUpError;
use bartizan_outbound::address::Address;
use bartizan_outbound::grpc::GrpcService;
use bartizan_outbound::service::{Credentials, Service, ServiceConfig};
use bartizan_outbound::tls::ClientCertificate;

use super::StartError;
use crate::config::{CredentialsConfig, RemoteConfig};

/// A client for the service `remote`, which the configuration names at `subject`.
///
/// # Errors
///
/// A file cannot be read, or address or credentials cannot be used.
pub(super) fn open(subject: &str, remote: &RemoteConfig) -> Result<Service, StartError> {
    Service::new(settings(subject, remote)?).map_err(|error| unusable(subject, &error))
}

/// A client for the gRPC service `remote`, which the configuration names at `subject`.
///
/// # Errors
///
/// As for [`open`].
pub(super) fn open_grpc(subject: &str, remote: &RemoteConfig) -> Result<GrpcService, StartError> {
    GrpcService::new(settings(subject, remote)?).map_err(|error| unusable(subject, &error))
}

fn unusable(subject: &str, error: &SetUpError) -> StartError {
    StartError::new(subject, error.to_string()).hint("correct its credentials or `ca_file`")
}

fn settings(subject: &str, remote: &RemoteConfig) -> Result<ServiceConfig, StartError> {
    let file = |key: &str, path: &Path| {
        crate::config::read_pem(path)
            .map_err(|what| StartError::new(format!("{subject}.{key}"), what))
    };
    let ca_pem = remote.ca_file.as_deref().map(|path| file("ca_file", path)).transpose()?;
    let credentials = match &remote.credentials {
        None => Credentials::None,
        Some(CredentialsConfig::Bearer(token)) => Credentials::Bearer(token.expose().to_owned()),
        Some(CredentialsConfig::BearerFile(path)) => Credentials::BearerFile(path.clone()),
        Some(CredentialsConfig::ClientTls { cert, key }) => {
            Credentials::ClientTls(ClientCertificate {
                chain_pem: file("credentials.client_tls.cert", cert)?,
                key_pem: file("credentials.client_tls.key", key)?,
            })
        }
    };
    let address = Address::parse(&remote.url.to_string());
    let address = address.map_err(|error| unusable(subject, &error))?;
    Ok(ServiceConfig { address, ca_pem, credentials, timeout: remote.timeout })
}
