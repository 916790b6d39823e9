//! Whom the kernel ends when memory runs out.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::thread::{CapabilitySet, capabilities};
use serde_json::json;

use crate::support::{self, Client, Home, procs, server};
use crate::{SETTLED, config, is_server};

#[tokio::test]
async fn a_server_is_to_be_ended_before_the_bridge_when_memory_runs_out() {
    let value =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("a process").trim().to_owned();
    let mut cases = vec![(json!({}), "500"), (json!({ "oomScoreAdj": 700 }), "700")];
    if rustix::process::geteuid().is_root() {
        cases.push((json!({ "oomScoreAdj": 800, "runAs": "62310" }), "800"));
    }
    for (fields, expected) in cases {
        let home = Home::without_key();
        let bridge = home.serve(config(&home, &["silent"], &fields));
        let call = json!({ "name": "act", "arguments": {} });
        let _call = Client::modern(&bridge, "s", None).post("tools/call", call).await.expect("accepted");
        let own = || procs::with_marker(home.marker()).first().copied().filter(|&pid| is_server(pid));
        let pid = procs::eventually(SETTLED, own).await.expect("it runs");
        let is_set = || (value(pid) == expected).then_some(());
        procs::eventually(SETTLED, is_set).await.unwrap_or_else(|| panic!("{fields}: {}", value(pid)));
        let own = capabilities(None).expect("the system tells").effective;
        let lowered =
            if own.contains(CapabilitySet::SYS_RESOURCE) { "-500".to_owned() } else { value(std::process::id()) };
        assert_eq!([value(bridge.supervisor()), value(bridge.worker())], [lowered.clone(), lowered]);
    }
}

/// In a group of the first version, which the test can put the bridge into after its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_memory_runs_out_servers_are_ended_and_the_bridge_goes_on() {
    let home = Home::without_key();
    let Some(group) = LittleMemory::new() else { return };
    // Each is smaller than the bridge, and together they are too large.
    let mut config = config(&home, &["hog", "among=24", "mib=8"], &json!({}));
    config["mcpServers"]["polite"] = json!({ "command": server("hostile"), "args": ["polite"] });
    let bridge = home.serve(config);
    let worker = bridge.worker();
    group.take(bridge.supervisor());
    group.take(worker);
    Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
    assert!(group.ended() > 0, "there was memory for all");
    let answer = Client::modern(&bridge, "polite", None).call("act", json!({})).await.expect("the bridge goes on");
    assert_eq!((answer.text().as_str(), bridge.worker()), ("done", worker));
}

/// A control group with little memory, if this machine has such.
struct LittleMemory(PathBuf);

impl LittleMemory {
    fn new() -> Option<Self> {
        const BYTES: u64 = 128 << 20;
        let path = Path::new("/sys/fs/cgroup/memory").join(format!("tollbridge-test-{}", support::random_hex(8)));
        fs::create_dir(&path).ok()?;
        let group = Self(path);
        fs::write(group.0.join("memory.limit_in_bytes"), BYTES.to_string()).ok()?;
        // Where there is no swap there is nothing to limit.
        let _ = fs::write(group.0.join("memory.memsw.limit_in_bytes"), BYTES.to_string());
        Some(group)
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("ours");
    }

    /// How many processes the kernel has ended in it.
    fn ended(&self) -> u32 {
        let control = fs::read_to_string(self.0.join("memory.oom_control")).expect("ours");
        let count = control.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).expect("a count")
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write("/sys/fs/cgroup/memory/cgroup.procs", pid);
        }
        procs::wait_for(SETTLED, || fs::remove_dir(&self.0).ok());
    }
}
