//! The bridge as the first process of a container: everything there falls to it, and no signal has a default.

mod support;

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::{Bridge, Client, Home, procs, server};

/// How long to wait for what follows by itself.
const SETTLED: Duration = Duration::from_mins(1);

/// A bridge whose supervisor is number 1 of a process namespace, if this machine lets us make one.
fn first_process(home: &Home) -> Option<Bridge> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let marker = format!("marker={}", home.marker());
    home.write(json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": {
        "s": { "command": server("hostile"), "args": ["stubborn", "family=yes", marker],
            "abandonedGrace": "0s", "eofGrace": "50ms", "termGrace": "50ms" } } }));
    let bridge = Bridge::start_under(home, &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"], &[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", bridge.supervisor())).expect("a process");
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("its numbers");
    assert_eq!(numbers.split_whitespace().next_back(), Some("1"), "{numbers}");
    Some(bridge)
}

async fn act(bridge: &Bridge) {
    let answer = Client::modern(bridge, "s", None).call("act", json!({})).await.expect("an answer");
    assert_eq!(answer.text(), "done");
}

#[tokio::test]
async fn the_first_process_reaps_everything_and_stops_when_it_is_told_to() {
    let home = Home::without_key();
    let Some(mut bridge) = first_process(&home) else { return };
    for _ in 0..5 {
        act(&bridge).await;
    }
    let nothing = || (procs::with_marker(home.marker()).is_empty() && bridge.children().is_empty()).then_some(());
    procs::eventually(SETTLED, nothing).await.expect("neither a server nor a zombie is left");
    assert_eq!(bridge.stop().code(), Some(0));
}

#[tokio::test]
async fn what_others_start_in_the_container_is_reaped_by_the_first_process() {
    let home = Home::without_key();
    let Some(bridge) = first_process(&home) else { return };
    let pid = bridge.supervisor().to_string();
    // As `docker exec` does it; what is left behind by the shell falls to number 1.
    let entered = Command::new("nsenter")
        .args(["--target", &pid, "--pid", "--mount", "sh", "-c", "sleep 100 & exit"])
        .stdin(std::process::Stdio::null())
        .status()
        .expect("nsenter runs");
    assert!(entered.success(), "{entered:?}");
    let sleeper = || procs::children(bridge.supervisor()).into_iter().find(|process| process.name == "sleep");
    let stranger = procs::eventually(SETTLED, sleeper).await.expect("it fell to number 1");
    act(&bridge).await;
    procs::kill(stranger.pid, Signal::TERM);
    procs::eventually(SETTLED, || sleeper().is_none().then_some(())).await.expect("it is no zombie");
}

#[tokio::test]
async fn nothing_outlives_the_worker_of_the_first_process() {
    let home = Home::without_key();
    let Some(mut bridge) = first_process(&home) else { return };
    act(&bridge).await;
    procs::kill(bridge.worker(), Signal::KILL);
    let ended = bridge.ended(SETTLED).expect("the supervisor ends, and everything with it");
    assert_eq!(ended.code(), Some(128 + 9));
    assert!(procs::with_marker(home.marker()).is_empty());
}
