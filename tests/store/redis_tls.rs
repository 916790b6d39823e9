//! Redis behind TLS: only with a certificate that is trusted, and with one of one's own where it asks for one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tollbridge::clock::Clock;
use tollbridge::config::{RedisStore, RedisTls, TokenStoreKind};
use tollbridge::store::{SetupError, StoreError, TokenStore};

use crate::home::{Key, PATIENCE, PREFIX, Seen, found, key, look, redis_kind, ring, user};
use crate::redis_server::RedisServer;
use crate::second_process;
use crate::support::{certificate, free_address, redis_store};

/// A Redis with the server's certificate in `files`, which asks clients for one or not.
fn redis_with_tls(files: &Path, clients: &str) -> (RedisServer, u16) {
    let file = |name: &str| files.join(name).to_str().unwrap().to_owned();
    let port = free_address().port();
    let (number, cert, private, ca) = (port.to_string(), file("server.pem"), file("server.key"), file("ca.pem"));
    let tls = ["--tls-port", &number, "--tls-cert-file", &cert, "--tls-key-file", &private, "--tls-ca-cert-file", &ca];
    (RedisServer::start(&[&tls[..], &["--tls-auth-clients", clients]].concat()), port)
}

#[tokio::test]
async fn a_redis_is_reached_over_tls_if_its_certificate_is_trusted_and_names_it() {
    let files = certificate();
    let (redis, port) = redis_with_tls(files.path(), "no");
    let key = key("k1");
    let open =
        |url| TokenStore::open(&redis_kind(url), Arc::new(ring(std::slice::from_ref(&key))), Clock::System).unwrap();

    let untrusted = open(format!("rediss://localhost:{port}/"));
    assert_eq!(look(&untrusted, &user("other"), "s0").await, Seen::Failed(StoreError::Tls));
    let trust = [("SSL_CERT_FILE", &*files.path().join("ca.pem"))];
    second_process(&redis_kind(format!("rediss://localhost:{port}/")), &key.1, &trust).await.unwrap();
    assert_eq!(look(&open(redis.socket_url()), &user("other"), "s0").await, found("other"));
    // The certificate is trusted but not for this name.
    assert!(second_process(&redis_kind(format!("rediss://127.0.0.1:{port}/")), &key.1, &trust).await.is_err());
}

/// A store behind TLS with these files, if they can be used.
fn open(port: u16, tls: RedisTls, key: &Key) -> Result<TokenStore, SetupError> {
    let plain = redis_store(format!("rediss://localhost:{port}/"), PREFIX, PATIENCE);
    TokenStore::open(
        &TokenStoreKind::Redis(RedisStore { tls, ..plain }),
        Arc::new(ring(std::slice::from_ref(key))),
        Clock::System,
    )
}

/// The files of a client in `files`.
fn of_client(files: &TempDir) -> RedisTls {
    let file = |name| files.path().join(name);
    RedisTls { ca: Some(file("ca.pem")), identity: Some((file("client.pem"), file("client.key"))) }
}

/// Looks until the answer is this one: a client hears of a refused certificate only after its handshake.
async fn seen_at_last(store: &TokenStore, expected: Seen) {
    for attempt in 1.. {
        let seen = look(store, &user("alice"), "s0").await;
        if seen == expected {
            return;
        }
        assert!(attempt < 20, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_private_authority_and_a_certificate_of_one_s_own_are_read_again_before_each_connection() {
    let (files, others, key) = (certificate(), certificate(), key("k1"));
    let (redis, port) = redis_with_tls(files.path(), "yes");
    let whole = of_client(&files);
    let store = open(port, whole.clone(), &key).unwrap();
    assert_eq!(look(&store, &user("alice"), "s0").await, Seen::Absent);
    let nameless = open(port, RedisTls { identity: None, ..whole.clone() }, &key).unwrap();
    let refused = look(&nameless, &user("alice"), "s0").await;
    assert!(matches!(refused, Seen::Failed(StoreError::Tls | StoreError::Unreachable)), "{refused:?}");
    let stranger = open(port, of_client(&others), &key).unwrap();
    assert_eq!(look(&stranger, &user("alice"), "s0").await, Seen::Failed(StoreError::Tls));

    // The files of the stranger become those that are trusted, and it stays the same store.
    for name in ["ca.pem", "client.pem", "client.key"] {
        fs::copy(files.path().join(name), others.path().join(name)).unwrap();
    }
    seen_at_last(&stranger, Seen::Absent).await;
    // Damaged files do no harm to who has read good ones.
    fs::write(others.path().join("ca.pem"), "damaged").unwrap();
    redis.raw::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
    seen_at_last(&stranger, Seen::Absent).await;
}

#[test]
fn files_that_cannot_be_used_are_refused_by_the_name_of_their_setting_and_nothing_of_them_is_shown() {
    let (files, others, key) = (certificate(), certificate(), key("k1"));
    let good = of_client(&files);
    let with_ca = |ca: PathBuf| RedisTls { ca: Some(ca), ..good.clone() };
    let with_key = |private: PathBuf| {
        let (certificate, _) = good.identity.clone().unwrap();
        RedisTls { identity: Some((certificate, private)), ..good.clone() }
    };
    let [public, none, damaged] = ["public.key", "none.key", "damaged.pem"].map(|name| files.path().join(name));
    fs::copy(files.path().join("client.pem"), &none).unwrap();
    fs::set_permissions(&none, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::copy(files.path().join("client.key"), &public).unwrap();
    fs::set_permissions(&public, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&damaged, "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n").unwrap();
    for (tls, said) in [
        (with_ca(files.path().join("missing")), "`tokenStore.tls.ca`: this file is missing or cannot be read"),
        (with_ca(files.path().join("client.key")), "`tokenStore.tls.ca`: this holds no certificate in PEM"),
        (with_ca(damaged), "`tokenStore.tls.ca`: this holds a certificate that is damaged"),
        (with_ca(files.path().to_owned()), "`tokenStore.tls.ca`: this is not a regular file"),
        (with_key(none), "`tokenStore.tls.key`: this holds no private key"),
        (
            with_key(others.path().join("client.key")),
            "`tokenStore.tls.key`: this is not the private key of `certificate`",
        ),
        (
            with_key(public),
            "`tokenStore.tls.key`: everybody on this machine may read or change this file; set its mode to 0600",
        ),
    ] {
        assert_eq!(open(1, tls, &key).unwrap_err().to_string(), said);
    }
}
