//! The same by a bridge that is not root: with the capabilities that `runAs` needs, or with none.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::unprivileged::{FOR_RUN_AS, USER};
use crate::support::{Bridge, Client, Unprivileged, procs};
use crate::{NO_CAPABILITY, SETTLED, capabilities, config, description, is_empty};

#[tokio::test]
async fn no_capability_of_a_bridge_that_is_not_root_reaches_a_server() {
    let Some(home) = Unprivileged::new() else { return };
    let mut config = config(&home.0, &["describe"], &json!({ "command": home.hostile() }));
    config["mcpServers"]["other"] = config["mcpServers"]["s"].clone();
    config["mcpServers"]["other"]["runAs"] = json!("61000-61999");
    let bridge = home.serve(config, FOR_RUN_AS);
    // By turns: what was handed on for one is not there for the next.
    for server in ["s", "other", "s", "other", "s"] {
        let answer = Client::modern(&bridge, server, None).call("act", json!({})).await.expect("an answer");
        let described: Value = serde_json::from_str(&answer.text()).expect("a description");
        let ids = &described["ids"];
        assert_eq!(capabilities(ids), NO_CAPABILITY, "{server}");
        assert_eq!(ids["NoNewPrivs"], if server == "s" { "0" } else { "1" }, "{server}");
        let own = format!("{USER}\t{USER}\t{USER}\t{USER}");
        assert_eq!(ids["Uid"] == own, server == "s", "{server}: {ids}");
        assert_eq!(described["wrote"], true, "{server}: its directory is its own");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", bridge.worker())).expect("it runs");
    assert!(status.contains("CapEff:\t00000000000000e1"), "the bridge itself keeps what it needs: {status}");
}

#[tokio::test]
async fn what_others_left_in_their_directories_is_removed_by_a_bridge_that_is_not_root() {
    let Some(home) = Unprivileged::new() else { return };
    let fields = json!({ "command": home.hostile(), "runAs": "61000-61999" });
    let mut config = config(&home.0, &["nests", "count=60"], &fields);
    config["mcpServers"]["describe"] = config["mcpServers"]["s"].clone();
    config["mcpServers"]["describe"]["args"] = json!(["describe"]);
    config["mcpServers"]["slow"] = config["mcpServers"]["s"].clone();
    config["mcpServers"]["slow"]["args"] = json!(["nests", "count=60", "then=wait", home.0.marker()]);
    let mut bridge = home.serve(config, FOR_RUN_AS);
    let answer = Client::modern(&bridge, "describe", None).call("act", json!({})).await.expect("an answer");
    let described: Value = serde_json::from_str(&answer.text()).expect("a description");
    let run = Path::new(described["directory"].as_str().expect("a path")).parent().expect("that of the run").to_owned();
    for _ in 0..3 {
        let answer = Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
        assert_eq!(answer.text(), "60");
    }
    procs::eventually(SETTLED, || is_empty(&run).then_some(())).await.expect("each is removed");
    let mut client = Client::modern(&bridge, "slow", None);
    let _connection = client.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted");
    let there = || (!is_empty(&run) && !procs::with_marker(home.0.marker()).is_empty()).then_some(());
    procs::eventually(SETTLED, there).await.expect("one is being filled");
    bridge.stop_at_once();
    assert!(!run.exists(), "and that of the run with the bridge");
}

#[tokio::test]
async fn nothing_of_other_users_outlives_a_bridge_that_is_not_root_and_is_killed() {
    let Some(home) = Unprivileged::new() else { return };
    let fields = json!({ "command": home.hostile(), "runAs": "61000-61999" });
    let config = config(&home.0, &["stubborn", "family=yes", "delay=100000"], &fields);
    for half in [Bridge::worker, Bridge::supervisor] {
        let mut bridge = home.serve(config.clone(), FOR_RUN_AS);
        let mut client = Client::modern(&bridge, "s", None);
        let _connection = client.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted");
        let there = || (procs::with_marker(home.0.marker()).len() == 4).then_some(());
        procs::eventually(SETTLED, there).await.expect("a server and its family");
        let server = procs::with_marker(home.0.marker())[0];
        let run = fs::read_link(format!("/proc/{server}/cwd")).expect("root sees it");
        let run = run.parent().expect("that of the run").to_owned();
        procs::kill(half(&bridge), Signal::KILL);
        let none = || (procs::with_marker(home.0.marker()).is_empty() && !run.exists()).then_some(());
        procs::eventually(SETTLED, none).await.expect("neither processes nor directories");
        bridge.ended(SETTLED).expect("the other half ends too");
    }
}

#[tokio::test]
async fn a_server_reads_nothing_of_a_bridge_of_its_own_user() {
    let Some(home) = Unprivileged::new() else { return };
    let mut config = config(&home.0, &[], &json!({ "command": home.hostile() }));
    let asked = home.serve(config.clone(), "");
    let bridges = [asked.worker(), asked.supervisor()];
    let names = ["environ", "mem", "maps", "fd/0", "auxv"];
    let files = bridges.iter().flat_map(|pid| names.map(|name| format!("/proc/{pid}/{name}")));
    let open = files.chain(["/proc/self/environ".to_owned()]).collect::<Vec<_>>().join(",");
    let lists = bridges.map(|pid| format!("/proc/{pid}/fd")).join(",");
    config["mcpServers"]["s"]["args"] =
        json!(["describe", format!("open={open}"), format!("list={lists}"), home.0.marker()]);
    let bridge = home.serve(config, "");
    let described = description(&bridge).await;
    assert_eq!(described["ids"]["Uid"], format!("{USER}\t{USER}\t{USER}\t{USER}"), "it is the same user");
    assert_eq!(described["readable"], json!(["/proc/self/environ"]));
    assert_eq!(described["listable"], json!([]), "what files it has open");
}

#[tokio::test]
async fn what_leaves_its_group_as_another_user_ends_with_its_own_request_not_with_an_older_one() {
    const CALLS: usize = 120;
    // Without privilege to change the limits of another user's process.
    let Some(home) = Unprivileged::new() else { return };
    let marker = format!("many={}", home.0.marker());
    let fields = json!({ "command": home.hostile(), "runAs": "61000-61999", "privateDirectory": false });
    let mut config = config(&home.0, &["polite", "family=yes", &marker], &fields);
    config["mcpServers"]["s"]["args"] = json!(["polite", "family=yes", format!("marker={marker}")]);
    config["mcpServers"]["older"] = config["mcpServers"]["s"].clone();
    config["mcpServers"]["older"]["args"] = json!(["silent", format!("older={}", home.0.marker())]);
    config["mcpServers"]["older"]["startTimeout"] = json!("5m");
    let bridge = home.serve(config, FOR_RUN_AS);
    let mut older = Client::modern(&bridge, "older", None);
    let _connection = older.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted");
    let running = format!("older={}", home.0.marker());
    let there = || (!procs::with_marker(&running).is_empty()).then_some(());
    procs::eventually(SETTLED, there).await.expect("an older request runs");
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        if number >= 24 {
            calls.join_next().await.expect("some are running").expect("no client panics");
        }
        let mut client = Client::modern(&bridge, "s", None);
        calls.spawn(async move {
            assert_eq!(client.call("act", json!({})).await.expect("an answer").text(), "done");
        });
    }
    calls.join_all().await;
    let none = || procs::with_marker(&marker).is_empty().then_some(());
    let gone = procs::eventually(SETTLED, none).await;
    assert!(gone.is_some(), "{} are left", procs::with_marker(&marker).len());
    assert!(there().is_some(), "the older request goes on");
}

/// Becomes its arguments as on a kernel before 6.4: with a filter of system calls that refuses `PR_GET_AUXV` as unknown.
const OLDER_KERNEL: &str = r#"
import ctypes, os, platform, struct, sys
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_GET_AUXV = 38, 22, 0x41555856
PRCTL = {"x86_64": 157, "aarch64": 167}[platform.machine()]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
code = [(LOAD, 0, 0, 0), (EQUAL, 0, 3, PRCTL), (LOAD, 0, 0, 16), (EQUAL, 0, 1, PR_GET_AUXV),
        (RETURN, 0, 0, 0x50000 | 22), (RETURN, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
filter = Filter(6, ctypes.addressof(code))
libc = ctypes.CDLL(None)
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(filter), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"#;

#[tokio::test]
async fn a_bridge_that_is_not_root_serves_on_a_kernel_that_does_not_tell_what_only_root_may_read() {
    let Some(home) = Unprivileged::new() else { return };
    let config = config(&home.0, &["polite"], &json!({ "command": home.hostile() }));
    let bridge = home.serve_through(config, "", &["python3", "-c", OLDER_KERNEL]);
    let answer = Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
    assert_eq!(answer.text(), "done");
}
