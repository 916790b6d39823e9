//! The pictures of docs/oauth.md: what a person sees from the click to the call. They are left in `target/test-output/account`,
//! and replace those of the page by hand: letters differ from machine to machine.

use std::path::Path;

use serde_json::{Value, json};

use crate::service::Service;
use crate::support::{Bridge, Browser, Client, Home, Redis, free_address};
use crate::{ALICE, config, found};

/// The most that one may be, bytes.
const LONGEST: usize = 60 << 10;

/// More than anybody asks.
const ALWAYS: u64 = 1_000_000;

/// A node that is known by its own address, a service that stands for Linear, and a browser in which alice has signed in.
struct Shown {
    service: Service,
    node: Bridge,
    browser: Browser,
    _home: Home,
    _redis: Redis,
}

impl Shown {
    async fn begin(options: &Value, oauth: &Value) -> Self {
        let (service, home, redis, address) = (Service::start(options), Home::new(), Redis::start(), free_address());
        let mut config = config(&home, &redis, &service, oauth);
        (config["publicUrl"], config["listen"]) = (json!(format!("http://{address}")), json!(address));
        config["mcpServers"]["linear"] = config["mcpServers"]["guarded"].take();
        config["mcpServers"].as_object_mut().expect("servers").remove("guarded");
        config["mcpServers"]["linear"]["tokenSetup"] = json!({ "displayName": "Linear" });
        let node = home.serve(config);
        let browser = Browser::start().await;
        browser.show(640, "light").await;
        let shown = Self { service, node, browser, _home: home, _redis: redis };
        shown.go().await;
        shown.browser.fill("main input[type=password]", ALICE).await;
        shown.browser.follow("main form:has([type=password]) button").await;
        shown
    }

    /// Looks at the page of the server.
    async fn go(&self) {
        self.browser.go(&format!("http://{}/linear/connect", self.node.address())).await;
    }

    /// Takes the picture of this name, once the page says this.
    async fn take(&self, name: &str, says: &str) {
        self.browser.until(&format!("document.body && document.body.innerText.includes({})", json!(says))).await;
        // Nobody points at anything.
        self.browser.run("document.activeElement.blur()").await;
        let taken = Path::new("target/test-output/account");
        std::fs::create_dir_all(taken).expect("a writable directory");
        self.browser.picture(&taken.join(format!("{name}.png"))).await;
        let kept = std::fs::read(format!("docs/{name}.png")).expect("it is there");
        assert!(kept.starts_with(b"\x89PNG") && kept.len() <= LONGEST, "{name}: {} bytes", kept.len());
    }

    /// What the server says to a call of alice's client.
    async fn said(&self) -> String {
        Client::modern(&self.node, "linear", Some(ALICE)).call("whoami", json!({})).await.expect("an answer").text()
    }
}

#[tokio::test]
async fn each_page_from_the_click_to_the_call_is_there_and_has_its_picture() {
    let shown = Shown::begin(&json!({ "device": { "interval": 5 } }), &found()).await;
    let browser = &shown.browser;
    shown.take("oauth-connect", "Connect Linear").await;
    browser.click("form[action='/linear/connect/start'] button").await;
    browser.fill("input[name=login]", "alice").await;
    browser.fill("input[name=password]", "x").await;
    browser.follow("button[type=submit]").await;
    browser.click("form:has(input[value=consent]) button[type=submit]").await;
    shown.take("oauth-connected", "Linear is connected. You can go back to your application.").await;
    assert_eq!(shown.said().await, "alice read");
    shown.service.set(&json!({ "refuses": ALWAYS })).await;
    let said = shown.said().await;
    assert!(said.starts_with("Your sign-in to Linear ended on "), "{said}");
    shown.go().await;
    let sentence = said.split(" Connect again").next().unwrap_or_default();
    shown.take("oauth-needs-sign-in", sentence).await;
    browser.follow("form[action='/linear/connect/device'] button").await;
    shown.take("oauth-code", "Linear").await;
}

#[tokio::test]
async fn the_page_of_pasting_is_there_and_has_its_picture() {
    let mut oauth = found();
    oauth["redirectUri"] = json!("http://localhost:3118/callback");
    let shown = Shown::begin(&json!({}), &oauth).await;
    shown.browser.follow("form[action='/linear/connect/start'] button").await;
    shown.take("oauth-paste", "http://localhost:3118/callback").await;
}
