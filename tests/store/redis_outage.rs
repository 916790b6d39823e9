//! Redis down, stopped, misconfigured or lying.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tollbridge::clock::Clock;
use tollbridge::keyring::OpenError;
use tollbridge::store::{MAX_SESSIONS, Notice, SetupError, StoreError, TokenStore};

use crate::home::{Key, Seen, Tokens as _, found, key, look, name, redis_key, redis_kind, ring, secret, server, user};
use crate::redis_server::RedisServer;
use crate::sessions::{is_ended, session};

const SOON: Duration = Duration::from_secs(1);
/// How long anything may take on a busy machine. Of three times the shortest must be within [`SOON`]: something else
/// draws out one, and a slow store all.
const PATIENCE: Duration = Duration::from_mins(1);

fn open(url: String, keys: &[Key]) -> TokenStore {
    TokenStore::open(&redis_kind(url), Arc::new(ring(keys)), Clock::System).unwrap()
}

async fn with_a_token(server: &RedisServer) -> TokenStore {
    let store = open(server.tcp_url(), &[key("k1")]);
    store.set(&user("alice"), &crate::server("notion"), &secret("ntn_1")).await.unwrap();
    store
}

/// Looks until the token is found, and answers how long that took.
async fn found_after(store: &TokenStore) -> Duration {
    let start = Instant::now();
    while look(store, &user("alice"), "notion").await != found("ntn_1") {
        assert!(start.elapsed() < PATIENCE, "not found");
    }
    start.elapsed()
}

async fn failed_soon(store: &TokenStore, error: StoreError) {
    for attempt in 1.. {
        let start = Instant::now();
        let seen = look(store, &user("alice"), "notion").await;
        if seen == Seen::Failed(error.clone()) && start.elapsed() < SOON {
            return;
        }
        assert!(attempt < 3, "{seen:?} after {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_killed_redis_is_failed_within_a_second_and_found_within_a_second_of_its_return() {
    let mut redis = RedisServer::start(&[]);
    let store = with_a_token(&redis).await;
    let mut outages = Vec::new();
    for _ in 0..3 {
        redis.kill();
        for _ in 0..5 {
            failed_soon(&store, StoreError::Unreachable).await;
        }
        assert_eq!(store.check().await, Err(StoreError::Unreachable));
        redis.resume();
        outages.push(found_after(&store).await);
    }
    assert!(outages.iter().min() < Some(&SOON), "{outages:?}");
}

#[tokio::test]
async fn the_first_lookup_after_a_restart_finds() {
    let mut redis = RedisServer::start(&[]);
    let store = with_a_token(&redis).await;
    for attempt in 1.. {
        redis.kill();
        redis.resume();
        let seen = look(&store, &user("alice"), "notion").await;
        if seen == found("ntn_1") {
            return;
        }
        assert!(attempt < 3, "{seen:?}");
    }
}

#[tokio::test]
async fn a_redis_that_hangs_is_failed_within_a_second_for_every_caller() {
    let redis = RedisServer::start(&[]);
    let store = Arc::new(with_a_token(&redis).await);
    let (mut failures, mut returns) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        redis.signal(Signal::STOP);
        // One that has yet to connect waits for more answers than one.
        failed_soon(&open(format!("{}1", redis.tcp_url()), &[key("k1")]), StoreError::Timeout).await;
        let start = Instant::now();
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..600 {
            let store = store.clone();
            callers.spawn(async move { look(&store, &user("alice"), "notion").await });
        }
        while let Some(seen) = callers.join_next().await {
            assert_eq!(seen.unwrap(), Seen::Failed(StoreError::Timeout));
        }
        failures.push(start.elapsed());
        redis.signal(Signal::CONT);
        returns.push(found_after(&store).await);
    }
    assert!(failures.iter().min() < Some(&SOON), "{failures:?}");
    assert!(returns.iter().min() < Some(&SOON), "{returns:?}");
}

#[tokio::test]
async fn a_store_opens_while_redis_is_down() {
    let mut redis = RedisServer::stopped(&[]);
    let store = open(redis.tcp_url(), &[key("k1")]);
    failed_soon(&store, StoreError::Unreachable).await;
    assert_eq!(store.check_policy().await.unwrap(), [Notice::NotChecked(StoreError::Unreachable)]);
    redis.resume();
    store.set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    assert_eq!(look(&store, &user("alice"), "notion").await, found("ntn_1"));
}

#[tokio::test]
async fn a_redis_that_evicts_is_refused() {
    let mut redis = RedisServer::stopped(&["--maxmemory-policy", "allkeys-lru"]);
    let store = open(redis.tcp_url(), &[key("k1")]);
    assert!(store.check_policy().await.is_ok());
    redis.resume();
    let evicts = StoreError::Evicts("allkeys-lru".into());
    assert_eq!(store.check_policy().await, Err(evicts.clone()));
    // One that was down when the bridge started makes it not ready.
    assert_eq!(store.check().await, Err(evicts));
    redis.raw::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    assert_eq!(store.check().await, Ok(()));
}

#[tokio::test]
async fn a_full_redis_goes_on_answering_and_takes_tokens_and_deletions() {
    let redis = RedisServer::start(&["--maxmemory-policy", "noeviction"]);
    // Redis 7.0 denies a transaction of any kind when it is full.
    let keys = [key("k2"), key("k1")];
    let before = open(redis.tcp_url(), &keys[1..]);
    let (alice, notion, linear) = (user("alice"), server("notion"), server("linear"));
    for server in [&notion, &linear] {
        before.set(&alice, server, &secret("ntn_1")).await.unwrap();
    }
    let store = open(redis.tcp_url(), &keys);
    redis.raw::<()>(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    assert_eq!(redis.raw::<()>(&["SET", "other", "x"]).unwrap_err().code(), Some("OOM"), "the test does not fill it");
    assert_eq!(look(&store, &alice, "notion").await, found("ntn_1"));
    assert_eq!(look(&store, &user("bob"), "notion").await, Seen::Absent);
    assert_eq!(store.check().await, Ok(()));
    assert_eq!(store.check_writes().await, Err(StoreError::Refused("OOM".into())));
    // What sessions took is no reason to make anybody wait who saves a token.
    store.set(&alice, &notion, &secret("ntn_2")).await.unwrap();
    assert_eq!(look(&store, &alice, "notion").await, found("ntn_2"));
    // Nor who ends a session, which is refused whatever else would be kept of it.
    for nonce in ["s1", "s2"] {
        assert_eq!(store.set_level(&session(nonce), "info").await, Err(StoreError::Refused("OOM".into())));
        store.revoke(&session(nonce)).await.unwrap();
        assert!(is_ended(&store, &session(nonce)).await);
    }
    for server in [&notion, &linear] {
        assert!(store.delete(&alice, server).await.unwrap());
    }
    assert_eq!(look(&store, &alice, "notion").await, Seen::Absent);
    assert_eq!(look(&store, &alice, "linear").await, Seen::Absent);
    redis.raw::<()>(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    assert_eq!(store.check_writes().await, Ok(()));
}

#[tokio::test]
async fn a_redis_that_forgets_is_warned_of() {
    let redis = RedisServer::start(&["--appendonly", "no"]);
    let store = open(redis.socket_url(), &[key("k1")]);
    assert_eq!(store.check_policy().await.unwrap(), [Notice::NotPersistent]);
    redis.raw::<()>(&["CONFIG", "SET", "save", "60 1"]).unwrap();
    assert_eq!(store.check_policy().await.unwrap(), []);
}

#[tokio::test]
async fn a_user_who_may_only_use_the_store_s_commands_is_enough() {
    let redis = RedisServer::start(&[]);
    let rules = "ACL SETUSER bridge on >hunter2 resetkeys ~toll* resetchannels -@all \
        +hget +hmget +hgetall +hset +hdel +hlen +hexists +hincrby +zscore +zadd +zcard +zpopmin +zrem +zremrangebyscore \
        +del +eval +pexpire +pttl +time +scan +ping";
    redis.raw::<()>(&rules.split_whitespace().collect::<Vec<_>>()).unwrap();
    let store = open(redis.tcp_url().replace("redis://", "redis://bridge:hunter2@"), &[key("k1")]);
    let alice = user("alice");
    store.set(&alice, &server("notion"), &secret("ntn_1")).await.unwrap();
    assert_eq!(look(&store, &alice, "notion").await, found("ntn_1"));
    for n in 0..=MAX_SESSIONS {
        store.subscribe(&session(&n.to_string()), "a://").await.unwrap();
        store.unsubscribe(&session(&n.to_string()), "a://").await.unwrap();
    }
    store.revoke(&session("1")).await.unwrap();
    assert!(is_ended(&store, &session("1")).await);
    assert_eq!(store.list(None).await.unwrap().entries.len(), 1);
    assert!(store.delete(&alice, &server("notion")).await.unwrap());
    let unknown = StoreError::Refused("NOPERM".into());
    assert_eq!(store.check_policy().await.unwrap(), [Notice::NotChecked(unknown)]);
    assert_eq!(store.check().await, Ok(()));
}

#[tokio::test]
async fn a_refused_login_shows_no_password_and_heals_without_a_restart() {
    let redis = RedisServer::start(&["--requirepass", "hunter2"]);
    let keys = [key("k1")];
    let wrong = open(redis.tcp_url().replace("redis://", "redis://:hunter3@"), &keys);
    failed_soon(&wrong, StoreError::Login).await;
    let seen = look(&wrong, &user("alice"), "notion").await;
    assert!(!format!("{seen:?} {wrong:?} {}", StoreError::Login).contains("hunter"));
    let right = open(redis.tcp_url().replace("redis://", "redis://:hunter2@"), &keys);
    right.set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    assert_eq!(look(&right, &user("alice"), "notion").await, found("ntn_1"));
    let mut admin = redis::Client::open(redis.tcp_url().replace("redis://", "redis://:hunter2@")).unwrap();
    redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("hunter3").exec(&mut admin).unwrap();
    assert_eq!(look(&wrong, &user("alice"), "notion").await, found("ntn_1"));
}

#[tokio::test]
async fn an_answer_that_does_not_belong_drops_the_connection() {
    let redis = RedisServer::start(&[]);
    let keys = [key("k1")];
    let store = open(redis.tcp_url(), &keys);
    let alice = user("alice");
    store.set(&alice, &server("notion"), &secret("ntn_1")).await.unwrap();
    let clients = || {
        let list: String = redis.raw(&["CLIENT", "LIST", "TYPE", "normal"]).unwrap();
        let over_tcp = list.lines().filter(|line| line.contains("addr=127.0.0.1:"));
        over_tcp.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = clients();
    assert_eq!((before.len(), store.desyncs()), (1, 0));
    redis.raw::<()>(&["HSET", &redis_key(&name(&keys, &alice)), "linear", "not a record"]).unwrap();
    assert_eq!(look(&store, &alice, "linear").await, Seen::Failed(StoreError::Sealed(OpenError::Format)));
    assert_eq!(store.desyncs(), 1);
    assert_eq!(look(&store, &alice, "notion").await, found("ntn_1"));
    let deadline = Instant::now() + PATIENCE;
    while clients().iter().any(|client| before.contains(client)) {
        assert!(Instant::now() < deadline, "the old connection is still there");
    }
    redis.raw::<()>(&["SET", &redis_key(&name(&keys, &user("bob"))), "not a hash"]).unwrap();
    assert_eq!(look(&store, &user("bob"), "notion").await, Seen::Failed(StoreError::Shape));
    assert_eq!(store.desyncs(), 2);
}

#[tokio::test]
async fn a_url_that_would_not_verify_certificates_is_refused_and_not_shown() {
    for url in ["rediss://:hunter2@example.com/#insecure", "redis://:hunter2@[", "redis://:hunter2@h/nodb", "hunter2"] {
        let error = TokenStore::open(&redis_kind(url.to_owned()), Arc::new(ring(&[key("k1")])), Clock::System);
        let error = error.unwrap_err();
        assert!(matches!(error, SetupError::Url(_)), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
