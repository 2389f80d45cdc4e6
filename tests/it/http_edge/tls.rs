//! Servers behind TLS: who is trusted, by which name, and how old a protocol may be.
//!
//! The certificate under `tls/` is for `localhost` and `127.0.0.1`; the key of its root was thrown
//! away when it was made.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use bartizan_edge::http::HttpConfig;
use bartizan_gate::evidence::record::Outcome;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use super::rig::{Rig, call, post, result};

const ROOT: &[u8] = include_bytes!("tls/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("tls/server.pem");
const KEY: &[u8] = include_bytes!("tls/server.key");

/// A server that answers each request alike, one thread a connection.
fn start(address: &str, version: &'static SupportedProtocolVersion) -> SocketAddr {
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()],
                PrivateKeyDer::from_pem_slice(KEY).unwrap(),
            )
            .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                // A request of a test arrives in one record; the client may also hang up.
                while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                    let body = result(1);
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
                    let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

fn rig(address: SocketAddr, root: &[u8]) -> Rig {
    Rig::with(address, HttpConfig::default(), |upstream| {
        upstream.url = format!("https://{address}/mcp");
        upstream.ca_pem = Some(root.to_vec());
    })
}

#[tokio::test]
async fn a_trusted_server_is_reached() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let rig = rig(start("127.0.0.1:0", version), ROOT);
        for _ in 0..2 {
            let reply = rig.ask(&post("", &call(1, "get"))).await;
            assert_eq!(reply.text(), result(1), "{version:?}");
        }
    }
}

#[tokio::test]
async fn another_name_or_root_is_not() {
    for (address, root) in [("127.0.0.2:0", ROOT), ("127.0.0.1:0", CERTIFICATE)] {
        let rig = rig(start(address, &rustls::version::TLS13), root);
        let reply = rig.ask(&post("", &call(1, "get"))).await;
        assert!(reply.text().contains("-31005"), "{}", reply.text());
        assert_eq!(rig.sink.outcomes(), [Outcome::UpstreamFailed]);
    }
}
