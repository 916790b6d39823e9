//! Programs begin and end sign-ins for their users.

use serde_json::{Value, json};

use crate::one_click::{click, leads_to, parameter};
use crate::service::Service;
use crate::visit::{Person, Seen};
use crate::{ALICE, BOB, Setting, found};

const MADE: &str = "/api/v1/connections";
const GUARDED: &str = "/api/v1/connections/guarded";

/// What the API answers to the program of a user.
async fn ask(setting: &Setting, method: &str, path: &str, token: &str) -> Seen {
    let bearer = format!("Bearer {token}");
    Person::at(setting.nodes[1].address()).ask(method, path, &[("Authorization", &bearer)], b"").await
}

fn json(seen: &Seen) -> Value {
    serde_json::from_str(&seen.text).unwrap_or_else(|_| panic!("{} {}", seen.status, seen.text))
}

/// How the server stands with alice, as the API says.
async fn made(setting: &Setting) -> Value {
    json(&ask(setting, "GET", MADE, ALICE).await)["connections"][0].clone()
}

#[tokio::test]
async fn a_sign_in_that_a_program_begins_is_good_for_its_user_alone_in_any_browser() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    assert_eq!(made(&setting).await["status"], "notConnected");
    let begun = ask(&setting, "POST", GUARDED, ALICE).await;
    let url = json(&begun)["authorizationUrl"].as_str().expect("a URL").to_owned();
    assert_eq!((begun.status, begun.header("set-cookie")), (200, ""), "a program has no browser");
    assert!(url.starts_with(&setting.service.issuer()) && parameter(&url, "code_challenge").is_some(), "{url}");
    let back = setting.service.sign_in(&url, "alice-there").await;

    // Whoever is made to go there connects nothing to the account of who has begun it, nor anything to their own.
    let mut bob = setting.person(0, BOB).await;
    let mut nobody = Person::at(setting.nodes[0].address());
    for stranger in [&mut bob, &mut nobody] {
        assert_eq!(stranger.get(&back).await.status, 403);
    }
    assert_eq!(setting.service.count("token authorization_code 200").await, 0, "nothing was sent anywhere");
    let done = setting.person(0, ALICE).await.get(&back).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(setting.said(1, ALICE).await, "alice-there read");
    assert!(setting.said(1, BOB).await.contains("/guarded/connect"));

    let made = made(&setting).await;
    let shown = ["status", "issuer", "client"].map(|name| made[name].as_str().unwrap_or_default());
    assert_eq!(shown, ["connected", &setting.service.issuer(), "dynamic"], "{made}");
    assert!(made["scopes"].to_string().contains("read") && made["expiresAt"].is_string(), "{made}");
}

#[tokio::test]
async fn a_sign_in_that_a_page_begins_by_the_api_is_good_in_its_browser_alone() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let mut alice = setting.person(0, ALICE).await;
    let csrf = alice.get("/api/v1/servers").await.header("x-tollbridge-csrf").to_owned();
    assert_eq!(alice.ask("POST", GUARDED, &[], b"").await.status, 403, "a cookie alone begins nothing");
    let begun = alice.ask("POST", GUARDED, &[("X-Tollbridge-CSRF", &csrf)], b"").await;
    assert!(alice.cookies.contains_key("__Host-tb-browser"), "{}", begun.text);
    let url = json(&begun)["authorizationUrl"].as_str().expect("a URL").to_owned();
    let back = setting.service.sign_in(&url, "alice-there").await;
    assert_eq!(setting.person(0, ALICE).await.get(&back).await.status, 403, "another browser");
    assert_eq!(alice.get(&back).await.status, 200);
}

#[tokio::test]
async fn what_a_program_ends_is_gone_and_given_back_and_it_hears_whether_that_is_confirmed() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    setting.connected().await;
    let ended = ask(&setting, "DELETE", GUARDED, ALICE).await;
    assert_eq!((ended.status, json(&ended)), (200, json!({ "revoked": true })));
    assert_eq!(setting.service.count("/token/revocation 200").await, 1);
    assert_eq!(ask(&setting, "DELETE", GUARDED, ALICE).await.status, 404);
    assert!(setting.said(0, ALICE).await.contains("/guarded/connect"));

    // The same of the other way to remove it.
    setting.connected().await;
    let bearer = format!("Bearer {ALICE}");
    let mut program = Person::at(setting.nodes[1].address());
    let headers = [("Authorization", &*bearer), ("If-Match", "*")];
    assert_eq!(program.ask("DELETE", "/api/v1/servers/guarded/token", &headers, b"").await.status, 204);
    assert_eq!(setting.service.count("/token/revocation 200").await, 2);
}

#[tokio::test]
async fn programs_hear_that_somebody_must_sign_in_again_and_why() {
    let setting = Setting::with(Service::start(&json!({ "says": 1 })), &found());
    setting.connected().await;
    setting.service.set(&json!({ "fails": 400 })).await;
    while !setting.said(0, ALICE).await.contains("Connect again") {}
    let made = made(&setting).await;
    assert_eq!((&made["status"], &made["reason"]), (&json!("needsSignIn"), &json!("rejected")), "{made}");
    assert!(made["since"].as_str().is_some_and(|since| since.starts_with("20")), "{made}");
    let servers = json(&ask(&setting, "GET", "/api/v1/servers", ALICE).await);
    assert_eq!(servers["servers"][0]["status"], "needsSignIn", "{servers}");

    // What a service gave before the operator named another issuer is of no use, and that is said.
    setting.service.set(&json!({ "fails": 0, "says": 3600 })).await;
    let mut alice = setting.person(0, ALICE).await;
    let url = leads_to(&click(&mut alice).await);
    assert_eq!(alice.get(&setting.service.sign_in(&url, "alice-there").await).await.status, 200);
    let other = json!({ "allowHosts": ["127.0.0.1"], "resource": "https://other.example/" });
    let changed = setting.home.serve(crate::config(&setting.home, &setting.redis, &setting.service, &other));
    let bearer = format!("Bearer {ALICE}");
    let seen = Person::at(changed.address()).ask("GET", MADE, &[("Authorization", &bearer)], b"").await;
    let made = json(&seen)["connections"][0].clone();
    assert_eq!((&made["status"], &made["reason"]), (&json!("needsSignIn"), &json!("changed")), "{made}");
}
