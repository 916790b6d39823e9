//! What a bridge shows of its store.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::redis_server::RedisServer;
use crate::support::{self, Bridge, Client, Home, free_address};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A bridge with a server that needs a token of the user alice, kept in that Redis.
fn bridge(home: &Home, redis: &RedisServer, admin: SocketAddr) -> Bridge {
    home.serve(json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "admin": { "listen": admin },
        "tokenStore": { "kind": "redis", "url": redis.tcp_url(), "keys": [{ "id": "k1", "file": home.key() }] },
        "mcpServers": { "whoami": {
            "command": support::server("whoami"), "args": [format!("marker={}", home.marker())],
            "env": { "TOKEN": { "$userToken": "<<token>>" } }, "requiresUserToken": true,
        } },
    }))
}

#[test]
fn check_and_doctor_say_what_is_wrong_with_a_redis_and_wait_no_longer_than_it_may_take() {
    let (home, redis) = (Home::new(), RedisServer::start(&[]));
    let url = redis.tcp_url();
    let store = |url: &str| json!({ "kind": "redis", "url": url, "keys": [{ "id": "k1", "file": home.key() }] });
    home.write(json!({ "tokenStore": store(&url), "mcpServers": {} }));
    let config = home.config();
    let ask = |command: &[&str]| {
        let output = home.output(&[command, &["--config", &config.to_string_lossy()]].concat(), b"");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code().unwrap())
    };
    let good = || {
        let (said, _, code) = ask(&["check"]);
        assert!(code == 0 && said.contains("token store: it answers, and takes the sealing keys"), "{said}");
        let (said, ..) = ask(&["doctor", "--cgroup", "off"]);
        assert!(said.contains("good        token store: it answers"), "{said}");
    };
    let bad = |why: &str| {
        let start = Instant::now();
        let (_, said, code) = ask(&["check"]);
        assert!(code == 1 && said.starts_with("error: tokenStore: ") && said.contains(why), "{why}: {code} {said}");
        let (said, _, code) = ask(&["doctor", "--cgroup", "off"]);
        let found = said.lines().any(|line| line.starts_with("MISSING     token store: ") && line.contains(why));
        assert!(code == 1 && found, "{why}: {said}");
        assert!(start.elapsed() < PATIENCE, "{why}: {:?}", start.elapsed());
    };
    good();
    // A user with the rules that docs/operate.md shows is enough.
    let page = std::fs::read_to_string("docs/operate.md").unwrap();
    let (_, rules) = page.split_once("ACL SETUSER tollbridge").expect("rules");
    let rules = format!("ACL SETUSER tollbridge{}", rules.split("```").next().unwrap());
    redis.raw::<()>(&rules.split_whitespace().collect::<Vec<_>>()).unwrap();
    home.write(json!({ "tokenStore": store(&url.replace("://", "://tollbridge:PASSWORD@")), "mcpServers": {} }));
    let (_, warnings, code) = ask(&["check"]);
    assert!(
        code == 0 && !warnings.contains("could not be checked") && !warnings.contains("not known yet"),
        "{warnings}"
    );
    home.write(json!({ "tokenStore": store(&url), "mcpServers": {} }));
    redis.raw::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    bad("may evict tokens (maxmemory-policy allkeys-lru)");
    redis.raw::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    redis.raw::<()>(&["CONFIG", "SET", "appendonly", "no"]).unwrap();
    let (_, warning, code) = ask(&["check"]);
    assert!(code == 0 && warning.starts_with("warning: tokenStore: the token store keeps nothing"), "{warning}");
    redis.raw::<()>(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    bad("is a replica");
    redis.raw::<()>(&["REPLICAOF", "NO", "ONE"]).unwrap();
    redis.raw::<()>(&["CLIENT", "PAUSE", "60000", "ALL"]).unwrap();
    bad("did not answer in time");
    drop(redis);
    bad("cannot be reached");
}

#[test]
fn check_warns_where_users_save_what_older_nodes_cannot_read() {
    let (home, redis) = (Home::new(), RedisServer::start(&[]));
    let keys = json!([{ "id": "k1", "file": home.key() }]);
    let shared = json!({ "kind": "redis", "url": redis.tcp_url(), "keys": keys });
    let said = |store: Value, setup: Value, hole: &str| {
        home.write(json!({ "tokenStore": store, "mcpServers": { "whoami": {
            "command": support::server("whoami"), "env": { "TOKEN": { "$userToken": hole } }, "tokenSetup": setup,
        } } }));
        let output = home.output(&["check", "--config", &home.config().to_string_lossy()], b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    };
    let warning = "warning: tokenStore: what users save for whoami is kept in a form that earlier versions";
    let dated =
        "warning: tokenStore: any token whose last day a person enters on the page is kept in a form that earlier";
    let fields = json!({ "fields": { "apiKey": {} } });
    assert!(said(shared.clone(), fields.clone(), "<<apiKey>>").contains(warning));
    assert!(said(shared.clone(), json!({ "expires": "90d" }), "<<token>>").contains(warning));
    assert!(said(shared, json!({}), "<<token>>").contains(dated));
    // There are no other nodes.
    assert!(!said(home.embedded(), fields, "<<apiKey>>").contains("earlier versions"));
    assert!(!said(home.embedded(), json!({}), "<<token>>").contains("earlier versions"));
}

async fn is_ready(admin: SocketAddr) -> bool {
    let mut connection = support::http::Connection::open(admin).await.unwrap();
    connection.send("GET", "/readyz", &[], b"").await.unwrap().status == 200
}

async fn until_ready(admin: SocketAddr, ready: bool) {
    let start = Instant::now();
    while is_ready(admin).await != ready {
        assert!(start.elapsed() < PATIENCE, "readiness is never {ready}");
    }
}

#[tokio::test]
async fn a_bridge_whose_store_refuses_writes_is_not_ready_and_a_metric_says_why() {
    let (home, redis, admin) = (Home::new(), RedisServer::start(&[]), free_address());
    let _bridge = bridge(&home, &redis, admin);
    let metric = || support::metric(admin, "tollbridge_store_refuses_writes");
    until_ready(admin, true).await;
    assert_eq!(metric().await, Some(0.0));
    redis.raw::<()>(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    until_ready(admin, false).await;
    assert_eq!(metric().await, Some(1.0));
    redis.raw::<()>(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    until_ready(admin, true).await;
    assert_eq!(metric().await, Some(0.0));
}

#[tokio::test]
async fn an_outage_of_the_store_is_one_line_and_not_one_per_request() {
    const REQUESTS: u32 = 30;
    let (home, mut redis, admin) = (Home::new(), RedisServer::start(&[]), free_address());
    let bridge = bridge(&home, &redis, admin);
    redis.kill();
    let mut client = Client::modern(&bridge, "whoami", None);
    let start = Instant::now();
    for _ in 0..REQUESTS {
        let answer = client.call("whoami", Value::Null).await.expect("an answer");
        assert_eq!(answer.status, 503);
    }
    let most = 1 + start.elapsed().as_secs() / 5;
    let lines = bridge.log_with("the token store failed").matches("the token store failed").count();
    assert!((1..=most).contains(&u64::try_from(lines).unwrap()), "{lines}");
    let failures = "tollbridge_store_failures_total{kind=\"unreachable\"}";
    assert_eq!(support::metric(admin, failures).await, Some(f64::from(REQUESTS)));
}
