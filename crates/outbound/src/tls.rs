//! TLS towards others: versions, cryptography provider and roots of trust.

use std::fmt;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why TLS cannot be used. Each holds the reason, without addresses or key material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsProblem {
    /// The given roots are no PEM certificates, or the system has none.
    Roots(String),
    /// Our certificate or its key cannot be used.
    Client(String),
    /// The library refuses the set-up.
    Setup(String),
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Roots(why) | Self::Client(why) | Self::Setup(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for TlsProblem {}

/// TLS 1.2 and 1.3 with ring, said explicitly: no process-wide default is relied on. `client` is our
/// certificate chain and its key, PEM.
pub fn tls(
    ca_pem: Option<&[u8]>,
    client: Option<(Vec<u8>, Vec<u8>)>,
    needed: bool,
) -> Result<ClientConfig, TlsProblem> {
    let roots = roots(ca_pem, needed).map_err(TlsProblem::Roots)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| TlsProblem::Setup(error.to_string()))?
        .with_root_certificates(roots);
    let Some((certificates, key)) = client else { return Ok(config.with_no_client_auth()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificates).collect();
    let chain =
        chain.map_err(|error| TlsProblem::Client(format!("the client certificate: {error}")))?;
    if chain.is_empty() {
        let why = "the client certificate: no PEM certificate";
        return Err(TlsProblem::Client(why.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| TlsProblem::Client(format!("its key: {error}")))?;
    config.with_client_auth_cert(chain, key).map_err(|error| TlsProblem::Client(error.to_string()))
}

/// The certificates of `ca_pem`, or the system's. None is an error where some are `needed`.
fn roots(ca_pem: Option<&[u8]>, needed: bool) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = ca_pem {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let found = certificate.map_err(|error| error.to_string())?;
            roots.add(found).map_err(|error| error.to_string())?;
        }
    } else if needed {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if needed && roots.is_empty() {
        return Err("none found; name a CA file in the configuration".to_owned());
    }
    Ok(roots)
}
