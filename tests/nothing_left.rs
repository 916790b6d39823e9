//! When a request has ended, and when the bridge has ended by whatever cause, nothing of it is left.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Map, Value, json};
use support::{Bridge, Client, Home, procs, server};
use tokio::task::JoinSet;

/// Requests in all; half of modern clients, half of legacy ones.
const REQUESTS: usize = 5000;
/// Clients at once.
const CLIENTS: usize = 16;
/// One client in so many leaves at a random moment.
const LEAVER: usize = 20;
/// The latest random moment.
const PATIENCE: Duration = Duration::from_millis(40);
/// How long to wait for what has no bound of its own.
const SETTLED: Duration = Duration::from_mins(1);
/// How long to look for the fewest descriptors.
const REST: Duration = Duration::from_secs(3);
/// Live children when the bridge is killed.
const LIVE: usize = 50;
/// How long after a kill something may still be there.
const CLEARED: Duration = Duration::from_secs(2);
/// How long a bridge that is told twice takes to end.
const STOPPED: Duration = Duration::from_secs(3);

/// Ways for a server to be hard to end, as its arguments.
const HOSTILE: [(&str, &[&str]); 14] = [
    ("polite", &["polite"]),
    ("stubborn", &["stubborn"]),
    ("family", &["polite", "family=yes"]),
    ("stubborn-family", &["stubborn", "family=yes"]),
    ("silent", &["silent"]),
    ("deaf", &["deaf"]),
    ("garbage", &["garbage", "lines=3"]),
    ("chatter", &["chatter", "stubborn=yes"]),
    ("exits-at-start", &["exits", "at=start", "code=3"]),
    ("exits-after-handshake", &["exits", "at=initialized"]),
    ("exits-in-call", &["exits", "at=call", "signal=11", "family=yes"]),
    ("holder", &["holder"]),
    ("twice", &["twice"]),
    ("long", &["long", "family=yes"]),
];
/// Servers that live until somebody ends them, as their arguments and how many processes they are.
const LIVING: [(&str, &[&str], usize); 5] = [
    ("living-silent", &["silent"], 1),
    ("living-deaf", &["deaf"], 1),
    ("living-long", &["long", "family=yes"], 4),
    ("living-stubborn", &["stubborn", "family=yes", "delay=100000"], 4),
    ("living-slow", &["polite", "delay=100000"], 1),
];
/// Those of the former that never answer: a request to one ends by its deadline or by its client.
const NEVER_ANSWER: [&str; 3] = ["silent", "deaf", "long"];

/// A bridge whose servers have so long to answer, if they never do.
fn bridge(home: &Home, admin: Option<SocketAddr>, patience: &str) -> Bridge {
    let marker = format!("marker={}", home.marker());
    let one = |name: &str, command: String, arguments: &[&str]| {
        let answers = HOSTILE.iter().any(|(of, _)| *of == name) && !NEVER_ANSWER.contains(&name);
        let request_timeout = if answers || name == "tiny" { "1m" } else { patience };
        let arguments = [arguments, &[marker.as_str()]].concat();
        json!({ "command": command, "args": arguments,
            "startTimeout": request_timeout, "requestTimeout": request_timeout,
            "abandonedGrace": "0s", "eofGrace": "50ms", "termGrace": "50ms" })
    };
    let kinds = HOSTILE.into_iter().chain(LIVING.map(|(name, arguments, _)| (name, arguments)));
    let mut servers: Map<_, _> =
        kinds.map(|(name, arguments)| (name.to_owned(), one(name, server("hostile"), arguments))).collect();
    servers.insert("tiny".to_owned(), one("tiny", server("tiny"), &[]));
    let mut config = json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "limits": { "perUser": 500, "perServer": 500, "total": 500 },
        "mcpServers": Value::Object(servers),
    });
    if let Some(admin) = admin {
        config["admin"] = json!({ "listen": admin.to_string() });
    }
    home.serve(config)
}

#[test]
fn a_bridge_that_has_started_keeps_little_of_its_program_in_memory() {
    let bridge = Bridge::start(json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": { "tiny": { "command": server("tiny") } },
    }));
    // A supervisor that keeps what its start needed has nearly as much as the worker.
    let deadline = Instant::now() + SETTLED;
    loop {
        let [supervisor, worker] = [bridge.supervisor(), bridge.worker()].map(procs::resident_of_files);
        if supervisor * 2 < worker {
            return;
        }
        assert!(Instant::now() < deadline, "{supervisor} KiB of {worker} KiB of files");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_requests_with_leaving_clients_and_hostile_servers_leave_nothing() {
    let (home, admin) = (Home::without_key(), support::free_address());
    let bridge = bridge(&home, Some(admin), "2s");
    let sessions = Sessions::open(&bridge).await;
    let turns: Arc<[AtomicUsize; 2]> = Arc::default();
    run(&bridge, &sessions, 4 * CLIENTS, &turns).await;
    let (descriptors, tasks) = at_rest(&bridge, admin).await;
    assert!(tasks.is_some(), "the admin listener tells how many tasks there are");

    run(&bridge, &sessions, REQUESTS, &turns).await;

    let (worker, mut left) = (bridge.worker(), String::new());
    let deadline = Instant::now() + SETTLED;
    loop {
        let processes = procs::with_marker(home.marker());
        let below = bridge.children();
        let open = procs::descriptors(worker);
        let running = support::metric(admin, "tollbridge_tasks").await;
        if processes.is_empty() && below.is_empty() && open <= descriptors && running <= tasks {
            break;
        }
        if Instant::now() > deadline {
            left = format!(
                "processes {processes:?}, below the bridge {below:?}, descriptors {open} (were {descriptors}: {:?}), \
                 tasks {running:?} (were {tasks:?})",
                procs::descriptor_targets(worker)
            );
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(left.is_empty(), "left after {SETTLED:?}: {left}");
    let [stayed, gone] = [&turns[0], &turns[1]].map(|count| count.load(Ordering::Relaxed));
    assert!(gone >= REQUESTS / LEAVER - 1 && stayed >= REQUESTS - gone - 1, "{stayed} stayed, {gone} left early");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outlives_a_worker_that_is_killed() {
    procs::in_time(CLEARED, async || {
        let home = Home::without_key();
        let mut bridge = bridge(&home, None, "2m");
        let clients = fifty_live_children(&bridge, &home).await;
        let began = Instant::now();
        procs::kill(bridge.worker(), Signal::KILL);
        let took = gone(&bridge, &home, || true, began).await;
        assert!(bridge.ended(SETTLED).is_some_and(|status| !status.success()), "the supervisor ends and says so");
        drop(clients);
        took
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outlives_a_supervisor_that_is_killed() {
    procs::in_time(CLEARED, async || {
        let home = Home::without_key();
        let mut bridge = bridge(&home, None, "2m");
        let worker = procs::Process::read(bridge.worker()).expect("a worker");
        let clients = fifty_live_children(&bridge, &home).await;
        let began = Instant::now();
        bridge.signal(Signal::KILL);
        bridge.ended(SETTLED).expect("killed");
        let took = gone(&bridge, &home, || !worker.is_alive(), began).await;
        drop(clients);
        took
    })
    .await;
}

/// Waits until nothing is left of the requests, and this holds; how long that was after `began`.
async fn gone(bridge: &Bridge, home: &Home, holds: impl Fn() -> bool, began: Instant) -> Duration {
    let none = || (holds() && procs::with_marker(home.marker()).is_empty()).then(|| began.elapsed());
    let took = procs::eventually(SETTLED, none).await;
    took.unwrap_or_else(|| panic!("worker or left: {:?}\n{}", left(home), last_lines(bridge)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outlives_a_bridge_that_is_stopped_twice() {
    procs::in_time(STOPPED, async || {
        let home = Home::without_key();
        let mut bridge = bridge(&home, None, "2m");
        let clients = fifty_live_children(&bridge, &home).await;
        let began = Instant::now();
        let status = bridge.stop_at_once().expect("the second signal is immediate");
        let took = began.elapsed();
        assert!(status.success(), "{status}");
        assert!(procs::with_marker(home.marker()).is_empty(), "left: {:?}", left(&home));
        drop(clients);
        took
    })
    .await;
}

/// Stopped, it answers nothing and no signal but SIGKILL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outlives_a_worker_that_hangs_when_the_bridge_is_stopped() {
    let home = Home::without_key();
    let mut bridge = bridge(&home, None, "2m");
    let clients = fifty_live_children(&bridge, &home).await;
    procs::kill(bridge.worker(), Signal::STOP);
    let status = bridge.stop_at_once().expect("it ends");
    assert!(!status.success(), "{status}");
    assert!(bridge.log().contains("the worker does not stop"), "{}", last_lines(&bridge));
    assert!(procs::with_marker(home.marker()).is_empty(), "left: {:?}", left(&home));
    drop(clients);
}

/// The descriptors and tasks of a bridge that has served but serves nothing now: the fewest within a while.
async fn at_rest(bridge: &Bridge, admin: SocketAddr) -> (usize, Option<f64>) {
    let worker = bridge.worker();
    let (mut descriptors, mut tasks) = (usize::MAX, None);
    let deadline = Instant::now() + REST;
    while Instant::now() < deadline {
        descriptors = descriptors.min(procs::descriptors(worker));
        let now = support::metric(admin, "tollbridge_tasks").await;
        tasks = tasks.map_or(now, |tasks: f64| now.map(|now| tasks.min(now)));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (descriptors, tasks)
}

/// One legacy session per server that can have one.
struct Sessions(Vec<(String, Option<Client>)>);

impl Sessions {
    async fn open(bridge: &Bridge) -> Self {
        let mut sessions = Vec::new();
        for (name, _) in HOSTILE {
            let mut client = Client::without_session(bridge, name, None);
            let answer = client.initialize(support::mcp::LEGACY, json!({})).await;
            let opened = answer.is_ok_and(|answer| answer.status == 200);
            // A twin, so that no connection stays open.
            sessions.push((name.to_owned(), opened.then(|| client.twin())));
        }
        sessions.push(("tiny".to_owned(), Some(Client::legacy(bridge, "tiny", None).await.twin())));
        Self(sessions)
    }

    /// A client for the request with this number: two in three to the quick server, the rest to each hostile one in turn.
    fn client(&self, bridge: &Bridge, number: usize) -> Client {
        let hostile = number.is_multiple_of(3);
        let legacy = (number / 3 / HOSTILE.len()).is_multiple_of(2);
        let (name, session) = &self.0[if hostile { number / 3 % HOSTILE.len() } else { HOSTILE.len() }];
        match session {
            Some(session) if legacy => session.twin(),
            None if legacy => Client::without_session(bridge, name, None),
            _ => Client::modern(bridge, name, None),
        }
    }

    fn never_answers(number: usize) -> bool {
        number.is_multiple_of(3) && NEVER_ANSWER.contains(&HOSTILE[number / 3 % HOSTILE.len()].0)
    }
}

/// Makes that many requests; counts those whose clients stayed and those whose clients left.
async fn run(bridge: &Bridge, sessions: &Sessions, requests: usize, turns: &Arc<[AtomicUsize; 2]>) {
    let mut clients = JoinSet::new();
    for number in 0..requests {
        if clients.len() == CLIENTS {
            clients.join_next().await.expect("some are running").expect("no client panics");
        }
        let (mut client, turns) = (sessions.client(bridge, number), Arc::clone(turns));
        // A server that never answers is left more often than waited for: its deadline is long.
        let leaves = number % LEAVER == 7 || (Sessions::never_answers(number) && number % 5 != 0);
        clients.spawn(async move {
            turns[usize::from(leaves)].fetch_add(1, Ordering::Relaxed);
            let params = json!({ "name": "echo", "arguments": { "text": "hello" } });
            if leaves {
                let connection = client.post("tools/call", params).await.expect("it is accepted");
                tokio::time::sleep(random(PATIENCE)).await;
                drop(connection);
            } else {
                let answer = client.request("tools/call", params).await.expect("every request is answered");
                assert!(!answer.raw.is_empty(), "{answer:?}");
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("no client panics");
    }
}

/// Opens calls until fifty servers of every kind that lives long, with their grandchildren, are there.
async fn fifty_live_children(bridge: &Bridge, home: &Home) -> Vec<support::http::Connection> {
    let mut connections = Vec::new();
    let mut expected = 0;
    for number in 0..LIVE {
        let (name, _, processes) = LIVING[number % LIVING.len()];
        expected += processes;
        let mut client = Client::modern(bridge, name, None);
        connections.push(client.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted"));
    }
    let there = || (procs::with_marker(home.marker()).len() >= expected).then_some(());
    let reached = procs::eventually(SETTLED, there).await;
    assert!(reached.is_some(), "{} of {expected} processes", procs::with_marker(home.marker()).len());
    connections
}

fn left(home: &Home) -> Vec<Vec<String>> {
    procs::with_marker(home.marker()).into_iter().map(procs::command_line).collect()
}

/// The end of a log, for the message of a failed test.
fn last_lines(bridge: &Bridge) -> String {
    let log = bridge.log();
    let lines: Vec<_> = log.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn random(below: Duration) -> Duration {
    let mut byte = [0];
    aws_lc_rs::rand::fill(&mut byte).expect("the system has randomness");
    below * u32::from(byte[0]) / 256
}
