//! How often users may call, counted on every store; on Redis for all nodes.

use std::time::Duration;

use futures_util::future::join_all;
use tollbridge::clock::Clock;
use tollbridge::config::{Rate, TokenStoreKind};
use tollbridge::store::{CallKey, Lookup, RateLimit, Rates, TokenStore, TooSoon};
use tollbridge::user::UserId;

use crate::home::{Home, Key, PATIENCE, PREFIX, Tokens as _, key, name, redis_kind_within, ring, secret, server, user};
use crate::proxy::Proxy;
use crate::redis_server::RedisServer;
use crate::sessions::session;

const HOUR: Duration = Duration::from_hours(1);

fn rate(interval: Duration, burst: u32) -> Rate {
    Rate { interval, burst }
}

/// So many at once of a user, and nothing more for an hour.
fn of_user(burst: u32) -> Rates {
    Rates { of_user: Some(rate(HOUR, burst)), at_server: None }
}

/// What becomes of a call that needs a token.
async fn call(store: &TokenStore, user: &UserId, to: &str, rates: Rates) -> Result<Lookup, TooSoon> {
    let call = CallKey { user, server: &server(to), session: None, rates };
    store.lookup_for_call(&call).await.map(|(token, _)| token)
}

/// Whether a call may be made that needs none.
async fn passes(store: &TokenStore, user: &UserId, rates: Rates) -> bool {
    let call = CallKey { user, server: &server("notion"), session: None, rates };
    store.status_for_call(&call).await.is_ok_and(|status| status.is_ok())
}

/// The key of what is counted of a user.
fn rates_key(keys: &[Key], user: &UserId) -> String {
    format!("{PREFIX}:rates:{{{}}}", name(keys, user))
}

async fn a_rate_is_of_all_handles_and_each_server_has_its_own(stores: [TokenStore; 3]) {
    let alice = user("alice");
    stores[0].set(&alice, &server("notion"), &secret("ntn_1")).await.unwrap();
    let calls = (0..60).map(|at| call(&stores[at % 3], &alice, "notion", of_user(20)));
    let calls = join_all(calls).await;
    let found = calls.iter().filter(|call| matches!(call, Ok(Lookup::Found(..)))).count();
    let refused: Vec<_> = calls.iter().filter_map(|call| call.as_ref().err()).collect();
    assert_eq!((found, refused.len()), (20, 40));
    let full =
        |refused: &&TooSoon| refused.limit == RateLimit::OfUser && refused.wait > HOUR / 2 && refused.wait <= HOUR;
    assert!(refused.iter().all(full), "{refused:?}");
    assert!(call(&stores[1], &user("bob"), "notion", of_user(20)).await.is_ok(), "others are others");

    let (carol, both) = (user("carol"), Rates { of_user: Some(rate(HOUR, 5)), at_server: Some(rate(2 * HOUR, 2)) });
    for (to, refused) in
        [("a", false), ("a", false), ("a", true), ("b", false), ("b", false), ("b", true), ("c", false)]
    {
        let called = call(&stores[0], &carol, to, both).await;
        assert_eq!(called.err().map(|refused| refused.limit), refused.then_some(RateLimit::AtServer), "{to}");
    }
    let both_are_full = call(&stores[0], &carol, "a", both).await.unwrap_err();
    assert_eq!(both_are_full.limit, RateLimit::AtServer, "the longer wait is told");
    assert_eq!(call(&stores[0], &carol, "d", both).await.unwrap_err().limit, RateLimit::OfUser);
}

#[tokio::test]
async fn a_rate_is_of_all_nodes_also_while_they_seal_with_different_keys() {
    let home = Home::redis();
    let (k1, k2) = (key("k1"), key("k2"));
    let rings = [vec![k1.clone(), k2.clone()], vec![k2.clone(), k1.clone()], vec![k1, k2]];
    a_rate_is_of_all_handles_and_each_server_has_its_own(rings.map(|keys| home.open(&keys))).await;
}

#[tokio::test]
async fn calls_are_counted_where_there_is_one_node_too() {
    let home = Home::embedded();
    let (store, alice) = (home.open(&[key("k1")]), user("alice"));
    let mut found = Vec::new();
    for _ in 0..5 {
        found.push(passes(&store, &alice, of_user(3)).await);
    }
    assert_eq!(found, [true, true, true, false, false]);
    assert!(call(&store, &alice, "notion", of_user(3)).await.is_err(), "they are counted together");
    assert!(call(&store, &alice, "notion", Rates::default()).await.is_ok());
}

/// How often each of these commands has been carried out.
fn carried_out<const N: usize>(redis: &RedisServer, commands: [&str; N]) -> [u64; N] {
    let stats: String = redis.raw(&["INFO", "commandstats"]).unwrap();
    commands.map(|command| {
        let of = |line: &str| line.strip_prefix(&format!("cmdstat_{command}:calls="))?.split(',').next()?.parse().ok();
        stats.lines().find_map(of).unwrap_or_default()
    })
}

#[tokio::test]
async fn a_call_is_counted_in_the_round_trip_of_its_look_up_and_leaves_little_behind() {
    const SERVERS: usize = 8;
    let home = Home::redis();
    let Home::Redis(redis) = &home else { unreachable!() };
    let (keys, alice) = ([key("k1")], user("alice"));
    let (store, session) = (home.open(&keys), session("s1"));
    let rates =
        Rates { of_user: Some(rate(Duration::from_mins(1), 5)), at_server: Some(rate(Duration::from_secs(30), 5)) };
    let no_session = CallKey { user: &alice, server: &server("notion"), session: None, rates };
    let in_session = CallKey { session: Some(&session), ..no_session };
    // Each round trip begins with one `PING`; what Redis is is asked once a second.
    let trips = || {
        let [pings, evals, infos] = carried_out(redis, ["ping", "eval", "info"]);
        (pings - infos / 3, evals)
    };
    let mut before = trips();
    for (calls, counted) in [(0, Rates::default()), (1, rates)] {
        let [no_session, in_session] =
            [CallKey { rates: counted, ..no_session }, CallKey { rates: counted, ..in_session }];
        assert!(store.lookup_for_call(&no_session).await.is_ok());
        assert!(store.lookup_for_call(&in_session).await.is_ok());
        assert!(store.status_for_call(&in_session).await.is_ok());
        let after = trips();
        assert_eq!(after.1 - before.1, 3 * calls, "one script for each");
        assert!((3..=4).contains(&(after.0 - before.0)), "{before:?} {after:?}");
        before = after;
    }
    for number in 0..1000 {
        let _refused = call(&store, &alice, &format!("server-{}", number % SERVERS), rates).await;
    }
    let key = rates_key(&keys, &alice);
    let (fields, left): (usize, i64) = (redis.raw(&["HLEN", &key]).unwrap(), redis.raw(&["TTL", &key]).unwrap());
    assert!(fields <= SERVERS + 2 && (0..=300).contains(&left), "{fields} fields for {left} s");
    let others: Vec<String> = redis.raw(&["KEYS", "*rates*"]).unwrap();
    assert_eq!(others, [key]);
}

#[tokio::test]
async fn a_call_that_is_sent_again_because_its_answer_did_not_come_counts_once() {
    let redis = RedisServer::start(&[]);
    let proxy = Proxy::to(redis.port()).await;
    let kind = redis_kind_within(Duration::from_secs(6), proxy.url());
    let store = TokenStore::open(&kind, ring(&[key("k1")]).into(), Clock::System).unwrap();
    let alice = user("alice");
    assert!(passes(&store, &user("bob"), of_user(1)).await);
    proxy.silence();
    let sent = call(&store, &alice, "notion", of_user(1)).await;
    let [counted] = carried_out(&redis, ["eval"]);
    assert!(sent.is_ok() && counted >= 3, "{sent:?}, {counted} scripts");
    assert!(!passes(&store, &alice, of_user(1)).await);
}

#[tokio::test]
async fn a_clock_that_was_ahead_keeps_nobody_out_for_longer_than_the_rate_does() {
    let home = Home::redis();
    let Home::Redis(redis) = &home else { unreachable!() };
    let (keys, alice, second) = ([key("k1")], user("alice"), Duration::from_secs(1));
    let (store, rates) = (home.open(&keys), Rates { of_user: Some(rate(second, 3)), at_server: None });
    for written in ["8999999999999999", "9e300", "inf", "", "x", "-1", "nan"] {
        redis.raw::<()>(&["HSET", &rates_key(&keys, &alice), "@user", written]).unwrap();
        assert!(call(&store, &alice, "notion", rates).await.is_ok(), "{written}");
        let wait = call(&store, &alice, "notion", rates).await.err().map_or(Duration::ZERO, |refused| refused.wait);
        assert!(wait <= second, "{written}: {wait:?}");
    }
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_still_gives_tokens_and_each_node_counts_its_share() {
    let home = Home::redis();
    let Home::Redis(redis) = &home else { unreachable!() };
    let (store, alice) = (home.open(&[key("k1")]), user("alice"));
    store.set(&alice, &server("notion"), &secret("ntn_1")).await.unwrap();
    redis.raw::<()>(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let mut calls = Vec::new();
    for _ in 0..5 {
        calls.push(match call(&store, &alice, "notion", of_user(3)).await {
            Ok(Lookup::Found(..)) => true,
            Err(_) => false,
            Ok(other) => panic!("{other:?}"),
        });
    }
    assert_eq!(calls, [true, true, true, false, false]);
}

#[tokio::test]
async fn the_rights_of_the_docs_are_enough_to_count() {
    let redis = RedisServer::start(&[]);
    let page = std::fs::read_to_string("docs/operate.md").unwrap();
    let (_, rules) = page.split_once("ACL SETUSER tollbridge").unwrap();
    let rules = format!("ACL SETUSER tollbridge{}", rules.split("```").next().unwrap());
    redis.raw::<()>(&rules.split_whitespace().collect::<Vec<_>>()).unwrap();
    let url = secret(&redis.tcp_url().replace("://", "://tollbridge:PASSWORD@"));
    let kind = TokenStoreKind::Redis { url, prefix: "tollbridge".to_owned(), timeout: PATIENCE };
    let store = TokenStore::open(&kind, ring(&[key("k1")]).into(), Clock::System).unwrap();
    for passed in [true, false] {
        let called = call(&store, &user("alice"), "notion", of_user(1)).await;
        assert!(if passed { matches!(called, Ok(Lookup::Absent)) } else { called.is_err() }, "{called:?}");
    }
    assert_eq!(
        redis.raw::<Vec<String>>(&["KEYS", "tollbridge:rates:*"]).unwrap().len(),
        1,
        "it was Redis that counted"
    );
    store.note_node("one").await.unwrap();
    assert_eq!(redis.raw::<u32>(&["ZCARD", "tollbridge:nodes"]).unwrap(), 1);
}

#[tokio::test]
async fn while_redis_is_down_each_node_allows_its_share() {
    let mut redis = RedisServer::start(&[]);
    let kind = redis_kind_within(Duration::from_secs(2), redis.socket_url());
    let (k1, alice) = (key("k1"), user("alice"));
    let open = || TokenStore::open(&kind, ring(std::slice::from_ref(&k1)).into(), Clock::System);
    let stores = [open().unwrap(), open().unwrap(), open().unwrap()];
    for _ in 0..2 {
        assert!(join_all(stores.iter().map(|store| passes(store, &alice, of_user(30)))).await.contains(&true));
        for (store, node) in stores.iter().zip(["one", "two", "three"]) {
            // A Redis that is slow is asked again.
            while store.note_node(node).await.is_err() {}
        }
    }
    assert_eq!(redis.raw::<u32>(&["ZCARD", &format!("{PREFIX}:nodes")]).unwrap(), 3);
    redis.kill();
    for store in &stores {
        let mut passed = 0;
        for _ in 0..60 {
            passed += usize::from(passes(store, &alice, of_user(30)).await);
        }
        assert_eq!(passed, 10, "a third of 30");
    }
    redis.resume();
    let back = async {
        while !passes(&stores[0], &user("bob"), of_user(1000)).await
            || redis.raw::<u32>(&["EXISTS", &rates_key(std::slice::from_ref(&k1), &user("bob"))]).unwrap() == 0
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), back).await.expect("Redis counts again");
}
