//! A server does not take a token that should be good.

use serde_json::json;

use crate::one_click::{click, leads_to, parameter};
use crate::service::Service;
use crate::support::{Client, free_address, metric};
use crate::{ALICE, Setting, config, found};

/// More than anybody asks.
const ALWAYS: u64 = 1_000_000;

async fn of_both_eras(setting: &Setting) -> [Client; 2] {
    let modern = Client::modern(&setting.nodes[0], "guarded", Some(ALICE));
    [modern, Client::legacy(&setting.nodes[1], "guarded", Some(ALICE)).await]
}

#[tokio::test]
async fn a_token_that_the_server_refuses_is_renewed_once_and_its_call_goes_on() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    setting.connected().await;
    for (mut client, renewed) in of_both_eras(&setting).await.into_iter().zip(1..) {
        setting.service.set(&json!({ "refuses": 1 })).await;
        let answer = client.call("whoami", json!({})).await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "alice-there read"), "{answer:?}");
        assert_eq!(setting.service.count("refused by the server").await, renewed);
        assert_eq!(setting.service.count("token refresh_token 200").await, renewed);
    }
    assert_eq!(setting.said(1, ALICE).await, "alice-there read");
    assert_eq!(setting.service.count("token refresh_token 200").await, 2, "what is good is used");
}

#[tokio::test]
async fn a_call_that_is_at_work_is_not_made_again_because_what_is_said_beside_it_is_refused() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    setting.connected().await;
    for (mut client, at_work) in of_both_eras(&setting).await.into_iter().zip(1..) {
        setting.service.set(&json!({ "pings": 1 })).await;
        let answer = client.call("whoami", json!({})).await.expect("an answer");
        assert_eq!(setting.service.count("refused by the server").await, at_work);
        assert_eq!(setting.service.count("work").await, at_work, "once: {answer:?}");
    }
    assert_eq!(setting.service.count("token refresh_token 200").await, 0, "the token is good");
}

#[tokio::test]
async fn who_is_refused_with_a_fresh_token_too_must_sign_in_and_is_counted() {
    let (service, home, redis) = (Service::start(&json!({})), crate::Home::new(), crate::Redis::start());
    let (mut configured, admin) = (config(&home, &redis, &service, &found()), free_address());
    configured["admin"] = json!({ "listen": admin.to_string() });
    let nodes = vec![home.serve(configured)];
    let setting = Setting { service, nodes, home, redis };
    let mut alice = setting.connected().await;
    setting.service.set(&json!({ "refuses": ALWAYS })).await;
    let said = setting.said(0, ALICE).await;
    assert!(said.contains("because Guarded & Co refused what had just been renewed"), "{said}");
    assert!(said.contains("Connect again: http://127.0.0.1:7777/guarded/connect"), "{said}");
    let refused = setting.service.count("refused by the server").await;
    assert_eq!((refused, setting.service.count("token refresh_token 200").await), (2, 1), "once more, and no more");
    assert_eq!(setting.said(0, ALICE).await, said);
    assert_eq!(setting.service.count("refused by the server").await, refused, "nobody is asked until they sign in");
    let page = alice.get("/guarded/connect").await;
    assert!(page.text.contains("Needs sign-in"), "{}", page.text);
    let counted = metric(admin, "tollbridge_oauth_sign_in_needed_total{reason=\"refused\"}").await;
    assert_eq!(counted, Some(2.0));
    assert_eq!(setting.audited("sign-in-needed", 1).len(), 1);

    setting.service.set(&json!({ "refuses": 0 })).await;
    setting.connected().await;
    assert_eq!(setting.said(0, ALICE).await, "alice-there read");
}

#[tokio::test]
async fn what_cannot_be_written_down_first_is_not_asked_for() {
    let options = json!({ "device": { "interval": 1 } });
    let (service, home, redis) = (Service::start(&options), crate::Home::new(), crate::Redis::start());
    let mut configured = config(&home, &redis, &service, &found());
    configured["audit"] = json!({ "file": "/dev/full", "required": true });
    let nodes = vec![home.serve(configured)];
    let setting = Setting { service, nodes, home, redis };
    let mut alice = setting.person(0, ALICE).await;
    let url = crate::one_click::leads_to(&crate::one_click::click(&mut alice).await);
    let done = alice.get(&setting.service.sign_in(&url, "alice-there").await).await;
    assert_eq!(done.status, 503, "{}", done.text);
    assert_eq!(setting.service.count("token authorization_code 200").await, 0, "what it gives once is not lost");

    let form = alice.get("/guarded/connect").await.form("/guarded/connect/device");
    let begun = alice.post("/guarded/connect/device", &[("form", &form)]).await;
    assert_eq!(begun.status, 503, "{}", begun.text);
    assert!(setting.redis.ask(&["--scan", "--pattern", "*:device:*"]).trim().is_empty(), "no code is asked for");
}

#[tokio::test]
async fn who_has_not_allowed_enough_is_asked_for_more_twice_a_day_at_most() {
    let oauth = json!({ "allowHosts": ["127.0.0.1"], "scopes": ["read", "offline_access"] });
    let setting = Setting::with(Service::start(&json!({})), &oauth);
    let mut alice = setting.connected().await;
    // The second is in no token of this service.
    for demanded in ["write", "email"] {
        setting.service.set(&json!({ "demands": ["read", demanded] })).await;
        for node in [0, 1] {
            let said = setting.said(node, ALICE).await;
            assert!(said.contains("Guarded & Co asks for more than you have allowed. Connect again: http"), "{said}");
        }
        let page = alice.get("/guarded/connect").await;
        assert!(page.text.contains(demanded) && page.is_connected(), "it goes on: {}", page.text);
        let url = leads_to(&click(&mut alice).await);
        let scope = parameter(&url, "scope").expect("it asks for scopes");
        let asked: std::collections::BTreeSet<&str> = scope.split(' ').collect();
        assert!(["read", "offline_access", demanded].iter().all(|scope| asked.contains(scope)), "{scope}");
        setting.connected().await;
    }
    let mut client = Client::modern(&setting.nodes[0], "guarded", Some(ALICE));
    let answer = client.call("whoami", json!({})).await.expect("an answer");
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.response()["error"]["message"].to_string().contains("demands more than its user has allowed"));
    setting.service.set(&json!({ "demands": ["read"] })).await;
    assert!(setting.said(1, ALICE).await.starts_with("alice-there read"), "what was allowed is good");
    assert_eq!(setting.service.count("token refresh_token 200").await, 0);
}
