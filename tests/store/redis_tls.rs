//! Redis behind TLS: only with a certificate that the system trusts.

use std::path::Path;
use std::sync::Arc;

use tollbridge::clock::Clock;
use tollbridge::store::{StoreError, TokenStore};

use crate::home::{Seen, found, key, look, redis_kind, ring, user};
use crate::redis_server::RedisServer;
use crate::second_process;
use crate::support::{certificate, free_address};

#[tokio::test]
async fn a_redis_is_reached_over_tls_if_its_certificate_is_trusted_and_names_it() {
    let files = certificate();
    let file = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let port = free_address().port().to_string();
    let (cert, private, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let tls = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &private, "--tls-ca-cert-file", &ca];
    let redis = RedisServer::start(&[&tls[..], &["--tls-auth-clients", "no"]].concat());
    let key = key("k1");
    let open =
        |url| TokenStore::open(&redis_kind(url), Arc::new(ring(std::slice::from_ref(&key))), Clock::System).unwrap();

    let untrusted = open(format!("rediss://localhost:{port}/"));
    assert_eq!(look(&untrusted, &user("other"), "s0").await, Seen::Failed(StoreError::Tls));
    let trust = [("SSL_CERT_FILE", Path::new(&ca))];
    second_process(&redis_kind(format!("rediss://localhost:{port}/")), &key.1, &trust).await.unwrap();
    assert_eq!(look(&open(redis.socket_url()), &user("other"), "s0").await, found("other"));
    // The certificate is trusted but not for this name.
    assert!(second_process(&redis_kind(format!("rediss://127.0.0.1:{port}/")), &key.1, &trust).await.is_err());
}
