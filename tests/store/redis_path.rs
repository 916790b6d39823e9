//! The way to Redis: silent, shifted, cut, or leading to another Redis than before.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollbridge::clock::Clock;
use tollbridge::store::{StoreError, TokenStore};

use crate::home::{Key, Seen, Tokens as _, found, key, look, redis_kind, ring, secret, server, user};
use crate::proxy::Proxy;
use crate::redis_server::RedisServer;
use crate::support::free_address;

const SOON: Duration = Duration::from_secs(1);
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn open(url: String, keys: &[Key]) -> TokenStore {
    TokenStore::open(&redis_kind(url), Arc::new(ring(keys)), Clock::System).unwrap()
}

/// A Redis with a token of alice's, a proxy before it and a store behind that.
async fn behind_a_proxy() -> (RedisServer, Proxy, TokenStore, [Key; 1]) {
    let (redis, keys) = (RedisServer::start(&[]), [key("k1")]);
    let proxy = Proxy::to(redis.port()).await;
    let store = open(proxy.url(), &keys);
    store.set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    (redis, proxy, store, keys)
}

/// Looks until it sees what it should, and answers how long that took.
async fn seen_after(store: &TokenStore, expected: &Seen) -> Duration {
    let start = Instant::now();
    loop {
        let seen = look(store, &user("alice"), "notion").await;
        if seen == *expected {
            return start.elapsed();
        }
        assert!(start.elapsed() < PATIENCE, "{seen:?}");
    }
}

#[tokio::test]
async fn a_connection_that_stays_open_and_silent_is_replaced_within_a_second() {
    let (_redis, proxy, store, _) = behind_a_proxy().await;
    let mut outages = Vec::new();
    for _ in 0..3 {
        let connections = proxy.connections();
        proxy.silence();
        outages.push(seen_after(&store, &found("ntn_1")).await);
        assert!(proxy.connections() > connections);
    }
    assert!(outages.iter().min() < Some(&SOON), "{outages:?}");
}

#[tokio::test]
async fn an_answer_that_slipped_to_the_next_question_is_an_error_and_never_no_token() {
    let (_redis, proxy, store, _) = behind_a_proxy().await;
    for times in 1..=3 {
        proxy.repeat_an_answer();
        assert_eq!(look(&store, &user("bob"), "notion").await, Seen::Absent);
        assert_eq!(look(&store, &user("alice"), "notion").await, Seen::Failed(StoreError::Shape));
        assert_eq!(look(&store, &user("alice"), "notion").await, found("ntn_1"));
        assert_eq!(store.desyncs(), times);
    }
}

#[tokio::test]
async fn a_master_that_was_demoted_is_asked_no_more() {
    let (old, proxy, store, keys) = behind_a_proxy().await;
    let new = RedisServer::start(&[]);
    proxy.lead_to(new.port());
    old.raw::<()>(&["REPLICAOF", "127.0.0.1", &free_address().port().to_string()]).unwrap();
    // There the token is no more.
    seen_after(&store, &Seen::Absent).await;
    let again = open(proxy.url(), &keys);
    again.set(&user("alice"), &server("notion"), &secret("ntn_2")).await.unwrap();
    seen_after(&store, &found("ntn_2")).await;
}

#[tokio::test]
async fn a_replica_is_refused_until_it_is_a_master() {
    let redis = RedisServer::start(&[]);
    let store = open(redis.tcp_url(), &[key("k1")]);
    redis.raw::<()>(&["REPLICAOF", "127.0.0.1", &free_address().port().to_string()]).unwrap();
    assert_eq!(look(&store, &user("alice"), "notion").await, Seen::Failed(StoreError::Replica));
    assert_eq!(store.check().await, Err(StoreError::Replica));
    assert_eq!(store.check_policy().await, Err(StoreError::Replica));
    redis.raw::<()>(&["REPLICAOF", "NO", "ONE"]).unwrap();
    seen_after(&store, &Seen::Absent).await;
}

#[tokio::test]
async fn a_redis_that_begins_to_evict_is_refused_for_as_long_as_it_does() {
    let (redis, _proxy, store, _) = behind_a_proxy().await;
    redis.raw::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    let evicts = StoreError::Evicts("allkeys-lru".into());
    assert_eq!(store.check().await, Err(evicts.clone()));
    seen_after(&store, &Seen::Failed(evicts.clone())).await;
    redis.raw::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    seen_after(&store, &found("ntn_1")).await;
    // Nobody asks whether it is ready.
    redis.raw::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    seen_after(&store, &Seen::Failed(evicts)).await;
}

#[tokio::test]
async fn a_node_of_a_cluster_and_a_sentinel_are_refused_by_their_names() {
    let bus = free_address().port().to_string();
    let cluster = RedisServer::start(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    let store = open(cluster.tcp_url(), &[key("k1")]);
    assert_eq!(store.check_policy().await, Err(StoreError::Cluster));
    assert_eq!(look(&store, &user("alice"), "notion").await, Seen::Failed(StoreError::Cluster));

    let (directory, address) = (TempDir::new().unwrap(), free_address());
    let file = directory.path().join("sentinel.conf");
    std::fs::write(&file, format!("bind 127.0.0.1\nport {}\n", address.port())).unwrap();
    let mut sentinel =
        Command::new("redis-server").arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn().expect("redis-server");
    let store = open(format!("redis://{address}/"), &[key("k1")]);
    let start = Instant::now();
    let mut seen = look(&store, &user("alice"), "notion").await;
    while seen == Seen::Failed(StoreError::Unreachable) && start.elapsed() < PATIENCE {
        seen = look(&store, &user("alice"), "notion").await;
    }
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
    assert_eq!(seen, Seen::Failed(StoreError::Sentinel));
}

#[tokio::test]
async fn questions_whose_connections_are_cut_are_asked_again_but_seldom() {
    const QUESTIONS: usize = 600;
    let (redis, proxy, store, _) = behind_a_proxy().await;
    let store = Arc::new(store);
    redis.raw::<()>(&["CONFIG", "RESETSTAT"]).unwrap();
    // Each connection gives one answer while it is made.
    proxy.cut_after(3);
    let mut failed = 0;
    for _ in 0..QUESTIONS / 4 {
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let store = store.clone();
            callers.spawn(async move { look(&store, &user("alice"), "notion").await });
        }
        for seen in callers.join_all().await {
            match seen {
                Seen::Failed(StoreError::Unreachable) => failed += 1,
                seen => assert_eq!(seen, found("ntn_1")),
            }
        }
    }
    assert!(failed > 0, "the test cuts nothing");
    let stats: String = redis.raw(&["INFO", "commandstats"]).unwrap();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_hget:calls=")?.split(',').next());
    let asked: usize = calls.unwrap().parse().unwrap();
    assert!(asked * 10 <= QUESTIONS * 12, "{asked} for {QUESTIONS}");
}

#[tokio::test]
async fn a_process_that_is_seldom_scheduled_does_not_take_redis_for_silent() {
    let redis = RedisServer::start(&[]);
    let store = open(redis.tcp_url(), &[key("k1")]);
    // Each turn of the runtime takes half of what a question may take, and each question takes several turns.
    let alice = user("alice");
    let busy = async {
        loop {
            std::thread::sleep(Duration::from_millis(300));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        seen = look(&store, &alice, "notion") => assert_eq!(seen, Seen::Absent),
        () = busy => {}
    }
}
