//! What a request's processes are confined to: a directory, a user, a control group.

mod confinement {
    mod directory_size;
    mod niceness;
    mod out_of_memory;
    mod stuck;
    mod without_root;
}
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Bridge, Client, Home, procs, server};

/// How long after a request something of it may still be there.
const SETTLED: Duration = Duration::from_mins(1);

fn config(home: &Home, behaviour: &[&str], fields: &Value) -> Value {
    let marker = format!("marker={}", home.marker());
    let arguments = [behaviour, &[marker.as_str()]].concat();
    let mut server = json!({ "command": server("hostile"), "args": arguments,
        "abandonedGrace": "0s", "eofGrace": "50ms", "termGrace": "50ms" });
    server.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": { "s": server } })
}

/// What the server `describe` says of itself.
async fn description(bridge: &Bridge) -> Value {
    let answer = Client::modern(bridge, "s", None).call("act", json!({})).await.expect("an answer");
    serde_json::from_str(&answer.text()).expect("a description")
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

#[tokio::test]
async fn each_request_works_in_a_directory_of_its_own_which_is_gone_afterwards() {
    let home = Home::without_key();
    let mut bridge = home.serve(config(&home, &["describe"], &json!({})));
    let (first, second) = (description(&bridge).await, description(&bridge).await);
    assert_ne!(first["directory"], second["directory"]);
    let directory = PathBuf::from(first["directory"].as_str().expect("a path"));
    assert_eq!(first["temporary"], first["directory"], "TMPDIR");
    assert_eq!(first["wrote"], true);
    let run = directory.parent().expect("that of the run").to_owned();
    procs::eventually(SETTLED, || is_empty(&run).then_some(())).await.expect("both are removed, with what is in them");
    bridge.stop();
    assert!(!run.exists(), "and that of the run with the bridge");
}

#[tokio::test]
async fn a_server_has_no_terminal_though_the_bridge_was_started_at_one() {
    let home = Home::without_key();
    home.write(config(&home, &["describe", "open=/dev/tty,/proc/self/environ"], &json!({})));
    // `script` runs it at a terminal of its own.
    let bridge = Bridge::start_under(&home, &["sh", "-c", r#"exec script -qec "exec $* 2>&-" /dev/null"#, "sh"], &[]);
    let field = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(4).map(str::to_owned))
    };
    assert_ne!(field(bridge.supervisor()).as_deref(), Some("0"), "there is a terminal to be had");
    assert_eq!(description(&bridge).await["readable"], json!(["/proc/self/environ"]));
}

#[tokio::test]
async fn a_server_with_a_working_directory_works_there() {
    let home = Home::without_key();
    let bridge = home.serve(config(&home, &["describe"], &json!({ "cwd": "/" })));
    assert_eq!(description(&bridge).await["directory"], "/");
    let bridge = home.serve(config(&home, &["describe"], &json!({ "cwd": "/", "privateDirectory": true })));
    let described = description(&bridge).await;
    assert_eq!(described["directory"], "/");
    assert!(described["temporary"].as_str().is_some_and(|path| path.contains("tollbridge-run-")), "{described}");
}

#[tokio::test]
async fn what_a_killed_bridge_leaves_in_the_file_system_the_next_one_removes() {
    let home = Home::without_key();
    // In a place of its own: each bridge that starts removes what it finds, those of other tests, too.
    let place = home.path().join("run");
    fs::create_dir(&place).expect("ours");
    let place = [("RUNTIME_DIRECTORY", place.to_str().expect("text"))];
    home.write(config(&home, &["describe"], &json!({})));
    let bridge = Bridge::start_in(&home, &place);
    let directory = description(&bridge).await["directory"].as_str().expect("a path").to_owned();
    let run = Path::new(&directory).parent().expect("that of the run").to_owned();
    let (worker, supervisor) = (bridge.worker(), bridge.supervisor());
    // Both at once, so that neither can tidy up.
    procs::kill(supervisor, Signal::STOP);
    procs::kill(worker, Signal::STOP);
    procs::kill(supervisor, Signal::KILL);
    procs::kill(worker, Signal::KILL);
    drop(bridge);
    assert!(run.exists(), "nobody was left to remove it");
    let next = Bridge::start_in(&home, &place);
    assert!(!run.exists());
    let own = description(&next).await["directory"].as_str().expect("a path").to_owned();
    let _another = Bridge::start_in(&home, &place);
    assert!(Path::new(&own).parent().expect("that of the run").exists(), "that of a bridge which lives stays");
}

#[tokio::test]
async fn a_server_that_nests_directories_beside_its_token_file_leaves_none_and_harms_nobody() {
    let home = Home::new();
    let mut config =
        config(&home, &["nests"], &json!({ "env": { "HOSTILE_TOKEN_FILE": { "$userTokenFile": "<<token>>" } } }));
    config["tokenStore"] = home.embedded();
    config["mcpServers"]["tells"] = config["mcpServers"]["s"].clone();
    config["mcpServers"]["tells"]["args"] = json!(["tells"]);
    home.write(config);
    home.set_token("alice", "s", "tok-1");
    home.set_token("alice", "tells", "tok-2");
    let bridge = Bridge::start_in(&home, &[]);
    for _ in 0..2 {
        let answer = Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
        assert_eq!(answer.text(), "15000");
    }
    let told = Client::modern(&bridge, "tells", None).call("act", json!({})).await.expect("the bridge goes on");
    let told: Value = serde_json::from_str(&told.text()).expect("JSON");
    assert_eq!(told["file"], "tok-2");
    let run = Path::new(told["path"].as_str().expect("a path")).ancestors().nth(2).expect("that of the run").to_owned();
    procs::eventually(SETTLED, || is_empty(&run).then_some(())).await.expect("nothing is left");
    drop(bridge);
    // A bridge that starts meanwhile may be looking whether there is anything to remove.
    procs::eventually(SETTLED, || (!run.exists()).then_some(())).await.expect("it goes with the bridge");
}

#[tokio::test]
async fn a_server_that_runs_as_another_can_read_nothing_of_the_bridge() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can start others as another user.
    }
    let home = Home::new();
    let secret = home.path().join("store");
    fs::create_dir(&secret).expect("a directory");
    let mut config = config(&home, &[], &json!({ "runAs": "61000-61999" }));
    config["tokenStore"] = home.embedded();
    // The worker's number is known only once it runs: the first bridge is asked about the second.
    let asked = home.serve(config.clone());
    let worker = asked.worker();
    let files = ["environ", "mem", "fd", "maps"].map(|name| format!("/proc/{worker}/{name}")).into_iter();
    let stored = fs::read_dir(home.path().join("data")).expect("a store").flatten();
    let stored = stored.map(|entry| entry.path().to_string_lossy().into_owned());
    let key = home.key().to_string_lossy().into_owned();
    let open = files.chain(stored).chain([key, "/proc/self/environ".into()]).collect::<Vec<_>>().join(",");
    config["mcpServers"]["s"]["args"] = json!(["describe", format!("open={open}"), home.marker()]);
    let bridge = home.serve(config);
    let described = description(&bridge).await;
    assert_eq!(described["readable"], json!(["/proc/self/environ"]), "{open}");
    let ids = &described["ids"];
    let uid: u32 = ids["Uid"].as_str().and_then(|ids| ids.split('\t').next()?.parse().ok()).expect("a user");
    assert!((61000..=61999).contains(&uid), "{ids}");
    assert_eq!(ids["Uid"], ids["Gid"]);
    assert_eq!((&ids["Groups"], &ids["NoNewPrivs"], &ids["Umask"]), (&json!(""), &json!("1"), &json!("0077")));
    assert_eq!(capabilities(ids), NO_CAPABILITY);
    assert_eq!(ids["CapBnd"], NO_CAPABILITY[0], "root can see to it that no file gives any either");
    assert_eq!(described["wrote"], true, "its directory is its own");
    assert_ne!(description(&bridge).await["ids"]["Uid"], ids["Uid"], "no two requests in a row are the same user");
}

/// Whether it has been started: before, its arguments are those of the bridge.
fn is_server(pid: u32) -> bool {
    procs::command_line(pid).first().is_some_and(|program| program.ends_with("hostile"))
}

const NO_CAPABILITY: [&str; 4] = ["0000000000000000"; 4];

/// What a process has of capabilities, as the kernel writes it.
fn capabilities(ids: &Value) -> [&str; 4] {
    ["CapEff", "CapPrm", "CapInh", "CapAmb"].map(|set| ids[set].as_str().expect("a set"))
}

#[tokio::test]
async fn nothing_stays_of_a_family_that_runs_as_another() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = Home::without_key();
    let bridge = home.serve(config(&home, &["stubborn", "family=yes"], &json!({ "runAs": "62000-62003", "pids": 20 })));
    for _ in 0..8 {
        Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
    }
    let none = || procs::with_marker(home.marker()).is_empty().then_some(());
    procs::eventually(SETTLED, none).await.expect("nothing is left");
}

#[tokio::test]
async fn a_daemon_that_takes_the_mark_of_the_next_request_ends_with_its_own() {
    if !rustix::process::geteuid().is_root() {
        return; // As another user it is marked before it runs.
    }
    let home = Home::without_key();
    let (daemon, next) = (format!("daemon={}", home.marker()), format!("next={}", home.marker()));
    let script = format!(
        "(ulimit -x $(($(ulimit -x) - 1)) && exec setsid bash -c 'sleep 100; :' {daemon} <&- >&- 2>&-) & exec {} silent",
        server("hostile")
    );
    let mut config = config(&home, &[], &json!({ "command": "bash", "runAs": "62200-62209" }));
    config["mcpServers"]["s"]["args"] = json!(["-c", script]);
    config["mcpServers"]["next"] = config["mcpServers"]["s"].clone();
    config["mcpServers"]["next"]["command"] = json!(server("hostile"));
    config["mcpServers"]["next"]["args"] = json!(["silent", next]);
    let bridge = home.serve(config);
    let call = json!({ "name": "act", "arguments": {} });
    let own = Client::modern(&bridge, "s", None).post("tools/call", call.clone()).await.expect("accepted");
    // Its own clock must have gone on, too.
    let settled = || {
        let pid = *procs::with_marker(&daemon).iter().find(|&&pid| procs::command_line(pid).contains(&daemon))?;
        let born = procs::Process::read(pid)?.started;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let ticks = now.tv_sec.unsigned_abs() * 100 + now.tv_nsec.unsigned_abs() / 10_000_000;
        (ticks > born).then_some(pid)
    };
    procs::eventually(SETTLED, settled).await.expect("it has left its group");
    let _next = Client::modern(&bridge, "next", None).post("tools/call", call).await.expect("accepted");
    // It is `tollbridge exec-as` first, and has no arguments for a moment while it becomes the server.
    let is_server = |&pid: &u32| procs::command_line(pid)[0] == server("hostile");
    let there = || procs::with_marker(&next).iter().any(is_server).then_some(());
    procs::eventually(SETTLED, there).await.expect("the next request runs");
    drop(own);
    let gone = || procs::with_marker(&daemon).is_empty().then_some(());
    procs::eventually(SETTLED, gone).await.expect("it ends with its own request");
    assert!(there().is_some(), "which is not the next one");
}

#[tokio::test]
async fn the_next_request_of_a_user_begins_only_when_nothing_is_left_of_the_one_before() {
    let home = Home::without_key();
    let mut config = config(&home, &["stubborn", "family=yes"], &json!({}));
    config["limits"] = json!({ "perUser": 1, "queue": "20s" });
    config["mcpServers"]["next"] = json!({ "command": server("hostile"), "args": ["polite"] });
    let bridge = home.serve(config);
    for _ in 0..5 {
        assert_eq!(Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer").text(), "done");
        assert_eq!(
            Client::modern(&bridge, "next", None).call("act", json!({})).await.expect("an answer").text(),
            "done"
        );
        let left: Vec<_> = procs::with_marker(home.marker()).into_iter().map(procs::command_line).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn a_fork_bomb_and_a_memory_hog_are_held_to_their_limits() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = Home::without_key();
    let bridge = home.serve(config(&home, &["bomb"], &json!({ "runAs": "61000-61009", "pids": 20 })));
    let answer = Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
    let started: u32 = answer.text().parse().expect("how many it could start");
    assert!((1..20).contains(&started), "{started} of 300");
    let none = || procs::with_marker(home.marker()).is_empty().then_some(());
    procs::eventually(SETTLED, none).await.expect("nothing is left");
    let growing = ["bomb", "grow=yes"];
    let bridge = home.serve(config(&home, &growing, &json!({ "runAs": "61000-61009", "pids": 40 })));
    for _ in 0..3 {
        Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
        procs::eventually(SETTLED, none).await.expect("nothing is left of what goes on forking");
    }
    for run_as in [json!({}), json!({ "runAs": "61000-61009" })] {
        let mut fields = json!({ "memory": "64MiB" });
        fields.as_object_mut().expect("an object").extend(run_as.as_object().expect("an object").clone());
        let bridge = home.serve(config(&home, &["hog"], &fields));
        let answer = Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
        assert_eq!(answer.error_code(), Some(-32603), "it was not given 512 MiB: {answer:?}");
    }
}

/// A new control group to make others in, if this machine has some and lets us.
struct Delegated(PathBuf);

impl Delegated {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let path = Path::new(mount.split(' ').nth(4)?).join(format!("tollbridge-test-{}", support::random_hex(8)));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    /// Every group below, however deep.
    fn groups(path: &Path) -> Vec<PathBuf> {
        let directories = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        directories.filter(|path| path.is_dir()).flat_map(|path| [Self::groups(&path), vec![path]].concat()).collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let left = Self::groups(&self.0);
        for path in &left {
            let _ = fs::remove_dir(path);
        }
        let removed = fs::remove_dir(&self.0);
        assert!(std::thread::panicking() || (left.is_empty() && removed.is_ok()), "groups are left: {left:?}");
    }
}

#[tokio::test]
async fn a_request_in_a_control_group_leaves_neither_processes_nor_the_group() {
    let home = Home::without_key();
    let Some(delegated) = Delegated::new() else { return };
    home.write(config(&home, &["stubborn", "family=yes"], &json!({})));
    let place = delegated.0.to_string_lossy().into_owned();
    let mut bridge = Bridge::start_with(&home, &[], &["--cgroup", &place]);
    let log = bridge.log_with("each request has a control group");
    assert!(log.contains("each request has a control group"), "{log}");
    let mut client = Client::modern(&bridge, "s", None);
    for _ in 0..10 {
        assert_eq!(client.call("act", json!({})).await.expect("an answer").text(), "done");
    }
    let left = || {
        Delegated::groups(&delegated.0)
            .into_iter()
            .filter(|path| path.parent().is_some_and(|p| p.ends_with("requests")))
    };
    let none = || (procs::with_marker(home.marker()).is_empty() && left().next().is_none()).then_some(());
    procs::eventually(SETTLED, none).await.expect("neither processes nor groups");
    let zombies = || procs::zombies(bridge.supervisor()).is_empty().then_some(());
    procs::eventually(SETTLED, zombies).await.expect("all are reaped");
    bridge.stop();
}

#[tokio::test]
async fn a_bridge_with_control_groups_that_is_killed_leaves_none() {
    let home = Home::without_key();
    let Some(delegated) = Delegated::new() else { return };
    home.write(config(&home, &["stubborn", "family=yes", "delay=100000"], &json!({})));
    let place = delegated.0.to_string_lossy().into_owned();
    let mut bridge = Bridge::start_with(&home, &[], &["--cgroup", &place]);
    let mut client = Client::modern(&bridge, "s", None);
    let _connection = client.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted");
    let there = || (procs::with_marker(home.marker()).len() == 4).then_some(());
    procs::eventually(SETTLED, there).await.expect("a server and its family");
    let member = procs::with_marker(home.marker())[0];
    let membership = fs::read_to_string(format!("/proc/{member}/cgroup")).expect("a process");
    assert!(membership.contains("/requests/"), "{membership}");
    procs::kill(bridge.worker(), Signal::KILL);
    bridge.ended(SETTLED).expect("the supervisor ends");
    assert!(procs::with_marker(home.marker()).is_empty());
}

#[tokio::test]
async fn a_program_that_cannot_be_started_in_a_control_group_says_why() {
    let home = Home::without_key();
    let Some(delegated) = Delegated::new() else { return };
    let program = home.path().join("garbage");
    procs::write_program(&program, "neither ELF nor script");
    home.write(config(&home, &[], &json!({ "command": program })));
    let place = delegated.0.to_string_lossy().into_owned();
    let mut bridge = Bridge::start_with(&home, &[], &["--cgroup", &place]);
    let answer = Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
    assert_eq!(answer.status, 502);
    assert!(answer.response().to_string().contains("neither an executable"), "{answer:?}");
    assert!(procs::zombies(bridge.supervisor()).is_empty());
    bridge.stop();
}

#[test]
fn the_doctor_says_what_holds_and_ends_with_1_if_something_asked_for_does_not() {
    let home = Home::without_key();
    let path = home.write(config(&home, &["polite"], &json!({})));
    let doctor = |cgroup: &str| {
        let output = home.output(&["doctor", "--config", &path.to_string_lossy(), "--cgroup", cgroup], b"");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, said) = doctor("off");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("process trees: each request has a process group"), "{said}");
    assert!(said.contains("control groups are switched off"), "{said}");
    home.write(config(&home, &["polite"], &json!({ "cpus": 0.5 })));
    let (code, said) = doctor("off");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("MISSING     `cpus` of s"), "{said}");
    if let Some(delegated) = Delegated::new() {
        let (_, said) = doctor(&delegated.0.to_string_lossy());
        assert!(said.contains("each request has a control group"), "{said}");
    }
}
