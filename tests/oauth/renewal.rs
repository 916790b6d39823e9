//! A token that expires is renewed once, and a failure that is not its user's never asks them to sign in again.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::service::Service;
use crate::support::Client;
use crate::{ALICE, Setting, found};

/// How long a test waits for what comes by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls on both nodes at once.
async fn burst(setting: &Setting, calls: usize) -> Vec<String> {
    join_all((0..calls).map(|call| setting.said(call % 2, ALICE))).await
}

#[tokio::test]
async fn an_expired_token_is_renewed_by_one_call_for_all_requests_of_all_nodes() {
    let setting = Setting::with(Service::start(&json!({ "says": 1 })), &found());
    setting.connected().await;
    let mut rounds = 0;
    for round in 1..=3 {
        setting.service.set(&json!({ "says": if round == 3 { 3600 } else { 1 } })).await;
        let deadline = Instant::now() + PATIENCE;
        while setting.service.count("token refresh_token 200").await < round {
            assert!(Instant::now() < deadline, "it is not renewed");
            for said in burst(&setting, 16).await {
                assert_eq!(said, "alice-there read");
            }
            rounds += 1;
        }
    }
    assert_eq!(burst(&setting, 16).await, vec!["alice-there read"; 16]);
    // The service revokes all that was granted when a refresh token comes twice.
    let refused = setting.service.count("token refresh_token 400").await;
    assert_eq!((setting.service.count("token refresh_token 200").await, refused), (3, 0), "{rounds} rounds");
    let page = setting.person(1, ALICE).await.get("/guarded/connect").await;
    assert!(page.is_connected(), "{}", page.text);
    assert_eq!(setting.redis.ask(&["--scan", "--pattern", "*:lease:*"]).trim(), "", "each lease is given back");
}

#[tokio::test]
async fn a_service_that_is_down_is_503_and_the_sign_in_goes_on_when_it_is_back() {
    let setting = Setting::with(Service::start(&json!({ "says": 1 })), &found());
    setting.connected().await;
    setting.service.set(&json!({ "fails": 500 })).await;
    let deadline = Instant::now() + PATIENCE;
    let answer = loop {
        let mut client = Client::modern(&setting.nodes[1], "guarded", Some(ALICE));
        let answer = client.call("whoami", json!({})).await.expect("an answer");
        if answer.status != 200 {
            break answer;
        }
        assert!(Instant::now() < deadline, "it never expires");
    };
    let wait: u64 = answer.header("retry-after").expect("it says when").parse().unwrap();
    assert_eq!((answer.status, (1..=60).contains(&wait)), (503, true), "{answer:?}");
    let calls = setting.service.count("token failed 500").await;
    for call in 0..8 {
        let mut client = Client::modern(&setting.nodes[call % 2], "guarded", Some(ALICE));
        let answer = client.call("whoami", json!({})).await.expect("an answer");
        assert_eq!(answer.status, 503, "nobody is to sign in: {answer:?}");
    }
    assert!(setting.service.count("token failed 500").await <= calls + 1, "it is left alone for a while");
    setting.service.set(&json!({ "fails": 0, "says": 3600 })).await;
    loop {
        let mut client = Client::modern(&setting.nodes[0], "guarded", Some(ALICE));
        let answer = client.call("whoami", json!({})).await.expect("an answer");
        if answer.status == 200 {
            break assert_eq!(answer.text(), "alice-there read");
        }
        assert!(Instant::now() < deadline + PATIENCE, "it does not go on");
    }
}

#[tokio::test]
async fn a_sign_in_that_the_service_has_withdrawn_is_said_to_be_until_somebody_signs_in_again() {
    let setting = Setting::with(Service::start(&json!({ "says": 1 })), &found());
    let mut alice = setting.connected().await;
    setting.service.set(&json!({ "fails": 400 })).await;
    let deadline = Instant::now() + PATIENCE;
    let mut said = String::new();
    while !said.contains("Connect again") {
        assert!(Instant::now() < deadline, "{said}");
        said = setting.said(0, ALICE).await;
    }
    let told = said.strip_prefix("Your sign-in to Guarded & Co ended on ").unwrap_or_else(|| panic!("{said}"));
    let (day, why) = told.split_once(" because ").unwrap_or_else(|| panic!("{said}"));
    assert!(day.split(' ').count() == 2 && day.starts_with(|first: char| first.is_ascii_digit()), "as 3 May: {said}");
    assert_eq!(why, "Guarded & Co withdrew it. Connect again: http://127.0.0.1:7777/guarded/connect");
    for said in burst(&setting, 8).await {
        assert!(said.contains("Connect again"), "{said}");
    }
    assert_eq!(setting.service.count("token failed 400").await, 1, "nobody calls until somebody signs in");
    let page = alice.get("/guarded/connect").await;
    assert!(page.text.contains("Needs sign-in") && page.text.contains("withdrew it. Connect again."), "{}", page.text);
    assert!(!page.text.contains("canary"));
    assert_eq!(setting.audited("sign-in-needed", 1).len(), 1);

    setting.service.set(&json!({ "fails": 0, "says": 3600 })).await;
    setting.connected().await;
    assert_eq!(setting.said(1, ALICE).await, "alice-there read");
}

#[tokio::test]
async fn disconnecting_gives_back_what_was_granted_and_says_so() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let mut alice = setting.connected().await;
    let removed = alice.remove("guarded").await;
    assert_eq!(removed.status, 200, "{}", removed.text);
    assert!(removed.text.contains("has confirmed that it took it back"), "{}", removed.text);
    assert_eq!(setting.service.count("/token/revocation 200").await, 1, "what renews it");
    assert_eq!(setting.service.count("/token/revocation 400").await, 1, "the token itself, which this service cannot");
    assert!(setting.said(1, ALICE).await.contains("sign in at"));
    assert!(!alice.get("/guarded/connect").await.is_connected());
}
