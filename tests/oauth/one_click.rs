//! From the click to the call.

use std::time::Instant;

use serde_json::json;

use crate::service::Service;
use crate::visit::{Person, Seen};
use crate::{ALICE, BOB, PUBLIC_URL, Setting, found};

/// Opens the page and clicks; what is shown then leads to the service.
pub(crate) async fn click(person: &mut Person) -> Seen {
    click_on(person, "guarded").await
}

/// The same on the page of this server.
pub(crate) async fn click_on(person: &mut Person, server: &str) -> Seen {
    let start = format!("/{server}/connect/start");
    let form = person.get(&format!("/{server}/connect")).await.form(&start);
    person.post(&start, &[("form", &form)]).await
}

/// Where a page leads by itself.
pub(crate) fn leads_to(seen: &Seen) -> String {
    let url = seen.header("refresh").strip_prefix("0; url=");
    url.unwrap_or_else(|| panic!("{} leads nowhere: {}", seen.status, seen.text)).to_owned()
}

/// The value of a parameter of a URL.
pub(crate) fn parameter(url: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(url).expect("a URL");
    let found: Vec<String> = url.query_pairs().filter(|(n, _)| n == name).map(|(_, value)| value.into()).collect();
    assert!(found.len() < 2, "{name} stands twice in {url}");
    found.into_iter().next()
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "it measures")]
async fn a_person_clicks_once_signs_in_and_the_next_call_works_on_every_node() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let before = setting.said(0, ALICE).await;
    assert!(before.contains("sign in at") && before.contains("/guarded/connect"), "{before}");
    let mut alice = setting.person(0, ALICE).await;

    let page = alice.get("/guarded/connect").await;
    let host = setting.service.issuer().replace("http://", "");
    assert!(
        page.text.contains(&host) && page.text.contains("You will be asked to allow: read, offline_access."),
        "{}",
        page.text
    );
    assert!(page.text.contains("Connect Guarded &#38; Co") && !page.text.contains("field-token"), "{}", page.text);

    let (form, clicked) = (page.form("/guarded/connect/start"), Instant::now());
    let led = alice.post("/guarded/connect/start", &[("form", &form)]).await;
    let there_after = clicked.elapsed();
    assert_eq!((led.status, led.header("location")), (200, ""), "{}", led.text);
    let url = leads_to(&led);
    let of = |name: &str| parameter(&url, name);
    assert_eq!(of("redirect_uri"), Some(format!("{PUBLIC_URL}/oauth/callback/guarded")));
    assert_eq!(of("resource"), Some(setting.service.url()));
    assert_eq!((of("code_challenge_method").as_deref(), of("response_type").as_deref()), (Some("S256"), Some("code")));
    assert!(of("state").is_some_and(|state| state.len() >= 22) && of("scope").unwrap().contains("read"));
    let back = setting.service.sign_in(&url, "alice-there").await;

    // Any node may answer any step.
    let mut there = setting.elsewhere(&alice);
    let allowed = Instant::now();
    let done = there.get(&back).await;
    println!("two hops, with what the service takes: {there_after:?} and {:?}", allowed.elapsed());
    assert_eq!(done.status, 200, "{}", done.text);
    assert!(done.text.contains("is connected. You can go back to your application."), "{}", done.text);
    for node in 0..2 {
        assert_eq!(setting.said(node, ALICE).await, "alice-there read");
    }
    assert!(setting.said(0, BOB).await.contains("/guarded/connect"), "it is alice's alone");
    let page = alice.get("/guarded/connect").await;
    assert!(page.is_connected() && page.text.contains("You signed in at the service"), "{}", page.text);

    assert_eq!(setting.audited("sign-in-begun", 1).len(), 1);
    let set = setting.audited("token-set", 2);
    assert_eq!((&set[0]["outcome"], &set[1]["outcome"]), (&json!("begun"), &json!("done")), "{set:?}");
    let (code, state) = (parameter(&format!("http://x{back}"), "code"), parameter(&url, "state"));
    let stored = setting.redis.stored_bytes();
    for secret in [code.unwrap(), state.unwrap()] {
        for log in setting.nodes.iter().map(crate::Bridge::log) {
            assert!(!log.contains(&secret), "a secret is in the log");
        }
        assert!(!stored.windows(secret.len()).any(|part| part == secret.as_bytes()), "a secret is in the store");
    }
}

#[tokio::test]
async fn all_users_of_all_nodes_share_one_registration() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let mut people = Vec::new();
    for (node, token) in [(0, ALICE), (1, BOB), (1, ALICE), (0, BOB)] {
        people.push(setting.person(node, token).await);
    }
    let clicks = people.iter_mut().map(click);
    let urls: Vec<String> = futures_util::future::join_all(clicks).await.iter().map(leads_to).collect();
    let clients: std::collections::BTreeSet<_> = urls.iter().map(|url| parameter(url, "client_id")).collect();
    assert_eq!((clients.len(), setting.service.count("/reg 201").await), (1, 1), "{clients:?}");
    for (person, (url, user)) in people.iter_mut().zip(urls.iter().zip(["a", "b", "c", "d"])) {
        let done = person.get(&setting.service.sign_in(url, user).await).await;
        assert_eq!(done.status, 200, "{}", done.text);
    }
    // The newest of each, whichever node they come to.
    assert_eq!(setting.said(1, ALICE).await, "c read");
    assert_eq!(setting.said(0, BOB).await, "d read");

    let form = people[0].get("/guarded/connect").await.form("/guarded/connect/start");
    let anew = people[0].post("/guarded/connect/start", &[("form", &form), ("anew", "1")]).await;
    assert!(!clients.contains(&parameter(&leads_to(&anew), "client_id")), "as a new application");
    assert_eq!(setting.service.count("/reg 201").await, 2);
}

#[tokio::test]
async fn a_client_that_was_registered_by_hand_is_used_and_shows_its_secret() {
    let client = json!({
        "client_id": "by-hand", "client_secret": "canary-of-a-secret+ %", "grant_types": ["authorization_code", "refresh_token"],
        "redirect_uris": [format!("{PUBLIC_URL}/oauth/callback/guarded")], "token_endpoint_auth_method": "client_secret_basic",
    });
    let service = Service::start(&json!({ "dynamic": false, "client": client }));
    let oauth = json!({
        "allowHosts": ["127.0.0.1"], "issuer": service.issuer(), "clientId": "by-hand",
        "clientSecret": { "$env": "A_SECRET" }, "scopes": ["openid", "email", "offline_access", "read"],
        "authorizeParams": { "prompt": "consent" },
    });
    let setting = Setting::with_environment(service, &oauth, &[("A_SECRET", "canary-of-a-secret+ %")]);
    let mut alice = setting.person(0, ALICE).await;
    let url = leads_to(&click(&mut alice).await);
    assert_eq!(parameter(&url, "client_id").as_deref(), Some("by-hand"));
    assert_eq!(parameter(&url, "scope").as_deref(), Some("openid email offline_access read"));
    assert_eq!(parameter(&url, "prompt").as_deref(), Some("consent"));
    let back = setting.service.sign_in(&url, "carol").await;
    assert!(back.contains("&iss="), "{back}");
    assert_eq!(alice.get(&back).await.status, 200);
    assert_eq!(setting.said(1, ALICE).await, "carol read");
    let page = alice.get("/guarded/connect").await;
    assert!(page.text.contains("carol"), "the account is named: {}", page.text);
    assert!(!page.text.contains("canary") && !setting.nodes.iter().any(|node| node.log().contains("canary")));
}

#[tokio::test]
async fn a_service_that_reads_metadata_documents_finds_ours() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let document = Person::at(setting.nodes[1].address()).get("/oauth/client.json").await;
    assert_eq!((document.status, document.header("content-type")), (200, "application/json"));
    let document: serde_json::Value = serde_json::from_str(&document.text).unwrap();
    assert_eq!(document["client_id"], format!("{PUBLIC_URL}/oauth/client.json"));
    assert_eq!(document["redirect_uris"], json!([format!("{PUBLIC_URL}/oauth/callback/guarded")]));
}
