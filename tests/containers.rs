//! Servers in containers, on a real engine: each request has its own, and whatever ends the request, the bridge or the
//! engine, none is left.

#[path = "containers/engine.rs"]
mod engine;
#[path = "containers/fixture.rs"]
mod fixture;
#[path = "containers/spares.rs"]
mod spares;
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use engine::Engine;
use fixture::{CLEARED, PATIENCE, becomes_ready, bridge, image, live_containers, ready};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Bridge, Client, Home, procs};
use tokio::task::JoinSet;
use tollbridge::upstream::process::instance::Instance;

/// How many requests the long test makes, if this variable does not say.
const REQUESTS: (&str, usize) = ("TOLLBRIDGE_CONTAINER_REQUESTS", 300);
/// Clients at once.
const CLIENTS: usize = 6;
/// One client in so many leaves.
const LEAVER: usize = 10;
/// How long an answer may take that waits for no engine, which is away for longer.
const SOON: Duration = Duration::from_secs(6);
/// How long the engine hangs.
const HUNG: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_with_leaving_clients_and_stubborn_servers_leave_no_container() {
    #[expect(clippy::disallowed_methods, reason = "said by whoever runs the test")]
    let requests = std::env::var(REQUESTS.0).ok().and_then(|count| count.parse().ok()).unwrap_or(REQUESTS.1);
    let (engine, home) = (Engine::docker().await, Home::new());
    let servers = [
        ("everything", image(&engine, "everything", &[])),
        ("stubborn", image(&engine, "hostile", &["stubborn", "family=yes"])),
        ("slow", image(&engine, "hostile", &["polite", "delay=300"])),
    ];
    let (bridge, admin) = bridge(&engine, &home, &servers);
    let mut clients = JoinSet::new();
    let mut hung = None;
    for number in 0..requests {
        if clients.len() == CLIENTS {
            clients.join_next().await.expect("some run").expect("no client panics");
        }
        if number == requests / 2 {
            hung = Some(engine.hang());
        }
        let mut client = Client::modern(&bridge, servers[number % servers.len()].0, None);
        let hanging = hung.take().map(|hung| (hung, Instant::now()));
        clients.spawn(async move {
            if let Some((hung, since)) = hanging {
                tokio::time::sleep_until((since + HUNG).into()).await;
                drop(hung);
            }
            let tool = if number % 3 == 0 { "echo" } else { "act" };
            let params = json!({ "name": tool, "arguments": { "message": "hello" } });
            if number % LEAVER == 7 {
                let connection = client.post("tools/call", params).await.expect("it is accepted");
                tokio::time::sleep(Duration::from_millis(number as u64 * 37 % 400)).await;
                drop(connection);
            } else {
                let answer = client.request("tools/call", params).await.expect("every request is answered");
                assert_eq!(answer.status, 200, "{answer:?}");
                assert!(!answer.text().is_empty(), "{answer:?}");
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("no client panics");
    }
    assert!(engine.reaches(0, PATIENCE).await, "{} containers are left\n{}", engine.count(), bridge.log());
    assert!(becomes_ready(admin, true, PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_hangs_delays_only_the_clean_up() {
    let (engine, home) = (Engine::docker().await, Home::new());
    let mut impatient = image(&engine, "hostile", &["polite"]);
    impatient["startTimeout"] = json!("700ms");
    let servers = [("silent", image(&engine, "hostile", &["silent", "stubborn=yes"])), ("impatient", impatient)];
    let (bridge, admin) = bridge(&engine, &home, &servers);
    let clients = live_containers(&engine, &bridge, "silent").await;
    assert!(ready(admin).await);

    let (hung, since) = (engine.hang(), Instant::now());
    drop(clients);
    let asked = Instant::now();
    let answer = Client::modern(&bridge, "impatient", None).call("act", json!({})).await.expect("it is answered");
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert!(becomes_ready(admin, false, PATIENCE).await, "clean-ups are overdue");
    tokio::time::sleep_until((since + HUNG).into()).await;
    drop(hung);
    assert!(engine.reaches(0, PATIENCE).await, "{} containers are left\n{}", engine.count(), bridge.log());
    assert!(becomes_ready(admin, true, PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_killed_or_restarted_costs_its_requests_and_leaves_no_container() {
    let (engine, home) = (Engine::docker().await, Home::new());
    let servers = [
        ("silent", image(&engine, "hostile", &["silent", "stubborn=yes"])),
        ("polite", image(&engine, "hostile", &["polite"])),
    ];
    let (bridge, admin) = bridge(&engine, &home, &servers);
    for signal in [Signal::KILL, Signal::TERM] {
        let mut clients = live_containers(&engine, &bridge, "silent").await;
        assert!(ready(admin).await);
        let gone = engine.end(signal);
        for client in &mut clients {
            let messages = client.reply().await.expect("it is answered").messages().await.expect("to the end");
            let last: Value = serde_json::from_slice(messages.last().expect("an answer")).expect("JSON");
            assert_eq!(last["error"]["message"], "the server ended before it answered", "{last}");
        }
        let asked = Instant::now();
        let answer = Client::modern(&bridge, "polite", None).call("act", json!({})).await.expect("it is answered");
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        assert!(becomes_ready(admin, false, PATIENCE).await, "clean-ups are overdue");

        drop(gone);
        assert!(engine.reaches(0, PATIENCE).await, "{} containers are left\n{}", engine.count(), bridge.log());
        assert!(becomes_ready(admin, true, PATIENCE).await);
        let answer = Client::modern(&bridge, "polite", None).call("act", json!({})).await.expect("it is answered");
        assert_eq!(answer.text(), "done", "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_waits_serves_one_request_another_takes_its_place_and_none_is_left() {
    spares::a_container_that_waits_serves_one_request_another_takes_its_place_and_none_is_left(Engine::docker().await)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_that_wait_are_given_the_token_and_no_one_who_asks_the_engine_is_shown_it() {
    let engine = Engine::docker().await;
    spares::containers_that_wait_are_given_the_token_and_no_one_who_asks_the_engine_is_shown_it(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_that_wait_are_replaced_when_their_engine_was_killed() {
    spares::containers_that_wait_are_replaced_when_their_engine_was_killed(Engine::docker().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_gone_for_good_does_not_keep_the_bridge_from_ending() {
    let (engine, home) = (Engine::docker().await, Home::new());
    let (mut bridge, admin) = bridge(&engine, &home, &[("polite", image(&engine, "hostile", &["polite"]))]);
    let _gone = engine.end(Signal::KILL);
    let answer = Client::modern(&bridge, "polite", None).call("act", json!({})).await.expect("it is answered");
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(becomes_ready(admin, false, PATIENCE).await, "nobody can say that no container is left");
    assert!(bridge.stop_at_once().expect("it ends").success());
    let log = bridge.log_with("containers are left until the next start");
    assert!(log.contains("containers are left until the next start"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_engine_hangs_what_it_has_not_ended_counts_against_the_limits() {
    /// Longer than anything is waited for when a container is ended.
    const LONG: Duration = Duration::from_secs(14);
    let (engine, home) = (Engine::docker().await, Home::new());
    let mut impatient = image(&engine, "hostile", &["polite"]);
    impatient["startTimeout"] = json!("700ms");
    let config = json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "limits": { "perUser": 2, "queue": "100ms", "commitDelay": "1m" },
        "tokenStore": home.embedded(),
        "mcpServers": { "impatient": impatient, "polite": image(&engine, "hostile", &["polite"]) },
    });
    let bridge = home.serve_with(config, &engine.environment());
    let status = async |server: &str| {
        let answer = Client::modern(&bridge, server, None).call("act", json!({})).await;
        answer.expect("it is answered").status
    };
    let (hung, since) = (engine.hang(), Instant::now());
    assert_eq!((status("impatient").await, status("impatient").await), (504, 504));
    while since.elapsed() < LONG {
        let asked = Instant::now();
        assert_eq!(status("polite").await, 429, "after {:?}\n{}", since.elapsed(), bridge.log());
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    }
    drop(hung);
    let answered = Instant::now();
    while status("polite").await != 200 {
        assert!(answered.elapsed() < PATIENCE, "the permits come back\n{}", bridge.log());
    }
    assert!(engine.reaches(0, PATIENCE).await, "{} containers are left\n{}", engine.count(), bridge.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dead_bridges_left_is_removed_and_nothing_else() {
    let (engine, home) = (Engine::docker().await, Home::new());
    let alive = Instance::own().to_string();
    let (stem, _) = alive.rsplit_once('.').expect("four parts");
    let (dead, other_boot) = (format!("{stem}.1"), alive.replacen(|c: char| c.is_ascii_hexdigit(), "z", 1));
    let mut parts: Vec<&str> = alive.split('.').collect();
    parts[1] = "1";
    let unseen = parts.join(".");
    let spared = [Some(alive.as_str()), Some("not-a-label"), Some(&unseen), None];
    let spared = spared.map(|label| engine.somebody_elses(label));
    let swept = [&dead, &other_boot].map(|label| engine.somebody_elses(Some(label)));
    let (mut bridge, _) = bridge(&engine, &home, &[("polite", image(&engine, "hostile", &["polite"]))]);
    let gone = || swept.iter().all(|id| !engine.has(id)).then_some(());
    assert!(procs::eventually(PATIENCE, gone).await.is_some(), "{}", bridge.log());
    let answer = Client::modern(&bridge, "polite", None).call("act", json!({})).await.expect("it is answered");
    assert_eq!(answer.text(), "done");
    assert!(bridge.stop().success());
    // How to remove those that cannot be judged is logged once, as the page has it, and it removes no others.
    let log = bridge.log();
    let advised = log.lines().filter_map(|line| line.split_once("remove them: ")?.1.split_once(&unseen));
    let [(start, _)] = advised.collect::<Vec<_>>()[..] else { panic!("{log}") };
    let (client, _) = start.split_once(' ').expect("a command");
    let shown = format!("`{}\u{2026})`", start.replace(client, "docker"));
    assert!(include_str!("../docs/containers.md").contains(&shown), "{shown}");
    let command = format!("{start}{unseen})");
    let removal = engine.command(Path::new("sh")).args(["-c", &command]).output().expect("a shell");
    assert!(removal.status.success(), "{command}: {}", String::from_utf8_lossy(&removal.stderr));
    for (id, remains) in spared.iter().zip([true, true, false, true]) {
        assert_eq!(engine.has(id), remains, "{id}");
        if remains {
            engine.call(&["rm", "--force", id]);
        }
    }
}

async fn no_container_outlives(killed: impl Fn(&Bridge) -> u32) {
    let engine = Engine::docker().await;
    procs::in_time(CLEARED, async || {
        let home = Home::new();
        let silent = image(&engine, "hostile", &["silent", "stubborn=yes"]);
        let (mut bridge, _) = bridge(&engine, &home, &[("silent", silent)]);
        let clients = live_containers(&engine, &bridge, "silent").await;
        let began = Instant::now();
        procs::kill(killed(&bridge), Signal::KILL);
        assert!(engine.reaches(0, PATIENCE).await, "{} containers are left\n{}", engine.count(), bridge.log());
        let took = began.elapsed();
        assert!(bridge.ended(PATIENCE).is_some_and(|status| !status.success()));
        drop(clients);
        took
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_container_outlives_a_worker_that_is_killed() {
    no_container_outlives(Bridge::worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_container_outlives_a_supervisor_that_is_killed() {
    no_container_outlives(Bridge::supervisor).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_container_outlives_a_bridge_that_is_stopped_twice() {
    let (engine, home) = (Engine::docker().await, Home::new());
    let (mut bridge, _) = bridge(&engine, &home, &[("silent", image(&engine, "hostile", &["silent", "stubborn=yes"]))]);
    let clients = live_containers(&engine, &bridge, "silent").await;
    assert!(bridge.stop_at_once().expect("the second signal is immediate").success());
    assert_eq!(engine.count(), 0, "the supervisor ends last");
    drop(clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_everything_in_an_image_gets_the_fields_of_its_user() {
    let (engine, home) = (Engine::docker().await, Home::new());
    let mut everything = image(&engine, "everything", &[]);
    everything["env"] = json!({ "MAIL": { "$userToken": "<<email>>" },
        "OPTIONS": { "$userToken": "{\"mail\": \"<<email>>\", \"key\": \"<<apiKey>>\"}" } });
    everything["tokenSetup"] = json!({ "fields": { "email": { "secret": false }, "apiKey": {} } });
    let (bridge, _) = bridge(&engine, &home, &[("everything", everything)]);
    let mut client = Client::modern(&bridge, "everything", None);
    let before = client.call("get-env", json!({})).await.expect("it is answered");
    assert!(before.text().contains("/everything/connect"), "{before:?}");
    let config = home.config();
    let set = ["token", "set", "--user", "alice", "--server", "everything", "--field", "email=a@b.example", "--config"];
    home.run(&[&set[..], &[config.to_str().expect("text")]].concat(), b"k\"ey-2f9c51ab\n");
    let env = client.call("get-env", json!({})).await.expect("it is answered").text();
    let env: Value = serde_json::from_str(&env).expect("JSON");
    assert_eq!(env["MAIL"], "a@b.example");
    let options: Value = serde_json::from_str(env["OPTIONS"].as_str().expect("text")).expect("JSON");
    assert_eq!(options, json!({ "mail": "a@b.example", "key": "k\"ey-2f9c51ab" }));
    assert!(!bridge.log().contains("ey-2f9c51ab"), "{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_seen_by_its_server_and_by_no_one_who_asks_the_engine_or_the_machine() {
    const TOKEN: &str = "tok-2f9c51ab";
    let (engine, home) = (Engine::docker().await, Home::new());
    let token = json!({ "$userToken": "<<token>>" });
    let file = json!({ "$userTokenFile": "<<token>>" });
    let mut by_file = image(&engine, "hostile", &["tells"]);
    by_file["env"] = json!({ "HOSTILE_TOKEN_FILE": file });
    let mut by_variable = image(&engine, "hostile", &["tells"]);
    by_variable["env"] = json!({ "HOSTILE_TOKEN": token });
    let raw = json!({ "command": "docker", "env": { "HOSTILE_TOKEN_FILE": file },
        "args": ["run", "-e", { "$userToken": "HOSTILE_TOKEN=<<token>>" }, "tollbridge-test/hostile:1", "tells"] });
    let plain =
        json!({ "command": support::server("hostile"), "args": ["tells"], "env": { "HOSTILE_TOKEN_FILE": file } });
    let mut silent = by_file.clone();
    silent["args"] = json!(["silent"]);
    let servers = [("file", by_file), ("variable", by_variable), ("raw", raw), ("plain", plain), ("silent", silent)];
    let (bridge, _) = bridge(&engine, &home, &servers);
    for (server, _) in &servers {
        home.set_token("alice", server, TOKEN);
    }
    let told = async |server: &str| -> Value {
        let answer = Client::modern(&bridge, server, None).call("act", json!({})).await.expect("it is answered");
        serde_json::from_str(&answer.text()).expect("JSON")
    };
    let (file, variable, raw, plain) =
        (told("file").await, told("variable").await, told("raw").await, told("plain").await);
    assert_eq!((&file["file"], &file["variable"]), (&json!(TOKEN), &json!("")));
    assert_eq!(file["path"], "/run/tollbridge/HOSTILE_TOKEN_FILE");
    assert_eq!((&variable["variable"], &variable["file"]), (&json!(TOKEN), &json!("")));
    assert_eq!((&raw["variable"], &raw["file"]), (&json!(TOKEN), &json!(TOKEN)));
    assert_eq!((&plain["file"], &plain["mode"]), (&json!(TOKEN), &json!(0o600)));
    let path = plain["path"].as_str().expect("a path");
    let gone = || (!std::path::Path::new(path).exists()).then_some(());
    assert!(procs::eventually(PATIENCE, gone).await.is_some(), "the file is gone with its request");

    assert!(engine.reaches(0, PATIENCE).await, "what shows its token in a variable is gone");
    let clients = live_containers(&engine, &bridge, "silent").await;
    fixture::nobody_sees(&engine, TOKEN);
    assert!(!bridge.log().contains(TOKEN));
    drop(clients);
    assert!(engine.reaches(0, PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_confined_and_has_no_log_on_disk() {
    let (engine, home) = (Engine::docker().await, Home::new());
    let (bridge, _) = bridge(&engine, &home, &[("silent", fixture::confined(&engine, &home))]);
    let clients = live_containers(&engine, &bridge, "silent").await;
    let id = &engine.containers()[0];
    let known: Value = serde_json::from_str(&engine.call(&["container", "inspect", id])).expect("JSON");
    let host = &known[0]["HostConfig"];
    assert_eq!(host["LogConfig"]["Type"], "none");
    assert_eq!(host["CapDrop"], json!(["ALL"]));
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
    assert_eq!(
        (&host["AutoRemove"], &host["Init"], &host["ReadonlyRootfs"]),
        (&json!(true), &json!(true), &json!(true))
    );
    assert_eq!(
        (&host["Memory"], &host["PidsLimit"], &host["NanoCpus"]),
        (&json!(64 << 20), &json!(32), &json!(500_000_000))
    );
    assert_eq!((&known[0]["Config"]["User"], &host["NetworkMode"]), (&json!("4711:4711"), &json!("none")));
    assert_eq!(known[0]["Mounts"][0]["RW"], false);
    drop(clients);
    assert!(engine.reaches(0, PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_asks_the_engine_and_names_an_image_that_is_not_there() {
    let (engine, home) = (Engine::docker().await, Home::without_key());
    let doctor = |images: &[(&str, &str)]| {
        let servers: serde_json::Map<_, _> =
            images.iter().map(|(name, of)| ((*name).to_owned(), image(&engine, of, &[]))).collect();
        let path = home.write(json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": servers }));
        let mut doctor = engine.command(std::path::Path::new(support::home::TOLLBRIDGE));
        let output = doctor.args(["doctor", "--config"]).arg(path).output().expect("tollbridge starts");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let line = |said: &str, word: &str| said.lines().find(|line| line.contains(word)).unwrap_or_default().to_owned();
    let (code, said) = doctor(&[("polite", "hostile")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(line(&said, "container engine").starts_with("good") && !said.contains("image"), "{said}");
    let (code, said) = doctor(&[("polite", "hostile"), ("one", "nowhere"), ("two", "nowhere")]);
    assert_eq!(code, Some(1), "{said}");
    let missing = line(&said, "image");
    assert!(missing.starts_with("MISSING") && missing.contains("tollbridge-test/nowhere:1 of one, two"), "{said}");
    let hung = engine.hang();
    let (code, said) = doctor(&[("polite", "hostile")]);
    assert_eq!(code, Some(1), "{said}");
    assert!(line(&said, "container engine").starts_with("MISSING"), "{said}");
    drop(hung);
}
