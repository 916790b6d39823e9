//! A private directory holds so much and no more.

use std::fs;

use serde_json::json;

use crate::support::unprivileged::FOR_RUN_AS;
use crate::support::{Bridge, Client, Home, Unprivileged, procs, server};
use crate::{SETTLED, config};

/// A call to `name` is answered with the sentence for a directory of `size` bytes.
async fn is_ended(bridge: &Bridge, name: &str, size: u64) {
    let answer = Client::modern(bridge, name, None).call("act", json!({})).await.expect("an answer");
    assert_eq!(answer.error_code(), Some(-32603), "{name}: {answer:?}");
    let sentence = format!("the server put more than {size} bytes, or too many files, into its private directory");
    assert!(answer.response().to_string().contains(&sentence), "{name}: {answer:?}");
}

#[tokio::test]
async fn a_server_that_fills_its_directory_is_ended_and_others_go_on() {
    let home = Home::without_key();
    let mut config = config(&home, &["fills", "then=wait"], &json!({ "requestTimeout": "60s" }));
    let servers = config["mcpServers"].as_object_mut().expect("an object");
    for (name, size, args) in [
        ("sized", json!("64MiB"), json!(["fills", "then=wait"])),
        ("small", json!("64MiB"), json!(["fills", "mib=8", "delay=500"])),
        ("other", json!(true), json!(["silent", home.marker()])),
    ] {
        servers.insert(name.into(), json!({ "command": server("hostile"), "args": args, "privateDirectory": size }));
        servers[name]["abandonedGrace"] = json!("0s");
    }
    let mut bridge = home.serve(config);
    let mut other = Client::modern(&bridge, "other", None);
    let connection = other.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted");
    let there = || procs::with_marker(home.marker()).first().copied();
    let runs = procs::eventually(SETTLED, there).await.expect("another request runs");
    let directory = fs::read_link(format!("/proc/{runs}/cwd")).expect("a directory");
    is_ended(&bridge, "s", 256 << 20).await;
    is_ended(&bridge, "sized", 64 << 20).await;
    let small = Client::modern(&bridge, "small", None).call("act", json!({})).await.expect("an answer");
    assert_eq!(small.text(), "8");
    assert_eq!(there(), Some(runs), "the other one goes on");
    let run = directory.parent().expect("that of the run");
    let left = || fs::read_dir(run).expect("ours").flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let only_that = || (left() == [directory.clone()]).then_some(());
    procs::eventually(SETTLED, only_that).await.expect("what the others wrote is removed");
    drop(connection);
    bridge.stop();
    assert!(!run.exists());
}

#[tokio::test]
async fn a_server_that_runs_as_another_hides_nothing_from_a_bridge_that_is_not_root() {
    let Some(home) = Unprivileged::new() else { return };
    let fields = json!({ "command": home.hostile(), "runAs": "61000-61999", "privateDirectory": "64MiB" });
    let bridge = home.serve(config(&home.0, &["fills", "then=wait"], &fields), FOR_RUN_AS);
    is_ended(&bridge, "s", 64 << 20).await;
}
