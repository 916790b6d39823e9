//! The bridge is killed with many requests live, and nothing of them is left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::engine::Engine;
use super::kinds::{LIVING, bridge};
use super::support::http::Connection;
use super::support::{Bridge, Client, Home, procs};
use super::{SETTLED, can_bind, containers, is_quick, run_directory, stalls};

/// Live requests when the bridge is killed, and how long after that something may still be there.
const LIVE: usize = 100;
const CLEARED: Duration = Duration::from_secs(2);
/// The same with a container for each request, at a first look and else.
const LIVE_CONTAINERS: (usize, usize) = (30, 100);
const CONTAINERS_CLEARED: Duration = Duration::from_secs(5);
/// How long they may take to be live.
const CONTAINERS_LIVE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/hostile runs it"]
async fn nothing_outlives_a_bridge_that_is_killed_with_a_hundred_live_requests() {
    let rounds = if is_quick() { 3 } else { 20 };
    let mut late = 0;
    for round in 0..rounds {
        let home = Home::without_key();
        let mut bridge = bridge(&home, None, "2m");
        let (worker, run_directory) = (bridge.worker(), run_directory(bridge.worker()));
        let clients = live_requests(&bridge, &home).await;
        // By turns either half of the bridge.
        let killed = if round % 2 == 0 { worker } else { bridge.supervisor() };
        procs::kill(killed, Signal::KILL);
        let began = Instant::now();
        let none = || (procs::with_marker(home.marker()).is_empty() && !run_directory.exists()).then_some(());
        let cleared = procs::eventually(SETTLED, none).await;
        let took = began.elapsed();
        assert!(cleared.is_some(), "round {round}: {} left", procs::with_marker(home.marker()).len());
        println!("round {round}: nothing left {took:?} after the kill");
        late += usize::from(took > CLEARED);
        bridge.ended(SETTLED).expect("the supervisor ends too");
        drop(clients);
    }
    assert!(late <= stalls(), "{late} rounds took longer than {CLEARED:?}");
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/hostile runs it"]
async fn no_container_outlives_a_bridge_that_is_killed_with_many_live_requests() {
    if !can_bind() {
        println!("no containers: an engine of the tests' own needs root");
        return;
    }
    let engine = Engine::docker().await;
    let mut late = 0;
    let (rounds, count) = if is_quick() { (2, LIVE_CONTAINERS.0) } else { (20, LIVE_CONTAINERS.1) };
    for round in 0..rounds {
        let home = Home::new();
        let mut stubborn = containers::image(&engine, "hostile", &["stubborn", "delay=100000"]);
        stubborn["startTimeout"] = json!("2m");
        let (mut bridge, _) = containers::bridge(&engine, &home, &[("stubborn", stubborn)]);
        let began = Instant::now();
        let clients = containers::calls(&bridge, "stubborn", count).await;
        let all = procs::eventually(CONTAINERS_LIVE, || (engine.running() == count).then_some(())).await;
        assert!(all.is_some(), "{} of {count} containers\n{}", engine.running(), bridge.log());
        let live = began.elapsed();
        // By turns either half of the bridge.
        let killed = if round % 2 == 0 { bridge.worker() } else { bridge.supervisor() };
        procs::kill(killed, Signal::KILL);
        let began = Instant::now();
        assert!(engine.reaches(0, CONTAINERS_LIVE).await, "{} are left\n{}", engine.count(), bridge.log());
        let cleared = began.elapsed();
        late += usize::from(cleared > CONTAINERS_CLEARED);
        println!("round {round}: {count} containers live after {live:?}, none left {cleared:?} after the kill");
        bridge.ended(SETTLED).expect("the supervisor ends too");
        drop(clients);
    }
    assert!(late <= stalls(), "{late} rounds took longer than {CONTAINERS_CLEARED:?}");
}
/// Opens calls until a hundred servers of every kind that lives long, with their grandchildren, are there.
async fn live_requests(bridge: &Bridge, home: &Home) -> Vec<Connection> {
    let mut connections = Vec::new();
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    for number in 0..LIVE {
        let (name, _, processes) = LIVING[number % LIVING.len()];
        *expected.entry(name).or_default() += processes;
        let mut client = Client::modern(bridge, name, None);
        connections.push(client.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted"));
    }
    let expected = expected.values().sum();
    let there = || (procs::with_marker(home.marker()).len() >= expected).then_some(());
    let reached = procs::eventually(Duration::from_mins(1), there).await;
    assert!(reached.is_some(), "{} of {expected} processes", procs::with_marker(home.marker()).len());
    connections
}
