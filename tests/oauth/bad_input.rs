//! What bad input gets.

use serde_json::json;

use crate::one_click::{click, leads_to, parameter};
use crate::service::Service;
use crate::{ALICE, BOB, Setting, found};

#[tokio::test]
async fn only_who_has_begun_a_sign_in_ends_it_and_only_once() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let mut alice = setting.person(0, ALICE).await;
    let url = leads_to(&click(&mut alice).await);
    let back = setting.service.sign_in(&url, "alice-there").await;

    // It has begun a sign-in of its own.
    let mut other_browser = setting.person(1, ALICE).await;
    click(&mut other_browser).await;
    let mut bob = setting.person(0, BOB).await;
    // A browser whose cookie was brought to another user's session.
    bob.cookies.insert("__Host-tb-browser".to_owned(), alice.cookies["__Host-tb-browser"].clone());
    let mut nobody = crate::visit::Person::at(setting.nodes[0].address());
    for stranger in [&mut other_browser, &mut bob, &mut nobody] {
        let seen = stranger.get(&back).await;
        assert_eq!((seen.status, seen.header("location")), (403, ""), "{}", seen.text);
    }
    let twice = format!("?{}&state=x", back.split('?').nth(1).unwrap());
    for bad in ["", "?code=c", "?state=s", "?code=c&state=unknown", &twice] {
        let seen = alice.get(&format!("/oauth/callback/guarded{bad}")).await;
        assert_eq!(seen.status, 400, "{bad}: {}", seen.text);
        assert!(seen.text.contains("This sign-in has ended"), "{}", seen.text);
    }
    assert_eq!(setting.service.count("token authorization_code 200").await, 0, "nothing was sent anywhere");

    // Of two at once, on two nodes, one goes on.
    let mut there = setting.elsewhere(&alice);
    let (one, other) = tokio::join!(alice.get(&back), there.get(&back));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400], "{} {}", one.text, other.text);
    assert_eq!(alice.get(&back).await.status, 400, "it was used");
    assert_eq!(setting.service.count("token authorization_code 200").await, 1);
    assert_eq!(setting.said(0, ALICE).await, "alice-there read");
}

#[tokio::test]
async fn an_answer_from_somebody_else_ends_the_sign_in_and_nothing_of_it_is_shown() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let mut alice = setting.person(0, ALICE).await;
    for forge in [
        |back: &str| back.split("&iss=").next().unwrap().to_owned(),
        |back: &str| format!("{}&iss=https://canary.example", back.split("&iss=").next().unwrap()),
        |back: &str| format!("{back}/"),
    ] {
        let url = leads_to(&click(&mut alice).await);
        let back = setting.service.sign_in(&url, "alice-there").await;
        let seen = alice.get(&forge(&back)).await;
        assert_eq!(seen.status, 400, "{}", seen.text);
        assert!(seen.text.contains("came from somebody else") && !seen.text.contains("canary"), "{}", seen.text);
        assert_eq!(alice.get(&back).await.status, 400, "it has ended");
    }
    assert_eq!(setting.service.count("token authorization_code 200").await, 0);
    assert!(setting.said(0, ALICE).await.contains("/guarded/connect"));
}

#[tokio::test]
async fn who_does_not_allow_it_is_told_so_and_nothing_is_stored() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let mut alice = setting.person(0, ALICE).await;
    let url = leads_to(&click(&mut alice).await);
    let back = setting.service.refuse(&url).await;
    let seen = alice.get(&back).await;
    assert!(seen.text.contains("You did not allow it"), "{} {}", seen.status, seen.text);
    assert!(seen.text.contains("/guarded/connect\""), "a button leads back: {}", seen.text);
    assert_eq!(setting.audited("sign-in-ended", 1).len(), 1);
    assert!(setting.audited("token-set", 0).is_empty());

    let url = leads_to(&click(&mut alice).await);
    let state = parameter(&url, "state").unwrap();
    let iss = setting.service.issuer();
    let answer = format!("?error=canary&error_description=canary&state={state}&iss={iss}");
    let seen = alice.get(&format!("/oauth/callback/guarded{answer}")).await;
    assert!(seen.text.contains("has refused") && !seen.text.contains("canary"), "{}", seen.text);
}

#[tokio::test]
async fn a_sign_in_begins_only_by_our_own_form() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let mut alice = setting.person(0, ALICE).await;
    let form = alice.get("/guarded/connect").await.form("/guarded/connect/start");
    let from_elsewhere = [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")];
    let seen = alice.post_from(&from_elsewhere, "/guarded/connect/start", &[("form", &form)]).await;
    assert_eq!(seen.status, 403, "{}", seen.text);
    let mut bob = setting.person(0, BOB).await;
    assert_eq!(bob.post("/guarded/connect/start", &[("form", &form)]).await.status, 403);
    assert_eq!(alice.get("/guarded/connect/start").await.status, 405);
    assert!(!alice.cookies.contains_key("__Host-tb-browser"));
}

#[tokio::test]
async fn a_service_that_lets_nobody_register_says_so_in_words() {
    let setting = Setting::with(Service::start(&json!({ "dynamic": false })), &found());
    let mut alice = setting.person(0, ALICE).await;
    let seen = click(&mut alice).await;
    let sentence = "lets only known applications in: ask whoever runs this bridge for a client id";
    assert_eq!((seen.status, seen.text.contains(sentence)), (502, true), "{}", seen.text);
}

#[tokio::test]
async fn a_private_address_that_nobody_let_through_is_not_called() {
    let service = Service::start(&json!({}));
    let oauth = json!({ "allowHosts": ["127.0.0.1"], "issuer": "https://10.255.255.1" });
    let home = crate::Home::new();
    let redis = crate::Redis::start();
    home.write(crate::config(&home, &redis, &service, &oauth));
    let config = home.config();
    let output = home.output(&["check", "--config", &config.to_string_lossy()], b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("private address"), "{said}");
}
