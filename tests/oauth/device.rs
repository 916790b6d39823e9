//! People sign in by a code that they enter at the service, on any device.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::service::Service;
use crate::support::{Bridge, Client, Home, Redis};
use crate::terminal::Login;
use crate::visit::{Person, Seen};
use crate::{ALICE, BOB, Setting, config, found};

const CODE: &str = "/guarded/connect/device";

/// What the service has been asked whether a code was entered, and said this.
const ASKED: &str = "token urn:ietf:params:oauth:grant-type:device_code";

/// How long something may take that is done in seconds.
const PATIENCE: Duration = Duration::from_mins(2);

fn service(interval: u64) -> Service {
    Service::start(&json!({ "device": { "interval": interval } }))
}

/// Begins a sign-in by a code, and looks at the page that shows it.
pub(crate) async fn begin(person: &mut Person) -> Seen {
    let form = person.get("/guarded/connect").await.form(CODE);
    let begun = person.post(CODE, &[("form", &form)]).await;
    assert_eq!((begun.status, begun.header("location")), (303, CODE), "{}", begun.text);
    person.get(CODE).await
}

/// The code on a page, and the address that has it.
pub(crate) fn shown(page: &Seen) -> (String, String) {
    assert_eq!(page.status, 200, "{}", page.text);
    let between = |begins: &str, ends: char| {
        let rest = page.text.split(begins).nth(1).unwrap_or_else(|| panic!("no {begins}: {}", page.text));
        rest.split(ends).next().unwrap_or_default().to_owned()
    };
    (between("class=\"code\"><code>", '<'), between("class=\"button\" href=\"", '"'))
}

/// Looks again as often as the page says, until it does not.
pub(crate) async fn look_on(person: &mut Person) -> Seen {
    let until = Instant::now() + PATIENCE;
    loop {
        let seen = person.get(CODE).await;
        let Ok(seconds) = seen.header("refresh").parse() else { return seen };
        assert!(Instant::now() < until, "{}", seen.text);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

async fn said(bridge: &Bridge) -> String {
    Client::modern(bridge, "guarded", Some(ALICE)).call("whoami", json!({})).await.expect("an answer").text()
}

/// On a bridge with this store.
async fn a_code_connects(service: &Service, home: &Home, config: Value) {
    let bridge = home.serve(config);
    let mut alice = Person::at(bridge.address());
    assert_eq!(alice.sign_in("guarded", ALICE).await.status, 303);
    let page = begin(&mut alice).await;
    let (code, address) = shown(&page);
    assert_eq!(page.header("refresh"), "1");
    assert!(address.starts_with(&service.issuer()) && address.contains(&code), "{address}");
    assert!(page.text.contains("<svg xmlns") && !page.text.contains("<?xml"), "a picture of it");
    service.enter(&address, "alice-there").await;
    let done = look_on(&mut alice).await;
    assert!(done.status == 200 && done.text.contains("is connected. You can go back"), "{} {}", done.status, done.text);
    assert_eq!(said(&bridge).await, "alice-there read");
    assert!(alice.get(CODE).await.text.contains("is connected"), "however often it is looked at");
    assert_eq!(service.count(&format!("{ASKED} 200")).await, 1);
    assert!(!bridge.log().contains(&code), "the code is in the log");
}

#[tokio::test]
async fn who_enters_the_code_is_connected_on_a_bridge_with_redis() {
    let (service, home, redis) = (service(1), Home::new(), Redis::start());
    a_code_connects(&service, &home, config(&home, &redis, &service, &found())).await;
}

#[tokio::test]
async fn who_enters_the_code_is_connected_on_a_bridge_with_an_embedded_store() {
    let (service, home, redis) = (service(1), Home::new(), Redis::start());
    let mut config = config(&home, &redis, &service, &found());
    config["tokenStore"] = home.embedded();
    a_code_connects(&service, &home, config).await;
}

#[tokio::test]
async fn the_service_is_asked_by_who_looks_alone_once_and_not_before_its_time() {
    let setting = Setting::with(service(3), &found());
    let mut alice = setting.person(0, ALICE).await;
    let (began, asked) = (Instant::now(), format!("{ASKED} 400"));
    begin(&mut alice).await;
    let mut there = setting.elsewhere(&alice);
    let mut count = 0;
    while count < 2 {
        let (here, there) = tokio::join!(alice.get(CODE), there.get(CODE));
        for seen in [here, there] {
            assert!((1..=3).contains(&seen.header("refresh").parse().unwrap()), "{}", seen.text);
        }
        count = setting.service.count(&asked).await;
        assert!(count <= began.elapsed().as_secs() / 3, "it was asked {count} times in {:?}", began.elapsed());
        assert!(began.elapsed() < PATIENCE, "it is not asked");
    }

    setting.service.set(&json!({ "slow": 1 })).await;
    let until = Instant::now() + PATIENCE;
    let slower = loop {
        let seen = alice.get(CODE).await;
        let seconds: u64 = seen.header("refresh").parse().unwrap();
        if setting.service.count("slow_down").await == 1 {
            break seconds;
        }
        assert!(Instant::now() < until, "it is not asked again");
    };
    assert!((4..=8).contains(&slower), "five seconds more than three: {slower}");
    assert!(setting.redis.ask(&["--scan", "--pattern", "*:lease:*"]).trim().is_empty(), "the lease is given back");
}

#[tokio::test]
async fn a_code_is_its_users_alone_and_a_newer_one_ends_it() {
    let setting = Setting::with(service(1), &found());
    let mut alice = setting.person(0, ALICE).await;
    let older = shown(&begin(&mut alice).await);
    let mut bob = setting.person(1, BOB).await;
    assert_eq!(bob.get(CODE).await.status, 400, "bob has begun none");
    let newer = shown(&begin(&mut alice).await);
    assert_ne!(older.0, newer.0);
    setting.service.enter(&older.1, "older-there").await;
    let (before, until) = (setting.service.count(&format!("{ASKED} 400")).await, Instant::now() + PATIENCE);
    while setting.service.count(&format!("{ASKED} 400")).await == before {
        assert_eq!(shown(&alice.get(CODE).await), newer, "nobody asks for the older");
        assert!(Instant::now() < until, "the newer is not asked for");
    }
    setting.service.enter(&newer.1, "newer-there").await;
    assert!(look_on(&mut alice).await.text.contains("is connected"));
    assert_eq!(setting.said(1, ALICE).await, "newer-there read");
    assert!(setting.said(1, BOB).await.contains("/guarded/connect"));
    let stored = setting.redis.stored_bytes();
    assert!(!stored.windows(newer.0.len()).any(|part| part == newer.0.as_bytes()), "a code is in the store");

    let form = alice.get("/guarded/connect").await.form("/guarded/connect/remove");
    assert_eq!(alice.post(CODE, &[("form", &form)]).await.status, 403, "another form's");
    alice.remove("guarded").await;
    let (_, address) = shown(&begin(&mut alice).await);
    setting.service.abort(&address).await;
    let seen = look_on(&mut alice).await;
    assert!(seen.text.contains("You did not allow it"), "{} {}", seen.status, seen.text);
    assert_eq!(alice.get(CODE).await.status, 400, "it has ended");
}

#[tokio::test]
async fn a_call_that_waits_and_a_terminal_go_on_once_the_code_is_entered() {
    let setting = Setting::with(service(1), &found());
    let mut alice = setting.person(0, ALICE).await;
    let (_, address) = shown(&begin(&mut alice).await);
    let mut client = Client::modern(&setting.nodes[1], "guarded", Some(ALICE));
    let (answer, ()) = tokio::join!(
        client.call("connect_account", json!({ "wait": true })),
        setting.service.enter(&address, "alice-there"),
    );
    let answer = answer.expect("an answer").text();
    assert!(answer.contains("is connected"), "nobody looked at the page: {answer}");
    alice.remove("guarded").await;

    let mut login = Login::begin(&setting.home, &["--device"]);
    let address = login.line_with("user_code=");
    setting.service.enter(&address, "alice-again").await;
    let (status, out, err) = login.end();
    assert_eq!((status.code(), &*out), (Some(0), "alice is connected to guarded\n"), "{err}");
    assert_eq!(setting.said(0, ALICE).await, "alice-again read");
}

#[tokio::test]
async fn what_was_written_down_when_the_code_was_shown_is_done_although_nothing_can_be_any_more() {
    let (service, home, redis) = (service(1), Home::new(), Redis::start());
    let mut configured = config(&home, &redis, &service, &found());
    let [kept, gone] = ["kept", "gone"].map(|name| home.path().join(name));
    std::fs::create_dir(&kept).expect("a writable directory");
    configured["audit"] = json!({ "file": kept.join("audit.jsonl"), "required": true });
    let bridge = home.serve(configured);
    let mut alice = Person::at(bridge.address());
    assert_eq!(alice.sign_in("guarded", ALICE).await.status, 303);
    let (_, address) = shown(&begin(&mut alice).await);
    std::fs::rename(&kept, &gone).expect("it is there");
    bridge.signal(Signal::HUP);
    bridge.log_with("`audit.file` cannot be opened anew");
    service.enter(&address, "alice-there").await;
    assert!(look_on(&mut alice).await.text.contains("is connected. You can go back"));
    assert_eq!(said(&bridge).await, "alice-there read", "what the service gives once is not lost");
    let lines = std::fs::read_to_string(gone.join("audit.jsonl")).expect("it is where it was moved to");
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let changes: Vec<Value> = events.filter(|event| event["event"] == "token-set").collect();
    let [begun, done] = &changes[..] else { panic!("{lines}") };
    assert_eq!((&begun["outcome"], &done["outcome"]), (&json!("begun"), &json!("done")));
    assert!(begun["change"].is_string() && begun["change"] == done["change"], "{lines}");
}
