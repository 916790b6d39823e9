//! Servers behind TLS: only with a certificate that the system trusts, over connections that are used again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::call;
use super::fixture::{Fixture, background, polite};
use super::support::{Bridge, Home, certificate};

/// TLS in front of a server; answers its port, and counts handshakes that succeed.
async fn tls(server: &Fixture, files: &Path) -> (u16, Arc<AtomicUsize>) {
    let certificates = CertificateDer::pem_file_iter(files.join("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(files.join("server.key")).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key).unwrap();
    let (acceptor, handshakes) = (TlsAcceptor::from(Arc::new(config)), Arc::new(AtomicUsize::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, address, count) = (listener.local_addr().unwrap().port(), server.address(), Arc::clone(&handshakes));
    background(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
            background(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                count.fetch_add(1, Ordering::Relaxed);
                let mut inside = TcpStream::connect(address).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    (port, handshakes)
}

#[tokio::test]
async fn a_server_is_called_over_tls_if_its_certificate_is_trusted_and_names_it() {
    let (files, server) = (certificate(), Fixture::start(polite).await);
    let (port, handshakes) = tls(&server, files.path()).await;
    let ca = files.path().join("ca.pem");
    let serve = |host: &str, environment: &[(&str, &str)]| {
        let home = Home::without_key();
        let elsewhere = json!({ "url": format!("https://{host}:{port}/mcp") });
        home.write(json!({
            "identity": [{ "kind": "local", "user": "alice" }],
            "limits": { "commitDelay": "1m" },
            "mcpServers": { "elsewhere": elsewhere },
        }));
        let bridge = Bridge::start_in(&home, environment);
        (home, bridge)
    };
    let trust = [("SSL_CERT_FILE", ca.to_str().unwrap())];

    let (_home, bridge) = serve("localhost", &trust);
    for calls in 1..=3 {
        assert_eq!(call(&bridge).await.text(), "done");
        server.until_again("DELETE", calls).await;
    }
    let made = handshakes.load(Ordering::Relaxed);
    // A connection is free again only a moment after its answer, and then another may have been opened.
    assert!((1..=5).contains(&made), "{made} handshakes for {} requests", server.seen().len());

    let before = server.seen().len();
    // The certificate is trusted but not for this name; the authority is unknown.
    for (host, environment) in [("127.0.0.1", &trust[..]), ("localhost", &[])] {
        let (_home, bridge) = serve(host, environment);
        let answer = call(&bridge).await;
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(answer.response().to_string().contains("TLS"), "{answer:?}");
    }
    assert_eq!(server.seen().len(), before, "nothing was sent");
}

#[tokio::test]
async fn a_bridge_without_any_certificate_of_the_system_serves_all_the_same() {
    let server = Fixture::start(polite).await;
    let home = Home::without_key();
    home.write(json!({ "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": { "elsewhere": { "url": server.url("/mcp") } } }));
    let empty = TempDir::new().unwrap();
    let nothing = empty.path().to_str().unwrap();
    std::fs::write(empty.path().join("none.pem"), "").unwrap();
    let file = empty.path().join("none.pem");
    let environment = [("SSL_CERT_FILE", file.to_str().unwrap()), ("SSL_CERT_DIR", nothing)];
    let bridge = Bridge::start_in(&home, &environment);
    assert_eq!(call(&bridge).await.text(), "done");
}
