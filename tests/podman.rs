//! Servers in containers of podman, which has no daemon: what watches over a container is a descendant of the bridge.

#[path = "containers/engine.rs"]
mod engine;
#[path = "containers/fixture.rs"]
mod fixture;
#[expect(dead_code, reason = "only an engine with a daemon can be killed")]
#[path = "containers/spares.rs"]
mod spares;
mod support;

use std::time::{Duration, Instant};

use engine::Engine;
use fixture::{CLEARED, PATIENCE, becomes_ready, bridge, calls, image, live_containers, ready};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Client, Home, procs};
use tokio::task::JoinSet;
use tollbridge::upstream::process::instance::Instance;

/// Requests of the long test, and clients at once.
const REQUESTS: usize = 60;
const CLIENTS: usize = 6;
/// How long a request takes during which many others end.
const LONG: Duration = Duration::from_secs(3);
/// Bridges that are killed while their containers are being made.
const ROUNDS: usize = 4;

/// What podman knows of, also half of a container, and what runs, is mounted or is written down without its knowledge.
fn left(engine: &Engine) -> Vec<String> {
    let known = engine.call(&["ps", "--all", "--external", "--format={{.Names}} {{.Status}}"]);
    let place = engine.directory();
    let place = place.to_string_lossy();
    let processes = procs::all().into_iter().map(|process| procs::command_line(process.pid).join(" "));
    let processes = processes.filter(|line| line.contains("conmon") && line.contains(&*place));
    let mounts = engine.mounts();
    // The one that podman makes for its storage stays.
    let mounts = mounts.lines().filter(|line| line.contains(&*place) && !line.contains("/data/overlay "));
    known.lines().chain(mounts).map(str::to_owned).chain(processes).collect()
}

/// How long it takes until nothing is left, if it ever is.
async fn gone(engine: &Engine) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if left(engine).is_empty() {
            return Some(began.elapsed());
        }
        // Each look holds locks and takes the time of those who are to remove something.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    None
}

/// How long nothing being left has taken, on a machine where podman is as quick as it usually is: it does the work, and is
/// slow where the machine is.
fn by_usual_pace(engine: &Engine, took: Duration) -> Duration {
    /// What it takes at most to make a container and to remove it.
    const USUAL: Duration = Duration::from_secs(1);
    if took < CLEARED {
        return took;
    }
    let began = Instant::now();
    engine.call(&["rm", "--force", "--time=0", &engine.somebody_elses(None)]);
    took.mul_f64(USUAL.div_duration_f64(began.elapsed()).min(1.0))
}

mod of_root {
    use super::Engine;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_of_all_kinds_leave_nothing_and_do_not_end_the_containers_of_others() {
        super::requests_of_all_kinds_leave_nothing_and_do_not_end_the_containers_of_others(Engine::podman().await)
            .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_outlives_a_bridge_that_is_killed_or_stopped_twice() {
        super::nothing_outlives_a_bridge_that_is_killed_or_stopped_twice(Engine::podman().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_half_made_outlives_a_bridge_that_is_killed() {
        super::nothing_half_made_outlives_a_bridge_that_is_killed(Engine::podman().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_dead_bridges_left_is_removed_and_nothing_else() {
        super::what_dead_bridges_left_is_removed_and_nothing_else(Engine::podman().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_token_is_seen_by_its_server_and_by_no_one_who_asks_podman() {
        super::a_token_is_seen_by_its_server_and_by_no_one_who_asks_podman(Engine::podman().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn containers_that_wait_are_given_the_token_and_no_one_who_asks_the_engine_is_shown_it() {
        let engine = Engine::podman().await;
        super::spares::containers_that_wait_are_given_the_token_and_no_one_who_asks_the_engine_is_shown_it(engine)
            .await;
    }
}

mod rootless {
    use super::Engine;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_of_all_kinds_leave_nothing_and_do_not_end_the_containers_of_others() {
        super::requests_of_all_kinds_leave_nothing_and_do_not_end_the_containers_of_others(Engine::rootless().await)
            .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_outlives_a_bridge_that_is_killed_or_stopped_twice() {
        super::nothing_outlives_a_bridge_that_is_killed_or_stopped_twice(Engine::rootless().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_half_made_outlives_a_bridge_that_is_killed() {
        super::nothing_half_made_outlives_a_bridge_that_is_killed(Engine::rootless().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_dead_bridges_left_is_removed_and_nothing_else() {
        super::what_dead_bridges_left_is_removed_and_nothing_else(Engine::rootless().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_token_is_seen_by_its_server_and_by_no_one_who_asks_podman() {
        super::a_token_is_seen_by_its_server_and_by_no_one_who_asks_podman(Engine::rootless().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn containers_that_wait_are_given_the_token_and_no_one_who_asks_the_engine_is_shown_it() {
        let engine = Engine::rootless().await;
        super::spares::containers_that_wait_are_given_the_token_and_no_one_who_asks_the_engine_is_shown_it(engine)
            .await;
    }
}

async fn requests_of_all_kinds_leave_nothing_and_do_not_end_the_containers_of_others(engine: Engine) {
    let home = Home::new();
    let raw = json!({ "command": "podman", "args": ["run", "tollbridge-test/hostile:1", "polite"] });
    let long = LONG.as_millis().to_string();
    let servers = [
        ("polite", image(&engine, "hostile", &["polite"])),
        ("stubborn", image(&engine, "hostile", &["stubborn", "family=yes"])),
        ("raw", raw),
        ("long", image(&engine, "hostile", &["polite", &format!("delay={long}")])),
    ];
    let (bridge, admin) = bridge(&engine, &home, &servers);
    let mut clients = JoinSet::new();
    for number in 0..REQUESTS {
        if clients.len() == CLIENTS {
            clients.join_next().await.expect("some run").expect("no client panics");
        }
        let name = if number % 20 == 0 { "long" } else { servers[number % 3].0 };
        let mut client = Client::modern(&bridge, name, None);
        clients.spawn(async move {
            let params = json!({ "name": "act", "arguments": {} });
            if number % 3 == 2 {
                let connection = client.post("tools/call", params).await.expect("it is accepted");
                // Also while its container is being made.
                tokio::time::sleep(Duration::from_millis(number as u64 * 37 % 300)).await;
                drop(connection);
            } else {
                let answer = client.request("tools/call", params).await.expect("every request is answered");
                assert_eq!(answer.text(), "done", "{name}: {answer:?}");
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("no client panics");
    }
    assert!(gone(&engine).await.is_some(), "{:#?}\n{}", left(&engine), bridge.log());
    assert!(becomes_ready(admin, true, PATIENCE).await);
}

async fn nothing_outlives_a_bridge_that_is_killed_or_stopped_twice(engine: Engine) {
    for end in ["worker", "supervisor", "both signals"] {
        procs::in_time(CLEARED, async || {
            let home = Home::new();
            let servers = [("silent", image(&engine, "hostile", &["silent", "stubborn=yes"]))];
            let (mut bridge, admin) = bridge(&engine, &home, &servers);
            let clients = live_containers(&engine, &bridge, "silent").await;
            assert!(ready(admin).await);
            match end {
                "worker" => procs::kill(bridge.worker(), Signal::KILL),
                "supervisor" => bridge.signal(Signal::KILL),
                _ => drop(bridge.stop_at_once().expect("the second signal is immediate")),
            }
            let gone = gone(&engine).await;
            let took = gone.unwrap_or_else(|| panic!("{end}: {:#?}\n{}", left(&engine), bridge.log()));
            bridge.ended(PATIENCE).expect("it ends");
            drop(clients);
            by_usual_pace(&engine, took)
        })
        .await;
    }
}

async fn nothing_half_made_outlives_a_bridge_that_is_killed(engine: Engine) {
    for round in 0..ROUNDS {
        procs::in_time(CLEARED, async || {
            let home = Home::new();
            let servers = [("silent", image(&engine, "hostile", &["silent", "stubborn=yes"]))];
            let (mut bridge, _) = bridge(&engine, &home, &servers);
            let clients = calls(&bridge, "silent", fixture::LIVE).await;
            // Some are made by now, some are being made.
            tokio::time::sleep(Duration::from_millis(60) * u32::try_from(round).expect("few")).await;
            let killed = if round % 2 == 0 { bridge.worker() } else { bridge.supervisor() };
            procs::kill(killed, Signal::KILL);
            let gone = gone(&engine).await;
            let took = gone.unwrap_or_else(|| panic!("{round}: {:#?}\n{}", left(&engine), bridge.log()));
            bridge.ended(PATIENCE).expect("it ends");
            drop(clients);
            by_usual_pace(&engine, took)
        })
        .await;
    }
}

async fn what_dead_bridges_left_is_removed_and_nothing_else(engine: Engine) {
    let home = Home::new();
    let alive = Instance::own().to_string();
    let (stem, _) = alive.rsplit_once('.').expect("four parts");
    let dead = format!("{stem}.1");
    let spared = [Some(alive.as_str()), None].map(|label| engine.somebody_elses(label));
    let swept = engine.somebody_elses(Some(&dead));
    let (mut bridge, _) = bridge(&engine, &home, &[("polite", image(&engine, "hostile", &["polite"]))]);
    let gone = || (!engine.has(&swept)).then_some(());
    assert!(procs::eventually(PATIENCE, gone).await.is_some(), "{}", bridge.log());
    assert!(bridge.stop().success());
    for id in &spared {
        assert!(engine.has(id), "a container of somebody else is gone");
        engine.call(&["rm", "--force", "--time=0", id]);
    }
}

async fn a_token_is_seen_by_its_server_and_by_no_one_who_asks_podman(engine: Engine) {
    const TOKEN: &str = "tok-83d0e6c1";
    let home = Home::new();
    let file = json!({ "$userTokenFile": "<<token>>" });
    let mut by_file = image(&engine, "hostile", &["tells"]);
    by_file["env"] = json!({ "HOSTILE_TOKEN_FILE": file });
    let mut by_variable = image(&engine, "hostile", &["tells"]);
    by_variable["env"] = json!({ "HOSTILE_TOKEN": { "$userToken": "<<token>>" } });
    let raw = json!({ "command": "podman", "env": { "HOSTILE_TOKEN_FILE": file },
        "args": ["run", "-e", { "$userToken": "HOSTILE_TOKEN=<<token>>" }, "tollbridge-test/hostile:1", "tells"] });
    let mut silent = by_file.clone();
    silent["args"] = json!(["silent"]);
    let servers = [("file", by_file), ("variable", by_variable), ("raw", raw), ("silent", silent)];
    let (bridge, _) = bridge(&engine, &home, &servers);
    for (server, _) in &servers {
        home.set_token_by(engine.command(&fixture::program(&engine, &home)), "alice", server, TOKEN);
    }
    for (server, by_file, by_variable) in [("file", TOKEN, ""), ("variable", "", TOKEN), ("raw", TOKEN, TOKEN)] {
        let answer = Client::modern(&bridge, server, None).call("act", json!({})).await.expect("it is answered");
        let told: Value = serde_json::from_str(&answer.text()).expect("JSON");
        assert_eq!((&told["file"], &told["variable"]), (&json!(by_file), &json!(by_variable)), "{server}");
    }
    assert!(engine.reaches(0, PATIENCE).await, "what shows its token in a variable is gone");
    let clients = live_containers(&engine, &bridge, "silent").await;
    fixture::nobody_sees(&engine, TOKEN);
    drop(clients);
    assert!(gone(&engine).await.is_some(), "{:#?}", left(&engine));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_confined_and_has_no_log_on_disk() {
    let (engine, home) = (Engine::podman().await, Home::new());
    let (bridge, _) = bridge(&engine, &home, &[("silent", fixture::confined(&engine, &home))]);
    let clients = live_containers(&engine, &bridge, "silent").await;
    let known: Value =
        serde_json::from_str(&engine.call(&["container", "inspect", &engine.containers()[0]])).expect("JSON");
    let host = &known[0]["HostConfig"];
    assert_eq!(host["LogConfig"]["Type"], "none");
    assert_eq!(known[0]["EffectiveCaps"].as_array().map_or(0, Vec::len), 0, "{}", known[0]["EffectiveCaps"]);
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
    assert_eq!((&host["AutoRemove"], &host["ReadonlyRootfs"]), (&json!(true), &json!(true)));
    assert_eq!(
        (&host["Memory"], &host["PidsLimit"], &host["NanoCpus"]),
        (&json!(64 << 20), &json!(32), &json!(500_000_000))
    );
    assert_eq!((&known[0]["Config"]["User"], &host["NetworkMode"]), (&json!("4711:4711"), &json!("none")));
    assert_eq!(known[0]["Mounts"][0]["RW"], false);
    drop(clients);
    assert!(gone(&engine).await.is_some(), "{:#?}", left(&engine));
}
