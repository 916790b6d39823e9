//! A real Chromium, driven over `WebDriver` (<https://www.w3.org/TR/webdriver2/>), gone when dropped.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{free_address, procs};

/// How long the browser may take to start, and to show what it is asked for.
const DEADLINE: Duration = Duration::from_mins(1);

/// Keys that are no text. Source: `WebDriver`, section 17.4.2.
pub const TAB: char = '\u{e004}';
pub const ENTER: char = '\u{e007}';

/// By this name `WebDriver` hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A running browser with one window.
pub struct Browser {
    driver: Child,
    client: reqwest::Client,
    session: String,
    directory: TempDir,
}

impl Browser {
    /// Starts a browser that knows nothing of any other.
    pub async fn start() -> Self {
        let directory =
            tempfile::Builder::new().prefix("tollbridge-browser-").tempdir().expect("a temporary directory");
        let address = free_address();
        let mut driver = Command::new("chromedriver");
        driver.arg(format!("--port={}", address.port())).env("HOME", directory.path());
        driver.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = driver.spawn().expect("chromedriver is installed");
        #[expect(clippy::disallowed_methods, reason = "it talks to the driver of a test")]
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE * 2).build().expect("a client");
        let mut browser = Self { driver, client, session: format!("http://{address}/session"), directory };
        let listens = procs::wait_for(DEADLINE, || TcpStream::connect(address).ok());
        assert!(listens.is_some(), "chromedriver does not start");
        let profile = format!("--user-data-dir={}", browser.directory.path().join("profile").display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--hide-scrollbars",
            &profile,
        ];
        let wanted = json!({ "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "implicit": 20_000, "script": 60_000 },
        } });
        let session = browser.post("", json!({ "capabilities": wanted })).await;
        browser.session = format!("{}/{}", browser.session, session["sessionId"].as_str().expect("a session"));
        browser
    }

    /// Goes to a page.
    pub async fn go(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// Types into the field that this selector names.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.element(selector, "/value", json!({ "text": text })).await;
    }

    /// Clicks on what this selector names, which leads to no other page.
    pub async fn click(&self, selector: &str) {
        self.element(selector, "/click", json!({})).await;
    }

    /// Clicks on what this selector names, and waits for the page to which that leads.
    pub async fn follow(&self, selector: &str) {
        self.run("window.isLeft = true").await;
        self.click(selector).await;
        self.until("window.isLeft !== true && document.readyState === 'complete'").await;
    }

    /// Types this into what has the focus, sends or follows it, and waits for the page to which that leads.
    pub async fn enter(&self, text: &str) {
        self.run("window.isLeft = true").await;
        self.press(&format!("{text}{ENTER}")).await;
        self.until("window.isLeft !== true && document.readyState === 'complete'").await;
    }

    /// Presses keys one after the other, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let strokes =
            keys.chars().flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })));
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes.collect::<Vec<_>>() });
        self.post("/actions", json!({ "actions": [keyboard] })).await;
    }

    /// Opens another tab and goes on there; answers how to turn back to the one before.
    pub async fn open_tab(&self) -> String {
        let before = self.read("/window").await;
        let tab = self.post("/window/new", json!({ "type": "tab" })).await;
        self.turn_to(tab["handle"].as_str().expect("a tab")).await;
        before
    }

    /// Goes on in a tab.
    pub async fn turn_to(&self, tab: &str) {
        self.post("/window", json!({ "handle": tab })).await;
    }

    /// What a script returns in the frame that this selector names.
    pub async fn run_in_frame(&self, selector: &str, script: &str) -> Value {
        let frame = json!({ ELEMENT: self.find(selector).await });
        self.post("/frame", json!({ "id": frame })).await;
        let returned = self.run(script).await;
        self.post("/frame", json!({ "id": null })).await;
        returned
    }

    /// Waits until this is true of the page, which may be one that is on its way.
    pub async fn until(&self, condition: &str) {
        self.once(&format!("return {condition} ? true : null")).await;
    }

    /// What a script returns, once that is something, of a page that may be on its way.
    pub async fn once(&self, script: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let returned = self.ask("/execute/sync", json!({ "script": script, "args": [] })).await;
            if !returned.is_null() && returned.get("error").is_none() {
                return returned;
            }
            assert!(Instant::now() < deadline, "nothing is returned by {script}");
        }
    }

    /// What a script returns. It runs beside the page's own policy.
    pub async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// What a script hands to `done`.
    pub async fn run_to_the_end(&self, script: &str) -> Value {
        let script = format!("const done = arguments[0]; {script}");
        self.post("/execute/async", json!({ "script": script, "args": [] })).await
    }

    /// The address of the page, also of one that is not there.
    pub async fn address(&self) -> String {
        self.read("/url").await
    }

    /// The text of what this selector names, once it is there.
    pub async fn text(&self, selector: &str) -> String {
        let id = self.find(selector).await;
        self.read(&format!("/element/{id}/text")).await
    }

    /// Makes the page so wide, for people who like it `light` or `dark`.
    pub async fn show(&self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
        self.tools("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.tools("Emulation.setEmulatedMedia", features).await;
    }

    /// Writes a picture of the whole page.
    pub async fn picture(&self, file: &Path) {
        let taken = self.tools("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await;
        let picture = BASE64_STANDARD.decode(taken["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, picture).expect("a writable directory");
    }

    /// What the browser has complained of since it was last asked.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({ "type": "browser" })).await;
        let lines = log.as_array().expect("a log").iter();
        lines.filter_map(|line| line["message"].as_str().map(str::to_owned)).collect()
    }

    async fn element(&self, selector: &str, what: &str, body: Value) {
        let id = self.find(selector).await;
        self.post(&format!("/element/{id}{what}"), body).await;
    }

    /// The element that this selector names, once it is there.
    async fn find(&self, selector: &str) -> String {
        let found = self.ask("/element", json!({ "using": "css selector", "value": selector })).await;
        let Some(id) = found[ELEMENT].as_str() else {
            let page = self.run("return `${location.href}\n${document.body.innerText}`").await;
            panic!("no {selector} on {}", page.as_str().unwrap_or_default());
        };
        id.to_owned()
    }

    /// A command of the browser's own tools (<https://chromedevtools.github.io/devtools-protocol/>).
    async fn tools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    async fn read(&self, path: &str) -> String {
        let answer = self.client.get(format!("{}{path}", self.session)).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        answer["value"].as_str().expect("text").to_owned()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let value = self.ask(path, body).await;
        assert!(value.get("error").is_none(), "{path} {}: {}", value["error"], value["message"]);
        value
    }

    async fn ask(&self, path: &str, body: Value) -> Value {
        let sent = self.client.post(format!("{}{path}", self.session)).json(&body).send().await;
        let mut answer: Value = sent.expect("an answer").json().await.expect("JSON");
        answer["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser leads a group of its own.
        let browsers = procs::descendants(self.driver.id());
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        browsers.iter().filter(|process| process.is_alive()).for_each(|process| procs::kill(process.pid, Signal::KILL));
        // What it still writes is in the directory that goes away.
        procs::wait_for(DEADLINE, || browsers.iter().all(|process| !process.is_alive()).then_some(()));
    }
}
