//! A primary with a replica, watched by three Sentinels that put the replica in its place.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::interval;
use tollbridge::clock::Clock;
use tollbridge::config::{RedisSentinels, RedisStore, TokenStoreKind};
use tollbridge::store::{Over, StoreError, TokenStore};
use tollbridge::user::UserId;

use crate::home::{Key, PREFIX, Seen, Tokens as _, found, key, look, ring, secret, server, user};
use crate::redis_server::RedisServer;
use crate::support::{free_address, redis_store};

/// What the Sentinels call the primary.
const NAME: &str = "my-primary";
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a command may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(6);

/// A primary and a replica, which change places, and who watches them.
struct Watched {
    servers: [RedisServer; 2],
    sentinels: Vec<(Child, u16)>,
    /// How long a command of their stores may take.
    timeout: Duration,
    _directory: TempDir,
}

impl Watched {
    async fn start(timeout: Duration) -> Self {
        let primary = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
        let port = primary.port().to_string();
        let replica = RedisServer::start(&["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", &port]);
        // They would ask again only after 10 s.
        let follows = || replica.raw::<String>(&["INFO", "replication"]).unwrap().contains("master_link_status:up");
        until("the replica follows", follows).await;
        let directory = TempDir::new().unwrap();
        let sentinels = (0..3).map(|number| {
            let (own, file) = (free_address().port(), directory.path().join(format!("{number}.conf")));
            let text = format!(
                "bind 127.0.0.1\nport {own}\nsentinel monitor {NAME} 127.0.0.1 {port} 2\n\
                 sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 3000\n"
            );
            std::fs::write(&file, text).unwrap();
            let mut sentinel = Command::new("redis-server");
            sentinel.arg(file).arg("--sentinel").stdout(Stdio::null());
            (sentinel.spawn().unwrap(), own)
        });
        let sentinels = sentinels.collect();
        let watched = Self { sentinels, servers: [primary, replica], timeout, _directory: directory };
        // They can put another in its place once each knows the replica and the other two.
        until("the Sentinels know each other", || {
            let known = |(_, port): &(Child, u16)| {
                let fields: Option<Vec<String>> = ask(*port, &["SENTINEL", "MASTER", NAME]);
                let says = |field: &str, value: &str| {
                    fields.iter().flat_map(|fields| fields.windows(2)).any(|pair| pair == [field, value])
                };
                says("num-slaves", "1") && says("num-other-sentinels", "2")
            };
            watched.sentinels.iter().all(known)
        })
        .await;
        watched
    }

    /// The store that is configured with these addresses of Sentinels.
    fn store_at(&self, ports: &[u16], name: &str, replicas: usize, key: &Key) -> TokenStore {
        let urls = ports.iter().map(|port| secret(&format!("redis://127.0.0.1:{port}")));
        let sentinels = Some(RedisSentinels { primary: name.to_owned(), urls: urls.collect() });
        let store = redis_store(format!("redis://{name}"), PREFIX, self.timeout);
        let kind = TokenStoreKind::Redis(RedisStore { sentinels, replicas, ..store });
        TokenStore::open(&kind, Arc::new(ring(std::slice::from_ref(key))), Clock::System).unwrap()
    }

    fn store(&self, replicas: usize, key: &Key) -> TokenStore {
        let ports: Vec<u16> = self.sentinels.iter().map(|(_, port)| *port).collect();
        self.store_at(&ports, NAME, replicas, key)
    }

    /// The port of the primary, as the first Sentinel says.
    fn primary(&self) -> u16 {
        let address: (String, u16) =
            ask(self.sentinels[0].1, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).expect("a Sentinel answers");
        address.1
    }

    /// Stops the primary in its tracks, and waits until the other is in its place; since when it is.
    async fn fail_over(&self) -> (usize, Instant) {
        let stopped = usize::from(self.servers[1].port() == self.primary());
        self.servers[stopped].signal(Signal::STOP);
        let replica = &self.servers[1 - stopped];
        until("the replica is promoted", || is_primary(replica)).await;
        let promoted = Instant::now();
        until("the first Sentinel knows it", || self.primary() == replica.port()).await;
        (stopped, promoted)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for (sentinel, _) in &mut self.sentinels {
            let _ = sentinel.kill();
            let _ = sentinel.wait();
        }
    }
}

/// Whether a server takes itself for the primary. It cuts connections off when it changes its mind.
fn is_primary(server: &RedisServer) -> bool {
    server.raw::<String>(&["INFO", "replication"]).is_ok_and(|info| info.contains("role:master"))
}

/// Asks whatever listens at this port.
fn ask<T: redis::FromRedisValue>(port: u16, command: &[&str]) -> Option<T> {
    let mut connection = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap().get_connection().ok()?;
    let mut cmd = redis::Cmd::new();
    cmd.arg(command).query(&mut connection).ok()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not so in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Looks until there is an answer, which must be this one.
async fn answered(store: &TokenStore, user: &UserId, expected: Seen) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look(store, user, "notion").await {
            Seen::Failed(error) => assert!(Instant::now() < deadline, "{error}"),
            seen => return assert_eq!(seen, expected),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_what_was_saved_is_there_and_what_was_deleted_stays_deleted() {
    let (watched, key) = (Watched::start(TIMEOUT).await, key("k1"));
    let (alice, bob, carol, notion) = (user("alice"), user("bob"), user("carol"), server("notion"));
    let (store, idle) = (watched.store(1, &key), watched.store(0, &key));
    for user in [&alice, &bob, &carol] {
        store.set(user, &notion, &secret("ntn_1")).await.unwrap();
    }
    assert!(store.delete(&bob, &notion).await.unwrap());
    assert_eq!(look(&idle, &carol, "notion").await, found("ntn_1"));

    let (stopped, _) = watched.fail_over().await;
    answered(&store, &alice, found("ntn_1")).await;
    answered(&store, &bob, Seen::Absent).await;

    // Nobody follows the new primary: what is changed there is changed, and said not to be safe.
    assert_eq!(store.remove(&carol, &notion, Over::Anything).await, Err(StoreError::NotReplicated));
    assert_eq!(store.set(&alice, &notion, &secret("ntn_2")).await, Err(StoreError::NotReplicated));
    answered(&store, &alice, found("ntn_2")).await;
    // The old primary does not know yet that it was replaced, and this handle has a connection to it.
    watched.servers[stopped].signal(Signal::CONT);
    assert!(is_primary(&watched.servers[stopped]));
    answered(&idle, &carol, Seen::Absent).await;
}

#[tokio::test]
async fn a_server_of_another_kind_than_configured_is_refused_by_its_name() {
    let (watched, key) = (Watched::start(TIMEOUT).await, key("k1"));
    let [primary, replica] = watched.servers.each_ref().map(RedisServer::port);
    let sentinel = watched.sentinels[0].1;
    let cluster = RedisServer::start(&["--cluster-enabled", "yes"]);
    let direct = |port: u16| {
        let kind = TokenStoreKind::Redis(redis_store(format!("redis://127.0.0.1:{port}"), PREFIX, TIMEOUT));
        TokenStore::open(&kind, Arc::new(ring(std::slice::from_ref(&key))), Clock::System).unwrap()
    };
    for (store, error) in [
        (direct(replica), StoreError::Replica),
        (direct(sentinel), StoreError::Sentinel),
        (direct(cluster.port()), StoreError::Cluster),
        (watched.store_at(&[primary], NAME, 1, &key), StoreError::NotSentinel),
        (watched.store_at(&[sentinel], "another", 1, &key), StoreError::UnknownPrimary),
        (watched.store_at(&[free_address().port()], NAME, 1, &key), StoreError::NoSentinel),
    ] {
        assert_eq!(store.check().await, Err(error.clone()));
        assert_eq!(look(&store, &user("alice"), "notion").await, Seen::Failed(error));
    }
    // One of three that is not there, or does not answer, holds up nobody.
    let store = watched.store_at(&[free_address().port(), sentinel, watched.sentinels[1].1], NAME, 1, &key);
    assert_eq!(store.check().await, Ok(()));
}

/// What look-ups have seen.
#[derive(Default)]
struct Looked {
    /// When one failed last.
    failed: Option<Instant>,
    failures: usize,
    all: usize,
}

/// 50 look-ups a second until `stop`.
async fn look_up(store: Arc<TokenStore>, stop: Arc<AtomicBool>) -> Looked {
    let (mut looks, mut clock) = (JoinSet::new(), interval(Duration::from_millis(20)));
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        let store = Arc::clone(&store);
        looks.spawn(async move { (look(&store, &user("alice"), "notion").await, Instant::now()) });
    }
    looks.join_all().await.into_iter().fold(Looked::default(), |mut looked, (seen, at)| {
        looked.all += 1;
        match seen {
            Seen::Failed(_) => (looked.failures, looked.failed) = (looked.failures + 1, looked.failed.max(Some(at))),
            seen => assert_eq!(seen, found("ntn_1")),
        }
        looked
    })
}

/// Saves tokens of one user after the other until `stop`, and deletes every other one. Answers for whom that was said to be
/// done, and whether theirs was deleted.
async fn change(store: Arc<TokenStore>, round: usize, stop: Arc<AtomicBool>) -> Vec<(UserId, bool)> {
    let (mut done, notion) = (Vec::new(), server("notion"));
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (someone, is_deleted) = (user(&format!("user-{round}-{number}")), number % 2 == 0);
        let is_saved = store.set(&someone, &notion, &secret("ntn_2")).await.is_ok();
        if is_saved && (!is_deleted || store.delete(&someone, &notion).await == Ok(true)) {
            done.push((someone, is_deleted));
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "20 s for each of TOLLBRIDGE_FAILOVERS; it prints what it measures"]
#[expect(clippy::print_stdout, reason = "figures are what it is for")]
async fn under_load_errors_end_with_each_promotion_and_nothing_acknowledged_is_undone() {
    let (watched, key) = (Watched::start(TokenStoreKind::TIMEOUT).await, key("k1"));
    let store = Arc::new(watched.store(1, &key));
    store.set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    for round in 0..crate::support::number("TOLLBRIDGE_FAILOVERS", 3) {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut looking, mut changing) = (JoinSet::new(), JoinSet::new());
        looking.spawn(look_up(Arc::clone(&store), Arc::clone(&stop)));
        changing.spawn(change(Arc::clone(&store), round, Arc::clone(&stop)));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let began = Instant::now();
        let (stopped, promoted) = watched.fail_over().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        watched.servers[stopped].signal(Signal::CONT);
        let follows = || {
            let info = watched.servers[stopped].raw::<String>(&["INFO", "replication"]);
            info.is_ok_and(|info| info.contains("role:slave") && info.contains("master_link_status:up"))
        };
        until("the old primary follows", follows).await;
        stop.store(true, Ordering::Relaxed);
        let (looked, changed) = (looking.join_all().await.remove(0), changing.join_all().await.remove(0));
        for (user, is_deleted) in &changed {
            answered(&store, user, if *is_deleted { Seen::Absent } else { found("ntn_2") }).await;
        }
        let after = looked.failed.map(|failed| failed.saturating_duration_since(promoted));
        let Looked { failures, all, .. } = looked;
        println!(
            "round {round}: promoted after {:?}, the last error {after:?} after that; {failures} of {all} look-ups failed; \
             {} changes hold",
            promoted - began,
            changed.len()
        );
    }
}
