//! Spares: servers that are started before the request that they are for. Each serves one and ends with it; no answer
//! depends on there being any, and nothing is left of them.

#[path = "spares/gates.rs"]
mod gates;
#[path = "spares/late.rs"]
mod late;
mod support;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Bridge, Client, Home, free_address, metric, procs, server};
use tokio::task::JoinSet;

/// How long to wait for what has no bound of its own.
const SETTLED: Duration = Duration::from_mins(1);
/// How soon a server that is told nothing and given no time is gone.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A bridge whose spares can be counted.
struct Node {
    home: Home,
    bridge: Bridge,
    admin: SocketAddr,
}

impl Node {
    fn start(home: Home, servers: &Value, limits: &Value) -> Self {
        Self::start_with(home, servers, limits, &[])
    }

    fn start_with(home: Home, servers: &Value, limits: &Value, environment: &[(&str, &str)]) -> Self {
        let admin = free_address();
        let config = json!({
            "identity": [{ "kind": "local", "user": "alice" }], "limits": limits,
            "admin": { "listen": admin.to_string() }, "mcpServers": servers,
        });
        let bridge = home.serve_with(config, environment);
        Self { home, bridge, admin }
    }

    async fn count(&self, series: &str) -> u64 {
        let count = metric(self.admin, &format!("tollbridge_{series}")).await.expect("a series");
        format!("{count:.0}").parse().expect("a number")
    }

    /// Waits until the series has this value.
    async fn until(&self, series: &str, is_right: impl Fn(u64) -> bool) -> u64 {
        let deadline = Instant::now() + SETTLED;
        loop {
            let count = self.count(series).await;
            if is_right(count) {
                return count;
            }
            assert!(Instant::now() < deadline, "{series}: {count}\n{}", self.bridge.log());
            tokio::time::sleep(procs::LOOK).await;
        }
    }

    async fn until_waiting(&self, count: u64) {
        self.until(WAITING, |waiting| waiting == count).await;
    }

    /// The processes of this home's servers.
    fn servers(&self) -> Vec<u32> {
        procs::with_marker(self.home.marker())
    }

    /// Waits until there are so many.
    async fn until_servers(&self, count: usize) -> Vec<u32> {
        let servers = || Some(self.servers()).filter(|servers| servers.len() == count);
        let found = procs::eventually(SETTLED, servers).await;
        found.unwrap_or_else(|| panic!("{:?} are not {count}", self.servers()))
    }
}

const WAITING: &str = "spares{state=\"waiting\"}";
const TAKEN: &str = "spares_taken_total";
const MISSED: &str = "spares_missed_total";

fn discarded(why: &str) -> String {
    format!("spares_discarded_total{{why=\"{why}\"}}")
}

/// A server that says which process it is.
fn describing(home: &Home, spares: &Value) -> Value {
    json!({ "command": server("hostile"), "args": ["describe", format!("marker={}", home.marker())], "spares": spares })
}

/// A program that a shell becomes once it has done something else.
fn shell(home: &Home, script: &str, program: &str, spares: &Value) -> Value {
    let script = format!("{script}\nexec \"$@\"");
    let marker = format!("marker={}", home.marker());
    json!({ "command": "/bin/sh", "args": ["-c", script, "sh", server(program), "polite", marker], "spares": spares })
}

/// The process that answers a call.
async fn answering(client: &mut Client) -> u32 {
    let answer = client.call("act", json!({})).await.expect("an answer");
    let described: Value = serde_json::from_str(&answer.text()).expect("a description");
    described["group"].as_u64().and_then(|group| group.try_into().ok()).expect("it leads its group")
}

#[tokio::test]
async fn a_spare_serves_one_request_and_another_takes_its_place() {
    let home = Home::without_key();
    let servers = json!({ "s": describing(&home, &json!(2)) });
    let node = Node::start(home, &servers, &json!({}));
    node.until_waiting(2).await;
    let mut seen = Vec::new();
    for mut client in [Client::modern(&node.bridge, "s", None), Client::without_session(&node.bridge, "s", None)] {
        for _ in 0..2 {
            let waiting = node.until_servers(2).await;
            node.until_waiting(2).await;
            let served = answering(&mut client).await;
            assert!(waiting.contains(&served), "{served} waited: {waiting:?}");
            assert!(!seen.contains(&served), "{served} has served before");
            seen.push(served);
        }
    }
    node.until_waiting(2).await;
    assert!(!node.until_servers(2).await.iter().any(|left| seen.contains(left)), "who has served has ended");
    assert_eq!((node.count(TAKEN).await, node.count(MISSED).await), (4, 0));
}

#[tokio::test]
async fn the_spare_that_has_waited_longest_is_taken() {
    let home = Home::without_key();
    let servers = json!({ "s": describing(&home, &json!(3)) });
    let node = Node::start(home, &servers, &json!({}));
    node.until_waiting(3).await;
    let oldest = node.servers().into_iter().filter_map(procs::Process::read).min_by_key(|process| process.started);
    let served = answering(&mut Client::modern(&node.bridge, "s", None)).await;
    assert_eq!(Some(served), oldest.map(|process| process.pid));
}

#[tokio::test]
async fn requests_beyond_the_spares_start_their_own_servers_and_none_waits_for_a_spare() {
    const REQUESTS: usize = 8;
    let home = Home::without_key();
    let servers = json!({ "s": describing(&home, &json!(1)) });
    let node = Node::start(home, &servers, &json!({}));
    node.until_waiting(1).await;
    let mut calls = JoinSet::new();
    for _ in 0..REQUESTS {
        let mut client = Client::modern(&node.bridge, "s", None);
        calls.spawn(async move { answering(&mut client).await });
    }
    let mut served = calls.join_all().await;
    served.sort_unstable();
    served.dedup();
    assert_eq!(served.len(), REQUESTS, "each by another process");
    let (taken, missed) = (node.count(TAKEN).await, node.count(MISSED).await);
    assert!(taken >= 1 && taken + missed >= 8, "{taken} {missed}");
    node.until_waiting(1).await;
}

#[tokio::test]
async fn a_request_does_not_wait_for_the_start_of_a_server_whose_spare_has_started() {
    let home = Home::without_key();
    let slow = shell(&home, "sleep 3", "hostile", &json!(1));
    let node = Node::start(home, &json!({ "s": slow }), &json!({}));
    // The shell rests in its sleep, too: the server itself is there when it has become one.
    let is_server = |&pid: &u32| procs::command_line(pid).first().is_some_and(|program| program.ends_with("hostile"));
    procs::eventually(SETTLED, || node.servers().iter().find(|pid| is_server(pid)).map(|_| ())).await.expect("a spare");
    let began = Instant::now();
    let answer = Client::modern(&node.bridge, "s", None).call("act", json!({})).await.expect("an answer");
    assert_eq!(answer.text(), "done");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_spare_that_is_killed_while_it_waits_is_replaced_and_no_request_notices() {
    let home = Home::without_key();
    let servers = json!({ "s": describing(&home, &json!(2)) });
    let node = Node::start(home, &servers, &json!({}));
    let mut client = Client::modern(&node.bridge, "s", None);
    for killed in [1, 2] {
        node.until_waiting(2).await;
        let waiting = node.until_servers(2).await;
        for &pid in &waiting {
            procs::kill(pid, Signal::KILL);
        }
        assert!(!waiting.contains(&answering(&mut client).await));
        // One that was still dying may have been taken.
        node.until(&discarded("ended"), |ended| ended >= killed).await;
    }
    node.until_waiting(2).await;
}

/// A shell that, once, ends at the first that it is told.
fn ends_once_when_asked(home: &Home, name: &str, program: &str) -> Value {
    let first = home.path().join(name);
    shell(home, &format!("mkdir {} && read asked && exit 3", first.display()), program, &json!(1))
}

#[tokio::test]
async fn a_spare_that_ends_at_the_moment_it_is_taken_is_made_up_for_by_a_fresh_server_within_the_request() {
    let home = Home::without_key();
    let mut modern = ends_once_when_asked(&home, "modern", "whoami");
    modern["protocol"] = json!("modern");
    let servers = json!({
        "legacy": ends_once_when_asked(&home, "legacy", "hostile"),
        "unknown": ends_once_when_asked(&home, "unknown", "hostile"),
        "modern": modern,
    });
    let node = Node::start(home, &servers, &json!({}));
    node.until_waiting(3).await;
    let sum = |answer: support::mcp::Answer| answer.text();
    let answer = Client::without_session(&node.bridge, "legacy", None).call("act", json!({})).await;
    assert_eq!(sum(answer.expect("an answer")), "done");
    let answer = Client::modern(&node.bridge, "unknown", None).call("act", json!({})).await;
    assert_eq!(sum(answer.expect("an answer")), "done");
    let answer = Client::modern(&node.bridge, "modern", None).call("add", json!({ "a": 1, "b": 2 })).await;
    assert_eq!(sum(answer.expect("an answer")), "3");
    assert_eq!(node.count(TAKEN).await, 3, "each had one, and it was of no use");
}

#[tokio::test]
async fn a_server_that_ends_whenever_it_is_asked_fails_as_without_spares() {
    let home = Home::without_key();
    let failing = shell(&home, "read asked; exit 3", "hostile", &json!(1));
    let node = Node::start(home, &json!({ "s": failing }), &json!({}));
    node.until_waiting(1).await;
    let answer = Client::without_session(&node.bridge, "s", None).call("act", json!({})).await.expect("an answer");
    assert_eq!(answer.status, 502);
    assert!(answer.response().to_string().contains("ended before it answered"), "{answer:?}");
}

#[tokio::test]
async fn a_spare_that_is_too_old_is_replaced() {
    let home = Home::without_key();
    let servers = json!({ "s": describing(&home, &json!({ "count": 1, "maxAge": "2s" })) });
    let node = Node::start(home, &servers, &json!({}));
    node.until_waiting(1).await;
    let first = node.until_servers(1).await;
    node.until(&discarded("aged"), |aged| aged >= 1).await;
    let another = || Some(node.servers()).filter(|now| now.iter().any(|pid| !first.contains(pid)));
    procs::eventually(SETTLED, another).await.expect("another");
    assert_eq!(node.count(&discarded("ended")).await, 0, "it has not failed");
}

#[tokio::test]
async fn spares_are_ended_at_once_when_the_bridge_is_told_to_stop() {
    let home = Home::without_key();
    let stubborn = json!({
        "command": server("hostile"), "args": ["stubborn", "family=yes", format!("marker={}", home.marker())],
        "spares": 2, "eofGrace": "1m", "termGrace": "1m",
    });
    let mut node = Node::start(home, &json!({ "s": stubborn }), &json!({ "shutdownGrace": "2m" }));
    node.until_waiting(2).await;
    let began = Instant::now();
    assert!(node.bridge.stop().success());
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(node.servers(), [0; 0]);
}

#[tokio::test]
async fn spares_do_not_outlive_a_worker_that_is_killed() {
    let home = Home::without_key();
    let stubborn = json!({
        "command": server("hostile"), "args": ["stubborn", "family=yes", format!("marker={}", home.marker())], "spares": 2,
    });
    let mut node = Node::start(home, &json!({ "s": stubborn }), &json!({}));
    node.until_waiting(2).await;
    assert!(node.servers().len() >= 2);
    procs::kill(node.bridge.worker(), Signal::KILL);
    node.bridge.ended(SETTLED).expect("the supervisor ends, too");
    assert_eq!(node.servers(), [0; 0]);
}

#[tokio::test]
async fn what_a_spare_writes_belongs_to_nobody() {
    let home = Home::without_key();
    let talkative = shell(&home, "echo is-starting >&2; echo unasked; echo unasked", "hostile", &json!(1));
    let node = Node::start_with(home, &json!({ "s": talkative }), &json!({}), &[("TOLLBRIDGE_LOG", "debug")]);
    node.until_waiting(1).await;
    let answer = Client::modern(&node.bridge, "s", None).call("act", json!({})).await.expect("an answer");
    assert_eq!(answer.text(), "done");
    node.until("junk_lines_total", |lines| lines >= 2).await;
    let log = node.bridge.log_with("is-starting");
    let told: Vec<_> = log.lines().filter(|line| line.contains("is-starting")).collect();
    assert!(
        !told.is_empty() && told.iter().all(|line| line.contains("server=s") && !line.contains("alice")),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_spare_that_writes_without_end_is_ended_and_the_operator_is_told_once() {
    let home = Home::without_key();
    let flooding = shell(&home, "yes flooding >&2", "hostile", &json!(1));
    let node = Node::start(home, &json!({ "s": flooding }), &json!({}));
    node.until(&discarded("ended"), |ended| ended >= 5).await;
    let log = node.bridge.log_with("flooding");
    assert_eq!(log.matches("`spares` are of no use").count(), 1, "{log}");
    assert!(log.contains("flooding"), "with what it last wrote: {log}");
}

#[tokio::test]
async fn a_request_that_cannot_be_served_for_want_of_room_gets_that_of_a_spare() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = Home::without_key();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o711)).expect("ours");
    let as_other = |mut server: Value| {
        // One that others may pass to.
        let program = home.path().join("hostile");
        if !program.exists() {
            procs::copy_program(Path::new(server["command"].as_str().expect("a path")), &program);
        }
        server["command"] = json!(program);
        server["runAs"] = json!("41000-41001");
        server
    };
    let (mut with, mut without) = (as_other(describing(&home, &json!(2))), as_other(describing(&home, &json!(0))));
    for server in [&mut with, &mut without] {
        server["termGrace"] = json!("50ms");
    }
    let node = Node::start(home, &json!({ "with": with, "without": without }), &json!({}));
    node.until_waiting(2).await;
    let answer = Client::modern(&node.bridge, "without", None).call("act", json!({})).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(node.count(&discarded("room")).await, 1);
    node.until_waiting(2).await;
}

#[test]
fn doctor_starts_one_of_each_and_says_what_it_is_worth() {
    let home = Home::without_key();
    home.write(json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": {
        "good": describing(&home, &json!(2)), "without": describing(&home, &json!(0)),
        "leaves": shell(&home, "sleep 1; exit 3", "hostile", &json!(1)),
    } }));
    let output = home.output(&["doctor", "--spares", "--config", &home.config().to_string_lossy()], b"");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |name: &str| said.lines().find(|line| line.contains(&format!("spares of {name}:"))).map(str::to_owned);
    let good = of("good").unwrap_or_else(|| panic!("{said}"));
    assert!(good.starts_with("good") && good.contains("each waits for its client's first message"), "{good}");
    let leaves = of("leaves").unwrap_or_else(|| panic!("{said}"));
    assert!(leaves.starts_with("MISSING") && leaves.contains("they are of no use to this server"), "{leaves}");
    assert_eq!(of("without"), None);
    assert_eq!(procs::with_marker(home.marker()), [0; 0]);
}

#[test]
fn doctor_starts_each_server_once_and_says_what_it_is_and_takes() {
    let home = Home::new();
    let marker = format!("marker={}", home.marker());
    let (mut refuses, mut needs) =
        (shell(&home, "exit 3", "hostile", &json!(0)), shell(&home, "exit 3", "hostile", &json!(0)));
    refuses["eofGrace"] = "50ms".into();
    needs["env"] = json!({ "NOTES_TOKEN": { "$userToken": "<<token>>" } });
    home.write(json!({
        "identity": [{ "kind": "local", "user": "alice" }], "tokenStore": home.embedded(), "mcpServers": {
            "good": { "command": server("whoami"), "args": [marker], "env": { "NOTES_TOKEN": { "$userToken": "<<token>>" } } },
            "refuses": refuses, "needs": needs, "elsewhere": { "url": "http://127.0.0.1:1/mcp" },
            "asks": { "command": server("whoami"), "env": { "TEAM": { "$header": { "name": "X-Team", "format": "^[a-z]+$" } } } },
        },
    }));
    let output = home.output(&["doctor", "--servers", "--config", &home.config().to_string_lossy()], b"");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |name: &str| {
        let line = said.lines().find_map(|line| line.split_once(&format!("server {name}: ")));
        let (verdict, text) = line.unwrap_or_else(|| panic!("{said}"));
        (verdict.trim().to_owned(), text.to_owned())
    };
    let (verdict, good) = of("good");
    assert!(
        verdict == "good" && good.starts_with(concat!("whoami ", env!("CARGO_PKG_VERSION"), " speaks 20")),
        "{good}"
    );
    assert!(good.contains(" tools; it answered ") && good.ends_with(" MiB") && !good.contains(" 0 MiB"), "{good}");
    let what = |name| of(name).0;
    assert_eq!(
        (what("refuses"), what("needs"), what("elsewhere")),
        ("MISSING".into(), "weak".into(), "MISSING".into())
    );
    assert!(of("needs").1.contains("with a made-up token"), "{said}");
    assert!(of("asks").0 == "weak" && of("asks").1.contains("not started"), "nobody's request has the header: {said}");
    assert_eq!(procs::with_marker(home.marker()), [0; 0]);
    assert!(!said.contains("doctor-has-no-token") && output.status.code() == Some(1), "{said}");
}

#[tokio::test]
async fn a_server_without_spares_has_none_and_check_says_who_has() {
    let home = Home::without_key();
    let servers = json!({ "with": describing(&home, &json!(3)), "without": describing(&home, &json!(0)) });
    let node = Node::start(home, &servers, &json!({ "spares": 2 }));
    node.until_waiting(2).await;
    answering(&mut Client::modern(&node.bridge, "without", None)).await;
    assert_eq!((node.count(TAKEN).await, node.count(MISSED).await), (0, 0));
    let said = node.home.run(&["check", "--config", &node.home.config().to_string_lossy()], b"");
    let spares: Vec<_> = said.lines().filter(|line| line.contains("  spares  ")).collect();
    assert_eq!(spares.len(), 1, "{said}");
    assert!(spares[0].contains("2 of 3, by `limits.spares`: each waits for its client's first message"), "{said}");
}
