//! What may go wrong while a token is renewed. None of it asks a user to sign in who need not, spends a token twice, or
//! loses what the service gave.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tollbridge::clock::Clock;

use crate::relay::{Fault, Relay};
use crate::service::Service;
use crate::support::{Bridge, Client, Home, Redis, number, procs};
use crate::{ALICE, Setting, config, found};

/// How long a test waits for what comes by itself: longer than a lease lasts, and than a service is left alone.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// Some nodes behind whose service a relay stands, and the relay.
pub(crate) fn with_relay(nodes: usize, options: &serde_json::Value) -> (Setting, Relay) {
    with_relay_and(Redis::start(), nodes, options)
}

/// The same on this Redis.
pub(crate) fn with_relay_and(redis: Redis, nodes: usize, options: &serde_json::Value) -> (Setting, Relay) {
    let relay = Relay::start();
    let service = Service::behind(&relay, options);
    let home = Home::new();
    let mut config = config(&home, &redis, &service, &found());
    // One person has very many calls at once.
    config["limits"] = json!({ "perUser": 256, "perServer": 256, "total": 256 });
    let nodes = (0..nodes).map(|_| home.serve(config.clone())).collect();
    (Setting { service, nodes, home, redis }, relay)
}

/// Alice has signed in, and what the service gave has just expired; what it gives from now on is good for an hour.
pub(crate) async fn just_expired(setting: &Setting) {
    setting.service.set(&json!({ "says": 1 })).await;
    setting.connected().await;
    setting.service.set(&json!({ "says": 3600 })).await;
    has_passed(Duration::from_secs(1)).await;
}

/// Until so much time has passed by the clock of days, which is what tokens expire by.
pub(crate) async fn has_passed(time: Duration) {
    let end = Clock::System.now().0 + time.as_secs();
    procs::eventually(PATIENCE, || (Clock::System.now().0 >= end).then_some(())).await.expect("time passes");
}

/// What a call of alice's comes to on this node: its status, and what is said.
pub(crate) async fn call(setting: &Setting, node: usize) -> (u16, String) {
    call_at(&setting.nodes[node]).await
}

/// The same where only the node is at hand.
pub(crate) async fn call_at(node: &Bridge) -> (u16, String) {
    let mut client = Client::modern(node, "guarded", Some(ALICE));
    let answer = client.call("whoami", json!({})).await.expect("an answer");
    let said = if answer.status == 200 { answer.text() } else { answer.header("retry-after").unwrap_or("").to_owned() };
    (answer.status, said)
}

/// What calls come to on this node once it is not that the service cannot renew the token now.
pub(crate) async fn settled(setting: &Setting, node: usize) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call(setting, node).await {
            (200, said) => return said,
            (503, _) if Instant::now() < deadline => tokio::time::sleep(procs::LOOK).await,
            other => panic!("{other:?}"),
        }
    }
}

/// How many calls renewed a token, and how many were refused, with which the service takes back all that it granted.
pub(crate) async fn renewals(setting: &Setting) -> (u64, u64) {
    let count = |what: &'static str| setting.service.count(what);
    (count("token refresh_token 200").await, count("token refresh_token 400").await)
}

/// What is kept is what the service gave last: its server refuses the token once, and what renews it is taken.
pub(crate) async fn is_current(setting: &Setting, node: usize) {
    // Who was killed may have had the lease.
    let leases = || setting.redis.ask(&["--scan", "--pattern", "*:lease:*"]);
    procs::eventually(PATIENCE, || leases().trim().is_empty().then_some(())).await.expect("leases end");
    let (done, refused) = renewals(setting).await;
    setting.service.set(&json!({ "refuses": 1 })).await;
    assert_eq!(call(setting, node).await, (200, "alice-there read".to_owned()));
    assert_eq!(renewals(setting).await, (done + 1, refused), "what is kept is older than what the service gave last");
}

#[tokio::test]
async fn an_answer_that_was_lost_before_the_service_acted_costs_nothing() {
    let (setting, relay) = with_relay(2, &json!({}));
    for fault in [
        Fault::CutBefore,
        Fault::Answered("502 Bad Gateway".to_owned()),
        Fault::Answered("500 Internal Server Error".to_owned()),
        Fault::Answered("307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/token".to_owned()),
        Fault::Answered("200 OK".to_owned()),
    ] {
        just_expired(&setting).await;
        let (came, (done, _)) = (relay.came(), renewals(&setting).await);
        relay.next(fault.clone());
        assert_eq!(call(&setting, 0).await.0, 503, "{fault:?}");
        assert_eq!(settled(&setting, 1).await, "alice-there read", "{fault:?}");
        assert_eq!((relay.came() - came, renewals(&setting).await), (2, (done + 1, 0)), "{fault:?}");
    }
    assert!(setting.audited("sign-in-needed", 0).is_empty());
}

#[tokio::test]
async fn what_is_written_otherwise_than_the_standard_has_it_is_taken() {
    let (setting, relay) = with_relay(1, &json!({}));
    for (from, to) in [
        (r#""expires_in":3600"#, r#""expires_in":"3599""#),
        (r#""token_type":"Bearer""#, r#""token_type":"bEARER""#),
        (r#""scope":"#, r#""id_token":"no.token","other":"#),
    ] {
        just_expired(&setting).await;
        relay.next(Fault::Rewritten(from, to));
        assert_eq!(call(&setting, 0).await, (200, "alice-there read".to_owned()), "{to}");
    }
    assert_eq!((relay.came(), renewals(&setting).await), (3, (3, 0)));
}

#[tokio::test]
async fn an_answer_that_was_lost_after_the_service_acted_is_asked_for_once_more_and_then_said_to_be_lost() {
    let (setting, relay) = with_relay(2, &json!({}));
    just_expired(&setting).await;
    relay.next(Fault::CutAfter);
    assert_eq!(call(&setting, 0).await.0, 503, "nobody must sign in yet");
    let said = settled(&setting, 1).await;
    assert!(said.contains("because an answer of the service was lost on its way"), "{said}");
    assert_eq!((relay.came(), renewals(&setting).await), (2, (1, 1)), "the same once more, and no more");
    assert_eq!(call(&setting, 0).await.1, said);
    assert_eq!(relay.came(), 2, "nobody is asked until somebody signs in");
}

#[tokio::test]
async fn a_service_that_says_when_to_come_back_is_left_alone_until_then_and_its_users_are_told() {
    let (setting, relay) = with_relay(2, &json!({}));
    just_expired(&setting).await;
    relay.next(Fault::Answered("429 Too Many Requests\r\nRetry-After: 600".to_owned()));
    assert_eq!(call(&setting, 0).await, (503, "600".to_owned()));
    for node in [1, 0, 1] {
        let (status, wait) = call(&setting, node).await;
        assert_eq!((status, (400..=600).contains(&wait.parse().expect("seconds"))), (503, true), "{wait}");
    }
    assert_eq!(relay.came(), 1);
    just_expired(&setting).await;
    assert_eq!(call(&setting, 1).await.1, "alice-there read", "who signs in anew does not wait");
}

#[tokio::test]
async fn a_renewal_whose_lease_is_lost_is_not_made_twice() {
    let (setting, relay) = with_relay(3, &json!({}));
    for _ in 0..number("TOLLBRIDGE_TEST_OAUTH_ROUNDS", 1) {
        just_expired(&setting).await;
        let (came, (done, _)) = (relay.came(), renewals(&setting).await);
        let held = relay.hold();
        let evals = || {
            let stats = setting.redis.ask(&["INFO", "commandstats"]);
            let eval = stats.lines().find_map(|line| line.strip_prefix("cmdstat_eval:calls="));
            eval.and_then(|rest| rest.split(',').next()?.parse::<u64>().ok()).unwrap_or_default()
        };
        let meanwhile = async {
            held.wait().await;
            let lease = setting.redis.ask(&["--scan", "--pattern", "*:lease:*"]);
            assert_eq!(setting.redis.ask(&["DEL", lease.trim()]).trim(), "1");
            // Others take the lease and find that somebody is at it.
            let before = evals();
            procs::eventually(PATIENCE, || (evals() > before + 6).then_some(())).await.expect("others look");
            held.release();
        };
        let calls = join_all((0..6).map(|n| call(&setting, n % 3)));
        let (calls, ()) = tokio::join!(calls, meanwhile);
        for (status, said) in calls {
            assert_eq!((status, said.as_str()), (200, "alice-there read"));
        }
        assert_eq!((relay.came() - came, renewals(&setting).await), (1, (done + 1, 0)));
    }
}
