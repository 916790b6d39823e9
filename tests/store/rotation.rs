//! Every record sealed anew while two bridges run, by two commands at once that are killed again and again.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollbridge::clock::Clock;
use tollbridge::config::TokenStoreKind;
use tollbridge::keyring::key_id;
use tollbridge::store::TokenStore;

use crate::home::{Key, PATIENCE, Tokens as _, found, key, look, name, ring, secret, server, user};
use crate::redis_server::RedisServer;
use crate::support::home::TOLLBRIDGE;
use crate::support::{self, Bridge, Client, bearer_identity, sha256_hex};

/// How many tokens there are; `TOLLBRIDGE_TEST_RECORDS` is another number.
const RECORDS: usize = 300;
/// Users who call.
const CALLERS: usize = 60;
/// How often a command is killed.
const KILLS: usize = 5;
/// How long all of it may take on a busy machine.
const DEADLINE: Duration = Duration::from_mins(30);

/// The store that every bridge and command of a test shares, and the keys that it is sealed with.
pub(crate) struct Shared {
    pub(crate) home: support::Home,
    pub(crate) redis: RedisServer,
    pub(crate) keys: [Key; 2],
}

impl Shared {
    /// With the keys `k2`, which seals from now on, and `k1`.
    pub(crate) fn new() -> Self {
        let (home, keys) = (support::Home::without_key(), [key("k2"), key("k1")]);
        Self { home, redis: RedisServer::start(&[]), keys }
    }

    /// `tokenStore` with these keys.
    pub(crate) fn token_store(&self, keys: &[Key]) -> Value {
        let in_file = |(id, text): &Key| {
            let file = self.home.path().join(format!("{}.key", sha256_hex(text.as_bytes())));
            let mut options = OpenOptions::new();
            let mut open = options.write(true).create(true).truncate(true).mode(0o600).open(&file).unwrap();
            open.write_all(text.as_bytes()).unwrap();
            json!({ "id": id, "file": file })
        };
        let keys: Vec<Value> = keys.iter().map(in_file).collect();
        json!({ "kind": "redis", "url": self.redis.tcp_url(), "timeout": "30s", "keys": keys })
    }

    /// A handle in this process.
    pub(crate) fn open(&self, keys: &[Key]) -> TokenStore {
        let url = secret(&self.redis.tcp_url());
        let kind = TokenStoreKind::Redis { url, prefix: "tollbridge".to_owned(), timeout: PATIENCE };
        TokenStore::open(&kind, Arc::new(ring(keys)), Clock::System).unwrap()
    }

    /// Writes the configuration of a bridge for these users.
    pub(crate) fn configure(&self, store: &Value, users: &[String], admin: Option<SocketAddr>) {
        let bearers: Vec<String> = users.iter().map(|user| bearer(user)).collect();
        let bearers: Vec<(&str, &str)> =
            users.iter().zip(&bearers).map(|(user, bearer)| (&**user, &**bearer)).collect();
        let mut config = json!({
            "identity": bearer_identity(&bearers),
            "tokenStore": store,
            "mcpServers": { "whoami": {
                "command": support::server("whoami"), "args": [format!("marker={}", self.home.marker())],
                "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } }, "requiresUserToken": true,
            } },
        });
        if let Some(admin) = admin {
            config["admin"] = json!({ "listen": admin });
        }
        self.home.write(config);
    }

    /// A rotation in a process of its own, of so many records a second.
    fn rotator(&self, rate: usize) -> Child {
        Command::new(TOLLBRIDGE)
            .args(["keys", "rotate", "--rate", &rate.to_string(), "--config"])
            .arg(self.home.config())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The sealed record at a place.
    fn record(&self, place: &str) -> Vec<u8> {
        self.redis.raw(&["HGET", place, "whoami"]).unwrap()
    }

    /// The Redis key of what the first of `keys` keeps of a user.
    pub(crate) fn place(keys: &[Key], who: &str) -> String {
        format!("tollbridge:tokens:{{{}}}", name(keys, &user(who)))
    }
}

/// Users with tokens that the old key seals: two of them have each other's, and one has a damaged one.
struct Users {
    all: Vec<String>,
    /// The records of the first, as they are stored.
    bad: [Vec<u8>; 3],
}

impl Users {
    async fn save(shared: &Shared, count: usize) -> Self {
        let all: Vec<String> = (0..count).map(|number| format!("user-{number}")).collect();
        let store = shared.open(&shared.keys[1..]);
        for who in &all {
            store.set(&user(who), &server("whoami"), &secret(&token(who))).await.unwrap();
        }
        let old = [1, 0, 2].map(|at| Shared::place(&shared.keys[1..], &all[at]));
        let mut bad = old.map(|place| shared.record(&place));
        *bad[2].last_mut().unwrap() ^= 1;
        let users = Self { all, bad };
        for (who, record) in users.all.iter().zip(&users.bad) {
            let place = Shared::place(&shared.keys[1..], who);
            shared.redis.raw::<()>(&[b"HSET", place.as_bytes(), b"whoami", record]).unwrap();
        }
        users
    }

    fn good(&self) -> &[String] {
        &self.all[self.bad.len()..]
    }
}

/// The bearer token of a user.
pub(crate) fn bearer(who: &str) -> String {
    format!("the-bearer-token-of-{who}")
}

/// The token of a user.
fn token(who: &str) -> String {
    format!("token-of-{who}")
}

/// What goes on all the while, and what of it went wrong.
#[derive(Clone, Default)]
struct Load {
    is_over: Arc<AtomicBool>,
    failed: Arc<Mutex<Vec<String>>>,
}

impl Load {
    fn check(&self, is_right: bool, what: impl FnOnce() -> String) {
        if !is_right {
            self.failed.lock().unwrap().push(what());
        }
    }

    /// Calls one node as one user after another, so many times a second; how often it called.
    async fn call(self, mut clients: Vec<(String, Client)>, calls_a_second: u32) -> (usize, usize) {
        let (mut calls, mut tick) = (0, tokio::time::interval(Duration::from_secs(1) / calls_a_second));
        while !self.is_over.load(Ordering::Relaxed) {
            tick.tick().await;
            let at = calls % clients.len();
            let (who, client) = &mut clients[at];
            let answer = client.call("whoami", json!({})).await;
            let expected = sha256_hex(token(who).as_bytes());
            let is_right = answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.text() == expected);
            self.check(is_right, || format!("a call of {who}: {answer:?}"));
            calls += 1;
        }
        (calls, 0)
    }

    /// Looks up everybody's token and lists them all, again and again: each is moved once, and who looks all the time
    /// sees one that is missing for a moment. How often it looked, as the second number.
    async fn look(self, store: TokenStore, good: Vec<String>, listed: usize) -> (usize, usize) {
        let mut lookups = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            for who in &good {
                let seen = look(&store, &user(who), "whoami").await;
                self.check(seen == found(&token(who)), || format!("a lookup of {who}: {seen:?}"));
                lookups += 1;
            }
            let entries = store.list(None).await.unwrap().entries.len();
            self.check(entries == listed, || format!("a list of {entries}"));
        }
        (0, lookups)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are what more records are for")]
async fn all_records_are_sealed_anew_under_load_by_two_at_once_that_are_killed_five_times() {
    let records = support::number("TOLLBRIDGE_TEST_RECORDS", RECORDS);
    // 50 a second for 10,000 records.
    let calls_a_second = (records / 200).clamp(4, 50);
    let shared = Shared::new();
    let users = Users::save(&shared, records).await;
    let good = users.good();
    let callers = &good[..good.len().min(CALLERS)];
    shared.configure(&shared.token_store(&shared.keys), callers, None);
    let nodes = [(); 2].map(|()| Bridge::start_in(&shared.home, &[]));
    let (load, mut running) = (Load::default(), JoinSet::new());
    for node in &nodes {
        let clients = callers.iter().map(|who| (who.clone(), Client::modern(node, "whoami", Some(&bearer(who)))));
        let rate = u32::try_from(calls_a_second.div_ceil(nodes.len())).unwrap();
        running.spawn(load.clone().call(clients.collect(), rate));
    }
    for order in [[0, 1], [1, 0]] {
        let store = shared.open(&order.map(|at: usize| shared.keys[at].clone()));
        running.spawn(load.clone().look(store, good.to_vec(), records));
    }
    let begun = Instant::now();
    rotate(&shared, &users, begun).await;
    let took = begun.elapsed();
    load.is_over.store(true, Ordering::Relaxed);
    let done = running.join_all().await;
    let (calls, lookups) = done.iter().fold((0, 0), |all, done| (all.0 + done.0, all.1 + done.1));
    let failed = load.failed.lock().unwrap();
    println!("{records} records in {took:?}; {} of {calls} calls and {lookups} lookups failed", failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
    for who in good {
        assert_eq!(key_id(&shared.record(&Shared::place(&shared.keys, who))), Some("k2"));
        assert!(!shared.redis.raw::<bool>(&["EXISTS", &Shared::place(&shared.keys[1..], who)]).unwrap(), "{who}");
    }
    for (who, record) in users.all.iter().zip(&users.bad) {
        assert_eq!(shared.record(&Shared::place(&shared.keys[1..], who)), *record);
    }
}

/// Runs two commands until both are done, one of which is killed whenever another part of the records has been moved.
async fn rotate(shared: &Shared, users: &Users, begun: Instant) {
    let good = users.good();
    let places: Vec<String> = good.iter().map(|who| Shared::place(&shared.keys, who)).collect();
    let question: Vec<&str> = ["EXISTS"].into_iter().chain(places.iter().map(String::as_str)).collect();
    let moved = || shared.redis.raw::<usize>(&question).unwrap();
    // So that there is time to kill them.
    let rate = (good.len() / 20).max(40);
    let mut commands = [(); 2].map(|()| shared.rotator(rate));
    for kill in 1..=KILLS {
        while moved() < kill * good.len() / (2 * KILLS) {
            assert!(begun.elapsed() < DEADLINE, "{} of {}", moved(), good.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let command = &mut commands[kill % 2];
        command.kill().unwrap();
        assert!(!command.wait().unwrap().success() && moved() < good.len(), "it was done before it was killed");
        *command = shared.rotator(rate);
    }
    let done = tokio::task::spawn_blocking(move || commands.map(|command| command.wait_with_output().unwrap()));
    for output in done.await.unwrap() {
        let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{said}{why}");
        assert!(why.contains("left as they are, because they cannot be read: 3 records"), "{why}");
        for who in &users.all[..users.bad.len()] {
            assert!(said.contains(&format!("{who}\twhoami\tunreadable: ")), "{said}");
        }
    }
    assert_eq!(moved(), good.len());
}
