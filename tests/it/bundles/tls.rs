//! A bundle service that requires a client certificate (mutual TLS).
//!
//! The keys of both roots were thrown away when they were made.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::make::bundle;
use super::rig::Sidecar;
use crate::firewall::{answer, wait};

pub(crate) const OURS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/bundles/keys");
pub(crate) const THEIRS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/http_edge/tls");

/// Gives `answer` to those whose certificate it trusts, and counts the others.
pub(crate) fn start(refused: &Arc<Mutex<usize>>, answer: Vec<u8>) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(format!("{OURS}/client-ca.pem")).unwrap()).unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_file(format!("{THEIRS}/server.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(format!("{THEIRS}/server.key")).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let refused = Arc::clone(refused);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let (refused, answer) = (Arc::clone(&refused), answer.clone());
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                loop {
                    // A request of a test arrives in one record.
                    match stream.read(&mut bytes) {
                        Ok(0) => return,
                        Ok(_) => drop(stream.write_all(&answer)),
                        Err(_) => {
                            *refused.lock().unwrap() += 1;
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_client_certificate_opens_the_service() {
    let refused = Arc::new(Mutex::new(0));
    let address = start(&refused, answer("200 OK", "", &bundle("v1")));
    let way = format!(
        "url: 'https://{address}/b', ca_file: {THEIRS}/ca.pem, polling: {{min_delay: 100ms}}"
    );
    let state = tempfile::tempdir().unwrap();
    let stranger = Sidecar::start(&state.path().join("a"), &way);
    wait("a refusal", || (*refused.lock().unwrap() > 0).then_some(()));
    assert_eq!(stranger.ready().0, 503);
    stranger.stop();

    let ours = format!("{{cert: {OURS}/client.pem, key: {OURS}/client.key}}");
    let known = format!("{way}, credentials: {{client_tls: {ours}}}");
    let sidecar = Sidecar::start(&state.path().join("b"), &known);
    sidecar.wait_revision("v1");

    // Another root than the service's own is not believed.
    let other = known.replace(&format!("{THEIRS}/ca.pem"), &format!("{OURS}/client-ca.pem"));
    let before = *refused.lock().unwrap();
    let doubter = Sidecar::start(&state.path().join("c"), &other);
    wait("a hang-up", || (*refused.lock().unwrap() > before).then_some(()));
    assert_eq!(doubter.ready().0, 503);
}
