//! People with a real browser: from the click to the page that says that they are connected, with a code, and where they
//! paste the address at which they ended. Pictures are left in `target/test-output/account`.

use std::path::Path;

use serde_json::{Value, json};

use crate::service::Service;
use crate::support::{Bridge, Browser, Client, Home, Redis, free_address};
use crate::{ALICE, config, found};

/// What the page says at last.
const DONE: &str =
    "document.body && document.body.innerText.includes('is connected. You can go back to your application.')";

/// A browser in which alice has signed in to the pages of a node that is known by its own address.
struct Visit {
    browser: Browser,
    node: Bridge,
    _home: Home,
    _redis: Redis,
}

impl Visit {
    async fn begin(service: &Service, oauth: &Value) -> Self {
        let (home, redis, address) = (Home::new(), Redis::start(), free_address());
        let mut config = config(&home, &redis, service, oauth);
        config["publicUrl"] = json!(format!("http://{address}"));
        config["listen"] = json!(address);
        let node = home.serve(config);
        let browser = Browser::start().await;
        browser.go(&format!("http://{address}/guarded/connect")).await;
        browser.fill("main input[type=password]", ALICE).await;
        browser.follow("main form:has([type=password]) button").await;
        Self { browser, node, _home: home, _redis: redis }
    }

    /// Signs in at the service, whose page comes next, and allows it.
    async fn allow(&self) {
        self.browser.fill("input[name=login]", "alice-there").await;
        self.browser.fill("input[name=password]", "x").await;
        self.browser.follow("button[type=submit]").await;
        self.browser.click("form:has(input[value=consent]) button[type=submit]").await;
    }

    async fn picture(&self, name: &str) {
        std::fs::create_dir_all("target/test-output/account").expect("a writable directory");
        self.browser.picture(&Path::new("target/test-output/account").join(format!("{name}.png"))).await;
    }

    /// The next call has the token, and no page has asked for what its own policy forbids.
    async fn has_connected(&self) {
        let mut client = Client::modern(&self.node, "guarded", Some(ALICE));
        assert_eq!(client.call("whoami", json!({})).await.expect("an answer").text(), "alice-there read");
        let complaints = self.browser.complaints().await;
        let of_policy = |line: &&String| line.contains("Content Security Policy") && line.contains(&self.own());
        assert_eq!(complaints.iter().find(of_policy), None);
    }

    fn own(&self) -> String {
        format!("http://{}/", self.node.address())
    }
}

#[tokio::test]
async fn one_click_leads_to_the_service_and_back_without_a_script() {
    let service = Service::start(&json!({}));
    let visit = Visit::begin(&service, &found()).await;
    let browser = &visit.browser;
    visit.picture("sign-in-offered").await;
    browser.click("form[action='/guarded/connect/start'] button").await;
    visit.allow().await;
    browser.until(DONE).await;
    assert!(browser.address().await.starts_with(&visit.own()));
    assert_eq!(browser.run("return document.scripts.length").await, 0);
    visit.picture("signed-in").await;
    visit.has_connected().await;
}

#[tokio::test]
async fn who_enters_the_code_elsewhere_sees_the_page_go_on_by_itself() {
    let service = Service::start(&json!({ "device": { "interval": 1 } }));
    let visit = Visit::begin(&service, &found()).await;
    let browser = &visit.browser;
    browser.follow("form[action='/guarded/connect/device'] button").await;
    // The page reloads itself all the while.
    let shown = "const code = document.querySelector('.code code'), picture = document.querySelector('.picture svg');
        const link = document.querySelector('a.button');
        return code && picture && link && [code.innerText, picture.getBoundingClientRect().width, link.href]";
    let shown = browser.once(shown).await;
    let (code, address) = (shown[0].as_str().expect("a code"), shown[2].as_str().expect("a link"));
    assert!(shown[1].as_f64().is_some_and(|wide| wide >= 100.0), "a picture that a camera can read: {shown}");
    assert!(address.starts_with(&service.issuer()) && address.contains(code), "{address}");
    visit.picture("code").await;
    service.enter(address, "alice-there").await;
    browser.until(DONE).await;
    visit.has_connected().await;
}

#[tokio::test]
async fn who_ends_where_nothing_listens_pastes_the_address_of_that_tab() {
    let service = Service::start(&json!({}));
    let mut oauth = found();
    let nowhere = format!("http://localhost:{}/done", free_address().port());
    oauth["redirectUri"] = json!(nowhere);
    let visit = Visit::begin(&service, &oauth).await;
    let browser = &visit.browser;
    browser.follow("form[action='/guarded/connect/start'] button").await;
    visit.picture("paste").await;
    let link = browser.run("return document.querySelector('a[target=_blank].button').href").await;
    let ours = browser.open_tab().await;
    browser.go(link.as_str().expect("a link")).await;
    visit.allow().await;
    browser.until("location.protocol === 'chrome-error:'").await;
    let ended = browser.address().await;
    assert!(ended.starts_with(&nowhere), "{ended}");
    browser.turn_to(&ours).await;
    browser.fill("#address", &ended).await;
    browser.follow("form[action='/guarded/connect/paste'] button").await;
    browser.until(DONE).await;
    visit.has_connected().await;
}
