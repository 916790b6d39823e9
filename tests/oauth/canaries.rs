//! Nothing that opens anything is where it may be read: whatever a service and the bridge have said to each other is looked
//! for in all logs at their finest, in the audit, in the pages, in the arguments of all processes and in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::faults::{PATIENCE, has_passed, settled};
use crate::one_click::{click, leads_to, parameter};
use crate::relay::{Fault, Relay};
use crate::service::Service;
use crate::support::{Home, Redis, procs};
use crate::terminal::Login;
use crate::visit::{Person, Seen};
use crate::{ALICE, PUBLIC_URL, Setting, config, found};

/// What is said in forms and in JSON that opens something.
const KINDS: [&str; 9] = [
    "code",
    "code_verifier",
    "access_token",
    "refresh_token",
    "id_token",
    "client_secret",
    "registration_access_token",
    "device_code",
    "state",
];

/// The secret of a client that was registered by hand.
const SECRET: &str = "canary-of-a-secret+ %";

/// With what all that is ours runs.
const ENVIRONMENT: [(&str, &str); 3] = [("TOLLBRIDGE_LOG", "trace"), ("RUST_LOG", "trace"), ("A_SECRET", SECRET)];

const CODE: &str = "/guarded/connect/device";

/// The arguments of all processes there were, but of those that only tests start.
struct Arguments {
    is_over: Arc<AtomicBool>,
    seen: std::thread::JoinHandle<BTreeSet<String>>,
}

impl Arguments {
    fn watch() -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let over = Arc::clone(&is_over);
        let seen = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !over.load(Ordering::SeqCst) {
                seen.extend(procs::all().iter().map(|process| procs::command_line(process.pid).join(" ")));
                std::thread::sleep(procs::LOOK);
            }
            seen.retain(|line| line.contains("tollbridge") && !line.contains("oauth-service.mjs"));
            seen
        });
        Self { is_over, seen }
    }

    fn end(self) -> String {
        self.is_over.store(true, Ordering::SeqCst);
        self.seen.join().expect("it does not panic").into_iter().collect::<Vec<_>>().join("\n")
    }
}

/// What opens something, by its kind.
#[derive(Default)]
struct Secrets(BTreeMap<&'static str, BTreeSet<String>>);

impl Secrets {
    fn add(&mut self, kind: &'static str, secret: String) {
        self.0.entry(kind).or_default().insert(secret);
    }

    /// Everything that has passed between the bridge and the service.
    fn of(relay: &Relay) -> Self {
        let mut secrets = Self::default();
        for passed in relay.passed("POST ") {
            let (head, form) = passed.request.split_once("\r\n\r\n").expect("a head and a body");
            let basic = head.lines().find_map(|line| line.split_once("asic ").filter(|(name, _)| name.contains(": B")));
            if let Some((_, shown)) = basic {
                secrets.add("client_secret", shown.trim().to_owned());
            }
            let url = format!("http://x/?{form}");
            for kind in KINDS {
                let sent = passed.request.contains("application/x-www-form-urlencoded").then(|| parameter(&url, kind));
                let said = sent.flatten().into_iter().chain(passed.answered(kind));
                said.for_each(|secret| secrets.add(kind, secret));
            }
        }
        secrets
    }

    /// None of it is in `place`, but what is of the kind that must be.
    fn are_not_in(&self, what: &str, place: &[u8], but: &str) {
        for (kind, secrets) in self.0.iter().filter(|(kind, _)| **kind != but) {
            for secret in secrets.iter().filter(|secret| secret.len() >= 8) {
                let encoded = crate::visit::encoded(&[("", secret)]).split_off(1);
                for form in [secret, &encoded] {
                    assert!(memchr::memmem::find(place, form.as_bytes()).is_none(), "a {kind} is in {what}");
                }
            }
        }
    }
}

/// Two nodes that log all that they can, and what alice has seen of them.
struct Scene {
    setting: Setting,
    relay: Relay,
    alice: Person,
    pages: String,
    /// What the store held at several moments.
    stored: Vec<u8>,
    /// What lets an answer of the service in, or has done so, and has not been brought to the service.
    answers: Secrets,
}

impl Scene {
    async fn new(options: &Value, oauth: &Value) -> Self {
        let relay = Relay::start();
        let service = Service::behind(&relay, options);
        let (home, redis) = (Home::new(), Redis::start());
        let mut oauth = oauth.clone();
        oauth["allowHosts"] = json!(["127.0.0.1"]);
        let configured = config(&home, &redis, &service, &oauth);
        let nodes = (0..2).map(|_| home.serve_with(configured.clone(), &ENVIRONMENT)).collect();
        let setting = Setting { service, nodes, home, redis };
        let alice = setting.person(0, ALICE).await;
        Self { setting, relay, alice, pages: String::new(), stored: Vec::new(), answers: Secrets::default() }
    }

    fn keep(&mut self, seen: Seen) -> Seen {
        self.pages.extend(seen.headers.iter().map(|(name, value)| format!("{name}: {value}\n")));
        self.pages.push_str(&seen.text);
        self.stored.extend(self.setting.redis.stored_bytes());
        seen
    }

    async fn get(&mut self, path: &str) -> Seen {
        let seen = self.alice.get(path).await;
        self.keep(seen)
    }

    async fn click(&mut self) -> String {
        let led = click(&mut self.alice).await;
        let url = leads_to(&self.keep(led));
        self.answers.add("state", parameter(&url, "state").expect("a state"));
        url
    }

    /// Answers of another issuer, that refuse, that are good, and that come once more.
    async fn sign_in(&mut self) {
        let url = self.click().await;
        let back = self.setting.service.sign_in(&url, "alice-there").await;
        self.answers.add("code", parameter(&format!("http://x{back}"), "code").expect("a code"));
        let (forged, _) = back.split_once("&iss=").expect("an issuer");
        assert_eq!(self.get(&format!("{forged}&iss=https://other.example")).await.status, 400);
        let url = self.click().await;
        let refused = self.setting.service.refuse(&url).await;
        assert_eq!(self.get(&refused).await.status, 200);
        let url = self.click().await;
        let back = self.setting.service.sign_in(&url, "alice-there").await;
        assert_eq!(self.get(&back).await.status, 200);
        assert_eq!(self.get(&back).await.status, 400);
    }

    /// What has been given is renewed; then by an answer that cannot be read; then the service refuses.
    async fn renew(&mut self) {
        has_passed(Duration::from_secs(1)).await;
        assert_eq!(settled(&self.setting, 1).await, "alice-there read");
        has_passed(Duration::from_secs(1)).await;
        self.relay.next(Fault::Rewritten("\"access_token\"", "\"axess_token\""));
        assert!(settled(&self.setting, 0).await.contains("Connect again"));
        self.get("/guarded/connect").await;
    }

    /// By a code; and it is given back.
    async fn by_code(&mut self) {
        let form = self.get("/guarded/connect").await.form(CODE);
        let begun = self.alice.post(CODE, &[("form", &form)]).await;
        self.keep(begun);
        let page = self.get(CODE).await;
        let address = page.text.split("class=\"button\" href=\"").nth(1).and_then(|rest| rest.split('"').next());
        self.setting.service.enter(address.expect("an address"), "alice-there").await;
        let deadline = Instant::now() + PATIENCE;
        while !self.get(CODE).await.text.contains("is connected. You can go back") {
            assert!(Instant::now() < deadline, "the code is not taken");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(self.setting.said(1, ALICE).await, "alice-there read");
        let removed = self.alice.remove("guarded").await;
        assert!(self.keep(removed).text.contains("took it back"));
    }

    /// From a terminal, which says this.
    async fn in_a_terminal(&mut self) -> String {
        let mut login = Login::begin_with(&self.setting.home, &["--paste"], &ENVIRONMENT);
        let url = login.line_with("code_challenge=");
        self.answers.add("state", parameter(&url, "state").expect("a state"));
        login.paste(&format!("{PUBLIC_URL}{}", self.setting.service.sign_in(&url, "alice-there").await));
        let (ended, out, err) = login.end();
        assert!(ended.success(), "{err}");
        assert_eq!(self.setting.said(0, ALICE).await, "alice-there read");
        self.get("/guarded/connect").await;
        out + &err
    }
}

/// Everything that can be done with a service, well and badly, as a client of this kind.
async fn nothing_leaks(options: &Value, oauth: &Value) {
    let mut scene = Scene::new(options, oauth).await;
    let arguments = Arguments::watch();
    scene.setting.service.set(&json!({ "says": 1 })).await;
    scene.sign_in().await;
    scene.renew().await;
    scene.setting.service.set(&json!({ "says": 3600 })).await;
    scene.by_code().await;
    let terminal = scene.in_a_terminal().await;
    let arguments = arguments.end();

    let mut secrets = Secrets::of(&scene.relay);
    secrets.add("client_secret", SECRET.to_owned());
    for kind in ["access_token", "client_secret", "code", "code_verifier", "device_code", "refresh_token"] {
        assert!(secrets.0.contains_key(kind), "the test has seen no {kind}");
    }
    let logs: String = scene.setting.nodes.iter().map(crate::Bridge::log).collect();
    assert!(
        logs.contains("a token was renewed") && arguments.contains("login guarded"),
        "the test looks in the wrong place"
    );
    let audit = std::fs::read(scene.setting.home.path().join("audit.jsonl")).expect("it is there");
    for secrets in [&secrets, &scene.answers] {
        secrets.are_not_in("a log", logs.as_bytes(), "");
        secrets.are_not_in("the audit", &audit, "");
        secrets.are_not_in("the arguments of a process", arguments.as_bytes(), "");
        secrets.are_not_in("the store", &scene.stored, "");
        // By the state people are led to the service.
        secrets.are_not_in("a page", scene.pages.as_bytes(), "state");
        secrets.are_not_in("a terminal", terminal.as_bytes(), "state");
    }
}

#[tokio::test]
async fn nothing_that_opens_anything_is_in_a_log_a_page_an_argument_or_the_store_in_clear() {
    nothing_leaks(&json!({ "device": { "interval": 1 } }), &found()).await;
}

#[tokio::test]
async fn the_same_holds_for_a_client_that_has_a_secret_of_its_own() {
    let client = json!({
        "client_id": "by-hand", "client_secret": SECRET, "redirect_uris": [format!("{PUBLIC_URL}/oauth/callback/guarded")],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "token_endpoint_auth_method": "client_secret_post",
    });
    let oauth = json!({ "clientId": "by-hand", "clientSecret": { "$env": "A_SECRET" }, "clientAuth": "post" });
    nothing_leaks(&json!({ "dynamic": false, "device": { "interval": 1 }, "client": client }), &oauth).await;
}
