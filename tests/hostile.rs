//! The hostile suite, run by `scripts/hostile`: thousands of requests to servers that misbehave in every way there is,
//! beside a steady stream of polite ones, and nothing is left; then the bridge is killed again and again.

#![expect(clippy::print_stdout, reason = "the figures are what the script is run for")]

#[path = "containers/engine.rs"]
mod engine;
#[path = "containers/fixture.rs"]
mod fixture;
#[path = "hostile/flood.rs"]
mod flood;
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::Engine;
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use support::mcp::Answer;
use support::{Bridge, Client, Home, procs, server};
use tokio::task::{JoinHandle, JoinSet};

/// Clients of hostile servers at once.
const CLIENTS: usize = 16;
/// One client in so many leaves at a random moment.
const LEAVER: usize = 20;
/// The latest random moment.
const PATIENCE: Duration = Duration::from_millis(40);
/// The pause between two requests of the polite stream: 50 a second.
const PACE: Duration = Duration::from_millis(20);
/// How long to wait for what has no bound of its own.
const SETTLED: Duration = Duration::from_secs(20);
/// Live requests when the bridge is killed, and how long after that something may still be there.
const LIVE: usize = 100;
const CLEARED: Duration = Duration::from_secs(2);
/// The longest that an answer of the polite stream may take beside all that, and how many may be later: a stream that
/// stands still has fifty a second.
const POLITE: Duration = Duration::from_secs(2);
const LATE: usize = 3;
/// The same with a container for each request, at a first look and else.
const LIVE_CONTAINERS: (usize, usize) = (30, 100);
const CONTAINERS_CLEARED: Duration = Duration::from_secs(5);
/// How long they may take to be live.
const CONTAINERS_LIVE: Duration = Duration::from_mins(1);
/// What the bridge may hold more after thousands of requests than after hundreds, KiB.
const FLAT: u64 = 24 << 10;

/// What the answer of a server must be.
#[derive(Clone, Copy)]
enum Right {
    /// This text.
    Text(&'static str),
    /// An error of the server's making: 502 or 504, or one after the stream began.
    Error,
    /// Anything that is an answer: it depends on what the host keeps it from.
    Any,
}

/// Servers by name, with their arguments and what is right of them; how often each is called follows from `weight`.
const KINDS: [(&str, &[&str], Right, usize); 22] = [
    ("polite", &["polite"], Right::Text("done"), 8),
    ("stubborn", &["stubborn", "family=yes"], Right::Text("done"), 4),
    ("joins-parent", &["stubborn", "joins=parent"], Right::Text("done"), 2),
    ("joins-sibling", &["stubborn", "joins=sibling", "family=yes"], Right::Text("done"), 2),
    ("silent", &["silent"], Right::Error, 1),
    ("deaf", &["deaf"], Right::Error, 1),
    ("garbage", &["garbage", "lines=3"], Right::Text("done"), 4),
    ("much-garbage", &["garbage", "lines=2000"], Right::Error, 2),
    ("endless", &["endless"], Right::Error, 1),
    ("chatter", &["chatter"], Right::Text("done"), 2),
    ("flood", &["flood", "mib=16"], Right::Text("done"), 1),
    ("exits-at-start", &["exits", "at=start", "code=3"], Right::Error, 4),
    ("exits-after-handshake", &["exits", "at=initialized", "hold=yes"], Right::Error, 4),
    ("exits-in-call", &["exits", "at=call", "signal=11", "family=yes"], Right::Error, 4),
    ("holder", &["holder"], Right::Error, 4),
    ("wrong-ids", &["wrong-ids", "then=right"], Right::Text("done"), 4),
    ("twice", &["twice"], Right::Text("first"), 4),
    ("eager", &["eager"], Right::Text("done"), 4),
    ("long", &["long", "family=yes"], Right::Error, 1),
    ("bomb", &["bomb"], Right::Any, 1),
    ("fork-bomb", &["bomb", "grow=yes"], Right::Any, 1),
    ("hog", &["hog"], Right::Any, 1),
];
/// Those that need a host which can hold them.
const BOUND: [&str; 3] = ["bomb", "fork-bomb", "hog"];
/// Servers that live until somebody ends them, as their arguments and how many processes they are.
const LIVING: [(&str, &[&str], usize); 5] = [
    ("living-silent", &["silent"], 1),
    ("living-deaf", &["deaf"], 1),
    ("living-long", &["long", "family=yes"], 4),
    ("living-stubborn", &["stubborn", "family=yes", "delay=100000"], 4),
    ("living-slow", &["polite", "delay=100000"], 1),
];

/// Whether only a first look is wanted, as the script says it.
fn is_quick() -> bool {
    std::env::vars_os().any(|(name, _)| name == "TOLLBRIDGE_HOSTILE_QUICK")
}

/// In how many rounds the machine may stand still: a first look runs where nobody sees to it that it does not.
fn stalls() -> usize {
    usize::from(is_quick())
}

/// The control group to make those of requests in, if the script was told of one.
fn cgroup() -> String {
    let named = std::env::vars_os().find(|(name, _)| name == "TOLLBRIDGE_HOSTILE_CGROUP");
    named.and_then(|(_, path)| path.into_string().ok()).unwrap_or_else(|| "auto".to_owned())
}

/// Only root can hold a fork bomb without control groups.
fn can_bind() -> bool {
    rustix::process::geteuid().is_root()
}

/// A bridge whose servers have so long to answer, if no answer is to come of them.
fn bridge(home: &Home, admin: Option<SocketAddr>, patience: &str) -> Bridge {
    let marker = format!("marker={}", home.marker());
    let one = |name: &str, command: String, arguments: &[&str]| {
        let answers = KINDS.iter().any(|(of, _, right, _)| *of == name && matches!(right, Right::Text(_)));
        let request_timeout = if answers || name == "tiny" { "1m" } else { patience };
        let arguments = [arguments, &[marker.as_str()]].concat();
        json!({ "command": command, "args": arguments,
            "startTimeout": request_timeout, "requestTimeout": request_timeout, "line": "1MiB",
            "abandonedGrace": "0s", "eofGrace": "50ms", "termGrace": "50ms" })
    };
    let kinds = KINDS.iter().map(|&(name, arguments, ..)| (name, arguments));
    let kinds = kinds.chain(LIVING.iter().map(|&(name, arguments, _)| (name, arguments)));
    let mut servers: Map<_, _> =
        kinds.map(|(name, arguments)| (name.to_owned(), one(name, server("hostile"), arguments))).collect();
    for (name, limits) in [
        ("bomb", json!({ "runAs": "63000-63099", "pids": 60 })),
        // Each of them takes as much of the processors as it can.
        ("fork-bomb", json!({ "runAs": "63000-63099", "pids": 12 })),
        ("hog", json!({ "runAs": "63000-63099", "memory": "128MiB" })),
    ] {
        let fields = servers[name].as_object_mut().expect("an object");
        fields.extend(limits.as_object().filter(|_| can_bind()).cloned().unwrap_or_default());
    }
    servers.insert("tiny".to_owned(), one("tiny", server("tiny"), &[]));
    let mut config = json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "limits": { "perUser": 500, "perServer": 500, "total": 500 },
        "mcpServers": Value::Object(servers),
    });
    if let Some(admin) = admin {
        config["admin"] = json!({ "listen": admin.to_string() });
    }
    home.write(config);
    Bridge::start_with(home, &[], &["--cgroup", &cgroup()])
}

/// What has been seen so far.
#[derive(Default)]
struct Seen {
    answered: usize,
    left: usize,
    wrong: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/hostile runs it"]
async fn thousands_of_requests_to_hostile_servers_leave_nothing_and_disturb_nobody() {
    let requests = if is_quick() { 1500 } else { 10_000 };
    let (home, admin) = (Home::without_key(), support::free_address());
    let bridge = bridge(&home, Some(admin), "2s");
    let seen = Arc::default();
    run(&bridge, 300, &seen).await;
    let run_directory = run_directory(bridge.worker());
    let before = settled(&bridge, &home, &run_directory, usize::MAX).await.expect("nothing is left after a few");
    let polite = polite_stream(&bridge);

    run(&bridge, requests, &seen).await;

    let latencies = polite.stop().await;
    let after = settled(&bridge, &home, &run_directory, before.descriptors).await;
    let seen = seen.lock().expect("no panic holds it");
    println!(
        "{} answered, {} clients left early, {} wrong answers; beside them {} polite requests, 50 a second, all answered: p50 {:?}, p99 {:?}, \
         slowest {:?}",
        seen.answered,
        seen.left,
        seen.wrong.len(),
        latencies.len(),
        at(&latencies, 50),
        at(&latencies, 99),
        at(&latencies, 100)
    );
    let after = after.unwrap_or_else(|left| panic!("left after {SETTLED:?}: {left}"));
    println!(
        "0 processes, 0 directories, {} descriptors (were {}), {} KiB resident (were {})",
        after.descriptors, before.descriptors, after.resident, before.resident
    );
    assert!(seen.wrong.is_empty(), "{:#?}", &seen.wrong[..seen.wrong.len().min(10)]);
    let late = latencies.iter().filter(|latency| **latency > POLITE).count();
    assert!(late <= LATE, "the polite stream stood still");
    assert!(after.resident <= before.resident + FLAT, "the bridge's memory grows");
    assert!(seen.left * LEAVER * 2 > requests, "clients do leave");
}

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
async fn a_gibibyte_on_stderr_or_without_a_newline_on_stdout_takes_no_memory() {
    let home = Home::without_key();
    let one = |arguments: &[&str]| {
        let marker = format!("marker={}", home.marker());
        let arguments = [arguments, &[marker.as_str()]].concat();
        json!({ "command": server("hostile"), "args": arguments, "line": "4MiB",
            "abandonedGrace": "0s", "eofGrace": "50ms", "termGrace": "50ms" })
    };
    let bridge = home.serve(json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": {
        "polite": one(&["polite"]),
        "lines": one(&["flood", "mib=1024"]),
        "one-line": one(&["flood", "mib=1024", "newline=no"]),
        "endless": one(&["endless"]),
    } }));
    let call = async |name| Client::modern(&bridge, name, None).call("act", json!({})).await.expect("an answer");
    assert_eq!(call("polite").await.text(), "done");
    let before = procs::resident(bridge.worker());
    for name in ["lines", "one-line", "endless"] {
        procs::reset_peak(bridge.worker());
        let answer = call(name).await;
        match name {
            "endless" => assert!(answer.error_code().is_some(), "{answer:?}"),
            _ => assert_eq!(answer.text(), "done"),
        }
        let peak = procs::peak_resident(bridge.worker());
        println!("{name}: at most {peak} KiB resident (were {before})");
        assert!(peak <= before + FLAT, "{name}: {peak} KiB");
    }
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
        let mut stubborn = fixture::image(&engine, "hostile", &["stubborn", "delay=100000"]);
        stubborn["startTimeout"] = json!("2m");
        let (mut bridge, _) = fixture::bridge(&engine, &home, &[("stubborn", stubborn)]);
        let began = Instant::now();
        let clients = fixture::calls(&bridge, "stubborn", count).await;
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

/// The directory in which that worker's requests have theirs.
fn run_directory(worker: u32) -> PathBuf {
    let arguments = procs::command_line(worker);
    let places = arguments.iter().position(|argument| argument == "--places").expect("the supervisor made them");
    PathBuf::from(&arguments[places + 1])
}

struct Rest {
    descriptors: usize,
    resident: u64,
}

/// Waits until nothing of any request is there; says what is if it stays.
async fn settled(bridge: &Bridge, home: &Home, run_directory: &Path, descriptors: usize) -> Result<Rest, String> {
    let worker = bridge.worker();
    let look = || {
        let (processes, below) = (procs::with_marker(home.marker()).len(), bridge.children().len());
        let directories = std::fs::read_dir(run_directory).map_or(0, Iterator::count);
        let open = procs::descriptors(worker);
        let clear = processes + below + directories == 0 && open <= descriptors;
        let all = format!("{processes} processes, {below} below, {directories} directories, {open} descriptors");
        (clear, all, open)
    };
    procs::eventually(SETTLED, || look().0.then_some(())).await.ok_or_else(|| look().1)?;
    // Connections that clients have just closed may still be open: the fewest within a moment.
    let mut open = usize::MAX;
    procs::eventually(Duration::from_millis(500), || {
        open = open.min(procs::descriptors(worker));
        None::<()>
    })
    .await;
    Ok(Rest { descriptors: open, resident: procs::resident(worker) })
}

/// Makes that many requests, each kind as often as its weight.
async fn run(bridge: &Bridge, requests: usize, seen: &Arc<Mutex<Seen>>) {
    let kinds = KINDS.iter().filter(|(name, ..)| can_bind() || !BOUND.contains(name));
    let turns: Vec<_> = kinds.flat_map(|kind| std::iter::repeat_n(kind, kind.3)).collect();
    let mut clients = JoinSet::new();
    for number in 0..requests {
        if clients.len() == CLIENTS {
            clients.join_next().await.expect("some are running").expect("no client panics");
        }
        // A step that has no divisor in common with the number of turns spreads the kinds.
        let &&(name, _, right, _) = &turns[number * 23 % turns.len()];
        let (mut client, seen) = (Client::modern(bridge, name, None), Arc::clone(seen));
        let leaves = number % LEAVER == 7;
        clients.spawn(async move {
            let params = json!({ "name": "act", "arguments": {} });
            if leaves {
                let connection = client.post("tools/call", params).await.expect("it is accepted");
                tokio::time::sleep(random(PATIENCE)).await;
                drop(connection);
                seen.lock().expect("no panic holds it").left += 1;
            } else {
                let answer = client.request("tools/call", params).await;
                let mut seen = seen.lock().expect("no panic holds it");
                seen.answered += 1;
                match answer {
                    Ok(answer) if is_right(&answer, right) => {}
                    other => seen.wrong.push(format!("{name}: {other:?}")),
                }
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("no client panics");
    }
}

fn is_right(answer: &Answer, right: Right) -> bool {
    let Some(last) = answer.raw.last().and_then(|raw| serde_json::from_slice::<Value>(raw).ok()) else { return false };
    let text = last.pointer("/result/content/0/text").and_then(Value::as_str);
    match right {
        Right::Text(right) => text == Some(right),
        Right::Error => text.is_none() && last.get("error").is_some(),
        Right::Any => text.is_some() || last.get("error").is_some(),
    }
}

/// A steady stream of requests, of which each has its own right answer.
struct PoliteStream {
    stop: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<Vec<Duration>>,
}

impl PoliteStream {
    /// How long each answer took, the slowest last.
    async fn stop(self) -> Vec<Duration> {
        self.stop.send(()).expect("it goes on until told");
        let mut latencies = self.task.await.expect("every polite request is answered");
        latencies.sort_unstable();
        latencies
    }
}

fn polite_stream(bridge: &Bridge) -> PoliteStream {
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let template = Client::modern(bridge, "tiny", None);
    #[expect(clippy::disallowed_methods, reason = "a test's own task, awaited by `stop`")]
    let task = tokio::spawn(async move {
        let (mut requests, mut ticks) = (JoinSet::new(), tokio::time::interval(PACE));
        for number in 0_u64.. {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = &mut stopped => break,
            }
            let mut client = template.twin();
            requests.spawn(async move {
                let (began, text) = (Instant::now(), format!("polite {number}"));
                let answer = client.call("echo", json!({ "text": text })).await.expect("an answer");
                assert_eq!(answer.text(), text);
                began.elapsed()
            });
        }
        requests.join_all().await
    });
    PoliteStream { stop, task }
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Opens calls until a hundred servers of every kind that lives long, with their grandchildren, are there.
async fn live_requests(bridge: &Bridge, home: &Home) -> Vec<support::http::Connection> {
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

fn random(below: Duration) -> Duration {
    let mut byte = [0];
    aws_lc_rs::rand::fill(&mut byte).expect("the system has randomness");
    below * u32::from(byte[0]) / 256
}
