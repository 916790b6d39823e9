//! Nodes that are stopped or killed while they renew a token, and a Redis that is away meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::faults::{PATIENCE, is_current, just_expired, renewals, settled};
use crate::gate::{Gate, Point};
use crate::relay::Relay;
use crate::service::Service;
use crate::support::{Home, Redis, number, procs};
use crate::{ALICE, Setting, config, found};

/// How long a lease lasts.
const LEASE: Duration = Duration::from_secs(20);

/// The lease was given.
const LEASED: Point = Point { holds: &[":lease:", "'PX', ARGV[3]"], passes: 0, is_done: true };
/// The mark was written.
const MARKED: Point = Point { holds: &["HSETNX"], passes: 0, is_done: true };
/// The client was read under which the token was granted, which is the last before the service is called.
const CLIENT_READ: Point = Point { holds: &["GET", ":client:"], passes: 0, is_done: true };
/// The answer is there, and not written.
const ANSWERED: Point = Point { holds: &["HSETNX"], passes: 1, is_done: false };
/// The answer was written.
const WRITTEN: Point = Point { holds: &["HSETNX"], passes: 1, is_done: true };
/// The lease was given back.
const RELEASED: Point = Point { holds: &[":lease:", "return redis.call('DEL'"], passes: 0, is_done: true };

/// Two nodes, the first of which finds Redis behind a gate.
struct Stage {
    setting: Setting,
    relay: Relay,
    gate: Gate,
    behind: Value,
}

impl Stage {
    fn new() -> Self {
        let relay = Relay::start();
        let service = Service::behind(&relay, &json!({}));
        let (home, redis) = (Home::new(), Redis::start());
        let gate = Gate::to(&redis);
        let direct = config(&home, &redis, &service, &found());
        let mut behind = direct.clone();
        behind["tokenStore"]["url"] = gate.url().into();
        let nodes = vec![home.serve(behind.clone()), home.serve(direct)];
        Self { setting: Setting { service, nodes, home, redis }, relay, gate, behind }
    }

    /// Another node in place of the first, which has ended.
    fn replace_first(&mut self) {
        self.setting.nodes[0] = self.setting.home.serve(self.behind.clone());
    }

    fn go_on(&self) {
        procs::kill(self.setting.nodes[0].worker(), Signal::CONT);
    }

    /// Stops the first node, and returns when none of its threads goes on: the signal reaches one after the other.
    async fn stop(&self) {
        let worker = self.setting.nodes[0].worker();
        procs::kill(worker, Signal::STOP);
        let threads = || std::fs::read_dir(format!("/proc/{worker}/task")).expect("it is there").flatten();
        let is_stopped = |thread: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        procs::eventually(PATIENCE, || threads().all(is_stopped).then_some(())).await.expect("it stops");
    }

    /// Kills the first node, and returns when it has ended.
    async fn kill(&self) {
        let worker = procs::Process::read(self.setting.nodes[0].worker()).expect("it is there");
        procs::kill(worker.pid, Signal::KILL);
        procs::eventually(PATIENCE, || (!worker.is_alive()).then_some(())).await.expect("it ends");
    }
}

/// A call whose node may end or sleep meanwhile.
async fn begin(setting: &Setting) {
    let mut client = crate::Client::modern(&setting.nodes[0], "guarded", Some(ALICE));
    let _ = client.call("whoami", json!({})).await;
}

#[tokio::test]
async fn a_node_that_sleeps_before_it_calls_the_service_does_not_call_it_when_it_wakes() {
    let stage = Stage::new();
    let setting = &stage.setting;
    let rounds = number("TOLLBRIDGE_TEST_OAUTH_ROUNDS", 0);
    let points = [MARKED, CLIENT_READ, LEASED];
    for point in points.iter().cycle().take(rounds.max(1)) {
        just_expired(setting).await;
        let (came, (done, _)) = (stage.relay.came(), renewals(setting).await);
        let stop = stage.gate.stop_at(*point);
        let meanwhile = async {
            stop.wait().await;
            stage.stop().await;
            stop.release();
            let slept = std::time::Instant::now();
            assert_eq!(settled(setting, 1).await, "alice-there read", "{point:?}");
            if rounds > 0 {
                tokio::time::sleep((2 * LEASE).saturating_sub(slept.elapsed())).await;
            }
            stage.go_on();
        };
        tokio::join!(begin(setting), meanwhile);
        assert_eq!(settled(setting, 0).await, "alice-there read", "{point:?}");
        assert_eq!((stage.relay.came() - came, renewals(setting).await), (1, (done + 1, 0)), "{point:?}");
        is_current(setting, 0).await;
    }
}

#[tokio::test]
async fn a_node_that_sleeps_while_the_service_answers_writes_over_nothing_when_it_wakes() {
    let stage = Stage::new();
    let setting = &stage.setting;
    for _ in 0..number("TOLLBRIDGE_TEST_OAUTH_ROUNDS", 1) {
        just_expired(setting).await;
        let (came, (done, refused)) = (stage.relay.came(), renewals(setting).await);
        let held = stage.relay.hold();
        let meanwhile = async {
            held.wait().await;
            stage.stop().await;
            // It takes no refresh token twice, and takes back all that it granted.
            let said = settled(setting, 1).await;
            assert!(said.contains("because an answer of the service was lost on its way"), "{said}");
            held.release();
            stage.go_on();
        };
        tokio::join!(begin(setting), meanwhile);
        for node in [0, 1, 0] {
            let said = settled(setting, node).await;
            assert!(said.contains("because an answer of the service was lost on its way"), "{said}");
        }
        assert_eq!((stage.relay.came() - came, renewals(setting).await), (2, (done + 1, refused + 1)));
    }
}

#[tokio::test]
async fn what_the_service_gave_is_saved_when_redis_is_back() {
    let stage = Stage::new();
    let setting = &stage.setting;
    for _ in 0..number("TOLLBRIDGE_TEST_OAUTH_ROUNDS", 1) {
        just_expired(setting).await;
        let (came, (done, _)) = (stage.relay.came(), renewals(setting).await);
        let held = stage.relay.hold();
        let meanwhile = async {
            held.wait().await;
            stage.gate.shut();
            let before = stage.gate.turned_away();
            held.release();
            let tries = || (stage.gate.turned_away() > before + 2).then_some(());
            procs::eventually(PATIENCE, tries).await.expect("it tries to save it");
            stage.gate.open();
        };
        tokio::join!(begin(setting), meanwhile);
        for said in join_all([0, 1].map(|node| settled(setting, node))).await {
            assert_eq!(said, "alice-there read");
        }
        assert_eq!((stage.relay.came() - came, renewals(setting).await), (1, (done + 1, 0)));
    }
}

#[tokio::test]
async fn a_node_that_is_killed_loses_no_sign_in_but_where_it_alone_had_the_answer() {
    let mut stage = Stage::new();
    let rounds = number("TOLLBRIDGE_TEST_OAUTH_ROUNDS", 0);
    let all = [Some(LEASED), Some(MARKED), None, Some(ANSWERED), Some(RELEASED), Some(WRITTEN)];
    // Most last as long as the lease of who was killed.
    let points = if rounds > 0 { &all[..] } else { &all[3..] };
    for point in points.iter().cycle().take(points.len() * rounds.max(1)) {
        let setting = &stage.setting;
        let leases = || setting.redis.ask(&["--scan", "--pattern", "*:lease:*"]);
        procs::eventually(PATIENCE, || leases().trim().is_empty().then_some(())).await.expect("leases end");
        just_expired(setting).await;
        let (came, (done, refused)) = (stage.relay.came(), renewals(setting).await);
        let (stop, held) = (point.map(|point| stage.gate.stop_at(point)), point.is_none().then(|| stage.relay.hold()));
        let meanwhile = async {
            match (&stop, &held) {
                (Some(stop), _) => stop.wait().await,
                (None, Some(held)) => held.wait().await,
                (None, None) => {}
            }
            stage.kill().await;
            // What it had begun to say ends with it.
            stage.gate.shut();
            stop.iter().for_each(crate::gate::Stop::release);
            held.iter().for_each(crate::relay::Held::release);
        };
        tokio::join!(begin(setting), meanwhile);
        stage.gate.open();
        let said = settled(setting, 1).await;
        let came = stage.relay.came() - came;
        if *point == Some(ANSWERED) || point.is_none() {
            assert!(said.contains("because an answer of the service was lost on its way"), "{point:?}: {said}");
            assert_eq!((came, renewals(setting).await), (2, (done + 1, refused + 1)), "{point:?}");
        } else {
            assert_eq!(said, "alice-there read", "{point:?}");
            assert_eq!((came, renewals(setting).await), (1, (done + 1, refused)), "{point:?}");
            is_current(setting, 1).await;
        }
        assert_eq!(settled(setting, 1).await, said);
        stage.replace_first();
        assert_eq!(settled(&stage.setting, 0).await, said, "{point:?}");
    }
}

/// What alice has is renewed by a node with these keys, and sealed with `k2` by `keys rotate` at this point, or else once
/// the service has acted.
async fn keys_are_rotated_meanwhile(keys: [&str; 2], point: Option<Point>) {
    let mut stage = Stage::new();
    just_expired(&stage.setting).await;
    let home = &stage.setting.home;
    let file = |id: &str| home.path().join(format!("{id}.key"));
    home.run(&["keygen", "--out", &file("k2").to_string_lossy()], b"");
    let ring = |ids: [&str; 2]| json!(ids.map(|id| json!({ "id": id, "file": file(id) })));
    let (of_node, of_command) = (ring(keys), ring(["k2", "k1"]));
    stage.behind["tokenStore"]["keys"] = of_node;
    stage.replace_first();
    stage.behind["tokenStore"]["keys"] = of_command;
    let Stage { setting, relay, gate, behind } = &stage;
    let config = setting.home.write(behind.clone());
    let (came, (done, _)) = (relay.came(), renewals(setting).await);
    let (stop, held) = (point.map(|point| gate.stop_at(point)), point.is_none().then(|| relay.hold()));
    let meanwhile = async {
        match (&stop, &held) {
            (Some(stop), _) => stop.wait().await,
            (None, Some(held)) => held.wait().await,
            (None, None) => {}
        }
        let said = setting.home.run(&["keys", "rotate", "--config", &config.to_string_lossy()], b"");
        assert!(said.starts_with("sealed "), "{said}");
        stop.iter().for_each(crate::gate::Stop::release);
        held.iter().for_each(crate::relay::Held::release);
    };
    tokio::join!(begin(setting), meanwhile);
    assert_eq!(settled(setting, 0).await, "alice-there read");
    assert_eq!((relay.came() - came, renewals(setting).await), (1, (done + 1, 0)));
    is_current(setting, 0).await;
}

#[tokio::test]
async fn a_client_that_is_sealed_anew_between_two_looks_for_it_is_found() {
    keys_are_rotated_meanwhile(["k2", "k1"], Some(CLIENT_READ)).await;
}

#[tokio::test]
async fn what_the_service_gave_is_saved_where_the_mark_was_sealed_anew_meanwhile() {
    keys_are_rotated_meanwhile(["k1", "k2"], None).await;
}
