//! A service that leads people to their own machine alone: they paste where they ended.

use serde_json::json;

use crate::one_click::{click, parameter};
use crate::service::Service;
use crate::visit::{Person, Seen};
use crate::{ALICE, BOB, Setting, found};

/// Where nothing listens.
const LOCAL: &str = "http://localhost:1";

fn setting() -> Setting {
    let mut oauth = found();
    oauth["redirectUri"] = json!(format!("{LOCAL}/done"));
    Setting::with(Service::start(&json!({})), &oauth)
}

/// Where the page leads that waits for the address.
fn leads_to(seen: &Seen) -> String {
    assert_eq!((seen.status, seen.header("refresh")), (200, ""), "nobody is led away from it: {}", seen.text);
    let link = seen.text.split("href=\"").find(|part| part.contains("code_challenge=")).expect("a link");
    link.split('"').next().expect("it ends").replace("&#38;", "&")
}

async fn paste(person: &mut Person, page: &Seen, address: &str) -> Seen {
    let form = page.form("/guarded/connect/paste");
    person.post("/guarded/connect/paste", &[("form", &form), ("address", address)]).await
}

#[tokio::test]
async fn who_is_led_where_nothing_listens_pastes_the_address_and_is_connected() {
    let setting = setting();
    let mut alice = setting.person(0, ALICE).await;
    let page = click(&mut alice).await;
    let url = leads_to(&page);
    assert_eq!(parameter(&url, "redirect_uri"), Some(format!("{LOCAL}/done")));
    let back = format!("{LOCAL}{}", setting.service.sign_in(&url, "alice-there").await);

    for bad in ["", &back.replace("/done", "/other"), &back.replace("localhost", "evil.example")] {
        let seen = paste(&mut alice, &page, bad).await;
        assert!(seen.status == 422 && seen.text.contains("copy the whole address"), "{bad} {}", seen.text);
        assert!(!seen.text.contains("evil"), "{}", seen.text);
    }
    let mut other_browser = setting.person(1, ALICE).await;
    let other_page = click(&mut other_browser).await;
    assert_eq!(paste(&mut other_browser, &other_page, &back).await.status, 403);
    let mut bob = setting.person(0, BOB).await;
    let bobs_page = click(&mut bob).await;
    assert_eq!(paste(&mut bob, &bobs_page, &back).await.status, 403);
    assert_eq!(paste(&mut bob, &page, &back).await.status, 403, "the form is alice's");
    assert_eq!(setting.service.count("token authorization_code 200").await, 0, "nothing was sent anywhere");

    let mut there = setting.elsewhere(&alice);
    let done = paste(&mut there, &page, &format!(" {back}\n")).await;
    assert!(done.status == 200 && done.text.contains("is connected. You can go back"), "{}", done.text);
    assert_eq!(setting.said(1, ALICE).await, "alice-there read");
    assert_eq!(paste(&mut alice, &page, &back).await.status, 400, "it was used");
}

#[tokio::test]
async fn where_answers_come_back_by_themselves_nothing_is_pasted() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let mut alice = setting.person(0, ALICE).await;
    assert_eq!(alice.post("/guarded/connect/paste", &[("form", "x")]).await.status, 404);
}
