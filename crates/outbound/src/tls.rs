//! TLS settings as a client: the roots to trust and the client certificate to present.

use std::fmt;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::SetUpError;

/// TLS settings for one address.
#[derive(Clone, Default)]
pub struct Tls {
    /// Root certificates to trust in place of the system's, PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Presented to a server that requests a client certificate.
    pub client_certificate: Option<ClientCertificate>,
}

/// A client certificate (RFC 8446, section 4.4.2).
#[derive(Clone)]
pub struct ClientCertificate {
    /// The certificate chain, the client's own certificate first, PEM.
    pub chain_pem: Vec<u8>,
    /// The private key, PEM.
    pub key_pem: Vec<u8>,
}

// By hand, because the key is secret.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

impl Tls {
    /// The configuration for rustls. `https` says whether the address needs TLS; if not, the
    /// system's roots are not read, and it is no error if there are none.
    ///
    /// # Errors
    ///
    /// Roots, certificate or key cannot be used.
    pub(crate) fn config(self, https: bool) -> Result<ClientConfig, SetUpError> {
        let roots = roots(self.ca_pem.as_deref(), https).map_err(SetUpError::Roots)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| SetUpError::Tls(error.to_string()))?
            .with_root_certificates(roots);
        let Some(ours) = self.client_certificate else { return Ok(config.with_no_client_auth()) };
        let problem = SetUpError::ClientCertificate;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&ours.chain_pem).collect();
        let chain = chain.map_err(|error| problem(error.to_string()))?;
        if chain.is_empty() {
            return Err(problem("no PEM certificate".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&ours.key_pem)
            .map_err(|error| problem(format!("its key: {error}")))?;
        config.with_client_auth_cert(chain, key).map_err(|error| problem(error.to_string()))
    }
}

/// The certificates in `ca_pem`, or the system's. If `needed`, it is an error if there are none.
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
