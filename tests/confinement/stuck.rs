//! Servers that cannot be ended in the usual way: what they were given comes back all the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{self, Bridge, Client, Home, procs, server};
use crate::{SETTLED, config, is_server};

/// Within the sum of its graces and a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_joins_another_process_group_is_ended_in_time_and_gives_its_permit_back() {
    const IN_TIME: Duration = Duration::from_millis(1100);
    let users = [json!({}), json!({ "runAs": "62300-62309" })];
    let users = users.iter().take(if rustix::process::geteuid().is_root() { 2 } else { 1 });
    for (user, joins) in users.flat_map(|user| ["joins=parent", "joins=sibling"].map(|joins| (user, joins))) {
        procs::in_time(IN_TIME, async || {
            let (home, admin, sibling) = (Home::without_key(), support::free_address(), support::random_hex(8));
            let mut config = config(&home, &["stubborn", joins], user);
            config["admin"] = json!({ "listen": admin.to_string() });
            config["mcpServers"]["sibling"] = json!({ "command": server("hostile"), "args": ["silent", sibling] });
            let bridge = home.serve(config);
            let call = json!({ "name": "act", "arguments": {} });
            let _sibling = Client::modern(&bridge, "sibling", None).post("tools/call", call).await.expect("accepted");
            let other = || procs::with_marker(&sibling).first().copied();
            let other = procs::eventually(SETTLED, other).await.expect("it runs");
            let answer = Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
            assert_eq!(answer.text(), "done");
            let answered = Instant::now();
            while support::metric(admin, "tollbridge_permits").await != Some(1.0) {
                assert!(answered.elapsed() < SETTLED, "{user} {joins}: its permit is held\n{}", bridge.log());
            }
            let took = answered.elapsed();
            assert!(procs::with_marker(home.marker()).is_empty(), "{user} {joins}");
            assert!(procs::command_line(other).len() > 1, "{user} {joins}: the other one goes on");
            took
        })
        .await;
    }
}

/// Supervisor and worker at once, so that neither can end anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_bridge_that_died_as_a_whole_left_running_the_next_one_ends_and_nothing_else() {
    /// The server and its grandchildren.
    const FAMILY: usize = 4;
    let behaviour = ["stubborn", "family=yes", "delay=100000"];
    let homes = [Home::without_key(), Home::without_key()];
    // In a place of its own: each bridge that starts looks for dead ones where others may have left theirs.
    let places = homes.each_ref().map(|home| home.path().join("run"));
    for place in &places {
        fs::create_dir(place).expect("ours");
    }
    let start = |at: usize| {
        homes[at].write(config(&homes[at], &behaviour, &json!({})));
        Bridge::start_in(&homes[at], &[("RUNTIME_DIRECTORY", places[at].to_str().expect("text"))])
    };
    let bridges = [start(0), start(1)];
    let mut calls = Vec::new();
    for (bridge, home) in bridges.iter().zip(&homes) {
        let call = json!({ "name": "act", "arguments": {} });
        calls.push(Client::modern(bridge, "s", None).post("tools/call", call).await.expect("accepted"));
        let all = || (procs::with_marker(home.marker()).len() == FAMILY).then_some(());
        procs::eventually(SETTLED, all).await.expect("all are there");
    }
    let [dead, _living] = &bridges;
    let halves = [dead.supervisor(), dead.worker()];
    for signal in [Signal::STOP, Signal::KILL] {
        for half in halves {
            procs::kill(half, signal);
        }
    }
    let ended = || halves.iter().all(|&half| procs::Process::read(half).is_none_or(|it| it.is_zombie())).then_some(());
    procs::eventually(SETTLED, ended).await.expect("both are gone");
    assert_eq!(procs::with_marker(homes[0].marker()).len(), FAMILY, "nobody was left to end them");
    let next = start(0);
    assert_eq!(procs::with_marker(homes[0].marker()).len(), 0, "{}", next.log());
    assert_eq!(procs::with_marker(homes[1].marker()).len(), FAMILY, "those of a bridge that lives stay");
}

/// As a process in a disk that does not answer: a group of the first version of the freezer holds back even SIGKILL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_in_the_kernel_gives_its_permit_back_and_is_ended_when_it_can_be() {
    let home = Home::without_key();
    let Some(freezer) = Freezer::new() else { return };
    let admin = support::free_address();
    let mut config = config(&home, &["silent"], &json!({ "requestTimeout": "5s" }));
    config["admin"] = json!({ "listen": admin.to_string() });
    let bridge = home.serve(config);
    let call = json!({ "name": "act", "arguments": {} });
    let mut client = Client::modern(&bridge, "s", None);
    let asked = client.request("tools/call", call);
    let freeze = async {
        let own = || procs::with_marker(home.marker()).first().copied().filter(|&pid| is_server(pid));
        let pid = procs::eventually(SETTLED, own).await.expect("it runs");
        freezer.freeze(pid);
        pid
    };
    let (answer, pid) = tokio::join!(asked, freeze);
    assert!(answer.expect("an answer").error_code().is_some());
    let zero = async |metric| support::metric(admin, metric).await == Some(0.0);
    let answered = Instant::now();
    while !zero("tollbridge_permits").await {
        assert!(answered.elapsed() < SETTLED, "its permit is held\n{}", bridge.log());
    }
    assert_eq!(support::metric(admin, "tollbridge_servers_overdue_total").await, Some(1.0));
    assert_eq!(support::metric(admin, "tollbridge_live_children").await, Some(1.0));
    assert_eq!(support::metric(admin, "tollbridge_live_requests").await, Some(0.0));
    let log = bridge.log_with("have not ended though they were killed");
    assert!(log.contains("have not ended though they were killed"), "{log}");
    let hung = procs::Process::read(pid).expect("nothing can end it");
    freezer.thaw();
    procs::eventually(SETTLED, || {
        procs::Process::read(pid).is_none_or(|now| now.started != hung.started).then_some(())
    })
    .await
    .expect("it is ended, and reaped");
    let thawed = Instant::now();
    while !zero("tollbridge_live_children").await {
        assert!(thawed.elapsed() < SETTLED, "{}", bridge.log());
    }
}

/// A control group that can stop processes, if this machine has such.
struct Freezer(PathBuf);

impl Freezer {
    fn new() -> Option<Self> {
        let path = Path::new("/sys/fs/cgroup/freezer").join(format!("tollbridge-test-{}", support::random_hex(8)));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn freeze(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("ours");
        fs::write(self.0.join("freezer.state"), "FROZEN").expect("ours");
        let frozen = || fs::read_to_string(self.0.join("freezer.state")).ok().filter(|state| state.trim() == "FROZEN");
        procs::wait_for(SETTLED, frozen).expect("it can be stopped");
    }

    fn thaw(&self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        procs::wait_for(SETTLED, || fs::remove_dir(&self.0).ok());
    }
}
