//! Clients that leave in the middle, and answers of Redis that are lost: what was begun is done to its end, and keeps nobody
//! else waiting.

use std::fs;

use serde_json::json;

use crate::faults::{PATIENCE, just_expired, renewals};
use crate::gate::{Gate, Point, Stop};
use crate::one_click::{click, leads_to};
use crate::service::Service;
use crate::support::http::Connection;
use crate::support::{Bridge, Client, Home, Redis, procs};
use crate::visit::{OURS, Person, encoded};
use crate::{ALICE, BOB, Setting, config, device, found};

/// The service has registered the bridge, which is not written down.
const REGISTERED: Point = Point { holds: &[":client:", "'PX', ARGV[3]"], passes: 0, is_done: false };
/// A sign-in was taken, and nothing was asked of the service.
const TAKEN: Point = Point { holds: &[":flow:", "return redis.call('DEL'"], passes: 0, is_done: true };
/// The right to renew a token was given.
const LEASED: Point = Point { holds: &[":lease:{"], passes: 0, is_done: true };
/// What a user had saved was removed, and not given back.
const REMOVED: Point = Point { holds: &["local function remove(key)"], passes: 0, is_done: true };

/// A session was ended.
const REVOKED: Point = Point { holds: &["ZREMRANGEBYSCORE"], passes: 0, is_done: true };
/// A sign-in by a code has given what it gives, and was taken.
const CODE_TAKEN: Point = Point { holds: &[":device:{", "return redis.call('DEL'"], passes: 0, is_done: true };

/// A node behind a gate, and another one.
fn stage() -> (Setting, Gate) {
    let service = Service::start(&json!({ "device": { "interval": 1 } }));
    let (home, redis) = (Home::new(), Redis::start());
    let gate = Gate::to(&redis);
    let direct = config(&home, &redis, &service, &found());
    let mut behind = direct.clone();
    behind["tokenStore"]["url"] = gate.url().into();
    let nodes = vec![home.serve(behind), home.serve(direct)];
    (Setting { service, nodes, home, redis }, gate)
}

/// Leaves where a node stops, which goes on when it has seen that.
async fn leave(node: &Bridge, connection: Connection, stop: Stop) {
    stop.wait().await;
    let own = connection.socket().local_addr().expect("it is connected").port();
    drop(connection);
    let at_node = format!("0100007F:{:04X} 0100007F:{own:04X}", node.address().port());
    let has_left = || (!fs::read_to_string("/proc/net/tcp").expect("Linux").contains(&at_node)).then_some(());
    procs::eventually(PATIENCE, has_left).await.expect("the node sees it");
    stop.release();
}

/// Sends what a person's browser does, with a form or without one, and does not wait for the answer.
async fn asked(person: &Person, path: &str, form: Option<&str>) -> Connection {
    let cookies: Vec<String> = person.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut headers = vec![("Cookie".to_owned(), cookies.join("; "))];
    let kind = [OURS[0], OURS[1], ("Content-Type", "application/x-www-form-urlencoded")];
    headers.extend(kind.iter().filter(|_| form.is_some()).map(|(name, value)| (name.to_string(), value.to_string())));
    let body = form.map(|form| encoded(&[("form", form)])).unwrap_or_default();
    let mut connection = Connection::open(person.address).await.expect("it listens");
    let method = if form.is_some() { "POST" } else { "GET" };
    connection.request(method, path, &headers, body.as_bytes()).await.expect("it is sent");
    connection
}

/// Until the service has been called so often, with this outcome.
async fn called(setting: &Setting, what: &str, times: u64) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while setting.service.count(what).await != times {
        assert!(std::time::Instant::now() < deadline, "{what}: not {times}");
        tokio::time::sleep(procs::LOOK).await;
    }
}

#[tokio::test]
async fn what_is_begun_for_who_leaves_is_done_to_its_end() {
    let (setting, gate) = stage();
    let (mut alice, node) = (setting.person(0, ALICE).await, &setting.nodes[0]);

    let path = "/guarded/connect/start";
    let form = alice.get("/guarded/connect").await.form(path);
    let stop = gate.stop_at(REGISTERED);
    leave(node, asked(&alice, path, Some(&form)).await, stop).await;
    leads_to(&click(&mut setting.person(1, BOB).await).await);
    assert_eq!(setting.service.count("/reg 201").await, 1, "the registration is that of all");

    let answer = setting.service.sign_in(&leads_to(&click(&mut alice).await), "alice-there").await;
    let stop = gate.stop_at(TAKEN);
    leave(node, asked(&alice, &answer, None).await, stop).await;
    called(&setting, "token authorization_code 200", 1).await;

    just_expired(&setting).await;
    let (mut client, stop) = (Client::modern(node, "guarded", Some(ALICE)), gate.stop_at(LEASED));
    let call = client.post("tools/call", json!({ "name": "whoami", "arguments": {} })).await.expect("it listens");
    leave(node, call, stop).await;
    called(&setting, "token refresh_token 200", 1).await;
    assert_eq!((setting.said(1, ALICE).await.as_str(), renewals(&setting).await), ("alice-there read", (1, 0)));

    let path = "/guarded/connect/remove";
    let form = alice.get("/guarded/connect").await.form(path);
    let stop = gate.stop_at(REMOVED);
    leave(node, asked(&alice, path, Some(&form)).await, stop).await;
    called(&setting, "/token/revocation 200", 1).await;
    assert!(setting.said(1, ALICE).await.contains("sign in at"));
}

#[tokio::test]
async fn a_session_that_is_ended_by_who_leaves_is_ended_for_its_listener_too() {
    let (setting, gate) = stage();
    let node = &setting.nodes[0];
    let client = Client::legacy(node, "guarded", Some(ALICE)).await;
    let (path, headers) = (client.path(), client.headers(b"{}"));
    let mut listening = Connection::open(node.address()).await.expect("it listens");
    let mut heard = listening.send("GET", &path, &headers, b"").await.expect("an answer");
    assert_eq!(heard.status, 200);
    let mut ending = Connection::open(node.address()).await.expect("it listens");
    let stop = gate.stop_at(REVOKED);
    ending.request("DELETE", &path, &headers, b"").await.expect("it is sent");
    leave(node, ending, stop).await;
    let heard = tokio::time::timeout(PATIENCE, heard.body()).await.expect("it ends");
    assert!(heard.is_ok(), "{heard:?}");
}

/// The answer of Redis that is waited for at `stop` is lost.
async fn lose(stop: Stop, gate: &Gate) {
    stop.wait().await;
    gate.shut();
    stop.release();
    gate.open();
}

#[tokio::test]
async fn nothing_that_a_service_gave_is_lost_with_an_answer_of_redis() {
    let (setting, gate) = stage();
    let mut alice = setting.person(0, ALICE).await;
    let (_, address) = device::shown(&device::begin(&mut alice).await);
    setting.service.enter(&address, "alice-there").await;
    let lost = lose(gate.stop_at(CODE_TAKEN), &gate);
    let (connected, ()) = tokio::join!(device::look_on(&mut alice), lost);
    assert!(connected.text.contains("is connected. You can go back"), "{}", connected.text);

    let lost = lose(gate.stop_at(REMOVED), &gate);
    let (removed, ()) = tokio::join!(alice.remove("guarded"), lost);
    assert!(removed.text.contains("has confirmed that it took it back"), "{}", removed.text);
    assert_eq!(setting.service.count("/token/revocation 200").await, 1);
}
