//! A person with a real browser, at two nodes behind nginx: signs in, connects, replaces and removes, while a client uses
//! what was saved at the node of its own. Pictures of each page are left in `target/test-output/account`.
//!
//! - [`keyboard`]: the same without a mouse
//! - [`ends`]: a token that ends, and a session that does
//! - [`trial`]: a token that is tried before it is saved
//! - [`picture`]: the one of the README
//! - [`elsewhere`]: what pages of other sites do to theirs
//! - [`markup`]: what operators and people write is never markup

#[path = "account/corpus.rs"]
mod corpus;
#[path = "account_walk/elsewhere.rs"]
mod elsewhere;
#[path = "account_walk/ends.rs"]
mod ends;
#[path = "account_walk/keyboard.rs"]
mod keyboard;
#[path = "account_walk/markup.rs"]
mod markup;
#[path = "account_walk/picture.rs"]
mod picture;
#[expect(dead_code, reason = "tests/account.rs asks what it was asked")]
#[path = "account/service.rs"]
mod service;
mod support;
#[path = "account_walk/trial.rs"]
mod trial;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::mcp::Answer;
use support::{Bridge, Browser, Client, Home, Redis, ReverseProxy, bearer_identity, free_address, server, sha256_hex};
use tokio::sync::{Mutex, MutexGuard};

/// The bearer token of alice.
const ALICE: &str = "alices-key-0123456789abcdef";
/// What she saves, one after the other; no page may show either.
const TOKENS: [&str; 2] = ["canary-token-0123456789", "canary-token-9876543210"];
/// The most that a page and its style sheet may be, bytes on the wire.
const BUDGET: u64 = 30 << 10;
/// Widths and colours in which each page is looked at.
const LOOKS: [(u32, &str); 4] = [(1280, "light"), (1280, "dark"), (320, "light"), (320, "dark")];

/// One browser at a time is enough for a small machine.
static BROWSER: Mutex<()> = Mutex::const_new(());

/// Two nodes behind one address, and a browser.
struct Walk {
    nodes: [Bridge; 2],
    proxy: ReverseProxy,
    browser: Browser,
    axe: String,
    pictures: PathBuf,
    home: Home,
    _redis: Redis,
    _turn: MutexGuard<'static, ()>,
}

impl Walk {
    async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// The same with another configuration.
    async fn start_with(change: impl Fn(&mut Value)) -> Self {
        let turn = BROWSER.lock().await;
        let (home, redis) = (Home::new(), Redis::start());
        let addresses = [free_address(), free_address()];
        let proxy = ReverseProxy::nginx(&addresses);
        let nodes = addresses.map(|address| {
            let whoami = |setup: Value| json!({
                "command": server("whoami"), "args": [format!("marker={}", home.marker())],
                "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } }, "tokenSetup": setup,
            });
            let mut config = json!({
                "listen": address.to_string(),
                "publicUrl": format!("http://{}", proxy.address()),
                "identity": bearer_identity(&[("alice", ALICE)]),
                "tokenStore": home.in_redis(&redis),
                "mcpServers": {
                    "notes": whoami(json!({ "displayName": "Notes <b>& more</b>", "instructions": "Settings, then tokens.",
                        "helpUrl": "https://notes.example/help" })),
                    "dated": whoami(json!({ "displayName": "Dated", "expires": "3d" })),
                    "open": { "command": server("whoami"), "args": [format!("marker={}", home.marker())] },
                },
            });
            change(&mut config);
            home.serve(config)
        });
        let axe = fs::read_to_string("tests/node/node_modules/axe-core/axe.min.js").expect("scripts/test installs it");
        let pictures = PathBuf::from("target/test-output/account");
        fs::create_dir_all(&pictures).expect("a writable directory");
        let browser = Browser::start().await;
        Self { nodes, proxy, browser, axe, pictures, home, _redis: redis, _turn: turn }
    }

    /// The address of a page.
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.proxy.address())
    }

    async fn go(&self, path: &str) {
        self.browser.go(&self.url(path)).await;
    }

    /// Signs alice in; the page of `notes` comes next.
    async fn sign_in(&self) {
        self.go("/notes/connect").await;
        self.send("main", ALICE).await;
        self.browser.text(".standing").await;
    }

    /// Fills in the one field of the page, and sends it.
    async fn send(&self, form: &str, text: &str) {
        self.browser.fill(&format!("{form} input[type=password]"), text).await;
        self.browser.follow(&format!("{form} form:has([type=password]) button")).await;
    }

    /// What the server gets of alice's, asked at each node.
    async fn used(&self) -> [String; 2] {
        let ask = async |node| Client::modern(node, "notes", Some(ALICE)).call("whoami", json!({})).await;
        let [first, second] = self.nodes.each_ref();
        [ask(first).await, ask(second).await].map(|answer| answer.expect("an answer").text())
    }

    /// No page has asked for what its own policy forbids.
    async fn has_kept_to_the_policy(&self) {
        let complaints = self.browser.complaints().await;
        let of_policy: Vec<_> = complaints.iter().filter(|line| line.contains("Content Security Policy")).collect();
        assert!(of_policy.is_empty(), "{of_policy:?}");
    }

    /// Looks at the page in every width and colour: it is small, it is accessible, and it shows no token.
    async fn look(&self, name: &str) {
        let browser = &self.browser;
        // The icon is what the browser asks for by itself.
        let about =
            "const all = performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'));
            const asked = all.map(entry => new URL(entry.name).pathname);
            return { scripts: document.scripts.length, styles: document.querySelectorAll('[style], style').length,
                requests: asked.filter(path => path !== '/favicon.ico'),
                bytes: all.reduce((sum, entry) => sum + Math.max(entry.transferSize, entry.encodedBodySize), 0),
                html: document.documentElement.outerHTML, address: location.href, cookies: document.cookie }";
        let about = browser.run(about).await;
        assert_eq!((&about["scripts"], &about["styles"]), (&json!(0), &json!(0)), "{name}");
        assert_eq!(about["requests"].as_array().map(Vec::len), Some(2), "{name}: {}", about["requests"]);
        assert!(about["bytes"].as_u64().is_some_and(|bytes| bytes <= BUDGET), "{name}: {} bytes", about["bytes"]);
        assert!(!about.to_string().contains("canary-token") && !about.to_string().contains(ALICE), "{name}: {about}");
        assert_eq!(about["cookies"], "", "{name}: a script could read the cookie");
        for (width, scheme) in LOOKS {
            browser.show(width, scheme).await;
            let wide = browser.run("return document.documentElement.scrollWidth").await;
            assert!(wide.as_u64().is_some_and(|wide| wide <= width.into()), "{name} is {wide} wide at {width}");
            browser.picture(&self.pictures.join(format!("{name}-{width}-{scheme}.png"))).await;
            browser.run(&self.axe).await;
            let found =
                browser.run_to_the_end("axe.run().then(found => done(found.violations), why => done(String(why)))");
            let found = found.await;
            let grave = |fault: &&Value| matches!(fault["impact"].as_str(), Some("serious" | "critical") | None);
            let grave: Vec<&Value> = found.as_array().expect("axe runs").iter().filter(grave).collect();
            assert!(grave.is_empty(), "{name} at {width}, {scheme}: {grave:#?}");
        }
    }
}

#[tokio::test]
async fn a_person_connects_replaces_and_removes_in_chromium_while_the_client_is_on_the_other_node() {
    let walk = Walk::start().await;
    let browser = &walk.browser;
    let expected = |token: &str| [(); 2].map(|()| sha256_hex(token.as_bytes()));

    walk.go("/notes/connect").await;
    walk.look("sign-in").await;
    walk.send("main", "no-token-of-this-bridge").await;
    assert!(!browser.text(".fault").await.is_empty());
    walk.look("sign-in-refused").await;
    walk.send("main", ALICE).await;
    assert_eq!(browser.text("h1").await, "Notes <b>& more</b>", "what the operator wrote is text");
    walk.look("not-connected").await;
    walk.go("/account").await;
    walk.look("overview").await;

    walk.go("/notes/connect").await;
    walk.send("main", &format!("Bearer {}", TOKENS[0])).await;
    assert!(browser.text(".fault").await.contains("Bearer"));
    let field = "const field = document.querySelector('[type=password]'); return [field.value, document.activeElement === field]";
    assert_eq!(browser.run(field).await, json!(["", true]), "the field is empty, and the next thing to type into");
    walk.look("refused").await;
    assert!(walk.used().await.iter().all(|said| said.contains("/notes/connect")), "nothing was saved");

    let mut client = Client::legacy(&walk.nodes[1], "notes", Some(ALICE)).await;
    let said = |answer: std::io::Result<Answer>| answer.expect("an answer").text();
    let waits = async {
        let connected = said(client.call("connect_account", json!({ "wait": true })).await);
        (connected, said(client.call("whoami", json!({})).await))
    };
    let ((connected, next), ()) = tokio::join!(waits, walk.send("main", TOKENS[0]));
    assert!(browser.text(".news").await.contains("is connected. You can go back to your application."));
    walk.look("connected").await;
    assert!(connected.starts_with("Notes <b>& more</b> is connected."), "{connected}");
    assert_eq!(next, expected(TOKENS[0])[0], "the next message of the same session");
    assert_eq!(walk.used().await, expected(TOKENS[0]));

    walk.go("/notes/connect").await;
    browser.click("details:has([type=password]) summary").await;
    walk.look("replace").await;
    walk.send("details", TOKENS[1]).await;
    assert!(browser.text(".news").await.contains("is connected"));
    assert_eq!(walk.used().await, expected(TOKENS[1]));

    walk.go("/notes/connect").await;
    browser.click("details:has(button.danger) summary").await;
    walk.look("remove").await;
    browser.follow("button.danger").await;
    assert!(browser.text(".news").await.contains("no longer connected"));
    walk.look("removed").await;
    assert!(walk.used().await.iter().all(|said| said.contains("/notes/connect")));

    walk.go("/open/connect").await;
    walk.look("needs-none").await;
    walk.go("/nothing/connect").await;
    walk.look("not-there").await;
    walk.has_kept_to_the_policy().await;
}
