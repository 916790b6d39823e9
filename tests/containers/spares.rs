//! Containers that wait before the first instruction of their program, on each engine.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::engine::Engine;
use super::fixture::{self, CLEARED, PATIENCE, bridge, image};
use super::support::{Bridge, Client, Home, metric, procs};

const TOKEN: &str = "tok-6be1d04c";
const WAITING: &str = "spares{state=\"waiting\"}";

/// How long spares may take to come back after an engine that was gone: the pause between tries is doubled meanwhile.
const BACK: Duration = Duration::from_mins(1);

async fn until(bridge: &Bridge, admin: SocketAddr, series: &str, is_right: impl Fn(u64) -> bool, within: Duration) {
    let deadline = Instant::now() + within;
    loop {
        let count = metric(admin, &format!("tollbridge_{series}")).await.unwrap_or_default();
        let count: u64 = format!("{count:.0}").parse().expect("a number");
        if is_right(count) {
            return;
        }
        assert!(Instant::now() < deadline, "{series}: {count}\n{}", bridge.log());
        tokio::time::sleep(procs::LOOK).await;
    }
}

/// What the server says of its token.
async fn told(bridge: &Bridge, server: &str) -> Value {
    let answer = Client::modern(bridge, server, None).call("act", json!({})).await.expect("it is answered");
    serde_json::from_str::<Value>(&answer.text()).unwrap_or_else(|_| panic!("{answer:?}\n{}", bridge.log()))["variable"]
        .take()
}

/// A server that takes a token, with one spare.
fn with_token(mut server: Value) -> Value {
    server["env"] = json!({ "HOSTILE_TOKEN": { "$userToken": "<<token>>" } });
    server["spares"] = json!(1);
    server
}

pub(crate) async fn a_container_that_waits_serves_one_request_another_takes_its_place_and_none_is_left(engine: Engine) {
    let home = Home::new();
    let mut waiting = image(&engine, "hostile", &["polite"]);
    waiting["spares"] = json!(1);
    let (mut bridge, admin) = bridge(&engine, &home, &[("s", waiting)]);
    let mut served = Vec::new();
    for calls in 1..=2 {
        let deadline = Instant::now() + PATIENCE;
        let waiting = loop {
            until(&bridge, admin, WAITING, |waiting| waiting == 1, PATIENCE).await;
            match engine.containers() {
                waiting if engine.running() == 1 && waiting != served => break waiting,
                _ => assert!(Instant::now() < deadline, "{}", bridge.log()),
            }
        };
        let answer = Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
        assert_eq!(answer.text(), "done");
        until(&bridge, admin, "spares_taken_total", |taken| taken == calls, PATIENCE).await;
        served = waiting;
    }
    assert!(bridge.stop().success());
    assert!(engine.reaches(0, CLEARED).await, "{:?}", engine.containers());
}

pub(crate) async fn containers_that_wait_are_given_the_token_and_no_one_who_asks_the_engine_is_shown_it(
    engine: Engine,
) {
    let home = Home::new();
    let mut confined = with_token(fixture::confined(&engine, &home));
    confined["args"] = json!(["tells"]);
    let raw = json!({ "command": engine.kind, "args": ["run", "-e", "HOSTILE_TOKEN", "--entrypoint", "/server", "--",
        "tollbridge-test/hostile:1", "tells"] });
    let silent = with_token(image(&engine, "hostile", &["silent"]));
    let servers = [("confined", confined), ("raw", with_token(raw)), ("silent", silent)];
    let (mut bridge, admin) = bridge(&engine, &home, &servers);
    for (server, _) in &servers {
        home.set_token_by(engine.command(&fixture::program(&engine, &home)), "alice", server, TOKEN);
    }
    until(&bridge, admin, WAITING, |waiting| waiting == 3, PATIENCE).await;
    for server in ["confined", "raw"] {
        assert_eq!(told(&bridge, server).await, TOKEN);
    }
    let mut silent = Client::modern(&bridge, "silent", None);
    let call = silent.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted");
    until(&bridge, admin, "spares_taken_total", |taken| taken == 3, PATIENCE).await;
    // One of them has a spare, and another starts its own in the same way.
    assert_eq!(tokio::join!(told(&bridge, "raw"), told(&bridge, "raw")), (json!(TOKEN), json!(TOKEN)));
    for name in engine.containers() {
        // One may be being removed.
        let known = String::from_utf8(engine.output(&["container", "inspect", &name]).stdout).expect("text");
        assert!(!known.contains(TOKEN), "{known}");
    }
    let shown = procs::all().into_iter().filter(|process| procs::command_line(process.pid).join(" ").contains(TOKEN));
    assert_eq!(shown.count(), 0, "ps shows the token");
    drop(call);
    assert!(bridge.stop().success());
    assert!(!bridge.log().contains(TOKEN));
    assert!(engine.reaches(0, PATIENCE).await, "{:?}", engine.containers());
}

pub(crate) async fn containers_that_wait_are_replaced_when_their_engine_was_killed(engine: Engine) {
    let home = Home::new();
    let server = with_token(image(&engine, "hostile", &["tells"]));
    let (bridge, admin) = bridge(&engine, &home, &[("s", server)]);
    home.set_token("alice", "s", TOKEN);
    until(&bridge, admin, WAITING, |waiting| waiting == 1, PATIENCE).await;
    let gone = engine.end(Signal::KILL);
    until(&bridge, admin, "spares_discarded_total{why=\"ended\"}", |ended| ended >= 1, PATIENCE).await;
    drop(gone);
    until(&bridge, admin, WAITING, |waiting| waiting == 1, BACK).await;
    assert_eq!(told(&bridge, "s").await, TOKEN);
    drop(bridge);
    assert!(engine.reaches(0, PATIENCE).await, "{:?}", engine.containers());
}
